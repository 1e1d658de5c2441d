"""Stage 01: remove the background of the photographs.

    python 01.img_preprocess.py
    python 01.img_preprocess.py --DATASET=bags --SAVE_MASKS=True
    python 01.img_preprocess.py --BACKGROUND_METHOD=sobel

The product keeps its pixels, everything else becomes white: a frame and banners of one colour first, then the ground.
With BACKGROUND_METHOD = "auto" a small network (`pipeline/background.py`) says of each image where its product is, at
128 x 128 pixels. A ground that a smooth surface of colour explains (white, gradient, studio) is removed by the distance
to that surface, which finds the finest edges, where the network agrees with what that leaves; any other by the
network's answer and the colours that it finds in product and ground. On a smooth ground each corrects the other: badges
and shadows go that only the network knows for ground, and gaps that are too fine for it; parts nearly of the ground's
colour are added, unless they fade into it as shadows do. How well mask and network agree is the trust in the mask.
An alpha channel is taken as the mask. Where the mask can't be trusted the image keeps all its pixels. Only new and
changed images are done again; a changed setting redoes all. Images in img/D/ that this stage did not write are left
alone.

Reads: raw_img/D/
Writes: img/D/ (same names), mask/D/ (where SAVE_MASKS: the name with .png after it, 0 and 255),
    data/D/preprocess.csv (image,method,foreground_fraction,trust),
    data/D/skipped.csv (image,stage,reason), data/D/preprocess.json
Config: DATASET, BACKGROUND_METHOD, BACKGROUND_NETWORK, BACKGROUND_MIN_TRUST, SAVE_MASKS, RANDOM_SEED, N_JOBS, REDO
"""

import functools
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

import config
from pipeline import background, files, images, memory, parallel, settings
from pipeline.background import (
    WORK_SIZE,
    Ground,
    border_distance,
    box_of,
    fit_ground,
    plausible,
    quadratic,
    ring_of,
    size_within,
    to_lab,
)

STAGE = "01.img_preprocess.py"
TABLE = ["image", "method", "foreground_fraction", "trust"]  # columns of preprocess.csv
# those that change the output
SETTINGS = ["BACKGROUND_METHOD", "BACKGROUND_NETWORK", "BACKGROUND_MIN_TRUST", "SAVE_MASKS", "RANDOM_SEED"]
GRABCUT_SIZE = 128  # longest side at which GrabCut works, pixels; 160 is no better, 96 loses 0.03 of IoU
EVEN = 0.5  # levels; a picture whose colours vary less shows nothing, and GrabCut would take seconds to say so
EDGE_SIZE = 2048  # longest side at which a mask's edge is fitted to the image's, pixels
# by how much a mask may fall behind the network's own in what the network expects of both, for its finer edges
LESS_LIKELY = {"plain": 0.1, "network": 0.2}
LEAST_HOLE = 0.0004  # of the square of the longest side; a smaller hole of a product is filled
SMALL_HOLE = 0.003  # of the same; in a smaller one every pixel may be a blend with the product
BLEND = 0.15  # share of the product's colour in it that such a hole may have
FAINT = 25  # median distance of a product from a smooth ground below which a part may have the ground's very colour
CLEAR = 40  # median distance of a product from a smooth ground from which on it stands out clearly, CIE76
GAP_AREA = 0.12  # of a mask with its gaps filled; a larger part as white as the ground may be one of the product
RIM_OPEN = 0.3  # share of the rim of a gap, or of a missing part, that may border on the ground around
SPECK = 0.002  # share of the mask; a smaller part by itself is what the ground's texture leaves within a gap
LIKELY = 0.8  # mean probability of a part that the network surely takes for product
UNLIKELY = 0.1  # mean probability of a part that the network surely takes for ground
THIN = 0.02  # of the square root of a product's area: half the width of what the network may overlook
PALE = 14  # distance from a smooth ground, CIE76; nine tenths of a pale part of the product are nearer
PALE_RIM = 0.95  # of a part's median distance; at its rim a shadow has less
RINGING = 16  # pixels per side of what JPEG codes as one where it halves the colours' size
RULED_OUT = 0.02  # mean probability of a part that the network rules out
SURE = 0.95  # probability from which the network's answer is no longer asked by GrabCut
N_SHADES = 26  # of each channel, in the histograms of product and ground
COLOUR_CELL = (np.arange(256) * N_SHADES // 256).astype(np.uint8)  # the shade that a level belongs to
# how much of each shade counts as another (N_SHADES, N_SHADES)
NEIGHBOURS = (np.eye(N_SHADES) + 0.5 * (np.eye(N_SHADES, k=1) + np.eye(N_SHADES, k=-1))).astype(np.float32)
WHITE = 96  # mean L* of a ground over which a white part of the product can't be told from it
N_CELLS = 11 * 26 * 26  # of colours: L* in 0..10, a* and b* in 0..25
STRIP = 512  # rows of a large image that are blended at a time


# ---- masks ---------------------------------------------------------------------------------------


def disc(radius: int) -> np.ndarray:
    """Structuring element of that radius in pixels."""
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))


def components_with(region: np.ndarray, seeds: np.ndarray, connectivity: int = 4) -> np.ndarray:
    """The connected components of a region that hold a seed: bool (H, W) and bool (H, W) -> bool (H, W)."""
    n, parts = cv2.connectedComponents(region.view(np.uint8), connectivity=connectivity)
    chosen = np.zeros(n, bool)
    chosen[parts[seeds]] = True
    chosen[0] = False
    return chosen[parts]


def holes_of(mask: np.ndarray) -> np.ndarray:
    """What a mask encloses, bool (H, W)."""
    framed = cv2.copyMakeBorder(mask.view(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    cv2.floodFill(framed, None, (0, 0), 1)
    return framed[1:-1, 1:-1] == 0


def shadow_mask(lab: np.ndarray, surface: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The part of `mask` (bool, (H, W)) that is ground in shadow: bool (H, W).

    A shadow keeps the ground's chroma at a lesser light and grows out of the ground without an edge; a product has one.
    """
    (lightness, *ab), (ground_lightness, *ground_ab) = cv2.split(lab), cv2.split(surface)
    light = (lightness + 16) / (ground_lightness + 16)  # cube root of the share of light
    # of what the light leaves
    chroma = cv2.magnitude(*(mine - grounds * light for mine, grounds in zip(ab, ground_ab, strict=True)))
    like = (light > 0.6) & (light < 1) & (chroma < 4)
    if np.count_nonzero(like & mask) < 0.002 * mask.size:
        return np.zeros_like(mask)
    smooth = cv2.GaussianBlur(lightness, (3, 3), 0)
    slope = cv2.magnitude(*(cv2.Sobel(smooth, cv2.CV_32F, x, 1 - x, scale=1 / 8) for x in (1, 0)))  # L* per pixel
    faint = ~mask | (like & (slope < 1.5))
    grown = cv2.erode(faint.view(np.uint8), np.ones((3, 3), np.uint8)).view(bool) | ~mask
    shadow = components_with(grown, ~mask) & mask
    return cv2.dilate(shadow.view(np.uint8), np.ones((3, 3), np.uint8)).view(bool) & mask & like


def weakest_distance(ground: Ground) -> float:
    """The distance from a smooth ground, CIE76, up to which a pixel may be noise of it."""
    return float(max(np.clip(3 * ground.grain, 2, 3), 4 * ground.noise))


def is_white(ground: Ground) -> bool:
    """Whether a part of the product that is burnt out to white can't be told from a smooth ground."""
    return float(ground.surface[::8, ::8, 0].mean()) > WHITE


def plain_mask(lab: np.ndarray, ground: Ground) -> np.ndarray:
    """The product on a smooth ground from `fit_ground`: float32 L*a*b* (H, W, 3) -> bool (H, W).

    A pixel belongs to it where it is further from the ground than the noise, than 45 % of its neighbourhood's greatest
    distance (so that the edge lies in the middle of the blend of product and ground) and than the ringing that JPEG
    leaves beside a strong edge, and hangs together with a pixel far from the ground. Shadows and shop text go, holes
    that show no ground are filled.
    """
    weakest = weakest_distance(ground)
    far = ground.distance > weakest
    mask, box = np.zeros(far.shape, bool), box_of(far)
    far, lab, surface, distance = far[box], lab[box], ground.surface[box], ground.distance[box]
    if not far.size:
        return mask
    shadow = shadow_mask(lab, surface, far)
    local = cv2.dilate(distance, np.ones((5, 5), np.uint8))
    block = cv2.dilate(local, np.ones((13, 13), np.uint8))
    weak = (distance > np.maximum(0.45 * local, 0.06 * block)) & far & ~shadow
    strong = components_with(weak, distance > np.clip(distance.max() / 2, weakest, 12), connectivity=8)
    side = max(mask.shape)
    found = without_text(strong, lab, side)
    far_off = np.where(shadow, 0, distance * np.float32(3 / weakest))
    mask[box] = fill_holes(found, far_off, side, is_white(ground))
    return mask


def cell_of_colour(lab: np.ndarray) -> np.ndarray:
    """The cube of 10 x 10 x 10 that a colour lies in: float32 L*a*b* (..., 3) -> int32 (...), less than N_CELLS."""
    return ((lab + np.float32([0, 130, 130])) / 10).astype(np.int32) @ np.array([26 * 26, 26, 1], np.int32)


def likeness(cells: np.ndarray, other: np.ndarray) -> float:
    """Bhattacharyya coefficient of the histograms of two sets of cells, (n,) and (m,): 0 nothing in common, 1 alike."""
    both = (np.bincount(part, minlength=N_CELLS) / max(1, len(part)) for part in (cells, other))
    return float(np.sqrt(next(both) * next(both)).sum())


def without_text(mask: np.ndarray, lab: np.ndarray, side: int) -> np.ndarray:
    """Keep the largest part of a mask (H, W) and those that belong to it and do not look like a line of text.

    These have 30 % of its area, or 3 % and colours like its own: the pieces of a set, not a badge. Parts nearer to each
    other than 3 % of the image's longest side count as one, so the letters of a word do.
    """
    joined = cv2.dilate(mask.astype(np.uint8), disc(max(1, round(0.014 * side))))
    n, parts, boxes, _ = cv2.connectedComponentsWithStats(joined, connectivity=8)
    if n <= 2:
        return mask
    area = np.bincount(parts[mask], minlength=n)
    largest = area.argmax()
    keep = area >= 0.3 * area[largest]
    others = np.flatnonzero(area >= 0.03 * area[largest])
    main = cell_of_colour(lab[keep[parts] & mask]) if len(others) > 1 else None  # (n_pixels,)
    for i in others:
        x, y, w, h, _ = boxes[i]
        if i != largest:
            rows, columns = np.nonzero((parts[y : y + h, x : x + w] == i) & mask[y : y + h, x : x + w])
            tall, wide = np.ptp(rows) + 1, np.ptp(columns) + 1
            of_it = keep[i] or likeness(cell_of_colour(lab[y + rows, x + columns]), main) > 0.3
            keep[i] = of_it and (tall > 0.13 * side or wide < 1.8 * tall)
    keep[0] = False
    return keep[parts] & mask


def fill_holes(mask: np.ndarray, distance: np.ndarray, side: int, white: bool) -> np.ndarray:
    """Close gaps narrower than 1 % of the image's longest side and fill holes, but for those that show the ground.

    A hole shows the ground where `distance` is below 4 in more than 30 % of its pixels: the others blend it with the
    product. In a small one all may, and there it is below BLEND of the rim's. On a `white` ground its rim stands out as
    the outline does besides: a highlight, which is as white, fades into the rest.
    """
    radius = max(1, round(0.003 * side))
    pad = radius + 2
    framed = cv2.copyMakeBorder(mask.view(np.uint8), pad, pad, pad, pad, cv2.BORDER_CONSTANT, value=0)
    closed = cv2.morphologyEx(framed, cv2.MORPH_CLOSE, disc(radius)).view(bool)
    framed, holes = framed.view(bool), holes_of(closed)
    ground = np.zeros_like(holes)
    if np.count_nonzero(holes) > LEAST_HOLE * side * side:
        distance = cv2.copyMakeBorder(distance, pad, pad, pad, pad, cv2.BORDER_CONSTANT, value=np.inf)
        n, parts, boxes, _ = cv2.connectedComponentsWithStats((~closed).view(np.uint8), connectivity=4)
        size = boxes[:, cv2.CC_STAT_AREA]
        rim = ~closed & cv2.dilate(closed.view(np.uint8), np.ones((3, 3), np.uint8)).view(bool)
        height = np.minimum(cv2.dilate(np.where(closed, distance, 0), np.ones((7, 7), np.uint8))[rim], 60)
        height = np.bincount(parts[rim], height, n) / np.maximum(1, np.bincount(parts[rim], minlength=n))
        low = np.where(size < SMALL_HOLE * side * side, np.maximum(4, BLEND * height), 4)
        near = np.bincount(parts[distance < low[parts]], minlength=n)
        shows_ground = (near > 0.3 * size) & (size > LEAST_HOLE * side * side)
        if white:
            shows_ground &= height > 0.8 * height[parts[0, 0]]
        ground = shows_ground[parts] & holes
    # what closing added beside the ground is a fine detail's surroundings, elsewhere it is a gap in the product
    beside = (ground | ~(closed | holes)).view(np.uint8)
    reached = cv2.dilate(beside, disc(radius + 1)).view(bool)
    filled = framed | (holes & ~ground) | (closed & ~reached)
    enclosed = holes_of(filled)
    if ground.any():
        enclosed &= ~components_with(enclosed, ground)
    return (filled | enclosed)[pad:-pad, pad:-pad]


def cut(small_bgr: np.ndarray, state: np.ndarray) -> np.ndarray:
    """GrabCut from what is known of each pixel: uint8 BGR (h, w, 3), GC_... uint8 (h, w) -> bool (h, w).

    Rother, Kolmogorov, Blake: "GrabCut: interactive foreground extraction using iterated graph cuts" (2004),
    doi:10.1145/1015706.1015720.
    """
    few_bgr, few = (np.ascontiguousarray(pixels[::2, ::2]) for pixels in (small_bgr, state))
    one_sided = not (few & 1).any() or (few & 1).all()  # GC_FGD = 1, GC_PR_FGD = 3
    if one_sided or few_bgr.std(axis=(0, 1)).max() < EVEN:
        return np.zeros(state.shape, bool)
    # a quarter of the pixels gives colour models as good as all do, in a quarter of the time
    models = np.zeros((1, 65)), np.zeros((1, 65))
    cv2.setRNGSeed(config.RANDOM_SEED)
    cv2.grabCut(few_bgr, few, None, *models, 0, cv2.GC_INIT_WITH_MASK)
    cv2.grabCut(small_bgr, state, None, *models, 1, cv2.GC_EVAL)
    return (state & 1).astype(bool)


def by_border(small_bgr: np.ndarray) -> np.ndarray:
    """The product on any ground without the network: uint8 BGR (h, w, 3) -> bool (h, w).

    GrabCut, started from the distance to the border's colours, weighted by the nearness to the centre; once with little
    product to begin with and once with much. The mask whose colours overlap less with those around it is taken.
    """
    h, w = small_bgr.shape[:2]
    lab = to_lab(small_bgr)
    unlike = border_distance(cv2.resize(lab, (w // 2, h // 2), interpolation=cv2.INTER_AREA))
    terms = quadratic(*unlike.shape)
    start = cv2.resize(np.minimum(unlike, 8) ** 0.7 * np.exp(-2 * (terms[..., 3] + terms[..., 5])), (w, h))
    masks = []
    for product, ground in ((0.15, 0.6), (0.45, 0.3)):
        sure_ground, likely, sure = np.quantile(start, [ground, 1 - product, 0.99])
        state = np.where(start > likely, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
        state[start > sure] = cv2.GC_FGD
        state[start < sure_ground] = cv2.GC_BGD
        state[ring_of(h, w, 0.015)] = cv2.GC_BGD
        mask = cut(small_bgr, state)
        mask[:2], mask[-2:] = mask[2], mask[-3]  # the frame was ground by decree
        mask[:, :2], mask[:, -2:] = mask[:, 2:3], mask[:, -3:-2]
        masks.append(mask)
    return min(masks, key=lambda mask: colour_overlap(lab, mask))


def colour_overlap(lab: np.ndarray, mask: np.ndarray) -> float:
    """How alike the colours of the product and of the ground around it are: 0 nothing in common, 1 the same.

    The Bhattacharyya coefficient of two colour histograms, of the mask and of a band around it. Of all that was
    measured on masks without the true one it says most about how good a mask is (doc/experiments.md).

    lab : float32 (H, W, 3); mask : bool of the same or a larger size. A mask that is no product's at all scores 1.
    """
    if not plausible(mask):
        return 1.0
    mask = cv2.resize(mask.astype(np.uint8), lab.shape[1::-1], interpolation=cv2.INTER_NEAREST)
    radius = max(2, round(0.09 * max(mask.shape)))
    around = cv2.dilate(mask, np.ones((2 * radius + 1, 2 * radius + 1), np.uint8)) > cv2.dilate(
        mask, np.ones((3, 3), np.uint8)
    )
    # averaged over 5 x 5, so that fine noise counts as the colour it looks like from afar
    cells = cell_of_colour(cv2.blur(lab, (5, 5)))  # (H, W)
    return likeness(cells[mask > 0], cells[around]) if around.any() and mask.any() else 1.0


def by_grabcut(small_bgr: np.ndarray, likely: np.ndarray) -> np.ndarray:
    """The product by the network, its outline by GrabCut: uint8 BGR (h, w, 3), float32 (h, w), 0..1 -> bool (h, w)."""
    state = np.where(likely > 0.5, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
    state[likely > SURE] = cv2.GC_FGD
    state[likely < 1 - SURE] = cv2.GC_BGD
    return cut(small_bgr, state)


def by_colours(small_bgr: np.ndarray, likely: np.ndarray) -> np.ndarray:
    """The product by the network, its outline by the colours of this image, in a tenth of GrabCut's time.

    Bayes' rule: the network's probability is the prior; how much more often the product than the ground has a pixel's
    colour, the likelihood, by histograms of both. What that finds gives better histograms, so it is done twice. Parts
    by themselves that the network finds far less likely than the likeliest go.

    small_bgr : uint8 (h, w, 3); likely : float32 (h, w), 0..1, what the network says -> bool (h, w)
    """
    cells = np.ravel_multi_index(cv2.split(cv2.LUT(small_bgr, COLOUR_CELL)), (N_SHADES,) * 3).ravel()  # (h * w,)

    def histogram(weights: np.ndarray) -> np.ndarray:
        """How many pixels have a colour, some of the next shades counted in: (h * w,) -> (N_SHADES ** 3,)."""
        count = np.bincount(cells, weights, N_SHADES**3).astype(np.float32).reshape((N_SHADES,) * 3)
        count = NEIGHBOURS @ (count @ NEIGHBOURS).reshape(N_SHADES, -1)
        return (NEIGHBOURS @ count.reshape((N_SHADES,) * 3)).ravel()

    found = np.clip(likely.ravel(), 0.002, 0.998)
    odds, every = found / (1 - found), histogram(np.ones_like(found))
    for _ in range(2):
        share, product = found.mean(), histogram(found)
        # what others of its colour are, a pixel does not tell itself; of a rare colour little can be said
        of_product, of_ground = product[cells] - found, (every - product)[cells] - (1 - found)
        ratio = (np.maximum(of_product, 0) + 2 * share) / (np.maximum(of_ground, 0) + 2 * (1 - share))
        ratio *= (1 - share) / share
        found = odds * ratio * np.sqrt(ratio)  # a power of 1.5 was the best (doc/experiments.md)
        found /= 1 + found
    mask = found.reshape(likely.shape) > 0.5
    # other things and shop text have the product's colours too
    _, parts, boxes, _ = cv2.connectedComponentsWithStats(mask.view(np.uint8), connectivity=8)
    chance = mean_chance(parts, boxes[:, cv2.CC_STAT_AREA], likely)
    return mask & (chance > 0.4 * chance.max())[parts]


def open_share(parts: np.ndarray, n: int, mask: np.ndarray) -> np.ndarray:
    """How much of each part's rim lies outside of `mask`, 0..1: labels int32 (H, W) of n parts, bool (H, W) -> (n,)."""
    inside = (parts > 0).astype(np.uint8)
    rim = np.nonzero(cv2.dilate(inside, np.ones((3, 3), np.uint8)) > inside)
    beside = cv2.dilate(parts.astype(np.float32), np.ones((3, 3), np.uint8))[rim].astype(np.int32)
    return np.bincount(beside, ~mask[rim], minlength=n) / np.maximum(1, np.bincount(beside, minlength=n))


def mean_chance(parts: np.ndarray, sizes: np.ndarray, likely: np.ndarray) -> np.ndarray:
    """Mean of `likely` (H, W) in each part, 0 for the rest: labels int32 (H, W), their sizes in pixels (n,) -> (n,)."""
    return np.bincount(parts[parts > 0], likely[parts > 0], len(sizes)) / np.maximum(1, sizes)


def reconciled(mask: np.ndarray, smooth: np.ndarray, likely: np.ndarray, ground: Ground) -> np.ndarray:
    """The network's mask, where what stands out from a smooth ground shows that it is too coarse.

    At its size the network fills the gaps between arms, leaves or wires. A gap is a part that `smooth` leaves out, with
    product along all of its rim but RIM_OPEN, and on a white ground of at most GAP_AREA of the mask; only in a product
    that stands out clearly, since in a pale one what looks like the ground may be a part. The other way round, a part
    that only GrabCut has left out, with product around it, is filled.

    mask, smooth : bool (H, W), by the network and by `plain_mask`; likely : float32 (H, W), what the network says
    """
    if not (mask & smooth).any():
        return mask
    box = tuple(slice(max(0, side.start - 1), side.stop + 1) for side in box_of(mask | smooth))  # and ground beside it
    whole, mask, smooth, likely, distance = mask, mask[box], smooth[box], likely[box], ground.distance[box]
    product = mask & smooth
    n, parts, boxes, _ = cv2.connectedComponentsWithStats((smooth & ~mask).astype(np.uint8), connectivity=4)
    chance = mean_chance(parts, boxes[:, cv2.CC_STAT_AREA], likely)
    missing = (open_share(parts, n, product) <= RIM_OPEN) & (chance > UNLIKELY)
    missing[0] = False
    found = mask | missing[parts]
    if np.median(distance[product]) >= CLEAR:
        n, parts, boxes, _ = cv2.connectedComponentsWithStats((mask & ~smooth).astype(np.uint8), connectivity=4)
        gap = open_share(parts, n, mask) <= RIM_OPEN
        if is_white(ground):
            gap &= boxes[:, cv2.CC_STAT_AREA] <= GAP_AREA * np.count_nonzero(mask)
        gap[0] = False
        found &= ~gap[parts]
        _, parts, boxes, _ = cv2.connectedComponentsWithStats(found.astype(np.uint8), connectivity=8)
        found &= (boxes[:, cv2.CC_STAT_AREA] >= SPECK * np.count_nonzero(mask))[parts]
    settled = np.zeros_like(whole)
    settled[box] = found
    return settled


def without_unlikely(smooth: np.ndarray, likely: np.ndarray) -> np.ndarray:
    """What stands out from a smooth ground without the badges and shadows that the network surely takes for ground.

    What is thinner than the network sees, such as a strap or a wire, stays.

    smooth : bool (H, W); likely : float32 (H, W), what the network says -> bool (H, W)
    """
    doubtful = (smooth & (likely < 0.3)).astype(np.uint8)
    width = 2 * max(1, int(THIN * np.sqrt(np.count_nonzero(smooth)))) + 1
    deep = cv2.erode(doubtful, np.ones((width, width), np.uint8)) > 0
    if not deep.any():
        return smooth
    n, parts, boxes, _ = cv2.connectedComponentsWithStats(doubtful, connectivity=4)
    chance = mean_chance(parts, boxes[:, cv2.CC_STAT_AREA], likely)
    other = (np.bincount(parts[deep], minlength=n) > 0) & (chance < UNLIKELY)
    return smooth & ~other[parts]


def with_likely_holes(mask: np.ndarray, likely: np.ndarray) -> np.ndarray:
    """A mask with what it encloses and the network takes for product, bool and float32 (H, W) -> bool (H, W).

    By this the network is asked whether it agrees with an outline: of a hole, which may be finer than it sees, the
    ground that shows in it tells more, unless the product is so faint that a part of it may look like that.
    """
    return mask | (holes_of(mask) & (likely > 0.5))


def with_white_parts(mask: np.ndarray, likely: np.ndarray) -> np.ndarray:
    """A mask on a white ground with the holes that the network surely takes for white parts of the product.

    Only with those that are larger than GAP_AREA of all. A line drawing has such ones, a ring has none.

    mask : bool (H, W); likely : float32 (H, W), what the network says -> bool (H, W)
    """
    holes = holes_of(mask)
    least = GAP_AREA * np.count_nonzero(mask | holes)
    if np.count_nonzero(holes) <= least:
        return mask
    _, parts, boxes, _ = cv2.connectedComponentsWithStats(holes.view(np.uint8), connectivity=4)
    sizes = boxes[:, cv2.CC_STAT_AREA]
    large = sizes > least
    part = large & (mean_chance(parts, sizes, likely) > LIKELY)
    part[0] = False
    return mask | part[parts]


def with_pale_parts(mask: np.ndarray, ground: Ground, likely: np.ndarray) -> np.ndarray:
    """A mask with the parts of its product that have nearly the ground's colour, as a white sole has on white.

    What lies beside the mask and is no noise of the ground is such a part where it is larger than the squares that
    JPEG's ringing fills, is pale nearly everywhere, and is at its rim as far from the ground as within, where a shadow
    fades; the network does not rule it out.

    mask : bool (H, W), on the smooth `ground`; likely : float32 (H, W), what the network says -> bool (H, W)
    """
    weakest, distance, square = weakest_distance(ground), ground.distance, np.ones((3, 3), np.uint8)
    pale = cv2.morphologyEx(((distance > weakest) & ~mask).astype(np.uint8), cv2.MORPH_OPEN, square)
    large = cv2.distanceTransform(cv2.copyMakeBorder(pale, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0), cv2.DIST_L2, 3)
    large = large[1:-1, 1:-1] > RINGING / 2
    if not large.any():
        return mask
    _, parts = cv2.connectedComponents(pale, connectivity=4)
    beside = cv2.dilate(mask.astype(np.uint8), np.ones((9, 9), np.uint8)) > 0
    highest = cv2.dilate(distance, np.ones((5, 5), np.uint8))
    found = mask.copy()
    for i in np.intersect1d(parts[large], parts[beside & (pale > 0)]):
        part = parts == i
        within, rim = distance[part], (cv2.dilate(part.astype(np.uint8), square) > 0) & ~part & ~beside
        ends = rim.any() and np.median(highest[rim]) > PALE_RIM * np.median(within)
        if ends and np.quantile(within, 0.9) < PALE and likely[part].mean() > RULED_OUT:
            found |= (cv2.dilate(part.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0) & (distance > weakest)
    return found


def expected_iou(likely: np.ndarray, mask: np.ndarray) -> float:
    """Intersection over union of a mask and the product, 0..1, as the network's probabilities let expect it.

    likely : float32 (h, w), 0..1; mask : bool of any size
    """
    share = cv2.resize(mask.astype(np.float32), likely.shape[::-1], interpolation=cv2.INTER_AREA)
    both = float(np.vdot(likely, share))
    return both / max(1e-6, float(likely.sum()) + float(share.sum()) - both)


def discriminant(pixels: np.ndarray, product: np.ndarray) -> np.ndarray:
    """The direction of colour in which product and ground differ most: Fisher's linear discriminant, of length 1.

    pixels : float32 (n, 3); product : bool (n,), some and not all True -> float64 (3,)
    """
    within = 25 * np.eye(3)  # the noise that a camera leaves in even colours
    means = []
    for part in (product, ~product):
        weights = part.astype(np.float32)
        count, total = np.count_nonzero(part), weights @ pixels
        within += (pixels * weights[:, None]).T @ pixels / count - np.outer(total, total) / count**2
        means.append(total / count)
    direction = np.linalg.solve(within, means[0] - means[1])
    return direction / max(1e-9, np.linalg.norm(direction))


def refined(mask: np.ndarray, image_bgr: np.ndarray) -> np.ndarray:
    """Bring a coarse mask to a larger image's size, and its edge to the image's edge.

    The guided filter of He, Sun, Tang (2013), doi:10.1109/TPAMI.2012.213. Its guide is the one direction of colour in
    which product and ground differ most (Fisher's linear discriminant). Above EDGE_SIZE the mask is only enlarged.

    mask : bool (h, w); image_bgr : uint8 (H, W, 3) -> bool (H, W)
    """
    height, width = image_bgr.shape[:2]
    size = size_within(width, height, EDGE_SIZE)
    edge_bgr = cv2.resize(image_bgr, size, interpolation=cv2.INTER_AREA)
    coarse_bgr = cv2.resize(image_bgr, mask.shape[::-1], interpolation=cv2.INTER_AREA)
    soft = cv2.resize(mask.astype(np.float32), size, interpolation=cv2.INTER_LINEAR)
    if 3 < np.count_nonzero(mask) < mask.size - 3:
        window = (2 * round(1.75 * size[0] / mask.shape[1]) + 1,) * 2
        box = tuple(slice(max(0, side.start - window[0]), side.stop + window[0]) for side in box_of(soft > 0))
        whole, soft = np.zeros_like(soft), soft[box]  # further off nothing of it is left
        direction = discriminant(coarse_bgr.reshape(-1, 3).astype(np.float32), mask.ravel())
        guide = cv2.transform(edge_bgr[box].astype(np.float32), direction[None])
        mean_guide, mean_soft = cv2.blur(guide, window), cv2.blur(soft, window)
        slope = cv2.blur(guide * soft, window) - mean_guide * mean_soft
        slope /= cv2.blur(guide * guide, window) - mean_guide * mean_guide + 30
        offset = mean_soft - slope * mean_guide
        whole[box] = cv2.blur(slope, window) * guide + cv2.blur(offset, window)
        soft = whole
    found = (soft > 0.5).astype(np.uint8)
    return found > 0 if size == (width, height) else cv2.resize(found * 255, (width, height)) > 127


def sobel_mask(image_bgr: np.ndarray) -> np.ndarray:
    """The way of 2019: Sobel edges over their mean, outer contours over 5 % of the image's area, filled.

    uint8 BGR (H, W, 3) -> bool (H, W). Kept to compare with.
    """
    smooth = cv2.GaussianBlur(image_bgr, (5, 5), 0)
    edges = np.zeros(image_bgr.shape[:2], np.float32)
    for channel in cv2.split(smooth):
        x, y = cv2.Sobel(channel, cv2.CV_32F, 1, 0), cv2.Sobel(channel, cv2.CV_32F, 0, 1)
        edges = np.maximum(edges, cv2.magnitude(x, y))
    edges = np.minimum(edges, 255)
    strong = (edges > edges.mean()).astype(np.uint8)
    contours, _ = cv2.findContours(strong, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    large = [contour for contour in contours if cv2.contourArea(contour) > 0.05 * strong.size]
    mask = np.zeros(strong.shape, np.uint8)
    cv2.drawContours(mask, large, -1, 1, cv2.FILLED)
    return mask > 0


# ---- one image -----------------------------------------------------------------------------------


def frame_width(image_bgr: np.ndarray) -> int:
    """Width in pixels of a frame of one colour around the image, at most 8 % of the longest side; 0 for none."""
    colour = image_bgr[0, 0].astype(np.float64)

    def other_colours(inset: int) -> float:
        """Share of the rectangle `inset` pixels within the border that is not of the frame's colour."""
        inner = image_bgr[inset : len(image_bgr) - inset, inset : image_bgr.shape[1] - inset]
        lines = np.concatenate([inner[0], inner[-1], inner[:, 0], inner[:, -1]])[None]  # (1, n, 3)
        return 1 - cv2.countNonZero(cv2.inRange(lines, colour - 30, colour + 30)) / lines.shape[1]

    widest = min(round(0.08 * max(image_bgr.shape)), (min(image_bgr.shape[:2]) - 16) // 2)
    if widest < 2 or other_colours(widest) < 0.6 or max(other_colours(0), other_colours(1)) > 0.1:
        return 0
    # the first line within the frame is blended with it
    return 1 + next(inset for inset in range(2, widest + 1) if other_colours(inset) > 0.6 or inset == widest)


def banner_height(image_bgr: np.ndarray) -> int:
    """Height in pixels of a banner of one colour along the top, with or without text, at most 25 %; 0 for none.

    Its edge is one straight line from side to side, which no product crosses: there the colour ends in all columns.
    """
    highest = min(len(image_bgr) // 4, len(image_bgr) - 16)
    if highest < 6:
        return 0
    # every fourth column tells as much, in a quarter of the time
    rows = np.ascontiguousarray(image_bgr[: highest + 3, ::4])
    colour = np.sort(rows[1], axis=0)[rows.shape[1] // 2].astype(np.float64)  # the median
    if cv2.mean(cv2.inRange(rows[:2], colour - 30, colour + 30))[0] < 0.97 * 255:
        return 0
    same = cv2.inRange(rows, colour - 30, colour + 30)
    same = cv2.reduce(same, 1, cv2.REDUCE_AVG, dtype=cv2.CV_32F)[:, 0] / 255  # share of each row
    # the line between is blended
    ends = np.flatnonzero((same[:-3] > 0.97) & (same[3:] < 0.05) & (same[:2].min() > 0.97))
    return int(ends[0]) + 2 if len(ends) and ends[0] > 4 else 0


def find_mask(image_bgr: np.ndarray, method: str) -> tuple[np.ndarray, str, float]:
    """Find the product by `method`, or by the one that "auto" chooses, in an image of at most WORK_SIZE.

    A frame and banners are cut off first. Where a smooth surface explains the border, "auto" takes what stands out from
    it, if the network finds its outline nearly as likely as its own; else the network's answer, its outline by GrabCut.
    There the answer stays as it is where GrabCut's is far less likely, and one mask corrects the other. On any other
    ground the image's colours find the outline: parts of the product seldom have the ground's very colour there.

    uint8 BGR (H, W, 3) -> the mask, bool (H, W), the name of the method that made it, and the trust in it, 0..1.
    """
    height, width = image_bgr.shape[:2]
    frame = frame_width(image_bgr) if method != "sobel" else 0
    if frame:
        mask, method, trust = find_mask(image_bgr[frame : height - frame, frame : width - frame], method)
        return np.pad(mask, frame), method, trust
    top, bottom = (banner_height(rows) if method != "sobel" else 0 for rows in (image_bgr, image_bgr[::-1]))
    if top or bottom:
        mask, method, trust = find_mask(image_bgr[top : height - bottom], method)
        return np.pad(mask, [(top, bottom), (0, 0)]), method, trust
    if method in ("sobel", "grabcut"):
        small_bgr = cv2.resize(image_bgr, size_within(width, height, GRABCUT_SIZE), interpolation=cv2.INTER_AREA)
        mask = sobel_mask(image_bgr) if method == "sobel" else refined(by_border(small_bgr), image_bgr)
        return mask, method, 1 - colour_overlap(to_lab(small_bgr), mask)
    lab = to_lab(image_bgr)
    ground = fit_ground(lab)
    if method == "plain":
        return plain_mask(lab, ground), "plain", ground.explained
    seen = background.clues(image_bgr, ground)
    likely = background.likely_product(background.read_network(background.network_path()), seen)
    own = expected_iou(likely, likely > 0.5)
    smooth_ground = ground.explained >= 0.5 and ground.noise <= 1
    correct = method == "auto" and smooth_ground
    if correct:
        smooth, shown = plain_mask(lab, ground), cv2.resize(likely, (width, height))
        filled = with_likely_holes(smooth, shown)
        trust = expected_iou(likely, filled)
        if trust > own - LESS_LIKELY["plain"]:
            found = without_unlikely(smooth, shown)
            if found is not smooth:
                filled = with_likely_holes(found, shown)
                trust = expected_iou(likely, filled)
            if 2 * np.count_nonzero(found & (ground.distance < FAINT)) > np.count_nonzero(found):
                found = filled
            found = with_white_parts(found, shown) if is_white(ground) else found
            return with_pale_parts(found, ground, shown), "plain", trust
    mask = (by_grabcut if smooth_ground else by_colours)(np.ascontiguousarray(seen[..., :3]), likely)
    if smooth_ground and plausible(mask) and expected_iou(likely, mask) < own - LESS_LIKELY["network"]:
        mask = likely > 0.5  # blank parts of the product have the ground's colour
    mask = refined(mask, image_bgr)
    trust = expected_iou(likely, mask)
    if correct:
        mask = with_pale_parts(reconciled(mask, smooth, shown, ground), ground, shown)
    return mask, "network", trust


def remove_background(image_bgr: np.ndarray, alpha: np.ndarray | None, method: str) -> tuple[np.ndarray, str, float]:
    """Find the product in an image of any size.

    Parameters
    ----------
    image_bgr : uint8 ndarray of shape (H, W, 3)
    alpha : uint8 ndarray of shape (H, W) or None; taken as the mask where it hides a part of the image
    method : one of the values of config.BACKGROUND_METHOD

    Returns
    -------
    mask : bool ndarray of shape (H, W); all True where the product could not be found
    method : what made the mask: "alpha", "plain", "network", "grabcut", "sobel" or "none"
    trust : 0..1; a mask below config.BACKGROUND_MIN_TRUST is not used
    """
    whole_image = np.ones(image_bgr.shape[:2], bool)
    if method == "none":
        return whole_image, "none", 1.0
    if alpha is not None and plausible(alpha > 127):
        return alpha > 127, "alpha", 1.0
    height, width = image_bgr.shape[:2]
    if min(height, width) < 8 or max(height, width) > 20 * min(height, width):
        return whole_image, "none", 0.0
    size = size_within(width, height, WORK_SIZE)
    mask, method, trust = find_mask(cv2.resize(image_bgr, size, interpolation=cv2.INTER_AREA), method)
    if size != (width, height):
        mask = refined(mask, image_bgr)
    if trust < config.BACKGROUND_MIN_TRUST or not plausible(mask):
        return whole_image, "none", trust if plausible(mask) else 0.0
    return mask, method, trust


def on_white_ground(image_bgr: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The product on white, its edge blended and free of the old ground's colour: uint8 BGR (H, W, 3).

    The outermost pixels, where the camera blended product and ground, take the colour of the product further in.
    """
    white = np.full_like(image_bgr, 255)
    rows, columns = box_of(mask)
    for top in range(rows.start or 0, rows.stop, STRIP):
        bottom = min(top + STRIP, rows.stop)
        above, below = max(0, top - 3), min(len(mask), bottom + 3)  # the filters below reach 3 pixels far
        blended = blend(image_bgr[above:below, columns], mask[above:below, columns])
        white[top:bottom, columns] = blended[top - above : bottom - above]
    return white


def blend(image_bgr: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """`on_white_ground` for one strip, uint8 BGR (H, W, 3) and bool (H, W) -> uint8 BGR (H, W, 3)."""
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


def preprocess_image(dataset: str, name: str) -> dict[str, object]:
    """Read one image, remove its background and write it: what one worker does.

    Returns its row of preprocess.csv with the fingerprint of what was written; where it can't be read, the reason.
    """
    if set("\t\r\n") & set(name):
        return {"image": name, "reason": "the name holds a tab or a line break, which no list of names can"}
    try:
        image_bgr, alpha = images.read_image(files.raw_img_dir(dataset) / name)
        mask, method, trust = remove_background(image_bgr, alpha, config.BACKGROUND_METHOD)
        if alpha is not None:
            image_bgr = images.on_white(image_bgr, alpha)
        clean_bgr = image_bgr if method in ("alpha", "none") else on_white_ground(image_bgr, mask)
        images.write_image(files.img_dir(dataset) / name, clean_bgr)
    except images.ImageError as error:
        return {"image": name, "reason": str(error)}
    if config.SAVE_MASKS:
        images.write_image(mask_path(dataset, name), mask.astype(np.uint8) * 255)
    elif mask_path(dataset, name).exists():
        files.inside(mask_path(dataset, name)).unlink(missing_ok=True)
    return {
        "image": name,
        "written": files.fingerprint_file(files.img_dir(dataset) / name),
        "method": method,
        "foreground_fraction": round(float(mask.mean()), 4),
        "trust": round(trust, 3),
    }


# ---- the data set --------------------------------------------------------------------------------


def mask_path(dataset: str, name: str) -> Path:
    """Where the mask of an image lies."""
    return files.mask_dir(dataset) / (name + ".png")


def remove_outputs(dataset: str, name: str) -> None:
    """Remove the cleaned image and the mask of an image that is no longer there, and the folders this leaves empty."""
    for path, top in (
        (files.img_dir(dataset) / name, files.img_dir(dataset)),
        (mask_path(dataset, name), files.mask_dir(dataset)),
    ):
        files.inside(path).unlink(missing_ok=True)
        for folder in path.parents:
            if folder == top or not folder.is_dir() or any(folder.iterdir()):
                break
            folder.rmdir()


def fingerprint_raw(path: Path) -> str:
    """Fingerprint of a photograph's content; empty where it is no regular file or can't be read, a worker says why."""
    try:
        return files.fingerprint_file(path) if path.is_file() else ""
    except OSError:
        return ""


def is_done(dataset: str, name: str, row: dict[str, object]) -> bool:
    """Whether the files that a row of the record speaks of are there as they were written."""
    if "reason" in row:
        return True
    there = row["written"] == files.fingerprint_file(files.img_dir(dataset) / name)
    return there and mask_path(dataset, name).exists() == config.SAVE_MASKS


def earlier_rows(record: dict, origin: dict) -> dict[str, dict[str, object]]:
    """The record's row of each image; rows made in another way than `origin`'s forget of which photograph they are."""
    rows = record.get("images")
    if not isinstance(rows, dict):
        return {}
    # of a record from elsewhere, the rows that this stage may have written
    rows = {name: row for name, row in rows.items() if isinstance(row, dict) and row.get("image") == name}
    needed = {False: {*TABLE, "raw", "written"}, True: {"raw"}}
    rows = {name: row for name, row in rows.items() if needed["reason" in row] <= row.keys()}
    same = not config.REDO and all(record["made_from"].get(key) == origin[key] for key in ("code", "settings"))
    return rows if same else {name: {**row, "raw": None} for name, row in rows.items()}


def in_parallel(dataset: str, names: list[str]) -> Iterator[dict[str, object]]:
    """`preprocess_image` of each name on all cores, in the names' order, without holding more than a few images."""
    cv2.setNumThreads(1)
    memory.keep_freed()  # clearing every array of an image anew takes a tenth of all the time
    rows = parallel.in_processes(functools.partial(preprocess_image, dataset), names)
    return iter(tqdm(rows, total=len(names), unit="image", disable=None))


def main() -> None:
    begin = time.perf_counter()
    dataset, raw_dir = config.DATASET, files.raw_img_dir(config.DATASET)
    record_path, table_path, skipped_path = (
        files.data_dir(dataset) / name for name in ("preprocess.json", "preprocess.csv", "skipped.csv")
    )
    wrote = [files.img_dir(dataset), table_path, skipped_path]
    remedy = f"put the photographs there, or set DATASET to another folder of {files.shown(raw_dir.parent)}/"
    names = files.images_of(raw_dir, remedy)
    prints = {name: fingerprint_raw(raw_dir / name) for name in names}
    origin = files.made_from(__file__, {files.shown(raw_dir): files.fingerprint(prints)}, SETTINGS)
    needs_network = config.BACKGROUND_METHOD in ("auto", "network")
    if needs_network:
        origin["code"] += files.fingerprint_file(background.network_path())

    rows = earlier_rows(files.read_record(record_path) or {}, origin)
    made = {name for name, row in rows.items() if "written" in row}
    to_do = [n for n in names if n not in rows or rows[n]["raw"] != prints[n] or not is_done(dataset, n, rows[n])]
    if not to_do and files.up_to_date(record_path, origin):
        files.unchanged(wrote)
        return
    if needs_network and to_do:
        background.read_network(background.network_path())  # says now, not in a thread, what is wrong with it
    try:
        for row in in_parallel(dataset, to_do):
            rows[row["image"]] = {**row, "raw": prints[row["image"]]}
    except BaseException:
        # what is done stays done: the next run goes on from here
        files.write_record(record_path, {**origin, "inputs": {}}, [], images=rows)
        raise
    skipped = [(name, STAGE, rows[name]["reason"]) for name in names if "reason" in rows[name]]
    if len(skipped) == len(names):
        reason = f"the first, {names[0]}: {skipped[0][2]}"
        raise settings.UserError(f"none of the {len(names)} files of {files.shown(raw_dir)}/ can be used; {reason}")
    for name in made - {name for name in names if "written" in rows[name]}:
        remove_outputs(dataset, name)
    files.write_csv(table_path, TABLE, [[rows[n][key] for key in TABLE] for n in names if "reason" not in rows[n]])
    files.write_csv(skipped_path, ["image", "stage", "reason"], skipped)
    results = {"seconds": round(time.perf_counter() - begin, 1), "images": {name: rows[name] for name in names}}
    files.write_record(record_path, origin, [table_path, skipped_path], **results)
    files.summary(len(names), len(names) - len(skipped), len(skipped), wrote, results["seconds"])


if __name__ == "__main__":
    settings.run(main, __doc__)
