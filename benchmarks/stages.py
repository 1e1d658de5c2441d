"""Seconds and peak memory of every stage on a data set, from nothing: what a user waits for and needs.

    python benchmarks/stages.py --DATASET=large --FEATURE_NETWORK=pretrained
    python benchmarks/stages.py --only 04 --DATASET=large

Takes the arguments of run_all.py. Runs the stages with --REDO=True, each as its own process, and prints for each the
seconds and the peak of the resident memory of its largest process, in MB. Linux and macOS.
"""

import os
import subprocess
import sys
import time
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(PROJECT))

import run_all  # noqa: E402


def measured(step: run_all.Step, overrides: list[str]) -> tuple[float, float, int]:
    """Run a stage; returns its seconds, its peak memory in MB and its exit code."""
    begin = time.perf_counter()
    arguments = run_all.arguments_of(step, overrides)
    process = subprocess.Popen(
        [sys.executable, str(PROJECT / step.stage), *arguments, "--REDO=True"], stdout=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    unit = 2**20 if sys.platform == "darwin" else 2**10  # ru_maxrss: bytes on macOS, kB on Linux
    return time.perf_counter() - begin, usage.ru_maxrss / unit, process.returncode


def main() -> int:
    options, overrides = run_all.parsed_arguments()
    steps = run_all.steps_of(options, overrides)
    print(f"{os.cpu_count()} cores\n\n| stage | data set | seconds | peak MB |\n|---|---|---|---|")
    for step in steps:
        seconds, megabytes, exit_code = measured(step, overrides)
        print(f"| `{step.stage}` | {step.dataset} | {seconds:.1f} | {megabytes:.0f} |", flush=True)
        if exit_code not in (0, run_all.NO_LABELS):
            return exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
