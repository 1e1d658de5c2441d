"""Compute the features of every cleaned photograph with the fine-tuned network.

    python 03.feature_extraction.py
    python 03.feature_extraction.py --DATASET=bags --FEATURE_NETWORK=pretrained

Only images that are new or changed, by their content, are computed; a changed network or setting redoes all. What an
interrupted run has computed is kept. `features.npy` and `img_paths.txt` always fit together: while one replaces the
other, `img_paths.txt` is absent for a moment, and the next run finishes the exchange if this one is killed in it.
FEATURE_NETWORK = "pretrained" takes the initial weights as they are and needs nothing from stage 02.
Memory does not depend on the number of images.

Reads:  img/D/, model/T/feature_network.h5, model/T/feature_whitening.npz, model/T/feature_network.json
Writes: data/D/features.npy, data/D/img_paths.txt, data/D/features.json, data/D/features_skipped.csv,
        data/D/features.tsv, data/D/features_metadata.tsv, data/D/features_sprite.png
Config: DATASET, TRAIN_DATASET, FEATURE_NETWORK, PRETRAINED_WEIGHTS, INPUT_RANGE, IMAGE_SIZE, CROP_TO_PRODUCT,
        FEATURE_LAYER, POOLING, MIRROR_AVERAGE, L2_NORMALIZE, COMPUTE_DTYPE, EXTRACTION_BATCH_SIZE, SAVE_TSV,
        RANDOM_SEED, REDO
"""

import itertools
import math
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from tqdm import tqdm

import config
from pipeline import files, images, network, parallel, settings

STAGE = "03.feature_extraction.py"
TRAINING = "02.feature_network_fine_tuning.py"
SETTINGS = [
    "FEATURE_NETWORK",
    "INPUT_RANGE",
    "IMAGE_SIZE",
    "CROP_TO_PRODUCT",
    "FEATURE_LAYER",
    "POOLING",
    "MIRROR_AVERAGE",
    "L2_NORMALIZE",
    "COMPUTE_DTYPE",
]
ABOUT = ["network", "initial_weights", "feature_layer", "pooling", "whitened", "compute_dtype", "n_features"]
MIN_COSINE = 0.999  # to the features in float32; where stage 02 found less, "auto" does not take bfloat16
BATCHES_PER_PART = 8  # interrupted work is kept in parts of this many batches
BATCHES_AHEAD = 2  # batches decoded before the network asks for them
SPRITE_PIXELS = 8192  # side of the projector's sprite at most
SPRITE_THUMBNAIL = 64  # side of a thumbnail on the sprite at most

Row = np.ndarray  # float32 (n_features,)


# ---- the network ---------------------------------------------------------------------------------


def network_files() -> tuple[Path, Path, Path]:
    """Stage 02's network, its record, and the whitening of its features."""
    folder = files.model_dir(config.TRAIN_DATASET)
    return folder / "feature_network.h5", folder / "feature_network.json", folder / "feature_whitening.npz"


def network_print() -> str:
    """Fingerprint of the network's weights and of how features are read off it; needs no TensorFlow."""
    if config.FEATURE_NETWORK == "pretrained":
        return network.weights_known()
    weights_path, record_path, whitening_path = network_files()
    files.require(weights_path, f"02.feature_network_fine_tuning.py --TRAIN_DATASET={config.TRAIN_DATASET}")
    record = files.recorded(weights_path, record_path) or {}
    place = [record.get(key) for key in ("feature_layer", "pooling", "whitened", "bfloat16_cosine")]
    whitening = files.fingerprint_file(whitening_path) if record.get("whitened") else ""
    return files.fingerprint([files.fingerprint_file(weights_path), *place, whitening])


def choose_layer(record: dict, initial_weights: str) -> tuple[str, str]:
    """FEATURE_LAYER and POOLING with "auto" decided: as stage 02 recorded it, else `network.default_layer`.

    Raises UserError where stage 02 trained for another layer than the one set.
    """
    layer, pooling = network.default_layer(initial_weights)
    trained = record.get("feature_layer")
    if trained and config.FEATURE_LAYER not in ("auto", trained):
        raise settings.UserError(
            f'{files.shown(network_files()[0])} was made for FEATURE_LAYER "{trained}", not "{config.FEATURE_LAYER}": '
            f"run 02.feature_network_fine_tuning.py with that setting"
        )
    layer = config.FEATURE_LAYER if config.FEATURE_LAYER != "auto" else trained or layer
    return layer, config.POOLING if config.POOLING != "auto" else record.get("pooling") or pooling


def load_whitening(record: dict, pooling: str, n_features: int) -> network.Whitening | None:
    """The whitening that stage 02 learned for this network and pooling; None where it says that there is none.

    record : of stage 02, which says whether there is one. Raises UserError where that is not the one.
    """
    if not record.get("whitened"):
        return None
    if pooling != record.get("pooling"):
        print(f'features are not whitened: that was learned for POOLING "{record.get("pooling")}"')
        return None
    _, record_path, path = network_files()
    files.require(path, TRAINING)
    if files.recorded(path, record_path) is None:
        raise settings.UserError(f"{files.shown(path)} was not made with the network beside it: run {TRAINING} again")
    whitening = network.Whitening(**files.read_npz(path, TRAINING, network.Whitening._fields))
    shapes = [value.shape for value in whitening if value.dtype.kind == "f" and np.isfinite(value).all()]
    if shapes != [(n_features,), (n_features, n_features)]:
        raise settings.UserError(f"{files.shown(path)} does not fit {n_features} features: run {TRAINING} again")
    return whitening


def load_network() -> tuple[Callable[[np.ndarray], np.ndarray], dict]:
    """The function from uint8 RGB images (n, size, size, 3) to float32 features (n, n_features), and what it is."""
    trunk = network.inception(config.IMAGE_SIZE)
    record = {}
    if config.FEATURE_NETWORK == "pretrained":
        initial_weights = network.initialise(trunk)
    else:
        weights_path, record_path, _ = network_files()
        network.load_weights(trunk, weights_path)
        record = files.recorded(weights_path, record_path) or {}
        initial_weights = record.get("initial_weights", "unknown")
    if initial_weights == "random":
        print(f"warning: {network.RANDOM_WARNING}", file=sys.stderr)
    layer, pooling = choose_layer(record, initial_weights)
    n_features = network.n_features(trunk, layer)
    whitening = load_whitening(record, pooling, n_features)
    dtype = network.compute_dtype()
    if config.COMPUTE_DTYPE == "auto" and whitening and record.get("bfloat16_cosine", 1) < MIN_COSINE:
        dtype = "float32"
    pool = network.feature_function(trunk, layer, pooling, config.MIRROR_AVERAGE, dtype)

    def compute(images_rgb: np.ndarray) -> np.ndarray:
        return network.whitened(np.asarray(pool(images_rgb)), whitening)

    values = [config.FEATURE_NETWORK, initial_weights, layer, pooling, whitening is not None, dtype, n_features]
    return compute, dict(zip(ABOUT, values, strict=True))


# ---- computing -----------------------------------------------------------------------------------


def load_image(path: Path) -> tuple[np.ndarray, str]:
    """The network's input for an image file, uint8 RGB (size, size, 3), and "", or zeros and why it can't be read."""
    size = config.IMAGE_SIZE
    try:
        return network.square_image(images.read_bgr(path), size, config.CROP_TO_PRODUCT), ""
    except images.ImageError as error:
        return np.zeros((size, size, 3), np.uint8), str(error)


def batches(paths: list[Path], batch_size: int) -> Iterator[tuple[np.ndarray, list[str]]]:
    """Inputs (n, size, size, 3) uint8 with the reasons why images could not be read, in order of `paths`.

    Images are decoded in threads while the network computes on the batches before.
    """
    loaded = parallel.in_threads(load_image, paths, n_ahead=BATCHES_AHEAD * batch_size)
    while batch := list(itertools.islice(loaded, batch_size)):
        images_rgb, reasons = zip(*batch, strict=True)
        yield np.stack(images_rgb), list(reasons)


def compute_features(paths: dict[str, Path], compute: Callable, parts: "Parts") -> dict[str, str]:
    """Compute the features of images, keyed by their fingerprints, and keep them in `parts`.

    Returns fingerprint -> reason for those that can't be read.
    """
    unreadable = {}
    keys, batch_size = list(paths), config.EXTRACTION_BATCH_SIZE
    done: list[tuple[str, Row]] = []
    with tqdm(total=len(keys), unit=" images", disable=None) as progress:
        for i, (images_rgb, reasons) in enumerate(batches(list(paths.values()), batch_size)):
            found = compute(images_rgb)  # (n, n_features)
            if config.L2_NORMALIZE:
                found = network.normalised(found)
            batch_keys = keys[i * batch_size : (i + 1) * batch_size]
            unreadable.update({key: reason for key, reason in zip(batch_keys, reasons, strict=True) if reason})
            done += [(key, row) for key, row, reason in zip(batch_keys, found, reasons, strict=True) if not reason]
            progress.update(len(batch_keys))
            if (i + 1) % BATCHES_PER_PART == 0:
                parts.add(done)
                done = []
    parts.add(done)
    return unreadable


class Parts:
    """Features computed but not yet in features.npy: a folder of .npz files, each written whole.

    folder : a part lies in a sub-folder named after what the features depend on besides the image
    """

    def __init__(self, folder: Path, network_id: str):
        self.folder = folder
        self.own = folder / network_id
        files.inside(self.own / "a part")

    def begin(self, about: dict) -> None:
        """Say what the rows that follow are; parts of other networks and settings are removed."""
        for path in self.folder.glob("*"):
            if path != self.own:
                shutil.rmtree(path)
        files.write_json(self.own / "about.json", about)

    def about(self) -> dict:
        """What `begin` said; empty where no part is kept. With REDO, kept parts don't count."""
        path = self.own / "about.json"
        if config.REDO:
            self.remove()
        return files.read_json(path, STAGE) if path.exists() else {}

    def add(self, rows: list[tuple[str, Row]]) -> None:
        """Keep (fingerprint, features) pairs."""
        if rows:
            keys, values = zip(*rows, strict=True)
            with files.whole(self.own / f"{files.fingerprint(keys)}.npz") as temporary:
                np.savez(temporary, keys=np.array(keys), features=np.stack(values))

    def read(self) -> Iterator[tuple[str, Row]]:
        """All pairs kept; a damaged part is passed over."""
        for path in sorted(self.own.glob("[!.]*.npz")):
            try:
                part = files.read_npz(path, STAGE, ("keys", "features"))
            except settings.UserError:
                path.unlink()
            else:
                yield from zip(part["keys"].tolist(), part["features"], strict=True)

    def remove(self) -> None:
        """Remove all parts, those of other networks too."""
        shutil.rmtree(self.folder, ignore_errors=True)


# ---- the two files in step -----------------------------------------------------------------------


def paths_of(dataset: str) -> dict[str, Path]:
    """The files this stage writes, by what they are; "next" ones lie there before the exchange."""
    folder = files.data_dir(dataset)
    return {
        "features": folder / "features.npy",
        "next": folder / "features_next.npy",
        "names": folder / "img_paths.txt",
        "names_next": folder / "img_paths_next.txt",
        "record": folder / "features.json",
        "skipped": folder / "features_skipped.csv",
        "parts": folder / "features_parts",
        "tsv": folder / "features.tsv",
        "metadata": folder / "features_metadata.tsv",
        "sprite": folder / "features_sprite.png",
    }


def exchange(paths: dict[str, Path]) -> None:
    """Put features_next.npy and img_paths_next.txt in the places of features.npy and img_paths.txt.

    A reader never sees the rows of one with the names of the other: where the names change, img_paths.txt is taken away
    before the features are replaced.
    """
    if files.fingerprint_file(paths["names"]) != files.fingerprint_file(paths["names_next"]):
        paths["names"].unlink(missing_ok=True)
    if paths["next"].exists():
        paths["next"].replace(paths["features"])
    paths["names_next"].replace(paths["names"])


def finish_exchange(paths: dict[str, Path]) -> None:
    """Finish the exchange that a killed run had begun; what a run killed before that left behind is removed."""
    outputs = (files.read_record(paths["record"]) or {}).get("outputs", {})
    for new, old in (("next", "features"), ("names_next", "names")):
        if paths[new].exists() and files.fingerprint_file(paths[new]) != outputs.get(files.shown(paths[old])):
            paths[new].unlink()
    if paths["names_next"].exists():
        exchange(paths)
    paths["next"].unlink(missing_ok=True)
    files.remove_temporaries(paths["features"].parent)


def earlier_rows(paths: dict[str, Path], origin: dict) -> tuple[dict[str, Row], dict]:
    """Features of an earlier run made by the same code, network and settings, and what its record says of them.

    Returns fingerprint -> memory-mapped row, and the record; both are empty where there is no such run.
    """
    record = files.recorded(paths["features"], paths["record"])
    if config.REDO or record is None or not same_way(record["made_from"], origin):
        return {}, {}
    features = files.read_npy(paths["features"], STAGE, memory_map=True)
    with files.as_written(paths["record"], STAGE):
        keys = [key for key in record["images"].values() if key]
        return dict(zip(keys, features, strict=True)), {key: record[key] for key in ABOUT}


def same_way(one: dict, other: dict) -> bool:
    """Whether two origins differ in the images alone."""
    return all(one.get(key) == other[key] for key in ("code", "settings", "network"))


def write_next(path: Path, keys: list[str], n_features: int, earlier: dict[str, Row], parts: "Parts") -> None:
    """Write features_next.npy, float32 (len(keys), n_features), row by row from the earlier array and the parts."""
    rows_of: dict[str, list[int]] = {}
    for i, key in enumerate(keys):
        rows_of.setdefault(key, []).append(i)
    # written, not memory-mapped: a full disk ends a program that writes to a map
    with files.whole(path) as temporary, temporary.open("wb") as handle:
        descr = np.lib.format.dtype_to_descr(np.dtype(np.float32))
        header = {"descr": descr, "fortran_order": False, "shape": (len(keys), n_features)}
        np.lib.format.write_array_header_1_0(handle, header)
        start = handle.tell()
        known = ((key, earlier[key]) for key in rows_of if key in earlier)
        for key, row in itertools.chain(known, parts.read()):
            for i in rows_of.get(key, []):
                handle.seek(start + i * row.nbytes)
                handle.write(row.astype(np.float32, copy=False).tobytes())


def write_skipped(path: Path, skipped: list[tuple[str, str, str]]) -> None:
    """Write features_skipped.csv where an image could not be read; remove that of an earlier run where all could."""
    if skipped:
        files.write_csv(path, ["image", "stage", "reason"], skipped)
    else:
        path.unlink(missing_ok=True)


# ---- for the TensorFlow projector ----------------------------------------------------------------


def sprite(image_paths: list[Path]) -> np.ndarray:
    """Thumbnails in rows on a square sheet, as the projector expects: uint8 BGR (side, side, 3)."""
    n_columns = max(1, math.ceil(math.sqrt(len(image_paths))))
    size = max(1, min(SPRITE_THUMBNAIL, SPRITE_PIXELS // n_columns))
    sheet = np.full((n_columns * size, n_columns * size, 3), 255, np.uint8)
    for i, path in enumerate(image_paths):
        top, left = i // n_columns * size, i % n_columns * size
        try:
            thumbnail_rgb = network.square_image(images.read_bgr(path), size, crop=False)
        except images.ImageError:
            continue
        sheet[top : top + size, left : left + size] = thumbnail_rgb[..., ::-1]
    return sheet


def write_projector_files(paths: dict[str, Path], names: list[str], img_dir: Path) -> None:
    """Write features_next.npy as text, the names as metadata, and the sprite."""
    features = np.load(paths["next"], mmap_mode="r", allow_pickle=False)
    with files.whole(paths["tsv"]) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as handle:
        for row in features:
            handle.write("\t".join(f"{value:.6g}" for value in row) + "\n")
    files.write_lines(paths["metadata"], names)
    data = images.encode_image(sprite([img_dir / name for name in names]), ".png")
    with files.whole(paths["sprite"]) as temporary:
        temporary.write_bytes(data)


# ---- the stage -----------------------------------------------------------------------------------


def write_outputs(paths: dict[str, Path], origin: dict, keys: dict[str, str], about: dict) -> None:
    """Write what belongs to features_next.npy, then the record, then exchange: a killed run can be finished.

    keys : name -> fingerprint of the image, "" for one that can't be read
    """
    names = [name for name, key in keys.items() if key]
    files.write_lines(paths["names_next"], names)
    outputs = {
        files.shown(paths[old]): files.fingerprint_file(paths[new])
        for new, old in (("next", "features"), ("names_next", "names"))
    }
    if config.SAVE_TSV:
        write_projector_files(paths, names, files.img_dir(config.DATASET))
        outputs |= {files.shown(paths[k]): files.fingerprint_file(paths[k]) for k in ("tsv", "metadata", "sprite")}
    files.write_json(paths["record"], {"made_from": origin, "outputs": outputs, **about, "images": keys})
    exchange(paths)


def origin_of(img_dir: Path, keys: dict[str, str]) -> dict:
    """What the features are made from: images, network, settings, code."""
    inputs = {files.shown(img_dir): files.fingerprint(keys)}
    if config.FEATURE_NETWORK == "fine-tuned":
        weights_path, _, _ = network_files()
        inputs[files.shown(weights_path)] = files.fingerprint_file(weights_path)
    origin = files.made_from(__file__, inputs, SETTINGS)
    return origin | {"network": network_print()}


def main() -> None:
    begin = time.perf_counter()
    paths, img_dir = paths_of(config.DATASET), files.img_dir(config.DATASET)
    names = files.images_of(img_dir, f"run 01.img_preprocess.py --DATASET={config.DATASET} first")
    keys = {name: files.fingerprint_file(img_dir / name) for name in names}
    origin = origin_of(img_dir, keys)
    finish_exchange(paths)
    wrote = [paths["features"], paths["names"]]
    if files.up_to_date(paths["record"], origin) and (paths["tsv"].exists() or not config.SAVE_TSV):
        files.unchanged(wrote)
        return

    parts = Parts(paths["parts"], files.fingerprint([origin[key] for key in ("code", "settings", "network")]))
    earlier, about = earlier_rows(paths, origin)
    about = about or parts.about()
    known = set(earlier) | {key for key, _ in parts.read()} if about else set()
    to_do = {key: img_dir / name for name, key in keys.items() if key not in known}
    unreadable = {}
    print(f"{len(to_do)} images to compute, {len(set(keys.values())) - len(to_do)} known")
    if to_do:
        compute, about = load_network()
        parts.begin(about)
        unreadable = compute_features(to_do, compute, parts)
    skipped = [(name, STAGE, unreadable[key]) for name, key in keys.items() if key in unreadable]
    if len(skipped) == len(names):
        raise settings.UserError(f"no file of {files.shown(img_dir)}/ can be read as an image: {skipped[0][2]}")
    keys = {name: "" if key in unreadable else key for name, key in keys.items()}
    write_next(paths["next"], [key for key in keys.values() if key], about["n_features"], earlier, parts)
    write_outputs(paths, origin, keys, about | {"seconds": round(time.perf_counter() - begin, 1)})
    write_skipped(paths["skipped"], skipped)
    parts.remove()
    files.summary(len(names), len(names) - len(skipped), len(skipped), wrote, time.perf_counter() - begin)


if __name__ == "__main__":
    settings.run(main, __doc__)
