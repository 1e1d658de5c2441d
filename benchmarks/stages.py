"""Seconds and peak memory of every stage on a data set, from nothing: what a user waits for and needs.

    python benchmarks/stages.py --DATASET=large --FEATURE_NETWORK=pretrained
    python benchmarks/stages.py --only 04 --DATASET=large
    python benchmarks/stages.py --limit-mb=4096 --limit-files=256 --DATASET=large --TRAIN_DATASET=large

Takes the arguments of run_all.py; --limit-mb and --limit-files are what a smaller machine would allow a process
(RLIMIT_DATA and RLIMIT_NOFILE, `ulimit -d` and `-n`). Runs the stages with --REDO=True, each as its own process, and
prints for each the seconds; the peak of the memory of its own of all its processes together (anonymous pages, which
can't be given back, looked at 20 times a second); and the peak resident memory of the largest of them, which counts
the pages of mapped files too. Linux.
"""

import argparse
import os
import resource
import subprocess
import sys
import threading
import time
from collections import defaultdict
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(PROJECT))

import run_all  # noqa: E402


def children_of() -> dict[int, list[int]]:
    """The processes that each process started."""
    found = defaultdict(list)
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = (entry / "stat").read_text().rpartition(")")[2].split()[1]
            except OSError:
                continue
            found[int(parent)].append(int(entry.name))
    return found


def own_memory(pid: int) -> float:
    """Anonymous memory of a process, those it started and theirs, in MB."""
    children, todo, total = children_of(), [pid], 0
    while todo:
        one = todo.pop()
        todo += children[one]
        try:
            lines = Path(f"/proc/{one}/status").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) for line in lines if line.startswith(("RssAnon:", "RssShmem:")))
    return total / 2**10


def watched(process: subprocess.Popen, peak: list[float]) -> None:
    """Keep the highest `own_memory` of `process` in `peak` until it ends."""
    while process.returncode is None:
        peak[0] = max(peak[0], own_memory(process.pid))
        time.sleep(0.05)


def measured(step: run_all.Step, overrides: list[str], limits: dict[int, int]) -> tuple[float, float, float, int]:
    """Run a stage; returns its seconds, its own peak memory, the resident one of its largest process, its exit code."""

    def limit() -> None:
        for what, value in limits.items():
            resource.setrlimit(what, (value, value))

    begin = time.perf_counter()
    arguments = [sys.executable, str(PROJECT / step.stage), *run_all.arguments_of(step, overrides), "--REDO=True"]
    process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, preexec_fn=limit)
    peak = [0.0]
    watcher = threading.Thread(target=watched, args=(process, peak), daemon=True)
    watcher.start()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    watcher.join()
    return time.perf_counter() - begin, peak[0], usage.ru_maxrss / 2**10, process.returncode


def main() -> int:
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--limit-mb", type=int)
    parser.add_argument("--limit-files", type=int)
    asked, rest = parser.parse_known_args()
    limits = {resource.RLIMIT_DATA: asked.limit_mb and asked.limit_mb << 20, resource.RLIMIT_NOFILE: asked.limit_files}
    limits = {what: value for what, value in limits.items() if value}
    sys.argv[1:] = rest
    options, overrides = run_all.parsed_arguments()
    steps = run_all.steps_of(options, overrides)
    print(f"{os.cpu_count()} cores; limits: {asked.limit_mb} MB, {asked.limit_files} files\n")
    print("| stage | data set | seconds | own MB | resident MB |\n|---|---|---|---|---|")
    for step in steps:
        seconds, own, largest, exit_code = measured(step, overrides, limits)
        print(f"| `{step.stage}` | {step.dataset} | {seconds:.1f} | {own:.0f} | {largest:.0f} |", flush=True)
        if exit_code not in (0, run_all.NO_LABELS):
            return exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
