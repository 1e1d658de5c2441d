"""Work on many items at once, such that an error or Ctrl-C ends all of it."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from pipeline import settings

Item, Result = TypeVar("Item"), TypeVar("Result")


def in_threads(function: Callable[[Item], Result], items: Iterable[Item], n_ahead: int = 0) -> Iterator[Result]:
    """The results of `function` for each of `items`, in their order, from N_JOBS threads.

    No more than a few results are held at a time, or `n_ahead`, which are made while the caller is busy. An error of
    `function` is raised here. When the iteration ends early, what is at work is finished and nothing else begun: no
    thread outlives it, which could be in the middle of a file.
    """
    n_jobs = settings.n_jobs()
    with ThreadPoolExecutor(n_jobs) as pool:
        ahead = deque()
        try:
            for item in items:
                ahead.append(pool.submit(function, item))
                if len(ahead) > (n_ahead or 3 * n_jobs):
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)
