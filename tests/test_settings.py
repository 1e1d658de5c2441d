"""Overrides, kinds, help and errors of the settings, and how a stage runs as a program."""

import os
import signal
import subprocess
import sys
from typing import Annotated, Literal

import pytest
from conftest import PROJECT

import config
from pipeline.machinery import kinds, settings
from pipeline.machinery.errors import SettingError
from pipeline.machinery.run import alone


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("N_JOBS", "2", 2),
        ("REDO", "True", True),
        ("DATASET", "bags", "bags"),
        ("DATASET", "'bags'", "bags"),
        ("DATASET", "2019", "2019"),
        ("DATASET", "True", "True"),
        ("LABEL_PATTERN", "^([^_]+)_", "^([^_]+)_"),
    ],
)
def test_override_has_the_kind_of_the_constant(name, text, value):
    assert settings.apply_overrides([f"--{name}={text}"]) == {name: value}
    assert getattr(config, name) == value and type(getattr(config, name)) is type(value)


def test_unknown_name_is_answered_with_the_nearest_and_nothing_is_set():
    with pytest.raises(SettingError, match="nearest is DATASET"):
        settings.apply_overrides(["--N_JOBS=3", "--DATASETT=x"])
    assert config.N_JOBS == 0


@pytest.mark.parametrize("argument", ["N_JOBS=3", "--N_JOBS", "N_JOBS", "-"])
def test_malformed_argument(argument):
    with pytest.raises(SettingError, match="--NAME=value"):
        settings.apply_overrides([argument])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("N_JOBS", -1),
        ("N_JOBS", 1.0),
        ("N_JOBS", True),
        ("REDO", 1),
        ("DATASET", "../x"),
        ("DATASET", ""),
        ("DATASET", None),
        ("LABEL_FROM", "file"),
        ("LABEL_PATTERN", "["),
        ("LABEL_PATTERN", "no group"),
        ("RANDOM_SEED", 2**31),
    ],
)
def test_wrong_kind_or_range_names_the_setting_and_its_value(name, value):
    setattr(config, name, value)
    with pytest.raises(SettingError) as error:
        settings.check()
    assert str(error.value).startswith(f"{name} = {value!r}: must be")


def test_config_as_it_stands_is_valid():
    settings.check()


def test_a_constant_without_a_kind_is_refused(monkeypatch):
    monkeypatch.setattr(config, "NEW_SETTING", 1, raising=False)
    with pytest.raises(SettingError, match="NEW_SETTING = 1: is not a setting"):
        settings.check()


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("N_JOBS", -1, "a whole number from 0 to 1024"),
        ("TEMPERATURE", 0, "a number above 0 to 1"),
        ("PATIENCE", 0, "a whole number from 1"),
        ("LABEL_FROM", "file", "one of 'name', 'folder', 'table', 'none'"),
        ("REDO", 1, "True or False"),
        ("ASSIGN_TO", "a/b", "the name of a folder below raw_img/, without / or \\, or None"),
        (
            "LABEL_PATTERN",
            "[",
            "a regular expression whose group 1 is the label, such as '^([^_]+)_'; "
            "this one is wrong: unterminated character set at position 0",
        ),
    ],
)
def test_a_wrong_value_is_answered_with_what_is_valid(name, value, said):
    setattr(config, name, value)
    with pytest.raises(SettingError) as error:
        settings.check()
    assert str(error.value) == f"{name} = {value!r}: must be {said}"


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        (Literal["a", "b"], ["a", "b"], ["c", "", None]),
        (Annotated[int, kinds.between(1, 3)], [1, 3], [0, 4, 1.0, True, "1"]),
        (kinds.Share, [0, 0.5, 1], [-0.1, 1.1, True, float("nan")]),
        (kinds.PositiveShare, [0.1, 1], [0, -1, float("inf"), float("nan")]),
        (kinds.Dataset | None, [None, "bags", "가방 1"], [1, "", "..", "a/b"]),
        (kinds.Datasets, ["bags", "bags, shoes"], ["", ",", "bags, a/b", None]),
        (kinds.Text, ["a"], ["", 1, None]),
        (bool, [True, False], [0, 1, "True"]),
    ],
)
def test_kinds(kind, good, bad):
    assert [kinds.problem_of(value, kind) for value in good] == [None] * len(good)
    assert all(kinds.problem_of(value, kind).startswith("must be ") for value in bad)


def test_every_constant_says_what_it_is():
    undocumented = [name for name in settings.names() if not settings.comment_of(name)]
    assert undocumented == []


def test_contract_joins_indented_lines():
    doc = "What.\n\nReads:  a/D/\nWrites: b/D/c.csv,\n        b/D/d.csv\nConfig: DATASET, N_JOBS\n"
    assert settings.contract(doc) == {"Reads": "a/D/", "Writes": "b/D/c.csv, b/D/d.csv", "Config": "DATASET, N_JOBS"}


def test_program_says_one_sentence_and_exits_with_2(run_stage):
    for argument, named in [("--DATASETT=x", "DATASET"), ("--N_JOBS=x", "N_JOBS = 'x'"), ("oops", "oops")]:
        done = run_stage("00.make_labels_true.py", argument)
        assert done.returncode == 2
        assert named in done.stderr and done.stderr.startswith("error: ") and done.stderr.count("\n") == 1


def test_help_lists_the_contract_and_the_settings_with_their_values(run_stage):
    done = run_stage("00.make_labels_true.py", "--help")
    assert done.returncode == 0
    assert "Reads:  raw_img/D/" in done.stdout and "--LABEL_FROM='name'" in done.stdout


def test_override_is_printed(run_stage, root):
    done = run_stage("00.make_labels_true.py", "--DATASET=nothing_here")
    assert done.returncode == 1 and "DATASET = 'nothing_here'" in done.stdout


def test_second_run_of_the_same_stage_says_so_and_stops(run_stage, root):
    config.DATASET = "bags"
    with alone("00.make_labels_true.py", "bags"):
        done = run_stage("00.make_labels_true.py", "--DATASET=bags")
        other = run_stage("00.make_labels_true.py", "--DATASET=shoes")
    assert done.returncode == 1 and "already at work on bags" in done.stderr
    assert "already at work" not in other.stderr


IN_DESTRUCTOR = """
import time
from pipeline.machinery import run

class Slow:
    def __del__(self):
        print("begun", flush=True)
        time.sleep(1)

def main():
    slow = Slow()
    del slow
    time.sleep(20)

run.run(main, "")
"""
TURNED_INTO_AN_ERROR = """
import time
from pipeline.machinery import run

def main():
    try:
        print("begun", flush=True)
        time.sleep(20)
    except KeyboardInterrupt:
        raise RuntimeError("a function failed") from None

run.run(main, "")
"""
# a stand-in for matplotlib.ft2font, which aborts Python's own end where its import was broken off
ABORTS_AT_THE_END = """
import atexit
import os
import time
from pipeline.machinery import run

def main():
    atexit.register(os.abort)
    print("begun", flush=True)
    time.sleep(20)

run.run(main, "")
"""
BREAKS_OFF = """
import time
import config
from pipeline.machinery import paths, run
from pipeline.machinery.executor import ordered_map

def slow(name):
    path = paths.root() / name
    path.touch()
    time.sleep(0.3)
    path.unlink()

def main():
    config.N_JOBS = 2
    parts = ordered_map(slow, [f"{i}.part" for i in range(100)], threads=True)
    for _ in parts:
        raise KeyboardInterrupt

run.run(main, "")
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT for a single process")
@pytest.mark.parametrize(
    "program",
    [IN_DESTRUCTOR, TURNED_INTO_AN_ERROR, ABORTS_AT_THE_END],
    ids=["dropped", "turned into an error", "aborts at the end"],
)
def test_interrupt_ends_the_run_wherever_it_comes(root, program):
    environment = {**os.environ, "IMAGE_CLUSTER_ROOT": str(root)}
    with subprocess.Popen(
        [sys.executable, "-c", program], cwd=PROJECT, env=environment,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as process:  # fmt: skip
        assert process.stdout.readline() == "begun\n"
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=15)
    assert process.returncode == 130
    assert errors.startswith("error: interrupted") and errors.count("\n") == 1


def test_what_is_at_work_is_finished_when_an_interrupt_breaks_it_off(root):
    environment = {**os.environ, "IMAGE_CLUSTER_ROOT": str(root)}
    ended = subprocess.run([sys.executable, "-c", BREAKS_OFF], cwd=PROJECT, env=environment, capture_output=True)
    assert ended.returncode == 130 and ended.stderr.startswith(b"error: interrupted")
    assert not list(root.glob("*.part"))
