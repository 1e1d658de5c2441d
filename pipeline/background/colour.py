"""Colours as numbers, and how alike the colours of two regions are."""

import cv2
import numpy as np

# cubes of 10 x 10 x 10 into which L*a*b* is divided for histograms: L* in 0..10, a* and b* in 0..25
N_COLOUR_CELLS = 11 * 26 * 26
CAMERA_NOISE = 25.0  # variance of grey values that a camera leaves in an even colour, levels squared


def to_lab(image_bgr: np.ndarray) -> np.ndarray:
    """Return CIE L*a*b* of a uint8 BGR image (H, W, 3) as float32: L 0..100, a and b about -127..127."""
    return cv2.cvtColor(np.multiply(image_bgr, np.float32(1 / 255), dtype=np.float32), cv2.COLOR_BGR2Lab)


def to_bgr(lab: np.ndarray) -> np.ndarray:
    """Return the uint8 BGR image of CIE L*a*b*, float32 (H, W, 3)."""
    return np.clip(np.rint(cv2.cvtColor(lab, cv2.COLOR_Lab2BGR) * 255), 0, 255).astype(np.uint8)


def colour_length(vectors: np.ndarray) -> np.ndarray:
    """Return the Euclidean length along the last axis, of three: float32 (..., 3) -> (...)."""
    squares = cv2.multiply(vectors, vectors).reshape(-1, 1, 3)
    return cv2.sqrt(cv2.transform(squares, np.ones((1, 3), np.float32))).reshape(vectors.shape[:-1])


def ground_light(lab: np.ndarray, surface: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the light that each pixel would have as ground, and the distance of its chroma from the ground's, CIE76.

    lab, surface : float32 (H, W, 3), the image and its ground -> float32 (H, W), the cube root of the share of light,
    and float32 (H, W)
    """
    (lightness, *ab), (ground_lightness, *ground_ab) = cv2.split(lab), cv2.split(surface)
    light = (lightness + 16) / (ground_lightness + 16)
    chroma = cv2.magnitude(*(mine - grounds * light for mine, grounds in zip(ab, ground_ab, strict=True)))
    return light, chroma


def colour_cell(lab: np.ndarray) -> np.ndarray:
    """Return the cell of the colour histogram: float32 L*a*b* (..., 3) -> int32 (...), less than N_COLOUR_CELLS."""
    return ((lab + np.float32([0, 130, 130])) / 10).astype(np.int32) @ np.array([26 * 26, 26, 1], np.int32)


def bhattacharyya(cells: np.ndarray, other: np.ndarray) -> float:
    """Return the Bhattacharyya coefficient of the histograms of two sets of cells: 0 nothing in common, 1 alike.

    cells : int32 (n,); other : int32 (m,), both from `colour_cell`. Bhattacharyya (1943), Bull. Calcutta Math. Soc. 35.
    """
    both = (np.bincount(part, minlength=N_COLOUR_CELLS) / max(1, len(part)) for part in (cells, other))
    return float(np.sqrt(next(both) * next(both)).sum())


def fisher_direction(pixels: np.ndarray, is_product: np.ndarray) -> np.ndarray:
    """Return the direction of colour in which product and ground differ most: Fisher's linear discriminant.

    pixels : float32 (n, 3); is_product : bool (n,), some and not all True -> float64 (3,) of length 1
    """
    within = CAMERA_NOISE * np.eye(3)
    means = []
    for part in (is_product, ~is_product):
        weights = part.astype(np.float32)
        count, total = np.count_nonzero(part), weights @ pixels
        within += (pixels * weights[:, None]).T @ pixels / count - np.outer(total, total) / count**2
        means.append(total / count)
    direction = np.linalg.solve(within, means[0] - means[1])
    return direction / max(1e-9, np.linalg.norm(direction))
