"""Stage 03's way of computing features against plain `model.predict` in float32, on the same images and network.

Prints images per second of both, their ratio, what the input pipeline costs, how far the features are apart, the memory
that each takes, and the seconds of the whole stage cold, warm (nothing changed) and with 1 % new images. The two sides
take turns in one process; the ratio is given with its range over the rounds.

    python make_sample_images.py
    python 01.img_preprocess.py --DATASET=sample
    python benchmarks/feature_extraction.py [sample] [--n_images=512] [--rounds=5] [--IMAGE_SIZE=128] ...
"""

import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

PROJECT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(PROJECT), str(PROJECT / "tests")]

from conftest import load_stage  # noqa: E402

import config  # noqa: E402
from pipeline import files, network, settings  # noqa: E402


def spread(values: list[float]) -> str:
    """Median with range, as `1.93 (1.90-2.02)`."""
    return f"{np.median(values):.2f} ({min(values):.2f}-{max(values):.2f})"


def peak_megabytes() -> float:
    """Most memory that this process has held so far (kilobytes on Linux, bytes on macOS)."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1e6 if sys.platform == "darwin" else 1e3)


def compare(paths: list[Path], rounds: int) -> None:
    """Print both sides' throughput: files to features, and decoded images to features."""
    import keras

    stage = load_stage("03.feature_extraction.py")
    tf = network.tensorflow()
    config.PRETRAINED_WEIGHTS, layer, pooling = "random", "mixed10", "average"
    trunk = network.inception(config.IMAGE_SIZE)
    batch_size, low_high = config.EXTRACTION_BATCH_SIZE, network.input_range(trunk)
    compute = network.feature_function(trunk, layer, pooling, False, network.compute_dtype())
    plain = keras.Model(trunk.input, keras.layers.GlobalAveragePooling2D()(trunk.output))
    decoded = np.concatenate([images_rgb for images_rgb, _ in stage.batches(paths, batch_size)])
    inputs = np.asarray(network.scaled(decoded, *low_high))

    def ours() -> np.ndarray:
        return np.concatenate([np.asarray(compute(images_rgb)) for images_rgb, _ in stage.batches(paths, batch_size)])

    def ours_decoded() -> np.ndarray:
        batches = tf.data.Dataset.from_tensor_slices(decoded).batch(batch_size).prefetch(2)
        return np.concatenate([np.asarray(compute(images_rgb)) for images_rgb in batches])

    def predict() -> np.ndarray:
        return plain.predict(inputs, batch_size=batch_size, verbose=0)

    sides = {"ours, from files": ours, "ours, from decoded images": ours_decoded, "model.predict, decoded": predict}
    features = {name: network.normalised(side()) for name, side in sides.items()}  # also the warm-up
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, side in sides.items():
            begin = time.perf_counter()
            side()
            seconds[name].append(time.perf_counter() - begin)
    print(f"{len(paths)} images at {config.IMAGE_SIZE} px, {layer}, {network.compute_dtype()}, {rounds} rounds")
    for name in sides:
        print(f"  {name:28} {spread([len(paths) / s for s in seconds[name]])} images/s")
    files_s, decoded_s, predict_s = (np.array(values) for values in seconds.values())
    print(f"  ratio, from decoded images: {spread(list(predict_s / decoded_s))}")
    print(f"  ratio, from files: {spread(list(predict_s / files_s))}")
    print(f"  input pipeline: {spread(list(100 * (files_s / decoded_s - 1)))} % of the time")
    cosines = (features["ours, from decoded images"] * features["model.predict, decoded"]).sum(axis=1)
    print(f"  cosine to float32: least {cosines.min():.5f}, mean {cosines.mean():.5f}")
    held = (decoded.nbytes + inputs.nbytes) / 1e6
    print(f"  memory: {peak_megabytes():.0f} MB at most, {held:.0f} MB of it the images decoded for the comparison")


def whole_stage(paths: list[Path], overrides: list[str]) -> None:
    """Print the seconds of 03.feature_extraction.py as a program: cold, warm, with 1 % new images."""
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root, "img", "benchmark")
        folder.mkdir(parents=True)
        n_new = max(1, len(paths) // 100)
        for path in paths[n_new:]:
            shutil.copyfile(path, folder / path.name)
        command = [sys.executable, str(PROJECT / "03.feature_extraction.py"), "--DATASET=benchmark"]
        command += ["--FEATURE_NETWORK=pretrained", "--PRETRAINED_WEIGHTS=random", *overrides]

        def run(what: str) -> None:
            begin = time.perf_counter()
            done = subprocess.run(
                command, env={**os.environ, "IMAGE_CLUSTER_ROOT": root}, capture_output=True, text=True, check=True
            )
            print(f"  stage 03, {what:18} {time.perf_counter() - begin:6.2f} s   {done.stdout.splitlines()[-1]}")

        run("cold")
        run("warm")
        for path in paths[:n_new]:
            shutil.copyfile(path, folder / path.name)
        run(f"{n_new} new")


def main() -> None:
    """Run both comparisons."""
    own = {a.split("=")[0]: int(a.split("=")[1]) for a in sys.argv[1:] if a.startswith(("--n_images=", "--rounds="))}
    names = [a for a in sys.argv[1:] if not a.startswith("--")]
    overrides = [a for a in sys.argv[1:] if a.startswith("--") and a.split("=")[0] not in own]
    settings.apply_overrides(overrides)
    folder = files.img_dir(names[0] if names else "sample")
    found = files.images_of(folder, "run 01.img_preprocess.py first")
    paths = [folder / name for name in found][: own.get("--n_images", 512)]
    compare(paths, own.get("--rounds", 5))
    whole_stage(paths, overrides)


if __name__ == "__main__":
    main()
