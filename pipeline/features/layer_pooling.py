"""Read features off several blocks of the backbone at once, and choose the block, the pooling, the whitening."""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from pipeline.features.framing import list_views, turn_quarters
from pipeline.features.inception import (
    LAYERS,
    SINGLE_POOLINGS,
    LayerPooling,
    count_features,
    feature_function,
    pool_maps,
    scale_pixels,
    select_layers,
)
from pipeline.features.retrieval_scores import judge, separation, similarity_matrix
from pipeline.features.whitening import Whitening, fit_whitening, normalise_rows, whiten
from pipeline.tensorflow_runtime import tensorflow

if TYPE_CHECKING:
    import keras

PLACE = ("feature_layer", "pooling", "whitened")  # where features are read off, and whether they are whitened
READ_AT_ONCE = 64  # images; bounds the memory of activations


def list_places(last: str, layer: str, pooling: str) -> list[LayerPooling]:
    """List where features may be read off: the blocks up to `last`, each with each of SINGLE_POOLINGS.

    layer, pooling : FEATURE_LAYER and POOLING; "auto" leaves them open
    """
    layers = LAYERS[: LAYERS.index(last) + 1] if layer == "auto" else [layer]
    poolings = SINGLE_POOLINGS if pooling == "auto" else [pooling]
    return [LayerPooling(one, other) for one in layers for other in poolings]


class FeatureReader:
    """Reads the features of images off several places of a backbone at once.

    backbone : InceptionV3; later changes of its weights are followed
    places : layers with poolings
    input_range : what the backbone takes for black and white
    views : of which the features are the mean, see `list_views`
    """

    def __init__(
        self,
        backbone: "keras.Model",
        places: list[LayerPooling],
        input_range: tuple[float, float],
        views: str = "one",
    ):
        tf = tensorflow()
        self.backbone, self.places, self.input_range, self.views = backbone, places, input_range, views
        self.readers: dict[int, FeatureReader] = {}
        layers = sorted({place.layer for place in places}, key=LAYERS.index)
        maps = select_layers(backbone, layers)

        @tf.function(autograph=False, reduce_retracing=True)
        def compute(images_rgb):
            outputs = maps(scale_pixels(images_rgb, *input_range), training=False)
            output_of = dict(zip(layers, outputs if len(layers) > 1 else [outputs], strict=True))
            return tf.concat([pool_maps(output_of[place.layer], place.pooling) for place in places], axis=1)

        self.compute = compute
        self.ends = np.cumsum([count_features(backbone, place) for place in places])

    def read(self, images_rgb: np.ndarray) -> list[np.ndarray]:
        """Return the features of images at each place, float32 (n, n_features of the place).

        images_rgb : uint8 ndarray of shape (n, size, size, 3)
        """
        found = []
        for begin in range(0, len(images_rgb), READ_AT_ONCE):
            views = list_views(images_rgb[begin : begin + READ_AT_ONCE], self.views, turn_quarters)
            found.append(sum(np.asarray(self.compute(view)) for view in views) / np.float32(len(views)))
        return np.split(np.concatenate(found), self.ends[:-1], axis=1)

    def read_at(self, place: int, images_rgb: np.ndarray) -> np.ndarray:
        """Return the same at one place alone, which takes less memory."""
        if place not in self.readers:
            self.readers[place] = FeatureReader(self.backbone, [self.places[place]], self.input_range, self.views)
        return self.readers[place].read(images_rgb)[0]


class JudgedImages(NamedTuple):
    """Images of models that are not trained on, and of the others, by which features are judged."""

    images_rgb: np.ndarray  # uint8 (n_judged, size, size, 3), of the held-out models
    labels: np.ndarray  # int (n_judged,)
    known_rgb: np.ndarray  # uint8 (n_known, size, size, 3), of the models trained on; whitening is learned from them
    known_labels: np.ndarray  # int (n_known,)


def best_place(parts: list[np.ndarray], labels: np.ndarray) -> int:
    """Return the index of the features that tell models apart best, by the score of `separation`.

    parts : float32 arrays of (n_images, n_features); labels : int ndarray of shape (n_images,)
    """
    if len(parts) == 1:
        return 0
    scores = [
        separation(similarity_matrix(part), labels)["score"] if np.isfinite(part).all() else -1.0 for part in parts
    ]
    return int(np.argmax(scores))


def judge_place(
    reader: FeatureReader,
    place: int,
    features: np.ndarray,
    judged: JudgedImages,
    strength: float,
    own: Whitening | None = None,
) -> dict:
    """Judge the features at one place, whitened where that is better.

    features : of `judged.images_rgb` at this place
    strength : of the whitening, see `fit_whitening`; 0 tries none
    own : the start network's whitening, by which they are judged alone

    Returns feature_layer, pooling, whitened, and what `judge` returns. The whitening is learned from the known models.
    """
    layer, pooling = reader.places[place]
    if own is not None:
        return {"feature_layer": layer, "pooling": pooling, "whitened": True} | judge(
            whiten(features, own), judged.labels
        )
    found: dict = dict(zip(PLACE, (layer, pooling, False), strict=True)) | judge(features, judged.labels)
    if strength:
        learned = fit_whitening(reader.read_at(place, judged.known_rgb), judged.known_labels, strength)
        whitened = judge(whiten(features, learned), judged.labels)
        if whitened["score"] > found["score"]:
            found |= {"whitened": True, **whitened}
    return found


def compare_bfloat16(reader: FeatureReader, whitening: Whitening | None, images_rgb: np.ndarray) -> float:
    """Return the least cosine between the features of images in bfloat16 and in float32, -1 to 1; 0 if not finite.

    reader : of one place; images_rgb : uint8 ndarray of shape (n, size, size, 3)
    """
    one, other = (
        normalise_rows(whiten(np.asarray(compute(images_rgb)), whitening))
        for dtype in ("bfloat16", "float32")
        for compute in [feature_function(reader.backbone, reader.places[0], reader.input_range, "one", dtype)]
    )
    return float(np.nan_to_num((one * other).sum(axis=1)).min())
