"""Kill a stage at random moments, run it again: the files are those of an undisturbed run, and never half-written.

The short form kills each stage a few times; `python3 run_tests.py -m long tests/test_kill.py` kills it many times.
"""

import json
import os
import random
import shutil
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
from stages import STAGES, TRAINING, contents, lay_out_models, run_to_end, start

from pipeline.dataset import read_features
from pipeline.machinery.errors import UserError

FINE_TUNING = ("--PRETRAINED_WEIGHTS=random", "--EPOCHS=3", "--PATIENCE=9", "--LEARNING_RATE=0.0001")


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
            features, names = read_features("x")
            assert len(features) == len(names)
        except UserError as error:
            assert "run 03.feature_extraction.py" in str(error)


def kill_many(stage: str, snapshots: Path, tmp_path: Path, n_kills: int, seed: int) -> None:
    """Kill `stage` `n_kills` times on a copy of the root before it, finish it, and compare with an undisturbed run."""
    generator = random.Random(seed)
    stormy, calm = tmp_path / "stormy", snapshots / "after" / stage
    shutil.copytree(snapshots / "before" / stage, stormy, symlinks=True)
    seconds = json.loads((snapshots / "seconds.json").read_text(encoding="utf-8"))[stage]
    for _ in range(n_kills):
        process = start(stage, stormy)
        # most of the work is near the end: the start is imports
        time.sleep(seconds * generator.uniform(0.3, 1.05))
        process.kill()
        process.communicate()
        assert_whole(stormy)
    run_to_end(stage, stormy)
    assert_whole(stormy)
    expected, found = contents(calm), contents(stormy)
    assert found.keys() == expected.keys()
    assert [name for name in expected if expected[name] != found[name]] == []


@pytest.mark.parametrize("stage", STAGES)
def test_killed_stage_ends_like_an_undisturbed_one(stage, snapshots, root):
    kill_many(stage, snapshots, root, n_kills=2, seed=STAGES.index(stage))


@pytest.mark.long
@pytest.mark.parametrize("stage", STAGES)
def test_killed_many_times(stage, snapshots, root):
    kill_many(stage, snapshots, root, n_kills=30, seed=100 + STAGES.index(stage))


def weights(root: Path) -> dict[str, np.ndarray]:
    """Every array of numbers in the network of `root`, by its name."""
    found = {}
    with h5py.File(root / "model" / "x" / "feature_network.h5") as file:
        file.visititems(
            lambda name, item: found.update({name: item[()]}) if isinstance(item, h5py.Dataset) and item.size else None
        )
    return {name: value for name, value in found.items() if value.dtype.kind == "f"}


@pytest.mark.long
def test_a_training_killed_many_times_ends_with_the_same_weights(tmp_path):
    """Both trainings, that with models held out and that on all models, in programs of their own."""
    calm, stormy = tmp_path / "calm", tmp_path / "stormy"
    lay_out_models(calm, n_models=6, n_images=6)
    for earlier in STAGES[:3]:
        run_to_end(earlier, calm)
    shutil.copytree(calm, stormy)
    generator = random.Random(2)
    run_to_end(TRAINING, calm, *FINE_TUNING)
    n_killed = 0
    for name in 3 * ["checkpoint.npz", "refit_checkpoint.npz"]:
        checkpoint = stormy / "model" / "x" / name
        before = checkpoint.stat().st_mtime_ns if checkpoint.exists() else 0
        process = start(TRAINING, stormy, *FINE_TUNING)
        while process.poll() is None and not (checkpoint.exists() and checkpoint.stat().st_mtime_ns != before):
            time.sleep(0.02)
        time.sleep(generator.uniform(0, 1))
        n_killed += process.poll() is None
        process.kill()
        process.communicate()
    run_to_end(TRAINING, stormy, *FINE_TUNING)
    expected, found = weights(calm), weights(stormy)
    assert n_killed and found.keys() == expected.keys() and len(expected) > 100
    assert max(np.abs(found[name] - expected[name]).max() for name in expected) < 1e-6
