"""pipeline/features/retrieval_scores.py: scores of a matrix of similarities, by hand."""

import numpy as np
import pytest

from pipeline.features.retrieval_scores import (
    average_precision,
    judge,
    linkage_ari,
    map_at_r,
    margin,
    similarity_matrix,
)

CORNERS = np.float32([[1, 0, 0], [1, 0.1, 0], [0, 1, 0], [0.1, 1, 0], [0, 0, 1], [0, 0.1, 1]])


def test_judge_of_three_models_well_apart_is_one():
    found = judge(CORNERS, np.array([0, 0, 1, 1, 2, 2]))
    assert found["ari"] == found["recall_at_1"] == found["map_at_r"] == found["average_precision"] == 1.0
    assert 0.2 < found["margin"] < 1 and found["score"] == pytest.approx((2 + found["margin"]) / 3)


def test_judge_of_features_that_are_not_finite_is_zero():
    features = CORNERS.copy()
    features[2, 1] = np.inf
    assert set(judge(features, np.array([0, 0, 1, 1, 2, 2])).values()) == {0.0}


def test_judge_when_every_neighbour_is_of_another_model():
    found = judge(CORNERS, np.array([0, 1, 1, 2, 2, 0]))
    assert found["recall_at_1"] == 0.0 and found["ari"] < 0


def test_an_image_alone_in_its_model_is_not_asked_for_its_neighbour():
    assert judge(CORNERS[:5], np.array([0, 0, 1, 1, 2]))["recall_at_1"] == 1.0


def test_map_at_r_by_hand():
    # three images of model 0 along an arc, one of model 1 between: each misses differently
    angles = np.deg2rad([0, 10, 15, 30])
    features = np.float32(np.stack([np.cos(angles), np.sin(angles)], axis=1))
    labels = np.array([0, 0, 1, 0])
    # image 0: right, wrong -> (1 + 0) / 2; image 1: nearest is 15 (wrong), then 0 (right, 1 of 2) -> 1/4;
    # image 3: 15 (wrong), 10 (right) -> 1/4; the one alone is not asked
    assert map_at_r(similarity_matrix(features), labels) == pytest.approx((1 / 2 + 1 / 4 + 1 / 4) / 3)


def test_average_precision_asks_for_one_threshold_for_all_pairs():
    # each image's nearest is of its own model, but the wide pair of model 1 is less alike than the two models' ends
    angles = np.deg2rad([0, 1, 20, 60])
    similarity = similarity_matrix(np.float32(np.stack([np.cos(angles), np.sin(angles)], axis=1)))
    labels = np.array([0, 0, 1, 1])
    # pairs in order: 1 degree (same), 19, 20 (different), 40 (same), 59, 60: precision 1 at first, 2/4 at the fourth
    assert average_precision(similarity, labels) == pytest.approx((1 + 2 / 4) / 2)
    assert average_precision(similarity, np.arange(4)) == 0.0


def test_margin_tells_good_from_better_where_nothing_is_grouped_wrongly():
    labels = np.array([0, 0, 1, 1, 2, 2])
    wide = CORNERS.copy()
    wide[[1, 3, 5]] *= np.float32([1, 1, 1])
    wide[1, 1], wide[3, 0], wide[5, 1] = 0.5, 0.5, 0.5
    good, better = judge(wide, labels), judge(CORNERS, labels)
    assert good["ari"] == better["ari"] == good["map_at_r"] == 1.0
    assert better["score"] > good["score"] + 0.02


def test_margin_by_hand():
    # the others of each image lie at cosines 0 and 0.6: mean 0.3, deviation 0.3; its own at 0.8: 5/3 deviations
    similarity = np.full((4, 4), 0.8, np.float32)
    similarity[:2, 2:] = similarity[2:, :2] = [[0, 0.6], [0.6, 0]]
    np.fill_diagonal(similarity, -np.inf)
    assert margin(similarity, np.array([5, 5, 9, 9])) == pytest.approx(np.tanh(5 / 3 / 4), abs=1e-5)
    assert margin(similarity, np.array([1, 2, 3, 4])) == margin(similarity, np.array([1, 1, 1, 1])) == 0.0


def test_average_linkage_told_the_number_finds_models_apart():
    assert linkage_ari(similarity_matrix(CORNERS), np.array([0, 0, 1, 1, 2, 2])) == 1.0
    assert linkage_ari(similarity_matrix(CORNERS), np.array([0, 1, 1, 2, 2, 0])) < 0
