"""Stage 04 on drawn features, on hand-worked arrays, on degenerate data, and as a program."""

import csv
import json

import numpy as np
import pytest
from conftest import load_stage
from drawn_features import drawn, groups
from sklearn.metrics import adjusted_rand_score

import config
from pipeline.cluster_files import read_corrections
from pipeline.machinery import paths, records
from pipeline.machinery.errors import UserError

stage = load_stage("04.clustering_som.py")


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
    with (paths.data_dir(dataset) / "clusters.csv").open(encoding="utf-8", newline="") as handle:
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
    monkeypatch.setattr(stage, "train", lambda *_: pytest.fail("trained again"))
    finer, coarser = run(CLUSTER_GRANULARITY=1.5), run(CLUSTER_GRANULARITY=0.5)
    assert (len(set(finer)), len(set(coarser))) == (30, 10)
    for forced in (1, 7, 20, 200):
        assert len(set(run(CLUSTER_GRANULARITY=1.0, N_CLUSTERS=forced))) == forced
    assert record(folder)["n_clusters_interval"] == [200, 200]
    assert adjusted_rand_score(labels, run(N_CLUSTERS=0)) == 1


def test_more_clusters_than_images_is_refused(root):
    put(root, groups([10, 10])[0])
    with pytest.raises(UserError, match="only 20 different images"):
        run(N_CLUSTERS=21)


def test_curve_is_there(root):
    folder = put(root, groups([12] * 20)[0])
    run()
    curve = record(folder)["granularity_curve"]
    numbers = [point["n_clusters"] for point in curve]
    assert numbers == sorted(numbers) and {"granularity": 1.0, "n_clusters": 20} in curve


# ---- its parts --------------------------------------------------------------------------------------


def known_models(root, features, labels) -> None:
    """Write photographs of known models as stage 02 would."""
    folder = root / "model" / config.TRAIN_DATASET
    folder.mkdir(parents=True)
    np.savez(folder / "known_features.npz", features=features, labels=np.array([f"m{label}" for label in labels]))


def with_nuisance(sizes, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Models differ along 12 directions; light and ground differ by more along 8 others, alike for all models."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(sizes)), sizes)
    features = 0.1 * rng.standard_normal((len(labels), 64)).astype(np.float32)
    features[:, :12] += rng.standard_normal((len(sizes), 12))[labels] + 0.25 * rng.standard_normal((len(labels), 12))
    features[:, 12:20] += 1.6 * rng.standard_normal((len(labels), 8))
    return features, labels


def test_what_differs_within_models_is_learned_from_known_ones(root):
    features, labels = with_nuisance([3] * 20, seed=2)
    folder = put(root, features)
    without = adjusted_rand_score(labels, run())
    assert record(folder)["calibration"] == "the data itself"
    known_models(root, *with_nuisance([40] * 10, seed=3))
    assert adjusted_rand_score(labels, run()) > without + 0.1
    assert record(folder)["calibration"] == "known models" and record(folder)["n_known_models"] == 10


def test_known_models_seen_by_another_network_are_not_used(root):
    """features.json and known_features.npz both name their network; stage 03's file comes before stage 02's."""
    folder = put(root, groups([12] * 4)[0])
    known, labels = groups([30] * 8, seed=1)
    known_models(root, known, labels)
    known_path = root / "model" / config.TRAIN_DATASET / "known_features.npz"
    named = {"features": known, "labels": labels.astype(str)}
    for network, expected in (("this", "known models"), ("another", "the data itself")):
        records.write_record(folder / "features.json", {"network": "this"}, [folder / "features.npy"])
        np.savez(known_path, **named, network=np.array(network))
        run()
        assert record(folder)["calibration"] == expected
    np.savez(folder / "known_features.npz", **named, network=np.array("this"))
    run()
    assert record(folder)["calibration"] == "known models"


def test_one_model_alone_is_one_cluster_beside_known_models(root):
    known, labels = groups([30] * 8, seed=1)
    known_models(root, known, labels)
    put(root, groups([40], seed=2)[0])
    assert len(set(run())) == 1


def test_known_models_of_another_network_are_not_used(root, capsys):
    known_models(root, *groups([30] * 8, n_features=12))
    folder = put(root, groups([20] * 5)[0])
    assert len(set(run())) == 5
    assert record(folder)["calibration"] == "the data itself" and "not used" in capsys.readouterr().out


def test_models_of_very_different_sizes_are_found(root):
    sizes = [90, 40] + [5] * 10 + [2] * 30 + [1] * 40
    features, labels = groups(sizes, n_features=256)
    put(root, features)
    cluster = run()
    assert adjusted_rand_score(labels, cluster) > 0.98 and abs(len(set(cluster)) - len(sizes)) <= 6


def test_a_photograph_repeated_does_not_make_a_cluster(root):
    features, labels = groups([20, 20, 20], spread=0.5)
    more = np.concatenate([features, np.repeat(features[:1], 40, axis=0)])
    put(root, more)
    cluster = run()
    assert adjusted_rand_score(np.r_[labels, [0] * 40], cluster) == 1


# ---- degenerate data --------------------------------------------------------------------------------


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
    with pytest.raises(UserError, match=r"2 rows .* 4 \(0004.jpg\), 17 \(0017.jpg\)"):
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


def test_a_correction_of_a_photograph_that_is_gone_is_a_warning(root, capsys):
    put(root, groups([10, 10])[0])
    before = run()
    path = root / "data" / "x" / "corrections.csv"
    path.write_text("image_a,image_b,verdict\n0000.jpg,gone.jpg,same\n0000.jpg,0015.jpg,different\n", "utf-8")
    assert run().tolist() == before.tolist()
    assert (
        "1 of its lines are about photographs that are not among the images of x, and left out: line 2 (gone.jpg)"
        in capsys.readouterr().out
    )


@pytest.mark.parametrize("header", ["verdict", "relation", "note,verdict", "note,relation"])
def test_the_verdict_is_found_whatever_its_column_is_called(root, header):
    put(root, groups([3])[0])
    config.DATASET = "x"
    text = f"image_a,image_b,{header}\n0000.jpg,0001.jpg," + ("a note," if "note" in header else "") + "Same\n"
    (root / "data" / "x" / "corrections.csv").write_text(text, "utf-8")
    assert read_corrections("x", ["0000.jpg", "0001.jpg"]) == [(0, 1, True)]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("0000.jpg,0000.JPG,different", "line 2: 0000.jpg is called different from itself"),
        ("0000.jpg,,same", "line 2: no image_b"),
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
    with pytest.raises(UserError, match=message):
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


def test_a_chain_of_days_keeps_all_ids(root):
    features, labels = groups([30] * 8, spread=0.3)
    day = np.arange(len(labels)) % 3
    days = [(labels < 4) & (day == 0), (labels < 6) & (labels > 1) & (day == 1), day == 2]
    for number, rows in enumerate(days):
        put(root, features[rows], f"day{number}")
    found = [run("day0"), run("day1", ASSIGN_TO="day0"), run("day2", ASSIGN_TO="day1")]
    id_of: dict[int, int] = {}
    for rows, clusters in zip(days, found, strict=True):
        for label, cluster in zip(labels[rows], clusters, strict=True):
            assert id_of.setdefault(label, cluster) == cluster
    assert len(set(id_of.values())) == 8
    assert record(root / "data" / "day2")["assigned_to"] == "day1"
    # a day can't be assigned to one that rests on it
    with pytest.raises(UserError, match="was itself assigned to day0"):
        run("day0", ASSIGN_TO="day2")


def test_a_correction_of_assigned_images_changes_no_other_id(root):
    features, labels = groups([24] * 6, spread=0.3)
    old = np.arange(len(labels)) % 2 == 0
    put(root, features[old], "old")
    run("old")
    folder = put(root, features[~old], "new")
    before = run("new", ASSIGN_TO="old")
    (folder / "corrections.csv").write_text("image_a,image_b,verdict\n0000.jpg,0040.jpg,different\n")
    np.testing.assert_array_equal(run("new"), before)
    (folder / "corrections.csv").write_text("image_a,image_b,verdict\n0000.jpg,0001.jpg,different\n")
    after = run("new")
    assert after[0] != after[1] and after[:2].max() > before.max()
    assert (after[2:] == before[2:]).all()


def test_assignment_trains_nothing_again(root, monkeypatch):
    features, _ = groups([20] * 6)
    put(root, features[::2], "old")
    run("old")
    put(root, features[1::2], "new")
    monkeypatch.setattr(stage, "train", lambda *given: pytest.fail("trained again"))
    assert len(set(run("new", ASSIGN_TO="old"))) == 6


# ---- the way of 2019 ----------------------------------------------------------------------------------


def test_each_unit_with_images_is_a_cluster(root):
    features, _ = groups([12] * 20)
    folder = put(root, features)
    cluster = run(CLUSTER_METHOD="units", SOM_ROWS=4, SOM_COLS=3)
    with np.load(folder / "som.npz") as stored:
        assert stored["hits"].shape == (4, 3) and len(set(cluster)) == np.count_nonzero(stored["hits"]) > 6
        assert adjusted_rand_score(stored["unit_of_image"], cluster) == 1
    assert record(folder)["n_clusters_interval"] == [len(set(cluster))] * 2
    assert len(set(run(N_CLUSTERS=5))) == 5
    put(root, features[:1], "one")
    assert run("one", N_CLUSTERS=0).tolist() == [0]


def test_assign_to_other_features_is_refused(root):
    put(root, groups([10, 10])[0], "old")
    run("old")
    put(root, groups([10, 10], n_features=12)[0], "new")
    with pytest.raises(UserError, match="same network"):
        run("new", ASSIGN_TO="old")
    with pytest.raises(UserError, match="is DATASET itself"):
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
