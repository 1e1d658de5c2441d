"""pipeline/features/framing.py: images into squares."""

import numpy as np
import pytest

from pipeline.features.framing import fit_image, fit_mask, product_box


def picture(height: int, width: int, box: tuple[int, int, int, int], colour=(10, 20, 200)) -> np.ndarray:
    """A filled rectangle (top, bottom, left, right) on white, uint8 BGR."""
    image_bgr = np.full((height, width, 3), 255, np.uint8)
    top, bottom, left, right = box
    image_bgr[top:bottom, left:right] = colour
    return image_bgr


def test_product_box_keeps_a_margin_and_stays_inside_the_image():
    assert product_box(picture(100, 100, (40, 60, 30, 80))) == (37, 63, 27, 83)
    assert product_box(picture(100, 100, (0, 100, 0, 50))) == (0, 100, 0, 56)


def test_product_box_of_a_white_image_is_the_image():
    assert product_box(np.full((20, 30, 3), 255, np.uint8)) == (0, 20, 0, 30)


def test_fit_image_keeps_proportions_and_turns_bgr_into_rgb():
    square_rgb = fit_image(np.full((50, 100, 3), (10, 20, 200), np.uint8), 64, crop=False)
    assert square_rgb.shape == (64, 64, 3) and square_rgb.dtype == np.uint8
    assert (square_rgb[16:48] == (200, 20, 10)).all()
    assert (square_rgb[:16] == 255).all() and (square_rgb[48:] == 255).all()


@pytest.mark.parametrize("shape", [(1, 1), (1, 500), (500, 1), (3000, 2)])
def test_fit_image_takes_extreme_shapes(shape):
    assert fit_image(np.zeros((*shape, 3), np.uint8), 75, crop=True).shape == (75, 75, 3)


def test_cropped_product_does_not_depend_on_its_place_and_size():
    small = fit_image(picture(200, 200, (20, 60, 30, 70)), 64, crop=True)
    large = fit_image(picture(200, 200, (50, 150, 80, 180)), 64, crop=True)
    assert np.abs(small.astype(int) - large).mean() < 8  # the edges fall between other pixels


def test_fit_mask_lies_where_fit_image_has_the_product():
    image_bgr = picture(120, 200, (30, 90, 60, 110), colour=(0, 0, 0))
    mask = np.where(image_bgr[..., 0] == 0, 255, 0).astype(np.uint8)
    image_rgb = fit_image(image_bgr, 80, crop=True)
    assert ((fit_mask(mask, image_bgr, 80, crop=True) > 127) == (image_rgb[..., 0] < 128)).all()
