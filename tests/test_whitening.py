"""pipeline/features/whitening.py: rows of length one, and what differs within a model."""

import numpy as np
import scipy.linalg

from pipeline.features.whitening import Whitening, adapt_whitening, fit_whitening, normalise_rows, whiten

# two models, each twice; photographs of one differ in the second number alone
PAIRS = np.float32([[0.8, 0.6, 0], [0.8, -0.6, 0], [0, 0.6, 0.8], [0, -0.6, 0.8]])


def test_normalised_rows_have_length_one_and_zeros_stay():
    assert np.allclose(normalise_rows(np.float32([[3, 4], [0, 0]])), [[0.6, 0.8], [0, 0]])


def test_whitening_by_hand():
    # covariance within models diag(0, 0.36, 0), mean variance 0.12: half of each gives diag(0.5, 2, 0.5) times 0.12
    found = fit_whitening(PAIRS * [[1], [2], [3], [4]], np.array([7, 7, 9, 9]), 0.5)
    assert np.allclose(found.mean, [0.4, 0, 0.4], atol=1e-6)
    assert np.allclose(found.matrix, np.diag([2**0.5, 0.5**0.5, 2**0.5]), atol=1e-5)
    assert found.mean.dtype == found.matrix.dtype == np.float32
    after = whiten(np.float32([[1.6, 1.2, 0]]), found)
    assert np.allclose(after, [[0.4 * 2**0.5, 0.6 * 0.5**0.5, -0.4 * 2**0.5]], atol=1e-5)


def test_whitening_agrees_with_scipy_in_any_directions():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 5, 60)
    features = normalise_rows(rng.normal(size=(60, 7)).astype(np.float32) @ rng.normal(size=(7, 7)))
    within = sum((labels == i).sum() * np.cov(features[labels == i].T, bias=True) for i in range(5)) / 60
    mixed = 0.3 * within / (np.trace(within) / 7) + 0.7 * np.eye(7)
    found = fit_whitening(features, labels, 0.3)
    assert np.allclose(found.matrix, np.linalg.inv(scipy.linalg.sqrtm(mixed)), atol=1e-4)


def test_whitening_of_strength_zero_centres_alone():
    found = fit_whitening(PAIRS, np.array([0, 0, 1, 1]), 0.0)
    assert np.allclose(whiten(PAIRS, found), PAIRS - [0.4, 0, 0.4], atol=1e-6)


def test_whitening_is_finite_where_photographs_of_a_model_are_all_the_same():
    found = fit_whitening(PAIRS[[0, 0, 2, 2]], np.array([0, 0, 1, 1]), 0.5)
    assert np.allclose(found.matrix, np.eye(3) * 2**0.5, atol=1e-5)


def test_no_whitening_is_learned_from_features_that_are_not_finite():
    features = PAIRS.copy()
    features[1, 1] = np.nan
    assert fit_whitening(features, np.array([0, 0, 1, 1]), 0.5) is None
    assert whiten(features, None) is features


def test_adapting_by_hand():
    # the prior's covariance diag(4, 1, 1) is diag(2, 0.5, 0.5) at a mean variance of 1 and counts as two photographs;
    # the one at hand is diag(0, 3, 0), of two that are free
    prior = Whitening(np.float32([0.1, 0, 0]), np.diag(np.float32([0.5, 1, 1])))
    found = adapt_whitening(prior, PAIRS * [[1], [2], [3], [4]], np.array([7, 7, 9, 9]), 2)
    assert np.allclose(found.matrix, np.diag([1, 1.75**-0.5, 0.25**-0.5]), atol=1e-5)
    assert np.array_equal(found.mean, prior.mean)
    assert found.matrix.dtype == np.float32


def test_adapting_to_ever_more_photographs_forgets_the_prior():
    rng = np.random.default_rng(1)
    labels = np.arange(200) % 8
    features = normalise_rows(rng.normal(size=(200, 5)).astype(np.float32) * [3, 1, 1, 1, 0.5])
    prior = fit_whitening(rng.normal(size=(200, 5)).astype(np.float32), labels, 0.9)
    fitted = fit_whitening(features, labels, 1.0)
    assert np.allclose(adapt_whitening(prior, features, labels, 1e-6).matrix, fitted.matrix, atol=1e-4)
    far = adapt_whitening(prior, features, labels, 1e9).matrix
    assert np.allclose(far / far[0, 0], prior.matrix / prior.matrix[0, 0], atol=1e-4)


def test_photographs_that_show_nothing_leave_a_whitening_as_it_is():
    prior = Whitening(np.zeros(3, np.float32), np.eye(3, dtype=np.float32))
    assert adapt_whitening(prior, PAIRS, np.arange(4), 10) is prior
    features = PAIRS.copy()
    features[0, 0] = np.nan
    assert adapt_whitening(prior, features, np.array([0, 0, 1, 1]), 10) is prior
