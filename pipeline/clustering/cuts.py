"""Cut finer or coarser than the predicted partition, and number clusters."""

import heapq

import numpy as np
from scipy import sparse

from pipeline.clustering.neighbours import VOTERS

GRANULARITIES = (0.25, 0.35, 0.5, 0.7, 0.85, 1.0, 1.2, 1.4, 2.0, 2.8, 4.0)  # cuts kept for the report


def merged(cluster: np.ndarray, neighbours: np.ndarray, n_clusters: int) -> np.ndarray:
    """Join the two clusters with the most links between them, for their sizes, until `n_clusters` are left.

    Links are the images' VOTERS nearest neighbours. Clusters without any link are joined smallest first. The time grows
    with the number of links, not of pairs of clusters.
    """
    n = int(cluster.max()) + 1
    nearest = neighbours[:, :VOTERS]
    ends = np.repeat(cluster, nearest.shape[1]), cluster[nearest].ravel()
    pairs = sparse.coo_matrix((np.ones(nearest.size), ends), (n, n)).tocsr()
    pairs = (pairs + pairs.T).tocoo()
    links: list[dict[int, float]] = [{} for _ in range(n)]
    for i, j, count in zip(pairs.row.tolist(), pairs.col.tolist(), pairs.data.tolist(), strict=True):
        if i != j:
            links[i][j] = count
    size = np.bincount(cluster).astype(float).tolist()

    def strength(i: int, j: int) -> float:
        return -links[i].get(j, 0) / (size[i] * size[j]) ** 0.5

    heap = [(strength(i, j), i, j) for i in range(n) for j in links[i] if i < j]
    heapq.heapify(heap)
    smallest = [(size[i], i) for i in range(n)]
    heapq.heapify(smallest)
    into = np.arange(n)
    for _ in range(n - n_clusters):
        while heap:
            known, i, j = heapq.heappop(heap)
            if into[i] == i and into[j] == j and known == strength(i, j):
                break
        else:
            pair: list[int] = []
            while len(pair) < 2:
                count, i = heapq.heappop(smallest)
                if into[i] == i and count == size[i]:
                    pair.append(i)
            i, j = sorted(pair)
        into[j] = i
        size[i] += size[j]
        heapq.heappush(smallest, (size[i], i))
        for other, count in links[j].items():
            del links[other][j]
            if other != i:
                links[i][other] = links[other][i] = links[i].get(other, 0) + count
        for other in links[i]:
            heapq.heappush(heap, (strength(i, other), min(i, other), max(i, other)))
    while (into != into[into]).any():
        into = into[into]
    return np.unique(into[cluster], return_inverse=True)[1].astype(np.int32)


def cut(
    partitions: np.ndarray,
    predicted: int,
    neighbours: np.ndarray,
    similarity: np.ndarray,
    granularity: float,
    n_clusters: int = 0,
) -> np.ndarray:
    """Return clusters of the m images, (m,): `granularity` times as many as predicted, or as `n_clusters` if given.

    partitions : ndarray of shape (n_partitions, m), number of clusters ascending; predicted : the row that is predicted
    neighbours, similarity : ndarrays of shape (m, k), nearest first

    The partition with as many clusters, or with the next larger number, is joined down to this number. For more
    clusters than the finest partition has, the images farthest from their neighbours become clusters of their own.
    """
    if granularity == 1 and not n_clusters:
        return partitions[predicted]
    numbers = partitions.max(axis=1) + 1
    m = partitions.shape[1]
    wanted = int(np.clip(round((n_clusters or numbers[predicted]) * granularity), 1, m))
    start = np.searchsorted(numbers, wanted)
    if start < len(numbers):
        return merged(partitions[start], neighbours, wanted)
    cluster = partitions[-1].copy()
    size = np.bincount(cluster).tolist()
    for image in np.argsort(similarity[:, 0], kind="stable"):
        if len(size) == wanted:
            break
        if size[cluster[image]] > 1:
            size[cluster[image]] -= 1
            cluster[image] = len(size)
            size.append(1)
    return cluster


def cut_at_all(partitions: np.ndarray, predicted: int, neighbours: np.ndarray, similarity: np.ndarray) -> np.ndarray:
    """Return the cuts at GRANULARITIES, int32 (n_cuts, m), each as `cut` makes it. Parameters as those of `cut`."""
    numbers = partitions.max(axis=1) + 1
    found: dict[float, np.ndarray] = {}
    joined, joined_from = partitions[-1], -1
    for granularity in reversed(GRANULARITIES):  # a coarser cut of the same partition joins the finer one on
        wanted = max(1, round(int(numbers[predicted]) * granularity))
        start = int(np.searchsorted(numbers, wanted))
        if granularity == 1 or start == len(numbers):
            found[granularity] = cut(partitions, predicted, neighbours, similarity, granularity)
            continue
        joined = merged(joined if start == joined_from else partitions[start], neighbours, wanted)
        joined_from = start
        found[granularity] = joined
    return np.stack([found[granularity] for granularity in GRANULARITIES])


def curve(cuts: np.ndarray, first_of: np.ndarray, cluster: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return finer and coarser cuts around the final `cluster`: granularities ascending, clusters (n_cuts, n) int32.

    A granularity is the cut's number of clusters relative to the final one; 1.0 is the final one itself.

    cuts : ndarray of shape (n_cuts, m), of the m different images; first_of : ndarray of shape (n,), which of these m
    each image equals; cluster : ndarray of shape (n,)
    """
    wanted = len(np.unique(cluster))
    by_granularity = {round((c.max() + 1) / wanted, 4): by_size(c[first_of]) for c in cuts}
    by_granularity[1.0] = cluster
    granularity = sorted(by_granularity)
    return np.array(granularity, np.float32), np.stack([by_granularity[g] for g in granularity]).astype(np.int32)


def by_size(cluster: np.ndarray) -> np.ndarray:
    """Renumber the clusters from 0 by size descending, equal sizes by their first image.

    >>> by_size(np.array([5, 3, 3, 7]))
    array([1, 0, 0, 2])
    """
    _, first, inverse, size = np.unique(cluster, return_index=True, return_inverse=True, return_counts=True)
    new = np.empty(len(size), np.int64)
    new[np.lexsort((first, -size))] = np.arange(len(size))
    return new[inverse]


def describe_curve(granularity: np.ndarray, cuts: np.ndarray) -> list[dict[str, float]]:
    """Return the granularity and the number of clusters of each cut.

    granularity : float ndarray of shape (n_cuts,); cuts : int ndarray of shape (n_cuts, n)

    >>> describe_curve(np.array([1.0]), np.array([[0, 1, 1]]))
    [{'granularity': 1.0, 'n_clusters': 2}]
    """
    numbers = [len(np.unique(cluster)) for cluster in cuts]
    return [{"granularity": round(float(g), 4), "n_clusters": n} for g, n in zip(granularity, numbers, strict=True)]


def bound_number(n_clusters: int, interval: np.ndarray | None) -> list[int]:
    """Return the least and the largest number of clusters that may be right, `n_clusters` between them.

    interval : float ndarray of shape (2,), or None where the number was given

    >>> bound_number(12, np.array([7.6, 11.2])), bound_number(12, None)
    ([8, 12], [12, 12])
    """
    numbers = [n_clusters] if interval is None else [n_clusters, *np.rint(interval).astype(int).tolist()]
    return [min(numbers), max(numbers)]
