"""Run a stage as a program: one run at a time, on the cores it may use, errors and Ctrl-C as one sentence.

The guard of every stage is `run(main, __doc__)`.
"""

import contextlib
import os
import random
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import NoReturn

import filelock

import config
from pipeline.machinery import settings
from pipeline.machinery.errors import UserError, remedy_of, show_any_text
from pipeline.machinery.executor import connected
from pipeline.machinery.paths import check_within_root, display_path, root, written_dirs


def run(main: Callable[[], None], doc: str) -> None:
    """Run a stage's `main` as a program, with the settings that the command line gives.

    doc : the stage's docstring, which `--help` shows, and whose `Config:` line says which data set the stage works on

    Exit codes: 0 done, 1 a UserError, 2 a SettingError, 130 interrupted. A second run of the same stage on the same
    data set while the first is at work is a UserError.
    """
    show_any_text()
    arguments = sys.argv[1:]
    if {"--help", "-h"} & set(arguments):
        print(settings.help_text(doc))
        return
    sys.unraisablehook = interrupt_again
    interrupts: list[int] = []

    def interrupt(number: int, frame: FrameType | None) -> None:
        interrupts.append(number)
        signal.default_int_handler(number, frame)

    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else it is ignored, as in the background
        signal.signal(signal.SIGINT, interrupt)
    stopped = "interrupted; files of earlier runs are as they were, run it again to go on"
    try:
        for name, value in settings.apply_overrides(arguments).items():
            print(f"{name} = {value!r}")
        settings.check()
        keep_to_cores()
        for dataset in (config.DATASET, config.TRAIN_DATASET):
            for folder in written_dirs(dataset):
                check_within_root(folder / "a file")
        with alone(Path(sys.argv[0]).name, settings.dataset_of(doc)), connected():
            try:
                main()
            except BaseException as error:
                # an iteration that it broke off lives as long as the error, and with it threads in the middle of a file
                traceback.clear_frames(error.__traceback__)
                raise
    except UserError as error:
        sys.exit(report_error(str(error), error.exit_code))
    except KeyboardInterrupt:
        leave(report_error(stopped, 130))
    except Exception as error:
        if interrupts:  # native code, TensorFlow's for one, may turn an interrupt into an error of its own
            leave(report_error(stopped, 130))
        if not isinstance(error, OSError):
            raise
        # a full disk, a folder that can't be written, a file that vanished: said with its path, no traceback
        where = f"{error.filename or root()}: "
        remedy = remedy_of(error) or "see to it and run this again"
        sys.exit(report_error(f"{where}{error.strerror or error}: {remedy}", 1))


def interrupt_again(dropped: "sys.UnraisableHookArgs") -> None:
    """Send Ctrl-C once more where Python dropped it: errors raised while an object is removed are lost."""
    if issubclass(dropped.exc_type, KeyboardInterrupt) and hasattr(signal, "pthread_kill"):  # not on Windows
        main_thread = threading.main_thread().ident
        threading.Timer(0.05, signal.pthread_kill, (main_thread, signal.SIGINT)).start()
    else:
        sys.__unraisablehook__(dropped)


def leave(exit_code: int) -> NoReturn:
    """End the process at once: where Ctrl-C broke off the import of a native package, Python's own end may abort."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # whoever read it has gone
            stream.flush()
    os._exit(exit_code)


def keep_to_cores() -> None:
    """Run this process, and those it starts, on N_JOBS of the cores it may use, where the system can (Linux).

    NumPy's and TensorFlow's threads then use no more cores, though the number of threads stays the same: with another
    number, sums would differ in the last digits. The cores are chosen at random, so that two runs rarely share them.
    """
    if not config.N_JOBS or sys.platform != "linux":
        return
    cores = sorted(os.sched_getaffinity(0))
    chosen = random.SystemRandom().sample(cores, min(config.N_JOBS, len(cores)))
    for thread in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):  # it has ended
            os.sched_setaffinity(int(thread.name), chosen)


def report_error(sentence: str, exit_code: int) -> int:
    """Print `sentence` as an error on stderr; returns `exit_code`."""
    print(f"error: {sentence}", file=sys.stderr)
    return exit_code


def alone(stage: str, dataset: str) -> filelock.BaseFileLock:
    """Return the lock that a run of `stage` on `dataset` holds; raises UserError where another run holds it.

    The operating system frees the lock when the process ends, even when it is killed.
    """
    folder = root() / "data" / ".locks"
    check_within_root(folder / "x")
    folder.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(folder / f"{stage}.{dataset}.lock")
    try:
        lock.acquire(blocking=False)
    except filelock.Timeout:
        raise UserError(f"{stage} is already at work on {dataset}: wait for it to end, then run this again") from None
    return lock


def summary(n_in: int, n_out: int, n_skipped: int, wrote: Sequence[Path], seconds: float, what: str = "images") -> None:
    """Print a stage's last line: images in = out + skipped, the files written (`wrote`), the seconds."""
    listed = ", ".join(display_path(path) + ("/" if path.is_dir() else "") for path in wrote)
    print(f"{n_in} {what} in = {n_out} out + {n_skipped} skipped; wrote {listed} in {seconds:.1f} s")


def unchanged(wrote: Sequence[Path]) -> None:
    """Print that inputs and settings have not changed since the outputs were written."""
    listed = ", ".join(display_path(path) + ("/" if path.is_dir() else "") for path in wrote)
    print(f"unchanged: {listed} (--REDO=True does it again)")
