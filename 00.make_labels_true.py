"""Read the true label of every photograph from its name.

    python 00.make_labels_true.py
    python 00.make_labels_true.py --DATASET=bags --LABEL_FROM=folder

The label comes from the file name (LABEL_FROM = "name", by LABEL_PATTERN) or from the parent folder ("folder").
`12_345_1.jpg` is image 1 of product 345 of model 12: its label is "12". A name that does not match keeps an empty
label, and later stages leave it out of the scores. With LABEL_FROM = "none", the photographs have no labels:
the later stages cluster them all the same, and do without the scores that need labels.
Exit code 3: no name gave a label.

Reads:  raw_img/D/
Writes: data/D/labels_true.csv, data/D/labels_true.txt, data/D/labels_true.tsv, data/D/labels_true.npy,
        data/D/labels_true.json
Config: DATASET, LABEL_FROM, LABEL_PATTERN (without effect on the files: N_JOBS, REDO)
"""

import re
import time
from pathlib import PurePosixPath

import numpy as np

import config
from pipeline.dataset import images_of, name_problem
from pipeline.machinery import files, paths, records, run
from pipeline.machinery.errors import UserError
from pipeline.machinery.paths import display_path


class NoLabels(UserError):
    """No image of the data set has a label: `run_all.py` goes on without."""

    exit_code = 3


def label_from_name(name: str, pattern: str) -> str:
    """Group 1 of `pattern`, searched in the file name without folders and suffix; "" where it does not match.

    >>> label_from_name("shop_a/12_345_1.jpg", r"^([^_]+)_[^_]+_[^_]+$")
    '12'
    """
    match = re.search(pattern, PurePosixPath(name).stem)
    return (match.group(1) or "") if match else ""


def label_from_folder(name: str) -> str:
    """Name of the folder that directly holds the image; "" for one that lies in no folder of the data set.

    >>> label_from_folder("bags/tote/1.jpg")
    'tote'
    """
    return PurePosixPath(name).parent.name


def labels_of(names: list[str], label_from: str, pattern: str) -> list[str]:
    """The label of each image, "" where it has none."""
    if label_from == "folder":
        return [label_from_folder(name) for name in names]
    return [label_from_name(name, pattern) for name in names]


def write_labels(names: list[str], labels: list[str], origin: dict) -> None:
    """Write the labels in the pipeline's format and in those of the task's own tools, and their record last."""
    folder = paths.data_dir(config.DATASET)
    outputs = [folder / f"labels_true{suffix}" for suffix in (".csv", ".txt", ".tsv", ".npy")]
    files.write_csv(outputs[0], ["image", "label"], zip(names, labels, strict=True))
    files.write_lines(outputs[1], labels)
    files.write_lines(outputs[2], ["image\tlabel", *(f"{n}\t{label}" for n, label in zip(names, labels, strict=True))])
    files.write_npy(outputs[3], np.array(labels, dtype=np.str_))
    n_models = len(set(labels) - {""})
    records.write_record(folder / "labels_true.json", origin, outputs, n_images=len(names), n_models=n_models)


def remove_labels() -> None:
    """Remove the labels of an earlier run, so that later stages do without."""
    for suffix in (".json", ".csv", ".txt", ".tsv", ".npy"):
        (paths.data_dir(config.DATASET) / f"labels_true{suffix}").unlink(missing_ok=True)


def main() -> None:
    begin = time.perf_counter()
    raw_img_dir = paths.raw_img_dir(config.DATASET)
    found = images_of(raw_img_dir, "put the photographs there, or set DATASET in config.py")
    if config.LABEL_FROM == "none":
        remove_labels()
        print(f'{display_path(raw_img_dir)}/: {len(found)} images without labels (LABEL_FROM = "none")')
        return

    record_path = paths.data_dir(config.DATASET) / "labels_true.json"
    inputs = {display_path(raw_img_dir): records.fingerprint(found)}
    origin = records.made_from(__file__, inputs)
    if records.up_to_date(record_path, origin):
        run.unchanged([record_path.with_suffix(".csv")])
        return

    names = [name for name in found if name_problem(name) is None]  # stage 01 lists the others in skipped.csv
    labels = labels_of(names, config.LABEL_FROM, config.LABEL_PATTERN)
    if not any(labels):
        source = (
            f"matches LABEL_PATTERN = {config.LABEL_PATTERN!r}" if config.LABEL_FROM == "name" else "is in a folder"
        )
        raise NoLabels(
            f"no image of {display_path(raw_img_dir)}/ {source}: correct LABEL_FROM and LABEL_PATTERN in config.py, "
            'or set LABEL_FROM = "none" for photographs without labels'
        )
    write_labels(names, labels, origin)
    print(f"{len(set(labels) - {''})} models; {labels.count('')} images without a label")
    seconds = time.perf_counter() - begin
    run.summary(len(found), len(names), len(found) - len(names), [record_path.with_suffix(".csv")], seconds)


if __name__ == "__main__":
    run.run(main, __doc__)
