"""pipeline/features/inception.py: the backbone, its range, folding, pooling."""

import cv2
import numpy as np
import pytest

from pipeline.features.inception import (
    LayerPooling,
    build_inception,
    choose_input_range,
    feature_function,
    fold_batch_norm,
    pool_maps,
    scale_pixels,
    select_layers,
)
from pipeline.features.whitening import normalise_rows


def test_pooling_by_hand():
    maps = np.float32([[[[1, 0]], [[3, 0]]], [[[0, 2]], [[0, 2]]]])  # (2 images, 2, 1, 2 channels)
    assert np.allclose(pool_maps(maps, "average"), [[2, 0], [0, 2]])
    assert np.allclose(pool_maps(maps, "max"), [[3, 0], [0, 2]])
    gem = np.asarray(pool_maps(maps, "gem"))
    assert np.allclose(gem, [[14 ** (1 / 3), 0], [0, 2]], atol=1e-3)  # ((1 + 27) / 2) ** (1/3)


def test_averages_and_maxima_side_by_side_have_length_one_each():
    maps = np.float32([[[[3, 8]], [[3, 0]]]])  # averages 3, 4; maxima 3, 8
    expected = np.r_[[0.6, 0.8], np.array([3, 8]) / 73**0.5]
    assert np.allclose(pool_maps(maps, "concat"), [expected])


@pytest.fixture(scope="module")
def lively():
    """InceptionV3 at 75 pixels, its batch normalisation far from what it is before any training."""
    inception = build_inception(75, seed=0)
    rng = np.random.default_rng(0)
    for layer in inception.layers:
        if layer.name.startswith("batch_normalization"):
            beta, mean, variance = layer.get_weights()
            layer.set_weights(
                [
                    rng.normal(0.2, 0.1, beta.shape),
                    rng.normal(0, 0.05, mean.shape),
                    rng.uniform(0.1, 0.4, variance.shape),
                ]
            )
    return inception


@pytest.fixture(scope="module")
def photographs() -> np.ndarray:
    """Eight drawn images, uint8 RGB (8, 75, 75, 3)."""
    rng = np.random.default_rng(1)
    drawn = np.full((8, 75, 75, 3), 255, np.uint8)
    for image in drawn:
        cv2.circle(image, (37, 37), int(rng.integers(10, 35)), rng.integers(0, 255, 3).tolist(), -1)
    return drawn


def test_folding_batch_normalisation_changes_nothing(lively, photographs):
    part = select_layers(lively, ["mixed2"])
    inputs = scale_pixels(photographs, -1, 1)
    plain, folded = np.asarray(part(inputs)), np.asarray(fold_batch_norm(part, "float32")(inputs))
    assert plain.std() > 0.01
    assert np.allclose(plain, folded, atol=1e-3 * np.abs(plain).max())


def test_bfloat16_features_are_within_cosine_0_999(lively, photographs):
    one, other = (
        normalise_rows(
            np.asarray(feature_function(lively, LayerPooling("mixed7", "average"), (-1, 1), "one", dtype)(photographs))
        )
        for dtype in ("float32", "bfloat16")
    )
    assert one.dtype == other.dtype == np.float32 and one.shape == (8, 768)
    assert (one * other).sum(axis=1).min() > 0.999


@pytest.mark.parametrize(
    ("views", "other", "same"),
    [
        ("mirrored", lambda images: images[:, :, ::-1], True),
        ("mirrored", lambda images: np.rot90(images, axes=(1, 2)), False),
        ("turned", lambda images: np.rot90(images, axes=(1, 2)), True),
        ("turned", lambda images: images[:, ::-1, ::-1], True),
        ("one", lambda images: images[:, :, ::-1], False),
    ],
)
def test_views_that_are_averaged_have_the_same_features(lively, photographs, views, other, same):
    compute = feature_function(lively, LayerPooling("mixed1", "average"), (-1, 1), views, "float32")
    images = photographs.copy()
    images[:, 5:20, 5:60] = (20, 90, 160)  # so that no picture is its own mirror image
    assert np.allclose(compute(images), compute(other(images).copy()), rtol=1e-4, atol=1e-5) == same


def test_random_weights_depend_on_the_seed_alone():
    one, same, other = (build_inception(75, seed).layers[1].get_weights()[0] for seed in (0, 0, 1))
    assert (one == same).all() and (one != other).any()


@pytest.mark.parametrize(("mean_input", "expected"), [(0.5, (0.0, 1.0)), (-0.1, (-1.0, 1.0)), (0.0, (-1.0, 1.0))])
def test_input_range_is_read_from_the_first_normalisation(mean_input, expected):
    inception = build_inception(75, seed=0)
    sums = inception.layers[1].get_weights()[0].sum(axis=(0, 1, 2))
    beta, _, variance = inception.layers[2].get_weights()
    inception.layers[2].set_weights([beta, mean_input * sums, variance])
    assert choose_input_range(inception, "auto") == expected


def test_input_range_can_be_set(lively):
    assert choose_input_range(lively, "0..1") == (0.0, 1.0)
    assert choose_input_range(lively, "-1..1") == (-1.0, 1.0)
