"""Backgrounds of drawn images whose mask is known, and what the stage keeps, redoes and leaves alone."""

import json

import cv2
import numpy as np
import pytest
from conftest import load_stage
from drawn_products import cluttered, ellipse, gradient, iou, painted, white
from PIL import Image

import config
from pipeline.background import scene
from pipeline.background.layout import banner_height, frame_width
from pipeline.background.network import SHIPPED_NETWORK
from pipeline.background.regions import disc
from pipeline.background.segmentation import run_grabcut, segment_by_grabcut
from pipeline.dataset import list_images, write_image
from pipeline.machinery import files
from pipeline.machinery.errors import UserError

stage = load_stage("01.img_preprocess.py")


def find_product(image_bgr: np.ndarray, alpha: np.ndarray | None = None, method: str = "auto"):
    """Mask, method and trust with the settings as they come."""
    return stage.find_product(image_bgr, alpha, stage.Options(method, SHIPPED_NETWORK, min_trust=0.3, seed=0))


# ---- one image -------------------------------------------------------------------------------------


@pytest.mark.parametrize("ground", [white(), gradient()], ids=["white", "gradient"])
def test_smooth_ground_gives_the_exact_mask(ground):
    mask = ellipse(120, 150)
    found, method, trust = find_product(painted(ground, mask))
    assert method == "plain" and trust > 0.9
    assert iou(found, mask) > 0.97


def test_cluttered_ground_goes_to_the_network():
    mask = ellipse(120, 150)
    found, method, trust = find_product(painted(cluttered(), mask))
    assert method == "network" and trust > 0.6
    assert iou(found, mask) > 0.8


@pytest.mark.parametrize("size", [9, 22, 300])
def test_picture_that_shows_nothing_stays_as_it_is(size):
    """Nor is GrabCut asked, which takes two seconds for some of them."""
    even = np.full((size, size, 3), (107, 46, 196), np.uint8)
    even[size // 2, size // 2] += 1
    found, method, trust = find_product(even)
    assert found.all() and method == "none" and trust < 0.3
    state = np.full((size, size), cv2.GC_PR_BGD, np.uint8)
    state[: size // 2] = cv2.GC_PR_FGD
    assert not run_grabcut(even, state, seed=0).any()


def test_hole_that_shows_the_ground_stays_open():
    mask = ellipse(120, 150)
    mask[45:65, 60:90] = False
    found, _, _ = find_product(painted(white(), mask))
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
    found, _, _ = find_product(painted(ground(240, 300), product()), method=method)
    assert iou(found, product()) > 0.85


def test_thin_frame_on_a_coloured_ground_stays_open():
    filled = ellipse(120, 150)
    frame = filled & ~cv2.erode(filled.astype(np.uint8), disc(4)).astype(bool)
    found, _, _ = find_product(painted(gradient(), frame))
    assert iou(found, frame) > 0.9 and not found[60, 75]


def test_outline_drawing_is_filled_where_the_network_finds_it_whole(monkeypatch):
    filled = ellipse(128, 128)
    outline = filled & ~cv2.erode(filled.astype(np.uint8), disc(3)).astype(bool)
    monkeypatch.setattr(scene, "predict_foreground", lambda *_: (np.where(filled, np.float32(0.9), 0), 0.0))
    found, _, trust = find_product(painted(white(128, 128), outline))
    assert iou(found, filled) > 0.95 and trust > 0.8


@pytest.mark.parametrize("colour, is_hole", [((50, 60, 170), True), ((165, 172, 178), False)], ids=["clear", "faint"])
def test_hole_is_a_part_of_a_faint_product_that_the_network_finds_whole(monkeypatch, colour, is_hole):
    filled = ellipse(128, 128)
    holed = filled.copy()
    holed[54:74, 54:74] = False
    monkeypatch.setattr(scene, "predict_foreground", lambda *_: (np.where(filled, np.float32(0.9), 0), 0.0))
    image = painted(np.full((128, 128, 3), (200, 205, 210), np.uint8), holed, colour)
    found, method, _ = find_product(image)
    assert method == "plain" and iou(found, holed if is_hole else filled) > 0.95


def test_highlight_that_fades_into_the_product_is_no_hole():
    mask = ellipse(240, 300)
    light = np.zeros((240, 300), np.float32)
    light[90:150, 100:200] = 1
    light = np.clip(1.2 * cv2.GaussianBlur(light, (0, 0), 15), 0, 1)[..., None]
    image = painted(white(240, 300), mask, (1 - light) * np.float32([40, 60, 170]) + 255 * light)
    assert (image[115:125, 140:160] > 250).all()
    found, _, _ = find_product(image)
    assert iou(found, mask) > 0.96


def test_pieces_of_a_set_stay_and_a_badge_goes():
    mask, badge = np.zeros((200, 200), bool), np.zeros((200, 200), bool)
    mask[80:160, 60:140] = mask[30:50, 30:50] = mask[170:190, 170:190] = True
    badge[15:37, 165:187] = True
    image = painted(painted(white(200, 200), mask), badge, (200, 120, 20))
    found, _, _ = find_product(image, method="plain")
    assert iou(found, mask) > 0.96


def test_shop_text_goes_and_two_copies_stay():
    mask = np.zeros((200, 300), bool)
    mask[60:130, 30:120] = mask[60:130, 170:260] = True
    image = painted(white(200, 300), mask)
    cv2.putText(image, "SALE 50", (90, 185), cv2.FONT_HERSHEY_SIMPLEX, 0.8, (0, 0, 0), 2)
    found, _, _ = find_product(image)
    assert iou(found, mask) > 0.96 and not found[165:].any()


@pytest.mark.parametrize("right", [0, 20])
@pytest.mark.parametrize("sigma", [6, 12])
def test_shadow_is_ground(right, sigma):
    mask = ellipse(200, 200, 0.25)
    shadow = np.zeros((200, 200), np.float32)
    shadow[100:150, 50 + right : 160 + right] = 1
    light = 1 - 0.35 * cv2.GaussianBlur(shadow, (0, 0), sigma)
    found, _, _ = find_product(painted(light[..., None] * np.float32([235, 235, 235]), mask))
    assert iou(found, mask) > 0.93


def test_frame_of_one_colour_is_ground():
    mask = ellipse(120, 150)
    image = painted(gradient(), mask)
    cv2.rectangle(image, (0, 0), (149, 119), (200, 80, 30), 8)
    assert frame_width(image) in (5, 6)  # the line within the frame may be blended
    found, method, _ = find_product(image)
    assert method == "plain" and iou(found, mask) > 0.96
    assert frame_width(painted(gradient(), mask)) == 0


@pytest.mark.parametrize("turn", [0, 2], ids=["top", "bottom"])
def test_banner_with_text_is_cut_off(turn):
    mask = ellipse(160, 200)
    image = np.rot90(painted(white(160, 200), mask), turn).copy()
    image[:24] = (60, 40, 200)
    cv2.putText(image, "SALE", (40, 18), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (255, 255, 255), 1)
    assert banner_height(image) in (23, 24, 25)
    found, method, _ = find_product(np.rot90(image, -turn).copy())
    assert method == "plain" and iou(found, mask) > 0.96
    assert banner_height(painted(white(), ellipse(120, 150))) == 0


def test_product_that_hides_much_of_the_border():
    mask = np.zeros((160, 160), bool)
    mask[30:, 25:] = True
    generator = np.random.default_rng(1)
    colours = cv2.resize(generator.integers(0, 160, (6, 6, 3), np.uint8), (160, 160), interpolation=cv2.INTER_NEAREST)
    image = np.where(mask[..., None], colours, 235).astype(np.uint8)
    found, _, _ = find_product(image, method="plain")
    assert iou(found, mask) > 0.95


def test_product_that_touches_the_border():
    mask = np.zeros((120, 150), bool)
    mask[30:, 40:100] = True
    found, _, _ = find_product(painted(white(), mask))
    assert iou(found, mask) > 0.97 and found[-1, 41:99].all()


@pytest.mark.parametrize("height, width", [(120, 150), (30, 400), (8, 8), (3, 50), (1, 1)])
@pytest.mark.parametrize("value", [0, 128, 255])
def test_image_without_a_product_keeps_its_pixels(height, width, value):
    image = np.full((height, width, 3), value, np.uint8)
    mask, method, trust = find_product(image)
    assert mask.all() and method == "none" and trust < config.BACKGROUND_MIN_TRUST


def test_noise_keeps_its_pixels():
    image = np.random.default_rng(0).integers(0, 256, (120, 120, 3), np.uint8)
    mask, method, _ = find_product(image)
    assert mask.all() and method in ("none", "whole")


@pytest.mark.parametrize("method", ["plain", "network", "grabcut", "sobel"])
def test_every_method_by_name(method):
    mask = ellipse(120, 150)
    found, used, trust = find_product(painted(white(), mask), method=method)
    assert used == method and 0 <= trust <= 1
    assert iou(found, mask) > 0.8


def test_method_none_copies():
    mask, method, trust = find_product(painted(white(), ellipse(120, 150)), method="none")
    assert mask.all() and method == "none" and trust == 1


def test_alpha_is_the_mask_where_it_hides_something():
    image, alpha = cluttered(), np.where(ellipse(120, 150), 255, 0).astype(np.uint8)
    mask, method, trust = find_product(image, alpha)
    assert method == "alpha" and trust == 1
    np.testing.assert_array_equal(mask, alpha > 127)


def circle(side: int = 200) -> np.ndarray:
    """What a circle cut out of a square shows, bool (side, side)."""
    inside = np.zeros((side, side), np.uint8)
    cv2.circle(inside, (side // 2, side // 2), side // 2, 1, -1)
    return inside > 0


@pytest.mark.parametrize("outside", ["transparent", "white"])
@pytest.mark.parametrize("ground", [gradient, cluttered])
def test_ground_within_a_circle_is_removed(ground, outside):
    mask, inside = ellipse(200, 200, 0.25), circle()
    image = np.where(inside[..., None], painted(ground(200, 200), mask), 255).astype(np.uint8)
    alpha = np.where(inside, 255, 0).astype(np.uint8) if outside == "transparent" else None
    found, method, trust = find_product(image, alpha)
    assert method in ("plain", "network") and trust > 0.6
    assert iou(found, mask) > 0.8 and not found[~inside].any()


def test_frame_with_nothing_to_find_shows_all_that_is_not_transparent():
    inside = circle()
    image = np.random.default_rng(0).integers(0, 256, (200, 200, 3), np.uint8)
    found, method, _ = find_product(image, np.where(inside, 255, 0).astype(np.uint8))
    assert method in ("none", "whole") and np.array_equal(found, inside)


def test_product_that_fills_the_image_keeps_all_of_it(monkeypatch):
    image = cluttered()
    likely = np.where(ellipse(128, 128), np.float32(0.9), np.float32(0.1))
    monkeypatch.setattr(scene, "predict_foreground", lambda *_: (likely, 0.95))
    found, method, trust = find_product(image)
    assert found.all() and method == "whole" and trust > 0.9


def test_shadow_with_an_edge_is_ground():
    mask = np.zeros((240, 240), bool)
    mask[60:200, 80:140] = mask[40:60, 100:120] = True
    moved = np.roll(mask, (12, 14), axis=(0, 1)).astype(np.float32)
    light = 1 - 0.35 * cv2.GaussianBlur(moved, (0, 0), 1.5)
    found, _, _ = find_product(painted(255 * light[..., None] * np.ones(3, np.float32), mask))
    assert iou(found, mask) > 0.95


def test_large_image_is_masked_at_its_own_size():
    mask = ellipse(1500, 2400)
    found, method, _ = find_product(painted(gradient(1500, 2400), mask))
    assert method == "plain" and found.shape == mask.shape
    assert iou(found, mask) > 0.97


def test_the_same_image_gives_the_same_mask():
    image = painted(cluttered(), ellipse(120, 150))
    first, second = (find_product(image)[0] for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_blank_part_that_the_network_finds_is_not_left_to_grabcut(monkeypatch):
    filled = ellipse(128, 128)
    outline = filled & ~cv2.erode(filled.astype(np.uint8), disc(3)).astype(bool)
    image = painted(white(128, 128), outline)
    likely = np.where(filled, 0.9, 0.02).astype(np.float32)
    monkeypatch.setattr(scene, "predict_foreground", lambda *_: (likely, 0.0))
    assert iou(segment_by_grabcut(image, likely, seed=0), outline) > 0.9  # the blank inside has the ground's colour
    found, method, _ = find_product(image, method="network")
    assert method == "network" and iou(found, filled) > 0.95


@pytest.mark.parametrize("content", [None, b"", b"no network at all"])
def test_network_that_cannot_be_read_is_one_sentence(root, run_stage, content):
    put(root, "a.jpg")
    if content is not None:
        (root / "mine.onnx").write_bytes(content)
    ended = run_stage("01.img_preprocess.py", "--DATASET=x", "--BACKGROUND_NETWORK=mine.onnx")
    assert ended.returncode == 1
    assert ended.stderr.startswith("error: BACKGROUND_NETWORK: mine.onnx") and ended.stderr.count("\n") == 1
    assert not (root / "img").exists()


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
    return {name: (folder / name).stat().st_mtime_ns for name in list_images(folder)}


def rows(root) -> dict[str, dict[str, str]]:
    table = files.read_csv(root / "data" / "x" / "preprocess.csv", ["image", "method"], "01")
    return {row["image"]: row for row in table}


def test_files_written(root, capsys):
    put(root, "1_1_1.jpg", "가방 하나,둘/2_1_1.png")
    (root / "raw_img" / "x" / "broken.jpg").write_bytes(b"nothing")
    config.SAVE_MASKS = True
    stage.main()
    assert list_images(root / "img" / "x") == ["1_1_1.jpg", "가방 하나,둘/2_1_1.png"]
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
    write_image(root / "raw_img" / "x" / "b.png", image)
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
    write_image(by_hand, white(20, 20))
    (root / "raw_img" / "x" / "b" / "b.png").unlink()
    stage.main()
    assert list_images(root / "img" / "x") == ["a.png", "hand.png"]
    assert not (root / "mask" / "x" / "b").exists() and list(rows(root)) == ["a.png"]


def test_photograph_that_became_unreadable_leaves(root):
    put(root, "a.png", "b.png")
    stage.main()
    (root / "raw_img" / "x" / "b.png").write_bytes(b"")
    stage.main()
    assert list_images(root / "img" / "x") == ["a.png"]


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
    with pytest.raises(UserError, match=r"none of the 1 files of raw_img/x/ .* a\.png: "):
        stage.main()
    assert (root / "img" / "x" / "a.png").read_bytes() == before


def test_missing_and_empty_folder(root):
    config.DATASET = "x"
    with pytest.raises(UserError, match="raw_img/x/ not found"):
        stage.main()
    (root / "raw_img" / "x").mkdir(parents=True)
    with pytest.raises(UserError, match="raw_img/x/ holds no image"):
        stage.main()
