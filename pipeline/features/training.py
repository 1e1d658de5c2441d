"""Train the backbone with a classifier of the known models on top.

References: Zhai & Wu 2019, "Classification is a strong baseline for deep metric learning" (arXiv:1811.12649):
normalised features and class weights, temperature. Label smoothing: Szegedy et al. 2016
(doi:10.1109/CVPR.2016.308). Averaged weights: Tarvainen & Valpola 2017 (arXiv:1703.01780); Izmailov et al. 2018
(arXiv:1803.05407).
"""

import contextlib
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from pipeline.features.inception import (
    RANGES,
    LayerPooling,
    choose_input_range,
    count_features,
    pool_maps,
    scale_pixels,
    select_layers,
)
from pipeline.features.whitening import Whitening
from pipeline.tensorflow_runtime import tensorflow

if TYPE_CHECKING:
    import keras

HEAD_RATE = 10.0  # learning rate of the head, which starts from nothing, relative to the network's
GRADIENT_NORM = 5.0  # longer gradients are shortened to this


class TrainingSettings(NamedTuple):
    """How the backbone is trained."""

    head: str  # "cosine" or "softmax"
    temperature: float  # of the cosine head, above 0 to 1
    label_smoothing: float  # 0 to 0.5
    train_from_layer: str  # "all", or the last block that stays as it is
    weight_decay: float  # of AdamW
    averaged_epochs: float  # weights are averaged over about as many epochs; 0 = not averaged
    seed: int


def schedule_rate(step: int, n_steps: int, n_warmup: int, highest: float) -> float:
    """Return the learning rate of a step: linearly up to `highest` over `n_warmup` steps, then half a cosine to 0.

    step : from 0 to n_steps - 1

    >>> [round(schedule_rate(step, 4, 2, 1.0), 2) for step in range(4)]
    [0.5, 1.0, 1.0, 0.5]
    """
    if step < n_warmup:
        return highest * (step + 1) / n_warmup
    done = (step - n_warmup) / max(1, n_steps - n_warmup)
    return highest * 0.5 * (1 + math.cos(math.pi * done))


def schedule_rates(
    epoch: int, n_batches: int, n_head: int, n_epochs: int, n_warmup: int, highest: float
) -> list[float]:
    """List the learning rate of each step of an epoch: `highest` in the first `n_head` epochs, then `schedule_rate`.

    epoch : from 0; n_batches : steps of an epoch; n_epochs, n_warmup : epochs after the first `n_head`, and with a
    rising rate
    """
    if epoch < n_head:
        return [highest] * n_batches
    first = (epoch - n_head) * n_batches
    return [schedule_rate(first + i, n_epochs * n_batches, n_warmup * n_batches, highest) for i in range(n_batches)]


def fit_normalisation(backbone: "keras.Model", last: str, images_rgb: np.ndarray, asked_range: str) -> None:
    """Set mean and variance of each batch normalisation up to `last` to those of its input, block after block.

    Random weights come with a mean of 0 and a variance of 1 that fit nothing, and signals fade from block to block;
    frozen as they are, they keep a network from learning. After Mishkin & Matas 2016, "All you need is a good init"
    (arXiv:1511.06422).

    images_rgb : uint8 ndarray of shape (n, size, size, 3)
    asked_range : INPUT_RANGE. Where that is "auto", the range is one that stage 03 will read off these statistics.
    """
    import keras

    maps = select_layers(backbone, [last])
    layers = [layer for layer in maps.layers if isinstance(layer, keras.layers.BatchNormalization)]
    for low_high in RANGES.values():
        momenta = [layer.momentum for layer in layers]
        for layer in layers:
            layer.momentum = 0.0
        maps(scale_pixels(images_rgb, *low_high), training=True)
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
        if choose_input_range(backbone, asked_range) == low_high:
            return


def list_trained_weights(maps: "keras.Model", first: str) -> list:
    """List the weights of `maps` that are trained: those of all layers ("all"), or of those after the block `first`.

    Batch normalisation is left out: its statistics fit the weights it was trained with, and small batches would spoil
    them.
    """
    import keras

    names = [layer.name for layer in maps.layers]
    begin = 0 if first == "all" else names.index(first) + 1 if first in names else len(names)
    return [
        weight
        for layer in maps.layers[begin:]
        if not isinstance(layer, keras.layers.BatchNormalization)
        for weight in layer.trainable_weights
    ]


def head_logits(features, weights, bias, head: str, temperature: float):
    """Compute what the head says of features (n, n_features): float32 (n, n_classes).

    The cosine head compares directions alone: features and class weights have length 1, and the temperature makes up
    for the small range of cosines. The "softmax" head is a linear layer.
    """
    tf = tensorflow()
    if head == "softmax":
        return features @ weights + bias
    return tf.math.l2_normalize(features, axis=1) @ tf.math.l2_normalize(weights, axis=0) / temperature


class Trainer:
    """The backbone with its head and optimisers: everything that a checkpoint has to hold.

    backbone : InceptionV3, as `build_inception` gives it
    place : the layer and the pooling that the head takes
    input_range : what the backbone takes for black and white
    n_classes : number of models trained on
    n_batches : steps in an epoch
    whitening : of the features that the head takes, which stays as it is; None: it takes them unwhitened
    """

    def __init__(
        self,
        backbone: "keras.Model",
        place: LayerPooling,
        input_range: tuple[float, float],
        n_classes: int,
        n_batches: int,
        how: TrainingSettings,
        whitening: Whitening | None = None,
    ):
        tf = tensorflow()
        import keras

        self.pooling, self.input_range, self.how, self.whitening = place.pooling, input_range, how, whitening
        self.maps = select_layers(backbone, [place.layer])
        n_features = count_features(backbone, place)
        rng = np.random.default_rng([how.seed, 5])
        scale = 1 / math.sqrt(n_features)
        self.head = [
            keras.Variable(rng.normal(0, scale, (n_features, n_classes)).astype(np.float32), name="head"),
            keras.Variable(np.zeros(n_classes, np.float32), name="head_bias"),
        ]
        self.trained = list_trained_weights(self.maps, how.train_from_layer)
        self.n_classes = n_classes
        self.optimizers = []
        steps = how.averaged_epochs * n_batches
        for variables, is_averaged in ((self.trained, steps > 0), (self.head, False)):
            momentum = math.exp(-1 / steps) if is_averaged else 0.0
            optimizer = keras.optimizers.AdamW(
                weight_decay=how.weight_decay, use_ema=is_averaged, ema_momentum=momentum
            )
            optimizer.build(variables)
            self.optimizers.append(optimizer)
        self.step_head = tf.function(
            lambda x, y: self._step(x, y, head_only=True), autograph=False, reduce_retracing=True
        )
        self.step_all = tf.function(
            lambda x, y: self._step(x, y, head_only=False), autograph=False, reduce_retracing=True
        )

    def _features(self, images_rgb):
        """Compute features: uint8 RGB (n, size, size, 3) -> float32 (n, n_features)."""
        features = pool_maps(self.maps(scale_pixels(images_rgb, *self.input_range), training=False), self.pooling)
        if self.whitening is None:
            return features
        return (tensorflow().math.l2_normalize(features, axis=1) - self.whitening.mean) @ self.whitening.matrix

    def _step(self, images_rgb, labels, head_only: bool):
        """Take one step of training; returns the mean loss and the share of images classified rightly."""
        tf = tensorflow()
        trained = self.head if head_only else [*self.trained, *self.head]
        with tf.GradientTape() as tape:
            features = self._features(images_rgb)
            if head_only:
                features = tf.stop_gradient(features)
            logits = head_logits(features, self.head[0], self.head[1], self.how.head, self.how.temperature)
            smooth = self.how.label_smoothing
            targets = tf.one_hot(labels, self.n_classes) * (1 - smooth) + smooth / self.n_classes
            loss = tf.reduce_mean(tf.nn.softmax_cross_entropy_with_logits(targets, logits))
        gradients = tape.gradient(loss, [v.value for v in trained], unconnected_gradients="zero")
        gradients, _ = tf.clip_by_global_norm(gradients, GRADIENT_NORM)
        if not head_only:
            self.optimizers[0].apply_gradients(zip(gradients[:-2], self.trained, strict=True))
        self.optimizers[1].apply_gradients(zip(gradients[-2:], self.head, strict=True))
        right = tf.argmax(logits, axis=1, output_type=tf.int32) == labels
        return loss, tf.reduce_mean(tf.cast(right, tf.float32))

    def run_epoch(self, batches: Iterator[tuple], rates: list[float], head_only: bool) -> tuple[float, float]:
        """Train on all batches, the i-th with learning rate `rates[i]`; returns mean loss and accuracy."""
        step, totals, n = self.step_head if head_only else self.step_all, np.zeros(2), 0
        for rate, (images_rgb, labels) in zip(rates, batches, strict=True):
            self.optimizers[0].learning_rate.assign(rate)
            self.optimizers[1].learning_rate.assign(rate * HEAD_RATE)
            totals += len(labels) * np.array([float(value) for value in step(images_rgb, labels)])
            n += len(labels)
        return tuple(totals / n)

    @contextlib.contextmanager
    def averaged(self) -> Iterator[None]:
        """Within this context the network's weights are their averages over the last epochs."""
        if not self.optimizers[0].use_ema:
            yield
            return
        kept = [weight.numpy() for weight in self.trained]
        self.optimizers[0].finalize_variable_values(self.trained)
        try:
            yield
        finally:
            for weight, value in zip(self.trained, kept, strict=True):
                weight.assign(value)

    def _variables(self) -> list:
        """List all that changes in training, in a fixed order."""
        return [*self.maps.weights, *self.head, *(v for o in self.optimizers for v in o.variables)]

    def values(self) -> list[np.ndarray]:
        """List all that changes in training, by which `set_values` goes on."""
        return [variable.numpy() for variable in self._variables()]

    def set_values(self, values: list[np.ndarray]) -> bool:
        """Go on with what `values` gave; returns False, and changes nothing, where these are of another training."""
        variables = self._variables()
        if [variable.shape for variable in variables] != [value.shape for value in values]:
            return False
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)
        return True
