"""Odd photographs: those that lie apart from the others of their model, since their mask or their view is unusual."""

from typing import NamedTuple

import numpy as np

LEAST_SHARE = 0.0005  # share of a model's photographs with so weak a link under which such a link is another model's
FRAGMENT = 2  # images of a fragment at most; larger clusters are taken for models
LINKS = 3  # most similar images by which an image is linked with a cluster: a single one may be alike by chance
NEAREST = 20  # nearest images among which an image's links are looked for
MOST_ODD = 0.15  # share of odd photographs at most; more single images are models of their own
SINGLES = 6.0  # models of one photograph for each of two, at most; Lotka's law of productivity says 4


class Links(NamedTuple):
    """The links of images with clusters: for each image and each cluster among its nearest images one."""

    image: np.ndarray  # (n_links,) int64, ascending
    cluster: np.ndarray  # (n_links,) int64
    strength: np.ndarray  # (n_links,) float64, mean similarity to the (at most LINKS) most similar images there


def link_with_clusters(cluster: np.ndarray, neighbours: np.ndarray, similarity: np.ndarray) -> Links:
    """Return the links of m images with the clusters of their NEAREST nearest images.

    cluster : int ndarray of shape (m,); neighbours, similarity : ndarrays of shape (m, k), nearest first
    """
    nearest = neighbours[:, :NEAREST]
    image = np.repeat(np.arange(len(nearest)), nearest.shape[1])
    pair = image * (cluster.max() + 1) + cluster[nearest].ravel()
    order = np.argsort(pair, kind="stable")  # the most similar image of each pair first
    start = np.flatnonzero(np.diff(pair[order], prepend=-1))
    counts = np.diff(start, append=len(pair))
    used = np.arange(len(pair)) - np.repeat(start, counts) < LINKS
    strength = np.add.reduceat(np.where(used, similarity[:, :NEAREST].ravel()[order], 0), start)
    strength /= np.minimum(counts, LINKS)
    image, linked = np.divmod(pair[order][start], cluster.max() + 1)
    return Links(image, linked, strength)


def tail_share(own: np.ndarray, strength: np.ndarray) -> np.ndarray:
    """Return the share of a model's photographs that are linked with the others by less than `strength`, 0 to 0.5.

    The distances, 1 - strength, above the median are taken to follow a power law, whose exponent the median and the
    upper quartile give (Hill 1975, doi:10.1214/aos/1176343247): twice as far is as rare everywhere.

    own : float ndarray, the strengths of images with their own clusters; strength : float ndarray of any shape

    >>> tail_share(np.array([0.8, 0.8, 0.8, 0.9, 0.9, 0.9, 0.9]), np.array([0.9, 0.8, 0.6])).round(3)
    array([0.5  , 0.25 , 0.125])
    """
    median, quartile = np.maximum(np.quantile(1 - own, [0.5, 0.75]), 1e-6)
    exponent = np.log(2) / max(np.log(quartile / median), 1e-6)
    return 0.5 * np.maximum((1 - strength) / median, 1) ** -exponent


def count_odd(sizes: np.ndarray, most: int) -> int:
    """Return how many of the fragments are odd photographs: the first ones, until the rest is as sizes of models are.

    The rest has at most SINGLES single images for each pair. `sizes` : int ndarray of shape (n,), the number of images
    of each fragment, the most strongly linked one first; most : the largest answer

    >>> count_odd(np.array([1, 2, 1, 1, 1, 1, 1, 1]), 8), count_odd(np.array([1, 1, 1]), 2)
    (1, 2)
    """
    n_singles = np.concatenate([[0], np.cumsum(sizes[::-1] == 1)])[::-1]  # of the rest after 0, 1, 2 ... fragments
    n_pairs = np.concatenate([[0], np.cumsum(sizes[::-1] == 2)])[::-1]
    return min(int(np.argmax(n_singles <= SINGLES * n_pairs)), most)


def absorb_fragments(cluster: np.ndarray, neighbours: np.ndarray, similarity: np.ndarray) -> np.ndarray:
    """Give the fragments that are odd photographs to the clusters that they are linked with.

    A fragment may be a model with one or two photographs or consist of odd photographs of a larger model; its links do
    not show which. Their number does: the sizes of models follow a power law (Lotka 1926: four models with one
    photograph for each with two). Where there are more single images, the most strongly linked fragments are absorbed,
    as far as a link of their strength is likely within a model (`tail_share`).

    Parameters
    ----------
    cluster : int32 ndarray of shape (m,), numbered from 0 without gaps
    neighbours, similarity : ndarrays of shape (m, k), nearest first
    Returns clusters, int32 (m,), numbered from 0 without gaps.
    """
    sizes = np.bincount(cluster)
    links = link_with_clusters(cluster, neighbours, similarity)
    own = links.strength[(cluster[links.image] == links.cluster) & (sizes[links.cluster] > FRAGMENT)]
    to_larger = (sizes[cluster[links.image]] <= FRAGMENT) & (sizes[links.cluster] > FRAGMENT)
    fragment, into, strength = cluster[links.image[to_larger]], links.cluster[to_larger], links.strength[to_larger]
    if not len(own) or not len(fragment):
        return cluster
    order = np.lexsort((-strength, fragment))
    order = order[np.unique(fragment[order], return_index=True)[1]]  # the strongest link of each fragment
    order = order[np.argsort(-strength[order], kind="stable")]
    all_fragments = np.flatnonzero(sizes <= FRAGMENT)
    by_strength = np.r_[fragment[order], np.setdiff1d(all_fragments, fragment)]
    order = order[: count_odd(sizes[by_strength], min(len(order), round(MOST_ODD * len(own))))]
    order = order[tail_share(own, strength[order]) >= LEAST_SHARE]
    target = np.arange(len(sizes))
    target[fragment[order]] = into[order]
    return np.unique(target[cluster], return_inverse=True)[1].astype(np.int32)
