"""The search for each image's nearest ones: exact, and through the inverted file."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from drawn_features import drawn, groups

from pipeline.clustering import neighbours
from pipeline.clustering.directions import Directions
from pipeline.clustering.neighbours import Index, index_images, k_largest, nearest_images, nearest_to


def exact(data: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k nearest other rows of each row, by all pairs."""
    similarity = data @ data.T
    np.fill_diagonal(similarity, -np.inf)
    best = np.argsort(-similarity, axis=1, kind="stable")[:, :k]
    return best, np.take_along_axis(similarity, best, axis=1)


@pytest.fixture
def inverted(monkeypatch) -> None:
    """An inverted file also of few images."""
    monkeypatch.setattr(neighbours, "EXACT_IMAGES", 0)
    monkeypatch.setattr(neighbours, "BLOCK_IMAGES", 100)
    monkeypatch.setattr(neighbours, "BLOCK_VALUES", 3000)


def test_few_images_are_compared_with_all():
    data = Directions(groups([20] * 10)[0])[:]
    found, similarity = nearest_images(data, index_images(data, np.zeros(200, int)), 7)
    best, value = exact(data, 7)
    np.testing.assert_array_equal(found, best)
    np.testing.assert_allclose(similarity, value, atol=1e-6)


def test_many_images_are_found_through_their_lists(inverted, monkeypatch):
    monkeypatch.setattr(neighbours, "PROBES", 6)
    features, _ = groups([20] * 60, spread=0.35)
    data = Directions(features)[:]
    # units that hold two models each, and one image in five at random
    rng = np.random.default_rng(0)
    unit = np.where(rng.random(1200) < 0.2, rng.integers(30, size=1200), np.arange(1200) // 40)
    index = index_images(data, unit)
    assert sorted(index.images) == list(range(1200)) and index.starts[-1] == 1200
    found, similarity = nearest_images(data, index, 10)
    best, _ = exact(data, 10)
    assert np.mean([len(set(a) & set(b)) for a, b in zip(found, best, strict=True)]) > 9.9
    assert (found != np.arange(1200)[:, None]).all() and (np.diff(similarity, axis=1) <= 0).all()
    np.testing.assert_allclose(similarity, np.einsum("if,ikf->ik", data, data[found]), atol=1e-5)


def test_of_long_lists_neighbours_of_neighbours_find_more(inverted, monkeypatch):
    monkeypatch.setattr(neighbours, "PROBES", 2)
    features, _ = groups([20] * 120, spread=0.35)
    data = Directions(features)[:]
    rng = np.random.default_rng(0)
    unit = np.where(rng.random(2400) < 0.5, rng.integers(20, size=2400), np.arange(2400) // 120)
    best, recall = exact(data, 10)[0], []
    for longest in (2400, neighbours.LONG_LISTS):
        monkeypatch.setattr(neighbours, "LONG_LISTS", longest)
        found, similarity = nearest_images(data, index_images(data, unit), 10)
        recall.append(np.mean([len(set(a) & set(b)) / 10 for a, b in zip(found, best, strict=True)]))
        assert (found != np.arange(2400)[:, None]).all() and all(len(set(row)) == 10 for row in found)
        np.testing.assert_allclose(similarity, np.einsum("if,ikf->ik", data, data[found]), atol=1e-5)
    assert recall[0] < 0.9 and recall[1] > 0.95, recall


@pytest.mark.parametrize("n_units", [60, 30])  # short lists, and long ones
def test_several_workers_find_the_same(inverted, n_units):
    data = Directions(groups([20] * 60)[0])[:]
    unit = np.arange(1200) % n_units
    with ThreadPoolExecutor(2) as pool:
        several = nearest_images(data, index_images(data, unit, pool.map), 10, pool.map)
    for one, other in zip(several, nearest_images(data, index_images(data, unit), 10), strict=True):
        np.testing.assert_array_equal(one, other)


def test_more_lists_are_searched_where_those_near_hold_too_few(inverted, monkeypatch):
    monkeypatch.setattr(neighbours, "PROBES", 1)
    data = drawn(50)
    found, _ = nearest_images(data, index_images(data, np.arange(50)), 49)
    assert all(sorted([*row, i]) == list(range(50)) for i, row in enumerate(found))
    assert nearest_images(data, index_images(data, np.arange(50)), 60)[0].shape == (50, 49)


def test_a_list_of_most_images_is_split(inverted, monkeypatch):
    monkeypatch.setattr(neighbours, "SHORTEST_SPLIT", 40)
    monkeypatch.setattr(neighbours, "LONGEST", 2)
    monkeypatch.setattr(neighbours, "LONG_LISTS", 10_000)
    features, labels = groups([100, 900, 20, 20])
    data = Directions(features)[:]
    index = index_images(data, labels)
    assert np.diff(index.starts).max() <= 2 * 1040 // 4 and sorted(index.images) == list(range(1040))
    # identical images have no main direction
    assert len(index_images(np.zeros((200, 3), np.float32), np.zeros(200, int)).centres) == 1
    monkeypatch.setattr(neighbours, "LONGEST", 0.2)
    assert np.diff(index_images(np.zeros((200, 3), np.float32), np.zeros(200, int)).starts).max() <= 40


def test_new_rows_find_the_nearest_of_the_indexed_images(inverted):
    features, labels = groups([20] * 30)
    data = Directions(features)[:]
    index = index_images(data[::2], labels[::2])
    found, similarity = nearest_to(data[1::2], data[::2], index, 5)
    best = np.argsort(-(data[1::2] @ data[::2].T), axis=1)[:, :5]
    assert np.mean([len(set(a) & set(b)) for a, b in zip(found, best, strict=True)]) > 4.9
    np.testing.assert_allclose(similarity, np.einsum("if,ikf->ik", data[1::2], data[::2][found]), atol=1e-5)
    # a row that is one of them finds itself first
    assert nearest_to(data[:1], data[::2], index, 1)[0].tolist() == [[0]]


@pytest.mark.parametrize("n_columns", [5, 40, 1000])
def test_the_largest_values_are_sorted_with_ties_by_column(n_columns):
    values = np.random.default_rng(0).integers(0, 60, (30, n_columns)).astype(np.float32)
    columns, found = k_largest(values, 5)
    order = np.argsort(-values, axis=1, kind="stable")[:, :5]
    np.testing.assert_array_equal(columns, order)
    np.testing.assert_array_equal(found, np.take_along_axis(values, order, axis=1))


def test_one_list_by_hand():
    data = np.array([[1, 0], [0.6, 0.8], [0, 1]], np.float32)
    index = Index(data.mean(axis=0)[None], np.arange(3, dtype=np.int32), np.array([0, 3]))
    found, similarity = nearest_images(data, index, 1)
    assert found.tolist() == [[1], [2], [1]]
    np.testing.assert_allclose(similarity, [[0.6], [0.8], [0.8]], atol=1e-6)
