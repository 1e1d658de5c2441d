"""Features as directions around the data set's centre, and sums and means over groups of them, read chunk by chunk."""

import hashlib
import io
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from scipy import sparse

CHUNK_VALUES = 1 << 20  # values of a chunk's images, and of its distances to all units: 4 MB of float32 each
ROUNDING = 1e-6  # a direction that differs from the centre by no more than this in any feature is the centre


def chunks(n_rows: int, width: int) -> Iterator[slice]:
    """Slices of 0..n_rows that hold at most CHUNK_VALUES values where a row holds `width`."""
    step = max(1, CHUNK_VALUES // max(1, width))
    return (slice(start, min(start + step, n_rows)) for start in range(0, n_rows, step))


def of_length_one(rows: np.ndarray, nothing: float = 0) -> np.ndarray:
    """`rows` scaled to length 1, float32; those with no value above `nothing` become zeros."""
    rows = np.asarray(rows, np.float32)
    # scaled before it is squared: values near float32's limits neither overflow nor vanish
    largest = np.abs(rows).max(axis=1, keepdims=True)
    rows = rows / np.where(largest > nothing, largest, np.inf)
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(length > 0, length, 1)


class Directions:
    """Features seen as directions around the data set's centre: rows are read and converted only when asked for.

    A row x becomes x/|x| - centre, scaled to length 1, where centre is the mean of all x/|x|. Distances between such
    rows order images by the angle between them, so that features may come normalised or not; taking the centre away
    removes what all images have in common (features behind a ReLU all point into one corner). A row that has no
    direction (all zeros, or equal to the centre) becomes zeros.

    Parameters
    ----------
    features : ndarray or memory map of shape (n_images, n_features), any floating dtype, finite
    centre : ndarray of shape (n_features,), float32, or None to compute it in one pass over `features`
    rows : ndarray of the rows of `features` that are meant, or None for all
    """

    def __init__(self, features: np.ndarray, centre: np.ndarray | None = None, rows: np.ndarray | None = None):
        self.features = features
        self.rows = rows
        self.shape = (len(features if rows is None else rows), features.shape[1])
        if centre is None:
            centre = np.zeros(self.shape[1], np.float64)
            for part in chunks(*self.shape):
                centre += of_length_one(self._read(part)).sum(axis=0, dtype=np.float64)
            centre = (centre / len(self)).astype(np.float32)
        self.centre = centre

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice | np.ndarray) -> np.ndarray:
        """Directions of the given rows, ndarray of shape (n_rows, n_features), float32."""
        return of_length_one(of_length_one(self._read(rows)) - self.centre, ROUNDING)

    def kept(self, handle: io.IOBase) -> np.ndarray:
        """All directions, converted once, as a memory map in the open file `handle`, over what it held."""
        handle.seek(0)
        for part in chunks(*self.shape):
            handle.write(np.ascontiguousarray(self[part]))
        handle.flush()
        return np.asarray(np.memmap(handle, np.float32, "r", shape=self.shape))

    def _read(self, rows: slice | np.ndarray) -> np.ndarray:
        return np.asarray(self.features[rows if self.rows is None else self.rows[rows]], np.float32)


class Both:
    """The rows of two arrays as if they were one, read only when asked for."""

    def __init__(self, first: np.ndarray, second: np.ndarray):
        self.first, self.second = first, second
        self.shape = (len(first) + len(second), first.shape[1])

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice | np.ndarray) -> np.ndarray:
        rows = np.arange(len(self))[rows]
        result = np.empty((len(rows), self.shape[1]), np.float32)
        late = rows >= len(self.first)
        result[~late] = self.first[rows[~late]]
        result[late] = self.second[rows[late] - len(self.first)]
        return result


class Shortened(NamedTuple):
    """Directions times a matrix, seen as directions around their own centre.

    A row of `space` is scale[0] * row @ matrix - scale[1] * centre.
    """

    space: np.ndarray  # (n, n_features) float32
    centre: np.ndarray  # (n_features,) float32
    scale: np.ndarray  # (n, 2) float32


def shorten(
    data: "Directions | np.ndarray", matrix: np.ndarray, handle: io.IOBase, centre: np.ndarray | None = None
) -> Shortened:
    """Shorten directions by a matrix; `space` is a memory map in the open file `handle`, over what it held.

    data : array or Directions of shape (n, n_features), float32; matrix : (n_features, n_features), float32
    centre : (n_features,) float32, or None for that of the rows' products with the matrix
    """
    handle.seek(0)
    for part in chunks(*data.shape):
        handle.write(np.ascontiguousarray(data[part] @ matrix))
    handle.flush()
    product = np.memmap(handle, np.float32, "r+", shape=data.shape)
    seen, scale = Directions(product, centre), np.zeros((len(product), 2), np.float32)
    for part in chunks(*data.shape):
        length = np.linalg.norm(product[part], axis=1)
        gap = np.linalg.norm(of_length_one(product[part]) - seen.centre, axis=1)
        product[part] = seen[part]
        there = product[part].any(axis=1)  # the others are the centre
        scale[part, 1] = np.divide(1, gap, out=np.zeros_like(gap), where=there)
        scale[part, 0] = np.divide(scale[part, 1], length, out=np.zeros_like(length), where=length > 0)
    return Shortened(np.asarray(product), seen.centre, scale)


class Compared:
    """Rows that `shorten` shortened before, read anew: their dot products need no product with the matrix.

    The dot product of a shortened row and q is scale[0] * (row @ (matrix @ q)) - scale[1] * (centre @ q). So rows here
    are [scale[0] * row, -scale[1]], and `asked` makes [matrix @ q, centre @ q] of q.

    data : Directions of shape (n, n_features); matrix : as for `shorten`; scale, centre : what it returned
    """

    def __init__(self, data: Directions, matrix: np.ndarray, scale: np.ndarray, centre: np.ndarray):
        self.data, self.matrix, self.scale, self.centre = data, matrix, scale, centre
        self.shape = (len(data), data.shape[1] + 1)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice | np.ndarray) -> np.ndarray:
        scale = self.scale[rows]
        return np.concatenate([self.data[rows] * scale[:, :1], -scale[:, 1:]], axis=1)

    def asked(self, shortened: np.ndarray) -> np.ndarray:
        """Return what shortened rows (n, n_features) are multiplied as, (n, n_features + 1)."""
        return np.column_stack([shortened @ self.matrix.T, shortened @ self.centre])


def zeros_in(handle: io.IOBase, shape: tuple[int, ...]) -> np.ndarray:
    """Zeros, float64, as a memory map in the open file `handle`, over what it held: the system may move them there.

    They are written before they are mapped, so that a full disk is an OSError and not a signal.
    """
    handle.seek(0)
    for part in chunks(shape[0], int(np.prod(shape[1:]))):
        handle.write(np.zeros((part.stop - part.start, *shape[1:])))
    handle.flush()
    return np.asarray(np.memmap(handle, np.float64, "r+", shape=shape))


def rows_not_finite(features: np.ndarray) -> np.ndarray:
    """Return the rows of `features` (n, n_features) that hold NaN or infinity as float32, ascending."""
    parts = chunks(*features.shape)
    return np.concatenate(
        [part.start + np.flatnonzero(~np.isfinite(features[part].astype(np.float32)).all(axis=1)) for part in parts]
    )


def different(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Find rows that are there more than once: a photograph used many times would pull a cluster together.

    Returns
    -------
    rows : ndarray of shape (m,), the rows that differ from all earlier ones
    first_of : ndarray of shape (n,), int32, for each row which of those m it equals

    >>> different(np.array([[1.0], [2.0], [1.0]]))
    (array([0, 1]), array([0, 1, 0], dtype=int32))
    """
    seen: dict[bytes, int] = {}
    first_of = np.empty(len(features), np.int32)
    for part in chunks(*features.shape):
        for row, values in enumerate(np.ascontiguousarray(features[part]), start=part.start):
            first_of[row] = seen.setdefault(hashlib.blake2b(values, digest_size=16).digest(), len(seen))
    return np.unique(first_of, return_index=True)[1], first_of


def sums_of(part: np.ndarray, group: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the groups that occur, ascending, and the sum of each one's rows, float64 (n_occurring, n_features).

    part : ndarray of shape (n_rows, n_features); group : int ndarray of shape (n_rows,)
    """
    found, place = np.unique(group, return_inverse=True)
    # a sparse product adds rows up several times as fast as np.add.reduceat
    member = sparse.csr_matrix((np.ones(len(part)), (place, np.arange(len(part)))), (len(found), len(part)))
    return found, member @ part


def means_of(data: "Directions | np.ndarray", group: np.ndarray, n_groups: int) -> np.ndarray:
    """Mean of each group's rows, (n_groups, n_features) float32; zeros for a group of none. group : (m,), 0.. ."""
    sums = np.zeros((n_groups, data.shape[1]))
    for rows in chunks(len(data), 4 * data.shape[1]):  # of a chunk there are several copies, in float64
        found, sum_of_found = sums_of(data[rows], group[rows])
        sums[found] += sum_of_found
    sums /= np.maximum(np.bincount(group, minlength=n_groups), 1)[:, None]
    return sums.astype(np.float32)


def scatter_within(data: "Directions | np.ndarray", group: np.ndarray, n_groups: int) -> tuple[np.ndarray, np.ndarray]:
    """Means of the groups, as `means_of`, and the scatter around them, (n_features, n_features) float64.

    The scatter is the sum of the outer products of each row's difference to its group's mean.
    """
    means, n_features = means_of(data, group, n_groups), data.shape[1]
    scatter = np.zeros((n_features, n_features))
    for rows in chunks(*data.shape):
        gap = data[rows] - means[group[rows]]
        scatter += gap.T @ gap
    return means, scatter
