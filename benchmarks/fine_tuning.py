"""What fine-tuning gains on models never seen: the starting network, both heads, and training from scratch.

Trains on one data set and scores another that shares no model with it, for several seeds; prints a row for each network
with mean and range of the scores of stage 02 (ARI is that of average linkage told the true number of models), and of
stage 04's ARI with the number of clusters that it predicts. The seed also decides which models
are held out in training. "Whitened" are features that stage 02 learned to whiten. The starting network is never: it is
read off the layer and with the pooling that are best for it on all training images; "without labels" is what stage 03
takes where there are none. Both data sets must have been through stages 00 and 01, and the first through
make_training_image_folders.py. Each training is a run of stage 02 in a folder of its own.

    python benchmarks/fine_tuning.py sample_train sample --seeds=3
    python benchmarks/fine_tuning.py catalogue_train catalogue_test --PRETRAINED_WEIGHTS=start.h5 --EPOCHS=6
    python benchmarks/fine_tuning.py catalogue_train catalogue_test --ways=plain,scratch --seeds=1 --EPOCHS=6
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

PROJECT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(PROJECT))

from pipeline.features.retrieval_scores import judge  # noqa: E402
from pipeline.machinery import files  # noqa: E402
from pipeline.machinery.errors import UserError  # noqa: E402
from pipeline.machinery.paths import data_dir, img_dir, mask_dir, training_images_dir  # noqa: E402
from pipeline.machinery.paths import root as project_root  # noqa: E402

WAYS = {
    "cosine": ["--HEAD=cosine"],
    "plain": ["--HEAD=softmax"],
    "scratch": ["--HEAD=cosine", "--PRETRAINED_WEIGHTS=random"],
}
SCORES = ("ari", "recall_at_1", "map_at_r", "average_precision", "margin", "ari of stage 04", "clusters of stage 04")


def run_stage(root: Path, stage: str, arguments: list[str]) -> None:
    """Run a stage as a program; what it says is shown only where it fails."""
    command = [sys.executable, str(PROJECT / stage), *arguments]
    done = subprocess.run(command, env={**os.environ, "IMAGE_CLUSTER_ROOT": str(root)}, capture_output=True, text=True)
    if done.returncode:
        raise UserError(f"{stage} ended with {done.returncode}: {done.stderr[-500:]}")


def features_scored(root: Path, dataset: str, arguments: list[str]) -> dict[str, float]:
    """Extract the features of `dataset` below `root`, cluster them, and score both: SCORES."""
    from sklearn.metrics import adjusted_rand_score

    run_stage(root, "03.feature_extraction.py", arguments)
    run_stage(root, "04.clustering_som.py", [f"--DATASET={dataset}"])
    folder = root / "data" / dataset
    names = (folder / "img_paths.txt").read_text(encoding="utf-8").splitlines()
    rows = files.read_csv(data_dir(dataset) / "labels_true.csv", ["image", "label"], "00.make_labels_true.py")
    label_of = {row["image"]: row["label"] for row in rows}
    labelled = [i for i, name in enumerate(names) if label_of.get(name)]
    labels = np.unique([label_of[names[i]] for i in labelled], return_inverse=True)[1]
    found = judge(np.load(folder / "features.npy")[labelled], labels)
    clusters = np.load(folder / "labels_pred.npy")[labelled]
    found["ari of stage 04"] = float(adjusted_rand_score(labels, clusters))
    found["clusters of stage 04"] = float(len(np.unique(clusters)))
    return found


def trained(root: Path, train: str, test: str, arguments: list[str]) -> dict:
    """Run stage 02 below `root`, on hard links to the images of the project's folder; its record."""
    for folder in (training_images_dir(train), mask_dir(train), img_dir(test)):
        if folder.exists():
            shutil.copytree(folder, root / folder.relative_to(project_root()), copy_function=linked)
    placed = data_dir(train) / "training_images.json"
    (root / "data" / train).mkdir(parents=True)
    if placed.exists():
        (root / "data" / train / placed.name).write_bytes(placed.read_bytes())
    run_stage(root, "02.feature_network_fine_tuning.py", arguments)
    return json.loads((root / "model" / train / "feature_network.json").read_text(encoding="utf-8"))


def linked(source: str, target: str) -> None:
    """Return a hard link, or a copy where the file system has none."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def shown(values: list[float]) -> str:
    """Mean with range, where there are several different ones."""
    digits = 0 if min(values) >= 2 else 3
    mean, low, high = (f"{value:.{digits}f}" for value in (np.mean(values), min(values), max(values)))
    return mean if low == high else f"{mean} ({low}-{high})"


def main() -> None:
    """Print a table: for each way of training the networks that it starts from and those that it chose."""
    own = {a.split("=")[0]: a.split("=")[1] for a in sys.argv[1:] if a.startswith(("--seeds=", "--ways="))}
    data_sets = [a for a in sys.argv[1:] if not a.startswith("--")]
    train, test = data_sets if len(data_sets) == 2 else ("sample_train", "sample")
    overrides = [a for a in sys.argv[1:] if a.startswith("--") and a.split("=")[0] not in own]
    seeds = range(int(own.get("--seeds", 3)))
    print(f"trained on {train}, scored on {test}, {len(seeds)} seeds, {' '.join(overrides)}")
    print(f"| network | read off | {' | '.join(SCORES)} |\n|---|---|{'---|' * len(SCORES)}")
    starts: dict[tuple[str, ...], dict] = {}  # scores of starting networks: the same for both heads
    for way in own.get("--ways", ",".join(WAYS)).split(","):
        found: dict[str, list[tuple[str, dict]]] = {}
        for seed in seeds:
            with tempfile.TemporaryDirectory() as folder:
                arguments = [f"--TRAIN_DATASET={train}", *overrides, *WAYS[way], f"--RANDOM_SEED={seed}"]
                record = trained(Path(folder), train, test, arguments)
                arguments = [*arguments, f"--DATASET={test}"]
                chosen = features_scored(Path(folder), test, arguments)
                whitened = ", whitened" if record["whitened"] else ""
                where = f"{record['pooling']} of {record['feature_layer']}{whitened}"
                found.setdefault(f"{way}: chosen", []).append((where, chosen))
                place = record["start_place"]
                for name, layer, pooling in (
                    ("start", place["feature_layer"], place["pooling"]),
                    ("start, without labels", "auto", "auto"),
                ):
                    key = (layer, pooling, str(seed) if record["initial_weights"] == "random" else "")
                    if key not in starts:
                        read = ["--FEATURE_NETWORK=pretrained", f"--FEATURE_LAYER={layer}", f"--POOLING={pooling}"]
                        starts[key] = features_scored(Path(folder), test, [*arguments, *read])
                    found.setdefault(f"{way}: {name}", []).append((f"{pooling} of {layer}", starts[key]))
            last = {name: [round(values[-1][1][key], 3) for key in SCORES] for name, values in found.items()}
            print(f"seed {seed}: {last}", file=sys.stderr, flush=True)
        for name in sorted(found, reverse=True):
            places, scores = zip(*found[name], strict=True)
            values = " | ".join(shown([score[key] for score in scores]) for key in SCORES)
            print(f"| {name} | {', '.join(dict.fromkeys(places))} | {values} |", flush=True)


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"error: {error}")
