"""The features of a data set and the names of its images: two files that always fit together.

While one file replaces the other, `img_paths.txt` is absent for a moment, and the next run finishes the exchange if
this one is killed in it.
"""

import itertools
from pathlib import Path

import numpy as np

from pipeline.machinery import records
from pipeline.machinery.files import atomic_write, remove_temporaries
from pipeline.machinery.parts import Parts
from pipeline.machinery.paths import data_dir, display_path


def paths_of(dataset: str) -> dict[str, Path]:
    """Return the files that stage 03 writes, by what they are; "next" ones lie there before the exchange."""
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
    """Finish the exchange that a killed run had begun; what a run killed before that left behind is removed."""
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
