"""What stage 02's choice of epoch, block, pooling and whitening is worth on models that it never saw.

The models of a data set are split: two thirds are known, some of which stage 02 holds out to judge by, and one third
stays new. The network is trained as stage 02 does it; after each epoch the features of the held-out and of the new
models' photographs are judged at every place where they could be read off, plain, whitened by the known models, and at
its own place by the whitening that came with the start network. Printed for each split: the score on the new models of
what stage 02 takes, beside the best and the mean of all that could be taken; of the start network as it is; of the
best on the held-out models by the score of stage 02, and by counts of faults (mean of ARI, recall at 1 and map at R),
which few photographs of few models soon saturate. "rank" is the share of the choices that are worse than what stage 02
takes. The refit on all models is left out: nothing is left to judge it by.

The data sets must have been through stages 00, 01 and make_training_image_folders.py.

    python benchmarks/feature_choice.py sample_train
    python benchmarks/feature_choice.py catalogue_train photos_train --seeds=2 --EPOCHS=4
"""

import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import config
from pipeline import feature_network
from pipeline.dataset import images_of
from pipeline.feature_network import Start
from pipeline.features import inception, selection
from pipeline.features.inception import LayerPooling
from pipeline.features.layer_pooling import FeatureReader, best_place, list_places
from pipeline.features.retrieval_scores import judge
from pipeline.features.training import TrainingSettings
from pipeline.features.training_images import TrainingImages, sample_images, split_models
from pipeline.features.whitening import fit_whitening, whiten
from pipeline.machinery import settings
from pipeline.machinery.errors import UserError
from pipeline.machinery.paths import training_images_dir
from pipeline.tensorflow_runtime import disable_amx

NEW_SHARE = 1 / 3  # of the models
AT_MOST = 1000  # images judged or whitened by, as in stage 02
COUNTS = ("ari", "recall_at_1", "map_at_r")


class Choice(NamedTuple):
    """One epoch and place, and what it scores."""

    epoch: int
    place: int
    whitening: str  # "none", "known" models' or the start network's "own"
    held_out: dict[str, float]  # `judge` on the models that choose
    new: dict[str, float]  # `judge` on models that were neither trained on nor asked


class Split(NamedTuple):
    """Indices of images: all of known models, and those that are read to judge."""

    known: np.ndarray
    held_classes: np.ndarray
    held_out: np.ndarray
    shown: np.ndarray
    new: np.ndarray


def split_images(class_of: np.ndarray, folder: str, seed: int) -> Split:
    """Split the images by model into known, held-out and new ones."""
    mixed = np.random.default_rng([seed, 8]).permutation(np.unique(class_of))
    new = mixed[: max(2, round(NEW_SHARE * len(mixed)))]
    known = np.flatnonzero(~np.isin(class_of, new))
    names, known_class = np.unique(class_of[known], return_inverse=True)
    held = names[split_models(known_class, config.HELD_OUT_FRACTION, seed, folder)]
    taken = [sample_images(class_of, classes, AT_MOST, seed) for classes in (held, np.setdiff1d(names, held), new)]
    return Split(known, held, *taken)


def judge_all(
    reader: FeatureReader, source: TrainingImages, class_of: np.ndarray, split: Split, epoch: int, start: Start
) -> list[Choice]:
    """Judge the present features at every place of `reader`, as they are and whitened."""
    held_out, shown, new = (reader.read(source.read_all(part)) for part in split[2:])
    found = []
    for place in range(len(reader.places)):
        whitenings = {"none": None, "known": fit_whitening(shown[place], class_of[split.shown], config.WHITENING)}
        if start.whitening and reader.places[place] == start.place:
            whitenings["own"] = start.whitening
        for name, whitening in whitenings.items():
            scores = [
                judge(whiten(part[place], whitening), np.unique(class_of[indices], return_inverse=True)[1])
                for part, indices in ((held_out, split.held_out), (new, split.new))
            ]
            found.append(Choice(epoch, place, name, *scores))
    return found


def choose(choices: list[Choice], keys: tuple[str, ...]) -> Choice:
    """Return the choice with the best mean of some scores on the held-out models; the first of several."""
    return max(choices, key=lambda choice: sum(choice.held_out[key] for key in keys))


def choose_as_stage_02(choices: list[Choice], start_place: int) -> Choice:
    """Return what stage 02 takes: the start network's own whitening where there is one, in the best epoch.

    Else in each epoch the best place, whitened or not; of these the best epoch.
    """
    if own := [choice for choice in choices if choice.whitening == "own"]:
        return choose(own, ("score",))
    kept = []
    for epoch in sorted({choice.epoch for choice in choices}):
        of_epoch = [choice for choice in choices if choice.epoch == epoch]
        plain = choose([choice for choice in of_epoch if choice.whitening == "none"], ("score",))
        place = start_place if epoch == 0 else plain.place
        kept.append(choose([choice for choice in of_epoch if choice.place == place], ("score",)))
    return choose(kept, ("score",))


def list_choices(dataset: str, seed: int, folder: str) -> tuple[list[Choice], int, list[LayerPooling]]:
    """Train on the known models of a data set; return all choices, the start's place, and the places."""
    images = images_of(training_images_dir(dataset), f"run make_training_image_folders.py --TRAIN_DATASET={dataset}")
    class_of = np.unique([name.partition("/")[0] for name in images], return_inverse=True)[1]
    split = split_images(class_of, dataset, seed)
    start = feature_network.build_start(config.PRETRAINED_WEIGHTS, config.IMAGE_SIZE, seed)
    place = start.place if start.whitening else LayerPooling("mixed7", "average")
    input_range = inception.choose_input_range(start.backbone, start.input_range)
    how = TrainingSettings(config.HEAD, config.TEMPERATURE, config.LABEL_SMOOTHING, config.TRAIN_FROM_LAYER,
                           config.WEIGHT_DECAY, config.AVERAGED_EPOCHS, seed)  # fmt: skip
    schedule = selection.Schedule(config.HEAD_EPOCHS, config.EPOCHS, config.WARMUP_EPOCHS, config.LEARNING_RATE,
                                  config.TRAIN_BATCH_SIZE, config.AUGMENTATION, 0.0, config.PATIENCE,
                                  config.WHITENING, settings.n_jobs())  # fmt: skip
    trained_on = split.known[~np.isin(class_of[split.known], split.held_classes)]
    labels = np.unique(class_of[trained_on], return_inverse=True)[1]
    places = list_places(place.layer, config.FEATURE_LAYER, config.POOLING)
    with tempfile.TemporaryFile(dir=folder, buffering=0) as handle:
        paths = [training_images_dir(dataset) / name for name in images]
        source = TrainingImages(images, paths, [None] * len(paths), config.IMAGE_SIZE, config.CROP_TO_PRODUCT, handle)
        reader = FeatureReader(start.backbone, places, input_range)
        seen = sample_images(class_of, np.unique(class_of[split.known]), AT_MOST, seed)
        start_place = best_place(reader.read(source.read_all(seen)), class_of[seen])
        choices = judge_all(reader, source, class_of, split, 0, start)
        plan = selection.Plan(place, input_range, how, schedule, 0.0, start.whitening)
        trainer = selection.begin_training(start.backbone, labels, plan)
        for epoch in range(schedule.head_epochs + schedule.epochs):
            selection.show_epoch(trainer, source, trained_on, labels, epoch, schedule)
            if epoch >= schedule.head_epochs:
                with trainer.averaged():
                    choices += judge_all(reader, source, class_of, split, epoch + 1, start)
    return choices, start_place, places


def main() -> None:
    """Print a row for each data set and split."""
    own, overrides = [a for a in sys.argv[1:] if a.startswith("--seeds=")], []
    datasets = [a for a in sys.argv[1:] if not a.startswith("--")] or ["sample_train"]
    overrides = [a for a in sys.argv[1:] if a.startswith("--") and a not in own]
    settings.apply_overrides(overrides)
    settings.check()
    disable_amx()
    print("| photographs | choices | taken | score on new ones: taken | best | mean | rank | start as it is "
          "| best held-out score | best held-out counts |\n|---|---|---|---|---|---|---|---|---|---|")  # fmt: skip
    for dataset in datasets:
        for seed in range(int(own[-1].partition("=")[2]) if own else 1):
            with tempfile.TemporaryDirectory() as folder:
                choices, start_place, places = list_choices(dataset, seed, folder)
            taken = choose_as_stage_02(choices, start_place)
            untrained = choose_as_stage_02([choice for choice in choices if choice.epoch == 0], start_place)
            scores = np.array([choice.new["score"] for choice in choices])
            layer, pooling = places[taken.place]
            said = f"epoch {taken.epoch}, {pooling} of {layer}, whitening: {taken.whitening}"
            values = [taken.new["score"], scores.max(), scores.mean(), (scores < taken.new["score"]).mean()]
            values += [one.new["score"] for one in (untrained, choose(choices, ("score",)), choose(choices, COUNTS))]
            cells = " | ".join(f"{value:.3f}" for value in values)
            print(f"| `{dataset}`, split {seed} | {len(choices)} | {said} | {cells} |", flush=True)


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"error: {error}")
