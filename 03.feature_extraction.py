"""Compute the features of every cleaned photograph with the fine-tuned network.

    python 03.feature_extraction.py
    python 03.feature_extraction.py --DATASET=bags --FEATURE_NETWORK=pretrained

Only images that are new or changed, by their content, are computed; a changed network or setting redoes all. What an
interrupted run has computed is kept. `features.npy` and `img_paths.txt` always fit together: while one replaces the
other, `img_paths.txt` is absent for a moment, and the next run finishes the exchange if this one is killed in it.
FEATURE_NETWORK = "pretrained" takes the initial weights as they are and needs nothing from stage 02. The path of an
.onnx file takes any other image encoder, such as an export of DINOv2, CLIP or SigLIP. Then, where there are labelled
photographs of T, their features are kept in known_features.npz, as stage 02 does with those of models held out.
Memory does not depend on the number of images.

Reads:  img/D/, model/T/feature_network.h5, model/T/feature_whitening.npz, model/T/feature_network.json,
        training_images/T/<class>/ (where not fine-tuned), img/T/ (where there is none), data/T/labels_true.csv
Writes: data/D/features.npy, data/D/img_paths.txt, data/D/features.json, data/D/features_skipped.csv,
        data/D/known_features.npz (where not fine-tuned)
Config: FEATURE_NETWORK, INPUT_RANGE, INPUT_MEAN, INPUT_DEVIATION, IMAGE_SIZE, CROP_TO_PRODUCT, FEATURE_LAYER,
        POOLING, FEATURE_VIEWS, L2_NORMALIZE, COMPUTE_DTYPE (which data: DATASET, TRAIN_DATASET; told by the network's
        fingerprint: PRETRAINED_WEIGHTS, RANDOM_SEED; without effect on the files: EXTRACTION_BATCH_SIZE, N_JOBS,
        SCHEDULER, SCHEDULER_TLS, REDO)
"""

import contextlib
import functools
import itertools
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import numpy as np
from tqdm import tqdm

import config
from pipeline import feature_files, feature_network, images
from pipeline.dataset import images_of, list_images
from pipeline.features import inception
from pipeline.features.extraction import extract_features
from pipeline.features.framing import fit_image
from pipeline.features.inception import LayerPooling
from pipeline.features.onnx_network import read_encoder
from pipeline.features.training_images import sample_images
from pipeline.features.whitening import Whitening
from pipeline.machinery import files, records, run
from pipeline.machinery.errors import UserError
from pipeline.machinery.executor import keep, ordered_map
from pipeline.machinery.parts import Parts
from pipeline.machinery.paths import data_dir, display_path, img_dir, model_dir, training_images_dir
from pipeline.tensorflow_runtime import choose_dtype

if TYPE_CHECKING:
    import keras

STAGE = "03.feature_extraction.py"
ABOUT = ["network", "initial_weights", "feature_layer", "pooling", "whitened", "compute_dtype", "n_features"]
MIN_COSINE = 0.999  # to the features in float32; where stage 02 found less, "auto" does not take bfloat16
BATCHES_PER_PART = 8  # interrupted work is kept in parts of this many batches
KNOWN_IMAGES = 2000  # of known models at most, whose features are kept; enough for 40 of each of 50 models
BATCHES_AHEAD = 2  # batches decoded before the network asks for them

Row: TypeAlias = np.ndarray  # float32 (n_features,)


# ---- the network ---------------------------------------------------------------------------------


def network_print() -> str:
    """Return the fingerprint of the network and of how features are read off it; needs no TensorFlow."""
    if config.FEATURE_NETWORK.lower().endswith(".onnx"):
        return records.fingerprint_file(feature_network.find_encoder(config.FEATURE_NETWORK))
    if config.FEATURE_NETWORK == "pretrained":
        return feature_network.identify(config.PRETRAINED_WEIGHTS, config.RANDOM_SEED)
    folder = model_dir(config.TRAIN_DATASET)
    weights_path, record_path, _ = feature_network.network_paths(folder)
    files.require(weights_path, f"02.feature_network_fine_tuning.py --TRAIN_DATASET={config.TRAIN_DATASET}")
    return feature_network.identify_files(folder, records.recorded(weights_path, record_path) or {})


def choose_place(trained: str | None, layer: str, pooling: str) -> LayerPooling:
    """Decide FEATURE_LAYER and POOLING: `layer` and `pooling` where they are "auto".

    trained : the layer that stage 02 recorded. Raises UserError where that is another one than the one set.
    """
    if trained and config.FEATURE_LAYER not in ("auto", trained):
        path = display_path(model_dir(config.TRAIN_DATASET) / "feature_network.h5")
        raise UserError(
            f'{path} was made for FEATURE_LAYER "{trained}", not "{config.FEATURE_LAYER}": '
            "run 02.feature_network_fine_tuning.py with that setting"
        )
    layer = layer if config.FEATURE_LAYER == "auto" else config.FEATURE_LAYER
    return LayerPooling(layer, pooling if config.POOLING == "auto" else config.POOLING)


class Network(NamedTuple):
    """A network and how features are read off it."""

    backbone: "keras.Model"
    initial_weights: str
    place: LayerPooling
    input_range: str  # "auto" where only the weights can tell
    whitening: Whitening | None
    min_cosine: float  # of features in bfloat16 to those in float32


def load_pretrained() -> Network:
    """Load the initial weights as they are."""
    start = feature_network.build_start(config.PRETRAINED_WEIGHTS, config.IMAGE_SIZE, config.RANDOM_SEED)
    print(f"weights: {feature_network.describe_weights(start)}")
    feature_network.check_block("FEATURE_LAYER", config.FEATURE_LAYER, start)
    place = choose_place(None, *start.place)
    whitening = start.whitening if place == start.place else None
    return Network(start.backbone, start.initial_weights, place, start.input_range, whitening, 1.0)


def load_fine_tuned() -> Network:
    """Load the network that stage 02 wrote, or somebody else put in its place."""
    weights_path, record_path, _ = feature_network.network_paths(model_dir(config.TRAIN_DATASET))
    record = records.recorded(weights_path, record_path) or {}
    backbone = feature_network.load_trained(weights_path, record, config.IMAGE_SIZE, config.RANDOM_SEED)
    trained, default = record.get("feature_layer"), feature_network.TRAINED_PLACE
    place = choose_place(trained, trained or default.layer, record.get("pooling", default.pooling))
    n_features = inception.count_features(backbone, place)
    whitening = feature_network.read_whitening(model_dir(config.TRAIN_DATASET), record, place.pooling, n_features)
    input_range, cosine = record.get("input_range", "auto"), record.get("bfloat16_cosine", 1)
    return Network(backbone, record.get("initial_weights", "unknown"), place, input_range, whitening, cosine)


class Extractor(NamedTuple):
    """What computes features."""

    compute: Callable[[np.ndarray], np.ndarray]  # uint8 RGB (n, size, size, 3) -> float32 (n, n_features)
    size: int  # pixels per side of its input
    about: dict  # ABOUT, for the record


def load_encoder() -> Extractor:
    """Load an ONNX file as the network."""
    encoder = read_encoder(
        feature_network.find_encoder(config.FEATURE_NETWORK),
        config.IMAGE_SIZE,
        config.INPUT_RANGE,
        config.INPUT_MEAN,
        config.INPUT_DEVIATION,
        config.FEATURE_VIEWS,
        os.cpu_count() or 1,
    )

    def compute(images_rgb: np.ndarray) -> np.ndarray:
        return extract_features(encoder.compute, None, config.L2_NORMALIZE, images_rgb, config.EXTRACTION_BATCH_SIZE)

    values = [config.FEATURE_NETWORK, "onnx", encoder.output, "none", False, "float32", encoder.n_features]
    return Extractor(compute, encoder.size, dict(zip(ABOUT, values, strict=True)))


def load_network() -> Extractor:
    """Load the network that FEATURE_NETWORK names."""
    if config.FEATURE_NETWORK.lower().endswith(".onnx"):
        return load_encoder()
    network = load_pretrained() if config.FEATURE_NETWORK == "pretrained" else load_fine_tuned()
    if network.initial_weights == "random":
        print(f"warning: {feature_network.RANDOM_WARNING}", file=sys.stderr)
    dtype = choose_dtype(config.COMPUTE_DTYPE)
    if config.COMPUTE_DTYPE == "auto" and network.whitening and network.min_cosine < MIN_COSINE:
        dtype = "float32"
    asked_range = network.input_range if config.INPUT_RANGE == "auto" else config.INPUT_RANGE
    input_range = inception.choose_input_range(network.backbone, asked_range)
    pool = inception.feature_function(network.backbone, network.place, input_range, config.FEATURE_VIEWS, dtype)

    def compute(images_rgb: np.ndarray) -> np.ndarray:
        return extract_features(pool, network.whitening, config.L2_NORMALIZE, images_rgb, config.EXTRACTION_BATCH_SIZE)

    n_features = inception.count_features(network.backbone, network.place)
    is_whitened = network.whitening is not None
    values = [config.FEATURE_NETWORK, network.initial_weights, *network.place, is_whitened, dtype, n_features]
    return Extractor(compute, config.IMAGE_SIZE, dict(zip(ABOUT, values, strict=True)))


# ---- computing -----------------------------------------------------------------------------------


def load_image(path: Path, size: int) -> tuple[np.ndarray, str]:
    """Return the network's input for an image file, uint8 RGB (size, size, 3), and "", or zeros and what is wrong."""
    try:
        return fit_image(images.read_bgr(path), size, config.CROP_TO_PRODUCT), ""
    except images.ImageError as error:
        return np.zeros((size, size, 3), np.uint8), str(error)


def batches(paths: list[Path], size: int, batch_size: int) -> Iterator[tuple[np.ndarray, list[str]]]:
    """Return inputs (n, size, size, 3) uint8 with the reasons why images could not be read, in order of `paths`.

    Images are decoded in threads while the network computes on the batches before.
    """
    load = functools.partial(load_image, size=size)
    loaded = ordered_map(load, paths, threads=True, n_ahead=BATCHES_AHEAD * batch_size)
    while batch := list(itertools.islice(loaded, batch_size)):
        images_rgb, reasons = zip(*batch, strict=True)
        yield np.stack(images_rgb), list(reasons)


def compute_batch(paths: list[Path], network_id: str) -> tuple[np.ndarray, list[str]]:
    """Return features (n, n_features) of image files, and the reasons why some can't be read: what a worker does."""
    extractor = keep(network_id, load_network)
    ((images_rgb, reasons),) = batches(paths, extractor.size, len(paths))
    return extractor.compute(images_rgb), reasons


def compute_batches(paths: list[Path], extractor: Extractor, network_id: str) -> Iterator[tuple[np.ndarray, list[str]]]:
    """Compute EXTRACTION_BATCH_SIZE files at a time, as `compute_batch` does: by `extractor`, or on the cluster."""
    size = config.EXTRACTION_BATCH_SIZE
    if config.SCHEDULER:
        parts = [paths[begin : begin + size] for begin in range(0, len(paths), size)]
        return ordered_map(functools.partial(compute_batch, network_id=network_id), parts, batch=1)
    return ((extractor.compute(images_rgb), reasons) for images_rgb, reasons in batches(paths, extractor.size, size))


def compute_features(paths: dict[str, Path], extractor: Extractor, network_id: str, parts: Parts) -> dict[str, str]:
    """Compute the features of images, keyed by their fingerprints, and keep them in `parts`.

    Returns fingerprint -> reason for those that can't be read.
    """
    unreadable, keys = {}, iter(paths)
    done: list[tuple[str, Row]] = []
    with tqdm(total=len(paths), unit=" images", disable=None) as progress:
        for i, (found, reasons) in enumerate(compute_batches(list(paths.values()), extractor, network_id)):
            batch_keys = list(itertools.islice(keys, len(reasons)))
            unreadable.update({key: reason for key, reason in zip(batch_keys, reasons, strict=True) if reason})
            done += [(key, row) for key, row, reason in zip(batch_keys, found, reasons, strict=True) if not reason]
            progress.update(len(batch_keys))
            if (i + 1) % BATCHES_PER_PART == 0:
                parts.add(done)
                done = []
    parts.add(done)
    return unreadable


# ---- features of known models --------------------------------------------------------------------


def list_labelled() -> dict[Path, str]:
    """List labelled photographs of models that the network was not trained on, with their models.

    These are the photographs of T, cleaned, where the network was not fine-tuned on them and T is not D itself.
    """
    dataset = config.TRAIN_DATASET
    if config.FEATURE_NETWORK == "fine-tuned" or dataset == config.DATASET:
        return {}
    folder = training_images_dir(dataset)
    if folder.is_dir():
        return {folder / name: name.partition("/")[0] for name in list_images(folder)}
    folder, labels_path = img_dir(dataset), data_dir(dataset) / "labels_true.csv"
    if not (folder.is_dir() and labels_path.exists()):
        return {}
    rows = files.read_csv(labels_path, ["image", "label"], "00.make_labels_true.py")
    return {folder / row["image"]: row["label"] for row in rows if row["label"] and (folder / row["image"]).is_file()}


def write_known(label_of: dict[Path, str], origin: dict, extractor: Extractor | None) -> None:
    """Write the features of known models' photographs, for stage 04, where they are not those already there.

    extractor : None where it is not loaded yet. Without labelled photographs, the file of an earlier run is removed.
    """
    path = data_dir(config.DATASET) / "known_features.npz"
    if not label_of:
        path.unlink(missing_ok=True)
        return
    key = records.fingerprint([origin[name] for name in ("code", "settings", "network", "known")])
    with contextlib.suppress(UserError):
        if str(files.read_npz(path, STAGE, ("key",))["key"]) == key:
            return
    names, class_of = np.unique(list(label_of.values()), return_inverse=True)
    seen = sample_images(class_of, np.arange(len(names)), KNOWN_IMAGES, config.RANDOM_SEED)
    paths, extractor = list(label_of), extractor or load_network()
    features, good = [], []
    for images_rgb, reasons in batches([paths[i] for i in seen], extractor.size, config.EXTRACTION_BATCH_SIZE):
        features.append(extractor.compute(images_rgb))
        good += [not reason for reason in reasons]
    labels = names[class_of[seen]][good]
    feature_network.write_known_features(path, np.concatenate(features)[good], labels, origin["network"], key)
    print(f"{len(labels)} photographs of known models of {config.TRAIN_DATASET} to calibrate by")


# ---- the files -----------------------------------------------------------------------------------


def earlier_rows(paths: dict[str, Path], origin: dict) -> tuple[dict[str, Row], dict]:
    """Features of an earlier run made by the same code, network and settings, and what its record says of them.

    Returns fingerprint -> memory-mapped row, and the record; both are empty where there is no such run.
    """
    record = records.recorded(paths["features"], paths["record"])
    if config.REDO or record is None or not same_way(record["made_from"], origin):
        return {}, {}
    features = files.read_npy(paths["features"], STAGE, memory_map=True)
    with records.as_written(paths["record"], STAGE):
        keys = [key for key in record["images"].values() if key]
        return dict(zip(keys, features, strict=True)), {key: record[key] for key in ABOUT}


def same_way(one: dict, other: dict) -> bool:
    """Whether two origins differ in the images alone."""
    return all(one.get(key) == other[key] for key in ("code", "settings", "network"))


# ---- the stage -----------------------------------------------------------------------------------


def write_outputs(paths: dict[str, Path], origin: dict, keys: dict[str, str], about: dict) -> None:
    """Write what belongs to features_next.npy, then the record, then exchange: a killed run can be finished.

    keys : name -> fingerprint of the image, "" for one that can't be read
    """
    names = [name for name, key in keys.items() if key]
    files.write_lines(paths["names_next"], names)
    outputs = {
        display_path(paths[old]): records.fingerprint_file(paths[new])
        for new, old in (("next", "features"), ("names_next", "names"))
    }
    files.write_json(paths["record"], {"made_from": origin, "outputs": outputs, **about, "images": keys})
    feature_files.exchange(paths)


def origin_of(folder: Path, keys: dict[str, str], label_of: dict[Path, str]) -> dict:
    """Return what the features are made from: images, network, settings, code."""
    inputs = {display_path(folder): records.fingerprint(keys)}
    if config.FEATURE_NETWORK == "fine-tuned":
        weights_path, _, _ = feature_network.network_paths(model_dir(config.TRAIN_DATASET))
        inputs[display_path(weights_path)] = records.fingerprint_file(weights_path)
    origin = records.made_from(__file__, inputs)
    known = [(display_path(path), label, records.fingerprint_file(path)) for path, label in label_of.items()]
    return origin | {"network": network_print(), "known": records.fingerprint(known)}


def main() -> None:
    begin = time.perf_counter()
    paths, folder = feature_files.paths_of(config.DATASET), img_dir(config.DATASET)
    names = images_of(folder, f"run 01.img_preprocess.py --DATASET={config.DATASET} first")
    keys = {name: records.fingerprint_file(folder / name) for name in names}
    label_of = list_labelled()
    origin = origin_of(folder, keys, label_of)
    feature_files.finish_exchange(paths)
    wrote = [paths["features"], paths["names"]]
    if records.up_to_date(paths["record"], origin):
        run.unchanged(wrote)
        return

    network_id = records.fingerprint([origin[key] for key in ("code", "settings", "network")])
    parts = Parts(paths["parts"], network_id, STAGE)
    if config.REDO:
        parts.remove()
    earlier, about = earlier_rows(paths, origin)
    about = about or parts.about()
    known = set(earlier) | {key for key, _ in parts.read()} if about else set()
    to_do = {key: folder / name for name, key in keys.items() if key not in known}
    unreadable, extractor = {}, None
    print(f"{len(to_do)} images to compute, {len(set(keys.values())) - len(to_do)} known")
    if to_do:
        extractor = load_network()
        about = extractor.about
        parts.begin(about)
        unreadable = compute_features(to_do, extractor, network_id, parts)
    skipped = [(name, STAGE, unreadable[key]) for name, key in keys.items() if key in unreadable]
    if len(skipped) == len(names):
        raise UserError(f"no file of {display_path(folder)}/ can be read as an image: {skipped[0][2]}")
    keys = {name: "" if key in unreadable else key for name, key in keys.items()}
    feature_files.write_next(paths["next"], [key for key in keys.values() if key], about["n_features"], earlier, parts)
    del earlier  # a file of which rows are mapped can't be replaced on Windows
    write_known(label_of, origin, extractor)
    write_outputs(paths, origin, keys, about | {"seconds": round(time.perf_counter() - begin, 1)})
    feature_files.write_skipped(paths["skipped"], skipped)
    parts.remove()
    run.summary(len(names), len(names) - len(skipped), len(skipped), wrote, time.perf_counter() - begin)


if __name__ == "__main__":
    run.run(main, __doc__)
