"""The nearest images of each image, found through the map."""

from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from pipeline import memory
from pipeline.clustering.directions import Directions, chunks, means_of

CANDIDATES = 3000  # images among which the neighbours of an image are looked for, at least
EXACT_IMAGES = 20_000  # images up to which each is compared with all others, which is faster than through the map
VOTERS = 10  # nearest neighbours that vote on an image's cluster, at most
TILE_IMAGES = 256  # images of adjoining units that share their candidates


class Tile(NamedTuple):
    """Images of adjoining units, with the images of all units near to them."""

    members: np.ndarray  # indices of at most TILE_IMAGES images
    candidates: np.ndarray  # indices of about CANDIDATES images, the members among them


def tiles(centres: np.ndarray, unit_of_image: np.ndarray) -> list[Tile]:
    """Cut the map into rectangles of at most TILE_IMAGES images; each with the images of its nearest units.

    centres : ndarray of shape (rows, cols, n_features), the mean of each unit's images: its weights, which those of its
    neighbours blur, name worse candidates (of 20,000 images of 400 models, 92 % of the 10 nearest, instead of 97 %).
    Every image is a member of one tile. With n_images * CANDIDATES candidates in all, what is done tile by tile
    takes time linear in the number of images.
    """
    rows, cols, n_features = centres.shape
    hits = np.bincount(unit_of_image, minlength=rows * cols)
    order = np.argsort(unit_of_image, kind="stable").astype(np.int32)
    start = np.concatenate([[0], np.cumsum(hits)])
    hit = np.flatnonzero(hits)
    hit_centres = centres.reshape(-1, n_features)[hit]
    lengths = np.einsum("uf,uf->u", hit_centres, hit_centres)

    def images_of(units: np.ndarray) -> np.ndarray:
        return np.concatenate([order[start[unit] : start[unit + 1]] for unit in units])

    found, todo = [], [(0, rows, 0, cols)]
    while todo:
        top, bottom, left, right = todo.pop()
        inside = np.zeros((rows, cols), bool)
        inside[top:bottom, left:right] = True
        units = np.flatnonzero(inside.ravel() & (hits > 0))
        if hits[units].sum() > TILE_IMAGES and bottom - top > 1 and bottom - top >= right - left:
            middle = (top + bottom) // 2
            todo += [(top, middle, left, right), (middle, bottom, left, right)]
        elif hits[units].sum() > TILE_IMAGES and right - left > 1:
            middle = (left + right) // 2
            todo += [(top, bottom, left, middle), (top, bottom, middle, right)]
        elif len(units):
            own = centres.reshape(-1, n_features)[units]
            gap = (np.einsum("uf,uf->u", own, own)[:, None] + lengths - 2 * (own @ hit_centres.T)).min(axis=0)
            gap[np.isin(hit, units)] = -np.inf
            near = hit[np.argsort(gap, kind="stable")]
            members = images_of(units)
            enough = np.searchsorted(np.cumsum(hits[near]), CANDIDATES) + 1
            around = images_of(near[:enough])
            for begin in range(0, len(members), TILE_IMAGES):
                some = members[begin : begin + TILE_IMAGES]
                if len(around) > 4 * CANDIDATES:  # a unit with very many images: those that come next in it
                    ring = np.arange(begin - CANDIDATES, begin + TILE_IMAGES + CANDIDATES) % len(around)
                    found.append(Tile(some, np.unique(around[ring])))
                else:
                    found.append(Tile(some, around))
    return found


def tiled(data: np.ndarray, unit_of_image: np.ndarray, shape: tuple[int, int]) -> list[Tile]:
    """The `tiles` of images on a map of this shape; data : (m, n_features), unit_of_image : (m,)."""
    memory.give_back_freed()
    return tiles(means_of(data, unit_of_image, shape[0] * shape[1]).reshape(*shape, -1), unit_of_image)


def nearest_images(data: "Directions | np.ndarray", tiling: list[Tile], k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k nearest images of each image, looked for among the candidates of its tile.

    Returns
    -------
    neighbours : ndarray of shape (n_images, k), int32, nearest first
    similarity : ndarray of shape (n_images, k), float32, cosine
    """
    memory.give_back_freed()
    neighbours = np.empty((len(data), k), np.int32)
    similarity = np.empty((len(data), k), np.float32)
    for members, candidates in tqdm(tiling, desc="neighbours", unit="tile", leave=None, disable=None):
        rows = data[candidates]
        for part in chunks(len(members), 4 * len(candidates)):
            some = members[part]
            distance = -(data[some] @ rows.T)
            distance[some[:, None] == candidates[None, :]] = np.inf
            top = np.argpartition(distance, k - 1, axis=1)[:, :k]
            value = np.take_along_axis(distance, top, axis=1)
            rank = np.lexsort((candidates[top], value), axis=1)
            neighbours[some] = candidates[np.take_along_axis(top, rank, axis=1)]
            similarity[some] = -np.take_along_axis(value, rank, axis=1)
        del rows  # before those of the next tile are read
    return neighbours, similarity


def exact_neighbours(data: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the k nearest images of each image, compared with all others: what `nearest_images` returns.

    data : float32 ndarray of shape (m, n_features), directions; k : 1 to m - 1
    """
    m = len(data)
    neighbours, similarity = np.empty((m, k), np.int32), np.empty((m, k), np.float32)
    for rows in chunks(m, 4 * m):
        cosine = data[rows] @ data.T
        cosine[np.arange(len(cosine)), np.arange(m)[rows]] = -np.inf
        top = np.sort(np.argpartition(-cosine, k - 1, axis=1)[:, :k], axis=1)  # equal ones in the images' order
        value = np.take_along_axis(cosine, top, axis=1)
        order = np.argsort(-value, axis=1, kind="stable")
        neighbours[rows] = np.take_along_axis(top, order, axis=1)
        similarity[rows] = np.take_along_axis(value, order, axis=1)
    return neighbours, similarity


def find_neighbours(
    data: np.ndarray, unit_of_image: np.ndarray, shape: tuple[int, int], k: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the k nearest images of each image: compared with all, or, of many images, through the map.

    data : float32 ndarray of shape (m, n_features), directions; unit_of_image : int ndarray of shape (m,), on a map of
    this `shape`. Returns what `nearest_images` returns.
    """
    if len(data) <= EXACT_IMAGES:
        return exact_neighbours(data, k)
    return nearest_images(data, tiled(data, unit_of_image, shape), k)
