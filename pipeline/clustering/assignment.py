"""Assign new photographs to the clusters of earlier runs, by those runs' map, links and calibration.

A photograph belongs to the earlier cluster that it is most strongly linked with, if the link is as strong as links
within the earlier clusters are. The other photographs show new models, and are grouped among themselves.
"""

from typing import NamedTuple

import numpy as np

from pipeline.clustering.communities import find_communities, link_images
from pipeline.clustering.cuts import by_size
from pipeline.clustering.directions import Compared, Directions
from pipeline.clustering.fragments import FRAGMENT, NEAREST, Links, link_with_clusters
from pipeline.clustering.neighbours import Index, nearest_to

PROBES = 8  # lists that earlier images are looked for in: few images are asked for, and each list has to be read
ROUNDS = 2  # times that all new images are given to the cluster of their strongest link
BOTH = 0.2  # share of new images strongly linked with two earlier clusters from which on these may be cut wrongly
STRAY = 0.5  # share of new images in no earlier cluster from which on the earlier run says little about them
GAP = 0.75  # place of the threshold, from the strongest link between clusters (0) to the weakest within one (1)
CALIBRATED = 20_000  # earlier images whose links are measured, at most; more say the same and take longer
GROWN = 0.5  # images assigned since the earlier clustering, as a share of its own, from which on it is out of date


class EarlierImages(NamedTuple):
    """The m different images of an earlier run."""

    space: Directions | Compared  # (m, n_features), directions as their run compared them
    lists: Index
    cluster: np.ndarray  # (m,) int64, ids


class Union(NamedTuple):
    """The nearest images of n new images, among the new ones and the earlier ones."""

    neighbours: np.ndarray  # (n, k) int64, nearest first; from n on, the place in `known`, plus n
    similarity: np.ndarray  # (n, k) float32, cosine
    known: np.ndarray  # (n_known,) int64, clusters of earlier images; one may stand there several times


class Calibration(NamedTuple):
    """How strong the links of earlier images with their own clusters and with others are."""

    within: np.ndarray  # (n_within,) float64, ascending, strengths of links of an image with its own cluster
    between: np.ndarray  # (n_between,) float64, ascending, strengths of each image's strongest link with another one
    n_neighbours: int  # nearest images that an earlier image was linked with
    least_similarity: float  # the least cosine of such a link; -1: all of the nearest images were linked

    def threshold(self, share_new: float = 0.5) -> float:
        """Return the strength that tells links of images with their own cluster from those with another one, -1 to 1.

        It is the strength with the fewest images on the wrong side, if `share_new` (0 to 1) of the images belong to
        none of the clusters. Of several that are as good, one nearer to the links within is taken, since new models may
        be more alike than the earlier ones.
        """
        if not len(self.between):
            return 1.0
        limits = np.unique(np.concatenate([self.within, self.between, [min(1.0, self.between[-1] + 1e-6)]]))
        lost = np.searchsorted(self.within, limits) / max(1, len(self.within))
        taken = 1 - np.searchsorted(self.between, limits) / len(self.between)
        wrong = (1 - share_new) * lost + share_new * taken
        best = np.flatnonzero(wrong <= wrong.min() + 1e-9)  # 1e-9: equal but for rounding
        below = limits[best[0] - 1] if best[0] else limits[0]
        return float(below + GAP * (limits[best[-1]] - below))

    def share_of_new(self, strength: np.ndarray) -> float:
        """Return the share of images that belong to no cluster, 0 to 1, from their strongest links.

        The share of images under the threshold is corrected by the rates of both errors, which the earlier images show
        ("adjusted count": Forman 2008, doi:10.1007/s10618-008-0097-y).
        """
        least = self.threshold()
        lost = np.searchsorted(self.within, least) / max(1, len(self.within))
        kept = np.searchsorted(self.between, least) / max(1, len(self.between))
        under = np.count_nonzero(strength < least) / max(1, len(strength))
        return float(np.clip((under - lost) / max(kept - lost, 1e-9), 0, 1))


def nearest_others(directions: np.ndarray, cluster: np.ndarray) -> np.ndarray:
    """Return the largest similarity of each image with an image of another cluster, float32 (n,).

    directions : float32 ndarray of shape (n, n_features); cluster : int ndarray of shape (n,). Empty where all images
    are in one cluster.
    """
    similarity = directions @ directions.T
    similarity[cluster[:, None] == cluster] = -np.inf
    best = similarity.max(axis=1, initial=-np.inf)
    return best[np.isfinite(best)]


def calibrate(
    cluster: np.ndarray,
    neighbours: np.ndarray,
    similarity: np.ndarray,
    others: np.ndarray,
    n_neighbours: int,
    least_similarity: float,
) -> Calibration:
    """Measure the links of an earlier run's images, of every second, third ... one where there are many.

    Each image counts with its link to its own cluster, and with its strongest link to another cluster. Fragments do not
    count where there are larger clusters: they may be odd photographs of the cluster that they are linked with.

    cluster : int ndarray of shape (m,); neighbours, similarity : ndarrays of shape (m, k), nearest first
    others : ndarray of shape (n,), how alike images of different clusters are, see `nearest_others`; it stands in for
        images whose neighbours are all of their own cluster
    n_neighbours, least_similarity : see `Calibration`
    """
    some = np.arange(0, len(cluster), -(-len(cluster) // CALIBRATED))
    if not neighbours.size:
        return Calibration(np.empty(0), np.empty(0), n_neighbours, least_similarity)
    cluster = np.unique(cluster, return_inverse=True)[1]
    sizes = np.bincount(cluster)
    links = link_with_clusters(cluster, neighbours[some], similarity[some])
    counted = sizes > (FRAGMENT if sizes.max() > FRAGMENT else 0)
    own_cluster = cluster[some]
    usable = counted[own_cluster[links.image]] & counted[links.cluster]
    own = own_cluster[links.image] == links.cluster
    other, between = (values[counted[own_cluster]] for values in strongest(links, ~own & usable, len(some)))
    if len(others):
        between[other < 0] = np.quantile(others, np.linspace(0, 1, np.count_nonzero(other < 0)))
    return Calibration(np.sort(links.strength[own & usable]), np.sort(between), n_neighbours, least_similarity)


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


def assign_images(union: Union, calibration: Calibration, sizes: np.ndarray, seed: int) -> np.ndarray:
    """Give new images the ids of the earlier clusters that they belong to, and new ids to the others, int64 (n,).

    sizes : int ndarray, the number of images of each earlier cluster by its id; new clusters are numbered by size from
        len(sizes) on
    seed : of Leiden's algorithm, which groups the images of new models
    """
    n, first_new = len(union.neighbours), len(sizes)
    if not n:
        return np.empty(0, np.int64)
    least = calibration.threshold()
    links = _links(first_new + np.arange(n), union)
    earlier, strength = strongest(links, links.cluster < first_new, n)
    belongs = strength >= least
    # the others: communities among themselves, linked where they are as alike as images of one cluster
    new = np.where((union.neighbours < n) & ~belongs[np.minimum(union.neighbours, n - 1)], union.neighbours, -1)
    new[belongs] = -1
    groups = find_communities(*link_images(new, union.similarity, new.shape[1], least), n, seed)
    cluster = np.where(belongs, earlier, first_new + groups)
    for _ in range(ROUNDS):
        links = _links(cluster, union)
        best, strength = strongest(links, np.ones(len(links.image), bool), n)
        cluster = np.where(strength >= least, best, cluster)
    cluster = _absorb_odd(cluster, union, calibration, sizes)
    new_ones = cluster >= first_new
    cluster[new_ones] = first_new + by_size(cluster[new_ones]) if new_ones.any() else 0
    return cluster


def _links(cluster: np.ndarray, union: Union) -> Links:
    """Return the links of the new images, which are in these clusters (n,), with all clusters."""
    return link_with_clusters(np.concatenate([cluster, union.known]), union.neighbours, union.similarity)


def _absorb_odd(cluster: np.ndarray, union: Union, calibration: Calibration, sizes: np.ndarray) -> np.ndarray:
    """Give new fragments that are odd photographs to the larger clusters that they are linked with.

    An image that is in no larger new cluster either is rarely of a new model: the threshold is lowered to the one for
    the share of new models among images in earlier clusters and fragments. An image is also given away where one of its
    nearest images is near enough for the earlier run to link the two. Parameters as in `assign_images`.
    """
    n, first_new = len(cluster), len(sizes)
    now = np.bincount(cluster, minlength=first_new)
    now[:first_new] += sizes
    fragment = (cluster >= first_new) & (now[cluster] <= FRAGMENT)
    links = _links(cluster, union)
    larger, strength = strongest(links, now[links.cluster] > FRAGMENT, n)
    share_new = calibration.share_of_new(strength[fragment | (cluster < first_new)])
    strong = strength >= min(calibration.threshold(), calibration.threshold(share_new))
    near = slice(max(1, calibration.n_neighbours))
    to_larger = now[np.concatenate([cluster, union.known])[union.neighbours[:, near]]] > FRAGMENT
    linked = (to_larger & (union.similarity[:, near] >= calibration.least_similarity)).any(axis=1)
    linked &= calibration.least_similarity > -1
    return np.where(fragment & (larger >= 0) & (strong | linked), larger, cluster)


def reasons_to_cluster_anew(
    cluster: np.ndarray, union: Union, least: float, first_new: int, n_clustered: int, n_assigned: int
) -> list[str]:
    """List the reasons why the earlier clustering no longer fits; an empty list where it fits.

    n_clustered : images of the earlier clustering; n_assigned : images assigned since then, these among them
    """
    n = len(cluster)
    links = _links(cluster, union)
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
