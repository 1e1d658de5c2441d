"""What glibc's allocator does with the memory of arrays that are gone. Elsewhere these functions do nothing."""

import contextlib
import ctypes


def _call(name: str, *arguments: int) -> None:
    """Call a function of the C library where it has it."""
    with contextlib.suppress(AttributeError, OSError, TypeError):
        getattr(ctypes.CDLL(None), name)(*arguments)


def keep_freed() -> None:
    """Keep the memory of arrays under 32 MB for the next ones, up to 256 MB for each thread.

    Else the system takes it back and clears it for every array anew.
    """
    _call("mallopt", -3, 1 << 25)  # M_MMAP_THRESHOLD, its greatest value
    _call("mallopt", -1, 1 << 28)  # M_TRIM_THRESHOLD


def give_back_freed() -> None:
    """Give back to the system all that is free, in between what is in use too."""
    _call("malloc_trim", 0)
