"""Baseline, step 4: score its clusters, and set the pipeline's score beside them where there is one.

    python original_src/evaluation.py
    python original_src/evaluation.py --DATASET=bags

Reads:  data/D/baseline/labels_pred.csv, data/D/baseline/labels_true.csv, data/D/baseline/features.json,
        result/D/evaluation.json where the pipeline has run
Writes: result/D/baseline/evaluation.json
Config: DATASET
"""

import sys
from pathlib import Path

from sklearn import metrics

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import config
from pipeline.machinery import files, paths, records, run
from pipeline.machinery.errors import UserError
from pipeline.machinery.paths import display_path

SCORES = {
    "ari": metrics.adjusted_rand_score,
    "ami": metrics.adjusted_mutual_info_score,
    "nmi": metrics.normalized_mutual_info_score,
    "homogeneity": metrics.homogeneity_score,
    "completeness": metrics.completeness_score,
    "v_measure": metrics.v_measure_score,
    "fowlkes_mallows": metrics.fowlkes_mallows_score,
}


def scores(labels_true: list[str], labels_pred: list[str]) -> dict[str, float]:
    """All scores of clusters `labels_pred` against models `labels_true`, both one per image in the same order.

    >>> round(scores(["1", "1", "1", "2", "2", "3"], ["1", "1", "2", "2", "3", "4"])["ari"], 3)
    0.189
    """
    return {name: float(score(labels_true, labels_pred)) for name, score in SCORES.items()}


def labelled(dataset: str) -> tuple[list[str], list[str], int]:
    """Return true and predicted labels of the images that have both, joined by name, and how many have not."""
    folder = paths.data_dir(dataset) / "baseline"
    pred = files.read_csv(folder / "labels_pred.csv", ["image", "cluster"], "original_src/make_labels_pred.py")
    true = files.read_csv(folder / "labels_true.csv", ["image", "label"], "original_src/make_labels_true.py")
    label_of = {row["image"]: row["label"] for row in true}
    pairs = [(label_of[row["image"]], row["cluster"]) for row in pred if label_of.get(row["image"])]
    if not pairs:
        raise UserError(f"{display_path(folder)}: no clustered image has a label: run original_src/run_all.py")
    return [pair[0] for pair in pairs], [pair[1] for pair in pairs], len(pred) - len(pairs)


def main() -> None:
    """Print and write the scores."""
    labels_true, labels_pred, n_without = labelled(config.DATASET)
    found = scores(labels_true, labels_pred)
    record = records.read_record(paths.data_dir(config.DATASET) / "baseline" / "features.json") or {}
    result = {
        "n_images": len(labels_true),
        "n_without_label": n_without,
        "n_clusters": len(set(labels_pred)),
        "n_models": len(set(labels_true)),
        "initial_weights": record.get("initial_weights"),
        "scores": found,
    }
    path = paths.result_dir(config.DATASET) / "baseline" / "evaluation.json"
    files.write_json(path, result)
    for name, value in found.items():
        print(f"{name:<16} {value:.3f}")
    print(f"{result['n_clusters']} clusters, {result['n_models']} models, initial weights: {result['initial_weights']}")
    pipeline = paths.result_dir(config.DATASET) / "evaluation.json"
    if pipeline.exists():
        other = files.read_json(pipeline, "05.evaluation.py")
        if other.get("scores"):
            ari = other["scores"]["ari"]["value"]
            print(f"the pipeline on {config.DATASET}: ari {ari:.3f}, {other['n_clusters']} clusters")
    print(f"wrote {display_path(path)}")


if __name__ == "__main__":
    run.run(main, __doc__)
