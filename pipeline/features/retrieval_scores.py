"""Score how well features tell models apart: scores of one matrix of similarities.

Reference: Musgrave et al. 2020, "A metric learning reality check" (doi:10.1007/978-3-030-58595-2_41).
"""

import numpy as np
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score

from pipeline.features.whitening import normalise_rows

SCORES = ("ari", "recall_at_1", "map_at_r")
K_MEANS_SEEDS = 8  # runs of K-means by which features are judged; between two, the ARI of ten models jumps by 0.05


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


def k_means_ari(features: np.ndarray, labels: np.ndarray, n_runs: int = K_MEANS_SEEDS) -> float:
    """Return the mean Adjusted Rand Index of `n_runs` K-means told the number of models, -0.5 to 1.

    features : float32 ndarray of shape (n, n_features), rows of length 1; labels : int ndarray of shape (n,)
    """
    n_models = len(np.unique(labels))
    found = [KMeans(n_models, n_init=10, random_state=seed).fit_predict(features) for seed in range(n_runs)]
    return float(np.mean([adjusted_rand_score(labels, predicted) for predicted in found]))


def judge(features: np.ndarray, labels: np.ndarray, n_runs: int = K_MEANS_SEEDS) -> dict[str, float]:
    """Score how well features tell models apart.

    Parameters
    ----------
    features : float32 ndarray of shape (n_images, n_features)
    labels : int ndarray of shape (n_images,), at least two different
    n_runs : of K-means

    Returns
    -------
    "ari", "recall_at_1", "map_at_r" : see `k_means_ari`, `recall_at_1`, `map_at_r`
    "score" : the mean of the three; K-means alone jumps with its starts

    All are 0 where a feature is not finite.
    """
    if not np.isfinite(features).all():
        return dict.fromkeys((*SCORES, "score"), 0.0)
    similarity = similarity_matrix(features)
    recall, precision = recall_at_1(similarity, labels), map_at_r(similarity, labels)
    ari = k_means_ari(normalise_rows(features), labels, n_runs)
    return {"ari": ari, "recall_at_1": recall, "map_at_r": precision, "score": (ari + recall + precision) / 3}
