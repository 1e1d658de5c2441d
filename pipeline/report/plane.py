"""Lay images out in the plane by t-SNE: choose the images, compute their places, and colour their groups."""

from collections.abc import Sequence

import numpy as np
from scipy.optimize import linear_sum_assignment
from sklearn.manifold import TSNE
from threadpoolctl import threadpool_limits

# Okabe & Ito's colours, told apart with any kind of colour blindness (jfly.uni-koeln.de/color), and a grey
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9", "#CC79A7", "#B8A600", "#7F7F7F")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p", "h", "*")


def choose_styles(positions: np.ndarray) -> list[tuple[str, str]]:
    """Return a colour and a marker for each group, so that groups of one colour lie far apart.

    positions : float ndarray of shape (n_groups, 2), in the order in which groups choose
    """
    chosen = np.zeros(len(positions), int)
    for i, position in enumerate(positions):
        gaps = np.full(len(COLOURS), np.inf)
        distances = np.hypot(*(positions[:i] - position).T)
        np.minimum.at(gaps, chosen[:i], distances)
        # of colours not used yet the first, else the one whose nearest group is farthest away
        chosen[i] = int(np.argmax(np.where(np.isinf(gaps), np.finfo(float).max, gaps)))
    seen: dict[int, int] = {}
    styles = []
    for colour in chosen:
        styles.append((COLOURS[colour], MARKERS[seen.get(colour, 0) % len(MARKERS)]))
        seen[colour] = seen.get(colour, 0) + 1
    return styles


def draw_stratified_sample(cluster: np.ndarray, n_max: int, seed: int) -> np.ndarray:
    """Draw at most `n_max` images, every cluster with its share and at least one image: sorted int64 (n_sample,).

    Where there are more clusters than `n_max`, the largest are kept.
    """
    if len(cluster) <= n_max:
        return np.arange(len(cluster))
    rng = np.random.default_rng(seed)
    _, index, size = np.unique(cluster, return_inverse=True, return_counts=True)
    share = np.maximum(1, np.floor(size * n_max / len(cluster))).astype(int)
    rank = np.zeros(len(cluster), int)  # place of an image in a random order of its cluster
    shuffled = rng.permutation(len(cluster))
    by_cluster = shuffled[np.argsort(index[shuffled], kind="stable")]
    rank[by_cluster] = np.arange(len(cluster)) - np.repeat(np.cumsum(size) - size, size)
    wanted = np.flatnonzero(rank < share[index])
    # one image each may be more than n_max
    return np.sort(wanted[np.lexsort((wanted, -size[index[wanted]], rank[wanted]))][:n_max])


def compute_tsne(vectors: np.ndarray, perplexity: float, seed: int) -> np.ndarray:
    """Return the t-SNE of the images in the plane, float32 (n_images, 2), each axis within -1..1.

    vectors : float32 ndarray of shape (n_images, n_axes), on the main axes. Only the first 50 axes are used: the
    picture changes little, and takes far less time. van der Maaten 2014, JMLR 15:3221 (Barnes-Hut).
    """
    n_images = len(vectors)
    if n_images < 5 or np.ptp(vectors, axis=0).max() == 0:
        angle = 2 * np.pi * np.arange(n_images) / max(1, n_images)
        return np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)
    perplexity = min(perplexity, (n_images - 1) / 3)
    # one thread: at each of the 750 steps threads would wait for one another, which takes far longer on a busy
    # machine, and the picture would depend on their number
    with threadpool_limits(1):
        plane = TSNE(init="pca", perplexity=perplexity, max_iter=750, random_state=seed).fit_transform(vectors[:, :50])
    plane -= (plane.max(axis=0) + plane.min(axis=0)) / 2
    return (plane / max(np.abs(plane).max(), 1e-9)).astype(np.float32)


def match_models(labels: Sequence[str], cluster: np.ndarray) -> dict[str, int]:
    """Return for each model the cluster that stands for it, by the Hungarian method; not all have one."""
    models, row = np.unique(np.array(labels, np.str_), return_inverse=True)
    clusters, column = np.unique(cluster, return_inverse=True)
    table = np.zeros((len(models), len(clusters)), int)
    np.add.at(table, (row, column), 1)
    return {str(models[r]): int(clusters[c]) for r, c in zip(*linear_sum_assignment(-table), strict=True) if models[r]}
