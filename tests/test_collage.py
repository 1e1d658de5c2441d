"""The panels of a collage, and the one view of it that is kept."""

import cv2
import numpy as np
import pytest
from conftest import load_stage
from drawn_products import cluttered, ellipse, gradient, iou, painted, white

from pipeline.background.collage import find_panels
from pipeline.background.masks import Candidate, choose_view
from pipeline.background.network import SHIPPED_NETWORK

GROUNDS = {"white": white, "gradient": gradient, "cluttered": cluttered}
stage = load_stage("01.img_preprocess.py")


def find_product(image_bgr: np.ndarray) -> tuple[np.ndarray, str, float]:
    return stage.find_product(image_bgr, None, stage.Options("auto", SHIPPED_NETWORK, min_trust=0.3, seed=0))


def view(ground: str, height: int = 144, width: int = 146, closer: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """A product on a ground, uint8 BGR (height, width, 3), and its mask; closer: its middle fills the picture."""
    mask = ellipse(height, width)
    image = painted(GROUNDS[ground](height, width), mask)
    if closer:
        part = np.s_[height // 3 : 2 * height // 3, width // 3 : 2 * width // 3]
        return cv2.resize(image[part], (width, height)), np.ones_like(mask)
    return image, mask


def beside(*images: np.ndarray, gap: int = 6, colour=(255, 255, 255)) -> np.ndarray:
    """Images side by side with lines between them."""
    line = np.full((len(images[0]), gap, 3), colour, np.uint8)
    return np.hstack([part for image in images for part in (image, line)][:-1])


def above(*images: np.ndarray, gap: int = 6, colour=(255, 255, 255)) -> np.ndarray:
    return np.rot90(beside(*(np.rot90(image) for image in images), gap=gap, colour=colour), -1).copy()


@pytest.mark.parametrize("ground", GROUNDS)
def test_four_views_are_four_panels_and_one_is_kept(ground):
    (one, mask), (closer, _) = view(ground), view(ground, closer=True)
    collage = above(beside(closer, one), beside(one[:, ::-1], one))
    panels = find_panels(collage)
    assert len(panels) == 4
    assert all(
        abs((rows.start + rows.stop) // 2 - at) < 8 for (rows, _), at in zip(panels, (72, 72, 222, 222), strict=True)
    )
    found, _, trust = find_product(collage)
    kept = np.zeros(collage.shape[:2], bool)
    kept[:144, 152:] = mask  # the first that is no close-up
    assert trust > 0.5 and iou(found, kept) > 0.8


@pytest.mark.parametrize("colour", [(255, 255, 255), (0, 0, 0), (40, 30, 200)])
@pytest.mark.parametrize("gap", [3, 12])
def test_lines_of_any_colour_part_rows_columns_and_both(gap, colour):
    one, _ = view("cluttered")
    assert len(find_panels(beside(one, one, gap=gap, colour=colour))) == 2
    assert len(find_panels(above(one, one[:, ::-1], one, gap=gap, colour=colour))) == 3
    large = cv2.resize(one, (292 + gap, 200))
    assert len(find_panels(above(large, beside(one, one, gap=gap, colour=colour), gap=gap, colour=colour))) == 3


def stripes() -> np.ndarray:
    """A striped cloth, seen from near."""
    return (
        np.repeat(np.where(np.arange(300) // 12 % 2, 255, 60)[:, None, None], 300, axis=1)
        .repeat(3, axis=2)
        .astype(np.uint8)
    )


def two_kinds() -> np.ndarray:
    """Four different things on white."""
    image = white(300, 300)
    for x, y, colour in (
        (75, 75, (200, 40, 30)),
        (225, 75, (30, 200, 30)),
        (75, 225, (20, 30, 200)),
        (225, 225, (0, 0, 0)),
    ):
        cv2.circle(image, (x, y), 50, colour, -1)
    return image


def pair() -> np.ndarray:
    """Two shoes on white."""
    return np.hstack([view("white")[0], view("white")[0][:, ::-1]])


@pytest.mark.parametrize(
    "image",
    [
        *(view(ground)[0] for ground in GROUNDS),
        stripes(),
        two_kinds(),
        pair(),
        white(),
        np.random.default_rng(0).integers(0, 256, (200, 200, 3)).astype(np.uint8),
    ],
    ids=[*GROUNDS, "stripes", "two kinds", "pair", "empty", "noise"],
)
@pytest.mark.parametrize("turned", [False, True])
def test_a_photograph_is_one_panel(image, turned):
    image = np.rot90(image).copy() if turned else image
    assert find_panels(image) == [(slice(0, image.shape[0]), slice(0, image.shape[1]))]


def test_views_that_are_trusted_alike_give_the_first_and_a_close_up_comes_last():
    mask = ellipse(60, 60)
    whole = np.ones_like(mask)
    views = [Candidate(whole, "whole", 0.95), Candidate(mask, "plain", 0.8), Candidate(mask, "network", 0.9)]
    panels = [np.full((60, 60, 3), (40, 60, 200), np.uint8)] * 3
    assert choose_view(views, panels, 0.3) == 1
    assert choose_view([views[1]._replace(trust=0.4), *views[1:]], panels, 0.3) == 1
    assert choose_view([views[0], views[0]], panels[:2], 0.3) == 0


def test_a_shelf_above_the_product_makes_no_collage():
    """Only one of the two parts shows a product."""
    mask = ellipse(200, 300, 0.35)
    image = np.vstack([np.full((100, 300, 3), 200, np.uint8), np.full((8, 300, 3), 40, np.uint8)])
    image = np.vstack([image, painted(np.full((200, 300, 3), 180, np.uint8), mask)])
    assert len(find_panels(image)) == 2
    found, _, _ = find_product(image)
    assert iou(found[108:], mask) > 0.9
    views = [Candidate(np.zeros_like(mask), "plain", 0.0), Candidate(mask, "plain", 0.9)]
    assert choose_view(views, [image[:100], image[108:]], 0.3) is None


def test_a_shelf_with_another_thing_makes_no_collage():
    """Both parts show something, but in other colours: two views of one product would share their colours."""
    vase, product = ellipse(140, 300), ellipse(160, 300)
    top, bottom = painted(cluttered(140, 300), vase, (230, 230, 240)), painted(cluttered(160, 300), product)
    image = above(top, bottom, gap=8, colour=(40, 40, 40))
    assert len(find_panels(image)) == 2
    views = [Candidate(vase, "plain", 0.9), Candidate(product, "plain", 0.9)]
    assert choose_view(views, [top, bottom], 0.3) is None
    assert choose_view([views[1], views[1]], [bottom, bottom], 0.3) == 0
    found, _, _ = find_product(image)
    assert (found[148:] & product).sum() > 0.9 * product.sum()


@pytest.mark.parametrize("size", [(1, 1), (8, 300), (300, 8), (20, 20)])
def test_small_pictures_are_one_panel(size):
    assert len(find_panels(np.zeros((*size, 3), np.uint8))) == 1
