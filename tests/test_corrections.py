"""Clusters that keep what a person said of pairs of images."""

import numpy as np
from drawn_features import groups
from sklearn.metrics import adjusted_rand_score

from pipeline.clustering.corrections import Answer, corrected
from pipeline.clustering.directions import Directions


def test_a_cluster_of_two_models_is_cut_in_two():
    features, labels = groups([10, 12])
    data = Directions(features)[:]
    cluster, sure, runner_up = np.zeros(22, int), np.ones(22), np.full(22, -1)
    found = corrected(cluster, sure, runner_up, data, [Answer(0, 15, False)], first_new=9)
    assert adjusted_rand_score(labels, found) == 1
    assert set(found) == {0, 9}


def test_corrections_that_ask_for_nothing_leave_every_id():
    features, labels = groups([10, 12])
    data, sure, runner_up = Directions(features)[:], np.ones(22), np.full(22, -1)
    cluster = np.array([3, 7])[labels]  # ids of an earlier run, with gaps
    found = corrected(cluster, sure, runner_up, data, [Answer(0, 1, True), Answer(0, 15, False)], first_new=20)
    assert found.tolist() == cluster.tolist()


def test_an_image_that_moved_and_is_then_called_the_same_moves_alone():
    features, labels = groups([10, 12])
    data = Directions(features)[:]
    cluster, runner_up = labels.copy(), 1 - labels
    cluster[15] = 0  # of the second model, in the cluster of the first
    sure = np.where(np.arange(22) == 15, 0.5, 1.0)
    answers = [Answer(15, 3, False), Answer(15, 16, True)]
    assert corrected(cluster, sure, runner_up, data, answers, first_new=9).tolist() == labels.tolist()
    # whichever was said first
    assert corrected(cluster, sure, runner_up, data, answers[::-1], first_new=9).tolist() == labels.tolist()


def test_images_called_the_same_join_their_clusters_where_both_are_sure():
    features, labels = groups([10, 12, 5])
    data, runner_up = Directions(features)[:], np.full(27, -1)
    found = corrected(labels, np.ones(27), runner_up, data, [Answer(0, 10, True)], first_new=9)
    assert len(set(found[:22])) == 1 and set(found[22:]) == {2}


def test_of_two_images_called_different_the_one_less_like_the_others_moves_out():
    features, labels = groups([10, 12])
    data = Directions(features)[:]
    cluster, runner_up = labels.copy(), np.full(22, -1)
    cluster[15] = 0  # its neighbours agree with one another, though all are of the other model
    for answer in (Answer(15, 3, False), Answer(3, 15, False)):
        found = corrected(cluster, np.ones(22), runner_up, data, [answer], first_new=9)
        assert found[15] == 9 and np.delete(found, 15).tolist() == np.delete(labels, 15).tolist()
