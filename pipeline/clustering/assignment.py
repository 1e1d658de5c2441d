"""New images among the clusters of an earlier run."""

import numpy as np

from pipeline.clustering.cuts import by_size


def assigned(
    old_cluster: np.ndarray, group: np.ndarray, first_of: np.ndarray, neighbours: np.ndarray, similarity: np.ndarray
) -> np.ndarray:
    """Give images the ids of the earlier clusters that they belong to, and new ids to the others, (n,) int64.

    Old and new images are grouped together. In a group with old images, each new one takes the cluster of most of its
    nearest old ones there; in a group with hardly any (fewer than one in ten), all new ones are a new cluster. New ids
    follow the largest old one.

    old_cluster : ndarray of shape (n_old,)
    group : ndarray of shape (n_old + n_new,), the group of each image, old ones first
    first_of : ndarray of that shape, which of the m different images each is
    neighbours, similarity : ndarrays of shape (m, k), the nearest of the different images
    """
    n_old = len(old_cluster)
    is_old = np.arange(len(group)) < n_old
    n_there = np.bincount(group, is_old)
    known = (n_there >= 0.1 * np.bincount(group))[group] & (n_there > 0)[group]
    # the old cluster of each of the images that differ, -1 for new ones, and the most frequent one of each group
    some = np.unique(first_of, return_index=True)[1]  # of equal images, an old one comes first
    cluster = np.where(is_old[some], old_cluster[np.minimum(some, n_old - 1)], -1)
    most = {g: np.bincount(old_cluster[group[:n_old] == g]).argmax() for g in np.unique(group[:n_old])}
    result = np.empty(len(group) - n_old, np.int64)
    for row in np.flatnonzero(~is_old & known):
        one = first_of[row]
        nearest = neighbours[one]
        use = (cluster[nearest] >= 0) & (group[some[nearest]] == group[row])
        if cluster[one] >= 0:
            result[row - n_old] = cluster[one]
        elif use.any():
            result[row - n_old] = np.bincount(cluster[nearest[use]], similarity[one][use] + 1).argmax()
        else:
            result[row - n_old] = most[group[row]]
    new = ~known[n_old:]
    if new.any():
        result[new] = old_cluster.max() + 1 + by_size(group[n_old:][new])
    return result
