"""The network of stages 02 and 03: the weights that it starts from, and those that stage 02 leaves."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipeline.machinery import records, weights
from pipeline.machinery.files import atomic_write
from pipeline.machinery.paths import root

if TYPE_CHECKING:
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


def load_trained(backbone: "keras.Model", path: Path) -> None:
    """Load the network that stage 02 wrote; raises UserError where it does not fit."""
    weights.load(backbone, path, INCEPTION.architecture)


def network_paths(folder: Path) -> tuple[Path, Path, Path]:
    """Return the paths of stage 02's network, of its record, and of the whitening of its features, in model/T/."""
    return folder / "feature_network.h5", folder / "feature_network.json", folder / "feature_whitening.npz"


def identify_files(folder: Path, record: dict) -> str:
    """Return the fingerprint of stage 02's network and of how features are read off it; needs no TensorFlow.

    folder : model/T/; record : of stage 02, or what it will say
    """
    weights_path, _, whitening_path = network_paths(folder)
    place = [record.get(key) for key in ("feature_layer", "pooling", "whitened", "bfloat16_cosine")]
    whitening = records.fingerprint_file(whitening_path) if record.get("whitened") else ""
    return records.fingerprint([records.fingerprint_file(weights_path), *place, whitening])


def write_known_features(path: Path, features: np.ndarray, labels: np.ndarray, network: str) -> None:
    """Write features of labelled photographs of models that the network was not trained on, for stage 04.

    features : float32 (n, n_features); labels : (n,) of text; network : as `made_from` of features.json has it
    """
    with atomic_write(path) as temporary:
        np.savez(temporary, features=features, labels=labels.astype(str), network=np.array(network))
