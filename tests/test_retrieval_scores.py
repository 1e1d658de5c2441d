"""pipeline/features/retrieval_scores.py: scores of a matrix of similarities, by hand."""

import numpy as np
import pytest

from pipeline.features.retrieval_scores import judge, map_at_r, similarity_matrix

CORNERS = np.float32([[1, 0, 0], [1, 0.1, 0], [0, 1, 0], [0.1, 1, 0], [0, 0, 1], [0, 0.1, 1]])


def test_judge_of_three_models_well_apart_is_one():
    found = judge(CORNERS, np.array([0, 0, 1, 1, 2, 2]))
    assert found == {"ari": 1.0, "recall_at_1": 1.0, "map_at_r": 1.0, "score": 1.0}


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
