"""pipeline/features/training.py: the head, the learning rate, averaged weights."""

import itertools

import cv2
import numpy as np
import pytest

from pipeline.features.inception import (
    LayerPooling,
    build_inception,
    choose_input_range,
    scale_pixels,
    select_layers,
)
from pipeline.features.training import (
    Trainer,
    TrainingSettings,
    fit_normalisation,
    head_logits,
    list_trained_weights,
    schedule_rate,
)


def test_learning_rate_rises_then_falls_to_nothing():
    rates = [schedule_rate(i, 100, 10, 0.1) for i in range(100)]
    assert rates[0] == pytest.approx(0.01) and max(rates) == pytest.approx(0.1) and rates[-1] < 0.0001
    assert rates[55] == pytest.approx(0.05)  # half way down
    assert all(a < b for a, b in itertools.pairwise(rates[:10]))
    assert all(a >= b for a, b in itertools.pairwise(rates[10:]))


def test_batch_normalisation_is_never_trained():
    maps = select_layers(build_inception(75, seed=0), ["mixed2"])
    every, upper = list_trained_weights(maps, "all"), list_trained_weights(maps, "mixed0")
    assert all("kernel" in weight.path for weight in every)
    assert 0 < len(upper) < len(every) == 26  # 5 convolutions in front, 7 in each of three blocks
    assert list_trained_weights(maps, "mixed2") == []


@pytest.mark.parametrize("ground", [255, 0])
def test_fitted_normalisation_has_mean_zero_and_variance_one(ground):
    """Up to the block asked for; and stage 03 reads off it the range that it was fitted with, dark images too."""
    rng = np.random.default_rng(0)
    drawn = np.full((32, 75, 75, 3), ground, np.uint8)
    for image_rgb in drawn:
        cv2.circle(image_rgb, (37, 37), int(rng.integers(10, 35)), rng.integers(0, 255, 3).tolist(), -1)
    backbone = build_inception(75, seed=0)
    fit_normalisation(backbone, "mixed0", drawn, "auto")
    low, high = choose_input_range(backbone, "auto")
    assert (low, high) == ((0, 1) if ground else (-1, 1))
    last = backbone.get_layer("mixed0").input[0]._keras_history.operation.input  # before the ReLU
    import keras

    values = np.asarray(keras.Model(backbone.input, last)(scale_pixels(drawn, low, high), training=False))
    assert np.abs(values.mean(axis=(0, 1, 2))).max() < 0.05
    assert 0.5 < np.median(values.std(axis=(0, 1, 2))) < 1.1
    untouched = [layer for layer in backbone.layers if isinstance(layer, keras.layers.BatchNormalization)][-1]
    assert (untouched.moving_variance.numpy() == 1).all()


def test_cosine_head_compares_directions_alone():
    weights = np.float32([[2, 0], [0, 5]])  # (n_features, n_classes)
    logits = np.asarray(head_logits(np.float32([[3, 0], [1, 1]]), weights, np.zeros(2, np.float32), "cosine", 0.1))
    assert np.allclose(logits, [[10, 0], [10 / 2**0.5, 10 / 2**0.5]], atol=1e-4)
    logits = np.asarray(head_logits(np.float32([[3, 0]]), weights, np.float32([0, 1]), "softmax", 0.1))
    assert np.allclose(logits, [[6, 1]])


def test_weights_are_averaged_over_the_last_steps():
    """By hand: the first step counts as the average, each later one for 1 - e^(-1 / steps of AVERAGED_EPOCHS)."""
    how = TrainingSettings("cosine", 0.05, 0.1, "all", 0.0001, averaged_epochs=0.5, seed=0)
    place = LayerPooling("mixed0", "average")
    trainer = Trainer(build_inception(75, seed=0), place, (-1, 1), n_classes=2, n_batches=4, how=how)
    images_rgb, labels = np.random.default_rng(0).integers(0, 255, (4, 75, 75, 3)).astype(np.uint8), np.arange(4) % 2
    after = []
    for _ in range(3):
        trainer.run_epoch(iter([(images_rgb, labels.astype(np.int32))]), [0.01], head_only=False)
        after.append(trainer.trained[0].numpy())
    momentum = np.exp(-1 / 2)
    expected = momentum**2 * after[0] + momentum * (1 - momentum) * after[1] + (1 - momentum) * after[2]
    with trainer.averaged():
        assert np.allclose(trainer.trained[0].numpy(), expected, atol=1e-6)
        assert np.abs(expected - after[2]).max() > 1e-4
    assert (trainer.trained[0].numpy() == after[2]).all()
