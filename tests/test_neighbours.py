"""The search for each image's nearest ones through the map."""

import numpy as np
from drawn_features import groups

from pipeline.clustering import neighbours, som
from pipeline.clustering.directions import Directions


def test_neighbours_through_the_map_are_the_nearest(monkeypatch):
    monkeypatch.setattr(neighbours, "CANDIDATES", 150)
    monkeypatch.setattr(neighbours, "TILE_IMAGES", 30)
    features, _ = groups([20] * 30)
    data = Directions(features)
    grid = som.new_map(14, 14, 48, "rectangular", 0)
    som.initialise(grid, data, "pca", 0)
    som.train_batch(grid, data, 10)
    tiling = neighbours.tiles(grid.get_weights().astype(np.float32), som.assign(grid, data)[0][:, 0])
    members = np.concatenate([tile.members for tile in tiling])
    assert sorted(members) == list(range(600))
    assert max(len(tile.candidates) for tile in tiling) < 250
    found, similarity = neighbours.nearest_images(data, tiling, 10)
    exact = data[:] @ data[:].T
    np.fill_diagonal(exact, -np.inf)
    best = np.argsort(-exact, axis=1)[:, :10]
    hits = [len(set(a) & set(b)) for a, b in zip(found, best, strict=True)]
    assert np.mean(hits) > 9.9
    np.testing.assert_allclose(similarity, np.take_along_axis(exact, found, axis=1), atol=1e-5)


def test_one_unit_with_very_many_images_stays_linear(monkeypatch):
    monkeypatch.setattr(neighbours, "CANDIDATES", 50)
    monkeypatch.setattr(neighbours, "TILE_IMAGES", 20)
    weights = np.zeros((2, 1, 3), np.float32)
    tiling = neighbours.tiles(weights, np.zeros(1000, np.int64))
    assert sorted(np.concatenate([tile.members for tile in tiling])) == list(range(1000))
    assert all(set(tile.members) <= set(tile.candidates) for tile in tiling)
    assert max(len(tile.candidates) for tile in tiling) <= 120
