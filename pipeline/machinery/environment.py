"""The virtual environment .venv that run_all.py and run_tests.py make and enter. Standard library only."""

import contextlib
import hashlib
import os
import subprocess
import sys
import venv
from pathlib import Path

from pipeline.machinery.errors import show_any_text
from pipeline.machinery.paths import PROJECT

VENV_DIR = PROJECT / ".venv"
PYTHON = VENV_DIR / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
OLDEST, NEWEST = (3, 10), (3, 13)


def enter(requirements: str) -> None:
    """Go on in .venv, with the packages of the file `requirements` installed; make and fill .venv where need be.

    Returns at once in the process that runs in .venv; in any other, runs the same program there and exits with its
    exit code.
    """
    show_any_text()
    if Path(sys.prefix).resolve() == VENV_DIR.resolve():
        install(requirements)
        return
    if not works():
        create()
    process = subprocess.Popen([str(PYTHON), *sys.argv])
    while True:
        with contextlib.suppress(KeyboardInterrupt):  # the program gets it too, and ends in its own time
            sys.exit(process.wait())


def works() -> bool:
    """Whether .venv has a Python that starts."""
    return PYTHON.exists() and subprocess.run([str(PYTHON), "-c", ""], capture_output=True).returncode == 0


def create() -> None:
    """Make .venv from the Python that runs this; exits with a sentence where that is not possible."""
    if not OLDEST <= sys.version_info[:2] <= NEWEST:
        sys.exit(
            f"error: TensorFlow needs Python {OLDEST[0]}.{OLDEST[1]} to {NEWEST[0]}.{NEWEST[1]}, this is "
            f"{sys.version_info[0]}.{sys.version_info[1]}: start this with another, such as python3.13 {sys.argv[0]}"
        )
    print(f"making the virtual environment {VENV_DIR}", flush=True)
    # without pip: Debian's Python has no ensurepip unless python3-venv is installed; the outer pip fills it
    venv.create(VENV_DIR, clear=True, with_pip=False, symlinks=os.name != "nt")


def install(requirements: str) -> None:
    """Install the packages that the file `requirements` names into .venv, unless that was done before."""
    listed = (PROJECT / requirements).read_bytes() + (PROJECT / "requirements.txt").read_bytes()
    stamp = VENV_DIR / f"installed-{Path(requirements).stem}"
    digest = hashlib.sha256(listed + sys.version.encode()).hexdigest()
    if stamp.exists() and stamp.read_text(encoding="utf-8") == digest:
        return
    print(f"installing the packages of {requirements} (once; about 3 GB on the disk)", flush=True)
    command = [*outer_pip(), "install", "--quiet", "--disable-pip-version-check", "-r", str(PROJECT / requirements)]
    if subprocess.call(command) != 0:
        sys.exit(f"error: pip could not install {requirements}: see its message above, then run this again")
    stamp.write_text(digest, encoding="utf-8")


def outer_pip() -> list[str]:
    """Return the command of a pip that installs into .venv: its own, or that of the Python it was made from."""
    if subprocess.run([sys.executable, "-m", "pip", "--version"], capture_output=True).returncode == 0:
        return [sys.executable, "-m", "pip"]
    return [vars(sys)["_base_executable"], "-m", "pip", "--python", sys.executable]
