"""The scene of a photograph: all that stage 01 computes before it looks for the product."""

from typing import TYPE_CHECKING, NamedTuple

import cv2
import numpy as np

from pipeline.background.cast_shadow import erase_cast_shadow
from pipeline.background.colour import to_lab
from pipeline.background.ground import Ground, fit_ground
from pipeline.background.network import input_channels, predict_foreground

if TYPE_CHECKING:
    import onnxruntime


class Scene(NamedTuple):
    """A photograph with the network's and the surface's knowledge of product and ground."""

    image_bgr: np.ndarray  # uint8 (H, W, 3)
    lab: np.ndarray  # float32 (H, W, 3), CIE L*a*b*
    ground: Ground
    small_bgr: np.ndarray  # uint8 (NETWORK_SIZE, NETWORK_SIZE, 3)
    foreground_prob: np.ndarray  # float32 (NETWORK_SIZE, NETWORK_SIZE), 0..1, by the network, of a product on a ground
    no_ground_prob: float = 0.0  # 0..1, by the network: the product fills the image

    def foreground_prob_at_image_size(self) -> np.ndarray:
        """Return `foreground_prob` enlarged to the image: float32 (H, W), 0..1."""
        return cv2.resize(self.foreground_prob, self.image_bgr.shape[1::-1])


def make_scene(image_bgr: np.ndarray, network: "onnxruntime.InferenceSession", seed: int) -> Scene:
    """Return the scene of an image, uint8 BGR (H, W, 3), without a cast shadow.

    `seed` is that of K-means on the border's colours.
    """
    lab = to_lab(image_bgr)
    image_bgr, lab, ground = erase_cast_shadow(image_bgr, lab, fit_ground(lab))
    channels = input_channels(image_bgr, ground, seed)
    small_bgr = np.ascontiguousarray(channels[..., :3])
    return Scene(image_bgr, lab, ground, small_bgr, *predict_foreground(network, channels))
