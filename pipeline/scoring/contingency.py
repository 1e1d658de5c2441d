"""The contingency table of models and clusters, and the models that it shows split or merged."""

from dataclasses import dataclass

import numpy as np

N_WORST = 5  # most split models and most merged pairs of models that are named


@dataclass
class Contingency:
    """How many images of each model lie in each cluster; only the cells that are not empty.

    models : n_models names, sorted; clusters : n_clusters names, sorted
    row, column, count : int64 ndarrays of shape (n_cells,): `count` images of `models[row]` in `clusters[column]`
    """

    models: list[str]
    clusters: list[str]
    row: np.ndarray
    column: np.ndarray
    count: np.ndarray

    @property
    def model_sizes(self) -> np.ndarray:
        """Images of each model, int64 (n_models,)."""
        return sum_by_index(self.row, self.count, len(self.models))

    @property
    def cluster_sizes(self) -> np.ndarray:
        """Images in each cluster, int64 (n_clusters,)."""
        return sum_by_index(self.column, self.count, len(self.clusters))


def cross_tabulate(labels_true: list[str], labels_pred: list[str]) -> Contingency:
    """Count the images of each model in each cluster; both lists name the same images in the same order.

    >>> cross_tabulate(["a", "a", "b"], ["0", "1", "1"]).count.tolist()
    [1, 1, 1]
    """
    models, row = np.unique(np.array(labels_true, dtype=np.str_), return_inverse=True)
    clusters, column = np.unique(np.array(labels_pred, dtype=np.str_), return_inverse=True)
    cells, count = np.unique(row.astype(np.int64) * len(clusters) + column, return_counts=True)
    row, column = np.divmod(cells, max(len(clusters), 1))
    return Contingency(models.tolist(), clusters.tolist(), row, column, count)


def sum_by_index(index: np.ndarray, values: np.ndarray, size: int) -> np.ndarray:
    """Return the sum of the int64 `values` that share an index, exactly: int64 (size,)."""
    result = np.zeros(size, dtype=np.int64)
    np.add.at(result, index, values)
    return result


def find_split_models(table: Contingency, n_worst: int = N_WORST) -> list[dict]:
    """Return the models that lie in more than one cluster, those that lose most pairs of images first.

    Returns a list of {"model", "n_images", "pairs_lost", "clusters": [{"cluster", "n_images"}, ...] largest first}.
    """
    lost = table.model_sizes**2 - sum_by_index(table.row, table.count**2, len(table.models))
    result = []
    for model in np.argsort(-lost, kind="stable")[:n_worst]:
        cells = np.flatnonzero(table.row == model)
        cells = cells[np.argsort(-table.count[cells], kind="stable")]
        if lost[model]:
            result.append(
                {
                    "model": table.models[model],
                    "n_images": int(table.model_sizes[model]),
                    "pairs_lost": int(lost[model]) // 2,
                    "clusters": [
                        {"cluster": table.clusters[table.column[cell]], "n_images": int(table.count[cell])}
                        for cell in cells
                    ],
                }
            )
    return result


def find_merged_models(table: Contingency, n_worst: int = N_WORST) -> list[dict]:
    """Return the pairs of models that share clusters, those with most wrongly joined pairs of images first.

    Returns a list of {"models": [a, b], "pairs_wrong", "clusters": [{"cluster", "n_images": [of a, of b]}, ...]}.
    """
    wrong: dict[tuple[int, int], list[tuple[int, int, int]]] = {}
    for cells in np.split(np.argsort(table.column, kind="stable"), np.cumsum(np.bincount(table.column))[:-1]):
        # a cluster with everything in it would make a pair of each two models: its largest are the worst
        cells = np.sort(cells[np.argsort(-table.count[cells], kind="stable")][:100])
        for i, first in enumerate(cells):
            for second in cells[i + 1 :]:
                key = (int(table.row[first]), int(table.row[second]))
                shared = (int(table.column[first]), int(table.count[first]), int(table.count[second]))
                wrong.setdefault(key, []).append(shared)
    pairs_wrong = {key: sum(a * b for _, a, b in shared) for key, shared in wrong.items()}
    worst = sorted(wrong, key=lambda key: (-pairs_wrong[key], key))[:n_worst]
    return [
        {
            "models": [table.models[model] for model in key],
            "pairs_wrong": pairs_wrong[key],
            "clusters": [
                {"cluster": table.clusters[cluster], "n_images": [a, b]}
                for cluster, a, b in sorted(wrong[key], key=lambda shared: (-shared[1] * shared[2], shared))
            ],
        }
        for key in worst
    ]
