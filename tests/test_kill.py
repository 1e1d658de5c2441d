"""Kill a stage at random moments, run it again: the files are those of an undisturbed run, and never half-written.

The short form kills each stage a few times; `python3 run_tests.py -m long tests/test_kill.py` kills it many times.
"""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import corpus
import h5py
import numpy as np
import pytest
from conftest import PROJECT

from pipeline import files
from pipeline.settings import UserError

# the initial weights are random here: 03 has nothing to wait for
SETTINGS = ("--DATASET=x", "--TRAIN_DATASET=x", "--N_JOBS=2", "--FEATURE_NETWORK=pretrained", "--IMAGE_SIZE=75",
            "--SAVE_MASKS=True")  # fmt: skip
TRAINING = ("--PRETRAINED_WEIGHTS=random", "--EPOCHS=3", "--PATIENCE=9", "--LEARNING_RATE=0.0001")
CHANGING = {"seconds", "seconds_per_image", "finished"}  # entries of records that tell the time


def environment(root: Path) -> dict[str, str]:
    return {**os.environ, "IMAGE_CLUSTER_ROOT": str(root), "TF_CPP_MIN_LOG_LEVEL": "3"}


def start(stage: str, root: Path) -> subprocess.Popen:
    command = [sys.executable, str(PROJECT / stage), *SETTINGS, *(TRAINING if stage.startswith("02") else ())]
    return subprocess.Popen(command, env=environment(root), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def undisturbed(stage: str, root: Path) -> float:
    """Run a stage to its end; returns its seconds."""
    begin = time.perf_counter()
    process = start(stage, root)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors.decode()
    return time.perf_counter() - begin


def without_times(value: object) -> object:
    if isinstance(value, dict):
        return {key: without_times(item) for key, item in value.items() if key not in CHANGING}
    return [without_times(item) for item in value] if isinstance(value, list) else value


def contents(root: Path) -> dict[str, object]:
    """Every file below `root` but the locks: bytes, or the value of a record without the times in it."""
    found = {}
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        if path.is_file() and "/.locks/" not in name:
            data = path.read_bytes()
            found[name] = without_times(json.loads(data)) if path.suffix == ".json" else data
    # a record's fingerprint of another record changes with the times in that one
    return {name: value for name, value in found.items() if not name.endswith("report.html")}


def assert_whole(root: Path) -> None:
    """What lies under its final name can be read, and features and names are in step or said to be out of it."""
    for path in root.rglob("*"):
        if path.name.startswith(".") or not path.is_file() or ".locks" in path.parts:
            continue
        if path.suffix == ".json":
            json.loads(path.read_text(encoding="utf-8"))
        elif path.suffix == ".csv":
            assert path.read_bytes().endswith(b"\n"), path
        elif path.suffix == ".npy":
            np.load(path, allow_pickle=False)
    if (root / "data" / "x" / "features.npy").exists():
        os.environ["IMAGE_CLUSTER_ROOT"] = str(root)  # the tests that come here restore it
        try:
            features, names = files.read_features("x")
            assert len(features) == len(names)
        except UserError as error:
            assert "run 03.feature_extraction.py" in str(error)


def kill_many(stage: str, before: Path, tmp_path: Path, n_kills: int, seed: int) -> None:
    """Kill `stage` `n_kills` times on a copy of `before`, finish it, and compare with an undisturbed run."""
    generator = random.Random(seed)
    calm, stormy = tmp_path / "calm", tmp_path / "stormy"
    shutil.copytree(before, calm, symlinks=True)
    shutil.copytree(before, stormy, symlinks=True)
    seconds = undisturbed(stage, calm)
    for _ in range(n_kills):
        process = start(stage, stormy)
        # most of the work is near the end: the start is imports
        time.sleep(seconds * generator.uniform(0.3, 1.05))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert_whole(stormy)
    undisturbed(stage, stormy)
    assert_whole(stormy)
    expected, found = contents(calm), contents(stormy)
    assert found.keys() == expected.keys()
    assert [name for name in expected if expected[name] != found[name]] == []


@pytest.fixture(scope="module")
def before(tmp_path_factory, request):
    """A root in which every stage up to 06 went through once on twelve drawn images of three models."""
    root = tmp_path_factory.mktemp("before")
    raw = root / "raw_img" / "x"
    for model in range(3):
        for i in range(4):
            image = corpus.product((150, 120), seed=model).rotate(4 * i, fillcolor=(236, 238, 240))
            corpus.lay_out(raw, {f"{model}_1_{i}.jpg": corpus.encoded(image, quality=92)})
    return root


STAGES = (
    "00.make_labels_true.py",
    "01.img_preprocess.py",
    "make_training_image_folders.py",
    "03.feature_extraction.py",
    "04.clustering_som.py",
    "05.evaluation.py",
    "06.visualization.py",
)


@pytest.mark.parametrize("stage", STAGES)
def test_killed_stage_ends_like_an_undisturbed_one(stage, before, tmp_path, monkeypatch):
    monkeypatch.setenv("IMAGE_CLUSTER_ROOT", str(before))
    for earlier in STAGES[: STAGES.index(stage)]:
        undisturbed(earlier, before)
    kill_many(stage, before, tmp_path, n_kills=2, seed=STAGES.index(stage))


@pytest.mark.long
@pytest.mark.parametrize("stage", STAGES)
def test_killed_many_times(stage, before, tmp_path, monkeypatch):
    monkeypatch.setenv("IMAGE_CLUSTER_ROOT", str(before))
    for earlier in STAGES[: STAGES.index(stage)]:
        undisturbed(earlier, before)
    kill_many(stage, before, tmp_path, n_kills=30, seed=100 + STAGES.index(stage))


def weights(root: Path) -> dict[str, np.ndarray]:
    """Every array of numbers in the network of `root`, by its name."""
    found = {}
    with h5py.File(root / "model" / "x" / "feature_network.h5") as file:
        file.visititems(
            lambda name, item: found.update({name: item[()]}) if isinstance(item, h5py.Dataset) and item.size else None
        )
    return {name: value for name, value in found.items() if value.dtype.kind == "f"}


@pytest.mark.long
def test_a_training_killed_many_times_ends_with_the_same_weights(tmp_path, monkeypatch):
    """Both trainings, that with models held out and that on all models, in programs of their own."""
    calm, stormy = tmp_path / "calm", tmp_path / "stormy"
    for model in range(6):
        for i in range(6):
            image = corpus.product((150, 120), seed=model).rotate(9 * i, fillcolor=(236, 238, 240))
            corpus.lay_out(calm / "raw_img" / "x", {f"{model}_1_{i}.jpg": corpus.encoded(image, quality=60 + 5 * i)})
    monkeypatch.setenv("IMAGE_CLUSTER_ROOT", str(calm))
    for earlier in STAGES[:3]:
        undisturbed(earlier, calm)
    shutil.copytree(calm, stormy)
    stage, generator = "02.feature_network_fine_tuning.py", random.Random(2)
    undisturbed(stage, calm)
    n_killed = 0
    for name in 3 * ["checkpoint.npz", "refit_checkpoint.npz"]:
        checkpoint = stormy / "model" / "x" / name
        before = checkpoint.stat().st_mtime_ns if checkpoint.exists() else 0
        process = start(stage, stormy)
        while process.poll() is None and not (checkpoint.exists() and checkpoint.stat().st_mtime_ns != before):
            time.sleep(0.02)
        time.sleep(generator.uniform(0, 1))
        n_killed += process.poll() is None
        process.kill()
        process.communicate()
    undisturbed(stage, stormy)
    expected, found = weights(calm), weights(stormy)
    assert n_killed and found.keys() == expected.keys() and len(expected) > 100
    assert max(np.abs(found[name] - expected[name]).max() for name in expected) < 1e-6
