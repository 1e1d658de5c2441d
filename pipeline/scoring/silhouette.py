"""The silhouette with cosine distances, without looking at pairs of images.

Rousseeuw 1987, doi:10.1016/0377-0427(87)90125-7.
"""

import numpy as np

from pipeline.clustering.directions import chunks, of_length_one, sums_of

LEAST_DISTANCE = 1e-12  # keeps the quotient of two distances of 0 defined


def silhouettes(
    rows: np.ndarray, own: np.ndarray, sums: np.ndarray, sizes: np.ndarray, least_cosine: float = -1.0
) -> np.ndarray:
    """Return the silhouette of each row among the given clusters, floating (n_rows,), -1 to 1.

    The silhouette of an image is (b - a) / max(a, b): a is its mean distance to the other images of its cluster, b its
    smallest mean distance to another cluster. The mean cosine to a cluster is the product with the mean of its rows of
    length 1. An image that is alone in its cluster has 0.

    Parameters
    ----------
    rows : float32 ndarray of shape (n_rows, n_features), of length 1, or 0
    own : int ndarray of shape (n_rows,), the cluster of each row: its place in `sums`
    sums : float32 ndarray of shape (n_clusters, n_features), the sum of the rows of each cluster
    sizes : int ndarray of shape (n_clusters,), the number of rows of each cluster
    least_cosine : cosine that a neighbouring cluster has at least; where `sums` holds only the clusters near by, 0
        stands for the centre of all images, at a right angle
    """
    # the cosine of an image with itself is 1, or 0 for a row of zeros
    return silhouettes_of_sums(rows @ sums.T, (rows**2).sum(axis=1), own, sizes, least_cosine)


def silhouettes_of_sums(
    cosine: np.ndarray,
    itself: np.ndarray,
    own: np.ndarray,
    sizes: np.ndarray,
    least_cosine: float = -1.0,
    alone: float | None = None,
) -> np.ndarray:
    """Return the silhouette of each image from its cosines, floating (n_rows,), -1 to 1.

    Parameters
    ----------
    cosine : float32 ndarray of shape (n_rows, n_clusters), sums of cosines with each cluster's images; overwritten
    itself : float32 ndarray of shape (n_rows,), the cosine of each image with itself
    own, sizes, least_cosine : see `silhouettes`
    alone : distance at which an image that is alone in its cluster would find others of its kind; None: it has 0
    """
    every = np.arange(len(own))
    within = 1 - (cosine[every, own] - itself) / np.maximum(sizes[own] - 1, 1)
    if alone is not None:
        within[sizes[own] == 1] = alone
    cosine /= sizes
    cosine[every, own] = -np.inf
    beside = 1 - np.maximum(cosine.max(axis=1), least_cosine)
    within, beside = np.maximum(within, 0), np.maximum(beside, 0)  # rounding may leave distances of 0 just below
    largest = np.maximum(np.maximum(within, beside), LEAST_DISTANCE)
    return np.where((sizes[own] > 1) | (alone is not None), (beside - within) / largest, 0)


def mean_silhouette(features: np.ndarray, clusters: list[str]) -> float | None:
    """Return the mean silhouette of all images, -1 to 1, or None where there is one cluster or no image shares one.

    features : floating ndarray of shape (n_images, n_features), memory-mapped or not: a few images are read at a time
    clusters : the cluster of each image
    """
    ids, cluster, sizes = np.unique(np.array(clusters), return_inverse=True, return_counts=True)
    if not 2 <= len(ids) < len(cluster):
        return None
    sums, total = np.zeros((len(ids), features.shape[1]), np.float32), 0.0
    for rows in chunks(*features.shape):
        found, sum_of_found = sums_of(of_length_one(features[rows]), cluster[rows])
        sums[found] += sum_of_found
    for rows in chunks(len(cluster), max(sums.shape)):
        total += float(silhouettes(of_length_one(features[rows]), cluster[rows], sums, sizes).sum())
    return total / len(cluster)
