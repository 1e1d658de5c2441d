"""Clusters that keep what a person said of pairs of images."""

import numpy as np
from drawn_features import groups
from sklearn.metrics import adjusted_rand_score

from pipeline.clustering.corrections import corrected
from pipeline.clustering.directions import Directions


def test_a_cluster_of_two_models_is_cut_in_two():
    features, labels = groups([10, 12])
    data = Directions(features)[:]
    cluster, sure, runner_up = np.zeros(22, int), np.ones(22), np.full(22, -1)
    found = corrected(cluster, sure, runner_up, data, [], [(0, 15)], first_new=9)
    assert adjusted_rand_score(labels, found) == 1
    assert set(found) == {0, 9}


def test_corrections_that_ask_for_nothing_leave_every_id():
    features, labels = groups([10, 12])
    data, sure, runner_up = Directions(features)[:], np.ones(22), np.full(22, -1)
    cluster = np.array([3, 7])[labels]  # ids of an earlier run, with gaps
    found = corrected(cluster, sure, runner_up, data, [(0, 1)], [(0, 15)], first_new=20)
    assert found.tolist() == cluster.tolist()
