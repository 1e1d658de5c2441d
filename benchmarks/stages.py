"""Seconds and peak memory of every stage on a data set, from nothing: what a user waits for and needs.

    python benchmarks/stages.py --DATASET=large --FEATURE_NETWORK=pretrained
    python benchmarks/stages.py --only 04 --DATASET=large
    python benchmarks/stages.py --limit-mb=4096 --limit-files=256 --DATASET=large --TRAIN_DATASET=large

Takes the arguments of run_all.py; --limit-mb and --limit-files are what a smaller machine would allow a process
(RLIMIT_DATA and RLIMIT_NOFILE, `ulimit -d` and `-n`). Runs the stages with --REDO=True, each as its own process, and
prints for each the seconds and, looked at 20 times a second, the peaks of
- the memory that it holds: resident pages of all its processes together, those of the interpreter and the libraries
  included (of the process that has most of these: they share them), without mapped files below the root, whose pages
  the system drops when it needs room;
- the part of it that is its own (anonymous pages and shared memory: what the stage itself asked for);
- the mapped files that were left out.
Linux.
"""

import argparse
import os
import re
import resource
import subprocess
import sys
import threading
import time
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

PROJECT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(PROJECT))

import run_all  # noqa: E402
from pipeline.machinery import paths  # noqa: E402


def children_of() -> dict[int, list[int]]:
    """Return the processes that each process started."""
    found = defaultdict(list)
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = (entry / "stat").read_text().rpartition(")")[2].split()[1]
            except OSError:
                continue
            found[int(parent)].append(int(entry.name))
    return found


class Memory(NamedTuple):
    """Resident memory in MB."""

    held: float
    own: float
    mapped: float


def kilobytes(text: str, *names: str) -> int:
    """Sum of the lines "NAME:  123 kB" of a file of /proc."""
    return sum(int(value) for name, value in re.findall(r"^(\w+):\s+(\d+) kB$", text, re.M) if name in names)


def memory_of(pid: int, root: str) -> Memory:
    """Return what a process and all that came of it have in memory; `root`: files below it are left out of `held`."""
    children, todo, own, libraries, mapped = children_of(), [pid], 0, 0, 0
    while todo:
        one = Path(f"/proc/{todo.pop()}")
        todo += children[int(one.name)]
        try:
            own += kilobytes((one / "smaps_rollup").read_text(), "Pss_Anon", "Pss_Shmem")
            data = 0
            if root in (one / "maps").read_text():
                for mapping in re.split(r"^(?=[0-9a-f]+-[0-9a-f]+ )", (one / "smaps").read_text(), flags=re.M):
                    data += kilobytes(mapping, "Rss") if root in mapping.partition("\n")[0] else 0
            # read last: files that were unmapped since then must not pass for libraries
            file_pages = kilobytes((one / "status").read_text(), "RssFile")
        except OSError:  # it has ended
            continue
        libraries, mapped = max(libraries, file_pages - data), max(mapped, data)
    return Memory((own + libraries) / 2**10, own / 2**10, mapped / 2**10)


def watch(process: subprocess.Popen, peaks: list[Memory]) -> None:
    """Keep the highest values of `memory_of` in `peaks[0]` until `process` ends."""
    root = str(paths.root())
    while process.returncode is None:
        peaks[0] = Memory(*map(max, peaks[0], memory_of(process.pid, root)))
        time.sleep(0.05)


def measured(step: run_all.Step, overrides: list[str], limits: dict[int, int]) -> tuple[float, Memory, int]:
    """Run a stage; returns its seconds, its peak memory and its exit code."""

    def limit() -> None:
        for what, value in limits.items():
            resource.setrlimit(what, (value, value))

    begin = time.perf_counter()
    arguments = [sys.executable, str(PROJECT / step.stage), *run_all.arguments_of(step, overrides), "--REDO=True"]
    process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, preexec_fn=limit)
    peaks = [Memory(0, 0, 0)]
    watcher = threading.Thread(target=watch, args=(process, peaks), daemon=True)
    watcher.start()
    process.wait()
    watcher.join()
    return time.perf_counter() - begin, peaks[0], process.returncode


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
    print("| stage | data set | seconds | held MB | own MB | mapped MB |\n|---|---|---|---|---|---|")
    for step in steps:
        seconds, peak, exit_code = measured(step, overrides, limits)
        cells = " | ".join(f"{value:.0f}" for value in peak)
        print(f"| `{step.stage}` | {step.dataset} | {seconds:.1f} | {cells} |", flush=True)
        if exit_code not in (0, run_all.NO_LABELS):
            return exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
