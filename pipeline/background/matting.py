"""A mask's edge fitted to the image's, and the product put on white."""

import cv2
import numpy as np

from pipeline.background.colour import fisher_direction
from pipeline.background.regions import bounding_box, disc, size_within

EDGE_SIZE = 2048  # longest side at which a mask's edge is fitted to the image's, pixels
GUIDED_FILTER_EPSILON = 30  # levels squared; a guide that varies less within the window counts as even
STRIP = 512  # rows of a large image that are blended at a time


def fit_edge(mask: np.ndarray, image_bgr: np.ndarray) -> np.ndarray:
    """Bring a coarse mask to a larger image's size, and its edge to the image's edge.

    Above EDGE_SIZE the mask is only enlarged.

    mask : bool (h, w); image_bgr : uint8 (H, W, 3) -> bool (H, W)
    """
    height, width = image_bgr.shape[:2]
    size = size_within(width, height, EDGE_SIZE)
    edge_bgr = cv2.resize(image_bgr, size, interpolation=cv2.INTER_AREA)
    soft = cv2.resize(mask.astype(np.float32), size, interpolation=cv2.INTER_LINEAR)
    if 3 < np.count_nonzero(mask) < mask.size - 3:
        coarse_bgr = cv2.resize(image_bgr, mask.shape[::-1], interpolation=cv2.INTER_AREA)
        direction = fisher_direction(coarse_bgr.reshape(-1, 3).astype(np.float32), mask.ravel())
        window = 2 * round(1.75 * size[0] / mask.shape[1]) + 1  # pixels; 3.5 of the coarse mask's
        # further off than a window nothing of the mask is left
        box = tuple(slice(max(0, side.start - window), side.stop + window) for side in bounding_box(soft > 0))
        guide = cv2.transform(edge_bgr[box].astype(np.float32), direction[None])
        whole = np.zeros_like(soft)
        whole[box] = guided_filter(guide, soft[box], window)
        soft = whole
    found = (soft > 0.5).astype(np.uint8)
    return found > 0 if size == (width, height) else cv2.resize(found * 255, (width, height)) > 127


def guided_filter(guide: np.ndarray, soft: np.ndarray, window: int) -> np.ndarray:
    """Return `soft` smoothed along the edges of `guide`, both float32 (H, W); `window` is the side in pixels.

    He, Sun, Tang: "Guided image filtering" (2013), doi:10.1109/TPAMI.2012.213.
    """
    size = window, window
    mean_guide, mean_soft = cv2.blur(guide, size), cv2.blur(soft, size)
    slope = cv2.blur(guide * soft, size) - mean_guide * mean_soft
    slope /= cv2.blur(guide * guide, size) - mean_guide * mean_guide + GUIDED_FILTER_EPSILON
    offset = mean_soft - slope * mean_guide
    return cv2.blur(slope, size) * guide + cv2.blur(offset, size)


def paste_on_white(image_bgr: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return the product on white, its edge blended and free of the old ground's colour: uint8 BGR (H, W, 3).

    The outermost pixels, where the camera blended product and ground, take the colour of the product further in.

    image_bgr : uint8 (H, W, 3); mask : bool (H, W)
    """
    white = np.full_like(image_bgr, 255)
    rows, columns = bounding_box(mask)
    for top in range(rows.start or 0, rows.stop, STRIP):
        bottom = min(top + STRIP, rows.stop)
        above, below = max(0, top - 3), min(len(mask), bottom + 3)  # the filters below reach 3 pixels far
        blended = _blend_strip(image_bgr[above:below, columns], mask[above:below, columns])
        white[top:bottom, columns] = blended[top - above : bottom - above]
    return white


def _blend_strip(image_bgr: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return `paste_on_white` of one strip, uint8 BGR (H, W, 3) and bool (H, W) -> uint8 BGR (H, W, 3)."""
    whole = mask.view(np.uint8)
    inside = cv2.erode(whole, disc(1))
    within = cv2.copyTo(image_bgr, inside)
    further_in, weight = (cv2.boxFilter(v, cv2.CV_32F, (5, 5), normalize=False) for v in (within, inside))
    opacity = 0.5 + 0.5 * cv2.blur(whole.astype(np.float32), (3, 3))
    blended = cv2.copyTo(image_bgr, whole, np.full_like(image_bgr, 255))
    band = np.nonzero(mask & (opacity < 1))
    product, weight = image_bgr[band].astype(np.float32), weight[band][:, None]  # (n, 3), (n, 1)
    # not where the product is too thin to have an inside
    edge = (inside[band] == 0)[:, None] & (weight > 0)
    product = np.where(edge, further_in[band] / np.maximum(1, weight), product)
    blended[band] = np.rint(255 + (product - 255) * opacity[band][:, None])
    return blended
