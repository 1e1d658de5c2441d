"""What other systems are like, as far as Linux can play them: consoles, no forks, long names, files held open."""

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import corpus
import pytest
from stages import PROJECT, SETTINGS, contents, environment

from pipeline.machinery.errors import remedy_of

# what a stage finds where processes are not forked, and functions that Windows has not are missing
WITHOUT_FORK = """
import multiprocessing, os, runpy, signal, sys
from pipeline.machinery import executor, run

multiprocessing.set_start_method("spawn")
executor.Processes = executor.Threads
run.keep_to_cores = lambda: None
for name in ("fork", "sched_getaffinity", "sched_setaffinity", "getuid", "geteuid", "killpg", "mkfifo", "statvfs"):
    delattr(os, name)
for name in ("pthread_kill", "pthread_sigmask", "setitimer", "SIGKILL", "SIGALRM"):
    delattr(signal, name)
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="nothing is forked here")
@pytest.mark.parametrize("stage", ["01.img_preprocess.py", "04.clustering_som.py"])
def test_threads_give_the_same_bytes_as_forks(stage, snapshots, tmp_path):
    root = Path(shutil.copytree(snapshots / "before" / stage, tmp_path / "root"))
    command = [sys.executable, "-c", WITHOUT_FORK, str(PROJECT / stage), *SETTINGS]
    done = subprocess.run(command, cwd=PROJECT, env=environment(root), capture_output=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    assert contents(root) == contents(snapshots / "after" / stage)


# ---- consoles --------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["cp949", "ascii", "utf-8"])
def test_a_console_shows_any_name_or_its_number(root, encoding):
    image = corpus.encoded(corpus.product())
    for folder in ("raw_img", "img"):
        corpus.lay_out(root / folder / "가방é", {f"{label}/1.jpg": image for label in ("가죽", "café", "👜")})
    printed = ""
    for stage in ("00.make_labels_true.py", "make_training_image_folders.py"):
        command = [
            sys.executable,
            str(PROJECT / stage),
            "--DATASET=가방é",
            "--TRAIN_DATASET=가방é",
            "--LABEL_FROM=folder",
        ]
        console = {**environment(root), "PYTHONIOENCODING": encoding}
        done = subprocess.run(command, env=console, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        printed += done.stdout.decode(encoding)
    assert "Traceback" not in printed and "UnicodeEncodeError" not in printed
    for name in ("가죽", "café", "👜"):  # too few photographs of each
        assert f"left out: model {name.encode(encoding, 'backslashreplace').decode(encoding)} has 1 image" in printed


def test_run_all_shows_any_name_on_any_console(root):
    command = [
        sys.executable,
        str(PROJECT / "run_all.py"),
        "--dry-run",
        "--DATASET=가방",
        "--FEATURE_NETWORK=pretrained",
    ]
    console = {**environment(root), "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command, env=console, capture_output=True, encoding="ascii")
    assert done.returncode == 0, done.stderr
    assert r"00.make_labels_true.py  \uac00\ubc29" in done.stdout


# ---- names and files -------------------------------------------------------------------------------


@pytest.mark.skipif(os.name == "nt", reason="where long paths are not switched on, Windows knows none")
def test_a_path_longer_than_windows_allows_is_like_any_other(tmp_path):
    root = tmp_path.joinpath(*["가" * 60] * 4)
    corpus.lay_out(root / "raw_img" / "x", {"1_1_1.jpg": corpus.encoded(corpus.product())})
    command = [sys.executable, str(PROJECT / "00.make_labels_true.py"), "--DATASET=x", "--TRUST_LABELS=True"]
    done = subprocess.run(command, env=environment(root), capture_output=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    assert (root / "data" / "x" / "labels_true.csv").is_file()


def test_a_file_that_another_program_has_open_is_said_to_be_closed():
    """A table that is open in a spreadsheet can't be replaced on Windows."""
    assert "close the file where a program has it open" in remedy_of(PermissionError(errno.EACCES, "denied"))
