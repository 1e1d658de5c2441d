"""New images among the clusters of earlier runs."""

import numpy as np
from drawn_features import groups

from pipeline.clustering.assignment import (
    Calibration,
    EarlierImages,
    Union,
    assign_images,
    calibrate,
    find_earlier,
    nearest_others,
    reasons_to_cluster_anew,
    unite,
)
from pipeline.clustering.directions import Directions
from pipeline.clustering.neighbours import exact_neighbours, index_images


def parts(n_models: int = 8, n_old: int = 5) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Directions and labels of 20 images of each model, and which of them are old: half of those of some models."""
    features, labels = groups([20] * n_models, spread=0.3)
    return Directions(features)[:], labels, (labels < n_old) & (np.arange(len(labels)) % 2 == 0)


def united(data: np.ndarray, labels: np.ndarray, old: np.ndarray) -> Union:
    runs = [
        EarlierImages(data[part], index_images(data[part], np.zeros(part.sum(), int)), 10 + labels[part])
        for part in (old & (labels % 2 == 0), old & (labels % 2 == 1))
        if part.any()
    ]
    return unite(*find_earlier(data[~old], runs, 20), *exact_neighbours(data[~old], 20))


def calibration(data: np.ndarray, labels: np.ndarray, old: np.ndarray) -> Calibration:
    return calibrate(labels[old], *exact_neighbours(data[old], 20), NOTHING, 5, 0.5)


SIZES = np.full(100, 10)  # earlier clusters with ids under 100
NOTHING = np.empty(0)


def test_images_get_the_ids_of_their_clusters_and_new_models_new_ids():
    data, labels, old = parts()
    cluster = assign_images(united(data, labels, old), calibration(data, labels, old), SIZES, seed=0)
    known = labels[~old] < 5
    np.testing.assert_array_equal(cluster[known], 10 + labels[~old][known])
    # three new models of 20 images each, numbered by size and first image
    np.testing.assert_array_equal(cluster[~known], 100 + labels[~old][~known] - 5)


def test_an_earlier_id_is_never_changed_by_the_other_new_images():
    data, labels, old = parts()
    measured = calibration(data, labels, old)
    together = assign_images(united(data, labels, old), measured, SIZES, seed=0)
    some = (labels < 3) & ~old
    alone = assign_images(united(data[old | some], labels[old | some], old[old | some]), measured, SIZES, seed=0)
    np.testing.assert_array_equal(alone, together[labels[~old] < 3])


def test_the_nearest_of_several_runs_are_found_in_order():
    data, labels, old = parts()
    union = united(data, labels, old)
    assert union.neighbours.shape == (len(data) - old.sum(), 20)
    assert (np.diff(union.similarity, axis=1) <= 0).all() and set(union.known) == {10, 11, 12, 13, 14}


def test_the_threshold_lies_between_the_links_within_and_those_to_other_clusters():
    # images 0-1-2 and 3-4-5 by hand: 0.8 within, 0.2 between
    neighbours = np.array([[1, 2, 3], [0, 2, 4], [0, 1, 5], [4, 5, 0], [3, 5, 1], [3, 4, 2]])
    similarity = np.tile(np.float32([0.8, 0.8, 0.2]), (6, 1))
    measured = calibrate(np.array([0, 0, 0, 7, 7, 7]), neighbours, similarity, NOTHING, 3, -1.0)
    assert abs(measured.threshold() - 0.65) < 1e-6
    # single images alone: more than what any of them has in common with another
    assert 0.8 < calibrate(np.arange(6), neighbours, similarity, NOTHING, 3, -1.0).threshold() <= 1
    assert calibrate(np.zeros(1, int), np.empty((1, 0), int), np.empty((1, 0)), NOTHING, 0, -1.0).threshold() == 1


def test_clusters_whose_images_have_no_others_among_their_neighbours_still_have_a_threshold():
    neighbours = np.array([[1, 2], [0, 2], [0, 1], [4, 5], [3, 5], [3, 4]])
    cluster, similarity = np.array([0, 0, 0, 7, 7, 7]), np.full((6, 2), 0.8, np.float32)
    directions = np.float32([[1, 0], [0, 1], [0.1, 0.995]])
    others = nearest_others(directions, np.array([0, 7, 7]))
    np.testing.assert_allclose(others, [0.1, 0, 0.1], atol=1e-6)
    measured = calibrate(cluster, neighbours, similarity, others, 2, -1.0)
    assert 0.1 < measured.threshold() < 0.8
    assert nearest_others(directions, np.zeros(3, int)).size == 0


def test_a_single_new_image():
    data, labels, old = parts()
    runs = [EarlierImages(data[old], index_images(data[old], np.zeros(old.sum(), int)), labels[old])]
    nothing = np.empty((1, 0), int), np.empty((1, 0), np.float32)
    measured = calibration(data, labels, old)
    for image, expected in ((1, 0), (150, 50)):
        union = unite(*find_earlier(data[image : image + 1], runs, 20), *nothing)
        assert assign_images(union, measured, SIZES[:50], seed=0).tolist() == [expected]


def test_the_reasons_to_cluster_anew():
    data, labels, old = parts(n_old=2)
    union, measured = united(data, labels, old), calibration(data, labels, old)
    cluster, least = assign_images(union, measured, SIZES, seed=0), measured.threshold()
    (stray,) = reasons_to_cluster_anew(cluster, union, least, 100, n_clustered=1000, n_assigned=140)
    assert stray == "120 of 140 images are in no earlier cluster"
    assert len(reasons_to_cluster_anew(cluster, union, least, 100, n_clustered=100, n_assigned=140)) == 2
    # two earlier clusters of one model
    data, labels, old = parts(n_models=2, n_old=2)
    union = united(data, np.zeros(40, int), old)
    union = union._replace(known=np.arange(len(union.known)) % 2)
    assert "may be one model" in reasons_to_cluster_anew(np.zeros(20, int), union, -1.0, 100, 1000, 20)[0]


# ten strengths within, ten between, 0.1 apart; they overlap from 0.4 to 0.6
OVERLAPPING = Calibration(np.linspace(0.4, 0.9, 10), np.linspace(0.1, 0.6, 10), 3, 0.7)


def test_the_threshold_falls_where_few_images_are_of_new_models():
    assert OVERLAPPING.threshold(0.1) <= 0.41 < OVERLAPPING.threshold() < 0.6 <= OVERLAPPING.threshold(0.9)


def test_the_share_of_new_models_is_found_from_the_links():
    rng = np.random.default_rng(0)
    for share in (0.0, 0.1, 0.5, 1.0):
        n = round(1000 * share)
        strength = np.concatenate([rng.uniform(0.1, 0.6, n), rng.uniform(0.4, 0.9, 1000 - n)])
        assert abs(OVERLAPPING.share_of_new(strength) - share) < 0.1
    assert OVERLAPPING.share_of_new(np.empty(0)) == 0


def test_an_odd_photograph_joins_its_cluster_where_hardly_any_is_of_a_new_model():
    # 40 images of cluster 0, but the last ones are linked with it by less than the threshold
    for similarity, n_new, joins in ((0.45, 1, True), (0.45, 30, False), (0.2, 1, False)):
        n = 40
        strength = np.full((n, 3), 0.85, np.float32)
        strength[-n_new:] = similarity
        union = Union(n + np.arange(3 * n).reshape(n, 3), strength, np.zeros(3 * n, int))
        cluster = assign_images(union, OVERLAPPING, np.full(10, 10), seed=0)
        assert (cluster[:-n_new] == 0).all() and (cluster[-1] == 0) == joins


def test_an_image_with_one_near_image_is_linked_as_the_earlier_run_linked():
    # new models are many, but one image each has an image of cluster 0 as near as links were
    strength = np.tile(np.float32([0.3, 0.2, 0.1]), (20, 1))
    strength[0] = [0.75, 0.2, 0.1]
    union = Union(20 + np.arange(60).reshape(20, 3), strength, np.zeros(60, int))
    cluster = assign_images(union, OVERLAPPING, np.full(10, 10), seed=0)
    assert cluster[0] == 0 and (cluster[1:] >= 10).all()
