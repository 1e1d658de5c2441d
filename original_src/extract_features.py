"""Baseline, step 2: features of the photographs as they came, by MobileNetV2.

    python original_src/extract_features.py
    python original_src/extract_features.py --DATASET=bags --BASELINE_WEIGHTS=random

The network is not fine-tuned, and the background is not removed. BASELINE_WEIGHTS = "auto" takes ImageNet's weights
from Keras's cache or its download; where neither can be had within 15 seconds, random weights with a warning.

Reads:  raw_img/D/
Writes: data/D/baseline/features.npy, data/D/baseline/img_paths.txt, data/D/baseline/features_skipped.csv,
        data/D/baseline/features.json
Config: DATASET, BASELINE_WEIGHTS, BASELINE_IMAGE_SIZE, RANDOM_SEED (without effect on the files: N_JOBS, REDO)
"""

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import config
from pipeline import images
from pipeline.dataset import images_of
from pipeline.machinery import files, paths, records, run, weights
from pipeline.machinery.errors import UserError
from pipeline.machinery.paths import display_path, root
from pipeline.tensorflow_runtime import tensorflow

if TYPE_CHECKING:
    import keras

STAGE = "original_src/extract_features.py"
MOBILENET = weights.Pretrained(
    "MobileNetV2 without top",
    "https://storage.googleapis.com/tensorflow/keras-applications/mobilenet_v2/"
    "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5",
    md5=None,  # keras.applications does not check it either
)
BATCH_SIZE = 64


def load_network() -> tuple["keras.Model", str]:
    """MobileNetV2 without top, averaged over the image: (n, size, size, 3) -> (n, 1280), and what its weights are.

    Raises UserError where the weights that BASELINE_WEIGHTS demands can't be had.
    """
    tensorflow()
    import keras

    keras.utils.set_random_seed(config.RANDOM_SEED)
    shape = (config.BASELINE_IMAGE_SIZE, config.BASELINE_IMAGE_SIZE, 3)
    model = keras.applications.MobileNetV2(input_shape=shape, include_top=False, weights=None, pooling="avg")
    unreached_path = root() / "model" / ".mobilenet_not_reached"
    initial_weights = weights.initialise(model, MOBILENET, config.BASELINE_WEIGHTS, "BASELINE_WEIGHTS", unreached_path)
    if initial_weights == "random" and config.BASELINE_WEIGHTS != "random":
        print("warning: ImageNet's weights could not be had: the baseline's weights are random", file=sys.stderr)
    return model, initial_weights


def network_input(path: Path, size: int) -> np.ndarray:
    """Return an image stretched to a square, float32 RGB (size, size, 3) in -1..1; raises ImageError."""
    image_bgr = cv2.resize(images.read_bgr(path), (size, size), interpolation=cv2.INTER_AREA)
    return image_bgr[..., ::-1].astype(np.float32) / 127.5 - 1


def features_of(folder: Path, names: list[str], model: "keras.Model") -> tuple[np.ndarray, list[str], dict[str, str]]:
    """Features of the named images.

    Returns
    -------
    features : ndarray of shape (n_read, 1280), float32
    read : names of the n_read images that could be read, in order
    skipped : name -> reason of the others
    """
    features, read, skipped = [np.empty((0, model.output_shape[1]), np.float32)], [], {}
    for start in tqdm(range(0, len(names), BATCH_SIZE), unit="batch", disable=None):
        inputs = []
        for name in names[start : start + BATCH_SIZE]:
            try:
                inputs.append(network_input(folder / name, config.BASELINE_IMAGE_SIZE))
                read.append(name)
            except images.ImageError as error:
                skipped[name] = str(error)
        if inputs:
            features.append(model.predict_on_batch(np.stack(inputs)))
    return np.concatenate(features), read, skipped


def main() -> None:
    """Compute the features unless images, weights and settings are those of the last run."""
    begin = time.perf_counter()
    raw_img_dir, folder = paths.raw_img_dir(config.DATASET), paths.data_dir(config.DATASET) / "baseline"
    names = images_of(raw_img_dir, "put the photographs there, or set DATASET in config.py")
    outputs = [folder / name for name in ("features.npy", "img_paths.txt", "features_skipped.csv")]
    known = weights.known(MOBILENET, config.BASELINE_WEIGHTS, "BASELINE_WEIGHTS", config.RANDOM_SEED)
    inputs = {display_path(raw_img_dir): records.fingerprint_folder(raw_img_dir, names), "weights": known}
    origin = records.made_from(__file__, inputs)
    record_path = folder / "features.json"
    if records.up_to_date(record_path, origin):
        run.unchanged(outputs[:2])
        return
    model, initial_weights = load_network()
    features, read, skipped = features_of(raw_img_dir, names, model)
    if not read:
        raise UserError(f"no image of {display_path(raw_img_dir)}/ can be read ({skipped[names[0]]})")
    files.write_npy(outputs[0], features)
    files.write_lines(outputs[1], read)
    files.write_csv(outputs[2], ["image", "stage", "reason"], [(name, STAGE, why) for name, why in skipped.items()])
    records.write_record(record_path, origin, outputs, initial_weights=initial_weights, n_features=features.shape[1])
    run.summary(len(names), len(read), len(skipped), outputs[:2], time.perf_counter() - begin)


if __name__ == "__main__":
    run.run(main, __doc__)
