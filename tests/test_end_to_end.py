"""The whole pipeline through run_all.py on a small drawn catalogue: every file, every join, nothing done twice."""

import csv
import json

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

SMALL = (
    "--SAMPLE_TRAIN_MODELS=4",
    "--SAMPLE_MODELS=3",
    "--SAMPLE_MIN_IMAGES=6",
    "--SAMPLE_MAX_IMAGES=8",
    "--MIN_IMAGES_PER_CLASS=2",
    "--IMAGE_SIZE=75",
    "--HEAD_EPOCHS=1",
    "--REFIT=False",
    "--EPOCHS=1",
    "--PRETRAINED_WEIGHTS=random",
    "--SAVE_MASKS=True",
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A root in which run_all.py went through once, and what it printed."""
    import os
    import subprocess
    import sys

    from conftest import PROJECT

    root = tmp_path_factory.mktemp("end_to_end")

    def run(*arguments):
        return subprocess.run(
            [sys.executable, str(PROJECT / "run_all.py"), *SMALL, *arguments],
            env={**os.environ, "IMAGE_CLUSTER_ROOT": str(root)},
            cwd=PROJECT,
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=900,
        )

    done = run()
    assert done.returncode == 0, done.stdout + done.stderr
    return root, done, run


def rows_of(path):
    with path.open(encoding="utf-8-sig", newline="") as handle:
        return list(csv.DictReader(handle))


def contents(root):
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_every_image_is_in_every_file(finished):
    root, _, _ = finished
    names = sorted(path.name for path in (root / "raw_img" / "sample").iterdir())
    assert 18 <= len(names) <= 24
    data = root / "data" / "sample"
    assert sorted(path.name for path in (root / "img" / "sample").iterdir()) == names
    assert sorted(path.name for path in (root / "mask" / "sample").iterdir()) == [name + ".png" for name in names]
    assert [row["image"] for row in rows_of(data / "labels_true.csv")] == names
    img_paths = (data / "img_paths.txt").read_text(encoding="utf-8").splitlines()
    assert sorted(img_paths) == names
    clusters = rows_of(data / "clusters.csv")
    assert [row["image"] for row in clusters] == img_paths
    predicted = [int(row["cluster"]) for row in clusters]
    assert (data / "labels_pred.txt").read_text().split() == [str(c) for c in predicted]
    assert np.load(data / "labels_pred.npy", allow_pickle=False).tolist() == predicted
    features = np.load(data / "features.npy", allow_pickle=False)
    assert features.dtype == np.float32 and len(features) == len(names) and np.isfinite(features).all()
    assert rows_of(data / "skipped.csv") == []


def test_score_is_the_one_of_the_files(finished):
    root, done, _ = finished
    true = [row["label"] for row in rows_of(root / "data" / "sample" / "labels_true.csv")]
    cluster = {row["image"]: row["cluster"] for row in rows_of(root / "data" / "sample" / "clusters.csv")}
    images = [row["image"] for row in rows_of(root / "data" / "sample" / "labels_true.csv")]
    expected = adjusted_rand_score(true, [cluster[image] for image in images])
    evaluation = json.loads((root / "result" / "sample" / "evaluation.json").read_text(encoding="utf-8"))
    assert evaluation["scores"]["ari"]["value"] == pytest.approx(expected, abs=1e-6)
    assert evaluation["n_clusters"] == len(set(cluster.values())) and evaluation["n_models"] == 3
    assert f"Adjusted Rand Index: {expected:.3f}" in done.stdout


def test_random_weights_are_said_at_the_end_and_in_the_report(finished):
    root, done, _ = finished
    end = done.stdout[done.stdout.index("clusters predicted") :]
    assert "warning: " in end and "random" in end
    assert "random" in (root / "result" / "sample" / "report.html").read_text(encoding="utf-8")


def test_second_run_changes_nothing(finished):
    root, _, run = finished
    before = contents(root)
    done = run()
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("unchanged") >= 11
    after = contents(root)
    assert [name for name in before.keys() | after.keys() if before.get(name) != after.get(name)] == []


def test_one_changed_setting_redoes_its_stage_and_those_after_it(finished):
    _, _, run = finished
    done = run("--from", "03", "--CLUSTER_GRANULARITY=2.0")
    assert done.returncode == 0, done.stderr
    assert "unchanged: data/sample/features.npy" in done.stdout
    assert "data/sample/clusters.csv" in done.stdout and "unchanged: data/sample/clusters.csv" not in done.stdout


def test_features_of_other_images_are_out_of_step(finished):
    root, _, run = finished
    data = root / "data" / "sample"
    kept = (data / "img_paths.txt").read_bytes()
    evaluation = (root / "result" / "sample" / "evaluation.json").read_bytes()
    (data / "img_paths.txt").write_bytes(kept.split(b"\n", 1)[1])
    done = run("--only", "04")
    assert done.returncode == 1 and "run 03.feature_extraction.py" in done.stderr
    (data / "img_paths.txt").write_bytes(kept)
    features = np.load(data / "features.npy")
    np.save(data / "features.npy", features[:, ::-1].copy())
    done = run("--only", "06")
    assert done.returncode == 1 and "04.clustering_som.py" in done.stderr
    assert (root / "result" / "sample" / "evaluation.json").read_bytes() == evaluation
    np.save(data / "features.npy", features)
