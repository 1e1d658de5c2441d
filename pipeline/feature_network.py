"""The network of stages 02 and 03: the weights that it starts from, and the files that stage 02 leaves."""

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from pipeline.features import start_network
from pipeline.features.inception import LAYERS, LayerPooling, build_inception, select_layers
from pipeline.features.whitening import Whitening
from pipeline.machinery import files, records, weights
from pipeline.machinery.errors import UserError
from pipeline.machinery.paths import display_path, root

if TYPE_CHECKING:
    import keras

SETTING = "PRETRAINED_WEIGHTS"
TRAINING = "02.feature_network_fine_tuning.py"
INCEPTION = weights.Pretrained(
    "InceptionV3 without top",
    "https://storage.googleapis.com/tensorflow/keras-applications/inception_v3/"
    "inception_v3_weights_tf_dim_ordering_tf_kernels_notop.h5",
    "bcbd6486424b2319ff4ef7d526e38f63",  # as keras.applications checks it
)
START = "start network"  # the initial weights that come with the project, as records and messages call them
# of random weights, an early layer's maxima tell products apart best; of trained ones, a layer of the middle, where the
# features are no longer about edges and not yet about the classes of another task
RANDOM_PLACE, TRAINED_PLACE = LayerPooling("mixed0", "max"), LayerPooling("mixed7", "average")
RANDOM_WARNING = (
    "the network starts from random weights, as PRETRAINED_WEIGHTS says, and clusters will be clearly worse: "
    'set it to "auto", "imagenet" or the path of a .h5 file'
)


class Start(NamedTuple):
    """The network before any training."""

    backbone: "keras.Model"  # InceptionV3, or its blocks up to `last_block`
    initial_weights: str  # "imagenet", START, "random", or the path as given
    last_block: str  # one of LAYERS
    input_range: str  # one of `inception.RANGES`; "auto" where only the weights can tell
    place: LayerPooling  # where features are read off where no labelled images say what is best
    whitening: Whitening | None  # of the features there


def identify(chosen: str, seed: int) -> str:
    """Return an identity of the initial weights without loading them; see `weights.known`.

    chosen, seed : PRETRAINED_WEIGHTS, RANDOM_SEED
    """
    if chosen == "auto" and not INCEPTION.cache_path.is_file():
        return f"{START} {records.fingerprint_file(start_network.PATH)}"
    return weights.known(INCEPTION, chosen, SETTING, seed)


def build_start(chosen: str, image_size: int, seed: int, policy: str = "float32") -> Start:
    """Build the backbone with the weights that PRETRAINED_WEIGHTS (`chosen`) asks for.

    Where ImageNet's can't be had, "auto" takes the project's own start network, which ends at an earlier block.
    image_size, seed, policy : see `build_inception`. Raises UserError where the weights can't be had.
    """
    backbone = build_inception(image_size, seed, policy)
    unreached_path = root() / "model" / ".imagenet_not_reached"
    if chosen == "auto" and weights.imagenet_path(INCEPTION, False, SETTING, unreached_path) is None:
        own = start_network.read_start_network()
        start_network.assign_weights(backbone, own)
        whitening = None if own.whitening is None else Whitening(*own.whitening)
        place = LayerPooling(own.feature_layer, own.pooling)
        part = select_layers(backbone, [own.last_block])
        return Start(part, START, own.last_block, own.input_range, place, whitening)
    name = weights.initialise(backbone, INCEPTION, chosen, SETTING, unreached_path)
    place = RANDOM_PLACE if name == "random" else TRAINED_PLACE
    # ImageNet's weights of keras.applications take -1..1; others are asked
    return Start(backbone, name, LAYERS[-1], "-1..1" if name == "imagenet" else "auto", place, None)


def describe_weights(start: Start) -> str:
    """Return in a few words which weights were taken."""
    if start.initial_weights == START:
        return f"the project's own start network, up to {start.last_block} (ImageNet's could not be had)"
    return "ImageNet's" if start.initial_weights == "imagenet" else start.initial_weights


def check_block(setting: str, block: str, start: Start) -> None:
    """Raise UserError where a setting names a block that the start network does not have."""
    if block in LAYERS and LAYERS.index(block) > LAYERS.index(start.last_block):
        raise UserError(
            f'{setting} = "{block}": {describe_weights(start)}, has no such block: set an earlier one, or '
            f'{SETTING} to "imagenet" or the path of a .h5 file'
        )


def load_trained(path: Path, record: dict, image_size: int, seed: int) -> "keras.Model":
    """Load the network that stage 02 wrote; raises UserError where the file does not fit.

    record : of stage 02; empty where the file came from elsewhere, a whole InceptionV3 then
    """
    backbone, last_block = build_inception(image_size, seed), record.get("last_block", LAYERS[-1])
    if last_block != LAYERS[-1]:
        backbone = select_layers(backbone, [last_block])
    weights.load(backbone, path, INCEPTION.architecture)
    return backbone


def find_encoder(chosen: str) -> Path:
    """Return the path that FEATURE_NETWORK gives; a relative path starts at the project's folder.

    Raises UserError where there is no such file.
    """
    path = weights.path_of(chosen)
    if not path.is_file():
        raise UserError(
            f"FEATURE_NETWORK: no file {chosen}: give the path of an .onnx file, relative to the project's folder or "
            'absolute, or "fine-tuned" or "pretrained"'
        )
    return path


def network_paths(folder: Path) -> tuple[Path, Path, Path]:
    """Return the paths of stage 02's network, of its record, and of the whitening of its features, in model/T/."""
    return folder / "feature_network.h5", folder / "feature_network.json", folder / "feature_whitening.npz"


def identify_files(folder: Path, record: dict) -> str:
    """Return the fingerprint of stage 02's network and of how features are read off it; needs no TensorFlow.

    folder : model/T/; record : of stage 02, or what it will say
    """
    weights_path, _, whitening_path = network_paths(folder)
    place = [record.get(key) for key in ("feature_layer", "pooling", "whitened", "bfloat16_cosine", "input_range")]
    whitening = records.fingerprint_file(whitening_path) if record.get("whitened") else ""
    return records.fingerprint([records.fingerprint_file(weights_path), *place, whitening])


def write_network(folder: Path, backbone: "keras.Model", whitening: Whitening | None) -> list[Path]:
    """Write the network and the whitening of its features, if any; returns the paths."""
    network_path, whitening_path = folder / "feature_network.h5", folder / "feature_whitening.npz"
    with files.atomic_write(network_path) as temporary:
        backbone.save(temporary, include_optimizer=False)
        if whitening:  # in here: where the disk is full, both stay as they were
            with files.atomic_write(whitening_path) as beside, beside.open("wb") as handle:
                np.savez(handle, **whitening._asdict())
    if whitening:
        return [network_path, whitening_path]
    whitening_path.unlink(missing_ok=True)
    return [network_path]


def read_whitening(folder: Path, record: dict, pooling: str, n_features: int) -> Whitening | None:
    """Return the whitening that stage 02 learned for its network and this pooling; None where `record` names none.

    folder : model/T/; record : of stage 02. Raises UserError where the file is missing, of another network or another
    number of features.
    """
    if not record.get("whitened"):
        return None
    if pooling != record.get("pooling"):
        print(f'features are not whitened: that was learned for POOLING "{record.get("pooling")}"')
        return None
    _, record_path, path = network_paths(folder)
    files.require(path, TRAINING)
    if records.recorded(path, record_path) is None:
        raise UserError(f"{display_path(path)} was not made with the network beside it: run {TRAINING} again")
    whitening = Whitening(**files.read_npz(path, TRAINING, Whitening._fields))
    shapes = [value.shape for value in whitening if value.dtype.kind == "f" and np.isfinite(value).all()]
    if shapes != [(n_features,), (n_features, n_features)]:
        raise UserError(f"{display_path(path)} does not fit {n_features} features: run {TRAINING} again")
    return whitening


def write_known_features(path: Path, features: np.ndarray, labels: np.ndarray, network: str, key: str = "") -> None:
    """Write features of labelled photographs of models that the network was not trained on, for stage 04.

    features : float32 (n, n_features); labels : (n,) of text; network : as `made_from` of features.json has it
    key : fingerprint of what the features depend on
    """
    with files.atomic_write(path) as temporary:
        np.savez(temporary, features=features, labels=labels.astype(str), network=np.array(network), key=np.array(key))
