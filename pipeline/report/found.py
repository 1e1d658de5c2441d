"""The result of the earlier stages as stage 06 uses it: images with their clusters, typical images first."""

from dataclasses import dataclass, field

import numpy as np
from scipy.linalg import eigh
from threadpoolctl import threadpool_limits

from pipeline.clustering.corrections import Answer, same_groups
from pipeline.clustering.directions import chunks, means_of, scatter_within
from pipeline.scoring.silhouette import silhouettes


@dataclass
class Found:
    """Everything about the images, row i of every array belongs to `names[i]`.

    names : n_images names; labels : their true labels, "" where unknown
    cluster, runner_up : int64 (n,), runner_up -1 where there is none; confidence, distance : float64 (n,)
    outlier : bool (n,); unit : int64 (n,), row * cols + column on the map
    direction : float32 (n, n_features), the features as stage 04 compares them (class `Directions`)
    answers : what a person has said of pairs of images
    corrections : the lines of corrections.csv, which a download from the report keeps: two images, and "same",
        "different" or ""
    """

    names: list[str]
    labels: list[str]
    cluster: np.ndarray
    runner_up: np.ndarray
    confidence: np.ndarray
    distance: np.ndarray
    outlier: np.ndarray
    unit: np.ndarray
    direction: np.ndarray
    answers: list[Answer] = field(default_factory=list)
    corrections: list[list[str]] = field(default_factory=list)
    medoid: dict[int, int] = field(default_factory=dict)  # cluster -> image
    order: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))  # images by cluster, medoid first

    def __post_init__(self) -> None:
        typical = measure_typicality(self.direction, self.cluster)
        self.order = np.lexsort((-typical, self.cluster))
        first = np.unique(self.cluster[self.order], return_index=True)[1]
        self.medoid = {int(self.cluster[i]): int(i) for i in self.order[first]}
        self.silhouette = measure_silhouettes(self.direction, self.cluster)
        self.said_same = same_groups(len(self.names), self.answers)
        different = [(int(self.said_same[a]), int(self.said_same[b])) for a, b, same in self.answers if not same]
        self.said_different = {*different, *((there, here) for here, there in different)}

    def members(self, cluster: int) -> np.ndarray:
        """Return the images of a cluster, the medoid first, then by distance to it: int64 (n_members,)."""
        first, last = np.searchsorted(self.cluster, [cluster, cluster + 1], sorter=self.order)
        return self.order[first:last]

    def is_answered(self, one: np.ndarray, other: np.ndarray) -> bool:
        """Return whether a person has called an image of `one` and one of `other` (int arrays) the same or different.

        Images that are called the same as a third one are the same.
        """
        here, there = set(self.said_same[one].tolist()), set(self.said_same[other].tolist())
        return bool(here & there) or any(a in here and b in there for a, b in self.said_different)


def measure_typicality(direction: np.ndarray, cluster: np.ndarray) -> np.ndarray:
    """Return how near each image is to the centre of its cluster: float32 (n_images,), larger is nearer.

    The nearest one is the medoid, the image with the least sum of squared distances to the others.
    direction : float32 ndarray of shape (n_images, n_features); cluster : int ndarray of shape (n_images,)
    """
    ids, index = np.unique(cluster, return_inverse=True)
    centres = means_of(direction, index, len(ids))
    result = np.empty(len(index), np.float32)
    for rows in chunks(*direction.shape):
        result[rows] = -((direction[rows] - centres[index[rows]]) ** 2).sum(axis=1)
    return result


def measure_silhouettes(direction: np.ndarray, cluster: np.ndarray) -> np.ndarray:
    """Return the silhouette of each image among the clusters of two images and more, float32 (n_images,), -1 to 1.

    An image that is alone, and every image where there is one such cluster, has 1: nothing is more like it.
    direction : float32 ndarray of shape (n_images, n_features); cluster : int ndarray of shape (n_images,)
    """
    result = np.ones(len(cluster), np.float32)
    _, index, sizes = np.unique(cluster, return_inverse=True, return_counts=True)
    several = sizes > 1
    if np.count_nonzero(several) < 2:
        return result
    sums = means_of(direction, index, len(sizes))[several] * sizes[several, None].astype(np.float32)
    place = np.cumsum(several) - 1  # of a cluster in `sums`
    images = np.flatnonzero(several[index])
    for rows in chunks(len(images), max(sums.shape)):
        some = images[rows]
        result[some] = silhouettes(direction[some], place[index[some]], sums, sizes[several])
    return result


def project_on_main_axes(direction: np.ndarray, n_axes: int) -> np.ndarray:
    """Return the images on at most `n_axes` principal axes, the longest first: float32 (n_images, n_axes).

    direction : float32 ndarray of shape (n_images, n_features), read a few rows at a time
    """
    n_images, n_features = direction.shape
    n_axes = min(n_axes, n_images, n_features)
    # one thread: what comes of it must not depend on their number, and t-SNE makes much of the last digits
    with threadpool_limits(1):
        (mean,), scatter = scatter_within(direction, np.zeros(n_images, int), 1)
        axes = eigh(scatter, subset_by_index=[n_features - n_axes, n_features - 1])[1][:, ::-1].astype(np.float32)
        # the sign of an eigenvector is arbitrary
        axes *= np.where(axes[np.abs(axes).argmax(axis=0), np.arange(n_axes)] < 0, -1, 1)
        result = np.empty((n_images, n_axes), np.float32)
        for rows in chunks(*direction.shape):
            result[rows] = (direction[rows] - mean) @ axes
    return result
