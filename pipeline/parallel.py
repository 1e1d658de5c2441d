"""Work on many items at once, such that an error or Ctrl-C ends all of it."""

import _thread
import contextlib
import ctypes
import gc
import mmap
import os
import signal
import sys
import threading
import traceback
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from multiprocessing.connection import Connection, Pipe, wait
from multiprocessing.pool import ExceptionWithTraceback
from queue import Empty, SimpleQueue
from typing import NamedTuple, NoReturn, TypeVar

from pipeline import settings

Item, Result = TypeVar("Item"), TypeVar("Result")


def in_threads(function: Callable[[Item], Result], items: Iterable[Item], n_ahead: int = 0) -> Iterator[Result]:
    """The results of `function` for each of `items`, in their order, from N_JOBS threads.

    No more than a few results are held at a time, or `n_ahead`, which are made while the caller is busy. An error of
    `function` is raised here. When the iteration ends early, what is at work is finished and nothing else begun: no
    thread outlives it, which could be in the middle of a file.

    Not a ThreadPoolExecutor, nor any lock written in Python: Ctrl-C may come between its being taken and its being
    given back, and whoever waits for it then waits for ever.
    """
    todo, ended = SimpleQueue(), SimpleQueue()
    n_jobs, n_started, ahead = settings.n_jobs(), 0, deque()

    def work() -> None:
        while (given := todo.get()) is not None:
            item, answer = given
            try:
                answer.put((function(item), None))
            except BaseException as error:
                answer.put((None, error))
        ended.put(None)

    def answer_of(waiting: SimpleQueue) -> Result:
        result, error = waiting.get()
        if error is not None:
            raise error
        return result

    try:
        for _ in range(n_jobs):
            _thread.start_new_thread(work, ())
            n_started += 1
        for item in items:
            ahead.append(SimpleQueue())
            todo.put((item, ahead[-1]))
            if len(ahead) > (n_ahead or 3 * n_jobs):
                yield answer_of(ahead.popleft())
        while ahead:
            yield answer_of(ahead.popleft())
    finally:
        with contextlib.suppress(Empty):
            while True:
                todo.get_nowait()
        for _ in range(n_started):
            todo.put(None)
        for _ in range(n_started):
            ended.get()


def in_processes(function: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
    """The results of `function` for each of `items`, in their order, from N_JOBS processes; from threads but on Linux.

    For work in many small steps, whose threads would wait for Python's lock. The processes are forks of this one: they
    begin at once and know all that it knows, but what they change in memory is lost. Results should be small. An error
    of `function` is raised here; a process that the system ends is a UserError. When the iteration ends early, what is
    at work is finished and nothing else begun; no process outlives it, nor this process, however it ends.
    """
    n_jobs = min(settings.n_jobs(), len(items))
    if n_jobs < 2 or sys.platform != "linux":  # elsewhere libraries of the system do not survive a fork
        yield from in_threads(function, items)
        return
    processes: dict[Connection, _Process] = {}
    answers: dict[int, tuple[Result, BaseException | None]] = {}
    n_given, ended = 0, mmap.mmap(-1, 1)  # the second shared by all

    def exchange(until: int) -> None:
        """Give each process enough to do, of the items before `until`, and take at least one answer."""
        nonlocal n_given
        for asked, process in processes.items():
            while len(process.given) < 2 and n_given < until:  # a second one, so that it need not wait for the next
                asked.send(n_given)
                process.given.append(n_given)
                n_given += 1
        for asked in wait(list(processes)):
            answer = asked.recv()
            answers[processes[asked].given.popleft()] = answer

    try:
        for _ in range(n_jobs):
            _fork(function, items, processes, ended)
        for number in range(len(items)):
            while number not in answers:
                try:
                    exchange(until=min(len(items), number + 4 * n_jobs))
                except (EOFError, ConnectionError):
                    doubtful = min((process.given[0] for process in processes.values() if process.given), default=0)
                    raise settings.UserError(
                        f"the system ended a process that was at work on {items[doubtful]} or one of the next, most "
                        "likely for want of memory: lower N_JOBS and run this again"
                    ) from None
            result, error = answers.pop(number)
            if error is not None:
                raise error
            yield result
    finally:
        ended[0] = 1
        for asked in processes:
            asked.close()
        for process in processes.values():
            with contextlib.suppress(ChildProcessError):  # where the system was told not to keep ended ones
                os.waitpid(process.id, 0)


class _Process(NamedTuple):
    """One of `in_processes`."""

    id: int
    given: deque[int]  # numbers of the items that it has been given and not answered


def _fork(
    function: Callable[[Item], Result], items: Sequence[Item], processes: dict[Connection, _Process], ended: mmap.mmap
) -> None:
    """Start a process that answers the numbers of items with their results, and add it to `processes`."""
    asked, its_end = Pipe()
    parent = os.getpid()
    with _interrupts_later(), warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of threads: those of BLAS see to a fork themselves
        process_id = os.fork()
        if process_id == 0:
            _answer(function, items, its_end, ended, parent)
        processes[asked] = _Process(process_id, deque())
        its_end.close()


@contextlib.contextmanager
def _interrupts_later() -> Iterator[None]:
    """Put off Ctrl-C until the end: what it breaks off in a fork, locks of the standard library, stays broken."""
    if threading.current_thread() is not threading.main_thread():  # only there it is noticed
        yield
        return
    came = []
    before = signal.signal(signal.SIGINT, lambda *now: came.append(now))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if came and callable(before):
            before(*came[0])


def _answer(
    function: Callable[[Item], Result], items: Sequence[Item], asked: Connection, ended: mmap.mmap, parent: int
) -> NoReturn:
    """What a forked process does until it is asked no more."""
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: it ends when its parent is killed
        gc.freeze()  # nothing that was open at the fork is closed a second time
        for first, last in ((3, asked.fileno()), (asked.fileno() + 1, 1 << 16)):
            os.closerange(first, last)  # the lock of a run among them
        while os.getppid() == parent:
            number = asked.recv()
            if ended[0]:
                break
            try:
                answer = function(items[number]), None
            except BaseException as error:
                answer = None, ExceptionWithTraceback(error, error.__traceback__)
            asked.send(answer)
    except (EOFError, OSError):  # nobody asks any more
        pass
    except BaseException:  # an answer that can't be sent
        traceback.print_exc()
    finally:
        os._exit(0)
