"""The search for the ten nearest images: the map's inverted file beside exact search and HNSW (hnswlib).

    python benchmarks/neighbour_index.py [--sizes=10000,100000,1000000] [--features=256] [--ways=exact,HNSW]
    python benchmarks/neighbour_index.py --data=features.npz --limit=3600

For each size: recall of the ten nearest of 1,000 images, seconds by the clock and of all processors together, and peak
memory, each way in a process of its own. The seconds of the inverted file begin with the units of a trained map, which
stage 04 has anyhow (here trained on at most MAP_IMAGES of the images for MAP_EPOCHS); it looks for KEPT images, as
stage 04 does. Those of HNSW hold its building (M = 16, ef_construction = 200, ef = 100). Both use two threads. Without
--data the images are drawn: models of 40 photographs, --features normal values each plus 0.7 times such noise. --data:
an .npz with `features` (n, n_features), of which images are drawn at random, each moved towards one of its 20 nearest,
with noise of a quarter of its length. --limit: seconds by the clock that one way may take; a way that takes longer is
left out, with a sentence.
hnswlib is not among the requirements (`pip install hnswlib`); without it that way is left out, with a sentence.
"""

import resource
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

PROJECT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(PROJECT))

from pipeline.clustering import neighbours, som  # noqa: E402
from pipeline.clustering.directions import Directions, chunks, of_length_one  # noqa: E402

K = 10
KEPT = 20  # nearest images that stage 04 looks for
N_ASKED = 1000  # images whose exact neighbours are known
MAP_IMAGES, MAP_EPOCHS = 100_000, 3
EXACT_UP_TO = 20_000  # images up to which exact search of all is timed; beyond, its seconds are those of N_ASKED images


def draw(source: str | None, width: int, n_images: int, path: Path) -> None:
    """Write directions of `n_images` images to the .npy file `path`, (n_images, n_features) float32.

    source : an .npz file, or None: models of `width` normal values are drawn
    """
    rng = np.random.default_rng(0)
    if source is None:
        model = rng.integers(0, max(1, n_images // 40), n_images)
        centres = rng.normal(size=(model.max() + 1, width)).astype(np.float32)
    else:
        with np.load(source, allow_pickle=False) as stored:
            known = of_length_one(stored["features"])
        near, width = np.argsort(-(known @ known.T), axis=1)[:, 1:21], known.shape[1]
    features = np.lib.format.open_memmap(path.with_suffix(".raw.npy"), "w+", np.float32, (n_images, width))
    for rows in chunks(n_images, width):
        n = rows.stop - rows.start
        noise = rng.standard_normal((n, width), dtype=np.float32)
        if source is None:
            features[rows] = centres[model[rows]] + 0.7 * noise
        else:
            one = rng.integers(len(known), size=n)
            share = 0.5 * rng.random((n, 1), dtype=np.float32)
            other = known[near[one, rng.integers(20, size=n)]]
            features[rows] = (1 - share) * known[one] + share * other + 0.25 * noise / np.sqrt(width)
    data = Directions(features)
    directions = np.lib.format.open_memmap(path, "w+", np.float32, (n_images, width))
    for rows in chunks(*data.shape):
        directions[rows] = data[rows]


def asked_images(n_images: int) -> np.ndarray:
    return np.unique(np.linspace(0, n_images - 1, N_ASKED).astype(int))


def exact(data: np.ndarray, images: np.ndarray) -> np.ndarray:
    """Return the K nearest other images of some images, (n, K)."""
    found = np.empty((len(images), K), np.int64)
    for part in chunks(len(images), len(data)):
        similarity = data[images[part]] @ data.T
        similarity[np.arange(len(similarity)), images[part]] = -np.inf
        found[part] = neighbours.k_largest(similarity, K)[0]
    return found


def units_of(data: np.ndarray) -> np.ndarray:
    """Return the units of a map trained on at most MAP_IMAGES images, (n_images,)."""
    some = data[:: -(-len(data) // MAP_IMAGES)]
    grid = som.new_map(*som.map_shape(len(data), 3.0, 3600), data.shape[1], "rectangular", 0)
    som.initialise(grid, some, "pca", 0)
    som.train_batch(grid, some, MAP_EPOCHS)
    return som.assign(grid, data)[0][:, 0]


def search(way: str, path: str) -> None:
    """Search one way, and print a row of the table."""
    data = np.load(path, mmap_mode="r", allow_pickle=False)
    asked = asked_images(len(data))
    if way == "inverted file":
        unit = np.load(path + ".units.npy")
        begin = time.perf_counter(), time.process_time()
        index = neighbours.index_images(data, unit)
        with ThreadPoolExecutor(2) as pool:
            found = neighbours.nearest_images(data, index, KEPT, pool.map)[0][asked, :K]
    elif way == "exact":
        images = np.arange(len(data)) if len(data) <= EXACT_UP_TO else asked
        begin = time.perf_counter(), time.process_time()
        found = exact(data, images)[np.searchsorted(images, asked)]
        way += "" if len(images) == len(data) else f", of {len(asked)}"
    else:
        import hnswlib

        begin = time.perf_counter(), time.process_time()
        graph = hnswlib.Index("ip", data.shape[1])
        graph.init_index(len(data), ef_construction=200, M=16)
        graph.set_num_threads(2)  # as the inverted file has
        for rows in chunks(*data.shape):
            graph.add_items(data[rows])
        graph.set_ef(100)
        every = np.concatenate([graph.knn_query(data[rows], K + 1)[0] for rows in chunks(*data.shape)])
        found = [[other for other in every[image] if other != image][:K] for image in asked]
    seconds, of_processors = time.perf_counter() - begin[0], time.process_time() - begin[1]
    true = np.load(path + ".exact.npy")
    recall = np.mean([len(set(a) & set(b)) / K for a, b in zip(found, true, strict=True)])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)
    print(f"  {len(data):9d}   {way:18s} {recall:.4f} {seconds:9.1f} {of_processors:11.1f} {peak:9.0f} MB", flush=True)


def main() -> None:
    given = dict(argument.removeprefix("--").split("=") for argument in sys.argv[1:])
    if "search" in given:
        search(given["search"], given["path"])
        return
    limit = float(given["limit"]) if "limit" in given else None
    print("     images   way                recall   seconds   processors  peak memory", flush=True)
    for n_images in map(int, given.get("sizes", "10000,100000,1000000").split(",")):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "directions.npy")
            draw(given.get("data"), int(given.get("features", 256)), n_images, path)
            data = np.load(path, mmap_mode="r", allow_pickle=False)
            np.save(f"{path}.exact.npy", exact(data, asked_images(n_images)))
            np.save(f"{path}.units.npy", units_of(data))
            for way in given.get("ways", "inverted file,exact,HNSW").split(","):
                command = [sys.executable, __file__, f"--search={way}", f"--path={path}"]
                try:
                    subprocess.run(command, stderr=subprocess.PIPE, text=True, check=True, timeout=limit)
                except subprocess.CalledProcessError as error:
                    print(f"  {way} is left out: {error.stderr.strip().splitlines()[-1]}", flush=True)
                except subprocess.TimeoutExpired:
                    print(f"  {way} is left out: more than {limit:.0f} seconds", flush=True)


if __name__ == "__main__":
    main()
