"""The start network: weights of InceptionV3's first blocks that come with the project, in 8 bits a number.

They serve where ImageNet's weights can't be had. `make_start_network.py` made them; `start_network.md` is their card.
The convolutions are numbered from 0 as keras.applications.InceptionV3 creates them; each batch normalisation has the
number of its convolution. The file holds these arrays:

    conv2d_<i>/kernel             int8 (h, w, c_in, c_out)    times its scale
    conv2d_<i>/kernel:scale       float32 (c_out,)
    batch_normalization_<i>/beta, /moving_mean, /moving_variance    float32 (c_out,)
    last_block                    str ()    "mixed4": later blocks have no weights
    feature_layer, pooling        str ()    where features are read off where no labelled images chose
    input_range                   str ()    "-1..1": values of black and white
    whitening_mean (n,), whitening_matrix (n, n)    float; of the features there; both or none

Rounding to 8 bits with one scale for each output channel: Krishnamoorthi 2018 (arXiv:1806.08342).
"""

import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from pipeline.machinery.errors import UserError

if TYPE_CHECKING:
    import keras

PATH = Path(__file__).with_suffix(".npz")
MAX_BYTES = 25_000_000  # of the file and of what it holds; InceptionV3 up to mixed7 takes 9 MB in 8 bits
BLOCKS = tuple(f"mixed{i}" for i in range(8))  # that a file may hold
CHANNELS = (256, 288, 288, 768, 768, 768, 768, 768)  # of each of BLOCKS
NORMALISATION = ("beta", "moving_mean", "moving_variance")
WORDS = {"last_block": BLOCKS, "feature_layer": BLOCKS, "pooling": ("average", "max", "gem", "concat"),
         "input_range": ("-1..1", "0..1")}  # fmt: skip
MIN_SCALE = 1e-12  # a channel of zeros has this scale


class StartNetwork(NamedTuple):
    """What the file holds, checked."""

    weights: dict[str, np.ndarray]  # float32, "conv2d_<i>/kernel", "batch_normalization_<i>/beta" and so on
    last_block: str
    feature_layer: str
    pooling: str
    input_range: str
    whitening: tuple[np.ndarray, np.ndarray] | None  # mean (n,) and matrix (n, n), float32


def _block_kernels(number: int) -> list[tuple[int, int, int, int]]:
    """Return the shapes (h, w, c_in, c_out) of the kernels of the block mixed<number>, in Keras's order."""
    c_in = (192, *CHANNELS)[number]
    if number < 3:
        pool = 32 if number == 0 else 64
        return [(1, 1, c_in, 64), (1, 1, c_in, 48), (5, 5, 48, 64), (1, 1, c_in, 64), (3, 3, 64, 96), (3, 3, 96, 96),
                (1, 1, c_in, pool)]  # fmt: skip
    if number == 3:
        return [(3, 3, c_in, 384), (1, 1, c_in, 64), (3, 3, 64, 96), (3, 3, 96, 96)]
    n = {4: 128, 5: 160, 6: 160, 7: 192}[number]
    return [(1, 1, c_in, 192), (1, 1, c_in, n), (1, 7, n, n), (7, 1, n, 192), (1, 1, c_in, n), (7, 1, n, n),
            (1, 7, n, n), (7, 1, n, n), (1, 7, n, 192), (1, 1, c_in, 192)]  # fmt: skip


def kernel_shapes(last_block: str) -> list[tuple[int, int, int, int]]:
    """Return the shapes (h, w, c_in, c_out) of all kernels up to `last_block`, one of BLOCKS, in Keras's order.

    >>> len(kernel_shapes("mixed0")), kernel_shapes("mixed0")[0]
    (12, (3, 3, 3, 32))
    """
    stem = [(3, 3, 3, 32), (3, 3, 32, 32), (3, 3, 32, 64), (1, 1, 64, 80), (3, 3, 80, 192)]
    return stem + [shape for number in range(BLOCKS.index(last_block) + 1) for shape in _block_kernels(number)]


def quantise(kernel: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Round a kernel, float (h, w, c_in, c_out), to int8 of the same shape and a float32 scale (c_out,).

    >>> quantise(np.float32([[[[1.0, 0.0], [-0.5, 0.0]]]]))[0].ravel().tolist()
    [127, 0, -64, 0]
    """
    scale = np.maximum(np.abs(kernel).max(axis=(0, 1, 2)) / 127, MIN_SCALE).astype(np.float32)
    return np.clip(np.round(kernel / scale), -127, 127).astype(np.int8), scale


def pack(network: StartNetwork) -> dict[str, np.ndarray]:
    """Return the arrays of the file for a network; the inverse of `unpack` but for the rounding."""
    arrays = {}
    for name, value in network.weights.items():
        if name.endswith("/kernel"):
            arrays[name], arrays[f"{name}:scale"] = quantise(value)
        else:
            arrays[name] = value.astype(np.float32)
    for word in WORDS:
        arrays[word] = np.array(getattr(network, word))
    if network.whitening is not None:
        arrays["whitening_mean"] = network.whitening[0].astype(np.float32)
        arrays["whitening_matrix"] = network.whitening[1].astype(np.float16)
    return arrays


def unpack(arrays: dict[str, np.ndarray]) -> StartNetwork:
    """Check the arrays of a file and turn them into a network; raises ValueError that names what does not fit."""
    words = {}
    for word, choices in WORDS.items():
        words[word] = str(arrays.get(word, ""))
        if words[word] not in choices:
            raise ValueError(f'{word} is "{words[word]}", not one of {", ".join(choices)}')
    if BLOCKS.index(words["feature_layer"]) > BLOCKS.index(words["last_block"]):
        raise ValueError(f"feature_layer {words['feature_layer']} lies after last_block {words['last_block']}")

    def take(name: str, kinds: str, shape: tuple[int, ...]) -> np.ndarray:
        value = arrays.get(name)
        if value is None or value.dtype.kind not in kinds or value.shape != shape:
            found = "is missing" if value is None else f"has the type {value.dtype} and the shape {value.shape}"
            raise ValueError(f"{name} {found}, {shape} is needed")
        value = value.astype(np.float32)
        if not np.isfinite(value).all():
            raise ValueError(f"{name} holds a number that is not finite")
        return value

    weights = {}
    for i, shape in enumerate(kernel_shapes(words["last_block"])):
        scale = take(f"conv2d_{i}/kernel:scale", "f", shape[3:])
        weights[f"conv2d_{i}/kernel"] = take(f"conv2d_{i}/kernel", "i", shape) * scale
        for part in NORMALISATION:
            weights[f"batch_normalization_{i}/{part}"] = take(f"batch_normalization_{i}/{part}", "f", shape[3:])
    whitening = None
    if "whitening_mean" in arrays or "whitening_matrix" in arrays:
        n = CHANNELS[BLOCKS.index(words["feature_layer"])] * (2 if words["pooling"] == "concat" else 1)
        whitening = take("whitening_mean", "f", (n,)), take("whitening_matrix", "f", (n, n))
    return StartNetwork(weights=weights, whitening=whitening, **words)


def read_start_network(path: Path = PATH) -> StartNetwork:
    """Read the start network; raises UserError, one sentence, where the file is missing, damaged or of another kind."""
    remedy = "take it from the project again, or make it with make_start_network.py"
    try:
        with zipfile.ZipFile(path) as archive:
            n_bytes = sum(member.file_size for member in archive.infolist())
        if n_bytes > MAX_BYTES:
            raise ValueError(f"it holds {n_bytes} bytes, at most {MAX_BYTES} are taken")
        with np.load(path, allow_pickle=False) as stored:
            return unpack({name: stored[name] for name in stored.files})
    except FileNotFoundError:
        raise UserError(f"the start network {path.name} is not there: {remedy}") from None
    except ValueError as error:
        raise UserError(f"the start network {path.name} can't be used ({error}): {remedy}") from None
    except Exception:  # zipfile and NumPy's parser of the header may raise anything on damaged bytes
        raise UserError(f"the start network {path.name} is damaged: {remedy}") from None


def assign_weights(backbone: "keras.Model", network: StartNetwork) -> None:
    """Give a Keras InceptionV3, or its part up to `last_block`, the weights of a start network.

    Layers are found by their number, which Keras goes on counting when it builds a second network.
    """
    import keras

    for kind, parts in ((keras.layers.Conv2D, ("kernel",)), (keras.layers.BatchNormalization, NORMALISATION)):
        layers = {_number(layer.name): layer for layer in backbone.layers if isinstance(layer, kind)}
        prefix = "conv2d" if kind is keras.layers.Conv2D else "batch_normalization"
        for i, number in enumerate(sorted(layers)):
            for part in parts:
                value = network.weights.get(f"{prefix}_{i}/{part}")
                if value is not None:
                    getattr(layers[number], part).assign(value)


def _number(name: str) -> int:
    """Return the number at the end of a layer's name; the first layer of a kind has none, which counts as 0."""
    number = name.rpartition("_")[2]
    return int(number) if number.isdigit() else 0
