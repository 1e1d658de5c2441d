"""New photographs among the clusters of earlier runs, whose map, links and calibration they use.

A photograph belongs to the earlier cluster that it is most strongly linked with, where that link is as strong as links
within the earlier clusters are. The others are new models, and are grouped among themselves.
"""

from typing import NamedTuple

import numpy as np

from pipeline.clustering.communities import find_communities, link_images
from pipeline.clustering.cuts import by_size
from pipeline.clustering.directions import Directions
from pipeline.clustering.fragments import FRAGMENT, NEAREST, Links, link_with_clusters
from pipeline.clustering.neighbours import Index, nearest_to

PROBES = 8  # lists that earlier images are looked for in: few images are asked for, and each list has to be read
ROUNDS = 2  # times that all new images are given to the cluster of their strongest link
BOTH = 0.2  # share of new images strongly linked with two earlier clusters from which on these may be cut wrongly
STRAY = 0.5  # share of new images in no earlier cluster from which on the earlier run says little about them
GAP = 0.75  # place of the threshold, from the strongest link between clusters (0) to the weakest within one (1)
GROWN = 0.5  # images assigned since the earlier clustering, as a share of its own, from which on it is out of date


class EarlierImages(NamedTuple):
    """The m different images of an earlier run."""

    space: Directions  # (m, n_features), directions as their run compared them
    lists: Index
    cluster: np.ndarray  # (m,) int64, ids


class Union(NamedTuple):
    """The nearest images of n new images, among the new ones and the earlier ones."""

    neighbours: np.ndarray  # (n, k) int64, nearest first; from n on, the place in `known`, plus n
    similarity: np.ndarray  # (n, k) float32, cosine
    known: np.ndarray  # (n_known,) int64, clusters of earlier images; one may stand there several times


def link_threshold(cluster: np.ndarray, neighbours: np.ndarray, similarity: np.ndarray) -> float:
    """Return the strength that tells links of images with their own cluster from those with another one, -1 to 1.

    The strength at which as few links as possible are on the wrong side; where several are as good, nearer to the links
    within, since new models may be more alike than the earlier ones. Each image counts with its link to its own
    cluster, and with its strongest one to another. Fragments do not count where there are larger clusters: they may be
    odd photographs of the cluster that they are linked with.

    cluster : int ndarray of shape (m,); neighbours, similarity : ndarrays of shape (m, k), nearest first
    """
    if not neighbours.size:
        return 1.0
    cluster = np.unique(cluster, return_inverse=True)[1]
    sizes = np.bincount(cluster)
    links = link_with_clusters(cluster, neighbours, similarity)
    counted = sizes > (FRAGMENT if sizes.max() > FRAGMENT else 0)
    usable = counted[cluster[links.image]] & counted[links.cluster]
    own = cluster[links.image] == links.cluster
    within = np.sort(links.strength[own & usable])
    between = np.sort(strongest(links, ~own & usable, len(cluster))[1][counted[cluster]])
    limits = np.unique(np.concatenate([within, between, [min(1.0, between[-1] + 1e-6)]]))
    wrong = np.searchsorted(within, limits) + len(between) - np.searchsorted(between, limits)
    best = np.flatnonzero(wrong == wrong.min())
    below = limits[best[0] - 1] if best[0] else limits[0]
    return float(below + GAP * (limits[best[-1]] - below))


def find_earlier(rows: np.ndarray, runs: list[EarlierImages], k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the clusters of the k nearest earlier images of each of `rows`, and the similarities, nearest first.

    rows : float32 ndarray of shape (n, n_features), directions. Returns int64 and float32 ndarrays of shape (n, k).
    """
    found = [nearest_to(rows, one.space, one.lists, k, PROBES) for one in runs]
    clusters = np.concatenate([one.cluster[images] for one, (images, _) in zip(runs, found, strict=True)], axis=1)
    similarity = np.concatenate([similarity for _, similarity in found], axis=1)
    order = np.argsort(-similarity, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(clusters, order, axis=1), np.take_along_axis(similarity, order, axis=1)


def unite(clusters: np.ndarray, of_earlier: np.ndarray, neighbours: np.ndarray, of_new: np.ndarray) -> Union:
    """Join the nearest earlier images of new images, by `find_earlier`, with their nearest new ones, both (n, ...)."""
    n = len(clusters)
    places = n + np.arange(clusters.size).reshape(clusters.shape)
    both, similarity = np.concatenate([neighbours, places], axis=1), np.concatenate([of_new, of_earlier], axis=1)
    order = np.argsort(-similarity, axis=1, kind="stable")[:, :NEAREST]
    return Union(np.take_along_axis(both, order, 1), np.take_along_axis(similarity, order, 1), clusters.ravel())


def strongest(links: Links, usable: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the cluster of the strongest usable link of each of n images (-1 for none), and its strength (-1)."""
    order = np.flatnonzero(usable)
    order = order[np.lexsort((-links.strength[order], links.image[order]))]
    image, first = np.unique(links.image[order], return_index=True)
    cluster, strength = np.full(n, -1), np.full(n, -1.0)
    cluster[image], strength[image] = links.cluster[order[first]], links.strength[order[first]]
    return cluster, strength


def assign_images(union: Union, least: float, first_new: int, seed: int) -> np.ndarray:
    """Give new images the ids of the earlier clusters that they belong to, and new ids to the others, int64 (n,).

    least : the strength of a link with a cluster from which on an image belongs to it, see `link_threshold`
    first_new : the first new id, larger than all earlier ones; new clusters are numbered by size from it
    seed : of Leiden's algorithm, which groups the images of new models
    """
    n = len(union.neighbours)
    if not n:
        return np.empty(0, np.int64)
    alone = first_new + np.arange(n)
    links = link_with_clusters(np.concatenate([alone, union.known]), union.neighbours, union.similarity)
    earlier, strength = strongest(links, links.cluster < first_new, n)
    belongs = strength >= least
    # the others: communities among themselves, linked where they are as alike as images of one cluster
    new = np.where((union.neighbours < n) & ~belongs[np.minimum(union.neighbours, n - 1)], union.neighbours, -1)
    new[belongs] = -1
    groups = find_communities(*link_images(new, union.similarity, new.shape[1], least), n, seed)
    cluster = np.where(belongs, earlier, first_new + groups)
    for _ in range(ROUNDS):
        links = link_with_clusters(np.concatenate([cluster, union.known]), union.neighbours, union.similarity)
        best, strength = strongest(links, np.ones(len(links.image), bool), n)
        cluster = np.where(strength >= least, best, cluster)
    new_ones = cluster >= first_new
    cluster[new_ones] = first_new + by_size(cluster[new_ones]) if new_ones.any() else 0
    return cluster


def reasons_to_cluster_anew(
    cluster: np.ndarray, union: Union, least: float, first_new: int, n_clustered: int, n_assigned: int
) -> list[str]:
    """Say why the earlier clustering no longer fits; an empty list where it does.

    n_clustered : images of the earlier clustering; n_assigned : images assigned since then, these among them
    """
    n = len(cluster)
    links = link_with_clusters(np.concatenate([cluster, union.known]), union.neighbours, union.similarity)
    strong = links.image[(links.cluster < first_new) & (links.strength >= least)]
    n_both, n_stray = int((np.bincount(strong, minlength=n) > 1).sum()), int((cluster >= first_new).sum())
    reasons = []
    if n_stray > STRAY * n:
        reasons.append(f"{n_stray} of {n} images are in no earlier cluster")
    if n_both > BOTH * n:
        reasons.append(f"{n_both} of {n} images belong to two earlier clusters each, which may be one model")
    if n_assigned > GROWN * n_clustered:
        reasons.append(f"{n_assigned} images were assigned to a clustering of {n_clustered}")
    return reasons
