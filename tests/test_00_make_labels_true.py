"""Labels from names and folders; what is said where there are none."""

import numpy as np
import pytest
from conftest import load_stage
from PIL import Image

import config
from pipeline.labels import doubt_labels, label_from_folder, label_from_name
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
    assert label_from_name(name, config.LABEL_PATTERN) == label


@pytest.mark.parametrize(("name", "label"), [("a/b/1.jpg", "b"), ("tote/1.jpg", "tote"), ("1.jpg", "")])
def test_label_from_folder(name, label):
    assert label_from_folder(name) == label


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
    with pytest.raises(stage.NoLabelsError, match="LABEL_PATTERN"):
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


# ---- labels that are none --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (["IMG"] * 20, "what a camera or a phone begins a name with ('IMG')"),
        (["IMG", "PXL", "DSC"] * 5 + ["tote"], "15 of 16 labels"),
        (["100APPLE", "101APPLE"] * 5, "camera"),
        (["사진"] * 10, "camera"),
        ([f"202301{day:02}" for day in range(1, 31)], "30 of 30 labels are dates ('20230101'"),
        (["2023-01-05", "2023-02-05"] * 5, "dates"),
        (["20230105120000"] * 10, "dates"),
        (["tote"] * 39 + ["clutch"], "39 of 40 images have the same label, 'tote'"),
        ([f"{i:04}" for i in range(40)], "40 of 40 images each have a label that no other has"),
    ],
)
def test_labels_that_are_no_models_are_doubted(labels, words):
    assert words in doubt_labels([*labels, "", ""])


@pytest.mark.parametrize(
    "labels",
    [
        ["1", "2", "3"] * 5,
        ["IMG"] * 9,  # too few to say
        ["IMG", "tote", "clutch"] * 5,
        ["6600012", "8000000034", "20230199"] * 5,
        ["tote"] * 30 + ["clutch"] * 3,
        ["image of a tote", "photograph", "p-boot"] * 5,
        [f"{i // 2}" for i in range(40)],
        [],
    ],
)
def test_labels_of_models_are_not_doubted(labels):
    assert doubt_labels(labels) is None


def test_names_of_a_phone_give_no_labels_unless_they_are_trusted(root):
    put(root, *(f"IMG_202301{i:02}_12000{i % 10}.jpg" for i in range(1, 13)))
    config.TRUST_LABELS = True
    stage.main()
    assert (root / "data" / "x" / "labels_true.csv").exists()
    config.TRUST_LABELS = False
    with pytest.raises(stage.NoLabelsError, match=r"12 of 12 labels .* TRUST_LABELS = True"):
        stage.main()
    assert not list((root / "data" / "x").glob("labels_true*"))  # no score by what was trusted before


# ---- labels from a table ---------------------------------------------------------------------------


@pytest.mark.parametrize("folder", ["raw_img", "data"])
def test_labels_come_from_a_table_as_a_spreadsheet_saves_it(root, folder, capsys):
    put(root, "가방/a.jpg", "b.jpg", "c.jpg")
    path = root / folder / "x" / "labels.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes("Image;Note;Label\r\n가방\\A.JPG;x;끈\r\nb.jpg;;통\r\ngone.jpg;;통\r\n;;\r\n".encode("cp949"))
    config.LABEL_FROM = "table"
    stage.main()
    rows = files.read_csv(root / "data/x/labels_true.csv", ["image", "label"], "00")
    assert [(row["image"], row["label"]) for row in rows] == [("b.jpg", "통"), ("c.jpg", ""), ("가방/a.jpg", "끈")]
    assert "1 of its lines are about photographs that are not in raw_img/" in capsys.readouterr().out
    stage.main()
    assert "unchanged" in capsys.readouterr().out
    path.write_text("image,label\nb.jpg,1\n")
    stage.main()
    assert "1 models; 2 images without a label" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "raw_img/x/labels.csv not found, nor data/x/labels.csv"),
        ("image,label\na.jpg,1\nA.JPG,2\n", "line 3: a.jpg has the label '2' here and '1' on an earlier line"),
        ("image,label\ngone.jpg,1\n", "raw_img/x/labels.csv names no image of raw_img/x/"),
    ],
)
def test_a_table_that_gives_no_labels_is_said(root, content, sentence):
    put(root, "a.jpg")
    if content:
        (root / "raw_img/x/labels.csv").write_text(content)
    config.LABEL_FROM = "table"
    with pytest.raises(UserError, match=sentence):
        stage.main()


def test_two_tables_are_one_too_many(root):
    put(root, "a.jpg")
    for folder in ("raw_img/x", "data/x"):
        (root / folder).mkdir(parents=True, exist_ok=True)
        (root / folder / "labels.csv").write_text("image,label\na.jpg,1\n")
    config.LABEL_FROM = "table"
    with pytest.raises(UserError, match="remove one of them"):
        stage.main()
