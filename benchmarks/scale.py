"""Seconds and memory of stages 01, 03, 04 and of an assignment, by number of images and by who does the work.

    python benchmarks/scale.py                                              everything, at 1,000 images
    python benchmarks/scale.py --what=04 --sizes=1000,10000,100000,1000000 --features=64
    python benchmarks/scale.py --what=01 --sizes=1000 --ways=1,2,dask --repeats=3
    python benchmarks/scale.py --what=assign --sizes=1000,10000,100000 --features=2048

--what: 01, 03 (drawn photographs, the start network as it is), 04 or assign (drawn features, models of 40 photographs;
100 new photographs, 10 of them of two new models). --ways: 1 and 2 are numbers of processes of this machine, dask the
same with a scheduler and two workers started as the README says. The ways take turns, --repeats times; each row is the
median. Workers import what a stage needs when they are first asked for it: that run is a row of its own, "dask, first".
Where an image's rate does not depend on their number, a size may be measured in part: --part=2000 draws so many.
--earlier=--SOM_EPOCHS=1: a setting of the run that is assigned to, which is not measured.
Printed: seconds by the clock, seconds of all processors together, and the largest peak of memory of a process, its
mapped files included. Of the scheduler's and the workers' seconds those are taken away that they use while they wait.
"""

import json
import os
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

PROJECT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(PROJECT))
PYTHON = sys.executable
SCRIPTS = {
    "01": "01.img_preprocess.py",
    "03": "03.feature_extraction.py",
    "04": "04.clustering_som.py",
    "assign": "04.clustering_som.py",
}
SETTINGS = ("--TRAIN_DATASET=none", "--FEATURE_NETWORK=pretrained")
N_WORKERS = 2
N_NEW, N_NEW_MODELS, PER_MODEL = 100, 2, 40
DIFFERENT = 200  # photographs that are drawn; of more, the others are copies with other bytes behind the picture
IDLE_SECONDS = 10  # for which scheduler and workers are watched while they wait


class Used(NamedTuple):
    """What a run used."""

    seconds: float  # by the clock
    of_processors: float  # seconds, of all together
    peak: float  # MB, of the process that had most


def draw_features(folder: Path, n: int, n_features: int, seed: int, models: np.ndarray) -> None:
    """Write features.npy and img_paths.txt: n rows around those of `models` (n,), as stage 03 does."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    features = np.lib.format.open_memmap(folder / "features.npy", "w+", np.float32, (n, n_features))
    for start in range(0, n, 10_000):
        some = models[start : start + 10_000]
        centres = np.stack([np.random.default_rng(model).standard_normal(n_features) for model in some.tolist()])
        features[start : start + 10_000] = centres + 0.7 * rng.standard_normal((len(some), n_features))
    features.flush()
    (folder / "img_paths.txt").write_text("".join(f"{seed}_{row}.jpg\n" for row in range(n)))


def draw_photographs(folder: Path, n: int) -> None:
    """Write `n` photographs of 300 x 300 pixels."""
    command = [PYTHON, str(PROJECT / "make_sample_images.py"), f"--SAMPLE_MODELS={DIFFERENT // 20}",
               "--SAMPLE_TRAIN_MODELS=1", "--SAMPLE_MIN_IMAGES=20", "--SAMPLE_MAX_IMAGES=20"]  # fmt: skip
    root = folder.parents[1]
    subprocess.run(command, env={**os.environ, "IMAGE_CLUSTER_ROOT": str(root)}, check=True, capture_output=True)
    drawn = sorted((root / "raw_img" / "sample").rglob("*.jpg"))
    folder.mkdir(parents=True)
    for i in range(n):
        data = drawn[i % len(drawn)].read_bytes()
        (folder / f"{i}.jpg").write_bytes(data + (b"%d" % i if i >= len(drawn) else b""))  # behind the picture's end


def prepare(what: str, root: Path, n: int, n_features: int, earlier: list[str]) -> None:
    """Lay out all that the measured run reads; `earlier` : settings of the run that is assigned to."""
    data = root / "data"
    if what in ("01", "03"):
        draw_photographs(root / ("raw_img" if what == "01" else "img") / "x", n)
        return
    models = np.random.default_rng(0).integers(0, max(1, n // PER_MODEL), n)
    draw_features(data / ("x" if what == "04" else "today"), n, n_features, 0, models)
    if what == "assign":
        some = np.concatenate([models[: N_NEW - 5 * N_NEW_MODELS], np.repeat(n + np.arange(N_NEW_MODELS), 5)])
        draw_features(data / "x", N_NEW, n_features, 1, some)
        run_measured([PYTHON, str(PROJECT / SCRIPTS["04"]), *SETTINGS, "--DATASET=today", *earlier], root)


def run_measured(command: list[str], root: Path) -> Used:
    """Run a program."""
    before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    watched = [PYTHON, "-c", WATCHED, *command]
    done = subprocess.run(watched, env={**os.environ, "IMAGE_CLUSTER_ROOT": str(root)}, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)}: {done.stderr}")
    seconds, after = time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_CHILDREN)
    of_processors = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    peak = float(done.stdout.splitlines()[-1]) / (1e6 if sys.platform == "darwin" else 1e3)
    return Used(seconds, of_processors, peak)


# the peak of the largest process of one run alone: that of all children so far would be the largest run's
WATCHED = """
import resource, subprocess, sys
done = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(done.returncode)
"""


class Machines:
    """A Dask scheduler and its workers on this machine, all of them there and idle."""

    def __init__(self, folder: Path):
        import distributed

        where = folder / "scheduler.json"
        self.programs = [self._start("scheduler", "--host", "127.0.0.1", "--port", "0", "--scheduler-file", str(where))]
        while not (where.exists() and where.read_text()):
            time.sleep(0.1)
        self.address = json.loads(where.read_text())["address"]
        self.programs += [
            self._start("worker", self.address, "--nthreads", "1", "--no-nanny") for _ in range(N_WORKERS)
        ]
        with distributed.Client(self.address) as client:
            client.wait_for_workers(N_WORKERS)
        time.sleep(1)
        before = self.used()[0]
        time.sleep(IDLE_SECONDS)
        self.idle = (self.used()[0] - before) / IDLE_SECONDS  # seconds of processors in a second

    def _start(self, *arguments: str) -> subprocess.Popen:
        command = [PYTHON, "-m", "dask", *arguments, "--no-dashboard"]
        return subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def used(self) -> tuple[float, float]:
        """Return the seconds of processors so far, and the largest peak memory, MB (Linux)."""
        seconds, peak = 0.0, 0.0
        for program in self.programs:
            ticks = Path(f"/proc/{program.pid}/stat").read_text().rpartition(")")[2].split()
            seconds += (int(ticks[11]) + int(ticks[12])) / os.sysconf("SC_CLK_TCK")
            status = Path(f"/proc/{program.pid}/status").read_text()
            peak = max(peak, int(re.search(r"VmHWM:\s+(\d+)", status)[1]) / 1e3)
        return seconds, peak

    def run(self, command: list[str], root: Path) -> Used:
        """Run a program that these machines work for."""
        before, _ = self.used()
        own = run_measured([*command, f"--SCHEDULER={self.address}"], root)
        after, peak = self.used()
        of_workers = max(0.0, after - before - self.idle * own.seconds)
        return Used(own.seconds, own.of_processors + of_workers, max(own.peak, peak))

    def end(self) -> None:
        for program in self.programs:
            program.terminate()
            program.wait()


def measure(what: str, ways: list[str], n_repeats: int, root: Path) -> dict[str, list[Used]]:
    """Return what each run of each way used."""
    command = [PYTHON, str(PROJECT / SCRIPTS[what]), *SETTINGS, "--DATASET=x", "--REDO=True"]
    command += ["--ASSIGN_TO=today"] * (what == "assign")
    found: dict[str, list[Used]] = {}
    machines = None
    try:
        if "dask" in ways:
            machines = Machines(root)
            found["dask, first"] = [machines.run(command, root)]
        for _ in range(n_repeats):
            for way in ways:
                here = [*command, f"--N_JOBS={way}"]
                use = machines.run(command, root) if way == "dask" else run_measured(here, root)
                found.setdefault(way, []).append(use)
    finally:
        if machines:
            machines.end()
    return found


def main() -> None:
    given = dict(argument.removeprefix("--").split("=", 1) for argument in sys.argv[1:])
    n_features, ways = int(given.get("features", 64)), given.get("ways", "1,2,dask").split(",")
    print("what     images   features   way           seconds   processors   peak memory   ms of processors an image")
    for what in given.get("what", "01,03,04,assign").split(","):
        for n in map(int, given.get("sizes", "1000").split(",")):
            with tempfile.TemporaryDirectory(dir=given.get("folder")) as folder:
                root, part = Path(folder), min(n, int(given.get("part", n)))
                prepare(what, root, part, n_features, [given["earlier"]] if "earlier" in given else [])
                found = measure(what, ways, int(given.get("repeats", 1)), root)
            for way, runs in found.items():
                seconds, of_processors, peak = (statistics.median(values) for values in zip(*runs, strict=True))
                rate, of = 1e3 * of_processors / (N_NEW if what == "assign" else part), f" of {n}" * (part < n)
                width = n_features if what in ("04", "assign") else 0
                print(f"{what:6s} {part:8d}{of} {width:9d}   {way:11s} {seconds:9.1f} {of_processors:12.1f} "
                      f"{peak:10.0f} MB {rate:12.2f}", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
