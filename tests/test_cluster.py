"""Stages on a Dask cluster: a real scheduler and real workers, each a program of its own, on the loopback interface."""

import functools
import json
import os
import pickle
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import corpus
import numpy as np
import pytest
from stages import PROJECT, SETTINGS, contents, hear_ctrl_c, load_stage, press_ctrl_c, start

import config
from pipeline.machinery import cluster, executor, settings
from pipeline.machinery.errors import UserError
from pipeline.machinery.shared_arrays import SharedArrays

distributed = pytest.importorskip("distributed", reason="pip install -r requirements-cluster.txt")
STAGE_01, STAGE_03, STAGE_04 = "01.img_preprocess.py", "03.feature_extraction.py", "04.clustering_som.py"


class Machines:
    """A scheduler and its workers; `options` are given to all of them."""

    def __init__(self, folder: Path, *options: str):
        self.folder, self.options, self.programs = folder, options, []
        where = folder / "scheduler.json"
        scheme = ["--protocol", "tls"] if options else []
        self.scheduler = self.launch(
            ["scheduler", "--host", "127.0.0.1", "--port", "0", "--scheduler-file", str(where), *scheme]
        )
        wait_until(lambda: where.exists() and where.read_text(), self.scheduler)
        self.address = json.loads(where.read_text())["address"]

    def launch(self, arguments: list[str], before: tuple[str, ...] = (), **variables: str) -> subprocess.Popen:
        """Start a program of Dask, its command behind those of `before`."""
        command = [*before, sys.executable, "-m", "dask", *arguments, "--no-dashboard", *self.options]
        known = {**os.environ, "PYTHONPATH": str(PROJECT / "tests"), **variables}
        with (self.folder / "log.txt").open("a") as log:
            program = subprocess.Popen(command, cwd=PROJECT, stdout=log, stderr=log, env=known)
        self.programs.append(program)
        return program

    def work(self, **options) -> subprocess.Popen:
        """Start a worker."""
        return self.launch(["worker", self.address, "--nthreads", "1", "--no-nanny"], **options)

    def end(self) -> None:
        for program in self.programs:
            program.kill()
            program.wait()


@pytest.fixture(scope="module")
def machines(tmp_path_factory) -> Iterator[Machines]:
    """A scheduler with two workers, whose own root is another one than the runs'."""
    machines = Machines(tmp_path_factory.mktemp("cluster"))
    for _ in range(2):
        machines.work(IMAGE_CLUSTER_ROOT=str(machines.folder))
    with distributed.Client(machines.address) as client:
        client.wait_for_workers(2)
    yield machines
    machines.end()


@pytest.fixture
def own_machines(tmp_path) -> Iterator[Machines]:
    """A scheduler without workers, for a test that breaks it."""
    (tmp_path / "cluster").mkdir()
    machines = Machines(tmp_path / "cluster")
    yield machines
    machines.end()


def whose(item: int) -> tuple[int, str, int]:
    time.sleep(0.05)
    return item, os.environ["IMAGE_CLUSTER_ROOT"], os.getpid()


def test_results_come_in_order_from_both_workers_with_the_root_of_the_run(machines, root):
    config.SCHEDULER = machines.address
    found = list(executor.ordered_map(whose, iter(range(40)), batch=3))
    assert [item for item, _, _ in found] == list(range(40))
    assert {where for _, where, _ in found} == {str(root)}
    assert len({number for _, _, number in found} - {os.getpid()}) == 2
    assert list((root / "data" / ".locks").iterdir()) == []


def test_an_error_is_raised_after_the_results_before_it(machines, root):
    config.SCHEDULER = machines.address
    results = executor.ordered_map(lambda i: 1 // (5 - i), range(100), batch=4)
    assert [next(results) for _ in range(5)] == [0, 0, 0, 0, 1]
    with pytest.raises(ZeroDivisionError) as caught:
        next(results)
    assert "<lambda>" in str(caught.value.__cause__)  # where it happened


@pytest.mark.parametrize("stage", [STAGE_01, STAGE_03])
def test_a_stage_writes_the_same_files_as_without_a_cluster(stage, machines, snapshots, root):
    shutil.copytree(snapshots / "before" / stage, root, dirs_exist_ok=True)
    process = start(stage, root, f"--SCHEDULER={machines.address}")
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    expected, found = contents(snapshots / "after" / stage), contents(root)
    assert found.keys() == expected.keys()
    assert [name for name in expected if expected[name] != found[name]] == []


def test_stage_04_writes_the_same_files_as_without_a_cluster(machines, snapshots, root, monkeypatch):
    shutil.copytree(snapshots / "before" / STAGE_04, root, dirs_exist_ok=True)
    settings.apply_overrides([*SETTINGS, f"--SCHEDULER={machines.address}"])
    stage = load_stage(STAGE_04)
    monkeypatch.setattr(stage, "CLUSTER_IMAGES", 0)
    stage.main()
    expected, found = contents(snapshots / "after" / STAGE_04), contents(root)
    assert found.keys() == expected.keys()
    assert [name for name in expected if expected[name] != found[name]] == []


def row_of(arrays: tuple[np.ndarray, np.ndarray], row: int) -> tuple[np.ndarray, list[bool]]:
    """Return a row of the first array, and which arrays are mapped from a file."""
    return arrays[0][row], [isinstance(array.base, np.memmap) for array in arrays]


def test_large_arrays_are_mapped_from_the_folder_and_gone_afterwards(machines, root):
    config.SCHEDULER = machines.address
    large, small = np.arange(100_000.0).reshape(1000, 100), np.arange(10.0)
    found = list(executor.ordered_map(functools.partial(row_of, (large, small)), range(0, 1000, 100), batch=3))
    for row, (values, mapped) in zip(range(0, 1000, 100), found, strict=True):
        np.testing.assert_array_equal(values, large[row])
        assert mapped == [True, False]
    assert list((root / "data" / ".locks").iterdir()) == []


def test_a_memory_map_is_read_where_it_lies(tmp_path):
    np.save(tmp_path / "a.npy", np.arange(100_000.0))
    array = np.load(tmp_path / "a.npy", mmap_mode="r")
    arrays = SharedArrays(tmp_path / "arrays")
    for one in (array, array[1:], np.arange(100_000.0)):
        np.testing.assert_array_equal(pickle.loads(arrays.pickled([one]))[0], one)
    assert len(list(arrays.folder.iterdir())) == 2  # the second is a part of a map
    arrays.remove()
    assert not arrays.folder.exists()


def sums(array: np.ndarray, item: int) -> float:
    return float(array.sum()) + item


def test_maps_of_a_stage_share_one_connection_and_the_arrays_that_do_not_change(machines, root, monkeypatch):
    config.SCHEDULER = machines.address
    opened, connect = [], cluster.connect
    monkeypatch.setattr(cluster, "connect", lambda *where: opened.append(where) or connect(*where))
    fixed, changing = np.ones(100_000), np.ones(100_000)
    fixed.flags.writeable = False
    names = set()
    with executor.connected():
        for i in range(3):
            changing[:] = i
            assert list(executor.ordered_map(functools.partial(sums, fixed), range(3))) == [1e5, 1e5 + 1, 1e5 + 2]
            assert list(executor.ordered_map(functools.partial(sums, changing), [0])) == [1e5 * i]
            names |= {path.name for path in (root / "data" / ".locks").glob("*/*.npy")}
    assert len(opened) == 1 and len(names) == 1
    assert list((root / "data" / ".locks").iterdir()) == []


def test_files_of_a_killed_run_are_removed_and_those_of_other_data_sets_stay(root, monkeypatch):
    monkeypatch.setattr(sys, "argv", [STAGE_04])
    config.DATASET, config.TRAIN_DATASET = "x", "y"
    left, other = cluster.name_run(), root / "data" / ".locks" / f"{STAGE_04}.x.y2.{'0' * 16}.0.workers"
    (left.parent / f"{left.name}.arrays").mkdir()
    for path in (left.parent / f"{left.name}.7.workers", left.parent / f"{left.name}.arrays" / "0.npy", other):
        path.touch()
    cluster.name_run()
    assert list(other.parent.iterdir()) == [other]


# ---- failures --------------------------------------------------------------------------------------


def at_work(machines: Machines, root: Path, n: int = 150, **options) -> subprocess.Popen:
    """Stage 01 as a program on the cluster that has begun to write what it makes of `n` photographs."""
    image = corpus.encoded(corpus.product((600, 450)))
    corpus.lay_out(root / "raw_img" / "x", {f"1_1_{i:03d}.jpg": image for i in range(n)})
    process = start(STAGE_01, root, f"--SCHEDULER={machines.address}", stdout=subprocess.PIPE, **options)
    wait_until(lambda: n_written(root) > 0, process)
    return process


def n_written(root: Path) -> int:
    """Number of images that stage 01 has written."""
    return len(list((root / "img" / "x").glob("1_*.jpg")))


def wait_until(condition, process: subprocess.Popen) -> None:
    """Wait until something is true, while a program runs."""
    while not condition():
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)


def assert_one_error(process: subprocess.Popen, said: str) -> None:
    """The program ends with one sentence on stderr that holds `said`."""
    _, errors = process.communicate(timeout=300)
    lines = [line for line in errors.splitlines() if not line.startswith("warning: ")]
    assert process.returncode == 1 and len(lines) == 1 and said in lines[0], errors


def test_a_worker_that_comes_late_takes_over_from_one_that_is_killed(own_machines, root):
    first = own_machines.work()
    process = at_work(own_machines, root)
    first.kill()
    own_machines.work()
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert "150 images in = 150 out + 0 skipped" in output and n_written(root) == 150


def test_a_scheduler_that_dies_is_said_and_the_next_run_does_the_rest(own_machines, root):
    own_machines.work()
    process = at_work(own_machines, root)
    wait_until(lambda: n_written(root) > 20, process)
    own_machines.scheduler.kill()
    assert_one_error(process, "does not answer any more: start it again, and run this again: what is done is kept")
    assert list((root / "data" / ".locks").glob("*.workers")) == []
    record = json.loads((root / "data" / "x" / "preprocess.json").read_text(encoding="utf-8"))
    assert 0 < len(record["images"]) < 150
    before = {name: (root / "img" / "x" / name).stat().st_mtime_ns for name in record["images"]}
    again = start(STAGE_01, root, stdout=subprocess.PIPE)
    assert "150 images in = 150 out + 0 skipped" in again.communicate(timeout=300)[0]
    assert {name: (root / "img" / "x" / name).stat().st_mtime_ns for name in before} == before


def test_ctrl_c_ends_the_work_of_the_cluster(machines, root):
    process = at_work(machines, root, start_new_session=True, preexec_fn=hear_ctrl_c)
    exit_code, errors = press_ctrl_c(process, lambda line: "SCHEDULER" in line, seconds=0)
    n = n_written(root)
    assert exit_code == 130 and errors.startswith("error: interrupted") and errors.count("\n") == 1
    time.sleep(0.5)
    assert 0 < n_written(root) == n < 150
    assert list((root / "data" / ".locks").glob("*.workers")) == list((root / "img" / "x").glob(".*")) == []


@pytest.mark.skipif(shutil.which("unshare") is None, reason="gives a worker folders of its own")
def test_a_worker_that_does_not_see_the_folder_gets_no_work(own_machines, root, tmp_path_factory):
    hidden = ("unshare", "--mount", "sh", "-c", f'mount -t tmpfs tmpfs {root} && exec "$@"', "sh")
    if subprocess.run([*hidden, "true"], stderr=subprocess.DEVNULL).returncode:
        pytest.skip("mounting a file system needs root")
    own_machines.work(before=hidden)
    own_machines.work()
    process = at_work(own_machines, root)
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 0 and "150 images in = 150 out + 0 skipped" in output, errors
    assert errors.count("gets no work: it does not see") == 1


def test_where_no_worker_is_fit_it_is_said(machines, root, monkeypatch, capsys):
    config.SCHEDULER = machines.address
    monkeypatch.setattr(cluster, "code_print", lambda: "of other code")
    monkeypatch.setattr(cluster, "PATIENCE_SECONDS", 1)
    with pytest.raises(UserError, match="has no worker that can do this work"):
        list(executor.ordered_map(whose, range(9)))
    assert capsys.readouterr().err.count("of another version") == 2


def test_a_cluster_without_workers_or_scheduler_is_said(own_machines, root, monkeypatch):
    monkeypatch.setattr(cluster, "PATIENCE_SECONDS", 1)
    config.SCHEDULER = own_machines.address
    with pytest.raises(UserError, match="has no workers: start some"):
        list(executor.ordered_map(whose, range(9)))
    monkeypatch.setattr(cluster, "CONNECT_SECONDS", 1)
    own_machines.scheduler.kill()
    own_machines.scheduler.wait()
    with pytest.raises(UserError, match="no scheduler answers at tcp"):
        list(executor.ordered_map(whose, range(9)))
    assert list((root / "data" / ".locks").iterdir()) == []


def test_a_scheduler_that_dies_between_two_maps_of_a_stage_is_said(own_machines, root, monkeypatch):
    monkeypatch.setattr(cluster, "CONNECT_SECONDS", 10)
    config.SCHEDULER = own_machines.address
    own_machines.work()
    with executor.connected():
        assert list(executor.ordered_map(abs, range(3))) == [0, 1, 2]
        own_machines.scheduler.kill()
        own_machines.scheduler.wait()
        with pytest.raises(UserError, match="does not answer any more: start it again"):
            list(executor.ordered_map(abs, range(3)))


def test_without_dask_it_is_said_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(UserError, match=r"requirements-cluster\.txt"):
        cluster.connect("tcp://127.0.0.1:1", None)


# ---- who may use a cluster -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "is_open"),
    [
        ("tcp://127.0.0.1:8786", False),
        ("tcp://[::1]:8786", False),
        ("tcp://localhost:8786", False),
        ("tcp://10.0.0.7:8786", True),
        ("tcp://[2001:db8::7]:8786", True),
        ("tcp://head.example:8786", True),
    ],
)
def test_an_open_scheduler_that_other_machines_reach_is_warned_of(address, is_open, capsys):
    cluster.warn_if_open(address)
    assert ("can run any code" in capsys.readouterr().err) == is_open


@pytest.mark.skipif(shutil.which("openssl") is None, reason="makes certificates")
def test_with_certificates_only_who_has_them_gets_in(root, tmp_path, monkeypatch):
    make_certificates(tmp_path)
    files = [f"--tls-{option}={tmp_path / name}.pem" for option, name in
             (("ca-file", "ca"), ("cert", "cert"), ("key", "key"))]  # fmt: skip
    machines = Machines(tmp_path, *files)
    try:
        assert machines.address.startswith("tls://")
        machines.work()
        config.SCHEDULER, config.SCHEDULER_TLS = machines.address, str(tmp_path)
        assert [item for item, _, _ in executor.ordered_map(whose, range(4))] == [0, 1, 2, 3]
        config.SCHEDULER_TLS = None
        monkeypatch.setattr(cluster, "CONNECT_SECONDS", 1)
        with pytest.raises(UserError, match="no scheduler answers"):
            list(executor.ordered_map(whose, range(4)))
        config.SCHEDULER_TLS = str(tmp_path / "nothing")
        with pytest.raises(UserError, match=r"SCHEDULER_TLS: .*ca\.pem not found"):
            list(executor.ordered_map(whose, range(4)))
    finally:
        machines.end()


def make_certificates(folder: Path) -> None:
    """The commands of SECURITY.md."""
    text = (PROJECT / "SECURITY.md").read_text(encoding="utf-8")
    commands = re.search(r"```sh\n(openssl .*?)```", text, re.S)[1]
    subprocess.run(["sh", "-ec", commands], cwd=folder, check=True, stderr=subprocess.DEVNULL)
