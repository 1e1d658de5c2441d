"""make_start_network.py: products from pictures, photographed on white, and what is said where something is missing."""

import gzip
import struct
import sys
import zipfile

import cv2
import numpy as np
import pytest

from pipeline.sample.drawing import CANVAS
from pipeline.start.crops import photograph_piece
from pipeline.start.cutouts import list_cutouts, opaque_inside, read_cutout
from pipeline.start.garments import NAMES, photograph_garment, read_garments
from pipeline.start.models import draw_cutout, dress_outline
from pipeline.start.packages import Source
from pipeline.start.photographs import list_photographs, read_photograph
from pipeline.start.shots import LAYERS_SIZE, PHOTOGRAPH_SIZE, damage_mask, photograph_model, shrink


@pytest.fixture
def apple() -> np.ndarray:
    """A red disc with a green leaf, uint8 BGRA (120, 100, 4)."""
    picture = np.zeros((120, 100, 4), np.uint8)
    cv2.circle(picture, (50, 70), 45, (40, 40, 200, 255), -1)
    cv2.ellipse(picture, (60, 15), (20, 10), 0, 0, 360, (60, 180, 60, 255), -1)
    return picture


def test_pictures_of_the_packages_are_found_and_signs_are_left_out(tmp_path, apple):
    for name in ("food/apple.png", "signs_and_symbols/stop.png", "animals/tux_01.png"):
        path = tmp_path / "usr/share/openclipart/png" / name
        path.parent.mkdir(parents=True)
        cv2.imwrite(str(path), apple)
    with zipfile.ZipFile(tmp_path / "furniture.sh3f", "w") as archive:
        for name in ("a/chair.png", "icon.png"):
            archive.writestr(name, cv2.imencode(".png", apple)[1].tobytes())
    found = list_cutouts(tmp_path)
    assert [source.member or source.path.name for source in found] == ["apple.png", "a/chair.png"]
    assert all(read_cutout(source).shape[2] == 4 for source in found)


def test_white_joined_to_the_border_is_the_ground_and_white_inside_is_not():
    picture = np.full((60, 60, 3), 255, np.uint8)
    picture[15:45, 15:45] = 0
    picture[25:35, 25:35] = 255
    alpha = opaque_inside(picture)
    assert (alpha[15:45, 15:45] == 255).all() and alpha.sum() == 30 * 30 * 255


@pytest.mark.parametrize("shape", [(8, 8), (300, 45)])
def test_a_picture_too_small_or_too_long_is_not_taken(tmp_path, shape):
    cv2.imwrite(str(tmp_path / "thing.png"), np.full((*shape, 4), 255, np.uint8))
    assert read_cutout(Source(tmp_path / "thing.png", "")) is None


def test_a_picture_keeps_its_colours_as_a_product_and_loses_them_when_its_hue_turns(apple):
    as_is, turned = (draw_cutout(apple, np.random.default_rng(1), hue) for hue in (0.0, 120.0))
    assert as_is.cover.shape == (CANVAS, CANVAS) and as_is.cover.max() == 1
    blue, green, red = as_is.colour[as_is.cover > 0.9].mean(axis=0)
    assert red > 2 * blue and red > green
    assert turned.colour[turned.cover > 0.9].mean(axis=0).argmax() == 1  # 120 degrees from red is green


def test_an_outline_dressed_in_materials_stays_within_the_outline(apple):
    photograph = np.random.default_rng(0).integers(0, 255, (300, 448, 3)).astype(np.uint8)
    for seed in range(4):
        drawing = dress_outline(apple, np.random.default_rng(seed), [photograph])
        assert (drawing.cover[:5] == 0).all() and drawing.cover.max() == 1


def test_the_same_seed_photographs_the_same_and_products_stand_on_white(apple):
    drawing = draw_cutout(apple, np.random.default_rng(1))
    assert shrink(drawing).cover.shape == (LAYERS_SIZE, LAYERS_SIZE)
    first, again = (photograph_model(drawing, (1, 2), 12, []) for _ in range(2))
    assert len(first) >= 10 and all((a == b).all() for a, b in zip(first, again, strict=True))
    assert first[0].shape == (PHOTOGRAPH_SIZE, PHOTOGRAPH_SIZE, 3)
    corners = [image[:3, :3].min() for image in first]
    assert np.mean(np.array(corners) > 235) > 0.5


def test_faults_of_a_background_removal_add_ground_or_take_a_part():
    mask = np.zeros((100, 100), np.uint8)
    mask[30:70, 30:70] = 255
    for seed in range(20):
        more, less = (damage_mask(mask, ground, np.random.default_rng(seed)) for ground in (True, False))
        assert (more >= mask).all() and (less <= mask).all()
    assert (mask[30:70, 30:70] == 255).all()


@pytest.fixture
def shirt() -> np.ndarray:
    """A grey shirt on black, uint8 (28, 28)."""
    picture = np.zeros((28, 28), np.uint8)
    picture[4:26, 9:19], picture[4:9, 2:26] = 150, 120
    return picture


def test_garments_are_read_with_their_kinds_and_are_none_without_the_package(tmp_path, shirt):
    assert [len(found) for found in read_garments(tmp_path)] == [0, 0]
    contents = (
        struct.pack(">4I", 2051, 3, 28, 28) + shirt.tobytes() * 3,
        struct.pack(">2I", 2049, 3) + bytes([0, 9, 6]),
    )
    for name, content in zip(NAMES, contents, strict=True):
        (tmp_path / name).write_bytes(gzip.compress(content))
    pictures, kinds = read_garments(tmp_path)
    assert (pictures == shirt).all() and kinds.tolist() == [0, 9, 6]


def test_a_garment_stands_on_white_and_the_same_seed_photographs_the_same(shirt):
    prints = [np.random.default_rng(0).integers(0, 255, (200, 300, 3)).astype(np.uint8)]
    for seed in range(12):  # grey, printed, patterned and plain ones
        shown, again = (photograph_garment(shirt, np.random.default_rng(seed), prints, 2, 128) for _ in range(2))
        assert all((one == other).all() for one, other in zip(shown, again, strict=True))
        assert all(image.shape == (128, 128, 3) and (image[[0, -1], [0, -1]] == 255).all() for image in shown)
        assert 0.1 < np.mean([(image < 250).any(axis=2).mean() for image in shown]) < 0.7


def test_pieces_of_a_photograph_are_alike_and_a_flat_photograph_gives_none(apple):
    rng = np.random.default_rng(3)
    photograph = cv2.resize(rng.integers(0, 255, (12, 20, 3)).astype(np.uint8), (400, 240))
    shown = photograph_piece(photograph, apple[..., 3], rng, 2, 96)
    assert len(shown) == 2 and all(image.shape == (96, 96, 3) for image in shown)
    assert photograph_piece(np.full((240, 400, 3), 90, np.uint8), apple[..., 3], rng, 2, 96) is None


def resource_file(name: str, content: bytes) -> bytes:
    """Return a Qt resource file of version 1 that holds one file below its root."""
    names = struct.pack(">HI", len(name), 0) + name.encode("utf-16-be")
    tree = struct.pack(">IHII", 0, 2, 1, 1) + struct.pack(">IHHHI", 0, 0, 0, 0, 0)
    data = struct.pack(">I", len(content)) + content
    return b"qres" + struct.pack(">4I", 1, 20, 20 + len(tree), 20 + len(tree) + len(data)) + tree + data + names


def test_photographs_are_found_in_folders_and_archives_without_maps_of_bumps(tmp_path, apple):
    noise = np.random.default_rng(0).integers(0, 255, (90, 100, 3)).astype(np.uint8)
    coded = cv2.imencode(".png", noise)[1].tobytes()
    folder = tmp_path / "usr/share/backgrounds"
    folder.mkdir(parents=True)
    (folder / "hills.png").write_bytes(coded)
    with zipfile.ZipFile(tmp_path / "textures.pk3", "w") as archive:
        for name in ("wall.png", "wall_nm.png", "readme.txt"):
            archive.writestr(f"textures/{name}", coded)
    (tmp_path / "things.rcc").write_bytes(resource_file("cup.png", coded))
    found = list_photographs(tmp_path)
    assert [source.member or source.path.name for source, _ in found] == ["hills.png", "textures/wall.png", "/cup.png"]
    assert all((read_photograph(source) == noise).all() for source, _ in found)
    (folder / "flat.png").write_bytes(cv2.imencode(".png", np.full((90, 100, 3), 40, np.uint8))[1].tobytes())
    assert read_photograph(Source(folder / "flat.png", "")) is None


def test_without_a_teacher_one_sentence_says_what_to_install(root, run_stage, monkeypatch):
    if "torch" in sys.modules or __import__("importlib.util").util.find_spec("efficientnet_lite_pytorch"):
        pytest.skip("the teacher is installed")
    ended = run_stage("make_start_network.py")
    assert ended.returncode == 1 and "pip install torch efficientnet-lite-pytorch" in ended.stderr
    assert "Traceback" not in ended.stderr
