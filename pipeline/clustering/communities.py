"""Communities in the graph of nearest images: the images of a model link with one another more than with others."""

import random

import igraph
import numpy as np

ITERATIONS = 2  # passes of Leiden; more find no better modularity on graphs of nearest neighbours


def link_images(
    neighbours: np.ndarray, similarity: np.ndarray, n_neighbours: int, least_similarity: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return the links between images and their nearest ones, each pair once.

    Parameters
    ----------
    neighbours : int ndarray of shape (m, k), nearest first; negative where an image has fewer
    similarity : float32 ndarray of shape (m, k), cosine
    n_neighbours : nearest images that an image links to, at most k
    least_similarity : -1 to 1; less similar images are not linked

    Returns
    -------
    links : int64 ndarray of shape (n_links, 2), the smaller index first, in ascending order
    weights : float ndarray of shape (n_links,), 2 where both images have each other among their nearest, else 1
    """
    m = len(neighbours)
    nearest = neighbours[:, :n_neighbours]
    linked = (similarity[:, :n_neighbours] >= least_similarity) & (nearest >= 0)
    one, other = np.nonzero(linked)[0], nearest[linked].astype(np.int64)
    pair, count = np.unique(np.minimum(one, other) * m + np.maximum(one, other), return_counts=True)
    return np.column_stack(np.divmod(pair, m)), count.astype(float)


def find_communities(links: np.ndarray, weights: np.ndarray, m: int, seed: int) -> np.ndarray:
    """Return the community of each of m images, int32 (m,), numbered from 0 without gaps.

    Leiden's algorithm (Traag, Waltman & van Eck 2019, doi:10.1038/s41598-019-41695-z) maximises the modularity of
    Newman & Girvan. An image without a link is a community of its own.

    links : int ndarray of shape (n_links, 2); weights : float ndarray of shape (n_links,)
    """
    igraph.set_random_number_generator(random.Random(seed))
    graph = igraph.Graph(n=m, edges=links)
    found = graph.community_leiden("modularity", weights=weights, n_iterations=ITERATIONS)
    return np.unique(found.membership, return_inverse=True)[1].astype(np.int32)
