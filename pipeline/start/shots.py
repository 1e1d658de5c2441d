"""Photographs of a product as stage 01 leaves them: on white, now and then with what stage 01 gets wrong.

They are composed at the network's size, without the supersampling of the sample's photographs: ten times faster.
"""

import cv2
import numpy as np

from pipeline.sample.drawing import CANVAS, Drawing
from pipeline.sample.grounds import draw_ground
from pipeline.sample.photograph import Seller, cast_shadow, choose_viewpoint, draw_seller, render
from pipeline.sample.pixels import blur
from pipeline.sample.shop_text import draw_shop_text

LAYERS_SIZE = 288  # pixels per side of the drawing's layers, twice the photographs'
PHOTOGRAPH_SIZE = 144  # pixels per side, a little more than the network takes
LEFT_GROUND = 0.22  # share of photographs that keep some of their ground
MAX_OF_SELLER = 2  # photographs by one seller in a row, at most


def shrink(drawing: Drawing) -> Drawing:
    """Return the drawing with layers of LAYERS_SIZE; heights shrink with them."""
    colour, cover, height, gloss = (
        cv2.resize(layer, (LAYERS_SIZE, LAYERS_SIZE), interpolation=cv2.INTER_AREA)
        for layer in (drawing.colour, drawing.cover, drawing.height, drawing.gloss)
    )
    return Drawing(colour, cover, height * (LAYERS_SIZE / CANVAS), gloss)


def choose_ground(seller: Seller, photographs: list[np.ndarray]) -> np.ndarray:
    """Return a seller's ground, float32 BGR (PHOTOGRAPH_SIZE, PHOTOGRAPH_SIZE, 3): drawn, photographed or plain."""
    rng, size = np.random.default_rng(seller.seed), PHOTOGRAPH_SIZE
    kind = rng.random()
    if kind < 0.45:
        return draw_ground(seller.ground, rng, size)
    if kind < 0.8 and photographs:
        whole = photographs[rng.integers(len(photographs))]
        side = int(rng.uniform(100, min(whole.shape[:2])))
        top, left = (rng.integers(length - side + 1) for length in whole.shape[:2])
        piece = whole[top : top + side, left : left + side]
        return cv2.resize(piece, (size, size), interpolation=cv2.INTER_AREA).astype(np.float32) / 255
    return np.ones((size, size, 3), np.float32) * rng.uniform(0.1, 1, 3).astype(np.float32)


def ellipse(mask: np.ndarray, x: float, y: float, rng: np.random.Generator, largest: float, value: int) -> None:
    """Fill an ellipse of random axes up to `largest` pixels round (x, y), in place."""
    axes = tuple(int(v) for v in rng.uniform(3, largest, 2))
    cv2.ellipse(mask, (int(x), int(y)), axes, float(rng.uniform(0, 180)), 0, 360, value, -1)


def damage_mask(mask: np.ndarray, has_ground: bool, rng: np.random.Generator) -> np.ndarray:
    """Return a mask, uint8 (H, W) of 0 and 255, with the faults of a background removal.

    has_ground : whether to keep some ground, around the product, in spots or all; else some masks lose a part
    """
    mask, chance, size = mask.copy(), rng.random(), len(mask)
    if has_ground and chance < 0.3:
        return cv2.dilate(mask, np.ones((int(rng.integers(3, 8)),) * 2, np.uint8))
    if has_ground and chance < 0.85:
        for _ in range(int(rng.integers(1, 4))):
            x, y = rng.uniform(0, size, 2)
            ellipse(mask, x, y, rng, size * 0.25, 255)
    elif has_ground:
        mask[:] = 255
    elif chance < 0.08:
        return cv2.erode(mask, np.ones((int(rng.integers(2, 4)),) * 2, np.uint8))
    elif chance < 0.14 and mask.any():
        rows, columns = np.nonzero(mask)
        at = rng.integers(len(rows))
        ellipse(mask, columns[at], rows[at], rng, size * 0.15, 0)
    return mask


def photograph_on_white(
    drawing: Drawing, seller: Seller, rng: np.random.Generator, photographs: list[np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Return one photograph, uint8 BGR (PHOTOGRAPH_SIZE, PHOTOGRAPH_SIZE, 3), and what of it was kept, 0 and 255.

    drawing : as `shrink` gives it; photographs : of which grounds are cut
    """
    size, has_ground = PHOTOGRAPH_SIZE, rng.random() < LEFT_GROUND
    image = choose_ground(seller, photographs) if has_ground else np.ones((size, size, 3), np.float32)
    fill = seller.fill * rng.uniform(0.88, 1.06)
    shots = [(fill, (0.0, 0.0))]
    if rng.random() < 0.1:  # a pair
        aside = rng.uniform(0.08, 0.20) * rng.choice([-1, 1])
        shots = [(fill * 0.72, (aside, -0.10)), (fill * 0.76, (-aside, 0.10))]
    cover = np.zeros((size, size), np.float32)
    for part, shift in shots:
        shot = render(drawing, *choose_viewpoint(drawing, rng, seller, size, part, shift), seller, size)
        seen = np.zeros((size, size), np.float32)
        seen[shot.box] = shot.cover
        if has_ground:
            cast_shadow(image, seen, rng, seller)
        image[shot.box] += (shot.lit_bgr - image[shot.box]) * shot.cover[..., None]
        cover = np.maximum(cover, seen)
    image = cv2.pow(np.clip(image, 0, 1), seller.gamma) * np.float32(seller.cast) * np.float32(rng.uniform(0.9, 1.1))
    if rng.random() < 0.3:
        image = blur(image, float(rng.uniform(0.4, 1.0)))
    if rng.random() < 0.15:
        draw_shop_text(image, np.zeros((size, size), np.float32), rng)
    image = image + np.float32(rng.uniform(0, 0.02)) * rng.standard_normal(image.shape, np.float32)
    mask = damage_mask((cover > 0.5).astype(np.uint8) * 255, has_ground, rng)
    kept = cv2.GaussianBlur(mask.astype(np.float32) / 255, (0, 0), 0.6)[..., None]
    cleaned = np.clip(image * 255 * kept + 255 * (1 - kept) + 0.5, 0, 255).astype(np.uint8)
    cleaned = np.ascontiguousarray(cleaned[:, ::-1]) if rng.random() < 0.35 else cleaned
    if rng.random() < 0.4:
        coded = cv2.imencode(".jpg", cleaned, [cv2.IMWRITE_JPEG_QUALITY, int(rng.choice([40, 60, 75, 85]))])[1]
        cleaned = cv2.imdecode(coded, cv2.IMREAD_COLOR)
    return cleaned, mask


def photograph_model(
    drawing: Drawing, seed: tuple[int, ...], n_images: int, photographs: list[np.ndarray]
) -> list[np.ndarray]:
    """Return up to `n_images` photographs of a product, uint8 BGR; those without anything to see are left out."""
    small, shown = shrink(drawing), []
    seller, left = None, 0
    for number in range(n_images):
        rng = np.random.default_rng([*seed, number + 1])
        if seller is None or left == 0:
            seller, left = draw_seller(rng), int(rng.integers(1, MAX_OF_SELLER + 1))
        left -= 1
        image_bgr, mask = photograph_on_white(small, seller, rng, photographs)
        if np.count_nonzero(mask) >= 400:  # 2 % of the photograph
            shown.append(image_bgr)
    return shown
