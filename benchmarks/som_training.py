"""Training the map: ours against MiniSom's online and batch training and against xpysom, and how time and memory grow.

Prints seconds, their ratio, quantization and topographic error at 20x20 and 60x60 units on 10,000 x 2,048 drawn
features, then seconds and peak memory of training from a memory map from 10,000 to 1,000,000 images of 64 features.

    python benchmarks/som_training.py [--n_images=10000] [--epochs=10] [--minisom_images=40] [--rounds=3] [--clock=cpu]
    python benchmarks/som_training.py --part=growth [--largest=1000000]

MiniSom walks through the images one by one, so its time is measured on --minisom_images images in one epoch and
multiplied; the errors are compared on 400 images that all train with the same schedule. Ours and MiniSom take turns.
On a machine that does other work too, --clock=cpu counts processor seconds of this process instead (of all threads).
xpysom is not among the requirements (`pip install --no-deps xpysom`); without it that row is left out, with a sentence.
"""

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from minisom import MiniSom

PROJECT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(PROJECT))

from pipeline.clustering import som  # noqa: E402
from pipeline.clustering.directions import Directions  # noqa: E402

EPOCHS_OF_GROWTH = 2
CLOCK = time.process_time if "--clock=cpu" in sys.argv else time.perf_counter


def drawn(n_images: int, n_features: int, n_models: int, seed: int = 0) -> np.ndarray:
    """Directions of images around those of their models, (n_images, n_features) float32, length 1."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((n_models, n_features)).astype(np.float32)
    features = centres[rng.integers(n_models, size=n_images)]
    features += rng.standard_normal(features.shape, dtype=np.float32)
    return features / np.linalg.norm(features, axis=1, keepdims=True)


def new_map(side: int, n_features: int) -> MiniSom:
    """Return a new map, the same for all: MiniSom's linear decay of sigma, learning rate 1 as Kohonen's batch rule."""
    return som.new_map(side, side, n_features, "rectangular", random_seed=0)


def timed(work) -> float:
    begin = CLOCK()
    work()
    return CLOCK() - begin


def spread(values: list[float]) -> str:
    """Median with range, as `193 (190-202)`."""
    return f"{np.median(values):.0f} ({min(values):.0f}-{max(values):.0f})"


def errors(grid: MiniSom, data: np.ndarray) -> tuple[float, float]:
    units, distances = som.assign(grid, data)
    return float(distances[:, 0].mean()), som.topographic_error(grid, units)


def compare(side: int, data: np.ndarray, epochs: int, minisom_images: int, rounds: int) -> None:
    """Print a table of the ways to train a map of side x side units on `data`."""
    n_images, n_features = data.shape
    scale = n_images * epochs / minisom_images
    ours, batch, online = [], [], []
    for _ in range(rounds):
        ours.append(timed(lambda: som.train_batch(new_map(side, n_features), data, epochs)))
        few = data[:minisom_images]
        batch.append(timed(lambda few=few: new_map(side, n_features).train_batch_offline(few, 1)) * scale)
        online.append(timed(lambda few=few: new_map(side, n_features).train(few, 1, use_epochs=True)) * scale)
    print(f"\n{side}x{side} units, {n_images} x {n_features}, {epochs} epochs, {rounds} rounds, seconds")
    for name, seconds in (("ours", ours), ("MiniSom.train_batch_offline *", batch), ("MiniSom.train *", online)):
        ratio = [theirs / mine for theirs, mine in zip(seconds, ours, strict=True)]
        print(f"  {name:30s} {np.median(seconds):9.1f}   {spread(ratio)} times ours")
    xpysom_row(side, data, epochs, float(np.median(ours)))

    few = data[:400]
    ways = {
        "ours": lambda grid: som.train_batch(grid, few, epochs),
        "MiniSom.train_batch_offline": lambda grid: grid.train_batch_offline(few, epochs),
        "MiniSom.train": lambda grid: grid.train(few, epochs, use_epochs=True),
    }
    if side > 20:
        ways.pop("MiniSom.train")  # takes ten minutes and says nothing new
    print("  the same 400 images and schedule:  quantization error, topographic error")
    for name, train in ways.items():
        grid = new_map(side, n_features)
        train(grid)
        print("  {:30s} {:.4f}  {:.3f}".format(name, *errors(grid, few)))


def xpysom_row(side: int, data: np.ndarray, epochs: int, ours: float) -> None:
    """Time xpysom's batch training with NumPy, all images."""
    try:
        from xpysom import XPySom
    except ImportError as error:
        print(f"  xpysom is left out: {error} (pip install --no-deps xpysom)")
        return
    grid = XPySom(side, side, data.shape[1], sigma=side / 4, sigmaN=1, learning_rate=1, learning_rateN=1,
                  decay_function="linear", xp=np, random_seed=0)  # fmt: skip
    seconds = timed(lambda: grid.train(data, epochs))
    print(f"  {'xpysom (NumPy)':30s} {seconds:9.1f}   {seconds / ours:.1f} times ours")


def growth(largest: int) -> None:
    """Print seconds and memory of training 3,600 units from a memory map, each size in a process of its own."""
    print(f"\n60x60 units, 64 features, {EPOCHS_OF_GROWTH} epochs from a memory map")
    print("     images   seconds   ms per 1,000 images and epoch   peak memory")
    n_images = 10_000
    while n_images <= largest:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "features.npy")
            data = np.lib.format.open_memmap(path, "w+", np.float32, (n_images, 64))
            for start in range(0, n_images, 10_000):
                data[start : start + 10_000] = drawn(10_000, 64, 300, seed=start)
            data.flush()
            del data
            subprocess.run([sys.executable, __file__, f"--train={path}"], check=True)
        n_images *= 10


def train_one(path: str) -> None:
    """Train from the memory map at `path` and print a line of the growth table."""
    data = Directions(np.load(path, mmap_mode="r", allow_pickle=False))
    grid = som.new_map(60, 60, 64, "rectangular", 0)
    som.initialise(grid, data, "pca", 0)
    seconds = timed(lambda: som.train_batch(grid, data, EPOCHS_OF_GROWTH))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)
    each = 1e6 * seconds / len(data) / EPOCHS_OF_GROWTH
    print(f"  {len(data):9d} {seconds:9.1f} {each:31.0f} {peak:10.0f} MB", flush=True)


def main() -> None:
    given = dict(argument.removeprefix("--").split("=") for argument in sys.argv[1:])
    if "train" in given:
        train_one(given["train"])
        return
    if given.get("part", "compare") == "compare":
        data = drawn(int(given.get("n_images", 10_000)), 2048, 300)
        for side in (20, 60):
            compare(
                side,
                data,
                int(given.get("epochs", 10)),
                int(given.get("minisom_images", 40)),
                int(given.get("rounds", 3)),
            )
    if given.get("part", "growth") == "growth":
        growth(int(given.get("largest", 1_000_000)))


if __name__ == "__main__":
    main()
