"""Training photographs changed as sellers change theirs, many at once."""

import numpy as np
import torch
from torch.nn import functional

GROUND = 249  # a pixel with all channels from here up is the ground, which no light changes
HIDDEN_SHARE = 0.15  # of photographs, part of which lies behind a label
BLURRED_SHARE = 0.15


def augment(images_rgb: np.ndarray, size: int, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Turn, scale, shear, mirror, relight, blur and partly hide photographs.

    images_rgb : uint8 (n, H, W, 3), products on white
    size : pixels per side of the result

    Returns
    -------
    inputs : float32 (n, 3, size, size), -1..1
    affine : float32 (n, 2, 3), by which maps of the photographs are warped likewise (`torch.affine_grid`)
    """
    n = len(images_rgb)

    def normal(deviation: float, *shape: int) -> torch.Tensor:
        return torch.from_numpy(rng.normal(0, deviation, (n, *shape)).astype(np.float32))

    def chosen(share: float) -> np.ndarray:
        return np.flatnonzero(rng.random(n) < share)

    angle, scale, shear = normal(0.2), torch.exp(normal(0.1) + 0.03), normal(0.06)
    scale_x, scale_y = scale * torch.exp(normal(0.06)), scale * torch.exp(normal(0.06))
    mirror = torch.from_numpy(np.where(rng.random(n) < 0.5, -1, 1).astype(np.float32))
    cos, sin = angle.cos(), angle.sin()
    rows = (
        torch.stack([mirror * cos * scale_x, (shear - sin) * scale_y, normal(0.05)], 1),
        torch.stack([mirror * sin * scale_x, cos * scale_y, normal(0.05)], 1),
    )
    affine = torch.stack(rows, 1)
    grid = functional.affine_grid(affine, [n, 3, size, size], align_corners=False)
    inverse = 255 - torch.from_numpy(images_rgb).permute(0, 3, 1, 2).float()  # so that what comes in is white
    pixels = 255 - functional.grid_sample(inverse, grid, align_corners=False)
    white = pixels.amin(1, keepdim=True) >= GROUND
    gain = torch.exp(normal(0.13, 1, 1, 1) + normal(0.05, 3, 1, 1))
    lit = ((pixels * gain - 128) * torch.exp(normal(0.1, 1, 1, 1)) + 128).clamp(0, 255)
    lit = 255 * (lit / 255).clamp(1e-3, 1) ** torch.exp(normal(0.12, 1, 1, 1))
    pixels = torch.where(white, pixels, lit)
    for i in chosen(BLURRED_SHARE):
        pixels[i] = functional.avg_pool2d(pixels[i], 3, 1, 1, count_include_pad=False)
    for i in chosen(HIDDEN_SHARE):
        height, width = int(size * rng.uniform(0.08, 0.3)), int(size * rng.uniform(0.08, 0.4))
        top, left = rng.integers(0, size - height), rng.integers(0, size - width)
        colour = rng.uniform(0, 255, 3) if rng.random() < 0.6 else np.full(3, 255)
        label = torch.from_numpy(colour.astype(np.float32))[:, None, None]
        pixels[i, :, top : top + height, left : left + width] = label
    noise = torch.from_numpy(rng.uniform(0, 5, (n, 1, 1, 1)).astype(np.float32))
    pixels = pixels + torch.from_numpy(rng.standard_normal(pixels.shape, np.float32)) * noise
    return (pixels / 127.5 - 1).clamp(-1, 1).contiguous(memory_format=torch.channels_last), affine
