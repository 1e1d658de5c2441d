"""The student: InceptionV3's first blocks in PyTorch, their convolutions in the order in which Keras creates them.

PyTorch, because the teacher needs it anyway and trains in bfloat16 on a CPU in half the time.
"""

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from pipeline.features.start_network import BLOCKS, kernel_shapes

EPSILON = 0.001  # of batch normalisation, as Keras has it
MOMENTUM = 0.03  # of its running statistics
STEM = 5  # convolutions before mixed0
# Of a block with so many convolutions: those of each branch, by their number; the last branch begins with a pool.
BRANCHES = {
    7: ((0,), (1, 2), (3, 4, 5), (6,)),
    4: ((0,), (1, 2, 3)),
    10: ((0,), (1, 2, 3), (4, 5, 6, 7, 8), (9,)),
}


class Convolution(nn.Module):
    """A convolution, its batch normalisation without a gain, and a ReLU."""

    def __init__(self, shape: tuple[int, int, int, int], stride: int = 1, is_padded: bool = True):
        super().__init__()
        height, width, c_in, c_out = shape
        padding = (height // 2, width // 2) if is_padded else 0
        self.convolution = nn.Conv2d(c_in, c_out, (height, width), stride, padding, bias=False)
        self.normalisation = nn.BatchNorm2d(c_out, EPSILON, MOMENTUM)
        self.normalisation.weight.requires_grad_(False)
        nn.init.kaiming_normal_(self.convolution.weight, nonlinearity="relu")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, c_in, h, w) -> (n, c_out, h', w')."""
        return functional.relu(self.normalisation(self.convolution(x)), inplace=True)


class Backbone(nn.Module):
    """InceptionV3 up to `last_block`: (n, 3, size, size) in -1..1 -> the maps of `exits`, (n, channels, h, w) each."""

    def __init__(self, last_block: str, exits: tuple[str, ...]):
        super().__init__()
        self.exits, self.blocks = exits, BLOCKS[: BLOCKS.index(last_block) + 1]
        shapes = kernel_shapes(last_block)
        sizes = [len(kernel_shapes(block)) for block in self.blocks]
        self.begins = [STEM, *sizes[:-1]]  # number of each block's first convolution
        self.ends = sizes
        reducing = {0: 2, 1: 1, 3: 1, 4: 1}
        if "mixed3" in self.blocks:
            reducing |= {self.begins[3]: 2, self.begins[3] + 3: 2}
        self.convolutions = nn.ModuleList(
            Convolution(shape, reducing.get(i, 1), i not in reducing) for i, shape in enumerate(shapes)
        )

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Return the maps of the exits."""
        layers = self.convolutions
        x = functional.max_pool2d(layers[2](layers[1](layers[0](x))), 3, 2)
        x = functional.max_pool2d(layers[4](layers[3](x)), 3, 2)
        found = []
        for block, begin, end in zip(self.blocks, self.begins, self.ends, strict=True):
            x = self.run_block(x, layers[begin:end])
            if block in self.exits:
                found.append(x)
        return found

    def run_block(self, x: torch.Tensor, layers: nn.ModuleList) -> torch.Tensor:
        """Run the branches of a block side by side and put their channels together."""
        branches = BRANCHES[len(layers)]
        is_reduction = len(layers) == 4
        outputs = []
        for branch in branches:
            y = x
            if branch == branches[-1] and not is_reduction:
                y = functional.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
            for number in branch:
                y = layers[number](y)
            outputs.append(y)
        if is_reduction:
            outputs.append(functional.max_pool2d(x, 3, 2))
        return torch.cat(outputs, 1)


def keras_weights(backbone: Backbone, last_block: str) -> dict[str, np.ndarray]:
    """Return the weights up to `last_block` as the start network's file names them, float32.

    Kernels are (h, w, c_in, c_out).
    """
    weights: dict[str, np.ndarray] = {}
    for i, layer in enumerate(backbone.convolutions[: len(kernel_shapes(last_block))]):
        normalisation = layer.normalisation
        values = {
            f"conv2d_{i}/kernel": layer.convolution.weight.permute(2, 3, 1, 0),
            f"batch_normalization_{i}/beta": normalisation.bias,
            f"batch_normalization_{i}/moving_mean": normalisation.running_mean,
            f"batch_normalization_{i}/moving_variance": normalisation.running_var,
        }
        weights |= {name: value.detach().float().numpy().copy() for name, value in values.items()}
    return weights
