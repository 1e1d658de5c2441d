"""Train the small network by which stage 01 tells product from ground, on photographs whose true masks are known.

    python make_background_network.py
    python make_background_network.py --MASK_DATASETS=sample_train,bags --GROUND_DATASETS=streets
    python 01.img_preprocess.py --BACKGROUND_NETWORK=model/background_network.onnx

Not needed for a run: a trained network lies in pipeline/. It pays where your goods or grounds are unlike those that it
was trained on (doc/results.md says which), and some hundred photographs of yours have masks; masks of stage 01 that
you looked through will do. They lie in mask_true/D/, named as the photographs in raw_img/D/ with .png after it, 0 and
255.

1. COMPOSITES photographs are composed: products are cut out, turned, scaled, bent, given other colours, partly the
   ground's own, and put before white, graded and drawn grounds and photographs of GROUND_DATASETS, with shadows, shop
   text and other things behind them.
2. A network in the shape of a U (Ronneberger et al. 2015, arXiv:1505.04597) learns from these and from the photographs
   themselves to tell product from ground; every HELD_OUT-th model is kept apart and says how well it does.
3. It is written as an ONNX file.

Reads:  raw_img/D/ (D: MASK_DATASETS and GROUND_DATASETS), mask_true/D/ (yours, or of make_sample_images.py)
Writes: model/background_network.onnx, model/background_network.json
Config: MASK_DATASETS, GROUND_DATASETS, COMPOSITES, MASK_EPOCHS, LABEL_PATTERN, RANDOM_SEED, N_JOBS, REDO
"""

import functools
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import cv2
import numpy as np
from tqdm import tqdm

import config
from pipeline import files, images, network, parallel, settings
from pipeline.background.colour import to_lab
from pipeline.background.ground import fit_ground
from pipeline.background.network import N_CHANNELS, NETWORK_SIZE, input_channels, normalise_channels
from pipeline.background.regions import bounding_box, is_plausible, size_within
from pipeline.sample.grounds import GROUNDS, blur, draw_ground
from pipeline.sample.shop_text import draw_shop_text

if TYPE_CHECKING:
    import keras

SETTINGS = ["MASK_DATASETS", "GROUND_DATASETS", "COMPOSITES", "MASK_EPOCHS", "LABEL_PATTERN", "RANDOM_SEED"]
WORK_SIZE = 320  # longest side at which photographs are used, pixels; as in stage 01
SIDE = 256  # pixels per side of a composed photograph
WIDTHS = (24, 48, 64, 96)  # channels of the network at half its size, a quarter of it, and so on
HELD_OUT = 10  # one model in so many is not trained on
REPEATS = 2  # times that a photograph itself is shown while each composite is shown once
BATCH_SIZE = 16
LEARNING_RATE = 0.002
AVERAGED_STEPS = 200  # steps over which the weights are averaged, about, or a tenth of all
SOURCES = 1200  # products cut out of each data set, at most, so that a large one does not outweigh the others


class Cutout(NamedTuple):
    """A product, cut to its box."""

    image_bgr: np.ndarray  # uint8 (H, W, 3); the pixels at its edge have the colour of those further in
    mask: np.ndarray  # uint8 (H, W), 0 and 1


# ---- composing photographs -----------------------------------------------------------------------


def cut_out(image_bgr: np.ndarray, mask: np.ndarray) -> Cutout:
    """The product of an image, uint8 BGR (H, W, 3), by its mask, bool (H, W), which holds something.

    At the edge the camera blended product and ground: these pixels take the colour of the product further in.
    """
    box = bounding_box(mask)
    image_bgr, whole = image_bgr[box].copy(), mask[box].astype(np.uint8)
    inside = cv2.erode(whole, np.ones((3, 3), np.uint8))
    weight = cv2.blur(inside.astype(np.float32), (7, 7))
    edge = (inside == 0) & (weight > 0.01)
    further_in = cv2.blur(image_bgr * inside[..., None].astype(np.float32), (7, 7))
    image_bgr[edge] = np.clip(further_in[edge] / weight[edge, None], 0, 255)
    return Cutout(image_bgr, whole)


def recoloured(image_bgr: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The image in other colours: another hue, paler or stronger, lighter or darker; four of ten stay as they are."""
    if rng.random() < 0.4:
        return image_bgr
    hsv = cv2.cvtColor(image_bgr, cv2.COLOR_BGR2HSV).astype(np.float32)
    hsv[..., 0] = (hsv[..., 0] + rng.uniform(0, 180)) % 180
    hsv[..., 1] = np.clip(hsv[..., 1] * rng.choice([0, 0.3, 0.7, 1, 1.5]) + rng.choice([0, 0, 20]), 0, 255)
    value = hsv[..., 2] / 255
    kind = rng.choice(["pale", "dark", "curve", "negative", "same"], p=[0.25, 0.15, 0.3, 0.08, 0.22])
    if kind == "pale":
        value = 1 - (1 - value) * rng.uniform(0.08, 0.5)
    elif kind == "dark":
        value = value * rng.uniform(0.15, 0.5)
    elif kind == "curve":
        value = value ** rng.uniform(0.4, 2.5)
    elif kind == "negative":
        value = 1 - value
    hsv[..., 2] = 255 * value
    return cv2.cvtColor(hsv.astype(np.uint8), cv2.COLOR_HSV2BGR)


def disguised(product: Cutout, ground_bgr: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The product's image with what is hard to tell from a ground of the colour `ground_bgr` (3,); mostly as it is.

    Parts of the ground's colour, highlights of it, the whole faded towards it, nothing but lines, stripes.
    """
    kinds = ["parts", "light", "faded", "lines", "stripes", "as it is"]
    kind = rng.choice(kinds, p=[0.12, 0.08, 0.07, 0.07, 0.07, 0.59])
    image_bgr, (height, width) = product.image_bgr.copy(), product.mask.shape

    def within(far: int) -> np.ndarray:
        """Where the product's outline is farther than `far` pixels: bool (height, width)."""
        framed = cv2.copyMakeBorder(product.mask, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
        return cv2.distanceTransform(framed, cv2.DIST_L2, 3)[1:-1, 1:-1] > far

    if kind == "parts":
        field = cv2.resize(rng.normal(0, 1, (rng.integers(2, 7),) * 2), (width, height), interpolation=cv2.INTER_CUBIC)
        part = field > np.quantile(field, rng.uniform(0.5, 0.9))
        part &= within(2) | (rng.random() < 0.5)
        image_bgr[part] = np.clip(image_bgr[part] * rng.uniform(0, 0.1) + 0.95 * ground_bgr, 0, 255)
    elif kind == "light":
        image_bgr[image_bgr.max(axis=2) > rng.integers(60, 220)] = ground_bgr
    elif kind == "faded":
        share = rng.uniform(0.3, 0.9)
        image_bgr = (image_bgr * (1 - share) + ground_bgr * share).astype(np.uint8)
    elif kind == "lines":
        lines = cv2.Canny(image_bgr, 80, 200) > 0
        blank = within(round(max(height, width) * rng.uniform(0.006, 0.02))) & ~lines
        share = rng.uniform(0, 0.12)
        image_bgr[blank] = image_bgr[blank] * share + ground_bgr * (1 - share)
    elif kind == "stripes":
        along = np.mgrid[:height, :width][rng.integers(2)]
        stripe = along * int(rng.integers(3, 20)) // max(height, width) % 2 == 0
        image_bgr[stripe] = rng.uniform(0, 255, 3) if rng.random() < 0.6 else ground_bgr
    return image_bgr


def seen_anew(product: Cutout, longest: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """The product turned, scaled to about `longest` pixels, sheared, mirrored, and half of the time bent.

    Returns its image, uint8 BGR (h, w, 3), and its opacity, float32 (h, w), 0..1.
    """
    image_bgr, opacity = product.image_bgr, product.mask.astype(np.float32)
    if rng.random() < 0.5:
        image_bgr, opacity = np.ascontiguousarray(image_bgr[:, ::-1]), np.ascontiguousarray(opacity[:, ::-1])
    shrink = min(1.0, 1.2 * longest / max(opacity.shape))
    size = max(4, round(opacity.shape[1] * shrink)), max(4, round(opacity.shape[0] * shrink))
    image_bgr, opacity = (cv2.resize(values, size, interpolation=cv2.INTER_AREA) for values in (image_bgr, opacity))
    width, height = size
    angle = np.deg2rad(rng.normal(0, 15) if rng.random() < 0.9 else rng.uniform(-180, 180))
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    stretch, scale = np.exp(rng.normal(0, 0.12)), longest / max(size)
    matrix = np.diag([scale * stretch, scale / stretch]) @ turn @ [[1, rng.normal(0, 0.1)], [0, 1]]
    corners = np.array([[0, 0], [width, 0], [0, height], [width, height]]) @ matrix.T
    low, high = corners.min(axis=0) - 2, corners.max(axis=0) + 2
    width, height = np.ceil(high - low).astype(int).tolist()
    warp = np.column_stack([matrix, -low])
    image_bgr = cv2.warpAffine(image_bgr, warp, (width, height), borderMode=cv2.BORDER_REPLICATE)
    opacity = cv2.warpAffine(opacity, warp, (width, height))
    if rng.random() < 0.5:
        knots, far = int(rng.integers(2, 6)), rng.uniform(0.02, 0.08) * max(height, width)
        y, x = np.mgrid[:height, :width].astype(np.float32)
        bends = far * rng.standard_normal((2, knots, knots), np.float32)
        x, y = (
            along + cv2.resize(bend, (width, height), interpolation=cv2.INTER_CUBIC)
            for along, bend in zip((x, y), bends, strict=True)
        )
        image_bgr = cv2.remap(image_bgr, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        opacity = cv2.remap(opacity, x, y, cv2.INTER_LINEAR)
    return image_bgr, opacity


def laid_over(canvas: np.ndarray, values: np.ndarray, opacity: np.ndarray, x: int, y: int) -> None:
    """Put `values` (h, w, ...) with their opacity (h, w) on the canvas (SIDE, SIDE, ...), in place, corner at x, y."""
    height, width = opacity.shape
    top, left, bottom, right = max(0, y), max(0, x), min(SIDE, y + height), min(SIDE, x + width)
    if bottom > top and right > left:
        here, there = np.s_[top:bottom, left:right], np.s_[top - y : bottom - y, left - x : right - x]
        share = opacity[there].reshape(bottom - top, right - left, *(1,) * (canvas.ndim - 2))
        canvas[here] += (values[there] - canvas[here]) * share


def ground(photographs: list[np.ndarray], rng: np.random.Generator) -> tuple[np.ndarray, bool]:
    """What lies behind a product, float32 BGR (SIDE, SIDE, 3), 0..255, and whether it is plain.

    photographs : uint8 BGR of any size, of which some become grounds; may be empty
    """
    kind = rng.choice(["white", "graded", "photograph", "drawn", "noise"], p=[0.2, 0.25, 0.3, 0.2, 0.05])
    if kind == "white":
        return np.full((SIDE, SIDE, 3), 255 if rng.random() < 0.8 else rng.integers(240, 256), np.float32), True
    if kind == "graded":
        light = rng.uniform(20, 250) if rng.random() < 0.4 else rng.uniform(180, 252)
        one = light + rng.normal(0, 12 if rng.random() < 0.6 else 45, 3)
        other = one + rng.normal(0, 18) + rng.normal(0, 5, 3)
        y, x = np.mgrid[-1 : 1 : SIDE * 1j, -1 : 1 : SIDE * 1j]
        angle = rng.uniform(0, 2 * np.pi)
        share = (np.cos(angle) * x + np.sin(angle) * y + 1) / 2
        form = rng.choice(["line", "round", "wall and floor"], p=[0.56, 0.24, 0.2])
        if form == "round":
            share = np.hypot(x, y) / 1.4
        elif form == "wall and floor":
            share = 1 / (1 + np.exp((rng.uniform(-0.3, 0.7) - y) * rng.choice([8, 30, 100])))
        smooth = one + (other - one) * share[..., None]
        grain = rng.normal(0, rng.uniform(0.5, 4), (SIDE, SIDE, 1)) if rng.random() < 0.3 else 0
        return np.clip(smooth + grain, 0, 255).astype(np.float32), True
    if kind == "photograph" and photographs:
        photograph = photographs[rng.integers(len(photographs))]
        height, width = (np.array(photograph.shape[:2]) * rng.uniform(0.4, 1)).astype(int)
        top, left = (
            int(rng.integers(0, all_ - part + 1)) for all_, part in zip(photograph.shape, (height, width), strict=False)
        )
        part = cv2.resize(
            photograph[top : top + height, left : left + width], (SIDE, SIDE), interpolation=cv2.INTER_AREA
        )
        part = part[:, ::-1] if rng.random() < 0.5 else part
        part = recoloured(np.ascontiguousarray(part), rng) if rng.random() < 0.2 else part
        return blur(part.astype(np.float32), rng.uniform(0.5, 3) * (rng.random() < 0.3)), False
    if kind == "noise":
        cells = int(rng.integers(2, 40))
        noise = rng.random((cells, cells, 1 if rng.random() < 0.5 else 3), np.float32)
        way = cv2.INTER_CUBIC if rng.random() < 0.5 else cv2.INTER_NEAREST
        share = cv2.resize(noise, (SIDE, SIDE), interpolation=way).reshape(SIDE, SIDE, -1)
        one, other = rng.uniform(0, 255, (2, 3))
        return np.clip(one + (other - one) * share, 0, 255).astype(np.float32), False
    form = list(GROUNDS)[rng.integers(len(GROUNDS))]
    return np.clip(255 * draw_ground(form, rng, SIDE), 0, 255), form in ("white", "graded")


def composite(
    cutouts: list[Cutout], photographs: list[np.ndarray], rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """A composed photograph, uint8 BGR (SIDE, SIDE, 3), and its mask, float32 (SIDE, SIDE), 0..1."""
    canvas, plain = ground(photographs, rng)
    ground_bgr, mask = canvas.mean(axis=(0, 1)), np.zeros((SIDE, SIDE), np.float32)

    def any_cutout() -> Cutout:
        one = cutouts[rng.integers(len(cutouts))]
        return Cutout(recoloured(one.image_bgr, rng), one.mask)

    if rng.random() < (0.04 if plain else 0.3):  # other things, at the sides, often out of focus
        for _ in range(rng.integers(1, 4)):
            image_bgr, opacity = seen_anew(any_cutout(), SIDE * rng.uniform(0.15, 0.5), rng)
            sigma = 2.0 * (rng.random() < 0.5)
            out = rng.uniform(0.2, 0.7)  # share of it that lies outside
            x, y = rng.uniform(-0.5, 0.5, 2) * opacity.shape[::-1] + rng.uniform(
                0, SIDE - np.array(opacity.shape[::-1]) / 2
            )
            side = rng.integers(4)
            x = (-out * opacity.shape[1], SIDE - (1 - out) * opacity.shape[1], x, x)[side]
            y = (y, y, -out * opacity.shape[0], SIDE - (1 - out) * opacity.shape[0])[side]
            laid_over(canvas, blur(image_bgr.astype(np.float32), sigma), blur(opacity, sigma), int(x), int(y))

    product = any_cutout()
    product = Cutout(disguised(product, ground_bgr, rng), product.mask)
    copies = 1 if rng.random() < 0.86 else int(rng.integers(2, 4))
    longest = SIDE * rng.uniform(0.35, 0.98) / copies**0.6 if rng.random() < 0.9 else SIDE * rng.uniform(0.95, 1.3)
    for i in range(copies):
        image_bgr, opacity = seen_anew(product, longest, rng)
        height, width = opacity.shape
        x, y = (SIDE / 2 + rng.normal(0, 0.07 * SIDE, 2) - (width / 2, height / 2)).astype(int).tolist()
        x += int((i - (copies - 1) / 2) * SIDE / copies)
        if rng.random() < 0.4:
            shadow = blur(opacity, rng.choice([1.5, 4, 10])) * np.float32(rng.uniform(0.15, 0.6))
            right, down = int(rng.normal(0, 0.03 * SIDE)), int(abs(rng.normal(0, 0.04 * SIDE)))
            if rng.random() < 0.4:  # where it touches the floor
                shadow, down = cv2.resize(shadow, (width, max(3, height // 7))), height - height // 14
            black = np.full((*shadow.shape, 3), 0.2 * canvas.min(), np.float32)
            laid_over(canvas, black, shadow, x + right, y + down)
        opacity = blur(opacity, 0.6 * (rng.random() < 0.5))
        laid_over(canvas, image_bgr.astype(np.float32), opacity, x, y)
        laid_over(mask, np.ones_like(opacity), opacity, x, y)
    if not plain and rng.random() < 0.06:  # something in front
        image_bgr, opacity = seen_anew(any_cutout(), 0.3 * SIDE, rng)
        x, y = int(rng.uniform(-50, SIDE - 50)), int(SIDE - opacity.shape[0] * rng.uniform(0.3, 0.8))
        laid_over(canvas, image_bgr.astype(np.float32), opacity, x, y)
        laid_over(mask, np.zeros_like(opacity), opacity, x, y)
    if rng.random() < 0.3:
        canvas /= 255
        hidden = np.zeros_like(mask)
        draw_shop_text(canvas, hidden, rng)
        canvas, mask = 255 * canvas, mask * (1 - hidden)
    if not plain or ground_bgr.min() < 250:
        canvas *= np.exp(rng.normal(0, 0.04, 3)).astype(np.float32)
    canvas = blur(canvas, rng.uniform(0.4, 1.5) * (rng.random() < 0.25))
    if rng.random() < 0.2:
        canvas += rng.normal(0, rng.uniform(1, 7), canvas.shape)
    quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(45, 97))]
    coded = cv2.imencode(".jpg", np.clip(canvas, 0, 255).astype(np.uint8), quality)[1]
    return cv2.imdecode(coded, cv2.IMREAD_COLOR), mask


def example(image_bgr: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """What the network learns from: uint8 (NETWORK_SIZE, NETWORK_SIZE, N_CHANNELS + 1), the clues and the mask, 0..255.

    image_bgr : uint8 (H, W, 3); mask : (H, W), 0..1
    """
    side = NETWORK_SIZE
    small = cv2.resize(mask.astype(np.float32), (side, side), interpolation=cv2.INTER_AREA)
    seen = input_channels(image_bgr, fit_ground(to_lab(image_bgr)), config.RANDOM_SEED)
    return np.dstack([seen, np.rint(255 * small).astype(np.uint8)])


def composed(cutouts: list[Cutout], photographs: list[np.ndarray], number: int) -> np.ndarray:
    """The `example` of the composite of that number; where its mask is next to nothing or all, another is drawn."""
    rng = np.random.default_rng([config.RANDOM_SEED, 4, number])
    image_bgr, mask = composite(cutouts, photographs, rng)
    while not 0.02 < mask.mean() < 0.9:
        image_bgr, mask = composite(cutouts, photographs, rng)
    return example(image_bgr, mask)


# ---- the network ---------------------------------------------------------------------------------


def u_network() -> "keras.Model":
    """A network in the shape of a U: clues, float32 (n, NETWORK_SIZE, NETWORK_SIZE, N_CHANNELS) -> logits (n, ..., 1).

    Convolutions of 3x3, each with batch normalisation. On the way up, what comes from below is added to what came from
    the side. At the bottom each pixel gets the mean of all: what product and ground look like in this image. Nothing is
    computed at full size, which would take a quarter of the time; the logits are enlarged.
    """
    import keras
    from keras import layers

    def block(x, channels: int, stride: int = 1, size: int = 3):
        x = layers.Conv2D(channels, size, stride, padding="same", use_bias=False)(x)
        return layers.ReLU()(layers.BatchNormalization(momentum=0.95)(x))

    seen = keras.Input((NETWORK_SIZE, NETWORK_SIZE, N_CHANNELS))
    x, across = seen, []
    for channels in WIDTHS:
        x = block(block(x, channels, stride=2), channels)
        across.append(x)
    whole = layers.Conv2D(WIDTHS[-1], 1, activation="relu")(layers.GlobalAveragePooling2D(keepdims=True)(x))
    x = block(layers.Add()([x, whole]), WIDTHS[-1])
    for channels, beside in zip(WIDTHS[-2::-1], across[-2::-1], strict=True):
        x = layers.UpSampling2D(2, interpolation="bilinear")(block(x, channels, size=1))
        x = block(layers.Add()([x, beside]), channels)
    return keras.Model(seen, layers.UpSampling2D(2, interpolation="bilinear")(layers.Conv2D(1, 1)(x)))


def changed(one: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """An `example` a little turned, scaled, moved, mirrored, its colours exchanged or cast."""
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


def batches(examples: list[np.ndarray], order: np.ndarray, epoch: int) -> Iterator[np.ndarray]:
    """The examples in this order, `changed`, BATCH_SIZE at a time, made in threads while the network is busy."""

    def batch(part: np.ndarray) -> np.ndarray:
        return np.stack([changed(examples[i], np.random.default_rng([config.RANDOM_SEED, 5, epoch, i])) for i in part])

    n = len(order) // BATCH_SIZE * BATCH_SIZE
    return parallel.in_threads(batch, order[:n].reshape(-1, BATCH_SIZE))


def train(model: "keras.Model", examples: list[np.ndarray], held_out: np.ndarray) -> list[dict[str, float]]:
    """Train the network; its weights are averages over the last steps at the end.

    examples : uint8 ndarrays of shape (NETWORK_SIZE, NETWORK_SIZE, N_CHANNELS + 1), see `example`
    held_out : the same, stacked, for what is not trained on; may be empty

    The loss is the cross entropy and 1 - intersection over union, both of the probabilities. Returns for each epoch its
    loss and the mean IoU of `held_out`.
    """
    tf = network.tensorflow()
    import keras

    n_steps = config.MASK_EPOCHS * (len(examples) // BATCH_SIZE)
    optimizer = keras.optimizers.AdamW(
        keras.optimizers.schedules.CosineDecay(LEARNING_RATE, n_steps),
        weight_decay=1e-4,
        use_ema=True,
        ema_momentum=1 - 1 / max(2, min(AVERAGED_STEPS, n_steps / 10)),
    )
    optimizer.build(model.trainable_variables)

    @tf.function
    def step(batch):
        seen = tf.cast(batch[..., :-1], tf.float32) / 127.5 - 1
        true = tf.cast(batch[..., -1:], tf.float32) / 255
        with tf.GradientTape() as tape:
            logits = model(seen, training=True)
            likely = tf.sigmoid(logits)
            both, either = (tf.reduce_sum(x, (1, 2, 3)) for x in (likely * true, likely + true - likely * true))
            entropy = tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(true, logits), (1, 2, 3))
            loss = tf.reduce_mean(entropy + 1 - (both + 1) / (either + 1))
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
        return loss

    history, rng = [], np.random.default_rng([config.RANDOM_SEED, 6])
    for epoch in range(config.MASK_EPOCHS):
        begin, order = time.perf_counter(), rng.permutation(len(examples))
        shown = tqdm(batches(examples, order, epoch), f"epoch {epoch + 1}", len(order) // BATCH_SIZE, disable=None)
        losses = [float(step(tf.constant(batch))) for batch in shown]
        row = {"epoch": epoch + 1, "loss": float(np.mean(losses)), "iou": mean_iou(model, held_out)}
        history.append(row | {"seconds": round(time.perf_counter() - begin, 1)})
        print("  ".join(f"{key} {value:.4g}" for key, value in history[-1].items()), flush=True)
    optimizer.finalize_variable_values(model.trainable_variables)
    return history


def mean_iou(model: "keras.Model", examples: np.ndarray) -> float:
    """Mean intersection over union of what the network finds and the masks of `examples`; 0 where there are none."""
    scores = []
    for start in range(0, len(examples), 64):
        part = examples[start : start + 64]
        found = np.asarray(model(normalise_channels(part[..., :-1]), training=False))[..., 0] > 0
        true = part[..., -1] > 127
        scores += ((found & true).sum(axis=(1, 2)) / np.maximum(1, (found | true).sum(axis=(1, 2)))).tolist()
    return float(np.mean(scores)) if scores else 0.0


def onnx_bytes(model: "keras.Model", about: str) -> bytes:
    """The network of `u_network` as an ONNX file's content, batch normalisation folded into the convolutions.

    It takes float32 (1, N_CHANNELS, NETWORK_SIZE, NETWORK_SIZE), see `normalise_channels`, and gives probabilities,
    (1, 1, NETWORK_SIZE, NETWORK_SIZE).
    """
    import keras
    import onnx
    from onnx import helper, numpy_helper

    nodes, constants, name_of = [], [], {}

    def constant(name: str, values: np.ndarray) -> str:
        constants.append(numpy_helper.from_array(np.ascontiguousarray(values, np.float32), name))
        return name

    def add(kind: str, inputs: list[str], output: str, **attributes) -> str:
        nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output

    for layer in model.layers:
        before = layer.input if isinstance(layer.input, list) else [layer.input]
        inputs, name = [name_of.get(id(tensor)) for tensor in before], layer.name
        if isinstance(layer, keras.layers.InputLayer):
            name = "clues"
        elif isinstance(layer, keras.layers.Conv2D):
            kernel, *bias = layer.get_weights()  # (height, width, channels in, channels out)
            bias = bias[0] if bias else np.zeros(kernel.shape[-1], np.float32)
            after = [other for other in model.layers if other.input is layer.output]
            if after and isinstance(after[0], keras.layers.BatchNormalization):
                gamma, beta, mean, variance = after[0].get_weights()
                factor = gamma / np.sqrt(variance + after[0].epsilon)
                kernel, bias = kernel * factor, beta - mean * factor
            size, stride = kernel.shape[0], layer.strides[0]
            # Keras pads an even side at stride 2 at its end alone
            pads = [0, 0, 0, 0] if size == 1 else [2 - stride, 2 - stride, 1, 1]
            values = [constant(f"{name}_kernel", kernel.transpose(3, 2, 0, 1)), constant(f"{name}_bias", bias)]
            add("Conv", inputs + values, name, kernel_shape=[size, size], strides=[stride, stride], pads=pads)
            if layer.activation is keras.activations.relu:
                name = add("Relu", [name], f"{name}_relu")
        elif isinstance(layer, keras.layers.BatchNormalization):
            name = inputs[0]
        elif isinstance(layer, keras.layers.ReLU):
            add("Relu", inputs, name)
        elif isinstance(layer, keras.layers.GlobalAveragePooling2D):
            add("GlobalAveragePool", inputs, name)
        elif isinstance(layer, keras.layers.Add):
            add("Add", inputs, name)
        else:
            scales = constant(f"{name}_scales", np.array([1, 1, 2, 2]))
            how = {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}
            add("Resize", [*inputs, constant(f"{name}_region", np.empty(0)), scales], name, **how)
        name_of[id(layer.output)] = name
    add("Sigmoid", [name_of[id(model.output)]], "product")
    side = NETWORK_SIZE
    graph = helper.make_graph(
        nodes,
        "background",
        [helper.make_tensor_value_info("clues", onnx.TensorProto.FLOAT, [1, N_CHANNELS, side, side])],
        [helper.make_tensor_value_info("product", onnx.TensorProto.FLOAT, [1, 1, side, side])],
        constants,
    )
    file = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8, doc_string=about)
    onnx.checker.check_model(file)
    return file.SerializeToString()


# ---- the data sets -------------------------------------------------------------------------------


def masked(dataset: str) -> list[tuple[Path, Path]]:
    """The photographs of a data set that have a true mask, and the masks."""
    folder = files.raw_img_dir(dataset)
    names = files.images_of(folder, f"put photographs there, or set MASK_DATASETS to others than {dataset}")
    pairs = [(folder / name, files.mask_true_dir(dataset) / f"{name}.png") for name in names]
    pairs = [pair for pair in pairs if pair[1].is_file()]
    if not pairs:
        raise settings.UserError(
            f"{files.shown(files.mask_true_dir(dataset))}/ has no mask for any photograph of {files.shown(folder)}/: "
            "name them like the photographs with .png after it, or set MASK_DATASETS to other data sets"
        )
    return pairs


def read_pair(pair: tuple[Path, Path]) -> tuple[np.ndarray, np.ndarray] | None:
    """An image, uint8 BGR (H, W, 3), and its mask, bool (H, W); None where they can't be read or hold nothing."""
    try:
        image_bgr, mask = (images.read_bgr(path) for path in pair)
    except images.ImageError:
        return None
    size = size_within(image_bgr.shape[1], image_bgr.shape[0], WORK_SIZE)
    image_bgr, mask = (cv2.resize(values, size, interpolation=cv2.INTER_AREA) for values in (image_bgr, mask))
    whole = mask[..., 0] > 127
    return (image_bgr, whole) if is_plausible(whole) else None


def model_of(path: Path) -> str:
    """The model that a photograph shows by LABEL_PATTERN, or its own name where that does not match."""
    match = re.match(config.LABEL_PATTERN, path.stem)
    return match.group(1) if match else path.stem


def prepared(sets: dict[str, list[tuple[Path, Path]]], grounds: list[Path]) -> tuple[list[np.ndarray], np.ndarray, int]:
    """The examples to train on, those of the models held out, stacked, and how many files could not be used."""
    rng = np.random.default_rng([config.RANDOM_SEED, 3])
    examples, held_out, cutouts, n_unused = [], [], [], 0
    for dataset, pairs in sets.items():
        models = sorted({model_of(path) for path, _ in pairs})
        apart = set(models[HELD_OUT // 2 :: HELD_OUT])
        there = [pairs[i] for i in np.sort(rng.permutation(len(pairs))[:SOURCES])]
        n_before = len(examples)
        read = tqdm(parallel.in_threads(read_pair, there), dataset, len(there), disable=None)
        for pair, found in zip(there, read, strict=True):
            if found is None:
                n_unused += 2  # the photograph and its mask
                continue
            if model_of(pair[0]) in apart:
                held_out.append(example(*found))
                continue
            examples += [example(*found)] * REPEATS
            cut_off = found[1][[0, -1]].any() or found[1][:, [0, -1]].any()
            if not cut_off or rng.random() < 0.3:  # what the border cuts off has no true outline there
                cutouts.append(cut_out(*found))
        print(f"{dataset}: {(len(examples) - n_before) // REPEATS} photographs to train on")
    if not cutouts:
        raise settings.UserError("no mask of MASK_DATASETS holds a product with ground around it: add others")
    photographs = [image for image in parallel.in_threads(read_ground, grounds) if image is not None]
    n_unused += len(grounds) - len(photographs)
    one = functools.partial(composed, cutouts, photographs)
    parts = parallel.in_threads(one, range(config.COMPOSITES))
    examples += list(tqdm(parts, "composites", config.COMPOSITES, disable=None))
    side = NETWORK_SIZE
    nothing = np.empty((0, side, side, N_CHANNELS + 1), np.uint8)
    return examples, np.stack(held_out) if held_out else nothing, n_unused


def read_ground(path: Path) -> np.ndarray | None:
    """A photograph to put things in front of, uint8 BGR, no larger than WORK_SIZE; None where it can't be read."""
    try:
        image_bgr = images.read_bgr(path)
    except images.ImageError:
        return None
    size = size_within(image_bgr.shape[1], image_bgr.shape[0], WORK_SIZE)
    return cv2.resize(image_bgr, size, interpolation=cv2.INTER_AREA)


def main() -> None:
    begin = time.perf_counter()
    try:
        import onnx  # noqa: F401
    except ImportError:
        raise settings.UserError("the network is written with the package onnx: pip install onnx") from None
    sets = {dataset: masked(dataset) for dataset in settings.listed(config.MASK_DATASETS)}
    grounds = []
    for dataset in settings.listed(config.GROUND_DATASETS):
        folder = files.raw_img_dir(dataset)
        grounds += [folder / n for n in files.images_of(folder, "put photographs there, or change GROUND_DATASETS")]
    every = [path for pairs in sets.values() for pair in pairs for path in pair] + grounds
    inputs = {files.shown(path): files.fingerprint_file(path) for path in every}
    origin = files.made_from(__file__, {"photographs and masks": files.fingerprint(inputs)}, SETTINGS)
    path, record_path = (files.model_dir("") / f"background_network.{suffix}" for suffix in ("onnx", "json"))
    if files.up_to_date(record_path, origin):
        files.unchanged([path])
        return

    cv2.setNumThreads(1)
    examples, held_out, n_unused = prepared(sets, grounds)
    network.tensorflow().keras.utils.set_random_seed(config.RANDOM_SEED)
    model = u_network()
    history = train(model, examples, held_out)
    score = mean_iou(model, held_out)
    about = (
        f"Tells product from ground; by {Path(__file__).name} from {config.MASK_DATASETS}, "
        f"{config.COMPOSITES} composites, {config.MASK_EPOCHS} epochs; mean IoU of models held out {score:.3f}"
    )
    print(f"models held out: {len(held_out)} photographs, mean IoU {score:.3f} at {NETWORK_SIZE} pixels")
    with files.whole(path) as temporary:
        temporary.write_bytes(onnx_bytes(model, about))
    files.write_record(record_path, origin, [path], n_examples=len(examples), held_out_iou=score, history=history)
    files.summary(len(every), len(every) - n_unused, n_unused, [path], time.perf_counter() - begin, "files")


if __name__ == "__main__":
    settings.run(main, __doc__)
