"""Stage 04 on drawn features, on hand-worked arrays, on degenerate data, and as a program."""

import csv
import json

import numpy as np
import pytest
from conftest import load_stage
from scipy.spatial.distance import cdist
from sklearn.metrics import adjusted_rand_score

import config
from pipeline import settings, som

stage = load_stage("04.clustering_som.py")


def groups(sizes, n_features: int = 48, spread: float = 0.25, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Features of images of one model each around its own direction, and their labels."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(sizes)), sizes)
    centres = rng.standard_normal((len(sizes), n_features))
    features = centres[labels] + spread * rng.standard_normal((len(labels), n_features)) * 2
    return features.astype(np.float32), labels


def put(root, features, dataset: str = "x", names: list[str] | None = None):
    """Write features and names as stage 03 would; returns the folder."""
    folder = root / "data" / dataset
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "features.npy", features)
    names = names or [f"{row:04d}.jpg" for row in range(len(features))]
    (folder / "img_paths.txt").write_text("".join(name + "\n" for name in names), encoding="utf-8")
    return folder


def run(dataset: str = "x", **overrides) -> np.ndarray:
    """Run the stage in this process; returns the clusters."""
    config.DATASET, config.N_JOBS = dataset, 1
    for name, value in overrides.items():
        setattr(config, name, value)
    stage.main()
    with (stage.files.data_dir(dataset) / "clusters.csv").open(encoding="utf-8", newline="") as handle:
        return np.array([int(row["cluster"]) for row in csv.DictReader(handle)])


def record(folder) -> dict:
    return json.loads((folder / "clustering.json").read_text(encoding="utf-8"))


# ---- the number of clusters -------------------------------------------------------------------------


@pytest.mark.parametrize("sizes", [[40, 30], [12] * 25, [5, 60, 9, 33, 20, 15, 7], [8] * 80])
def test_clusters_and_their_number_are_found(root, sizes):
    features, labels = groups(sizes)
    folder = put(root, features)
    cluster = run()
    assert adjusted_rand_score(labels, cluster) > 0.97
    # very uneven sizes may cost one
    assert abs(len(set(cluster)) - len(sizes)) <= 1
    # numbered by size
    assert np.all(np.diff(np.bincount(cluster)) <= 0)
    low, high = record(folder)["n_clusters_interval"]
    assert low <= len(set(cluster)) <= high


def test_length_of_the_features_does_not_matter(root):
    features, _ = groups([15] * 6)
    put(root, features, "long")
    put(root, features / np.linalg.norm(features, axis=1, keepdims=True), "unit")
    np.testing.assert_array_equal(run("long"), run("unit"))


def test_same_seed_same_files(root):
    features, _ = groups([15] * 6)
    folder = put(root, features)
    run()
    before = {name: (folder / name).read_bytes() for name in ("clusters.csv", "som.npz", "labels_pred.npy")}
    run(REDO=True)
    for name, content in before.items():
        assert (folder / name).read_bytes() == content


# ---- the files --------------------------------------------------------------------------------------


@pytest.mark.parametrize("topology", ["rectangular", "hexagonal"])
def test_files_fit_together(root, topology):
    features, _ = groups([20, 15, 10])
    folder = put(root, features, names=[f"가방 {row},1.jpg" for row in range(45)])
    cluster = run(SOM_TOPOLOGY=topology)
    with np.load(folder / "som.npz", allow_pickle=False) as stored:
        grid = {name: stored[name] for name in stored.files}
    said = record(folder)
    rows, cols, n_features = grid["weights"].shape
    assert (rows, cols, n_features) == (said["map_rows"], said["map_cols"], features.shape[1])
    assert str(grid["topology"]) == topology
    assert (
        grid["hits"].sum() == 45
        and (np.bincount(grid["unit_of_image"], minlength=rows * cols) == grid["hits"].ravel()).all()
    )
    assert grid["u_matrix"].shape == grid["unit_cluster"].shape == (rows, cols)
    assert np.all(np.diff(grid["cut_granularity"]) > 0)
    np.testing.assert_array_equal(grid["cut_clusters"][list(grid["cut_granularity"]).index(1.0)], cluster)
    np.testing.assert_array_equal(np.load(folder / "labels_pred.npy", allow_pickle=False), cluster)
    assert (folder / "labels_pred.txt").read_text().split() == [str(c) for c in cluster]
    tsv = (folder / "labels_pred.tsv").read_text(encoding="utf-8").splitlines()
    assert tsv[:2] == ["image\tcluster", f"가방 0,1.jpg\t{cluster[0]}"]
    with (folder / "clusters.csv").open(encoding="utf-8", newline="") as handle:
        lines = list(csv.DictReader(handle))
    assert ",".join(lines[0]) == "image,cluster,confidence,unit_row,unit_col,distance,runner_up,outlier"
    assert [int(x["unit_row"]) * cols + int(x["unit_col"]) for x in lines] == grid["unit_of_image"].tolist()
    assert all(0 <= float(x["confidence"]) <= 1 and x["runner_up"] != x["cluster"] for x in lines)
    assert said["quantization_error"] == pytest.approx(np.mean([float(x["distance"]) for x in lines]), abs=1e-5)


def test_units_take_the_cluster_of_most_of_their_images():
    nothing = np.empty(0)
    units = np.array([[0, 0], [0, 0], [0, 0], [3, 0]])
    training = stage.Training(np.zeros((1, 4, 2)), nothing, units, *[nothing] * 9)
    # unit 1 is empty and next to unit 0, unit 2 next to unit 3
    assert stage.unit_clusters(np.array([5, 7, 5, 1]), training).tolist() == [[5, 5, 1, 1]]


def test_unsure_images_are_those_between(root):
    features, labels = groups([40, 40, 40], spread=0.6)
    between = (features[labels == 0][:8] + features[labels == 1][:8]) / 2
    folder = put(root, np.concatenate([features, between]))
    run(OUTLIERS="nearest")
    with (folder / "clusters.csv").open(encoding="utf-8", newline="") as handle:
        sure = np.array([float(row["confidence"]) for row in csv.DictReader(handle)])
    assert sure[-8:].mean() < sure[:-8].mean() - 0.1


@pytest.mark.parametrize("choice", ["own cluster", "nearest"])
def test_outliers_are_marked(root, choice):
    features, labels = groups([30] * 6, n_features=1024)
    odd = np.random.default_rng(5).standard_normal((2, 1024)).astype(np.float32)
    folder = put(root, np.concatenate([features, odd]))
    cluster = run(OUTLIERS=choice)
    with (folder / "clusters.csv").open(encoding="utf-8", newline="") as handle:
        marked = [int(row["outlier"]) for row in csv.DictReader(handle)]
    assert marked == [0] * 180 + [1, 1]
    assert record(folder)["n_outliers"] == 2
    assert adjusted_rand_score(labels, cluster[:180]) == 1
    assert len(set(cluster)) == (8 if choice == "own cluster" else 6)


# ---- cutting ----------------------------------------------------------------------------------------


def test_granularity_and_number_cut_again_without_training(root, monkeypatch):
    features, labels = groups([12] * 20)
    folder = put(root, features)
    run()
    monkeypatch.setattr(stage, "train", lambda features: pytest.fail("trained again"))
    finer, coarser = run(CLUSTER_GRANULARITY=1.5), run(CLUSTER_GRANULARITY=0.5)
    assert (len(set(finer)), len(set(coarser))) == (30, 10)
    for forced in (1, 7, 20, 200):
        assert len(set(run(CLUSTER_GRANULARITY=1.0, N_CLUSTERS=forced))) == forced
    assert record(folder)["n_clusters_interval"] == [200, 200]
    assert adjusted_rand_score(labels, run(N_CLUSTERS=0)) == 1


def test_more_clusters_than_images_is_refused(root):
    put(root, groups([10, 10])[0])
    with pytest.raises(settings.UserError, match="only 20 different images"):
        run(N_CLUSTERS=21)


def test_curve_is_there(root):
    folder = put(root, groups([12] * 20)[0])
    run()
    curve = record(folder)["granularity_curve"]
    numbers = [point["n_clusters"] for point in curve]
    assert numbers == sorted(numbers) and {"granularity": 1.0, "n_clusters": 20} in curve


def test_merging_joins_the_most_linked_first():
    # images 0-1-2-3 in a chain of pairs, 4 and 5 apart
    cluster = np.array([0, 0, 1, 1, 2, 2], np.int32)
    neighbours = np.array([[1, 2], [2, 0], [3, 1], [2, 1], [5, 5], [4, 4]])
    assert stage.merged(cluster, neighbours, 2).tolist() == [0, 0, 0, 0, 1, 1]
    assert stage.merged(cluster, neighbours, 1).tolist() == [0] * 6


def test_numbers_by_size_with_ties_by_first_image():
    assert stage.by_size(np.array([4, 9, 9, 2, 4, 7])).tolist() == [0, 1, 1, 2, 0, 3]


# ---- its parts --------------------------------------------------------------------------------------


def test_neighbours_through_the_map_are_the_nearest(monkeypatch):
    monkeypatch.setattr(stage, "CANDIDATES", 150)
    monkeypatch.setattr(stage, "TILE_IMAGES", 30)
    features, _ = groups([20] * 30)
    data = som.Directions(features)
    grid = som.new_map(14, 14, 48, "rectangular", 0)
    som.initialise(grid, data, "pca", 0)
    som.train_batch(grid, data, 10)
    tiling = stage.tiles(grid.get_weights().astype(np.float32), som.assign(grid, data)[0][:, 0])
    members = np.concatenate([tile.members for tile in tiling])
    assert sorted(members) == list(range(600))
    assert max(len(tile.candidates) for tile in tiling) < 250
    found, similarity = stage.nearest_images(data, tiling, 10)
    exact = data[:] @ data[:].T
    np.fill_diagonal(exact, -np.inf)
    best = np.argsort(-exact, axis=1)[:, :10]
    hits = [len(set(a) & set(b)) for a, b in zip(found, best, strict=True)]
    assert np.mean(hits) > 9.9
    np.testing.assert_allclose(similarity, np.take_along_axis(exact, found, axis=1), atol=1e-5)


def test_one_unit_with_very_many_images_stays_linear(monkeypatch):
    monkeypatch.setattr(stage, "CANDIDATES", 50)
    monkeypatch.setattr(stage, "TILE_IMAGES", 20)
    weights = np.zeros((2, 1, 3), np.float32)
    tiling = stage.tiles(weights, np.zeros(1000, np.int64))
    assert sorted(np.concatenate([tile.members for tile in tiling])) == list(range(1000))
    assert all(set(tile.members) <= set(tile.candidates) for tile in tiling)
    assert max(len(tile.candidates) for tile in tiling) <= 120


def test_vote_moves_a_stray_image():
    cluster = np.array([0, 0, 0, 0, 1, 1, 1, 1], np.int32)
    neighbours = np.array([[1, 2], [0, 2], [0, 1], [4, 5], [5, 6], [4, 6], [5, 7], [6, 5]])
    similarity = np.full((8, 2), 0.9, np.float32)
    assert stage.voted(cluster, neighbours, similarity).tolist() == [0, 0, 0, 1, 1, 1, 1, 1]


def test_parts_that_nothing_links_are_taken_apart():
    # two rings of 6 images in one cluster; a finer partition knows them, another cuts across a ring
    ring = np.array([[(i + 1) % 6, (i - 1) % 6] for i in range(6)])
    neighbours = np.concatenate([ring, ring + 6])
    rings, across = np.repeat([0, 1], 6), np.array([0] * 3 + [1] * 9)
    cluster = np.zeros(12, np.int32)
    found = stage.taken_apart(cluster, [across, rings], neighbours)
    assert adjusted_rand_score(rings, found) == 1
    # one link of 12 between them: too little to hold them together; three of 12 hold
    neighbours[0, 1] = 6
    assert stage.taken_apart(cluster, [across, rings], neighbours).max() == 1
    neighbours[:2, 1] = 6
    assert stage.taken_apart(cluster, [across, rings], neighbours).max() == 0
    assert stage.taken_apart(cluster, [], neighbours).max() == 0


def test_stability_is_the_share_of_a_cluster_that_nearby_scales_find_again():
    halves, odd, whole = np.array([0, 0, 1, 1]), np.array([0, 1, 1, 1]), np.zeros(4, int)
    scales = [stage.Scale(k, cluster, 0.0) for k, cluster in ((10, halves), (10, odd), (1000, whole))]
    # {0, 1} and {0}: 1/2; {0, 1} and {1, 2, 3}: 1/4; {2, 3} and {1, 2, 3}: 2/3; the scale of 1000 is too far to count
    expected = [[1 / 2, 1 / 4, 2 / 3, 2 / 3]] * 2 + [[0] * 4]
    np.testing.assert_allclose(stage.stability(scales), expected, atol=1e-6)
    # at k = 12 the weight is exp(-ln(1.2)^2 / (2 * 0.4^2)), and the mean of one other scale is that scale
    scales = [stage.Scale(k, cluster, 0.0) for k, cluster in ((10, halves), (12, odd))]
    np.testing.assert_allclose(stage.stability(scales), expected[:2], atol=1e-6)


def test_the_scale_found_again_by_its_neighbours_is_taken():
    rng = np.random.default_rng(0)
    steady = np.repeat(np.arange(10), 12)
    scales = [stage.Scale(k, rng.permutation(np.arange(120) % n), 0.0) for k, n in ((2, 40), (3, 30), (30, 4))]
    scales[2:2] = [stage.Scale(k, steady, 0.0) for k in (8, 9, 10)]
    best, interval, _ = stage.best_scale(scales[::-1], seed=0)
    assert (scales[::-1][best].cluster == steady).all() and interval.tolist() == [10, 10]


def test_the_interval_holds_the_numbers_of_scales_that_hold_nearly_as_well():
    steady = np.repeat(np.arange(10), 12)
    finer = np.where(np.arange(120) < 6, 10, steady)  # one of ten clusters in two halves
    scales = [stage.Scale(k, steady, 0.0) for k in (8, 9, 10)] + [stage.Scale(12, finer, 0.0)]
    best, interval, _ = stage.best_scale(scales, seed=0)
    assert (scales[best].cluster == steady).all() and interval.tolist() == [10, 11]
    # in none of four clusters do the scales agree on more than a third: no longer nearly as well
    coarse = np.arange(120) % 4
    assert stage.best_scale([*scales[:3], stage.Scale(12, coarse, 0.0)], seed=0)[1].tolist() == [10, 10]


def test_the_finest_of_scales_that_hold_about_as_well():
    steady = np.repeat(np.arange(10), 100)
    halved = np.where(np.arange(1000) < 5, 10, steady)  # five images less in one of ten clusters
    scales = [stage.Scale(k, steady, 0.0) for k in (8, 9, 10)] + [stage.Scale(12, halved, 0.0)]
    assert stage.best_scale(scales, seed=0)[0] < 3
    best, interval, _ = stage.best_scale(scales, seed=0, finest=True)
    assert best == 3 and interval.tolist() == [10, 11]
    # every cluster in two halves: no longer about as well
    scales[3] = stage.Scale(12, np.repeat(np.arange(20), 50), 0.0)
    assert stage.best_scale(scales, seed=0, finest=True)[0] < 3


def test_quality_is_stability_and_silhouette_of_the_best_scale():
    halves = np.repeat([0, 1], 10)
    # equal partitions: each keeps all of its clusters, and the mean over scales of equal numbers is that of all
    scales = [stage.Scale(k, halves, apart) for k, apart in ((9, 0.2), (10, 0.4), (11, 0.6))]
    best, _, quality = stage.best_scale(scales, seed=0)
    assert best == 2 and quality == pytest.approx(1 + stage.HELD_APART * (0.9 * 0.4 + 0.1 * 0.6))


def test_a_cluster_whose_neighbours_are_elsewhere_is_joined():
    # images 0 to 5 have each other; 6 and 7 are a cluster, though both have only images of the first near
    neighbours = np.array([[1, 2], [0, 2], [0, 1], [4, 5], [3, 5], [3, 4], [0, 1], [0, 1]])
    cluster = np.array([0, 0, 0, 0, 0, 0, 1, 1], np.int32)
    assert stage.joined(cluster, neighbours).tolist() == [0] * 8
    # a pair that has each other nearest stays, whatever comes second
    neighbours[6:] = [[7, 0], [6, 0]]
    assert stage.joined(cluster, neighbours).tolist() == cluster.tolist()
    # two of a chain that lean on each other's neighbour end in one cluster, with it
    neighbours[6:] = [[0, 1], [6, 0]]
    assert stage.joined(np.array([0, 0, 0, 0, 0, 0, 1, 2]), neighbours).tolist() == [0] * 8


def test_silhouette_by_hand():
    # two pairs at right angles; the third of cluster 0 lies between
    data = np.array([[1, 0], [1, 0], [0.6, 0.8], [0, 1], [0, 1]], np.float32)
    tiling = [stage.Tile(np.arange(5), np.arange(5))]
    # image 2: a = 1 - 0.6 = 0.4, b = 1 - 0.8 = 0.2; image 0: a = (0 + 0.4) / 2, b = 1
    expected = [0.8, 0.8, -0.5, 1.0, 1.0]
    found = stage.silhouette(data, np.array([0, 0, 0, 1, 1]), tiling)
    # images 3 and 4: b is the mean of 1, 1 and 0.2
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert stage.silhouette(data, np.zeros(5, int), tiling).shape == (5,)
    some = stage.silhouette(data, np.array([0, 0, 0, 1, 1]), [stage.Tile(np.array([2, 4]), np.arange(5))])
    np.testing.assert_allclose(some, [np.nan, np.nan, -0.5, np.nan, 1.0], atol=1e-6)


def test_distances_are_evened_by_the_scatter_within_clusters():
    rng = np.random.default_rng(4)
    cluster = np.repeat([0, 1, 2], 40)
    data = (rng.standard_normal((120, 6)) * [5, 2, 1, 1, 1, 0.2] + 3 * cluster[:, None]).astype(np.float32)
    gap = data - np.stack([data[cluster == c].mean(axis=0) for c in range(3)])[cluster]
    scatter = gap.T @ gap
    shrunk = scatter + stage.SHRINK * np.trace(scatter) / 6 * np.eye(6)
    expected = cdist(data, data, "mahalanobis", VI=np.linalg.inv(shrunk))
    found = data @ stage.evened(data, cluster)
    np.testing.assert_allclose(cdist(found, found), expected, atol=1e-4)
    # nothing differs within clusters: all directions stay as they are
    data = np.repeat(np.eye(3, dtype=np.float32), 2, axis=0)
    np.testing.assert_allclose(stage.evened(data, np.repeat([0, 1, 2], 2)), np.eye(3), atol=1e-6)


def test_a_product_of_rows_and_a_matrix_is_computed_when_asked_for():
    data, matrix = np.arange(12.0).reshape(4, 3), np.arange(6.0).reshape(3, 2)
    product = stage.Product(data, matrix)
    assert len(product) == 4 and product.shape == (4, 2)
    np.testing.assert_array_equal(product[1:3], (data @ matrix)[1:3])
    np.testing.assert_array_equal(product[np.array([3, 0])], (data @ matrix)[[3, 0]])


def test_what_differs_within_clusters_is_evened_out(root):
    """Models differ a little along 12 directions, light and ground by more along 8 others, for all models alike."""
    rng = np.random.default_rng(2)
    labels = np.repeat(np.arange(12), 20)
    models, nuisance = rng.standard_normal((12, 12)), 1.2 * rng.standard_normal((240, 8))
    features = 0.1 * rng.standard_normal((240, 64)).astype(np.float32)
    features[:, :12] = models[labels] + 0.25 * rng.standard_normal((240, 12))
    features[:, 12:20] = nuisance
    put(root, features)
    found = adjusted_rand_score(labels, run())
    with np.load(root / "data" / "x" / "som.npz") as stored:
        data = som.Directions(features)[:]
        once = stage.grouped(data, stage.tiled(data, stored["unit_of_image"], stored["hits"].shape), finest=True)
    before = adjusted_rand_score(labels, once.partitions[once.predicted])
    assert found > max(0.87, before + 0.03)


def test_what_differs_is_found_on_a_bounded_number_of_images():
    tiling = [stage.Tile(np.arange(start, start + 100), np.arange(5000)) for start in range(0, 5000, 100)]
    some = stage.picked(tiling)
    # 20 of the 50 tiles, whole, the first and the last among them
    assert len(some) == stage.EVENED_IMAGES == 2000 and (np.diff(some) > 0).all()
    assert (np.bincount(some // 100, minlength=50) % 100 == 0).all() and some[0] == 0 and some[-1] == 4999
    assert stage.picked(tiling[:20]).tolist() == list(range(2000))
    assert len(stage.picked([stage.Tile(np.arange(3000), np.arange(3000))])) == 3000


@pytest.mark.parametrize("better", ["predicted", "nearest", "none"])
def test_the_evening_that_makes_clusters_hold_best_is_taken(monkeypatch, better):
    rng = np.random.default_rng(5)
    data = som.Directions(rng.standard_normal((90, 16)).astype(np.float32))[:]
    tiling = [stage.Tile(np.arange(90), np.arange(90))]
    first = stage.grouped(data, tiling)
    assert stage.grouped(data, tiling, finest=True).apart == first.apart  # one scale holds best by far
    cluster = stage.grouped_at(data, tiling, stage.EVENED_AT)
    for _ in range(2):
        cluster = stage.grouped_at(som.Directions(data @ stage.evened(data, cluster))[:], tiling, stage.EVENED_AT)
    expected = first.partitions[first.predicted] if better == "predicted" else cluster
    # with the evening by the predicted clusters, by nearest neighbours: quality, and silhouette more than without
    said = {
        "predicted": [(0.7, 0.0), (0.6, 0.1)],
        "nearest": [(0.6, -0.1), (0.7, 0.1)],
        "none": [(0.7, -0.01), (0.6, 0.1)],
    }
    grouped, scores = stage.grouped, iter(said[better])

    def scored(*given):
        quality, more = next(scores)
        return grouped(*given)._replace(quality=quality, apart=first.apart + more)

    monkeypatch.setattr(stage, "grouped", scored)
    chosen = stage.best_evening(data, tiling)
    if better == "none":
        assert chosen is None
        return
    k, matrix = chosen
    assert k == (first.k if better == "predicted" else stage.EVENED_AT)
    np.testing.assert_allclose(matrix, stage.evened(data, expected), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("m", [4, 5, 9, 20])
def test_evening_of_few_images(m):
    data = som.Directions(np.random.default_rng(m).standard_normal((m, 8)).astype(np.float32))[:]
    found = stage.best_evening(data, [stage.Tile(np.arange(m), np.arange(m))])
    assert found is None or (found[1].shape == (8, 8) and np.isfinite(found[1]).all())


def test_repeated_images_count_once():
    rows, first_of = stage.different(np.array([[1.0, 2.0], [3.0, 4.0], [1.0, 2.0], [5.0, 6.0]]))
    assert rows.tolist() == [0, 1, 3] and first_of.tolist() == [0, 1, 0, 2]


def test_a_photograph_repeated_does_not_make_a_cluster(root):
    features, labels = groups([20, 20, 20], spread=0.5)
    more = np.concatenate([features, np.repeat(features[:1], 40, axis=0)])
    put(root, more)
    cluster = run()
    assert adjusted_rand_score(np.r_[labels, [0] * 40], cluster) == 1


# ---- degenerate data --------------------------------------------------------------------------------


def drawn(n: int, n_features: int = 8) -> np.ndarray:
    return np.random.default_rng(n).random((n, n_features)).astype(np.float32)


@pytest.mark.parametrize(
    ("features", "n_clusters"),
    [
        (drawn(1), 1),
        (drawn(2), 2),
        (drawn(3), 3),
        (np.repeat(drawn(1), 50, axis=0), 1),
        (np.full((40, 16), 3.0), 1),
        (np.zeros((12, 16)), 1),
        (groups([30, 20], spread=0.001)[0], 2),
        (groups([3, 2], spread=0.001)[0], 2),
        (np.repeat(groups([1, 1])[0], [20, 5], axis=0), 2),
    ],
    ids=["one", "two", "three", "identical", "constant", "zeros", "tight", "tiny", "two images many times"],
)
def test_degenerate_features(root, features, n_clusters):
    folder = put(root, features.astype(np.float32))
    assert len(set(run())) == n_clusters
    assert all(np.isfinite(record(folder)[name]) for name in ("quantization_error", "topographic_error"))


@pytest.mark.parametrize("n_images", [4, 5, 6, 9])
def test_few_images(root, n_images):
    put(root, drawn(n_images))
    assert 1 <= len(set(run(SOM_IMAGES_PER_UNIT=1.0))) <= n_images


def test_more_units_than_different_images(root):
    features = np.repeat(groups([4, 4], spread=0.05)[0], 30, axis=0)
    put(root, features)
    assert len(set(run(SOM_IMAGES_PER_UNIT=1.0))) == 2


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_rows_that_are_not_finite_are_named(root, bad):
    features = drawn(30)
    features[[4, 17], [0, 3]] = bad
    put(root, features)
    with pytest.raises(settings.UserError, match=r"2 rows .* 4 \(0004.jpg\), 17 \(0017.jpg\)"):
        run()
    assert not (root / "data" / "x" / "clusters.csv").exists()


def test_float16_and_float64_are_taken(root):
    features, labels = groups([15, 15, 15])
    for kind in (np.float16, np.float64):
        put(root, features.astype(kind), kind.__name__)
        assert adjusted_rand_score(labels, run(kind.__name__)) == 1


# ---- corrections ------------------------------------------------------------------------------------


def correct(root, *lines: tuple[int, int, str]) -> None:
    text = "image_a,image_b,verdict\n" + "".join(f"{a:04d}.jpg,{b:04d}.jpg,{verdict}\n" for a, b, verdict in lines)
    (root / "data" / "x" / "corrections.csv").write_text(text, encoding="utf-8")


def test_corrections_are_kept(root):
    features, _ = groups([20, 20, 20, 20])
    put(root, features)
    assert len(set(run())) == 4
    correct(root, (0, 20, "same"), (41, 42, "different"), (60, 61, "different"), (60, 62, "different"))
    cluster = run()
    # two sure images: their clusters are one model
    assert len(set(cluster[:40])) == 1
    assert cluster[41] != cluster[42] and cluster[60] not in (cluster[61], cluster[62])
    # one stray image leaves, the cluster stays whole
    assert len(set(cluster[40:60])) == 2 and np.bincount(cluster[40:60]).max() == 19
    (root / "data" / "x" / "corrections.csv").unlink()
    assert len(set(run())) == 4


def test_a_cluster_of_two_models_is_cut_in_two():
    features, labels = groups([10, 12])
    data = som.Directions(features)[:]
    cluster, sure, runner_up = np.zeros(22, int), np.ones(22), np.full(22, -1)
    found = stage.corrected(cluster, sure, runner_up, data, [], [(0, 15)])
    assert adjusted_rand_score(labels, found) == 1


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("0000.jpg,9999.jpg,same", "line 2: '9999.jpg' is no image of x"),
        ("0000.jpg,0001.jpg,perhaps", "line 2: 'perhaps' must be same or different"),
        (
            "0000.jpg,0001.jpg,same\n0001.jpg,0002.jpg,same\n0002.jpg,0000.jpg,different",
            "other lines make them the same",
        ),
    ],
)
def test_bad_corrections_are_said(root, line, message):
    put(root, groups([10, 10])[0])
    (root / "data" / "x" / "corrections.csv").write_text("image_a,image_b,verdict\n" + line + "\n")
    with pytest.raises(settings.UserError, match=message):
        run()


# ---- the clusters of an earlier run -----------------------------------------------------------------


def test_new_images_join_old_clusters_or_are_new(root):
    features, labels = groups([24] * 8, spread=0.3)
    old = (labels < 5) & (np.arange(len(labels)) % 2 == 0)
    folder = put(root, features[old], "old")
    before = run("old")
    kept = (folder / "clusters.csv").read_bytes()
    put(root, features[~old], "new")
    after = run("new", ASSIGN_TO="old")
    id_of = {label: before[labels[old] == label][0] for label in range(5)}
    for label, cluster in zip(labels[~old], after, strict=True):
        assert cluster == id_of[label] if label < 5 else cluster > before.max()
    assert adjusted_rand_score(labels[~old], after) == 1
    assert (folder / "clusters.csv").read_bytes() == kept


def test_assign_to_other_features_is_refused(root):
    put(root, groups([10, 10])[0], "old")
    run("old")
    put(root, groups([10, 10], n_features=12)[0], "new")
    with pytest.raises(settings.UserError, match="same network"):
        run("new", ASSIGN_TO="old")
    with pytest.raises(settings.UserError, match="is DATASET itself"):
        run("new", ASSIGN_TO="new")


# ---- as a program -----------------------------------------------------------------------------------


def test_program(root, run_stage):
    put(root, groups([15, 15, 15])[0])
    first = run_stage("04.clustering_som.py", "--DATASET=x")
    assert first.returncode == 0, first.stderr
    assert "3 clusters" in first.stdout and "45 images in = 45 out + 0 skipped" in first.stdout
    assert "unchanged" in run_stage("04.clustering_som.py", "--DATASET=x").stdout
    missing = run_stage("04.clustering_som.py", "--DATASET=nothing")
    assert missing.returncode == 1
    assert missing.stderr == "error: data/nothing/features.npy not found: run 03.feature_extraction.py first\n"


def test_program_uses_several_workers(root, run_stage):
    features, labels = groups([10] * 210)
    folder = put(root, features)
    done = run_stage("04.clustering_som.py", "--DATASET=x", "--N_JOBS=2", "--SOM_EPOCHS=3")
    assert done.returncode == 0, done.stderr
    assert adjusted_rand_score(labels, np.load(folder / "labels_pred.npy", allow_pickle=False)) > 0.97
