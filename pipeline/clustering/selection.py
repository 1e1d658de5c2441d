"""The partition that is right: the one whose clusters stand apart, and which a small change of the graph leaves as is.

Candidates are the communities for a number of nearest neighbours and a least similarity of the links. A graph of few
neighbours finds small clusters, one of many finds large ones. Where links need a least similarity, an image that is
like no other stays alone, whatever the size of the other clusters.
"""

from typing import NamedTuple

import numpy as np
from scipy import sparse
from tqdm import tqdm

from pipeline.clustering.communities import find_communities, link_images
from pipeline.clustering.fragments import NEAREST, absorb_fragments
from pipeline.clustering.neighbours import exact_neighbours
from pipeline.scoring.silhouette import silhouettes_of_sums

# nearest images that an image links to, in steps of about 1.6
NEIGHBOURS = (1, 2, 3, 5, 8, 12, 20, 35, 60, 100)
LEAST_SIMILARITIES = (-1.0, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)  # cosine that a link has at least; -1: every link
IMAGES_PER_NEIGHBOUR = 4  # images for each neighbour, at least: a graph of more neighbours links everything
WORSE = 0.6  # share of the best score so far under which a number of neighbours ends the search for larger ones
MANY = 12  # neighbours from which on more of them only find larger clusters
NEARLY = 0.9  # share of the best score from which on a candidate may be right as well
AS_GOOD = 0.97  # share of the best score from which on other shares decide, see `select_partition`
ODD = 0.05  # share of a known model's photographs that are less like it than an image that may be of that model


class Candidate(NamedTuple):
    """A partition of m images and how well it holds."""

    n_neighbours: int
    least_similarity: float
    cluster: np.ndarray  # (m,) int32, odd photographs absorbed
    silhouette: float  # -1..1, mean of the images
    stability: float  # 0..1, see `candidate_partitions`
    coverage: float = 1.0  # 0..1, share of the images that are not alone in `cluster`
    placed: float = 1.0  # 0..1, share of the images that are not among photographs of other, known models

    def score(self, covering: bool = True) -> float:
        """Return how well the partition holds, -1 to 1: silhouette times stability, and times coverage where asked."""
        return self.silhouette * self.stability * (self.coverage if covering else 1)


def cluster_silhouettes(cosine: np.ndarray, cluster: np.ndarray, alone: float | None = None) -> np.ndarray:
    """Return the silhouette of each image, float32 (m,), -1 to 1.

    cosine : float32 ndarray of shape (m, m), of each pair of images; cluster : int ndarray of shape (m,), from 0
    alone : see `silhouettes_of_sums`
    """
    sizes = np.bincount(cluster)
    member = sparse.csr_matrix((np.ones(len(cluster), np.float32), (cluster, np.arange(len(cluster)))))
    return silhouettes_of_sums((member @ cosine).T, np.diag(cosine), cluster, sizes, 0.0, alone)


def distance_within(cosine: np.ndarray, model: np.ndarray) -> float | None:
    """Return the mean distance of photographs to the others of their model, 0 to 2; None where no model has two.

    cosine : float32 ndarray of shape (n, n), of each pair of photographs; model : int ndarray of shape (n,), from 0

    >>> distance_within(np.float32([[1, 0.5, 0], [0.5, 1, 0], [0, 0, 1]]), np.array([0, 0, 1]))
    0.5
    """
    n_others = np.bincount(model, minlength=1)[model] - 1
    sums = np.where(model[:, None] == model, cosine, 0).sum(axis=1) - np.diag(cosine)
    some = n_others > 0
    return 1 - float(np.mean(sums[some] / n_others[some])) if some.any() else None


def coverage(cluster: np.ndarray) -> float:
    """Return the share of images that are not alone, 0 to 1.

    >>> coverage(np.array([0, 0, 1, 2, 2]))
    0.8
    """
    return float(np.mean(np.bincount(cluster)[cluster] > 1))


def renumbered(cluster: np.ndarray) -> np.ndarray:
    """Return the clusters numbered from 0 without gaps, int32 (m,).

    >>> renumbered(np.array([4, 1, 4])).tolist()
    [1, 0, 1]
    """
    return np.unique(cluster, return_inverse=True)[1].astype(np.int32)


def shared_images(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return for each image the Jaccard similarity of its two clusters, float (m,), 0 to 1.

    Hennig 2007, doi:10.1016/j.csda.2006.11.025, takes the mean of a cluster's best one as its stability.

    >>> shared_images(np.array([0, 0, 1]), np.array([0, 0, 0]))
    array([0.66666667, 0.66666667, 0.33333333])
    """
    sizes_one, sizes_other = np.bincount(one), np.bincount(other)
    pairs = one.astype(np.int64) * len(sizes_other) + other
    _, place, count = np.unique(pairs, return_inverse=True, return_counts=True)
    shared = count[place]
    return shared / (sizes_one[one] + sizes_other[other] - shared)


def find_known_models(data: np.ndarray, models: np.ndarray) -> np.ndarray:
    """Return the known model that each image may be of, int (m,); -1 for an image that is like none.

    The image is as like that model as all but a share ODD of the model's photographs are like the others of it.

    data, models : see `candidate_partitions`
    """
    m, sizes = len(data) - len(models), np.bincount(models)
    member = sparse.csr_matrix((np.ones(len(models), np.float32), (models, np.arange(len(models)))))
    cosine = data @ (member @ data[m:]).T  # sums over each model's photographs
    own = (cosine[np.arange(m, len(data)), models] - 1) / np.maximum(sizes[models] - 1, 1)
    least = [np.quantile(own[models == model], ODD) if size > 1 else np.inf for model, size in enumerate(sizes)]
    likeness = cosine[:m] / sizes
    likeness[likeness < least] = -np.inf
    return np.where(np.isfinite(likeness).any(axis=1), likeness.argmax(axis=1), -1)


def share_placed(cluster: np.ndarray, model: np.ndarray) -> float:
    """Return the share of the images that are not among mostly landmarks, or may be of a known model, 0 to 1.

    A partition that puts other images among landmarks is too coarse for them, or they are odd.

    cluster : int ndarray of shape (m + n_landmarks,), from 0
    model : int ndarray of shape (m,), see `find_known_models`

    >>> share_placed(np.array([0, 0, 1, 1, 1]), np.array([-1, -1, -1]))
    0.6666666666666666
    """
    m, n_clusters = len(model), cluster.max() + 1
    n_images, n_landmarks = (np.bincount(part, minlength=n_clusters) for part in (cluster[:m], cluster[m:]))
    return float(np.mean((n_landmarks <= n_images)[cluster[:m]] | (model >= 0)))


def partitions_by_graph(
    neighbours: np.ndarray, similarity: np.ndarray, data: np.ndarray, models: np.ndarray, model: np.ndarray, seed: int
) -> tuple[dict[tuple[int, int], np.ndarray], dict[tuple[int, int], float]]:
    """Return the partition and the mean silhouette for each place (i, j) of NEIGHBOURS and LEAST_SIMILARITIES.

    Parameters as those of `candidate_partitions`; the partitions are of images and landmarks.
    model : int ndarray of shape (m,), see `find_known_models`
    """
    n_both, m = len(data), len(data) - len(models)
    cosine = data @ data.T  # once for all partitions
    alone = distance_within(cosine[m:, m:], models)
    cosine[m:, :m][models[:, None] == model] = 0  # the model that an image may be of is no other one to it
    partition: dict[tuple[int, int], np.ndarray] = {}
    silhouette: dict[tuple[int, int], float] = {}
    size: dict[tuple[int, int], tuple[int, float]] = {}  # number of links and sum of their weights
    n_usable = sum(k <= max(1, m // IMAGES_PER_NEIGHBOUR) for k in NEIGHBOURS)
    # and one more, which only shows how stable the largest usable number is
    usable = [k for k in NEIGHBOURS[: n_usable + 1] if k <= neighbours.shape[1]]
    for i, k in enumerate(tqdm(usable, desc="partitions", leave=None, disable=None)):
        for j, least in enumerate(LEAST_SIMILARITIES):
            links, weights = link_images(neighbours, similarity, k, least)
            size[i, j] = len(links), weights.sum()
            # fewer neighbours and a higher least similarity only leave links out: as many are the same ones
            same = next((place for place in ((i, j - 1), (i - 1, j)) if size.get(place) == size[i, j]), None)
            if same is not None:
                partition[i, j], silhouette[i, j] = partition[same], silhouette[same]
                continue
            partition[i, j] = find_communities(links, weights, n_both, seed)
            images = renumbered(partition[i, j][:m])
            with_models = np.concatenate([images, images.max() + 1 + models])
            silhouette[i, j] = float(cluster_silhouettes(cosine, with_models, alone)[:m].mean())
        here = max(silhouette[i, j] for j in range(len(LEAST_SIMILARITIES)))
        if k >= MANY and here < WORSE * max(0.0, *silhouette.values()):
            break
    return partition, silhouette


def candidate_partitions(
    neighbours: np.ndarray, similarity: np.ndarray, data: np.ndarray, models: np.ndarray, seed: int
) -> list[Candidate]:
    """Return the partitions for all numbers of neighbours and least similarities, each with its score.

    The score is the mean silhouette (Rousseeuw 1987, doi:10.1016/0377-0427(87)90125-7) times two stabilities: how much
    of its cluster an image keeps with the next fewer and the next more neighbours, and with the next lower and the next
    higher least similarity; times the coverage once odd photographs are absorbed: a partition says nothing about an
    image that it leaves alone. Fine partitions of what is one continuous group have high silhouettes but are not
    stable; coarse ones are stable but do not stand apart; those of near copies do both but leave most images alone.

    Landmarks are linked with the images, but only the images count. The landmarks' models are clusters as they are, so
    that an image may stand apart from them or not. They also show how far photographs of one model are from each other:
    an image that is alone has the silhouette that it would have if others of its model were as far. Without
    landmarks, it has 0. Since landmarks hold coarse partitions down, the mean of both stabilities stands for their
    product where there are some.

    Parameters
    ----------
    neighbours, similarity : ndarrays of shape (m + n_landmarks, k), see `link_images`
    data : float32 ndarray of shape (m + n_landmarks, n_features), directions
    models : int ndarray of shape (n_landmarks,), the models of the landmarks, from 0
    """
    m = len(data) - len(models)
    model = find_known_models(data, models) if len(models) else np.full(m, -1)
    partition, silhouette = partitions_by_graph(neighbours, similarity, data, models, model, seed)
    own = (neighbours, similarity) if m == len(data) else exact_neighbours(data[:m], min(NEAREST, m - 1))
    kept: dict[tuple[tuple[int, int], tuple[int, int]], float] = {}

    def stability(place: tuple[int, int], others: list[tuple[int, int]]) -> float:
        there = [other for other in others if other in partition]
        for other in there:
            if (place, other) not in kept:
                share = float(shared_images(partition[place], partition[other])[:m].mean())
                kept[place, other] = kept[other, place] = share
        # with a single number of neighbours nothing says how stable it is: as likely as not
        return float(np.mean([kept[place, other] for other in there])) if there else 0.5

    found = []
    for (i, j), cluster in partition.items():
        by_neighbours = stability((i, j), [(i - 1, j), (i + 1, j)])
        by_similarity = stability((i, j), [(i, j - 1), (i, j + 1)])
        stable = (by_neighbours + by_similarity) / 2 if len(models) else by_neighbours * by_similarity
        images = absorb_fragments(renumbered(cluster[:m]), *own)
        links = NEIGHBOURS[i], LEAST_SIMILARITIES[j]
        placed = share_placed(cluster, model)
        found.append(Candidate(*links, images, silhouette[i, j], stable, coverage(images), placed))
    return found


def select_partition(
    candidates: list[Candidate], pure: bool = False, beside_known: bool = False
) -> tuple[Candidate, list[Candidate]]:
    """Return the candidate that holds best, and all whose score is nearly as good (NEARLY), itself among them.

    The largest number of neighbours only shows how stable the next smaller one is, where there are several.
    pure : whether two models in one cluster do more harm than one model in two: then images that are left alone count
        against a candidate only among those that are as good as the best without them (AS_GOOD)
    beside_known : whether there are landmarks: of the candidates that are as good (AS_GOOD) the one holds best that is
        stable, leaves few images alone and puts few among photographs of known models
    """
    largest = max(candidate.n_neighbours for candidate in candidates)
    inner = [candidate for candidate in candidates if candidate.n_neighbours < largest] or candidates
    best = max(inner, key=lambda candidate: candidate.score(not pure))
    reached = best.score(not pure)
    if pure:
        as_good = [candidate for candidate in inner if candidate.score(False) >= AS_GOOD * reached] or [best]
        best = max(as_good, key=lambda candidate: (candidate.coverage, candidate.score()))
    elif beside_known:
        as_good = [candidate for candidate in inner if candidate.score() >= AS_GOOD * reached] or [best]
        best = max(as_good, key=lambda candidate: candidate.stability * candidate.coverage * candidate.placed)
    return best, [candidate for candidate in inner if candidate.score(not pure) >= NEARLY * reached] or [best]
