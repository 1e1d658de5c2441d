"""Train the small network by which stage 01 tells product from ground, on photographs whose true masks are known.

    python make_background_network.py
    python make_background_network.py --MASK_DATASETS=sample_train,bags --GROUND_DATASETS=streets
    python 01.img_preprocess.py --BACKGROUND_NETWORK=model/background_network.onnx

Not needed for a run: a trained network lies in pipeline/background/. A new one pays where your goods or grounds are
unlike those that the network was trained on (doc/results.md names them), and some hundred of your photographs have
masks; masks of stage 01 that you looked through will do. They lie in mask_true/D/, named as the photographs in
raw_img/D/ with .png after it, 0 and 255.

1. COMPOSITES photographs are composed: products are cut out, turned, scaled, bent, given other colours, partly the
   ground's own, and put before white, graded and drawn grounds and photographs of GROUND_DATASETS, with shadows, shop
   text and other things behind them.
2. A network in the shape of a U (Ronneberger et al. 2015, arXiv:1505.04597) learns from these and from the photographs
   themselves to tell product from ground; every HELD_OUT-th model is kept apart and says how well it does.
3. A probe on the network's deepest maps learns to tell whether an image has no ground at all, from close-ups that are
   cut out of the photographs.
4. Both are written as one ONNX file.

Reads:  raw_img/D/ (D: MASK_DATASETS and GROUND_DATASETS), mask_true/D/ (yours, or of make_sample_images.py)
Writes: model/background_network.onnx, model/background_network.json
Config: MASK_DATASETS, GROUND_DATASETS, COMPOSITES, MASK_EPOCHS, LABEL_PATTERN, RANDOM_SEED
        (without effect on the files: N_JOBS, REDO)
"""

import functools
import re
import time
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from tqdm import tqdm

import config
from pipeline import images
from pipeline.background.composites import Cutout, crop_close_up, cut_out
from pipeline.background.network import N_CHANNELS, NETWORK_SIZE
from pipeline.background.onnx_export import export_onnx
from pipeline.background.regions import is_plausible, size_within
from pipeline.background.training import (
    build_network,
    compose_example,
    fit_no_ground_probe,
    make_example,
    mean_iou,
    train_network,
)
from pipeline.dataset import images_of
from pipeline.machinery import files, paths, records, run
from pipeline.machinery.errors import UserError
from pipeline.machinery.executor import ordered_map
from pipeline.machinery.kinds import split_names
from pipeline.tensorflow_runtime import tensorflow

in_threads = functools.partial(ordered_map, threads=True)
WORK_SIZE = 320  # longest side at which photographs are used, pixels; as in stage 01
HELD_OUT = 10  # one model in so many is not trained on
REPEATS = 2  # times that a photograph itself is shown while each composite is shown once
SOURCES = 1200  # products cut out of each data set, at most, so that a large one does not outweigh the others
CLOSE_UPS = ((0.985, 1.0), (0.35, 0.93))  # share of a close-up that the product covers: no ground, some ground
CUT_OFF_SHARE = 0.3  # of the products that the border cuts off; these have no true outline there

in_threads = functools.partial(ordered_map, threads=True)
Pairs = list[tuple[Path, Path]]  # photographs and their masks


def list_pairs(dataset: str) -> Pairs:
    """Return the photographs of a data set that have a true mask, and the masks."""
    folder = paths.raw_img_dir(dataset)
    names = images_of(folder, f"put photographs there, or set MASK_DATASETS to others than {dataset}")
    pairs = [(folder / name, paths.mask_true_dir(dataset) / f"{name}.png") for name in names]
    pairs = [pair for pair in pairs if pair[1].is_file()]
    if not pairs:
        raise UserError(
            f"{paths.display_path(paths.mask_true_dir(dataset))}/ has no mask for any photograph of "
            f"{paths.display_path(folder)}/: name them like the photographs with .png after it, or set MASK_DATASETS "
            "to other data sets"
        )
    return pairs


def read_pair(pair: tuple[Path, Path]) -> tuple[np.ndarray, np.ndarray] | None:
    """Return an image, uint8 BGR (H, W, 3), and its mask, bool (H, W); None where unreadable or empty."""
    try:
        image_bgr, mask = (images.read_bgr(path) for path in pair)
    except images.ImageError:
        return None
    size = size_within(image_bgr.shape[1], image_bgr.shape[0], WORK_SIZE)
    image_bgr, mask = (cv2.resize(values, size, interpolation=cv2.INTER_AREA) for values in (image_bgr, mask))
    whole = mask[..., 0] > 127
    return (image_bgr, whole) if is_plausible(whole) else None


def model_of(path: Path) -> str:
    """Return a photograph's model by LABEL_PATTERN, or the photograph's name where the pattern does not match."""
    match = re.match(config.LABEL_PATTERN, path.stem)
    return match.group(1) if match else path.stem


class Material(NamedTuple):
    """What the photographs with masks give; examples are uint8 (NETWORK_SIZE, NETWORK_SIZE, N_CHANNELS + 1)."""

    examples: list[np.ndarray]  # to train on
    close_ups: list[np.ndarray]  # parts of the same photographs, for the probe alone
    held_out: list[np.ndarray]  # of models that are not trained on
    cutouts: list[Cutout]


def read_material(sets: dict[str, Pairs], grounds: list[Path]) -> tuple[Material, int]:
    """Return the material, composites among its examples, and how many files could not be used."""
    rng = np.random.default_rng([config.RANDOM_SEED, 3])
    material, n_unused = Material([], [], [], []), 0
    for dataset, pairs in sets.items():
        n_before = len(material.examples)
        n_unused += read_photographs(dataset, pairs, rng, material)
        print(f"{dataset}: {(len(material.examples) - n_before) // REPEATS} photographs to train on")
    if not material.cutouts:
        raise UserError("no mask of MASK_DATASETS holds a product with ground around it: add others")
    photographs = [image for image in in_threads(read_ground, grounds) if image is not None]
    n_unused += len(grounds) - len(photographs)
    compose = functools.partial(compose_example, material.cutouts, photographs, config.RANDOM_SEED)
    composed = in_threads(compose, range(config.COMPOSITES))
    material.examples.extend(tqdm(composed, "composites", config.COMPOSITES, disable=None))
    return material, n_unused


def read_photographs(dataset: str, pairs: Pairs, rng: np.random.Generator, material: Material) -> int:
    """Add a data set's photographs to the material, in place; return how many files could not be used."""
    models = sorted({model_of(path) for path, _ in pairs})
    apart = set(models[HELD_OUT // 2 :: HELD_OUT])
    chosen = [pairs[i] for i in np.sort(rng.permutation(len(pairs))[:SOURCES])]
    n_unused = 0
    read = tqdm(in_threads(read_pair, chosen), dataset, len(chosen), disable=None)
    for number, ((path, _), found) in enumerate(zip(chosen, read, strict=True)):
        if found is None:
            n_unused += 2  # the photograph and its mask
            continue
        image_bgr, mask = found
        if model_of(path) in apart:
            material.held_out.append(make_example(image_bgr, mask, config.RANDOM_SEED))
            continue
        material.examples.extend([make_example(image_bgr, mask, config.RANDOM_SEED)] * REPEATS)
        crops_rng = np.random.default_rng([config.RANDOM_SEED, 7, number])
        crops = [crop_close_up(image_bgr, mask, share, crops_rng) for share in CLOSE_UPS]
        material.close_ups.extend(make_example(*crop, config.RANDOM_SEED) for crop in crops if crop is not None)
        is_cut_off = mask[[0, -1]].any() or mask[:, [0, -1]].any()
        if not is_cut_off or rng.random() < CUT_OFF_SHARE:
            material.cutouts.append(cut_out(image_bgr, mask))
    return n_unused


def read_ground(path: Path) -> np.ndarray | None:
    """Return a photograph that serves as a ground, uint8 BGR, of at most WORK_SIZE; None where it can't be read."""
    try:
        image_bgr = images.read_bgr(path)
    except images.ImageError:
        return None
    size = size_within(image_bgr.shape[1], image_bgr.shape[0], WORK_SIZE)
    return cv2.resize(image_bgr, size, interpolation=cv2.INTER_AREA)


def main() -> None:
    begin = time.perf_counter()
    try:
        import onnx  # noqa: F401
    except ImportError:
        raise UserError("the network is written with the package onnx: pip install onnx") from None
    sets = {dataset: list_pairs(dataset) for dataset in split_names(config.MASK_DATASETS)}
    grounds = []
    for dataset in split_names(config.GROUND_DATASETS):
        folder = paths.raw_img_dir(dataset)
        grounds += [folder / n for n in images_of(folder, "put photographs there, or change GROUND_DATASETS")]
    every = [path for pairs in sets.values() for pair in pairs for path in pair] + grounds
    inputs = {paths.display_path(path): records.fingerprint_file(path) for path in every}
    origin = records.made_from(__file__, {"photographs and masks": records.fingerprint(inputs)})
    path, record_path = (paths.model_dir("") / f"background_network.{suffix}" for suffix in ("onnx", "json"))
    if records.up_to_date(record_path, origin):
        run.unchanged([path])
        return

    cv2.setNumThreads(1)
    material, n_unused = read_material(sets, grounds)
    nothing = np.empty((0, NETWORK_SIZE, NETWORK_SIZE, N_CHANNELS + 1), np.uint8)
    examples, held_out = material.examples, np.stack(material.held_out) if material.held_out else nothing
    tensorflow().keras.utils.set_random_seed(config.RANDOM_SEED)
    model = build_network()
    history = train_network(model, examples, held_out, config.MASK_EPOCHS, config.RANDOM_SEED, in_threads)
    score = mean_iou(model, held_out)
    probe = fit_no_ground_probe(model, examples + material.close_ups)
    about = (
        f"Tells product from ground; by {Path(__file__).name} from {config.MASK_DATASETS}, "
        f"{config.COMPOSITES} composites, {config.MASK_EPOCHS} epochs; mean IoU of models held out {score:.3f}"
    )
    print(f"models held out: {len(held_out)} photographs, mean IoU {score:.3f} at {NETWORK_SIZE} pixels")
    with files.atomic_write(path) as temporary:
        temporary.write_bytes(export_onnx(model, probe, about))
    records.write_record(record_path, origin, [path], n_examples=len(examples), held_out_iou=score, history=history)
    run.summary(len(every), len(every) - n_unused, n_unused, [path], time.perf_counter() - begin, "files")


if __name__ == "__main__":
    run.run(main, __doc__)
