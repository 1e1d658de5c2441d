"""Training images: which models are held out, which images an epoch shows, and their pixels."""

import contextlib
import io
import math
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from pipeline import images
from pipeline.features.augmentation import augment
from pipeline.features.framing import fit_image, fit_mask
from pipeline.machinery.errors import UserError
from pipeline.tensorflow_runtime import tensorflow

MIN_CLASSES = 4  # two to tell apart in training and two to judge by
PER_MODEL = 20  # images of a model at least, where it has them and only part of the images is taken
KEPT_BYTES = 1_000_000_000  # decoded training images kept in a temporary file; the others are decoded each time


def split_models(class_of: np.ndarray, fraction: float, seed: int, folder: str) -> np.ndarray:
    """Choose the models that are held out.

    Parameters
    ----------
    class_of : int ndarray of shape (n_images,), the class of each image, from 0
    fraction : share of the classes to hold out, above 0 and below 1
    folder : where the images lie, for the error

    Returns
    -------
    int ndarray of the held-out classes, ascending; at least two, each with at least two images, and at least two
    classes are left to train on. Raises UserError where that is impossible.
    """
    counts = np.bincount(class_of)
    n_classes, candidates = len(counts), np.flatnonzero(counts >= 2)
    if n_classes < MIN_CLASSES or len(candidates) < 2:
        raise UserError(
            f"{folder} has {n_classes} models, {len(candidates)} with two images or more; fine-tuning needs "
            f"{MIN_CLASSES} (two of them with two): add photographs of more models, or set "
            'FEATURE_NETWORK = "pretrained" and leave this stage out'
        )
    wanted = min(max(2, round(fraction * n_classes)), n_classes - 2, len(candidates))
    return np.sort(np.random.default_rng([seed, 1]).permutation(candidates)[:wanted])


def sample_images(class_of: np.ndarray, chosen: np.ndarray, at_most: int, seed: int) -> np.ndarray:
    """Return the indices of at most `at_most` images of the `chosen` classes, ascending.

    Of each class PER_MODEL images or more, where it has them; of many classes, only some are taken.
    """
    rng, per_class = np.random.default_rng([seed, 2]), max(PER_MODEL, at_most // len(chosen))
    found: list[int] = []
    for label in rng.permutation(chosen):
        members = rng.permutation(np.flatnonzero(class_of == label))[:per_class]
        if len(found) + len(members) <= at_most or not found:
            found += members.tolist()
    return np.sort(np.array(found))


def epoch_order(class_of: np.ndarray, epoch: int, seed: int) -> np.ndarray:
    """Choose which images an epoch shows, in order: as many as there are, each class equally often (give or take one).

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
    chosen: list[int] = []
    for k, label in enumerate(classes):
        members, wanted = np.flatnonzero(class_of == label), share + (k < extra)
        rounds = [rng.permutation(members) for _ in range(math.ceil(wanted / len(members)))]
        chosen += np.concatenate(rounds)[:wanted].tolist() if rounds else []
    return rng.permutation(np.array(chosen))


def count_batches(n_images: int, batch_size: int) -> int:
    """Return the number of batches that hold `n_images`, the last one perhaps not full."""
    return math.ceil(n_images / batch_size)


class TrainingImages:
    """Decoded training images, each decoded once where they fit into KEPT_BYTES.

    names, paths : the image files, as an error names them and where they lie
    mask_paths : for each its mask by stage 01, or None
    size : pixels per side of the network's input
    crop : whether images are cut to the product, see `fit_image`
    handle : the file that keeps them, open, not buffered; so memory does not depend on their number
    """

    def __init__(
        self,
        names: list[str],
        paths: list[Path],
        mask_paths: Sequence[Path | None],
        size: int,
        crop: bool,
        handle: io.RawIOBase,
    ):
        self.names, self.paths, self.mask_paths = names, paths, mask_paths
        self.size, self.crop, self.handle = size, crop, handle
        self.problem: UserError | None = None
        self.lock = threading.Lock()  # images are read by several threads
        self.has_mask: dict[int, bool] = {}  # of the images that are kept
        self.n_bytes = 4 * size**2  # of an image and its mask

    def _keep(self, i: int, image_rgb: np.ndarray, mask: np.ndarray | None) -> None:
        """Put image i into the file; not where the disk is full."""
        record = image_rgb.tobytes() + (b"" if mask is None else mask.tobytes())
        with self.lock, contextlib.suppress(OSError):
            self.handle.seek(i * self.n_bytes)
            if self.handle.write(record) == len(record):
                self.has_mask[i] = mask is not None

    def _kept(self, i: int) -> tuple[np.ndarray, np.ndarray | None]:
        """Take image i out of the file."""
        size, record = self.size, np.empty(self.n_bytes, np.uint8)
        with self.lock:
            self.handle.seek(i * self.n_bytes)
            self.handle.readinto(record)
        image_rgb, mask = np.split(record, [3 * size**2])
        return image_rgb.reshape(size, size, 3), mask.reshape(size, size) if self.has_mask[i] else None

    def read(self, i: int) -> tuple[np.ndarray, np.ndarray | None]:
        """Return image i as the network takes it, uint8 RGB (size, size, 3), and its mask, uint8 (size, size), or None.

        Raises UserError where the image can't be read.
        """
        if i in self.has_mask:
            return self._kept(i)
        try:
            image_bgr = images.read_bgr(self.paths[i])
        except images.ImageError as error:
            self.problem = UserError(
                f"{self.names[i]} can't be used ({error}): run 01.img_preprocess.py and "
                "make_training_image_folders.py again"
            )
            raise self.problem from None
        image_rgb, mask = fit_image(image_bgr, self.size, self.crop), None
        if mask_path := self.mask_paths[i]:
            mask_bgr = images.read_bgr(mask_path)
            if mask_bgr.shape == image_bgr.shape:
                mask = fit_mask(mask_bgr[..., 0], image_bgr, self.size, self.crop)
        if (i + 1) * self.n_bytes <= KEPT_BYTES:
            self._keep(i, image_rgb, mask)
        return image_rgb, mask

    def read_all(self, indices: np.ndarray) -> np.ndarray:
        """Return the images `indices` as they are: uint8 RGB (len(indices), size, size, 3)."""
        images_rgb = np.empty((len(indices), self.size, self.size, 3), np.uint8)
        for image_rgb, i in zip(images_rgb, indices, strict=True):
            image_rgb[:] = self.read(int(i))[0]
        return images_rgb


def training_batches(
    source: TrainingImages,
    indices: np.ndarray,
    labels: np.ndarray,
    batch_size: int,
    n_jobs: int,
    strength: float,
    random_ground: float,
    seed: list[int],
) -> Iterator[tuple]:
    """Give the augmented batches of an epoch: uint8 RGB (n, size, size, 3), int32 labels (n,).

    Parameters
    ----------
    indices, labels : int ndarrays of shape (n_images,), the images in the order shown and their classes
    batch_size : images of a batch; the last one may have fewer
    n_jobs : threads that make batches while training goes on
    strength : of `augment`
    random_ground : share of the images with a mask that are set on a random ground, 0 to 1
    seed : of what happens by chance, another in each epoch
    """
    tf = tensorflow()

    def load(position: np.ndarray) -> np.ndarray:
        rng = np.random.default_rng([*seed, int(position)])
        image_rgb, mask = source.read(int(indices[position]))
        with_ground = rng.random() < random_ground
        return augment(image_rgb, mask if with_ground else None, rng, strength)

    @tf.autograph.experimental.do_not_convert  # else TensorFlow writes code files into the system's temporary folder
    def tensors(position):
        image_rgb = tf.numpy_function(load, [position], tf.uint8)
        return tf.ensure_shape(image_rgb, (source.size, source.size, 3)), tf.gather(labels.astype(np.int32), position)

    dataset = tf.data.Dataset.range(len(indices)).map(tensors, num_parallel_calls=n_jobs, deterministic=True)
    try:
        yield from dataset.batch(batch_size).prefetch(4)
    except tf.errors.OpError:
        if source.problem:  # TensorFlow wraps what a thread raises
            raise source.problem from None
        raise
