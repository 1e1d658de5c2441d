"""Composed photographs and their masks, the network's way into an ONNX file, and the script as a user runs it."""

import cv2
import numpy as np
import pytest
from conftest import load_stage

import config
from pipeline.background import composites
from pipeline.background.composites import SIDE, compose_photograph, crop_close_up, cut_out, lay_over
from pipeline.background.network import (
    N_CHANNELS,
    NETWORK_SIZE,
    PROBED_LAYER,
    load_network,
    normalise_channels,
    predict_foreground,
)
from pipeline.background.onnx_export import export_onnx
from pipeline.background.training import augment, build_network, compose_example, fit_no_ground_probe, probed_maps
from pipeline.dataset import write_image
from pipeline.machinery import files, paths

stage = load_stage("make_background_network.py")


def disc(size: int = 80, value: int = 60) -> tuple[np.ndarray, np.ndarray]:
    """A dark disc on white, uint8 BGR (size, size, 3), and its mask, bool (size, size)."""
    mask = np.zeros((size, size), np.uint8)
    cv2.circle(mask, (size // 2, size // 2), size // 3, 1, -1)
    return np.where(mask[..., None] > 0, value, 255).astype(np.uint8).repeat(3, axis=2), mask > 0


# ---- composing -------------------------------------------------------------------------------------


def test_cut_out_keeps_the_box_and_takes_the_ground_out_of_the_edge():
    image, mask = disc()
    image = cv2.GaussianBlur(image, (5, 5), 0)  # the edge is a blend
    cutout = cut_out(image, mask)
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    assert cutout.mask.shape == (len(rows), len(columns)) and cutout.mask.sum() == mask.sum()
    before = image[mask].max()
    after = cutout.image_bgr[cutout.mask > 0].max()
    assert before > 130 and after < 100


def test_things_are_laid_over_where_they_belong_and_cut_off_at_the_border():
    canvas = np.zeros((SIDE, SIDE), np.float32)
    values = np.arange(12, dtype=np.float32).reshape(3, 4)
    lay_over(canvas, values, np.full((3, 4), 0.5, np.float32), x=10, y=20)
    assert np.array_equal(canvas[20:23, 10:14], values / 2) and canvas.sum() == values.sum() / 2
    canvas[:] = 0
    lay_over(canvas, values, np.ones((3, 4), np.float32), x=-2, y=SIDE - 1)
    assert np.array_equal(canvas[-1, :2], values[0, 2:]) and canvas.sum() == values[0, 2:].sum()
    canvas[:] = 0
    lay_over(canvas, values, np.ones((3, 4), np.float32), x=SIDE, y=5)
    assert not canvas.any()


def test_mask_of_a_composite_is_where_the_product_is(monkeypatch):
    """A product of one strong colour on a white ground: the mask must be what is of that colour."""
    image, mask = disc()
    image[mask] = (20, 20, 230)
    cutout = cut_out(image, mask)
    monkeypatch.setattr(composites, "draw_backdrop", lambda _, __: (np.full((SIDE,) * 2 + (3,), 255, np.float32), True))
    monkeypatch.setattr(composites, "recolour", lambda image_bgr, _: image_bgr)
    monkeypatch.setattr(composites, "disguise", lambda product, _, __: product.image_bgr)
    monkeypatch.setattr(composites, "draw_shop_text", lambda *_: None)
    scores = []
    for seed in range(20):
        composed, true = compose_photograph([cutout], [], np.random.default_rng(seed))
        red = composed[..., 2].astype(int) - composed[..., 1] > 100
        scores.append((red & (true > 0.5)).sum() / (red | (true > 0.5)).sum())
    assert min(scores) > 0.85 and np.mean(scores) > 0.95


def test_composites_are_the_same_for_the_same_number_and_of_every_kind():
    photograph = np.random.default_rng(0).integers(0, 256, (90, 120, 3), np.uint8)
    cutouts = [cut_out(*disc(60 + 10 * i, 40 * i)) for i in range(5)]
    for number in range(40):  # every ground, every disguise
        one, again = (compose_example(cutouts, [photograph], 0, number) for _ in range(2))
        assert one.dtype == np.uint8 and one.shape == (*(NETWORK_SIZE,) * 2, N_CHANNELS + 1)
        assert np.array_equal(one, again)
        assert 0.02 < (one[..., -1] / 255).mean() < 0.9


def test_clues_and_mask_are_changed_alike():
    one = np.zeros((128, 128, N_CHANNELS + 1), np.uint8)
    one[30:80, 40:100, 3:] = 200  # the clues that are no colours, and the mask
    for seed in range(20):
        found = augment(one, np.random.default_rng(seed))
        assert (found[..., 3:] == found[..., 3:4]).all() and (found[..., -1] > 100).sum() > 1500


# ---- the network -----------------------------------------------------------------------------------


def test_file_computes_what_keras_computes(tmp_path):
    import keras

    keras.utils.set_random_seed(1)
    model = build_network()
    rng = np.random.default_rng(0)
    # means and variances unlike those of a new network, so that folding them in is put to the test
    model.set_weights([w + rng.uniform(0, 0.3, w.shape) if w.ndim == 1 else w for w in model.get_weights()])
    weights = rng.normal(0, 1, model.get_layer(PROBED_LAYER).output.shape[-1])
    path = tmp_path / "network.onnx"
    path.write_bytes(export_onnx(model, (weights, 0.5), "a test"))
    network = load_network(path)
    seen = rng.integers(0, 256, (NETWORK_SIZE, NETWORK_SIZE, N_CHANNELS), np.uint8)
    logits = np.asarray(model(normalise_channels(seen)[None]))[0, ..., 0]
    assert logits.std() > 0.1
    foreground_prob, no_ground_prob = predict_foreground(network, seen)
    assert np.abs(foreground_prob - 1 / (1 + np.exp(-logits))).max() < 1e-5
    pooled = np.asarray(probed_maps(model)(normalise_channels(seen)[None])).ravel() @ weights + 0.5
    assert no_ground_prob == pytest.approx(1 / (1 + np.exp(-pooled)), abs=1e-5)


def test_probe_learns_which_images_have_no_ground():
    """Dark images without ground, light ones with it: a network of random weights sees as much."""
    rng = np.random.default_rng(0)
    examples = []
    for i in range(40):
        one = rng.integers(0, 60, (NETWORK_SIZE, NETWORK_SIZE, N_CHANNELS + 1)).astype(np.uint8) + 120 * (i % 2)
        one[..., -1] = 255 if i % 2 == 0 else 100
        examples.append(one.astype(np.uint8))
    model = build_network()
    weights, bias = fit_no_ground_probe(model, examples)
    logits = np.asarray(probed_maps(model)(normalise_channels(np.stack(examples)[..., :-1]))) @ weights + bias
    assert ((logits > 0) == (np.arange(40) % 2 == 0)).mean() > 0.9
    # where all have ground, the answer is always that there is one
    weights, bias = fit_no_ground_probe(model, examples[1::2])
    assert not weights.any() and bias < -20


def test_close_up_shows_as_much_of_the_product_as_asked():
    image, mask = disc(200)
    rng = np.random.default_rng(0)
    for low, high in ((0.985, 1.0), (0.35, 0.93)):
        close_up, share = crop_close_up(image, mask, (low, high), rng)
        assert close_up.dtype == np.uint8 and close_up.shape[:2] == share.shape and max(share.shape) == SIDE
        assert low - 0.03 < share.mean() < high + 0.03
    assert crop_close_up(image, mask & False, (0.5, 1.0), rng) is None


# ---- the script ------------------------------------------------------------------------------------


def lay_out(root, n_models: int) -> None:
    """Discs on white in raw_img/discs/, with masks."""
    for i in range(n_models):
        image, mask = disc(60 + 4 * i, 15 * i)
        write_image(paths.raw_img_dir("discs") / f"{i}_1_1.jpg", image)
        write_image(paths.mask_true_dir("discs") / f"{i}_1_1.jpg.png", 255 * mask.astype(np.uint8))


def test_network_is_made_once_and_stage_01_takes_it(root, run_stage):
    lay_out(root, 12)
    (paths.mask_true_dir("discs") / "7_1_1.jpg.png").write_bytes(b"no image")
    arguments = ("--MASK_DATASETS=discs", "--GROUND_DATASETS=discs", "--COMPOSITES=20", "--MASK_EPOCHS=1")
    first = run_stage("make_background_network.py", *arguments)
    assert first.returncode == 0, first.stderr
    assert "36 files in = 34 out + 2 skipped" in first.stdout
    path = root / "model" / "background_network.onnx"
    made = path.read_bytes()
    record = files.read_json(root / "model" / "background_network.json", "")
    assert record["n_examples"] == stage.REPEATS * 10 + 20 and 0 <= record["held_out_iou"] <= 1
    again = run_stage("make_background_network.py", *arguments)
    assert "unchanged: model/background_network.onnx" in again.stdout and path.read_bytes() == made
    ended = run_stage("01.img_preprocess.py", "--DATASET=discs", "--BACKGROUND_NETWORK=model/background_network.onnx")
    assert ended.returncode == 0, ended.stderr


def test_without_masks_or_photographs_it_says_so(root, run_stage):
    ended = run_stage("make_background_network.py", "--MASK_DATASETS=discs")
    assert ended.returncode == 1 and "raw_img/discs/" in ended.stderr
    write_image(paths.raw_img_dir("discs") / "1_1_1.jpg", disc()[0])
    ended = run_stage("make_background_network.py", "--MASK_DATASETS=discs")
    assert ended.returncode == 1 and "mask_true/discs/" in ended.stderr and ended.stderr.count("\n") == 1
    ended = run_stage("make_background_network.py", "--MASK_DATASETS=a/b")
    assert ended.returncode == 2 and ended.stderr.startswith("error: MASK_DATASETS = 'a/b'")


@pytest.mark.parametrize("pattern, model", [(r"^([^_]+)_", "7"), (r"^x(.)", "7_1_2")])
def test_models_are_told_by_the_pattern_or_each_photograph_is_one(pattern, model, tmp_path):
    config.LABEL_PATTERN = pattern
    assert stage.model_of(tmp_path / "7_1_2.jpg") == model
