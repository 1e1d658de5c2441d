"""Group the images into clusters with a Self-Organizing Map; the number of clusters is predicted.

    python 04.clustering_som.py
    python 04.clustering_som.py --CLUSTER_GRANULARITY=1.3
    python 04.clustering_som.py --DATASET=tomorrow --ASSIGN_TO=today

1. A map with one unit per few images is trained on all features, without dimension reduction (`pipeline/som.py`).
2. The map tells where an image's neighbours are: they are looked for among the images of the nearest units only,
   so that time grows linearly with the number of images.
3. Infomap groups the images on the graph of their k nearest neighbours, for each k of SCALES: a small k finds small
   clusters, a large k large ones. Each image then goes to the cluster of most of its neighbours.
4. The scale whose clusters hold best is taken: those that scales of about the same k find again, and that stand
   apart (by their silhouettes). That predicts the number of clusters. A cluster whose neighbours are in another one
   rather than in itself is joined with that; parts of a cluster that hardly any neighbours link are taken apart.
5. In what the images of one cluster differ (light, ground, the side they are seen from) does not tell products apart:
   features are scaled down along it, before 2 to 4 are done. What that is, a first grouping shows; which of two
   shows it better is decided on EVENED_IMAGES images, by how well the clusters then hold. Where clusters stand apart
   less than without it (features that were trained to tell products apart have little of it left), it is not done.

Features are compared by direction: they may come normalised or not (`som.Directions`). N_CLUSTERS and
CLUSTER_GRANULARITY cut finer or coarser from what 1 to 3 stored in som_training.npz, without training again.
A file data/D/corrections.csv with the columns image_a, image_b and a third, "same" or "different", is honoured.
ASSIGN_TO names the data set of an earlier run: images that belong to one of its clusters get that cluster's id, the
others are grouped under new ids. ids of the earlier run never change.

Reads:  data/D/features.npy, data/D/img_paths.txt, data/D/corrections.csv (yours)
Writes: data/D/clusters.csv, data/D/labels_pred.txt, data/D/labels_pred.tsv, data/D/labels_pred.npy,
        data/D/som.npz, data/D/clustering.json, data/D/som_training.npz, data/D/som_training.json
Config: DATASET, RANDOM_SEED, N_JOBS, SOM_IMAGES_PER_UNIT, SOM_MAX_UNITS, SOM_TOPOLOGY, SOM_INITIALISATION,
        SOM_EPOCHS, N_CLUSTERS, CLUSTER_GRANULARITY, OUTLIERS, ASSIGN_TO
"""

import contextlib
import hashlib
import heapq
import io
import random
import tempfile
import time
from typing import NamedTuple

import igraph
import numpy as np
from scipy import linalg, sparse
from scipy.spatial import cKDTree
from threadpoolctl import threadpool_limits
from tqdm import tqdm

import config
from pipeline import files, memory, settings, som

# nearest neighbours that an image is linked to; a row is left out where larger clusters only get worse
SCALES = ((1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13), (15, 17, 20, 23, 26), (30, 35, 40, 50), (60, 70, 85, 100))
WORSE = 0.6  # share of the best silhouette under which the last scale of a row ends the search
VOTERS = 10  # neighbours that vote on an image's cluster, at most
GRAPH_LINKS = 180_000  # size of Infomap's graph: links at most, where that leaves an image LEAST_LINKS of them
IMAGE_LINKS = 12  # links that need as much memory as an image
LEAST_LINKS = 8  # that an image has, however many images there are
CANDIDATES = 3000  # images among which the neighbours of an image are looked for, at least
TILE_IMAGES = 256  # images of adjoining units that share their candidates
NEARBY = 0.4  # standard deviation, in ln k, of the scales in which a cluster is looked for again
APART = 0.1  # weight of the silhouette (relative to that of the best scale) beside stability
SILHOUETTES = 2000  # images, at least, whose silhouettes say how well clusters stand apart, where there are so many
SHRINK = 10.0  # ground level of the scatter within clusters along any direction, relative to its mean over all
EVENED_IMAGES = 2000  # images, at most, by which it is decided what shows that scatter best
EVENED_AT = 10  # nearest neighbours of the groupings that may show that scatter better than the predicted clusters
EVENED_TIMES = 3  # of those one after another, each with the scatter of the one before evened out
HELD_APART = 0.3  # weight of the silhouette beside stability where first groupings are compared
LINKED = 0.08  # parts of a cluster that share less than this of their neighbour links are clusters of their own
SMOOTHING = 0.15  # scales whose numbers of clusters differ by about this ratio are judged together
NEARLY = 0.08  # scales that hold by no more than this worse than the best one may be right as well
AS_WELL = 0.015  # scales that hold by no more than this worse than the best one hold as well
RESAMPLES = 200  # resamples of the clusters behind the interval of their number
OUTLIER_COSINE = 0.15  # -1..1; images less like their nearest ones than this fit nowhere
GRANULARITIES = (0.25, 0.35, 0.5, 0.7, 0.85, 1.0, 1.2, 1.4, 2.0, 2.8, 4.0)  # cuts kept for the report
TRAINING_SETTINGS = ("RANDOM_SEED", "SOM_IMAGES_PER_UNIT", "SOM_MAX_UNITS", "SOM_TOPOLOGY", "SOM_INITIALISATION",
                     "SOM_EPOCHS")  # fmt: skip


class Training(NamedTuple):
    """All that a cut needs, as kept in som_training.npz: n images, of which m differ from one another."""

    weights: np.ndarray  # (rows, cols, n_features) float32, directions around `centre`
    centre: np.ndarray  # (n_features,) float32
    units: np.ndarray  # (n, 2) int32, nearest and second nearest unit
    distances: np.ndarray  # (n, 2) float32, to these units
    first_of: np.ndarray  # (n,) int32, which of the m different images each is
    neighbours: np.ndarray  # (m, k) int32, nearest first
    similarity: np.ndarray  # (m, k) float32, cosine of the evened directions
    likeness: np.ndarray  # (m,) float32, mean cosine of the directions to the three nearest images
    partitions: np.ndarray  # (n_partitions, m) int32, number of clusters ascending
    predicted: np.ndarray  # () int64, the partition that stands apart best
    interval: np.ndarray  # (2,) int64, least and largest number of clusters that could be right too
    cuts: np.ndarray  # (len(GRANULARITIES), m) int32


# ---- 1. the map -------------------------------------------------------------------------------------


def check_finite(features: np.ndarray, img_paths: list[str]) -> None:
    """Raise UserError naming the rows of `features` that hold NaN or infinity."""
    parts = som.chunks(*features.shape)
    bad = np.concatenate(
        [part.start + np.flatnonzero(~np.isfinite(features[part].astype(np.float32)).all(axis=1)) for part in parts]
    )
    if len(bad):
        named = ", ".join(f"{row} ({img_paths[row]})" for row in bad[:5]) + (", ..." if len(bad) > 5 else "")
        raise settings.UserError(
            f"{files.shown(files.data_dir(config.DATASET))}/features.npy: {len(bad)} rows hold NaN or infinite "
            f"values: {named}; run 03.feature_extraction.py again"
        )


def different(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Find rows that are there more than once: a photograph used many times would pull a cluster together.

    Returns
    -------
    rows : ndarray of shape (m,), the rows that differ from all earlier ones
    first_of : ndarray of shape (n,), int32, for each row which of those m it equals

    >>> different(np.array([[1.0], [2.0], [1.0]]))
    (array([0, 1]), array([0, 1, 0], dtype=int32))
    """
    seen: dict[bytes, int] = {}
    first_of = np.empty(len(features), np.int32)
    for part in som.chunks(*features.shape):
        for row, values in enumerate(np.ascontiguousarray(features[part]), start=part.start):
            first_of[row] = seen.setdefault(hashlib.blake2b(values, digest_size=16).digest(), len(seen))
    return np.unique(first_of, return_index=True)[1], first_of


def train_map(data: som.Directions, n_different: int, weights_in: io.IOBase, sums_in: io.IOBase):
    """Train the map on all images; returns the MiniSom.

    weights_in, sums_in : open files for its weights and for what `som.train_batch` adds up
    """
    rows, cols = som.map_shape(n_different, config.SOM_IMAGES_PER_UNIT, config.SOM_MAX_UNITS)
    grid = som.new_map(rows, cols, data.shape[1], config.SOM_TOPOLOGY, config.RANDOM_SEED)
    grid._weights = som.zeros_in(weights_in, grid._weights.shape)
    som.initialise(grid, data, config.SOM_INITIALISATION, config.RANDOM_SEED)
    som.train_batch(grid, data, config.SOM_EPOCHS, handle=sums_in)
    return grid


# ---- 2. the neighbours ------------------------------------------------------------------------------


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


def nearest_images(data: "som.Directions | np.ndarray", tiling: list[Tile], k: int) -> tuple[np.ndarray, np.ndarray]:
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
        for part in som.chunks(len(members), 4 * len(candidates)):
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


# ---- 3. grouping at every scale ---------------------------------------------------------------------


def communities(neighbours: np.ndarray, seed: int) -> np.ndarray:
    """Infomap on the graph that links each image with its neighbours (Rosvall & Bergstrom 2008,
    doi:10.1073/pnas.0706851105).

    neighbours : ndarray of shape (m, k); where two images have each other, their link counts twice.
    Returns the community of each image, (m,) int32.
    """
    m, k = neighbours.shape
    memory.give_back_freed()  # before what needs most memory, and after it, since it leaves many small holes
    n_links = max(GRAPH_LINKS // m - IMAGE_LINKS, LEAST_LINKS)
    if k > n_links:  # some of the nearest ones, far and near, tell as much as all (doc/experiments.md)
        neighbours = neighbours[:, np.linspace(0, k - 1, n_links).round().astype(int)]
        k = n_links
    a, b = np.repeat(np.arange(m), k), neighbours.ravel()
    link = np.sort(np.minimum(a, b) * m + np.maximum(a, b))
    del a, b
    first = np.flatnonzero(np.diff(link, prepend=-1))
    count = np.diff(first, append=len(link)).astype(float)
    igraph.set_random_number_generator(random.Random(seed))
    graph = igraph.Graph(n=m, edges=np.column_stack(np.divmod(link[first], m)))
    del link, first
    found = np.array(graph.community_infomap(edge_weights=count, trials=1).membership, np.int32)
    del graph
    memory.give_back_freed()
    return found


def voted(cluster: np.ndarray, neighbours: np.ndarray, similarity: np.ndarray, n_rounds: int = 6) -> np.ndarray:
    """Let each image join the cluster of most of its nearest neighbours, several times.

    As many neighbours vote as half its cluster has images, 2 to VOTERS, with the square of their similarity.
    Returns clusters numbered 0, 1, ... without gaps, (m,) int32.
    """
    nearest = neighbours[:, :VOTERS]
    strength = np.maximum(similarity[:, :VOTERS], 1e-6) ** 2
    for _ in range(n_rounds):
        n_voters = np.clip(np.bincount(cluster)[cluster] // 2, 2, VOTERS)
        vote = strength * (np.arange(nearest.shape[1]) < n_voters[:, None])
        best = np.empty_like(cluster)
        for rows in som.chunks(len(cluster), VOTERS * VOTERS):
            theirs = cluster[nearest[rows]]
            total = ((theirs[:, :, None] == theirs[:, None, :]) * vote[rows, None, :]).sum(axis=2)
            total += (theirs == cluster[rows, None]) * 1e-6  # on a tie, stay
            best[rows] = np.take_along_axis(theirs, total.argmax(axis=1)[:, None], axis=1)[:, 0]
        if np.array_equal(best, cluster):
            break
        cluster = np.unique(best, return_inverse=True)[1].astype(np.int32)
    return cluster


# ---- 4. the scale that stands apart best ------------------------------------------------------------


def silhouette(data: "som.Directions | np.ndarray", cluster: np.ndarray, tiling: list[Tile]) -> np.ndarray:
    """Silhouette of each tile's members by mean cosine distances, (m,) float32, -1..1; 0 in a cluster of one image.

    (b - a) / max(a, b), a = mean distance to the other images of its cluster, b = smallest mean distance to another
    cluster that has images among its tile's candidates (Rousseeuw 1987, doi:10.1016/0377-0427(87)90125-7). The mean
    cosine to a cluster is the cosine to the mean of its directions, so no pair of images is looked at. NaN for images
    that are members of no tile.
    """
    size = np.bincount(cluster)
    means = som.means_of(data, cluster, len(size))
    result = np.full(len(cluster), np.nan, np.float32)
    for members, candidates in tiling:
        own = cluster[members]
        near = np.unique(cluster[candidates])
        cosine = data[members] @ means[near].T
        mine = np.searchsorted(near, own)[:, None]
        a = 1 - (np.take_along_axis(cosine, mine, axis=1)[:, 0] * size[own] - 1) / np.maximum(size[own] - 1, 1)
        np.put_along_axis(cosine, mine, -np.inf, axis=1)
        # where no other cluster is near: the centre of all images, at a right angle
        b = 1 - np.maximum(cosine.max(axis=1), 0)
        result[members] = np.where(size[own] > 1, (b - a) / np.maximum(np.maximum(a, b), 1e-9), 0)
    return result


def usable_scales(m: int) -> list[list[int]]:
    """The rows of SCALES that m images have neighbours for: up to m / 5, at least 1; m >= 3."""
    rows = [[k for k in row if k <= max(min(3, m // 3), m // 5)] for row in SCALES]
    return [row for row in rows if row]


class Scale(NamedTuple):
    """One partition of m images."""

    k: int  # nearest neighbours that each image is linked to
    cluster: np.ndarray  # (m,) int32, after `voted`
    apart: float  # mean silhouette, -1..1


def all_scales(data: "som.Directions | np.ndarray", tiling: list[Tile], seed: int):
    """Group the images at each of their usable scales.

    Returns the scales by number of clusters ascending, and the neighbours and similarities, (m, 2 * VOTERS) each.
    """
    m = len(data)
    rows = usable_scales(m)
    neighbours, similarity = nearest_images(data, tiling, rows[-1][-1])
    step = max(1, m // SILHOUETTES)
    sample = [Tile(members[::step], candidates) for members, candidates in tiling]
    found: list[Scale] = []
    for row in tqdm(rows, desc="scales", leave=None, disable=None):
        for k in row:
            cluster = voted(communities(neighbours[:, :k], seed), neighbours, similarity)
            found.append(Scale(k, cluster, float(np.nanmean(silhouette(data, cluster, sample)))))
        reached = [scale.apart for scale in found]
        if reached[-1] < WORSE * max(reached):
            break
    found.sort(key=lambda scale: int(scale.cluster.max()))
    return found, neighbours[:, : 2 * VOTERS].copy(), similarity[:, : 2 * VOTERS].copy()


def stability(scales: list[Scale]) -> np.ndarray:
    """How much of its cluster each image keeps when k changes a little, (n_scales, m) float32, 0..1.

    For two scales, that is the Jaccard similarity of the image's two clusters (Hennig 2007,
    doi:10.1016/j.csda.2006.11.025, who takes it over resamples of the images); here its mean over the other scales,
    weighted by how near their k is.
    """
    log_k = np.log([scale.k for scale in scales])
    weight = np.exp(-((log_k[:, None] - log_k[None, :]) ** 2) / (2 * NEARBY**2))
    weight[weight < 0.05] = 0
    np.fill_diagonal(weight, 0)
    result = np.zeros((len(scales), len(scales[0].cluster)), np.float32)
    sizes = [np.bincount(scale.cluster) for scale in scales]
    for i, j in np.argwhere(np.triu(weight) > 0):
        a, b = scales[i].cluster, scales[j].cluster
        _, pair, shared = np.unique(a.astype(np.int64) * len(sizes[j]) + b, return_inverse=True, return_counts=True)
        jaccard = shared[pair] / (sizes[i][a] + sizes[j][b] - shared[pair])
        result[i] += weight[i, j] * jaccard
        result[j] += weight[i, j] * jaccard
    return result / np.maximum(weight.sum(axis=1, keepdims=True), 1e-9).astype(np.float32)


def best_scale(scales: list[Scale], seed: int, finest: bool = False) -> tuple[int, np.ndarray, float]:
    """Choose the scale that predicts the number of clusters.

    Returns
    -------
    best : index of the scale with the largest mean of stability + APART * silhouette; means are smoothed over scales
        with about as many clusters, since a single one may score high by chance. `finest`: of the scales that hold
        about as well (AS_WELL), the one with most clusters, since two clusters of one product are mended more easily
        than one of two
    interval : (2,) int64, which numbers of clusters could be right too: those of the scales that hold nearly as well
        (NEARLY), and those within which 95 % of RESAMPLES resamples put it. Clusters are drawn, not images: what is
        true of one image of a cluster is true of the others
    quality : stability + HELD_APART * silhouette of `best`, smoothed alike, by which groupings can be compared
    """
    numbers = np.array([int(scale.cluster.max()) + 1 for scale in scales])
    near = np.exp(-((np.log(numbers)[:, None] - np.log(numbers)[None, :]) ** 2) / (2 * SMOOTHING**2))
    near = 0.9 * near / near.sum(axis=1, keepdims=True) + 0.1 * np.eye(len(numbers))
    apart = np.array([scale.apart for scale in scales])
    stable = stability(scales)
    holds = stable + APART * (apart / max(apart.max(), 1e-9))[:, None]  # (n_scales, m)
    smooth = near @ holds.mean(axis=1)
    best = int(smooth.argmax())
    if finest:
        best = int(np.flatnonzero(smooth >= smooth[best] - AS_WELL)[-1])
    nearly = numbers[smooth >= smooth.max() - NEARLY]
    part = scales[best].cluster
    n_images = np.bincount(part)
    of_parts = near @ [np.bincount(part, of_scale) for of_scale in holds]  # (n_scales, n_clusters)
    count = np.random.default_rng(seed).poisson(1.0, (RESAMPLES, len(n_images))) + 1e-9  # never nothing at all
    drawn = numbers[(of_parts @ (count / (count @ n_images)[:, None]).T).argmax(axis=0)]
    low, high = np.percentile(drawn, [2.5, 97.5], method="nearest")
    interval = np.array([min(low, nearly.min()), max(high, nearly.max())], np.int64)
    return best, interval, float(near[best] @ (stable.mean(axis=1) + HELD_APART * apart))


def joined(cluster: np.ndarray, neighbours: np.ndarray) -> np.ndarray:
    """Join a cluster with the one in which its images have more neighbours than in their own; the smallest first.

    Of each image, the nearest 2 * (size of its cluster - 1) count, at most VOTERS: a small cluster whose images are
    each other's nearest stays. cluster : (m,) int32; neighbours : (m, k) int32. Returns clusters, (m,) int32.
    """
    cluster = cluster.copy()
    members = {c: list(part) for c, part in enumerate(np.split(np.argsort(cluster, kind="stable"),
                                                              np.cumsum(np.bincount(cluster))[:-1]))}  # fmt: skip
    todo = sorted(members, key=lambda c: len(members[c]), reverse=True)
    while todo:
        one = todo.pop()
        if one not in members:
            continue
        n_nearest = int(np.clip(2 * (len(members[one]) - 1), 1, VOTERS))
        there, count = np.unique(cluster[neighbours[members[one], :n_nearest]], return_counts=True)
        own = count[there == one].sum()
        count[there == one] = 0
        if count.max() > own:
            other = int(there[count.argmax()])
            cluster[members[one]] = other
            members[other] += members.pop(one)
    return np.unique(cluster, return_inverse=True)[1].astype(np.int32)


def taken_apart(cluster: np.ndarray, finer: list[np.ndarray], neighbours: np.ndarray) -> np.ndarray:
    """Separate the parts of a cluster that hardly any neighbours link: one scale does not fit all clusters.

    A part is what one of the `finer` partitions makes of a cluster, of at least 5 images, with at least 5 left. It is
    separated where the links (to the VOTERS nearest images) between it and the rest are less than LINKED of all links
    of the smaller side (its conductance); the least linked part first, until there is none.

    cluster : ndarray of shape (m,); neighbours : ndarray of shape (m, k). Returns clusters, (m,) int32.
    """
    order = np.argsort(cluster, kind="stable")
    todo = np.split(order, np.cumsum(np.bincount(cluster))[:-1])
    place = np.full(len(cluster), -1)
    result = np.empty(len(cluster), np.int32)
    n_found = 0
    while todo:
        members = todo.pop()
        place[members] = np.arange(len(members))
        ends = place[neighbours[members, :VOTERS]]
        place[members] = -1
        row, column = np.nonzero(ends >= 0)
        to = ends[row, column]
        least, side = LINKED, None
        for partition in finer if len(members) >= 10 else ():
            part = np.unique(partition[members], return_inverse=True)[1]
            size = np.bincount(part)
            links = np.bincount(part[row], minlength=len(size)) + np.bincount(part[to], minlength=len(size))
            crossing = part[row] != part[to]
            cut_links = np.bincount(part[row][crossing], minlength=len(size))
            cut_links += np.bincount(part[to][crossing], minlength=len(size))
            linked = cut_links / np.maximum(np.minimum(links, links.sum() - links), 1)
            linked[(size < 5) | (len(members) - size < 5)] = np.inf
            if linked.min() < least:
                least, side = linked.min(), part == linked.argmin()
        if side is None:
            result[members] = n_found
            n_found += 1
        else:
            todo += [members[side], members[~side]]
    return result


class Grouping(NamedTuple):
    """What steps 2 to 4 find for m images: fields of `Training`, and k, quality and silhouette of the best scale."""

    partitions: np.ndarray
    predicted: int
    interval: np.ndarray
    neighbours: np.ndarray
    similarity: np.ndarray
    k: int
    quality: float
    apart: float


def tiled(data: np.ndarray, unit_of_image: np.ndarray, shape: tuple[int, int]) -> list[Tile]:
    """The `tiles` of images on a map of this shape; data : (m, n_features), unit_of_image : (m,)."""
    memory.give_back_freed()
    return tiles(som.means_of(data, unit_of_image, shape[0] * shape[1]).reshape(*shape, -1), unit_of_image)


def chosen(scales: list[Scale], neighbours: np.ndarray, similarity: np.ndarray, finest: bool = False) -> Grouping:
    """Choose among what `all_scales` found, join and take apart; finest : see `best_scale`."""
    best, interval, quality = best_scale(scales, config.RANDOM_SEED, finest)
    partitions = [scale.cluster for scale in scales]
    whole = joined(partitions[best], neighbours)
    apart = taken_apart(whole, [finer for finer in partitions if finer.max() > whole.max()], neighbours)
    interval = np.maximum(interval + int(apart.max() - partitions[best].max()), 1)
    place = int(np.searchsorted([cluster.max() for cluster in partitions], apart.max()))
    partitions = np.stack([*partitions[:place], apart, *partitions[place:]])
    return Grouping(partitions, place, interval, neighbours, similarity, scales[best].k, quality, scales[best].apart)


def grouped(data: np.ndarray, tiling: list[Tile], finest: bool = False) -> Grouping:
    """Steps 2 to 4: find the neighbours, group at every scale, choose the scale, join and take apart.

    data : ndarray of shape (m, n_features), float32, directions, m >= 4; finest : see `best_scale`
    """
    return chosen(*all_scales(data, tiling, config.RANDOM_SEED), finest)


def grouped_at(data: np.ndarray, tiling: list[Tile], k: int) -> np.ndarray:
    """Clusters by k nearest neighbours alone, or by as many as m images have, (m,) int32; data as in `grouped`."""
    neighbours, similarity = nearest_images(data, tiling, min(max(k, VOTERS), usable_scales(len(data))[-1][-1]))
    return joined(voted(communities(neighbours[:, :k], config.RANDOM_SEED), neighbours, similarity), neighbours)


# ---- 5. what differs within clusters ----------------------------------------------------------------


def evened(data: np.ndarray, cluster: np.ndarray) -> np.ndarray:
    """The matrix that evens out the scatter within clusters, (n_features, n_features) float32.

    Rows times this matrix differ by the Mahalanobis distance of the scatter within clusters, as in linear discriminant
    analysis (Fisher 1936, doi:10.1111/j.1469-1809.1936.tb02137.x), here with clusters in place of known classes (Ding
    & Li 2007, doi:10.1145/1273496.1273562). The scatter is shrunk strongly (SHRINK): there are fewer images than
    directions, and the clusters are not right everywhere.

    data : ndarray of shape (m, n_features), float32, directions; cluster : (m,), from 0
    """
    n_features = data.shape[1]
    _, scatter = som.scatter_within(data, cluster, int(cluster.max()) + 1)
    # images of one cluster that do not differ at all leave nothing to even out
    scatter[np.diag_indices(n_features)] += SHRINK * np.trace(scatter) / n_features or 1.0
    root = linalg.cholesky(scatter, lower=True, overwrite_a=True)
    inverse, _ = linalg.lapack.dtrtri(root, lower=True, overwrite_c=True)
    return inverse.T.astype(np.float32)


class Product:
    """The rows of an array times a matrix, computed only when asked for."""

    def __init__(self, data: np.ndarray, matrix: np.ndarray):
        self.data, self.matrix = data, matrix
        self.shape = (len(data), matrix.shape[1])

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice | np.ndarray) -> np.ndarray:
        return self.data[rows] @ self.matrix


def closer(data: np.ndarray, matrix: np.ndarray) -> som.Directions:
    """Directions of the rows of `data` times `matrix`."""
    return som.Directions(Product(data, matrix))


def picked(tiling: list[Tile]) -> np.ndarray:
    """About EVENED_IMAGES images that tell of all, ascending: whole tiles, evenly spaced over the map.

    Images of adjoining units, not any images, since those of a cluster have to stay together.
    """
    n_wanted = EVENED_IMAGES * len(tiling) // sum(len(tile.members) for tile in tiling)
    wanted = np.unique(np.linspace(0, len(tiling) - 1, max(1, n_wanted)).astype(int))
    return np.sort(np.concatenate([tiling[i].members for i in wanted]))


def tells(cluster: np.ndarray) -> bool:
    """Whether clusters (m,) show what differs within them: there are several, and more than one image in some."""
    return 0 < cluster.max() < len(cluster) - 1


def best_evening(data: np.ndarray, tiling: list[Tile]) -> tuple[int, np.ndarray] | None:
    """The matrix of `evened` that makes clusters hold best, or None where they stand apart better without any.

    Tried are the predicted clusters, and those by EVENED_AT neighbours alone, found EVENED_TIMES times. The ones whose
    evened directions give the grouping of the better quality are taken. Returns their k and their matrix.

    data : ndarray of shape (m, n_features), float32, directions, m >= 4
    """
    with tqdm(total=4, desc="what differs within clusters", disable=None) as progress:
        scales, *neighbourhood = all_scales(data, tiling, config.RANDOM_SEED)
        predicted = chosen(scales, *neighbourhood)
        left_as_they_are = scales[best_scale(scales, config.RANDOM_SEED, finest=True)[0]]
        progress.update()
        nearest = grouped_at(data, tiling, EVENED_AT)
        for _ in range(EVENED_TIMES - 1):
            nearest = grouped_at(closer(data, evened(data, nearest))[:], tiling, EVENED_AT)
        progress.update()
        found = []
        for k, cluster in ((predicted.k, predicted.partitions[predicted.predicted]), (EVENED_AT, nearest)):
            if tells(cluster):
                matrix = evened(data, cluster)
                found.append((grouped(closer(data, matrix)[:], tiling), k, matrix))
            progress.update()
    if not found:
        return None
    grouping, k, matrix = max(found, key=lambda one: one[0].quality)
    return (k, matrix) if grouping.apart >= left_as_they_are.apart else None


def evened_out(
    data: np.ndarray, some: np.ndarray, unit: np.ndarray, shape: tuple[int, int], handle: io.IOBase
) -> np.ndarray:
    """Directions of all images with what differs within clusters scaled down; `data` where that does not help.

    The grouping that `best_evening` chooses on some of the images is done once more by all.

    data : ndarray of shape (m, n_features), float32, directions, m >= 4
    some : indices of the images that it is chosen on, see `picked`
    unit : (m,), the unit of each image on a map of this shape
    handle : the open file that holds what is returned
    """
    part = data[some]  # (about EVENED_IMAGES, n_features)
    with threadpool_limits(1):  # in several threads, the last digits depend on their number
        best = best_evening(part, tiled(part, unit[some], shape))
        if best is None:
            return data
        k, matrix = best
        evener = closer(data, matrix).kept(handle)
        del part, best, matrix
    cluster = grouped_at(evener, tiled(evener, unit, shape), k)
    if not tells(cluster):
        return evener
    with threadpool_limits(1):
        return closer(data, evened(data, cluster)).kept(handle)


def train(features: np.ndarray) -> Training:
    """Steps 1 to 5: train the map, even out what differs within clusters, group the images."""
    rows_used, first_of = different(features)
    data = som.Directions(features, rows=rows_used)
    centre = data.centre
    every, folder = som.Directions(features, centre), files.data_dir(config.DATASET)
    m = len(rows_used)
    likeness = np.ones(m, np.float32)
    with contextlib.ExitStack() as stack:
        one, other, weights_in = (stack.enter_context(tempfile.TemporaryFile(dir=folder)) for _ in range(3))
        grid = train_map(every, m, one, other)
        units, distances = som.assign(grid, every)
        np.save(weights_in, grid.get_weights().astype(np.float32))
        unit, shape = units[rows_used, 0], grid.get_weights().shape[:2]
        del grid  # Windows can't remove a file that is still mapped
        if m < 4:  # too few to say what is near: each is its own cluster
            each, nothing = np.arange(m, dtype=np.int32)[None], np.empty((m, 0), np.int32)
            found = Grouping(each, 0, np.array([m, m]), nothing, nothing.astype(np.float32), 0, 0.0, 0.0)
        else:
            data = data.kept(one)
            tiling = tiled(data, unit, shape)
            if usable_scales(m)[-1][-1] >= 3:
                likeness = nearest_images(data, tiling, 3)[1].mean(axis=1)
            evener = evened_out(data, picked(tiling), unit, shape, other)
            tiling = tiled(evener, unit, shape)
            found = grouped(evener, tiling, finest=evener is data)
            del data, evener  # as above
        weights_in.seek(0)
        weights = np.load(weights_in, allow_pickle=False)
    training = Training(
        weights,
        centre,
        units,
        distances,
        first_of,
        found.neighbours,
        found.similarity,
        likeness,
        found.partitions,
        np.int64(found.predicted),
        found.interval,
        cuts=np.empty((0, m), np.int32),
    )
    return training._replace(cuts=np.stack([cut(training, granularity) for granularity in GRANULARITIES]))


# ---- cutting finer or coarser -----------------------------------------------------------------------


def merged(cluster: np.ndarray, neighbours: np.ndarray, n_clusters: int) -> np.ndarray:
    """Join the two clusters with the most links between them, for their sizes, until `n_clusters` are left.

    Links are the images' VOTERS nearest neighbours. Clusters that nothing links are joined smallest first.
    Takes time in the number of links, not in that of pairs of clusters.
    """
    n = int(cluster.max()) + 1
    nearest = neighbours[:, :VOTERS]
    ends = np.repeat(cluster, nearest.shape[1]), cluster[nearest].ravel()
    pairs = sparse.coo_matrix((np.ones(nearest.size), ends), (n, n)).tocsr()
    pairs = (pairs + pairs.T).tocoo()
    links: list[dict[int, float]] = [{} for _ in range(n)]
    for i, j, count in zip(pairs.row.tolist(), pairs.col.tolist(), pairs.data.tolist(), strict=True):
        if i != j:
            links[i][j] = count
    size = np.bincount(cluster).astype(float).tolist()

    def strength(i: int, j: int) -> float:
        return -links[i].get(j, 0) / (size[i] * size[j]) ** 0.5

    heap = [(strength(i, j), i, j) for i in range(n) for j in links[i] if i < j]
    heapq.heapify(heap)
    smallest = [(size[i], i) for i in range(n)]
    heapq.heapify(smallest)
    into = np.arange(n)
    for _ in range(n - n_clusters):
        while heap:
            known, i, j = heapq.heappop(heap)
            if into[i] == i and into[j] == j and known == strength(i, j):
                break
        else:
            pair = []
            while len(pair) < 2:
                count, i = heapq.heappop(smallest)
                if into[i] == i and count == size[i]:
                    pair.append(i)
            i, j = sorted(pair)
        into[j] = i
        size[i] += size[j]
        heapq.heappush(smallest, (size[i], i))
        for other, count in links[j].items():
            del links[other][j]
            if other != i:
                links[i][other] = links[other][i] = links[i].get(other, 0) + count
        for other in links[i]:
            heapq.heappush(heap, (strength(i, other), *sorted((i, other))))
    while (into != into[into]).any():
        into = into[into]
    return np.unique(into[cluster], return_inverse=True)[1].astype(np.int32)


def cut(training: Training, granularity: float, n_clusters: int = 0) -> np.ndarray:
    """Clusters of the m different images: `granularity` times as many as predicted (or as `n_clusters`, if given).

    The partition that has as many clusters, or the next more of them, is joined down to the number. Beyond the
    finest partition, the images farthest from their neighbours become clusters of their own.
    """
    if granularity == 1 and not n_clusters:
        return training.partitions[training.predicted]
    numbers = training.partitions.max(axis=1) + 1
    m = training.partitions.shape[1]
    wanted = int(np.clip(round((n_clusters or numbers[training.predicted]) * granularity), 1, m))
    start = np.searchsorted(numbers, wanted)
    if start < len(numbers):
        return merged(training.partitions[start], training.neighbours, wanted)
    cluster = training.partitions[-1].copy()
    size = np.bincount(cluster).tolist()
    for image in np.argsort(training.similarity[:, 0], kind="stable"):
        if len(size) == wanted:
            break
        if size[cluster[image]] > 1:
            size[cluster[image]] -= 1
            cluster[image] = len(size)
            size.append(1)
    return cluster


def by_size(cluster: np.ndarray) -> np.ndarray:
    """Number the clusters from 0 by size descending, equal sizes by their first image.

    >>> by_size(np.array([5, 3, 3, 7]))
    array([1, 0, 0, 2])
    """
    _, first, inverse, size = np.unique(cluster, return_index=True, return_inverse=True, return_counts=True)
    new = np.empty(len(size), np.int64)
    new[np.lexsort((first, -size))] = np.arange(len(size))
    return new[inverse]


# ---- what is said of each image ---------------------------------------------------------------------


def confidence(cluster: np.ndarray, training: Training) -> tuple[np.ndarray, np.ndarray]:
    """How sure each of the m images' cluster is, and the cluster that it would be in otherwise.

    Returns
    -------
    sure : ndarray of shape (m,), float64, 0..1: the share of its nearest neighbours (2 * VOTERS, by similarity) that
        are in its cluster, times the mean of that share over those neighbours
    runner_up : ndarray of shape (m,), int64: the cluster with the next largest share; -1 where there is none
    """
    nearest = training.neighbours[:, : 2 * VOTERS]
    if not nearest.size:
        return np.ones(len(cluster)), np.full(len(cluster), -1)
    vote = np.maximum(training.similarity[:, : 2 * VOTERS], 1e-6)
    vote = vote / vote.sum(axis=1, keepdims=True)
    theirs = cluster[nearest]
    share = (vote * (theirs == cluster[:, None])).sum(axis=1)
    sure = share * (vote * share[nearest]).sum(axis=1)
    runner_up = np.full(len(cluster), -1)
    for rows in som.chunks(len(cluster), (2 * VOTERS) ** 2):
        total = ((theirs[rows, :, None] == theirs[rows, None, :]) * vote[rows, None, :]).sum(axis=2)
        total[theirs[rows] == cluster[rows, None]] = -1
        best = total.argmax(axis=1)[:, None]
        found = np.take_along_axis(theirs[rows], best, axis=1)[:, 0]
        runner_up[rows] = np.where(np.take_along_axis(total, best, axis=1)[:, 0] > 0, found, -1)
    return sure, runner_up


def outliers(training: Training) -> np.ndarray:
    """The images that fit nowhere, (m,) bool.

    An image is one whose mean cosine to its three nearest is under OUTLIER_COSINE (around the centre of all images,
    unrelated ones stand at right angles), while most images have much nearer ones: its mean distance is over 1.3 times
    the median.
    """
    far = 1 - training.likeness
    return (training.likeness < OUTLIER_COSINE) & (far > 1.3 * np.median(far))


def unit_clusters(cluster: np.ndarray, training: Training) -> np.ndarray:
    """The cluster of most of each unit's images, (rows, cols) int32; an empty unit takes that of the nearest unit."""
    rows, cols, _ = training.weights.shape
    unit = training.units[:, 0]
    order = np.lexsort((cluster, unit))
    pairs, count = np.unique(np.stack([unit[order], cluster[order]]), axis=1, return_counts=True)
    most = pairs[:, np.lexsort((pairs[1], -count, pairs[0]))]
    hit, first = np.unique(most[0], return_index=True)
    place = np.stack(np.divmod(np.arange(rows * cols), cols), axis=1)
    nearest = cKDTree(place[hit]).query(place)[1]
    return most[1][first][nearest].reshape(rows, cols).astype(np.int32)


# ---- corrections ------------------------------------------------------------------------------------


def read_corrections(img_paths: list[str]) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """The pairs (rows of img_paths) that data/D/corrections.csv calls the same and different; none without the file.

    Raises UserError naming the line where an image is unknown, the verdict is neither, or lines contradict.
    """
    path = files.data_dir(config.DATASET) / "corrections.csv"
    if not path.exists():
        return [], []
    row_of = {name: row for row, name in enumerate(img_paths)}
    verdicts: dict[str, list[tuple[int, int]]] = {"same": [], "different": []}
    lines = files.read_csv(path, ["image_a", "image_b"], "your correction of that line, then this")
    for line, entry in enumerate(lines, start=2):
        where = f"{files.shown(path)}, line {line}"
        for column in ("image_a", "image_b"):
            if entry[column] not in row_of:
                raise settings.UserError(
                    f"{where}: {entry[column]!r} is no image of {config.DATASET}: correct the name"
                )
        # whatever the third column is called
        verdict = str(
            next((value for column, value in entry.items() if column not in ("image_a", "image_b")), "")
        ).strip()
        if verdict not in verdicts:
            raise settings.UserError(f"{where}: {verdict!r} must be same or different")
        verdicts[verdict].append((row_of[entry["image_a"]], row_of[entry["image_b"]]))
    group = same_groups(len(img_paths), verdicts["same"])
    for a, b in verdicts["different"]:
        if group[a] == group[b]:
            raise settings.UserError(
                f"{files.shown(path)} calls {img_paths[a]} and {img_paths[b]} different, but other lines make them the "
                "same: remove one of these lines"
            )
    return verdicts["same"], verdicts["different"]


def same_groups(n_images: int, same: list[tuple[int, int]]) -> np.ndarray:
    """For each image the group of those that are the same by `same`, directly or through others, (n_images,)."""
    a, b = np.array(same, np.int64).reshape(-1, 2).T
    graph = sparse.coo_matrix((np.ones(len(a)), (a, b)), (n_images, n_images))
    return sparse.csgraph.connected_components(graph, directed=False)[1]


def corrected(
    cluster: np.ndarray,
    sure: np.ndarray,
    runner_up: np.ndarray,
    data: "som.Directions | np.ndarray",
    same: list[tuple[int, int]],
    different: list[tuple[int, int]],
) -> np.ndarray:
    """Clusters that keep the corrections.

    Images called the same: where the clusters of two of them differ, an image that is unsure of its cluster moves to
    the other's; where both are sure, the clusters are joined. Images called different and in one cluster: it is cut
    in two around them where that gives two groups that stand apart, else the less sure one moves out, to its
    runner-up or a cluster of its own. Images called the same always move together.

    cluster, sure, runner_up : ndarrays of shape (n,), see `confidence`
    """
    cluster = cluster.copy()
    group = same_groups(len(cluster), same)
    apart = {(x, y) for a, b in different for x, y in ((group[a], group[b]), (group[b], group[a]))}

    def forbidden(moving: int, target: int) -> bool:
        here = np.unique(group[(cluster == target) & (group != moving)])
        return any((moving, other) in apart for other in here)

    for a, b in same:
        if cluster[a] != cluster[b]:
            weak, strong = (a, b) if sure[a] < sure[b] else (b, a)
            if sure[weak] >= 0.25:  # half of its neighbours, and of theirs
                cluster[cluster == cluster[weak]] = cluster[strong]
            else:
                cluster[group == group[weak]] = cluster[strong]
    for a, b in different:
        if cluster[a] != cluster[b]:
            continue
        members = np.flatnonzero(cluster == cluster[a])
        side = two_sides(data[members], group[members], group[a], group[b])
        new = cluster.max() + 1
        if side is not None:
            cluster[members[side]] = new
            continue
        weak = a if sure[a] < sure[b] else b
        target = runner_up[weak]
        if target < 0 or target == cluster[weak] or forbidden(group[weak], target):
            target = new
        cluster[group == group[weak]] = target
    return np.unique(cluster, return_inverse=True)[1]


def two_sides(data: np.ndarray, group: np.ndarray, group_a: int, group_b: int) -> np.ndarray | None:
    """Cut the images into those nearer to group a and to group b (bool, True = b); None where they don't stand apart.

    data : ndarray of shape (n_members, n_features), directions. Two means that start at the two groups and may not
    separate images of one group; apart means a mean silhouette over 0.2.
    """
    n_groups, group = group.max() + 1, group
    side = data @ data[group == group_b].mean(axis=0) > data @ data[group == group_a].mean(axis=0)
    for _ in range(10):
        together = np.bincount(group, side - 0.5, minlength=n_groups)[group] > 0
        together[group == group_a], together[group == group_b] = False, True
        side = data @ data[together].mean(axis=0) > data @ data[~together].mean(axis=0)
    counts = np.array([np.sum(~together), np.sum(together)])
    if counts.min() < 2:
        return None
    cosine = data @ np.stack([data[~together].mean(axis=0), data[together].mean(axis=0)]).T
    own = together.astype(int)
    rows = np.arange(len(data))
    a = 1 - (cosine[rows, own] * counts[own] - 1) / (counts[own] - 1)
    b = 1 - cosine[rows, 1 - own]
    return together if np.mean((b - a) / np.maximum(np.maximum(a, b), 1e-9)) > 0.2 else None


# ---- the clusters of an earlier run -----------------------------------------------------------------


class Both:
    """The rows of two arrays as if they were one, read only when asked for."""

    def __init__(self, first: np.ndarray, second: np.ndarray):
        self.first, self.second = first, second
        self.shape = (len(first) + len(second), first.shape[1])

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice | np.ndarray) -> np.ndarray:
        rows = np.arange(len(self))[rows]
        result = np.empty((len(rows), self.shape[1]), np.float32)
        late = rows >= len(self.first)
        result[~late] = self.first[rows[~late]]
        result[late] = self.second[rows[late] - len(self.first)]
        return result


def earlier_run(dataset: str, n_features: int) -> tuple[np.ndarray, np.ndarray]:
    """Features (n_old, n_features) and clusters (n_old,) of an earlier run.

    Raises UserError where something is missing, out of step, or made with another network.
    """
    folder, stage = files.data_dir(dataset), f"04.clustering_som.py --DATASET={dataset}"
    features, img_paths = files.read_features(dataset)
    path = folder / "clusters.csv"
    rows = files.read_csv(path, ["image", "cluster"], stage)
    files.check_in_step(
        path, folder / "clustering.json", [folder / "features.npy", folder / "img_paths.txt"], f"{stage} again"
    )
    if [row["image"] for row in rows] != img_paths:
        raise settings.UserError(f"{files.shown(path)} names other images than img_paths.txt: run {stage} again")
    if not all(row["cluster"].isdecimal() for row in rows):
        raise settings.UserError(f"{files.shown(path)} has a cluster that is no number: run {stage} again")
    if features.shape[1] != n_features:
        raise settings.UserError(
            f"the images of {config.DATASET} have {n_features} features, those of ASSIGN_TO = {dataset!r} have "
            f"{features.shape[1]}: extract both with the same network"
        )
    check_finite(features, img_paths)
    return features, np.array([int(row["cluster"]) for row in rows])


def assigned(old_features: np.ndarray, old_cluster: np.ndarray, features: np.ndarray) -> np.ndarray:
    """Give images the ids of the earlier clusters that they belong to, and new ids to the others, (n,) int64.

    Old and new images are grouped together. In a group with old images, each new one takes the cluster of most of its
    nearest old ones there; in a group with hardly any (fewer than one in ten), all new ones are a new cluster. New ids
    follow the largest old one.
    """
    n_old = len(old_cluster)
    training = train(Both(old_features, features))
    group = training.partitions[training.predicted][training.first_of]
    is_old = np.arange(len(group)) < n_old
    n_there = np.bincount(group, is_old)
    known = (n_there >= 0.1 * np.bincount(group))[group] & (n_there > 0)[group]
    # the old cluster of each of the images that differ, -1 for new ones, and the most frequent one of each group
    some = np.unique(training.first_of, return_index=True)[1]  # of equal images, an old one comes first
    cluster = np.where(is_old[some], old_cluster[np.minimum(some, n_old - 1)], -1)
    most = {g: np.bincount(old_cluster[group[:n_old] == g]).argmax() for g in np.unique(group[:n_old])}
    result = np.empty(len(features), np.int64)
    for row in np.flatnonzero(~is_old & known):
        one = training.first_of[row]
        nearest = training.neighbours[one]
        use = (cluster[nearest] >= 0) & (group[some[nearest]] == group[row])
        if cluster[one] >= 0:
            result[row - n_old] = cluster[one]
        elif use.any():
            result[row - n_old] = np.bincount(cluster[nearest[use]], training.similarity[one][use] + 1).argmax()
        else:
            result[row - n_old] = most[group[row]]
    new = ~known[n_old:]
    if new.any():
        result[new] = old_cluster.max() + 1 + by_size(group[n_old:][new])
    return result


# ---- reading and writing ----------------------------------------------------------------------------


def trained(features: np.ndarray, img_paths: list[str], inputs: dict[str, str]) -> Training:
    """The training of an earlier run where nothing that it depends on has changed, else a new one, which is stored."""
    path = files.data_dir(config.DATASET) / "som_training.npz"
    origin = files.made_from(__file__, inputs, TRAINING_SETTINGS)
    if files.up_to_date(path.with_suffix(".json"), origin):
        return Training(**files.read_npz(path, "04.clustering_som.py", Training._fields))
    check_finite(features, img_paths)
    training = train(features)
    with files.whole(path) as temporary:
        np.savez(temporary, **training._asdict())
    files.write_record(path.with_suffix(".json"), origin, [path])
    return training


def clusters_of(training: Training, features: np.ndarray, img_paths: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """The final cluster of each image, (n,) int64, and whether it is an outlier, (n,) bool, by all settings."""
    m = training.partitions.shape[1]
    if m < config.N_CLUSTERS:
        raise settings.UserError(f"N_CLUSTERS = {config.N_CLUSTERS}: there are only {m} different images")
    cluster = cut(training, config.CLUSTER_GRANULARITY, config.N_CLUSTERS)
    odd = outliers(training)
    if config.OUTLIERS == "own cluster" and not config.N_CLUSTERS:
        cluster = np.where(odd, cluster.max() + np.cumsum(odd), cluster)
    sure, runner_up = (of_image[training.first_of] for of_image in confidence(cluster, training))
    cluster, odd = by_size(cluster[training.first_of]), odd[training.first_of]
    same, different_ = read_corrections(img_paths)
    if config.ASSIGN_TO:
        cluster = assigned(*earlier_run(config.ASSIGN_TO, features.shape[1]), features)
    if same or different_:
        data = som.Directions(features, training.centre)
        cluster = corrected(cluster, sure, runner_up, data, same, different_)
    return cluster if config.ASSIGN_TO else by_size(cluster), odd


def curve(training: Training, cluster: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Finer and coarser cuts around the final `cluster`: granularities ascending, and clusters (n_cuts, n) int32.

    A granularity is the cut's number of clusters relative to the final one; 1.0 is the final one itself.
    """
    numbers = training.cuts.max(axis=1) + 1
    wanted = int(cluster.max()) + 1 if not config.ASSIGN_TO else len(np.unique(cluster))
    cuts = {
        round(number / wanted, 4): by_size(c[training.first_of])
        for number, c in zip(numbers, training.cuts, strict=True)
    }
    cuts[1.0] = cluster
    granularity = sorted(cuts)
    return np.array(granularity, np.float32), np.stack([cuts[g] for g in granularity]).astype(np.int32)


def write(cluster: np.ndarray, odd: np.ndarray, training: Training, img_paths: list[str], origin: dict, seconds: float):
    """Write the files of the contract, the record last; returns their paths."""
    memory.give_back_freed()
    folder = files.data_dir(config.DATASET)
    rows, cols, n_features = training.weights.shape
    unit = training.units[:, 0]
    some = np.unique(training.first_of, return_index=True)[1]
    sure, runner_up = (of_image[training.first_of] for of_image in confidence(cluster[some], training))
    grid = som.from_weights(training.weights, config.SOM_TOPOLOGY)
    granularity, cuts = curve(training, cluster)
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
    with files.whole(outputs[4]) as temporary:
        np.savez(
            temporary,
            weights=training.weights,
            topology=np.array(config.SOM_TOPOLOGY),
            u_matrix=som.u_matrix(grid),
            hits=np.bincount(unit, minlength=rows * cols).reshape(rows, cols),
            unit_cluster=unit_clusters(cluster, training),
            unit_of_image=unit,
            cut_granularity=granularity,
            cut_clusters=cuts,
        )
    n_clusters = len(np.unique(cluster))
    forced = bool(config.N_CLUSTERS or config.ASSIGN_TO)
    interval = [n_clusters] if forced else [n_clusters, *np.rint(training.interval * config.CLUSTER_GRANULARITY)]
    files.write_record(
        folder / "clustering.json",
        origin,
        outputs,
        n_images=len(img_paths),
        n_features=n_features,
        n_clusters=n_clusters,
        n_clusters_interval=[int(min(interval)), int(max(interval))],
        granularity_curve=[
            {"granularity": round(float(g), 4), "n_clusters": len(np.unique(c))}
            for g, c in zip(granularity, cuts, strict=True)
        ],
        map_rows=rows,
        map_cols=cols,
        topology=config.SOM_TOPOLOGY,
        quantization_error=float(training.distances[:, 0].mean()),
        topographic_error=som.topographic_error(grid, training.units),
        n_units_hit=len(np.unique(unit)),
        n_outliers=int(odd.sum()),
        seconds=round(seconds, 1),
    )
    return outputs


def main() -> None:
    begin = time.perf_counter()
    features, img_paths = files.read_features(config.DATASET)
    folder = files.data_dir(config.DATASET)
    inputs = {
        files.shown(path): files.fingerprint_file(path) for path in (folder / "features.npy", folder / "img_paths.txt")
    }
    others = [folder / "corrections.csv"]
    if config.ASSIGN_TO:
        others += [files.data_dir(config.ASSIGN_TO) / name for name in ("clusters.csv", "features.npy")]
    origin = files.made_from(
        __file__,
        inputs | {files.shown(path): files.fingerprint_file(path) for path in others},
        [*TRAINING_SETTINGS, "N_CLUSTERS", "CLUSTER_GRANULARITY", "OUTLIERS", "ASSIGN_TO"],
    )
    if files.up_to_date(folder / "clustering.json", origin):
        files.unchanged([folder / "clusters.csv"])
        return
    if config.ASSIGN_TO == config.DATASET:
        raise settings.UserError(
            f"ASSIGN_TO = {config.ASSIGN_TO!r} is DATASET itself: name the data set of an earlier run"
        )

    training = trained(features, img_paths, inputs)
    cluster, odd = clusters_of(training, features, img_paths)
    outputs = write(cluster, odd, training, img_paths, origin, time.perf_counter() - begin)
    low, high = files.read_json(folder / "clustering.json", "04.clustering_som.py")["n_clusters_interval"]
    print(f"{len(np.unique(cluster))} clusters (interval {low} to {high}), {odd.sum()} outliers")
    files.summary(len(img_paths), len(img_paths), 0, outputs, time.perf_counter() - begin)


if __name__ == "__main__":
    settings.run(main, __doc__)
