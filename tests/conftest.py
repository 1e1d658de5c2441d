"""What the tests share: stages loaded by path, a root folder of their own, stages run as programs."""

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

import config
from pipeline import network

PROJECT = Path(__file__).resolve().parent.parent


def load_stage(name: str) -> ModuleType:
    """Load a script by its path below the project; a name with a dot and digits can't be imported."""
    module_name = name.removesuffix(".py").replace(".", "_").replace("/", "_")
    spec = importlib.util.spec_from_file_location(module_name, PROJECT / name)
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module  # before it is executed: dataclasses and joblib look a module up by name
    spec.loader.exec_module(module)
    return module


def pytest_configure() -> None:
    """Stage 02 is tested in a process in which other tests may have computed before it could ask for this."""
    network.do_without_amx()


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
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root in which every stage but 02 went through once on sixteen drawn images of four models; for copies."""
    import corpus
    from test_kill import STAGES, undisturbed

    root = tmp_path_factory.mktemp("done")
    for model in range(4):
        for i in range(4):
            image = corpus.product((150, 120), seed=model).rotate(4 * i, fillcolor=(236, 238, 240))
            corpus.lay_out(root / "raw_img" / "x", {f"{model}_1_{i}.jpg": corpus.encoded(image, quality=92)})
    for stage in STAGES:
        undisturbed(stage, root)
    return root


@pytest.fixture
def run_stage(root: Path) -> Callable[..., subprocess.CompletedProcess]:
    """Run a script with arguments as its own process in the test's root; its output is text."""

    def run(name: str, *arguments: str, timeout: float = 300) -> subprocess.CompletedProcess:
        return subprocess.run(
            [sys.executable, str(PROJECT / name), *arguments],
            cwd=PROJECT,
            env={**os.environ, "IMAGE_CLUSTER_ROOT": str(root)},
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=timeout,
        )

    return run
