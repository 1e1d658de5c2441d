"""Work on many items at once, such that an error or Ctrl-C ends all of it."""

import _thread
import contextlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from queue import Empty, SimpleQueue
from typing import TypeVar

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
