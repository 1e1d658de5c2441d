"""Score the predicted clusters against the true models.

    python 05.evaluation.py
    python 05.evaluation.py --DATASET=bags --BOOTSTRAP_RESAMPLES=5000

The first line is the Adjusted Rand Index (ARI), the task's score. Every score comes with a 95 % interval: how far the
score would vary with other models of the same kind, by drawing as many models with replacement (bootstrap). Images
without a label are left out. Where the network was trained on some of the models, these (known) and the others (new)
are also scored on their own. Without labels, only the silhouette and the map's errors are given.

Reads:  data/D/clusters.csv, data/D/clustering.json, data/D/features.npy, data/D/img_paths.txt,
        data/D/features.json, data/D/labels_true.csv (where there are labels), model/T/classes.txt
Writes: result/D/evaluation.json
Config: RANDOM_SEED, BOOTSTRAP_RESAMPLES (without effect on the files: DATASET, TRAIN_DATASET, REDO)
"""

import time

import numpy as np

import config
from pipeline import dataset
from pipeline.machinery import files, paths, records, run
from pipeline.machinery.errors import UserError
from pipeline.scoring.contingency import cross_tabulate, find_merged_models, find_split_models
from pipeline.scoring.intervals import bootstrap_intervals
from pipeline.scoring.scores import SCORE_NAMES
from pipeline.scoring.silhouette import mean_silhouette

STAGE_00, STAGE_03, STAGE_04 = "00.make_labels_true.py", "03.feature_extraction.py", "04.clustering_som.py"


def evaluate(labels_true: list[str], labels_pred: list[str], known: set[str], n_resamples: int, seed: int) -> dict:
    """Score the images that have a label ("" for those without), for all models, the known and the new ones.

    Both lists name the same images in the same order; `known` are the models that the network was trained on.
    """
    pairs = [(true, pred) for true, pred in zip(labels_true, labels_pred, strict=True) if true]
    result: dict = {"n_labelled": len(pairs), "n_models": None, "n_clusters_labelled": None}
    result |= {"clusters_error_percent": None, "clusters_error_interval": None, "scores": {}}
    result |= {"known": None, "new": None, "most_split": [], "most_merged": []}
    if not pairs:
        return result
    table = cross_tabulate(*map(list, zip(*pairs, strict=True)))
    values, error = bootstrap_intervals(table, n_resamples, seed)
    result |= {"n_models": len(table.models), "n_clusters_labelled": len(table.clusters), "scores": values}
    result |= {"clusters_error_percent": error["value"], "clusters_error_interval": [error["low"], error["high"]]}
    result |= {"most_split": find_split_models(table), "most_merged": find_merged_models(table)}
    parts = {
        "known": [pair for pair in pairs if pair[0] in known],
        "new": [pair for pair in pairs if pair[0] not in known],
    }
    if all(parts.values()):
        for name, part in parts.items():
            table = cross_tabulate(*map(list, zip(*part, strict=True)))
            values, error = bootstrap_intervals(table, n_resamples, seed)
            result[name] = {"n_images": len(part), "n_models": len(table.models), "n_clusters": len(table.clusters)}
            result[name] |= {"clusters_error_percent": error["value"], "scores": values}
    return result


def read_known_models(features_record: dict) -> set[str]:
    """Return the names of the models that the network behind the features was trained on."""
    classes_path = paths.model_dir(config.TRAIN_DATASET) / "classes.txt"
    if features_record.get("network") != "fine-tuned" or not classes_path.exists():
        return set()
    return set(files.read_lines(classes_path, "02.feature_network_fine_tuning.py"))


def list_warnings(result: dict, features_record: dict) -> list[str]:
    """Return the warnings that go with the scores, one sentence each."""
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


def format_table(result: dict) -> str:
    """Return the evaluation as a table for the screen, the ARI in the first line."""
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
    """Return "(0.512 to 0.674)", or nothing where there is no interval."""
    return "" if score["low"] is None else f"({score['low']:{form}} to {score['high']:{form}})"


def read_clusters() -> tuple[list[str], list[str], np.ndarray]:
    """Return the images' names, the cluster of each, and their features (n_images, n_features), in one order."""
    data_dir = paths.data_dir(config.DATASET)
    path = data_dir / "clusters.csv"
    rows = files.read_csv(path, ["image", "cluster"], STAGE_04)
    features, img_paths = dataset.read_features(config.DATASET)
    features_paths = [data_dir / "features.npy", data_dir / "img_paths.txt"]
    records.check_in_step(path, data_dir / "clustering.json", features_paths, STAGE_04)
    if [row["image"] for row in rows] != img_paths:
        raise UserError(f"{paths.display_path(path)} has other images than features.npy: run {STAGE_04} again")
    return img_paths, [row["cluster"] for row in rows], features


def read_labels(images: list[str]) -> list[str]:
    """Return the true label of each image, "" for an image without one."""
    path = paths.data_dir(config.DATASET) / "labels_true.csv"
    if not path.exists():
        return [""] * len(images)
    label_of = {row["image"]: row["label"] for row in files.read_csv(path, ["image", "label"], STAGE_00)}
    if not label_of.keys() & set(images):
        raise UserError(
            f"{paths.display_path(path)} names none of the images that were clustered: run {STAGE_00} again"
        )
    return [label_of.get(name, "") for name in images]


def describe_origin() -> dict:
    """Return all that the scores depend on, for their record."""
    data_dir = paths.data_dir(config.DATASET)
    names = ("clusters.csv", "clustering.json", "labels_true.csv", "features.json", "features.npy", "img_paths.txt")
    input_paths = [*(data_dir / name for name in names), paths.model_dir(config.TRAIN_DATASET) / "classes.txt"]
    inputs = {paths.display_path(path): records.fingerprint_file(path) for path in input_paths}
    return records.made_from(__file__, inputs)


def main() -> None:
    begin = time.perf_counter()
    data_dir, result_path = paths.data_dir(config.DATASET), paths.result_dir(config.DATASET) / "evaluation.json"
    clustering = files.read_json(data_dir / "clustering.json", STAGE_04)
    images, labels_pred, features = read_clusters()
    origin = describe_origin()
    if records.up_to_date(result_path, origin):
        with records.as_written(result_path, "05.evaluation.py"):
            print(format_table(files.read_json(result_path, "05.evaluation.py")))
        run.unchanged([result_path])
        return

    labels_true = read_labels(images)
    features_record = records.recorded(data_dir / "features.npy", data_dir / "features.json") or {}
    with records.as_written(data_dir / "features.json", STAGE_03):
        known = read_known_models(features_record)
    result: dict[str, object] = {"n_images": len(images), "n_clusters": len(set(labels_pred))}
    result |= evaluate(labels_true, labels_pred, known, config.BOOTSTRAP_RESAMPLES, config.RANDOM_SEED)
    result["silhouette"] = mean_silhouette(features, labels_pred)
    with records.as_written(data_dir / "clustering.json", STAGE_04):
        for name in ("quantization_error", "topographic_error"):
            result[name] = None if clustering.get(name) is None else float(clustering[name])
    with records.as_written(data_dir / "features.json", STAGE_03):
        result["initial_weights"] = features_record.get("initial_weights")
        result["warnings"] = list_warnings(result, features_record)
    seconds = time.perf_counter() - begin
    records.write_record(result_path, origin, [], **result, seconds=round(seconds, 2))
    print(format_table(result))
    run.summary(len(images), len(images), 0, [result_path], seconds)


if __name__ == "__main__":
    run.run(main, __doc__)
