"""pipeline/features/start_network.py: the file of the project is read, checked and put into InceptionV3."""

import shutil

import numpy as np
import pytest

from pipeline.features import start_network
from pipeline.features.start_network import (
    BLOCKS,
    CHANNELS,
    PATH,
    StartNetwork,
    assign_weights,
    kernel_shapes,
    pack,
    quantise,
    read_start_network,
    unpack,
)
from pipeline.machinery.errors import UserError


@pytest.fixture
def network() -> StartNetwork:
    """A network of random weights up to mixed0, with a whitening."""
    rng = np.random.default_rng(0)
    weights = {}
    for i, shape in enumerate(kernel_shapes("mixed0")):
        weights[f"conv2d_{i}/kernel"] = rng.normal(0, 0.1, shape).astype(np.float32)
        for part in start_network.NORMALISATION:
            weights[f"batch_normalization_{i}/{part}"] = rng.uniform(0.5, 1, shape[3]).astype(np.float32)
    whitening = np.zeros(256, np.float32), np.eye(256, dtype=np.float32)
    return StartNetwork(weights, "mixed0", "mixed0", "average", "-1..1", whitening)


@pytest.fixture
def path(network, tmp_path):
    """The file of `network`."""
    np.savez(tmp_path / "start_network.npz", **pack(network))
    return tmp_path / "start_network.npz"


def test_the_network_of_the_project_is_read_and_small_enough():
    shipped = read_start_network()
    assert PATH.stat().st_size <= 25_000_000
    assert len(shipped.weights) == 4 * len(kernel_shapes(shipped.last_block))
    assert PATH.with_suffix(".md").is_file()


def test_eight_bits_keep_each_channel_to_half_a_step(network, path):
    again = read_start_network(path)
    assert again[1:5] == network[1:5]
    for name, value in network.weights.items():
        step = np.abs(value).max(axis=tuple(range(value.ndim - 1))) / 127 if name.endswith("kernel") else 0
        assert (np.abs(again.weights[name] - value) <= step / 2 + 1e-7).all()
    assert (again.whitening[1] == np.eye(256)).all()


def test_a_channel_of_zeros_stays_zero():
    rounded, scale = quantise(np.zeros((3, 3, 2, 4), np.float32))
    assert not rounded.any() and (scale > 0).all()


def test_a_whitening_of_averages_and_maxima_is_twice_as_wide(network, tmp_path):
    whitening = np.zeros(512, np.float32), np.eye(512, dtype=np.float32)
    np.savez(tmp_path / "both.npz", **pack(network._replace(pooling="concat", whitening=whitening)))
    assert read_start_network(tmp_path / "both.npz").whitening[1].shape == (512, 512)
    np.savez(tmp_path / "narrow.npz", **pack(network._replace(pooling="concat")))
    with pytest.raises(UserError, match="whitening_mean has the type float32 and the shape"):
        read_start_network(tmp_path / "narrow.npz")


def test_a_file_without_whitening_is_read(network, tmp_path):
    np.savez(tmp_path / "plain.npz", **pack(network._replace(whitening=None)))
    assert read_start_network(tmp_path / "plain.npz").whitening is None


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("conv2d_3/kernel", np.zeros((1, 1, 64, 81), np.int8), r"conv2d_3/kernel has the type int8 and the shape"),
        ("conv2d_3/kernel", np.zeros((1, 1, 64, 80), np.float32), "conv2d_3/kernel has the type float32"),
        ("conv2d_3/kernel:scale", None, "conv2d_3/kernel:scale is missing"),
        ("batch_normalization_0/beta", np.full(32, np.nan, np.float32), "batch_normalization_0/beta holds a number"),
        ("last_block", np.array("mixed9"), 'last_block is "mixed9"'),
        ("feature_layer", np.array("mixed1"), "feature_layer mixed1 lies after last_block mixed0"),
        ("whitening_mean", np.zeros(3, np.float32), "whitening_mean has the type float32 and the shape"),
    ],
)
def test_arrays_that_do_not_fit_are_named(network, tmp_path, name, value, said):
    arrays = pack(network)
    arrays.pop(name)
    if value is not None:
        arrays[name] = value
    with pytest.raises(ValueError, match=said):
        unpack(arrays)
    np.savez(tmp_path / "other.npz", **arrays)
    with pytest.raises(UserError, match=f"other.npz can't be used .*{said}.*make_start_network.py") as raised:
        read_start_network(tmp_path / "other.npz")
    assert "\n" not in str(raised.value)


def test_a_damaged_a_missing_and_a_huge_file_are_one_sentence_each(path, tmp_path, monkeypatch):
    content = path.read_bytes()
    damaged = tmp_path / "damaged.npz"
    for broken in (
        content[: len(content) // 2],
        b"",
        b"no archive",
        content[:30_000] + b"\xff" * 99 + content[30_099:],
    ):
        damaged.write_bytes(broken)
        with pytest.raises(UserError, match=r"the start network damaged.npz is damaged: take it from the project"):
            read_start_network(damaged)
    with pytest.raises(UserError, match=r"the start network none.npz is not there"):
        read_start_network(tmp_path / "none.npz")
    monkeypatch.setattr(start_network, "MAX_BYTES", 1000)
    with pytest.raises(UserError, match="at most 1000 are taken"):
        read_start_network(path)


def test_no_stored_object_is_ever_loaded(path, tmp_path):
    shutil.copy(path, tmp_path / "objects.npz")
    np.savez(tmp_path / "objects.npz", last_block=np.array([{}], dtype=object))
    with pytest.raises(UserError):
        read_start_network(tmp_path / "objects.npz")


def test_kernels_and_channels_are_those_of_keras(network):
    keras = pytest.importorskip("keras")
    keras.applications.InceptionV3(include_top=False, weights=None, input_shape=(75, 75, 3))  # numbers go on from here
    backbone = keras.applications.InceptionV3(include_top=False, weights=None, input_shape=(75, 75, 3))
    layers = sorted(
        (layer for layer in backbone.layers if isinstance(layer, keras.layers.Conv2D)),
        key=lambda layer: int(layer.name.rpartition("_")[2]),
    )
    shapes = kernel_shapes("mixed7")
    assert [tuple(layer.kernel.shape) for layer in layers[: len(shapes)]] == shapes
    assert [backbone.get_layer(block).output.shape[-1] for block in BLOCKS] == list(CHANNELS)
    before = layers[len(kernel_shapes("mixed0"))].kernel.numpy()
    assign_weights(backbone, network)
    assert (layers[3].kernel.numpy() == network.weights["conv2d_3/kernel"]).all()
    assert (layers[len(kernel_shapes("mixed0"))].kernel.numpy() == before).all()


def test_the_student_computes_what_keras_computes(network):
    torch = pytest.importorskip("torch")
    keras = pytest.importorskip("keras")
    from pipeline.start.student import Backbone, keras_weights

    torch.manual_seed(0)
    student = Backbone("mixed5", ("mixed2", "mixed4")).eval()
    images = np.random.default_rng(0).uniform(-1, 1, (2, 96, 96, 3)).astype(np.float32)
    backbone = keras.applications.InceptionV3(include_top=False, weights=None, input_shape=(96, 96, 3))
    assign_weights(backbone, network._replace(weights=keras_weights(student, "mixed4")))
    maps = keras.Model(backbone.input, [backbone.get_layer(block).output for block in ("mixed2", "mixed4")])
    with torch.inference_mode():
        ours = student(torch.from_numpy(images.transpose(0, 3, 1, 2)))
    for mine, theirs in zip(ours, maps(images, training=False), strict=True):
        assert np.allclose(mine.numpy().transpose(0, 2, 3, 1), theirs.numpy(), rtol=1e-3, atol=1e-3)
