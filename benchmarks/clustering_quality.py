"""Stage 04 against other ways to cluster the same features: ARI, predicted number of clusters, seconds.

    python benchmarks/clustering_quality.py                                  all sets of ../shared/features
    python benchmarks/clustering_quality.py catalogue_train sample           some of them, or a data set of stage 03
    python benchmarks/clustering_quality.py --growth                         seconds of the whole stage by n_images

Ways: the whole of stage 04 as its own process (its start of about two seconds included); K-means with K = N / 70 (the
2019 baseline) and told the true number (mean of three seeds); Ward on the images told the true number; HDBSCAN
(min_cluster_size 5); Infomap on 10 nearest images; a SOM of 5 sqrt(N) units where each unit is a cluster (the 2019
way). All take features of length 1. A name is that of an .npz with `features` and `images` in ../shared/features, or of
a folder data/<name>/ with features.npy, img_paths.txt and labels_true.csv; what is not there is left out, with a word.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import igraph
import numpy as np
from sklearn.cluster import HDBSCAN, AgglomerativeClustering, KMeans
from sklearn.metrics import adjusted_rand_score
from sklearn.neighbors import NearestNeighbors

PROJECT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(PROJECT))

from pipeline import som  # noqa: E402
from pipeline.dataset import read_features  # noqa: E402
from pipeline.machinery import files, paths  # noqa: E402

SHARED = PROJECT.parent / "shared" / "features"
SETS = ("catalogue_train", "catalogue_test", "photos_train", "photos_test", "sample")


def load(name: str) -> tuple[np.ndarray, np.ndarray] | None:
    """Features (n, n_features) float32 and labels (n,) of a set; None where it is not there."""
    if (SHARED / f"{name}.npz").exists():
        with np.load(SHARED / f"{name}.npz", allow_pickle=False) as stored:
            labels = np.array([str(image).split("_")[0] for image in stored["images"]])
            return stored["features"].astype(np.float32), labels
    folder = paths.data_dir(name)
    if not (folder / "features.npy").exists() or not (folder / "labels_true.csv").exists():
        return None
    features, img_paths = read_features(name)
    rows = files.read_csv(folder / "labels_true.csv", ["image", "label"], "00.make_labels_true.py")
    label_of = {row["image"]: row["label"] for row in rows}
    return np.array(features, np.float32), np.array([label_of[image] for image in img_paths])


def stage_04(features: np.ndarray) -> np.ndarray:
    """Clusters of the whole stage, run as a program on files in a folder of its own."""
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root, "data", "set")
        folder.mkdir(parents=True)
        np.save(folder / "features.npy", features)
        (folder / "img_paths.txt").write_text("".join(f"{row}.jpg\n" for row in range(len(features))))
        command = [sys.executable, str(PROJECT / "04.clustering_som.py"), "--DATASET=set"]
        subprocess.run(command, env={**os.environ, "IMAGE_CLUSTER_ROOT": root}, check=True, capture_output=True)
        return np.load(folder / "labels_pred.npy", allow_pickle=False)


def k_means(data: np.ndarray, n_clusters: int, seed: int) -> np.ndarray:
    return KMeans(n_clusters, n_init=3, random_state=seed).fit_predict(data)


def infomap(data: np.ndarray) -> np.ndarray:
    near = NearestNeighbors(n_neighbors=11).fit(data).kneighbors(data, return_distance=False)[:, 1:]
    edges = np.column_stack([np.repeat(np.arange(len(data)), 10), near.ravel()])
    graph = igraph.Graph(n=len(data), edges=edges)
    graph.es["weight"] = 1.0
    return np.array(graph.simplify(combine_edges="sum").community_infomap(edge_weights="weight", trials=3).membership)


def unit_is_cluster(data: np.ndarray) -> np.ndarray:
    side = max(1, round((5 * len(data) ** 0.5) ** 0.5))
    grid = som.new_map(side, side, data.shape[1], "rectangular", 0)
    som.initialise(grid, data, "pca", 0)
    som.train_batch(grid, data, 10)
    return som.assign(grid, data)[0][:, 0]


def compare(name: str, features: np.ndarray, labels: np.ndarray) -> None:
    """Print a table of all ways on one set."""
    data = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    n_true = len(set(labels))
    ways = {
        "stage 04": [lambda: stage_04(features)],
        "K-means, N / 70": [lambda s=s: k_means(data, max(2, len(data) // 70), s) for s in range(3)],
        "K-means, told": [lambda s=s: k_means(data, n_true, s) for s in range(3)],
        "Ward, told": [lambda: AgglomerativeClustering(n_true).fit_predict(data)],
        "HDBSCAN": [lambda: HDBSCAN(min_cluster_size=5, copy=True).fit_predict(data)],
        "Infomap, 10 images": [lambda: infomap(data)],
        "SOM, unit = cluster": [lambda: unit_is_cluster(data)],
    }  # fmt: skip
    print(f"\n{name}: {len(data)} images, {n_true} models\n  {'way':22s} {'ARI':>6s} {'clusters':>9s} {'seconds':>8s}")
    for way, runs in ways.items():
        begin = time.perf_counter()
        found = [run() for run in runs]
        seconds = (time.perf_counter() - begin) / len(runs)
        ari = [adjusted_rand_score(labels, clusters) for clusters in found]
        number = np.mean([len(set(clusters)) for clusters in found])
        spread = f"  ({min(ari):.3f}-{max(ari):.3f})" if len(ari) > 1 else ""
        print(f"  {way:22s} {np.mean(ari):6.3f} {number:9.0f} {seconds:8.1f}{spread}", flush=True)


def growth() -> None:
    """Print the seconds of the whole stage for more and more images of 64 features, 50 of each model."""
    print("\nwhole stage, 64 features\n     images   seconds   ms per image   clusters (true)")
    for n_images in (2_500, 5_000, 10_000, 20_000, 40_000):
        rng = np.random.default_rng(0)
        centres = rng.standard_normal((n_images // 50, 64)).astype(np.float32)
        features = np.repeat(centres, 50, axis=0) + 0.7 * rng.standard_normal((n_images, 64), dtype=np.float32)
        begin = time.perf_counter()
        clusters = stage_04(features)
        seconds = time.perf_counter() - begin
        number = f"{len(set(clusters))} ({n_images // 50})"
        print(f"  {n_images:9d} {seconds:9.1f} {1000 * seconds / n_images:14.2f}   {number}", flush=True)


def main() -> None:
    if "--growth" in sys.argv:
        growth()
        return
    for name in sys.argv[1:] or SETS:
        found = load(name)
        if found is None:
            print(f"\n{name} is left out: no ../shared/features/{name}.npz, no features and labels in data/{name}/")
        else:
            compare(name, *found)


if __name__ == "__main__":
    main()
