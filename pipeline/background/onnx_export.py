"""The trained network of stage 01 as an ONNX file, which needs no TensorFlow to run."""

from typing import TYPE_CHECKING

import numpy as np

from pipeline.background.network import N_CHANNELS, NETWORK_SIZE, PROBED_LAYER

if TYPE_CHECKING:
    import keras
    import onnx

OPSET, IR_VERSION = 13, 8  # of 2020 and 2021: every onnxruntime that is still in use reads them


def export_onnx(model: "keras.Model", no_ground_probe: tuple[np.ndarray, float], about: str) -> bytes:
    """Return the content of the ONNX file of `build_network`'s network, batch normalisation folded into convolutions.

    The file's network takes float32 (1, N_CHANNELS, NETWORK_SIZE, NETWORK_SIZE), see `normalise_channels`, and gives
    probabilities of the product, float32 (1, 1, NETWORK_SIZE, NETWORK_SIZE), and of no ground, float32 (1, 1, 1, 1).

    no_ground_probe : from `fit_no_ground_probe`; about : the file's description
    """
    import keras
    import onnx
    from onnx import helper

    graph = _Graph()
    name_of: dict[int, str] = {}  # by the id of Keras's tensor
    for layer in model.layers:
        before = layer.input if isinstance(layer.input, list) else [layer.input]
        inputs, name = [name_of.get(id(tensor), "") for tensor in before], layer.name
        if isinstance(layer, keras.layers.InputLayer):
            name = "channels"
        elif isinstance(layer, keras.layers.Conv2D):
            name = _add_convolution(graph, layer, _batch_norm_after(model, layer), inputs)
        elif isinstance(layer, keras.layers.BatchNormalization):
            name = inputs[0]
        elif isinstance(layer, keras.layers.ReLU):
            graph.add("Relu", inputs, name)
        elif isinstance(layer, keras.layers.GlobalAveragePooling2D):
            graph.add("GlobalAveragePool", inputs, name)
        elif isinstance(layer, keras.layers.Add):
            graph.add("Add", inputs, name)
        else:  # UpSampling2D
            scales = graph.add_constant(f"{name}_scales", np.array([1, 1, 2, 2]))
            how = {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}
            graph.add("Resize", [*inputs, graph.add_constant(f"{name}_region", np.empty(0)), scales], name, **how)
        name_of[id(layer.output)] = name
    graph.add("Sigmoid", [name_of[id(model.output)]], "foreground_prob")
    weights, bias = no_ground_probe
    graph.add("GlobalAveragePool", [PROBED_LAYER], "probed_mean")
    probe = [
        graph.add_constant("probe_kernel", weights[None, :, None, None]),
        graph.add_constant("probe_bias", np.array([bias])),
    ]
    graph.add("Conv", ["probed_mean", *probe], "no_ground_logit")
    graph.add("Sigmoid", ["no_ground_logit"], "no_ground_prob")
    opset = helper.make_opsetid("", OPSET)
    file = helper.make_model(graph.finish(), opset_imports=[opset], ir_version=IR_VERSION, doc_string=about)
    onnx.checker.check_model(file)
    return file.SerializeToString()


class _Graph:
    """Nodes and constants of an ONNX graph."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def add(self, kind: str, inputs: list[str], output: str, **attributes: object) -> str:
        """Add a node and return the name of its output."""
        from onnx import helper

        self.nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output

    def add_constant(self, name: str, values: np.ndarray) -> str:
        """Add a float32 constant and return its name."""
        from onnx import numpy_helper

        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(values, np.float32), name))
        return name

    def finish(self) -> "onnx.GraphProto":
        """Return the graph from `channels` to `foreground_prob` and `no_ground_prob`."""
        import onnx
        from onnx import helper

        real, side = onnx.TensorProto.FLOAT, NETWORK_SIZE
        channels = helper.make_tensor_value_info("channels", real, [1, N_CHANNELS, side, side])
        foreground_prob = helper.make_tensor_value_info("foreground_prob", real, [1, 1, side, side])
        no_ground_prob = helper.make_tensor_value_info("no_ground_prob", real, [1, 1, 1, 1])
        outputs = [foreground_prob, no_ground_prob]
        return helper.make_graph(self.nodes, "background", [channels], outputs, self.constants)


def _batch_norm_after(model: "keras.Model", layer: "keras.layers.Conv2D") -> "keras.layers.BatchNormalization | None":
    """Return the batch normalisation that follows a convolution, None where there is none."""
    import keras

    after = [other for other in model.layers if other.input is layer.output]
    return after[0] if after and isinstance(after[0], keras.layers.BatchNormalization) else None


def _add_convolution(
    graph: _Graph,
    layer: "keras.layers.Conv2D",
    batch_norm: "keras.layers.BatchNormalization | None",
    inputs: list[str],
) -> str:
    """Add a convolution with the batch normalisation after it and its activation; return its output's name."""
    import keras

    kernel, *bias = layer.get_weights()  # (height, width, channels in, channels out)
    bias = bias[0] if bias else np.zeros(kernel.shape[-1], np.float32)
    if batch_norm is not None:
        gamma, beta, mean, variance = batch_norm.get_weights()
        factor = gamma / np.sqrt(variance + batch_norm.epsilon)
        kernel, bias = kernel * factor, beta - mean * factor
    size, stride, name = kernel.shape[0], layer.strides[0], layer.name
    # Keras pads an even side at stride 2 at its end alone
    pads = [0, 0, 0, 0] if size == 1 else [2 - stride, 2 - stride, 1, 1]
    values = [
        graph.add_constant(f"{name}_kernel", kernel.transpose(3, 2, 0, 1)),
        graph.add_constant(f"{name}_bias", bias),
    ]
    graph.add("Conv", inputs + values, name, kernel_shape=[size, size], strides=[stride, stride], pads=pads)
    return graph.add("Relu", [name], f"{name}_relu") if layer.activation is keras.activations.relu else name
