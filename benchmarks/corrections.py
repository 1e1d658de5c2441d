"""What an answer is worth: a person answers the review list's questions, and stage 04 is run again after each answer.

    python benchmarks/corrections.py features.npz                     `features` and `images` (label_x_y.jpg)
    python benchmarks/corrections.py features.npz --answers=30        fewer answers than 100

The person always tells the truth. Beside the review list: as many random pairs, and as many pairs of the least
confident image with the medoid of its cluster. Prints the ARI after 0, 10, 30 and 100 answers.
"""

import csv
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from sklearn.metrics import adjusted_rand_score

PROJECT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(PROJECT))

from pipeline.clustering.corrections import Answer  # noqa: E402
from pipeline.clustering.directions import Directions  # noqa: E402
from pipeline.report.found import Found  # noqa: E402
from pipeline.report.review import rank_questions  # noqa: E402

SHOWN = (0, 10, 30, 100)  # answers after which the ARI is printed
Order = Callable[[Found, np.random.Generator], list[tuple[int, int]]]


def ask_by_review_list(found: Found, rng: np.random.Generator) -> list[tuple[int, int]]:
    return rank_questions(found)


def ask_at_random(found: Found, rng: np.random.Generator) -> list[tuple[int, int]]:
    return [(int(a), int(b)) for a, b in rng.integers(len(found.names), size=(1000, 2)) if a != b]


def ask_least_confident(found: Found, rng: np.random.Generator) -> list[tuple[int, int]]:
    pairs = [(int(i), found.medoid[int(found.cluster[i])]) for i in np.argsort(found.confidence, kind="stable")]
    return [(a, b) for a, b in pairs if a != b]


def cluster_again(root: str, direction: np.ndarray, answers: list[tuple[int, int, str]], names: list[str]) -> Found:
    """Run stage 04 with the answers as corrections; return what it found."""
    folder = Path(root, "data", "set")
    lines = ["image_a,image_b,verdict", *(f"{names[a]},{names[b]},{verdict}" for a, b, verdict in answers)]
    (folder / "corrections.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    command = [sys.executable, str(PROJECT / "04.clustering_som.py"), "--DATASET=set"]
    subprocess.run(command, env={**os.environ, "IMAGE_CLUSTER_ROOT": root}, check=True, capture_output=True)
    with (folder / "clusters.csv").open(encoding="utf-8", newline="") as handle:
        rows = list(csv.DictReader(handle))
    cluster = np.array([int(row["cluster"]) for row in rows])
    runner_up = np.array([int(row["runner_up"] or -1) for row in rows])
    confidence, distance = (np.array([float(row[name]) for row in rows]) for name in ("confidence", "distance"))
    outlier = np.array([row["outlier"] == "1" for row in rows])
    unit = np.zeros(len(rows), np.int64)
    said = [Answer(a, b, verdict == "same") for a, b, verdict in answers]
    return Found(names, [""] * len(rows), cluster, runner_up, confidence, distance, outlier, unit, direction, said)


def answer(features: np.ndarray, labels: np.ndarray, order: Order, n_answers: int) -> list[float]:
    """Return the ARI after 0, 1, 2 ... `n_answers` answers; fewer where there is nothing left to ask."""
    rng = np.random.default_rng(0)
    names = [f"{row}.jpg" for row in range(len(features))]
    direction = Directions(features)[:]
    answers: list[tuple[int, int, str]] = []
    asked: set[tuple[int, int]] = set()
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root, "data", "set")
        folder.mkdir(parents=True)
        np.save(folder / "features.npy", features)
        (folder / "img_paths.txt").write_text("".join(f"{name}\n" for name in names))
        found = cluster_again(root, direction, answers, names)
        scores = [adjusted_rand_score(labels, found.cluster)]
        while len(answers) < n_answers:
            pair = next((p for p in order(found, rng) if (min(p), max(p)) not in asked), None)
            if pair is None:
                break
            asked.add((min(pair), max(pair)))
            answers.append((*pair, "same" if labels[pair[0]] == labels[pair[1]] else "different"))
            found = cluster_again(root, direction, answers, names)
            scores.append(adjusted_rand_score(labels, found.cluster))
    return scores


def main() -> None:
    n_answers = next((int(a.split("=")[1]) for a in sys.argv if a.startswith("--answers=")), SHOWN[-1])
    ways = {
        "review list": ask_by_review_list,
        "random pairs": ask_at_random,
        "least confident": ask_least_confident,
    }
    for name in (argument for argument in sys.argv[1:] if not argument.startswith("--")):
        with np.load(name, allow_pickle=False) as stored:
            features = stored["features"].astype(np.float32)
            labels = np.array([str(image).split("_")[0] for image in stored["images"]])
        print(f"\n{name}: ARI after {', '.join(str(n) for n in SHOWN if n <= n_answers)} answers")
        for way, order in ways.items():
            scores = answer(features, labels, order, n_answers)
            shown = [scores[min(n, len(scores) - 1)] for n in SHOWN if n <= n_answers]
            print(f"  {way:16s} {'  '.join(f'{score:.3f}' for score in shown)}", flush=True)


if __name__ == "__main__":
    main()
