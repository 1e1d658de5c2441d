"""Draws a catalogue like a shopping site's, so that the pipeline runs anywhere at once.

Shoes and bags are drawn from splines with their materials, seams, straps, heels and prints, and every model is then
"photographed" by several sellers: turned, scaled, mirrored or as a pair, under another light and colour cast, on
white, graded or cluttered ground, with shop text, as a JPEG of varying quality. Two data sets come out, which share
no model: one of known models to fine-tune on, one of new models to cluster. The true outline of every product is
kept as well, to score the background removal.

The same seed draws the same pictures, whatever the number of workers. Files that this script did not write stay.

    python make_sample_images.py
    python make_sample_images.py --SAMPLE_NAME=large --SAMPLE_TRAIN_MODELS=0 --SAMPLE_MODELS=150 \
        --SAMPLE_MIN_IMAGES=40 --SAMPLE_MAX_IMAGES=94

Reads:  nothing
Writes: raw_img/sample_train/, raw_img/sample/, mask_true/sample_train/, mask_true/sample/,
        data/sample_train/sample_images.json, data/sample/sample_images.json
Config: SAMPLE_IMAGE_SIZE (recorded as the models drawn: SAMPLE_NAME, SAMPLE_SEED, SAMPLE_TRAIN_MODELS, SAMPLE_MODELS,
        SAMPLE_MIN_IMAGES, SAMPLE_MAX_IMAGES; without effect on the files: N_JOBS, REDO)
"""

import functools
import time
import zlib
from dataclasses import astuple
from pathlib import Path

import cv2
from tqdm import tqdm

import config
from pipeline.machinery import files, paths, records, run
from pipeline.machinery.errors import SettingError, UserError
from pipeline.machinery.executor import ordered_map
from pipeline.machinery.paths import check_within_root, display_path
from pipeline.sample.catalogue import Model, photograph_model, plan_catalogue

SIGNATURE = b"drawn by make_sample_images.py"  # the comment in every file that this script writes
FIRST_TRAIN_ID, FIRST_ID = 10001, 20001  # model ids of the two data sets, which share none


# ---- the plan: which models there are ----------------------------------------------------------------


def plan_data_sets() -> dict[str, list[Model]]:
    """Return the models of each data set: known ones to train on, new ones to cluster."""
    fewest, most = config.SAMPLE_MIN_IMAGES, config.SAMPLE_MAX_IMAGES
    if fewest > most:
        raise SettingError(f"SAMPLE_MIN_IMAGES = {fewest}: must be at most SAMPLE_MAX_IMAGES = {most}")
    plans = {
        f"{config.SAMPLE_NAME}_train": plan_catalogue(
            config.SAMPLE_SEED, FIRST_TRAIN_ID, config.SAMPLE_TRAIN_MODELS, fewest, most
        ),
        config.SAMPLE_NAME: plan_catalogue(config.SAMPLE_SEED, FIRST_ID, config.SAMPLE_MODELS, fewest, most),
    }
    return {dataset: models for dataset, models in plans.items() if models}


# ---- the files: signed, so that a later run knows its own --------------------------------------------


def sign(content: bytes) -> bytes:
    """Return a JPEG or PNG file with SIGNATURE as its comment."""
    if content.startswith(b"\xff\xd8"):
        end = 4 + int.from_bytes(content[4:6], "big")  # of the JFIF header, which must come first
        return content[:end] + b"\xff\xfe" + (len(SIGNATURE) + 2).to_bytes(2, "big") + SIGNATURE + content[end:]
    chunk = b"tEXtComment\0" + SIGNATURE
    end = 33  # of the signature and the header of every PNG
    size, checksum = len(chunk) - 4, zlib.crc32(chunk)  # the type is counted in the checksum only
    return content[:end] + size.to_bytes(4, "big") + chunk + checksum.to_bytes(4, "big") + content[end:]


def is_signed(path: Path) -> bool:
    """Return whether a file bears SIGNATURE."""
    with path.open("rb") as handle:
        return SIGNATURE in handle.read(128)


def write_signed(path: Path, content: bytes) -> None:
    """Write a file whole; raises UserError where a file stands there that this script did not write."""
    if path.exists() and not is_signed(path):
        raise UserError(
            f"{display_path(path)} was not written by make_sample_images.py: move it away or set another SAMPLE_NAME"
        )
    with files.atomic_write(path, waited_for=False) as temporary:
        temporary.write_bytes(sign(content))


def write_model(model: Model, size: int, image_dir: Path, mask_dir: Path) -> list[Path]:
    """Draw and write the photographs of a model and their masks; returns the files written."""
    cv2.setNumThreads(1)  # the models are shared out among processes
    written = []
    for shot in photograph_model(model, size):
        jpeg = cv2.imencode(".jpg", shot.image_bgr, [cv2.IMWRITE_JPEG_QUALITY, shot.quality])[1].tobytes()
        png = cv2.imencode(".png", shot.mask)[1].tobytes()
        for path, content in ((image_dir / shot.name, jpeg), (mask_dir / f"{shot.name}.png", png)):
            write_signed(path, content)
            written.append(path)
    return written


def remove_former(record_path: Path, kept: list[Path], folders: tuple[Path, ...]) -> None:
    """Remove the files of a former plan that lie in `folders` as its record describes them, but for those `kept`."""
    names_kept = {display_path(path) for path in kept}
    for name, fingerprint in (records.read_record(record_path) or {}).get("outputs", {}).items():
        path = paths.root() / name
        ours = any(path.is_relative_to(folder) for folder in folders)
        if ours and name not in names_kept and records.fingerprint_file(path) == fingerprint:
            check_within_root(path).unlink()


def draw_data_set(dataset: str, models: list[Model]) -> None:
    """Draw the images and masks of one data set on all cores, unless they are there; remove those of a former plan."""
    began = time.perf_counter()
    folders = image_dir, mask_dir = paths.raw_img_dir(dataset), paths.mask_true_dir(dataset)
    record_path = paths.data_dir(dataset) / "sample_images.json"
    inputs = {"models": records.fingerprint([astuple(model) for model in models])}
    origin = records.made_from(__file__, inputs)
    if records.up_to_date(record_path, origin):
        return run.unchanged([image_dir, mask_dir])
    write = functools.partial(write_model, size=config.SAMPLE_IMAGE_SIZE, image_dir=image_dir, mask_dir=mask_dir)
    drawn = tqdm(ordered_map(write, models, batch=1), dataset, len(models), unit="model", disable=None)
    written = [path for of_model in drawn for path in of_model]
    remove_former(record_path, written, folders)
    records.write_record(record_path, origin, written, n_models=len(models), n_images=len(written) // 2)
    n_images = sum(model.n_images for model in models)
    run.summary(n_images, len(written) // 2, 0, [image_dir, mask_dir], time.perf_counter() - began)
    return None


def main() -> None:
    """Draw the known models and the new ones."""
    for dataset, models in plan_data_sets().items():
        draw_data_set(dataset, models)


if __name__ == "__main__":
    run.run(main, __doc__)
