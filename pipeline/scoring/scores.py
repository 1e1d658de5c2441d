"""The scores of a contingency table, each 1 for a perfect result, and the error in the number of clusters."""

from typing import NamedTuple

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.special import gammaln, xlogy

from pipeline.scoring.contingency import Contingency, sum_by_index

SCORE_NAMES = {
    "ari": "Adjusted Rand Index (ARI)",
    "ami": "Adjusted mutual information",
    "nmi": "Normalised mutual information",
    "homogeneity": "Homogeneity",
    "completeness": "Completeness",
    "v_measure": "V-measure",
    "fowlkes_mallows": "Fowlkes-Mallows",
    "pairwise_precision": "Pairwise precision",
    "pairwise_recall": "Pairwise recall",
    "pairwise_f1": "Pairwise F1",
    "bcubed_precision": "BCubed precision",
    "bcubed_recall": "BCubed recall",
    "bcubed_f1": "BCubed F1",
    "hungarian_accuracy": "Accuracy (Hungarian method)",
    "purity": "Purity",
}


def compute_scores(table: Contingency, weights: np.ndarray | None = None) -> dict[str, float]:
    """Return all scores of `SCORE_NAMES`.

    Parameters
    ----------
    table : Contingency with at least one image
    weights : int ndarray of shape (n_models,), how often each model was drawn; once each by default

    A model drawn twice counts its images twice. Pairs of an image of one copy and one of the other are left out, as
    nobody was asked about them. Where there is nothing to get wrong (no pair in one cluster, or in one model),
    precision or recall is 1. References: Hubert & Arabie 1985, doi:10.1007/BF01908075 (ARI); Vinh et al. 2010,
    JMLR 11:2837 (AMI, NMI); Rosenberg & Hirschberg 2007, ACL D07-1043 (V); Amigó et al. 2009,
    doi:10.1007/s10791-008-9066-8 (BCubed).
    """
    cells = _draw(table, np.ones(len(table.models), dtype=np.int64) if weights is None else weights)
    found = _pair_scores(cells) | _information_scores(cells) | _bcubed_scores(cells) | _matching_scores(cells)
    return {name: found[name] for name in SCORE_NAMES}


class _Drawn(NamedTuple):
    """The cells of a contingency table whose models were drawn, and the sums over them; int64 arrays."""

    row: np.ndarray  # (n_cells,), the model
    column: np.ndarray  # (n_cells,), the cluster
    times: np.ndarray  # (n_cells,), how often the model was drawn
    single: np.ndarray  # (n_cells,), images of one copy of the model
    count: np.ndarray  # (n_cells,), images of all copies
    times_of_model: np.ndarray  # (n_models,)
    size_of_model: np.ndarray  # (n_models,), images of one copy
    model_sizes: np.ndarray  # (n_models,), images of all copies
    cluster_sizes: np.ndarray  # (n_clusters,), images of all copies of all models


def _draw(table: Contingency, weights: np.ndarray) -> _Drawn:
    """Draw each model as often as its weight, int (n_models,)."""
    drawn = weights[table.row] > 0
    row, column, times, single = table.row[drawn], table.column[drawn], weights[table.row[drawn]], table.count[drawn]
    cluster_sizes = sum_by_index(column, single * times, len(table.clusters))
    sizes = table.model_sizes
    return _Drawn(row, column, times, single, single * times, weights, sizes, sizes * weights, cluster_sizes)


def _pair_scores(cells: _Drawn) -> dict[str, float]:
    """Scores that count pairs of images: ARI, Fowlkes-Mallows, precision, recall, F1."""
    count, single = cells.count, cells.single
    # pairs of images of one model in each of its copies, and of different models
    together = int((cells.times * single * (single - 1)).sum()) / 2
    same_model = int((cells.times_of_model * cells.size_of_model * (cells.size_of_model - 1)).sum()) / 2
    same_cluster = together + int((cells.cluster_sizes**2).sum() - (count**2).sum()) / 2
    pairs = same_model + int(int(count.sum()) ** 2 - (cells.model_sizes**2).sum()) / 2
    by_chance = same_model * same_cluster / pairs if pairs else 0.0
    precision, recall = _ratio(together, same_cluster), _ratio(together, same_model)
    return {
        "ari": _ratio(together - by_chance, (same_model + same_cluster) / 2 - by_chance),
        "fowlkes_mallows": float(np.sqrt(precision * recall)),
        "pairwise_precision": precision,
        "pairwise_recall": recall,
        "pairwise_f1": harmonic_mean(precision, recall),
    }


def _information_scores(cells: _Drawn) -> dict[str, float]:
    """Scores of mutual information: AMI, NMI, homogeneity, completeness, V-measure."""
    n_images, model_sizes, cluster_sizes = int(cells.count.sum()), cells.model_sizes, cells.cluster_sizes
    h_model, h_cluster = entropy(model_sizes), entropy(cluster_sizes)
    ratio = n_images * cells.count / (model_sizes[cells.row] * cluster_sizes[cells.column])
    information = float(xlogy(cells.count / n_images, ratio).sum())
    by_chance = expected_mutual_information(model_sizes, cluster_sizes)
    homogeneity, completeness = _ratio(information, h_model), _ratio(information, h_cluster)
    return {
        "ami": _ratio(information - by_chance, (h_model + h_cluster) / 2 - by_chance),
        "nmi": _ratio(information, (h_model + h_cluster) / 2),
        "homogeneity": homogeneity,
        "completeness": completeness,
        "v_measure": harmonic_mean(homogeneity, completeness),
    }


def _bcubed_scores(cells: _Drawn) -> dict[str, float]:
    """BCubed precision, recall and F1: means over images."""
    count, n_images = cells.count, int(cells.count.sum())
    precision = float((count**2 / cells.cluster_sizes[cells.column]).sum() / n_images)
    recall = float((count * cells.single / cells.size_of_model[cells.row]).sum() / n_images)
    return {"bcubed_precision": precision, "bcubed_recall": recall, "bcubed_f1": harmonic_mean(precision, recall)}


def _matching_scores(cells: _Drawn) -> dict[str, float]:
    """Accuracy by the Hungarian method, and purity."""
    dense = np.zeros((len(cells.model_sizes), len(cells.cluster_sizes)), dtype=np.int64)  # (n_models, n_clusters)
    dense[cells.row, cells.column] = cells.count
    n_images = int(cells.count.sum())
    return {
        "hungarian_accuracy": float(dense[linear_sum_assignment(dense, maximize=True)].sum() / n_images),
        "purity": float(dense.max(axis=0).sum() / n_images),
    }


def entropy(sizes: np.ndarray) -> float:
    """Return the entropy in nats of groups of the given sizes, int (n_groups,)."""
    share = sizes[sizes > 0] / sizes.sum()
    return float(-xlogy(share, share).sum())


def harmonic_mean(a: float, b: float) -> float:
    """Return the harmonic mean of two numbers from 0; 0 where both are 0."""
    return 2 * a * b / (a + b) if a + b else 0.0


def _ratio(part: float, whole: float) -> float:
    """Return `part / whole`; 1 where there is nothing to divide (both are 0 up to rounding)."""
    return float(part / whole) if abs(whole) > 1e-12 else 1.0


def expected_mutual_information(model_sizes: np.ndarray, cluster_sizes: np.ndarray) -> float:
    """Return the mutual information in nats that two random groupings of the same images have on average.

    Parameters
    ----------
    model_sizes, cluster_sizes : int ndarrays (n_models,), (n_clusters,) with the same sum; empty groups add nothing

    The number of images that a model of a and a cluster of b images have in common is hypergeometric (Vinh et al.
    2010, equation 24a). Groups of the same size are computed once, each probability from the one before, and terms
    below 1e-17 left out: that is what makes a thousand resamples affordable. scikit-learn's value to 9 digits.
    """
    a_sizes, a_times = np.unique(model_sizes[model_sizes > 0], return_counts=True)
    b_sizes, b_times = np.unique(cluster_sizes[cluster_sizes > 0], return_counts=True)
    n = int(model_sizes.sum())
    a, b = (grid.ravel() for grid in np.meshgrid(a_sizes, b_sizes, indexing="ij"))  # (n_pairs,) each
    times = np.outer(a_times, b_times).ravel() / n
    mean = a * b / n
    # nine deviations below the mean: less probable than 1e-17, and not yet zero for a float
    common = np.maximum(np.maximum(1, a + b - n), np.floor(mean - 9 * np.sqrt(mean))).astype(np.int64)
    log_factorial = gammaln(np.arange(n + 1) + 1.0)
    probability = np.exp(
        log_factorial[a] + log_factorial[b] + log_factorial[n - a] + log_factorial[n - b] - log_factorial[n]
        - log_factorial[common] - log_factorial[a - common] - log_factorial[b - common]
        - log_factorial[n - a - b + common]
    )  # fmt: skip
    total = 0.0
    while len(common):
        total += float((times * common * np.log(common / mean) * probability).sum())
        probability = probability * ((a - common) * (b - common) / ((common + 1.0) * (n - a - b + common + 1)))
        common = common + 1
        go_on = (probability > 1e-17) | (common < mean)
        a, b, times, mean, common, probability = (v[go_on] for v in (a, b, times, mean, common, probability))
    return total


def clusters_error_percent(table: Contingency, weights: np.ndarray | None = None) -> float:
    """Return by how many per cent the number of clusters differs from the number of models; above 0: too many.

    A cluster is shared out over the models by their images in it. The shares of all models add up to the number of
    clusters, so that the models drawn in a resample (`weights`, int (n_models,)) have a number of clusters as well.
    """
    once = np.ones(len(table.models)) if weights is None else weights
    share = np.bincount(table.row, table.count / table.cluster_sizes[table.column], len(table.models))
    # thirds add up to a hair under a whole, which would be shown as -0
    return round(float(100 * ((once @ share) / once.sum() - 1)), 9) + 0.0
