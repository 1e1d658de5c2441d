"""Seconds and memory of stages 01, 03, 04 and of an assignment, by number of images and by who does the work.

    python benchmarks/scale.py --what=04 --sizes=1000,10000,100000,1000000 --features=64
    python benchmarks/scale.py --what=01 --sizes=1000 --ways=1,2,dask
    python benchmarks/scale.py --what=assign --sizes=1000,10000,100000

--what: 01, 03 (drawn photographs, the start network as it is), 04 or assign (drawn features, models of 40 photographs;
100 new photographs, 10 of them of two new models). --ways: 1 and 2 are numbers of processes of this machine, dask the
same with a scheduler and two workers started as the README says. Where an image's rate does not depend on their
number, a size may be measured in part: --part=2000 draws so many and says the rate.
Printed: seconds by the clock, seconds of all processors together (the workers' too), and the largest peak of memory of
a process, its mapped files included.
"""

import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

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
DIFFERENT = 200  # photographs that are drawn; of more, the others are copies with one other pixel


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


def prepare(what: str, root: Path, n: int, n_features: int) -> None:
    """Lay out all that the measured run reads."""
    data = root / "data"
    if what in ("01", "03"):
        draw_photographs(root / ("raw_img" if what == "01" else "img") / "x", n)
        return
    models = np.random.default_rng(0).integers(0, max(1, n // PER_MODEL), n)
    draw_features(data / ("x" if what == "04" else "today"), n, n_features, 0, models)
    if what == "assign":
        some = np.concatenate([models[: N_NEW - 5 * N_NEW_MODELS], np.repeat(n + np.arange(N_NEW_MODELS), 5)])
        draw_features(data / "x", N_NEW, n_features, 1, some)
        run_measured([PYTHON, str(PROJECT / SCRIPTS["04"]), *SETTINGS, "--DATASET=today"], root)


def run_measured(command: list[str], root: Path) -> tuple[float, float, float]:
    """Run a program; return its seconds by the clock and of processors, and its peak memory, MB."""
    before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    watched = [PYTHON, "-c", WATCHED, *command]
    done = subprocess.run(watched, env={**os.environ, "IMAGE_CLUSTER_ROOT": str(root)}, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)}: {done.stderr}")
    seconds, after = time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_CHILDREN)
    of_processors = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return seconds, of_processors, float(done.stdout.splitlines()[-1]) / (1e6 if sys.platform == "darwin" else 1e3)


# the peak of the largest process of one run alone: that of all children so far would be the largest run's
WATCHED = """
import resource, subprocess, sys
done = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(done.returncode)
"""


class Machines:
    """A Dask scheduler and its workers on this machine."""

    def __init__(self, folder: Path):
        where = folder / "scheduler.json"
        self.programs = [self._start("scheduler", "--host", "127.0.0.1", "--port", "0", "--scheduler-file", str(where))]
        while not (where.exists() and where.read_text()):
            time.sleep(0.1)
        self.address = json.loads(where.read_text())["address"]
        self.programs += [
            self._start("worker", self.address, "--nthreads", "1", "--no-nanny") for _ in range(N_WORKERS)
        ]

    def _start(self, *arguments: str) -> subprocess.Popen:
        command = [PYTHON, "-m", "dask", *arguments, "--no-dashboard"]
        return subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def used(self) -> tuple[float, float]:
        """Return the seconds of processors so far, and the largest peak memory, MB (Linux)."""
        seconds, peak = 0.0, 0.0
        for program in self.programs:
            ticks = Path(f"/proc/{program.pid}/stat").read_text().rpartition(")")[2].split()
            seconds += (int(ticks[11]) + int(ticks[12])) / os.sysconf("SC_CLK_TCK")
            peak = max(
                peak, int(re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{program.pid}/status").read_text())[1]) / 1e3
            )
        return seconds, peak

    def end(self) -> None:
        for program in self.programs:
            program.terminate()
            program.wait()


def measure(what: str, way: str, root: Path) -> tuple[float, float, float]:
    """Return the seconds by the clock and of processors, and the peak memory, MB, of one run."""
    command = [PYTHON, str(PROJECT / SCRIPTS[what]), *SETTINGS, "--DATASET=x", "--REDO=True"]
    command += ["--ASSIGN_TO=today"] * (what == "assign")
    if way != "dask":
        return run_measured([*command, f"--N_JOBS={way}"], root)
    machines = Machines(root)
    try:
        time.sleep(5)  # until the workers are there
        before, _ = machines.used()
        seconds, of_processors, peak = run_measured([*command, f"--SCHEDULER={machines.address}"], root)
        after, of_workers = machines.used()
        return seconds, of_processors + after - before, max(peak, of_workers)
    finally:
        machines.end()


def main() -> None:
    given = dict(argument.removeprefix("--").split("=") for argument in sys.argv[1:])
    what, n_features = given.get("what", "04"), int(given.get("features", 64))
    print("what        images   features   way    seconds   processors   peak memory   ms of processors an image")
    for n in map(int, given.get("sizes", "1000,10000").split(",")):
        with tempfile.TemporaryDirectory(dir=given.get("folder")) as folder:
            root, part = Path(folder), min(n, int(given.get("part", n)))
            prepare(what, root, part, n_features)
            for way in given.get("ways", "1,2,dask").split(","):
                seconds, of_processors, peak = measure(what, way, root)
                rate, of = 1e3 * of_processors / (N_NEW if what == "assign" else part), f" of {n}" * (part < n)
                width = n_features if what in ("04", "assign") else 0
                print(f"{what:6s} {part:11d}{of} {width:9d}   {way:4s} {seconds:9.1f} {of_processors:12.1f} "
                      f"{peak:10.0f} MB {rate:12.2f}", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
