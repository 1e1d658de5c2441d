"""Cuts finer or coarser, and the numbers of clusters."""

import numpy as np
from drawn_features import groups

from pipeline.clustering.cuts import GRANULARITIES, by_size, cut, cut_at_all, merged
from pipeline.clustering.directions import Directions
from pipeline.clustering.neighbours import exact_neighbours


def test_merging_joins_the_most_linked_first():
    # images 0-1-2-3 in a chain of pairs, 4 and 5 apart
    cluster = np.array([0, 0, 1, 1, 2, 2], np.int32)
    neighbours = np.array([[1, 2], [2, 0], [3, 1], [2, 1], [5, 5], [4, 4]])
    assert merged(cluster, neighbours, 2).tolist() == [0, 0, 0, 0, 1, 1]
    assert merged(cluster, neighbours, 1).tolist() == [0] * 6


def test_all_cuts_are_the_single_ones():
    features, labels = groups([6] * 10 + [1] * 6)
    near = exact_neighbours(Directions(features)[:], 20)
    partitions = np.stack([labels // 2, labels, np.arange(66)]).astype(np.int32)
    together = cut_at_all(partitions, 1, *near)
    for granularity, cluster in zip(GRANULARITIES, together, strict=True):
        np.testing.assert_array_equal(cluster, cut(partitions, 1, *near, granularity))
        assert len(set(cluster)) == np.clip(round(16 * granularity), 1, 66)


def test_numbers_by_size_with_ties_by_first_image():
    assert by_size(np.array([4, 9, 9, 2, 4, 7])).tolist() == [0, 1, 1, 2, 0, 3]
