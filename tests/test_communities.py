"""Links between images, communities of links, the partition that holds best, odd photographs."""

import numpy as np
from drawn_features import groups
from sklearn.metrics import adjusted_rand_score, silhouette_samples

from pipeline.clustering.communities import find_communities, link_images
from pipeline.clustering.directions import Directions
from pipeline.clustering.fragments import absorb_fragments, link_with_clusters, tail_share
from pipeline.clustering.grouping import choose, group, sample_of_patches, single_images
from pipeline.clustering.landmarks import LANDMARKS, Landmarks, no_landmarks, pick_landmarks
from pipeline.clustering.neighbours import exact_neighbours, index_images
from pipeline.clustering.selection import (
    Candidate,
    candidate_partitions,
    cluster_silhouettes,
    coverage,
    find_known_models,
    select_partition,
    share_placed,
    shared_images,
)

NEIGHBOURS = np.array([[1, 2], [0, 2], [1, 0], [0, 1]], np.int32)
SIMILARITY = np.array([[0.9, 0.5], [0.9, 0.6], [0.6, 0.5], [0.3, 0.2]], np.float32)


def test_links_count_both_directions_and_a_least_similarity():
    links, weights = link_images(NEIGHBOURS, SIMILARITY, 1, 0.5)
    assert links.tolist() == [[0, 1], [1, 2]] and weights.tolist() == [2, 1]
    links, weights = link_images(NEIGHBOURS, SIMILARITY, 2, -1.0)
    assert links.tolist() == [[0, 1], [0, 2], [0, 3], [1, 2], [1, 3]] and weights.tolist() == [2, 2, 1, 2, 1]


def test_communities_are_the_parts_of_a_graph_and_single_images():
    links = np.array([[0, 1], [1, 2], [0, 2], [3, 4]])
    assert find_communities(links, np.ones(4), 6, seed=0).tolist() == [0, 0, 0, 1, 1, 2]
    assert find_communities(links[:0], np.ones(0), 3, seed=0).tolist() == [0, 1, 2]


def test_silhouettes_are_those_of_scikit_learn_where_clusters_lie_apart():
    data = Directions(groups([6, 5, 4])[0])[:]
    cluster = np.repeat([0, 1, 2], [6, 5, 4])
    expected = silhouette_samples(data, cluster, metric="cosine")
    # the nearest other cluster is at least at a right angle for scikit-learn, here at most
    near = expected < 1
    found = cluster_silhouettes(data @ data.T, cluster)
    assert np.all(found[near] <= expected[near] + 1e-5) and found.min() > 0.3


def test_an_image_that_is_alone_has_the_silhouette_that_others_of_its_model_would_give_it():
    cosine = np.float32([[1, 0.8, 0.2], [0.8, 1, 0.2], [0.2, 0.2, 1]])
    cluster = np.array([0, 0, 1])
    assert cluster_silhouettes(cosine, cluster)[2] == 0
    # 0.8 from the nearest cluster, 0.2 or 0.9 from others of its model
    np.testing.assert_allclose(cluster_silhouettes(cosine, cluster, 0.2)[2], 0.75, rtol=1e-6)
    np.testing.assert_allclose(cluster_silhouettes(cosine, cluster, 0.9)[2], -1 / 9, rtol=1e-6)


def test_models_of_one_and_two_photographs_are_found_beside_known_ones():
    features, labels = groups([1] * 9 + [2] * 3 + [8] * 10, n_features=64)
    data, known = Directions(features)[:], labels >= 12
    landmarks = Landmarks(data[known], labels[known] - 12)
    new = data[~known]
    found = group(new, landmarks, index_images(new, np.zeros(len(new), int)), seed=0)
    assert len(set(found.partitions[found.predicted])) == 12


def grouped_beside_known(sizes: list[int], n_known: int, spread: float, seed: int, n_shown: int = 0):
    """Group drawn models beside known ones of 25 photographs; `n_shown` more of each known one are among the new.

    Returns the clusters and the true models of the new photographs.
    """
    features, labels = groups(sizes + [25 + n_shown] * n_known, spread=spread, seed=seed)
    known = labels >= len(sizes)
    for model in np.unique(labels[known]):
        known[np.flatnonzero(labels == model)[:n_shown]] = False
    data = Directions(features)[:]
    landmarks = Landmarks(data[known], labels[known] - len(sizes))
    return choose(data[~known], landmarks, seed=0).cluster, labels[~known]


def test_beside_known_models_the_partition_that_puts_fewest_images_among_them_is_taken_of_two_as_good():
    halves = np.repeat([0, 1], 5).astype(np.int32)
    among = Candidate(1, 0.2, halves, 0.9, 1.0, 1.0, placed=0.7)
    apart = Candidate(1, 0.4, halves, 0.88, 1.0, 1.0, placed=0.9)
    worse = Candidate(1, 0.6, halves, 0.8, 1.0, 1.0, placed=1.0)
    candidates = [among, apart, worse]
    assert select_partition(candidates)[0] is among
    assert select_partition(candidates, beside_known=True)[0] is apart


def test_images_among_mostly_landmarks_are_not_placed_unless_they_may_be_of_a_known_model():
    cluster = np.array([0, 0, 1, 1, 2, 2, 1, 1, 1, 2])  # six images, then landmarks: three in cluster 1, one in 2
    assert share_placed(cluster, np.full(6, -1)) == 4 / 6
    assert share_placed(cluster, np.array([-1, -1, 0, -1, -1, -1])) == 5 / 6


def test_new_photographs_of_known_models_are_clusters_too():
    for n_shown in (2, 6):
        cluster, model = grouped_beside_known([], 10, spread=0.35, seed=0, n_shown=n_shown)
        assert adjusted_rand_score(model, cluster) == 1


def test_an_image_that_is_as_like_a_known_model_as_its_photographs_may_be_of_it():
    features, labels = groups([10] * 4, n_features=64)
    data = Directions(features)[:]
    new = np.r_[0:10, 10:13]  # all of a new model, three photographs of a known one
    known = np.r_[13:40]
    found = find_known_models(data[np.r_[new, known]], labels[known] - 1)
    assert found.tolist() == [-1] * 10 + [0] * 3


def test_shared_images_is_the_jaccard_similarity_of_an_image_s_clusters():
    one, other = np.array([0, 0, 0, 1, 1]), np.array([0, 0, 1, 1, 1])
    np.testing.assert_allclose(shared_images(one, other), [2 / 3, 2 / 3, 1 / 5 * 1.0, 2 / 3, 2 / 3])


def test_the_partition_of_the_drawn_models_scores_best():
    features, labels = groups([3] * 8 + [20] * 4, n_features=128)
    data = Directions(features)[:]
    neighbours, similarity = exact_neighbours(data, 40)
    candidates = candidate_partitions(neighbours, similarity, data, np.empty(0, int), seed=0)
    best, nearly = select_partition(candidates)
    assert adjusted_rand_score(labels, best.cluster) == 1 and best in nearly


def test_a_partition_that_leaves_most_images_alone_is_not_chosen():
    pairs, halves = np.r_[0, 0, 1:9].astype(np.int32), np.repeat([0, 1], 5).astype(np.int32)
    assert (coverage(pairs), coverage(halves)) == (0.2, 1.0)
    fine, coarse = Candidate(1, 0.8, pairs, 0.9, 1.0, 0.2), Candidate(1, 0.2, halves, 0.3, 1.0, 1.0)
    assert select_partition([fine, coarse])[0] is coarse
    # where joined models do harm, images left alone do none, unless another one is as good
    assert select_partition([fine, coarse], pure=True)[0] is fine
    other = Candidate(1, 0.3, halves, 0.89, 1.0, 1.0)
    assert select_partition([fine, other], pure=True)[0] is other


def test_the_largest_number_of_neighbours_is_not_chosen():
    cluster = np.zeros(3, np.int32)
    few, many = Candidate(1, 0.2, cluster, 0.3, 0.5), Candidate(2, 0.2, cluster, 0.9, 0.9)
    assert select_partition([few, many])[0] is few and select_partition([many])[0] is many


def test_the_nearest_images_are_those_of_a_sorted_product():
    data = Directions(groups([7, 5, 9])[0])[:]
    cosine = data @ data.T
    np.fill_diagonal(cosine, -np.inf)
    neighbours, similarity = exact_neighbours(data, 6)
    np.testing.assert_array_equal(neighbours, np.argsort(-cosine, axis=1, kind="stable")[:, :6])
    np.testing.assert_allclose(similarity, np.sort(cosine, axis=1)[:, ::-1][:, :6], rtol=1e-6)


# ---- odd photographs ---------------------------------------------------------------------------------


def test_a_link_is_the_mean_of_the_three_most_similar_images():
    cluster = np.array([0, 0, 0, 0, 1])
    neighbours = np.array([[1, 2, 3, 4], [0, 2, 3, 4], [0, 1, 3, 4], [0, 1, 2, 4], [0, 1, 2, 3]], np.int32)
    similarity = np.tile(np.float32([0.9, 0.8, 0.7, 0.2]), (5, 1))
    links = link_with_clusters(cluster, neighbours, similarity)
    assert links.image.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4] and links.cluster.tolist() == [0, 1] * 4 + [0]
    np.testing.assert_allclose(links.strength, [0.8, 0.2] * 4 + [0.8], rtol=1e-6)


def test_links_halve_with_each_step_between_median_and_quartile():
    own = 1 - np.array([0.1, 0.1, 0.1, 0.1, 0.2, 0.2, 0.2])
    assert tail_share(own, np.array([0.9, 0.8, 0.6, 0.2])).round(4).tolist() == [0.5, 0.25, 0.125, 0.0625]


def odd_photographs(n_odd: int, like_their_model: float) -> tuple[np.ndarray, np.ndarray]:
    """Four models of 50 photographs, and odd ones of the first: directions, and clusters with each odd one alone."""
    rng = np.random.default_rng(5)
    features, labels = groups([50] * 4, n_features=64)
    odd = like_their_model * features[:n_odd] + rng.standard_normal((n_odd, 64))
    cluster = np.r_[labels, 4 + np.arange(n_odd)].astype(np.int32)
    return Directions(np.concatenate([features, odd.astype(np.float32)]))[:], cluster


def test_single_images_where_no_model_has_two_are_odd_photographs():
    data, cluster = odd_photographs(3, like_their_model=1.5)
    after = absorb_fragments(cluster, *exact_neighbours(data, 20))
    assert after[-3:].tolist() == [0, 0, 0] and after.max() == 3


def test_single_images_beyond_a_power_law_of_sizes_are_odd_up_to_a_share():
    data, cluster = odd_photographs(40, like_their_model=1.5)
    after = absorb_fragments(cluster, *exact_neighbours(data, 20))
    assert np.sum(after[-40:] <= 3) == round(0.15 * 200)
    # ten models of two photographs make single models likely: 60 of them
    features, labels = groups([2] * 10, n_features=64, seed=9)
    more = np.concatenate([data, Directions(features)[:]])
    both = np.r_[cluster, cluster.max() + 1 + labels].astype(np.int32)
    after = absorb_fragments(both, *exact_neighbours(more, 20))
    np.testing.assert_array_equal(after, both)


def test_fragments_far_from_every_model_stay():
    features, labels = groups([50] * 4, n_features=256, spread=0.05)
    far = np.random.default_rng(5).standard_normal((3, 256)).astype(np.float32)
    cluster = np.r_[labels, [4, 5, 6]].astype(np.int32)
    data = Directions(np.concatenate([features, far]))[:]
    np.testing.assert_array_equal(absorb_fragments(cluster, *exact_neighbours(data, 20)), cluster)


def test_without_larger_clusters_nothing_is_absorbed():
    cluster = np.repeat(np.arange(6), 2).astype(np.int32)
    data = Directions(groups([2] * 6)[0])[:]
    np.testing.assert_array_equal(absorb_fragments(cluster, *exact_neighbours(data, 5)), cluster)


# ---- the recipe --------------------------------------------------------------------------------------


def test_a_choice_on_a_sample_groups_all_images(monkeypatch):
    features, labels = groups([6] * 60, n_features=128)
    data = Directions(features)[:]
    monkeypatch.setattr("pipeline.clustering.grouping.SELECTION_IMAGES", 100)
    found = group(data, no_landmarks(128), index_images(data, np.zeros(len(data), int)), seed=0)
    assert adjusted_rand_score(labels, found.partitions[found.predicted]) == 1
    assert np.all(np.diff(found.partitions.max(axis=1)) >= 0) and found.interval[0] <= 60 <= found.interval[1]


def test_a_sample_holds_images_with_their_nearest_ones():
    features, labels = groups([60] * 10, n_features=128)
    data = Directions(features)[:]
    sample = sample_of_patches(data, index_images(data, np.zeros(600, int)), 180, seed=0)
    assert np.bincount(labels[sample], minlength=10).tolist().count(60) == 3 and len(sample) == 180


def test_single_images_are_clusters_of_their_own():
    found = single_images(3)
    assert found.partitions.tolist() == [[0, 1, 2]] and found.interval.tolist() == [3, 3]


def test_landmarks_are_thinned_model_by_model_and_few_models_give_none():
    labels = np.repeat(list("hgfedcba"), [LANDMARKS] + [LANDMARKS // 2] * 7)
    features = np.arange(len(labels), dtype=np.float32)[:, None]
    landmarks = pick_landmarks(features, labels)
    assert len(landmarks.labels) == LANDMARKS * 9 // 2 // 5
    assert np.bincount(landmarks.labels).tolist() == [LANDMARKS // 10] * 7 + [LANDMARKS // 5]
    assert (landmarks.features[landmarks.labels == 7, 0] < LANDMARKS).all()
    few = labels > "b"
    assert not len(pick_landmarks(features[few], labels[few]).labels)
