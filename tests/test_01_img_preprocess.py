"""Backgrounds of drawn images whose mask is known, and what the stage keeps, redoes and leaves alone."""

import functools
import json
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
from conftest import load_stage
from PIL import Image

import config
from pipeline import background, files, images, settings

stage = load_stage("01.img_preprocess.py")


def iou(a: np.ndarray, b: np.ndarray) -> float:
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


# ---- masks -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("ground", [white(), gradient()], ids=["white", "gradient"])
def test_smooth_ground_gives_the_exact_mask(ground):
    mask = ellipse(120, 150)
    found, method, trust = stage.remove_background(painted(ground, mask), None, "auto")
    assert method == "plain" and trust > 0.9
    assert iou(found, mask) > 0.97


def test_cluttered_ground_goes_to_the_network():
    mask = ellipse(120, 150)
    found, method, trust = stage.remove_background(painted(cluttered(), mask), None, "auto")
    assert method == "network" and trust > 0.6
    assert iou(found, mask) > 0.8


@pytest.mark.parametrize("size", [9, 22, 300])
def test_picture_that_shows_nothing_stays_as_it_is(size):
    """Nor is GrabCut asked, which takes two seconds for some of them."""
    even = np.full((size, size, 3), (107, 46, 196), np.uint8)
    even[size // 2, size // 2] += 1
    found, method, trust = stage.remove_background(even, None, "auto")
    assert found.all() and method == "none" and trust < 0.3
    state = np.full((size, size), cv2.GC_PR_BGD, np.uint8)
    state[: size // 2] = cv2.GC_PR_FGD
    assert not stage.cut(even, state).any()


def test_ground_surface_is_found_behind_the_product():
    ground = gradient()
    lab = stage.to_lab(painted(ground, ellipse(120, 150)))
    fitted = stage.fit_ground(lab)
    assert np.abs(fitted.surface - stage.to_lab(ground)).max() < 2.5
    assert fitted.explained == 1 and fitted.noise < 0.5


def test_hole_that_shows_the_ground_stays_open():
    mask = ellipse(120, 150)
    mask[45:65, 60:90] = False
    found, _, _ = stage.remove_background(painted(white(), mask), None, "auto")
    assert iou(found, mask) > 0.95 and not found[55, 75]


def ring() -> np.ndarray:
    """Mask of a thin ring, bool (240, 300)."""
    mask = np.zeros((240, 300), np.uint8)
    cv2.ellipse(mask, (150, 120), (90, 80), 0, 0, 360, 1, 9)
    return mask > 0


def wheel() -> np.ndarray:
    """Mask of a wheel with 18 thin spokes, bool (240, 300)."""
    mask = ring().astype(np.uint8)
    for angle in np.arange(18) * np.pi / 9:
        end = round(150 + 88 * np.cos(angle)), round(120 + 78 * np.sin(angle))
        cv2.line(mask, (150, 120), end, 1, 2)
    return mask > 0


def basket() -> np.ndarray:
    """Mask of a grid of wires, bool (240, 300)."""
    mask = np.zeros((240, 300), bool)
    for i in range(0, 161, 16):
        mask[40 + i : 44 + i, 60:224] = mask[40:204, 60 + i : 64 + i] = True
    return mask


@pytest.mark.parametrize("method", ["plain", "auto"])
@pytest.mark.parametrize("ground", [white, gradient])
@pytest.mark.parametrize("product", [ring, wheel, basket])
def test_what_one_sees_through_stays_open(product, ground, method):
    found, _, _ = stage.remove_background(painted(ground(240, 300), product()), None, method)
    assert iou(found, product()) > 0.85


def test_thin_frame_on_a_coloured_ground_stays_open():
    filled = ellipse(120, 150)
    frame = filled & ~cv2.erode(filled.astype(np.uint8), stage.disc(4)).astype(bool)
    found, _, _ = stage.remove_background(painted(gradient(), frame), None, "auto")
    assert iou(found, frame) > 0.9 and not found[60, 75]


def test_outline_drawing_is_filled_where_the_network_finds_it_whole(monkeypatch):
    filled = ellipse(128, 128)
    outline = filled & ~cv2.erode(filled.astype(np.uint8), stage.disc(3)).astype(bool)
    monkeypatch.setattr(background, "likely_product", lambda network, seen: np.where(filled, np.float32(0.9), 0))
    found, _, trust = stage.remove_background(painted(white(128, 128), outline), None, "auto")
    assert iou(found, filled) > 0.95 and trust > 0.8


def test_holes_worked_by_hand():
    mask = np.zeros((12, 14), bool)
    mask[2:10, 2:12] = True
    mask[4:8, 4:6] = mask[4, 8] = False  # 8 pixels and one, enclosed
    mask[9, 5] = mask[2:4, 10] = False  # two bays
    holes = np.zeros_like(mask)
    holes[4:8, 4:6] = holes[4, 8] = True
    assert np.array_equal(stage.holes_of(mask), holes) and not stage.holes_of(~np.zeros_like(mask)).any()
    likely = np.where(mask | holes, np.float32(0.9), 0)
    assert np.array_equal(stage.with_likely_holes(mask, likely), mask | holes)
    likely[4:6, 4:6] = 0.2
    seen = stage.with_likely_holes(mask, likely)
    assert (seen & holes).sum() == 5 and not seen[4:6, 4:6].any()


@pytest.mark.parametrize("colour, is_hole", [((50, 60, 170), True), ((165, 172, 178), False)], ids=["clear", "faint"])
def test_hole_is_a_part_of_a_faint_product_that_the_network_finds_whole(monkeypatch, colour, is_hole):
    filled = ellipse(128, 128)
    holed = filled.copy()
    holed[54:74, 54:74] = False
    monkeypatch.setattr(background, "likely_product", lambda network, seen: np.where(filled, np.float32(0.9), 0))
    image = painted(np.full((128, 128, 3), (200, 205, 210), np.uint8), holed, colour)
    found, method, _ = stage.remove_background(image, None, "auto")
    assert method == "plain" and iou(found, holed if is_hole else filled) > 0.95


@pytest.mark.parametrize("chance, wide, filled_in", [(0.9, 30, True), (0.7, 30, False), (0.9, 8, False)])
def test_large_hole_is_a_white_part_where_the_network_is_sure(chance, wide, filled_in):
    filled = ellipse(120, 150)
    holed = filled.copy()
    holed[45:75, 60 : 60 + wide] = False
    found = stage.with_white_parts(holed, np.where(filled, np.float32(chance), 0))
    assert np.array_equal(found, filled if filled_in else holed)


def test_highlight_that_fades_into_the_product_is_no_hole():
    mask = ellipse(240, 300)
    light = np.zeros((240, 300), np.float32)
    light[90:150, 100:200] = 1
    light = np.clip(1.2 * cv2.GaussianBlur(light, (0, 0), 15), 0, 1)[..., None]
    image = painted(white(240, 300), mask, (1 - light) * np.float32([40, 60, 170]) + 255 * light)
    assert (image[115:125, 140:160] > 250).all()
    found, _, _ = stage.remove_background(image, None, "auto")
    assert iou(found, mask) > 0.96


def test_pieces_of_a_set_stay_and_a_badge_goes():
    mask, badge = np.zeros((200, 200), bool), np.zeros((200, 200), bool)
    mask[80:160, 60:140] = mask[30:50, 30:50] = mask[170:190, 170:190] = True
    badge[15:37, 165:187] = True
    image = painted(painted(white(200, 200), mask), badge, (200, 120, 20))
    found, _, _ = stage.remove_background(image, None, "plain")
    assert iou(found, mask) > 0.96


def test_shop_text_goes_and_two_copies_stay():
    mask = np.zeros((200, 300), bool)
    mask[60:130, 30:120] = mask[60:130, 170:260] = True
    image = painted(white(200, 300), mask)
    cv2.putText(image, "SALE 50", (90, 185), cv2.FONT_HERSHEY_SIMPLEX, 0.8, (0, 0, 0), 2)
    found, _, _ = stage.remove_background(image, None, "auto")
    assert iou(found, mask) > 0.96 and not found[165:].any()


@pytest.mark.parametrize("right", [0, 20])
@pytest.mark.parametrize("sigma", [6, 12])
def test_shadow_is_ground(right, sigma):
    mask = ellipse(200, 200, 0.25)
    shadow = np.zeros((200, 200), np.float32)
    shadow[100:150, 50 + right : 160 + right] = 1
    light = 1 - 0.35 * cv2.GaussianBlur(shadow, (0, 0), sigma)
    found, _, _ = stage.remove_background(painted(light[..., None] * np.float32([235, 235, 235]), mask), None, "auto")
    assert iou(found, mask) > 0.93


def test_frame_of_one_colour_is_ground():
    mask = ellipse(120, 150)
    image = painted(gradient(), mask)
    cv2.rectangle(image, (0, 0), (149, 119), (200, 80, 30), 8)
    assert stage.frame_width(image) in (5, 6)  # the line within the frame may be blended
    found, method, _ = stage.remove_background(image, None, "auto")
    assert method == "plain" and iou(found, mask) > 0.96
    assert stage.frame_width(painted(gradient(), mask)) == 0


@pytest.mark.parametrize("turn", [0, 2], ids=["top", "bottom"])
def test_banner_with_text_is_cut_off(turn):
    mask = ellipse(160, 200)
    image = np.rot90(painted(white(160, 200), mask), turn).copy()
    image[:24] = (60, 40, 200)
    cv2.putText(image, "SALE", (40, 18), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (255, 255, 255), 1)
    assert stage.banner_height(image) in (23, 24, 25)
    found, method, _ = stage.remove_background(np.rot90(image, -turn).copy(), None, "auto")
    assert method == "plain" and iou(found, mask) > 0.96
    assert stage.banner_height(painted(white(), ellipse(120, 150))) == 0


def test_floor_that_the_product_stands_on_is_no_banner():
    image = np.full((160, 200, 3), (200, 210, 220), np.uint8)
    image[130:] = (90, 120, 150)
    cv2.rectangle(image, (60, 40), (140, 145), (40, 60, 170), -1)
    assert stage.banner_height(image[::-1]) == 0


def test_product_that_hides_much_of_the_border():
    mask = np.zeros((160, 160), bool)
    mask[30:, 25:] = True
    generator = np.random.default_rng(1)
    colours = cv2.resize(generator.integers(0, 160, (6, 6, 3), np.uint8), (160, 160), interpolation=cv2.INTER_NEAREST)
    image = np.where(mask[..., None], colours, 235).astype(np.uint8)
    found, _, _ = stage.remove_background(image, None, "plain")
    assert iou(found, mask) > 0.95


def test_product_that_touches_the_border():
    mask = np.zeros((120, 150), bool)
    mask[30:, 40:100] = True
    found, _, _ = stage.remove_background(painted(white(), mask), None, "auto")
    assert iou(found, mask) > 0.97 and found[-1, 41:99].all()


@pytest.mark.parametrize("height, width", [(120, 150), (30, 400), (8, 8), (3, 50), (1, 1)])
@pytest.mark.parametrize("value", [0, 128, 255])
def test_image_without_a_product_keeps_its_pixels(height, width, value):
    image = np.full((height, width, 3), value, np.uint8)
    mask, method, trust = stage.remove_background(image, None, "auto")
    assert mask.all() and method == "none" and trust < config.BACKGROUND_MIN_TRUST


def test_noise_is_not_trusted():
    image = np.random.default_rng(0).integers(0, 256, (120, 120, 3), np.uint8)
    mask, method, _ = stage.remove_background(image, None, "auto")
    assert mask.all() and method == "none"


@pytest.mark.parametrize("method", ["plain", "network", "grabcut", "sobel"])
def test_every_method_by_name(method):
    mask = ellipse(120, 150)
    found, used, trust = stage.remove_background(painted(white(), mask), None, method)
    assert used == method and 0 <= trust <= 1
    assert iou(found, mask) > 0.8


def test_method_none_copies():
    mask, method, trust = stage.remove_background(painted(white(), ellipse(120, 150)), None, "none")
    assert mask.all() and method == "none" and trust == 1


def test_alpha_is_the_mask_where_it_hides_something():
    image, alpha = cluttered(), np.where(ellipse(120, 150), 255, 0).astype(np.uint8)
    mask, method, trust = stage.remove_background(image, alpha, "auto")
    assert method == "alpha" and trust == 1
    np.testing.assert_array_equal(mask, alpha > 127)


def test_large_image_is_masked_at_its_own_size():
    mask = ellipse(1500, 2400)
    found, method, _ = stage.remove_background(painted(gradient(1500, 2400), mask), None, "auto")
    assert method == "plain" and found.shape == mask.shape
    assert iou(found, mask) > 0.97


def test_the_same_image_gives_the_same_mask():
    image = painted(cluttered(), ellipse(120, 150))
    first, second = (stage.remove_background(image, None, "auto")[0] for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_box_of_a_mask():
    mask = np.zeros((6, 8), bool)
    assert mask[stage.box_of(mask)].size == 0
    mask[2, 3] = mask[4, 7] = True
    assert stage.box_of(mask) == (slice(2, 5), slice(3, 8))


def test_colour_overlap_of_halves():
    lab = np.zeros((40, 40, 3), np.float32)
    mask = np.zeros((40, 40), bool)
    mask[:, :20] = True
    assert stage.colour_overlap(lab, mask) == pytest.approx(1)
    lab[:, :20] = 50
    assert stage.colour_overlap(lab, mask) == 0
    assert stage.colour_overlap(lab, np.zeros((40, 40), bool)) == 1


def test_expected_iou_worked_by_hand():
    likely = np.float32([[1, 0.5], [0.25, 0]])
    # of the mask's two pixels 1.5 are expected to be product, and 0.25 of the product to lie outside of it
    assert stage.expected_iou(likely, np.array([[True, True], [False, False]])) == pytest.approx(1.5 / 2.25)
    assert stage.expected_iou(likely, np.ones((2, 2), bool)) == pytest.approx(1.75 / 4)
    assert stage.expected_iou(likely, np.zeros((2, 2), bool)) == 0
    assert stage.expected_iou(
        likely, np.repeat(np.repeat([[True, True], [False, False]], 5, 0), 5, 1)
    ) == pytest.approx(1.5 / 2.25)


def test_what_the_network_is_sure_of_stays_and_grabcut_decides_the_rest():
    truth = ellipse(128, 128)
    image = painted(np.full((128, 128, 3), 230, np.uint8), truth)
    likely = np.where(truth, 0.9, 0.1).astype(np.float32)
    likely[:, 60:70] = 0.45  # not sure there, and rather wrong within the product
    likely[5:15, 5:15] = 0.99  # sure of a piece of ground
    found = stage.by_grabcut(image, likely)
    assert found[5:15, 5:15].all()
    found[5:15, 5:15] = False
    assert iou(found, truth) > 0.95


def test_colours_decide_where_the_network_is_not_sure():
    truth = ellipse(128, 128)
    image = painted(cluttered(128, 128), truth)
    coarse = cv2.blur(np.roll(truth, 3, axis=1).astype(np.float32), (15, 15))  # a blurred outline, a little beside it
    assert iou(coarse > 0.5, truth) < 0.92
    assert iou(stage.by_colours(image, coarse), truth) > 0.94


def test_shop_text_in_the_products_colours_is_no_part_of_it():
    truth, text = ellipse(128, 128), np.zeros((128, 128), bool)
    text[4:12, 20:60] = True
    image = painted(np.full((128, 128, 3), 230, np.uint8), truth | text)
    likely = np.where(truth, 0.95, 0.05).astype(np.float32)
    assert not (stage.by_colours(image, np.where(text, 0.3, likely).astype(np.float32)) & text).any()
    assert stage.by_colours(image, np.where(text, 0.7, likely).astype(np.float32))[text].all()  # the pieces of a set


def test_colours_of_an_even_picture_say_nothing():
    likely = np.float32(np.random.default_rng(0).random((128, 128)))
    even = np.full((128, 128, 3), 90, np.uint8)
    found = stage.by_colours(even, likely)
    assert (found == (likely > 0.5)).mean() > 0.99


def test_blank_part_that_the_network_finds_is_not_left_to_grabcut(monkeypatch):
    filled = ellipse(128, 128)
    outline = filled & ~cv2.erode(filled.astype(np.uint8), stage.disc(3)).astype(bool)
    image = painted(white(128, 128), outline)
    likely = np.where(filled, 0.9, 0.02).astype(np.float32)
    monkeypatch.setattr(background, "likely_product", lambda network, seen: likely)
    assert iou(stage.by_grabcut(image, likely), outline) > 0.9  # the blank inside has the ground's colour
    found, method, _ = stage.remove_background(image, None, "network")
    assert method == "network" and iou(found, filled) > 0.95


def comb(gap: int = 6) -> tuple[np.ndarray, np.ndarray]:
    """A filled rectangle, and the same as a comb of six teeth whose gaps are open to the top: bool (100, 120)."""
    filled = np.zeros((100, 120), bool)
    filled[20:80, 20:100] = True
    teeth = filled.copy()
    for left in range(30, 90, 13):
        teeth[20:60, left : left + gap] = False
    return filled, teeth


def ground_behind(product: np.ndarray, distance: float, light: float = 99) -> background.Ground:
    """An even grey ground of that L*, a product, bool (H, W), everywhere as far from it."""
    surface = np.full((*product.shape, 3), (light, 0, 0), np.float32)
    return background.Ground(surface, np.where(product, np.float32(distance), 0), explained=1, noise=0, grain=0)


def test_gaps_that_show_the_ground_are_taken_from_the_networks_mask():
    filled, teeth = comb()
    likely = np.where(filled, np.float32(0.9), 0)
    assert np.array_equal(stage.reconciled(filled, teeth, likely, ground_behind(teeth, 60)), teeth)
    # in a pale product they may be its parts
    assert np.array_equal(stage.reconciled(filled, teeth, likely, ground_behind(teeth, 20)), filled)
    nothing = np.zeros_like(filled)
    assert np.array_equal(stage.reconciled(filled, nothing, likely, ground_behind(nothing, 0)), filled)


@pytest.mark.parametrize("light, open_", [(99, False), (90, True)], ids=["white", "grey"])
def test_large_gap_is_one_only_where_the_product_can_have_no_such_part(light, open_):
    filled, _ = comb()
    holed = filled.copy()
    holed[30:50, 30:70] = False
    found = stage.reconciled(filled, holed, filled.astype(np.float32), ground_behind(holed, 60, light))
    assert np.array_equal(found, holed if open_ else filled)


@pytest.mark.parametrize("light", [99, 90], ids=["white", "grey"])
def test_what_is_no_gap_stays_in_the_networks_mask(light):
    filled, _ = comb()
    visible = filled.copy()
    visible[20:23, 30:90] = False  # along the outline
    found = stage.reconciled(filled, visible, filled.astype(np.float32), ground_behind(visible, 60, light))
    assert np.array_equal(found, filled)


def test_texture_of_the_ground_does_not_stay_in_a_gap():
    filled, teeth = comb(gap=8)
    specked = teeth.copy()
    specked[30:33, 33:36] = True  # 9 of 4,800 pixels, within the first gap
    found = stage.reconciled(filled, specked, filled.astype(np.float32), ground_behind(specked, 60))
    assert np.array_equal(found, teeth)


@pytest.mark.parametrize("chance, filled_in", [(0.3, True), (0.02, False)])
def test_enclosed_part_that_stands_out_is_filled_unless_surely_ground(chance, filled_in):
    filled, _ = comb()
    holed = filled.copy()
    holed[40:60, 50:60] = False
    likely = np.where(holed, np.float32(0.9), np.float32(chance))
    found = stage.reconciled(holed, filled, likely, ground_behind(np.ones_like(filled), 30))
    assert np.array_equal(found, filled if filled_in else holed)


def test_badge_that_the_network_knows_for_ground_goes_and_a_strap_stays():
    product, strap, badge = (np.zeros((100, 120), bool) for _ in range(3))
    product[30:80, 20:80] = True
    strap[10:30, 40:42] = True  # 2 pixels; the network does not see it
    badge[35:55, 80:100] = True
    likely = np.where(product, np.float32(0.95), 0)
    assert np.array_equal(stage.without_unlikely(product | strap | badge, likely), product | strap)
    likely[badge] = 0.2  # unlikely, but not surely ground
    assert np.array_equal(stage.without_unlikely(product | strap | badge, likely), product | strap | badge)
    nothing = np.zeros_like(product)
    assert not stage.without_unlikely(nothing, likely).any()


def half_pale(level: float, fading: bool = False) -> tuple[np.ndarray, np.ndarray, background.Ground]:
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
    return dark, both, background.fit_ground(background.to_lab(bgr))


def test_pale_part_belongs_to_the_product():
    dark, both, ground = half_pale(243)
    assert np.array_equal(stage.with_pale_parts(dark, ground, np.full(dark.shape, 0.05, np.float32)), both)


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
    assert np.array_equal(stage.with_pale_parts(dark, ground, likely), dark)


def test_pale_part_does_not_pull_the_ground_towards_it():
    _, both, ground = half_pale(243)
    step = float(background.to_lab(np.full((1, 1, 3), 255, np.uint8))[0, 0, 0]) - float(
        background.to_lab(np.full((1, 1, 3), 243, np.uint8))[0, 0, 0]
    )
    assert ground.distance[both].min() > 0.9 * step
    assert ground.distance[~both].max() < 0.1 * step


def test_network_in_several_threads_says_the_same():
    pictures = [painted(gradient(), ellipse(120, 150, 0.15 + 0.02 * i)) for i in range(8)]
    seen = [background.clues(bgr, background.fit_ground(background.to_lab(bgr))) for bgr in pictures]
    ask = functools.partial(background.likely_product, background.read_network(background.network_path()))
    alone = [ask(one) for one in seen]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(ask, seen))
    assert np.array_equal(alone, together)


@pytest.mark.parametrize("content", [None, b"", b"no network at all"])
def test_network_that_cannot_be_read_is_one_sentence(root, run_stage, content):
    put(root, "a.jpg")
    if content is not None:
        (root / "mine.onnx").write_bytes(content)
    ended = run_stage("01.img_preprocess.py", "--DATASET=x", "--BACKGROUND_NETWORK=mine.onnx")
    assert ended.returncode == 1
    assert ended.stderr.startswith("error: BACKGROUND_NETWORK: mine.onnx") and ended.stderr.count("\n") == 1
    assert not (root / "img").exists()


# ---- pixels ----------------------------------------------------------------------------------------


def test_ground_becomes_white_product_keeps_its_pixels_and_the_edge_has_no_halo():
    mask = ellipse(120, 150)
    green = np.full((120, 150, 3), (0, 200, 0), np.uint8)
    clean = stage.on_white_ground(painted(green, mask), mask).astype(int)
    assert (clean[~mask] == 255).all()
    inner = cv2.erode(mask.astype(np.uint8), stage.disc(3)).astype(bool)
    assert (clean[inner] == (40, 60, 170)).all()
    # between (40, 60, 170) and white no pixel is greener than it is red
    assert (clean[mask][:, 1] <= clean[mask][:, 2]).all()


def test_strips_meet_without_a_seam(monkeypatch):
    mask = ellipse(120, 150)
    image = painted(gradient(), mask)
    whole = stage.on_white_ground(image, mask)
    monkeypatch.setattr(stage, "STRIP", 7)
    np.testing.assert_array_equal(stage.on_white_ground(image, mask), whole)


# ---- the stage -------------------------------------------------------------------------------------


def put(root, *names: str) -> None:
    """Product photographs on white in raw_img/x/, each with another colour."""
    for i, name in enumerate(names):
        path = root / "raw_img" / "x" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        colour = (30 * i % 200, 60, 170)
        Image.fromarray(painted(white(60, 80), ellipse(60, 80), colour)[..., ::-1]).save(path)
    config.DATASET = "x"


def times(root) -> dict[str, int]:
    folder = root / "img" / "x"
    return {name: (folder / name).stat().st_mtime_ns for name in files.list_images(folder)}


def rows(root) -> dict[str, dict[str, str]]:
    table = files.read_csv(root / "data" / "x" / "preprocess.csv", ["image", "method"], "01")
    return {row["image"]: row for row in table}


def test_files_written(root, capsys):
    put(root, "1_1_1.jpg", "가방 하나,둘/2_1_1.png")
    (root / "raw_img" / "x" / "broken.jpg").write_bytes(b"nothing")
    config.SAVE_MASKS = True
    stage.main()
    assert files.list_images(root / "img" / "x") == ["1_1_1.jpg", "가방 하나,둘/2_1_1.png"]
    mask = cv2.imdecode(np.fromfile(root / "mask" / "x" / "가방 하나,둘" / "2_1_1.png.png", np.uint8), 0)
    assert set(np.unique(mask)) == {0, 255} and iou(mask > 0, ellipse(60, 80)) > 0.9
    assert list(rows(root)["1_1_1.jpg"]) == ["image", "method", "foreground_fraction", "trust"]
    assert float(rows(root)["1_1_1.jpg"]["foreground_fraction"]) == pytest.approx(ellipse(60, 80).mean(), abs=0.02)
    skipped = files.read_csv(root / "data" / "x" / "skipped.csv", ["image", "stage", "reason"], "01")
    assert [row["image"] for row in skipped] == ["broken.jpg"]
    assert "3 images in = 2 out + 1 skipped" in capsys.readouterr().out.splitlines()[-1]


def test_only_new_and_changed_images_are_done_again(root, capsys):
    put(root, "a.png", "b.png", "c.png")
    stage.main()
    first = times(root)
    stage.main()
    assert capsys.readouterr().out.splitlines()[-1].startswith("unchanged") and times(root) == first
    put(root, "d.png")
    image = painted(white(60, 80), ellipse(60, 80, 0.2))
    images.write_image(root / "raw_img" / "x" / "b.png", image)
    stage.main()
    second = times(root)
    assert {name for name in second if second[name] != first.get(name)} == {"b.png", "d.png"}
    (root / "img" / "x" / "c.png").unlink()
    stage.main()
    assert {name for name, time in times(root).items() if time != second[name]} == {"c.png"}


def test_a_changed_setting_redoes_all(root):
    put(root, "a.png", "b.png")
    stage.main()
    first = times(root)
    config.BACKGROUND_METHOD = "sobel"
    stage.main()
    assert all(time != first[name] for name, time in times(root).items())
    assert {row["method"] for row in rows(root).values()} == {"sobel"}


def test_masks_go_when_they_are_no_longer_wanted(root):
    put(root, "a.png")
    config.SAVE_MASKS = True
    stage.main()
    assert (root / "mask" / "x" / "a.png.png").exists()
    config.SAVE_MASKS = False
    stage.main()
    assert not (root / "mask" / "x" / "a.png.png").exists()


def test_removed_photographs_leave_and_files_put_by_hand_stay(root):
    put(root, "a.png", "b/b.png")
    config.SAVE_MASKS = True
    stage.main()
    by_hand = root / "img" / "x" / "hand.png"
    images.write_image(by_hand, white(20, 20))
    (root / "raw_img" / "x" / "b" / "b.png").unlink()
    stage.main()
    assert files.list_images(root / "img" / "x") == ["a.png", "hand.png"]
    assert not (root / "mask" / "x" / "b").exists() and list(rows(root)) == ["a.png"]


def test_photograph_that_became_unreadable_leaves(root):
    put(root, "a.png", "b.png")
    stage.main()
    (root / "raw_img" / "x" / "b.png").write_bytes(b"")
    stage.main()
    assert files.list_images(root / "img" / "x") == ["a.png"]


def test_interrupted_run_goes_on_where_it_was(root, monkeypatch):
    put(root, "a.png", "b.png", "c.png")
    whole_run = stage.in_parallel

    def interrupted(dataset, names):
        yield next(whole_run(dataset, names[:1]))
        raise KeyboardInterrupt

    monkeypatch.setattr(stage, "in_parallel", interrupted)
    with pytest.raises(KeyboardInterrupt):
        stage.main()
    first = times(root)
    assert list(first) == ["a.png"]
    monkeypatch.setattr(stage, "in_parallel", whole_run)
    stage.main()
    assert list(times(root)) == ["a.png", "b.png", "c.png"] and times(root)["a.png"] == first["a.png"]


@pytest.mark.parametrize(
    "text", ["", "[]", '{"made_from": {}, "images": 3}', '{"made_from": {}, "images": {"a.png": 1}}']
)
def test_damaged_record_means_all_anew(root, text):
    put(root, "a.png")
    (root / "data" / "x").mkdir(parents=True)
    (root / "data" / "x" / "preprocess.json").write_text(text)
    stage.main()
    record = json.loads((root / "data" / "x" / "preprocess.json").read_text(encoding="utf-8"))
    assert list(record["images"]) == ["a.png"]


def test_nothing_readable_is_an_error_that_leaves_earlier_results(root):
    put(root, "a.png")
    stage.main()
    before = (root / "img" / "x" / "a.png").read_bytes()
    (root / "raw_img" / "x" / "a.png").write_bytes(b"x")
    with pytest.raises(settings.UserError, match=r"none of the 1 files of raw_img/x/ .* a\.png: "):
        stage.main()
    assert (root / "img" / "x" / "a.png").read_bytes() == before


def test_missing_and_empty_folder(root):
    config.DATASET = "x"
    with pytest.raises(settings.UserError, match="raw_img/x/ not found"):
        stage.main()
    (root / "raw_img" / "x").mkdir(parents=True)
    with pytest.raises(settings.UserError, match="raw_img/x/ holds no image"):
        stage.main()
