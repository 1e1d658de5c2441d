"""Work on many items at once, on this machine or on a cluster: results in order, an error or Ctrl-C ends all of it."""

import _thread
import contextlib
import functools
import gc
import itertools
import mmap
import multiprocessing
import operator
import os
import signal
import sys
import threading
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from queue import SimpleQueue
from typing import Protocol, TypeVar

from pipeline.machinery import settings
from pipeline.machinery.cluster import Cluster, Connection
from pipeline.machinery.errors import UserError
from pipeline.machinery.paths import PROJECT

Item = TypeVar("Item")
Result = TypeVar("Result")
AHEAD = 3  # items begun ahead of the reader, for each worker: none of them waits while the reader is busy
ENDED = object()  # the last answer


def ordered_map(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    *,
    threads: bool = False,
    n_ahead: int = 0,
    batch: int = 16,
) -> Iterator[Result]:
    """Yield the results of `function` for each of `items`, in their order, from N_JOBS workers, or those of SCHEDULER.

    Parameters
    ----------
    function : called in processes that are forks of this one, on Linux: they begin at once and know all that it knows,
        but what they change in memory is lost. Results should be small. Elsewhere a fork is not safe: in threads.
        With SCHEDULER, on other machines, which know of this process what `function` holds, the root and the settings
    items : read no further than `n_ahead` items ahead of the reader. Where processes work, items are pickled
    threads : work in threads of this process, which share its memory and wait for Python's lock, whatever SCHEDULER is
    n_ahead : number of items begun ahead of the reader; 0 means 3 for each worker
    batch : number of items that a worker of SCHEDULER takes at a time

    An error of `function` or of `items` is raised here; a process that the system ends is a UserError. When the
    iteration ends early, what is at work is finished and nothing else begun: no worker outlives the iteration, which
    could be in the middle of a file, nor this process, however it ends.
    """
    stopped: list[bool] = []
    if settings.value("SCHEDULER") and not threads:
        with contextlib.ExitStack() as stack:
            connections = stack.enter_context(_open_to_the_end()) if _shared is None else _shared
            begin: Callable = functools.partial(_begin_cluster, function, connections, stopped)
            batches = stack.enter_context(contextlib.closing(_in_order(begin, _batches(items, batch), 0, stopped)))
            for result, error in itertools.chain.from_iterable(batches):
                if error is not None:
                    raise error
                yield result
        return
    n_jobs = max(1, min(settings.n_jobs(), operator.length_hint(items, sys.maxsize)))
    in_threads = threads or n_jobs < 2 or sys.platform != "linux"
    begin = functools.partial(Threads if in_threads else Processes, function, n_jobs)
    yield from _in_order(begin, iter(items), n_ahead, stopped)


Connections = dict[tuple, Connection]  # by scheduler and certificates
_shared: Connections | None = None  # of the block of `connected`
_connecting = threading.Lock()  # taken by threads that Ctrl-C does not come to


@contextlib.contextmanager
def connected() -> Iterator[None]:
    """Let all maps in this block use the connection to SCHEDULER that the first of them opens; close it at the end."""
    global _shared
    try:
        with _open_to_the_end() as _shared:
            yield
    finally:
        _shared = None


@contextlib.contextmanager
def _open_to_the_end() -> Iterator[Connections]:
    """Yield an empty dict for connections, and close those in the dict at the end of the block."""
    connections: Connections = {}
    try:
        yield connections
    finally:
        if connections:
            ended: SimpleQueue = SimpleQueue()
            _thread.start_new_thread(_disconnect, (connections, ended))  # by another thread, as in `_in_order`
            ended.get()


def _disconnect(connections: Connections, ended: SimpleQueue) -> None:
    """Close connections, and then put True into `ended`."""
    _ignore_ctrl_c()
    try:
        for connection in connections.values():
            with contextlib.suppress(Exception):
                connection.close()
    finally:
        ended.put(True)


def _begin_cluster(function: Callable, connections: Connections, stopped: list[bool]) -> Cluster:
    """Return the workers of SCHEDULER for one map, over the open connection, or a new one."""
    address, tls = settings.value("SCHEDULER"), settings.value("SCHEDULER_TLS")
    with _connecting:
        if (address, tls) not in connections:
            connections[address, tls] = Connection(address, PROJECT / tls if tls else None)
    return Cluster(function, connections[address, tls], stopped)


def _ignore_ctrl_c() -> None:
    """Leave Ctrl-C to other threads; processes that this thread forks ignore it as well."""
    if hasattr(signal, "pthread_sigmask"):  # not on Windows
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})


def _batches(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Return lists of `size` items; the last one may be shorter."""
    iterator = iter(items)
    while batch := list(itertools.islice(iterator, size)):
        yield batch


def _in_order(begin: "Callable[[], Pool]", items: Iterator, n_ahead: int, stopped: list[bool]) -> Generator:
    """Yield the results of the pool's function for each of `items`; `stopped` is filled when no more are wanted."""
    asked: SimpleQueue = SimpleQueue()
    answers: SimpleQueue = SimpleQueue()
    # Ctrl-C comes to the main thread at any moment, also while it takes or frees a lock of an executor, whose other
    # threads then wait for ever. So another thread deals with executors; queues written in C lose nothing.
    # `threading.Thread.start` waits for a lock as well, and fails where Ctrl-C comes then; this one does not
    begun = False
    try:
        _thread.start_new_thread(_manage, (begin, items, n_ahead, asked, answers))
        begun = True
        while True:
            asked.put(True)
            answer = answers.get()
            if answer is ENDED:
                begun = False
                return
            result, error = answer
            if error is not None:
                raise error
            yield result
    finally:
        stopped.append(True)
        asked.put(False)
        while begun and answers.get() is not ENDED:
            pass


def _manage(
    begin: "Callable[[], Pool]", items: Iterator, n_ahead: int, asked: "SimpleQueue[bool]", answers: SimpleQueue
) -> None:
    """Answer each question in `asked` with the next (result, error); ENDED after the last one, or after False."""
    _ignore_ctrl_c()
    pool: Pool | None = None
    ahead: deque[tuple[object, Future]] = deque()
    try:
        while asked.get():
            pool = pool or begin()
            wanted = (n_ahead or AHEAD * pool.n_workers) + 1 - len(ahead)  # fewer than none where workers have left
            for item in itertools.islice(items, max(0, wanted)):
                ahead.append((item, pool.submit(item)))
            if not ahead:
                break
            answers.put((ahead[0][1].result(), None))
            ahead.popleft()
    except BaseException as error:
        answers.put((None, pool.explain(error, ahead[0][0]) if pool and ahead else error))
    finally:
        with contextlib.suppress(Exception):
            if pool:
                pool.close()
        answers.put(ENDED)


class Pool(Protocol):
    """Workers that call one function."""

    n_workers: int  # items that are worked on at the same time

    def submit(self, item: object) -> Future: ...

    def explain(self, error: BaseException, item: object) -> BaseException:
        """Return the exception to raise for an error that came while the result for `item` was waited for."""
        ...

    def close(self) -> None:
        """Finish the items that are at work, and begin no others."""
        ...


class Threads:
    """Threads of this process."""

    def __init__(self, function: Callable, n_jobs: int):
        self.function, self.n_workers = function, n_jobs
        self.executor = ThreadPoolExecutor(n_jobs)

    def submit(self, item: object) -> Future:
        return self.executor.submit(self.function, item)

    def explain(self, error: BaseException, item: object) -> BaseException:
        return error

    def close(self) -> None:
        self.executor.shutdown(cancel_futures=True)


class Processes:
    """Forks of this process, all of them begun with the first item."""

    def __init__(self, function: Callable, n_jobs: int):
        self.n_workers = n_jobs
        self.ended = mmap.mmap(-1, 1)  # shared with the processes: whether to begin nothing else
        fork = multiprocessing.get_context("fork")
        # what is handed over at the fork is not pickled: the function may be any
        self.executor = ProcessPoolExecutor(n_jobs, fork, _begin_process, (function, self.ended))

    def submit(self, item: object) -> Future:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of threads: those of BLAS see to a fork themselves
            return self.executor.submit(_call_function, item)

    def explain(self, error: BaseException, item: object) -> BaseException:
        if isinstance(error, BrokenExecutor):
            return UserError(
                f"the system ended a process that was at work on {item} or one of the next, most likely for want of "
                "memory: lower N_JOBS and run this again"
            )
        return error

    def close(self) -> None:
        self.ended[0] = 1
        self.executor.shutdown(cancel_futures=True)


def keep(key: object, make: Callable[[], Result]) -> Result:
    """Return the result of `make()`, which is called once in this process as long as `key` stays the same.

    It is for objects that take long to make and can't be pickled: a function of `ordered_map` makes them in its worker.
    """
    if key not in _kept:
        _kept.clear()
        _kept[key] = make()
    return _kept[key]


_kept: dict = {}
_function: Callable  # of a forked process
_ended: mmap.mmap


def _begin_process(function: Callable, ended: mmap.mmap) -> None:
    """Prepare a forked process for its items."""
    global _function, _ended
    _function, _ended = function, ended
    gc.freeze()  # nothing that was open at the fork is closed a second time
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """End this process as soon as the process that it was forked from has ended, even when that was killed."""
    if parent := multiprocessing.parent_process():
        parent.join()
    os._exit(1)


def _call_function(item: object) -> object:
    """Call the function in a forked process, unless nothing is to be begun any more."""
    return None if _ended[0] else _function(item)
