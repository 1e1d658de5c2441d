"""Correct parts of a mask by the network and a smooth ground: holes, gaps, badges, pale and white parts."""

import cv2
import numpy as np

from pipeline.background.ground import Ground, is_white, noise_limit
from pipeline.background.regions import bounding_box, enclosed_holes, labelled_parts, mean_per_part, open_share, square

CLEAR_DISTANCE = 40  # CIE76, median distance of a product from a smooth ground from which on it stands out clearly
MAX_GAP = 0.12  # of a mask with its gaps filled; a larger part as white as the ground may be one of the product
RIM_OPEN = 0.3  # share of the rim of a gap, or of a missing part, that may border on the ground around
SPECK = 0.002  # share of the mask; a smaller separate part is what the ground's texture leaves within a gap
DOUBTFUL = 0.3  # probability below which a pixel of a mask may be ground
LIKELY = 0.8  # mean probability of a part that the network surely takes for product
UNLIKELY = 0.1  # mean probability of a part that the network surely takes for ground
RULED_OUT = 0.02  # mean probability of a part that the network rules out
THIN = 0.02  # of the square root of a product's area: half the width of what the network may overlook
PALE = 14  # distance from a smooth ground, CIE76; nine tenths of a pale part of the product are nearer
PALE_RIM = 0.95  # of a part's median distance; at its rim a shadow has less
JPEG_BLOCK = 16  # pixels per side of what JPEG codes as one where it halves the colours' size; its ringing fills it


def reconcile_masks(
    mask: np.ndarray, standing_out: np.ndarray, foreground_prob: np.ndarray, ground: Ground
) -> np.ndarray:
    """Return the network's mask with the gaps and parts that only the distance to a smooth ground shows.

    At its resolution the network fills the gaps between arms, leaves or wires. A gap is a part that `standing_out`
    leaves out, with product along all of its rim but RIM_OPEN, and on a white ground of at most MAX_GAP of the mask;
    only in a product that stands out clearly, since parts of a pale product look like the ground. Conversely, a part
    that only GrabCut left out, with product around it, is filled.

    mask, standing_out : bool (H, W), by the network and by `segment_smooth_ground`; foreground_prob : float32 (H, W)
    """
    if not (mask & standing_out).any():
        return mask
    box = tuple(slice(max(0, side.start - 1), side.stop + 1) for side in bounding_box(mask | standing_out))
    whole, mask, standing_out = mask, mask[box], standing_out[box]
    foreground_prob, distance = foreground_prob[box], ground.distance[box]
    product = mask & standing_out
    n, parts, sizes = labelled_parts(standing_out & ~mask, connectivity=4)
    missing = open_share(parts, n, product) <= RIM_OPEN
    missing &= mean_per_part(parts, sizes, foreground_prob) > UNLIKELY
    missing[0] = False
    found = mask | missing[parts]
    if np.median(distance[product]) >= CLEAR_DISTANCE:
        n, parts, sizes = labelled_parts(mask & ~standing_out, connectivity=4)
        gap = open_share(parts, n, mask) <= RIM_OPEN
        if is_white(ground):
            gap &= sizes <= MAX_GAP * np.count_nonzero(mask)
        gap[0] = False
        found &= ~gap[parts]
        _, parts, sizes = labelled_parts(found, connectivity=8)
        found &= (sizes >= SPECK * np.count_nonzero(mask))[parts]
    corrected = np.zeros_like(whole)
    corrected[box] = found
    return corrected


def remove_unlikely_parts(standing_out: np.ndarray, foreground_prob: np.ndarray) -> np.ndarray:
    """Return a mask on a smooth ground without the badges and shadows that the network surely takes for ground.

    Parts that are too thin for the network, such as a strap or a wire, stay.

    standing_out : bool (H, W); foreground_prob : float32 (H, W), 0..1 -> bool (H, W)
    """
    doubtful = standing_out & (foreground_prob < DOUBTFUL)
    width = 2 * max(1, int(THIN * np.sqrt(np.count_nonzero(standing_out)))) + 1
    deep = cv2.erode(doubtful.view(np.uint8), square(width)) > 0
    if not deep.any():
        return standing_out
    n, parts, sizes = labelled_parts(doubtful, connectivity=4)
    unlikely = mean_per_part(parts, sizes, foreground_prob) < UNLIKELY
    unlikely &= np.bincount(parts[deep], minlength=n) > 0
    return standing_out & ~unlikely[parts]


def fill_likely_holes(mask: np.ndarray, foreground_prob: np.ndarray) -> np.ndarray:
    """Return a mask with the enclosed pixels that the network takes for product: bool, float32 (H, W) -> bool (H, W).

    The network's agreement with an outline is measured on this mask. A hole may be too fine for the network; the
    distance to the ground shows holes better, unless the product is as faint as the ground.
    """
    return mask | (enclosed_holes(mask) & (foreground_prob > 0.5))


def fill_white_parts(mask: np.ndarray, foreground_prob: np.ndarray) -> np.ndarray:
    """Return a mask on a white ground with the holes that the network surely takes for white parts of the product.

    Only holes larger than MAX_GAP of all are filled. A line drawing has such holes, a ring has none.

    mask : bool (H, W); foreground_prob : float32 (H, W), 0..1 -> bool (H, W)
    """
    holes = enclosed_holes(mask)
    least = MAX_GAP * np.count_nonzero(mask | holes)
    if np.count_nonzero(holes) <= least:
        return mask
    _, parts, sizes = labelled_parts(holes, connectivity=4)
    is_part = (sizes > least) & (mean_per_part(parts, sizes, foreground_prob) > LIKELY)
    is_part[0] = False
    return mask | is_part[parts]


def add_pale_parts(mask: np.ndarray, ground: Ground, foreground_prob: np.ndarray) -> np.ndarray:
    """Return a mask with the parts of its product that have nearly the ground's colour, as a white sole has on white.

    Such a part lies beside the mask, above the noise of the ground. It is larger than the squares that JPEG's ringing
    fills, pale nearly everywhere, and as far from the ground at its rim as within, where a shadow fades; and the
    network does not rule it out.

    mask : bool (H, W), on the smooth `ground`; foreground_prob : float32 (H, W), 0..1 -> bool (H, W)
    """
    weakest, distance = noise_limit(ground), ground.distance
    pale = cv2.morphologyEx(((distance > weakest) & ~mask).astype(np.uint8), cv2.MORPH_OPEN, square(3))
    depth = cv2.distanceTransform(cv2.copyMakeBorder(pale, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0), cv2.DIST_L2, 3)
    deep = depth[1:-1, 1:-1] > JPEG_BLOCK / 2
    if not deep.any():
        return mask
    _, parts = cv2.connectedComponents(pale, connectivity=4)
    beside = cv2.dilate(mask.astype(np.uint8), square(9)) > 0
    highest = cv2.dilate(distance, square(5))
    found = mask.copy()
    for i in np.intersect1d(parts[deep], parts[beside & (pale > 0)]):
        part = parts == i
        within, rim = distance[part], (cv2.dilate(part.astype(np.uint8), square(3)) > 0) & ~part & ~beside
        has_edge = rim.any() and np.median(highest[rim]) > PALE_RIM * np.median(within)
        if has_edge and np.quantile(within, 0.9) < PALE and foreground_prob[part].mean() > RULED_OUT:
            found |= (cv2.dilate(part.astype(np.uint8), square(5)) > 0) & (distance > weakest)
    return found
