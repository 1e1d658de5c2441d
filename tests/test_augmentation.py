"""pipeline/features/augmentation.py: changes to training images that keep the product."""

import cv2
import numpy as np
import pytest

from pipeline.features.augmentation import augment, draw_text_bar


def shoe(size: int = 80) -> tuple[np.ndarray, np.ndarray]:
    """A drawn product on white, uint8 RGB, and its mask."""
    image_rgb, mask = np.full((size, size, 3), 255, np.uint8), np.zeros((size, size), np.uint8)
    cv2.ellipse(image_rgb, (size // 2, size // 2), (size // 3, size // 6), 20, 0, 360, (180, 40, 30), -1)
    cv2.ellipse(mask, (size // 2, size // 2), (size // 3, size // 6), 20, 0, 360, 255, -1)
    return image_rgb, mask


def test_augmentation_of_strength_zero_only_mirrors():
    image_rgb, _ = shoe()
    found = [augment(image_rgb, None, np.random.default_rng(i), 0.0) for i in range(10)]
    same = [(f == image_rgb).all() for f in found]
    mirrored = [(f == image_rgb[:, ::-1]).all() for f in found]
    assert any(same) and any(mirrored) and all(a or b for a, b in zip(same, mirrored, strict=True))


def test_augmentation_changes_an_image_but_keeps_its_product():
    image_rgb, _ = shoe()
    for i in range(20):
        changed = augment(image_rgb, None, np.random.default_rng(i), 1.0)
        assert changed.shape == image_rgb.shape and changed.dtype == np.uint8
        red = (changed[..., 0].astype(int) - changed[..., 1] > 40).mean()
        assert 0.08 < red < 0.4  # 0.175 of the original
    assert (changed != image_rgb).any()


def test_augmentation_depends_on_the_generator_alone():
    image_rgb, mask = shoe()
    one, other = (augment(image_rgb, mask, np.random.default_rng(3), 1.5) for _ in range(2))
    assert (one == other).all()


def test_random_ground_lies_behind_the_product_only():
    image_rgb, mask = shoe()
    for i in range(10):
        rng = np.random.default_rng(i)
        changed = augment(image_rgb, mask, rng, 0.0)
        kept = mask > 0 if (changed[mask > 0] == image_rgb[mask > 0]).all() else mask[:, ::-1] > 0
        assert (changed[kept][:, 0] == 180).all()
        assert (changed[~kept] != 255).any(axis=1).mean() > 0.9


@pytest.mark.parametrize("size", [75, 76])
def test_text_bars_fit_at_every_size(size):
    for i in range(50):
        picture = np.full((size, size, 3), 255, np.float32)
        draw_text_bar(picture, np.random.default_rng(i))
        assert picture.shape == (size, size, 3) and np.isfinite(picture).all()
