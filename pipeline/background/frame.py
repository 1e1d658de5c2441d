"""A frame that a photograph was cut to: a circle, rounded corners, a border; transparent or of one colour outside.

The inside of a frame is a photograph with product and ground, not a product. The shape shows a frame: a frame is convex
and its own mirror image from left to right and from top to bottom.
"""

import cv2
import numpy as np

from pipeline.background.regions import bounding_box, is_plausible, square

MIN_LIKENESS = 0.97  # IoU of a frame and its mirror image, and its share of its convex hull; JPEG blurs corners by less
SAME_COLOUR = 8  # levels of each channel; what lies outside of a drawn frame varies by less, after JPEG too
BAND = (
    0.06  # of the longest side; as much of the photograph at the frame is repeated outside, as `border_distance` sees
)


def find_frame(image_bgr: np.ndarray, alpha: np.ndarray | None) -> np.ndarray | None:
    """Return the inside of a frame, bool (H, W); None where there is no frame but the image's own border.

    image_bgr : uint8 (H, W, 3); alpha : uint8 (H, W), or None: then the outside is of one colour and holds all corners,
    and the inside reaches all four sides, since a smaller one could be a product of that shape
    """
    if alpha is not None:
        inside = alpha > 127
        return inside if is_frame_shaped(inside) else None
    inside = ~_outside_of_one_colour(image_bgr)
    height, width = inside.shape
    if not is_plausible(inside) or not is_frame_shaped(inside):
        return None
    rows, columns = bounding_box(inside)
    reaches = columns.stop - columns.start > 0.98 * width and rows.stop - rows.start > 0.98 * height
    return inside if reaches and _has_edge(image_bgr, inside) else None


def is_frame_shaped(inside: np.ndarray) -> bool:
    """Return whether a region, bool (H, W), is convex and its own mirror image in both directions.

    >>> is_frame_shaped(np.ones((5, 8), bool)), is_frame_shaped(np.tri(9, dtype=bool))
    (True, False)
    """
    part = inside[bounding_box(inside)]
    if not part.any():
        return False
    likeness = [
        np.count_nonzero(part & other) / np.count_nonzero(part | other) for other in (part[::-1], part[:, ::-1])
    ]
    hull = cv2.convexHull(cv2.findNonZero(part.view(np.uint8)))
    filled = cv2.fillConvexPoly(np.zeros(part.shape, np.uint8), hull, 1)
    return bool(min(*likeness, np.count_nonzero(part) / np.count_nonzero(filled)) > MIN_LIKENESS)


def extend_beyond_frame(image_bgr: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Return the photograph within a frame, continued outside: uint8 BGR (H, W, 3) and bool (H, W) -> uint8 BGR.

    Each pixel outside takes the colour of a pixel inside: the band of width BAND inside the frame is mirrored at the
    frame, again and again. So the border of the result has the colours and the texture of the ground at the frame.
    """
    clear = cv2.erode(inside.view(np.uint8), square(3), borderType=cv2.BORDER_CONSTANT, borderValue=1)  # of blends
    outside = np.nonzero(clear == 0)
    if not len(outside[0]) or not clear.any():
        return image_bgr
    distance, nearest = cv2.distanceTransformWithLabels(1 - clear, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    rows, columns = np.nonzero(clear)
    place = np.zeros((nearest.max() + 1, 2), np.float32)  # row and column of each label's pixel
    place[nearest[rows, columns]] = np.column_stack([rows, columns])
    foot = place[nearest[outside]]  # (n, 2), of the frame
    depth, band = distance[outside], max(2.0, BAND * max(inside.shape))
    depth = band - np.abs(depth % (2 * band) - band)
    inwards = (foot - np.column_stack(outside)) / distance[outside][:, None]
    source = np.rint(foot + depth[:, None] * inwards).astype(int)
    source = np.clip(source, 0, np.array(inside.shape) - 1)
    extended = image_bgr.copy()
    extended[outside] = image_bgr[source[:, 0], source[:, 1]]
    return extended


def _has_edge(image_bgr: np.ndarray, inside: np.ndarray) -> bool:
    """Return whether the colour changes at once at a frame's rim; at a lens's dark corners it fades."""
    rim = inside & (cv2.erode(inside.view(np.uint8), square(7), borderType=cv2.BORDER_CONSTANT, borderValue=1) == 0)
    return bool(np.median(np.abs(image_bgr[rim].astype(int) - image_bgr[0, 0]).max(axis=1)) > 2 * SAME_COLOUR)


def _outside_of_one_colour(image_bgr: np.ndarray) -> np.ndarray:
    """Return the pixels of the corners' colour that touch a corner, bool (H, W); none where the corners differ."""
    height, width = image_bgr.shape[:2]
    corners = [(x, y) for x in (0, width - 1) for y in (0, height - 1)]
    colours = np.array([image_bgr[y, x] for x, y in corners], int)
    marked = np.zeros((height + 2, width + 2), np.uint8)
    if np.ptp(colours, axis=0).max() <= SAME_COLOUR:
        flags = 4 | cv2.FLOODFILL_MASK_ONLY | cv2.FLOODFILL_FIXED_RANGE
        for corner in corners:
            cv2.floodFill(image_bgr.copy(), marked, corner, 0, (SAME_COLOUR,) * 3, (SAME_COLOUR,) * 3, flags)
    return marked[1:-1, 1:-1] > 0
