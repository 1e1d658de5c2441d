"""What the tests share: stages loaded by path, a root folder of their own, stages run as programs."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import filelock
import pytest
from stages import PROJECT, STAGES, lay_out_models, load_stage, run_to_end

import config
from pipeline import tensorflow_runtime

__all__ = ["PROJECT", "load_stage"]


def pytest_configure() -> None:
    """Stage 02 is tested in a process in which other tests may have computed before it could ask for this."""
    tensorflow_runtime.disable_amx()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that share what their module made go to one worker: else each worker would make it."""
    for item in items:
        used = [fixtures[-1] for fixtures in item._fixtureinfo.name2fixturedefs.values()]
        if any(fixture.scope == "module" for fixture in used):
            item.add_marker(pytest.mark.xdist_group(item.module.__name__))


@pytest.fixture(autouse=True)
def settings_as_they_were() -> Iterator[None]:
    """Give every test the constants of config.py as they stand in the file."""
    before = {name: value for name, value in vars(config).items() if name.isupper()}
    yield
    for name, value in before.items():
        setattr(config, name, value)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder as the one that holds raw_img/ img/ data/ ..."""
    monkeypatch.setenv("IMAGE_CLUSTER_ROOT", str(tmp_path))
    return tmp_path


@pytest.fixture(scope="session")
def snapshots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the roots before and after each stage but 02, on sixteen drawn images of four models; for copies.

    `before/<stage>`, `after/<stage>`, and `seconds.json` with the seconds of each. All workers of the tests share it.
    """
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "snapshots"
    with filelock.FileLock(folder.with_suffix(".lock")):
        if not (folder / "seconds.json").exists():
            root, seconds = folder / "root", {}
            lay_out_models(root, n_models=4, n_images=4)
            for stage in STAGES:
                shutil.copytree(root, folder / "before" / stage, symlinks=True)
                seconds[stage] = run_to_end(stage, root)
                shutil.copytree(root, folder / "after" / stage, symlinks=True)
            (folder / "seconds.json").write_text(json.dumps(seconds), encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def done(snapshots: Path) -> Path:
    """The root in which every stage but 02 went through; for copies."""
    return snapshots / "root"


@pytest.fixture
def run_stage(root: Path) -> Callable[..., subprocess.CompletedProcess]:
    """Run a script with arguments as its own process in the test's root; its output is text."""

    def run(name: str, *arguments: str, timeout: float = 300) -> subprocess.CompletedProcess:
        return subprocess.run(
            [sys.executable, str(PROJECT / name), *arguments],
            cwd=PROJECT,
            env={**os.environ, "IMAGE_CLUSTER_ROOT": str(root), "PYTHONIOENCODING": "utf-8"},
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=timeout,
        )

    return run
