"""Features by any image encoder that comes as an ONNX file, such as an export of DINOv2, CLIP or SigLIP.

How the encoder takes images is asked of settings, then of the file: of its input's shape, and of its metadata
`input_size` (pixels per side), `input_range` ("0..1"), `mean` and `std` ("0.485, 0.456, 0.406"; red, green, blue).
"""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from pipeline.features.framing import list_views
from pipeline.features.inception import RANGES
from pipeline.machinery.errors import UserError

if TYPE_CHECKING:
    import onnxruntime

MAX_SIDE = 1024  # pixels of the input's side, as of IMAGE_SIZE
TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16}  # of the input


class Preprocessing(NamedTuple):
    """How an encoder takes images: uint8 is brought into a range, then `(value - mean) / deviation` for each colour."""

    size: int  # pixels per side
    input_range: str  # one of RANGES
    mean: np.ndarray  # float32 (3,), red, green, blue
    deviation: np.ndarray  # float32 (3,), above 0


class Encoder(NamedTuple):
    """An encoder, ready to compute."""

    compute: Callable[[np.ndarray], np.ndarray]  # uint8 RGB (n, size, size, 3) -> float32 (n, n_features)
    output: str  # name of the output that features are read off
    n_features: int
    size: int  # pixels per side of its input


def open_session(path: Path, n_threads: int) -> "onnxruntime.InferenceSession":
    """Read an ONNX file; raises UserError where the file can't be read as a network with one input of images."""
    import onnxruntime  # takes longer than an unchanged run

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = n_threads
    options.log_severity_level = 4  # errors are raised; onnxruntime writes no lines of its own to stderr
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors have no class in common but this one
        first = (str(error).strip() or type(error).__name__).splitlines()[0][:150]
        raise UserError(f"FEATURE_NETWORK: {path.name} can't be read as an ONNX network ({first})") from None
    inputs = session.get_inputs()
    if len(inputs) != 1 or len(inputs[0].shape) != 4 or inputs[0].type not in TYPES:
        found = ", ".join(f"{one.name} {one.type} {one.shape}" for one in inputs)
        raise UserError(
            f"FEATURE_NETWORK: {path.name} takes {found or 'nothing'}, not one array of images, float (n, 3, side, "
            "side) or (n, side, side, 3): export the image encoder alone"
        )
    return session


def has_channels_last(shape: list) -> bool:
    """Tell the layout of an input's shape: (n, side, side, 3) rather than (n, 3, side, side).

    >>> has_channels_last(["n", 224, 224, 3]), has_channels_last(["n", 3, "h", "w"])
    (True, False)
    """
    return shape[3] == 3 and shape[1] != 3


def parse_colours(text: str, name: str) -> np.ndarray:
    """Read three numbers, or one for all colours: float32 (3,); raises UserError that names the setting `name`.

    >>> parse_colours("0.5", "INPUT_MEAN").tolist()
    [0.5, 0.5, 0.5]
    """
    try:
        values = np.array([float(part) for part in text.strip("[]() ").split(",")], np.float32)
    except ValueError:
        values = np.empty(0, np.float32)
    if values.size not in (1, 3) or not np.isfinite(values).all():
        raise UserError(f'{name} = "{text}": must be three numbers with commas between them (red, green, blue), or one')
    return np.repeat(values, 3) if values.size == 1 else values


def choose_preprocessing(
    session: "onnxruntime.InferenceSession", image_size: int, input_range: str, mean: str, deviation: str
) -> Preprocessing:
    """Decide how an encoder takes images: by the settings, else by the file, else 0..1, a mean of 0, a deviation of 1.

    image_size : IMAGE_SIZE, taken where the file leaves the size open
    input_range, mean, deviation : INPUT_RANGE, INPUT_MEAN, INPUT_DEVIATION; "auto" asks the file
    """
    metadata, shape = session.get_modelmeta().custom_metadata_map, session.get_inputs()[0].shape
    side = shape[1] if has_channels_last(shape) else shape[2]
    if not isinstance(side, int):
        text = metadata.get("input_size", str(image_size))
        side = int(text) if text.isdigit() else 0
    if not 1 <= side <= MAX_SIDE:
        raise UserError(f"FEATURE_NETWORK: the file asks for images of {side} pixels, not of 1 to {MAX_SIDE}")
    input_range = metadata.get("input_range", "0..1") if input_range == "auto" else input_range
    if input_range not in RANGES:
        raise UserError(f'FEATURE_NETWORK: the file\'s input_range is "{input_range}", not one of {", ".join(RANGES)}')
    means = parse_colours(metadata.get("mean", "0") if mean == "auto" else mean, "INPUT_MEAN")
    deviations = parse_colours(metadata.get("std", "1") if deviation == "auto" else deviation, "INPUT_DEVIATION")
    if (deviations <= 0).any():
        raise UserError(f'INPUT_DEVIATION = "{deviation}": must be above 0')
    return Preprocessing(side, input_range, means, deviations)


def prepare_images(images_rgb: np.ndarray, how: Preprocessing) -> np.ndarray:
    """Bring images into the range and spread that an encoder takes: uint8 RGB (n, size, size, 3) -> float32."""
    low, high = RANGES[how.input_range]
    return (images_rgb * np.float32((high - low) / 255) + np.float32(low) - how.mean) / how.deviation


def pool_output(values: np.ndarray) -> np.ndarray:
    """Make one row of features of each image's output, float32 (n, n_features).

    An output (n, n_features) is taken as it is; of tokens (n, n_tokens, n_features) the first, which stands for the
    whole image; of maps (n, n_features, h, w) their average.
    """
    if values.ndim == 3:
        values = values[:, 0]
    elif values.ndim == 4:
        values = values.mean(axis=(2, 3))
    return values.astype(np.float32)


def read_encoder(
    path: Path, image_size: int, input_range: str, mean: str, deviation: str, views: str, n_threads: int
) -> Encoder:
    """Read an image encoder from an ONNX file.

    Features are read off the first output of two dimensions, else the first one of three or four, see `pool_output`.
    views : of which features are the mean, see `list_views`
    n_threads : that compute; other parameters as in `choose_preprocessing`. Raises UserError where the file won't do.
    """
    session = open_session(path, n_threads)
    how = choose_preprocessing(session, image_size, input_range, mean, deviation)
    (taken,) = session.get_inputs()
    outputs = sorted((one for one in session.get_outputs() if len(one.shape) in (2, 3, 4)), key=lambda o: len(o.shape))
    if not outputs:
        raise UserError(f"FEATURE_NETWORK: {path.name} has no output of features, (n, n_features)")
    output, one_by_one = outputs[0].name, taken.shape[0] == 1

    def run(inputs: np.ndarray) -> np.ndarray:
        if not has_channels_last(taken.shape):
            inputs = inputs.transpose(0, 3, 1, 2)
        inputs = np.ascontiguousarray(inputs, TYPES[taken.type])
        parts = [inputs[i : i + 1] for i in range(len(inputs))] if one_by_one else [inputs]
        return np.concatenate([pool_output(session.run([output], {taken.name: part})[0]) for part in parts])

    def compute(images_rgb: np.ndarray) -> np.ndarray:
        inputs = list_views(prepare_images(images_rgb, how), views, functools.partial(np.rot90, axes=(1, 2)))
        return sum(run(view) for view in inputs) / np.float32(len(inputs))

    try:
        found = compute(np.zeros((2, how.size, how.size, 3), np.uint8))
    except Exception as error:  # onnxruntime's errors have no class in common but this one
        first = (str(error).strip() or type(error).__name__).splitlines()[0][:150]
        raise UserError(f"FEATURE_NETWORK: {path.name} can't compute on {how.size} pixels ({first})") from None
    if found.ndim != 2 or len(found) != 2:
        raise UserError(f"FEATURE_NETWORK: {path.name} gives {found.shape} for two images, not (2, n_features)")
    return Encoder(compute, output, found.shape[1], how.size)
