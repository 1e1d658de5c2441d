"""Show the clusters: pictures, the report, folders of photographs, files for other tools.

    python 06.visualization.py
    python 06.visualization.py --DATASET=bags --CLUSTER_FOLDERS=hardlink

`report.html` is one file that opens offline in any browser: the map, the clusters, the review list, the scores.
The pictures (PNG and SVG) are for papers and slides. With CLUSTER_FOLDERS the photographs of each cluster are put into
a folder of its own; files that this stage did not put there are never touched.

Reads:  data/D/clusters.csv, data/D/som.npz, data/D/clustering.json, data/D/features.npy, data/D/img_paths.txt,
        result/D/evaluation.json, raw_img/D/, img/D/, data/D/labels_true.csv, data/D/labels_true.json,
        data/D/preprocess.json, data/D/skipped.csv, data/D/features_skipped.csv, data/D/features.json,
        data/D/corrections.csv (yours), model/T/history.csv, model/T/feature_network.json
Writes: result/D/report.html, result/D/report.json, result/D/tsne.png, result/D/u_matrix.png, result/D/hit_map.png,
        result/D/photo_map.png, result/D/sizes.png, result/D/before_after.png, result/D/training_history.png,
        result/D/contact_sheets/ (an .svg beside each .png), result/D/clusters_spreadsheet.csv, result/D/projector/,
        result/D/clusters/<id>/ (where CLUSTER_FOLDERS)
Config: DATASET, RANDOM_SEED, TSNE_MAX_IMAGES, TSNE_PERPLEXITY, CONTACT_SHEET_IMAGES, CONTACT_SHEETS_MAX,
        REPORT_MAX_MB, REPORT_THUMBNAIL, CLUSTER_FOLDERS, CLUSTER_FOLDERS_FROM, SPREADSHEET_BOM, PROJECTOR
        (without effect on the files: TRAIN_DATASET, N_JOBS, REDO)
"""

import functools
import tempfile
import time
from collections.abc import Iterator
from importlib import metadata
from io import IOBase
from pathlib import Path

import numpy as np

import config
from pipeline import dataset
from pipeline.clustering.corrections import Answer, find_verdict
from pipeline.clustering.directions import Directions
from pipeline.machinery import files, paths, placing, records, run
from pipeline.machinery.errors import UserError
from pipeline.machinery.executor import ordered_map
from pipeline.machinery.tables import Names, find_name, read_table
from pipeline.report import handover, page, pictures
from pipeline.report.found import Found, project_on_main_axes
from pipeline.report.grid import Grid, build_grid, find_typical_images
from pipeline.report.plane import compute_tsne, draw_stratified_sample
from pipeline.report.text import find_fonts, find_undrawable
from pipeline.report.thumbnails import TILE, read_thumbnails

STAGE_04, STAGE_05, STAGE = "04.clustering_som.py", "05.evaluation.py", "06.visualization.py"
N_AXES = 128  # main axes of the features that the projector gets; the t-SNE takes the first 50
PACKAGES = ("numpy", "scipy", "scikit-learn", "opencv-python-headless", "pillow", "tensorflow", "keras", "minisom",
            "igraph", "matplotlib")  # fmt: skip
in_threads = functools.partial(ordered_map, threads=True)


# ---- reading ---------------------------------------------------------------------------------------


def read_som() -> dict[str, np.ndarray]:
    """Return the arrays of som.npz; raises UserError where the file is missing or damaged, or an array is missing."""
    names = ("weights", "topology", "u_matrix", "hits", "unit_cluster", "cut_granularity", "cut_clusters")
    return files.read_npz(paths.data_dir(config.DATASET) / "som.npz", STAGE_04, names)


def read_found(n_cols: int, handle: IOBase) -> Found:
    """Read clusters.csv (of a map with `n_cols` columns), features and labels; raises UserError where files disagree.

    handle : an open file, in which the directions are kept as a memory map
    """
    data_dir = paths.data_dir(config.DATASET)
    path = data_dir / "clusters.csv"
    columns = ("image", "cluster", "confidence", "unit_row", "unit_col", "distance", "runner_up", "outlier")
    rows = files.read_csv(path, columns, STAGE_04)
    features, img_paths = dataset.read_features(config.DATASET)
    records.check_in_step(path, data_dir / "clustering.json", [data_dir / "features.npy"], STAGE_04)
    if [row["image"] for row in rows] != img_paths:
        raise UserError(f"{paths.display_path(path)} has other images than features.npy: run {STAGE_04} again")
    labels = {}
    if (data_dir / "labels_true.csv").exists():
        label_rows = files.read_csv(data_dir / "labels_true.csv", ["image", "label"], "00.make_labels_true.py")
        labels = {row["image"]: row["label"] for row in label_rows}
    corrections = read_corrections(img_paths)
    try:
        return Found(
            names=img_paths,
            labels=[labels.get(name, "") for name in img_paths],
            cluster=np.array([int(row["cluster"]) for row in rows]),
            runner_up=np.array([int(row["runner_up"] or -1) for row in rows]),
            confidence=np.array([float(row["confidence"]) for row in rows]),
            distance=np.array([float(row["distance"]) for row in rows]),
            outlier=np.array([row["outlier"] == "1" for row in rows]),
            unit=np.array([int(row["unit_row"]) * n_cols + int(row["unit_col"]) for row in rows]),
            direction=Directions(features).kept(handle),
            answers=list_answers(corrections, img_paths),
            corrections=corrections,
        )
    except ValueError as error:
        raise UserError(f"{paths.display_path(path)}: {error}: run {STAGE_04} again") from None


def read_tiles(names: list[str], handle: IOBase) -> tuple[np.ndarray, list[int]]:
    """Read thumbnails of the photographs as they came, or of the cleaned ones where the original is gone.

    Returns uint8 RGB (n_images, TILE, TILE, 3) and the places in `names` of photographs that can't be read.
    """
    folders = [paths.raw_img_dir(config.DATASET), paths.img_dir(config.DATASET)]
    found = [next((folder / name for folder in folders if (folder / name).is_file()), None) for name in names]
    return read_thumbnails(found, TILE, handle, in_threads)


def read_corrections(img_paths: list[str]) -> list[list[str]]:
    """Return the lines of corrections.csv: two images, and "same", "different", or "" for neither."""
    path = paths.data_dir(config.DATASET) / "corrections.csv"
    if not path.exists():
        return []
    names = Names(img_paths)
    return [
        [find_name(names, row, column, path) or row.cells[column] for column in ("image_a", "image_b")]
        + [find_verdict(row.cells) or ""]
        for row in read_table(path, ["image_a", "image_b"], names)
    ]


def list_answers(corrections: list[list[str]], img_paths: list[str]) -> list[Answer]:
    """Return the answers in lines of corrections.csv about images that are among `img_paths`."""
    row_of = {name: row for row, name in enumerate(img_paths)}
    return [
        Answer(row_of[a], row_of[b], verdict == "same")
        for a, b, verdict in corrections
        if verdict and a in row_of and b in row_of
    ]


def read_skipped() -> list[dict[str, str]]:
    """Return every image that a stage left out: "image", "stage" and "reason"."""
    data_dir = paths.data_dir(config.DATASET)
    rows = []
    for name in ("skipped.csv", "features_skipped.csv"):
        if (data_dir / name).exists():
            rows += files.read_csv(data_dir / name, ["image", "stage", "reason"], "01.img_preprocess.py")
    return rows


# ---- how the result was made -----------------------------------------------------------------------


def describe_origin(names: list[str]) -> dict:
    """Return all that the pictures and the page of these images depend on, for their record."""
    data_dir = paths.data_dir(config.DATASET)
    inputs_of_data = ("clusters.csv", "som.npz", "clustering.json", "features.npy", "img_paths.txt", "labels_true.csv",
                      "skipped.csv", "features_skipped.csv", "corrections.csv")  # fmt: skip
    input_paths = [*(data_dir / name for name in inputs_of_data), paths.result_dir(config.DATASET) / "evaluation.json"]
    input_paths += [paths.model_dir(config.TRAIN_DATASET) / "history.csv"]
    input_paths += sorted(page.TEMPLATE_DIR.glob("report.*"))  # HTML, CSS and JavaScript are part of the stage
    inputs = {paths.display_path(path): records.fingerprint_file(path) for path in input_paths}
    for folder in (paths.raw_img_dir(config.DATASET), paths.img_dir(config.DATASET)):
        inputs[paths.display_path(folder)] = records.fingerprint_folder(folder, names)
    return records.made_from(__file__, inputs)


def describe_run(evaluation: dict, own: dict) -> dict:
    """Return how the result was made: seconds, settings, versions, weights, skipped images; own : settings of 06."""
    data_dir, model_dir = paths.data_dir(config.DATASET), paths.model_dir(config.TRAIN_DATASET)
    record_paths = [data_dir / "labels_true.json", data_dir / "preprocess.json", model_dir / "feature_network.json",
                    data_dir / "features.json", data_dir / "clustering.json",
                    paths.result_dir(config.DATASET) / "evaluation.json"]  # fmt: skip
    stages, used = [], dict(own)
    for path in record_paths:
        if record := records.read_record(path):
            stages.append({"stage": record["made_from"].get("stage"), "seconds": record.get("seconds")})
            used |= record["made_from"].get("settings") or {}
    features_record = records.recorded(data_dir / "features.npy", data_dir / "features.json") or {}
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return {
        "stages": stages,
        "settings": [{"name": name, "value": repr(value)} for name, value in used.items()],
        "initial_weights": evaluation.get("initial_weights"),
        "network": features_record.get("network"),
        "versions": versions,
        "skipped": read_skipped(),
    }


# ---- drawing and writing ---------------------------------------------------------------------------


def write_bytes(path: Path, content: bytes) -> Path:
    """Write a file whole or not at all; returns `path`."""
    with files.atomic_write(path) as temporary:
        temporary.write_bytes(content)
    return path


def write_picture(path: Path, picture: pictures.Picture) -> list[Path]:
    """Write a picture as `path`.png and `path`.svg; returns both paths."""
    return [write_bytes(path.with_name(path.name + suffix), content)
            for suffix, content in zip((".png", ".svg"), picture, strict=True)]  # fmt: skip


def write_pictures(
    found: Found, vectors: np.ndarray, grid: Grid, som_arrays: dict, typical: np.ndarray, tiles: np.ndarray
) -> tuple[list[Path], dict]:
    """Draw and write all pictures; returns their paths, and the t-SNE plane for the report.

    vectors : float32 (n_images, n_axes), the images on their main axes
    """
    folder, dataset = paths.result_dir(config.DATASET), config.DATASET
    sample = draw_stratified_sample(found.cluster, config.TSNE_MAX_IMAGES, config.RANDOM_SEED)
    plane = compute_tsne(vectors[sample], config.TSNE_PERPLEXITY, config.RANDOM_SEED)
    unit_cluster, hits = som_arrays["unit_cluster"].ravel(), som_arrays["hits"].ravel()
    u_matrix = som_arrays["u_matrix"].ravel().astype(float)

    def draw() -> Iterator[tuple[str, pictures.Picture | None]]:
        yield "tsne", pictures.draw_tsne(found, sample, plane, dataset)
        yield (
            "u_matrix",
            pictures.draw_units(
                grid, u_matrix, unit_cluster, f"U-matrix, {dataset}", "mean distance to the neighbouring units", False
            ),
        )
        yield (
            "hit_map",
            pictures.draw_units(
                grid, hits.astype(float), unit_cluster, f"Images of each unit, {dataset}", "images", True
            ),
        )
        yield "photo_map", pictures.draw_photo_map(grid, unit_cluster, hits, typical, tiles)
        yield "sizes", pictures.draw_sizes(found, dataset)
        yield (
            "before_after",
            pictures.draw_before_after(
                found.names,
                paths.raw_img_dir(dataset),
                paths.img_dir(dataset),
                f"{dataset}: as they came, and after stage 01",
            ),
        )
        history_path = paths.model_dir(config.TRAIN_DATASET) / "history.csv"
        if history_path.exists() and (rows := files.read_csv(history_path, [], "02.feature_network_fine_tuning.py")):
            yield "training_history", pictures.draw_history(rows)

    drawn = [path for name, picture in draw() if picture for path in write_picture(folder / name, picture)]
    drawn += write_contact_sheets(found, tiles, folder / "contact_sheets")
    return drawn, {"images": sample.tolist(), "xy": np.round(plane, 4).tolist()}


def write_contact_sheets(found: Found, tiles: np.ndarray, folder: Path) -> list[Path]:
    """Draw and write a sheet for each of the CONTACT_SHEETS_MAX largest clusters; returns their paths."""
    clusters, sizes = np.unique(found.cluster, return_counts=True)
    largest = clusters[np.argsort(-sizes, kind="stable")][: config.CONTACT_SHEETS_MAX]
    find_fonts(frozenset("".join(found.names)))  # looked for once, before the threads begin

    def write(cluster: int) -> list[Path]:
        sheet = pictures.draw_contact_sheet(found, tiles, cluster, config.CONTACT_SHEET_IMAGES)
        return write_picture(folder / str(cluster), sheet)

    return [path for pair in in_threads(write, largest.tolist()) for path in pair]


def write_handover(found: Found, vectors: np.ndarray, tiles: np.ndarray) -> list[Path]:
    """Write the spreadsheet and, where asked for, the projector's folder; returns their paths."""
    result_dir = paths.result_dir(config.DATASET)
    written = []
    if config.PROJECTOR:
        contents = handover.render_projector(found, vectors, tiles, config.DATASET)
        written = [write_bytes(result_dir / "projector" / name, content) for name, content in contents]
    encoding = "utf-8-sig" if config.SPREADSHEET_BOM else "utf-8"
    spreadsheet = handover.render_spreadsheet(found).encode(encoding)
    return [*written, write_bytes(result_dir / "clusters_spreadsheet.csv", spreadsheet)]


def write_cluster_folders(found: Found) -> tuple[int, int]:
    """Put each cluster's photographs into a folder, by CLUSTER_FOLDERS; "none" removes those put there before.

    Returns the number of photographs placed, and of files of other origin, which stay.
    """
    folder, dataset = paths.result_dir(config.DATASET) / "clusters", config.DATASET
    sources = {"raw_img": paths.raw_img_dir(dataset), "img": paths.img_dir(dataset)}
    n_left = placing.remove_placed(folder, list(sources.values()), STAGE)
    if config.CLUSTER_FOLDERS == "none":
        return 0, n_left
    source, names = sources[config.CLUSTER_FOLDERS_FROM], handover.name_in_folders(found)
    return placing.place_files(names, source, folder, config.CLUSTER_FOLDERS), n_left


def write_report(
    found: Found, grid: Grid, som_arrays: dict, typical: np.ndarray, tiles: np.ndarray, plane: dict, facts: dict
) -> Path:
    """Write report.html within REPORT_MAX_MB; returns its path."""
    key = records.fingerprint([found.names, found.cluster.tolist()])[:16]  # marks belong to one result
    data = {"dataset": config.DATASET, "key": key, **page.collect_data(found, som_arrays, grid, typical), "tsne": plane}
    path = paths.result_dir(config.DATASET) / "report.html"
    pieces = page.render_report(
        found, data, facts, tiles, typical, config.REPORT_MAX_MB * 1e6, config.REPORT_THUMBNAIL, in_threads
    )
    with files.atomic_write(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as handle:
        handle.writelines(pieces)
    return path


def warn_of_fonts(found: Found) -> None:
    """Print the characters of file names and labels that the pictures can't show."""
    if lost := find_undrawable([*found.names, *found.labels]):
        some = "".join(sorted(lost))[:20]
        print(f"warning: no installed font has {some}: boxes in the pictures, though not in report.html "
              "(Debian and Ubuntu: apt install fonts-nanum)")  # fmt: skip


def main() -> None:
    begin = time.perf_counter()
    result_dir, data_dir = paths.result_dir(config.DATASET), paths.data_dir(config.DATASET)
    evaluation_path, record_path = result_dir / "evaluation.json", result_dir / "report.json"
    clustering = files.read_json(data_dir / "clustering.json", STAGE_04)
    evaluation = files.read_json(evaluation_path, STAGE_05)
    scored = [data_dir / "clusters.csv", data_dir / "labels_true.csv"]
    records.check_in_step(evaluation_path, evaluation_path, scored, STAGE_05)
    som_arrays = read_som()
    # files without a name, gone whatever happens: what is as large as the data set is mapped, not held in memory
    with tempfile.TemporaryFile(dir=result_dir) as directions, tempfile.TemporaryFile(dir=result_dir) as thumbnails:
        found = read_found(som_arrays["u_matrix"].shape[1], directions)
        origin = describe_origin(found.names)
        if records.up_to_date(record_path, origin):
            run.unchanged([result_dir / "report.html"])
            return

        warn_of_fonts(found)
        grid = build_grid(som_arrays.pop("weights"), str(som_arrays["topology"]))
        typical = find_typical_images(found, grid.rows * grid.cols)
        vectors = project_on_main_axes(found.direction, N_AXES)
        tiles, unreadable = read_tiles(found.names, thumbnails)
        # the projector's large picture comes before all others: Matplotlib keeps memory once it has drawn
        outputs = write_handover(found, vectors, tiles)
        drawn, plane = write_pictures(found, vectors, grid, som_arrays, typical, tiles)
        outputs += drawn
        n_placed, n_kept = write_cluster_folders(found)
        with records.as_written(evaluation_path, STAGE_05):
            facts = page.collect_facts(found, config.DATASET, clustering, evaluation, unreadable)
            facts["run"] = describe_run(evaluation, origin["settings"])
            outputs.append(write_report(found, grid, som_arrays, typical, tiles, plane, facts))
        n_images = len(found.names)
        del tiles, found  # Windows can't remove a file that is still mapped
    seconds = time.perf_counter() - begin
    records.write_record(record_path, origin, outputs, n_images=n_images, seconds=round(seconds, 2))
    if n_placed or n_kept:
        folder = paths.display_path(result_dir / "clusters")
        print(f"{folder}/: {n_placed} photographs placed, {n_kept} files left as they were")
    run.summary(n_images, n_images - len(unreadable), len(unreadable), [outputs[-1]], seconds)


if __name__ == "__main__":
    run.run(main, __doc__)
