"""The product on any ground: by the network's probabilities and the image's colours, or without the network."""

import cv2
import numpy as np

from pipeline.background.colour import bhattacharyya, colour_cell, to_lab
from pipeline.background.ground import border_distance, quadratic_terms
from pipeline.background.regions import (
    border_ring,
    is_plausible,
    labelled_parts,
    mean_per_part,
    square,
)

EVEN_SPREAD = 0.5  # levels; an image whose colours vary less shows nothing, and GrabCut would take seconds to say so
SURE = 0.95  # probability from which GrabCut is not asked about a pixel
N_SHADES = 26  # of each channel, in the histograms of product and ground
SHADE_OF_LEVEL = (np.arange(256) * N_SHADES // 256).astype(np.uint8)
# how much of each shade counts as another: float32 (N_SHADES, N_SHADES)
SHADE_BLUR = (np.eye(N_SHADES) + 0.5 * (np.eye(N_SHADES, k=1) + np.eye(N_SHADES, k=-1))).astype(np.float32)
UNLIKELIER = 0.4  # of the likeliest part's mean probability; a part below this is shop text or another thing


def run_grabcut(small_bgr: np.ndarray, state: np.ndarray, seed: int) -> np.ndarray:
    """Return GrabCut's mask from a first guess: uint8 BGR (h, w, 3), state GC_... uint8 (h, w) -> bool (h, w).

    Rother, Kolmogorov, Blake: "GrabCut: interactive foreground extraction using iterated graph cuts" (2004),
    doi:10.1145/1015706.1015720. `seed` is that of K-means on the colours.
    """
    few_bgr, few_states = (np.ascontiguousarray(pixels[::2, ::2]) for pixels in (small_bgr, state))
    one_sided = not (few_states & 1).any() or (few_states & 1).all()  # GC_FGD = 1, GC_PR_FGD = 3
    if one_sided or few_bgr.std(axis=(0, 1)).max() < EVEN_SPREAD:
        return np.zeros(state.shape, bool)
    # a quarter of the pixels gives colour models as good as all do, in a quarter of the time
    models = np.zeros((1, 65)), np.zeros((1, 65))
    cv2.setRNGSeed(seed)
    cv2.grabCut(few_bgr, few_states, None, *models, 0, cv2.GC_INIT_WITH_MASK)
    cv2.grabCut(small_bgr, state, None, *models, 1, cv2.GC_EVAL)
    return (state & 1).astype(bool)


def segment_by_border(small_bgr: np.ndarray, seed: int) -> np.ndarray:
    """Return the mask of the product on any ground without the network: uint8 BGR (h, w, 3) -> bool (h, w).

    GrabCut, started from the distance to the border's colours, weighted by the nearness to the centre; once with little
    product to begin with and once with much. The mask whose colours overlap less with those around it is taken.
    """
    h, w = small_bgr.shape[:2]
    lab = to_lab(small_bgr)
    unlike = border_distance(cv2.resize(lab, (w // 2, h // 2), interpolation=cv2.INTER_AREA), seed)
    terms = quadratic_terms(*unlike.shape)
    start = cv2.resize(np.minimum(unlike, 8) ** 0.7 * np.exp(-2 * (terms[..., 3] + terms[..., 5])), (w, h))
    masks = []
    for product, ground in ((0.15, 0.6), (0.45, 0.3)):  # shares of the image to begin with
        sure_ground, likely, sure = np.quantile(start, [ground, 1 - product, 0.99])
        state = np.where(start > likely, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
        state[start > sure] = cv2.GC_FGD
        state[start < sure_ground] = cv2.GC_BGD
        state[border_ring(h, w, 0.015)] = cv2.GC_BGD
        mask = run_grabcut(small_bgr, state, seed)
        # the border was set to ground above: its pixels take the answer of the next ones
        mask[:2], mask[-2:] = mask[2], mask[-3]
        mask[:, :2], mask[:, -2:] = mask[:, 2:3], mask[:, -3:-2]
        masks.append(mask)
    return min(masks, key=lambda mask: colour_overlap(lab, mask))


def colour_overlap(lab: np.ndarray, mask: np.ndarray) -> float:
    """Return how alike the colours of the product and of the ground around it are: 0 nothing in common, 1 the same.

    It is the Bhattacharyya coefficient of two colour histograms, of the mask and of a band around it. Of all measures
    that need no true mask, it predicts best how good a mask is (doc/log.md).

    lab : float32 (H, W, 3); mask : bool of the same or a larger size. A mask too small or large scores 1.
    """
    if not is_plausible(mask):
        return 1.0
    mask = cv2.resize(mask.astype(np.uint8), lab.shape[1::-1], interpolation=cv2.INTER_NEAREST)
    radius = max(2, round(0.09 * max(mask.shape)))
    around = cv2.dilate(mask, square(2 * radius + 1)) > cv2.dilate(mask, square(3))
    # averaged over 5 x 5, so that fine noise counts as the colour it looks like from afar
    cells = colour_cell(cv2.blur(lab, (5, 5)))  # (H, W)
    return bhattacharyya(cells[mask > 0], cells[around]) if around.any() and mask.any() else 1.0


def segment_by_grabcut(small_bgr: np.ndarray, foreground_prob: np.ndarray, seed: int) -> np.ndarray:
    """Return the product by the network, its outline by GrabCut.

    small_bgr : uint8 (h, w, 3); foreground_prob : float32 (h, w), 0..1 -> bool (h, w)
    """
    state = np.where(foreground_prob > 0.5, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
    state[foreground_prob > SURE] = cv2.GC_FGD
    state[foreground_prob < 1 - SURE] = cv2.GC_BGD
    return run_grabcut(small_bgr, state, seed)


def segment_by_colours(small_bgr: np.ndarray, foreground_prob: np.ndarray) -> np.ndarray:
    """Return the product by the network, its outline by the colours of this image, in a tenth of GrabCut's time.

    Bayes' rule: the network's probability is the prior; the likelihood is how much more often the product has a pixel's
    colour than the ground, by histograms of both. The result gives better histograms, so this is done twice. Separate
    parts that the network finds far less likely than the likeliest are removed.

    small_bgr : uint8 (h, w, 3); foreground_prob : float32 (h, w), 0..1 -> bool (h, w)
    """
    shades = cv2.split(cv2.LUT(small_bgr, SHADE_OF_LEVEL))
    cells = np.ravel_multi_index(shades, (N_SHADES,) * 3).ravel()  # (h * w,)

    def histogram(weights: np.ndarray) -> np.ndarray:
        """Return how many pixels have a colour, some of the next shades counted in: (h * w,) -> (N_SHADES ** 3,)."""
        count = np.bincount(cells, weights, N_SHADES**3).astype(np.float32).reshape((N_SHADES,) * 3)
        count = SHADE_BLUR @ (count @ SHADE_BLUR).reshape(N_SHADES, -1)
        return (SHADE_BLUR @ count.reshape((N_SHADES,) * 3)).ravel()

    posterior = np.clip(foreground_prob.ravel(), 0.002, 0.998)
    prior_odds, every = posterior / (1 - posterior), histogram(np.ones_like(posterior))
    for _ in range(2):
        share, product = posterior.mean(), histogram(posterior)
        # a pixel's own vote is taken out of its colour's; of a rare colour little can be said
        of_product, of_ground = product[cells] - posterior, (every - product)[cells] - (1 - posterior)
        ratio = (np.maximum(of_product, 0) + 2 * share) / (np.maximum(of_ground, 0) + 2 * (1 - share))
        ratio *= (1 - share) / share
        posterior = prior_odds * ratio * np.sqrt(ratio)  # a power of 1.5 was the best (doc/log.md)
        posterior /= 1 + posterior
    mask = posterior.reshape(foreground_prob.shape) > 0.5
    # other things and shop text have the product's colours too
    _, parts, sizes = labelled_parts(mask, connectivity=8)
    prob = mean_per_part(parts, sizes, foreground_prob)
    return mask & (prob > UNLIKELIER * prob.max())[parts]


def segment_by_sobel(image_bgr: np.ndarray) -> np.ndarray:
    """Return the mask of 2019: Sobel edges over their mean, outer contours over 5 % of the image's area, filled.

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
