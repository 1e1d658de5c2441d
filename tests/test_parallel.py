"""Results in order, a bounded number ahead, errors and an early end."""

import _thread
import signal
import subprocess
import sys
import time

import pytest

import config
from pipeline import parallel


@pytest.mark.parametrize("n_jobs", [1, 2, 7])
def test_results_come_in_order(n_jobs):
    config.N_JOBS = n_jobs
    delays = [0.02, 0, 0.01, 0, 0] * 4

    def slow(i: int) -> int:
        time.sleep(delays[i])
        return i * i

    assert list(parallel.in_threads(slow, range(20))) == [i * i for i in range(20)]


def test_as_many_as_asked_for_are_made_while_the_reader_is_busy():
    config.N_JOBS = 2
    done = []
    results = parallel.in_threads(done.append, range(1000), n_ahead=100)
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
    results = parallel.in_threads(begun.append, range(1000))
    next(results)
    results.close()
    assert len(begun) < 20


def test_an_error_ends_the_threads_and_is_raised():
    config.N_JOBS = 2
    before = _thread._count()

    def fails(i: int) -> int:
        return 1 // (3 - i)

    with pytest.raises(ZeroDivisionError):
        list(parallel.in_threads(fails, range(1000)))
    time.sleep(0.05)
    assert _thread._count() == before


def test_nothing_to_do():
    assert list(parallel.in_threads(str, [])) == []


INTERRUPTED = """
import random
import signal
import config
from pipeline import parallel

def interrupt(*_):
    raise KeyboardInterrupt

config.N_JOBS = 2
signal.signal(signal.SIGALRM, interrupt)
for _ in range(1500):
    try:
        signal.setitimer(signal.ITIMER_REAL, random.uniform(1e-5, 3e-3))
        for _ in parallel.in_threads(abs, range(10**9)):
            pass
    except KeyboardInterrupt:
        pass
print("done")
"""


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timers that interrupt")
def test_an_interrupt_ends_it_at_any_moment():
    """Locks written in Python (ThreadPoolExecutor's) fail or wait for ever within the first hundred."""
    ended = subprocess.run([sys.executable, "-c", INTERRUPTED], capture_output=True, text=True, timeout=120)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "done\n", "")
