"""Whiten features along the directions in which photographs of one model differ.

References: Hatch et al. 2006, "Within-class covariance normalization for SVM-based speaker recognition" (Interspeech);
for image retrieval: Radenović et al. 2019 (doi:10.1109/TPAMI.2018.2846566). Adaptation to few photographs,
maximum a posteriori: Gauvain & Lee 1994 (doi:10.1109/89.279278).
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
    covariance = strength * covariance_within(features, labels) + (1 - strength) * np.eye(features.shape[1])
    return Whitening(features.mean(axis=0).astype(np.float32), inverse_root(covariance))


def adapt_whitening(prior: Whitening, features: np.ndarray, labels: np.ndarray, n_prior: float) -> Whitening:
    """Adapt a whitening that was learned elsewhere to what differs within the classes at hand.

    The scatter within classes is the mean of the two, weighted by numbers of photographs (maximum a posteriori).

    Parameters
    ----------
    prior : its matrix has an inverse; its mean stays
    features : float32 ndarray of shape (n_images, n_features)
    labels : int ndarray of shape (n_images,), the class of each
    n_prior : photographs that the prior counts as, above 0; those at hand count less one for each class

    Returns
    -------
    What `whiten` takes; `prior` itself where features are not finite or no class has two photographs.
    """
    features = normalise_rows(features)
    n_free = len(features) - len(np.unique(labels))
    if not n_free or not np.isfinite(features).all():
        return prior
    with threadpool_limits(1):  # as in `covariance_within`
        root = np.linalg.inv(prior.matrix.astype(np.float64))
        known = root @ root.T
    known *= len(known) / np.trace(known)
    covariance = (n_prior * known + n_free * covariance_within(features, labels)) / (n_prior + n_free)
    return Whitening(prior.mean, inverse_root(covariance))


def covariance_within(features: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the covariance of features within classes, scaled to a mean variance of 1: float64 (n_features,) * 2.

    features : float32 (n_images, n_features); labels : int (n_images,). Of classes whose images are all the same: 0.
    """
    _, class_of, n_images = np.unique(labels, return_inverse=True, return_counts=True)
    means = np.zeros((len(n_images), features.shape[1]))
    np.add.at(means, class_of, features)
    rest = features - (means / n_images[:, None])[class_of]
    with threadpool_limits(1):  # in several threads, the last digits depend on their number
        covariance = rest.T @ rest / len(rest)
    return covariance / max(np.trace(covariance) / len(covariance), 1e-12)


def inverse_root(covariance: np.ndarray) -> np.ndarray:
    """Return the symmetric matrix by which features of this covariance are whitened, float32 (n_features,) * 2."""
    with threadpool_limits(1):  # in several threads, the last digits depend on their number
        variances, directions = np.linalg.eigh(covariance)
        return ((directions * np.maximum(variances, 1e-12) ** -0.5) @ directions.T).astype(np.float32)


def whiten(features: np.ndarray, whitening: Whitening | None) -> np.ndarray:
    """Bring features to length 1, centre and whiten them; without a whitening, return them as they are.

    features : float32 ndarray of shape (n, n_features) -> float32 (n, n_features), rows of any length
    """
    if whitening is None:
        return features
    with threadpool_limits(1):  # in several threads, the last digits depend on their number
        return (normalise_rows(features) - whitening.mean) @ whitening.matrix
