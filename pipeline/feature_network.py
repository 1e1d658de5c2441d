"""The network of stages 02 and 03: the weights that it starts from, and those that stage 02 leaves."""

from typing import TYPE_CHECKING

from pipeline.machinery import weights
from pipeline.machinery.paths import root

if TYPE_CHECKING:
    from pathlib import Path

    import keras

SETTING = "PRETRAINED_WEIGHTS"
INCEPTION = weights.Pretrained(
    "InceptionV3 without top",
    "https://storage.googleapis.com/tensorflow/keras-applications/inception_v3/"
    "inception_v3_weights_tf_dim_ordering_tf_kernels_notop.h5",
    "bcbd6486424b2319ff4ef7d526e38f63",  # as keras.applications checks it
)
RANDOM_WARNING = (
    "the network starts from random weights (ImageNet's could not be had, or PRETRAINED_WEIGHTS says so), "
    'and clusters will be clearly worse (set PRETRAINED_WEIGHTS to "imagenet" with a network, or to a .h5 file)'
)


def identify(chosen: str, seed: int) -> str:
    """Return what the initial weights are, see `weights.known`; chosen, seed : PRETRAINED_WEIGHTS, RANDOM_SEED."""
    return weights.known(INCEPTION, chosen, SETTING, seed)


def load_initial(backbone: "keras.Model", chosen: str) -> str:
    """Load the weights that PRETRAINED_WEIGHTS (`chosen`) asks for into a fresh InceptionV3, whose own are random.

    Returns what they are: "imagenet", "random" or the path as given.
    """
    unreached_path = root() / "model" / ".imagenet_not_reached"
    return weights.initialise(backbone, INCEPTION, chosen, SETTING, unreached_path)


def load_trained(backbone: "keras.Model", path: "Path") -> None:
    """Load the network that stage 02 wrote; raises UserError where it does not fit."""
    weights.load(backbone, path, INCEPTION.architecture)
