"""What a person should look at: medoids, likely merges and splits, doubtful images."""

import numpy as np
import pytest
from report_case import found_of

from pipeline.clustering.corrections import Answer
from pipeline.report.found import measure_silhouettes, measure_typicality
from pipeline.report.review import (
    STEEPNESS,
    find_doubtful_images,
    find_likely_homes,
    find_likely_merges,
    find_likely_splits,
    split_by_two_means,
)


def test_medoid_has_the_least_sum_of_squared_distances():
    rng = np.random.default_rng(0)
    direction = rng.normal(size=(30, 4)).astype(np.float32)
    found = found_of([0] * 20 + [3] * 10, direction)
    for cluster, members in ((0, range(20)), (3, range(20, 30))):
        sums = [((direction[list(members)] - direction[i]) ** 2).sum() for i in members]
        assert found.medoid[cluster] == members[int(np.argmin(sums))]
        assert found.members(cluster)[0] == found.medoid[cluster]
        assert sorted(found.members(cluster)) == list(members)
        assert (np.diff(measure_typicality(direction, found.cluster)[found.members(cluster)]) <= 0).all()


def test_likely_merges_are_the_pairs_with_most_runner_up_votes():
    found = found_of(
        [0, 0, 0, 1, 1, 2],
        runner_up=np.array([1, 1, 2, 0, -1, -1]),
        confidence=np.array([0.5, 0.7, 0.9, 0.6, 1, 1]),
    )
    merges = find_likely_merges(found)
    assert [item["clusters"] for item in merges] == [[0, 1], [0, 2]]
    assert merges[0]["likeness"] == pytest.approx((0.5 + 0.3 + 0.4) / 2)
    assert merges[1]["likeness"] == pytest.approx(0.1)
    assert merges[0]["images"] == [found.medoid[0], found.medoid[1]]


def test_likely_splits_begin_with_the_loosest_cluster_and_show_its_two_halves():
    tight = np.tile([1.0, 0, 0, 0], (6, 1)) + np.eye(6, 4) * 0.05
    halves = np.concatenate([np.tile([0, 1.0, 0, 0], (3, 1)), np.tile([0, 0, 1.0, 0], (3, 1))])
    direction = np.concatenate([tight, halves, [[0, 0, 0, 1.0]]]).astype(np.float32)
    splits = find_likely_splits(found_of([0] * 6 + [1] * 6 + [2], direction))
    assert splits[0]["cluster"] == 1 and splits[0]["sizes"] == [3, 3]
    a, b = splits[0]["images"]
    assert {a in range(6, 9), b in range(6, 9)} == {True, False}
    assert 2 not in [item["cluster"] for item in splits]


def test_what_answers_settle_is_not_asked_again():
    votes = {"runner_up": np.array([1, 1, 2, 0, -1, -1]), "confidence": np.array([0.5, 0.7, 0.9, 0.6, 1, 1])}
    cluster = [0, 0, 0, 1, 1, 2]
    assert [item["clusters"] for item in find_likely_merges(found_of(cluster, **votes))] == [[0, 1], [0, 2]]
    found = found_of(cluster, **votes, answers=[Answer(1, 4, False)])  # no medoids of theirs
    assert [0, 1] not in [item["clusters"] for item in find_likely_merges(found)]
    # image 0 is the same as 2 by way of 1
    apart = np.eye(3, dtype=np.float32)[cluster]  # so that only their neighbours make images doubtful
    found = found_of(cluster, apart, **votes, answers=[Answer(0, 1, True), Answer(1, 2, True)])
    assert [item["image"] for item in find_doubtful_images(found)] == [3]
    halves = np.repeat(np.eye(2, dtype=np.float32), 3, axis=0)
    assert len(find_likely_splits(found_of([0] * 6, halves))) == 1
    assert find_likely_splits(found_of([0] * 6, halves, answers=[Answer(2, 3, True)])) == []


def test_doubtful_images_begin_with_the_least_confident_and_leave_out_the_sure():
    confidence = np.array([0.9, 0.2, 1.0, 0.5])
    apart = np.eye(2, dtype=np.float32)[[0, 0, 1, 1]]
    found = found_of([0, 0, 1, 1], apart, confidence=confidence, runner_up=np.array([1, 1, 0, 0]))
    assert [item["image"] for item in find_doubtful_images(found)] == [1, 3, 0]
    for item in find_doubtful_images(found):
        assert item["own"] != item["image"]


def test_an_image_less_like_its_cluster_than_like_the_next_one_is_doubtful_though_all_its_neighbours_agree():
    direction = np.array([[1, 0], [1, 0], [1, 0], [0.6, 0.8], [0, 1], [0, 1]], np.float32)
    found = found_of([0, 0, 0, 0, 1, 1], direction)
    assert measure_silhouettes(found.direction, found.cluster)[3] == pytest.approx((0.2 - 0.4) / 0.4)
    assert [item["image"] for item in find_doubtful_images(found)] == [3]
    assert find_doubtful_images(found)[0]["gain"] == pytest.approx(4 / (1 + np.exp(-STEEPNESS * 0.5)))
    alone = found_of([0, 0, 0, 2, 1, 1], direction)
    assert find_doubtful_images(alone) == []


def test_what_was_called_different_is_asked_about_with_the_next_likely_cluster():
    direction = np.array([[1, 0, 0], [1, 0, 0], [0.8, 0.6, 0], [0, 1, 0], [0, 1, 0], [0, 0, 1], [0, 0, 1]], np.float32)
    cluster = [0, 0, 1, 2, 2, 3, 3]
    assert find_likely_homes(found_of(cluster, direction)) == {}
    homes = find_likely_homes(found_of(cluster, direction, answers=[Answer(0, 2, False)]))
    odds = np.exp(STEEPNESS * np.array([0.8, 0.6, 0.0]))
    assert homes == {(1, 2): pytest.approx(odds[1] / odds.sum())}
    again = found_of(cluster, direction, answers=[Answer(0, 2, False), Answer(2, 3, False)])
    assert list(find_likely_homes(again)) == [(1, 3)]


@pytest.mark.parametrize("rows", [np.zeros((4, 3)), np.eye(2), np.ones((1, 3))])
def test_two_means_of_rows_that_can_not_be_cut(rows):
    assert set(split_by_two_means(rows.astype(np.float32)).tolist()) <= {0, 1}
