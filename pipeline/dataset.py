"""A data set on the disk, as every script reads it: the names of its images, and its features with their names.

An image is named by its path relative to its data set's folder, with "/" on every system.
"""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pipeline.images import IMAGE_SUFFIXES, UNREAD_SUFFIXES, encode_image
from pipeline.machinery import files
from pipeline.machinery.errors import UserError
from pipeline.machinery.paths import data_dir, display_path


class Folder(NamedTuple):
    """The files below a data set's folder, by their names."""

    names: list[str]  # image files, in code point order
    unread: list[tuple[str, str]]  # photographs of formats that are not read, and why
    others: Counter[str]  # how many files of each other suffix there are
    not_followed: list[str]  # links to folders that lead back into the data set or to a folder above it


def list_images(folder: Path) -> list[str]:
    """Return the names of the image files in `folder` and below, relative to it, with "/", in code point order.

    An image file is one with a suffix of `IMAGE_SUFFIXES` in any case, hidden files and folders excepted.
    Symbolic links are followed (see `scan_folder`).
    """
    return scan_folder(folder).names


def scan_folder(folder: Path) -> Folder:
    """Look at all files in `folder` and below, hidden files and folders excepted.

    Links to folders are followed, out of `folder` as well: files are read there, never written. Each folder is visited
    once, at its own place if that lies below `folder`, else by the first link to it; a link to a folder that holds
    `folder` is not followed. So no loop of links has no end, and no photograph is taken twice.
    """
    found = Folder([], [], Counter(), [])
    for directory, prefix, entries in _walk(folder, found.not_followed):
        for name in entries:
            if name.startswith("."):
                continue
            suffix = os.path.splitext(name)[1].lower()  # noqa: PTH122
            if suffix in IMAGE_SUFFIXES:
                found.names.append(prefix + name)
            elif suffix in UNREAD_SUFFIXES and Path(directory, name).is_file():
                found.unread.append(
                    (prefix + name, f"{UNREAD_SUFFIXES[suffix]}, which is not read: save it as JPEG or PNG")
                )
            else:
                found.others[suffix or "without a suffix"] += 1
    found.names.sort()
    found.unread.sort()
    return found


def _walk(folder: Path, not_followed: list[str]) -> Iterator[tuple[str, str, list[str]]]:
    """Yield each folder below `folder` once: its path, the beginning of its files' names, its files."""
    top = os.path.realpath(folder)
    own = {directory: os.path.realpath(directory) for directory, _, _ in os.walk(folder)}
    places, visited = set(own.values()), set()
    for directory, folders, entries in os.walk(folder, followlinks=True):
        prefix = Path(directory).relative_to(folder).as_posix()
        prefix = "" if prefix == "." else prefix + "/"
        place = os.path.realpath(directory)
        again = place in visited or (directory not in own and place in places)
        if again or (directory not in own and Path(top).is_relative_to(place)):
            folders.clear()
            not_followed.append(prefix.rstrip("/"))
            continue
        visited.add(place)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield directory, prefix, entries


def describe_left_out(found: Folder, skipped: Sequence[str]) -> list[str]:
    """Return in sentences how many files of each suffix are left out, and which links were not followed.

    skipped : names of the photographs that are left out

    >>> describe_left_out(Folder([], [], Counter({".txt": 2}), ["loop"]), ["a.psd", "b.HEIC"])
    ['left out: 1 .heic, 1 .psd; no photographs: 2 .txt', 'not followed, as the link leads back to where it lies: loop']
    """
    suffixes = Counter(os.path.splitext(name)[1].lower() for name in skipped)  # noqa: PTH122
    photographs, others = (
        ", ".join(f"{count} {suffix}" for suffix, count in sorted(counts.items()))
        for counts in (suffixes, found.others)
    )
    parts = [photographs] * bool(photographs) + [f"no photographs: {others}"] * bool(others)
    sentences = [f"left out: {'; '.join(parts)}"] if parts else []
    if found.not_followed:
        shown = ", ".join(found.not_followed[:5]) + ", ..." * (len(found.not_followed) > 5)
        sentences.append(f"not followed, as the link leads back to where it lies: {shown}")
    return sentences


def name_problem(name: str) -> str | None:
    """Return why an image of this name can't stand on one line of UTF-8 text, or None where the name can be taken."""
    if any(ord(character) < 32 or character in "\x7f\x85\u2028\u2029" for character in name):
        return "the file name holds a line break or another control character: rename it"
    if any("\ud800" <= character <= "\udfff" for character in name):
        return "the file name is not valid Unicode: rename it"
    return None


def images_of(folder: Path, remedy: str) -> list[str]:
    """Return `list_images(folder)`; raises UserError ending in `remedy` where the folder is missing or has none."""
    return folder_of_images(folder, remedy).names


def folder_of_images(folder: Path, remedy: str) -> Folder:
    """Return `scan_folder(folder)`; raises UserError ending in `remedy` where there is no folder, or no image in it."""
    if not folder.is_dir():
        raise UserError(f"{display_path(folder)}/ not found: {remedy}")
    found = scan_folder(folder)
    if not found.names:
        said = "".join(f" ({sentence})" for sentence in describe_left_out(found, [name for name, _ in found.unread]))
        raise UserError(f"{display_path(folder)}/ holds no image ({' '.join(sorted(IMAGE_SUFFIXES))}){said}: {remedy}")
    return found


def read_features(dataset: str, memory_map: bool = True) -> tuple[np.ndarray, list[str]]:
    """Return the features of `dataset` and the names of its images.

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


def write_image(path: Path, image_bgr: np.ndarray) -> None:
    """Write an image whole or not at all, in the format that the suffix of `path` names."""
    files.write_bytes(path, encode_image(image_bgr, path.suffix))
