"""Group the images into clusters with a Self-Organizing Map; the number of clusters is predicted.

    python 04.clustering_som.py
    python 04.clustering_som.py --CLUSTER_GRANULARITY=1.3

1. A map with one unit per few images is trained on all features (`pipeline/som.py`), without dimension reduction.
2. The map tells where an image's neighbours are: they are looked for among the images of the nearest units only,
   so that time grows linearly with the number of images.
3. Infomap groups the images on the graph of their k nearest neighbours, once for each k of SCALES. Small k finds
   small clusters, large k finds large ones.
4. The scale whose clusters lie furthest apart (largest mean silhouette) is taken: that predicts the number.
CLUSTER_GRANULARITY and N_CLUSTERS cut finer or coarser from what 1 to 3 stored, without training again.

Reads:  data/D/features.npy, data/D/img_paths.txt
Writes: data/D/clusters.csv, data/D/labels_pred.txt, data/D/labels_pred.tsv, data/D/labels_pred.npy,
        data/D/som.npz, data/D/clustering.json, data/D/som_training.npz, data/D/som_training.json
Config: DATASET, RANDOM_SEED, SOM_IMAGES_PER_UNIT, SOM_MAX_UNITS, SOM_TOPOLOGY, SOM_INITIALISATION, SOM_EPOCHS,
        N_CLUSTERS, CLUSTER_GRANULARITY
"""

import heapq
import random
import time
from typing import NamedTuple

import igraph
import numpy as np
from scipy import sparse
from tqdm import tqdm

import config
from pipeline import files, settings, som

SCALES = (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 15, 20, 25, 30, 40, 60)  # nearest neighbours that an image is linked to
CANDIDATES = 2000  # images among which the neighbours of an image are looked for
TILE_IMAGES = 256  # images of adjoining units that share their candidates
GRANULARITIES = (0.25, 0.35, 0.5, 0.7, 0.85, 1.0, 1.2, 1.4, 2.0, 2.8, 4.0)  # cuts kept for the report
TRAINING_SETTINGS = ("RANDOM_SEED", "SOM_IMAGES_PER_UNIT", "SOM_MAX_UNITS", "SOM_TOPOLOGY", "SOM_INITIALISATION",
                     "SOM_EPOCHS")  # fmt: skip


class Training(NamedTuple):
    """All that a cut needs, as kept in som_training.npz; n images, of which m differ from one another."""

    weights: np.ndarray  # (rows, cols, n_features) float32
    centre: np.ndarray  # (n_features,) float32, see som.Directions
    units: np.ndarray  # (n, 2) int32, nearest and second nearest unit
    distances: np.ndarray  # (n, 2) float32
    first_of: np.ndarray  # (n,) int32, the one of m different images that each is
    neighbours: np.ndarray  # (m, k) int32, nearest first
    similarity: np.ndarray  # (m, k) float32, cosine, -1..1
    scales: np.ndarray  # (n_scales,) int32
    partitions: np.ndarray  # (n_scales, m) int32
    silhouettes: np.ndarray  # (n_scales,) float32


# ---- the map and the neighbours ---------------------------------------------------------------------


def check_finite(features: np.ndarray, img_paths: list[str]) -> None:
    """Raise UserError naming the rows of `features` that hold NaN or infinity."""
    bad = [
        rows.start + np.flatnonzero(~np.isfinite(features[rows]).all(axis=1)) for rows in som.chunks(*features.shape)
    ]
    bad = np.concatenate(bad)
    if len(bad):
        named = ", ".join(f"{row} ({img_paths[row]})" for row in bad[:5]) + (", ..." if len(bad) > 5 else "")
        raise settings.UserError(
            f"{files.shown(files.data_dir(config.DATASET))}/features.npy: {len(bad)} rows hold NaN or infinite values: "
            f"{named}; run 03.feature_extraction.py again"
        )


def different(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows that differ from all earlier ones, and for each row which of those it equals.

    A photograph that is there many times would pull a cluster together: it takes part in the grouping once.
    """
    seen: dict[bytes, int] = {}
    first_of = np.empty(len(features), np.int32)
    rows = []
    for part in som.chunks(*features.shape):
        for row, values in enumerate(np.ascontiguousarray(features[part]), start=part.start):
            key = values.tobytes() if values.nbytes < 32 else _digest(values)
            first_of[row] = seen.setdefault(key, len(seen))
            if first_of[row] == len(rows):
                rows.append(row)
    return np.array(rows), first_of


def _digest(values: np.ndarray) -> bytes:
    import hashlib

    return hashlib.blake2b(values, digest_size=16).digest()


def tiles(unit_of_image: np.ndarray, rows: int, cols: int) -> list[np.ndarray]:
    """Rectangles of the map with at most TILE_IMAGES images each (or of one unit): arrays of their hit units."""
    hits = np.bincount(unit_of_image, minlength=rows * cols).reshape(rows, cols)
    found, todo = [], [(0, rows, 0, cols)]
    while todo:
        r0, r1, c0, c1 = todo.pop()
        here = hits[r0:r1, c0:c1]
        if here.sum() <= TILE_IMAGES or here.size == 1:
            row, col = np.nonzero(here)
            if len(row):
                found.append((row + r0) * cols + col + c0)
        elif r1 - r0 >= c1 - c0:
            middle = (r0 + r1) // 2
            todo += [(r0, middle, c0, c1), (middle, r1, c0, c1)]
        else:
            middle = (c0 + c1) // 2
            todo += [(r0, r1, c0, middle), (r0, r1, middle, c1)]
    return found


def nearest_images(data: som.Directions, weights: np.ndarray, unit_of_image: np.ndarray, k: int):
    """The k nearest images of each image, looked for among the images of the units nearest to its own.

    Parameters
    ----------
    data : Directions of shape (n_images, n_features)
    weights : ndarray of shape (rows, cols, n_features)
    unit_of_image : ndarray of shape (n_images,), row * cols + col
    k : 1..n_images - 1

    Returns
    -------
    neighbours : ndarray of shape (n_images, k), int32, nearest first
    similarity : ndarray of shape (n_images, k), float32, cosine

    Each tile of the map has at least CANDIDATES candidates (all images where there are fewer), so that the work is
    n_images * CANDIDATES * n_features.
    """
    rows, cols, n_features = weights.shape
    flat = weights.reshape(-1, n_features)
    hit = np.unique(unit_of_image)
    order = np.argsort(unit_of_image, kind="stable")
    start = np.searchsorted(unit_of_image[order], np.arange(rows * cols + 1))
    lengths = np.einsum("uf,uf->u", flat[hit], flat[hit])
    neighbours = np.empty((len(data), k), np.int32)
    similarity = np.empty((len(data), k), np.float32)
    for tile in tqdm(tiles(unit_of_image, rows, cols), desc="neighbours", unit="tile", disable=None):
        members = np.concatenate([order[start[unit] : start[unit + 1]] for unit in tile])
        gap = (lengths - 2 * (flat[tile] @ flat[hit].T)).min(axis=0)
        gap[np.isin(hit, tile)] = -np.inf
        near = hit[np.argsort(gap, kind="stable")]
        enough = np.searchsorted(np.cumsum(start[near + 1] - start[near]), max(CANDIDATES, k + 1)) + 1
        candidates = np.concatenate([order[start[unit] : start[unit + 1]] for unit in near[:enough]])
        for begin in range(0, len(members), CANDIDATES):
            some = members[begin : begin + CANDIDATES]
            among = candidates
            if len(among) > 4 * CANDIDATES:  # one unit with very many images: those next to them in order
                among = np.unique(np.r_[np.arange(begin - CANDIDATES, begin + 2 * CANDIDATES) % len(candidates)])
                among = candidates[among]
            cosine = data[some] @ data[among].T
            cosine[some[:, None] == among[None, :]] = -np.inf
            top = np.argpartition(-cosine, k - 1, axis=1)[:, :k]
            value = np.take_along_axis(cosine, top, axis=1)
            rank = np.lexsort((among[top], -value), axis=1)
            neighbours[some] = among[np.take_along_axis(top, rank, axis=1)]
            similarity[some] = np.take_along_axis(value, rank, axis=1)
    return neighbours, similarity


# ---- grouping at many scales ------------------------------------------------------------------------


def neighbour_graph(neighbours: np.ndarray, k: int) -> igraph.Graph:
    """The graph that links each image with its k nearest; a link that both have counts twice."""
    n = len(neighbours)
    a, b = np.repeat(np.arange(n), k), neighbours[:, :k].ravel()
    links = sparse.coo_matrix((np.ones(n * k, np.float32), (np.minimum(a, b), np.maximum(a, b))), (n, n)).tocsr()
    links.sum_duplicates()
    links = links.tocoo()
    graph = igraph.Graph(n=n, edges=np.column_stack([links.row, links.col]))
    graph.es["weight"] = links.data
    return graph


def communities(neighbours: np.ndarray, k: int, seed: int) -> np.ndarray:
    """Infomap on the graph of the k nearest neighbours: (m,) int32 (Rosvall & Bergstrom 2008,
    doi:10.1073/pnas.0706851105).
    """
    igraph.set_random_number_generator(random.Random(seed))
    found = neighbour_graph(neighbours, k).community_infomap(edge_weights="weight", trials=2)
    return np.array(found.membership, np.int32)


def cluster_sums(data: som.Directions, cluster: np.ndarray) -> np.ndarray:
    """Sum of the directions in each cluster, (n_clusters, n_features) float64."""
    sums = np.zeros((cluster.max() + 1, data.shape[1]))
    for rows in som.chunks(*data.shape):
        part = data[rows]
        member = sparse.csr_matrix((np.ones(len(part)), (cluster[rows], np.arange(len(part)))), (len(sums), len(part)))
        sums += member @ part
    return sums


def silhouette(data: som.Directions, cluster: np.ndarray, neighbours: np.ndarray) -> np.ndarray:
    """Silhouette of each image by mean cosine distances, (m,) float32, -1..1; 0 in a cluster of one image.

    (b - a) / max(a, b), a = mean distance to the other images of its cluster, b = the smallest mean distance to the
    images of another cluster (Rousseeuw 1987, doi:10.1016/0377-0427(87)90125-7). The mean cosine to a cluster is the
    cosine to the mean of its directions, so that no pair of images is looked at; the other clusters considered are
    those of the image's neighbours and the eight nearest to its own.
    """
    size = np.bincount(cluster)
    sums = cluster_sums(data, cluster)
    means = (sums / size[:, None]).astype(np.float32)
    result = np.zeros(len(data), np.float32)
    if len(size) < 2:
        return result
    for rows in som.chunks(len(data), max(data.shape[1], len(size))):
        part, own = data[rows], cluster[rows]
        cosine = part @ means.T
        mine = np.take_along_axis(cosine, own[:, None], axis=1)[:, 0]
        a = 1 - (mine * size[own] - 1) / np.maximum(size[own] - 1, 1)
        cosine[np.arange(len(own)), own] = -np.inf
        b = 1 - cosine.max(axis=1)
        result[rows] = np.where(size[own] > 1, (b - a) / np.maximum(np.maximum(a, b), 1e-12), 0)
    return result


def train(features: np.ndarray) -> Training:
    """Train the map, find the neighbours, group at every scale."""
    rows_used, first_of = different(features)
    data = som.Directions(features)
    rows, cols = som.map_shape(len(rows_used), config.SOM_IMAGES_PER_UNIT, config.SOM_MAX_UNITS)
    grid = som.new_map(rows, cols, features.shape[1], config.SOM_TOPOLOGY, config.RANDOM_SEED)
    som.initialise(grid, data, config.SOM_INITIALISATION, config.RANDOM_SEED)
    som.train_batch(grid, data, config.SOM_EPOCHS)
    units, distances = som.assign(grid, data)
    weights = grid.get_weights().astype(np.float32)

    if len(rows_used) < len(features):
        data = som.Directions(features[rows_used], data.centre)
    m = len(data)
    scales = [k for k in SCALES if k <= m / 4] if m >= 4 else []
    neighbours = np.empty((m, 0), np.int32)
    similarity = np.empty((m, 0), np.float32)
    partitions, silhouettes = [np.arange(m, dtype=np.int32)], [0.0]
    if scales:
        neighbours, similarity = nearest_images(data, weights, units[rows_used, 0], scales[-1])
        partitions = [communities(neighbours, k, config.RANDOM_SEED) for k in scales]
        silhouettes = [silhouette(data, cluster, neighbours).mean() for cluster in partitions]
    return Training(
        weights, data.centre, units, distances, first_of, neighbours, similarity,
        np.array(scales or [0], np.int32), np.stack(partitions), np.array(silhouettes, np.float32),
    )  # fmt: skip


# ---- cutting ----------------------------------------------------------------------------------------


def merged(cluster: np.ndarray, neighbours: np.ndarray, n_clusters: int) -> np.ndarray:
    """Join the two clusters with the most links between them, for their sizes, until `n_clusters` are left."""
    n = cluster.max() + 1
    links: list[dict[int, float]] = [{} for _ in range(n)]
    a = np.repeat(cluster, min(10, neighbours.shape[1]))
    b = cluster[neighbours[:, :10]].ravel()
    pairs = sparse.coo_matrix((np.ones(len(a)), (a, b)), (n, n)).tocsr()
    pairs = (pairs + pairs.T).tocoo()
    for i, j, value in zip(pairs.row.tolist(), pairs.col.tolist(), pairs.data.tolist(), strict=True):
        if i != j:
            links[i][j] = value
    size = np.bincount(cluster).astype(float).tolist()
    heap = [(-value / (size[i] * size[j]) ** 0.5, i, j) for i in range(n) for j, value in links[i].items() if i < j]
    heapq.heapify(heap)
    parent = list(range(n))
    left = n
    while left > n_clusters:
        if heap:
            score, i, j = heapq.heappop(heap)
            if parent[i] != i or parent[j] != j or -score != links[i].get(j, 0) / (size[i] * size[j]) ** 0.5:
                continue
        else:  # nothing links the rest: the two smallest
            i, j = sorted(sorted((k for k in range(n) if parent[k] == k), key=size.__getitem__)[:2])
        parent[j] = i
        size[i] += size[j]
        for other, value in links[j].items():
            if other != i:
                links[i][other] = links[other][i] = links[i].get(other, 0) + value
                links[other].pop(j, None)
        links[i].pop(j, None)
        for other, value in links[i].items():
            heapq.heappush(heap, (-value / (size[i] * size[other]) ** 0.5, min(i, other), max(i, other)))
        left -= 1
    for i in range(n):  # parents have lower numbers or were joined later
        while parent[i] != parent[parent[i]]:
            parent[i] = parent[parent[i]]
    return np.unique(np.array(parent)[cluster], return_inverse=True)[1].astype(np.int32)


def cut(training: Training, n_clusters: int) -> np.ndarray:
    """Exactly `n_clusters` clusters of the m different images (at most m), from the stored partitions."""
    numbers = training.partitions.max(axis=1) + 1
    enough = np.flatnonzero(numbers >= n_clusters)
    if len(enough):
        start = enough[np.argmin(numbers[enough])]
        return merged(training.partitions[start], training.neighbours, n_clusters)
    cluster = training.partitions[numbers.argmax()].copy()
    # finer than the finest partition: the least typical images become clusters of their own
    alone = np.argsort(training.similarity[:, :1].sum(axis=1), kind="stable")
    size = np.bincount(cluster)
    n = len(size)
    for image in alone:
        if n == n_clusters:
            break
        if size[cluster[image]] > 1:
            size[cluster[image]] -= 1
            cluster[image] = n
            size = np.append(size, 1)
            n += 1
    return cluster


def by_size(cluster: np.ndarray) -> np.ndarray:
    """Number clusters from 0 by size descending; equal sizes by their first image."""
    ids, first, inverse, size = np.unique(cluster, return_index=True, return_inverse=True, return_counts=True)
    new = np.empty(len(ids), np.int32)
    new[np.lexsort((first, -size))] = np.arange(len(ids))
    return new[inverse]


def votes(cluster: np.ndarray, training: Training) -> tuple[np.ndarray, np.ndarray]:
    """Confidence of each of the m images, and the cluster that has the next most of its neighbours (-1: none)."""
    k = min(10, training.neighbours.shape[1])
    confidence = np.ones(len(cluster), np.float32)
    runner_up = np.full(len(cluster), -1, np.int32)
    if not k:
        return confidence, runner_up
    weight = np.maximum(training.similarity[:, :k], 1e-6)
    rows = np.repeat(np.arange(len(cluster)), k)
    share = sparse.coo_matrix(
        (weight.ravel(), (rows, cluster[training.neighbours[:, :k]].ravel())), (len(cluster), cluster.max() + 1)
    ).tocsr()
    share = share.multiply(1 / share.sum(axis=1).reshape(-1, 1)).tocsr()
    confidence = np.asarray(share[np.arange(len(cluster)), cluster]).ravel()
    share = share.tolil()
    share[np.arange(len(cluster)), cluster] = 0
    share = share.tocsr()
    share.eliminate_zeros()
    some = np.diff(share.indptr) > 0
    runner_up[some] = np.asarray(share.argmax(axis=1)).ravel()[some]
    return confidence, runner_up


def unit_clusters(cluster: np.ndarray, training: Training) -> np.ndarray:
    """Majority cluster of each unit's images, (rows, cols) int32; a unit without images takes the nearest's."""
    rows, cols, _ = training.weights.shape
    unit = training.units[:, 0]
    count = sparse.coo_matrix((np.ones(len(unit)), (unit, cluster)), (rows * cols, cluster.max() + 1)).tocsr()
    result = np.asarray(count.argmax(axis=1)).ravel()
    hit = np.unique(unit)
    grid = np.stack(np.divmod(np.arange(rows * cols), cols), axis=1)
    from scipy.spatial import cKDTree

    result = result[hit[cKDTree(grid[hit]).query(grid)[1]]]
    return result.reshape(rows, cols).astype(np.int32)


# ---- reading and writing ----------------------------------------------------------------------------


def trained(features: np.ndarray, img_paths: list[str], inputs: dict[str, str]) -> Training:
    """The training of an earlier run where nothing it depends on has changed, else a new one, which is stored."""
    path = files.data_dir(config.DATASET) / "som_training.npz"
    origin = files.made_from(__file__, inputs, TRAINING_SETTINGS)
    if files.up_to_date(path.with_suffix(".json"), origin):
        with np.load(path, allow_pickle=False) as stored:
            return Training(**{name: stored[name] for name in Training._fields})
    check_finite(features, img_paths)
    training = train(features)
    with files.whole(path) as temporary:
        np.savez(temporary, **training._asdict())
    files.write_record(path.with_suffix(".json"), origin, [path])
    return training


def write(cluster, confidence, runner_up, training: Training, cuts, img_paths, origin, seconds) -> list:
    """Write all files of the contract, the record last; returns their paths."""
    folder = files.data_dir(config.DATASET)
    rows, cols, n_features = training.weights.shape
    grid = som.from_weights(training.weights, config.SOM_TOPOLOGY)
    row, col = np.divmod(training.units[:, 0], cols)
    outputs = [folder / name for name in
               ("clusters.csv", "labels_pred.txt", "labels_pred.tsv", "labels_pred.npy", "som.npz")]  # fmt: skip
    files.write_csv(
        outputs[0],
        ["image", "cluster", "confidence", "unit_row", "unit_col", "distance", "runner_up", "outlier"],
        (
            (name, c, f"{p:.4f}", r, k, f"{d:.6f}", "" if up < 0 else up, 0)
            for name, c, p, r, k, d, up in zip(
                img_paths, cluster, confidence, row, col, training.distances[:, 0], runner_up, strict=True
            )
        ),
    )
    files.write_lines(outputs[1], cluster)
    files.write_lines(outputs[2], ["image\tcluster", *(f"{n}\t{c}" for n, c in zip(img_paths, cluster, strict=True))])
    files.write_npy(outputs[3], cluster.astype(np.int64))
    with files.whole(outputs[4]) as temporary:
        np.savez(
            temporary,
            weights=training.weights,
            topology=np.array(config.SOM_TOPOLOGY),
            u_matrix=som.u_matrix(grid),
            hits=np.bincount(training.units[:, 0], minlength=rows * cols).reshape(rows, cols),
            unit_cluster=unit_clusters(cluster, training),
            unit_of_image=training.units[:, 0],
            cut_granularity=np.array([g for g, _ in cuts], np.float32),
            cut_clusters=np.stack([c for _, c in cuts]).astype(np.int32),
        )
    n_clusters = int(cluster.max()) + 1
    near = training.silhouettes >= training.silhouettes.max() - 0.01
    numbers = training.partitions.max(axis=1)[near] + 1
    files.write_record(
        folder / "clustering.json",
        origin,
        outputs,
        n_images=len(img_paths),
        n_features=n_features,
        n_clusters=n_clusters,
        n_clusters_interval=[min(n_clusters, int(numbers.min())), max(n_clusters, int(numbers.max()))],
        granularity_curve=[{"granularity": g, "n_clusters": int(c.max()) + 1} for g, c in cuts],
        map_rows=rows,
        map_cols=cols,
        topology=config.SOM_TOPOLOGY,
        quantization_error=float(training.distances[:, 0].mean()),
        topographic_error=som.topographic_error(grid, training.units),
        n_units_hit=len(np.unique(training.units[:, 0])),
        n_outliers=0,
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
    origin = files.made_from(__file__, inputs, [*TRAINING_SETTINGS, "N_CLUSTERS", "CLUSTER_GRANULARITY"])
    if files.up_to_date(folder / "clustering.json", origin):
        files.unchanged([folder / "clusters.csv"])
        return

    training = trained(features, img_paths, inputs)
    m = len(training.partitions[0])
    predicted = config.N_CLUSTERS or int(training.partitions[training.silhouettes.argmax()].max()) + 1
    if predicted > m:
        raise settings.UserError(f"N_CLUSTERS = {config.N_CLUSTERS} is more than the {m} different images there are")
    cuts = []
    for granularity in sorted({*GRANULARITIES, float(config.CLUSTER_GRANULARITY)}):
        at = training.partitions[training.silhouettes.argmax()] if granularity == 1 and not config.N_CLUSTERS else cut(
            training, int(np.clip(round(predicted * granularity), 1, m)))  # fmt: skip
        cuts.append((granularity, by_size(at[training.first_of])))
    cluster = next(c for g, c in cuts if g == config.CLUSTER_GRANULARITY)
    # the report's slider has 1.0 where the run's own clusters are
    cuts = [(g / config.CLUSTER_GRANULARITY, c) for g, c in cuts]
    some = np.unique(training.first_of, return_index=True)[1]
    confidence, runner_up = votes(cluster[some], training)
    confidence, runner_up = confidence[training.first_of], runner_up[training.first_of]
    seconds = time.perf_counter() - begin
    outputs = write(cluster, confidence, runner_up, training, cuts, img_paths, origin, seconds)
    print(f"{cluster.max() + 1} clusters")
    files.summary(len(img_paths), len(img_paths), 0, outputs, time.perf_counter() - begin)


if __name__ == "__main__":
    settings.run(main, __doc__)
