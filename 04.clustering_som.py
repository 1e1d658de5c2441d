"""Group the images into clusters with a Self-Organizing Map; the number of clusters is predicted.

    python 04.clustering_som.py
    python 04.clustering_som.py --CLUSTER_GRANULARITY=1.3
    python 04.clustering_som.py --DATASET=tomorrow --ASSIGN_TO=today

1. A map with one unit per few images is trained on all features, without dimension reduction (`som.py` in
   `pipeline/clustering/`). The map is the picture of the data set, and the index in which neighbours are looked for.
2. Photographs of known models that stage 02 held out (known_features.npz) join the new ones as landmarks. They show
   in what photographs of one model differ: features are shortened along it. Without them, the clusters of a first
   grouping show it. clustering.json says which of the two it was.
3. Each image is linked with its nearest ones. Leiden's algorithm finds communities in the graph of links, for several
   numbers of neighbours and several least similarities of a link (`communities.py`).
4. The partition is taken whose clusters stand apart (silhouette) and stay the same when the graph changes a little
   (stability). That predicts the number of clusters (`selection.py`).
5. Odd photographs, which are like no other of their model, join the cluster that they are linked with
   (`fragments.py`).

Features are compared by direction: they may come normalised or not (`directions.py`). N_CLUSTERS and
CLUSTER_GRANULARITY cut finer or coarser from what 1 to 3 stored in som_training.npz, without training again.
A file data/D/corrections.csv with the columns image_a, image_b and a third, "same" or "different", is honoured.
ASSIGN_TO names the data set of an earlier run, clustered or itself assigned to an earlier one. Its map, links and
calibration are used: images that belong to one of its clusters get that cluster's id, the others are grouped under new
ids (`assignment.py`). ids of earlier runs never change. The stage says when it is time to cluster anew.
CLUSTER_METHOD = "units" makes each unit that images hit one cluster, as the entry of 2019 did, to compare with.

Reads:  data/D/features.npy, data/D/img_paths.txt, data/D/corrections.csv (yours),
        model/T/known_features.npz (of stage 02, or yours), data/D/known_features.npz (of stage 03)
Writes: data/D/clusters.csv, data/D/labels_pred.txt, data/D/labels_pred.tsv, data/D/labels_pred.npy,
        data/D/som.npz, data/D/clustering.json, data/D/som_training.npz, data/D/som_training.json
Config: DATASET, RANDOM_SEED, CLUSTER_METHOD, SOM_ROWS, SOM_COLS, SOM_IMAGES_PER_UNIT, SOM_MAX_UNITS, SOM_TOPOLOGY,
        SOM_INITIALISATION, SOM_EPOCHS, N_CLUSTERS, CLUSTER_GRANULARITY, OUTLIERS, ASSIGN_TO
        (without effect on the files: TRAIN_DATASET, N_JOBS, SCHEDULER, SCHEDULER_TLS, REDO)
"""

import contextlib
import io
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator

import numpy as np

import config
from pipeline import cluster_files, feature_files, memory
from pipeline.cluster_files import Training
from pipeline.clustering import som
from pipeline.clustering.assignment import assign_images, find_earlier, reasons_to_cluster_anew, unite
from pipeline.clustering.confidence import confidence, join_nearest, outliers
from pipeline.clustering.corrections import corrected
from pipeline.clustering.cuts import bound_number, by_size, curve, cut, cut_at_all, describe_curve
from pipeline.clustering.directions import Both, Directions, different, rows_not_finite, shorten, zeros_in
from pipeline.clustering.fragments import NEAREST
from pipeline.clustering.grouping import KEPT_NEIGHBOURS, differing_groups, group, group_by_unit, single_images
from pipeline.clustering.landmarks import Landmarks, no_landmarks, pick_landmarks, whitening_matrix
from pipeline.clustering.neighbours import index_images, nearest_images
from pipeline.dataset import read_features
from pipeline.machinery import files, paths, records, run
from pipeline.machinery.errors import UserError
from pipeline.machinery.executor import ordered_map
from pipeline.machinery.paths import display_path

TRAINING_SETTINGS = ("RANDOM_SEED", "CLUSTER_METHOD", "SOM_ROWS", "SOM_COLS", "SOM_IMAGES_PER_UNIT", "SOM_MAX_UNITS",
                     "SOM_TOPOLOGY", "SOM_INITIALISATION", "SOM_EPOCHS")  # fmt: skip

CLUSTER_IMAGES = 30_000  # of fewer, the map is one or two parts: at 40,000 a cluster costs 12 % more (doc/results.md)


def check_finite(features: np.ndarray, img_paths: list[str]) -> None:
    """Raise UserError naming the rows of `features` that hold NaN or infinity."""
    bad = rows_not_finite(features)
    if len(bad):
        named = ", ".join(f"{row} ({img_paths[row]})" for row in bad[:5]) + (", ..." if len(bad) > 5 else "")
        raise UserError(
            f"{display_path(paths.data_dir(config.DATASET))}/features.npy: {len(bad)} rows hold NaN or infinite "
            f"values: {named}; run 03.feature_extraction.py again"
        )


# ---- training ----------------------------------------------------------------------------------------


def in_order(function: Callable, items: Iterable) -> Iterator:
    """Yield the results of `function` for each of `items`, from the workers; one item takes seconds."""
    return ordered_map(function, items, batch=1)


def over_parts() -> Callable:
    """Return what goes through all images part by part: on one machine the matrix products use all its cores."""
    return in_order if config.SCHEDULER else map


def train_map(data: Directions, n_different: int, weights_in: io.IOBase, sums_in: io.IOBase):
    """Train the map on all images; returns the MiniSom.

    weights_in, sums_in : open files for its weights and for what `train_batch` adds up
    """
    rows, cols = som.map_shape(n_different, config.SOM_IMAGES_PER_UNIT, config.SOM_MAX_UNITS)
    rows, cols = config.SOM_ROWS or rows, config.SOM_COLS or cols
    grid = som.new_map(rows, cols, data.shape[1], config.SOM_TOPOLOGY, config.RANDOM_SEED)
    grid._weights = zeros_in(weights_in, grid._weights.shape)
    som.initialise(grid, data, config.SOM_INITIALISATION, config.RANDOM_SEED)
    som.train_batch(grid, data, config.SOM_EPOCHS, handle=sums_in, in_order=over_parts())
    return grid


def read_landmarks(n_features: int) -> Landmarks:
    """Read the photographs of known models in known_features.npz; none where they are of another network."""
    known = feature_files.read_known_features(config.DATASET, config.TRAIN_DATASET, n_features)
    return no_landmarks(n_features) if known is None else pick_landmarks(*known)


def train(features: np.ndarray, landmarks: Landmarks) -> Training:
    """Do steps 1 to 5: train the map, shorten what differs within models, group the images."""
    rows, first_of = different(features)
    m, seed = len(rows), config.RANDOM_SEED
    both = Both(features, landmarks.features)
    data = Directions(both, rows=np.concatenate([rows, np.arange(len(features), len(both))]))
    every = Directions(features, data.centre)
    with contextlib.ExitStack() as stack:
        folder = paths.data_dir(config.DATASET)
        one, other, weights_in = (stack.enter_context(tempfile.TemporaryFile(dir=folder)) for _ in range(3))
        grid = train_map(every, m, one, other)
        units, distances = som.assign(grid, every, over_parts())
        np.save(weights_in, grid.get_weights().astype(np.float32))
        del grid  # Windows can't remove a file that is still mapped
        likeness, matrix = np.ones(m, np.float32), np.empty((0, features.shape[1]))
        space_centre, scale = np.empty(0), np.empty((0, 2), np.float32)
        space = data.kept(one)  # (m + n_landmarks, n_features)
        index = index_images(space[:m], units[rows, 0], over_parts())
        if m < 2 or (m < 4 and not len(landmarks.labels)):  # too few to say what is near
            found = single_images(m)
        elif config.CLUSTER_METHOD == "units":
            found = group_by_unit(units[rows, 0], *nearest_images(space[:m], index, KEPT_NEIGHBOURS, in_order))
        else:
            likeness = nearest_images(space[:m], index, 1, in_order)[1][:, 0]
            which, group_of = differing_groups(space, m, landmarks.labels, index, seed)
            if len(which):
                matrix = whitening_matrix(space[which], group_of)
                space, space_centre, scale = shorten(space, matrix, other)
                index = index_images(space[:m], units[rows, 0], over_parts())
            found = group(space[:m], Landmarks(space[m:], landmarks.labels), index, seed, in_order)
        del space  # as above
        weights_in.seek(0)
        weights = np.load(weights_in, allow_pickle=False)
    of_all = (found.partitions, found.predicted, found.neighbours, found.similarity)
    return Training(
        weights,
        data.centre,
        units,
        distances,
        first_of,
        found.neighbours,
        found.similarity,
        likeness,
        found.partitions,
        np.int64(found.predicted),
        found.interval,
        cuts=cut_at_all(*of_all),
        links=np.array([found.n_neighbours, found.least_similarity]),
        n_known_models=np.int64(len(np.unique(landmarks.labels))),
        matrix=matrix.astype(np.float32),
        space_centre=space_centre.astype(np.float32),
        scale=scale[:m],
        list_centres=index.centres,
        list_images=index.images,
        list_starts=index.starts,
        known=np.empty(0, np.int64),
    )


def trained(features: np.ndarray, img_paths: list[str], inputs: dict[str, str]) -> Training:
    """Return an earlier run's training where nothing that it depends on has changed, else a new one, and store it."""
    path = paths.data_dir(config.DATASET) / "som_training.npz"
    origin = records.made_from(__file__, inputs, TRAINING_SETTINGS)
    if records.up_to_date(path.with_suffix(".json"), origin):
        return Training(**files.read_npz(path, "04.clustering_som.py", Training._fields))
    check_finite(features, img_paths)
    training = train(features, read_landmarks(features.shape[1]))
    store(training, origin)
    return training


def store(training: Training, origin: dict) -> None:
    """Write som_training.npz and its record."""
    path = paths.data_dir(config.DATASET) / "som_training.npz"
    with files.atomic_write(path) as temporary:
        np.savez(temporary, **training._asdict())
    records.write_record(path.with_suffix(".json"), origin, [path])


# ---- the final clusters ----------------------------------------------------------------------------


def assign(
    features: np.ndarray, img_paths: list[str], earlier: str, prints: dict[str, str]
) -> tuple[Training, np.ndarray]:
    """Put images into the clusters of the `earlier` data set, with its map, links and calibration.

    prints : fingerprints of the files that were looked at already.
    Returns what was found of the images, and the cluster of each image that differs, (m,) int64.
    """
    check_finite(features, img_paths)
    runs = cluster_files.read_earlier_runs(earlier, features.shape[1], config.DATASET, prints)
    first = runs[-1].training
    rows, first_of = different(features)
    grid = som.from_weights(first.weights.astype(np.float64), config.SOM_TOPOLOGY)
    units, distances = som.assign(grid, Directions(features, first.centre))
    data, scale = Directions(features, first.centre, rows), np.empty((0, 2), np.float32)
    with tempfile.TemporaryFile(dir=paths.data_dir(config.DATASET)) as handle:
        if len(first.matrix):
            space, _, scale = shorten(data, first.matrix, handle, first.space_centre)
        else:
            space = data.kept(handle)
        index = index_images(space, units[rows, 0])
        new = nearest_images(space, index, NEAREST, in_order)
        union = unite(*find_earlier(space, [cluster_files.earlier_images(one, first) for one in runs], NEAREST), *new)
        del space  # Windows can't remove a file that is still mapped
    sizes = np.bincount(np.concatenate([one.cluster for one in runs]))
    calibration = cluster_files.calibration_of(runs[-1])
    cluster, least = assign_images(union, calibration, sizes, config.RANDOM_SEED), calibration.threshold()
    n_assigned, n_clustered = len(rows) + sum(len(one.cluster) for one in runs[:-1]), len(runs[-1].cluster)
    for reason in reasons_to_cluster_anew(cluster, union, least, len(sizes), n_clustered, n_assigned):
        print(f"time to cluster all images anew, in one data set without ASSIGN_TO: {reason}")
    own = by_size(cluster).astype(np.int32)[None]
    return first._replace(
        units=units,
        distances=distances,
        first_of=first_of,
        neighbours=union.neighbours,
        similarity=union.similarity,
        likeness=union.similarity[:, 0],
        partitions=own,
        predicted=np.int64(0),
        interval=np.full(2, own.max() + 1),
        cuts=own,
        matrix=first.matrix[:0],
        scale=scale,
        list_centres=index.centres,
        list_images=index.images,
        list_starts=index.starts,
        known=union.known,
    ), cluster


def describe(cluster: np.ndarray, training: Training) -> tuple[np.ndarray, np.ndarray]:
    """Return how sure the cluster of each of the m different images is, and its runner-up, see `confidence`."""
    return confidence(np.concatenate([cluster, training.known]), training.neighbours, training.similarity)


def cut_as_set(training: Training) -> np.ndarray:
    """Return the cluster of each of the m different images, (m,), by N_CLUSTERS, CLUSTER_GRANULARITY and OUTLIERS."""
    m = training.partitions.shape[1]
    if m < config.N_CLUSTERS:
        raise UserError(f"N_CLUSTERS = {config.N_CLUSTERS}: there are only {m} different images")
    cluster = cut(
        training.partitions,
        int(training.predicted),
        training.neighbours,
        training.similarity,
        config.CLUSTER_GRANULARITY,
        config.N_CLUSTERS,
    )
    odd = outliers(training.likeness)
    if config.N_CLUSTERS or config.CLUSTER_METHOD == "units":
        return cluster
    if config.OUTLIERS == "own cluster":
        return np.where(odd, cluster.max() + np.cumsum(odd), cluster)
    return join_nearest(cluster, odd, training.neighbours) if odd.any() else cluster


def correct(cluster: np.ndarray, training: Training, features: np.ndarray, img_paths: list[str]) -> np.ndarray:
    """Return the final cluster of each image, int64 (n,): that of its equal, and as corrections.csv says."""
    of_image = cluster[training.first_of] if config.ASSIGN_TO else by_size(cluster[training.first_of])
    answers = cluster_files.read_corrections(config.DATASET, img_paths)
    if answers:
        some = np.unique(training.first_of, return_index=True)[1]
        sure, runner_up = (values[training.first_of] for values in describe(of_image[some], training))
        first_new = int(max(of_image.max(), training.known.max(initial=-1))) + 1
        data = Directions(features, training.centre)
        of_image = corrected(of_image, sure, runner_up, data, answers, first_new)
    return of_image if config.ASSIGN_TO else by_size(of_image)


# ---- writing ---------------------------------------------------------------------------------------


def write(cluster: np.ndarray, odd: np.ndarray, training: Training, img_paths: list[str], origin: dict, seconds: float):
    """Write the files of the contract, the record last; returns their paths."""
    memory.give_back_freed()
    folder = paths.data_dir(config.DATASET)
    rows, cols, n_features = training.weights.shape
    unit = training.units[:, 0]
    some = np.unique(training.first_of, return_index=True)[1]
    sure, runner_up = (values[training.first_of] for values in describe(cluster[some], training))
    grid = som.from_weights(training.weights, config.SOM_TOPOLOGY)
    granularity, cuts = curve(training.cuts, training.first_of, cluster)
    names = ("clusters.csv", "labels_pred.txt", "labels_pred.tsv", "labels_pred.npy", "som.npz")
    outputs = [folder / name for name in names]
    lines = zip(img_paths, cluster, sure, unit, training.distances[:, 0], runner_up, odd, strict=True)
    files.write_csv(
        outputs[0],
        ["image", "cluster", "confidence", "unit_row", "unit_col", "distance", "runner_up", "outlier"],
        ((name, c, f"{p:.4f}", *divmod(int(u), cols), f"{d:.6f}", "" if up < 0 else up, int(o))
         for name, c, p, u, d, up, o in lines),
    )  # fmt: skip
    files.write_lines(outputs[1], cluster)
    files.write_lines(outputs[2], ["image\tcluster", *(f"{n}\t{c}" for n, c in zip(img_paths, cluster, strict=True))])
    files.write_npy(outputs[3], cluster.astype(np.int64))
    with files.atomic_write(outputs[4]) as temporary:
        np.savez(
            temporary,
            weights=training.weights,
            topology=np.array(config.SOM_TOPOLOGY),
            u_matrix=som.u_matrix(grid),
            hits=np.bincount(unit, minlength=rows * cols).reshape(rows, cols),
            unit_cluster=som.unit_clusters(cluster, unit, (rows, cols)),
            unit_of_image=unit,
            cut_granularity=granularity,
            cut_clusters=cuts,
        )
    n_clusters = len(np.unique(cluster))
    interval = None if config.N_CLUSTERS or config.ASSIGN_TO else training.interval * config.CLUSTER_GRANULARITY
    records.write_record(
        folder / "clustering.json",
        origin,
        outputs,
        n_images=len(img_paths),
        n_features=n_features,
        n_clusters=n_clusters,
        n_clusters_interval=bound_number(n_clusters, interval),
        granularity_curve=describe_curve(granularity, cuts),
        map_rows=rows,
        map_cols=cols,
        topology=config.SOM_TOPOLOGY,
        quantization_error=float(training.distances[:, 0].mean()),
        topographic_error=som.topographic_error(grid, training.units),
        calibration="known models" if training.n_known_models else "the data itself",
        n_known_models=int(training.n_known_models),
        n_neighbours=int(training.links[0]),
        least_similarity=float(training.links[1]),
        n_units_hit=len(np.unique(unit)),
        n_outliers=int(odd.sum()),
        assigned_to=config.ASSIGN_TO,
        seconds=round(seconds, 1),
    )
    return outputs


def main() -> None:
    begin = time.perf_counter()
    features, img_paths = read_features(config.DATASET)
    config.SCHEDULER = config.SCHEDULER if len(features) >= CLUSTER_IMAGES else None
    folder = paths.data_dir(config.DATASET)
    known_path = feature_files.find_known_features(config.DATASET, config.TRAIN_DATASET)
    inputs = {
        display_path(path): records.fingerprint_file(path)
        for path in (folder / "features.npy", folder / "img_paths.txt", known_path)
    }
    others = [folder / "corrections.csv", *cluster_files.chain_paths(config.ASSIGN_TO)]
    origin = records.made_from(
        __file__,
        inputs | {display_path(path): records.fingerprint_file(path) for path in others},
    )
    if records.up_to_date(folder / "clustering.json", origin):
        run.unchanged([folder / "clusters.csv"])
        return
    if config.ASSIGN_TO == config.DATASET:
        raise UserError(f"ASSIGN_TO = {config.ASSIGN_TO!r} is DATASET itself: name the data set of an earlier run")

    if config.ASSIGN_TO:
        training, cluster = assign(features, img_paths, config.ASSIGN_TO, origin["inputs"])
        store(training, origin)
    else:
        training = trained(features, img_paths, inputs)
        cluster = cut_as_set(training)
    cluster, odd = correct(cluster, training, features, img_paths), outliers(training.likeness)[training.first_of]
    outputs = write(cluster, odd, training, img_paths, origin, time.perf_counter() - begin)
    low, high = files.read_json(folder / "clustering.json", "04.clustering_som.py")["n_clusters_interval"]
    print(f"{len(np.unique(cluster))} clusters (interval {low} to {high}), {odd.sum()} outliers")
    run.summary(len(img_paths), len(img_paths), 0, outputs, time.perf_counter() - begin)


if __name__ == "__main__":
    run.run(main, __doc__)
