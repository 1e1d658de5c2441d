"""Control which memory stays in this process: memory of freed arrays (glibc), and pages of mapped files."""

import contextlib
import ctypes
import mmap

import numpy as np


def _call(name: str, *arguments: int) -> None:
    """Call a function of the C library; do nothing where the library lacks it."""
    with contextlib.suppress(AttributeError, OSError, TypeError):
        getattr(ctypes.CDLL(None), name)(*arguments)


def keep_freed() -> None:
    """Keep the memory of freed arrays under 32 MB for the next arrays, up to 256 MB for each thread.

    Otherwise the system takes the memory back, and clears it anew for every array.
    """
    _call("mallopt", -3, 1 << 25)  # M_MMAP_THRESHOLD, its greatest value
    _call("mallopt", -1, 1 << 28)  # M_TRIM_THRESHOLD


def give_back_freed() -> None:
    """Give all free memory back to the system, also the free pages between used ones."""
    _call("malloc_trim", 0)


class MappedRows:
    """Rows of a memory-mapped array whose pages leave this process once they are read; the system keeps them cached.

    Reading single rows here and there brings the pages around each into memory: without this class, a few rows of a
    large file would fill the memory.

    array : memory map of shape (n, width)
    """

    def __init__(self, array: np.ndarray):
        self.array, self.shape, self.dtype = array, array.shape, array.dtype

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice | np.ndarray) -> np.ndarray:
        found = np.array(self.array[rows])
        if isinstance(self.array.base, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):  # not on Windows
            self.array.base.madvise(mmap.MADV_DONTNEED)
        return found
