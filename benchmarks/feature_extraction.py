"""Stage 03's way of computing features against plain `model.predict` in float32, on the same images and network.

Prints the seconds and the memory of the whole stage as a program, cold, warm (nothing changed) and with 1 % new images,
and those of `model.predict`; then images per second of both sides, their ratio, what the input pipeline costs, and how
far the features are apart. There the sides take turns in one process; ratios are given with their range over the
rounds. On a machine that others use, --clock=cpu counts the process's processor seconds in place of seconds.

    python make_sample_images.py
    python 01.img_preprocess.py --DATASET=sample
    python benchmarks/feature_extraction.py [sample] [--n_images=512] [--rounds=5] [--clock=cpu] [--IMAGE_SIZE=128] ...
"""

import functools
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

PROJECT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(PROJECT), str(PROJECT / "tests")]

from conftest import load_stage  # noqa: E402

import config  # noqa: E402
from pipeline.dataset import images_of  # noqa: E402
from pipeline.features import inception  # noqa: E402
from pipeline.features.framing import list_views  # noqa: E402
from pipeline.features.whitening import normalise_rows  # noqa: E402
from pipeline.machinery import settings  # noqa: E402
from pipeline.machinery.errors import UserError  # noqa: E402
from pipeline.machinery.paths import img_dir  # noqa: E402
from pipeline.tensorflow_runtime import choose_dtype, tensorflow  # noqa: E402


def spread(values: list[float]) -> str:
    """Median with range, as `1.93 (1.90-2.02)`."""
    return f"{np.median(values):.2f} ({min(values):.2f}-{max(values):.2f})"


def compare(paths: list[Path], rounds: int, clock: Callable[[], float]) -> None:
    """Print both sides' throughput: files to features, and decoded images to features."""
    tensorflow()  # before Keras, which would import it with settings of its own
    import keras

    stage = load_stage("03.feature_extraction.py")
    backbone = inception.build_inception(config.IMAGE_SIZE, config.RANDOM_SEED)
    batch_size, views, dtype = config.EXTRACTION_BATCH_SIZE, config.FEATURE_VIEWS, choose_dtype(config.COMPUTE_DTYPE)
    low_high = inception.choose_input_range(backbone, config.INPUT_RANGE)
    place = inception.LayerPooling("mixed10", "average")
    compute = inception.feature_function(backbone, place, low_high, views, dtype)
    plain = keras.Model(backbone.input, keras.layers.GlobalAveragePooling2D()(backbone.output))
    decoded = np.concatenate([images_rgb for images_rgb, _ in stage.batches(paths, config.IMAGE_SIZE, batch_size)])
    inputs = np.asarray(inception.scale_pixels(decoded, *low_high))

    def ours() -> np.ndarray:
        return np.concatenate(
            [np.asarray(compute(images_rgb)) for images_rgb, _ in stage.batches(paths, config.IMAGE_SIZE, batch_size)]
        )

    def ours_decoded() -> np.ndarray:
        batches = np.split(decoded, range(batch_size, len(decoded), batch_size))
        return np.concatenate([np.asarray(compute(images_rgb)) for images_rgb in batches])

    def predict(inputs: np.ndarray = inputs) -> np.ndarray:
        turned = list_views(inputs, views, functools.partial(np.rot90, axes=(1, 2)))
        return sum(plain.predict(view, batch_size=batch_size, verbose=0) for view in turned) / len(turned)

    def predict_files() -> np.ndarray:
        read = np.stack([stage.load_image(path, config.IMAGE_SIZE)[0] for path in paths])
        return predict(np.asarray(inception.scale_pixels(read, *low_high)))

    sides = {
        "ours, from files": ours,
        "ours, from decoded images": ours_decoded,
        "model.predict, from files": predict_files,
        "model.predict, from decoded": predict,
    }
    features = {name: normalise_rows(side()) for name, side in sides.items()}  # also the warm-up
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, side in sides.items():
            begin = clock()
            side()
            seconds[name].append(clock() - begin)
    print(f"{len(paths)} images, {config.IMAGE_SIZE} px, mixed10, {dtype}, views: {views}, {rounds} rounds")
    unit = "processor second" if clock is time.process_time else "s"
    for name in sides:
        print(f"  {name:28} {spread([len(paths) / s for s in seconds[name]])} images/{unit}")
    files_s, decoded_s, predict_files_s, predict_s = (np.array(values) for values in seconds.values())
    print(f"  ratio, both from decoded images: {spread(list(predict_s / decoded_s))}")
    print(f"  ratio, both from files: {spread(list(predict_files_s / files_s))}")
    print(f"  input pipeline: {spread(list(100 * (files_s / decoded_s - 1)))} % on top of computing")
    cosines = (features["ours, from decoded images"] * features["model.predict, from decoded"]).sum(axis=1)
    print(f"  cosine to float32: least {cosines.min():.5f}, mean {cosines.mean():.5f}", flush=True)


def plain_alone(paths: list[Path]) -> None:
    """`model.predict` in float32 on all images, decoded first: what its memory is measured on."""
    import keras

    stage = load_stage("03.feature_extraction.py")
    backbone = inception.build_inception(config.IMAGE_SIZE, config.RANDOM_SEED)
    plain = keras.Model(backbone.input, keras.layers.GlobalAveragePooling2D()(backbone.output))
    read = np.stack([stage.load_image(path, config.IMAGE_SIZE)[0] for path in paths])
    inputs = np.asarray(inception.scale_pixels(read, *inception.choose_input_range(backbone, config.INPUT_RANGE)))
    plain.predict(inputs, batch_size=config.EXTRACTION_BATCH_SIZE, verbose=0)


def measured(command: list[str], root: str) -> tuple[float, float, str]:
    """Run a command; its seconds, its peak memory in MB, and the last line that it printed."""
    begin = time.perf_counter()
    environment = {**os.environ, "IMAGE_CLUSTER_ROOT": root}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        said = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise UserError(f"{command[1]} ended with {process.returncode}")
    peak = usage.ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)  # kilobytes on Linux, bytes on macOS
    return time.perf_counter() - begin, peak, (said.splitlines() or [""])[-1]


def whole_stage(paths: list[Path], overrides: list[str]) -> None:
    """Print seconds and memory of 03.feature_extraction.py as a program: cold, warm, with 1 % new images."""
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root, "img", "benchmark")
        folder.mkdir(parents=True)
        n_new = max(1, len(paths) // 100)
        for path in paths[n_new:]:
            shutil.copyfile(path, folder / path.name)
        command = [sys.executable, str(PROJECT / "03.feature_extraction.py"), "--DATASET=benchmark"]
        command += [
            "--FEATURE_NETWORK=pretrained",
            "--PRETRAINED_WEIGHTS=random",
            "--FEATURE_LAYER=mixed10",
            *overrides,
        ]

        def run(what: str, command: list[str]) -> None:
            seconds, peak, said = measured(command, root)
            print(f"  {what:32} {seconds:6.2f} s {peak:6.0f} MB   {said}", flush=True)

        run("stage 03, cold", command)
        run("stage 03, warm", command)
        for path in paths[:n_new]:
            shutil.copyfile(path, folder / path.name)
        run(f"stage 03, {n_new} new", command)
        run("model.predict, a program", [sys.executable, __file__, "benchmark", "--plain=1", *overrides])


def main() -> None:
    """Run both comparisons."""
    ours = ("--n_images=", "--rounds=", "--plain=", "--clock=")
    own = {a.split("=")[0]: a.split("=")[1] for a in sys.argv[1:] if a.startswith(ours)}
    names = [a for a in sys.argv[1:] if not a.startswith("--")]
    overrides = [a for a in sys.argv[1:] if a.startswith("--") and a.split("=")[0] not in own]
    settings.apply_overrides(overrides)
    folder = img_dir(names[0] if names else "sample")
    found = images_of(folder, "run 01.img_preprocess.py first")
    paths = [folder / name for name in found][: int(own.get("--n_images", 512))]
    if own.get("--plain"):
        plain_alone(paths)
        return
    clock = time.process_time if own.get("--clock") == "cpu" else time.perf_counter
    whole_stage(paths, overrides)  # first: what a program starts out with counts the memory of the one that starts it
    compare(paths, int(own.get("--rounds", 5)), clock)


if __name__ == "__main__":
    main()
