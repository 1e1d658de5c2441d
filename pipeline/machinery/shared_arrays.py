"""Large arrays that go to the workers of a cluster as files of a folder that all machines see."""

import io
import itertools
import mmap
import shutil
import weakref
from collections.abc import Callable
from pathlib import Path

import numpy as np

SHARED_BYTES = 1 << 18  # size from which on an array goes into the folder instead of with each piece of work


class SharedArrays:
    """Large arrays in files of a folder that all machines see: a worker maps a file and reads the rows that it needs.

    An array that is a whole memory map of a file is read from that file. A read-only array is written once, and its
    file is kept as long as the array's memory is in use. Any other array is written anew for each call of
    `executor.ordered_map`, during which it must not change.

    folder : is made when the first array is written
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.numbers = itertools.count()
        self.written: dict[tuple, Path] = {}  # by where the array lies in memory
        self.owners: dict[tuple, Callable] = {}  # `owner_of` each

    def pickled(self, value: object) -> bytes:
        """Return `value` pickled, with the paths of files in place of its large arrays."""
        import cloudpickle

        arrays = self

        class Pickler(cloudpickle.Pickler):
            def reducer_override(self, found: object) -> object:
                if isinstance(found, np.ndarray) and found.nbytes >= SHARED_BYTES and not found.dtype.hasobject:
                    return arrays.named(found)
                return super().reducer_override(found)

        with io.BytesIO() as stream:
            Pickler(stream).dump(value)
            return stream.getvalue()

    def named(self, array: np.ndarray) -> tuple:
        """Write an array unless its file is there; return the function that maps the file, and its arguments."""
        if isinstance(array, np.memmap) and isinstance(array.base, mmap.mmap) and array.filename:
            path = Path(str(array.filename)).resolve()
            if path.is_file() and array.flags.c_contiguous:
                return map_array, (str(path), array.dtype.str, array.shape, array.offset)
        place = array.__array_interface__["data"], array.shape, array.strides, array.dtype.str
        if place not in self.written or self.owners[place]() is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            path = self.folder / f"{next(self.numbers)}.npy"
            np.save(path, array, allow_pickle=False)
            self.written[place], self.owners[place] = path, owner_of(array)
        return map_npy, (str(self.written[place]),)

    def forget(self) -> None:
        """Remove the files of arrays that may change from now on, and of arrays whose memory is no longer in use."""
        for place, owner in list(self.owners.items()):
            is_read_only = place[0][1]
            if not is_read_only or owner() is None:
                del self.owners[place]
                self.written.pop(place).unlink(missing_ok=True)

    def remove(self) -> None:
        """Remove all files."""
        self.written.clear()
        self.owners.clear()
        shutil.rmtree(self.folder, ignore_errors=True)


def owner_of(array: np.ndarray) -> Callable:
    """Return a function that returns the object which owns an array's memory, or None once that object is gone."""
    owner: object = array
    while isinstance(owner, np.ndarray) and owner.base is not None:
        owner = owner.base
    try:
        return weakref.ref(owner)
    except TypeError:  # an object without weak references is kept itself
        return lambda: owner


def map_array(path: str, dtype: str, shape: tuple[int, ...], offset: int) -> np.ndarray:
    """Return an array that begins at byte `offset` of a file, as a read-only memory map."""
    return np.asarray(np.memmap(path, dtype, "r", offset, shape))


def map_npy(path: str) -> np.ndarray:
    """Return the array of an .npy file, as a read-only memory map."""
    return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
