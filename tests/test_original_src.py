"""The baseline: its rules on known numbers, and its steps on drawn squares and discs."""

import json
import shutil

import cv2
import numpy as np
import pytest
from conftest import PROJECT, load_stage

from pipeline.dataset import list_images
from pipeline.machinery import files
from pipeline.scoring.contingency import cross_tabulate
from pipeline.scoring.scores import compute_scores

labels_true = load_stage("original_src/make_labels_true.py")
features = load_stage("original_src/extract_features.py")
labels_pred = load_stage("original_src/make_labels_pred.py")
evaluation = load_stage("original_src/evaluation.py")
visualize = load_stage("original_src/visualize.py")
remove_dup_img = load_stage("original_src/remove_dup_img.py")
SMALL = ("--DATASET=shapes", "--BASELINE_WEIGHTS=random", "--BASELINE_IMAGE_SIZE=32", "--NUM_IMGS_PER_MODEL=6")


@pytest.fixture
def shapes(root):
    """Six white images with a red square, six with a blue disc, all different, in raw_img/shapes/."""
    folder = root / "raw_img" / "shapes"
    folder.mkdir(parents=True)
    for i in range(6):
        square, disc = (np.full((40, 40, 3), 255, np.uint8) for _ in range(2))
        cv2.rectangle(square, (8 + i, 8), (24 + i, 24), (0, 0, 200), -1)
        cv2.circle(disc, (16 + i, 20), 10, (200, 0, 0), -1)
        cv2.imwrite(str(folder / f"1_10{i}_{i}.png"), square)
        cv2.imwrite(str(folder / f"2_20{i}_{i}.png"), disc)
    return folder


def test_label_is_group_1_of_the_pattern_or_the_folder():
    pattern = r"^([^_]+)_[^_]+_[^_]+$"
    assert labels_true.label_of("shop/12_345_1.jpg", "name", pattern) == "12"
    assert labels_true.label_of("shop/photo.jpg", "name", pattern) == ""
    assert labels_true.label_of("shop/tote/photo.jpg", "folder", pattern) == "tote"
    assert labels_true.label_of("12_345_1.jpg", "none", pattern) == ""


def test_number_of_clusters_is_that_of_the_task():
    assert labels_pred.n_clusters(10618, 70) == 151
    assert labels_pred.n_clusters(5, 70) == 1


def test_k_means_finds_two_heaps():
    points = np.array([[0, 0], [0, 1], [9, 9], [9, 8]], np.float32)
    a, b, c, d = labels_pred.cluster(points, 2, 0)
    assert a == b != c == d


def test_scores_of_the_worked_examples():
    true = ["01", "01", "01", "02", "02", "03"]
    first = evaluation.scores(true, ["01", "01", "02", "02", "03", "04"])
    second = evaluation.scores(true, ["01", "01", "01", "02", "03", "04"])
    assert round(first["ari"], 3) == 0.189
    assert round(second["ari"], 3) == 0.815
    assert second["homogeneity"] == 1
    assert second["completeness"] < 1
    assert next(iter(first)) == "ari"


def test_scores_agree_with_the_pipeline():
    rng = np.random.default_rng(0)
    true, pred = (rng.integers(0, 5, 60).astype(str).tolist() for _ in range(2))
    theirs = compute_scores(cross_tabulate(true, pred))
    for name, value in evaluation.scores(true, pred).items():
        assert value == pytest.approx(theirs[name], abs=1e-9), name


def test_network_input_is_rgb_from_minus_1_to_1(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), np.full((10, 20, 3), (255, 0, 51), np.uint8))
    inputs = features.network_input(tmp_path / "a.png", 32)
    assert inputs.shape == (32, 32, 3)
    assert np.allclose(inputs, [-0.6, -1, 1], atol=1e-6)


@pytest.mark.parametrize("n_images", [1, 3, 5])
def test_few_images_have_places(n_images):
    places = visualize.embed(np.eye(n_images, 8, dtype=np.float32), 0)
    assert places.shape == (n_images, 2)
    assert np.isfinite(places).all()


def test_repeats_have_the_same_pixels_whatever_the_file(tmp_path):
    image = np.arange(300, dtype=np.uint8).reshape(10, 10, 3)
    for name in ("a.png", "b.bmp", "c.png"):
        cv2.imwrite(str(tmp_path / name), image if name != "c.png" else image[::-1])
    (tmp_path / "d.jpg").write_bytes(b"no image")
    assert remove_dup_img.duplicates(tmp_path, ["a.png", "b.bmp", "c.png", "d.jpg"]) == [("b.bmp", "a.png")]


def test_run_all_clusters_and_scores_and_clusters_alone_where_there_are_no_labels(shapes, root, run_stage):
    (shapes / "3_300_1.jpg").write_bytes(b"no image")
    result = run_stage("original_src/run_all.py", *SMALL)
    assert result.returncode == 0, result.stderr
    scores = json.loads((root / "result/shapes/baseline/evaluation.json").read_text(encoding="utf-8"))
    assert (scores["n_images"], scores["n_clusters"], scores["n_models"]) == (12, 2, 2)
    assert scores["initial_weights"] == "random"
    assert scores["scores"]["ari"] == 1  # red squares and blue discs differ in any network
    assert (root / "result/shapes/baseline/tsne.png").stat().st_size > 1000
    skipped = files.read_csv(root / "data/shapes/baseline/features_skipped.csv", ["image", "reason"], "")
    assert [row["image"] for row in skipped] == ["3_300_1.jpg"]
    assert np.load(root / "data/shapes/baseline/features.npy").shape == (12, 1280)

    again = run_stage("original_src/extract_features.py", *SMALL)
    assert "unchanged" in again.stdout
    assert run_stage("original_src/make_img_cluster_copy.py", *SMALL).returncode == 0
    copies = list_images(root / "result/shapes/baseline/clusters")
    assert len(copies) == 12
    assert {name.partition("/")[0] for name in copies} == {"0", "1"}
    written = {path.relative_to(root).parts[:3] for path in root.rglob("*.*") if path.is_file()}
    assert {parts[2] for parts in written if parts[0] in ("data", "result") and parts[1] == "shapes"} == {"baseline"}

    # without labels, over the same features
    shutil.rmtree(root / "result")
    for path in (root / "data/shapes/baseline").glob("labels_*"):
        path.unlink()
    result = run_stage("original_src/run_all.py", *SMALL, "--LABEL_FROM=none")
    assert result.returncode == 0, result.stderr
    assert (root / "data/shapes/baseline/labels_pred.csv").exists()
    assert not (root / "result/shapes/baseline/evaluation.json").exists()


def test_repeats_are_moved_only_when_asked(shapes, root, run_stage):
    copy = shapes / "9_900_9.png"
    copy.write_bytes((shapes / "1_100_0.png").read_bytes())
    assert run_stage("original_src/remove_dup_img.py", *SMALL).returncode == 0
    assert copy.exists()
    assert run_stage("original_src/remove_dup_img.py", *SMALL, "--BASELINE_MOVE_DUPLICATES=True").returncode == 0
    assert not copy.exists()
    assert (root / "data/shapes/baseline/duplicates" / copy.name).exists()
    assert len(list_images(shapes)) == 12


@pytest.mark.parametrize(
    ("step", "sentence"),
    [
        ("extract_features.py", "raw_img/shapes/ not found"),
        ("make_labels_pred.py", "run original_src/extract_features.py first"),
        ("evaluation.py", "run original_src/make_labels_pred.py first"),
        ("visualize.py", "run original_src/extract_features.py first"),
        ("make_img_cluster_copy.py", "run original_src/make_labels_pred.py first"),
    ],
)
def test_what_is_missing_is_named(step, sentence, root, run_stage):
    result = run_stage(f"original_src/{step}", *SMALL)
    assert result.returncode == 1
    assert sentence in result.stderr
    assert "Traceback" not in result.stderr


def test_weights_that_do_not_fit_are_named(shapes, run_stage, tmp_path):
    path = tmp_path / "weights.h5"
    path.write_bytes(b"no weights")
    result = run_stage("original_src/extract_features.py", *SMALL[:1], f"--BASELINE_WEIGHTS={path}")
    assert result.returncode == 1
    assert "weights.h5" in result.stderr
    assert "Traceback" not in result.stderr


def test_readme_names_every_script():
    readme = (PROJECT / "original_src" / "README.md").read_text(encoding="utf-8")
    for path in (PROJECT / "original_src").glob("*.py"):
        assert path.name in readme
