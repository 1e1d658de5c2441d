"""How the network of stage 01 is trained: examples, their augmentation, the architecture, the loss.

The network learns from the channels of `network.input_channels` and the true mask, on composed photographs and on real
ones.
"""

import itertools
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

import cv2
import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from tqdm import tqdm

from pipeline.background.colour import to_lab
from pipeline.background.composites import Cutout, compose_photograph
from pipeline.background.ground import fit_ground
from pipeline.background.network import N_CHANNELS, NETWORK_SIZE, PROBED_LAYER, input_channels, normalise_channels

if TYPE_CHECKING:
    import keras

BLOCK_CHANNELS = (24, 48, 64, 96)  # of the network at half its size, a quarter of it, and so on
BATCH_SIZE = 16
LEARNING_RATE = 0.002  # of AdamW at the start; falls to 0 by a cosine
AVERAGED_STEPS = 200  # steps over which the weights are averaged, about, or a tenth of all
MIN_MASK, MAX_MASK = 0.02, 0.9  # share of a composite that its mask may cover; others teach nothing
MAX_GROUND = 0.03  # share of an image; with less, `regions.is_plausible` takes no mask
NEVER = 100.0  # logit of a probability that is 0 in float32
ParallelMap = Callable[[Callable, Iterable], Iterator]  # the results of a function for each item, in their order


def make_example(image_bgr: np.ndarray, mask: np.ndarray, seed: int) -> np.ndarray:
    """Return channels and mask of one image: uint8 (NETWORK_SIZE, NETWORK_SIZE, N_CHANNELS + 1), 0..255.

    image_bgr : uint8 (H, W, 3); mask : (H, W), 0..1; seed : of K-means on the border's colours
    """
    side = NETWORK_SIZE
    small = cv2.resize(mask.astype(np.float32), (side, side), interpolation=cv2.INTER_AREA)
    channels = input_channels(image_bgr, fit_ground(to_lab(image_bgr)), seed)
    return np.dstack([channels, np.rint(255 * small).astype(np.uint8)])


def compose_example(cutouts: list[Cutout], photographs: list[np.ndarray], seed: int, number: int) -> np.ndarray:
    """Return the example of the composite of that number; where its mask is next to nothing or all, of another one."""
    rng = np.random.default_rng([seed, 4, number])
    image_bgr, mask = compose_photograph(cutouts, photographs, rng)
    while not MIN_MASK < mask.mean() < MAX_MASK:
        image_bgr, mask = compose_photograph(cutouts, photographs, rng)
    return make_example(image_bgr, mask, seed)


def build_network() -> "keras.Model":
    """Build a network in the shape of a U: float32 (n, NETWORK_SIZE, NETWORK_SIZE, N_CHANNELS) -> logits (n, ..., 1).

    Ronneberger, Fischer, Brox: "U-Net" (2015), arXiv:1505.04597. Convolutions of 3x3, each with batch normalisation.
    On the way up, the maps from below are added to those from the side. At the bottom each pixel gets the mean of all:
    what product and ground look like in this image. Nothing is computed at full size, which would take a quarter of
    the time; the logits are enlarged.
    """
    import keras
    from keras import layers

    def block(x, channels: int, stride: int = 1, size: int = 3, name: str | None = None):
        x = layers.Conv2D(channels, size, stride, padding="same", use_bias=False)(x)
        return layers.ReLU(name=name)(layers.BatchNormalization(momentum=0.95)(x))

    inputs = keras.Input((NETWORK_SIZE, NETWORK_SIZE, N_CHANNELS))
    x, across = inputs, []
    for channels in BLOCK_CHANNELS:
        x = block(block(x, channels, stride=2), channels)
        across.append(x)
    whole = layers.Conv2D(BLOCK_CHANNELS[-1], 1, activation="relu")(layers.GlobalAveragePooling2D(keepdims=True)(x))
    x = block(layers.Add()([x, whole]), BLOCK_CHANNELS[-1])
    for channels, beside in zip(BLOCK_CHANNELS[-2::-1], across[-2::-1], strict=True):
        name = PROBED_LAYER if channels == BLOCK_CHANNELS[-3] else None
        x = layers.UpSampling2D(2, interpolation="bilinear")(block(x, channels, size=1, name=name))
        x = block(layers.Add()([x, beside]), channels)
    return keras.Model(inputs, layers.UpSampling2D(2, interpolation="bilinear")(layers.Conv2D(1, 1)(x)))


def augment(one: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return an example a little turned, scaled, moved, mirrored, its colours exchanged or cast."""
    side = len(one)
    if rng.random() < 0.7:
        warp = cv2.getRotationMatrix2D((side / 2, side / 2), rng.normal(0, 10), np.exp(rng.normal(0, 0.12)))
        warp[:, 2] += rng.normal(0, 0.04 * side, 2)
        planes = (
            np.ascontiguousarray(one[..., i : i + 4]) for i in range(0, one.shape[2], 4)
        )  # OpenCV warps 4 at once
        one = np.dstack([cv2.warpAffine(p, warp, (side, side), borderMode=cv2.BORDER_REFLECT_101) for p in planes])
    one = one[:, ::-1] if rng.random() < 0.5 else one
    one = one[::-1].copy() if rng.random() < 0.08 else one.copy()
    if rng.random() < 0.3:
        one[..., :3] = one[..., rng.permutation(3)]
    if rng.random() < 0.5:
        one[..., :3] = np.clip(one[..., :3] * np.exp(rng.normal(0, 0.08, 3)) + rng.normal(0, 5), 0, 255)
    return one


def make_batches(
    examples: list[np.ndarray], order: np.ndarray, epoch: int, seed: int, parallel_map: ParallelMap
) -> Iterator[np.ndarray]:
    """Return the examples in this order, augmented, BATCH_SIZE at a time, made while the network is busy."""

    def make_batch(part: np.ndarray) -> np.ndarray:
        return np.stack([augment(examples[i], np.random.default_rng([seed, 5, epoch, i])) for i in part])

    n = len(order) // BATCH_SIZE * BATCH_SIZE
    return parallel_map(make_batch, order[:n].reshape(-1, BATCH_SIZE))


def train_network(
    model: "keras.Model",
    examples: list[np.ndarray],
    held_out: np.ndarray,
    n_epochs: int,
    seed: int,
    parallel_map: ParallelMap = map,
) -> list[dict[str, float]]:
    """Train the network; its weights are averages over the last steps at the end.

    examples : uint8 ndarrays of shape (NETWORK_SIZE, NETWORK_SIZE, N_CHANNELS + 1), see `make_example`
    held_out : the same, stacked, of photographs that are not trained on; may be empty
    n_epochs : passes over all examples
    seed : of the order and the augmentation
    parallel_map : a map that makes batches while the network is busy

    Returns for each epoch its loss and the mean IoU of `held_out`.
    """
    import keras
    import tensorflow as tf

    n_steps = n_epochs * (len(examples) // BATCH_SIZE)
    optimizer = keras.optimizers.AdamW(
        keras.optimizers.schedules.CosineDecay(LEARNING_RATE, n_steps),
        weight_decay=1e-4,
        use_ema=True,
        ema_momentum=1 - 1 / max(2, min(AVERAGED_STEPS, n_steps / 10)),
    )
    optimizer.build(model.trainable_variables)

    step = make_training_step(model, optimizer)
    history, rng = [], np.random.default_rng([seed, 6])
    for epoch in range(n_epochs):
        begin, order = time.perf_counter(), rng.permutation(len(examples))
        batches = make_batches(examples, order, epoch, seed, parallel_map)
        shown = tqdm(batches, f"epoch {epoch + 1}", len(order) // BATCH_SIZE, disable=None)
        losses = [float(step(tf.constant(batch))) for batch in shown]
        row = {"epoch": epoch + 1, "loss": float(np.mean(losses)), "iou": mean_iou(model, held_out)}
        history.append(row | {"seconds": round(time.perf_counter() - begin, 1)})
        print("  ".join(f"{key} {value:.4g}" for key, value in history[-1].items()), flush=True)
    optimizer.finalize_variable_values(model.trainable_variables)
    return history


def fit_no_ground_probe(model: "keras.Model", examples: Iterable[np.ndarray]) -> tuple[np.ndarray, float]:
    """Fit the probability that an image has no ground to what the trained network has at PROBED_LAYER.

    A linear probe (Alain, Bengio 2016, arXiv:1610.01644): logistic regression on the mean of the layer's maps.
    On models not seen, the probe told close-ups from other pictures with an area under the ROC curve of 0.96.

    examples : from `make_example`, with and without ground; of an image without ground the product covers all but
    MAX_GROUND. Returns the weights, float64 (n_maps,), and the bias.
    """
    maps, has_no_ground = [], []
    encoder = probed_maps(model)
    for part in batched(examples, 64):
        stacked = np.stack(part)
        has_no_ground.append(stacked[..., -1].mean(axis=(1, 2)) >= 255 * (1 - MAX_GROUND))
        maps.append(np.asarray(encoder(normalise_channels(stacked[..., :-1]), training=False)))
    values, labels = np.concatenate(maps), np.concatenate(has_no_ground)
    if labels.all() or not labels.any():  # nothing to learn from: there is always ground
        return np.zeros(values.shape[1]), -NEVER
    scaler = StandardScaler().fit(values)
    probe = LogisticRegression(max_iter=1000).fit(scaler.transform(values), labels)
    weights = probe.coef_[0] / scaler.scale_
    return weights, float(probe.intercept_[0] - weights @ scaler.mean_)


def probed_maps(model: "keras.Model") -> "keras.Model":
    """Return the part of a network up to the mean of PROBED_LAYER's maps: channels -> float32 (n, n_maps)."""
    import keras

    return keras.Model(model.input, keras.layers.GlobalAveragePooling2D()(model.get_layer(PROBED_LAYER).output))


def batched(items: Iterable[np.ndarray], size: int) -> Iterator[list[np.ndarray]]:
    """Return the items in lists of `size`, the last one shorter.

    >>> list(batched(range(5), 2))
    [[0, 1], [2, 3], [4]]
    """
    remaining = iter(items)
    while part := list(itertools.islice(remaining, size)):
        yield part


def make_training_step(model: "keras.Model", optimizer: "keras.Optimizer") -> Callable:
    """Return the function that trains on one batch, uint8 (n, ..., N_CHANNELS + 1), and gives the loss.

    The loss is the cross entropy and 1 - intersection over union, both of the probabilities.
    """
    import tensorflow as tf

    @tf.function
    def step(batch):
        channels = tf.cast(batch[..., :-1], tf.float32) / 127.5 - 1
        true = tf.cast(batch[..., -1:], tf.float32) / 255
        with tf.GradientTape() as tape:
            logits = model(channels, training=True)
            prob = tf.sigmoid(logits)
            both, either = (tf.reduce_sum(x, (1, 2, 3)) for x in (prob * true, prob + true - prob * true))
            entropy = tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(true, logits), (1, 2, 3))
            loss = tf.reduce_mean(entropy + 1 - (both + 1) / (either + 1))
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
        return loss

    return step


def mean_iou(model: "keras.Model", examples: np.ndarray) -> float:
    """Return the mean intersection over union of the network's and the true masks of `examples`, 0 without any."""
    scores = []
    for start in range(0, len(examples), 64):
        part = examples[start : start + 64]
        found = np.asarray(model(normalise_channels(part[..., :-1]), training=False))[..., 0] > 0
        true = part[..., -1] > 127
        scores += ((found & true).sum(axis=(1, 2)) / np.maximum(1, (found | true).sum(axis=(1, 2)))).tolist()
    return float(np.mean(scores)) if scores else 0.0
