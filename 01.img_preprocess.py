"""Stage 01: remove the background of the photographs.

    python 01.img_preprocess.py
    python 01.img_preprocess.py --DATASET=bags --SAVE_MASKS=True
    python 01.img_preprocess.py --BACKGROUND_METHOD=sobel

The product keeps its pixels, everything else becomes white. An alpha channel is taken as the mask, unless it is a
frame (a circle, rounded corners, a border). Then, and without one:

1. The photograph within frames and banners is found; beyond a round frame it is continued (`frame`, `layout`). Of a
   collage one view is kept, the first whose mask is trusted nearly as much as any (`collage`).
2. Its scene is made (`scene`): a smooth surface of colour fitted to the border, and a small network's probability of
   each pixel to show the product, at 128 x 128 pixels (`network`). A shadow that repeats the product's outline is
   ground (`cast_shadow`).
3. A mask is chosen (`masks`): a smooth ground (white, gradient, studio) is removed by the distance to the surface,
   which finds the finest edges, where the network agrees with the result (`smooth_ground`); any other ground by the
   network's answer and the colours of product and ground (`segmentation`).
4. The mask is corrected (`corrections`): on a smooth ground badges and shadows are removed that only the network takes
   for ground, and gaps that are too fine for the network; parts nearly of the ground's colour are added, unless they
   fade into the ground as shadows do. The whole image is kept where the product more likely fills it.
5. The mask's edge is fitted to the image's, and the product is pasted on white (`matting`).

How well mask and network agree is the trust in the mask. Where the mask can't be trusted the image keeps all its
pixels. Only new and changed images are done again; a changed setting redoes all. Images in img/D/ that this stage did
not write are left alone.

Reads: raw_img/D/
Writes: img/D/ (same names), mask/D/ (where SAVE_MASKS: the name with .png after it, 0 and 255),
    data/D/preprocess.csv (image,method,foreground_fraction,trust),
    data/D/skipped.csv (image,stage,reason), data/D/preprocess.json
Config: DATASET, BACKGROUND_METHOD, BACKGROUND_NETWORK, BACKGROUND_MIN_TRUST, SAVE_MASKS, RANDOM_SEED
        (without effect on the files: N_JOBS, SCHEDULER, SCHEDULER_TLS, REDO)
"""

import functools
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from tqdm import tqdm

import config
from pipeline import images, memory
from pipeline.background.collage import find_panels
from pipeline.background.frame import extend_beyond_frame, find_frame
from pipeline.background.layout import photograph_within
from pipeline.background.masks import (
    Candidate,
    choose_mask,
    choose_view,
    consider_whole_image,
    correct_mask,
    segment_without_network,
)
from pipeline.background.matting import fit_edge, paste_on_white
from pipeline.background.network import SHIPPED_NETWORK, NetworkError, load_network
from pipeline.background.regions import is_plausible, size_within
from pipeline.background.scene import make_scene
from pipeline.background.segmentation import EVEN_SPREAD
from pipeline.dataset import describe_left_out, folder_of_images, write_image
from pipeline.machinery import files, paths, records, run
from pipeline.machinery.errors import UserError
from pipeline.machinery.executor import ordered_map

STAGE = "01.img_preprocess.py"
TABLE = ["image", "method", "foreground_fraction", "trust"]  # columns of preprocess.csv
WORK_SIZE = 320  # longest side at which a product is looked for, pixels
MIN_SIDE = 8  # pixels; a smaller image shows nothing
MAX_ASPECT = 20  # longest side over shortest; a narrower strip shows no product


class Options(NamedTuple):
    """How the background is removed."""

    method: str  # "auto", "plain", "network", "grabcut", "sobel" or "none"
    network_path: Path  # an ONNX file
    min_trust: float  # 0..1; a mask that is trusted less is not used
    seed: int


def find_product(image_bgr: np.ndarray, alpha: np.ndarray | None, options: Options) -> tuple[np.ndarray, str, float]:
    """Find the product in an image of any size.

    Parameters
    ----------
    image_bgr : uint8 ndarray of shape (H, W, 3)
    alpha : uint8 ndarray of shape (H, W) or None; taken as the mask where it hides a part of the image and is no frame

    Returns
    -------
    mask : bool ndarray of shape (H, W); True for all that is not transparent where the product could not be found
    method : what made the mask: "alpha", "plain", "network", "whole", "grabcut", "sobel" or "none"
    trust : 0..1
    """
    visible = np.ones(image_bgr.shape[:2], bool)
    if options.method == "none":
        return visible, "none", 1.0
    height, width = image_bgr.shape[:2]
    size = size_within(width, height, WORK_SIZE)
    small_bgr = cv2.resize(image_bgr, size, interpolation=cv2.INTER_AREA)
    if alpha is not None and is_plausible(alpha > 127):
        visible = alpha > 127
        frame = find_frame(small_bgr, cv2.resize(alpha, size, interpolation=cv2.INTER_AREA))
        if frame is None:
            return visible, "alpha", 1.0
    else:
        frame = find_frame(small_bgr, None)
    is_strip = min(height, width) < MIN_SIDE or max(height, width) > MAX_ASPECT * min(height, width)
    if is_strip or small_bgr.std(axis=(0, 1)).max() < EVEN_SPREAD:
        return visible, "none", 0.0
    if frame is None:
        mask, method, trust = find_in_small_image(small_bgr, options)
    else:
        mask, method, trust = find_in_small_image(extend_beyond_frame(small_bgr, frame), options)
        mask = mask & frame
    if size != (width, height):
        mask = fit_edge(mask, image_bgr)
    mask = mask & visible
    plausible = method == "whole" or is_plausible(mask)
    if trust < options.min_trust or not plausible:
        return visible, "none", trust if plausible else 0.0
    return mask, method, trust


def find_in_small_image(image_bgr: np.ndarray, options: Options) -> tuple[np.ndarray, str, float]:
    """Return mask, method and trust of an image of at most WORK_SIZE, uint8 BGR (H, W, 3), however small the trust."""
    if options.method == "sobel":
        return find_in_photograph(image_bgr, options)[:3]
    window = photograph_within(image_bgr)
    panels = find_panels(image_bgr[window])
    panels_bgr = [image_bgr[window][panel] for panel in panels] if len(panels) > 1 else []
    views = [find_in_photograph(panel_bgr, options) for panel_bgr in panels_bgr]
    best = choose_view(views, panels_bgr, options.min_trust)
    found = find_in_photograph(image_bgr[window], options) if best is None else views[best]
    mask = np.zeros(image_bgr.shape[:2], bool)
    mask[window][np.s_[:, :] if best is None else panels[best]] = found.mask
    return mask, found.method, found.trust


def find_in_photograph(image_bgr: np.ndarray, options: Options) -> Candidate:
    """Return the mask of one photograph without what a shop puts around it, uint8 BGR (H, W, 3)."""
    if options.method not in ("auto", "network"):
        return segment_without_network(image_bgr, options.method, options.seed)
    scene = make_scene(image_bgr, load_network(options.network_path), options.seed)
    found = correct_mask(choose_mask(scene, options.method, options.seed), scene)
    return consider_whole_image(found, scene) if options.method == "auto" else found


def preprocess_image(dataset: str, options: Options, save_mask: bool, name: str) -> dict[str, Any]:
    """Read one image, remove its background and write it: the work of one worker, on one core.

    Returns the image's row of preprocess.csv with the fingerprint of the file written; or "image" and "reason" where
    the image can't be read.
    """
    cv2.setNumThreads(1)
    memory.keep_freed()  # clearing every array of an image anew takes a tenth of all the time
    if set("\t\r\n") & set(name):
        return {"image": name, "reason": "the name holds a tab or a line break, which no list of names can"}
    try:
        image_bgr, alpha = images.read_image(paths.raw_img_dir(dataset) / name)
        mask, method, trust = find_product(image_bgr, alpha, options)
        if alpha is not None:
            image_bgr = images.on_white(image_bgr, alpha)
        keeps_all = method in ("alpha", "none") or mask.all()
        clean_bgr = image_bgr if keeps_all else paste_on_white(image_bgr, mask)
        write_image(paths.img_dir(dataset) / name, clean_bgr)
    except images.ImageError as error:
        return {"image": name, "reason": str(error)}
    if save_mask:
        write_image(paths.mask_path(dataset, name), mask.astype(np.uint8) * 255)
    elif paths.mask_path(dataset, name).exists():
        paths.check_within_root(paths.mask_path(dataset, name)).unlink(missing_ok=True)
    return {
        "image": name,
        "written": records.fingerprint_file(paths.img_dir(dataset) / name),
        "method": method,
        "foreground_fraction": round(float(mask.mean()), 4),
        "trust": round(trust, 3),
    }


def options_of_config() -> Options:
    """Return the options that config.py holds; the network's file lies below the root where its path is relative."""
    chosen = config.BACKGROUND_NETWORK
    path = SHIPPED_NETWORK if chosen == "auto" else paths.root() / chosen
    return Options(config.BACKGROUND_METHOD, path, config.BACKGROUND_MIN_TRUST, config.RANDOM_SEED)


def check_network(path: Path) -> None:
    """Raise UserError where the network's file can't be read: here, before any worker asks for it."""
    try:
        load_network(path)
    except NetworkError:
        raise UserError(
            f"BACKGROUND_NETWORK: {paths.display_path(path)} is no network of make_background_network.py that can be "
            'read: name another file, or "auto"'
        ) from None


def remove_outputs(dataset: str, name: str) -> None:
    """Remove the cleaned image and the mask of an image that is gone, and folders that are then empty."""
    for path, top in (
        (paths.img_dir(dataset) / name, paths.img_dir(dataset)),
        (paths.mask_path(dataset, name), paths.mask_dir(dataset)),
    ):
        paths.check_within_root(path).unlink(missing_ok=True)
        for folder in path.parents:
            if folder == top or not folder.is_dir() or any(folder.iterdir()):
                break
            folder.rmdir()


def fingerprint_raw(path: Path) -> str:
    """Return the fingerprint of a photograph's content; "" where it can't be read (a worker gives the reason)."""
    try:
        return records.fingerprint_file(path) if path.is_file() else ""
    except OSError:
        return ""


def is_done(dataset: str, name: str, row: dict[str, Any]) -> bool:
    """Return whether the files of a row of the record are there as they were written."""
    if "reason" in row:
        return True
    there = row["written"] == records.fingerprint_file(paths.img_dir(dataset) / name)
    return there and paths.mask_path(dataset, name).exists() == config.SAVE_MASKS


def earlier_rows(record: dict, origin: dict) -> dict[str, dict[str, Any]]:
    """Return the record's row of each image; rows by other code or settings than `origin`'s lose their fingerprint."""
    rows = record.get("images")
    if not isinstance(rows, dict):
        return {}
    # of a record from elsewhere, the rows that this stage may have written
    rows = {name: row for name, row in rows.items() if isinstance(row, dict) and row.get("image") == name}
    needed = {False: {*TABLE, "raw", "written"}, True: {"raw"}}
    rows = {name: row for name, row in rows.items() if needed["reason" in row] <= row.keys()}
    same = not config.REDO and all(record["made_from"].get(key) == origin[key] for key in ("code", "settings"))
    return rows if same else {name: {**row, "raw": None} for name, row in rows.items()}


def in_parallel(dataset: str, names: list[str]) -> Iterator[dict[str, Any]]:
    """`preprocess_image` of each name on all cores or the cluster, in the names' order, a few ahead of the reader."""
    cv2.setNumThreads(1)  # its threads do not survive a fork
    work = functools.partial(preprocess_image, dataset, options_of_config(), config.SAVE_MASKS)
    rows = ordered_map(work, names)
    return iter(tqdm(rows, total=len(names), unit="image", disable=None))


def main() -> None:
    begin = time.perf_counter()
    dataset, raw_dir = config.DATASET, paths.raw_img_dir(config.DATASET)
    record_path, table_path, skipped_path = (
        paths.data_dir(dataset) / name for name in ("preprocess.json", "preprocess.csv", "skipped.csv")
    )
    wrote = [paths.img_dir(dataset), table_path, skipped_path]
    remedy = f"put the photographs there, or set DATASET to another folder of {paths.display_path(raw_dir.parent)}/"
    folder = folder_of_images(raw_dir, remedy)
    names = folder.names
    prints = {name: fingerprint_raw(raw_dir / name) for name in names}
    origin = records.made_from(__file__, {paths.display_path(raw_dir): records.fingerprint([prints, folder.unread])})
    options = options_of_config()
    needs_network = options.method in ("auto", "network")
    if needs_network:
        origin["code"] += records.fingerprint_file(options.network_path)

    rows = earlier_rows(records.read_record(record_path) or {}, origin)
    made = {name for name, row in rows.items() if "written" in row}
    to_do = [n for n in names if n not in rows or rows[n]["raw"] != prints[n] or not is_done(dataset, n, rows[n])]
    if not to_do and records.up_to_date(record_path, origin):
        run.unchanged(wrote)
        return
    if needs_network and to_do:
        check_network(options.network_path)
    try:
        for row in in_parallel(dataset, to_do):
            name = str(row["image"])
            rows[name] = {**row, "raw": prints[name]}
    except BaseException:
        # what is done stays done: the next run goes on from here
        records.write_record(record_path, {**origin, "inputs": {}}, [], images=rows)
        raise
    skipped = [(name, STAGE, rows[name]["reason"]) for name in names if "reason" in rows[name]]
    if len(skipped) == len(names):
        reason = f"the first, {names[0]}: {skipped[0][2]}"
        raise UserError(f"none of the {len(names)} files of {paths.display_path(raw_dir)}/ can be used; {reason}")
    skipped += [(name, STAGE, reason) for name, reason in folder.unread]
    for name in made - {name for name in names if "written" in rows[name]}:
        remove_outputs(dataset, name)
    files.write_csv(table_path, TABLE, [[rows[n][key] for key in TABLE] for n in names if "reason" not in rows[n]])
    files.write_csv(skipped_path, ["image", "stage", "reason"], skipped)
    seconds = round(time.perf_counter() - begin, 1)
    images_done = {name: rows[name] for name in names}
    records.write_record(record_path, origin, [table_path, skipped_path], seconds=seconds, images=images_done)
    for sentence in describe_left_out(folder, [name for name, _, _ in skipped]):
        print(sentence)
    n_files = len(names) + len(folder.unread)
    run.summary(n_files, n_files - len(skipped), len(skipped), wrote, seconds)


if __name__ == "__main__":
    run.run(main, __doc__)
