"""Groupings at every scale and the choice among them, on arrays worked by hand."""

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from sklearn.metrics import adjusted_rand_score

from pipeline.clustering import partitions
from pipeline.clustering.directions import Directions
from pipeline.clustering.neighbours import Tile


def test_vote_moves_a_stray_image():
    cluster = np.array([0, 0, 0, 0, 1, 1, 1, 1], np.int32)
    neighbours = np.array([[1, 2], [0, 2], [0, 1], [4, 5], [5, 6], [4, 6], [5, 7], [6, 5]])
    similarity = np.full((8, 2), 0.9, np.float32)
    assert partitions.voted(cluster, neighbours, similarity).tolist() == [0, 0, 0, 1, 1, 1, 1, 1]


def test_parts_that_nothing_links_are_taken_apart():
    # two rings of 6 images in one cluster; a finer partition knows them, another cuts across a ring
    ring = np.array([[(i + 1) % 6, (i - 1) % 6] for i in range(6)])
    neighbours = np.concatenate([ring, ring + 6])
    rings, across = np.repeat([0, 1], 6), np.array([0] * 3 + [1] * 9)
    cluster = np.zeros(12, np.int32)
    found = partitions.taken_apart(cluster, [across, rings], neighbours)
    assert adjusted_rand_score(rings, found) == 1
    # one link of 12 between them: too little to hold them together; three of 12 hold
    neighbours[0, 1] = 6
    assert partitions.taken_apart(cluster, [across, rings], neighbours).max() == 1
    neighbours[:2, 1] = 6
    assert partitions.taken_apart(cluster, [across, rings], neighbours).max() == 0
    assert partitions.taken_apart(cluster, [], neighbours).max() == 0


def test_stability_is_the_share_of_a_cluster_that_nearby_scales_find_again():
    halves, odd, whole = np.array([0, 0, 1, 1]), np.array([0, 1, 1, 1]), np.zeros(4, int)
    scales = [partitions.Scale(k, cluster, 0.0) for k, cluster in ((10, halves), (10, odd), (1000, whole))]
    # {0, 1} and {0}: 1/2; {0, 1} and {1, 2, 3}: 1/4; {2, 3} and {1, 2, 3}: 2/3; the scale of 1000 is too far to count
    expected = [[1 / 2, 1 / 4, 2 / 3, 2 / 3]] * 2 + [[0] * 4]
    np.testing.assert_allclose(partitions.stability(scales), expected, atol=1e-6)
    # at k = 12 the weight is exp(-ln(1.2)^2 / (2 * 0.4^2)), and the mean of one other scale is that scale
    scales = [partitions.Scale(k, cluster, 0.0) for k, cluster in ((10, halves), (12, odd))]
    np.testing.assert_allclose(partitions.stability(scales), expected[:2], atol=1e-6)


def test_the_scale_found_again_by_its_neighbours_is_taken():
    rng = np.random.default_rng(0)
    steady = np.repeat(np.arange(10), 12)
    scales = [partitions.Scale(k, rng.permutation(np.arange(120) % n), 0.0) for k, n in ((2, 40), (3, 30), (30, 4))]
    scales[2:2] = [partitions.Scale(k, steady, 0.0) for k in (8, 9, 10)]
    best, interval, _ = partitions.best_scale(scales[::-1], seed=0)
    assert (scales[::-1][best].cluster == steady).all() and interval.tolist() == [10, 10]


def test_the_interval_holds_the_numbers_of_scales_that_hold_nearly_as_well():
    steady = np.repeat(np.arange(10), 12)
    finer = np.where(np.arange(120) < 6, 10, steady)  # one of ten clusters in two halves
    scales = [partitions.Scale(k, steady, 0.0) for k in (8, 9, 10)] + [partitions.Scale(12, finer, 0.0)]
    best, interval, _ = partitions.best_scale(scales, seed=0)
    assert (scales[best].cluster == steady).all() and interval.tolist() == [10, 11]
    # in none of four clusters do the scales agree on more than a third: no longer nearly as well
    coarse = np.arange(120) % 4
    assert partitions.best_scale([*scales[:3], partitions.Scale(12, coarse, 0.0)], seed=0)[1].tolist() == [10, 10]


def test_the_finest_of_scales_that_hold_about_as_well():
    steady = np.repeat(np.arange(10), 100)
    halved = np.where(np.arange(1000) < 5, 10, steady)  # five images less in one of ten clusters
    scales = [partitions.Scale(k, steady, 0.0) for k in (8, 9, 10)] + [partitions.Scale(12, halved, 0.0)]
    assert partitions.best_scale(scales, seed=0)[0] < 3
    best, interval, _ = partitions.best_scale(scales, seed=0, finest=True)
    assert best == 3 and interval.tolist() == [10, 11]
    # every cluster in two halves: no longer about as well
    scales[3] = partitions.Scale(12, np.repeat(np.arange(20), 50), 0.0)
    assert partitions.best_scale(scales, seed=0, finest=True)[0] < 3


def test_quality_is_stability_and_silhouette_of_the_best_scale():
    halves = np.repeat([0, 1], 10)
    # equal partitions: each keeps all of its clusters, and the mean over scales of equal numbers is that of all
    scales = [partitions.Scale(k, halves, apart) for k, apart in ((9, 0.2), (10, 0.4), (11, 0.6))]
    best, _, quality = partitions.best_scale(scales, seed=0)
    assert best == 2 and quality == pytest.approx(1 + partitions.HELD_APART * (0.9 * 0.4 + 0.1 * 0.6))


def test_a_cluster_whose_neighbours_are_elsewhere_is_joined():
    # images 0 to 5 have each other; 6 and 7 are a cluster, though both have only images of the first near
    neighbours = np.array([[1, 2], [0, 2], [0, 1], [4, 5], [3, 5], [3, 4], [0, 1], [0, 1]])
    cluster = np.array([0, 0, 0, 0, 0, 0, 1, 1], np.int32)
    assert partitions.joined(cluster, neighbours).tolist() == [0] * 8
    # a pair that has each other nearest stays, whatever comes second
    neighbours[6:] = [[7, 0], [6, 0]]
    assert partitions.joined(cluster, neighbours).tolist() == cluster.tolist()
    # two of a chain that lean on each other's neighbour end in one cluster, with it
    neighbours[6:] = [[0, 1], [6, 0]]
    assert partitions.joined(np.array([0, 0, 0, 0, 0, 0, 1, 2]), neighbours).tolist() == [0] * 8


def test_silhouette_by_hand():
    # two pairs at right angles; the third of cluster 0 lies between
    data = np.array([[1, 0], [1, 0], [0.6, 0.8], [0, 1], [0, 1]], np.float32)
    tiling = [Tile(np.arange(5), np.arange(5))]
    # image 2: a = 1 - 0.6 = 0.4, b = 1 - 0.8 = 0.2; image 0: a = (0 + 0.4) / 2, b = 1
    expected = [0.8, 0.8, -0.5, 1.0, 1.0]
    found = partitions.silhouette(data, np.array([0, 0, 0, 1, 1]), tiling)
    # images 3 and 4: b is the mean of 1, 1 and 0.2
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert partitions.silhouette(data, np.zeros(5, int), tiling).shape == (5,)
    some = partitions.silhouette(data, np.array([0, 0, 0, 1, 1]), [Tile(np.array([2, 4]), np.arange(5))])
    np.testing.assert_allclose(some, [np.nan, np.nan, -0.5, np.nan, 1.0], atol=1e-6)


def test_distances_are_evened_by_the_scatter_within_clusters():
    rng = np.random.default_rng(4)
    cluster = np.repeat([0, 1, 2], 40)
    data = (rng.standard_normal((120, 6)) * [5, 2, 1, 1, 1, 0.2] + 3 * cluster[:, None]).astype(np.float32)
    gap = data - np.stack([data[cluster == c].mean(axis=0) for c in range(3)])[cluster]
    scatter = gap.T @ gap
    shrunk = scatter + partitions.SHRINK * np.trace(scatter) / 6 * np.eye(6)
    expected = cdist(data, data, "mahalanobis", VI=np.linalg.inv(shrunk))
    found = data @ partitions.evened(data, cluster)
    np.testing.assert_allclose(cdist(found, found), expected, atol=1e-4)
    # nothing differs within clusters: all directions stay as they are
    data = np.repeat(np.eye(3, dtype=np.float32), 2, axis=0)
    np.testing.assert_allclose(partitions.evened(data, np.repeat([0, 1, 2], 2)), np.eye(3), atol=1e-6)


def test_what_differs_is_found_on_a_bounded_number_of_images():
    tiling = [Tile(np.arange(start, start + 100), np.arange(5000)) for start in range(0, 5000, 100)]
    some = partitions.picked(tiling)
    # 20 of the 50 tiles, whole, the first and the last among them
    assert len(some) == partitions.EVENED_IMAGES == 2000 and (np.diff(some) > 0).all()
    assert (np.bincount(some // 100, minlength=50) % 100 == 0).all() and some[0] == 0 and some[-1] == 4999
    assert partitions.picked(tiling[:20]).tolist() == list(range(2000))
    assert len(partitions.picked([Tile(np.arange(3000), np.arange(3000))])) == 3000


@pytest.mark.parametrize("better", ["predicted", "nearest", "none"])
def test_the_evening_that_makes_clusters_hold_best_is_taken(monkeypatch, better):
    rng = np.random.default_rng(5)
    data = Directions(rng.standard_normal((90, 16)).astype(np.float32))[:]
    tiling = [Tile(np.arange(90), np.arange(90))]
    first = partitions.grouped(data, tiling, 0)
    assert partitions.grouped(data, tiling, 0, finest=True).apart == first.apart  # one scale holds best by far
    cluster = partitions.grouped_at(data, tiling, partitions.EVENED_AT, 0)
    for _ in range(2):
        cluster = partitions.grouped_at(
            Directions(data @ partitions.evened(data, cluster))[:], tiling, partitions.EVENED_AT, 0
        )
    expected = first.partitions[first.predicted] if better == "predicted" else cluster
    # with the evening by the predicted clusters, by nearest neighbours: quality, and silhouette more than without
    said = {
        "predicted": [(0.7, 0.0), (0.6, 0.1)],
        "nearest": [(0.6, -0.1), (0.7, 0.1)],
        "none": [(0.7, -0.01), (0.6, 0.1)],
    }
    grouped, scores = partitions.grouped, iter(said[better])

    def scored(*given):
        quality, more = next(scores)
        return grouped(*given)._replace(quality=quality, apart=first.apart + more)

    monkeypatch.setattr(partitions, "grouped", scored)
    chosen = partitions.best_evening(data, tiling, 0)
    if better == "none":
        assert chosen is None
        return
    k, matrix = chosen
    assert k == (first.k if better == "predicted" else partitions.EVENED_AT)
    np.testing.assert_allclose(matrix, partitions.evened(data, expected), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("m", [4, 5, 9, 20])
def test_evening_of_few_images(m):
    data = Directions(np.random.default_rng(m).standard_normal((m, 8)).astype(np.float32))[:]
    found = partitions.best_evening(data, [Tile(np.arange(m), np.arange(m))], 0)
    assert found is None or (found[1].shape == (8, 8) and np.isfinite(found[1]).all())
