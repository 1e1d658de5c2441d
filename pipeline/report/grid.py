"""The geometry of the map: the places of its units, the pairs that touch, and the typical image of each unit."""

from dataclasses import dataclass

import numpy as np
from minisom import MiniSom

from pipeline.report.found import Found


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


def build_grid(weights: np.ndarray, topology: str) -> Grid:
    """Return the grid of a map with `weights` of shape (rows, cols, n_features), topology "rectangular" or "hexagonal".

    A hexagonal map is MiniSom's: every second column is half a unit off, columns are sqrt(3)/2 apart. A map with more
    rows than columns lies on its side: rows run to the right.
    """
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


def find_typical_images(found: Found, n_units: int) -> np.ndarray:
    """Return the image nearest to each unit's weights: int64 (n_units,), -1 for a unit without images."""
    typical = np.full(n_units, -1)
    for image in np.lexsort((-np.arange(len(found.names)), -found.distance)):
        typical[found.unit[image]] = image
    return typical
