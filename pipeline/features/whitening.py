"""Whiten features along the directions in which photographs of one model differ.

References: Hatch et al. 2006, "Within-class covariance normalization for SVM-based speaker recognition" (Interspeech);
for image retrieval: Radenović et al. 2019 (doi:10.1109/TPAMI.2018.2846566).
"""

from typing import NamedTuple

import numpy as np
from threadpoolctl import threadpool_limits


def normalise_rows(features: np.ndarray) -> np.ndarray:
    """Scale rows to length 1: float32 (n, n_features) -> float32 (n, n_features); a row of zeros stays.

    >>> normalise_rows(np.float32([[3, 4], [0, 0]])).round(2).tolist()
    [[0.6000000238418579, 0.800000011920929], [0.0, 0.0]]
    """
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    return features / np.maximum(lengths, 1e-12)


class Whitening(NamedTuple):
    """How features are centred and whitened: made by `fit_whitening`, used by `whiten`."""

    mean: np.ndarray  # float32 (n_features,)
    matrix: np.ndarray  # float32 (n_features, n_features)


def fit_whitening(features: np.ndarray, labels: np.ndarray, strength: float) -> Whitening | None:
    """Learn the whitening of the scatter within classes, which shortens features along what differs within a class.

    Parameters
    ----------
    features : float32 ndarray of shape (n_images, n_features)
    labels : int ndarray of shape (n_images,), the class or cluster of each
    strength : from 0, which centres alone, to below 1: the share of the covariance within classes C in the one that is
        whitened, (strength C + (1 - strength) mean variance) ^ -1/2. So noise is never blown up.

    Returns
    -------
    What `whiten` takes; None where features are not finite.
    """
    features = normalise_rows(features)
    if not np.isfinite(features).all():
        return None
    _, class_of, n_images = np.unique(labels, return_inverse=True, return_counts=True)
    means = np.zeros((len(n_images), features.shape[1]))
    np.add.at(means, class_of, features)
    rest = features - (means / n_images[:, None])[class_of]
    with threadpool_limits(1):  # in several threads, the last digits depend on their number
        variances, directions = np.linalg.eigh(rest.T @ rest / len(rest))
        level = max(variances.mean(), 1e-12)
        scale = (strength * np.maximum(variances, 0) / level + 1 - strength) ** -0.5
        matrix = (directions * scale) @ directions.T
    return Whitening(features.mean(axis=0).astype(np.float32), matrix.astype(np.float32))


def whiten(features: np.ndarray, whitening: Whitening | None) -> np.ndarray:
    """Bring features to length 1, centre and whiten them; without a whitening, return them as they are.

    features : float32 ndarray of shape (n, n_features) -> float32 (n, n_features), rows of any length
    """
    if whitening is None:
        return features
    with threadpool_limits(1):  # in several threads, the last digits depend on their number
        return (normalise_rows(features) - whitening.mean) @ whitening.matrix
