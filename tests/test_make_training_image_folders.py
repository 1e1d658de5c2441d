"""make_training_image_folders.py: one folder per model."""

import numpy as np
import pytest
from conftest import load_stage

import config
from pipeline import images
from pipeline.dataset import list_images, write_image
from pipeline.machinery import files, paths
from pipeline.machinery.errors import UserError

stage = load_stage("make_training_image_folders.py")


@pytest.fixture
def train_set(root):
    """Four images of model a, two of b, one of c, one without a label; one name lies in a folder."""
    config.TRAIN_DATASET, config.MIN_IMAGES_PER_CLASS = "t", 2
    labels = {"1.png": "a", "2.png": "a", "3.png": "a", "shop/1.png": "a", "4.png": "b", "5.png": "b", "6.png": "c"}
    for i, name in enumerate([*labels, "7.png"]):
        write_image(paths.img_dir("t") / name, np.full((4, 4, 3), i, np.uint8))
    write_labels({**labels, "7.png": ""})
    return {**labels, "7.png": ""}


def write_labels(labels: dict[str, str]) -> None:
    files.write_csv(paths.data_dir("t") / "labels_true.csv", ["image", "label"], sorted(labels.items()))


def test_each_labelled_image_lies_in_its_models_folder(train_set, capsys):
    stage.main()
    folder = paths.training_images_dir("t")
    assert list_images(folder) == ["a/1.png", "a/2.png", "a/3.png", "a/shop%2F1.png", "b/4.png", "b/5.png"]
    assert (folder / "a/shop%2F1.png").read_bytes() == (paths.img_dir("t") / "shop/1.png").read_bytes()
    said = capsys.readouterr().out
    assert "left out: model c has 1 image" in said
    assert "8 images in = 6 out + 2 skipped" in said


def test_hard_links_take_no_space(train_set):
    stage.main()
    assert (paths.training_images_dir("t") / "a/1.png").samefile(paths.img_dir("t") / "1.png")


def test_a_second_run_changes_nothing(train_set, capsys):
    stage.main()
    before = {path: path.stat().st_mtime_ns for path in paths.training_images_dir("t").rglob("*")}
    stage.main()
    assert "unchanged" in capsys.readouterr().out
    assert before == {path: path.stat().st_mtime_ns for path in paths.training_images_dir("t").rglob("*")}


def test_a_changed_label_and_a_changed_image_are_followed(train_set):
    stage.main()
    write_image(paths.img_dir("t") / "2.png", np.full((4, 4, 3), 99, np.uint8))
    write_labels({**train_set, "1.png": "b", "4.png": "c"})
    stage.main()
    folder = paths.training_images_dir("t")
    assert list_images(folder) == [
        "a/2.png",
        "a/3.png",
        "a/shop%2F1.png",
        "b/1.png",
        "b/5.png",
        "c/4.png",
        "c/6.png",
    ]
    assert (images.read_bgr(folder / "a/2.png") == 99).all()


def test_a_file_removed_by_hand_comes_back_and_a_strange_one_goes(train_set):
    stage.main()
    folder = paths.training_images_dir("t")
    (folder / "a/1.png").unlink()
    (folder / "a/strange.png").write_bytes(b"")
    stage.main()
    assert list_images(folder) == ["a/1.png", "a/2.png", "a/3.png", "a/shop%2F1.png", "b/4.png", "b/5.png"]


def test_nothing_labelled_is_an_error_and_keeps_the_folders(train_set):
    stage.main()
    write_labels(dict.fromkeys(train_set, ""))
    with pytest.raises(UserError, match="no image of img/t/ belongs to a model"):
        stage.main()
    assert len(list_images(paths.training_images_dir("t"))) == 6


def test_missing_inputs_name_the_stage_to_run(root):
    config.TRAIN_DATASET = "t"
    with pytest.raises(UserError, match=r"00\.make_labels_true\.py"):
        stage.main()
    write_labels({"1.png": "a"})
    with pytest.raises(UserError, match=r"01\.img_preprocess\.py"):
        stage.main()


def test_names_that_some_system_forbids():
    assert [stage.safe(t) for t in ("a/b", "..", "con.jpg", "50%", "dot.", "가방 1,2.jpg")] == [
        "a%2Fb",
        "%2E%2E",
        "%63on.jpg",
        "50%25",
        "dot%2E",
        "가방 1,2.jpg",
    ]


def test_different_labels_never_share_a_folder():
    folders = stage.class_folders(["Tote", "tote", "TOTE", "a/b", "a%2Fb"])
    assert len({folder.casefold() for folder in folders.values()}) == 5
