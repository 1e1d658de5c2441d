"""Hand-over to other tools: a spreadsheet, folders of photographs, the TensorFlow projector."""

import csv
import errno
import filecmp
import json
import os
import shutil
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

import config
from pipeline import files
from pipeline.report.found import Found
from pipeline.settings import UserError

SPRITE_PIXELS = 4096  # side of the projector's sprite at most; it could do with 8,192, of which weak machines fail


def spreadsheet_cell(text: str) -> str:
    """`text` such that no spreadsheet takes it for a formula.

    >>> spreadsheet_cell("=1+1.jpg")
    "'=1+1.jpg"
    """
    return "'" + text if text[:1] in ("=", "+", "-", "@", "\t", "\r", "＝", "＋", "－", "＠") else text


def write_spreadsheet(found: Found, path: Path) -> Path:
    """clusters.csv for people: by cluster, with the true label, safe to open in a spreadsheet. Returns `path`."""
    with files.whole(path) as temporary:
        encoding = "utf-8-sig" if config.SPREADSHEET_BOM else "utf-8"
        with temporary.open("w", encoding=encoding, newline="") as handle:
            writer = csv.writer(handle)
            writer.writerow(["cluster", "image", "label", "confidence", "runner_up", "outlier", "medoid"])
            for i in found.order:
                cluster = int(found.cluster[i])
                runner_up = "" if found.runner_up[i] < 0 else int(found.runner_up[i])
                cells = [spreadsheet_cell(found.names[i]), spreadsheet_cell(found.labels[i])]
                confidence, flags = (
                    f"{found.confidence[i]:.4f}",
                    [int(found.outlier[i]), int(found.medoid[cluster] == i)],
                )
                writer.writerow([cluster, *cells, confidence, runner_up, *flags])
    return path


def write_projector(found: Found, vectors: np.ndarray, tiles: np.ndarray, folder: Path) -> list[Path]:
    """The folder that the TensorFlow projector loads: vectors, metadata, sprite and configuration.

    vectors : float32 (n_images, n_axes), the images on their main axes, which the projector would look for anyway:
    text of 10,000 x 2,048 numbers is more than a browser takes. The sprite is square.
    """
    paths = [
        folder / name
        for name in ("tensors.tsv", "metadata.tsv", "sprite.jpg", "projector_config.json", "projector_config.pbtxt")
    ]
    with files.whole(paths[0]) as temporary:
        np.savetxt(temporary, vectors, fmt="%.5g", delimiter="\t")
    clean = [" ".join(name.split()) for name in found.names]
    rows = [
        f"{name}\t{c}\t{confidence:.4f}\t{' '.join(label.split())}"
        for name, c, confidence, label in zip(clean, found.cluster, found.confidence, found.labels, strict=True)
    ]
    files.write_lines(paths[1], ["image\tcluster\tconfidence\tlabel", *rows])
    n_side = int(np.ceil(np.sqrt(len(tiles))))
    side = int(min(64, SPRITE_PIXELS // n_side))
    sprite = Image.new("RGB", (n_side * side, n_side * side), "white")
    for i in range(len(tiles)):
        small = Image.fromarray(tiles[i]).resize((side, side), Image.Resampling.BILINEAR, reducing_gap=2)
        sprite.paste(small, (i % n_side * side, i // n_side * side))
    with files.whole(paths[2]) as temporary:
        sprite.save(temporary, "JPEG", quality=80)
    files.write_json(paths[3], {"embeddings": [{
        "tensorName": config.DATASET, "tensorShape": list(vectors.shape), "tensorPath": "tensors.tsv",
        "metadataPath": "metadata.tsv", "sprite": {"imagePath": "sprite.jpg", "singleImageDim": [side, side]},
    }]})  # fmt: skip
    name = json.dumps(config.DATASET, ensure_ascii=False)
    files.write_lines(paths[4], [
        "embeddings {", f"  tensor_name: {name}", '  tensor_path: "tensors.tsv"', '  metadata_path: "metadata.tsv"',
        '  sprite { image_path: "sprite.jpg"', f"    single_image_dim: {side} single_image_dim: {side} }}", "}",
    ])  # fmt: skip
    return paths


def write_cluster_folders(found: Found, folder: Path) -> tuple[int, int]:
    """Put each cluster's photographs into `folder/<id>/`, by CLUSTER_FOLDERS; "none" removes what was put there.

    What this stage put there before (`.placed.json`) is removed first, as clusters change. A file that someone changed
    or put there stays as it is, and a photograph of the same name gets a number behind its name.
    Returns how many photographs were placed and how many files of others were left.
    """
    manifest = folder / ".placed.json"
    n_left = remove_placed(folder, manifest)
    if config.CLUSTER_FOLDERS == "none":
        return 0, n_left
    source = (files.raw_img_dir if config.CLUSTER_FOLDERS_FROM == "raw_img" else files.img_dir)(config.DATASET)
    plan: dict[str, str] = {}
    for i in found.order:
        if (source / found.names[i]).is_file():
            target = f"{found.cluster[i]}/{found.names[i].replace('/', '__')}"
            plan[free_name(folder, target, plan)] = found.names[i]
    # written before the first file: a run that is killed leaves nothing that the next one does not know as its own
    files.write_json(manifest, {"from": files.shown(source), "placed": plan})
    for target, name in tqdm(plan.items(), desc="folders", unit="image", disable=None):
        files.inside(folder / target).parent.mkdir(parents=True, exist_ok=True)
        place(source / name, folder / target, config.CLUSTER_FOLDERS)
    return len(plan), n_left


def free_name(folder: Path, name: str, taken: dict[str, str]) -> str:
    """`name`, or with " (2)", " (3)", ... behind its stem where a file of that name is there or planned."""
    stem, suffix = os.path.splitext(name)  # noqa: PTH122 (a name with "/", not a path of this system)
    number, candidate = 1, name
    while candidate in taken or os.path.lexists(folder / candidate):
        number += 1
        candidate = f"{stem} ({number}){suffix}"
    return candidate


def place(origin: Path, target: Path, how: str) -> None:
    """Make `target` a hard link ("hardlink"), symbolic link ("symlink") or copy ("copy") of `origin`.

    Where the file system has no such links, a copy. Raises FileExistsError rather than overwriting `target`.
    """
    try:
        if how == "hardlink":
            os.link(origin.resolve(), target)
            return
        if how == "symlink":
            target.symlink_to(os.path.relpath(origin, target.parent))
            return
    except FileExistsError:
        raise
    except OSError:  # another file system, or one without links
        pass
    if os.path.lexists(target):
        raise FileExistsError(errno.EEXIST, "exists already", str(target))
    with files.whole(target) as temporary:
        shutil.copyfile(origin, temporary)


def is_placed(target: Path, origin: Path) -> bool:
    """Whether `target` is still what `place` made of `origin`: a link to it, or a copy of it."""
    if target.is_symlink():
        return os.readlink(target) == os.path.relpath(origin, target.parent)  # noqa: PTH115 (as it was written)
    if not target.is_file() or not origin.is_file():
        return False
    return target.samefile(origin) or filecmp.cmp(target, origin, shallow=False)


def placed_before(folder: Path, manifest: Path) -> dict[Path, Path]:
    """What the manifest lists: path in a cluster folder -> photograph. Raises UserError where it is damaged."""
    if not manifest.exists():
        return {}
    sources = {files.shown(source(config.DATASET)): source for source in (files.raw_img_dir, files.img_dir)}
    try:
        record = json.loads(manifest.read_text(encoding="utf-8"))
        source = sources[record["from"]](config.DATASET)
        found = {folder / target: source / name for target, name in record["placed"].items()}
        # a manifest from elsewhere must not make this stage remove files in other folders
        good = all(".." not in [*t.parts, *o.parts] and t.parent.parent == folder for t, o in found.items())
    except (OSError, ValueError, RecursionError, LookupError, TypeError, AttributeError):
        good = False
    if not good:
        raise UserError(
            f"{files.shown(manifest)} is damaged, so it is not known which photographs in {files.shown(folder)}/ are "
            "copies: remove that folder and run 06.visualization.py again"
        )
    return found


def remove_placed(folder: Path, manifest: Path) -> int:
    """Remove the files that the manifest lists and that are still as they were placed, and folders left empty.

    Returns the number of other files in the cluster folders.
    """
    for target, origin in placed_before(folder, manifest).items():
        if is_placed(files.inside(target), origin):
            target.unlink()
    files.inside(manifest).unlink(missing_ok=True)
    n_left = 0
    for inner in sorted(folder.glob("*")) if folder.is_dir() else ():
        if inner.is_dir() and not inner.is_symlink():
            files.remove_temporaries(inner)
            n_left += sum(1 for _ in inner.iterdir())
            if not any(inner.iterdir()):
                inner.rmdir()
    return n_left
