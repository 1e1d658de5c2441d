"""pipeline/features/layer_pooling.py: where features are read off, and whether they are whitened."""

import numpy as np
import pytest

from pipeline.features.inception import LayerPooling, build_inception, feature_function
from pipeline.features.layer_pooling import (
    FeatureReader,
    JudgedImages,
    best_place,
    compare_bfloat16,
    judge_place,
    list_places,
)
from pipeline.features.retrieval_scores import judge
from pipeline.features.whitening import Whitening

CORNERS = np.float32([[1, 0, 0], [1, 0.1, 0], [0, 1, 0], [0.1, 1, 0], [0, 0, 1], [0, 0.1, 1]])


class Read:
    """Features already read off, in place of a network's."""

    places = (LayerPooling("mixed0", "max"),)

    def read_at(self, place: int, features: np.ndarray) -> np.ndarray:
        return features


@pytest.mark.parametrize("own_differ", [True, False])
def test_features_are_whitened_where_models_held_out_gain(own_differ):
    """Models lie at angles in a plane; the third number is noise, or the plane is noise and it separates the models."""
    rng, labels = np.random.default_rng(0), np.repeat(np.arange(20), 10)
    angles = np.arange(20)[labels] * np.pi / 10
    features = np.stack([np.cos(angles), np.sin(angles), rng.normal(0, 1.5, 200)], axis=1)
    judged = np.flatnonzero(labels >= 14)
    if not own_differ:
        of_judged = rng.uniform(0, 2 * np.pi, len(judged))
        features[judged] = np.stack([np.cos(of_judged), np.sin(of_judged), labels[judged] - 16.5], axis=1)
    features, known = features.astype(np.float32), np.setdiff1d(np.arange(200), judged)
    shown = JudgedImages(features[judged], labels[judged], features[known], labels[known])
    found = judge_place(Read(), 0, features[judged], shown, 0.9)
    raw = judge(features[judged], labels[judged])
    assert (found["feature_layer"], found["pooling"], found["whitened"]) == ("mixed0", "max", own_differ)
    assert (found["score"] > raw["score"] + 0.1) if own_differ else (found["score"] == raw["score"])


def test_features_are_read_off_the_blocks_and_poolings_left_open():
    assert len(list_places("mixed2", "auto", "auto")) == 9
    assert list_places("mixed2", "mixed1", "auto") == [("mixed1", "average"), ("mixed1", "max"), ("mixed1", "gem")]
    assert list_places("mixed10", "mixed1", "gem") == [("mixed1", "gem")]


def test_the_best_place_is_where_neighbours_show_the_same_model():
    labels = np.array([0, 0, 1, 1, 2, 2])
    apart, mixed = CORNERS, CORNERS[[0, 2, 4, 1, 3, 5]]
    assert best_place([mixed, apart], labels) == 1 and best_place([apart, mixed], labels) == 0
    assert best_place([mixed], labels) == 0


def test_features_that_are_not_finite_agree_with_none():
    broken = Whitening(np.full(256, np.nan, np.float32), np.eye(256, dtype=np.float32))
    place, black_rgb = LayerPooling("mixed0", "max"), np.zeros((2, 75, 75, 3), np.uint8)
    assert compare_bfloat16(FeatureReader(build_inception(75, seed=0), [place], (-1, 1)), broken, black_rgb) == 0.0


def test_features_that_judge_are_those_of_stage_03_in_the_same_views():
    images_rgb = np.random.default_rng(0).integers(0, 256, (3, 75, 75, 3), np.uint8)
    backbone, place = build_inception(75, seed=0), LayerPooling("mixed0", "concat")
    (found,) = FeatureReader(backbone, [place], (-1, 1), "turned").read(images_rgb)
    assert np.allclose(found, feature_function(backbone, place, (-1, 1), "turned", "float32")(images_rgb), atol=1e-4)
    (turned,) = FeatureReader(backbone, [place], (-1, 1), "turned").read(np.rot90(images_rgb, axes=(1, 2)))
    assert np.allclose(found, turned, atol=1e-4)
