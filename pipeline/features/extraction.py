"""Compute features as stage 03 gives them: read off the backbone, whitened, of length 1."""

from collections.abc import Callable

import numpy as np

from pipeline.features.whitening import Whitening, normalise_rows, whiten


def extract_features(
    compute: Callable, whitening: Whitening | None, normalise: bool, images_rgb: np.ndarray, batch_size: int
) -> np.ndarray:
    """Compute the features of images, whitened, and of length 1 where `normalise`.

    Parameters
    ----------
    compute : what `feature_function` gives, from uint8 RGB images (n, size, size, 3) to float32 (n, n_features)
    whitening : of the features; None where they are not whitened
    images_rgb : uint8 ndarray of shape (n, size, size, 3), n above 0
    batch_size : images computed at once, which bounds the memory

    Returns
    -------
    float32 ndarray of shape (n, n_features)
    """
    begins = range(0, len(images_rgb), batch_size)
    found = np.concatenate([np.asarray(compute(images_rgb[begin : begin + batch_size])) for begin in begins])
    found = whiten(found, whitening)
    return normalise_rows(found) if normalise else found
