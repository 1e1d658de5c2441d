"""What fine-tuning gains on models never seen: the starting network, both heads, and training from scratch.

Trains on one data set and scores another that shares no model with it, for several seeds; prints mean and range of
ARI and recall at 1. ARI is that of K-means told the true number of models. Both data sets must have been through
stages 00 and 01, and the first through make_training_image_folders.py. Each training is a run of stages 02 and 03 in a
folder of its own.

    python benchmarks/fine_tuning.py sample_train sample --seeds=3
    python benchmarks/fine_tuning.py catalogue_train catalogue_test --PRETRAINED_WEIGHTS=start.h5 --EPOCHS=5
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

PROJECT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(PROJECT), str(PROJECT / "tests")]

from conftest import load_stage  # noqa: E402

from pipeline import files, settings  # noqa: E402

WAYS = {
    "cosine softmax": ["--HEAD=cosine"],
    "plain softmax": ["--HEAD=softmax"],
    "from scratch, cosine": ["--HEAD=cosine", "--PRETRAINED_WEIGHTS=random"],
}


def run_stage(root: Path, stage: str, arguments: list[str]) -> None:
    """Run a stage as a program; what it says is shown only where it fails."""
    command = [sys.executable, str(PROJECT / stage), *arguments]
    done = subprocess.run(command, env={**os.environ, "IMAGE_CLUSTER_ROOT": str(root)}, capture_output=True, text=True)
    if done.returncode:
        raise settings.UserError(f"{stage} ended with {done.returncode}: {done.stderr[-500:]}")


def score(root: Path, dataset: str) -> dict[str, float]:
    """`judge` of stage 02 on the features of `dataset` that lie below `root`."""
    features = np.load(root / "data" / dataset / "features.npy")
    names = (root / "data" / dataset / "img_paths.txt").read_text(encoding="utf-8").splitlines()
    rows = files.read_csv(files.data_dir(dataset) / "labels_true.csv", ["image", "label"], "00.make_labels_true.py")
    label_of = {row["image"]: row["label"] for row in rows}
    labelled = [i for i, name in enumerate(names) if label_of.get(name)]
    labels = np.unique([label_of[names[i]] for i in labelled], return_inverse=True)[1]
    return load_stage("02.feature_network_fine_tuning.py").judge(features[labelled], labels)


def one_training(train: str, test: str, arguments: list[str]) -> dict[str, dict]:
    """Train once; returns the scores on `test` of the starting network, at the same layer, and of the chosen one."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for name in ("img", "mask", "training_images"):
            if (files.root() / name).exists():
                (root / name).symlink_to(files.root() / name)
        (root / "data").mkdir()
        (root / "data" / train).mkdir()
        placed = files.data_dir(train) / "training_images.json"
        if placed.exists():
            (root / "data" / train / placed.name).write_bytes(placed.read_bytes())
        both = [f"--TRAIN_DATASET={train}", f"--DATASET={test}", *arguments]
        run_stage(root, "02.feature_network_fine_tuning.py", both)
        record = json.loads((root / "model" / train / "feature_network.json").read_text(encoding="utf-8"))
        layer = [f"--FEATURE_LAYER={record['feature_layer']}", f"--POOLING={record['pooling']}"]
        scores = {}
        for network, name in (("pretrained", "start"), ("fine-tuned", "chosen")):
            run_stage(root, "03.feature_extraction.py", [*both, *layer, f"--FEATURE_NETWORK={network}"])
            scores[name] = score(root, test)
        return scores


def shown(values: list[float]) -> str:
    """Mean with range."""
    return f"{np.mean(values):.3f} ({min(values):.3f}-{max(values):.3f})"


def main() -> None:
    """Print a table with a row for each way of training, and one for the network each starts from."""
    data_sets = [a for a in sys.argv[1:] if not a.startswith("--")]
    train, test = data_sets if len(data_sets) == 2 else ("sample_train", "sample")
    n_seeds = next((int(a.partition("=")[2]) for a in sys.argv if a.startswith("--seeds=")), 3)
    overrides = [a for a in sys.argv[1:] if a.startswith("--") and not a.startswith("--seeds=")]
    print(f"trained on {train}, scored on {test}, {n_seeds} seeds, {' '.join(overrides)}")
    print("| network | ARI, K-means told K | recall at 1 | ARI above start |\n|---|---|---|---|")
    for way, arguments in WAYS.items():
        found = [one_training(train, test, [*overrides, *arguments, f"--RANDOM_SEED={s}"]) for s in range(n_seeds)]
        gains = [f["chosen"]["ari"] - f["start"]["ari"] for f in found]
        for name, gain in (("start", ""), ("chosen", shown(gains))):
            ari, recall = ([f[name][key] for f in found] for key in ("ari", "recall_at_1"))
            print(f"| {way}: {name} | {shown(ari)} | {shown(recall)} | {gain} |", flush=True)


if __name__ == "__main__":
    main()
