"""Drawn products whose masks are known, on white, graded and cluttered grounds, for the tests of stage 01."""

import cv2
import numpy as np


def iou(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of two masks, 0..1."""
    return (a & b).sum() / (a | b).sum()


def ellipse(height: int, width: int, size: float = 0.3) -> np.ndarray:
    """Mask of an ellipse in the middle, bool (height, width)."""
    mask = np.zeros((height, width), np.uint8)
    cv2.ellipse(mask, (width // 2, height // 2), (int(size * width), int(size * height * 0.7)), 20, 0, 360, 1, -1)
    return mask > 0


def painted(ground_bgr: np.ndarray, mask: np.ndarray, colour=(40, 60, 170)) -> np.ndarray:
    """A product of one colour with a smooth edge on a ground, uint8 BGR (H, W, 3)."""
    opacity = cv2.GaussianBlur(mask.astype(np.float32), (3, 3), 0)[..., None]
    return np.rint(opacity * np.float32(colour) + (1 - opacity) * ground_bgr).astype(np.uint8)


def white(height: int = 120, width: int = 150) -> np.ndarray:
    return np.full((height, width, 3), 255, np.uint8)


def gradient(height: int = 120, width: int = 150) -> np.ndarray:
    """A ground that gets lighter from the top left to the bottom right."""
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    return np.rint(np.stack([150 + 60 * y, 160 + 50 * y, 170 + 40 * x], axis=-1)).astype(np.uint8)


def cluttered(height: int = 120, width: int = 150) -> np.ndarray:
    """A ground of coloured tiles, green, blue and grey, none of them red."""
    generator = np.random.default_rng(3)
    tiles = generator.integers([60, 90, 30], [230, 220, 110], (height // 10 + 1, width // 10 + 1, 3))
    return np.kron(tiles, np.ones((10, 10, 1))).astype(np.uint8)[:height, :width]
