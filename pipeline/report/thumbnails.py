"""Photographs as small squares."""

import io
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps
from tqdm import tqdm

from pipeline import images

TILE = 128  # pixels; side of the photographs in the pictures


def read_thumbnail(path: Path, side: int) -> np.ndarray | None:
    """Return a photograph within a white square: uint8 RGB (side, side, 3), or None where it can't be read."""
    try:
        picture = read_small_jpeg(path, side) or Image.fromarray(images.read_bgr(path)[..., ::-1])
        picture = ImageOps.pad(picture, (side, side), Image.Resampling.LANCZOS, color="white")
    except images.ImageError:
        return None
    return np.asarray(picture)


def read_small_jpeg(path: Path, side: int) -> Image.Image | None:
    """Return a JPEG file decoded at the smallest scale with at least `side` pixels, upright; None for other files.

    Decoding at a scale of 1/8 is what makes thumbnails of large photographs quick.
    """
    try:
        with Image.open(path, formats=("JPEG",)) as picture:
            if picture.mode not in ("RGB", "L") or picture.width * picture.height > images.MAX_PIXELS:
                return None
            picture.draft("RGB", (side, side))
            return images.convert_to_srgb(ImageOps.exif_transpose(picture)).convert("RGB")
    except Exception:  # damaged in some way: the careful reader says how
        return None


def read_thumbnails(
    paths: Sequence[Path | None], side: int, handle: io.IOBase, ordered_map: Callable[..., Iterable] = map
) -> tuple[np.ndarray, list[int]]:
    """Read the thumbnails of all photographs; a photograph that is gone (None) or can't be read becomes grey.

    Returns
    -------
    tiles : memory map in the open file `handle`, uint8 RGB (n_images, side, side, 3)
    unreadable : places in `paths` of the photographs that could not be read

    ordered_map : like `map`; the place to read several photographs at once
    """
    found = ordered_map(lambda path: read_thumbnail(path, side) if path else None, paths)
    unreadable = []
    # written, not memory-mapped: a full disk ends a program that writes to a map
    for i, tile in enumerate(tqdm(found, "thumbnails", len(paths), unit="image", disable=None)):
        if tile is None:
            unreadable.append(i)
        handle.write(np.full((side, side, 3), 200, np.uint8) if tile is None else np.ascontiguousarray(tile))
    handle.flush()
    return np.memmap(handle, np.uint8, "r", shape=(len(paths), side, side, 3)), unreadable
