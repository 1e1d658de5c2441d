"""The features of a data set and the names of its images: two files that always fit together.

While one file replaces the other, `img_paths.txt` is absent for a moment, and the next run finishes the exchange if
this one is killed in it.
"""

import itertools
from pathlib import Path

import numpy as np

from pipeline.machinery import records
from pipeline.machinery.errors import UserError
from pipeline.machinery.files import atomic_write, read_npz, remove_temporaries, write_csv
from pipeline.machinery.parts import Parts
from pipeline.machinery.paths import data_dir, display_path, model_dir

TRAINING = "02.feature_network_fine_tuning.py"


def paths_of(dataset: str) -> dict[str, Path]:
    """Return the paths of the files that stage 03 writes, by short names; the "next" ones await the exchange."""
    folder = data_dir(dataset)
    return {
        "features": folder / "features.npy",
        "next": folder / "features_next.npy",
        "names": folder / "img_paths.txt",
        "names_next": folder / "img_paths_next.txt",
        "record": folder / "features.json",
        "skipped": folder / "features_skipped.csv",
        "parts": folder / "features_parts",
    }


def exchange(paths: dict[str, Path]) -> None:
    """Put features_next.npy and img_paths_next.txt in the places of features.npy and img_paths.txt.

    A reader never sees the rows of one with the names of the other: where the names change, img_paths.txt is taken away
    before the features are replaced.
    """
    if records.fingerprint_file(paths["names"]) != records.fingerprint_file(paths["names_next"]):
        paths["names"].unlink(missing_ok=True)
    if paths["next"].exists():
        paths["next"].replace(paths["features"])
    paths["names_next"].replace(paths["names"])


def finish_exchange(paths: dict[str, Path]) -> None:
    """Finish the exchange that a killed run began; remove the files of a run that was killed before its exchange."""
    outputs = (records.read_record(paths["record"]) or {}).get("outputs", {})
    for new, old in (("next", "features"), ("names_next", "names")):
        if paths[new].exists() and records.fingerprint_file(paths[new]) != outputs.get(display_path(paths[old])):
            paths[new].unlink()
    if paths["names_next"].exists():
        exchange(paths)
    paths["next"].unlink(missing_ok=True)
    remove_temporaries(paths["features"].parent)


def write_next(path: Path, keys: list[str], n_features: int, earlier: dict[str, np.ndarray], parts: Parts) -> None:
    """Write features_next.npy, float32 (len(keys), n_features), row by row from the earlier array and the parts."""
    rows_of: dict[str, list[int]] = {}
    for i, key in enumerate(keys):
        rows_of.setdefault(key, []).append(i)
    # written, not memory-mapped: a full disk ends a program that writes to a map
    with atomic_write(path) as temporary, temporary.open("wb") as handle:
        descr = np.lib.format.dtype_to_descr(np.dtype(np.float32))
        header = {"descr": descr, "fortran_order": False, "shape": (len(keys), n_features)}
        np.lib.format.write_array_header_1_0(handle, header)
        start = handle.tell()
        known = ((key, earlier[key]) for key in rows_of if key in earlier)
        for key, row in itertools.chain(known, parts.read()):
            for i in rows_of.get(key, []):
                handle.seek(start + i * row.nbytes)
                handle.write(row.astype(np.float32, copy=False).tobytes())


def find_known_features(dataset: str, train_dataset: str) -> Path:
    """Return where known models' features are: stage 03's, there where nothing was fine-tuned, or else stage 02's.

    dataset, train_dataset : DATASET and TRAIN_DATASET. The file need not exist.
    """
    path = data_dir(dataset) / "known_features.npz"
    return path if path.exists() else model_dir(train_dataset) / "known_features.npz"


def fits_features(known_path: Path, dataset: str) -> bool:
    """Return whether known models' features are of the network that made features.npy; True where a file names none."""
    folder = data_dir(dataset)
    record = records.recorded(folder / "features.npy", folder / "features.json")
    network = record["made_from"].get("network") if record else None
    try:
        known_network = str(read_npz(known_path, TRAINING, ("network",))["network"])
    except UserError:  # a file from elsewhere, which does not say
        return True
    return network is None or network == known_network


def read_known_features(dataset: str, train_dataset: str, n_features: int) -> tuple[np.ndarray, np.ndarray] | None:
    """Return the features of known models' photographs, (n, n_features), and the models, (n,); None where unfit.

    dataset, train_dataset : DATASET and TRAIN_DATASET. A file of another network or width is named and not used. Raises
    UserError where the file is damaged.
    """
    path = find_known_features(dataset, train_dataset)
    if not path.exists():
        return None
    if not fits_features(path, dataset):
        print(f"{display_path(path)} is of another network than these features: not used")
        return None
    known = read_npz(path, TRAINING, ["features", "labels"])
    features, labels = known["features"], known["labels"]
    if features.ndim != 2 or labels.shape != features.shape[:1] or not np.isfinite(features).all():
        raise UserError(
            f"{display_path(path)} does not hold a row of finite features for each label: "
            f"run {TRAINING} again with --REDO=True"
        )
    if features.shape[1] != n_features:
        print(f"{display_path(path)} has {features.shape[1]} features, these images {n_features}: not used")
        return None
    return features, labels


def write_skipped(path: Path, skipped: list[tuple[str, str, str]]) -> None:
    """Write features_skipped.csv where an image could not be read; remove that of an earlier run where all could."""
    if skipped:
        write_csv(path, ["image", "stage", "reason"], skipped)
    else:
        path.unlink(missing_ok=True)
