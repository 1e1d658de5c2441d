"""The drawn catalogue: shapes with known areas, masks that fit, files that depend on the seed alone."""

import hashlib
import io
import re
import shutil
from dataclasses import replace

import cv2
import numpy as np
import pytest
from conftest import load_stage
from PIL import Image

from pipeline.dataset import list_images
from pipeline.sample.bags import draw_bag
from pipeline.sample.catalogue import FAMILIES, photograph_model, plan_catalogue
from pipeline.sample.curves import fillet, polyline, rectangle, spline
from pipeline.sample.drawing import CANVAS, Drawing
from pipeline.sample.grounds import GROUNDS, draw_ground
from pipeline.sample.materials import PRINTS, RELIEFS, Material
from pipeline.sample.photograph import Seller, photograph
from pipeline.sample.pixels import blend, box_around
from pipeline.sample.shoes import SHOES, draw_shoe
from pipeline.sample.textures import print_pattern, relief_pattern

script = load_stage("make_sample_images.py")
TINY = ("--SAMPLE_TRAIN_MODELS=1", "--SAMPLE_MODELS=2", "--SAMPLE_MIN_IMAGES=2", "--SAMPLE_MAX_IMAGES=3")
TINY = (*TINY, "--SAMPLE_IMAGE_SIZE=64")


def contents(folder):
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*.*"))
        if path.is_file() and path.suffix in (".jpg", ".png")
    }


def plain_seller(**changes):
    values = {
        "seed": 1, "ground": "white", "light": (0.0, -0.5, 1.0), "ambient": 0.6, "cast": (1.0, 1.0, 1.0), "gamma": 1.0,
        "flat": False, "text": 0.0, "fill": 0.8, "quality": 90,
    }  # fmt: skip
    return Seller(**{**values, **changes})


def test_spline_goes_through_its_points():
    points = [(0, 0), (1, 0), (1, 2), (0, 1)]
    curve = spline(points, n_steps=8)
    assert curve.shape == (32, 2)
    assert np.allclose(curve[::8], points)
    open_curve = spline(points, closed=False, n_steps=8)
    assert np.allclose(open_curve[::8], points)
    assert np.allclose(open_curve[-1], (0, 1))


def test_spline_through_doubled_points_is_a_polygon():
    points = [(0, 0), (0, 0), (1, 0), (1, 0), (1, 1), (1, 1)]
    curve = spline(points)
    on_an_edge = np.isclose(curve[:, 1], 0) | np.isclose(curve[:, 0], 1) | np.isclose(curve[:, 0], curve[:, 1])
    assert np.allclose(curve[~on_an_edge], 0, atol=1e-3)
    assert curve.min() > -1e-6
    assert curve.max() < 1 + 1e-6


def test_rounding_cuts_the_corners_and_nothing_else():
    square = rectangle(0.5, 0.5, 0.25, 0.25)
    full, cut = (Drawing().area(outline).sum() / CANVAS**2 for outline in (square, fillet(square, 0.1)))
    assert full == pytest.approx(0.25, rel=0.01)
    # a quadratic curve with its middle point in the corner leaves out a sixth of the square of the radius
    assert full - cut == pytest.approx(4 * 0.1**2 / 6, rel=0.1)


def test_two_outlines_leave_a_hole_and_a_path_has_its_width():
    drawing = Drawing()
    ring = drawing.area(rectangle(0.5, 0.5, 0.2, 0.2), rectangle(0.5, 0.5, 0.1, 0.1))
    assert ring.sum() / CANVAS**2 == pytest.approx(0.16 - 0.04, rel=0.03)
    path = drawing.path(polyline((0.2, 0.5), (0.8, 0.5)), 0.05)
    assert path[:, CANVAS // 2].sum() / CANVAS == pytest.approx(0.05, abs=0.004)


@pytest.mark.parametrize("kind", PRINTS)
def test_prints_have_ink_and_ground_and_repeat_with_the_seed(kind):
    v, u = np.mgrid[0:4:80j, 0:4:80j]
    ink, again = (print_pattern(kind, u, v, np.random.default_rng(3)) for _ in range(2))
    assert ink.min() == 0
    assert 0.8 <= ink.max() <= 1
    assert 0.03 < ink.mean() < 0.8
    assert np.array_equal(ink, again)


def test_dots_lie_in_the_middle_of_their_cells():
    u, v = np.array([[0.5, 0.0]]), np.array([[0.5, 0.0]])
    assert print_pattern("dots", u, v, np.random.default_rng(0)).tolist() == [[1.0, 0.0]]


@pytest.mark.parametrize("kind", RELIEFS)
def test_reliefs_are_between_0_and_1(kind):
    v, u = np.mgrid[0:3:60j, 0:3:60j]
    height = relief_pattern(kind, u, v, np.random.default_rng(0))
    assert 0 <= height.min() < 0.3
    assert 0.7 < height.max() <= 1


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_fits_on_the_canvas_and_differs_from_seed_to_seed(family):
    draw = draw_shoe if family in SHOES else draw_bag
    first, again, other = (draw(np.random.default_rng(seed), family, "tan") for seed in (1, 1, 2))
    assert np.array_equal(first.colour, again.colour)
    assert not np.array_equal(first.cover, other.cover)
    for drawing in (first, other):
        assert 0.02 < drawing.cover.mean() < 0.6
        rim = np.concatenate([drawing.cover[0], drawing.cover[-1], drawing.cover[:, 0], drawing.cover[:, -1]])
        assert rim.max() == 0
        assert np.isfinite(drawing.height).all()


def red_square():
    drawing = Drawing()
    drawing.paint(drawing.area(rectangle(0.5, 0.5, 0.3, 0.3)), Material((0.05, 0.05, 0.8)))
    return drawing


def test_a_photograph_depends_on_its_arguments_alone():
    sellers = [plain_seller(), plain_seller(seed=2, ground="planks", text=1.0)]
    first, other, again = (photograph(red_square(), sellers[i], np.random.default_rng(4), 64)[0] for i in (1, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_a_product_near_the_rim_casts_its_shadow_within_the_photograph():
    seller = plain_seller(ground="planks", flat=True, light=(0.9, -0.9, 0.6), fill=1.0)
    for seed in range(4):
        image, mask = photograph(red_square(), seller, np.random.default_rng(seed), 64)
        assert image.shape == (64, 64, 3)
        assert mask.any()


def test_half_a_cover_blends_half_of_the_colour():
    image, cover = np.full((2, 3, 3), 0.2, np.float32), np.float32([[0, 0.5, 1]] * 2)
    for colour in (np.float32([1, 0, 0.6]), np.full((2, 3, 3), np.float32([1, 0, 0.6]))):
        blended = blend(image, colour, cover)
        assert np.allclose(blended[0], [[0.2, 0.2, 0.2], [0.6, 0.1, 0.4], [1, 0, 0.6]])


def test_the_box_of_nothing_is_none_and_a_margin_ends_at_the_rim():
    cover = np.zeros((6, 8), np.float32)
    assert box_around(cover) is None
    cover[0, 6] = 0.1
    assert box_around(cover, 3) == (slice(0, 4), slice(3, 8))


def test_mask_is_where_the_product_is():
    for seed in range(4):
        image, mask = photograph(red_square(), plain_seller(), np.random.default_rng(seed), 100)
        assert image.shape == (100, 100, 3)
        assert image.dtype == mask.dtype == np.uint8
        assert set(np.unique(mask)) == {0, 255}
        red = image[..., 2].astype(int) - image[..., 0] > 40
        assert (red & (mask > 0)).sum() / (red | (mask > 0)).sum() > 0.93


def test_mask_leaves_out_what_the_text_hides():
    drawing, seen = red_square(), 0
    for seed in range(12):
        covered = photograph(drawing, plain_seller(seed=seed, text=1.0, fill=1.0), np.random.default_rng(5), 100)
        bare = photograph(drawing, plain_seller(seed=seed, text=0.0, fill=1.0), np.random.default_rng(5), 100)
        assert not (covered[1] & ~bare[1]).any()
        seen += (bare[1] & ~covered[1]).any()
    assert seen


@pytest.mark.parametrize("kind", GROUNDS)
def test_grounds_depend_on_their_seed_alone(kind):
    first, again = (draw_ground(kind, np.random.default_rng(2), 96) for _ in range(2))
    assert first.shape == (96, 96, 3)
    assert first.dtype == np.float32
    assert np.isfinite(first).all()
    assert np.array_equal(first, again)


def test_photographs_of_a_model_are_named_by_model_seller_and_number():
    model = replace(plan_catalogue(0, 7, 1, 9, 9)[0], n_images=7)
    shots = list(photograph_model(model, 48))
    parts = [re.fullmatch(r"7_7(\d{3})_(\d+)\.jpg", shot.name).groups() for shot in shots]
    assert [int(number) for _, number in parts] == list(range(1, 8))
    products = [int(product) for product, _ in parts]
    assert products == sorted(products)
    assert all(product <= int(number) for (_, number), product in zip(parts, products, strict=True))
    assert max(products.count(product) for product in products) <= 5
    assert all(shot.image_bgr.shape == (48, 48, 3) and shot.mask.shape == (48, 48) for shot in shots)


def test_a_plan_of_chosen_families_holds_no_others():
    models = plan_catalogue(3, 1, 8, 2, 3, ["boot", "tote"])
    assert {model.family for model in models} == {"boot", "tote"}


def test_plan_is_uneven_and_shares_colours_and_families():
    models = plan_catalogue(0, 20001, 12, 15, 25)
    assert len({model.id for model in models}) == 12
    assert {model.n_images for model in models} <= set(range(15, 26))
    assert len({model.n_images for model in models}) > 3
    assert len({model.colour for model in models}) <= 4
    assert all(a.family == b.family and a.colour == b.colour for a, b in zip(models[::2], models[1::2], strict=True))


def test_files_depend_on_the_seed_and_not_on_the_number_of_workers(root, run_stage):
    drawn = []
    for arguments in (("--N_JOBS=1",), ("--N_JOBS=2", "--REDO=True"), ("--SAMPLE_SEED=7",)):
        result = run_stage("make_sample_images.py", *TINY, *arguments)
        assert result.returncode == 0, result.stderr
        drawn.append(contents(root))
    assert drawn[0] == drawn[1]
    assert drawn[0].keys() != drawn[2].keys() or drawn[0] != drawn[2]

    names, models = {}, {}
    for dataset, n_models in (("sample_train", 1), ("sample", 2)):
        names[dataset] = list_images(root / "raw_img" / dataset)
        assert all(re.fullmatch(r"(\d+)_\1\d+_\d+\.jpg", name) for name in names[dataset])
        models[dataset] = {name.split("_")[0] for name in names[dataset]}
        assert len(models[dataset]) == n_models
        assert 2 * n_models <= len(names[dataset]) <= 3 * n_models
        assert list_images(root / "mask_true" / dataset) == [f"{name}.png" for name in names[dataset]]
        for name in names[dataset]:
            image = cv2.imread(str(root / "raw_img" / dataset / name))
            mask = cv2.imread(str(root / "mask_true" / dataset / f"{name}.png"), cv2.IMREAD_UNCHANGED)
            assert image.shape == (64, 64, 3)
            assert mask.shape == (64, 64)
            assert set(np.unique(mask)) == {0, 255}
    assert not models["sample_train"] & models["sample"]


def test_second_run_changes_nothing_and_foreign_files_stay(root, run_stage):
    assert run_stage("make_sample_images.py", *TINY).returncode == 0
    before = contents(root)
    foreign = root / "raw_img" / "sample" / "mine_1_1.jpg"
    foreign.write_bytes(b"my own")
    times = {path: path.stat().st_mtime_ns for path in (root / "raw_img").rglob("*.jpg")}
    again = run_stage("make_sample_images.py", *TINY)
    assert "unchanged" in again.stdout
    assert times == {path: path.stat().st_mtime_ns for path in (root / "raw_img").rglob("*.jpg")}

    fewer = run_stage("make_sample_images.py", *TINY, "--SAMPLE_MODELS=1")
    assert fewer.returncode == 0, fewer.stderr
    assert foreign.read_bytes() == b"my own"
    assert not list((root / "raw_img" / "sample").glob("20002_*"))
    assert not list((root / "mask_true" / "sample").glob("20002_*"))

    gone = next((root / "raw_img" / "sample").glob("20001_*"))
    gone.unlink()
    assert run_stage("make_sample_images.py", *TINY).returncode == 0
    foreign.unlink()
    assert contents(root) == before


def test_its_own_files_are_known_without_the_record(root, run_stage):
    arguments = (*TINY, "--SAMPLE_TRAIN_MODELS=0")
    assert run_stage("make_sample_images.py", *arguments).returncode == 0
    before = contents(root)
    shutil.rmtree(root / "data")
    assert run_stage("make_sample_images.py", *arguments, "--SAMPLE_SEED=5").returncode == 0
    assert contents(root) != before


def test_the_signature_is_a_comment_that_every_reader_passes_over():
    image = np.full((8, 8, 3), 90, np.uint8)
    for suffix in (".jpg", ".png"):
        content = script.sign(cv2.imencode(suffix, image)[1].tobytes())
        assert script.SIGNATURE in content
        assert np.array_equal(cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR), image)
        opened = Image.open(io.BytesIO(content))
        assert np.array_equal(np.asarray(opened), image)
        assert script.SIGNATURE.decode() in str(opened.info)


def test_a_foreign_file_of_the_same_name_is_not_overwritten(root, run_stage):
    assert run_stage("make_sample_images.py", *TINY, "--SAMPLE_TRAIN_MODELS=0").returncode == 0
    target = next((root / "raw_img" / "sample").glob("*.jpg"))
    target.write_bytes(b"my own")
    result = run_stage("make_sample_images.py", *TINY, "--SAMPLE_TRAIN_MODELS=0")
    assert result.returncode == 1
    assert f"raw_img/sample/{target.name}" in result.stderr
    assert "Traceback" not in result.stderr
    assert target.read_bytes() == b"my own"


def test_limits_that_contradict_each_other_are_named(run_stage):
    result = run_stage("make_sample_images.py", "--SAMPLE_MIN_IMAGES=9", "--SAMPLE_MAX_IMAGES=8")
    assert result.returncode == 2
    assert "SAMPLE_MIN_IMAGES = 9" in result.stderr
