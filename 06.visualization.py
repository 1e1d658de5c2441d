"""Show what was found: pictures, the report, folders of photographs, files for other tools.

    python 06.visualization.py
    python 06.visualization.py --DATASET=bags --CLUSTER_FOLDERS=hardlink

`report.html` is one file that opens offline in any browser: the map, the clusters, what to look at, the scores.
The pictures (PNG and SVG) are for papers and slides. With CLUSTER_FOLDERS the photographs of each cluster are put into
a folder of its own; a file there that this stage did not put there is never touched.

Reads:  data/D/clusters.csv, data/D/som.npz, data/D/clustering.json, data/D/features.npy, data/D/img_paths.txt,
        result/D/evaluation.json, raw_img/D/, img/D/, data/D/labels_true.csv, data/D/labels_true.json,
        data/D/preprocess.json, data/D/skipped.csv, data/D/features_skipped.csv, data/D/features.json,
        data/D/corrections.csv (yours), model/T/history.csv, model/T/feature_network.json
Writes: result/D/report.html, result/D/report.json, result/D/tsne.png, result/D/u_matrix.png, result/D/hit_map.png,
        result/D/photo_map.png, result/D/sizes.png, result/D/before_after.png, result/D/training_history.png,
        result/D/contact_sheets/ (an .svg beside each .png), result/D/clusters_spreadsheet.csv, result/D/projector/,
        result/D/clusters/<id>/ (where CLUSTER_FOLDERS)
Config: DATASET, TRAIN_DATASET, RANDOM_SEED, N_JOBS, REDO, TSNE_MAX_IMAGES, TSNE_PERPLEXITY, CONTACT_SHEET_IMAGES,
        CONTACT_SHEETS_MAX, REPORT_MAX_MB, REPORT_THUMBNAIL, CLUSTER_FOLDERS, CLUSTER_FOLDERS_FROM, SPREADSHEET_BOM,
        PROJECTOR
"""

import tempfile
import time

import config
from pipeline import files, settings
from pipeline.report import handover, page, pictures
from pipeline.report.found import STAGE_04, Found, grid_of, on_main_axes, read_found, read_som, typical_of_units

STAGE_05 = "05.evaluation.py"
N_AXES = 128  # main axes of the features that the projector gets; the t-SNE takes the first 50


def origin_of(found: Found) -> dict:
    """What the pictures and the page depend on, for their record."""
    data_dir = files.data_dir(config.DATASET)
    names = ("clusters.csv", "som.npz", "clustering.json", "features.npy", "img_paths.txt", "labels_true.csv",
             "skipped.csv", "features_skipped.csv", "corrections.csv")  # fmt: skip
    input_paths = [*(data_dir / name for name in names), files.result_dir(config.DATASET) / "evaluation.json"]
    input_paths += [files.model_dir(config.TRAIN_DATASET) / "history.csv", page.DEFAULTS_PATH]
    input_paths += sorted(page.TEMPLATE_DIR.glob("report.*"))  # HTML, CSS and JavaScript are part of the stage
    inputs = {files.shown(path): files.fingerprint_file(path) for path in input_paths}
    for folder in (files.raw_img_dir(config.DATASET), files.img_dir(config.DATASET)):
        inputs[files.shown(folder)] = files.fingerprint_folder(folder, found.names)
    return files.made_from(__file__, inputs, [
        "DATASET", "RANDOM_SEED", "TSNE_MAX_IMAGES", "TSNE_PERPLEXITY", "CONTACT_SHEET_IMAGES", "CONTACT_SHEETS_MAX",
        "REPORT_MAX_MB", "REPORT_THUMBNAIL", "CLUSTER_FOLDERS", "CLUSTER_FOLDERS_FROM", "SPREADSHEET_BOM", "PROJECTOR",
    ])  # fmt: skip


def warn_of_fonts(found: Found) -> None:
    """Say which characters of the file names the pictures can't show."""
    if lost := pictures.undrawable([*found.names, *found.labels]):
        some = "".join(sorted(lost))[:20]
        print(f"warning: no installed font has {some}: boxes in the pictures, though not in report.html "
              "(Debian and Ubuntu: apt install fonts-nanum)")  # fmt: skip


def main() -> None:
    begin = time.perf_counter()
    result_dir, data_dir = files.result_dir(config.DATASET), files.data_dir(config.DATASET)
    evaluation_path, record_path = result_dir / "evaluation.json", result_dir / "report.json"
    clustering = files.read_json(data_dir / "clustering.json", STAGE_04)
    evaluation = files.read_json(evaluation_path, STAGE_05)
    scored = [data_dir / "clusters.csv", data_dir / "labels_true.csv"]
    files.check_in_step(evaluation_path, evaluation_path, scored, STAGE_05)
    som = read_som()
    # files without a name, gone whatever happens: what is as large as the data set is mapped, not held in memory
    with tempfile.TemporaryFile(dir=result_dir) as directions, tempfile.TemporaryFile(dir=result_dir) as thumbnails:
        found = read_found(som["u_matrix"].shape[1], directions)
        origin = origin_of(found)
        if files.up_to_date(record_path, origin):
            files.unchanged([result_dir / "report.html"])
            return

        warn_of_fonts(found)
        grid = grid_of(som.pop("weights"), str(som["topology"]))
        typical = typical_of_units(found, grid.rows * grid.cols)
        vectors = on_main_axes(found.direction, N_AXES)
        tiles, unreadable = pictures.read_thumbnails(found.names, pictures.TILE, thumbnails)
        # its large picture comes before all others: Matplotlib keeps memory once it has drawn
        outputs = handover.write_projector(found, vectors, tiles, result_dir / "projector") if config.PROJECTOR else []
        drawn, plane = pictures.draw_pictures(found, vectors, grid, som, typical, tiles)
        outputs += [*drawn, handover.write_spreadsheet(found, result_dir / "clusters_spreadsheet.csv")]
        n_placed, n_kept = handover.write_cluster_folders(found, result_dir / "clusters")
        with files.as_written(evaluation_path, STAGE_05):
            facts = page.facts_of(found, clustering, evaluation, unreadable, origin["settings"])
            outputs.append(page.write_page(found, grid, som, typical, tiles, plane, facts))
        n_images = len(found.names)
        del tiles, found  # Windows can't remove a file that is still mapped
    seconds = time.perf_counter() - begin
    files.write_record(record_path, origin, outputs, n_images=n_images, seconds=round(seconds, 2))
    if n_placed or n_kept:
        print(
            f"{files.shown(result_dir / 'clusters')}/: {n_placed} photographs placed, {n_kept} files left as they were"
        )
    files.summary(n_images, n_images - len(unreadable), len(unreadable), [outputs[-1]], seconds)


if __name__ == "__main__":
    settings.run(main, __doc__)
