"""Train epoch by epoch, judge each epoch on models that are held out, and keep the best.

Averaged weights are judged. The training that follows, of all models, has none left to judge by: it lasts as many
epochs as were best.
"""

import time
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
from tqdm import tqdm

from pipeline.features.inception import LayerPooling
from pipeline.features.layer_pooling import PLACE, FeatureReader, JudgedImages, best_place, judge_place
from pipeline.features.retrieval_scores import SCORES
from pipeline.features.training import Trainer, TrainingSettings, schedule_rates
from pipeline.features.training_images import TrainingImages, count_batches, epoch_order, training_batches
from pipeline.features.whitening import Whitening
from pipeline.machinery.errors import UserError

if TYPE_CHECKING:
    import keras

# of the score on the models held out, over the starting network's; less is chance where six models judge, and the
# training of all models that follows would double the time
LEAST_GAIN = 0.01
HISTORY = ["epoch", "phase", "learning_rate", "loss", "accuracy", *SCORES, *PLACE, "seconds"]


class Schedule(NamedTuple):
    """How long and on what the network is trained, and how it is judged."""

    head_epochs: int  # epochs that train the head alone
    epochs: int  # epochs after that
    warmup_epochs: int  # epochs over which the learning rate rises
    learning_rate: float  # the highest
    batch_size: int
    augmentation: float  # strength, see `augment`
    random_ground: float  # share of images set on a random ground, 0 to 1
    patience: int  # epochs without a better score after which training ends
    whitening: float  # strength, see `fit_whitening`; 0 = none
    n_jobs: int  # threads that make batches


class Store(Protocol):
    """Where the state of a training is kept, see `pipeline.machinery.checkpoints`."""

    def read(self) -> tuple[dict[str, list[np.ndarray]], dict] | None:
        """Return what was written last; None where there is nothing."""

    def write(self, arrays: dict[str, list[np.ndarray]], state: dict) -> None:
        """Keep arrays and values in place of the last ones."""


class KnownModels(NamedTuple):
    """The labelled images, and those of them by which features are judged."""

    source: TrainingImages
    class_of: np.ndarray  # int (n_images,)
    held_out: np.ndarray  # int, the classes that judge and are not trained on
    judged: JudgedImages
    seen: np.ndarray  # int, some images of all classes


class Plan(NamedTuple):
    """What the head takes, and how it and the backbone are trained."""

    place: LayerPooling
    input_range: tuple[float, float]  # what the backbone takes for black and white
    how: TrainingSettings
    schedule: Schedule
    to_beat: float  # score on the held-out models of the starting network, whitened or not, whichever is better
    whitening: Whitening | None = None  # the start network's own, which the features keep
    views: str = "one"  # of which the features that are judged are the mean, see `list_views`


def begin_training(backbone: "keras.Model", class_of: np.ndarray, plan: Plan) -> Trainer:
    """Return a trainer of the models with the labels `class_of`, from the present weights of the backbone."""
    n_batches = count_batches(len(class_of), plan.schedule.batch_size)
    place = plan.place
    n_classes = len(np.unique(class_of))
    trainer = Trainer(backbone, place, plan.input_range, n_classes, n_batches, plan.how, plan.whitening)
    if plan.schedule.epochs and not trainer.trained:
        raise UserError(
            f'TRAIN_FROM_LAYER = "{plan.how.train_from_layer}" leaves nothing to train below the head on '
            f"{place.layer}: set an earlier block, or a later HEAD_LAYER"
        )
    return trainer


def show_epoch(
    trainer: Trainer, source: TrainingImages, indices: np.ndarray, labels: np.ndarray, epoch: int, schedule: Schedule
) -> dict[str, float | str]:
    """Train on each of the images `indices` once, more or less; returns what HISTORY says of it, without scores.

    indices, labels : int ndarrays of shape (n_images,), images and their classes
    """
    n_head, seed = schedule.head_epochs, trainer.how.seed
    n_batches = count_batches(len(indices), schedule.batch_size)
    rates = schedule_rates(epoch, n_batches, n_head, schedule.epochs, schedule.warmup_epochs, schedule.learning_rate)
    order = epoch_order(labels, epoch, seed)
    batches = training_batches(
        source,
        indices[order],
        labels[order],
        schedule.batch_size,
        schedule.n_jobs,
        schedule.augmentation,
        schedule.random_ground,
        seed=[seed, 3, epoch],
    )
    loss, accuracy = trainer.run_epoch(batches, rates, head_only=epoch < n_head)
    phase = "head" if epoch < n_head else "network"
    return {"epoch": epoch + 1, "phase": phase, "learning_rate": rates[-1], "loss": loss, "accuracy": accuracy}


def add_epoch(history: list[dict], row: dict, begin: float) -> None:
    """Add an epoch begun at the time `begin` to the history, and print it."""
    history.append(row | {"seconds": round(time.perf_counter() - begin, 2)})
    said = [(key, value) for key, value in history[-1].items() if value != ""]
    print("  ".join(f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}" for key, value in said))


def resume(trainer: Trainer, checkpoint: Store, start: dict) -> tuple[list[np.ndarray], dict]:
    """Go on from a checkpoint of this very training, or begin with `start` as what is kept.

    Returns the best weights so far and "history", "kept", "since_best".
    """
    arrays, state = checkpoint.read() or ({"values": [], "best": []}, {})
    if state and trainer.set_values(arrays["values"]):
        return arrays["best"], state
    return [], {"history": [], "kept": start, "since_best": 0}


def epochs(done: int, n_epochs: int) -> tqdm:
    """Count the epochs that are left, with a progress bar on a terminal."""
    return tqdm(range(done, n_epochs), initial=done, total=n_epochs, unit=" epochs", disable=None)


def train(
    trainer: Trainer, reader: FeatureReader, known: KnownModels, start: dict, plan: Plan, checkpoint: Store
) -> tuple[list[np.ndarray], dict, list[dict]]:
    """Train both phases and judge each epoch on the held-out models.

    reader : of the places where the trained network's features may be read off
    start : PLACE, "epoch" (0) and `judge` of the starting network

    Returns
    -------
    best : weights of the best epoch, those of `trainer.maps`; empty where none beat the starting network
    found : the same as `start`, of the best epoch; `start` itself where none beat it
    history : one dict of HISTORY for each epoch
    """
    schedule = plan.schedule
    trained_on = np.flatnonzero(~np.isin(known.class_of, known.held_out))
    labels = np.unique(known.class_of[trained_on], return_inverse=True)[1]
    best, state = resume(trainer, checkpoint, start)
    if history := state["history"]:
        print(f"goes on after epoch {len(history)}")
    for epoch in epochs(len(history), schedule.head_epochs + schedule.epochs):
        if state["since_best"] >= schedule.patience:
            break
        begin = time.perf_counter()
        row, found = show_epoch(trainer, known.source, trained_on, labels, epoch, schedule), start
        if epoch >= schedule.head_epochs:
            with trainer.averaged():
                parts = reader.read(known.judged.images_rgb)
                place = best_place(parts, known.judged.labels)
                found = {"epoch": epoch + 1} | judge_place(
                    reader, place, parts[place], known.judged, schedule.whitening, plan.whitening
                )
                state["since_best"] += 1
                if found["score"] > (state["kept"]["score"] if best else plan.to_beat + LEAST_GAIN):
                    best, state["kept"], state["since_best"] = trainer.maps.get_weights(), found, 0
        add_epoch(history, row | {key: found[key] for key in (*SCORES, *PLACE)}, begin)
        checkpoint.write({"values": trainer.values(), "best": best}, state)
    return best, state["kept"], history


def refit(
    trainer: Trainer, known: KnownModels, kept: dict, schedule: Schedule, checkpoint: Store
) -> tuple[list[np.ndarray], list[dict]]:
    """Train on all models from the start to the best epoch, on the schedule by which that was found.

    kept : what `train` found, the "epoch" and the place of its features

    Returns
    -------
    weights : those of `trainer.maps`, averaged; empty where they are not finite
    history : one dict of HISTORY for each epoch, with no scores: no model is left to judge by
    """
    _, state = resume(trainer, checkpoint, kept)
    every = np.arange(len(known.class_of))
    if history := state["history"]:
        print(f"goes on after epoch {len(history)} with all models")
    for epoch in epochs(len(history), kept["epoch"]):
        begin = time.perf_counter()
        row = show_epoch(trainer, known.source, every, known.class_of, epoch, schedule)
        row |= {"phase": f"{row['phase']}, all models"} | dict.fromkeys(SCORES, "") | {key: kept[key] for key in PLACE}
        add_epoch(history, row, begin)
        checkpoint.write({"values": trainer.values(), "best": []}, state)
    with trainer.averaged():
        values = trainer.maps.get_weights()
    return (values if all(np.isfinite(value).all() for value in values) else []), history


def describe(found: dict) -> str:
    """Say place and scores in words."""
    scores = "  ".join(f"{key} {found[key]:.3f}" for key in SCORES)
    whitened = ", whitened" if found["whitened"] else ""
    return f"{found['pooling']} of {found['feature_layer']}{whitened}, {scores}"


def describe_kept(about: dict) -> str:
    """Say in words which network is kept; about : "scores", PLACE, "improved" and "refitted"."""
    found = describe(about | about["scores"])
    if about["refitted"]:
        return f"kept: the network trained on all models; without those held out: {found}"
    if about["improved"]:
        return f"kept: the best epoch, {found}"
    its_features = ", its features whitened" if about["whitened"] else ""
    return f"kept: the starting network{its_features}, since training did not make it better on the held-out models"


def choose_epoch(
    backbone: "keras.Model",
    known: KnownModels,
    first: dict,
    plan: Plan,
    places: list[LayerPooling],
    checkpoint: Store,
) -> tuple[dict, bool, list[dict]]:
    """Train without the held-out models, and leave the weights of the best epoch in the backbone.

    first : PLACE, "epoch" (0) and `judge` of the starting network
    places : where the trained network's features may be read off

    Returns the same as `first` of what is best; whether an epoch was better than `first`, else the backbone has any
    weights; the history.
    """
    trainer = begin_training(backbone, known.class_of[~np.isin(known.class_of, known.held_out)], plan)
    reader = FeatureReader(backbone, places, plan.input_range, plan.views)
    best, kept, history = train(trainer, reader, known, first, plan, checkpoint)
    if best:
        trainer.maps.set_weights(best)
    return kept, bool(best), history


def refit_on_all(
    backbone: "keras.Model", known: KnownModels, kept: dict, plan: Plan, checkpoint: Store
) -> tuple[bool, list[dict]]:
    """Train on all models from the present weights, and leave the new weights in the backbone where they are finite.

    Returns whether they are, and the history.
    """
    trainer = begin_training(backbone, known.class_of, plan)
    values, history = refit(trainer, known, kept, plan.schedule, checkpoint)
    if values:
        trainer.maps.set_weights(values)
    return bool(values), history
