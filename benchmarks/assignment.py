"""Assigning new photographs (ASSIGN_TO) beside clustering old and new ones together, and what it costs.

    python benchmarks/assignment.py                      models drawn with a shop's sizes, then the cost
    python benchmarks/assignment.py drawn a.npz b.npz    files with `features` and `images` (label_x_y.jpg) as well
    python benchmarks/assignment.py a.npz --draws=5 --cost=none

Each draw splits the photographs into old and new ones, in three ways:
a third      a third of the photographs of four fifths of the models, and all those of the other models
a day        one in 25 photographs of most models, and up to 5 of each of a twentieth of the models
three days   as "a third", in three parts; each is assigned to the part before
Printed, for the assignment and for clustering all anew: the share of new photographs of old models in the cluster of
most of their model's old photographs, the share of photographs of new models in clusters that are mostly of such, the
ARI of the new photographs and of all, the number of clusters, and the processor seconds of the runs.
The cost is that of 100 photographs into --cost=100000x2048, photographs and features: seconds, processor seconds and
peak memory, by `scale.py`. The map of the earlier run is trained in one pass there, which changes nothing about it.
"""

import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from sklearn.metrics import adjusted_rand_score

PROJECT = Path(__file__).resolve().parents[1]


class Split(NamedTuple):
    """A way to split the photographs."""

    name: str
    old: np.ndarray  # rows
    days: list[np.ndarray]  # rows of each day


def load(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return features (n, n_features) float32 and labels (n,) of an .npz file, or of drawn models."""
    if name != "drawn":
        with np.load(name, allow_pickle=False) as stored:
            return stored["features"].astype(np.float32), np.array([str(i).split("_")[0] for i in stored["images"]])
    rng = np.random.default_rng(0)
    sizes = np.maximum(1, (60 / np.arange(1, 301) ** 0.6).astype(int))
    labels = np.repeat(np.arange(len(sizes)), sizes)
    families = 0.5 * rng.standard_normal((30, 64))
    centres = families[rng.integers(30, size=len(sizes))] + rng.standard_normal((len(sizes), 64))
    return (centres[labels] + 1.0 * rng.standard_normal((len(labels), 64))).astype(np.float32), labels


def splits(labels: np.ndarray, seed: int) -> Iterator[Split]:
    """Give each way's split, drawn at random."""
    rng = np.random.default_rng(seed)
    rows_of = [rng.permutation(np.flatnonzero(labels == model)) for model in rng.permutation(np.unique(labels))]
    n_new = max(1, len(rows_of) // 5)
    old = np.concatenate([rows[-(-len(rows) // 3) :] for rows in rows_of[n_new:]])
    late = rng.permutation(np.setdiff1d(np.arange(len(labels)), old))
    yield Split("a third", np.sort(old), [np.sort(late)])
    yield Split("three days", np.sort(old), [np.sort(part) for part in np.array_split(late, 3)])
    n_new = max(1, len(rows_of) // 20)
    every = rng.permutation(np.concatenate(rows_of[n_new:]))
    day = np.concatenate([every[: len(every) // 25], *(rows[:5] for rows in rows_of[:n_new])])
    yield Split("a day", np.sort(every[len(every) // 25 :]), [np.sort(day)])


def put(root: str, dataset: str, features: np.ndarray, rows: np.ndarray) -> None:
    """Write the features of some rows as stage 03 does."""
    folder = Path(root, "data", dataset)
    folder.mkdir(parents=True)
    np.save(folder / "features.npy", features[rows])
    (folder / "img_paths.txt").write_text("".join(f"{row}.jpg\n" for row in rows))


def cluster(root: str, dataset: str, assign_to: str | None = None) -> tuple[np.ndarray, float]:
    """Run stage 04 as a program; return the clusters, (n,), and its processor seconds."""
    settings = [f"--DATASET={dataset}", f"--ASSIGN_TO={assign_to}"]
    command = [sys.executable, str(PROJECT / "04.clustering_som.py"), *settings]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, env={**os.environ, "IMAGE_CLUSTER_ROOT": root}, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return np.load(Path(root, "data", dataset, "labels_pred.npy"), allow_pickle=False), seconds


def score(found: np.ndarray, labels: np.ndarray, is_old: np.ndarray) -> tuple[float, ...]:
    """Return the scores that the module's docstring names; found, labels, is_old : (n,), of old and new photographs."""
    usual = {}
    for model in np.unique(labels[is_old]):
        ids, counts = np.unique(found[is_old & (labels == model)], return_counts=True)
        usual[model] = ids[counts.argmax()]
    known = np.array([label in usual for label in labels])
    right = np.mean([usual[labels[i]] == found[i] for i in np.flatnonzero(known & ~is_old)])
    ids, place = np.unique(found, return_inverse=True)
    apart = np.mean((np.bincount(place, weights=~known) > 0.5 * np.bincount(place))[place[~known]])
    ari = adjusted_rand_score(labels[~is_old], found[~is_old]), adjusted_rand_score(labels, found)
    return float(right), float(apart), *ari, len(np.unique(found))


def compare(features: np.ndarray, labels: np.ndarray, split: Split) -> dict[str, tuple[float, ...]]:
    """Return the scores and seconds of assigning, and of clustering anew."""
    rows = np.concatenate([split.old, *split.days])
    with tempfile.TemporaryDirectory() as root:
        for name, some in (("day0", split.old), ("all", rows), *((f"day{i}", r) for i, r in enumerate(split.days, 1))):
            put(root, name, features, some)
        parts, total = [cluster(root, "day0")[0]], 0.0
        for day in range(1, len(split.days) + 1):
            found, seconds = cluster(root, f"day{day}", f"day{day - 1}")
            parts.append(found)
            total += seconds
        anew, of_anew = cluster(root, "all")
    is_old = np.arange(len(rows)) < len(split.old)
    return {
        "assigned": (*score(np.concatenate(parts), labels[rows], is_old), total),
        "anew": (*score(anew, labels[rows], is_old), of_anew),
    }


def compare_all(names: list[str], n_draws: int) -> None:
    """Print the table of each set."""
    for name in names:
        features, labels = load(name)
        print(f"\n{name}: {len(labels)} photographs of {len(np.unique(labels))} models")
        print("split        way        right   apart   ARI of new   ARI of all   clusters   seconds")
        tables: dict[tuple[str, str], list[tuple[float, ...]]] = {}
        for seed in range(n_draws):
            for split in splits(labels, seed):
                for way, scores in compare(features, labels, split).items():
                    tables.setdefault((split.name, way), []).append(scores)
        for (split_name, way), scores in tables.items():
            right, apart, of_new, of_all, n_clusters, seconds = np.mean(scores, axis=0)
            print(f"{split_name:12s} {way:9s} {right:6.3f}  {apart:6.3f}   {of_new:10.3f}   {of_all:10.3f}   "
                  f"{n_clusters:8.1f}   {seconds:7.1f}", flush=True)  # fmt: skip


def main() -> None:
    names = [argument for argument in sys.argv[1:] if not argument.startswith("--")] or ["drawn"]
    given = dict(argument.removeprefix("--").split("=") for argument in sys.argv[1:] if argument.startswith("--"))
    compare_all(names, int(given.get("draws", 3)))
    if (cost := given.get("cost", "100000x2048")) != "none":
        size, n_features = cost.split("x")
        print(f"\n100 photographs into {size} of {n_features} features", flush=True)
        options = [f"--sizes={size}", f"--features={n_features}", "--ways=1", "--earlier=--SOM_EPOCHS=1"]
        subprocess.run(
            [sys.executable, str(PROJECT / "benchmarks" / "scale.py"), "--what=assign", *options], check=True
        )


if __name__ == "__main__":
    main()
