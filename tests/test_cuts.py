"""Cuts finer or coarser, and the numbers of clusters."""

import numpy as np

from pipeline.clustering.cuts import by_size, merged


def test_merging_joins_the_most_linked_first():
    # images 0-1-2-3 in a chain of pairs, 4 and 5 apart
    cluster = np.array([0, 0, 1, 1, 2, 2], np.int32)
    neighbours = np.array([[1, 2], [2, 0], [3, 1], [2, 1], [5, 5], [4, 4]])
    assert merged(cluster, neighbours, 2).tolist() == [0, 0, 0, 0, 1, 1]
    assert merged(cluster, neighbours, 1).tolist() == [0] * 6


def test_numbers_by_size_with_ties_by_first_image():
    assert by_size(np.array([4, 9, 9, 2, 4, 7])).tolist() == [0, 1, 1, 2, 0, 3]
