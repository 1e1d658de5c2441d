"""The Self-Organizing Map of stages 04 and 06: MiniSom's object, trained as a batch map on matrix products.

MiniSom (the map that users know: weights, topology, neighbourhood, U-matrix) stays the interface. Its
`train_batch_offline` walks through the images in Python; `train_batch` here applies the same rule (Kohonen 2013,
"Essentials of the self-organizing map", Neural Networks 37, doi:10.1016/j.neunet.2012.09.018) to chunks of a
memory-mapped array, so that memory does not grow with the number of images.
"""

import io
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import numpy as np
from minisom import MiniSom
from scipy.sparse.linalg import svds
from scipy.spatial import cKDTree
from tqdm import tqdm

from pipeline.clustering.directions import CHUNK_VALUES, Directions, chunks, sums_of, zeros_in

PCA_SAMPLE = 4096  # images that the principal components are taken from
PART = 4  # images for each unit that one worker adds up: the sums that it hands back are then shorter than its images
TIE = 1e-5  # units this close to the nearest (relative to the squared lengths) are compared again in float64


def map_shape(n_images: int, images_per_unit: float, max_units: int) -> tuple[int, int]:
    """Return rows and columns of a map, about 5 to 4: a unit per `images_per_unit` images, at most `max_units` units.

    >>> map_shape(999, 3, 3600)
    (20, 16)
    """
    units = min(max(1.0, n_images / images_per_unit), max_units)
    rows = max(1, round((units * 5 / 4) ** 0.5))
    cols = max(1, int(units / rows))
    return rows, cols


def constant(learning_rate: float, t: int, max_iter: int) -> float:
    """Return the learning rate as it is (a MiniSom decay function): in Kohonen's batch rule units move all the way."""
    return learning_rate


def new_map(rows: int, cols: int, n_features: int, topology: str, random_seed: int) -> MiniSom:
    """Return a MiniSom of `rows` x `cols` units for Kohonen's batch rule.

    Its neighbourhood is Gaussian and shrinks linearly from a quarter of the map's longer side to one unit.
    """
    return MiniSom(
        rows,
        cols,
        n_features,
        sigma=max(1.0, max(rows, cols) / 4),
        learning_rate=1.0,
        decay_function=constant,
        topology=topology,
        sigma_decay_function="linear_decay_to_one",
        random_seed=random_seed,
    )


def from_weights(weights: np.ndarray, topology: str) -> MiniSom:
    """Return the MiniSom with these weights (rows, cols, n_features), for instance those of som.npz."""
    rows, cols, n_features = weights.shape
    som = new_map(rows, cols, 1, topology, random_seed=0)  # without n_features random weights for each unit
    som._weights, som._input_len = weights, n_features
    return som


def initialise(som: MiniSom, data: "Directions | np.ndarray", how: str, random_seed: int) -> None:
    """Set the weights of `som` before training.

    "pca": the plane of the data's two main directions, two standard deviations to each side (as MiniSom's
    `pca_weights_init`, with the data's own extent, from at most PCA_SAMPLE evenly spaced images).
    "sample": each unit is an image drawn at random.
    """
    rows, cols, n_features = som._weights.shape
    if how == "sample":
        drawn = np.random.default_rng(random_seed).integers(len(data), size=rows * cols)
        for part in chunks(len(drawn), n_features):
            som._weights.reshape(-1, n_features)[part] = data[drawn[part]]
        return
    picked = np.unique(np.linspace(0, len(data) - 1, min(len(data), PCA_SAMPLE)).astype(np.int64))
    sample = np.empty((len(picked), n_features), np.float32)
    for part in chunks(*sample.shape):
        sample[part] = data[picked[part]]
    mean = sample.mean(axis=0, dtype=np.float64)
    sample -= mean.astype(np.float32)
    axes = np.zeros((2, n_features))
    if min(sample.shape) > 3 and max(sample.max(), -sample.min()) > 1e-6:
        start = np.random.default_rng(random_seed).standard_normal(min(sample.shape)).astype(np.float32)
        _, scale, vectors = svds(sample, k=2, v0=start, maxiter=500, tol=1e-4)
    else:
        _, scale, vectors = np.linalg.svd(sample, full_matrices=False)
    order = np.argsort(-scale)[:2]
    axes[: len(order)] = vectors[order] * (2 * scale[order] / np.sqrt(len(sample)))[:, None]
    # the sign of a singular vector is arbitrary: fixed, so that every machine gets the same map
    axes *= np.where(axes[[0, 1], np.abs(axes).argmax(axis=1)] < 0, -1, 1)[:, None]
    along, across = (np.linspace(-1, 1, n) if n > 1 else np.zeros(1) for n in (rows, cols))
    som._weights[:] = mean + along[:, None, None] * axes[0] + across[None, :, None] * axes[1]


class Codebook(NamedTuple):
    """The weights of all units, prepared once for the distances of many chunks of images."""

    weights: np.ndarray  # (n_all_units, n_features) float64
    doubled: np.ndarray  # (n_all_units, n_features) float32, -2 times the weights
    lengths: np.ndarray  # (n_all_units,) float32, squared


def codebook_of(weights: np.ndarray) -> Codebook:
    """Return the codebook of weights, a float64 ndarray of shape (n_all_units, n_features)."""
    doubled = weights.astype(np.float32)
    doubled *= -2
    return Codebook(weights, doubled, np.einsum("uf,uf->u", weights, weights).astype(np.float32))


def nearest_units(data: np.ndarray, codebook: Codebook, n_units: int = 1) -> np.ndarray:
    """Return the nearest units of each row, nearest first: ndarray of shape (n_rows, n_units), int64.

    Parameters
    ----------
    data : ndarray of shape (n_rows, n_features), float32; a chunk: its distances to all units are held in memory
    n_units : from 1 to n_all_units

    Units whose float32 distances are too close to tell apart are compared again in float64, and equal ones are
    settled by the lower index: the answer does not depend on how BLAS cuts the product into blocks.
    """
    weights = codebook.weights
    data_lengths = np.einsum("if,if->i", data, data)
    distances = data @ codebook.doubled.T  # (n_rows, n_all_units), squared, less |row|^2
    distances += codebook.lengths
    tolerance = np.float32(TIE) * (data_lengths + codebook.lengths.max())
    every = np.arange(len(data))
    units = np.empty((len(data), n_units), np.int64)
    for rank in range(n_units):
        best = distances.argmin(axis=1)
        close = distances <= (distances[every, best] + tolerance)[:, None]
        n_close = np.count_nonzero(close, axis=1)
        # more than eight at once are units that lie on one another, as on identical images: any of them will do
        tied = np.flatnonzero((n_close > 1) & (n_close <= 8))
        if len(tied):
            row, unit = np.nonzero(close[tied])
            row = tied[row]
            exact = [_squared(data[row[part]], weights[unit[part]]) for part in chunks(len(row), data.shape[1])]
            order = np.lexsort((unit, np.concatenate(exact), row))
            first = order[np.unique(row[order], return_index=True)[1]]
            best[row[first]] = unit[first]
        units[:, rank] = best
        distances[every, best] = np.inf
    return units


def parts_of(n_rows: int, n_units: int) -> list[slice]:
    """Return the parts of 0..n_rows that one worker goes through at a time, for a codebook of `n_units` units."""
    step = PART * n_units
    return [slice(start, min(start + step, n_rows)) for start in range(0, n_rows, step)]


def nearest_in_part(data: "Directions | np.ndarray", codebook: Codebook, n_units: int, part: slice) -> np.ndarray:
    """Return `nearest_units` of a part of all rows, read chunk by chunk: (n_rows, n_units), int32."""
    return np.concatenate([unit for _, unit in _nearest_by_chunk(data, codebook, n_units, part)])


def _nearest_by_chunk(
    data: "Directions | np.ndarray", codebook: Codebook, n_units: int, part: slice
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the rows of each chunk of a part of `data`, float32, and `nearest_units` of them, int32."""
    for rows in chunks(part.stop - part.start, max(codebook.weights.shape)):
        some = np.asarray(data[part.start + rows.start : part.start + rows.stop], np.float32)
        yield some, nearest_units(some, codebook, n_units).astype(np.int32)


def _squared(data: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the squared distance of each row of `data` to the same row of `weights`, float64."""
    gap = data - weights
    return np.einsum("if,if->i", gap, gap)


def _smooth(som: MiniSom, sums: np.ndarray, sigma: float) -> None:
    """Replace `sums` by the sum over all units c of the neighbourhood h(c, unit) times `sums[c]`, for every unit.

    sums : ndarray of shape (rows, cols, n), float64. What belongs to one feature is smoothed on its own, some of them
    at a time, so that no second array of this size is needed. The Gaussian is a product of one factor along the rows
    and one along the columns; on a hexagonal map, where every second column is shifted by half a unit along the rows,
    that holds for each pair of shifts.
    """
    if som.neighborhood.__name__ != "_gaussian":
        raise ValueError(f"train_batch knows the gaussian neighbourhood, not {som.neighborhood.__name__[1:]}")
    rows, cols, n = sums.shape
    xx, yy = som.get_euclidean_coordinates()
    # the columns of each shift: all of them, or every second one
    columns = [slice(first, cols, 2) for first in range(min(2, cols))] if np.ptp(xx[0]) else [slice(cols)]
    across = np.exp(-((yy[0][:, None] - yy[0][None, :]) ** 2) / (2 * sigma**2))
    for some in chunks(n, rows * cols):
        block = sums[..., some].copy()
        sums[..., some] = 0
        for to in columns:
            for source in columns:
                shift = xx[0][to.start or 0] - xx[0][source.start or 0]
                steps = np.arange(rows)[:, None] - np.arange(rows)[None, :] + shift
                along = np.exp(-(steps**2) / (2 * sigma**2))
                part = (along @ block[:, source].reshape(rows, -1)).reshape(rows, -1, block.shape[2])
                for row in range(rows):  # over the columns
                    sums[row, to, some] += across[to, source] @ part[row]


def _sums_of_part(
    data: "Directions | np.ndarray", codebook: Codebook, step: int, part: slice
) -> tuple[np.ndarray, np.ndarray]:
    """Return the units that images of a part hit, and for each the sum of its images and their number.

    step : images in memory at a time. Returns int64 (n_hit,) and float64 (n_hit, n_features + 1).
    """
    n_units, n_features = codebook.weights.shape
    sums = np.zeros((n_units, n_features + 1))
    for start in range(part.start, part.stop, step):
        some = np.asarray(data[start : min(start + step, part.stop)], np.float32)
        unit = nearest_units(some, codebook)[:, 0]
        hit, sum_of_hit = sums_of(some, unit)
        sums[hit, :-1] += sum_of_hit
        sums[:, -1] += np.bincount(unit, minlength=n_units)
    hit = np.flatnonzero(sums[:, -1])
    return hit, sums if len(hit) == n_units else sums[hit]


def train_batch(
    som: MiniSom,
    data: "Directions | np.ndarray",
    n_epochs: int,
    chunk_rows: int | None = None,
    handle: io.IOBase | None = None,
    in_order: Callable = map,
) -> None:
    """Train `som` in place: the result of `som.train_batch_offline(data, n_epochs)`, by matrix products.

    Parameters
    ----------
    som : MiniSom with euclidean distance and gaussian neighbourhood; its own learning rate, sigma and decays are used
    data : array or Directions of shape (n_images, n_features), read in chunks, float32
    n_epochs : passes over all images, at least 1
    chunk_rows : images in memory at a time; None = so that a chunk holds at most CHUNK_VALUES values
    handle : an open file to keep the sums in, of the weights' size; None = memory
    in_order : calls a function for each of many parts, as `map` does; with several machines, on several at once

    The sums over images are float64, so that chunks and threads make no difference beyond rounding.
    """
    rows, cols, n_features = som._weights.shape
    n_units = rows * cols
    step = chunk_rows or max(1, CHUNK_VALUES // max(n_features, n_units))
    size = (n_units, n_features + 1)  # the last column counts the images
    sums, parts = zeros_in(handle, size) if handle else np.empty(size), parts_of(len(data), n_units)
    with tqdm(total=n_epochs * len(data), desc="map", unit="image", unit_scale=True, disable=None) as progress:
        for epoch in range(n_epochs):
            learning_rate = som._learning_rate_decay_function(som._learning_rate, epoch, n_epochs)
            sigma = som._sigma_decay_function(som._sigma, epoch, n_epochs)
            codebook = codebook_of(som._weights.reshape(n_units, n_features))
            sums[:] = 0
            add_up = partial(_sums_of_part, data, codebook, step)
            for part, (hit, of_hit) in zip(parts, in_order(add_up, parts), strict=True):
                sums[hit] += of_hit
                progress.update(part.stop - part.start)
            smooth = sums.reshape(rows, cols, -1)
            _smooth(som, smooth, sigma)
            total = smooth[..., -1:]
            # a unit that no image reaches keeps its weights
            rate = np.where(total > 0, learning_rate, 0)
            som._weights *= 1 - rate
            smooth *= rate / np.where(total > 0, total, 1)
            som._weights += smooth[..., :-1]


def assign(som: MiniSom, data: "Directions | np.ndarray", in_order: Callable = map) -> tuple[np.ndarray, np.ndarray]:
    """Return the first and second nearest unit of each image (row * cols + col), and the distances to them.

    in_order : as for `train_batch`
    Returns units (n_images, 2) int32 and distances (n_images, 2) float32; on a map of one unit both are this unit.
    """
    codebook = codebook_of(som._weights.reshape(-1, som._weights.shape[2]))
    units = np.zeros((len(data), 2), np.int32)
    distances = np.zeros((len(data), 2), np.float32)
    parts = parts_of(len(data), len(codebook.weights))
    found = in_order(partial(_units_and_distances, data, codebook), parts)
    for part, (unit, distance) in zip(parts, found, strict=True):
        units[part], distances[part] = unit, distance
    return units, distances


def _units_and_distances(
    data: "Directions | np.ndarray", codebook: Codebook, part: slice
) -> tuple[np.ndarray, np.ndarray]:
    """Return `assign` of a part of the images."""
    units, distances = [], []
    for some, unit in _nearest_by_chunk(data, codebook, min(2, len(codebook.weights)), part):
        units.append(unit)
        squared = [_squared(some, codebook.weights[unit[:, rank]]) for rank in range(unit.shape[1])]
        distances.append(np.sqrt(np.stack(squared, axis=1)))
    return np.concatenate(units), np.concatenate(distances)


def topographic_error(som: MiniSom, units: np.ndarray) -> float:
    """Return the share of images whose two nearest units (n_images, 2) are not neighbours on the map, 0..1.

    As MiniSom's `topographic_error`: neighbours are the eight units around one, six on a hexagonal map.
    """
    if som._weights.shape[0] * som._weights.shape[1] < 2:
        return 0.0
    xx, yy = (axis.ravel() for axis in som.get_euclidean_coordinates())
    gap = np.hypot(xx[units[:, 0]] - xx[units[:, 1]], yy[units[:, 0]] - yy[units[:, 1]])
    # six neighbours at a distance of 1; MiniSom's own limit for eight
    return float(np.mean(gap > (1.01 if som.topology == "hexagonal" else 1.42)))


def u_matrix(som: MiniSom) -> np.ndarray:
    """Return the mean distance of each unit to its neighbours, (rows, cols) float32, largest 1 (0 on equal units)."""
    if not np.ptp(som._weights, axis=(0, 1)).any():
        return np.zeros(som._weights.shape[:2], np.float32)
    return np.nan_to_num(som.distance_map(scaling="mean")).astype(np.float32)


def unit_clusters(cluster: np.ndarray, unit: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Return the cluster of most of each unit's images, (rows, cols) int32; an empty unit takes the nearest one's.

    cluster, unit : (n_images,), the cluster of each image and its nearest unit on a map of this shape
    """
    rows, cols = shape
    order = np.lexsort((cluster, unit))
    pairs, count = np.unique(np.stack([unit[order], cluster[order]]), axis=1, return_counts=True)
    most = pairs[:, np.lexsort((pairs[1], -count, pairs[0]))]
    hit, first = np.unique(most[0], return_index=True)
    place = np.stack(np.divmod(np.arange(rows * cols), cols), axis=1)
    nearest = cKDTree(place[hit]).query(place)[1]
    return most[1][first][nearest].reshape(rows, cols).astype(np.int32)
