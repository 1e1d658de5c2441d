"""The ground of a photograph: a smooth surface of colour, and the colours of the border."""

import functools
from typing import NamedTuple

import cv2
import numpy as np

from pipeline.background.colour import colour_length
from pipeline.background.regions import border_ring, size_within

FIT_SIZE = 60  # longest side of the copy on which the surface is fitted, pixels: 240 border pixels fix 18 numbers
EXPLAINED = 6.0  # CIE76; a border pixel nearer to the surface counts as explained by it
WHITE_LIGHTNESS = 96  # mean L* of a ground over which a white part of the product looks like the ground
N_BORDER_COLOURS = 5  # clusters of the border's colours
MIN_COLOUR_SHARE = 0.03  # of the border; a rarer colour of the border counts as no ground


class Ground(NamedTuple):
    """A smooth ground, see `fit_ground`."""

    surface: np.ndarray
    distance: np.ndarray
    explained: float
    noise: float
    grain: float


def fit_ground(lab: np.ndarray) -> Ground:
    """Find the smooth ground and each pixel's distance to it: a quadratic surface in L*a*b*, fitted to the border.

    Iteratively reweighted least squares with Tukey's biweight (Beaton, Tukey 1974, doi:10.1080/00401706.1974.10489171)
    on a small copy; then once more on all pixels that the surface explains.

    Parameters
    ----------
    lab : float32 ndarray of shape (H, W, 3)

    Returns
    -------
    surface : float32 ndarray of shape (H, W, 3), the ground's L*a*b* at each pixel, also behind the product
    distance : float32 ndarray of shape (H, W), CIE76 colour difference to the surface
    explained : share of the border's pixels nearer than 6 to the surface, 0..1; plain grounds have over 0.9
    noise : median distance of these pixels; plain grounds have less than 1. Like `explained` of the small copy
    grain : the distance that 95 % of the outermost pixels nearer than 6 stay below
    """
    height, width = lab.shape[:2]
    small = cv2.resize(lab, size_within(width, height, FIT_SIZE), interpolation=cv2.INTER_AREA)
    h, w = small.shape[:2]
    terms, ring = quadratic_terms(h, w), border_ring(h, w, 0.04)
    ring_terms, ring_values = terms[ring], small[ring]  # (n, 6), (n, 3)

    coefficients = np.zeros((6, 3), np.float32)
    coefficients[0] = [nearest_rank_quantile(ring_values[:, i], 0.5) for i in range(3)]
    residual, scale = colour_length(ring_values - coefficients[0]), 20.0
    for _ in range(5):
        weights = np.maximum(1 - (residual / (3 * scale)) ** 2, 1e-3) ** 2
        coefficients = fit_surface(ring_terms, ring_values, weights)
        residual = colour_length(ring_values - ring_terms @ coefficients)
        scale = min(max(3.7 * nearest_rank_quantile(residual, 0.5), 1.5), scale)
    limit = min(max(2 * scale - 1, 2), 5)  # a wider one takes pale parts of a product for ground
    for _ in range(2):
        residual = colour_length(small - terms @ coefficients)
        near = residual < limit
        if np.count_nonzero(near) > 50:
            weights = near * (1 - (residual / (1.6 * limit)) ** 2) ** 2
            coefficients = fit_surface(terms.reshape(-1, 6), small.reshape(-1, 3), weights.ravel())
    residual = colour_length(ring_values - ring_terms @ coefficients)
    surface = cv2.resize(terms @ coefficients, (width, height), interpolation=cv2.INTER_LINEAR)  # (H, W, 3)
    distance = colour_length(lab - surface)
    rows, columns = distance[[0, 1, -2, -1]], distance[:, [0, 1, -2, -1]]  # (4, W), (H, 4)
    outermost = np.concatenate([rows.ravel(), columns.ravel()])
    near, outermost = residual[residual < EXPLAINED], outermost[outermost < EXPLAINED]
    noise = nearest_rank_quantile(near, 0.5) if len(near) else EXPLAINED
    grain = nearest_rank_quantile(outermost, 0.95) if len(outermost) else EXPLAINED
    return Ground(surface, distance, float((residual < EXPLAINED).mean()), noise, grain)


def is_smooth(ground: Ground) -> bool:
    """Return whether a smooth surface explains the ground: half of the border, and these pixels nearly exactly."""
    return ground.explained >= 0.5 and ground.noise <= 1


def is_white(ground: Ground) -> bool:
    """Return whether a part of the product that is burnt out to white looks like the smooth ground."""
    return float(ground.surface[::8, ::8, 0].mean()) > WHITE_LIGHTNESS


def noise_limit(ground: Ground) -> float:
    """Return the distance from a smooth ground, CIE76, up to which a pixel may be noise of the ground."""
    return float(max(np.clip(3 * ground.grain, 2, 3), 4 * ground.noise))


def border_distance(lab: np.ndarray, seed: int) -> np.ndarray:
    """Return how unlike the border's colours each pixel is, in standard deviations of the nearest cluster of them.

    lab : float32 (H, W, 3); seed : of K-means, an integer from 0 -> float32 (H, W)
    """
    ring = lab[border_ring(lab.shape[0], lab.shape[1], 0.06)]  # (n, 3)
    cv2.setRNGSeed(seed)
    _, nearest, centres = cv2.kmeans(ring, N_BORDER_COLOURS, None, (3, 8, 1.0), 1, cv2.KMEANS_PP_CENTERS)
    nearest = nearest.ravel()
    count = np.bincount(nearest, minlength=N_BORDER_COLOURS)
    squares = ((ring - centres[nearest]) ** 2).sum(axis=1)
    variance = np.bincount(nearest, squares, N_BORDER_COLOURS) / np.maximum(1, 3 * count)
    frequent = np.flatnonzero(count > MIN_COLOUR_SHARE * len(ring))
    # 9: a cluster's standard deviation counts as at least 3, since JPEG moves even colours by as much
    distances = [colour_length(lab - centres[i]) / np.sqrt(max(9, variance[i])) for i in frequent]  # of (H, W)
    return functools.reduce(np.minimum, distances).astype(np.float32)


@functools.cache
def quadratic_terms(height: int, width: int) -> np.ndarray:
    """Return the terms 1, x, y, xx, xy, yy with x and y from -1 to 1: float32 (height, width, 6)."""
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j].astype(np.float32)
    return np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], axis=-1)


def fit_surface(terms: np.ndarray, values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the coefficients of weighted least squares: terms (n, 6), values (n, 3), weights (n,) -> (6, 3)."""
    weighted = terms * weights[:, None]  # (n, 6)
    normal = weighted.T @ terms + 1e-5 * len(terms) * np.eye(terms.shape[1], dtype=np.float32)
    return np.linalg.solve(normal, weighted.T @ values)


def nearest_rank_quantile(values: np.ndarray, share: float) -> float:
    """Return a quantile of values, float32 (n,), n > 0, by the nearest rank; share : 0..1.

    For as few values as a border has, NumPy's quantile takes ten times as long.

    >>> nearest_rank_quantile(np.float32([3, 1, 2]), 0.5)
    2.0
    """
    return float(np.sort(values)[round(share * (len(values) - 1))])
