"""The map: against MiniSom's own training and measures, and on degenerate data."""

import numpy as np
import pytest
from minisom import MiniSom
from threadpoolctl import threadpool_limits

from pipeline.clustering import som
from pipeline.clustering.directions import Directions


def images(n: int = 300, n_features: int = 16, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).random((n, n_features)).astype(np.float32)


@pytest.mark.parametrize("topology", ["rectangular", "hexagonal"])
@pytest.mark.parametrize("sigma_decay", ["asymptotic_decay", "linear_decay_to_one"])
def test_training_agrees_with_minisom(topology, sigma_decay):
    data = images()
    theirs, ours = (
        MiniSom(7, 6, 16, sigma=2.5, topology=topology, sigma_decay_function=sigma_decay, random_seed=3)
        for _ in range(2)
    )
    theirs.train_batch_offline(data.astype(np.float64), 8)
    som.train_batch(ours, data, 8)
    np.testing.assert_allclose(ours.get_weights(), theirs.get_weights(), atol=1e-5)


@pytest.mark.parametrize("topology", ["rectangular", "hexagonal"])
def test_measures_agree_with_minisom(topology):
    data = images()
    grid = som.new_map(6, 5, 16, topology, random_seed=0)
    som.train_batch(grid, data, 4)
    units, distances = som.assign(grid, data)
    assert [divmod(unit, 5) for unit in units[:, 0]] == [grid.winner(row) for row in data]
    assert distances[:, 0].mean() == pytest.approx(grid.quantization_error(data), abs=1e-6)
    assert som.topographic_error(grid, units) == pytest.approx(grid.topographic_error(data))


def test_chunks_and_threads_make_no_difference():
    data = images(1000, 64)
    results = []
    for chunk_rows, threads in ((7, 1), (1000, 1), (64, 2), (None, 2)):
        grid = som.new_map(9, 8, 64, "rectangular", random_seed=0)
        som.initialise(grid, data, "pca", 0)
        with threadpool_limits(threads):
            som.train_batch(grid, data, 10, chunk_rows)
        results.append(grid.get_weights())
    for weights in results[1:]:
        np.testing.assert_allclose(weights, results[0], atol=1e-5)


def test_training_reads_a_memory_map(tmp_path):
    data = images()
    np.save(tmp_path / "features.npy", data)
    mapped = np.load(tmp_path / "features.npy", mmap_mode="r", allow_pickle=False)
    results = []
    for source in (data, mapped):
        grid = som.new_map(4, 4, 16, "rectangular", random_seed=0)
        seen = Directions(source)
        som.initialise(grid, seen, "pca", 0)
        som.train_batch(grid, seen, 3, chunk_rows=50)
        results.append(grid.get_weights())
    np.testing.assert_array_equal(*results)


def test_other_neighbourhoods_are_refused():
    grid = MiniSom(3, 3, 16, neighborhood_function="bubble")
    with pytest.raises(ValueError, match="gaussian"):
        som.train_batch(grid, images(), 1)


def test_equal_distances_go_to_the_lower_unit():
    weights = np.array([[0.0, 1.0], [1.0, 0.0], [0.0, -1.0]])
    data = np.array([[1.0, 1.0], [1.0, -1.0], [0.0, -2.0]], np.float32)
    assert som.nearest_units(data, som.codebook_of(weights), 2).tolist() == [[0, 1], [1, 2], [2, 1]]


def test_pca_initialisation_spans_the_two_main_directions():
    rng = np.random.default_rng(0)
    data = np.zeros((500, 6), np.float32)
    data[:, 2], data[:, 4] = 5 * rng.standard_normal(500), 2 * rng.standard_normal(500)
    grid = som.new_map(5, 3, 6, "rectangular", random_seed=0)
    som.initialise(grid, data, "pca", 0)
    weights = grid.get_weights()
    # along the rows the longer axis, two standard deviations to each side
    np.testing.assert_allclose(weights[4, 1] - weights[0, 1], [0, 0, 20, 0, 0, 0], atol=1.5)
    np.testing.assert_allclose(weights[2, 2] - weights[2, 0], [0, 0, 0, 0, 8, 0], atol=1.0)


def test_sample_initialisation_takes_images():
    data = images(20)
    grid = som.new_map(3, 3, 16, "rectangular", random_seed=0)
    som.initialise(grid, data, "sample", 5)
    for unit in grid.get_weights().reshape(-1, 16):
        assert np.abs(data - unit).max(axis=1).min() < 1e-7


@pytest.mark.parametrize("value", [0.0, 3.0, 1e37, 1e-37])
def test_identical_images_have_no_direction(value):
    data = np.full((9, 5), value, np.float32)
    seen = Directions(data)
    assert not seen[:].any()
    grid = som.new_map(3, 2, 5, "hexagonal", random_seed=0)
    som.initialise(grid, seen, "pca", 0)
    som.train_batch(grid, seen, 3)
    assert np.isfinite(grid.get_weights()).all()
    assert not som.u_matrix(grid).any()


@pytest.mark.parametrize(("n_images", "shape"), [(1, (1, 1)), (3, (1, 1)), (12, (2, 2)), (999, (20, 16))])
def test_map_grows_with_the_images(n_images, shape):
    assert som.map_shape(n_images, 3, 3600) == shape


def test_map_has_at_most_the_units_asked_for():
    rows, cols = som.map_shape(1_000_000, 3, 3600)
    assert 3400 <= rows * cols <= 3600
    for n_images in range(1, 300):
        rows, cols = som.map_shape(n_images, 1, 10_000)
        assert 1 <= rows * cols <= n_images


def test_u_matrix_has_a_ridge_between_two_groups():
    weights = np.zeros((1, 6, 2))
    weights[0, 3:, 0] = 10
    ridge = som.u_matrix(som.from_weights(weights, "rectangular"))
    assert ridge[0].argmax() in (2, 3)
    assert ridge.max() == 1


def test_units_take_the_cluster_of_most_of_their_images():
    # unit 1 is empty and next to unit 0, unit 2 next to unit 3
    found = som.unit_clusters(np.array([5, 7, 5, 1]), np.array([0, 0, 0, 3]), (1, 4))
    assert found.tolist() == [[5, 5, 1, 1]]
