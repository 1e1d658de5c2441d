"""The product on a smooth ground: all that stands out from the ground's surface, without shadows and shop text."""

import cv2
import numpy as np

from pipeline.background.colour import bhattacharyya, colour_cell, ground_light
from pipeline.background.ground import Ground, is_white, noise_limit
from pipeline.background.regions import bounding_box, components_with, disc, enclosed_holes, square

MIN_HOLE = 0.0004  # of the square of the longest side; a smaller hole of a product is filled
SMALL_HOLE = 0.003  # of the same; in a smaller one every pixel may be a blend with the product
BLEND = 0.15  # share of the product's colour in the pixels that such a hole may have
FILLED_DISTANCE = 4  # a hole's pixels show the ground below this distance, in units of a third of the noise limit
SHADOW_CHROMA = 4  # CIE76; a shadow's chroma differs by less from the ground's at the same light
SHADOW_SLOPE = 1.5  # L* per pixel; a product's edge is steeper


def segment_smooth_ground(lab: np.ndarray, ground: Ground) -> np.ndarray:
    """Return the mask of the product on a smooth ground: float32 L*a*b* (H, W, 3) and `fit_ground` -> bool (H, W).

    A pixel belongs to the product where it is further from the ground than the noise, than 45 % of its neighbourhood's
    greatest distance (so that the edge lies in the middle of the blend of product and ground) and than the ringing that
    JPEG leaves beside a strong edge, and is connected to a pixel far from the ground. Shadows and shop text are
    removed, holes that show no ground are filled.
    """
    weakest = noise_limit(ground)
    far = ground.distance > weakest
    mask, box = np.zeros(far.shape, bool), bounding_box(far)
    far, lab, surface, distance = far[box], lab[box], ground.surface[box], ground.distance[box]
    if not far.size:
        return mask
    shadow = find_shadows(lab, surface, far)
    local = cv2.dilate(distance, square(5))
    block = cv2.dilate(local, square(13))
    weak = (distance > np.maximum(0.45 * local, 0.06 * block)) & far & ~shadow
    strong = components_with(weak, distance > np.clip(distance.max() / 2, weakest, 12), connectivity=8)
    side = max(mask.shape)
    product = remove_text(strong, lab, side)
    relative_distance = np.where(shadow, 0, distance * np.float32(3 / weakest))
    mask[box] = fill_holes(product, relative_distance, side, is_white(ground))
    return mask


def find_shadows(lab: np.ndarray, surface: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return the part of a mask that is ground in shadow: bool (H, W).

    A shadow keeps the ground's chroma at a lesser light, and grows out of the ground without an edge; a product has an
    edge.

    lab : float32 (H, W, 3), the image; surface : float32 (H, W, 3), the ground; mask : bool (H, W)
    """
    light, chroma = ground_light(lab, surface)
    like = (light > 0.6) & (light < 1) & (chroma < SHADOW_CHROMA)
    if np.count_nonzero(like & mask) < 0.002 * mask.size:
        return np.zeros_like(mask)
    smooth = cv2.GaussianBlur(lab[..., 0], (3, 3), 0)
    slope = cv2.magnitude(*(cv2.Sobel(smooth, cv2.CV_32F, x, 1 - x, scale=1 / 8) for x in (1, 0)))  # L* per pixel
    faint = ~mask | (like & (slope < SHADOW_SLOPE))
    grown = cv2.erode(faint.view(np.uint8), square(3)).view(bool) | ~mask
    shadow = components_with(grown, ~mask) & mask
    return cv2.dilate(shadow.view(np.uint8), square(3)).view(bool) & mask & like


def remove_text(mask: np.ndarray, lab: np.ndarray, side: int) -> np.ndarray:
    """Return the largest part of a mask and the parts that belong to it and do not look like a line of text.

    A part belongs to it that has 30 % of its area, or 3 % and colours like its own: a piece of a set, not a badge.
    Parts nearer to each other than 3 % of the image's longest side count as one, such as the letters of a word.

    mask : bool (H, W); lab : float32 (H, W, 3); side : the image's longest side, pixels -> bool (H, W)
    """
    joined = cv2.dilate(mask.astype(np.uint8), disc(max(1, round(0.014 * side))))
    n, parts, boxes, _ = cv2.connectedComponentsWithStats(joined, connectivity=8)
    if n <= 2:
        return mask
    area = np.bincount(parts[mask], minlength=n)
    largest = area.argmax()
    keep = area >= 0.3 * area[largest]
    others = np.flatnonzero(area >= 0.03 * area[largest])
    main_cells = colour_cell(lab[keep[parts] & mask]) if len(others) > 1 else None  # (n_pixels,)
    for i in others:
        x, y, w, h, _ = boxes[i]
        if i != largest:
            rows, columns = np.nonzero((parts[y : y + h, x : x + w] == i) & mask[y : y + h, x : x + w])
            height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
            alike = keep[i] or bhattacharyya(colour_cell(lab[y + rows, x + columns]), main_cells) > 0.3
            keep[i] = alike and (height > 0.13 * side or width < 1.8 * height)
    keep[0] = False
    return keep[parts] & mask


def fill_holes(mask: np.ndarray, distance: np.ndarray, side: int, white: bool) -> np.ndarray:
    """Return a mask with gaps narrower than 1 % of the longest side closed, and holes filled that show no ground.

    A hole shows the ground where `distance` is below FILLED_DISTANCE in more than 30 % of its pixels; the other pixels
    blend ground and product. In a small hole all pixels may be blends: there `distance` has to be below BLEND of the
    rim's. On a `white` ground the hole's rim must also stand out like the outline: a highlight is as white, but fades
    into the product.

    mask : bool (H, W); distance : float32 (H, W), from the ground, 3 at the limit of noise; side : pixels
    """
    radius = max(1, round(0.003 * side))
    pad = radius + 2
    framed = cv2.copyMakeBorder(mask.view(np.uint8), pad, pad, pad, pad, cv2.BORDER_CONSTANT, value=0)
    closed = cv2.morphologyEx(framed, cv2.MORPH_CLOSE, disc(radius)).view(bool)
    framed, holes = framed.view(bool), enclosed_holes(closed)
    ground = np.zeros_like(holes)
    if np.count_nonzero(holes) > MIN_HOLE * side * side:
        distance = cv2.copyMakeBorder(distance, pad, pad, pad, pad, cv2.BORDER_CONSTANT, value=np.inf)
        ground = _holes_that_show_ground(closed, distance, side, white) & holes
    # what closing added beside the ground is a fine detail's surroundings, elsewhere it is a gap in the product
    beside = (ground | ~(closed | holes)).view(np.uint8)
    reached = cv2.dilate(beside, disc(radius + 1)).view(bool)
    filled = framed | (holes & ~ground) | (closed & ~reached)
    enclosed = enclosed_holes(filled)
    if ground.any():
        enclosed &= ~components_with(enclosed, ground)
    return (filled | enclosed)[pad:-pad, pad:-pad]


def _holes_that_show_ground(closed: np.ndarray, distance: np.ndarray, side: int, white: bool) -> np.ndarray:
    """Return the parts outside of a closed mask in which `fill_holes` sees the ground: bool (H, W)."""
    n, parts, stats, _ = cv2.connectedComponentsWithStats((~closed).view(np.uint8), connectivity=4)
    size = stats[:, cv2.CC_STAT_AREA]
    rim = ~closed & cv2.dilate(closed.view(np.uint8), square(3)).view(bool)
    height = np.minimum(cv2.dilate(np.where(closed, distance, 0), square(7))[rim], 60)
    height = np.bincount(parts[rim], height, n) / np.maximum(1, np.bincount(parts[rim], minlength=n))
    blended = np.maximum(FILLED_DISTANCE, BLEND * height)
    low = np.where(size < SMALL_HOLE * side * side, blended, FILLED_DISTANCE)
    near = np.bincount(parts[distance < low[parts]], minlength=n)
    shows_ground = (near > 0.3 * size) & (size > MIN_HOLE * side * side)
    if white:
        shows_ground &= height > 0.8 * height[parts[0, 0]]
    return shows_ground[parts]
