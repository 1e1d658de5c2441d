"""Stage 04 and its peers at every size of cluster: ARI and predicted number of clusters on labelled features.

    python benchmarks/clustering_quality.py                        the public digits of scikit-learn
    python benchmarks/clustering_quality.py bags                   features and labels in data/bags/
    python benchmarks/clustering_quality.py a.npz --known=b.npz    files with `features`, `images` (label_x_y.jpg)
    python benchmarks/clustering_quality.py a.npz --peers=stage    stage 04 alone
    python benchmarks/clustering_quality.py --growth               seconds of the whole stage by number of images

Regimes: all images; 2, 5, 10 and 30 of each model; a heavy tail of sizes (60, 34, 25 ... 1); mostly single photographs;
one model alone. `--known` names labelled features of other models, as stage 02 leaves them in known_features.npz.
Peers are told nothing but where it says so. UMAP (umap-learn) and FINCH (finch-clust) take part where installed.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import igraph
import numpy as np
from sklearn.cluster import HDBSCAN, AgglomerativeClustering, KMeans
from sklearn.datasets import load_digits
from sklearn.metrics import adjusted_rand_score
from sklearn.neighbors import NearestNeighbors

PROJECT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(PROJECT))

from pipeline.dataset import read_features  # noqa: E402
from pipeline.machinery import files, paths  # noqa: E402

Way = Callable[[np.ndarray, int], np.ndarray]  # directions (n, n_features) and the true number -> clusters (n,)
MOST_IMAGES = 4000  # of more images, the peers that look at all pairs are left out


def load(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return features (n, n_features) float32 and labels (n,) of an .npz file, a data set, or "digits"."""
    if name == "digits":
        digits = load_digits()
        return digits.data.astype(np.float32), digits.target
    if name.endswith(".npz"):
        with np.load(name, allow_pickle=False) as stored:
            return stored["features"].astype(np.float32), np.array([str(i).split("_")[0] for i in stored["images"]])
    features, img_paths = read_features(name)
    rows = files.read_csv(paths.data_dir(name) / "labels_true.csv", ["image", "label"], "00.make_labels_true.py")
    label_of = {row["image"]: row["label"] for row in rows}
    return np.array(features, np.float32), np.array([label_of[image] for image in img_paths])


def regimes(labels: np.ndarray, seed: int) -> Iterator[tuple[str, np.ndarray]]:
    """Give each regime's name and its rows, drawn at random."""
    rng = np.random.default_rng(seed)
    rows_of = [rng.permutation(np.flatnonzero(labels == model)) for model in rng.permutation(np.unique(labels))]
    yield "all", np.arange(len(labels))
    for size in (2, 5, 10, 30):
        if np.median([len(rows) for rows in rows_of]) >= size:
            yield f"{size} of each", np.concatenate([rows[:size] for rows in rows_of])
    yield "heavy tail", np.concatenate([rows[: max(1, int(60 / (i + 1) ** 0.8))] for i, rows in enumerate(rows_of)])
    sizes = [1 if i % 10 < 7 else 2 if i % 10 < 9 else 12 for i in range(len(rows_of))]
    yield "mostly single", np.concatenate([rows[:size] for rows, size in zip(rows_of, sizes, strict=True)])
    yield "one model", max(rows_of, key=len)


def run_stage(features: np.ndarray, known: tuple[np.ndarray, np.ndarray] | None) -> np.ndarray:
    """Return the clusters of the whole stage 04, run as a program on files in a folder of its own."""
    with tempfile.TemporaryDirectory() as root:
        folder, model_folder = Path(root, "data", "set"), Path(root, "model", "known")
        folder.mkdir(parents=True)
        np.save(folder / "features.npy", features)
        (folder / "img_paths.txt").write_text("".join(f"{row}.jpg\n" for row in range(len(features))))
        if known is not None:
            model_folder.mkdir(parents=True)
            np.savez(model_folder / "known_features.npz", features=known[0], labels=known[1].astype(str))
        command = [sys.executable, str(PROJECT / "04.clustering_som.py"), "--DATASET=set", "--TRAIN_DATASET=known"]
        subprocess.run(command, env={**os.environ, "IMAGE_CLUSTER_ROOT": root}, check=True, capture_output=True)
        return np.load(folder / "labels_pred.npy", allow_pickle=False)


def to_graph(data: np.ndarray, k: int) -> igraph.Graph:
    """Return the graph that links each image with its k nearest ones; the weight counts both directions."""
    k = min(k, len(data) - 1)
    near = NearestNeighbors(n_neighbors=k + 1).fit(data).kneighbors(data, return_distance=False)[:, 1:]
    graph = igraph.Graph(n=len(data), edges=np.column_stack([np.repeat(np.arange(len(data)), k), near.ravel()]))
    graph.es["weight"] = 1.0
    return graph.simplify(combine_edges="sum")


def leiden(data: np.ndarray, n_true: int) -> np.ndarray:
    return np.array(to_graph(data, 10).community_leiden("modularity", weights="weight", n_iterations=5).membership)


def infomap(data: np.ndarray, n_true: int) -> np.ndarray:
    return np.array(to_graph(data, 10).community_infomap(edge_weights="weight", trials=3).membership)


def hdbscan(data: np.ndarray, n_true: int) -> np.ndarray:
    """HDBSCAN with clusters of 2 images or more; noise counts as single images."""
    found = HDBSCAN(min_cluster_size=min(5, len(data) // 2), copy=True).fit_predict(data)
    return np.where(found < 0, found.max() + 1 + np.arange(len(found)), found)


def average_linkage(data: np.ndarray, n_true: int) -> np.ndarray:
    return AgglomerativeClustering(n_true, metric="cosine", linkage="average").fit_predict(data)


def k_means(data: np.ndarray, n_true: int) -> np.ndarray:
    return KMeans(n_true, n_init=3, random_state=0).fit_predict(data)


def peers() -> dict[str, Way]:
    """Return the peers that can run here."""
    ways: dict[str, Way] = {
        "average linkage, told": average_linkage,
        "K-means, told": k_means,
        "HDBSCAN": hdbscan,
        "Leiden, 10 images": leiden,
        "Infomap, 10 images": infomap,
    }
    try:
        import umap

        def umap_hdbscan(data: np.ndarray, n_true: int) -> np.ndarray:
            near = min(15, len(data) - 1)
            return hdbscan(umap.UMAP(n_neighbors=near, min_dist=0.0, random_state=0).fit_transform(data), n_true)

        ways["UMAP + HDBSCAN"] = umap_hdbscan
    except ImportError:
        print("UMAP is left out: pip install umap-learn")
    try:
        from finch import FINCH

        # the second level is the one that its authors report most
        ways["FINCH, level 2"] = lambda data, n_true: FINCH(data, verbose=False)[0][:, :2][:, -1]
    except ImportError:
        print("FINCH is left out: pip install finch-clust")
    return ways


def compare(name: str, known_name: str | None, chosen: dict[str, Way]) -> None:
    """Print ARI and number of clusters of stage 04 and the chosen peers in each regime of one set."""
    features, labels = load(name)
    known = load(known_name) if known_name else None
    for regime, rows in regimes(labels, seed=0):
        rows = np.sort(rows)
        data = features[rows] / np.maximum(np.linalg.norm(features[rows], axis=1, keepdims=True), 1e-12)
        data = data - data.mean(axis=0)
        data /= np.maximum(np.linalg.norm(data, axis=1, keepdims=True), 1e-12)
        n_true = len(np.unique(labels[rows]))
        print(f"\n{name}, {regime}: {len(rows)} images, {n_true} models")
        usable = chosen if len(rows) <= MOST_IMAGES and n_true > 1 else {}
        ways: dict[str, Way] = {"stage 04": lambda _, n, rows=rows: run_stage(features[rows], known), **usable}
        for way, cluster in ways.items():
            begin = time.perf_counter()
            found = cluster(data, n_true)
            seconds = time.perf_counter() - begin
            ari = adjusted_rand_score(labels[rows], found)
            print(f"  {way:22s} ARI {ari:6.3f}  clusters {len(np.unique(found)):5d}  {seconds:6.1f} s", flush=True)


def growth() -> None:
    """Print the seconds of the whole stage for more and more images of 64 features, 50 of each model."""
    print("\nwhole stage, 64 features\n     images   seconds   ms per image   clusters (true)")
    for n_images in (2_500, 5_000, 10_000, 20_000, 40_000):
        rng = np.random.default_rng(0)
        centres = rng.standard_normal((n_images // 50, 64)).astype(np.float32)
        features = np.repeat(centres, 50, axis=0) + 0.7 * rng.standard_normal((n_images, 64), dtype=np.float32)
        begin = time.perf_counter()
        clusters = run_stage(features, None)
        seconds = time.perf_counter() - begin
        number = f"{len(set(clusters))} ({n_images // 50})"
        print(f"  {n_images:9d} {seconds:9.1f} {1000 * seconds / n_images:14.2f}   {number}", flush=True)


def main() -> None:
    names = [argument for argument in sys.argv[1:] if not argument.startswith("--")]
    known = next((a.removeprefix("--known=") for a in sys.argv[1:] if a.startswith("--known=")), None)
    if "--growth" in sys.argv:
        growth()
        return
    chosen = {} if "--peers=stage" in sys.argv else peers()
    for name in names or ["digits"]:
        compare(name, known, chosen)


if __name__ == "__main__":
    main()
