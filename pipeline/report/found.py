"""What the earlier stages found, as stage 06 uses it: images with their clusters, and the map's geometry."""

import io
from dataclasses import dataclass, field

import numpy as np

import config
from pipeline import files, settings, som

STAGE_04 = "04.clustering_som.py"

# ---- what the earlier stages found -----------------------------------------------------------------


@dataclass
class Found:
    """Everything about the images, row i of every array belongs to `names[i]`.

    names : n_images names; labels : their true labels, "" where unknown
    cluster, runner_up : int64 (n,), runner_up -1 where there is none; confidence, distance : float64 (n,)
    outlier : bool (n,); unit : int64 (n,), row * cols + column on the map
    direction : float32 (n, n_features), the features as stage 04 compares them (`pipeline.som.Directions`)
    """

    names: list[str]
    labels: list[str]
    cluster: np.ndarray
    runner_up: np.ndarray
    confidence: np.ndarray
    distance: np.ndarray
    outlier: np.ndarray
    unit: np.ndarray
    direction: np.ndarray
    medoid: dict[int, int] = field(default_factory=dict)  # cluster -> image
    order: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))  # images by cluster, medoid first

    def __post_init__(self) -> None:
        typical = typicality(self.direction, self.cluster)
        self.order = np.lexsort((-typical, self.cluster))
        first = np.unique(self.cluster[self.order], return_index=True)[1]
        self.medoid = {int(self.cluster[i]): int(i) for i in self.order[first]}

    def members(self, cluster: int) -> np.ndarray:
        """The images of a cluster, the medoid first, then by distance to it: int64 (n_members,)."""
        first, last = np.searchsorted(self.cluster, [cluster, cluster + 1], sorter=self.order)
        return self.order[first:last]


def typicality(direction: np.ndarray, cluster: np.ndarray) -> np.ndarray:
    """How near each image is to the centre of its cluster: float32 (n_images,), larger is nearer.

    The nearest one is the medoid, the image with the least sum of squared distances to the others.
    direction : float32 ndarray of shape (n_images, n_features); cluster : int ndarray of shape (n_images,)
    """
    ids, index = np.unique(cluster, return_inverse=True)
    centres = som.means_of(direction, index, len(ids))
    result = np.empty(len(index), np.float32)
    for rows in som.chunks(*direction.shape):
        result[rows] = -((direction[rows] - centres[index[rows]]) ** 2).sum(axis=1)
    return result


def on_main_axes(direction: np.ndarray, n_axes: int) -> np.ndarray:
    """The images on at most `n_axes` principal axes, the longest first: float32 (n_images, n_axes).

    direction : float32 ndarray of shape (n_images, n_features), read a few rows at a time
    """
    from scipy.linalg import eigh
    from threadpoolctl import threadpool_limits

    n_images, n_features = direction.shape
    n_axes = min(n_axes, n_images, n_features)
    # one thread: what comes of it must not depend on their number, and t-SNE makes much of the last digits
    with threadpool_limits(1):
        (mean,), scatter = som.scatter_within(direction, np.zeros(n_images, int), 1)
        axes = eigh(scatter, subset_by_index=[n_features - n_axes, n_features - 1])[1][:, ::-1].astype(np.float32)
        # the sign of an eigenvector is arbitrary
        axes *= np.where(axes[np.abs(axes).argmax(axis=0), np.arange(n_axes)] < 0, -1, 1)
        result = np.empty((n_images, n_axes), np.float32)
        for rows in som.chunks(*direction.shape):
            result[rows] = (direction[rows] - mean) @ axes
    return result


def read_found(n_cols: int, handle: io.IOBase) -> Found:
    """Read clusters.csv (of a map with `n_cols` columns), features and labels; raises UserError where they disagree.

    handle : an open file, in which the directions are kept as a memory map
    """
    data_dir = files.data_dir(config.DATASET)
    path = data_dir / "clusters.csv"
    columns = ("image", "cluster", "confidence", "unit_row", "unit_col", "distance", "runner_up", "outlier")
    rows = files.read_csv(path, columns, STAGE_04)
    features, img_paths = files.read_features(config.DATASET)
    files.check_in_step(path, data_dir / "clustering.json", [data_dir / "features.npy"], STAGE_04)
    if [row["image"] for row in rows] != img_paths:
        raise settings.UserError(f"{files.shown(path)} has other images than features.npy: run {STAGE_04} again")
    labels = {}
    if (data_dir / "labels_true.csv").exists():
        label_rows = files.read_csv(data_dir / "labels_true.csv", ["image", "label"], "00.make_labels_true.py")
        labels = {row["image"]: row["label"] for row in label_rows}
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
            direction=som.Directions(features).kept(handle),
        )
    except ValueError as error:
        raise settings.UserError(f"{files.shown(path)}: {error}: run {STAGE_04} again") from None


def read_som() -> dict[str, np.ndarray]:
    """The arrays of som.npz; raises UserError where it is missing, damaged or lacks one."""
    names = ("weights", "topology", "u_matrix", "hits", "unit_cluster", "cut_granularity", "cut_clusters")
    return files.read_npz(files.data_dir(config.DATASET) / "som.npz", STAGE_04, names)


# ---- the map's geometry ----------------------------------------------------------------------------


@dataclass
class Grid:
    """Where the units of the map lie, x to the right and y down, one unit apart, the longer side to the right.

    centre : float64 (n_units, 2); polygon : float64 (n_units, n_corners, 2)
    pair : int64 (n_pairs, 2), neighbouring units; edge : float64 (n_pairs, 2, 2), the ends of the edge they share
    ridge : float64 (n_pairs,), distance between their weights
    """

    rows: int
    cols: int
    centre: np.ndarray
    polygon: np.ndarray
    pair: np.ndarray
    edge: np.ndarray
    ridge: np.ndarray


def grid_of(weights: np.ndarray, topology: str) -> Grid:
    """The grid of a map with `weights` of shape (rows, cols, n_features), topology "rectangular" or "hexagonal".

    A hexagonal map is MiniSom's: every second column is half a unit off, columns are sqrt(3)/2 apart. A map with more
    rows than columns lies on its side: rows run to the right.
    """
    from minisom import MiniSom

    rows, cols = weights.shape[:2]
    along_rows, along_cols = MiniSom(rows, cols, 1, topology=topology).get_euclidean_coordinates()
    axes = (along_rows, along_cols) if rows > cols else (along_cols, along_rows)
    centre = np.stack([axis.ravel() for axis in axes], axis=1)  # (n_units, 2)
    n_corners = 6 if topology == "hexagonal" else 4
    # a corner of a hexagon points across the columns, as its flat sides touch along them
    turn = (np.pi / 6 if rows > cols else 0) if topology == "hexagonal" else np.pi / 4
    angle = turn + np.arange(n_corners) * 2 * np.pi / n_corners
    radius = 0.5 / np.cos(np.pi / n_corners)
    polygon = centre[:, None] + radius * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    index = np.arange(rows * cols).reshape(rows, cols)
    steps = [(0, 1), (1, 0), (1, 1), (1, -1)]
    pair = np.concatenate(
        [
            np.stack([index[: rows - r, max(0, -c) : cols - max(0, c)].ravel(),
                      index[r:, max(0, c) : cols + min(0, c)].ravel()], axis=1)
            for r, c in steps
        ]
    )  # fmt: skip
    gap = centre[pair[:, 1]] - centre[pair[:, 0]]
    near = np.hypot(*gap.T) < 1.01
    pair, gap = pair[near], gap[near]
    across = np.stack([-gap[:, 1], gap[:, 0]], axis=1) * radius * np.sin(np.pi / n_corners)
    middle = (centre[pair[:, 0]] + centre[pair[:, 1]]) / 2
    flat = weights.reshape(rows * cols, -1)
    ridge = np.array([np.linalg.norm(flat[a] - flat[b]) for a, b in pair])
    return Grid(rows, cols, centre, polygon, pair, np.stack([middle - across, middle + across], axis=1), ridge)


def typical_of_units(found: Found, n_units: int) -> np.ndarray:
    """The image nearest to each unit's weights: int64 (n_units,), -1 for a unit without images."""
    typical = np.full(n_units, -1)
    for image in np.lexsort((-np.arange(len(found.names)), -found.distance)):
        typical[found.unit[image]] = image
    return typical
