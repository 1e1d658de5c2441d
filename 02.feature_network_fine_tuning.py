"""Fine-tune InceptionV3 on known models, so that photographs of models never seen lie together by model.

    python 02.feature_network_fine_tuning.py
    python 02.feature_network_fine_tuning.py --TRAIN_DATASET=bags --IMAGE_SIZE=160 --EPOCHS=30

A classifier of the known models is trained on top of the block HEAD_LAYER: first the head alone, then the layers from
TRAIN_FROM_LAYER on, batch normalisation frozen (that of random weights is fitted to the images before). The features
that clustering needs are read off that block or an earlier one: right below a classifier they are about the models it
knows, a block or two earlier about what tells products apart. Some models are held out: they are never trained on;
after each epoch they choose block and pooling, and judge the features by how well K-means, told their number, finds
them (ARI), by how often an image's nearest neighbour shows its own model (recall at 1), and by how many of the nearest
do (mean average precision at R). What is judged, and kept, is the average of the weights over the last AVERAGED_EPOCHS.
Features are also judged whitened: along the directions in which photographs of one known model differ, as by light or
pose, all features are shortened (WHITENING), where the held-out models gain by it. Where no epoch beats the starting
network, read off where that is best, the starting network is kept. Else, with REFIT, a second training from the same
start shows all models, the held-out ones too, for as many epochs as were best. A training that was killed goes on from
its last epoch.

References: Zhai & Wu 2019, "Classification is a strong baseline for deep metric learning" (arXiv:1811.12649):
normalised features and class weights, temperature, balanced sampling. Label smoothing: Szegedy et al. 2016
(doi:10.1109/CVPR.2016.308). Features from below the layer that is trained: Bordes et al. 2022, "Guillotine
regularization" (arXiv:2206.13378). Averaged weights: Tarvainen & Valpola 2017 (arXiv:1703.01780); Izmailov et al. 2018
(arXiv:1803.05407). Whitening: Hatch et al. 2006, "Within-class covariance normalization for SVM-based speaker
recognition" (Interspeech); for image retrieval: Radenović et al. 2019 (doi:10.1109/TPAMI.2018.2846566).

Reads:  training_images/T/<class>/, data/T/training_images.json, mask/T/
Writes: model/T/feature_network.h5, model/T/feature_whitening.npz, model/T/history.csv, model/T/classes.txt,
        model/T/feature_network.json
Config: TRAIN_DATASET, PRETRAINED_WEIGHTS, INPUT_RANGE, IMAGE_SIZE, CROP_TO_PRODUCT, FEATURE_LAYER, POOLING,
        COMPUTE_DTYPE, HEAD, HEAD_LAYER, TEMPERATURE, LABEL_SMOOTHING, AUGMENTATION, RANDOM_GROUND, HEAD_EPOCHS, EPOCHS,
        TRAIN_FROM_LAYER, LEARNING_RATE, WARMUP_EPOCHS, WEIGHT_DECAY, TRAIN_BATCH_SIZE, AVERAGED_EPOCHS,
        HELD_OUT_FRACTION, PATIENCE, WHITENING, REFIT, RANDOM_SEED, REDO
"""

import contextlib
import io
import json
import math
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from threadpoolctl import threadpool_limits
from tqdm import tqdm

import config
from pipeline import files, images, network, settings

if TYPE_CHECKING:
    import keras

SETTINGS = [
    "PRETRAINED_WEIGHTS",
    "INPUT_RANGE",
    "IMAGE_SIZE",
    "CROP_TO_PRODUCT",
    "FEATURE_LAYER",
    "POOLING",
    "COMPUTE_DTYPE",
    "HEAD",
    "HEAD_LAYER",
    "TEMPERATURE",
    "LABEL_SMOOTHING",
    "AUGMENTATION",
    "RANDOM_GROUND",
    "HEAD_EPOCHS",
    "EPOCHS",
    "TRAIN_FROM_LAYER",
    "LEARNING_RATE",
    "WARMUP_EPOCHS",
    "WEIGHT_DECAY",
    "TRAIN_BATCH_SIZE",
    "AVERAGED_EPOCHS",
    "HELD_OUT_FRACTION",
    "PATIENCE",
    "WHITENING",
    "REFIT",
    "RANDOM_SEED",
]
PLACE = ("feature_layer", "pooling", "whitened")  # where features are read off, and whether they are whitened
SCORES = ("ari", "recall_at_1", "map_at_r")
HISTORY = ["epoch", "phase", "learning_rate", "loss", "accuracy", *SCORES, *PLACE, "seconds"]
FITTED_IMAGES = 256  # images by which the normalisation of random weights is fitted
COMPARED_IMAGES = 128  # images on which bfloat16 is compared with float32
MIN_CLASSES = 4  # two to tell apart in training and two to judge by
HEAD_RATE = 10.0  # learning rate of the head, which starts from nothing, relative to the network's
K_MEANS_SEEDS = 8  # runs of K-means by which features are judged; between two, the ARI of ten models jumps by 0.05
GRADIENT_NORM = 5.0  # longer gradients are shortened to this
JUDGED_IMAGES = 1000  # at most, so that judging an epoch stays short beside training it
WHITENING_IMAGES = 2000  # at most, by which features are whitened
PER_MODEL = 20  # images of a model at least, where it has them and only part of the images is taken
KEPT_BYTES = 1_000_000_000  # decoded training images kept in a temporary file; the others are decoded each time


# ---- models held out -----------------------------------------------------------------------------


def split_models(class_of: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """Choose the models that are held out.

    Parameters
    ----------
    class_of : int ndarray of shape (n_images,), the class of each image, from 0
    fraction : share of the classes to hold out, above 0 and below 1

    Returns
    -------
    int ndarray of the held-out classes, ascending; at least two, each with at least two images, and at least two
    classes are left to train on. Raises UserError where that is impossible.
    """
    counts = np.bincount(class_of)
    n_classes, candidates = len(counts), np.flatnonzero(counts >= 2)
    if n_classes < MIN_CLASSES or len(candidates) < 2:
        raise settings.UserError(
            f"{files.shown(files.training_images_dir(config.TRAIN_DATASET))}/ has {n_classes} models, "
            f"{len(candidates)} with two images or more; fine-tuning needs {MIN_CLASSES} (two of them with two): "
            'add photographs of more models, or set FEATURE_NETWORK = "pretrained" and leave this stage out'
        )
    wanted = min(max(2, round(fraction * n_classes)), n_classes - 2, len(candidates))
    return np.sort(np.random.default_rng([seed, 1]).permutation(candidates)[:wanted])


def subset(class_of: np.ndarray, chosen: np.ndarray, at_most: int, seed: int) -> np.ndarray:
    """Indices of at most `at_most` images of the `chosen` classes, ascending.

    Of each class PER_MODEL images or more, where it has them; of many classes, only some are taken.
    """
    rng, per_class = np.random.default_rng([seed, 2]), max(PER_MODEL, at_most // len(chosen))
    found: list[int] = []
    for label in rng.permutation(chosen):
        members = rng.permutation(np.flatnonzero(class_of == label))[:per_class]
        if len(found) + len(members) <= at_most or not found:
            found += members.tolist()
    return np.sort(np.array(found))


def judge(features: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """How well features tell models apart.

    Parameters
    ----------
    features : float32 ndarray of shape (n_images, n_features)
    labels : int ndarray of shape (n_images,), at least two different

    Returns
    -------
    "ari" : mean Adjusted Rand Index of K_MEANS_SEEDS K-means told the number of models, -0.5 to 1
    "recall_at_1" : share of images whose nearest neighbour (cosine) shows the same model, 0 to 1; images alone in their
        model are not asked
    "map_at_r" : `map_at_r`, 0 to 1
    "score" : the mean of the three; K-means alone jumps with its starts

    All are 0 where a feature is not finite.
    """
    from sklearn.cluster import KMeans
    from sklearn.metrics import adjusted_rand_score

    if not np.isfinite(features).all():
        return dict.fromkeys((*SCORES, "score"), 0.0)
    features = network.normalised(features)
    near = features @ features.T
    np.fill_diagonal(near, -np.inf)
    asked = np.bincount(labels)[labels] > 1
    recall = float((labels[near.argmax(axis=1)] == labels)[asked].mean()) if asked.any() else 0.0
    n_models = len(np.unique(labels))
    found = [KMeans(n_models, n_init=10, random_state=seed).fit_predict(features) for seed in range(K_MEANS_SEEDS)]
    ari = float(np.mean([adjusted_rand_score(labels, predicted) for predicted in found]))
    precision = map_at_r(features, labels)
    return {"ari": ari, "recall_at_1": recall, "map_at_r": precision, "score": (ari + recall + precision) / 3}


def map_at_r(features: np.ndarray, labels: np.ndarray) -> float:
    """Mean average precision at R, 0 to 1: like recall at 1, but over all R other images of an image's model.

    features : float32 ndarray of shape (n_images, n_features); labels : int ndarray of shape (n_images,)
    Musgrave et al. 2020, "A metric learning reality check" (doi:10.1007/978-3-030-58595-2_41).

    >>> float(map_at_r(np.float32([[1, 0], [1, 0.1], [0, 1], [0.1, 1]]), np.array([0, 0, 1, 1])))
    1.0
    """
    features = network.normalised(features)
    near = features @ features.T
    np.fill_diagonal(near, -np.inf)
    same = labels[np.argsort(-near, axis=1, kind="stable")] == labels[:, None]  # (n, n), nearest first
    precision = np.cumsum(same, axis=1) / np.arange(1, len(labels) + 1)
    r = np.bincount(labels)[labels] - 1  # (n,)
    within = np.arange(len(labels)) < r[:, None]
    return float(((precision * same * within).sum(axis=1)[r > 0] / r[r > 0]).mean()) if (r > 0).any() else 0.0


# ---- images --------------------------------------------------------------------------------------


def augmented(image_rgb: np.ndarray, mask: np.ndarray | None, rng: np.random.Generator, strength: float) -> np.ndarray:
    """A training image changed as sellers change theirs.

    Turned, scaled, shifted, seen from aside, mirrored, relit, with a colour cast, blurred, covered by bars of shop
    text, compressed; with a mask, set on a random ground.

    Parameters
    ----------
    image_rgb : uint8 ndarray of shape (size, size, 3), product on white
    mask : uint8 ndarray of shape (size, size), 255 on the product; or None to leave the ground white
    strength : 0 changes nothing but the mirror and the ground
    """
    size = image_rgb.shape[0]
    if strength > 0:
        corners = np.float32([[0, 0], [size, 0], [size, size], [0, size]]) - size / 2
        angle, scale = np.deg2rad(rng.normal(0, 12) * strength), np.exp(rng.normal(-0.05, 0.12) * strength)
        turn = scale * np.float32([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        moved = corners @ turn.T + size / 2
        moved += rng.normal(0, 0.03 * size * strength, (4, 2)) + rng.normal(0, 0.03 * size * strength, 2)
        warp = cv2.getPerspectiveTransform(corners + np.float32(size / 2), moved.astype(np.float32))
        image_rgb = cv2.warpPerspective(image_rgb, warp, (size, size), borderValue=(255, 255, 255))
        mask = None if mask is None else cv2.warpPerspective(mask, warp, (size, size), flags=cv2.INTER_NEAREST)
    if rng.random() < 0.5:
        image_rgb, mask = image_rgb[:, ::-1], None if mask is None else mask[:, ::-1]
    picture = image_rgb.astype(np.float32)
    if strength > 0:
        cast = np.exp(rng.normal(0, 0.12 * strength) + rng.normal(0, 0.05 * strength, 3))  # per channel
        contrast = np.exp(rng.normal(0, 0.1 * strength))
        white = picture.min(axis=2, keepdims=True) >= 250  # stage 01 leaves the ground exactly white
        lit = np.clip((picture * cast - 128) * contrast + 128, 0, 255)
        picture = np.where(white, picture, lit).astype(np.float32)
    if mask is not None:
        picture = np.where(mask[..., None] > 127, picture, random_ground(size, rng))
    if strength > 0:
        picture = np.ascontiguousarray(picture)
        if rng.random() < 0.25 * strength:
            picture = cv2.GaussianBlur(picture, (0, 0), rng.uniform(0.3, 1.2))
        if rng.random() < 0.2 * strength:
            draw_text_bar(picture, rng)
        if rng.random() < 0.25 * strength:
            quality = int(rng.integers(35, 90))
            picture_bgr = np.clip(picture[..., ::-1], 0, 255).astype(np.uint8)
            coded = cv2.imencode(".jpg", picture_bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
            picture = cv2.imdecode(coded, cv2.IMREAD_COLOR)[..., ::-1]
    return np.ascontiguousarray(np.clip(picture, 0, 255).astype(np.uint8))


def random_ground(size: int, rng: np.random.Generator) -> np.ndarray:
    """A ground of blurred noise between two colours: float32 (size, size, 3), 0 to 255."""
    cells = int(rng.integers(1, 24))
    noise = rng.random((cells + 1, cells + 1, 1 if rng.random() < 0.5 else 3)).astype(np.float32)
    weight = cv2.resize(noise, (size, size), interpolation=cv2.INTER_LINEAR).reshape(size, size, -1)
    one, other = rng.uniform(0, 255, (2, 3))
    return (one + (other - one) * weight).astype(np.float32)


def draw_text_bar(picture: np.ndarray, rng: np.random.Generator) -> None:
    """Draw a bar with strokes like small print at the top or the bottom, in place: float32 (size, size, 3)."""
    size = picture.shape[0]
    height = int(size * rng.uniform(0.04, 0.12))
    top = (
        int(rng.integers(0, max(1, size // 8)))
        if rng.random() < 0.5
        else size - height - int(rng.integers(0, size // 8))
    )
    left, right = np.sort(rng.integers(0, size, 2))
    bar, ink = rng.uniform(0, 255, (2, 3))
    if rng.random() < 0.5:
        picture[top : top + height, left:right] = bar
    x = int(left)
    while x < right:
        width = int(rng.integers(1, max(2, height // 2 + 1)))
        picture[top + height // 4 : top + 3 * height // 4, x : x + width] = ink
        x += width + int(rng.integers(1, 4))


class TrainingImages:
    """Decoded training images, each decoded once where they fit into KEPT_BYTES.

    paths : the image files
    mask_paths : for each its mask by stage 01, or None
    handle : the file that keeps them, open, not buffered; so memory does not depend on their number
    """

    def __init__(self, paths: list[Path], mask_paths: list[Path | None], handle: io.RawIOBase):
        self.paths, self.mask_paths = paths, mask_paths
        self.problem: settings.UserError | None = None
        self.handle = handle
        self.lock = threading.Lock()  # images are read by several threads
        self.has_mask: dict[int, bool] = {}  # of the images that are kept
        self.n_bytes = 4 * config.IMAGE_SIZE**2  # of an image and its mask

    def keep(self, i: int, image_rgb: np.ndarray, mask: np.ndarray | None) -> None:
        """Put image i into the file; not where the disk is full."""
        record = image_rgb.tobytes() + (b"" if mask is None else mask.tobytes())
        with self.lock, contextlib.suppress(OSError):
            self.handle.seek(i * self.n_bytes)
            if self.handle.write(record) == len(record):
                self.has_mask[i] = mask is not None

    def kept(self, i: int) -> tuple[np.ndarray, np.ndarray | None]:
        """Image i out of the file."""
        size, record = config.IMAGE_SIZE, np.empty(self.n_bytes, np.uint8)
        with self.lock:
            self.handle.seek(i * self.n_bytes)
            self.handle.readinto(record)
        image_rgb, mask = np.split(record, [3 * size**2])
        return image_rgb.reshape(size, size, 3), mask.reshape(size, size) if self.has_mask[i] else None

    def read(self, i: int) -> tuple[np.ndarray, np.ndarray | None]:
        """Image i as the network takes it, uint8 RGB (size, size, 3), and its mask, uint8 (size, size), or None."""
        if i in self.has_mask:
            return self.kept(i)
        try:
            image_bgr = images.read_bgr(self.paths[i])
        except images.ImageError as error:
            self.problem = settings.UserError(
                f"{files.shown(self.paths[i])} can't be used ({error}): run 01.img_preprocess.py and "
                "make_training_image_folders.py again"
            )
            raise self.problem from None
        size, crop = config.IMAGE_SIZE, config.CROP_TO_PRODUCT
        image_rgb, mask = network.square_image(image_bgr, size, crop), None
        if self.mask_paths[i] is not None:
            mask_bgr = images.read_bgr(self.mask_paths[i])
            if mask_bgr.shape == image_bgr.shape:
                mask = network.square_mask(mask_bgr[..., 0], image_bgr, size, crop)
        if (i + 1) * self.n_bytes <= KEPT_BYTES:
            self.keep(i, image_rgb, mask)
        return image_rgb, mask

    def augmented(self, i: int, epoch: int, position: int) -> np.ndarray:
        """Image i changed by chance, the same for the same seed, epoch and position in the epoch."""
        rng = np.random.default_rng([config.RANDOM_SEED, 3, epoch, position])
        image_rgb, mask = self.read(i)
        with_ground = rng.random() < config.RANDOM_GROUND
        return augmented(image_rgb, mask if with_ground else None, rng, config.AUGMENTATION)


def epoch_order(class_of: np.ndarray, epoch: int, seed: int) -> np.ndarray:
    """Which images an epoch shows, in order: as many as there are, each class equally often (give or take one).

    Parameters
    ----------
    class_of : int ndarray of shape (n_images,)

    Returns
    -------
    int ndarray of shape (n_images,), indices into `class_of`; within a class all images come before one comes twice
    """
    rng = np.random.default_rng([seed, 4, epoch])
    classes = rng.permutation(np.unique(class_of))
    share, extra = divmod(len(class_of), len(classes))
    chosen = []
    for k, label in enumerate(classes):
        members, wanted = np.flatnonzero(class_of == label), share + (k < extra)
        rounds = [rng.permutation(members) for _ in range(math.ceil(wanted / len(members)))]
        chosen += np.concatenate(rounds)[:wanted].tolist() if rounds else []
    return rng.permutation(np.array(chosen))


def training_batches(source: TrainingImages, indices: np.ndarray, labels: np.ndarray, epoch: int) -> Iterator[tuple]:
    """Batches of an epoch: uint8 RGB (n, size, size, 3), int32 labels (n,). Made in threads while training goes on.

    indices, labels : int ndarrays of shape (n_images,), the images in the order shown and their classes
    """
    tf = network.tensorflow()
    size = config.IMAGE_SIZE

    def load(position: np.ndarray) -> np.ndarray:
        return source.augmented(int(indices[position]), epoch, int(position))

    @tf.autograph.experimental.do_not_convert  # else TensorFlow writes code files into the system's temporary folder
    def tensors(position):
        image_rgb = tf.numpy_function(load, [position], tf.uint8)
        return tf.ensure_shape(image_rgb, (size, size, 3)), tf.gather(labels.astype(np.int32), position)

    dataset = tf.data.Dataset.range(len(indices)).map(tensors, num_parallel_calls=settings.n_jobs(), deterministic=True)
    try:
        yield from dataset.batch(config.TRAIN_BATCH_SIZE).prefetch(4)
    except tf.errors.OpError:
        if source.problem:  # TensorFlow wraps what a thread raises
            raise source.problem from None
        raise


# ---- the network ---------------------------------------------------------------------------------


def features_of(source: TrainingImages, indices: np.ndarray, compute) -> np.ndarray:
    """Features of unchanged images, float32 (len(indices), n_features)."""
    found = []
    for begin in range(0, len(indices), 64):
        batch = np.stack([source.read(int(i))[0] for i in indices[begin : begin + 64]])
        found.append(np.asarray(compute(batch)))
    return np.concatenate(found)


def places_up_to(last: str) -> list[tuple[str, str]]:
    """Where features can be read off: (layer, pooling), those left open by FEATURE_LAYER and POOLING, up to `last`."""
    layers = network.LAYERS[: network.LAYERS.index(last) + 1]
    layers = layers if config.FEATURE_LAYER == "auto" else [config.FEATURE_LAYER]
    poolings = ["average", "max", "gem"] if config.POOLING == "auto" else [config.POOLING]
    return [(layer, pooling) for layer in layers for pooling in poolings]


class Reader:
    """Reads the features of images off several places of a network at once.

    trunk : InceptionV3; later changes of its weights are followed
    places : pairs of layer and pooling
    """

    def __init__(self, trunk: "keras.Model", places: list[tuple[str, str]]):
        tf = network.tensorflow()
        self.trunk, self.places, self.readers = trunk, places, {}
        layers = sorted({layer for layer, _ in places}, key=network.LAYERS.index)
        low, high = network.input_range(trunk)
        maps = network.cut(trunk, layers)

        @tf.function(autograph=False, reduce_retracing=True)
        def compute(images_rgb):
            outputs = maps(network.scaled(images_rgb, low, high), training=False)
            output_of = dict(zip(layers, outputs if len(layers) > 1 else [outputs], strict=True))
            return tf.concat([network.pooled(output_of[layer], pooling) for layer, pooling in places], axis=1)

        self.compute = compute
        self.ends = np.cumsum([network.n_features(trunk, layer) for layer, _ in places])

    def read(self, source: TrainingImages, indices: np.ndarray) -> list[np.ndarray]:
        """Features of unchanged images at each place, float32 (len(indices), n_features of the place)."""
        return np.split(features_of(source, indices, self.compute), self.ends[:-1], axis=1)

    def read_at(self, place: int, source: TrainingImages, indices: np.ndarray) -> np.ndarray:
        """The same at one place alone, which takes less memory."""
        if place not in self.readers:
            self.readers[place] = Reader(self.trunk, [self.places[place]])
        return self.readers[place].read(source, indices)[0]


def best_place(parts: list[np.ndarray], labels: np.ndarray) -> int:
    """Index of the features that tell models apart best, by `map_at_r`; parts : arrays of (n_images, n_features)."""
    return int(np.argmax([map_at_r(part, labels) for part in parts])) if len(parts) > 1 else 0


def within_model_whitening(features: np.ndarray, labels: np.ndarray, strength: float) -> network.Whitening | None:
    """What shortens features along the directions in which photographs of one model differ.

    Parameters
    ----------
    features : float32 ndarray of shape (n_images, n_features)
    labels : int ndarray of shape (n_images,), the model of each
    strength : from 0, which centres alone, to below 1: the share of the covariance within models C in the one that is
        whitened, (strength C + (1 - strength) mean variance) ^ -1/2. So noise is never blown up.

    Returns
    -------
    What `network.whitened` takes; None where features are not finite.
    """
    features = network.normalised(features)
    if not np.isfinite(features).all():
        return None
    _, model, n_images = np.unique(labels, return_inverse=True, return_counts=True)
    means = np.zeros((len(n_images), features.shape[1]))
    np.add.at(means, model, features)
    rest = features - (means / n_images[:, None])[model]
    with threadpool_limits(1):  # in several threads, the last digits depend on their number
        variances, directions = np.linalg.eigh(rest.T @ rest / len(rest))
        level = max(variances.mean(), 1e-12)
        scale = (strength * np.maximum(variances, 0) / level + 1 - strength) ** -0.5
        matrix = (directions * scale) @ directions.T
    return network.Whitening(features.mean(axis=0).astype(np.float32), matrix.astype(np.float32))


def bfloat16_cosine(
    trunk: "keras.Model", kept: dict, whitening: network.Whitening | None, images_rgb: np.ndarray
) -> float:
    """Least cosine between the features of images computed in bfloat16 and in float32, -1 to 1; 0 if not finite.

    kept : PLACE; images_rgb : uint8 ndarray of shape (n, size, size, 3)
    """
    one, other = (
        network.normalised(network.whitened(np.asarray(compute(images_rgb)), whitening))
        for dtype in ("bfloat16", "float32")
        for compute in [network.feature_function(trunk, kept["feature_layer"], kept["pooling"], False, dtype)]
    )
    return float(np.nan_to_num((one * other).sum(axis=1)).min())


def judge_place(
    reader: Reader, place: int, features: np.ndarray, source: TrainingImages, class_of: np.ndarray, judged: np.ndarray
) -> dict:
    """How well the network's features tell the held-out models apart at one place, whitened where that is better.

    features : those of the images `judged`, of the held-out models
    Returns what is called PLACE and `judge`. The whitening is learned from the other models.
    """
    labels = class_of[judged]
    found = dict(zip(PLACE, (*reader.places[place], False), strict=True)) | judge(features, labels)
    if config.WHITENING:
        known = np.setdiff1d(class_of, labels)
        shown = subset(class_of, known, WHITENING_IMAGES, config.RANDOM_SEED)
        learned = within_model_whitening(reader.read_at(place, source, shown), class_of[shown], config.WHITENING)
        whitened = judge(network.whitened(features, learned), labels)
        if whitened["score"] > found["score"]:
            found |= {"whitened": True} | whitened
    return found


def head_place(initial_weights: str) -> tuple[str, str]:
    """Layer and pooling that the classifier is trained on, HEAD_LAYER = "auto" decided; not before FEATURE_LAYER."""
    layer, pooling = ("mixed2", "max") if initial_weights == "random" else ("mixed7", "average")
    layer = layer if config.HEAD_LAYER == "auto" else config.HEAD_LAYER
    if config.FEATURE_LAYER != "auto":
        layer = max(layer, config.FEATURE_LAYER, key=network.LAYERS.index)
    return layer, pooling


def fit_normalisation(trunk: "keras.Model", last: str, images_rgb: np.ndarray) -> None:
    """Set mean and variance of each batch normalisation up to `last` to those of its input, block after block.

    Random weights come with a mean of 0 and a variance of 1 that fit nothing, and signals fade from block to block;
    frozen as they are, they keep a network from learning. After Mishkin & Matas 2016, "All you need is a good init"
    (arXiv:1511.06422).

    images_rgb : uint8 ndarray of shape (n, size, size, 3)
    """
    import keras

    maps = network.cut(trunk, [last])
    layers = [layer for layer in maps.layers if isinstance(layer, keras.layers.BatchNormalization)]
    for low_high in ((0.0, 1.0), (-1.0, 1.0)):
        momenta = [layer.momentum for layer in layers]
        for layer in layers:
            layer.momentum = 0.0
        maps(network.scaled(images_rgb, *low_high), training=True)
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
        if network.input_range(trunk) == low_high:  # what stage 03 will read off these statistics
            return


def unfrozen(maps: "keras.Model", first: str) -> list:
    """The weights of `maps` that are trained: all of its layers, or those after the block `first`.

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


def logits_of(features, weights, bias):
    """What the head says of features (n, n_features): float32 (n, n_classes).

    The cosine head compares directions alone: features and class weights have length 1, and the temperature makes up
    for the small range of cosines. The plain one is a linear layer.
    """
    tf = network.tensorflow()
    if config.HEAD == "softmax":
        return features @ weights + bias
    return tf.math.l2_normalize(features, axis=1) @ tf.math.l2_normalize(weights, axis=0) / config.TEMPERATURE


def learning_rate(step: int, n_steps: int, n_warmup: int) -> float:
    """Rises linearly over the first `n_warmup` steps to LEARNING_RATE, then falls to 0 by half a cosine.

    step : from 0 to n_steps - 1
    """
    if step < n_warmup:
        return config.LEARNING_RATE * (step + 1) / n_warmup
    done = (step - n_warmup) / max(1, n_steps - n_warmup)
    return config.LEARNING_RATE * 0.5 * (1 + math.cos(math.pi * done))


class Training:
    """The network with its head and optimisers: everything that a checkpoint has to hold.

    trunk : InceptionV3, as `network.inception` gives it
    layer, pooling : what the head takes
    n_classes : number of models trained on
    n_batches : steps in an epoch
    """

    def __init__(self, trunk: "keras.Model", layer: str, pooling: str, n_classes: int, n_batches: int):
        tf = network.tensorflow()
        import keras

        self.trunk, self.pooling = trunk, pooling
        self.low, self.high = network.input_range(trunk)
        self.maps = network.cut(trunk, [layer])
        n_features = network.n_features(trunk, layer)
        rng = np.random.default_rng([config.RANDOM_SEED, 5])
        scale = 1 / math.sqrt(n_features)
        self.head = [
            keras.Variable(rng.normal(0, scale, (n_features, n_classes)).astype(np.float32), name="head"),
            keras.Variable(np.zeros(n_classes, np.float32), name="head_bias"),
        ]
        self.trained = unfrozen(self.maps, config.TRAIN_FROM_LAYER)
        self.n_classes = n_classes
        self.optimizers = []
        steps = config.AVERAGED_EPOCHS * n_batches
        for variables, is_averaged in ((self.trained, steps > 0), (self.head, False)):
            momentum = math.exp(-1 / steps) if is_averaged else 0.0
            optimizer = keras.optimizers.AdamW(
                weight_decay=config.WEIGHT_DECAY, use_ema=is_averaged, ema_momentum=momentum
            )
            optimizer.build(variables)
            self.optimizers.append(optimizer)
        self.step_head = tf.function(
            lambda x, y: self.step(x, y, head_only=True), autograph=False, reduce_retracing=True
        )
        self.step_all = tf.function(
            lambda x, y: self.step(x, y, head_only=False), autograph=False, reduce_retracing=True
        )

    def features(self, images_rgb):
        """uint8 RGB (n, size, size, 3) -> float32 features (n, n_features)."""
        return network.pooled(self.maps(network.scaled(images_rgb, self.low, self.high), training=False), self.pooling)

    def step(self, images_rgb, labels, head_only: bool):
        """One step of training; returns the mean loss and the share of images classified rightly."""
        tf = network.tensorflow()
        trained = self.head if head_only else [*self.trained, *self.head]
        with tf.GradientTape() as tape:
            features = self.features(images_rgb)
            if head_only:
                features = tf.stop_gradient(features)
            logits = logits_of(features, self.head[0], self.head[1])
            smooth = config.LABEL_SMOOTHING
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

    def variables(self) -> list:
        """All that changes in training, in a fixed order."""
        return [*self.maps.weights, *self.head, *(v for o in self.optimizers for v in o.variables)]


# ---- checkpoints ---------------------------------------------------------------------------------


def write_checkpoint(path: Path, origin: dict, training: Training, best: list[np.ndarray], state: dict) -> None:
    """Write all that is needed to go on after this epoch: the values, the best epoch's weights, the history."""
    arrays = {f"value_{i}": v.numpy() for i, v in enumerate(training.variables())}
    arrays |= {f"best_{i}": value for i, value in enumerate(best)}
    text = json.dumps({"made_from": files.fingerprint(origin), **state})
    with files.whole(path) as temporary:
        np.savez(temporary, state=np.array(text), **arrays)


def read_checkpoint(path: Path, origin: dict, training: Training) -> tuple[list[np.ndarray], dict] | None:
    """Put back what `write_checkpoint` wrote; None where there is none of this very training, or it is damaged."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            state = json.loads(str(stored["state"]))
            if config.REDO or state["made_from"] != files.fingerprint(origin):
                return None
            values = [stored[f"value_{i}"] for i in range(len(training.variables()))]
            best = [stored[f"best_{i}"] for i in range(len(training.maps.weights))] if "best_0" in stored else []
            fits = {"history", "kept", "since_best"} <= state.keys()
    except Exception:  # zipfile and NumPy's parser of the header may raise anything on damaged bytes
        return None
    pairs = [*zip(training.variables(), values, strict=True), *zip(training.maps.weights, best, strict=False)]
    if not fits or any(variable.shape != value.shape for variable, value in pairs):
        return None
    for variable, value in zip(training.variables(), values, strict=True):
        variable.assign(value)
    return best, state


# ---- the stage -----------------------------------------------------------------------------------


def show_epoch(
    training: Training, source: TrainingImages, indices: np.ndarray, labels: np.ndarray, epoch: int
) -> dict[str, float]:
    """Train on each of the images `indices` once, more or less; what HISTORY says of that, without scores.

    indices, labels : int ndarrays of shape (n_images,), images and their classes
    """
    n_batches = network.n_batches(len(indices), config.TRAIN_BATCH_SIZE)
    head_only = epoch < config.HEAD_EPOCHS
    first_step = (epoch - config.HEAD_EPOCHS) * n_batches
    n_steps, n_warmup = config.EPOCHS * n_batches, config.WARMUP_EPOCHS * n_batches
    rates = [
        config.LEARNING_RATE if head_only else learning_rate(first_step + i, n_steps, n_warmup)
        for i in range(n_batches)
    ]
    order = epoch_order(labels, epoch, config.RANDOM_SEED)
    batches = training_batches(source, indices[order], labels[order], epoch)
    loss, accuracy = training.run_epoch(batches, rates, head_only)
    phase = "head" if head_only else "network"
    return {"epoch": epoch + 1, "phase": phase, "learning_rate": rates[-1], "loss": loss, "accuracy": accuracy}


def add_epoch(history: list[dict], row: dict, begin: float) -> None:
    """Add an epoch begun at the time `begin` to the history, and print it."""
    history.append(row | {"seconds": round(time.perf_counter() - begin, 2)})
    said = [(key, value) for key, value in history[-1].items() if value != ""]
    print("  ".join(f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}" for key, value in said))


def train(
    training: Training,
    reader: Reader,
    source: TrainingImages,
    class_of: np.ndarray,
    held_out: np.ndarray,
    start: dict,
    checkpoint: tuple[Path, dict],
) -> tuple[list[np.ndarray], dict, list[dict]]:
    """Train both phases and judge each epoch on the held-out models.

    reader : of the places where the trained network's features may be read off
    start : PLACE, "epoch" (0) and `judge` of the starting network

    Returns
    -------
    best : weights of the best epoch, those of `training.maps`; empty where none beat the starting network
    found : the same as `start`, of the best epoch; `start` itself where none beat it
    history : one dict of HISTORY for each epoch
    """
    trained_on = np.flatnonzero(~np.isin(class_of, held_out))
    labels = np.unique(class_of[trained_on], return_inverse=True)[1]
    judged = subset(class_of, held_out, JUDGED_IMAGES, config.RANDOM_SEED)
    best, state = read_checkpoint(*checkpoint, training) or ([], {"history": [], "kept": start, "since_best": 0})
    history, kept, since_best = state["history"], state["kept"], state["since_best"]
    if history:
        print(f"goes on after epoch {len(history)}")
    n_epochs = config.HEAD_EPOCHS + config.EPOCHS
    for epoch in tqdm(
        range(len(history), n_epochs), initial=len(history), total=n_epochs, unit=" epochs", disable=None
    ):
        if since_best >= config.PATIENCE:
            break
        begin = time.perf_counter()
        row, found = show_epoch(training, source, trained_on, labels, epoch), start
        if epoch >= config.HEAD_EPOCHS:
            with training.averaged():
                parts = reader.read(source, judged)
                place = best_place(parts, class_of[judged])
                found = judge_place(reader, place, parts[place], source, class_of, judged) | {"epoch": epoch + 1}
                since_best += 1
                if found["score"] > kept["score"]:
                    best, kept, since_best = training.maps.get_weights(), found, 0
        add_epoch(history, row | {key: found[key] for key in (*SCORES, *PLACE)}, begin)
        write_checkpoint(*checkpoint, training, best, {"history": history, "kept": kept, "since_best": since_best})
    return best, kept, history


def refit(
    training: Training, source: TrainingImages, class_of: np.ndarray, kept: dict, checkpoint: tuple[Path, dict]
) -> tuple[list[np.ndarray], list[dict]]:
    """Train on all models from the start to the best epoch, on the schedule by which that was found.

    kept : what `train` found, the "epoch" and the place of its features

    Returns
    -------
    weights : those of `training.maps`, averaged; empty where they are not finite
    history : one dict of HISTORY for each epoch, with no scores: no model is left to judge by
    """
    _, state = read_checkpoint(*checkpoint, training) or ([], {"history": []})
    history, every = state["history"], np.arange(len(class_of))
    if history:
        print(f"goes on after epoch {len(history)} with all models")
    for epoch in tqdm(
        range(len(history), kept["epoch"]), initial=len(history), total=kept["epoch"], unit=" epochs", disable=None
    ):
        begin = time.perf_counter()
        row = show_epoch(training, source, every, class_of, epoch)
        row |= {"phase": f"{row['phase']}, all models"} | dict.fromkeys(SCORES, "") | {key: kept[key] for key in PLACE}
        add_epoch(history, row, begin)
        write_checkpoint(*checkpoint, training, [], {"history": history, "kept": kept, "since_best": 0})
    with training.averaged():
        weights = training.maps.get_weights()
    return (weights if all(np.isfinite(value).all() for value in weights) else []), history


def described(found: dict) -> str:
    """Place and scores in words."""
    scores = "  ".join(f"{key} {found[key]:.3f}" for key in SCORES)
    whitened = ", whitened" if found["whitened"] else ""
    return f"{found['pooling']} of {found['feature_layer']}{whitened}, {scores}"


def masks_of(paths: list[str]) -> list[Path | None]:
    """For each image of training_images/T/ the mask that stage 01 wrote, or None."""
    record = files.read_record(files.data_dir(config.TRAIN_DATASET) / "training_images.json") or {}
    names, mask_dir = record.get("images", {}), files.mask_dir(config.TRAIN_DATASET)
    found = [mask_dir / f"{names[path]}.png" if path in names else None for path in paths]
    return [path if path and path.is_file() else None for path in found]


def fine_tune(
    source: TrainingImages, class_of: np.ndarray, checkpoints: list[Path], origin: dict
) -> tuple["keras.Model", network.Whitening | None, dict]:
    """Train, or not where that does not help.

    checkpoints : where to keep the training that chooses, and that on all models

    Returns the InceptionV3 to save, the whitening of its features, learned from all models, and what its record says:
    initial_weights, image_size, feature_layer, pooling, whitened, bfloat16_cosine, start_place, start_scores, scores,
    improved, refitted, best_epoch, n_epochs, held_out (classes), history.
    """
    held_out = split_models(class_of, config.HELD_OUT_FRACTION, config.RANDOM_SEED)
    trunk = network.inception(
        config.IMAGE_SIZE, "mixed_bfloat16" if network.compute_dtype() == "bfloat16" else "float32"
    )
    initial_weights = network.initialise(trunk)
    if initial_weights == "random":
        print(f"warning: {network.RANDOM_WARNING}", file=sys.stderr)
    seen = subset(class_of, np.unique(class_of), JUDGED_IMAGES, config.RANDOM_SEED)
    judged = subset(class_of, held_out, JUDGED_IMAGES, config.RANDOM_SEED)
    every = Reader(trunk, places_up_to("mixed10"))
    place = best_place(every.read(source, seen), class_of[seen]) if len(every.places) > 1 else 0
    features = every.read(source, judged)[place]
    start_scores = judge(features, class_of[judged])
    start = dict(zip(PLACE, (*every.places[place], False), strict=True)) | {"epoch": 0} | start_scores
    if config.WHITENING:
        whitened = judge_place(every, place, features, source, class_of, judged) | {"epoch": 0}
    else:
        whitened = start
    start_weights = trunk.get_weights()
    layer, pooling = head_place(initial_weights)
    if initial_weights == "random":
        fitted = np.random.default_rng([config.RANDOM_SEED, 6]).permutation(seen)[:FITTED_IMAGES]
        fit_normalisation(trunk, layer, np.stack([source.read(int(i))[0] for i in fitted]))
    fitted_weights = trunk.get_weights()

    def training_of(labels: np.ndarray) -> Training:
        trunk.set_weights(fitted_weights)
        n_batches = network.n_batches(len(labels), config.TRAIN_BATCH_SIZE)
        return Training(trunk, layer, pooling, len(np.unique(labels)), n_batches)

    training = training_of(class_of[~np.isin(class_of, held_out)])
    if config.EPOCHS and not training.trained:
        raise settings.UserError(
            f'TRAIN_FROM_LAYER = "{config.TRAIN_FROM_LAYER}" leaves nothing to train below the head on {layer}: '
            "set an earlier block, or a later HEAD_LAYER"
        )
    print(f"initial weights: {initial_weights}; head on {pooling} of {layer}; {len(held_out)} models held out")
    print(f"start: {described(start)}")
    if whitened["score"] > start["score"]:
        print(f"       {described(whitened)}")
    first = max(start, whitened, key=lambda found: found["score"])
    reader = Reader(trunk, places_up_to(layer))
    best, kept, history = train(training, reader, source, class_of, held_out, first, (checkpoints[0], origin))
    weights = []
    if best and config.REFIT:
        print(f"best: epoch {kept['epoch']}, {described(kept)}; trains as long on all models")
        training = training_of(class_of)
        weights, more = refit(training, source, class_of, kept, (checkpoints[1], origin))
        history = history + more
    if best:
        training.maps.set_weights(weights or best)
    else:
        trunk.set_weights(start_weights)
    whitening = None
    if kept["whitened"]:
        shown = subset(class_of, np.unique(class_of), WHITENING_IMAGES, config.RANDOM_SEED)
        features = Reader(trunk, [(kept["feature_layer"], kept["pooling"])]).read(source, shown)[0]
        whitening = within_model_whitening(features, class_of[shown], config.WHITENING)
    compared = np.random.default_rng([config.RANDOM_SEED, 7]).permutation(seen)[:COMPARED_IMAGES]
    cosine = bfloat16_cosine(trunk, kept, whitening, np.stack([source.read(int(i))[0] for i in compared]))
    about = {
        "initial_weights": initial_weights,
        "image_size": config.IMAGE_SIZE,
        **{key: kept[key] for key in PLACE},
        "whitened": whitening is not None,
        "bfloat16_cosine": cosine,
        "start_place": {key: start[key] for key in PLACE},
        "start_scores": start_scores,
        "scores": {key: kept[key] for key in start_scores},
        "improved": bool(best),
        "refitted": bool(weights),
        "best_epoch": kept["epoch"],
        "n_epochs": len(history),
    }
    return trunk, whitening, about | {"held_out": held_out, "history": history}


def main() -> None:
    begin = time.perf_counter()
    network.do_without_amx()
    dataset = config.TRAIN_DATASET
    folder, model_dir = files.training_images_dir(dataset), files.model_dir(dataset)
    names = files.images_of(folder, f"run make_training_image_folders.py --TRAIN_DATASET={dataset} first")
    mask_paths = masks_of(names) if config.RANDOM_GROUND else [None] * len(names)
    inputs = {files.shown(folder): files.fingerprint_folder(folder, names)}
    if any(mask_paths):
        inputs[files.shown(files.mask_dir(dataset))] = files.fingerprint(
            [p and files.fingerprint_file(p) for p in mask_paths]
        )
    origin = files.made_from(__file__, inputs, SETTINGS)
    origin["weights"] = network.weights_known()
    record_path = model_dir / "feature_network.json"
    outputs = [model_dir / name for name in ("feature_network.h5", "history.csv", "classes.txt")]
    whitening_path = model_dir / "feature_whitening.npz"
    if files.up_to_date(record_path, origin):
        files.unchanged(outputs[:1])
        return

    classes, class_of = np.unique([name.partition("/")[0] for name in names], return_inverse=True)
    checkpoints = [model_dir / "checkpoint.npz", model_dir / "refit_checkpoint.npz"]
    model_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=model_dir, buffering=0) as handle:  # without a name: gone whatever happens
        source = TrainingImages([folder / name for name in names], mask_paths, handle)
        trunk, whitening, about = fine_tune(source, class_of, checkpoints, origin)
    held_out, history = about.pop("held_out"), about.pop("history")
    if about["refitted"]:
        print(f"kept: the network trained on all models; without those held out: {described(about | about['scores'])}")
    elif about["improved"]:
        print(f"kept: the best epoch, {described(about | about['scores'])}")
    else:
        its_features = ", its features whitened" if whitening else ""
        print(f"kept: the starting network{its_features}, since training did not make it better on the held-out models")
    with files.whole(outputs[0]) as temporary:
        trunk.save(temporary, include_optimizer=False)
        if whitening:  # in here: where the disk is full, both stay as they were
            outputs.append(whitening_path)
            with files.whole(whitening_path) as beside, beside.open("wb") as handle:
                np.savez(handle, **whitening._asdict())
    if not whitening:
        whitening_path.unlink(missing_ok=True)
    files.write_csv(outputs[1], HISTORY, [[row[key] for key in HISTORY] for row in history])
    known = [name for i, name in enumerate(classes) if about["refitted"] or i not in held_out]
    files.write_lines(outputs[2], known)
    about |= {"held_out_models": [classes[i] for i in held_out], "seconds": round(time.perf_counter() - begin, 1)}
    files.write_record(record_path, origin, outputs, **about)
    for path in checkpoints:
        path.unlink(missing_ok=True)
    files.summary(len(names), len(names), 0, outputs[:1], about["seconds"])


if __name__ == "__main__":
    settings.run(main, __doc__)
