"""Garments of Fashion-MNIST in colours and prints, for what kinds of clothes look like.

Its pictures are grey and 28 pixels small, but 70,000 real photographs of ten kinds of clothes under a free licence:
their outlines and shades are kept, the colour comes from a drawn pattern or a piece of a photograph.

Reference: Xiao et al. 2017, "Fashion-MNIST: a novel image dataset for benchmarking" (arXiv:1708.07747), licence Expat.
"""

import gzip
from pathlib import Path

import cv2
import numpy as np

from pipeline.start.crops import cut_piece

NAMES = ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz")
N_KINDS = 10
SIDE = 28  # pixels per side of a picture
OUTLINE = 24.0  # grey level of a garment's rim; below lies the black ground
GREY_SHARE = 0.1  # of garments that stay grey
PRINT_SHARE = 0.4  # of garments that are cut of a photograph
PATTERN_SHARE = 0.2  # of garments with stripes or checks; the rest is plain


def read_garments(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return the pictures of Debian's dataset-fashion-mnist below `folder`, uint8 (n, 28, 28), and kinds, int (n,).

    Both are empty where the package is not there.
    """
    found = [next(iter(sorted(folder.rglob(name))), None) for name in NAMES]
    if None in found:
        return np.zeros((0, SIDE, SIDE), np.uint8), np.zeros(0, int)
    pictures, kinds = (gzip.decompress(path.read_bytes()) for path in found if path)
    return (
        np.frombuffer(pictures, np.uint8, offset=16).reshape(-1, SIDE, SIDE),
        np.frombuffer(kinds, np.uint8, offset=8).astype(int),
    )


def draw_pattern(rng: np.random.Generator, size: int) -> np.ndarray:
    """Return stripes or checks of two colours, float32 BGR (size, size, 3), 0..255."""
    one, other = rng.uniform(10, 245, (2, 3)).astype(np.float32)
    rows, columns = np.mgrid[:size, :size].astype(np.float32)
    angle, width = rng.choice([0, np.pi / 2, rng.uniform(0, np.pi)]), rng.uniform(3, 16)
    along = rows * np.cos(angle) + columns * np.sin(angle)
    across = columns * np.cos(angle) - rows * np.sin(angle)
    share = np.where(along % width < width * rng.uniform(0.25, 0.6), 1.0, 0.0)
    if rng.random() < 0.4:
        share = (share + np.where(across % width < width * 0.4, 1.0, 0.0)) / 2
    return one + (other - one) * share[..., None].astype(np.float32)


def photograph_garment(
    picture: np.ndarray, rng: np.random.Generator, photographs: list[np.ndarray], n_images: int, size: int
) -> list[np.ndarray]:
    """Return photographs of a garment on white, uint8 BGR (size, size, 3).

    picture : uint8 (28, 28), light on black; photographs : uint8 BGR, of which prints are cut
    """
    grey = cv2.resize(picture.astype(np.float32), (size, size), interpolation=cv2.INTER_CUBIC)
    cover = np.clip((cv2.GaussianBlur(grey, (0, 0), 1.5) - OUTLINE) / OUTLINE + 0.5, 0, 1)
    level = max(float(grey[cover > 0.5].mean()), 30.0) if (cover > 0.5).any() else 128.0
    shade = np.clip(0.35 + 0.65 * grey / level, 0.25, 1.35)[..., None]  # (size, size, 1)
    chance = rng.random()
    if chance < GREY_SHARE:
        colour = grey[..., None].repeat(3, 2)
        shade = np.ones_like(shade)
    elif chance < GREY_SHARE + PRINT_SHARE and photographs:
        piece = cut_piece(photographs[rng.integers(len(photographs))], rng, 1)[0]
        colour = cv2.resize(piece, (size, size)).astype(np.float32)
    elif chance < GREY_SHARE + PRINT_SHARE + PATTERN_SHARE:
        colour = draw_pattern(rng, size)
    else:
        colour = np.ones((size, size, 3), np.float32) * rng.uniform(10, 245, 3).astype(np.float32)
    shown = []
    for _ in range(n_images):
        corners = np.float32([[0, 0], [size, 0], [size, size], [0, size]])
        turn = cv2.getRotationMatrix2D((size / 2, size / 2), rng.normal(0, 8), float(np.exp(rng.normal(-0.06, 0.08))))
        moved = (corners @ turn[:, :2].T + turn[:, 2] + rng.normal(0, 0.03 * size, (4, 2))).astype(np.float32)
        warp = cv2.getPerspectiveTransform(corners, moved)
        light = np.float32(np.exp(rng.normal(0, 0.15)) * np.exp(rng.normal(0, 0.05, 3)))
        lit = np.clip(colour * shade * light, 0, 255)
        placed = cv2.warpPerspective(np.dstack([lit, cover * 255]), warp, (size, size), flags=cv2.INTER_LINEAR)
        alpha = placed[..., 3:] / 255
        image = placed[..., :3] * alpha + 255 * (1 - alpha)
        image = image + rng.normal(0, rng.uniform(0, 5), image.shape)
        image = np.clip(np.where(alpha > 0.02, image, 255), 0, 255).astype(np.uint8)
        shown.append(np.ascontiguousarray(image[:, ::-1]) if rng.random() < 0.5 else image)
    return shown
