"""The scripts as the tests use them: loaded by path, run as programs, compared by the files that they leave."""

import contextlib
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import corpus

PROJECT = Path(__file__).resolve().parent.parent
TRAINING = "02.feature_network_fine_tuning.py"
# every stage but the training, in the order of the pipeline
STAGES = (
    "00.make_labels_true.py",
    "01.img_preprocess.py",
    "make_training_image_folders.py",
    "03.feature_extraction.py",
    "04.clustering_som.py",
    "05.evaluation.py",
    "06.visualization.py",
)
# the initial weights are random here: 03 has nothing to wait for
SETTINGS = ("--DATASET=x", "--TRAIN_DATASET=x", "--N_JOBS=2", "--FEATURE_NETWORK=pretrained", "--IMAGE_SIZE=75",
            "--SAVE_MASKS=True")  # fmt: skip
REDO = "--REDO=True"
CHANGING = {"seconds", "seconds_per_image", "finished"}  # entries of records that tell the time


def load_stage(name: str) -> ModuleType:
    """Load a script by its path below the project; a name with a dot and digits can't be imported."""
    module_name = name.removesuffix(".py").replace(".", "_").replace("/", "_")
    spec = importlib.util.spec_from_file_location(module_name, PROJECT / name)
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module  # before it is executed: dataclasses and joblib look a module up by name
    spec.loader.exec_module(module)
    return module


# ---- stages as programs ----------------------------------------------------------------------------


def environment(root: Path) -> dict[str, str]:
    """The environment of a program that works in `root`."""
    return {**os.environ, "IMAGE_CLUSTER_ROOT": str(root), "PYTHONIOENCODING": "utf-8", "TF_CPP_MIN_LOG_LEVEL": "3"}


def hear_ctrl_c() -> None:
    """What a child does before it starts: Ctrl-C is ignored by what a shell starts in the background, and so here."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def start(stage: str, root: Path, *arguments: str, settings: tuple[str, ...] = SETTINGS, **options) -> subprocess.Popen:
    """Start a script as a program in `root`; its output is text, what it prints is not kept unless asked for."""
    command = [sys.executable, "-u", str(PROJECT / stage), *settings, *arguments]
    given = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "encoding": "utf-8", **options}
    return subprocess.Popen(command, env=environment(root), **given)


def run_to_end(stage: str, root: Path, *arguments: str) -> float:
    """Run a script to its end, which is a good one; returns its seconds."""
    begin = time.perf_counter()
    process = start(stage, root, *arguments)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    return time.perf_counter() - begin


def press_ctrl_c(process: subprocess.Popen, when: Callable[[str], bool], seconds: float) -> tuple[int, str]:
    """Press Ctrl-C that long after a program has printed the line for which `when` is true.

    process : started by `start` with its output piped, a session of its own and `hear_ctrl_c`.
    Returns exit code and stderr. No process of the program's group is left.
    """
    while not when(line := process.stdout.readline()):
        assert line, process.stderr.read()
    time.sleep(seconds)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=1000)
    try:
        os.killpg(process.pid, 0)
    except ProcessLookupError:  # the group is empty
        return process.returncode, errors
    raise AssertionError("a process is left")


def children_of(number: int) -> set[int]:
    """Ids of the processes that a process has started (Linux), those not yet waited for included."""
    found = set()
    for path in Path(f"/proc/{number}/task").glob("*/children"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # a thread that has ended meanwhile
            found |= {int(child) for child in path.read_text().split()}
    return found


def is_running(number: int) -> bool:
    """Whether there is a process of that id (Linux) that has not ended."""
    try:
        return Path(f"/proc/{number}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


# ---- what they leave -------------------------------------------------------------------------------


def lay_out_models(root: Path, n_models: int, n_images: int) -> None:
    """Draw `n_images` photographs of each of `n_models` bags into raw_img/x/: 0_1_0.jpg, 0_1_1.jpg and so on."""
    for model in range(n_models):
        for i in range(n_images):
            image = corpus.product((150, 120), seed=model).rotate(4 * i, fillcolor=(236, 238, 240))
            corpus.lay_out(root / "raw_img" / "x", {f"{model}_1_{i}.jpg": corpus.encoded(image, quality=92)})


def copied(done: Path, root: Path) -> Path:
    """A copy of a root in which hard links are hard links."""
    shutil.copytree(done, root, symlinks=True, dirs_exist_ok=True)
    for path in (root / "training_images" / "x").rglob("*.jpg"):
        path.unlink()
        os.link(root / "img" / "x" / path.name, path)
    return root


def without_times(value: object) -> object:
    """A JSON value without the entries that tell the time."""
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
