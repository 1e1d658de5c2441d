"""What each room of stage 01 makes of small drawn masks, colours and probabilities."""

import functools
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
from drawn_products import cluttered, ellipse, gradient, iou, painted, white

from pipeline.background import matting
from pipeline.background.cast_shadow import erase_cast_shadow, find_cast_shadow
from pipeline.background.colour import to_lab
from pipeline.background.corrections import (
    add_pale_parts,
    fill_likely_holes,
    fill_white_parts,
    reconcile_masks,
    remove_unlikely_parts,
)
from pipeline.background.frame import extend_beyond_frame, find_frame, is_frame_shaped
from pipeline.background.ground import Ground, fit_ground
from pipeline.background.layout import banner_height
from pipeline.background.masks import Candidate, consider_whole_image, expected_iou
from pipeline.background.matting import paste_on_white
from pipeline.background.network import SHIPPED_NETWORK, input_channels, load_network, predict_foreground
from pipeline.background.regions import bounding_box, disc, enclosed_holes
from pipeline.background.scene import Scene
from pipeline.background.segmentation import colour_overlap, segment_by_colours, segment_by_grabcut


def test_ground_surface_is_found_behind_the_product():
    ground = gradient()
    lab = to_lab(painted(ground, ellipse(120, 150)))
    fitted = fit_ground(lab)
    assert np.abs(fitted.surface - to_lab(ground)).max() < 2.5
    assert fitted.explained == 1 and fitted.noise < 0.5


def test_holes_worked_by_hand():
    mask = np.zeros((12, 14), bool)
    mask[2:10, 2:12] = True
    mask[4:8, 4:6] = mask[4, 8] = False  # 8 pixels and one, enclosed
    mask[9, 5] = mask[2:4, 10] = False  # two bays
    holes = np.zeros_like(mask)
    holes[4:8, 4:6] = holes[4, 8] = True
    assert np.array_equal(enclosed_holes(mask), holes) and not enclosed_holes(~np.zeros_like(mask)).any()
    likely = np.where(mask | holes, np.float32(0.9), 0)
    assert np.array_equal(fill_likely_holes(mask, likely), mask | holes)
    likely[4:6, 4:6] = 0.2
    seen = fill_likely_holes(mask, likely)
    assert (seen & holes).sum() == 5 and not seen[4:6, 4:6].any()


@pytest.mark.parametrize("chance, wide, filled_in", [(0.9, 30, True), (0.7, 30, False), (0.9, 8, False)])
def test_large_hole_is_a_white_part_where_the_network_is_sure(chance, wide, filled_in):
    filled = ellipse(120, 150)
    holed = filled.copy()
    holed[45:75, 60 : 60 + wide] = False
    found = fill_white_parts(holed, np.where(filled, np.float32(chance), 0))
    assert np.array_equal(found, filled if filled_in else holed)


def test_floor_that_the_product_stands_on_is_no_banner():
    image = np.full((160, 200, 3), (200, 210, 220), np.uint8)
    image[130:] = (90, 120, 150)
    cv2.rectangle(image, (60, 40), (140, 145), (40, 60, 170), -1)
    assert banner_height(image[::-1]) == 0


def test_box_of_a_mask():
    mask = np.zeros((6, 8), bool)
    assert mask[bounding_box(mask)].size == 0
    mask[2, 3] = mask[4, 7] = True
    assert bounding_box(mask) == (slice(2, 5), slice(3, 8))


def test_colour_overlap_of_halves():
    lab = np.zeros((40, 40, 3), np.float32)
    mask = np.zeros((40, 40), bool)
    mask[:, :20] = True
    assert colour_overlap(lab, mask) == pytest.approx(1)
    lab[:, :20] = 50
    assert colour_overlap(lab, mask) == 0
    assert colour_overlap(lab, np.zeros((40, 40), bool)) == 1


def test_expected_iou_worked_by_hand():
    likely = np.float32([[1, 0.5], [0.25, 0]])
    # of the mask's two pixels 1.5 are expected to be product, and 0.25 of the product to lie outside of it
    assert expected_iou(likely, np.array([[True, True], [False, False]])) == pytest.approx(1.5 / 2.25)
    assert expected_iou(likely, np.ones((2, 2), bool)) == pytest.approx(1.75 / 4)
    assert expected_iou(likely, np.zeros((2, 2), bool)) == 0
    assert expected_iou(likely, np.repeat(np.repeat([[True, True], [False, False]], 5, 0), 5, 1)) == pytest.approx(
        1.5 / 2.25
    )


def test_what_the_network_is_sure_of_stays_and_grabcut_decides_the_rest():
    truth = ellipse(128, 128)
    image = painted(np.full((128, 128, 3), 230, np.uint8), truth)
    likely = np.where(truth, 0.9, 0.1).astype(np.float32)
    likely[:, 60:70] = 0.45  # not sure there, and rather wrong within the product
    likely[5:15, 5:15] = 0.99  # sure of a piece of ground
    found = segment_by_grabcut(image, likely, seed=0)
    assert found[5:15, 5:15].all()
    found[5:15, 5:15] = False
    assert iou(found, truth) > 0.95


def test_colours_decide_where_the_network_is_not_sure():
    truth = ellipse(128, 128)
    image = painted(cluttered(128, 128), truth)
    coarse = cv2.blur(np.roll(truth, 3, axis=1).astype(np.float32), (15, 15))  # a blurred outline, a little beside it
    assert iou(coarse > 0.5, truth) < 0.92
    assert iou(segment_by_colours(image, coarse), truth) > 0.94


def test_shop_text_in_the_products_colours_is_no_part_of_it():
    truth, text = ellipse(128, 128), np.zeros((128, 128), bool)
    text[4:12, 20:60] = True
    image = painted(np.full((128, 128, 3), 230, np.uint8), truth | text)
    likely = np.where(truth, 0.95, 0.05).astype(np.float32)
    assert not (segment_by_colours(image, np.where(text, 0.3, likely).astype(np.float32)) & text).any()
    assert segment_by_colours(image, np.where(text, 0.7, likely).astype(np.float32))[text].all()  # the pieces of a set


def test_colours_of_an_even_picture_say_nothing():
    likely = np.float32(np.random.default_rng(0).random((128, 128)))
    even = np.full((128, 128, 3), 90, np.uint8)
    found = segment_by_colours(even, likely)
    assert (found == (likely > 0.5)).mean() > 0.99


def comb(gap: int = 6) -> tuple[np.ndarray, np.ndarray]:
    """A filled rectangle, and the same as a comb of six teeth whose gaps are open to the top: bool (100, 120)."""
    filled = np.zeros((100, 120), bool)
    filled[20:80, 20:100] = True
    teeth = filled.copy()
    for left in range(30, 90, 13):
        teeth[20:60, left : left + gap] = False
    return filled, teeth


def ground_behind(product: np.ndarray, distance: float, light: float = 99) -> Ground:
    """An even grey ground of that L*, a product, bool (H, W), everywhere as far from it."""
    surface = np.full((*product.shape, 3), (light, 0, 0), np.float32)
    return Ground(surface, np.where(product, np.float32(distance), 0), explained=1, noise=0, grain=0)


def test_gaps_that_show_the_ground_are_taken_from_the_networks_mask():
    filled, teeth = comb()
    likely = np.where(filled, np.float32(0.9), 0)
    assert np.array_equal(reconcile_masks(filled, teeth, likely, ground_behind(teeth, 60)), teeth)
    # in a pale product they may be its parts
    assert np.array_equal(reconcile_masks(filled, teeth, likely, ground_behind(teeth, 20)), filled)
    nothing = np.zeros_like(filled)
    assert np.array_equal(reconcile_masks(filled, nothing, likely, ground_behind(nothing, 0)), filled)


@pytest.mark.parametrize("light, open_", [(99, False), (90, True)], ids=["white", "grey"])
def test_large_gap_is_one_only_where_the_product_can_have_no_such_part(light, open_):
    filled, _ = comb()
    holed = filled.copy()
    holed[30:50, 30:70] = False
    found = reconcile_masks(filled, holed, filled.astype(np.float32), ground_behind(holed, 60, light))
    assert np.array_equal(found, holed if open_ else filled)


@pytest.mark.parametrize("light", [99, 90], ids=["white", "grey"])
def test_what_is_no_gap_stays_in_the_networks_mask(light):
    filled, _ = comb()
    visible = filled.copy()
    visible[20:23, 30:90] = False  # along the outline
    found = reconcile_masks(filled, visible, filled.astype(np.float32), ground_behind(visible, 60, light))
    assert np.array_equal(found, filled)


def test_texture_of_the_ground_does_not_stay_in_a_gap():
    filled, teeth = comb(gap=8)
    specked = teeth.copy()
    specked[30:33, 33:36] = True  # 9 of 4,800 pixels, within the first gap
    found = reconcile_masks(filled, specked, filled.astype(np.float32), ground_behind(specked, 60))
    assert np.array_equal(found, teeth)


@pytest.mark.parametrize("chance, filled_in", [(0.3, True), (0.02, False)])
def test_enclosed_part_that_stands_out_is_filled_unless_surely_ground(chance, filled_in):
    filled, _ = comb()
    holed = filled.copy()
    holed[40:60, 50:60] = False
    likely = np.where(holed, np.float32(0.9), np.float32(chance))
    found = reconcile_masks(holed, filled, likely, ground_behind(np.ones_like(filled), 30))
    assert np.array_equal(found, filled if filled_in else holed)


def test_badge_that_the_network_knows_for_ground_goes_and_a_strap_stays():
    product, strap, badge = (np.zeros((100, 120), bool) for _ in range(3))
    product[30:80, 20:80] = True
    strap[10:30, 40:42] = True  # 2 pixels; the network does not see it
    badge[35:55, 80:100] = True
    likely = np.where(product, np.float32(0.95), 0)
    assert np.array_equal(remove_unlikely_parts(product | strap | badge, likely), product | strap)
    likely[badge] = 0.2  # unlikely, but not surely ground
    assert np.array_equal(remove_unlikely_parts(product | strap | badge, likely), product | strap | badge)
    nothing = np.zeros_like(product)
    assert not remove_unlikely_parts(nothing, likely).any()


def half_pale(level: float, fading: bool = False) -> tuple[np.ndarray, np.ndarray, Ground]:
    """A dark block and one of that grey level below it, on white: the dark one's mask, both masks, the fitted ground.

    fading : the lower one fades into the ground at its left, right and lower side, as a shadow does.
    """
    grey = np.full((120, 160), 255, np.float32)
    dark, both = np.zeros(grey.shape, bool), np.zeros(grey.shape, bool)
    dark[20:60, 40:120] = both[20:100, 40:120] = True
    grey[both] = level
    if fading:
        rows, columns = np.mgrid[:40, :80]
        edge = np.minimum(1, np.minimum(np.minimum(columns, 79 - columns), 39 - rows) / 15)
        grey[60:100, 40:120] = 255 - (255 - level) * edge
    grey[dark] = 60
    bgr = np.repeat(np.rint(grey).astype(np.uint8)[..., None], 3, axis=2)
    return dark, both, fit_ground(to_lab(bgr))


def test_pale_part_belongs_to_the_product():
    dark, both, ground = half_pale(243)
    assert np.array_equal(add_pale_parts(dark, ground, np.full(dark.shape, 0.05, np.float32)), both)


@pytest.mark.parametrize("why", ["shadow", "ruled out", "detached", "not pale", "ringing", "noise"])
def test_what_is_no_pale_part_stays_ground(why):
    level = {"not pale": 180, "noise": 252}.get(why, 240)
    dark, _, ground = half_pale(level, fading=why == "shadow")
    if why == "detached":
        dark[50:60] = False
        ground.distance[50:60] = 0
    if why == "ringing":  # 12 rows are no more than the squares that JPEG fills
        ground.distance[72:100] = 0
    likely = np.full(dark.shape, 0.01 if why == "ruled out" else 0.05, np.float32)
    assert np.array_equal(add_pale_parts(dark, ground, likely), dark)


def test_pale_part_does_not_pull_the_ground_towards_it():
    _, both, ground = half_pale(243)
    step = float(to_lab(np.full((1, 1, 3), 255, np.uint8))[0, 0, 0]) - float(
        to_lab(np.full((1, 1, 3), 243, np.uint8))[0, 0, 0]
    )
    assert ground.distance[both].min() > 0.9 * step
    assert ground.distance[~both].max() < 0.1 * step


def test_network_in_several_threads_says_the_same():
    pictures = [painted(gradient(), ellipse(120, 150, 0.15 + 0.02 * i)) for i in range(8)]
    seen = [input_channels(bgr, fit_ground(to_lab(bgr)), seed=0) for bgr in pictures]
    ask = functools.partial(predict_foreground, load_network(SHIPPED_NETWORK))
    alone = [ask(one) for one in seen]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(ask, seen))
    for (prob, no_ground), (prob_again, no_ground_again) in zip(alone, together, strict=True):
        assert np.array_equal(prob, prob_again) and no_ground == no_ground_again


def test_ground_becomes_white_product_keeps_its_pixels_and_the_edge_has_no_halo():
    mask = ellipse(120, 150)
    green = np.full((120, 150, 3), (0, 200, 0), np.uint8)
    clean = paste_on_white(painted(green, mask), mask).astype(int)
    assert (clean[~mask] == 255).all()
    inner = cv2.erode(mask.astype(np.uint8), disc(3)).astype(bool)
    assert (clean[inner] == (40, 60, 170)).all()
    # between (40, 60, 170) and white no pixel is greener than it is red
    assert (clean[mask][:, 1] <= clean[mask][:, 2]).all()


def test_strips_meet_without_a_seam(monkeypatch):
    mask = ellipse(120, 150)
    image = painted(gradient(), mask)
    whole = paste_on_white(image, mask)
    monkeypatch.setattr(matting, "STRIP", 7)
    np.testing.assert_array_equal(paste_on_white(image, mask), whole)


# ---- cast shadows ----------------------------------------------------------------------------------


def with_shadow(mask: np.ndarray, right: int, down: int, sigma: float) -> np.ndarray:
    """A product on white with its outline's shadow, that far to the right and down: uint8 BGR (H, W, 3)."""
    moved = cv2.warpAffine(mask.astype(np.float32), np.float32([[1, 0, right], [0, 1, down]]), mask.shape[::-1])
    light = 1 - 0.35 * cv2.GaussianBlur(moved, (0, 0), sigma)
    return painted(255 * light[..., None] * np.ones(3, np.float32), mask)


def bottle() -> np.ndarray:
    """Mask of a bottle, bool (240, 240)."""
    mask = np.zeros((240, 240), np.uint8)
    cv2.rectangle(mask, (85, 90), (145, 200), 1, -1)
    cv2.rectangle(mask, (105, 40), (125, 90), 1, -1)
    return mask > 0


@pytest.mark.parametrize("right, down", [(14, 12), (-16, 8), (9, 0)])
def test_shadow_with_an_edge_is_found_by_the_outline_that_it_repeats(right, down):
    image = with_shadow(bottle(), right, down, sigma=1.5)
    ground = fit_ground(to_lab(image))
    shadow = find_cast_shadow(to_lab(image), ground)
    moved = cv2.warpAffine(bottle().astype(np.uint8), np.float32([[1, 0, right], [0, 1, down]]), (240, 240)) > 0
    assert iou(shadow, moved & ~bottle()) > 0.7
    clean, _, ground = erase_cast_shadow(image, to_lab(image), ground)
    assert (clean[shadow] > 240).all() and not ground.distance[shadow].any()
    np.testing.assert_array_equal(clean[~shadow], image[~shadow])


def test_grey_thing_of_another_outline_is_no_shadow():
    thing = np.zeros((240, 240), bool)
    thing[100:150, 150:215] = True
    image = painted(painted(white(240, 240), thing, (160, 160, 160)), bottle())
    lab = to_lab(image)
    assert find_cast_shadow(lab, fit_ground(lab)) is None


def test_product_without_a_shadow_stays_as_it_is():
    image = painted(white(240, 240), bottle())
    lab, ground = to_lab(image), fit_ground(to_lab(image))
    clean, same_lab, same_ground = erase_cast_shadow(image, lab, ground)
    assert clean is image and same_lab is lab and same_ground is ground


# ---- frames ----------------------------------------------------------------------------------------


def frame(kind: str, side: int = 160) -> np.ndarray:
    """What a frame of that kind shows, bool (side, side)."""
    inside, r = np.zeros((side, side), np.uint8), side // 5
    if kind == "circle":
        cv2.circle(inside, (side // 2, side // 2), side // 2, 1, -1)
    elif kind == "rounded":
        inside[r:-r] = inside[:, r:-r] = 1
        for x in (r, side - 1 - r):
            for y in (r, side - 1 - r):
                cv2.circle(inside, (x, y), r, 1, -1)
    else:
        inside[12:-12, 12:-12] = 1
    return inside > 0


@pytest.mark.parametrize("kind", ["circle", "rounded", "border"])
def test_alpha_in_the_shape_of_a_frame_is_known(kind):
    inside = frame(kind)
    assert is_frame_shaped(inside)
    found = find_frame(cluttered(160, 160), np.where(inside, 255, 0).astype(np.uint8))
    np.testing.assert_array_equal(found, inside)


@pytest.mark.parametrize(
    "product", [bottle(), ellipse(160, 160), np.tri(100, dtype=bool)], ids=["bottle", "turned", "wedge"]
)
def test_alpha_in_the_shape_of_a_product_is_no_frame(product):
    image = cluttered(*product.shape)
    assert find_frame(image, np.where(product, 255, 0).astype(np.uint8)) is None


@pytest.mark.parametrize("kind", ["circle", "rounded"])
def test_frame_of_one_colour_is_found_without_alpha(kind):
    inside = frame(kind)
    found = find_frame(np.where(inside[..., None], cluttered(160, 160), 255).astype(np.uint8), None)
    assert iou(found, inside) > 0.98


def test_product_on_white_and_dark_corners_of_a_lens_are_no_frame():
    disc_mask = np.zeros((160, 160), np.uint8)
    cv2.circle(disc_mask, (80, 80), 60, 1, -1)
    assert find_frame(painted(white(160, 160), disc_mask > 0), None) is None
    y, x = np.mgrid[-1:1:160j, -1:1:160j]
    fading = np.repeat((220 - 60 * np.hypot(x, y) ** 2)[..., None], 3, axis=2).astype(np.uint8)
    assert find_frame(fading, None) is None


def test_photograph_is_continued_with_the_colours_at_the_frame():
    inside = frame("circle")
    image = np.where(inside[..., None], np.uint8([90, 140, 200]), 0).astype(np.uint8)
    image[40:120, 40:120] = (20, 200, 20)  # further from the frame than the band
    extended = extend_beyond_frame(image, inside)
    assert (extended[~inside] == (90, 140, 200)).all()
    np.testing.assert_array_equal(extended[40:120, 40:120], image[40:120, 40:120])


# ---- a product that fills the image ----------------------------------------------------------------


def test_whole_image_is_taken_where_no_ground_is_likely():
    mask = np.zeros((40, 40), bool)
    mask[:20] = True
    prob = np.where(mask, np.float32(0.9), np.float32(0.2))
    image = np.zeros((40, 40, 3), np.uint8)
    lab = to_lab(image)
    candidate = Candidate(mask, "network", 0.75)

    def answer(no_ground_prob: float) -> Candidate:
        scene = Scene(image, lab, fit_ground(lab), image, prob, no_ground_prob)
        return consider_whole_image(candidate, scene)

    assert answer(0.0) == candidate
    # (1 - 0.2) * 0.75 + 0.2 * 0.5 for the mask, (1 - 0.2) * 0.55 + 0.2 for the whole
    assert answer(0.2).method == "network" and answer(0.2).trust == pytest.approx(0.7)
    assert answer(0.8).method == "whole" and answer(0.8).trust == pytest.approx(0.91) and answer(0.8).mask.all()
