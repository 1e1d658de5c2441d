"""pipeline/features/onnx_network.py: an image encoder of one's own, from a small ONNX file made here."""

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from pipeline.features.onnx_network import parse_colours, pool_output, read_encoder
from pipeline.machinery.errors import UserError

RNG = np.random.default_rng(0)
SHADES = RNG.integers(0, 256, (3, 8, 8, 3)).astype(np.uint8)  # three images


def write_encoder(path, shape, metadata=None, channels_last=False, input_type=onnx.TensorProto.FLOAT):
    """Write an encoder whose features are the mean of each colour of what it takes, and the mean times two."""
    axes = [1, 2] if channels_last else [2, 3]
    nodes = [
        helper.make_node("ReduceMean", ["pixels"], ["mean"], axes=axes, keepdims=0),
        helper.make_node("Mul", ["mean", "two"], ["twice"]),
        helper.make_node("Concat", ["mean", "twice"], ["features"], axis=1),
    ]
    kind = helper.tensor_dtype_to_np_dtype(input_type)
    graph = helper.make_graph(
        nodes,
        "encoder",
        [helper.make_tensor_value_info("pixels", input_type, shape)],
        [helper.make_tensor_value_info("features", input_type, [shape[0], 6])],
        [numpy_helper.from_array(np.array([2.0], kind), "two")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    helper.set_model_props(model, metadata or {})
    onnx.save(model, path)
    return path


def read(path, size=8, input_range="auto", mean="auto", deviation="auto", views="one"):
    return read_encoder(path, size, input_range, mean, deviation, views, n_threads=1)


@pytest.mark.parametrize("channels_last", [False, True])
def test_features_are_those_of_the_pixels_in_the_range_of_the_file(tmp_path, channels_last):
    shape = ["n", 8, 8, 3] if channels_last else ["n", 3, "height", "width"]
    metadata = {"input_range": "-1..1", "mean": "0.1, 0.2, 0.3", "std": "0.5", "input_size": "8"}
    encoder = read(write_encoder(tmp_path / "e.onnx", shape, metadata, channels_last), size=300)
    means = (SHADES.mean(axis=(1, 2)) / 127.5 - 1 - [0.1, 0.2, 0.3]) / 0.5
    assert (encoder.size, encoder.n_features, encoder.output) == (8, 6, "features")
    found = encoder.compute(SHADES)
    assert found.dtype == np.float32 and np.allclose(found, np.hstack([means, 2 * means]), atol=1e-5)


def test_settings_come_before_the_file_and_the_files_fixed_side_before_all(tmp_path):
    path = write_encoder(tmp_path / "e.onnx", ["n", 3, 8, 8], {"mean": "0.5", "input_range": "-1..1"})
    encoder = read(path, size=128, input_range="0..1", mean="0", deviation="2, 2, 2")
    assert encoder.size == 8
    assert np.allclose(encoder.compute(SHADES)[:, :3], SHADES.mean(axis=(1, 2)) / 255 / 2, atol=1e-5)


def test_an_encoder_of_one_image_at_a_time_in_half_precision_computes_all(tmp_path):
    path = write_encoder(tmp_path / "e.onnx", [1, 3, 8, 8], input_type=onnx.TensorProto.FLOAT16)
    assert np.allclose(read(path).compute(SHADES)[:, :3], SHADES.mean(axis=(1, 2)) / 255, atol=1e-2)


@pytest.mark.parametrize("views", ["mirrored", "turned"])
def test_views_that_are_averaged_have_the_same_features(tmp_path, views):
    encoder = read(write_encoder(tmp_path / "e.onnx", ["n", 3, 8, 8]), views=views)
    other = SHADES[:, :, ::-1] if views == "mirrored" else np.rot90(SHADES, axes=(1, 2))
    assert np.allclose(encoder.compute(SHADES), encoder.compute(other), atol=1e-6)


def test_tokens_give_their_first_and_maps_their_average():
    tokens, maps = np.arange(12.0).reshape(2, 2, 3), np.arange(8.0).reshape(2, 2, 2, 1)
    assert pool_output(tokens).tolist() == [[0, 1, 2], [6, 7, 8]]
    assert pool_output(maps).tolist() == [[0.5, 2.5], [4.5, 6.5]]


def test_colours_are_one_number_or_three():
    assert parse_colours("[0.1, 0.2, 0.3]", "INPUT_MEAN").tolist() == np.float32([0.1, 0.2, 0.3]).tolist()
    for wrong in ("", "a", "1, 2", "nan"):
        with pytest.raises(UserError, match="INPUT_MEAN"):
            parse_colours(wrong, "INPUT_MEAN")


@pytest.mark.parametrize(
    ("shape", "metadata", "reason"),
    [
        (["n", 3, 8], {}, "not one array of images"),
        (["n", 3, "h", "w"], {"input_size": "5000"}, "5000 pixels"),
        (["n", 3, 8, 8], {"input_range": "0..9"}, "input_range"),
        (["n", 3, 8, 8], {"std": "0"}, "must be above 0"),
        (["n", 5, 8, 8], {}, "can't compute on 8 pixels"),
    ],
)
def test_a_file_that_will_not_do_is_an_error_in_one_sentence(tmp_path, shape, metadata, reason):
    path = tmp_path / "e.onnx"
    if len(shape) == 4:
        write_encoder(path, shape, metadata)
    else:
        values = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name in ("pixels", "features")]
        nodes = [helper.make_node("Identity", ["pixels"], ["features"])]
        graph = helper.make_graph(nodes, "flat", values[:1], values[1:])
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    with pytest.raises(UserError, match=reason) as error:
        read(path)
    assert "\n" not in str(error.value)


def test_a_file_that_is_no_network_is_an_error(tmp_path):
    (tmp_path / "e.onnx").write_bytes(b"no network")
    with pytest.raises(UserError, match=r"e\.onnx can't be read as an ONNX network"):
        read(tmp_path / "e.onnx")
