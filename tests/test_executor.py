"""Results in order, a bounded number ahead, errors and an early end."""

import functools
import os
import signal
import subprocess
import sys
import threading
import time

import pytest
from stages import children_of, is_running

import config
from pipeline.machinery.errors import UserError
from pipeline.machinery.executor import ordered_map

in_threads = functools.partial(ordered_map, threads=True)
WAYS = pytest.mark.parametrize("in_parallel", [in_threads, ordered_map], ids=["threads", "processes"])


@WAYS
@pytest.mark.parametrize("n_jobs", [1, 2, 7])
def test_results_come_in_order(n_jobs, in_parallel):
    config.N_JOBS = n_jobs
    delays = [0.02, 0, 0.01, 0, 0] * 4

    def slow(i: int) -> int:
        time.sleep(delays[i])
        return i * i

    assert list(in_parallel(slow, range(20))) == [i * i for i in range(20)]


def test_as_many_as_asked_for_are_made_while_the_reader_is_busy():
    config.N_JOBS = 2
    done = []
    results = in_threads(done.append, range(1000), n_ahead=100)
    next(results)
    for _ in range(200):
        if len(done) >= 100:
            break
        time.sleep(0.01)
    assert 100 <= len(done) <= 101
    results.close()


def test_only_a_few_are_begun_ahead_of_the_reader():
    config.N_JOBS = 2
    begun = []
    results = in_threads(begun.append, range(1000))
    next(results)
    results.close()
    assert len(begun) < 20


def test_an_error_ends_the_threads_and_is_raised():
    config.N_JOBS = 2
    before = threading.active_count()

    def fails(i: int) -> int:
        return 1 // (3 - i)

    with pytest.raises(ZeroDivisionError):
        list(in_threads(fails, range(1000)))
    time.sleep(0.05)
    assert threading.active_count() == before


@WAYS
def test_nothing_to_do(in_parallel):
    assert list(in_parallel(str, [])) == []


INTERRUPTED = """
import random
import signal
import config
from pipeline.machinery.executor import ordered_map

def interrupt(*_):
    raise KeyboardInterrupt

config.N_JOBS = 2
signal.signal(signal.SIGALRM, interrupt)
for _ in range(1500):
    try:
        signal.setitimer(signal.ITIMER_REAL, random.uniform(1e-5, random.choice([3e-4, 3e-3])))
        for _ in ordered_map(abs, range(10**9), threads=True):
            pass
    except KeyboardInterrupt:
        pass
print("done")
"""


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timers that interrupt")
def test_an_interrupt_ends_it_at_any_moment():
    """Locks written in Python (ThreadPoolExecutor's) fail or wait for ever within the first hundred.

    That of `threading.Thread.start` fails in one of 2,500 on a busy machine.
    """
    ended = subprocess.run([sys.executable, "-c", INTERRUPTED], capture_output=True, text=True, timeout=120)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "done\n", "")


# ---- processes -------------------------------------------------------------------------------------

linux = pytest.mark.skipif(sys.platform != "linux", reason="threads are used here")


def children() -> set[int]:
    return children_of(os.getpid())


@linux
def test_work_is_shared_by_other_processes():
    config.N_JOBS = 3
    before = children()

    def whose(_: int) -> int:
        time.sleep(0.02)
        return os.getpid()

    at_work = set(ordered_map(whose, range(30)))
    assert len(at_work) == 3 and os.getpid() not in at_work
    assert children() == before


@linux
def test_an_error_ends_the_processes_and_is_raised_with_its_traceback():
    config.N_JOBS = 2
    before = children()

    def fails(i: int) -> int:
        return 1 // (3 - i)

    with pytest.raises(ZeroDivisionError) as caught:
        list(ordered_map(fails, range(1000)))
    assert "1 // (3 - i)" in str(caught.value.__cause__)
    assert children() == before


@linux
def test_an_error_like_that_of_a_lost_process_is_still_its_own():
    config.N_JOBS = 2

    def fails(i: int) -> None:
        raise EOFError(f"a file that ends early, {i}")

    with pytest.raises(EOFError, match="ends early, 0"):
        list(ordered_map(fails, range(10)))


@linux
def test_only_a_few_are_begun_ahead_of_the_reader_by_processes(tmp_path):
    config.N_JOBS = 2
    before = children()
    results = ordered_map(lambda i: (tmp_path / str(i)).touch(), range(1000))
    next(results)
    time.sleep(0.2)
    results.close()
    assert children() == before
    assert len(list(tmp_path.iterdir())) < 12


@linux
def test_a_process_that_the_system_ends_is_told_with_what_it_was_at():
    config.N_JOBS = 2
    before = children()

    def dies(name: str) -> None:
        if name == "c":
            os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(UserError, match=r"at work on [abc] or one of the next, .* lower N_JOBS"):
        list(ordered_map(dies, "abcdefghij"))
    assert children() == before


KILLED = """
import os, sys, time
from pathlib import Path
import config
from pipeline.machinery.executor import ordered_map

def alive(i):
    Path(sys.argv[1], str(os.getpid())).touch()
    time.sleep(60)

config.N_JOBS = 2
list(ordered_map(alive, range(4)))
"""


@linux
def test_processes_end_with_one_that_is_killed(tmp_path):
    with subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)]) as parent:
        while len(found := [int(path.name) for path in tmp_path.iterdir()]) < 2:
            time.sleep(0.01)
            assert parent.poll() is None
        parent.kill()
    for _ in range(100):
        still = [number for number in found if is_running(number)]
        if not still:
            break
        time.sleep(0.02)
    assert not still


CTRL_C = """
import _thread, os, signal, time

signal.signal(signal.SIGINT, signal.default_int_handler)  # it is ignored in the background

def ctrl_c(after):
    time.sleep(after)
    os.kill(os.getpid(), signal.SIGINT)
"""


@linux
def test_an_interrupt_ends_processes_at_any_moment():
    program = INTERRUPTED.replace(", threads=True", "").replace("range(1500)", "range(300)")
    # Ctrl-C itself, from another thread, which may take it as well
    timer = "signal.setitimer(signal.ITIMER_REAL, random.uniform(1e-5, random.choice([3e-4, 3e-3])))"
    assert timer in program
    program = program.replace(timer, "_thread.start_new_thread(ctrl_c, (random.uniform(1e-5, 2e-2),))")
    ended = subprocess.run([sys.executable, "-c", CTRL_C + program], capture_output=True, text=True, timeout=120)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "done\n", "")
