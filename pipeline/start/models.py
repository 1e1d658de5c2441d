"""Products to photograph: a cut-out picture as a relief, or its outline in drawn materials."""

import cv2
import numpy as np

from pipeline.sample.drawing import CANVAS, Drawing
from pipeline.sample.materials import COLOURS, choose, choose_materials
from pipeline.sample.textures import smooth_noise

FILL = 0.86  # part of the canvas that the longer side of a picture takes


def place(layer: np.ndarray) -> np.ndarray:
    """Return a picture, float32 (H, W, ...) of 0..1, in the middle of an empty canvas: (CANVAS, CANVAS, ...)."""
    height, width = layer.shape[:2]
    scale = FILL * CANVAS / max(height, width)
    new_height, new_width = max(2, round(height * scale)), max(2, round(width * scale))
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    resized = np.clip(cv2.resize(layer, (new_width, new_height), interpolation=interpolation), 0, 1)
    canvas = np.zeros((CANVAS, CANVAS, *layer.shape[2:]), np.float32)
    top, left = (CANVAS - new_height) // 2, (CANVAS - new_width) // 2
    canvas[top : top + new_height, left : left + new_width] = resized
    return canvas


def rise_from_rim(cover: np.ndarray, edge: float) -> np.ndarray:
    """Return a height of 0..1 that rises like a quarter of a circle over `edge` pixels from the rim of `cover`."""
    inside = cv2.distanceTransform((cover > 0.5).astype(np.uint8), cv2.DIST_L2, 3)
    return np.sqrt(1 - (1 - np.clip(inside / edge, 0, 1)) ** 2)


def draw_cutout(cutout: np.ndarray, rng: np.random.Generator, hue: float = 0.0) -> Drawing:
    """Return a picture, uint8 BGRA (H, W, 4), as a product in relief; `hue` : degrees by which its colours turn."""
    picture = cutout.astype(np.float32) / 255
    picture[..., :3] *= picture[..., 3:]
    placed = place(picture)
    cover = placed[..., 3]
    colour = np.clip(placed[..., :3] / np.maximum(cover, 0.02)[..., None], 0, 1)
    if hue:
        hsv = cv2.cvtColor(colour, cv2.COLOR_BGR2HSV)
        hsv[..., 0] = (hsv[..., 0] + hue) % 360
        colour = cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR)
    colour *= cover[..., None]
    bright = cv2.GaussianBlur(colour.mean(axis=2), (0, 0), rng.uniform(1, 4))
    height = rng.uniform(4, 24) * rise_from_rim(cover, rng.uniform(10, 60)) + rng.uniform(-10, 14) * bright * cover
    if rng.random() < 0.4:
        height += smooth_noise(rng, CANVAS, rng.uniform(2, 9)) * rng.uniform(0.1, 0.6)
    if rng.random() < 0.4:
        colour *= (1 + rng.uniform(0.02, 0.12) * smooth_noise(rng, CANVAS, rng.uniform(3, 60)))[..., None]
    gloss = np.float32(rng.choice([0, 0.05, 0.3, 0.8])) * cover
    return Drawing(np.clip(colour, 0, 1), cover, height.astype(np.float32), gloss)


def dress_outline(cutout: np.ndarray, rng: np.random.Generator, photographs: list[np.ndarray]) -> Drawing:
    """Return a product with the outline of a picture, uint8 BGRA (H, W, 4), its dark and light parts of materials.

    photographs : uint8 BGR (H, W, 3), H and W at least 150; a piece of one covers half of these products
    """
    cover = place(cutout[..., 3].astype(np.float32) / 255)
    bright = cv2.GaussianBlur(place(cutout[..., :3].astype(np.float32).mean(axis=2) / 255), (0, 0), 3)
    drawing = Drawing()
    main, accent, sole, _ = choose_materials(rng, choose(rng, *COLOURS))
    drawing.paint(cover, main, 0, rng.uniform(8, 22), rng.uniform(14, 50))
    dark, light = np.quantile(bright[cover > 0.5], [0.35, 0.7])
    for material, part in ((accent, bright <= dark), (sole, bright > light)):
        mask = cv2.GaussianBlur(part.astype(np.float32) * cover, (0, 0), 1.5)
        if rng.random() < 0.75:
            other = choose_materials(rng, choose(rng, *COLOURS))[0]
            drawing.paint(mask, material if rng.random() < 0.5 else other, 4, 8, 12)
    if photographs and rng.random() < 0.5:
        whole = photographs[rng.integers(len(photographs))]
        side = int(rng.uniform(150, min(whole.shape[:2])))
        top, left = (rng.integers(length - side + 1) for length in whole.shape[:2])
        piece = cv2.resize(whole[top : top + side, left : left + side], (CANVAS, CANVAS)).astype(np.float32) / 255
        area = (cover if rng.random() < 0.5 else cover * (bright > np.median(bright[cover > 0.5])))[..., None]
        drawing.colour = drawing.colour * (1 - area) + piece * area
    return drawing
