"""The nearest images of each image: exactly where there are few, else through an inverted file.

The lists of the inverted file begin as the units of the map (Sivic & Zisserman 2003, "Video Google",
doi:10.1109/ICCV.2003.1238663; Jégou, Douze & Schmid 2011, doi:10.1109/TPAMI.2010.57). Each image is searched for by
itself, in the lists that are nearest to it. So the time grows with the number of images, and not with its square.
Where lists are long, neighbours of neighbours are compared too (Dong, Charikar & Li 2011, "NN-descent",
doi:10.1145/1963405.1963487).
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import numpy as np
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from pipeline.clustering.directions import Compared, Directions, chunks, means_of
from pipeline.clustering.som import codebook_of, nearest_in_part, parts_of

VOTERS = 10  # nearest neighbours that vote on an image's cluster, at most
EXACT_IMAGES = 10_000  # images up to which all are compared with all, which takes no longer
PROBES = 24  # lists that an image is looked for in; 16 find 0.99 of the ten nearest, 24 nearly all (doc/results.md)
LLOYD_STEPS = 2  # the neighbourhood of the map blurs its units: after two steps of K-means recall is 0.999, not 0.85
LONG_LISTS = 32  # images a list on average, from which on lists hold several models, and a model lies in several:
LLOYD_STEPS_OF_LONG = 4  # then there are more steps of K-means,
PASSES = 2  # and passes in which an image is compared with
HOPS = 15  # the nearest so many of its nearest so many
LONGEST = 16  # length of the longest list, in mean lengths; a longer one would cost the square of its length
SHORTEST_SPLIT = 1024  # images; a list up to this length is not split
BLOCK_IMAGES = 2048  # images that are searched for at a time
BLOCK_VALUES = 1 << 24  # similarities in memory at a time: 64 MB of float32


class Index(NamedTuple):
    """An inverted file of m images."""

    centres: np.ndarray  # (n_lists, n_features) float32, the mean of each list's images
    images: np.ndarray  # (m,) int32, the images, list by list
    starts: np.ndarray  # (n_lists + 1,) int64, where each list begins in `images`, and m


def index_images(data: "Directions | np.ndarray", unit_of_image: np.ndarray, in_order: Callable = map) -> Index:
    """Build the inverted file of `data`.

    Parameters
    ----------
    data : array or Directions of shape (m, n_features), float32
    unit_of_image : ndarray of shape (m,), the unit of the map that each image is nearest to
    in_order : calls a function for each of many parts, as `map` does; with several machines, on several at once

    Up to EXACT_IMAGES images are one list. Of more, the images of each unit are a list, which steps of K-means make
    compact, more of them where lists are long. Lists that are far longer than the others are split.
    """
    if len(data) <= EXACT_IMAGES:
        return _one_list(data)
    list_of = np.unique(unit_of_image, return_inverse=True)[1]
    n_steps = LLOYD_STEPS if len(data) < LONG_LISTS * (int(list_of.max()) + 1) else LLOYD_STEPS_OF_LONG
    for _ in range(n_steps):
        book = codebook_of(means_of(data, list_of, int(list_of.max()) + 1).astype(np.float64))
        found = in_order(partial(nearest_in_part, data, book, 1), parts_of(len(data), len(book.weights)))
        list_of = np.unique(np.concatenate(list(found))[:, 0], return_inverse=True)[1]
    longest = max(SHORTEST_SPLIT, LONGEST * len(data) // (int(list_of.max()) + 1))
    lists = [part for images in _members(list_of) for part in _split(data, images, longest)]
    list_of[np.concatenate(lists)] = np.repeat(np.arange(len(lists)), [len(part) for part in lists])
    # lists that are near to one another come one after another: a block of images then needs few of them
    centres = means_of(data, list_of, len(lists))
    order = np.concatenate(_split(centres, np.arange(len(lists)), 8))
    starts = np.concatenate([[0], np.cumsum([len(lists[i]) for i in order])])
    return Index(centres[order], np.concatenate([lists[i] for i in order]).astype(np.int32), starts)


def nearest_images(
    data: "Directions | np.ndarray", index: Index, k: int, in_order: Callable = map
) -> tuple[np.ndarray, np.ndarray]:
    """Find the k nearest other images of each image; of m images, at most m - 1.

    Parameters
    ----------
    data : array or Directions of shape (m, n_features), float32
    index : `index_images` of the same data
    in_order : calls a function for each of many blocks, as `map` does; with several workers, on several at once

    Returns
    -------
    neighbours : ndarray of shape (m, k), int32, nearest first
    similarity : ndarray of shape (m, k), float32, dot product with each, descending
    """
    m = len(data)
    k = min(k, m - 1)
    if not k:
        return np.empty((m, k), np.int32), np.empty((m, k), np.float32)
    blocks = [index.images[start : start + BLOCK_IMAGES] for start in range(0, m, BLOCK_IMAGES)]
    found = _of_blocks(partial(_search_for_images, data, index, k), blocks, k, in_order)
    are_long = len(index.centres) > PROBES and m >= LONG_LISTS * len(index.centres)
    for _ in range(PASSES if are_long else 0):
        found = _of_blocks(partial(_search_neighbours, data, found[0]), blocks, k, in_order)
    return found


def _of_blocks(search: Callable, blocks: list[np.ndarray], k: int, in_order: Callable) -> tuple[np.ndarray, np.ndarray]:
    """Return neighbours and similarities, (m, k), of images in blocks; search : a block -> the same of its images."""
    m = sum(map(len, blocks))
    neighbours, similarity = np.empty((m, k), np.int32), np.empty((m, k), np.float32)
    with tqdm(total=m, desc="neighbours", unit="image", unit_scale=True, leave=None, disable=None) as progress:
        for images, (found, value) in zip(blocks, in_order(search, blocks), strict=True):
            neighbours[images], similarity[images] = found, value
            progress.update(len(images))
    return neighbours, similarity


def exact_neighbours(data: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Find the k nearest other images of each image by comparing all with all; data, k and results as above."""
    return nearest_images(data, _one_list(data), k)


def nearest_to(
    rows: np.ndarray, data: "Directions | Compared | np.ndarray", index: Index, k: int, n_probes: int = PROBES
) -> tuple[np.ndarray, np.ndarray]:
    """Find the k images of `data` that are nearest to each of `rows`; of m images, at most m.

    rows : ndarray of shape (n_rows, n_features), float32; data, index and what is returned : as for `nearest_images`
    n_probes : lists that are searched for each row, or more, where they hold fewer than k images
    """
    k = min(k, len(data))
    neighbours, similarity = np.empty((len(rows), k), np.int32), np.empty((len(rows), k), np.float32)
    for start in range(0, len(rows), BLOCK_IMAGES):
        some = slice(start, start + BLOCK_IMAGES)
        own = np.full(len(rows[some]), -1)
        neighbours[some], similarity[some] = _search(rows[some], own, data, index, k, n_probes)
    return neighbours, similarity


def _search_for_images(
    data: "Directions | np.ndarray", index: Index, k: int, images: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """`nearest_images` of some images."""
    with threadpool_limits(1):  # several blocks are at work at once, and the result is the same with any number of them
        return _search(data[images], images, data, index, k, PROBES)


def _search_neighbours(
    data: "Directions | np.ndarray", neighbours: np.ndarray, images: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the k nearest of the neighbours found so far, (m, k), and of their neighbours, to each of some images."""
    found, similarity = (np.empty((len(images), neighbours.shape[1]), kind) for kind in (np.int32, np.float32))
    near = neighbours[:, :HOPS]
    others = np.concatenate([neighbours[images], near[near[images]].reshape(len(images), -1)], axis=1)
    others.sort(axis=1)
    with threadpool_limits(1):  # as above
        for part in chunks(len(images), others.shape[1] * data.shape[1]):
            shown = data[others[part].ravel()].reshape(*others[part].shape, -1)  # (n, n_others, n_features)
            value = (shown @ data[images[part]][:, :, None])[:, :, 0]
            value[others[part] == images[part, None]] = -np.inf
            value[:, 1:][others[part][:, 1:] == others[part][:, :-1]] = -np.inf  # found twice
            column, similarity[part] = k_largest(value, neighbours.shape[1])
            found[part] = np.take_along_axis(others[part], column, axis=1)
    return found, similarity


def _search(
    rows: np.ndarray, own: np.ndarray, data: "Directions | Compared | np.ndarray", index: Index, k: int, n_probes: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the k images nearest to each of `rows` (b, n_features), but the image `own` (b,); -1: none left out."""
    neighbours, similarity = np.empty((len(rows), k), np.int32), np.empty((len(rows), k), np.float32)
    probed = _probed_lists(rows, index, k + 1, n_probes)
    if isinstance(data, Compared):
        rows = data.asked(rows)
    ends = np.cumsum(np.diff(index.starts)[probed], axis=1)  # (b, n_probed), in a row of similarities
    for part in _parts_of_equal_width(ends[:, -1]):
        value = _similarities(rows[part], own[part], data, index, probed[part], ends[part])
        column, similarity[part] = k_largest(value, k)
        place = (column[:, :, None] >= ends[part][:, None, :]).sum(axis=2)  # which of the probed lists
        from_end = column - np.take_along_axis(ends[part], place, axis=1)  # negative
        neighbours[part] = index.images[index.starts[np.take_along_axis(probed[part], place, axis=1) + 1] + from_end]
    return neighbours, similarity


def _probed_lists(rows: np.ndarray, index: Index, n_images: int, n_probes: int) -> np.ndarray:
    """Return the lists nearest to each of `rows`, (b, n_probed): `n_probes`, or as many as hold `n_images`."""
    lengths = np.diff(index.starts)
    closeness = rows @ index.centres.T - 0.5 * np.einsum("lf,lf->l", index.centres, index.centres)
    n_probed = min(n_probes, len(lengths))
    while True:
        probed, _ = k_largest(closeness, n_probed)
        if n_probed == len(lengths) or lengths[probed].sum(axis=1).min() >= n_images:
            return probed
        n_probed = min(2 * n_probed, len(lengths))


def _parts_of_equal_width(widths: np.ndarray) -> Iterator[np.ndarray]:
    """Rows with about as many candidates, in parts that fill at most BLOCK_VALUES; widths : (b,)."""
    order = np.argsort(-widths, kind="stable")
    start = 0
    while start < len(order):
        n_rows = max(1, BLOCK_VALUES // int(widths[order[start]]))
        yield order[start : start + n_rows]
        start += n_rows


def _similarities(
    rows: np.ndarray,
    own: np.ndarray,
    data: "Directions | Compared | np.ndarray",
    index: Index,
    probed: np.ndarray,
    ends: np.ndarray,
) -> np.ndarray:
    """Similarity of each of `rows` with all images of its probed lists, (b, longest row), -inf where there is none.

    probed : (b, n_probed), the lists; ends : (b, n_probed), where the similarities with each list end in the row
    """
    value = np.full((len(rows), ends[:, -1].max()), -np.inf, np.float32)
    pair = np.argsort(probed, axis=None, kind="stable")  # the pairs of a row and a list, list by list
    row, probe = np.divmod(pair, probed.shape[1])
    lists, first = np.unique(probed.ravel()[pair], return_index=True)
    for one, some in zip(lists, np.split(np.arange(len(pair)), first[1:]), strict=True):
        images = index.images[index.starts[one] : index.starts[one + 1]]
        its_rows = row[some]
        product = rows[its_rows] @ data[images].T  # (n_rows of this list, n_images of this list)
        product[own[its_rows, None] == images] = -np.inf
        end = ends[its_rows, probe[some]]
        value[its_rows[:, None], end[:, None] + np.arange(-len(images), 0)] = product
    return value


def k_largest(values: np.ndarray, k: int, n_in_group: int = 16) -> tuple[np.ndarray, np.ndarray]:
    """Return the columns of the k largest values of each row, largest first, equal ones by column, and these values.

    values : ndarray of shape (n_rows, n_columns), float32, n_columns >= k

    The k-th largest of the maxima of groups of columns is a lower bound of the k-th largest value. Few values reach
    that bound, so that few have to be sorted.

    >>> k_largest(np.array([[3.0, 9.0, 7.0, 9.0]]), 3)[0]
    array([[1, 3, 2]])
    """
    n_rows, n_columns = values.shape
    n_groups = n_columns // n_in_group
    if n_groups < 2 * k:
        bound = np.partition(values, n_columns - k, axis=1)[:, n_columns - k]
    else:
        best = values[:, : n_in_group * n_groups].reshape(n_rows, n_in_group, n_groups).max(axis=1)
        bound = np.partition(best, n_groups - k, axis=1)[:, n_groups - k]
    row, column = np.divmod(np.flatnonzero(values >= bound[:, None]), n_columns)
    order = np.lexsort((-values[row, column], row))
    first = np.searchsorted(row, np.arange(n_rows))
    picked = order[first[:, None] + np.arange(k)]
    return column[picked], values[row[picked], column[picked]]


def _one_list(data: "Directions | np.ndarray") -> Index:
    """Return the inverted file in which each image is compared with all."""
    m = len(data)
    return Index(means_of(data, np.zeros(m, int), 1), np.arange(m, dtype=np.int32), np.array([0, m]))


def _members(group: np.ndarray) -> list[np.ndarray]:
    """Return the places of each of the groups 0, 1, ... in `group` (m,), ascending."""
    return np.split(np.argsort(group, kind="stable"), np.cumsum(np.bincount(group))[:-1])


def _split(data: "Directions | np.ndarray", images: np.ndarray, longest: int) -> list[np.ndarray]:
    """Halve `images` along their main direction until no part is longer than `longest`; parts that adjoin in order."""
    if len(images) <= longest:
        return [images]
    sample = data[images[:: 1 + len(images) // SHORTEST_SPLIT]]
    sample = sample - sample.mean(axis=0)
    axis = sample[np.einsum("if,if->i", sample, sample).argmax()]
    for _ in range(8):  # power iteration: roughly the direction of most variance
        axis = (sample @ axis) @ sample
        axis /= max(float(np.linalg.norm(axis)), 1e-12)
    along = np.concatenate([data[images[rows]] @ axis for rows in chunks(len(images), data.shape[1])])
    order = np.argsort(along, kind="stable")
    half = len(images) // 2
    return [part for side in (order[:half], order[half:]) for part in _split(data, images[side], longest)]
