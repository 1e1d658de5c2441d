"""A small data set with names of all kinds, drawn and clustered, for the tests of stage 06 and of its report."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from stages import PROJECT

from pipeline.dataset import write_image
from pipeline.machinery import files
from pipeline.report import page
from pipeline.report.found import Found

HOSTILE = ["<img src=x onerror=alert(1)>.jpg", "=1+1.jpg", "a'b&amp;c.jpg"]
if os.name != "nt":
    HOSTILE += ['q"uote.jpg', "x</script><script>window.hacked=1</script>.jpg", "x</style><b>.jpg"]
KOREAN = ["가방 1, 검정.jpg", "구두/굽 높은 2.jpg"]
RELATION = page.RELATION  # third column of corrections.csv
SETTINGS = ("--DATASET=d", "--N_JOBS=2", "--BOOTSTRAP_RESAMPLES=50", "--CONTACT_SHEETS_MAX=3")
COLOURS = ((40, 40, 200), (200, 80, 40), (60, 170, 60), (20, 190, 220), (160, 60, 160))  # BGR


def found_of(cluster: list[int], direction: np.ndarray | None = None, **more) -> Found:
    """A Found of images that nothing else is said about."""
    n = len(cluster)
    values = {
        "names": [f"{i}.jpg" for i in range(n)], "labels": [""] * n, "cluster": np.array(cluster),
        "runner_up": np.full(n, -1), "confidence": np.ones(n), "distance": np.zeros(n), "outlier": np.zeros(n, bool),
        "unit": np.zeros(n, int), "direction": np.eye(n, dtype=np.float32) if direction is None else direction,
    }  # fmt: skip
    return Found(**(values | more))


def draw(group: int, number: int) -> np.ndarray:
    """A photograph of group 0-4: a coloured box on white, its place and size depend on `number`."""
    image_bgr = np.full((90 + number % 3 * 20, 120, 3), 255, np.uint8)
    image_bgr[20 + number : 60 + number, 15 + 2 * number : 70 + 2 * number] = COLOURS[group]
    return image_bgr


def make(root: Path, labelled: bool = True) -> list[str]:
    """Photographs, features and labels of 5 groups in `root`: groups 1 and 2 are one model, group 0 is two models."""
    rng = np.random.default_rng(0)
    special = [*HOSTILE, *KOREAN]
    names, groups = [], []
    for group in range(5):
        for number in range(12):
            names.append(special.pop() if special and number % 3 == 1 else f"{group}_{number:02}.jpg")
            groups.append(group)
            for folder in ("raw_img", "img"):
                path = root / folder / "d" / names[-1]
                path.parent.mkdir(parents=True, exist_ok=True)
                write_image(path, draw(group, number))
    (root / "img" / "d" / names[3]).unlink()  # only the photograph as it came is left
    order = np.argsort(names)
    names, groups = [names[i] for i in order], np.array(groups)[order]
    centres = rng.normal(size=(5, 16))
    features = centres[groups] + rng.normal(scale=0.5, size=(len(names), 16))
    data_dir = root / "data" / "d"
    files.write_npy(data_dir / "features.npy", features.astype(np.float32))
    files.write_lines(data_dir / "img_paths.txt", names)
    if labelled:
        labels = ["", "구두", "구두", "c", "d"]
        rows = [(n, labels[g] or ("a" if i % 2 else "b")) for i, (n, g) in enumerate(zip(names, groups, strict=True))]
        files.write_csv(data_dir / "labels_true.csv", ["image", "label"], rows)
    skipped = [("broken <b>.jpg", "01.img_preprocess.py", "the file is empty")]
    files.write_csv(data_dir / "skipped.csv", ["image", "stage", "reason"], skipped)
    return names


def run(root: Path, stage: str, *more: str) -> subprocess.CompletedProcess:
    """Run a stage on the data set, its output as text."""
    settings = [f"--{name}" for name in dict(s.removeprefix("--").split("=", 1) for s in (*SETTINGS, *more))]
    values = dict(s.removeprefix("--").split("=", 1) for s in (*SETTINGS, *more)).values()
    return subprocess.run(
        [sys.executable, str(PROJECT / stage), *(f"{s}={v}" for s, v in zip(settings, values, strict=True))],
        cwd=PROJECT, env={**os.environ, "IMAGE_CLUSTER_ROOT": str(root)}, capture_output=True, text=True,
        encoding="utf-8", timeout=300,
    )  # fmt: skip


def run_all(root: Path, *more: str) -> None:
    """Stages 04, 05 and 06."""
    for stage in ("04.clustering_som.py", "05.evaluation.py", "06.visualization.py"):
        done = run(root, stage, *more)
        assert done.returncode == 0, done.stderr
