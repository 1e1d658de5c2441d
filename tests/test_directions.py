"""Features seen as directions, read part by part."""

import tempfile

import numpy as np

from pipeline.clustering.directions import Compared, Directions, Shortened, different, shorten


def shortened(n: int = 40) -> tuple[Directions, np.ndarray, Shortened]:
    """Directions of drawn rows, one of them zeros, a matrix, and what `shorten` makes of the two."""
    rng = np.random.default_rng(1)
    features, matrix = rng.random((n, 16)).astype(np.float32), rng.random((16, 16)).astype(np.float32)
    features[3] = 0
    data = Directions(features)
    with tempfile.TemporaryFile() as handle:
        found = shorten(data, matrix, handle)
        return data, matrix, found._replace(space=found.space.copy())


def test_shortened_directions_are_directions_of_the_product():
    data, matrix, found = shortened()
    expected = Directions(data[:] @ matrix)
    np.testing.assert_allclose(found.space, expected[:], atol=1e-6)
    np.testing.assert_allclose(found.centre, expected.centre, atol=1e-6)


def test_shortened_directions_are_compared_without_the_product():
    data, matrix, found = shortened()
    compared = Compared(data, matrix, found.scale, found.centre)
    assert compared.shape == (40, 17) and len(compared) == 40
    some = np.array([7, 3, 0])
    np.testing.assert_allclose(
        compared.asked(found.space) @ compared[some].T, found.space @ found.space[some].T, atol=1e-5
    )


def test_the_centre_itself_stays_zeros_when_shortened():
    rows = np.float32([[1, 0], [1, 0], [1, 0]])
    with tempfile.TemporaryFile() as handle:
        found = shorten(Directions(rows, np.zeros(2, np.float32)), np.eye(2, dtype=np.float32), handle)
        assert not found.space.any() and not found.scale.any()


def test_repeated_images_count_once():
    rows, first_of = different(np.array([[1.0, 2.0], [3.0, 4.0], [1.0, 2.0], [5.0, 6.0]]))
    assert rows.tolist() == [0, 1, 3] and first_of.tolist() == [0, 1, 0, 2]


def test_directions_do_not_depend_on_length():
    data = np.random.default_rng(1).random((40, 16)).astype(np.float32)
    scaled = data * np.linspace(0.01, 100, 40, dtype=np.float32)[:, None]
    np.testing.assert_allclose(Directions(data)[:], Directions(scaled)[:], atol=1e-5)


def test_directions_by_hand():
    seen = Directions(np.array([[3.0, 4.0], [4.0, 3.0], [0.0, 0.0]]))
    np.testing.assert_allclose(seen.centre, [1.4 / 3, 1.4 / 3], atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(seen[:], axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(seen[np.array([2])], [[-(0.5**0.5), -(0.5**0.5)]], atol=1e-6)
