"""Run the tests in .venv, with all that they need installed there.

python3 run_tests.py                   every test but the long ones, on all cores
python3 run_tests.py -m long           the long forms (kills, fuzzing, load)
python3 run_tests.py tests/test_00_make_labels_true.py -k folder     any arguments of pytest; in one process
"""

import os
import subprocess
import sys

from pipeline.machinery import environment


def main() -> int:
    environment.enter("requirements-test.txt")
    arguments = sys.argv[1:]
    chosen = [] if "-m" in arguments else ["-m", "not long"]
    if not any(argument.startswith(("tests", "-k", "-n", "--pdb")) for argument in arguments):
        n_cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        chosen += ["-n", str(n_cores), "--dist", "loadgroup"]
    return subprocess.call([sys.executable, "-m", "pytest", *chosen, *arguments], cwd=environment.PROJECT)


if __name__ == "__main__":
    sys.exit(main())
