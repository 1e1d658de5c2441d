"""Baseline, step 1: read the true labels from the file names.

    python original_src/make_labels_true.py
    python original_src/make_labels_true.py --DATASET=bags

Exit code 3: no name gave a label; the other steps do without.

Reads:  raw_img/D/
Writes: data/D/baseline/labels_true.csv
Config: DATASET, LABEL_FROM, LABEL_PATTERN
"""

import re
import sys
import time
from pathlib import Path, PurePosixPath

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import config
from pipeline.dataset import images_of
from pipeline.machinery import files, paths, run
from pipeline.machinery.errors import UserError
from pipeline.machinery.paths import display_path


class NoLabelsError(UserError):
    """No image of the data set has a label."""

    exit_code = 3


def label_of(name: str, label_from: str, pattern: str) -> str:
    """Label of an image: group 1 of `pattern` in its file name, or its parent folder's name; "" where there is none.

    >>> label_of("a/12_345_1.jpg", "name", "^([^_]+)_"), label_of("a/12_345_1.jpg", "folder", "")
    ('12', 'a')
    """
    path = PurePosixPath(name)
    if label_from == "folder":
        return path.parent.name
    match = re.search(pattern, path.stem) if label_from == "name" else None
    return (match.group(1) or "") if match else ""


def main() -> None:
    """Write the label of every image."""
    begin = time.perf_counter()
    raw_img_dir = paths.raw_img_dir(config.DATASET)
    path = paths.data_dir(config.DATASET) / "baseline" / "labels_true.csv"
    names = images_of(raw_img_dir, "put the photographs there, or set DATASET in config.py")
    labels = [label_of(name, config.LABEL_FROM, config.LABEL_PATTERN) for name in names]
    if not any(labels):
        path.unlink(missing_ok=True)
        raise NoLabelsError(
            f"no image of {display_path(raw_img_dir)}/ has a label: see LABEL_FROM, LABEL_PATTERN in config.py"
        )
    files.write_csv(path, ["image", "label"], zip(names, labels, strict=True))
    print(f"{len(set(labels) - {''})} models; {labels.count('')} images without a label")
    run.summary(len(names), len(names), 0, [path], time.perf_counter() - begin)


if __name__ == "__main__":
    run.run(main, __doc__)
