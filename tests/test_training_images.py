"""pipeline/features/training_images.py: which images are held out and shown, and their pixels."""

import tempfile

import numpy as np
import pytest

from pipeline.dataset import write_image
from pipeline.features.training_images import TrainingImages, epoch_order, sample_images, split_models
from pipeline.machinery.errors import UserError


def test_held_out_models_are_whole_models_with_at_least_two_images():
    class_of = np.repeat(np.arange(10), [1, 5, 5, 5, 1, 5, 5, 5, 5, 5])
    held_out = split_models(class_of, 0.3, seed=0, folder="t/")
    assert len(held_out) == 3 and not {0, 4} & set(held_out)
    assert (held_out == split_models(class_of, 0.3, seed=0, folder="t/")).all()
    assert any((held_out != split_models(class_of, 0.3, seed=s, folder="t/")).any() for s in range(1, 5))


def test_two_models_are_left_to_train_on_and_two_to_judge_by():
    assert len(split_models(np.repeat(np.arange(4), 3), 0.05, seed=0, folder="t/")) == 2
    assert len(split_models(np.repeat(np.arange(4), 3), 0.5, seed=0, folder="t/")) == 2


@pytest.mark.parametrize("counts", [[9], [9, 9], [9, 9, 9], [1, 1, 1, 9]])
def test_too_few_models_are_an_error(counts):
    with pytest.raises(UserError, match="fine-tuning needs 4"):
        split_models(np.repeat(np.arange(len(counts)), counts), 0.25, seed=0, folder="t/")


def test_subset_is_bounded_and_of_the_chosen_models():
    class_of = np.repeat(np.arange(5), 30)
    chosen = sample_images(class_of, np.array([1, 3]), at_most=50, seed=0)
    assert np.bincount(class_of[chosen], minlength=5).tolist() == [0, 25, 0, 25, 0]
    of_some = np.bincount(class_of[sample_images(class_of, np.arange(5), at_most=50, seed=0)], minlength=5)
    assert sorted(of_some) == [0, 0, 0, 20, 20]


def test_an_epoch_shows_every_model_equally_often():
    class_of = np.repeat([0, 1, 2], [20, 8, 2])
    order = epoch_order(class_of, epoch=0, seed=0)
    assert np.bincount(class_of[order]).tolist() == [10, 10, 10]
    assert np.bincount(order, minlength=30)[20:28].min() >= 1  # all 8 images of model 1 before one comes twice
    assert (order == epoch_order(class_of, epoch=0, seed=0)).all()
    assert (order != epoch_order(class_of, epoch=1, seed=0)).any()


def test_images_kept_in_the_file_are_those_that_were_decoded(tmp_path):
    paths, mask_paths = [], [None, tmp_path / "mask.png"]
    for i in range(2):
        picture = np.full((90, 80, 3), 255, np.uint8)
        picture[20:60, 10 + i : 50] = (40, 90, 20 * i)
        paths.append(tmp_path / f"{i}.png")
        write_image(paths[i], picture)
        write_image(tmp_path / "mask.png", np.uint8(picture[..., 0] < 255) * 255)
    with tempfile.TemporaryFile(buffering=0) as handle:
        source = TrainingImages(["0.png", "1.png"], paths, mask_paths, 75, True, handle)
        decoded = [source.read(i) for i in (1, 0)]
        for path in paths:
            path.unlink()
        kept = [source.read(i) for i in (1, 0)]
    for (image_rgb, mask), (kept_rgb, kept_mask) in zip(decoded, kept, strict=True):
        np.testing.assert_array_equal(image_rgb, kept_rgb)
        assert (mask is None) == (kept_mask is None)
    np.testing.assert_array_equal(decoded[0][1], kept[0][1])
