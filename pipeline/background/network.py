"""The small network that estimates for each pixel the probability of the product, and whether there is any ground.

The network takes more than the photograph: how unlike the smooth ground and the border each pixel is, and how much
detail it has. These channels separate product and ground better than colours do. `training.py` trains the network on
the same channels.
"""

import functools
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from pipeline.background.colour import to_lab
from pipeline.background.ground import Ground, border_distance

if TYPE_CHECKING:
    import onnxruntime

NETWORK_SIZE = 128  # pixels per side of what the network sees and says
N_CHANNELS = 6  # blue, green, red, distance to the smooth ground, distance to the border's colours, detail
# the layer whose maps (16 x 16) say whether there is no ground: it knows the whole image and still the detail; at one
# false alarm in 1,665 photographs it finds 84 % of close-ups, the layer at the bottom 69 %
PROBED_LAYER = "context"
SHIPPED_NETWORK = Path(__file__).with_name("network.onnx")
MAX_DISTANCE = 60  # CIE76, and grey levels of detail; all above looks the same to the network
MAX_BORDER_DISTANCE = 12  # standard deviations; all above looks the same to the network


class NetworkError(Exception):
    """The file is damaged, or is no network of make_background_network.py."""


def input_channels(image_bgr: np.ndarray, ground: Ground, seed: int) -> np.ndarray:
    """Return the network's input for an image.

    Parameters
    ----------
    image_bgr : uint8 ndarray of shape (H, W, 3)
    ground : `fit_ground` of the image
    seed : of K-means on the border's colours, an integer from 0

    Returns
    -------
    uint8 ndarray of shape (NETWORK_SIZE, NETWORK_SIZE, N_CHANNELS): blue, green, red; the distance to the smooth
    ground; the distance to the border's colours, see `border_distance`; the detail (the Laplacian of the grey values).
    Distance and detail are square roots, since small differences matter most near the ground.
    """
    size = NETWORK_SIZE, NETWORK_SIZE
    grey = cv2.cvtColor(image_bgr, cv2.COLOR_BGR2GRAY)
    detail = np.minimum(np.abs(cv2.Laplacian(grey, cv2.CV_32F)), MAX_DISTANCE)
    distance, detail = (
        cv2.resize(values, size, interpolation=cv2.INTER_AREA)
        for values in (np.minimum(ground.distance, MAX_DISTANCE), detail)
    )
    small_bgr = cv2.resize(image_bgr, size, interpolation=cv2.INTER_AREA)
    coarse = cv2.resize(to_lab(small_bgr), (NETWORK_SIZE // 2, NETWORK_SIZE // 2), interpolation=cv2.INTER_AREA)
    unlike = np.minimum(border_distance(coarse, seed), MAX_BORDER_DISTANCE)
    unlike = cv2.resize(unlike, size, interpolation=cv2.INTER_LINEAR)
    further = (
        255 * cv2.sqrt(distance / MAX_DISTANCE),
        255 / MAX_BORDER_DISTANCE * unlike,
        255 * cv2.sqrt(detail / MAX_DISTANCE),
    )
    return cv2.merge([*cv2.split(small_bgr), *(values.astype(np.uint8) for values in further)])


@functools.cache
def load_network(path: Path) -> "onnxruntime.InferenceSession":
    """Load the network of an ONNX file, once for each path; raises NetworkError where the file can't be read.

    The network computes in the calling thread; several threads may call it at a time.
    """
    import onnxruntime  # takes longer than an unchanged run

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4  # errors are raised; onnxruntime writes no lines of its own to stderr
    options.enable_cpu_mem_arena = False
    try:
        network = onnxruntime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])
        predict_foreground(network, np.zeros((NETWORK_SIZE, NETWORK_SIZE, N_CHANNELS), np.uint8))
    except Exception:  # onnxruntime's errors have no class in common but this one
        raise NetworkError(f"{path} is no network of make_background_network.py that can be read") from None
    return network


def predict_foreground(network: "onnxruntime.InferenceSession", channels: np.ndarray) -> tuple[np.ndarray, float]:
    """Return the probability of each pixel to show the product, and the probability that there is no ground.

    Parameters
    ----------
    channels : uint8 ndarray of shape (NETWORK_SIZE, NETWORK_SIZE, N_CHANNELS), from `input_channels`

    Returns
    -------
    foreground_prob : float32 ndarray of shape (NETWORK_SIZE, NETWORK_SIZE), 0..1, of a product before a ground
    no_ground_prob : 0..1; 0 by a network whose file does not say
    """
    inputs = np.ascontiguousarray(normalise_channels(channels).transpose(2, 0, 1)[None])  # (1, N_CHANNELS, ...)
    foreground_prob, *no_ground_prob = network.run(None, {network.get_inputs()[0].name: inputs})
    return foreground_prob.reshape(NETWORK_SIZE, NETWORK_SIZE), float(
        no_ground_prob[0].item()
    ) if no_ground_prob else 0.0


def normalise_channels(channels: np.ndarray) -> np.ndarray:
    """Return channels as the network takes them: uint8 -> float32, -1..1."""
    return channels.astype(np.float32) / 127.5 - 1
