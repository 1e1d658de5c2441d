"""Score the predicted clusters against the true models.

    python 05.evaluation.py
    python 05.evaluation.py --DATASET=bags --BOOTSTRAP_RESAMPLES=5000

The first line is the Adjusted Rand Index (ARI), the task's score. Every score comes with a 95 % interval: the spread
over which models happen to be in the data set, by drawing as many models with replacement (bootstrap). Images without
a label are left out. Where the network was trained on some of the models, these (known) and the others (new) are also
scored on their own. Without labels, the silhouette and the map's errors are what can be said.

Reads:  data/D/clusters.csv, data/D/clustering.json, data/D/features.npy, data/D/img_paths.txt,
        data/D/features.json, data/D/labels_true.csv (where there are labels), model/T/classes.txt
Writes: result/D/evaluation.json
Config: DATASET, TRAIN_DATASET, RANDOM_SEED, REDO, BOOTSTRAP_RESAMPLES
"""

import time
from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.special import gammaln, xlogy

import config
from pipeline import files, settings, som

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
        return _sums(self.row, self.count, len(self.models))

    @property
    def cluster_sizes(self) -> np.ndarray:
        """Images in each cluster, int64 (n_clusters,)."""
        return _sums(self.column, self.count, len(self.clusters))


def contingency(labels_true: list[str], labels_pred: list[str]) -> Contingency:
    """Count the images of each model in each cluster; both lists name the same images in the same order.

    >>> contingency(["a", "a", "b"], ["0", "1", "1"]).count.tolist()
    [1, 1, 1]
    """
    models, row = np.unique(np.array(labels_true, dtype=np.str_), return_inverse=True)
    clusters, column = np.unique(np.array(labels_pred, dtype=np.str_), return_inverse=True)
    cells, count = np.unique(row.astype(np.int64) * len(clusters) + column, return_counts=True)
    return Contingency(models.tolist(), clusters.tolist(), *np.divmod(cells, max(len(clusters), 1)), count)


def scores(table: Contingency, weights: np.ndarray | None = None) -> dict[str, float]:
    """All scores of `SCORE_NAMES`, each 1 for a perfect result.

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
    once = np.ones(len(table.models), dtype=np.int64) if weights is None else weights
    drawn = once[table.row] > 0
    row, column, weight = table.row[drawn], table.column[drawn], once[table.row[drawn]]
    single = table.count[drawn]
    count = single * weight
    n_images = int(count.sum())
    model_sizes, cluster_sizes = table.model_sizes * once, _sums(column, count, len(table.clusters))

    # pairs of images of one model in each of its copies, and of different models
    together = int((weight * single * (single - 1)).sum()) / 2
    same_model = int((once * table.model_sizes * (table.model_sizes - 1)).sum()) / 2
    same_cluster = together + int((cluster_sizes**2).sum() - (count**2).sum()) / 2
    pairs = same_model + int(n_images**2 - (model_sizes**2).sum()) / 2
    by_chance = same_model * same_cluster / pairs if pairs else 0.0
    precision, recall = _ratio(together, same_cluster), _ratio(together, same_model)

    h_model, h_cluster = entropy(model_sizes), entropy(cluster_sizes)
    share = count / n_images
    information = float(xlogy(share, n_images * count / (model_sizes[row] * cluster_sizes[column])).sum())
    chance_information = expected_mutual_information(model_sizes, cluster_sizes)
    homogeneity, completeness = _ratio(information, h_model), _ratio(information, h_cluster)

    b_precision = float((count**2 / cluster_sizes[column]).sum() / n_images)
    b_recall = float((count * single / table.model_sizes[row]).sum() / n_images)

    dense = np.zeros((len(table.models), len(table.clusters)), dtype=np.int64)  # (n_models, n_clusters)
    dense[row, column] = count
    return {
        "ari": _ratio(together - by_chance, (same_model + same_cluster) / 2 - by_chance),
        "ami": _ratio(information - chance_information, (h_model + h_cluster) / 2 - chance_information),
        "nmi": _ratio(information, (h_model + h_cluster) / 2),
        "homogeneity": homogeneity,
        "completeness": completeness,
        "v_measure": harmonic_mean(homogeneity, completeness),
        "fowlkes_mallows": float(np.sqrt(precision * recall)),
        "pairwise_precision": precision,
        "pairwise_recall": recall,
        "pairwise_f1": harmonic_mean(precision, recall),
        "bcubed_precision": b_precision,
        "bcubed_recall": b_recall,
        "bcubed_f1": harmonic_mean(b_precision, b_recall),
        "hungarian_accuracy": float(dense[linear_sum_assignment(dense, maximize=True)].sum() / n_images),
        "purity": float(dense.max(axis=0).sum() / n_images),
    }


def entropy(sizes: np.ndarray) -> float:
    """Entropy in nats of groups of the given sizes, int (n_groups,)."""
    share = sizes[sizes > 0] / sizes.sum()
    return float(-xlogy(share, share).sum())


def harmonic_mean(a: float, b: float) -> float:
    """Harmonic mean of two numbers from 0; 0 where both are 0."""
    return 2 * a * b / (a + b) if a + b else 0.0


def expected_mutual_information(model_sizes: np.ndarray, cluster_sizes: np.ndarray) -> float:
    """Mutual information in nats that two random groupings of the same images have on average.

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
    """By how many per cent the number of clusters is off the number of models; above 0: too many clusters.

    A cluster is shared out over the models by their images in it. The shares of all models add up to the number of
    clusters, so that the models drawn in a resample (`weights`, int (n_models,)) have a number of clusters as well.
    """
    once = np.ones(len(table.models)) if weights is None else weights
    share = np.bincount(table.row, table.count / table.cluster_sizes[table.column], len(table.models))
    return float(100 * ((once @ share) / once.sum() - 1))


def with_intervals(table: Contingency, n_resamples: int, seed: int) -> tuple[dict, dict]:
    """The scores and the error in the number of clusters, each with its 95 % bootstrap interval over models.

    Returns
    -------
    scores : {score name: {"value", "low", "high"}}
    error : the same for `clusters_error_percent`

    As many models are drawn with replacement, `n_resamples` times. A draw has fewer different models than the data
    set, hence fewer that could be mixed up, and scores a little higher: the interval is the spread of the draws around
    their mean, moved to the value. With a single model there is nothing to draw: low and high are None.
    """
    n_models = len(table.models)
    value = scores(table) | {"error": clusters_error_percent(table)}
    if n_models < 2 or n_resamples == 0:
        result = {name: {"value": v, "low": None, "high": None} for name, v in value.items()}
        return result, result.pop("error")
    draws = np.random.default_rng(seed).multinomial(n_models, np.full(n_models, 1 / n_models), size=n_resamples)
    drawn = [scores(table, weights) | {"error": clusters_error_percent(table, weights)} for weights in draws]
    result = {}
    for name, v in value.items():
        of_draws = np.array([draw[name] for draw in drawn])
        low, high = v + np.quantile(of_draws, [0.025, 0.975]) - of_draws.mean()
        least, most = (-100.0, np.inf) if name == "error" else (-1.0 if name in ("ari", "ami") else 0.0, 1.0)
        # the shift may leave a value at the edge of its range just outside
        result[name] = {"value": v, "low": float(min(max(low, least), v)), "high": float(max(min(high, most), v))}
    return result, result.pop("error")


def most_split(table: Contingency, n_worst: int = N_WORST) -> list[dict]:
    """The models that lie in more than one cluster, those that lose most pairs of images first.

    Returns a list of {"model", "n_images", "pairs_lost", "clusters": [{"cluster", "n_images"}, ...] largest first}.
    """
    lost = table.model_sizes**2 - _sums(table.row, table.count**2, len(table.models))
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


def most_merged(table: Contingency, n_worst: int = N_WORST) -> list[dict]:
    """The pairs of models that share clusters, those with most wrongly joined pairs of images first.

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


def silhouette(features: np.ndarray, clusters: list[str]) -> float | None:
    """Mean silhouette with cosine distances, -1 to 1 (Rousseeuw 1987, doi:10.1016/0377-0427(87)90125-7).

    features : floating ndarray of shape (n_images, n_features). None where it is not defined: one cluster, or as many
    clusters as images. The mean cosine to a cluster is the product with the mean of its rows of length 1, so no pair
    of images is looked at, and the images are read a few at a time.
    """
    ids, cluster, size = np.unique(np.array(clusters), return_inverse=True, return_counts=True)
    if not 2 <= len(ids) < len(cluster):
        return None
    sums, total = np.zeros((len(ids), features.shape[1]), np.float32), 0.0
    for rows in som.chunks(*features.shape):
        found, sum_of_found = som.sums_of(som.of_length_one(features[rows]), cluster[rows])
        sums[found] += sum_of_found
    for rows in som.chunks(len(cluster), max(sums.shape)):
        part, own = som.of_length_one(features[rows]), cluster[rows]
        similar = part @ sums.T  # (n_rows, n_clusters), sums of cosines
        every = np.arange(len(own))
        # without the image itself, whose cosine is 1, or 0 for a row of zeros
        within = 1 - (similar[every, own] - (part**2).sum(axis=1)) / np.maximum(size[own] - 1, 1)
        similar /= size
        similar[every, own] = -np.inf
        beside = 1 - similar.max(axis=1)
        farther = np.maximum(np.maximum(within, beside), 1e-12)
        total += float(np.where(size[own] > 1, (beside - within) / farther, 0).sum())
    return total / len(cluster)


def evaluate(labels_true: list[str], labels_pred: list[str], known: set[str]) -> dict:
    """Scores of the images that have a label ("" for those without), for all models, the known and the new ones."""
    pairs = [(true, pred) for true, pred in zip(labels_true, labels_pred, strict=True) if true]
    result = {"n_labelled": len(pairs), "n_models": None, "n_clusters_labelled": None}
    result |= {"clusters_error_percent": None, "clusters_error_interval": None, "scores": {}}
    result |= {"known": None, "new": None, "most_split": [], "most_merged": []}
    if not pairs:
        return result
    table = contingency(*map(list, zip(*pairs, strict=True)))
    values, error = with_intervals(table, config.BOOTSTRAP_RESAMPLES, config.RANDOM_SEED)
    result |= {"n_models": len(table.models), "n_clusters_labelled": len(table.clusters), "scores": values}
    result |= {"clusters_error_percent": error["value"], "clusters_error_interval": [error["low"], error["high"]]}
    result |= {"most_split": most_split(table), "most_merged": most_merged(table)}
    parts = {
        "known": [pair for pair in pairs if pair[0] in known],
        "new": [pair for pair in pairs if pair[0] not in known],
    }
    if all(parts.values()):
        for name, part in parts.items():
            table = contingency(*map(list, zip(*part, strict=True)))
            values, error = with_intervals(table, config.BOOTSTRAP_RESAMPLES, config.RANDOM_SEED)
            result[name] = {"n_images": len(part), "n_models": len(table.models), "n_clusters": len(table.clusters)}
            result[name] |= {"clusters_error_percent": error["value"], "scores": values}
    return result


def known_models(features_record: dict) -> set[str]:
    """Names of the models that the network behind the features was trained on."""
    classes_path = files.model_dir(config.TRAIN_DATASET) / "classes.txt"
    if features_record.get("network") != "fine-tuned" or not classes_path.exists():
        return set()
    return set(files.read_lines(classes_path, "02.feature_network_fine_tuning.py"))


def warnings_of(result: dict, features_record: dict) -> list[str]:
    """What a reader of the scores has to know, in sentences."""
    warnings = []
    if features_record.get("initial_weights") == "random":
        warnings.append(
            "the network began with random weights: clusters are clearly worse than with ImageNet's or other trained "
            "ones (PRETRAINED_WEIGHTS)"
        )
    missing = result["n_images"] - result["n_labelled"]
    if result["n_labelled"] and missing:
        warnings.append(f"{missing} of {result['n_images']} images have no label and are left out of the scores")
    if result["n_models"] and result["n_models"] < 10:
        warnings.append(f"with {result['n_models']} models the intervals are only a rough guide")
    return warnings


def table_text(result: dict) -> str:
    """The evaluation as a table for the screen, the ARI in the first line."""
    lines = []
    columns = [result["scores"], *(result[part]["scores"] for part in ("known", "new") if result[part])]
    for name, title in SCORE_NAMES.items() if result["scores"] else ():
        cells = [f"{column[name]['value']:.3f}  {_interval(column[name], '.3f'):17}" for column in columns]
        lines.append((f"{title:30}" + "  ".join(cells)).rstrip())
    if len(columns) > 1:
        groups = [f"{part}: {result[part]['n_models']} models" for part in ("known", "new")]
        lines.append(f"{'(columns)':30}" + "".join(f"{text:24}" for text in ["all models", *groups]).rstrip())
    lines.append(f"{'Clusters':30}{result['n_clusters']}")
    if result["n_models"] is not None:
        low, high = result["clusters_error_interval"]
        interval = _interval({"low": low, "high": high}, "+.1f")
        error = f"{result['clusters_error_percent']:+.1f} %  {interval}".rstrip()
        lines.append(f"{'Models (true number)':30}{result['n_models']}   error {error}")
        for item in result["most_split"]:
            parts = ", ".join(f"{part['n_images']} in {part['cluster']}" for part in item["clusters"][:6])
            lines.append(f"{'Split: ' + item['model'] + ' ':30}{item['n_images']} images: {parts}")
        for item in result["most_merged"]:
            parts = ", ".join(
                f"{part['n_images'][0]} + {part['n_images'][1]} in {part['cluster']}" for part in item["clusters"][:6]
            )
            lines.append(f"{'Merged: ' + ' and '.join(item['models']) + ' ':30}{parts}")
    for name, title in {
        "silhouette": "Silhouette (cosine)",
        "quantization_error": "Map: quantization error",
        "topographic_error": "Map: topographic error",
    }.items():
        lines.append(f"{title:30}" + ("not defined" if result[name] is None else f"{result[name]:.3f}"))
    return "\n".join([*lines, *(f"warning: {sentence}" for sentence in result["warnings"])])


def _interval(score: dict, form: str) -> str:
    """ "(0.512 to 0.674)", or nothing where there is no interval."""
    return "" if score["low"] is None else f"({score['low']:{form}} to {score['high']:{form}})"


def _sums(index: np.ndarray, values: np.ndarray, size: int) -> np.ndarray:
    """Sum of the int64 `values` that share an index, exactly: int64 (size,)."""
    result = np.zeros(size, dtype=np.int64)
    np.add.at(result, index, values)
    return result


def _ratio(part: float, whole: float) -> float:
    """`part / whole`; 1 where there is nothing to divide (both are 0 up to rounding)."""
    return float(part / whole) if abs(whole) > 1e-12 else 1.0


def main() -> None:
    begin = time.perf_counter()
    data_dir, result_path = files.data_dir(config.DATASET), files.result_dir(config.DATASET) / "evaluation.json"
    stage_04 = "04.clustering_som.py"
    rows = files.read_csv(data_dir / "clusters.csv", ["image", "cluster"], stage_04)
    clustering = files.read_json(data_dir / "clustering.json", stage_04)
    features, img_paths = files.read_features(config.DATASET)
    features_paths = [data_dir / "features.npy", data_dir / "img_paths.txt"]
    files.check_in_step(data_dir / "clusters.csv", data_dir / "clustering.json", features_paths, stage_04)
    images, labels_pred = [row["image"] for row in rows], [row["cluster"] for row in rows]
    del rows
    if images != img_paths:
        raise settings.UserError(f"{files.shown(data_dir / 'clusters.csv')} has other images than features.npy: "
                                 f"run {stage_04} again")  # fmt: skip

    input_paths = [data_dir / name for name in ("clusters.csv", "clustering.json", "labels_true.csv", "features.json")]
    input_paths += [*features_paths, files.model_dir(config.TRAIN_DATASET) / "classes.txt"]
    inputs = {files.shown(path): files.fingerprint_file(path) for path in input_paths}
    origin = files.made_from(__file__, inputs, ["RANDOM_SEED", "BOOTSTRAP_RESAMPLES"])
    if files.up_to_date(result_path, origin):
        with files.as_written(result_path, "05.evaluation.py"):
            print(table_text(files.read_json(result_path, "05.evaluation.py")))
        files.unchanged([result_path])
        return

    label_of = {}
    if (data_dir / "labels_true.csv").exists():
        label_rows = files.read_csv(data_dir / "labels_true.csv", ["image", "label"], "00.make_labels_true.py")
        label_of = {row["image"]: row["label"] for row in label_rows}
        if not label_of.keys() & set(images):
            raise settings.UserError(f"{files.shown(data_dir / 'labels_true.csv')} names none of the images that were "
                                     "clustered: run 00.make_labels_true.py again")  # fmt: skip
    features_record = files.recorded(data_dir / "features.npy", data_dir / "features.json") or {}
    result = {"n_images": len(images), "n_clusters": len(set(labels_pred))}
    with files.as_written(data_dir / "features.json", "03.feature_extraction.py"):
        known = known_models(features_record)
    result |= evaluate([label_of.get(name, "") for name in images], labels_pred, known)
    result["silhouette"] = silhouette(features, labels_pred)
    with files.as_written(data_dir / "clustering.json", stage_04):
        for name in ("quantization_error", "topographic_error"):
            result[name] = None if clustering.get(name) is None else float(clustering[name])
    with files.as_written(data_dir / "features.json", "03.feature_extraction.py"):
        result["initial_weights"] = features_record.get("initial_weights")
        result["warnings"] = warnings_of(result, features_record)
    seconds = time.perf_counter() - begin
    files.write_record(result_path, origin, [], **result, seconds=round(seconds, 2))
    print(table_text(result))
    files.summary(len(images), len(images), 0, [result_path], seconds)


if __name__ == "__main__":
    settings.run(main, __doc__)
