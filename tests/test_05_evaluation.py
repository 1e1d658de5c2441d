"""Stage 05 against scikit-learn, worked examples and counts made by hand."""

import json

import numpy as np
import pytest
from conftest import load_stage
from sklearn import metrics
from sklearn.metrics.cluster import contingency_matrix
from sklearn.metrics.cluster import expected_mutual_information as sklearn_expected

from pipeline.clustering import directions
from pipeline.machinery import files, records
from pipeline.scoring.contingency import cross_tabulate, find_merged_models, find_split_models
from pipeline.scoring.intervals import bootstrap_intervals
from pipeline.scoring.scores import SCORE_NAMES, clusters_error_percent, compute_scores, expected_mutual_information
from pipeline.scoring.silhouette import mean_silhouette

evaluation = load_stage("05.evaluation.py")

TRUE = ["01", "01", "01", "02", "02", "03"]
SKLEARN = {
    "ari": metrics.adjusted_rand_score,
    "ami": metrics.adjusted_mutual_info_score,
    "nmi": metrics.normalized_mutual_info_score,
    "homogeneity": metrics.homogeneity_score,
    "completeness": metrics.completeness_score,
    "v_measure": metrics.v_measure_score,
    "fowlkes_mallows": metrics.fowlkes_mallows_score,
}


def scored(true: list, pred: list) -> dict[str, float]:
    return compute_scores(cross_tabulate(list(map(str, true)), list(map(str, pred))))


def noisy(n_models: int, n_images: int, mixed: float, seed: int) -> tuple[list[str], list[str]]:
    """Labels of random models and clusters that agree but for a share `mixed`."""
    rng = np.random.default_rng(seed)
    true = rng.integers(0, n_models, n_images)
    pred = np.where(rng.random(n_images) < mixed, rng.integers(0, n_models + 3, n_images), true)
    return [str(label) for label in true], [str(label) for label in pred]


@pytest.mark.parametrize(
    ("pred", "ari"),
    [(["01", "01", "02", "02", "03", "04"], 0.189), (["01", "01", "01", "02", "03", "04"], 0.815)],
)
def test_ari_of_the_worked_examples_of_the_task(pred, ari):
    assert round(scored(TRUE, pred)["ari"], 3) == ari


@pytest.mark.parametrize(("n_models", "n_images", "mixed"), [(2, 20, 0.3), (5, 60, 0.5), (40, 900, 0.2), (30, 300, 1)])
def test_scores_are_those_of_scikit_learn(n_models, n_images, mixed):
    for seed in range(5):
        true, pred = noisy(n_models, n_images, mixed, seed)
        ours = scored(true, pred)
        for name, function in SKLEARN.items():
            assert ours[name] == pytest.approx(function(true, pred), abs=1e-9), name
        (_, false_positive), (false_negative, together) = metrics.cluster.pair_confusion_matrix(true, pred)
        assert ours["pairwise_precision"] == pytest.approx(together / (together + false_positive))
        assert ours["pairwise_recall"] == pytest.approx(together / (together + false_negative))


@pytest.mark.parametrize("sizes", [(1,), (1, 1, 1), (3,), (500, 1), (700, 300), (40, 40, 40, 1, 1)])
def test_expected_mutual_information_is_that_of_scikit_learn(sizes):
    true = np.repeat(np.arange(len(sizes)), sizes)
    pred = np.arange(len(true)) % 7
    table = contingency_matrix(true, pred, sparse=True)
    ours = expected_mutual_information(np.bincount(true), np.bincount(pred))
    assert ours == pytest.approx(sklearn_expected(table, len(true)), abs=1e-9)


def test_scores_worked_by_hand():
    # model A: 3 images in cluster 0, 1 in cluster 1; model B: 2 images in cluster 1
    ours = scored(list("AAAABB"), [0, 0, 0, 1, 1, 1])
    # BCubed precision: three images see 3/3, the fourth of A sees 1/3, those of B see 2/3
    assert ours["bcubed_precision"] == pytest.approx((3 + 1 / 3 + 2 * 2 / 3) / 6)
    # BCubed recall: three images see 3/4 of A, one 1/4, those of B see 2/2
    b_recall = (3 * 3 / 4 + 1 / 4 + 2) / 6
    assert ours["bcubed_recall"] == pytest.approx(b_recall)
    b_precision = ours["bcubed_precision"]
    assert ours["bcubed_f1"] == pytest.approx(2 * b_precision * b_recall / (b_precision + b_recall))
    # together: 3 + 1 pairs; in one cluster: 3 + 3; of one model: 6 + 1
    assert (ours["pairwise_precision"], ours["pairwise_recall"]) == pytest.approx((4 / 6, 4 / 7))
    assert ours["hungarian_accuracy"] == pytest.approx(5 / 6)
    assert ours["purity"] == pytest.approx(5 / 6)


def test_hungarian_accuracy_takes_a_cluster_for_one_model_only():
    ours = scored(list("AAAB"), [0, 0, 0, 0])
    assert ours["hungarian_accuracy"] == ours["purity"] == 0.75
    assert scored(list("AABB"), [0, 1, 2, 3])["hungarian_accuracy"] == 0.5
    assert scored(list("AABB"), [0, 1, 2, 3])["purity"] == 1


@pytest.mark.parametrize("labels", [["a"], ["a", "a"], ["a", "b"], ["a", "b", "b"]])
def test_a_perfect_result_scores_1_however_small(labels):
    assert scored(labels, labels) == pytest.approx(dict.fromkeys(SCORE_NAMES, 1.0))


def test_everything_in_one_cluster_and_everything_alone_have_an_ari_of_0():
    joined, alone = scored(list("AABB"), [0] * 4), scored(list("AABB"), [0, 1, 2, 3])
    assert joined["ari"] == alone["ari"] == 0
    assert (joined["ami"], alone["ami"]) == pytest.approx((0, 0), abs=1e-12)
    assert joined["pairwise_recall"] == alone["pairwise_precision"] == 1
    assert all(np.isfinite(list(result.values())).all() for result in (joined, alone))


def test_weights_of_one_change_nothing_and_a_weight_of_zero_removes_a_model():
    true, pred = noisy(6, 80, 0.4, seed=1)
    table = cross_tabulate(true, pred)
    assert compute_scores(table, np.ones(6, int)) == compute_scores(table)
    kept = [(t, p) for t, p in zip(true, pred, strict=True) if t != table.models[2]]
    weights = np.ones(6, int)
    weights[2] = 0
    assert compute_scores(table, weights) == pytest.approx(scored(*zip(*kept, strict=True)), abs=1e-12)


def test_pairs_of_a_model_drawn_twice_count_twice_and_those_between_its_copies_not_at_all():
    # model A: 2 images together; model B: 1 image in A's cluster, 1 alone; B drawn twice
    table = cross_tabulate(list("AABB"), list("0001"))
    ours = compute_scores(table, np.array([1, 2]))
    # one cluster: A's pair, and A's 2 images with the 2 copies of B's first; one model: A's pair, two pairs of B
    assert ours["pairwise_precision"] == pytest.approx(1 / 5)
    assert ours["pairwise_recall"] == pytest.approx(1 / 3)


def test_intervals_hold_the_value_shrink_with_more_models_and_repeat_with_the_seed():
    widths = []
    for n_models in (10, 160):
        true, pred = noisy(n_models, n_models * 20, 0.2, seed=3)
        table = cross_tabulate(true, pred)
        result, error = bootstrap_intervals(table, 200, seed=0)
        assert (result, error) == bootstrap_intervals(table, 200, seed=0)
        for score in [*result.values(), error]:
            assert score["low"] <= score["value"] <= score["high"]
        widths.append(result["ari"]["high"] - result["ari"]["low"])
    assert widths[1] < widths[0] / 2


def test_one_model_has_no_interval():
    result, error = bootstrap_intervals(cross_tabulate(["A"] * 3, list("001")), 100, seed=0)
    assert result["ari"] == {"value": 0.0, "low": None, "high": None}
    assert error == {"value": 100.0, "low": None, "high": None}


def test_error_in_the_number_of_clusters():
    assert clusters_error_percent(cross_tabulate(list("AABB"), list("0123"))) == 100
    table = cross_tabulate(list("AABB"), list("0000"))
    assert clusters_error_percent(table) == -50
    # drawn twice, a model that has half a cluster to itself has two halves for two models
    assert clusters_error_percent(table, np.array([2, 0])) == -50


def test_the_right_number_of_clusters_has_no_error_and_no_sign():
    rng = np.random.default_rng(0)
    for _ in range(50):
        n = int(rng.integers(3, 13))
        labels = np.concatenate([np.arange(n), rng.integers(n, size=100)]).astype(str).tolist()
        clusters = np.concatenate([np.arange(n), rng.integers(n, size=100)]).astype(str).tolist()
        assert f"{clusters_error_percent(cross_tabulate(labels, clusters)):+.0f}" == "+0"


def test_most_split_and_most_merged():
    true = ["A"] * 6 + ["B"] * 4 + ["C"] * 3
    pred = [0, 0, 0, 0, 1, 2, 1, 1, 1, 3, 4, 4, 4]
    table = cross_tabulate(true, [str(cluster) for cluster in pred])
    split = find_split_models(table)
    assert [(item["model"], item["n_images"], item["pairs_lost"]) for item in split] == [("A", 6, 9), ("B", 4, 3)]
    assert split[0]["clusters"][0] == {"cluster": "0", "n_images": 4}
    assert [part["n_images"] for part in split[0]["clusters"]] == [4, 1, 1]
    assert find_merged_models(table) == [
        {"models": ["A", "B"], "pairs_wrong": 3, "clusters": [{"cluster": "1", "n_images": [1, 3]}]}
    ]


def test_merged_pairs_add_up_over_clusters():
    merged = find_merged_models(cross_tabulate(list("AAABBB"), list("000111")[::-1]))
    assert merged == []
    merged = find_merged_models(cross_tabulate(list("AABB"), list("0101")))
    assert merged[0]["pairs_wrong"] == 2
    assert len(merged[0]["clusters"]) == 2


def test_silhouette_is_scikit_learns_and_none_where_it_is_not_defined(monkeypatch):
    rng = np.random.default_rng(0)
    features = rng.normal(size=(40, 5)).astype(np.float32)
    labels = [*(str(i % 3) for i in range(39)), "alone"]
    expected = metrics.silhouette_score(features, labels, metric="cosine")
    assert mean_silhouette(features, labels) == pytest.approx(expected, abs=1e-6)
    monkeypatch.setattr(directions, "CHUNK_VALUES", 35)
    assert mean_silhouette(features, labels) == pytest.approx(expected, abs=1e-6)
    assert mean_silhouette(features, ["0"] * 40) is None
    assert mean_silhouette(features, [str(i) for i in range(40)]) is None
    features[:3] = 0  # an image of nothing: at a right angle to all others
    expected = metrics.silhouette_score(features, labels, metric="cosine")
    assert mean_silhouette(features, labels) == pytest.approx(expected, abs=1e-6)


def test_silhouette_of_identical_images_in_two_clusters_is_within_its_range():
    row = np.random.default_rng(0).normal(size=(1, 300)).astype(np.float32)
    assert abs(mean_silhouette(np.repeat(row, 40, axis=0), ["0"] * 17 + ["1"] * 23)) <= 1


def test_known_and_new_models_are_scored_apart():
    result = evaluation.evaluate([*list("AABBCC"), ""], list("0012233"), known={"A", "Z"}, n_resamples=20, seed=0)
    assert (result["n_labelled"], result["n_models"], result["n_clusters_labelled"]) == (6, 3, 4)
    assert result["known"]["scores"]["ari"]["value"] == 1
    assert (result["new"]["n_models"], result["new"]["n_images"]) == (2, 4)
    new = metrics.adjusted_rand_score(list("BBCC"), list("1223"))
    assert result["new"]["scores"]["ari"]["value"] == pytest.approx(new)
    assert evaluation.evaluate(list("AABB"), list("0011"), known=set(), n_resamples=20, seed=0)["known"] is None


# ---- the stage as a program ------------------------------------------------------------------------


def write_data(root, labels: list[str] | None, clusters: list[int]) -> list[str]:
    folder = root / "data" / "d"
    names = [f"가방 {i}, 1.jpg" for i in range(len(clusters))]
    rng = np.random.default_rng(0)
    features = np.eye(max(clusters) + 1)[clusters] + rng.normal(scale=0.01, size=(len(clusters), max(clusters) + 1))
    files.write_npy(folder / "features.npy", features.astype(np.float32))
    files.write_lines(folder / "img_paths.txt", names)
    files.write_csv(folder / "clusters.csv", ["image", "cluster"], zip(names, clusters, strict=True))
    files.write_json(folder / "clustering.json", {"quantization_error": 0.25, "topographic_error": 0.5})
    if labels:
        files.write_csv(folder / "labels_true.csv", ["image", "label"], zip(names, labels, strict=True))
    return names


def test_main_prints_the_ari_first_and_writes_what_it_prints(root, run_stage):
    write_data(root, ["7"] * 4 + ["8"] * 4 + [""], [0, 0, 0, 1, 1, 1, 1, 1, 0])
    done = run_stage("05.evaluation.py", "--DATASET=d", "--BOOTSTRAP_RESAMPLES=50")
    assert done.returncode == 0, done.stderr
    result = json.loads((root / "result/d/evaluation.json").read_text(encoding="utf-8"))
    lines = [line for line in done.stdout.splitlines() if not line.startswith(("DATASET", "BOOTSTRAP"))]
    expected = metrics.adjusted_rand_score([7] * 4 + [8] * 4, [0, 0, 0, 1, 1, 1, 1, 1])
    assert result["scores"]["ari"]["value"] == pytest.approx(expected)
    assert lines[0].startswith(f"Adjusted Rand Index (ARI)     {expected:.3f}")
    assert lines[-1].startswith("9 images in = 9 out + 0 skipped; wrote result/d/evaluation.json in ")
    assert (result["n_images"], result["n_clusters"], result["n_models"]) == (9, 2, 2)
    assert (result["quantization_error"], result["topographic_error"]) == (0.25, 0.5)
    assert any("1 of 9 images have no label" in warning for warning in result["warnings"])

    again = run_stage("05.evaluation.py", "--DATASET=d", "--BOOTSTRAP_RESAMPLES=50")
    assert again.stdout.splitlines()[-1].startswith("unchanged: result/d/evaluation.json")
    assert lines[0] in again.stdout


def test_main_without_labels_has_silhouette_and_no_scores(root, run_stage):
    write_data(root, None, [0, 0, 1, 1])
    done = run_stage("05.evaluation.py", "--DATASET=d")
    assert done.returncode == 0, done.stderr
    result = json.loads((root / "result/d/evaluation.json").read_text(encoding="utf-8"))
    assert result["scores"] == {} and result["n_models"] is None
    assert result["silhouette"] > 0.9
    assert "Silhouette" in done.stdout and "ARI" not in done.stdout


def test_random_initial_weights_are_warned_of(root, run_stage):
    write_data(root, None, [0, 0, 1, 1])
    folder = root / "data/d"
    records.write_record(folder / "features.json", {}, [folder / "features.npy"], initial_weights="random")
    done = run_stage("05.evaluation.py", "--DATASET=d")
    assert "warning: the network began with random weights" in done.stdout


def test_one_image_is_enough(root, run_stage):
    write_data(root, ["7"], [0])
    done = run_stage("05.evaluation.py", "--DATASET=d")
    assert done.returncode == 0, done.stderr
    assert "not defined" in done.stdout


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        ("no clusters", "data/d/clusters.csv not found: run 04.clustering_som.py first"),
        ("other images", "other images than features.npy"),
        ("other labels", "names none of the images"),
    ],
)
def test_bad_input_ends_in_one_sentence_and_keeps_the_earlier_result(root, run_stage, damage, sentence):
    names = write_data(root, ["7", "7", "8"], [0, 0, 1])
    assert run_stage("05.evaluation.py", "--DATASET=d").returncode == 0
    before = (root / "result/d/evaluation.json").read_bytes()
    folder = root / "data/d"
    if damage == "no clusters":
        (folder / "clusters.csv").unlink()
    elif damage == "other images":
        files.write_lines(folder / "img_paths.txt", names[::-1])
    else:
        files.write_csv(folder / "labels_true.csv", ["image", "label"], [("x.jpg", "7")])
    done = run_stage("05.evaluation.py", "--DATASET=d")
    assert done.returncode == 1
    assert sentence in done.stderr and len(done.stderr.splitlines()) == 1
    assert (root / "result/d/evaluation.json").read_bytes() == before
