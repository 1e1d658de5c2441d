"""Hand-over to other tools: a spreadsheet, folders of photographs, the TensorFlow projector."""

import csv
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


def write_projector(found: Found, tiles: np.ndarray, folder: Path, n_dimensions: int = 128) -> list[Path]:
    """The folder that the TensorFlow projector loads: vectors, metadata, sprite and configuration.

    Vectors are turned onto their `n_dimensions` main axes where they are longer, which the projector would do anyway:
    text of 10,000 x 2,048 numbers is more than a browser takes. The sprite is square and at most 8,192 pixels wide,
    the projector's limits.
    """
    from sklearn.decomposition import PCA

    vectors = found.direction
    if min(vectors.shape) > n_dimensions:
        pca = PCA(n_dimensions, svd_solver="randomized", random_state=config.RANDOM_SEED)
        vectors = pca.fit_transform(vectors)
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
    side = int(min(64, 8192 // n_side))
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

    What this stage put there before (`.placed.json`) is removed first, as clusters change; a file that was changed
    since, or that someone else put there, stays, and a photograph of the same name gets a number behind its name.
    Returns how many photographs were placed and how many files were left alone.
    """
    manifest = folder / ".placed.json"
    n_left = remove_placed(folder, manifest)
    if config.CLUSTER_FOLDERS == "none":
        return 0, n_left
    source = (files.raw_img_dir if config.CLUSTER_FOLDERS_FROM == "raw_img" else files.img_dir)(config.DATASET)
    placed: dict[str, list] = {}
    try:
        for i in tqdm(found.order, desc="folders", unit="image", disable=None):
            origin = source / found.names[i]
            if not origin.is_file():
                continue
            target = free_path(folder / str(found.cluster[i]) / found.names[i].replace("/", "__"))
            target.parent.mkdir(parents=True, exist_ok=True)
            place(origin, target, config.CLUSTER_FOLDERS)
            placed[target.relative_to(folder).as_posix()] = identity(target)
    finally:
        if placed:
            files.write_json(manifest, placed)
    return len(placed), n_left


def place(origin: Path, target: Path, how: str) -> None:
    """Make `target` (which does not exist) a hard link, symbolic link or copy of `origin`; a copy where it can't be."""
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
    with origin.open("rb") as source, target.open("xb") as copy:
        shutil.copyfileobj(source, copy)


def free_path(path: Path) -> Path:
    """`path`, or with " (2)", " (3)", ... behind its stem where something of that name is there."""
    number, candidate = 1, path
    while os.path.lexists(candidate):
        number += 1
        candidate = path.with_name(f"{path.stem} ({number}){path.suffix}")
    return candidate


def identity(path: Path) -> list:
    """What tells whether the file at `path` is still the one that was placed: link target, or size and time."""
    if path.is_symlink():
        return ["link", os.readlink(path)]  # noqa: PTH115 (as text, unresolved)
    status = path.stat()
    return [status.st_size, status.st_mtime_ns]


def remove_placed(folder: Path, manifest: Path) -> int:
    """Remove the files that the manifest lists and that are still as they were, and folders left empty.

    Returns the number of files in the cluster folders that were left alone.
    """
    record = json.loads(manifest.read_text(encoding="utf-8")) if manifest.exists() else {}
    for name, was in record.items():
        path = folder / name
        if os.path.lexists(path) and identity(path) == was:
            path.unlink()
    manifest.unlink(missing_ok=True)
    kept = 0
    for inner in sorted(folder.glob("*")) if folder.is_dir() else ():
        if inner.is_dir() and not inner.is_symlink():
            kept += sum(1 for _ in inner.iterdir())
            if not any(inner.iterdir()):
                inner.rmdir()
    return kept
