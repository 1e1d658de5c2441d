"""Rate how sure the cluster of each image is, and find images that fit nowhere."""

import numpy as np

from pipeline.clustering.directions import chunks
from pipeline.clustering.neighbours import VOTERS

OUTLIER_COSINE = 0.15  # -1..1; images less like their nearest ones than this fit nowhere


def confidence(cluster: np.ndarray, neighbours: np.ndarray, similarity: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return how sure the cluster of each of m images is, and the cluster that would be the image's next.

    cluster : ndarray of shape (m,) or longer: behind the m images may be others, whose clusters are sure
    neighbours, similarity : ndarrays of shape (m, k), nearest first

    Returns
    -------
    sure : ndarray of shape (m,), float64, 0..1: the share of an image's nearest neighbours that are in its cluster,
        times the mean of this share over these neighbours, both weighted by similarity. As many neighbours count as
        the cluster has other images, at most 2 * VOTERS. For an image that is alone: 1 - its similarity to the nearest
    runner_up : ndarray of shape (m,), int64: the cluster with the next largest share; -1 where there is none
    """
    nearest = neighbours[:, : 2 * VOTERS]
    m = len(nearest)
    if not nearest.size:
        return np.ones(m), np.full(m, -1)
    vote = np.maximum(similarity[:, : 2 * VOTERS], 1e-6)
    vote = vote / vote.sum(axis=1, keepdims=True)
    theirs = cluster[nearest]
    n_others = np.bincount(cluster)[cluster[:m]] - 1
    own_vote = np.where(np.arange(nearest.shape[1]) < np.maximum(n_others, 1)[:, None], vote, 0)
    own_vote /= own_vote.sum(axis=1, keepdims=True)
    share = (own_vote * (theirs == cluster[:m, None])).sum(axis=1)
    sure = share * (own_vote * np.concatenate([share, np.ones(len(cluster) - m)])[nearest]).sum(axis=1)
    sure = np.where(n_others > 0, sure, np.clip(1 - similarity[:, 0], 0, 1))
    runner_up = np.full(m, -1)
    for rows in chunks(m, (2 * VOTERS) ** 2):
        total = ((theirs[rows, :, None] == theirs[rows, None, :]) * vote[rows, None, :]).sum(axis=2)
        total[theirs[rows] == cluster[:m][rows, None]] = -1
        best = total.argmax(axis=1)[:, None]
        found = np.take_along_axis(theirs[rows], best, axis=1)[:, 0]
        runner_up[rows] = np.where(np.take_along_axis(total, best, axis=1)[:, 0] > 0, found, -1)
    return sure, runner_up


def outliers(likeness: np.ndarray) -> np.ndarray:
    """Return the images that fit nowhere, (m,) bool.

    likeness : ndarray of shape (m,), the cosine to the nearest image

    An outlier is an image whose nearest one is less like it than OUTLIER_COSINE (around the centre of all images,
    unrelated ones stand at right angles), while most images have a much nearer one: its distance is over 1.3 times the
    median.
    """
    far = 1 - likeness
    return (likeness < OUTLIER_COSINE) & (far > 1.3 * np.median(far))


def join_nearest(cluster: np.ndarray, odd: np.ndarray, neighbours: np.ndarray) -> np.ndarray:
    """Return clusters, (m,) int32, where each image of `odd` is in the cluster of its nearest image that is not odd.

    cluster : int ndarray of shape (m,); odd : bool ndarray of shape (m,); neighbours : ndarray of shape (m, k), nearest
    first. An odd image whose neighbours are all odd stays.
    """
    there = ~odd[neighbours]
    moved = odd & there.any(axis=1)
    nearest = np.take_along_axis(neighbours, there.argmax(axis=1)[:, None], axis=1)[:, 0]
    return np.unique(np.where(moved, cluster[nearest], cluster), return_inverse=True)[1].astype(np.int32)
