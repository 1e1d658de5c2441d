"""Regions of an image as boolean arrays: borders, boxes, discs, connected parts, holes."""

import cv2
import numpy as np

MIN_FOREGROUND = 0.004  # share of the image; a smaller mask is taken for a failure
MAX_FOREGROUND = 0.97  # share of the image; a larger mask leaves no ground to remove


def size_within(width: int, height: int, longest: int) -> tuple[int, int]:
    """Return width and height scaled down so that the longer is at most `longest`, the shorter at least 8 pixels."""
    scale = min(1.0, longest / max(width, height))
    return max(8, round(width * scale)), max(8, round(height * scale))


def is_plausible(mask: np.ndarray) -> bool:
    """Return whether a mask covers a share of the image that a product can have."""
    return MIN_FOREGROUND <= np.count_nonzero(mask) / mask.size <= MAX_FOREGROUND


def border_ring(height: int, width: int, share: float) -> np.ndarray:
    """Return the pixels nearer to the border than `share` of the longest side: bool (height, width)."""
    ring = np.ones((height, width), bool)
    b = max(2, round(share * max(height, width)))
    ring[b:-b, b:-b] = False
    return ring


def bounding_box(mask: np.ndarray) -> tuple[slice, slice]:
    """Return rows and columns of the smallest rectangle that holds a mask, bool (H, W); empty where there is none."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)) if len(rows) else (slice(0), slice(0))


def square(side: int) -> np.ndarray:
    """Return a square structuring element: uint8 (side, side)."""
    return np.ones((side, side), np.uint8)


def disc(radius: int) -> np.ndarray:
    """Return a round structuring element of that radius in pixels: uint8 (2 radius + 1, 2 radius + 1)."""
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))


def components_with(region: np.ndarray, seeds: np.ndarray, connectivity: int = 4) -> np.ndarray:
    """Return the connected components of a region that hold a seed: bool (H, W) and bool (H, W) -> bool (H, W)."""
    n, parts = cv2.connectedComponents(region.view(np.uint8), connectivity=connectivity)
    chosen = np.zeros(n, bool)
    chosen[parts[seeds]] = True
    chosen[0] = False
    return chosen[parts]


def enclosed_holes(mask: np.ndarray) -> np.ndarray:
    """Return the holes that a mask encloses, bool (H, W).

    >>> ring = np.array([[1, 1, 1], [1, 0, 1], [1, 1, 1]], bool)
    >>> np.argwhere(enclosed_holes(ring)).tolist()
    [[1, 1]]
    """
    framed = cv2.copyMakeBorder(mask.view(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    cv2.floodFill(framed, None, (0, 0), 1)
    return framed[1:-1, 1:-1] == 0


def labelled_parts(mask: np.ndarray, connectivity: int) -> tuple[int, np.ndarray, np.ndarray]:
    """Label the connected parts of a mask, bool (H, W).

    Returns
    -------
    n : number of labels; label 0 is outside of the mask
    parts : int32 ndarray of shape (H, W), the label of each pixel
    sizes : int32 ndarray of shape (n,), the pixels of each label
    """
    n, parts, stats, _ = cv2.connectedComponentsWithStats(mask.view(np.uint8), connectivity=connectivity)
    return n, parts, stats[:, cv2.CC_STAT_AREA]


def mean_per_part(parts: np.ndarray, sizes: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return the mean of `values` (H, W) in each part, 0 for label 0: int32 (H, W), (n,), (H, W) -> float64 (n,)."""
    return np.bincount(parts[parts > 0], values[parts > 0], len(sizes)) / np.maximum(1, sizes)


def open_share(parts: np.ndarray, n: int, mask: np.ndarray) -> np.ndarray:
    """Return the share of each part's rim that lies outside of `mask`, 0..1.

    parts : int32 (H, W), labels of n parts; mask : bool (H, W) -> float64 (n,)
    """
    inside = (parts > 0).astype(np.uint8)
    rim = np.nonzero(cv2.dilate(inside, square(3)) > inside)
    beside = cv2.dilate(parts.astype(np.float32), square(3))[rim].astype(np.int32)
    return np.bincount(beside, ~mask[rim], minlength=n) / np.maximum(1, np.bincount(beside, minlength=n))
