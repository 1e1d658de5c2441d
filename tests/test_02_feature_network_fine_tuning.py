"""02.feature_network_fine_tuning.py: the pieces by hand, and training on twelve drawn images."""

import itertools
import tempfile

import cv2
import numpy as np
import pytest
import scipy.linalg
from conftest import load_stage

import config
from pipeline import files, images, network, settings

stage = load_stage("02.feature_network_fine_tuning.py")


# ---- models held out -----------------------------------------------------------------------------


def test_held_out_models_are_whole_models_with_at_least_two_images(root):
    class_of = np.repeat(np.arange(10), [1, 5, 5, 5, 1, 5, 5, 5, 5, 5])
    held_out = stage.split_models(class_of, 0.3, seed=0)
    assert len(held_out) == 3 and not {0, 4} & set(held_out)
    assert (held_out == stage.split_models(class_of, 0.3, seed=0)).all()
    assert any((held_out != stage.split_models(class_of, 0.3, seed=s)).any() for s in range(1, 5))


def test_two_models_are_left_to_train_on_and_two_to_judge_by(root):
    assert len(stage.split_models(np.repeat(np.arange(4), 3), 0.05, seed=0)) == 2
    assert len(stage.split_models(np.repeat(np.arange(4), 3), 0.5, seed=0)) == 2


@pytest.mark.parametrize("counts", [[9], [9, 9], [9, 9, 9], [1, 1, 1, 9]])
def test_too_few_models_are_an_error(root, counts):
    with pytest.raises(settings.UserError, match="fine-tuning needs 4"):
        stage.split_models(np.repeat(np.arange(len(counts)), counts), 0.25, seed=0)


def test_subset_is_bounded_and_of_the_chosen_models():
    class_of = np.repeat(np.arange(5), 30)
    chosen = stage.subset(class_of, np.array([1, 3]), at_most=50, seed=0)
    assert np.bincount(class_of[chosen], minlength=5).tolist() == [0, 25, 0, 25, 0]
    of_some = np.bincount(class_of[stage.subset(class_of, np.arange(5), at_most=50, seed=0)], minlength=5)
    assert sorted(of_some) == [0, 0, 0, 20, 20]


# ---- judging -------------------------------------------------------------------------------------

CORNERS = np.float32([[1, 0, 0], [1, 0.1, 0], [0, 1, 0], [0.1, 1, 0], [0, 0, 1], [0, 0.1, 1]])


def test_judge_of_three_models_well_apart_is_one():
    found = stage.judge(CORNERS, np.array([0, 0, 1, 1, 2, 2]))
    assert found == {"ari": 1.0, "recall_at_1": 1.0, "map_at_r": 1.0, "score": 1.0}


def test_judge_of_features_that_are_not_finite_is_zero():
    features = CORNERS.copy()
    features[2, 1] = np.inf
    assert set(stage.judge(features, np.array([0, 0, 1, 1, 2, 2])).values()) == {0.0}


def test_judge_when_every_neighbour_is_of_another_model():
    found = stage.judge(CORNERS, np.array([0, 1, 1, 2, 2, 0]))
    assert found["recall_at_1"] == 0.0 and found["ari"] < 0


def test_an_image_alone_in_its_model_is_not_asked_for_its_neighbour():
    assert stage.judge(CORNERS[:5], np.array([0, 0, 1, 1, 2]))["recall_at_1"] == 1.0


def test_map_at_r_by_hand():
    # three images of model 0 along an arc, one of model 1 between: each misses differently
    angles = np.deg2rad([0, 10, 15, 30])
    features = np.float32(np.stack([np.cos(angles), np.sin(angles)], axis=1))
    labels = np.array([0, 0, 1, 0])
    # image 0: right, wrong -> (1 + 0) / 2; image 1: nearest is 15 (wrong), then 0 (right, 1 of 2) -> 1/4;
    # image 3: 15 (wrong), 10 (right) -> 1/4; the one alone is not asked
    assert stage.map_at_r(features, labels) == pytest.approx((1 / 2 + 1 / 4 + 1 / 4) / 3)


# ---- whitening -----------------------------------------------------------------------------------

# two models, each twice; photographs of one differ in the second number alone
PAIRS = np.float32([[0.8, 0.6, 0], [0.8, -0.6, 0], [0, 0.6, 0.8], [0, -0.6, 0.8]])


def test_whitening_by_hand():
    # covariance within models diag(0, 0.36, 0), mean variance 0.12: half of each gives diag(0.5, 2, 0.5) times 0.12
    found = stage.within_model_whitening(PAIRS * [[1], [2], [3], [4]], np.array([7, 7, 9, 9]), 0.5)
    assert np.allclose(found.mean, [0.4, 0, 0.4], atol=1e-6)
    assert np.allclose(found.matrix, np.diag([2**0.5, 0.5**0.5, 2**0.5]), atol=1e-5)
    assert found.mean.dtype == found.matrix.dtype == np.float32
    after = network.whitened(np.float32([[1.6, 1.2, 0]]), found)
    assert np.allclose(after, [[0.4 * 2**0.5, 0.6 * 0.5**0.5, -0.4 * 2**0.5]], atol=1e-5)


def test_whitening_agrees_with_scipy_in_any_directions():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 5, 60)
    features = network.normalised(rng.normal(size=(60, 7)).astype(np.float32) @ rng.normal(size=(7, 7)))
    within = sum((labels == i).sum() * np.cov(features[labels == i].T, bias=True) for i in range(5)) / 60
    mixed = 0.3 * within / (np.trace(within) / 7) + 0.7 * np.eye(7)
    found = stage.within_model_whitening(features, labels, 0.3)
    assert np.allclose(found.matrix, np.linalg.inv(scipy.linalg.sqrtm(mixed)), atol=1e-4)


def test_whitening_of_strength_zero_centres_alone():
    found = stage.within_model_whitening(PAIRS, np.array([0, 0, 1, 1]), 0.0)
    assert np.allclose(network.whitened(PAIRS, found), PAIRS - [0.4, 0, 0.4], atol=1e-6)


def test_whitening_is_finite_where_photographs_of_a_model_are_all_the_same():
    found = stage.within_model_whitening(PAIRS[[0, 0, 2, 2]], np.array([0, 0, 1, 1]), 0.5)
    assert np.allclose(found.matrix, np.eye(3) * 2**0.5, atol=1e-5)


def test_no_whitening_is_learned_from_features_that_are_not_finite():
    features = PAIRS.copy()
    features[1, 1] = np.nan
    assert stage.within_model_whitening(features, np.array([0, 0, 1, 1]), 0.5) is None
    assert network.whitened(features, None) is features


class Read:
    """Features already read off, in place of a network's."""

    places = (("mixed0", "max"),)

    def __init__(self, features: np.ndarray):
        self.features = features

    def read_at(self, place: int, source: None, indices: np.ndarray) -> np.ndarray:
        return self.features[indices]


@pytest.mark.parametrize("own_differ", [True, False])
def test_features_are_whitened_where_models_held_out_gain(own_differ):
    """Models lie at angles in a plane; the third number is noise, or the plane is noise and it tells models apart."""
    config.WHITENING = 0.9
    rng, labels = np.random.default_rng(0), np.repeat(np.arange(20), 10)
    angles = np.arange(20)[labels] * np.pi / 10
    features = np.stack([np.cos(angles), np.sin(angles), rng.normal(0, 1.5, 200)], axis=1)
    judged = np.flatnonzero(labels >= 14)
    if not own_differ:
        of_judged = rng.uniform(0, 2 * np.pi, len(judged))
        features[judged] = np.stack([np.cos(of_judged), np.sin(of_judged), labels[judged] - 16.5], axis=1)
    features = features.astype(np.float32)
    found = stage.judge_place(Read(features), 0, features[judged], None, labels, judged)
    raw = stage.judge(features[judged], labels[judged])
    assert (found["feature_layer"], found["pooling"], found["whitened"]) == ("mixed0", "max", own_differ)
    assert (found["score"] > raw["score"] + 0.1) if own_differ else (found["score"] == raw["score"])


# ---- sampling and learning rate ------------------------------------------------------------------


def test_an_epoch_shows_every_model_equally_often():
    class_of = np.repeat([0, 1, 2], [20, 8, 2])
    order = stage.epoch_order(class_of, epoch=0, seed=0)
    assert np.bincount(class_of[order]).tolist() == [10, 10, 10]
    assert np.bincount(order, minlength=30)[20:28].min() >= 1  # all 8 images of model 1 before one comes twice
    assert (order == stage.epoch_order(class_of, epoch=0, seed=0)).all()
    assert (order != stage.epoch_order(class_of, epoch=1, seed=0)).any()


def test_learning_rate_rises_then_falls_to_nothing():
    config.LEARNING_RATE = 0.1
    rates = [stage.learning_rate(i, 100, 10) for i in range(100)]
    assert rates[0] == pytest.approx(0.01) and max(rates) == pytest.approx(0.1) and rates[-1] < 0.0001
    assert rates[55] == pytest.approx(0.05)  # half way down
    assert all(a < b for a, b in itertools.pairwise(rates[:10]))
    assert all(a >= b for a, b in itertools.pairwise(rates[10:]))


# ---- augmentation --------------------------------------------------------------------------------


def shoe(size: int = 80) -> tuple[np.ndarray, np.ndarray]:
    """A drawn product on white, uint8 RGB, and its mask."""
    image_rgb, mask = np.full((size, size, 3), 255, np.uint8), np.zeros((size, size), np.uint8)
    cv2.ellipse(image_rgb, (size // 2, size // 2), (size // 3, size // 6), 20, 0, 360, (180, 40, 30), -1)
    cv2.ellipse(mask, (size // 2, size // 2), (size // 3, size // 6), 20, 0, 360, 255, -1)
    return image_rgb, mask


def test_augmentation_of_strength_zero_only_mirrors():
    image_rgb, _ = shoe()
    found = [stage.augmented(image_rgb, None, np.random.default_rng(i), 0.0) for i in range(10)]
    same = [(f == image_rgb).all() for f in found]
    mirrored = [(f == image_rgb[:, ::-1]).all() for f in found]
    assert any(same) and any(mirrored) and all(a or b for a, b in zip(same, mirrored, strict=True))


def test_augmentation_changes_an_image_but_keeps_its_product():
    image_rgb, _ = shoe()
    for i in range(20):
        changed = stage.augmented(image_rgb, None, np.random.default_rng(i), 1.0)
        assert changed.shape == image_rgb.shape and changed.dtype == np.uint8
        red = (changed[..., 0].astype(int) - changed[..., 1] > 40).mean()
        assert 0.08 < red < 0.4  # 0.175 of the original
    assert (changed != image_rgb).any()


def test_augmentation_depends_on_the_generator_alone():
    image_rgb, mask = shoe()
    one, other = (stage.augmented(image_rgb, mask, np.random.default_rng(3), 1.5) for _ in range(2))
    assert (one == other).all()


def test_random_ground_lies_behind_the_product_only():
    image_rgb, mask = shoe()
    for i in range(10):
        rng = np.random.default_rng(i)
        changed = stage.augmented(image_rgb, mask, rng, 0.0)
        kept = mask > 0 if (changed[mask > 0] == image_rgb[mask > 0]).all() else mask[:, ::-1] > 0
        assert (changed[kept][:, 0] == 180).all()
        assert (changed[~kept] != 255).any(axis=1).mean() > 0.9


@pytest.mark.parametrize("size", [75, 76])
def test_text_bars_fit_at_every_size(size):
    for i in range(50):
        picture = np.full((size, size, 3), 255, np.float32)
        stage.draw_text_bar(picture, np.random.default_rng(i))
        assert picture.shape == (size, size, 3) and np.isfinite(picture).all()


# ---- the network ---------------------------------------------------------------------------------


def test_batch_normalisation_is_never_trained():
    maps = network.cut(network.inception(75), ["mixed2"])
    every, upper = stage.unfrozen(maps, "all"), stage.unfrozen(maps, "mixed0")
    assert all("kernel" in weight.path for weight in every)
    assert 0 < len(upper) < len(every) == 26  # 5 convolutions in front, 7 in each of three blocks
    assert stage.unfrozen(maps, "mixed2") == []


def test_the_head_sits_where_the_weights_are_good_and_not_before_the_features(root):
    assert stage.head_place("imagenet") == ("mixed7", "average")
    assert stage.head_place("random") == ("mixed2", "max")
    config.FEATURE_LAYER = "mixed9"
    assert stage.head_place("imagenet") == ("mixed9", "average")
    config.FEATURE_LAYER, config.HEAD_LAYER = "mixed1", "mixed4"
    assert stage.head_place("imagenet") == ("mixed4", "average")


def test_features_are_read_off_the_blocks_and_poolings_left_open(root):
    assert len(stage.places_up_to("mixed2")) == 9
    config.FEATURE_LAYER = "mixed1"
    assert stage.places_up_to("mixed2") == [("mixed1", "average"), ("mixed1", "max"), ("mixed1", "gem")]
    config.POOLING = "gem"
    assert stage.places_up_to("mixed10") == [("mixed1", "gem")]


def test_the_best_place_is_where_neighbours_show_the_same_model():
    labels = np.array([0, 0, 1, 1, 2, 2])
    apart, mixed = CORNERS, CORNERS[[0, 2, 4, 1, 3, 5]]
    assert stage.best_place([mixed, apart], labels) == 1 and stage.best_place([apart, mixed], labels) == 0
    assert stage.best_place([mixed], labels) == 0


@pytest.mark.parametrize("ground", [255, 0])
def test_fitted_normalisation_has_mean_zero_and_variance_one(ground):
    """Up to the block asked for; and stage 03 reads off it the range that it was fitted with, dark images too."""
    rng = np.random.default_rng(0)
    drawn = np.full((32, 75, 75, 3), ground, np.uint8)
    for image_rgb in drawn:
        cv2.circle(image_rgb, (37, 37), int(rng.integers(10, 35)), rng.integers(0, 255, 3).tolist(), -1)
    trunk = network.inception(75)
    stage.fit_normalisation(trunk, "mixed0", drawn)
    low, high = network.input_range(trunk)
    assert (low, high) == ((0, 1) if ground else (-1, 1))
    last = trunk.get_layer("mixed0").input[0]._keras_history.operation.input  # before the ReLU
    import keras

    values = np.asarray(keras.Model(trunk.input, last)(network.scaled(drawn, low, high), training=False))
    assert np.abs(values.mean(axis=(0, 1, 2))).max() < 0.05
    assert 0.5 < np.median(values.std(axis=(0, 1, 2))) < 1.1
    untouched = [layer for layer in trunk.layers if isinstance(layer, keras.layers.BatchNormalization)][-1]
    assert (untouched.moving_variance.numpy() == 1).all()


def test_cosine_head_compares_directions_alone():
    config.HEAD, config.TEMPERATURE = "cosine", 0.1
    weights = np.float32([[2, 0], [0, 5]])  # (n_features, n_classes)
    logits = np.asarray(stage.logits_of(np.float32([[3, 0], [1, 1]]), weights, np.zeros(2, np.float32)))
    assert np.allclose(logits, [[10, 0], [10 / 2**0.5, 10 / 2**0.5]], atol=1e-4)
    config.HEAD = "softmax"
    logits = np.asarray(stage.logits_of(np.float32([[3, 0]]), weights, np.float32([0, 1])))
    assert np.allclose(logits, [[6, 1]])


# ---- the stage -----------------------------------------------------------------------------------


@pytest.fixture
def t(root):
    """Twelve drawn images of four models, random initial weights; not whitened, nothing trained a second time."""
    config.REFIT, config.WHITENING = False, 0
    config.PRETRAINED_WEIGHTS = "random"
    config.TRAIN_DATASET, config.COMPUTE_DTYPE = "t", "float32"
    config.IMAGE_SIZE, config.FEATURE_LAYER, config.POOLING = 75, "mixed0", "average"
    config.HEAD_EPOCHS, config.EPOCHS, config.WARMUP_EPOCHS, config.TRAIN_BATCH_SIZE = 1, 2, 0, 4
    rng = np.random.default_rng(0)
    for label in range(4):
        colour = rng.integers(0, 230, 3).tolist()
        for i in range(3):
            image_bgr = np.full((80, 80, 3), 255, np.uint8)
            x, y = rng.integers(5, 25, 2).tolist()
            cv2.rectangle(image_bgr, (x, y), (x + 20 + 8 * label, y + 30), colour, -1)
            images.write_image(files.training_images_dir("t") / f"model{label}" / f"{i}.png", image_bgr)
    return files.model_dir("t")


def saved_weights(model_dir) -> list[np.ndarray]:
    """Weights of the saved network."""
    inception = network.inception(75)
    network.load_weights(inception, model_dir / "feature_network.h5")
    return inception.get_weights()


def test_everything_is_written_and_a_second_run_changes_nothing(t, capsys):
    stage.main()
    said = capsys.readouterr()
    assert "12 images in = 12 out + 0 skipped" in said.out
    assert "random weights" in said.err
    record = files.read_json(t / "feature_network.json", "02")
    assert record["initial_weights"] == "random"
    assert (record["image_size"], record["feature_layer"], record["pooling"]) == (75, "mixed0", "average")
    assert record["n_epochs"] == 3 and len(record["held_out_models"]) == 2
    assert set(record["start_scores"]) == set(record["scores"]) == {*stage.SCORES, "score"}
    assert record["scores"]["score"] >= record["start_scores"]["score"]
    classes = files.read_lines(t / "classes.txt", "02")
    assert sorted([*classes, *record["held_out_models"]]) == [f"model{i}" for i in range(4)]
    history = files.read_csv(t / "history.csv", stage.HISTORY, "02")
    assert [row["phase"] for row in history] == ["head", "network", "network"]
    assert not list(t.glob("*checkpoint.npz"))
    stage.main()
    assert "unchanged" in capsys.readouterr().out


def scores_in_turn(monkeypatch, *scores: float) -> None:
    """Let `judge` say these scores: the start's, then each epoch's, as they come and whitened where both are asked.

    Weights that count as better are trained ones.
    """
    said = iter(scores)
    monkeypatch.setattr(stage, "judge", lambda features, labels: dict.fromkeys((*stage.SCORES, "score"), next(said)))


def kill_after(monkeypatch, checkpoint: str, n_epochs: int) -> None:
    """Let the stage end right after it has kept this many epochs in the file `checkpoint`."""
    write_checkpoint = stage.write_checkpoint

    def write_and_be_killed(path, origin, training, best, state):
        write_checkpoint(path, origin, training, best, state)
        if path.name == checkpoint and len(state["history"]) == n_epochs:
            raise KeyboardInterrupt

    monkeypatch.setattr(stage, "write_checkpoint", write_and_be_killed)


@pytest.mark.parametrize("refit", [False, True])
def test_a_killed_training_goes_on_with_the_same_result(t, capsys, monkeypatch, refit):
    config.LEARNING_RATE, config.REFIT = 0.01, refit
    scores_in_turn(monkeypatch, 0.0, 0.1, 0.2)
    stage.main()
    uninterrupted = saved_weights(t)
    for path in t.iterdir():
        path.unlink()
    scores_in_turn(monkeypatch, 0.0, 0.1, 0.2)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        kill_after(patch, "refit_checkpoint.npz" if refit else "checkpoint.npz", 2)
        stage.main()
    assert not (t / "feature_network.h5").exists()
    capsys.readouterr()
    scores_in_turn(monkeypatch, 0.0, 0.2)
    stage.main()
    assert f"goes on after epoch 2{' with all models' if refit else ''}\n" in capsys.readouterr().out
    resumed, start = saved_weights(t), network.inception(75).get_weights()
    assert max(np.abs(a - b).max() for a, b in zip(uninterrupted, start, strict=True)) > 0.01
    # the same but for rounding, which depends on where in the memory arrays lie; new programs give the same bytes
    assert max(np.abs(a - b).max() for a, b in zip(uninterrupted, resumed, strict=True)) < 1e-4


def test_the_network_is_trained_again_on_all_models_until_the_best_epoch(t, monkeypatch):
    config.LEARNING_RATE = 0.01
    found = []
    for config.REFIT in (False, True):
        scores_in_turn(monkeypatch, 0.0, 0.2, 0.1)
        stage.main()
        found.append(saved_weights(t))
    assert any((a != b).any() for a, b in zip(*found, strict=True))
    record = files.read_json(t / "feature_network.json", "02")
    assert record["refitted"] and record["best_epoch"] == 2 and record["n_epochs"] == 5
    assert (record["start_scores"]["score"], record["scores"]["score"]) == (0.0, 0.2)
    assert files.read_lines(t / "classes.txt", "02") == [f"model{i}" for i in range(4)]
    assert len(record["held_out_models"]) == 2
    history = files.read_csv(t / "history.csv", stage.HISTORY, "02")
    assert [(row["epoch"], row["phase"]) for row in history[3:]] == [
        ("1", "head, all models"),
        ("2", "network, all models"),
    ]
    assert [row["ari"] for row in history[2:]] == ["0.1", "", ""]


def test_a_training_on_all_models_that_fails_keeps_the_best_epoch(t, monkeypatch):
    """Numbers that are no longer finite are never saved."""
    config.LEARNING_RATE, config.REFIT = 0.01, True
    run_epoch, n_classes = stage.Training.run_epoch, []

    def run_and_spoil(training, batches, rates, head_only):
        n_classes.append(training.n_classes)
        found = run_epoch(training, batches, rates, head_only)
        if training.n_classes == 4 and not head_only:
            training.trained[0].assign(training.trained[0] * np.nan)
            training.optimizers[0]._model_variables_moving_average[0].assign(training.trained[0])
        return found

    scores_in_turn(monkeypatch, 0.0, 0.2, 0.1)
    monkeypatch.setattr(stage.Training, "run_epoch", run_and_spoil)
    stage.main()
    assert n_classes == [2, 2, 2, 4, 4]
    record = files.read_json(t / "feature_network.json", "02")
    assert record["improved"] and not record["refitted"]
    assert len(files.read_lines(t / "classes.txt", "02")) == 2
    assert all(np.isfinite(value).all() for value in saved_weights(t))


def test_weights_are_averaged_over_the_last_steps(t):
    """By hand: the first step counts as the average, each later one for 1 - e^(-1 / steps of AVERAGED_EPOCHS)."""
    config.AVERAGED_EPOCHS, config.LEARNING_RATE = 0.5, 0.01
    training = stage.Training(network.inception(75), "mixed0", "average", n_classes=2, n_batches=4)
    images_rgb, labels = np.random.default_rng(0).integers(0, 255, (4, 75, 75, 3)).astype(np.uint8), np.arange(4) % 2
    after = []
    for _ in range(3):
        training.run_epoch(iter([(images_rgb, labels.astype(np.int32))]), [0.01], head_only=False)
        after.append(training.trained[0].numpy())
    momentum = np.exp(-1 / 2)
    expected = momentum**2 * after[0] + momentum * (1 - momentum) * after[1] + (1 - momentum) * after[2]
    with training.averaged():
        assert np.allclose(training.trained[0].numpy(), expected, atol=1e-6)
        assert np.abs(expected - after[2]).max() > 1e-4
    assert (training.trained[0].numpy() == after[2]).all()


def test_a_training_that_does_harm_keeps_the_starting_network(t, capsys, monkeypatch):
    """Every epoch is judged worse than the start: its weights are saved, the normalisation's among them."""
    start = network.inception(75).get_weights()
    config.REFIT = True
    scores_in_turn(monkeypatch, 0.5, 0.49, 0.3)
    stage.main()
    record = files.read_json(t / "feature_network.json", "02")
    assert "kept: the starting network" in capsys.readouterr().out
    assert not record["improved"] and record["n_epochs"] == 3
    assert record["scores"] == record["start_scores"] and record["scores"]["score"] == 0.5
    assert all((a == b).all() for a, b in zip(start, saved_weights(t), strict=True))


def test_the_whitening_of_all_models_is_saved_beside_its_network_and_leaves_with_it(t, capsys, monkeypatch):
    """The start whitened is judged best: no epoch beats it, it is saved, and stage 03 would compute the same."""
    config.WHITENING, config.MIRROR_AVERAGE = 0.2, False
    monkeypatch.setattr(stage, "best_place", lambda parts, labels: len(parts) - 1)
    scores_in_turn(monkeypatch, 0.1, 0.1, 0.3, 0.2, 0.1, 0.1, 0.2, 0.0, 0.0)
    stage.main()
    said = capsys.readouterr().out
    assert "average of mixed0, whitened, ari 0.300" in said
    assert "kept: the starting network, its features whitened" in said
    record = files.read_json(t / "feature_network.json", "02")
    assert record["whitened"] and not record["improved"] and not record["start_place"]["whitened"]
    assert (record["start_scores"]["score"], record["scores"]["score"]) == (0.1, 0.3)
    assert files.recorded(t / "feature_whitening.npz", t / "feature_network.json")

    inception = network.inception(75)
    network.load_weights(inception, t / "feature_network.h5")
    paths = sorted(files.training_images_dir("t").rglob("*.png"))
    pictures = np.stack([network.square_image(images.read_bgr(path), 75, config.CROP_TO_PRODUCT) for path in paths])
    features = np.asarray(network.feature_function(inception, "mixed0", "average", False, "float32")(pictures))
    expected = stage.within_model_whitening(features, np.repeat(np.arange(4), 3), 0.2)
    saved = network.Whitening(**files.read_npz(t / "feature_whitening.npz", "02", network.Whitening._fields))
    assert np.allclose(saved.mean, expected.mean, atol=1e-4)
    assert np.allclose(saved.matrix, expected.matrix, atol=0.02)
    in_bfloat16 = np.asarray(network.feature_function(inception, "mixed0", "average", False, "bfloat16")(pictures))
    pairs = zip(network.whitened(features, saved), network.whitened(in_bfloat16, saved), strict=True)
    cosines = [a @ b / np.sqrt((a @ a) * (b @ b)) for a, b in pairs]
    assert 0.9 < min(cosines) < 0.99999
    assert np.isclose(record["bfloat16_cosine"], min(cosines), atol=1e-5)

    config.WHITENING = 0
    scores_in_turn(monkeypatch, 0.1, 0.2, 0.0)
    stage.main()
    assert not (t / "feature_whitening.npz").exists()
    assert not files.read_json(t / "feature_network.json", "02")["whitened"]


def test_features_that_are_not_finite_agree_with_none():
    broken = network.Whitening(np.full(256, np.nan, np.float32), np.eye(256, dtype=np.float32))
    place = {"feature_layer": "mixed0", "pooling": "max"}
    assert stage.bfloat16_cosine(network.inception(75), place, broken, np.zeros((2, 75, 75, 3), np.uint8)) == 0.0


def test_a_learning_rate_that_ruins_the_network_is_never_worse(t):
    config.LEARNING_RATE, config.EPOCHS = 1.0, 1
    stage.main()
    record = files.read_json(t / "feature_network.json", "02")
    assert record["scores"]["score"] > record["start_scores"]["score"] or not record["improved"]


def test_a_failed_training_leaves_the_old_network(t, monkeypatch):
    stage.main()
    before = (t / "feature_network.h5").read_bytes()

    def no_space(*arguments):
        raise OSError(28, "No space left on device")

    config.EPOCHS = 1
    monkeypatch.setattr(stage, "write_checkpoint", no_space)
    with pytest.raises(OSError):
        stage.main()
    assert (t / "feature_network.h5").read_bytes() == before


def test_layer_and_pooling_are_chosen_where_they_are_left_open(t):
    config.FEATURE_LAYER = config.POOLING = "auto"
    config.EPOCHS = config.HEAD_EPOCHS = 0
    stage.main()
    record = files.read_json(t / "feature_network.json", "02")
    assert record["feature_layer"] in network.LAYERS and record["pooling"] in ("average", "max", "gem")


def test_nothing_left_to_train_is_an_error(t):
    config.TRAIN_FROM_LAYER = "mixed9"
    with pytest.raises(settings.UserError, match="leaves nothing to train below the head on mixed2"):
        stage.main()


def test_a_damaged_training_image_is_named(t):
    (files.training_images_dir("t") / "model1" / "1.png").write_bytes(b"no image")
    with pytest.raises(settings.UserError, match=r"model1/1\.png"):
        stage.main()


def test_missing_class_folders_name_the_stage_to_run(root):
    with pytest.raises(settings.UserError, match=r"make_training_image_folders\.py"):
        stage.main()


def test_images_kept_in_the_file_are_those_that_were_decoded(root):
    config.IMAGE_SIZE = 75
    paths, mask_paths = [], [None, root / "mask.png"]
    for i in range(2):
        picture = np.full((90, 80, 3), 255, np.uint8)
        picture[20:60, 10 + i : 50] = (40, 90, 20 * i)
        paths.append(root / f"{i}.png")
        images.write_image(paths[i], picture)
        images.write_image(root / "mask.png", np.uint8(picture[..., 0] < 255) * 255)
    with tempfile.TemporaryFile(buffering=0) as handle:
        source = stage.TrainingImages(paths, mask_paths, handle)
        decoded = [source.read(i) for i in (1, 0)]
        for path in paths:
            path.unlink()
        kept = [source.read(i) for i in (1, 0)]
    for (image_rgb, mask), (kept_rgb, kept_mask) in zip(decoded, kept, strict=True):
        np.testing.assert_array_equal(image_rgb, kept_rgb)
        assert (mask is None) == (kept_mask is None)
    np.testing.assert_array_equal(decoded[0][1], kept[0][1])
