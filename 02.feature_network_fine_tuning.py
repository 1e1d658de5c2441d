"""Fine-tune InceptionV3 on known models, so that photographs of models never seen lie together by model.

    python 02.feature_network_fine_tuning.py
    python 02.feature_network_fine_tuning.py --TRAIN_DATASET=bags --IMAGE_SIZE=160 --EPOCHS=30

A classifier of the known models is trained on top of the block HEAD_LAYER: first the head alone, then the layers from
TRAIN_FROM_LAYER on, batch normalisation frozen (that of random weights is fitted to the images before). The features
that clustering needs are read off that block or an earlier one: right below a classifier they are about the models it
knows, a block or two earlier about what tells products apart. Some models are held out: they are never trained on;
after each epoch they choose block and pooling, and judge the features: by how many of an image's nearest neighbours
show its own model (mean average precision at R), by how well one threshold of similarity tells pairs of one model from
pairs of two (average precision), and by how many deviations photographs of one model are more alike than others
(margin), which still tells good from better where no photograph is grouped wrongly. What is judged, and kept, is the
average of the weights over the last AVERAGED_EPOCHS. Features are also judged whitened: along the directions in which
photographs of one known model differ, as by light or pose, all features are shortened (WHITENING), where the held-out
models gain by it; the start network brings a whitening of its own, which is adapted to the known models. Where no epoch
beats the starting network, read off where that is best, the starting network is kept. Else, with REFIT, a second
training from the same start shows all models, the held-out ones too, for as many epochs as were best. Before that, the
features of the held-out models' photographs are kept in known_features.npz: `features` float32 (n, n_features),
`labels` (n,) the models' names, `network` what features.json calls the network. By them stage 04 learns how alike
photographs of one model and of different ones are. A training that was killed goes on from its last epoch.

References: Zhai & Wu 2019, "Classification is a strong baseline for deep metric learning" (arXiv:1811.12649):
normalised features and class weights, temperature, balanced sampling. Label smoothing: Szegedy et al. 2016
(doi:10.1109/CVPR.2016.308). Features from below the layer that is trained: Bordes et al. 2022, "Guillotine
regularization" (arXiv:2206.13378). Averaged weights: Tarvainen & Valpola 2017 (arXiv:1703.01780); Izmailov et al. 2018
(arXiv:1803.05407).

Reads:  training_images/T/<class>/, data/T/training_images.json, mask/T/
Writes: model/T/feature_network.h5, model/T/feature_whitening.npz, model/T/history.csv, model/T/classes.txt,
        model/T/known_features.npz, model/T/feature_network.json
Config: PRETRAINED_WEIGHTS, INPUT_RANGE, IMAGE_SIZE, CROP_TO_PRODUCT, FEATURE_LAYER, POOLING, COMPUTE_DTYPE, HEAD,
        HEAD_LAYER, TEMPERATURE, LABEL_SMOOTHING, AUGMENTATION, RANDOM_GROUND, HEAD_EPOCHS, EPOCHS, TRAIN_FROM_LAYER,
        LEARNING_RATE, WARMUP_EPOCHS, WEIGHT_DECAY, TRAIN_BATCH_SIZE, AVERAGED_EPOCHS, HELD_OUT_FRACTION, PATIENCE,
        WHITENING, FEATURE_VIEWS, REFIT, RANDOM_SEED (which data: TRAIN_DATASET; of known_features.npz alone:
        L2_NORMALIZE; without effect on the files: N_JOBS, REDO)
"""

import functools
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

import config
from pipeline import feature_network
from pipeline.dataset import images_of
from pipeline.feature_network import Start
from pipeline.features import inception, selection, training_images
from pipeline.features.extraction import extract_features
from pipeline.features.inception import LayerPooling
from pipeline.features.layer_pooling import (
    PLACE,
    READ_AT_ONCE,
    FeatureReader,
    JudgedImages,
    best_place,
    compare_bfloat16,
    judge_place,
    list_places,
)
from pipeline.features.retrieval_scores import SCORES, judge
from pipeline.features.selection import HISTORY, KnownModels, describe, describe_kept
from pipeline.features.training import TrainingSettings, fit_normalisation
from pipeline.features.training_images import TrainingImages, sample_images
from pipeline.features.whitening import Whitening, adapt_whitening, fit_whitening, normalise_rows, whiten
from pipeline.machinery import files, records, run
from pipeline.machinery.checkpoints import Checkpoint
from pipeline.machinery.paths import data_dir, display_path, mask_dir, mask_path, model_dir, training_images_dir
from pipeline.machinery.settings import n_jobs
from pipeline.tensorflow_runtime import choose_dtype, disable_amx

if TYPE_CHECKING:
    import keras

FITTED_IMAGES = 256  # images by which the normalisation of random weights is fitted
COMPARED_IMAGES = 128  # images on which bfloat16 is compared with float32
JUDGED_IMAGES = 1000  # at most, so that judging an epoch stays short beside training it
WHITENING_IMAGES = 2000  # at most, by which features are whitened
ADAPTED_IMAGES = 500  # at most, to which the start network's own whitening is adapted
PRIOR_IMAGES = 250  # that this whitening counts as beside them; from 60 to 1,000 all scores are within 0.01
KNOWN_IMAGES = 2000  # of held-out models at most, whose features are kept; enough for 40 of each of 50 models
HELD_BYTES = 1_000_000_000  # of decoded images judged or whitened by, at most; with large images they are fewer


class FineTuned(NamedTuple):
    """What stage 02 writes."""

    backbone: "keras.Model"  # with the weights to save
    whitening: Whitening | None  # of its features, learned from all models
    about: dict  # what the record says
    history: list[dict]  # one of HISTORY for each epoch
    held_out_features: np.ndarray  # float32 (n, n_features), see `see_held_out`
    held_out_classes: np.ndarray  # int (n,)


# ---- images --------------------------------------------------------------------------------------


def list_masks(img_paths: list[str]) -> list[Path | None]:
    """List for each image of training_images/T/ the mask that stage 01 wrote, or None."""
    names = (records.read_record(data_dir(config.TRAIN_DATASET) / "training_images.json") or {}).get("images", {})
    found = [mask_path(config.TRAIN_DATASET, names[path]) if path in names else None for path in img_paths]
    return [path if path and path.is_file() else None for path in found]


def sample_seen(class_of: np.ndarray, chosen: np.ndarray, at_most: int) -> np.ndarray:
    """Return the indices of at most `at_most` images of the `chosen` classes, ascending, that fit into HELD_BYTES."""
    at_most = min(at_most, HELD_BYTES // (3 * config.IMAGE_SIZE**2))
    return sample_images(class_of, chosen, at_most, config.RANDOM_SEED)


def read_judged(source: TrainingImages, class_of: np.ndarray, held_out: np.ndarray) -> JudgedImages:
    """Read the images by which features are judged: of the held-out models, and of the others, to whiten by."""
    judged = sample_seen(class_of, held_out, JUDGED_IMAGES)
    shown = judged[:0]
    if config.WHITENING:
        shown = sample_seen(class_of, np.setdiff1d(class_of, held_out), WHITENING_IMAGES)
    return JudgedImages(source.read_all(judged), class_of[judged], source.read_all(shown), class_of[shown])


def choose_known(source: TrainingImages, class_of: np.ndarray) -> KnownModels:
    """Choose the models that are held out, and the images that judge."""
    folder = f"{display_path(training_images_dir(config.TRAIN_DATASET))}/"
    held_out = training_images.split_models(class_of, config.HELD_OUT_FRACTION, config.RANDOM_SEED, folder)
    seen = sample_seen(class_of, np.unique(class_of), JUDGED_IMAGES)
    return KnownModels(source, class_of, held_out, read_judged(source, class_of, held_out), seen)


# ---- the starting network ------------------------------------------------------------------------


def build_start() -> Start:
    """Build the backbone with its initial weights; raises UserError where a setting names a block that it lacks."""
    policy = "mixed_bfloat16" if choose_dtype(config.COMPUTE_DTYPE) == "bfloat16" else "float32"
    start = feature_network.build_start(config.PRETRAINED_WEIGHTS, config.IMAGE_SIZE, config.RANDOM_SEED, policy)
    if start.initial_weights == "random":
        print(f"warning: {feature_network.RANDOM_WARNING}", file=sys.stderr)
    feature_network.check_block("FEATURE_LAYER", config.FEATURE_LAYER, start)
    feature_network.check_block("HEAD_LAYER", config.HEAD_LAYER, start)
    return start


def own_whitening(start: Start) -> Whitening | None:
    """Return the whitening that came with the starting network, where the settings leave its place as it is.

    It was learned from thousands of products. What the few models at hand would choose instead serves new models
    worse, though better those held out of the few (doc/log.md, 2026-11-25).
    """
    asked = (config.FEATURE_LAYER, config.POOLING, config.HEAD_LAYER)
    return start.whitening if config.WHITENING and asked == ("auto",) * 3 else None


def read_views(compute: Callable, known: KnownModels, chosen: np.ndarray, at_most: int) -> tuple:
    """Return features of images of the `chosen` classes as stage 03 reads them, not whitened, and the classes.

    compute : of `feature_function`, with the present weights -> float32 (n, n_features), int (n,)
    """
    seen = sample_seen(known.class_of, chosen, at_most)
    return extract_features(compute, None, False, known.source.read_all(seen), READ_AT_ONCE), known.class_of[seen]


def adapt_own(start: Start, compute: Callable, known: KnownModels) -> Whitening | None:
    """Return `own_whitening` adapted to the models that are not held out; compute : see `read_views`."""
    own = own_whitening(start)
    if own is None:
        return None
    features, labels = read_views(compute, known, np.setdiff1d(known.class_of, known.held_out), ADAPTED_IMAGES)
    return adapt_whitening(own, features, labels, PRIOR_IMAGES)


def feature_places(start: Start, last: str) -> list[LayerPooling]:
    """List where features may be read off, up to the block `last`."""
    if own_whitening(start):
        return [start.place]
    return list_places(last, config.FEATURE_LAYER, config.POOLING)


def judge_start(
    start: Start, input_range: tuple[float, float], known: KnownModels, own: Whitening | None
) -> tuple[dict, dict]:
    """Judge the starting network where its features are best on images of all models.

    own : the start network's whitening, adapted, by which its features are judged alone

    Returns PLACE, "epoch" (0) and `judge` of its features as they are, and the same whitened where that is better.
    """
    places = feature_places(start, start.last_block)
    reader, place = FeatureReader(start.backbone, places, input_range, config.FEATURE_VIEWS if own else "one"), 0
    if len(places) > 1:
        place = best_place(reader.read(known.source.read_all(known.seen)), known.class_of[known.seen])
    features, labels = reader.read(known.judged.images_rgb)[place], known.judged.labels
    found = dict(zip(PLACE, (*places[place], False), strict=True)) | {"epoch": 0} | judge(features, labels)
    if not config.WHITENING:
        return found, found
    return found, judge_place(reader, place, features, known.judged, config.WHITENING, own) | {"epoch": 0}


def head_place(start: Start) -> LayerPooling:
    """Choose what the classifier is trained on, HEAD_LAYER = "auto" decided; not before FEATURE_LAYER."""
    if own_whitening(start):
        return start.place
    if start.initial_weights == feature_network.START:
        layer, pooling = start.last_block, start.place.pooling
    else:
        layer, pooling = ("mixed2", "max") if start.initial_weights == "random" else ("mixed7", "average")
    layer = layer if config.HEAD_LAYER == "auto" else config.HEAD_LAYER
    if config.FEATURE_LAYER != "auto":
        layer = max(layer, config.FEATURE_LAYER, key=inception.LAYERS.index)
    return LayerPooling(layer, pooling)


# ---- training ------------------------------------------------------------------------------------


def plan_training(
    place: LayerPooling, input_range: tuple[float, float], whitening: Whitening | None, to_beat: float
) -> selection.Plan:
    """Gather how the backbone is trained; place, whitening : what the head takes; to_beat : the start's best score."""
    how = TrainingSettings(config.HEAD, config.TEMPERATURE, config.LABEL_SMOOTHING, config.TRAIN_FROM_LAYER,
                           config.WEIGHT_DECAY, config.AVERAGED_EPOCHS, config.RANDOM_SEED)  # fmt: skip
    schedule = selection.Schedule(config.HEAD_EPOCHS, config.EPOCHS, config.WARMUP_EPOCHS, config.LEARNING_RATE,
                                  config.TRAIN_BATCH_SIZE, config.AUGMENTATION, config.RANDOM_GROUND, config.PATIENCE,
                                  config.WHITENING, n_jobs())  # fmt: skip
    views = config.FEATURE_VIEWS if whitening else "one"
    return selection.Plan(place, input_range, how, schedule, to_beat, whitening, views)


# ---- the stage -----------------------------------------------------------------------------------


def learn_whitening(reader: FeatureReader, known: KnownModels) -> Whitening | None:
    """Learn the whitening of the features at the one place of `reader` from all models."""
    shown = sample_seen(known.class_of, np.unique(known.class_of), WHITENING_IMAGES)
    return fit_whitening(reader.read(known.source.read_all(shown))[0], known.class_of[shown], config.WHITENING)


def see_held_out(
    reader: FeatureReader, compute: Callable, known: KnownModels, whitened: bool, own: Whitening | None
) -> tuple[np.ndarray, np.ndarray]:
    """Compute the features of held-out models' photographs as stage 03 would, before any training shows these models.

    reader : of the one place where features are read off; compute : see `read_views`; own : see `adapt_own`

    Returns float32 features (n, n_features) and int classes (n,). The whitening, if any, is `own`, or learned from the
    others.
    """
    whitening = own
    if whitened and own is None:
        shown = reader.read(known.judged.known_rgb)[0]
        whitening = fit_whitening(shown, known.judged.known_labels, config.WHITENING)
    features, classes = read_views(compute, known, known.held_out, KNOWN_IMAGES)
    features = whiten(features, whitening)
    return normalise_rows(features) if config.L2_NORMALIZE else features, classes


def fine_tune(known: KnownModels, checkpoints: list[Checkpoint]) -> FineTuned:
    """Train, or not where that does not help.

    checkpoints : where to keep the training that chooses, and that on all models
    """
    start = build_start()
    backbone, place = start.backbone, head_place(start)
    asked_range = start.input_range if config.INPUT_RANGE == "auto" else config.INPUT_RANGE
    start_range = inception.choose_input_range(backbone, asked_range)
    views_function = functools.partial(
        inception.feature_function, backbone, views=config.FEATURE_VIEWS, dtype="float32"
    )
    compute = views_function(start.place, start_range) if own_whitening(start) else None
    own = adapt_own(start, compute, known) if compute else None
    plain, whitened = judge_start(start, start_range, known, own)
    untrained = backbone.get_weights()
    if start.initial_weights == "random":
        fitted = np.random.default_rng([config.RANDOM_SEED, 6]).permutation(known.seen)[:FITTED_IMAGES]
        fit_normalisation(backbone, place.layer, known.source.read_all(fitted), asked_range)
    before = backbone.get_weights()
    print(f"initial weights: {feature_network.describe_weights(start)}")
    print(f"head on {place.pooling} of {place.layer}; {len(known.held_out)} models held out\nstart: {describe(plain)}")
    if whitened is not plain:
        print(f"       {describe(whitened)}")
    best_start = max(plain, whitened, key=lambda found: found["score"])
    first = whitened if own else best_start
    places = feature_places(start, place.layer)
    plan = plan_training(place, inception.choose_input_range(backbone, asked_range), own, best_start["score"])
    kept, improved, history = selection.choose_epoch(backbone, known, first, plan, places, checkpoints[0])
    best = backbone.get_weights() if improved else untrained
    backbone.set_weights(best)
    kept_place = LayerPooling(kept["feature_layer"], kept["pooling"])
    reader = FeatureReader(backbone, [kept_place], plan.input_range if improved else start_range)
    if improved or not compute:
        compute = views_function(kept_place, reader.input_range)
        own = adapt_own(start, compute, known)
    seen = see_held_out(reader, compute, known, kept["whitened"], own)
    refitted = False
    if improved and config.REFIT:
        print(f"best: epoch {kept['epoch']}, {describe(kept)}; trains as long on all models")
        backbone.set_weights(before)
        refitted, more = selection.refit_on_all(backbone, known, kept, plan, checkpoints[1])
        history = history + more
        if not refitted:
            backbone.set_weights(best)
    about = {
        "initial_weights": start.initial_weights,
        "last_block": start.last_block,
        "start_place": {key: plain[key] for key in PLACE},
        "start_scores": {key: plain[key] for key in (*SCORES, "score")},
        "improved": improved,
        "refitted": refitted,
    }
    whitening = own or (learn_whitening(reader, known) if kept["whitened"] else None)
    return finish(reader, known, kept, whitening, about, history, seen)


def finish(
    reader: FeatureReader,
    known: KnownModels,
    kept: dict,
    whitening: Whitening | None,
    about: dict,
    history: list[dict],
    seen: tuple[np.ndarray, np.ndarray],
) -> FineTuned:
    """Gather what the record of the network to save says.

    reader : of the network to save; kept : the place and the scores; seen : of `see_held_out`
    """
    compared = np.random.default_rng([config.RANDOM_SEED, 7]).permutation(known.seen)[:COMPARED_IMAGES]
    cosine = compare_bfloat16(reader, whitening, known.source.read_all(compared))
    about = {
        "image_size": config.IMAGE_SIZE,
        "input_range": inception.name_range(reader.input_range),
        **{key: kept[key] for key in PLACE},
        "whitened": whitening is not None,
        "bfloat16_cosine": cosine,
        "scores": {key: kept[key] for key in (*SCORES, "score")},
        "best_epoch": kept["epoch"],
        "n_epochs": len(history),
        **about,
    }
    return FineTuned(reader.backbone, whitening, about, history, *seen)


def main() -> None:
    begin = time.perf_counter()
    disable_amx()
    dataset = config.TRAIN_DATASET
    folder, out_dir = training_images_dir(dataset), model_dir(dataset)
    names = images_of(folder, f"run make_training_image_folders.py --TRAIN_DATASET={dataset} first")
    mask_paths = list_masks(names) if config.RANDOM_GROUND else [None] * len(names)
    inputs = {display_path(folder): records.fingerprint_folder(folder, names)}
    if any(mask_paths):
        inputs[display_path(mask_dir(dataset))] = records.fingerprint(
            [p and records.fingerprint_file(p) for p in mask_paths]
        )
    origin = records.made_from(__file__, inputs)
    origin["weights"] = feature_network.identify(config.PRETRAINED_WEIGHTS, config.RANDOM_SEED)
    record_path = out_dir / "feature_network.json"
    if records.up_to_date(record_path, origin):
        run.unchanged([out_dir / "feature_network.h5"])
        return

    classes, class_of = np.unique([name.partition("/")[0] for name in names], return_inverse=True)
    key = records.fingerprint(origin)
    checkpoints = [Checkpoint(out_dir / name, key) for name in ("checkpoint.npz", "refit_checkpoint.npz")]
    if config.REDO:
        for checkpoint in checkpoints:
            checkpoint.remove()
    out_dir.mkdir(parents=True, exist_ok=True)
    paths = [folder / name for name in names]
    with tempfile.TemporaryFile(dir=out_dir, buffering=0) as handle:  # without a name: gone whatever happens
        shown = [display_path(path) for path in paths]
        source = TrainingImages(shown, paths, mask_paths, config.IMAGE_SIZE, config.CROP_TO_PRODUCT, handle)
        known = choose_known(source, class_of)
        made = fine_tune(known, checkpoints)
    print(describe_kept(about := made.about))
    outputs = feature_network.write_network(out_dir, made.backbone, made.whitening)
    outputs[1:1] = [out_dir / "history.csv", out_dir / "classes.txt", out_dir / "known_features.npz"]
    files.write_csv(outputs[1], HISTORY, [[row[key] for key in HISTORY] for row in made.history])
    trained_on = [name for i, name in enumerate(classes) if about["refitted"] or i not in known.held_out]
    files.write_lines(outputs[2], trained_on)
    identity = feature_network.identify_files(out_dir, about)
    labels = classes[made.held_out_classes]
    feature_network.write_known_features(outputs[3], made.held_out_features, labels, identity)
    about |= {
        "network": identity,
        "held_out_models": [classes[i] for i in known.held_out],
        "seconds": round(time.perf_counter() - begin, 1),
    }
    records.write_record(record_path, origin, outputs, **about)
    for checkpoint in checkpoints:
        checkpoint.remove()
    run.summary(len(names), len(names), 0, outputs[:1], about["seconds"])


if __name__ == "__main__":
    run.run(main, __doc__)
