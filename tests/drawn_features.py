"""Features drawn for the tests: images of models, and values without any shape."""

import numpy as np


def groups(sizes, n_features: int = 48, spread: float = 0.25, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Features of images of one model each around its own direction, and their labels."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(sizes)), sizes)
    centres = rng.standard_normal((len(sizes), n_features))
    features = centres[labels] + spread * rng.standard_normal((len(labels), n_features)) * 2
    return features.astype(np.float32), labels


def drawn(n: int, n_features: int = 8) -> np.ndarray:
    return np.random.default_rng(n).random((n, n_features)).astype(np.float32)
