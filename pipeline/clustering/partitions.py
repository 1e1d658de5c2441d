"""Groupings of the images on the graph of their neighbours, at every scale, and the one that holds best."""

import io
import random
from typing import NamedTuple

import igraph
import numpy as np
from scipy import linalg
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from pipeline import memory
from pipeline.clustering.directions import Directions, Product, chunks, means_of, scatter_within
from pipeline.clustering.neighbours import VOTERS, Tile, nearest_images, tiled
from pipeline.scoring.silhouette import silhouettes

SCALES = ((1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13), (15, 17, 20, 23, 26), (30, 35, 40, 50), (60, 70, 85, 100))
WORSE = 0.6  # share of the best silhouette under which the last scale of a row ends the search
GRAPH_LINKS = 180_000  # size of Infomap's graph: links at most, where that leaves an image LEAST_LINKS of them
IMAGE_LINKS = 12  # links that need as much memory as an image
LEAST_LINKS = 8  # that an image has, however many images there are
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
        for rows in chunks(len(cluster), VOTERS * VOTERS):
            theirs = cluster[nearest[rows]]
            total = ((theirs[:, :, None] == theirs[:, None, :]) * vote[rows, None, :]).sum(axis=2)
            total += (theirs == cluster[rows, None]) * 1e-6  # on a tie, stay
            best[rows] = np.take_along_axis(theirs, total.argmax(axis=1)[:, None], axis=1)[:, 0]
        if np.array_equal(best, cluster):
            break
        cluster = np.unique(best, return_inverse=True)[1].astype(np.int32)
    return cluster


def silhouette(data: "Directions | np.ndarray", cluster: np.ndarray, tiling: list[Tile]) -> np.ndarray:
    """Return the silhouette of each tile's members, (m,) float32, -1..1; NaN for members of no tile.

    The neighbouring clusters of a tile are those of its candidates (see `pipeline.scoring.silhouette`).
    """
    size = np.bincount(cluster)
    means = means_of(data, cluster, len(size))
    result = np.full(len(cluster), np.nan, np.float32)
    for members, candidates in tiling:
        near = np.unique(cluster[candidates])
        sums = means[near] * size[near, None].astype(np.float32)
        own = np.searchsorted(near, cluster[members])
        # where no other cluster is near: the centre of all images, at a right angle
        result[members] = silhouettes(data[members], own, sums, size[near], least_cosine=0.0)
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


def all_scales(data: "Directions | np.ndarray", tiling: list[Tile], seed: int):
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
    """What steps 2 to 4 find for m images: fields of the stage's `Training`; k, quality and silhouette of the scale."""

    partitions: np.ndarray
    predicted: int
    interval: np.ndarray
    neighbours: np.ndarray
    similarity: np.ndarray
    k: int
    quality: float
    apart: float


def chosen(
    scales: list[Scale], neighbours: np.ndarray, similarity: np.ndarray, seed: int, finest: bool = False
) -> Grouping:
    """Choose among what `all_scales` found, join and take apart; finest : see `best_scale`."""
    best, interval, quality = best_scale(scales, seed, finest)
    partitions = [scale.cluster for scale in scales]
    whole = joined(partitions[best], neighbours)
    apart = taken_apart(whole, [finer for finer in partitions if finer.max() > whole.max()], neighbours)
    interval = np.maximum(interval + int(apart.max() - partitions[best].max()), 1)
    place = int(np.searchsorted([cluster.max() for cluster in partitions], apart.max()))
    partitions = np.stack([*partitions[:place], apart, *partitions[place:]])
    return Grouping(partitions, place, interval, neighbours, similarity, scales[best].k, quality, scales[best].apart)


def grouped(data: np.ndarray, tiling: list[Tile], seed: int, finest: bool = False) -> Grouping:
    """Steps 2 to 4: find the neighbours, group at every scale, choose the scale, join and take apart.

    data : ndarray of shape (m, n_features), float32, directions, m >= 4; finest : see `best_scale`
    """
    return chosen(*all_scales(data, tiling, seed), seed, finest)


def grouped_at(data: np.ndarray, tiling: list[Tile], k: int, seed: int) -> np.ndarray:
    """Clusters by k nearest neighbours alone, or by as many as m images have, (m,) int32; data as in `grouped`."""
    neighbours, similarity = nearest_images(data, tiling, min(max(k, VOTERS), usable_scales(len(data))[-1][-1]))
    return joined(voted(communities(neighbours[:, :k], seed), neighbours, similarity), neighbours)


def evened(data: np.ndarray, cluster: np.ndarray) -> np.ndarray:
    """The matrix that evens out the scatter within clusters, (n_features, n_features) float32.

    Rows times this matrix differ by the Mahalanobis distance of the scatter within clusters, as in linear discriminant
    analysis (Fisher 1936, doi:10.1111/j.1469-1809.1936.tb02137.x), here with clusters in place of known classes (Ding
    & Li 2007, doi:10.1145/1273496.1273562). The scatter is shrunk strongly (SHRINK): there are fewer images than
    directions, and the clusters are not right everywhere.

    data : ndarray of shape (m, n_features), float32, directions; cluster : (m,), from 0
    """
    n_features = data.shape[1]
    _, scatter = scatter_within(data, cluster, int(cluster.max()) + 1)
    # images of one cluster that do not differ at all leave nothing to even out
    scatter[np.diag_indices(n_features)] += SHRINK * np.trace(scatter) / n_features or 1.0
    root = linalg.cholesky(scatter, lower=True, overwrite_a=True)
    inverse, _ = linalg.lapack.dtrtri(root, lower=True, overwrite_c=True)
    return inverse.T.astype(np.float32)


def closer(data: np.ndarray, matrix: np.ndarray) -> Directions:
    """Directions of the rows of `data` times `matrix`."""
    return Directions(Product(data, matrix))


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


def best_evening(data: np.ndarray, tiling: list[Tile], seed: int) -> tuple[int, np.ndarray] | None:
    """The matrix of `evened` that makes clusters hold best, or None where they stand apart better without any.

    Tried are the predicted clusters, and those by EVENED_AT neighbours alone, found EVENED_TIMES times. The ones whose
    evened directions give the grouping of the better quality are taken. Returns their k and their matrix.

    data : ndarray of shape (m, n_features), float32, directions, m >= 4
    """
    with tqdm(total=4, desc="what differs within clusters", disable=None) as progress:
        scales, *neighbourhood = all_scales(data, tiling, seed)
        predicted = chosen(scales, *neighbourhood, seed)
        left_as_they_are = scales[best_scale(scales, seed, finest=True)[0]]
        progress.update()
        nearest = grouped_at(data, tiling, EVENED_AT, seed)
        for _ in range(EVENED_TIMES - 1):
            nearest = grouped_at(closer(data, evened(data, nearest))[:], tiling, EVENED_AT, seed)
        progress.update()
        found = []
        for k, cluster in ((predicted.k, predicted.partitions[predicted.predicted]), (EVENED_AT, nearest)):
            if tells(cluster):
                matrix = evened(data, cluster)
                found.append((grouped(closer(data, matrix)[:], tiling, seed), k, matrix))
            progress.update()
    if not found:
        return None
    grouping, k, matrix = max(found, key=lambda one: one[0].quality)
    return (k, matrix) if grouping.apart >= left_as_they_are.apart else None


def evened_out(
    data: np.ndarray, some: np.ndarray, unit: np.ndarray, shape: tuple[int, int], handle: io.IOBase, seed: int
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
        best = best_evening(part, tiled(part, unit[some], shape), seed)
        if best is None:
            return data
        k, matrix = best
        evener = closer(data, matrix).kept(handle)
        del part, best, matrix
    cluster = grouped_at(evener, tiled(evener, unit, shape), k, seed)
    if not tells(cluster):
        return evener
    with threadpool_limits(1):
        return closer(data, evened(data, cluster)).kept(handle)
