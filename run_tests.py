"""Run the tests in .venv, with all that they need installed there.

python3 run_tests.py                   every test but the long ones
python3 run_tests.py -m long           the long forms (kills, fuzzing, load)
python3 run_tests.py tests/test_00_make_labels_true.py -k folder     any arguments of pytest
"""

import subprocess
import sys

from pipeline.machinery import environment


def main() -> int:
    environment.enter("requirements-test.txt")
    chosen = [] if "-m" in sys.argv else ["-m", "not long"]
    return subprocess.call([sys.executable, "-m", "pytest", *chosen, *sys.argv[1:]], cwd=environment.PROJECT)


if __name__ == "__main__":
    sys.exit(main())
