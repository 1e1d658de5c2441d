"""Read the files that stage 04 keeps between its runs: the training, earlier runs, and a person's corrections."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from pipeline.clustering.assignment import Calibration, EarlierImages, calibrate, nearest_others
from pipeline.clustering.corrections import Answer, find_verdict, same_groups
from pipeline.clustering.directions import Compared, Directions
from pipeline.clustering.neighbours import Index
from pipeline.dataset import read_features
from pipeline.machinery import files, paths, records
from pipeline.machinery.errors import UserError
from pipeline.machinery.paths import display_path
from pipeline.machinery.tables import Names, find_name, read_table
from pipeline.memory import MappedRows

SAMPLED = 500  # images of an earlier run that show how alike those of different clusters are: 4 MB of 2,048 features


class Training(NamedTuple):
    """All that a cut needs, as kept in som_training.npz: n images, of which m differ from one another."""

    weights: np.ndarray  # (rows, cols, n_features) float32, directions around `centre`
    centre: np.ndarray  # (n_features,) float32
    units: np.ndarray  # (n, 2) int32, nearest and second nearest unit
    distances: np.ndarray  # (n, 2) float32, to these units
    first_of: np.ndarray  # (n,) int32, which of the m different images each is
    neighbours: np.ndarray  # (m, k) int32, nearest first
    similarity: np.ndarray  # (m, k) float32, cosine of the whitened directions
    likeness: np.ndarray  # (m,) float32, cosine of the directions to the nearest image
    partitions: np.ndarray  # (n_partitions, m) int32, number of clusters ascending
    predicted: np.ndarray  # () int64, the partition that holds best
    interval: np.ndarray  # (2,) int64, least and largest number of clusters that could be right too
    cuts: np.ndarray  # (len(GRANULARITIES), m) int32
    links: np.ndarray  # (2,) float64, nearest images that an image was linked with, and their least similarity
    n_known_models: np.ndarray  # () int64, models whose photographs served as landmarks
    matrix: np.ndarray  # (n_features, n_features) float32, that shortens directions; of no row where none did
    space_centre: np.ndarray  # (n_features,) float32, the centre of shortened directions
    scale: np.ndarray  # (m, 2) float32, of shortened directions, see `Shortened`; of no row where there is no matrix
    list_centres: np.ndarray  # (n_lists, n_features) float32; with the next two, the inverted file of the m images
    list_images: np.ndarray  # (m,) int32
    list_starts: np.ndarray  # (n_lists + 1,) int64
    known: np.ndarray  # (n_known,) int64, clusters of earlier images, which `neighbours` names from m on


class EarlierRun(NamedTuple):
    """The photographs of an earlier run of stage 04."""

    dataset: str
    features: MappedRows  # (n, n_features)
    cluster: np.ndarray  # (n,) int64, ids
    training: Training

    @property
    def rows(self) -> np.ndarray:
        """Return the rows of `features` that differ from one another, (m,)."""
        return np.unique(self.training.first_of, return_index=True)[1]


def earlier_images(run: EarlierRun, first: Training) -> EarlierImages:
    """Return the images of `run`, compared as in the `first` run, to whose clusters they were assigned."""
    rows, own = run.rows, run.training
    data = Directions(run.features, first.centre, rows)
    space = Compared(data, first.matrix, own.scale, first.space_centre) if len(first.matrix) else data
    return EarlierImages(space, Index(own.list_centres, own.list_images, own.list_starts), run.cluster[rows])


def calibration_of(first: EarlierRun) -> Calibration:
    """Return how strong images are linked with images of their own and of other clusters in the `first` run."""
    training, rows = first.training, first.rows
    some = rows[:: -(-len(rows) // SAMPLED)]
    sample = Directions(first.features, training.centre, some)[:]
    if len(training.matrix):
        sample = Directions(sample @ training.matrix, training.space_centre)[:]
    others = nearest_others(sample, first.cluster[some])
    links = int(training.links[0]), float(training.links[1])
    return calibrate(first.cluster[rows], training.neighbours, training.similarity, others, *links)


def chain_of(dataset: str | None) -> list[str]:
    """Return the data sets behind an assignment to `dataset`: `dataset`, the one that it was assigned to, and so on."""
    chain: list[str] = []
    while dataset and dataset not in chain:
        chain.append(dataset)
        dataset = (records.read_record(paths.data_dir(dataset) / "clustering.json") or {}).get("assigned_to")
    return chain


def chain_paths(dataset: str | None) -> list[Path]:
    """Return the files that an assignment to `dataset` is made from."""
    names = ("clusters.csv", "features.npy", "som_training.npz")
    return [paths.data_dir(one) / name for one in chain_of(dataset) for name in names]


def read_earlier_runs(dataset: str, n_features: int, current: str, prints: dict[str, str]) -> list[EarlierRun]:
    """Return the runs that an assignment of the data set `current` to `dataset` rests on, the first clustering last.

    prints : fingerprints of files of `chain_paths`, by the names that `display_path` gives
    """
    chain = chain_of(dataset)
    if current in chain:
        raise UserError(
            f"ASSIGN_TO = {dataset!r} was itself assigned to {current}: name the data set of another earlier run"
        )
    return [read_earlier_run(one, n_features, current, prints) for one in chain]


def read_earlier_run(earlier: str, n_features: int, current: str, prints: dict[str, str]) -> EarlierRun:
    """Return an earlier run, for the images of the data set `current`; parameters as above.

    Raises UserError where something is missing, out of step, or made with another network.
    """
    folder, stage = paths.data_dir(earlier), f"04.clustering_som.py --DATASET={earlier}"
    features, img_paths = read_features(earlier)
    path = folder / "clusters.csv"
    rows = files.read_csv(path, ["image", "cluster"], stage)
    made_from = [folder / "features.npy", folder / "img_paths.txt"]
    records.check_in_step(path, folder / "clustering.json", made_from, f"{stage} again", prints)
    if [row["image"] for row in rows] != img_paths:
        raise UserError(f"{display_path(path)} names other images than img_paths.txt: run {stage} again")
    if not all(row["cluster"].isdecimal() for row in rows):
        raise UserError(f"{display_path(path)} has a cluster that is no number: run {stage} again")
    if features.shape[1] != n_features:
        raise UserError(
            f"the images of {current} have {n_features} features, those of ASSIGN_TO = {earlier!r} have "
            f"{features.shape[1]}: extract both with the same network"
        )
    training = Training(**files.read_npz(folder / "som_training.npz", stage, Training._fields))
    if len(training.first_of) != len(features) or training.centre.shape != (n_features,):
        raise UserError(f"{display_path(folder)}/som_training.npz is of other images: run {stage} --REDO=True")
    return EarlierRun(earlier, MappedRows(features), np.array([int(row["cluster"]) for row in rows]), training)


def read_corrections(dataset: str, img_paths: list[str]) -> list[Answer]:
    """Return the answers in data/D/corrections.csv about pairs of images (rows of img_paths), line by line.

    A line about a photograph that is gone is left out with a warning. Raises UserError naming the line where a name is
    ambiguous, the verdict is neither, or lines contradict.
    """
    path = paths.data_dir(dataset) / "corrections.csv"
    if not path.exists():
        return []
    row_of, names = {name: row for row, name in enumerate(img_paths)}, Names(img_paths)
    answers: list[Answer] = []
    gone: list[str] = []
    for row in read_table(path, ["image_a", "image_b"], names):
        a, b = (find_name(names, row, column, path) for column in ("image_a", "image_b"))
        where = f"{display_path(path)}, line {row.line}"
        verdict = find_verdict(row.cells)
        if verdict is None:
            shown = ", ".join(repr(value) for name, value in row.cells.items() if name not in ("image_a", "image_b"))
            raise UserError(f"{where}: {shown or 'no verdict'} must be same or different")
        if a is None or b is None:
            gone.append(f"line {row.line} ({row.cells['image_b' if a else 'image_a']})")
        elif a == b and verdict == "different":
            raise UserError(f"{where}: {a} is called different from itself: correct one of the two names")
        elif a != b:
            answers.append(Answer(row_of[a], row_of[b], verdict == "same"))
    if gone:
        print(f"warning: {display_path(path)}: {len(gone)} of its lines are about photographs that are not among the "
              f"images of {dataset}, and left out: {', '.join(gone[:3])}{', ...' * bool(gone[3:])}")  # fmt: skip
    group = same_groups(len(img_paths), answers)
    for row_a, row_b, same in answers:
        if not same and group[row_a] == group[row_b]:
            raise UserError(
                f"{display_path(path)} calls {img_paths[row_a]} and {img_paths[row_b]} different, but other lines make "
                "them the same: remove one of these lines"
            )
    return answers
