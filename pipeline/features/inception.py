"""The backbone: InceptionV3 without its classifier, and features read off one of its blocks.

Photograph -> `framing.fit_image` -> `scale_pixels` -> backbone up to a block -> `pool_maps` -> `whitening.whiten` ->
features. Stages 02 and 03 go through the same functions, so that preprocessing is said once.

References: Szegedy et al. 2016, "Rethinking the Inception Architecture" (doi:10.1109/CVPR.2016.308); generalised mean
pooling: Radenović et al. 2019 (doi:10.1109/TPAMI.2018.2846566).
"""

import random
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from pipeline.features.framing import list_views
from pipeline.tensorflow_runtime import tensorflow

if TYPE_CHECKING:
    import keras

LAYERS = tuple(f"mixed{i}" for i in range(11))  # outputs of the eleven Inception blocks, 256 to 2048 channels
SINGLE_POOLINGS = ("average", "max", "gem")  # of one number for each channel
POOLINGS = (*SINGLE_POOLINGS, "concat")
GEM_POWER = 3.0  # exponent of generalised mean pooling; 1 would be the average, infinity the maximum
RANGES = {"0..1": (0.0, 1.0), "-1..1": (-1.0, 1.0)}  # values of black and white that a backbone takes
MEAN_INPUT = 0.25  # halfway between the mean input of networks trained on 0..1 (0.5) and on -1..1 (0)


class LayerPooling(NamedTuple):
    """Where features are read off a backbone."""

    layer: str  # one of LAYERS
    pooling: str  # one of POOLINGS


def build_inception(image_size: int, seed: int, policy: str = "float32") -> "keras.Model":
    """Build InceptionV3 without top, random weights by `seed`: (n, image_size, image_size, 3) -> `mixed10`.

    policy : "float32", or "mixed_bfloat16" to compute in bfloat16 with float32 weights
    """
    tensorflow()
    import keras
    from keras.src.random import seed_generator

    keras.utils.set_random_seed(seed)
    # Keras draws the seed of each layer from Python's generator, which other threads, such as those of a cluster's
    # worker, may ask meanwhile: here, from one of its own, with the same numbers
    shared, seed_generator.python_random = seed_generator.python_random, random.Random(seed)
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        return keras.applications.InceptionV3(include_top=False, weights=None, input_shape=(image_size, image_size, 3))
    finally:
        keras.config.set_dtype_policy(before)
        seed_generator.python_random = shared


def guess_input_range(backbone: "keras.Model") -> str:
    """Return which of RANGES the weights of `backbone` were trained with.

    The first batch normalisation keeps the mean of each of the 32 channels of the first convolution; were the input
    constant mu, they would be mu times the sum of the channel's kernel. The mu that fits best is about 0.5 for a
    network trained on 0..1, and about 0 for one on -1..1.
    """
    convolution, normalisation = backbone.layers[1], backbone.layers[2]
    kernel_sums = convolution.get_weights()[0].sum(axis=(0, 1, 2))  # (32,)
    means = normalisation.moving_mean.numpy()  # (32,)
    fitted = float((kernel_sums * means).sum() / max(1e-12, (kernel_sums**2).sum()))
    return "0..1" if fitted > MEAN_INPUT else "-1..1"


def choose_input_range(backbone: "keras.Model", asked: str) -> tuple[float, float]:
    """Return what `backbone` takes for black and white; asked : one of RANGES, or "auto" to ask its weights."""
    return RANGES[guess_input_range(backbone) if asked == "auto" else asked]


def name_range(input_range: tuple[float, float]) -> str:
    """Return the name of one of RANGES."""
    return next(name for name, values in RANGES.items() if values == tuple(input_range))


def scale_pixels(images_rgb, low: float, high: float):
    """Scale a uint8 RGB tensor (n, size, size, 3) to float32 in [low, high], as the backbone takes it."""
    tf = tensorflow()
    return tf.cast(images_rgb, tf.float32) * ((high - low) / 255.0) + low


def pool_maps(maps, pooling: str):
    """Pool activations (n, h, w, channels) of any float type into float32 features (n, channels).

    pooling : "average", "max", or "gem", the generalised mean of power GEM_POWER; "concat" gives (n, 2 * channels), the
        averages scaled to length 1, then the maxima scaled to length 1
    """
    tf = tensorflow()
    maps = tf.cast(maps, tf.float32)
    if pooling == "concat":
        return tf.concat([tf.math.l2_normalize(pool_maps(maps, part), axis=1) for part in ("average", "max")], axis=1)
    if pooling == "max":
        return tf.reduce_max(maps, axis=(1, 2))
    if pooling == "gem":
        # the floor keeps the gradient of the root finite where a channel is silent
        return tf.reduce_mean(tf.maximum(maps, 1e-4) ** GEM_POWER, axis=(1, 2)) ** (1.0 / GEM_POWER)
    return tf.reduce_mean(maps, axis=(1, 2))


def select_layers(backbone: "keras.Model", layers: list[str]) -> "keras.Model":
    """Return the part of `backbone` that leads to `layers`, weights shared; it gives a list of outputs for several."""
    import keras

    outputs = [backbone.get_layer(layer).output for layer in layers]
    return keras.Model(backbone.input, outputs[0] if len(outputs) == 1 else outputs)


def batch_norm_gain(layer: "keras.layers.BatchNormalization") -> tuple[np.ndarray, np.ndarray]:
    """Return what a batch normalisation multiplies each channel by in evaluation, and what it adds: (channels,)."""
    gain = 1.0 / np.sqrt(layer.moving_variance.numpy().astype(np.float64) + layer.epsilon)
    if layer.gamma is not None:
        gain = gain * layer.gamma.numpy()
    return gain, layer.beta.numpy() - layer.moving_mean.numpy() * gain


def fold_batch_norm(network: "keras.Model", dtype: str) -> "keras.Model":
    """Copy a network with each batch normalisation folded into the convolution before it, computed in `dtype`.

    In evaluation both are affine, so one convolution with a bias does the work of the two, and oneDNN fuses it with the
    ReLU behind. That is what makes bfloat16 pay: batch normalisation itself is slow in it.
    """
    import keras

    def clone(layer: keras.Layer) -> keras.Layer:
        if isinstance(layer, keras.layers.InputLayer):
            return type(layer).from_config(layer.get_config())
        if isinstance(layer, keras.layers.BatchNormalization):
            return keras.layers.Identity(name=layer.name, dtype=dtype)
        changes = {"use_bias": True} if isinstance(layer, keras.layers.Conv2D) else {}
        return type(layer).from_config({**layer.get_config(), **changes, "dtype": dtype})

    copy = keras.models.clone_model(
        network, clone_function=clone, call_function=lambda layer, *inputs, **options: layer(*inputs)
    )
    for layer in network.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            convolution = layer.input._keras_history.operation
            kernel = convolution.get_weights()[0]  # (h, w, channels_in, channels_out)
            gain, bias = batch_norm_gain(layer)
            copy.get_layer(convolution.name).set_weights([kernel * gain, bias])
    return copy


def feature_function(
    backbone: "keras.Model", place: LayerPooling, input_range: tuple[float, float], views: str, dtype: str
):
    """Compile a function from uint8 RGB images (n, size, size, 3) to float32 features (n, n_features), not normalised.

    input_range : what the backbone takes for black and white
    views : of which the features are the mean, see `list_views`
    dtype : what it computes in, "float32" or "bfloat16"
    """
    tf = tensorflow()
    low, high = input_range
    maps = fold_batch_norm(select_layers(backbone, [place.layer]), dtype)

    @tf.function(autograph=False, reduce_retracing=True)
    def features(images_rgb):
        inputs = list_views(scale_pixels(images_rgb, low, high), views, tf.image.rot90)
        return sum(pool_maps(maps(view, training=False), place.pooling) for view in inputs) / len(inputs)

    return features


def count_features(backbone: "keras.Model", place: LayerPooling) -> int:
    """Return the number of features read off at a place."""
    return int(backbone.get_layer(place.layer).output.shape[-1]) * (2 if place.pooling == "concat" else 1)
