"""Photographs of known models as landmarks: they are grouped together with the new ones.

Categories that were never seen are found and counted by clustering them together with known ones (Vaze et al. 2022,
"Generalized Category Discovery", arXiv:2201.02609). Here the known photographs show three things: in what photographs
of one model differ; where the centre of all products lies, which a data set of few models does not show; and how far
away another model is, so that a single model is recognised as one.
"""

from typing import NamedTuple

import numpy as np

from pipeline.features.whitening import fit_whitening

LANDMARKS = 2000  # photographs at most; more teach nothing new and take longer
FEWEST_MODELS = 8  # fewer known models mislead more than they teach (six of two families: doc/log.md, 2026-11-25)
STRENGTH = 0.1  # 0..1, see `fit_whitening`: of ten known models the scatter within is known roughly


class Landmarks(NamedTuple):
    """Photographs of known models."""

    features: np.ndarray  # (n, n_features) float32
    labels: np.ndarray  # (n,) int64, from 0


def no_landmarks(n_features: int) -> Landmarks:
    """Return landmarks of no photograph."""
    return Landmarks(np.empty((0, n_features), np.float32), np.empty(0, np.int64))


def pick_landmarks(features: np.ndarray, labels: np.ndarray) -> Landmarks:
    """Return the landmarks among photographs of known models; none where there are fewer than FEWEST_MODELS.

    Of more than LANDMARKS photographs, every second, third ... of each model is taken.

    features : float ndarray of shape (n, n_features); labels : ndarray of shape (n,), any kind of value
    """
    models, model_of = np.unique(labels, return_inverse=True)
    if len(models) < FEWEST_MODELS:
        return no_landmarks(features.shape[1])
    order = np.argsort(model_of, kind="stable")[:: -(-len(labels) // LANDMARKS)]
    return Landmarks(np.asarray(features[order], np.float32), np.unique(model_of[order], return_inverse=True)[1])


def whitening_matrix(directions: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Return the matrix that shortens directions along what differs within groups, float32 (n_features, n_features).

    directions : float32 ndarray of shape (n, n_features); group : int ndarray of shape (n,)
    """
    whitening = fit_whitening(directions, group, STRENGTH)
    return np.eye(directions.shape[1], dtype=np.float32) if whitening is None else whitening.matrix
