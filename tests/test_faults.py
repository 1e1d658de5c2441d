"""Faults of the machine and of its user: a full disk, folders that can't be written, Ctrl-C, links, wrong clocks.

Whatever happens, a run ends with one sentence, what earlier runs wrote is as it was, and the next run does the rest.
And the same photographs give the same bytes, whatever the number of workers. The short form tries each stage once;
`python3 run_tests.py -m long tests/test_faults.py` tries more moments, stage 02, and 30,000 photographs.
"""

import contextlib
import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import corpus
import numpy as np
import pytest
from stages import (
    PROJECT,
    REDO,
    SETTINGS,
    STAGES,
    TRAINING,
    children_of,
    contents,
    copied,
    environment,
    hear_ctrl_c,
    is_running,
    load_stage,
    press_ctrl_c,
    start,
)

import config
from pipeline.dataset import list_images
from pipeline.machinery.errors import UserError

resource = pytest.importorskip("resource", reason="needs the signals, links and limits of Unix")
TINY = ("--DATASET=x", "--TRAIN_DATASET=x", "--IMAGE_SIZE=75", "--PRETRAINED_WEIGHTS=random", "--EPOCHS=1",
        "--FEATURE_LAYER=mixed0")  # fmt: skip


def run(stage: str, root: Path, *arguments: str, before: tuple[str, ...] = (), **options):
    """Run a stage as a program in `root`, its command behind those of `before`; returns it with its output as text."""
    given = TINY if stage == TRAINING else SETTINGS
    command = [*before, sys.executable, str(PROJECT / stage), *given, *arguments]
    return subprocess.run(command, env=environment(root), capture_output=True, encoding="utf-8", timeout=999, **options)


def assert_one_sentence(stderr: str) -> None:
    """One error, no traceback, nothing else but warnings."""
    lines = [line for line in stderr.splitlines() if not line.startswith("warning: ")]
    assert len(lines) == 1 and lines[0].startswith("error: ") and len(lines[0]) > 40, stderr


def assert_as_before(root: Path, before: dict[str, object]) -> None:
    """What was there is as it was, and nothing was added but what a stage keeps of interrupted work."""
    after = contents(root)
    kept = {name for name in after if "features_parts/" in name or name.endswith(("checkpoint.npz", "preprocess.json"))}
    assert {name for name in before if after.get(name) != before[name]} <= kept
    assert set(after) - set(before) <= kept


# ---- the disk --------------------------------------------------------------------------------------


@contextlib.contextmanager
def own_disk(done: Path, folder: Path) -> Iterator[Path]:
    """A small file system of its own with a copy of `done`; skips where that is not allowed."""
    folder.mkdir()
    if (
        sys.platform != "linux"
        or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", folder]).returncode
    ):
        pytest.skip("mounting a file system needs root")
    try:
        yield copied(done, folder / "root")
    finally:
        subprocess.run(["umount", folder], check=True)


def fill(path: Path, n_free: int) -> None:
    """Make `path` so large that `n_free` pages of 4,096 bytes are left on its disk."""
    with path.open("wb", buffering=0) as handle, contextlib.suppress(OSError):
        while True:
            handle.write(bytes(4096))
    os.truncate(path, path.stat().st_size - n_free * 4096)


def check_full_disk(stage: str, done: Path, folder: Path, n_free: int) -> bool:
    """Run `stage` where `n_free` pages are free, and again where there is room; returns whether the first failed."""
    with own_disk(done, folder) as root:
        before = contents(root)
        fill(folder / "filler", n_free)
        full = run(stage, root, REDO)
        if full.returncode:
            assert_one_sentence(full.stderr)
            assert "No space left" in full.stderr and "make room" in full.stderr and full.returncode == 1
            assert_as_before(root, before)
        (folder / "filler").unlink()
        assert n_free == 0 or run(stage, root, REDO).returncode == 0
        assert n_free == 0 or contents(root).items() >= before.items()
    return full.returncode == 1


@pytest.mark.parametrize("stage", STAGES)
def test_full_disk(stage, done, tmp_path):
    assert check_full_disk(stage, done, tmp_path / "disk", n_free=0)


@pytest.mark.long
@pytest.mark.parametrize("n_free", [1, 3, 10, 30, 100])
@pytest.mark.parametrize("stage", STAGES)
def test_disk_that_fills_up_in_the_middle(stage, n_free, done, tmp_path):
    check_full_disk(stage, done, tmp_path / "disk", n_free)


def limited(n_bytes: int):
    """What a child does before it starts: no file of more than `n_bytes`, as a quota or FAT would have it."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, n_bytes))


@pytest.mark.parametrize(("stage", "n_bytes"), [("04.clustering_som.py", 3000), ("05.evaluation.py", 500)])
def test_limit_on_the_size_of_files(stage, n_bytes, done, tmp_path):
    root = copied(done, tmp_path / "root")
    before = contents(root)
    stopped = run(stage, root, REDO, preexec_fn=limited(n_bytes))
    assert stopped.returncode == 1 and "File too large" in stopped.stderr
    assert_one_sentence(stopped.stderr)
    assert_as_before(root, before)


@pytest.mark.long
@pytest.mark.parametrize("n_bytes", [10, 100, 1000, 10_000, 100_000, 1_000_000])
@pytest.mark.parametrize("stage", [*STAGES, TRAINING])
def test_many_limits_on_the_size_of_files(stage, n_bytes, done, tmp_path):
    root = copied(done, tmp_path / "root")
    before = contents(root)
    stopped = run(stage, root, REDO, preexec_fn=limited(n_bytes))
    assert stopped.returncode == 1 or n_bytes > 10
    if stopped.returncode:
        assert stopped.returncode == 1 and "File too large" in stopped.stderr  # and not a setting that is refused
        assert_one_sentence(stopped.stderr)
        assert_as_before(root, before)


def common_user() -> tuple[str, ...]:
    """The beginning of a command that takes root's right to read and write everything away; skips without."""
    if os.geteuid() != 0:
        return ()
    command = ("setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-all")
    if shutil.which("setpriv") is None or subprocess.run([*command, "true"]).returncode:
        pytest.skip("root may write everywhere, and setpriv does not take that away here")
    return command


OUTPUT_DIRS = dict(zip(STAGES, ("data/x", "img/x", "data/x", "data/x", "data/x", "result/x", "result/x"), strict=True))


# 03 computes all features before it writes the first: a full disk, above, tells as much
FAST_TO_FAIL = [pytest.param(s, marks=pytest.mark.long) if s.startswith("03") else s for s in STAGES]


@pytest.mark.parametrize("stage", FAST_TO_FAIL)
def test_output_folder_that_can_not_be_written(stage, done, tmp_path):
    root = copied(done, tmp_path / "root")
    before, folder = contents(root), root / OUTPUT_DIRS[stage]
    folder.chmod(0o555)
    try:
        denied = run(stage, root, REDO, before=common_user())
    finally:
        folder.chmod(0o755)
    assert denied.returncode == 1 and "Permission denied" in denied.stderr and "writable" in denied.stderr
    assert_one_sentence(denied.stderr)
    assert_as_before(root, before)


def test_photograph_that_can_not_be_read(done, tmp_path):
    root = copied(done, tmp_path / "root")
    (root / "raw_img" / "x" / "0_1_0.jpg").chmod(0)
    assert run("01.img_preprocess.py", root, before=common_user()).returncode == 0
    with (root / "data" / "x" / "skipped.csv").open(encoding="utf-8", newline="") as handle:
        (row,) = csv.DictReader(handle)
    assert row["image"] == "0_1_0.jpg" and "ermission" in row["reason"]


# ---- Ctrl-C ----------------------------------------------------------------------------------------


def interrupted(stage: str, root: Path, seconds: float, *arguments: str, said: str = "REDO") -> tuple[int, str]:
    """Press Ctrl-C that long after the stage `said` that; returns exit code and stderr. No process is left."""
    given = TINY if stage == TRAINING else SETTINGS
    process = start(stage, root, *arguments, settings=given, stdout=subprocess.PIPE, start_new_session=True,
                    preexec_fn=hear_ctrl_c)  # fmt: skip
    return press_ctrl_c(process, lambda line: said in line, seconds)


@pytest.mark.parametrize("stage", [s for s in STAGES if s[:2] in ("01", "03", "04", "06")])
def test_interrupted_stage_says_so_and_leaves_what_was_there(stage, done, tmp_path):
    root = copied(done, tmp_path / "root")
    before = contents(root)
    exit_code, errors = interrupted(stage, root, 0.05, REDO)
    assert exit_code == 130 and "interrupted" in errors
    assert_one_sentence(errors)
    assert_as_before(root, before)


@pytest.mark.long
@pytest.mark.parametrize("stage", [*STAGES, TRAINING])
def test_interrupted_at_many_moments(stage, done, tmp_path):
    root = copied(done, tmp_path / "root")
    before = contents(root)
    seconds = 20 if stage == TRAINING else 8 if stage[:2] in ("03", "06") else 2
    for moment in np.linspace(0, seconds, 12):
        exit_code, errors = interrupted(stage, root, moment, REDO)
        assert "Traceback" not in errors
        if exit_code not in (0, -signal.SIGINT):  # one that comes after the end has nothing to interrupt
            assert exit_code == 130
            assert_one_sentence(errors)
            assert_as_before(root, before)
    assert run(stage, root).returncode == 0
    assert contents(root).items() >= before.items()


def test_interrupted_run_all_ends_with_one_sentence(done, tmp_path):
    root = copied(done, tmp_path / "root")
    exit_code, errors = interrupted("run_all.py", root, 0.3, REDO, "--only=04")
    assert exit_code == 130 and "Traceback" not in errors
    assert errors.count("interrupted") == 1 and "run_all.py --from 04" in errors


# ---- clocks, and files that change -----------------------------------------------------------------


@pytest.mark.parametrize("year", [1980, 2100])
def test_records_do_not_depend_on_the_clock(year, done, tmp_path, monkeypatch, capsys):
    root = copied(done, tmp_path / "root")
    monkeypatch.setenv("IMAGE_CLUSTER_ROOT", str(root))
    config.DATASET = config.TRAIN_DATASET = "x"
    config.N_JOBS, config.FEATURE_NETWORK, config.IMAGE_SIZE, config.SAVE_MASKS = 2, "pretrained", 75, True
    seconds = (year - 1970) * 365.25 * 86400
    for path in root.rglob("*"):
        os.utime(path, (seconds, seconds))
    for name in STAGES:
        load_stage(name).main()
        assert "unchanged" in capsys.readouterr().out, name
    # other content in a file that says to be older than all that was made from it
    photograph = root / "raw_img" / "x" / "0_1_0.jpg"
    before = (root / "img" / "x" / "0_1_0.jpg").read_bytes()
    photograph.write_bytes(corpus.encoded(corpus.product((150, 120), seed=9)))
    os.utime(photograph, (0, 0))
    load_stage("01.img_preprocess.py").main()
    assert (root / "img" / "x" / "0_1_0.jpg").read_bytes() != before


def at_work(root: Path, **options) -> subprocess.Popen:
    """Stage 01 as a program that has begun to write what it makes of 200 photographs, 1_1_000.jpg and so on."""
    image = corpus.encoded(corpus.product((600, 450)))
    corpus.lay_out(root / "raw_img" / "x", {f"1_1_{i:03d}.jpg": image for i in range(200)})
    process = start("01.img_preprocess.py", root, stdout=subprocess.PIPE, **{"stderr": None, **options})
    while not (root / "img" / "x").is_dir():
        time.sleep(0.01)
    return process


def test_photographs_that_vanish_while_the_stage_runs(root):
    process = at_work(root)
    for i in range(150, 200):
        (root / "raw_img" / "x" / f"1_1_{i:03d}.jpg").unlink()
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0
    n_out = len(list_images(root / "img" / "x"))
    assert n_out < 200 and f"200 images in = {n_out} out + {200 - n_out} skipped" in output
    assert "no such file" in (root / "data" / "x" / "skipped.csv").read_text(encoding="utf-8")
    # the next run knows of 150, whatever the first one made of the others
    assert "150 images in = 150 out + 0 skipped" in run("01.img_preprocess.py", root).stdout


@pytest.mark.skipif(sys.platform != "linux", reason="threads are used here")
def test_a_worker_that_the_system_ends_is_said_and_what_is_done_stays_done(root):
    process = at_work(root, stderr=subprocess.PIPE)
    workers = children_of(process.pid)
    os.kill(min(workers), signal.SIGKILL)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 1 and "lower N_JOBS" in errors
    assert_one_sentence(errors)
    assert workers and not any(map(is_running, workers))
    again = run("01.img_preprocess.py", root)
    assert again.returncode == 0 and "200 images in = 200 out + 0 skipped" in again.stdout


def test_second_run_of_a_stage_says_so_and_stops(root):
    first = at_work(root)
    second = run("01.img_preprocess.py", root)
    first_is_at_work = first.poll() is None
    output, _ = first.communicate(timeout=300)
    assert first.returncode == 0 and "200 images in = 200 out + 0 skipped" in output
    assert first_is_at_work and second.returncode == 1 and "already at work on x" in second.stderr
    assert_one_sentence(second.stderr)


def test_images_that_vanish_while_features_are_computed(done, tmp_path):
    root = copied(done, tmp_path / "root")
    command = [sys.executable, "-u", str(PROJECT / "03.feature_extraction.py"), *SETTINGS, REDO]
    process = subprocess.Popen(
        command, env=environment(root), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, encoding="utf-8"
    )
    while "images to compute" not in (line := process.stdout.readline()):
        assert line
    (root / "img" / "x" / "3_1_3.jpg").unlink()  # TensorFlow is loaded first, which takes seconds
    output, _ = process.communicate(timeout=300)
    assert "16 images in = 15 out + 1 skipped" in output
    assert "3_1_3.jpg" in (root / "data" / "x" / "features_skipped.csv").read_text(encoding="utf-8")


@pytest.mark.long
def test_thirty_thousand_photographs_in_one_folder(root):
    rng = np.random.default_rng(0)
    for i in range(30_000):
        colour = tuple(int(value) for value in rng.integers(0, 256, 3))
        corpus.lay_out(
            root / "raw_img" / "x", {f"{i // 20}_1_{i}.jpg": corpus.encoded(corpus.Image.new("RGB", (9, 9), colour))}
        )
    for stage in STAGES[:3]:
        finished = run(stage, root)
        assert finished.returncode == 0, finished.stderr
        assert "30000 images in = 30000 out + 0 skipped" in finished.stdout
        assert "unchanged" in run(stage, root).stdout


# ---- nothing outside the root ----------------------------------------------------------------------


@pytest.fixture
def elsewhere(tmp_path) -> Iterator[Path]:
    """A folder outside the root that nothing may happen to."""
    folder = tmp_path / "elsewhere"
    corpus.lay_out(
        folder, {"0_1_0.jpg": b"mine", "labels_true.csv": b"mine", ".a.tmp.jpg": b"mine", "sub/a.txt": b"mine"}
    )
    before = contents(folder)
    yield folder
    assert contents(folder) == before


@pytest.mark.parametrize("folder", ["data", "data/x", "img/x", "mask/x", "training_images/x", "model/x", "result/x"])
def test_folder_that_is_a_link_to_elsewhere(folder, done, tmp_path, elsewhere):
    root = copied(done, tmp_path / "root")
    if (root / folder).exists():
        shutil.rmtree(root / folder)
    (root / folder).parent.mkdir(exist_ok=True)
    (root / folder).symlink_to(elsewhere)
    refused = run("00.make_labels_true.py", root, "--LABEL_FROM=none")
    assert refused.returncode == 1 and "leads to another folder" in refused.stderr
    assert_one_sentence(refused.stderr)


def chosen(root: Path, monkeypatch, **values: object) -> None:
    monkeypatch.setenv("IMAGE_CLUSTER_ROOT", str(root))
    values = {"DATASET": "x", "TRAIN_DATASET": "x", "REDO": True, "N_JOBS": 1, "SAVE_MASKS": True} | values
    for name, value in values.items():
        setattr(config, name, value)


@pytest.mark.parametrize(
    ("stage", "folder"),
    [
        ("01.img_preprocess.py", "img/x/sub"),
        ("01.img_preprocess.py", "mask/x/sub"),
        ("make_training_image_folders.py", "training_images/x/0"),
        ("03.feature_extraction.py", "data/x/features_parts"),
        ("06.visualization.py", "result/x/clusters"),
        ("06.visualization.py", "result/x/clusters/0"),
        ("06.visualization.py", "result/x/contact_sheets"),
    ],
)
def test_sub_folder_that_is_a_link_to_elsewhere(stage, folder, done, tmp_path, elsewhere, monkeypatch):
    root = copied(done, tmp_path / "root")
    corpus.lay_out(root / "raw_img" / "x" / "sub", {"0_1_0.jpg": corpus.encoded(corpus.product())})
    if (root / folder).exists():
        shutil.rmtree(root / folder)
    (root / folder).parent.mkdir(exist_ok=True)
    (root / folder).symlink_to(elsewhere)
    chosen(root, monkeypatch, CLUSTER_FOLDERS="copy", FEATURE_NETWORK="pretrained", IMAGE_SIZE=75)
    with pytest.raises(UserError, match="leads to another folder"):
        load_stage(stage).main()


@pytest.mark.parametrize("name", ["../../../elsewhere/0_1_0.jpg", "{tmp}/elsewhere/0_1_0.jpg"])
def test_record_of_a_stranger_removes_nothing_elsewhere(name, done, tmp_path, elsewhere, monkeypatch):
    root = copied(done, tmp_path / "root")
    chosen(root, monkeypatch)
    path = root / "data" / "x" / "preprocess.json"
    record = json.loads(path.read_text(encoding="utf-8"))
    record["images"][name.format(tmp=tmp_path)] = dict(next(iter(record["images"].values())))
    path.write_text(json.dumps(record), encoding="utf-8")
    with contextlib.suppress(UserError):
        load_stage("01.img_preprocess.py").main()


@pytest.mark.parametrize("source", ["raw_img/x", "result/x/clusters", "."])
def test_manifest_of_a_stranger_removes_no_photograph(source, done, tmp_path, monkeypatch):
    root = copied(done, tmp_path / "root")
    chosen(root, monkeypatch)
    own, photograph = root / "result" / "x" / "clusters" / "0" / "own.jpg", root / "raw_img" / "x" / "0_1_0.jpg"
    corpus.lay_out(own.parent, {"own.jpg": b"mine"})
    placed = {"../../../raw_img/x/0_1_0.jpg": "0_1_0.jpg", "0/own.jpg": "0/own.jpg"}
    (own.parent.parent / ".placed.json").write_text(json.dumps({"from": source, "placed": placed}), encoding="utf-8")
    with pytest.raises(UserError, match="is damaged"):
        load_stage("06.visualization.py").main()
    assert own.exists() and photograph.exists()


# ---- the same answer -------------------------------------------------------------------------------


def without_times(root: Path) -> dict[str, object]:
    """`contents`, without the fingerprints of files that tell times."""
    found = contents(root)
    for name in ("result/x/evaluation.json", "result/x/report.json"):
        for prints in (found[name]["made_from"]["inputs"], found[name]["outputs"]):
            for path in [path for path in prints if path.endswith((".json", ".html"))]:
                del prints[path]
    return found


def without_report_times(root: Path) -> str:
    """report.html without its table of seconds."""
    page = (root / "result" / "x" / "report.html").read_text(encoding="utf-8")
    return re.sub(r"(\.py</th><td>)[\d.]+", r"\1", page)


def test_any_number_of_workers_gives_the_same_bytes(done, tmp_path):
    root = tmp_path / "root"
    shutil.copytree(done / "raw_img", root / "raw_img")
    one = {**environment(root), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    for stage in STAGES:
        command = [sys.executable, str(PROJECT / stage), *SETTINGS, "--N_JOBS=1"]
        assert subprocess.run(command, env=one, stdout=subprocess.DEVNULL).returncode == 0
    expected, found = without_times(done), without_times(root)
    assert found.keys() == expected.keys()
    assert [name for name in expected if expected[name] != found[name]] == []
    assert without_report_times(root) == without_report_times(done)


def test_training_gives_the_same_weights_for_any_number_of_workers(done, tmp_path):
    written = []
    for n_jobs in (1, 2):
        root = copied(done, tmp_path / f"root{n_jobs}")
        trained = run(TRAINING, root, f"--N_JOBS={n_jobs}", "--REFIT=False")
        assert trained.returncode == 0, trained.stderr
        model_dir = root / "model" / "x"  # what tells seconds is left out
        written.append({p.name: p.read_bytes() for p in model_dir.iterdir() if p.suffix in (".h5", ".npz", ".txt")})
    assert {"feature_network.h5", "classes.txt"} <= written[0].keys()
    assert written[0] == written[1]
