"""Lay the cleaned photographs of known models into one folder per model, for stage 02 to train on.

    python make_training_image_folders.py
    python make_training_image_folders.py --TRAIN_DATASET=bags --MIN_IMAGES_PER_CLASS=5

The files are hard links, which take no space; copies where the file system has none. `training_images/T/<class>/` is
made anew to fit the labels: links of photographs that are gone or carry another label now are removed.
A model with fewer than MIN_IMAGES_PER_CLASS photographs is left out and named.

Reads:  img/T/, data/T/labels_true.csv
Writes: training_images/T/<class>/, data/T/training_images.json
Config: TRAIN_DATASET, MIN_IMAGES_PER_CLASS (without effect on the files: N_JOBS, REDO)
"""

import os
import re
import shutil
import time
from collections import Counter
from pathlib import Path

import config
from pipeline.dataset import images_of, list_images
from pipeline.machinery import files, paths, records, run
from pipeline.machinery.errors import UserError
from pipeline.machinery.paths import check_within_root, display_path, fit_name

RESERVED = re.compile(r"^(con|prn|aux|nul|com\d|lpt\d)(\.|$)", re.IGNORECASE)  # names that Windows keeps for devices


def safe(text: str) -> str:
    """Return `text` as a file or folder name for every system: characters that a system forbids become %XX.

    Different texts stay different, also where a system ignores trailing dots and blanks.

    >>> safe("bags/tote 1.jpg"), safe("a:b"), safe("nul")
    ('bags%2Ftote 1.jpg', 'a%3Ab', '%6Eul')
    """
    text = re.sub(r'[%/\\:*?"<>|\x00-\x1f]', lambda match: f"%{ord(match[0]):02X}", text)
    if text[:1] == "." or RESERVED.match(text):
        text = f"%{ord(text[0]):02X}{text[1:]}"  # hidden files are no images for `list_images`
    return f"{text[:-1]}%{ord(text[-1]):02X}" if text[-1:] in (".", " ") else text


def class_folders(labels: list[str]) -> dict[str, str]:
    """Folder name of each label; labels that differ only by case get different folders on every system.

    >>> class_folders(["Tote", "tote", "boot"])
    {'Tote': 'Tote', 'boot': 'boot', 'tote': 'tote~2'}
    """
    seen: Counter[str] = Counter()
    folders = {}
    for label in sorted(set(labels)):
        seen[label.casefold()] += 1
        count = seen[label.casefold()]
        folders[label] = safe(label) + (f"~{count}" if count > 1 else "")
    return folders


def placed(names: list[str], label_of: dict[str, str], min_images: int) -> tuple[dict[str, str], dict[str, int]]:
    """Where each labelled image goes.

    Returns
    -------
    place : path below training_images/T/ -> name of the image
    left_out : label with fewer than `min_images` images -> number of its images
    """
    known = [name for name in names if label_of.get(name)]
    counts = Counter(label_of[name] for name in known)
    left_out = {label: count for label, count in sorted(counts.items()) if count < min_images}
    folders = class_folders([label for label in counts if label not in left_out])
    folder_of = {label: fit_name(folder) for label, folder in folders.items()}
    place = {
        fit_name(f"{folder_of[label_of[name]]}/{safe(name)}"): name for name in known if label_of[name] in folder_of
    }
    return place, left_out


def link(source: Path, target: Path) -> None:
    """Make `target` a hard link to `source`, or a copy where the file system has no links. Whole or not at all."""
    if check_within_root(target).exists() and target.samefile(source):
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        with files.atomic_write(target) as temporary:
            shutil.copyfile(source, temporary)


def remove_others(folder: Path, keep: set[str]) -> int:
    """Remove files below `folder` whose relative path is not in `keep`, and folders left empty; returns how many."""
    removed = 0
    for directory, _, entries in os.walk(folder, topdown=False):
        for entry in entries:
            path = Path(directory, entry)
            if path.relative_to(folder).as_posix() not in keep:
                path.unlink()
                removed += 1
        if Path(directory) != folder and not any(Path(directory).iterdir()):
            Path(directory).rmdir()
    return removed


def main() -> None:
    begin = time.perf_counter()
    dataset = config.TRAIN_DATASET
    img_dir, folder = paths.img_dir(dataset), paths.training_images_dir(dataset)
    labels_path, record_path = (
        paths.data_dir(dataset) / "labels_true.csv",
        paths.data_dir(dataset) / "training_images.json",
    )
    rows = files.read_csv(labels_path, ["image", "label"], "00.make_labels_true.py")
    labels = {row["image"]: row["label"] for row in rows}
    del rows
    names = images_of(img_dir, f"run 01.img_preprocess.py --DATASET={dataset} first")
    place, left_out = placed(names, labels, config.MIN_IMAGES_PER_CLASS)
    for label, count in left_out.items():
        print(f"left out: model {label} has {count} image{'s' if count > 1 else ''}, fewer than MIN_IMAGES_PER_CLASS")
    if not place:
        raise UserError(
            f"no image of {display_path(img_dir)}/ belongs to a model with at least {config.MIN_IMAGES_PER_CLASS} "
            f"labelled images: check {display_path(labels_path)} and MIN_IMAGES_PER_CLASS"
        )
    inputs = {
        display_path(img_dir): records.fingerprint_folder(img_dir, names),
        display_path(labels_path): records.fingerprint_file(labels_path),
    }
    origin = records.made_from(__file__, inputs)
    if records.up_to_date(record_path, origin) and set(list_images(folder)) == set(place):
        run.unchanged([folder])
        return
    for path, name in place.items():
        link(img_dir / name, folder / path)
    removed = remove_others(folder, set(place))
    records.write_record(record_path, origin, (folder / path for path in place), images=place, left_out=left_out)
    n_classes = len({path.partition("/")[0] for path in place})
    print(f"{n_classes} models" + (f"; {removed} files of an earlier run removed" if removed else ""))
    run.summary(len(names), len(place), len(names) - len(place), [folder], time.perf_counter() - begin)


if __name__ == "__main__":
    run.run(main, __doc__)
