"""Labels from names and folders; what is said where there are none."""

import numpy as np
import pytest
from conftest import load_stage
from PIL import Image

import config
from pipeline.machinery import files
from pipeline.machinery.errors import UserError

stage = load_stage("00.make_labels_true.py")


def put(root, *names):
    for name in names:
        path = root / "raw_img" / "x" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(path)
    config.DATASET = "x"


@pytest.mark.parametrize(
    ("name", "label"),
    [("12_3_4.jpg", "12"), ("a/b/m1_p_i.png", "m1"), ("가방_1_2.jpg", "가방"), ("12_3.jpg", ""), ("12.jpg", "")],
)
def test_label_from_name(name, label):
    assert stage.label_from_name(name, config.LABEL_PATTERN) == label


@pytest.mark.parametrize(("name", "label"), [("a/b/1.jpg", "b"), ("tote/1.jpg", "tote"), ("1.jpg", "")])
def test_label_from_folder(name, label):
    assert stage.label_from_folder(name) == label


def test_every_format_holds_the_labels_in_the_order_of_the_names(root):
    put(root, "2_1_1.jpg", "1_1_1.jpg", "odd.jpg")
    stage.main()
    folder = root / "data" / "x"
    rows = files.read_csv(folder / "labels_true.csv", ["image", "label"], "00")
    assert [(r["image"], r["label"]) for r in rows] == [("1_1_1.jpg", "1"), ("2_1_1.jpg", "2"), ("odd.jpg", "")]
    assert (folder / "labels_true.txt").read_text() == "1\n2\n\n"
    assert np.load(folder / "labels_true.npy", allow_pickle=False).tolist() == ["1", "2", ""]
    assert (folder / "labels_true.tsv").read_text().splitlines()[1] == "1_1_1.jpg\t1"


def test_pattern_that_matches_nothing_leaves_the_earlier_labels(root):
    put(root, "1_1_1.jpg")
    stage.main()
    before = (root / "data" / "x" / "labels_true.csv").read_bytes()
    config.LABEL_PATTERN = "^(never)$"
    with pytest.raises(stage.NoLabels, match="LABEL_PATTERN"):
        stage.main()
    assert (root / "data" / "x" / "labels_true.csv").read_bytes() == before


def test_without_labels_earlier_ones_are_removed(root, capsys):
    put(root, "1_1_1.jpg")
    stage.main()
    config.LABEL_FROM = "none"
    stage.main()
    assert "1 images without labels" in capsys.readouterr().out
    assert not list((root / "data" / "x").glob("labels_true*"))


def test_second_run_is_unchanged_and_a_new_image_is_not(root, capsys):
    put(root, "1_1_1.jpg")
    stage.main()
    stage.main()
    assert "unchanged" in capsys.readouterr().out
    put(root, "1_1_2.jpg")
    stage.main()
    assert "2 images in = 2 out + 0 skipped" in capsys.readouterr().out


@pytest.mark.parametrize("make", [False, True])
def test_missing_and_empty_folder(root, make):
    if make:
        (root / "raw_img" / "x").mkdir(parents=True)
    config.DATASET = "x"
    with pytest.raises(UserError, match="raw_img/x/"):
        stage.main()
