"""Read the true label of every photograph from its name, from its folder, or from a table.

    python 00.make_labels_true.py
    python 00.make_labels_true.py --DATASET=bags --LABEL_FROM=folder
    python 00.make_labels_true.py --DATASET=bags --LABEL_FROM=table

The label comes from the file name (LABEL_FROM = "name", by LABEL_PATTERN), from the parent folder ("folder"), or from
labels.csv ("table") with the columns image and label, beside the photographs or in data/D/, as a spreadsheet saves it.
`12_345_1.jpg` is image 1 of product 345 of model 12: its label is "12". A name that does not match keeps an empty
label, and later stages leave it out of the scores. With LABEL_FROM = "none", the photographs have no labels:
the later stages cluster them all the same, and do without the scores that need labels.
Labels from names or folders that are a camera's prefix, dates, a counter, or one value for nearly all photographs are
not taken, unless TRUST_LABELS is True.
Exit code 3: there is no label.

Reads:  raw_img/D/, data/D/labels.csv (yours)
Writes: data/D/labels_true.csv, data/D/labels_true.txt, data/D/labels_true.tsv, data/D/labels_true.npy,
        data/D/labels_true.json
Config: DATASET, LABEL_FROM, LABEL_PATTERN, TRUST_LABELS (without effect on the files: N_JOBS, REDO)
"""

import time
from pathlib import Path

import numpy as np

import config
from pipeline.dataset import images_of, name_problem
from pipeline.labels import doubt_labels, label_from_folder, label_from_name
from pipeline.machinery import files, paths, records, run
from pipeline.machinery.errors import UserError
from pipeline.machinery.tables import Names, find_name, read_table


class NoLabelsError(UserError):
    """No image of the data set has a label: `run_all.py` goes on without."""

    exit_code = 3


def find_table() -> Path:
    """Return the path of labels.csv; raises UserError where there is none, or one in each place."""
    places = [folder_of(config.DATASET) / "labels.csv" for folder_of in (paths.raw_img_dir, paths.data_dir)]
    found = [path for path in places if path.is_file()]
    first, second = map(paths.display_path, places)
    if not found:
        raise UserError(
            f"{first} not found, nor {second}: put a table with the columns image and label there (a spreadsheet saves "
            'it as CSV), or correct LABEL_FROM = "table"'
        )
    if len(found) > 1:
        raise UserError(f"there is {first} and {second}: remove one of them")
    return found[0]


def read_labels(names: list[str], path: Path) -> list[str]:
    """Return the label of each image by the table at `path`, "" for an image without one.

    A line about a photograph that is gone is left out with a warning. Raises UserError, naming the line, where lines
    contradict or a name is ambiguous.
    """
    known, label_of, gone = Names(names), dict[str, str](), list[str]()
    for row in read_table(path, ["image", "label"], known):
        image, label = find_name(known, row, "image", path), row.cells["label"]
        if image is None:
            gone.append(f"line {row.line} ({row.cells['image']})")
        elif label_of.setdefault(image, label) != label:
            raise UserError(
                f"{paths.display_path(path)}, line {row.line}: {image} has the label {label!r} here and "
                f"{label_of[image]!r} on an earlier line: correct one of them"
            )
    if gone:
        print(f"warning: {paths.display_path(path)}: {len(gone)} of its lines are about photographs that are not in "
              f"raw_img/, and left out: {', '.join(gone[:3])}{', ...' * bool(gone[3:])}")  # fmt: skip
    return [label_of.get(name, "") for name in names]


def make_labels(names: list[str], table_path: Path | None) -> list[str]:
    """Return the label of each image by LABEL_FROM; raises NoLabelsError where there is none, or none trusted."""
    folder = paths.display_path(paths.raw_img_dir(config.DATASET))
    remedy = 'set LABEL_FROM = "none" for photographs without labels'
    if table_path:
        labels = read_labels(names, table_path)
        if not any(labels):
            raise NoLabelsError(
                f"{paths.display_path(table_path)} names no image of {folder}/: correct it, or {remedy}"
            )
        return labels
    if config.LABEL_FROM == "folder":
        labels, source = [label_from_folder(name) for name in names], "is in a folder"
    else:
        labels = [label_from_name(name, config.LABEL_PATTERN) for name in names]
        source = f"matches LABEL_PATTERN = {config.LABEL_PATTERN!r}"
    if not any(labels):
        raise NoLabelsError(
            f"no image of {folder}/ {source}: correct LABEL_FROM and LABEL_PATTERN in config.py, or {remedy}"
        )
    if not config.TRUST_LABELS and (doubt := doubt_labels(labels)):
        remove_labels()
        raise NoLabelsError(
            f"the photographs of {folder}/ get no labels: {doubt}, which are hardly models; {remedy}, correct "
            "LABEL_FROM and LABEL_PATTERN, or take these all the same by TRUST_LABELS = True"
        )
    return labels


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
        print(f'{paths.display_path(raw_img_dir)}/: {len(found)} images without labels (LABEL_FROM = "none")')
        return

    record_path = paths.data_dir(config.DATASET) / "labels_true.json"
    inputs = {paths.display_path(raw_img_dir): records.fingerprint(found)}
    table_path = find_table() if config.LABEL_FROM == "table" else None
    if table_path:
        inputs[paths.display_path(table_path)] = records.fingerprint_file(table_path)
    origin = records.made_from(__file__, inputs)
    if records.up_to_date(record_path, origin):
        run.unchanged([record_path.with_suffix(".csv")])
        return

    names = [name for name in found if name_problem(name) is None]  # stage 01 lists the others in skipped.csv
    labels = make_labels(names, table_path)
    write_labels(names, labels, origin)
    print(f"{len(set(labels) - {''})} models; {labels.count('')} images without a label")
    seconds = time.perf_counter() - begin
    run.summary(len(found), len(names), len(found) - len(names), [record_path.with_suffix(".csv")], seconds)


if __name__ == "__main__":
    run.run(main, __doc__)
