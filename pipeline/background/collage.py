"""The panels of a collage: several views of a product in one picture, in rows and columns.

Where lines of one colour lie between the panels, the picture is cut along them again and again (recursive XY-cut: Nagy
and Seth 1984, "Hierarchical representation of optically scanned documents", ICPR). Four views on one white ground show
no line; there a cross of ground between four parts of like colours says so.
"""

import itertools
from collections.abc import Iterator

import cv2
import numpy as np

from pipeline.background.layout import SAME_COLOUR

MIN_PANEL = 0.2  # of the picture's side; sellers put at most four panels into a row, and stripes are narrower
MIN_LINE = 2  # pixels; a thinner line is blended with what is beside it
MAX_LINE = 0.1  # of the picture's side; what is wider is ground
LINE_SHARE = 0.99  # of a line's pixels that have its colour; the rest are JPEG's
OTHER_SHARE = 0.5  # of the pixels beside a line that have its colour, at most: there a photograph begins
MAX_DEPTH = 2  # cuts within cuts: rows of columns
CROSS_BAND = 0.15  # of the side: how far from the middle the arms of a cross of ground may run
MIN_CONTENT = 0.02  # of a panel's pixels that are no ground
LIKE_COLOURS = 0.4  # share of their colours that two views of a product have in common, at least
COLOUR_BINS = 6  # of each channel; a changed light then moves few pixels into other bins

Panel = tuple[slice, slice]  # rows and columns


def find_panels(image_bgr: np.ndarray) -> list[Panel]:
    """Return rows and columns of each panel in reading order; one panel, the whole image, where it is no collage.

    image_bgr : uint8 (H, W, 3), without frames and banners around it
    """
    height, width = image_bgr.shape[:2]
    panels = list(_cut(image_bgr, (slice(0, height), slice(0, width)), MAX_DEPTH))
    return panels if len(panels) > 1 else _quarters_on_ground(image_bgr) or panels


def _cut(image_bgr: np.ndarray, region: Panel, depth: int) -> Iterator[Panel]:
    """Yield the panels of a region of an image, which is cut along lines first from side to side, then up and down."""
    rows, columns = region
    part_bgr = np.ascontiguousarray(image_bgr[region])
    across = _find_lines(part_bgr, image_bgr.shape[0]) if depth else []
    along = _find_lines(cv2.transpose(part_bgr), image_bgr.shape[1]) if depth and not across else []
    for begin, end in _between(across, part_bgr.shape[0]) if across else []:
        yield from _cut(image_bgr, (slice(rows.start + begin, rows.start + end), columns), depth - 1)
    for begin, end in _between(along, part_bgr.shape[1]) if along else []:
        yield from _cut(image_bgr, (rows, slice(columns.start + begin, columns.start + end)), depth - 1)
    if not across and not along:
        yield region


def _between(lines: list[tuple[int, int]], length: int) -> list[tuple[int, int]]:
    """Return begin and end of what lies between lines, over a length."""
    begins, ends = [0, *(end for _, end in lines)], [*(begin for begin, _ in lines), length]
    return list(zip(begins, ends, strict=True))


def _row_colours(image_bgr: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean colour of each row, int16 (H, 3), and the share of its pixels that have this colour (H,)."""
    few = np.ascontiguousarray(image_bgr[:, ::2])  # every second column shows as much
    colours = cv2.reduce(few, 1, cv2.REDUCE_AVG)  # (H, 1, 3); of a row of one colour, the colour
    return colours[:, 0].astype(np.int16), _share_of(few, colours)


def _share_of(image_bgr: np.ndarray, colours: np.ndarray) -> np.ndarray:
    """Return the share of the pixels of each row, uint8 (H, W, 3), that have its colour, (H, 1, 3) or (3,): (H,)."""
    apart = cv2.absdiff(image_bgr, np.broadcast_to(colours.astype(np.uint8), image_bgr.shape))
    same = cv2.inRange(apart, (0, 0, 0), (SAME_COLOUR, SAME_COLOUR, SAME_COLOUR))
    return cv2.reduce(same, 1, cv2.REDUCE_AVG, dtype=cv2.CV_32F)[:, 0] / 255


def _runs(colours: np.ndarray, chosen: np.ndarray) -> list[tuple[int, int]]:
    """Return begin and end of each run of chosen rows, bool (H,), whose colours (H, 3) are much the same."""
    changes = np.flatnonzero(np.abs(np.diff(colours, axis=0)).max(axis=1, initial=0) > SAME_COLOUR) + 1
    edges = np.flatnonzero(np.diff(chosen)) + 1
    bounds = np.unique(np.concatenate([[0, len(chosen)], changes, edges])).tolist()
    return [(begin, end) for begin, end in itertools.pairwise(bounds) if chosen[begin]]


def _find_lines(image_bgr: np.ndarray, side: int) -> list[tuple[int, int]]:
    """Return begin and end of the rows that lines between panels take, [] where a panel would be too small.

    side : of the whole picture, pixels
    """
    (colours, shares), lines = _row_colours(image_bgr), []
    for begin, end in _runs(colours, shares >= LINE_SHARE):
        if begin < 3 or end > len(shares) - 3 or not MIN_LINE <= end - begin <= MAX_LINE * side:
            continue
        beside = image_bgr[[begin - 3, end + 2]]  # the rows next to the line are blended
        if _share_of(beside, colours[(begin + end) // 2]).min() < OTHER_SHARE:
            lines.append((begin, end))
    panels = _between(lines, len(shares))
    return lines if min(end - begin for begin, end in panels) >= MIN_PANEL * side else []


def _quarters_on_ground(image_bgr: np.ndarray) -> list[Panel]:
    """Return the four panels of a picture that a cross of one colour parts into four views of like colours, else []."""
    arms, colours = [], []
    for turned_bgr in (np.ascontiguousarray(image_bgr), cv2.transpose(image_bgr)):
        row_colours, shares = _row_colours(turned_bgr)
        length = len(shares)
        first, last = (0.5 - CROSS_BAND) * length, (0.5 + CROSS_BAND) * length
        near = [
            run
            for run in _runs(row_colours, shares == 1)
            if run[1] > first and run[0] < last and run[1] - run[0] >= MIN_LINE
        ]
        if not near:
            return []
        begin, end = min(near, key=lambda run: abs(sum(run) - length))
        arms.append(min(max(length // 2, begin), end))
        colours.append(row_colours[(begin + end) // 2])
    if np.abs(colours[0] - colours[1]).max() > SAME_COLOUR:
        return []
    (row, column), (height, width) = arms, image_bgr.shape[:2]
    panels = [
        (rows, columns)
        for rows in (slice(0, row), slice(row, height))
        for columns in (slice(0, column), slice(column, width))
    ]
    ground = colours[0].astype(np.float64)
    content = cv2.inRange(image_bgr, ground - SAME_COLOUR, ground + SAME_COLOUR) == 0
    if min(content[panel].mean() for panel in panels) < MIN_CONTENT:
        return []
    seen = [colour_shares(image_bgr[panel][content[panel]]) for panel in panels]
    return panels if all(are_like_colours(seen[0], other) for other in seen[1:]) else []


def are_like_colours(one: np.ndarray, other: np.ndarray) -> bool:
    """Return whether two views, given by their `colour_shares`, have at least LIKE_COLOURS of their colours in common.

    The measure is the histogram intersection of Swain and Ballard 1991, doi:10.1007/BF00130487.

    >>> red, blue = np.uint8([[0, 0, 200]]), np.uint8([[200, 0, 0]])
    >>> both = colour_shares(np.vstack([red, blue]))
    >>> are_like_colours(colour_shares(red), both), are_like_colours(colour_shares(red), colour_shares(blue))
    (True, False)
    """
    return float(np.minimum(one, other).sum()) >= LIKE_COLOURS


def colour_shares(pixels_bgr: np.ndarray) -> np.ndarray:
    """Return the share of each colour among pixels, uint8 BGR (n, 3): float64 (COLOUR_BINS,) * 3."""
    counts, _ = np.histogramdd(pixels_bgr, COLOUR_BINS, [(0, 256)] * 3)
    return counts / counts.sum()
