"""A data set on the disk, as every script reads it: the names of its images, and its features with their names.

An image is named by its path relative to its data set's folder, with "/" on every system.
"""

import os
from collections import Counter
from pathlib import Path

import numpy as np

from pipeline.images import IMAGE_SUFFIXES
from pipeline.machinery import files
from pipeline.machinery.errors import UserError
from pipeline.machinery.paths import data_dir, display_path


def list_images(folder: Path) -> list[str]:
    """Names of the image files in `folder` and below, relative to it, with "/", in code point order.

    An image file is one with a suffix of `IMAGE_SUFFIXES` in any case, hidden files and folders excepted.
    Symbolic links to files are followed where they lead to a file; links to folders are not.
    """
    names = []
    for directory, folders, entries in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        prefix = Path(directory).relative_to(folder).as_posix()
        prefix = "" if prefix == "." else prefix + "/"
        names += [
            prefix + name
            for name in entries
            if not name.startswith(".") and os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES  # noqa: PTH122
        ]
    return sorted(names)


def name_problem(name: str) -> str | None:
    """Why an image of this name can't be taken (it would not fit on one line of UTF-8 text), or None where it can."""
    if any(ord(character) < 32 or character in "\x7f\x85\u2028\u2029" for character in name):
        return "the file name holds a line break or another control character: rename it"
    if any("\ud800" <= character <= "\udfff" for character in name):
        return "the file name is not valid Unicode: rename it"
    return None


def images_of(folder: Path, remedy: str) -> list[str]:
    """`list_images(folder)`; raises UserError ending in `remedy` where the folder is missing or has none."""
    if not folder.is_dir():
        raise UserError(f"{display_path(folder)}/ not found: {remedy}")
    names = list_images(folder)
    if not names:
        raise UserError(f"{display_path(folder)}/ holds no image ({' '.join(sorted(IMAGE_SUFFIXES))}): {remedy}")
    return names


def read_features(dataset: str, memory_map: bool = True) -> tuple[np.ndarray, list[str]]:
    """The features of `dataset` and the names of its images.

    Returns
    -------
    features : ndarray of shape (n_images, n_features), a floating dtype, memory-mapped unless asked otherwise
    img_paths : list of n_images different names, row i of `features` belongs to name i

    Raises UserError where a file is missing or damaged, or the two do not fit together. Values are not looked at.
    """
    stage = "03.feature_extraction.py"
    features_path, names_path = data_dir(dataset) / "features.npy", data_dir(dataset) / "img_paths.txt"
    features = files.read_npy(features_path, stage, memory_map)
    img_paths = files.read_lines(names_path, stage)
    if features.ndim != 2 or features.shape[1] == 0 or not np.issubdtype(features.dtype, np.floating):
        raise UserError(
            f"{display_path(features_path)} has shape {features.shape} and type {features.dtype}, "
            f"not (n_images, n_features) of a floating type: run {stage} again"
        )
    if len(features) != len(img_paths):
        raise UserError(
            f"{display_path(features_path)} has {len(features)} rows and {display_path(names_path)} has "
            f"{len(img_paths)} lines: run {stage} again"
        )
    if len(set(img_paths)) != len(img_paths):
        twice = next(name for name, count in Counter(img_paths).items() if count > 1)
        raise UserError(f"{display_path(names_path)} names {twice} twice: run {stage} again")
    if not img_paths:
        raise UserError(f"{display_path(features_path)} holds no image: run {stage} again")
    return features, img_paths
