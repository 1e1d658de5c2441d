"""Noise, prints and reliefs as fields of values, one for each pixel."""

import cv2
import numpy as np


def smooth_noise(rng: np.random.Generator, size: int, grain: float) -> np.ndarray:
    """Smooth random field of (size, size), float32, mean 0 and deviation 1, with grains of `grain` pixels."""
    small = max(4, int(np.ceil(size / max(grain, 1.0))) + 3)
    coarse = rng.standard_normal((small, small)).astype(np.float32)
    fine = cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC)
    return (fine - fine.mean()) / (fine.std() + 1e-6)


def print_pattern(kind: str, u: np.ndarray, v: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """How much ink lies where, 0..1: `u`, `v` are coordinates in periods of the print."""
    fu, fv = u - np.floor(u), v - np.floor(v)
    if kind == "stripes":
        return (fu < 0.45).astype(np.float32)
    if kind == "dots":
        shifted = u + 0.5 * (np.floor(v) % 2)
        return (np.hypot(shifted - np.floor(shifted) - 0.5, fv - 0.5) < 0.27).astype(np.float32)
    if kind == "check":
        thin = ((u * 2 + 0.3) % 2 < 0.12) | ((v * 2 + 0.3) % 2 < 0.12)
        return np.maximum(0.45 * (fu < 0.5) + 0.45 * (fv < 0.5), 0.9 * thin).astype(np.float32)
    if kind == "houndstooth":
        a, b = (fu < 0.5), (fv < 0.5)
        diagonal = (u * 4 + v * 4) % 1 < 0.5
        return np.where(a & b, 1.0, np.where(~a & ~b, 0.0, diagonal)).astype(np.float32)
    if kind == "zigzag":
        return (((v + 0.6 * np.abs(fu - 0.5)) % 0.7) < 0.3).astype(np.float32)
    if kind == "marble":
        wave = np.sin(2 * np.pi * (0.4 * u + 0.3 * np.sin(1.7 * v) + 0.25 * np.sin(2.3 * u + 1.3 * v)))
        return np.clip(1 - 5 * np.abs(wave), 0, 1).astype(np.float32)
    if kind == "monogram":
        shifted = u + 0.5 * (np.floor(v) % 2)
        x, y = shifted - np.floor(shifted) - 0.5, fv - 0.5
        diamond = np.abs(np.abs(x) + np.abs(y) - 0.30) < 0.05
        return (diamond | (np.hypot(x, y) < 0.10)).astype(np.float32)
    cells = np.stack([np.floor(u), np.floor(v)]).astype(np.int64)
    low = cells.min(axis=(1, 2))
    jitter = rng.random((*(cells.max(axis=(1, 2)) - low + 1), 4))
    at = jitter[cells[0] - low[0], cells[1] - low[1]]
    x, y = fu - (0.32 + 0.36 * at[..., 0]), fv - (0.32 + 0.36 * at[..., 1])
    radius, turn = np.hypot(x, y), np.arctan2(y, x) + 2 * np.pi * at[..., 2]
    if kind == "leopard":
        rim = 0.20 + 0.08 * at[..., 3] + 0.03 * np.sin(3 * turn)
        ring = (np.abs(radius - rim) < 0.075) & (np.cos(turn) + 0.8 * np.sin(2 * turn) > -0.75)
        return np.maximum(ring, 0.35 * (radius < rim)).astype(np.float32)
    petals = radius < (0.20 + 0.08 * at[..., 3]) * (0.65 + 0.35 * np.cos(5 * turn))
    return np.where(radius < 0.05, 0.3, petals).astype(np.float32)


def relief_pattern(kind: str, u: np.ndarray, v: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Height of a relief, 0..1, like `print_pattern`."""
    if kind == "ribs":
        return 0.5 + 0.5 * np.sin(2 * np.pi * u)
    if kind == "quilt":
        return np.sqrt(np.abs(np.sin(np.pi * (u + v)) * np.sin(np.pi * (u - v))))
    if kind == "woven":
        over = (np.floor(u) + np.floor(v)) % 2 == 0
        across, along = np.abs(np.sin(np.pi * u)), np.abs(np.sin(np.pi * v))
        return np.where(over, across**0.5 * (0.6 + 0.4 * along), along**0.5 * (0.6 + 0.4 * across))
    shifted = u + 0.5 * (np.floor(v) % 2)
    x, y = np.abs(shifted - np.floor(shifted) - 0.5) * 2, np.abs(v - np.floor(v) - 0.5) * 2
    return (1 - np.clip(x, 0, 1) ** 6) * (1 - np.clip(y, 0, 1) ** 6)
