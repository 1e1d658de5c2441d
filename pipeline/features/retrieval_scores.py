"""Score how well features tell models apart: scores of one matrix of similarities.

Few photographs of few models are soon told apart without a fault: counts of faults then say nothing any more of which
features are better. So the score takes in by how much models stand apart, too.

Reference: Musgrave et al. 2020, "A metric learning reality check" (doi:10.1007/978-3-030-58595-2_41).
"""

import numpy as np
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform
from sklearn.metrics import adjusted_rand_score, average_precision_score

from pipeline.features.whitening import normalise_rows

MARGIN_DEVIATIONS = 4.0  # deviations at which a margin counts 0.76: where models have just ceased to be mixed up
MIN_DEVIATION = 1e-6  # of cosines; images that are all alike have none
SCORES = ("ari", "recall_at_1", "map_at_r", "average_precision", "margin")


def similarity_matrix(features: np.ndarray) -> np.ndarray:
    """Return the cosine of each pair of rows, with -inf on the diagonal: (n, n_features) -> float32 (n, n)."""
    features = normalise_rows(features)
    similarity = features @ features.T
    np.fill_diagonal(similarity, -np.inf)
    return similarity


def recall_at_1(similarity: np.ndarray, labels: np.ndarray) -> float:
    """Return the share of images whose nearest neighbour shows the same model, 0 to 1.

    similarity : float32 ndarray of shape (n, n), see `similarity_matrix`; labels : int ndarray of shape (n,)

    Images alone in their model are not asked. The result is 0 where no image can be asked.
    """
    asked = np.bincount(labels)[labels] > 1
    return float((labels[similarity.argmax(axis=1)] == labels)[asked].mean()) if asked.any() else 0.0


def map_at_r(similarity: np.ndarray, labels: np.ndarray) -> float:
    """Return the mean average precision at R, 0 to 1: like recall at 1, but over all R other images of a model.

    similarity : float32 ndarray of shape (n, n), see `similarity_matrix`; labels : int ndarray of shape (n,)

    >>> map_at_r(similarity_matrix(np.float32([[1, 0], [1, 0.1], [0, 1], [0.1, 1]])), np.array([0, 0, 1, 1]))
    1.0
    """
    same = labels[np.argsort(-similarity, axis=1, kind="stable")] == labels[:, None]  # (n, n), nearest first
    precision = np.cumsum(same, axis=1) / np.arange(1, len(labels) + 1)
    r = np.bincount(labels)[labels] - 1  # (n,)
    within = np.arange(len(labels)) < r[:, None]
    return float(((precision * same * within).sum(axis=1)[r > 0] / r[r > 0]).mean()) if (r > 0).any() else 0.0


def average_precision(similarity: np.ndarray, labels: np.ndarray) -> float:
    """Return the average precision of all pairs, the most similar first, 0 to 1.

    A pair is right where both images show one model.

    similarity : float32 ndarray of shape (n, n), see `similarity_matrix`; labels : int ndarray of shape (n,)

    Pairs of all images are put in one order, as clustering has to do, which `map_at_r` does not ask for.
    """
    one, other = np.triu_indices(len(labels), 1)
    same = labels[one] == labels[other]
    return float(average_precision_score(same, similarity[one, other])) if same.any() else 0.0


def linkage_ari(similarity: np.ndarray, labels: np.ndarray) -> float:
    """Return the Adjusted Rand Index of average linkage told the number of models, -0.5 to 1.

    similarity : float32 ndarray of shape (n, n), see `similarity_matrix`; labels : int ndarray of shape (n,)
    """
    distance = np.maximum(1 - similarity.astype(np.float64), 0)
    np.fill_diagonal(distance, 0)
    tree = linkage(squareform((distance + distance.T) / 2, checks=False), "average")
    return float(adjusted_rand_score(labels, fcluster(tree, len(np.unique(labels)), "maxclust")))


def margin(similarity: np.ndarray, labels: np.ndarray) -> float:
    """Return by how much images of one model are more alike than others, -1 to 1; 0 where there are none to compare.

    similarity : float32 ndarray of shape (n, n), see `similarity_matrix`; labels : int ndarray of shape (n,)

    The similarity of each pair of one model is counted in standard deviations from the mean of the first image's
    similarities to other models' images, as speaker verification normalises its scores (Auckenthaler et al. 2000,
    doi:10.1006/dspr.1999.0360). The result is the mean over all pairs of tanh(deviations / MARGIN_DEVIATIONS).
    """
    same = labels[:, None] == labels[None]  # (n, n)
    others = np.where(same, np.nan, similarity)
    asked = (same.sum(axis=1) > 1) & ~same.all(axis=1)
    if not asked.any():
        return 0.0
    mean, deviation = np.nanmean(others[asked], axis=1), np.nanstd(others[asked], axis=1)
    deviations = (similarity[asked] - mean[:, None]) / np.maximum(deviation, MIN_DEVIATION)[:, None]
    own = same[asked] & np.isfinite(similarity[asked])  # the image itself stands at -inf
    scores = np.tanh(deviations / MARGIN_DEVIATIONS)
    return float(np.mean([row[chosen].mean() for row, chosen in zip(scores, own, strict=True)]))


def separation(similarity: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Score features by what still tells good from better where no image is grouped wrongly.

    similarity : float32 ndarray of shape (n, n), see `similarity_matrix`; labels : int ndarray of shape (n,)

    Returns "map_at_r", "average_precision", "margin", see the functions of these names, and "score", their mean.
    """
    found = {
        "map_at_r": map_at_r(similarity, labels),
        "average_precision": average_precision(similarity, labels),
        "margin": margin(similarity, labels),
    }
    return found | {"score": sum(found.values()) / len(found)}


def judge(features: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Score how well features tell models apart.

    Parameters
    ----------
    features : float32 ndarray of shape (n_images, n_features)
    labels : int ndarray of shape (n_images,), at least two different

    Returns
    -------
    "ari", "recall_at_1" : see `linkage_ari`, `recall_at_1`
    "map_at_r", "average_precision", "margin", "score" : see `separation`

    All are 0 where a feature is not finite.
    """
    if not np.isfinite(features).all():
        return dict.fromkeys((*SCORES, "score"), 0.0)
    similarity = similarity_matrix(features)
    counted = {"ari": linkage_ari(similarity, labels), "recall_at_1": recall_at_1(similarity, labels)}
    return counted | separation(similarity, labels)
