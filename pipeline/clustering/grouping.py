"""Group images by their directions: neighbours, candidate partitions, the best one, odd photographs.

Up to SELECTION_IMAGES images are looked at as a whole. Of more, the number of neighbours and the least similarity of
the links are chosen on a sample, and all images are then grouped by these two.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from pipeline.clustering.communities import find_communities, link_images
from pipeline.clustering.fragments import absorb_fragments
from pipeline.clustering.landmarks import Landmarks, no_landmarks
from pipeline.clustering.neighbours import Index, exact_neighbours, nearest_images, nearest_to
from pipeline.clustering.selection import (
    LEAST_SIMILARITIES,
    NEIGHBOURS,
    candidate_partitions,
    select_partition,
)

SELECTION_IMAGES = 3000  # images on which the partition is chosen, at most
KEPT_NEIGHBOURS = 20  # nearest images that are kept for cuts, confidence and odd photographs
SPREAD = 0.12  # standard deviation of ln(predicted / true number) on models in ten regimes of sizes (doc/log.md)
FARTHEST = (0.7, 1.4)  # limits of the interval, relative to the predicted number
PATCH = 60  # nearest images of each of the images that a sample is made around, so that clusters are there as a whole


class Choice(NamedTuple):
    """How the images are linked, and what that says about the number of clusters."""

    n_neighbours: int
    least_similarity: float
    cluster: np.ndarray  # (m,) int32, of the images that the choice was made on
    low: float  # least and largest number of clusters that may be right, relative to the one chosen
    high: float


class Grouping(NamedTuple):
    """Clusters of m images, and what finer and coarser cuts need."""

    partitions: np.ndarray  # (n_partitions, m) int32, number of clusters ascending
    predicted: int  # the row that is predicted
    interval: np.ndarray  # (2,) int64, least and largest number of clusters that may be right
    neighbours: np.ndarray  # (m, k) int32, nearest first
    similarity: np.ndarray  # (m, k) float32, cosine
    n_neighbours: int
    least_similarity: float


def sample_of_patches(data: np.ndarray, index: Index, n_wanted: int, seed: int) -> np.ndarray:
    """Return about `n_wanted` images, ascending: random ones, each with its nearest images.

    data : float32 ndarray of shape (m, n_features), directions; index : the inverted file of `data`
    """
    taken = np.zeros(len(data), bool)
    order = np.random.default_rng(seed).permutation(len(data))
    for start in range(0, len(data), PATCH):
        for patch in nearest_to(data[order[start : start + PATCH]], data, index, PATCH)[0]:
            taken[patch] = True
            if np.count_nonzero(taken) >= n_wanted:
                return np.flatnonzero(taken)
    return np.flatnonzero(taken)


def number_of(cluster: np.ndarray) -> int:
    """Return the number of clusters."""
    return len(np.unique(cluster))


def choose(data: np.ndarray, landmarks: Landmarks, seed: int, pure: bool = False) -> Choice:
    """Choose how images are linked.

    data : float32 ndarray of shape (m, n_features), directions
    landmarks : directions of known models' photographs, or of none
    pure : see `select_partition`
    """
    both = np.concatenate([data, landmarks.features])
    neighbours, similarity = exact_neighbours(both, min(NEIGHBOURS[-1], len(both) - 1))
    candidates = candidate_partitions(neighbours, similarity, both, landmarks.labels, seed)
    best, nearly = select_partition(candidates, pure, beside_known=bool(len(landmarks.labels)))
    numbers = np.array([number_of(one.cluster) for one in nearly]) / number_of(best.cluster)
    low, high = np.clip([numbers.min() * np.exp(-2 * SPREAD), numbers.max() * np.exp(2 * SPREAD)], *FARTHEST)
    return Choice(best.n_neighbours, best.least_similarity, best.cluster, low, high)


def choose_on_sample(
    data: np.ndarray, landmarks: Landmarks, index: Index, seed: int, pure: bool = False
) -> tuple[np.ndarray, Choice]:
    """Choose on all images, or on a sample of many: return the images that were looked at, ascending, and the choice.

    Parameters as those of `group` and `choose`.
    """
    m = len(data)
    if m <= SELECTION_IMAGES:
        return np.arange(m), choose(data, landmarks, seed, pure)
    sample = sample_of_patches(data, index, SELECTION_IMAGES, seed)
    return sample, choose(data[sample], landmarks, seed, pure)


def differing_groups(
    data: np.ndarray, m: int, labels: np.ndarray, index: Index, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return images whose groups show in what photographs of one model differ, and their groups.

    These are the landmarks with their models. Without landmarks, they are the images of a first grouping; none where
    that finds a single cluster, or no two images alike.

    data : float32 ndarray of shape (m + n_landmarks, n_features), directions; labels : int ndarray (n_landmarks,);
    index, seed : as for `group`
    """
    if len(labels):
        return np.arange(m, len(data)), labels
    # images that are left alone do no harm here; models that are joined make what differs between them vanish
    sample, choice = choose_on_sample(data, no_landmarks(data.shape[1]), index, seed, pure=True)
    if not 1 < number_of(choice.cluster) < len(sample):
        return sample[:0], choice.cluster[:0]
    return sample, choice.cluster


def single_images(m: int) -> Grouping:
    """Return the grouping in which each of m images is a cluster of its own."""
    nothing = np.empty((m, 0), np.int32)
    each = np.arange(m, dtype=np.int32)[None]
    return Grouping(each, 0, np.array([m, m]), nothing, nothing.astype(np.float32), 0, -1.0)


def group_by_unit(unit: np.ndarray, neighbours: np.ndarray, similarity: np.ndarray) -> Grouping:
    """Return the grouping in which the images of each unit of the map are a cluster.

    unit : int ndarray of shape (m,); neighbours, similarity : ndarrays of shape (m, k), nearest first
    """
    cluster = np.unique(unit, return_inverse=True)[1].astype(np.int32)
    interval = np.full(2, number_of(cluster))
    return Grouping(cluster[None], 0, interval, neighbours, similarity, 0, -1.0)


def group(data: np.ndarray, landmarks: Landmarks, index: Index, seed: int, in_order: Callable = map) -> Grouping:
    """Group m images.

    Parameters
    ----------
    data : float32 ndarray of shape (m, n_features), directions, m >= 2
    landmarks : directions of known models' photographs
    index : the inverted file of `data`, in which neighbours are looked for
    seed : of Leiden's algorithm and the sample
    in_order : see `nearest_images`
    """
    m = len(data)
    sample, choice = choose_on_sample(data, landmarks, index, seed)
    n_kept = min(max(choice.n_neighbours, KEPT_NEIGHBOURS), m - 1)
    neighbours, similarity = nearest_images(data, index, n_kept, in_order)
    partitions = [
        find_communities(*link_images(neighbours, similarity, choice.n_neighbours, least), m, seed)
        for least in LEAST_SIMILARITIES
    ]
    cluster = choice.cluster
    if len(sample) < m:
        cluster = partitions[LEAST_SIMILARITIES.index(choice.least_similarity)]
        cluster = absorb_fragments(cluster, neighbours, similarity)
    n_clusters = number_of(cluster)
    partitions = sorted([*partitions, cluster], key=number_of)
    predicted = next(i for i, partition in enumerate(partitions) if partition is cluster)
    interval = np.rint(np.array([choice.low, choice.high]) * n_clusters).astype(np.int64)
    kept = slice(KEPT_NEIGHBOURS)
    return Grouping(
        np.stack(partitions),
        predicted,
        np.maximum(interval, 1),
        neighbours[:, kept].copy(),
        similarity[:, kept].copy(),
        choice.n_neighbours,
        choice.least_similarity,
    )
