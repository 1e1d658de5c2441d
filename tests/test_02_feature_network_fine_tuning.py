"""02.feature_network_fine_tuning.py: training on twelve drawn images, from class folders to a saved network."""

import cv2
import numpy as np
import pytest
from conftest import load_stage

import config
from pipeline import feature_network, images
from pipeline.dataset import write_image
from pipeline.features import layer_pooling, selection
from pipeline.features.framing import fit_image
from pipeline.features.inception import (
    LAYERS,
    POOLINGS,
    LayerPooling,
    build_inception,
    choose_input_range,
    feature_function,
)
from pipeline.features.retrieval_scores import SCORES
from pipeline.features.training import Trainer
from pipeline.features.whitening import Whitening, fit_whitening, normalise_rows, whiten
from pipeline.machinery import files, records
from pipeline.machinery.checkpoints import Checkpoint
from pipeline.machinery.errors import UserError
from pipeline.machinery.paths import model_dir, training_images_dir

stage = load_stage("02.feature_network_fine_tuning.py")


def test_the_head_sits_where_the_weights_are_good_and_not_before_the_features(root):
    def start(initial_weights: str) -> feature_network.Start:
        return feature_network.Start(None, initial_weights, "mixed4", "auto", LayerPooling("mixed2", "gem"), None)

    assert stage.head_place(start("imagenet")) == ("mixed7", "average")
    assert stage.head_place(start("random")) == ("mixed2", "max")
    assert stage.head_place(start(feature_network.START)) == ("mixed4", "gem")
    config.FEATURE_LAYER = "mixed9"
    assert stage.head_place(start("imagenet")) == ("mixed9", "average")
    config.FEATURE_LAYER, config.HEAD_LAYER = "mixed1", "mixed4"
    assert stage.head_place(start("imagenet")) == ("mixed4", "average")


def test_a_whitening_that_came_with_the_start_network_stays_with_its_place_unless_a_setting_asks_otherwise(root):
    whitening = Whitening(np.zeros(288, np.float32), np.eye(288, dtype=np.float32))
    place = LayerPooling("mixed2", "gem")
    start = feature_network.Start(None, feature_network.START, "mixed4", "auto", place, whitening)
    assert stage.own_whitening(start) is whitening
    assert stage.head_place(start) == place and stage.feature_places(start, "mixed4") == [place]
    for setting, value in (
        ("WHITENING", 0.0),
        ("POOLING", "max"),
        ("FEATURE_LAYER", "mixed1"),
        ("HEAD_LAYER", "mixed4"),
    ):
        before = getattr(config, setting)
        setattr(config, setting, value)
        assert stage.own_whitening(start) is None
        setattr(config, setting, before)


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
            write_image(training_images_dir("t") / f"model{label}" / f"{i}.png", image_bgr)
    return model_dir("t")


def saved_weights(model_dir) -> list[np.ndarray]:
    """Weights of the saved network."""
    inception = build_inception(75, seed=0)
    inception.load_weights(model_dir / "feature_network.h5")
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
    assert set(record["start_scores"]) == set(record["scores"]) == {*SCORES, "score"}
    assert record["scores"]["score"] >= record["start_scores"]["score"]
    classes = files.read_lines(t / "classes.txt", "02")
    assert sorted([*classes, *record["held_out_models"]]) == [f"model{i}" for i in range(4)]
    history = files.read_csv(t / "history.csv", selection.HISTORY, "02")
    assert [row["phase"] for row in history] == ["head", "network", "network"]
    assert not list(t.glob("*checkpoint.npz"))
    stage.main()
    assert "unchanged" in capsys.readouterr().out


def scores_in_turn(monkeypatch, *scores: float) -> None:
    """Let `judge` say these scores: the start's, then each epoch's, as they come and whitened where both are asked.

    Weights that count as better are trained ones.
    """
    said = iter(scores)

    def judge(features: np.ndarray, labels: np.ndarray) -> dict[str, float]:
        return dict.fromkeys((*SCORES, "score"), next(said))

    for module in (stage, layer_pooling):
        monkeypatch.setattr(module, "judge", judge)


def kill_after(monkeypatch, checkpoint: str, n_epochs: int) -> None:
    """Let the stage end right after it has kept this many epochs in the file `checkpoint`."""
    write = Checkpoint.write

    def write_and_be_killed(self, arrays, state):
        write(self, arrays, state)
        if self.path.name == checkpoint and len(state["history"]) == n_epochs:
            raise KeyboardInterrupt

    monkeypatch.setattr(Checkpoint, "write", write_and_be_killed)


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
    resumed, start = saved_weights(t), build_inception(75, seed=0).get_weights()
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
    history = files.read_csv(t / "history.csv", selection.HISTORY, "02")
    assert [(row["epoch"], row["phase"]) for row in history[3:]] == [
        ("1", "head, all models"),
        ("2", "network, all models"),
    ]
    assert [row["ari"] for row in history[2:]] == ["0.1", "", ""]


def test_features_of_held_out_models_are_kept_as_the_network_saw_them_before_it_was_shown_them(t, monkeypatch):
    """The weights of the best epoch, not those trained on all models; whitened by the other models."""
    config.LEARNING_RATE, config.REFIT, config.WHITENING = 0.01, True, 0.2
    config.FEATURE_VIEWS, seen = "one", []
    refit_on_all = selection.refit_on_all

    def refit_and_keep(backbone, *arguments):
        seen.append(backbone.get_weights())
        return refit_on_all(backbone, *arguments)

    see_held_out = stage.see_held_out
    weights_seen = []

    def see_and_keep(reader, *arguments):
        weights_seen.extend(reader.backbone.get_weights())
        return see_held_out(reader, *arguments)

    monkeypatch.setattr(selection, "refit_on_all", refit_and_keep)
    monkeypatch.setattr(stage, "see_held_out", see_and_keep)
    scores_in_turn(monkeypatch, 0.0, 0.0, 0.0, 0.1, 0.2, 0.0, 0.0)
    stage.main()
    record = files.read_json(t / "feature_network.json", "02")
    assert record["refitted"] and record["whitened"] and len(seen) == 1
    known = files.read_npz(t / "known_features.npz", "02", ("features", "labels", "network"))
    assert known["features"].dtype == np.float32 and known["features"].shape == (6, 256)
    assert np.allclose(np.linalg.norm(known["features"], axis=1), 1, atol=1e-5)
    assert sorted(set(known["labels"].tolist())) == record["held_out_models"]
    assert str(known["network"]) == record["network"] == feature_network.identify_files(t, record)
    after = saved_weights(t)
    assert any((a != b).any() for a, b in zip(weights_seen, after, strict=True))

    backbone = build_inception(75, seed=0)
    backbone.set_weights(weights_seen)
    input_range = choose_input_range(backbone, "auto")
    compute = feature_function(backbone, LayerPooling("mixed0", "average"), input_range, "one", "float32")

    def features_of(models: list[str]) -> np.ndarray:
        paths = [path for model in models for path in sorted((training_images_dir("t") / model).glob("*.png"))]
        return np.asarray(compute(np.stack([fit_image(images.read_bgr(path), 75, True) for path in paths])))

    others = sorted({f"model{i}" for i in range(4)} - set(record["held_out_models"]))
    whitening = fit_whitening(features_of(others), np.repeat([0, 1], 3), 0.2)
    expected = normalise_rows(whiten(features_of(record["held_out_models"]), whitening))
    assert np.allclose(known["features"], expected, atol=1e-3)


def test_a_training_on_all_models_that_fails_keeps_the_best_epoch(t, monkeypatch):
    """Numbers that are no longer finite are never saved."""
    config.LEARNING_RATE, config.REFIT = 0.01, True
    run_epoch, n_classes = Trainer.run_epoch, []

    def run_and_spoil(training, batches, rates, head_only):
        n_classes.append(training.n_classes)
        found = run_epoch(training, batches, rates, head_only)
        if training.n_classes == 4 and not head_only:
            training.trained[0].assign(training.trained[0] * np.nan)
            training.optimizers[0]._model_variables_moving_average[0].assign(training.trained[0])
        return found

    scores_in_turn(monkeypatch, 0.0, 0.2, 0.1)
    monkeypatch.setattr(Trainer, "run_epoch", run_and_spoil)
    stage.main()
    assert n_classes == [2, 2, 2, 4, 4]
    record = files.read_json(t / "feature_network.json", "02")
    assert record["improved"] and not record["refitted"]
    assert len(files.read_lines(t / "classes.txt", "02")) == 2
    assert all(np.isfinite(value).all() for value in saved_weights(t))


def test_a_training_that_does_harm_keeps_the_starting_network(t, capsys, monkeypatch):
    """Every epoch is judged worse than the start: its weights are saved, the normalisation's among them."""
    start = build_inception(75, seed=0).get_weights()
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
    config.WHITENING, config.FEATURE_VIEWS = 0.2, "one"
    for module in (stage, selection):
        monkeypatch.setattr(module, "best_place", lambda parts, labels: len(parts) - 1)
    scores_in_turn(monkeypatch, 0.1, 0.1, 0.3, 0.2, 0.1, 0.1, 0.2, 0.0, 0.0)
    stage.main()
    said = capsys.readouterr().out
    assert "average of mixed0, whitened, ari 0.300" in said
    assert "kept: the starting network, its features whitened" in said
    record = files.read_json(t / "feature_network.json", "02")
    assert record["whitened"] and not record["improved"] and not record["start_place"]["whitened"]
    assert (record["start_scores"]["score"], record["scores"]["score"]) == (0.1, 0.3)
    assert records.recorded(t / "feature_whitening.npz", t / "feature_network.json")

    inception = build_inception(75, seed=0)
    inception.load_weights(t / "feature_network.h5")
    paths = sorted(training_images_dir("t").rglob("*.png"))

    def compute(dtype: str):
        return feature_function(inception, LayerPooling("mixed0", "average"), (-1, 1), "one", dtype)

    pictures = np.stack([fit_image(images.read_bgr(path), 75, config.CROP_TO_PRODUCT) for path in paths])
    features = np.asarray(compute("float32")(pictures))
    expected = fit_whitening(features, np.repeat(np.arange(4), 3), 0.2)
    saved = Whitening(**files.read_npz(t / "feature_whitening.npz", "02", Whitening._fields))
    assert np.allclose(saved.mean, expected.mean, atol=1e-4)
    assert np.allclose(saved.matrix, expected.matrix, atol=0.02)
    in_bfloat16 = np.asarray(compute("bfloat16")(pictures))
    pairs = zip(whiten(features, saved), whiten(in_bfloat16, saved), strict=True)
    cosines = [a @ b / np.sqrt((a @ a) * (b @ b)) for a, b in pairs]
    assert 0.9 < min(cosines) < 0.99999
    assert np.isclose(record["bfloat16_cosine"], min(cosines), atol=1e-5)

    config.WHITENING = 0
    scores_in_turn(monkeypatch, 0.1, 0.2, 0.0)
    stage.main()
    assert not (t / "feature_whitening.npz").exists()
    assert not files.read_json(t / "feature_network.json", "02")["whitened"]


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
    monkeypatch.setattr(Checkpoint, "write", no_space)
    with pytest.raises(OSError):
        stage.main()
    assert (t / "feature_network.h5").read_bytes() == before


def test_layer_and_pooling_are_chosen_where_they_are_left_open(t):
    config.FEATURE_LAYER = config.POOLING = "auto"
    config.EPOCHS = config.HEAD_EPOCHS = 0
    stage.main()
    record = files.read_json(t / "feature_network.json", "02")
    assert record["feature_layer"] in LAYERS and record["pooling"] in POOLINGS


def test_nothing_left_to_train_is_an_error(t):
    config.TRAIN_FROM_LAYER = "mixed9"
    with pytest.raises(UserError, match="leaves nothing to train below the head on mixed2"):
        stage.main()


def test_a_damaged_training_image_is_named(t):
    (training_images_dir("t") / "model1" / "1.png").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"model1/1\.png"):
        stage.main()


def test_missing_class_folders_name_the_stage_to_run(root):
    with pytest.raises(UserError, match=r"make_training_image_folders\.py"):
        stage.main()
