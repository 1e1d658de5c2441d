"""Features seen as directions, read part by part."""

import numpy as np

from pipeline.clustering.directions import Directions, Product, different


def test_a_product_of_rows_and_a_matrix_is_computed_when_asked_for():
    data, matrix = np.arange(12.0).reshape(4, 3), np.arange(6.0).reshape(3, 2)
    product = Product(data, matrix)
    assert len(product) == 4 and product.shape == (4, 2)
    np.testing.assert_array_equal(product[1:3], (data @ matrix)[1:3])
    np.testing.assert_array_equal(product[np.array([3, 0])], (data @ matrix)[[3, 0]])


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
