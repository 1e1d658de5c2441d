"""The InceptionV3 that stage 02 trains and stage 03 computes features with.

Photograph -> `square_image` -> `scaled` -> `trunk` up to FEATURE_LAYER -> POOLING -> `whitened` -> features. Both
stages go through the same functions, so that preprocessing is said once. Weights are loaded into the architecture
built here; nothing stored in a weights file is ever executed. TensorFlow is imported by the functions that need it,
since a stage with nothing to do must not wait for it.

References: Szegedy et al. 2016, "Rethinking the Inception Architecture" (doi:10.1109/CVPR.2016.308); generalised mean
pooling: Radenović et al. 2019 (doi:10.1109/TPAMI.2018.2846566).
"""

import contextlib
import hashlib
import math
import os
import shutil
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, NamedTuple

import cv2
import numpy as np
from threadpoolctl import threadpool_limits

import config
from pipeline import files, settings

if TYPE_CHECKING:
    import keras

LAYERS = tuple(f"mixed{i}" for i in range(11))  # outputs of the eleven Inception blocks, 256 to 2048 channels
WHITE = 240  # a pixel with all channels from here up counts as ground when an image is cropped to its product
MARGIN = 0.06  # ground kept around the product, as a fraction of its longer side
GEM_POWER = 3.0  # exponent of generalised mean pooling; 1 would be the average, infinity the maximum
IMAGENET_URL = (
    "https://storage.googleapis.com/tensorflow/keras-applications/inception_v3/"
    "inception_v3_weights_tf_dim_ordering_tf_kernels_notop.h5"
)
IMAGENET_MD5 = "bcbd6486424b2319ff4ef7d526e38f63"  # as keras.applications checks it
MAX_WEIGHT_BYTES = 100_000_000  # of one array in a weights file; the largest of InceptionV3 has 14 MB
NO_ANSWER_SECONDS = 15  # a download without an answer is given up after this time
TRY_AGAIN_SECONDS = 3600  # with "auto", a download that failed is not tried again for this time


# ---- images --------------------------------------------------------------------------------------


def product_box(image_bgr: np.ndarray) -> tuple[int, int, int, int]:
    """The rectangle (top, bottom, left, right) around all pixels that are not white, with a margin.

    image_bgr : uint8 ndarray of shape (H, W, 3). The rectangle never leaves the image; of a wholly white image it is
    the whole image.

    >>> picture = np.full((100, 100, 3), 255, np.uint8)
    >>> picture[40:60, 30:80] = 0
    >>> product_box(picture)
    (37, 63, 27, 83)
    """
    height, width = image_bgr.shape[:2]
    values = image_bgr.reshape(height, -1)  # (H, 3 * W): whole lines of bytes, which NumPy compares many at a time
    rows = np.flatnonzero(values.min(axis=1) < WHITE)
    columns = np.flatnonzero(values.min(axis=0).reshape(width, 3).min(axis=1) < WHITE)
    if not len(rows):
        return 0, height, 0, width
    top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    margin = round(MARGIN * max(bottom - top, right - left))
    return (
        int(max(0, top - margin)),
        int(min(height, bottom + margin)),
        int(max(0, left - margin)),
        int(min(width, right + margin)),
    )


def square_image(image_bgr: np.ndarray, size: int, crop: bool) -> np.ndarray:
    """An image fitted into a white square without changing its proportions.

    Parameters
    ----------
    image_bgr : uint8 ndarray of shape (H, W, 3)
    size : pixels per side
    crop : whether the image is first cut to its `product_box`, so that a product's size in the photograph does not
        matter

    Returns
    -------
    uint8 RGB ndarray of shape (size, size, 3)
    """
    if crop:
        top, bottom, left, right = product_box(image_bgr)
        image_bgr = image_bgr[top:bottom, left:right]
    height, width = image_bgr.shape[:2]
    scale = size / max(height, width)
    new_height, new_width = max(1, round(height * scale)), max(1, round(width * scale))
    # area averaging does not alias when it shrinks
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    small_bgr = cv2.resize(image_bgr, (new_width, new_height), interpolation=interpolation)
    square_rgb = np.full((size, size, 3), 255, np.uint8)
    top, left = (size - new_height) // 2, (size - new_width) // 2
    square_rgb[top : top + new_height, left : left + new_width] = cv2.cvtColor(small_bgr, cv2.COLOR_BGR2RGB)
    return square_rgb


def square_mask(mask: np.ndarray, image_bgr: np.ndarray, size: int, crop: bool) -> np.ndarray:
    """The mask of an image, uint8 (H, W), laid out as `square_image` lays out the image: uint8 (size, size)."""
    inverse_bgr = 255 - np.repeat(mask[..., None], 3, axis=2)
    if crop:
        top, bottom, left, right = product_box(image_bgr)
        inverse_bgr = inverse_bgr[top:bottom, left:right]
    return 255 - square_image(inverse_bgr, size, crop=False)[..., 0]


# ---- TensorFlow ----------------------------------------------------------------------------------


@contextlib.contextmanager
def silent_stderr() -> Iterator[None]:
    """Nothing that native code writes to the standard error output is shown; Python's exceptions are raised as ever."""
    sys.stderr.flush()
    try:
        kept = os.dup(2)
    except OSError:  # a process without a standard error output
        yield
        return
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def tensorflow() -> ModuleType:
    """Import TensorFlow without its greetings, with as many threads as the machine has cores.

    Not as many as N_JOBS: each number of threads adds up gradients in another order, and trains other weights. N_JOBS
    says on how many cores these threads run (`settings.keep_to_cores`), which changes nothing.
    """
    if "tensorflow" in sys.modules:
        return sys.modules["tensorflow"]
    # without an NVIDIA driver TensorFlow logs an error about it at each start; what fails is raised in any case
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2" if shutil.which("nvidia-smi") else "3")
    with silent_stderr():  # some lines are written before the log level is looked at
        import absl.logging
        import tensorflow as tf

    absl.logging.set_verbosity(absl.logging.ERROR)  # keras calls .h5 a legacy format at each save
    tf.get_logger().setLevel("ERROR")  # it warns that several networks are read, one after the other
    tf.config.threading.set_intra_op_parallelism_threads(os.cpu_count() or 1)
    return tf


def do_without_amx() -> None:
    """Have oneDNN, which TensorFlow computes with, leave AMX alone; to be called before the first computation.

    In training in bfloat16 its kernels for AMX let foreign values into their results (uxlfoundation/oneDNN issue 5717):
    other weights each time, or NaN. Those for AVX512-BF16 do not.
    """
    os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX512_CORE_BF16")


def has_fast_bfloat16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether the processor multiplies in bfloat16 natively (AVX512-BF16 or AMX, as Linux lists it) or a GPU does."""
    try:
        flags = cpuinfo.read_text(encoding="ascii", errors="replace")
    except OSError:
        flags = ""
    if "avx512_bf16" in flags or "amx_bf16" in flags:
        return True
    tf = tensorflow()
    gpus = tf.config.list_physical_devices("GPU")
    return any(tf.config.experimental.get_device_details(gpu).get("compute_capability", (0, 0))[0] >= 8 for gpu in gpus)


def compute_dtype() -> str:
    """`config.COMPUTE_DTYPE`, with "auto" decided: "bfloat16" where the processor is fast at it, else "float32"."""
    if config.COMPUTE_DTYPE != "auto":
        return config.COMPUTE_DTYPE
    return "bfloat16" if has_fast_bfloat16() else "float32"


# ---- weights -------------------------------------------------------------------------------------


def weights_path() -> Path:
    """Where PRETRAINED_WEIGHTS leads when it is a path; relative ones start at the project's folder."""
    return Path(config.__file__).resolve().parent / Path(config.PRETRAINED_WEIGHTS).expanduser()


def keras_cache() -> Path:
    """Where Keras keeps ImageNet's InceptionV3 without top."""
    home = Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras")
    return home / "models" / IMAGENET_URL.rpartition("/")[2]


def weights_known() -> str:
    """What the initial weights are, as far as it can be told without TensorFlow and without a network.

    Changes whenever other weights would be loaded, except for a download that would succeed now.
    """
    if config.PRETRAINED_WEIGHTS not in ("auto", "imagenet", "random"):
        if not weights_path().is_file():
            raise settings.UserError(
                f"PRETRAINED_WEIGHTS: no file {config.PRETRAINED_WEIGHTS}: give the path of a .h5 file, "
                'relative to the project\'s folder or absolute, or "auto"'
            )
        return files.fingerprint_file(weights_path())
    found = config.PRETRAINED_WEIGHTS == "auto" and keras_cache().is_file()
    if found or config.PRETRAINED_WEIGHTS == "imagenet":
        return "imagenet"
    return f"random, RANDOM_SEED = {config.RANDOM_SEED}"


def download(url: str, path: Path, md5: str) -> None:
    """Download `url` to `path`, whole or not at all; raises OSError where no answer comes or the content is another.

    Gives up when nothing has come for NO_ANSWER_SECONDS. The work is done in a thread, since looking up a name has no
    time limit of its own.
    """
    state = {"last": time.monotonic(), "error": None}

    def fetch() -> None:
        try:
            digest = hashlib.md5(usedforsecurity=False)
            with (
                urllib.request.urlopen(url, timeout=NO_ANSWER_SECONDS) as answer,
                files.whole(path) as temporary,
            ):
                with temporary.open("wb") as handle:
                    while block := answer.read(1 << 16):
                        state["last"] = time.monotonic()
                        digest.update(block)
                        handle.write(block)
                if digest.hexdigest() != md5:
                    raise OSError("what came is not the file expected")
        except (OSError, ValueError, settings.UserError) as error:  # URLError and timeouts are OSErrors
            state["error"] = error

    worker = threading.Thread(target=fetch, daemon=True)
    worker.start()
    while worker.is_alive():
        worker.join(0.1)
        if time.monotonic() - state["last"] > NO_ANSWER_SECONDS:
            raise OSError(f"no answer within {NO_ANSWER_SECONDS} seconds")
    if state["error"] is not None:
        raise OSError(str(getattr(state["error"], "reason", state["error"])))


def imagenet_path() -> Path | None:
    """ImageNet's weights from Keras's cache or its download; None where neither can be had and "auto" allows that."""
    path = keras_cache()
    failed = files.root() / "model" / ".imagenet_not_reached"
    if path.is_file():
        return path
    recently = failed.is_file() and 0 <= time.time() - failed.stat().st_mtime < TRY_AGAIN_SECONDS
    if not (recently and config.PRETRAINED_WEIGHTS == "auto"):
        try:
            download(IMAGENET_URL, path, IMAGENET_MD5)
            return path
        except OSError as error:
            if config.PRETRAINED_WEIGHTS == "imagenet":
                raise settings.UserError(
                    f"ImageNet's weights could not be downloaded ({error}): connect to the network, "
                    f'put them at {path}, or set PRETRAINED_WEIGHTS to "auto" or to the path of a .h5 file'
                ) from None
            with files.whole(failed) as temporary:
                temporary.touch()
    return None


def check_weights_file(path: Path) -> None:
    """Raise UserError where `path` is no HDF5 file, or one that could read other files or run code.

    Refused: links to other files, data sets stored outside or assembled from elsewhere, object types, and data sets
    over MAX_WEIGHT_BYTES, which a small compressed file can hold.
    """
    import h5py

    def visit(group: h5py.Group) -> None:
        for name in group:
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                raise settings.UserError(f"{files.shown(path)}: {group.name}/{name} is a link: not taken as weights")
            item = group[name]
            if isinstance(item, h5py.Group):
                visit(item)
            elif item.external or item.is_virtual or item.dtype.kind not in "fiub":
                raise settings.UserError(
                    f"{files.shown(path)}: {item.name} is of type {item.dtype} or stored elsewhere: "
                    "not taken as weights"
                )
            elif item.nbytes > MAX_WEIGHT_BYTES:
                raise settings.UserError(f"{files.shown(path)}: {item.name} is too large for weights of InceptionV3")

    try:
        with h5py.File(path, "r") as handle:
            visit(handle)
    except settings.UserError:
        raise
    except Exception:  # h5py raises whatever HDF5 makes of damaged bytes
        raise settings.UserError(f"{files.shown(path)} is no HDF5 file (.h5) or is damaged") from None


def load_weights(network: "keras.Model", path: Path) -> None:
    """Load an .h5 of InceptionV3 without top into `network`; raises UserError where it does not fit."""
    check_weights_file(path)
    try:
        network.load_weights(path)
    except Exception as error:  # keras raises whatever a file's structure makes it raise
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise settings.UserError(f"{files.shown(path)} does not fit InceptionV3 without top ({first[:150]})") from None


def inception(image_size: int, policy: str = "float32") -> "keras.Model":
    """InceptionV3 without top, with random weights by RANDOM_SEED: (n, image_size, image_size, 3) -> `mixed10`.

    policy : "float32", or "mixed_bfloat16" to compute in bfloat16 with float32 weights
    """
    tensorflow()
    import keras

    keras.utils.set_random_seed(config.RANDOM_SEED)
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        return keras.applications.InceptionV3(include_top=False, weights=None, input_shape=(image_size, image_size, 3))
    finally:
        keras.config.set_dtype_policy(before)


def initialise(network: "keras.Model") -> str:
    """Load the initial weights that PRETRAINED_WEIGHTS asks for into a fresh `inception`.

    Returns what they are: "imagenet", "random" or the path as given.
    """
    if config.PRETRAINED_WEIGHTS not in ("auto", "imagenet", "random"):
        weights_known()  # says so where the file is missing
        load_weights(network, weights_path())
        return config.PRETRAINED_WEIGHTS
    path = None if config.PRETRAINED_WEIGHTS == "random" else imagenet_path()
    if path is None:
        return "random"
    load_weights(network, path)
    return "imagenet"


RANDOM_WARNING = (
    "the network starts from random weights (ImageNet's could not be had, or PRETRAINED_WEIGHTS says so), "
    'and clusters will be clearly worse (set PRETRAINED_WEIGHTS to "imagenet" with a network, or to a .h5 file)'
)


def input_range(network: "keras.Model") -> tuple[float, float]:
    """The values that `network` takes for black and white: (0, 1) or (-1, 1).

    INPUT_RANGE = "auto" reads it from the weights. The first batch normalisation keeps the mean of each of the 32
    channels of the first convolution; were the input constant mu, they would be mu times the sum of the channel's
    kernel. The mu that fits best is about 0.5 for a network trained on [0, 1], and about 0 for one on [-1, 1].
    """
    if config.INPUT_RANGE != "auto":
        return (0.0, 1.0) if config.INPUT_RANGE == "0..1" else (-1.0, 1.0)
    convolution, normalisation = network.layers[1], network.layers[2]
    kernel_sums = convolution.get_weights()[0].sum(axis=(0, 1, 2))  # (32,)
    means = normalisation.moving_mean.numpy()  # (32,)
    fitted = float((kernel_sums * means).sum() / max(1e-12, (kernel_sums**2).sum()))
    return (0.0, 1.0) if fitted > 0.25 else (-1.0, 1.0)


def scaled(images_rgb, low: float, high: float):
    """uint8 RGB tensor (n, size, size, 3) -> float32 in [low, high]: what the trunk takes."""
    tf = tensorflow()
    return tf.cast(images_rgb, tf.float32) * ((high - low) / 255.0) + low


# ---- features ------------------------------------------------------------------------------------


def pooled(maps, pooling: str):
    """Activations (n, h, w, channels) of any float type -> float32 features (n, channels).

    pooling : "average", "max", or "gem", the generalised mean of power GEM_POWER
    """
    tf = tensorflow()
    maps = tf.cast(maps, tf.float32)
    if pooling == "max":
        return tf.reduce_max(maps, axis=(1, 2))
    if pooling == "gem":
        # the floor keeps the gradient of the root finite where a channel is silent
        return tf.reduce_mean(tf.maximum(maps, 1e-4) ** GEM_POWER, axis=(1, 2)) ** (1.0 / GEM_POWER)
    return tf.reduce_mean(maps, axis=(1, 2))


def normalised(features: np.ndarray) -> np.ndarray:
    """Rows of length 1: float32 (n, n_features) -> float32 (n, n_features); a row of zeros stays."""
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    return features / np.maximum(lengths, 1e-12)


class Whitening(NamedTuple):
    """What stage 02 learned of how photographs of one model differ, see `within_model_whitening` there."""

    mean: np.ndarray  # float32 (n_features,)
    matrix: np.ndarray  # float32 (n_features, n_features)


def whitened(features: np.ndarray, whitening: Whitening | None) -> np.ndarray:
    """Features brought to length 1, centred and whitened, of any length; as they are where there is no whitening.

    features : float32 (n, n_features) -> float32 (n, n_features)
    """
    if whitening is None:
        return features
    with threadpool_limits(1):  # in several threads, the last digits depend on their number
        return (normalised(features) - whitening.mean) @ whitening.matrix


def cut(network: "keras.Model", layers: list[str]) -> "keras.Model":
    """The part of `network` that leads to `layers`; shares its weights. Returns a list of outputs for several."""
    import keras

    outputs = [network.get_layer(layer).output for layer in layers]
    return keras.Model(network.input, outputs[0] if len(outputs) == 1 else outputs)


def folded(network: "keras.Model", dtype: str) -> "keras.Model":
    """The same function with each batch normalisation folded into the convolution before it, computed in `dtype`.

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
            gain = 1.0 / np.sqrt(layer.moving_variance.numpy().astype(np.float64) + layer.epsilon)
            if layer.gamma is not None:
                gain = gain * layer.gamma.numpy()
            bias = layer.beta.numpy() - layer.moving_mean.numpy() * gain
            copy.get_layer(convolution.name).set_weights([kernel * gain, bias])
    return copy


def feature_function(network: "keras.Model", layer: str, pooling: str, mirror: bool, dtype: str):
    """A compiled function from uint8 RGB images (n, size, size, 3) to float32 features (n, n_features), not normalised.

    mirror : whether the features are the mean of those of the image and of its mirror image
    dtype : what it computes in, "float32" or "bfloat16"
    """
    tf = tensorflow()
    low, high = input_range(network)
    maps = folded(cut(network, [layer]), dtype)

    @tf.function(autograph=False, reduce_retracing=True)
    def features(images_rgb):
        inputs = scaled(images_rgb, low, high)
        found = pooled(maps(inputs, training=False), pooling)
        if mirror:
            found = (found + pooled(maps(inputs[:, :, ::-1], training=False), pooling)) / 2.0
        return found

    return features


def n_features(network: "keras.Model", layer: str) -> int:
    """Number of channels of `layer`."""
    return int(network.get_layer(layer).output.shape[-1])


def default_layer(initial_weights: str) -> tuple[str, str]:
    """FEATURE_LAYER and POOLING for "auto" where no labelled images say which are best.

    Of random weights, an early layer's maxima tell products apart best; of trained ones, a layer of the middle, where
    the features are no longer about edges and not yet about the classes of another task.
    """
    return ("mixed0", "max") if initial_weights == "random" else ("mixed7", "average")


def n_batches(n_images: int, batch_size: int) -> int:
    """Number of batches that hold `n_images`, the last one perhaps not full."""
    return math.ceil(n_images / batch_size)
