"""Correct clusters by a person's answers about pairs of images."""

from typing import NamedTuple

import numpy as np
from scipy import sparse

from pipeline.clustering.directions import Directions
from pipeline.scoring.silhouette import silhouettes


def find_verdict(cells: dict[str, str]) -> str | None:
    """Return "same" or "different" from a line of corrections.csv, None where the line holds neither or both.

    The verdict stands in the column of that name, or in any further column beside "image_a" and "image_b".

    >>> find_verdict({"image_a": "1.jpg", "image_b": "2.jpg", "note": "handle", "relation": "Different"})
    'different'
    """
    others = [value for name, value in cells.items() if name not in ("image_a", "image_b")]
    found = {value.casefold() for value in ([cells["verdict"]] if "verdict" in cells else others)}
    found &= {"same", "different"}
    return found.pop() if len(found) == 1 else None


class Answer(NamedTuple):
    """A person's answer about two images, given by their rows."""

    one: int
    other: int
    same: bool


def same_groups(n_images: int, answers: list[Answer]) -> np.ndarray:
    """Return the group of each image, (n_images,); images called the same, also through others, share a group."""
    a, b = np.array([(one, other) for one, other, same in answers if same], np.int64).reshape(-1, 2).T
    graph = sparse.coo_matrix((np.ones(len(a)), (a, b)), (n_images, n_images))
    return sparse.csgraph.connected_components(graph, directed=False)[1]


def corrected(
    cluster: np.ndarray,
    sure: np.ndarray,
    runner_up: np.ndarray,
    data: "Directions | np.ndarray",
    answers: list[Answer],
    first_new: int,
) -> np.ndarray:
    """Return clusters that keep the answers, (n,); a cluster that no answer concerns keeps its id.

    The answers are followed in their order. Two images called the same that lie in two clusters: the image that is
    less sure of its cluster moves to the other's cluster where it is unsure, or called different from an image of its
    own; otherwise the clusters are joined. Two images called different that lie in one cluster: the cluster is cut in
    two around them where the two groups stand apart; otherwise the image that is less like the cluster moves out, to
    its runner-up or to a cluster of its own. Images called the same always move together.

    cluster, sure, runner_up : ndarrays of shape (n,), see `confidence`
    first_new : the id of the first new cluster, larger than all ids in use
    """
    cluster = cluster.copy()
    group = np.arange(len(cluster))

    def forbidden(moving: int, target: int) -> bool:
        here = set(group[(cluster == target) & (group != moving)].tolist())
        pairs = [(group[a], group[b]) for a, b, same in answers if not same]
        return any((a == moving and b in here) or (b == moving and a in here) for a, b in pairs)

    def join(a: int, b: int) -> None:
        weak, strong = (a, b) if sure[a] < sure[b] else (b, a)
        if forbidden(group[strong], cluster[strong]):
            weak, strong = strong, weak
        # a quarter: half of its neighbours, and of theirs
        if sure[weak] >= 0.25 and not forbidden(group[weak], cluster[weak]):
            cluster[cluster == cluster[weak]] = cluster[strong]
        else:
            cluster[group == group[weak]] = cluster[strong]

    def part(a: int, b: int) -> None:
        members = np.flatnonzero(cluster == cluster[a])
        rows = data[members]
        side = two_sides(rows, group[members], group[a], group[b])
        new = max(first_new, cluster.max() + 1)
        if side is not None:
            cluster[members[side]] = new
            return
        likeness = dict(zip(members.tolist(), rows @ rows.sum(axis=0), strict=True))
        weak = a if likeness[a] < likeness[b] else b
        target = runner_up[weak]
        if target < 0 or target == cluster[weak] or forbidden(group[weak], target):
            target = new
        cluster[group == group[weak]] = target

    for n, (a, b, same) in enumerate(answers, start=1):
        if same:
            group = same_groups(len(cluster), answers[:n])  # of what was said so far
        if same and cluster[a] != cluster[b]:
            join(a, b)
        elif not same and cluster[a] == cluster[b]:
            part(a, b)
    for a, b, same in answers:  # which a later answer may have brought together
        if not same and cluster[a] == cluster[b]:
            part(a, b)
    return cluster


def two_sides(data: np.ndarray, group: np.ndarray, group_a: int, group_b: int) -> np.ndarray | None:
    """Cut a cluster into images nearer to group a and to group b, bool (n_members,), True = b, or None.

    data : ndarray of shape (n_members, n_features), directions. K-means with two means starts at the two groups and
    keeps images of one group together. None where the mean silhouette is at most 0.2 or a side has only one image.
    """
    n_groups = group.max() + 1
    side = data @ data[group == group_b].mean(axis=0) > data @ data[group == group_a].mean(axis=0)
    for _ in range(10):
        together = np.bincount(group, side - 0.5, minlength=n_groups)[group] > 0
        together[group == group_a], together[group == group_b] = False, True
        side = data @ data[together].mean(axis=0) > data @ data[~together].mean(axis=0)
    counts = np.array([np.sum(~together), np.sum(together)])
    if counts.min() < 2:
        return None
    sums = np.stack([data[~together].sum(axis=0), data[together].sum(axis=0)])
    return together if silhouettes(data, together.astype(int), sums, counts).mean() > 0.2 else None
