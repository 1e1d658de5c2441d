"""List what a person should check: doubtful images, clusters that may be one model or two, the stored cuts."""

import numpy as np
from sklearn.metrics import adjusted_rand_score

from pipeline.clustering.directions import means_of
from pipeline.report.found import Found, measure_typicality

# of the probability that an image is right over its silhouette: on five sets of 240 to 990 images, features of three
# networks, one in three images is wrong around 0.05, one in ten around 0.15 (doc/log.md)
STEEPNESS = 15.0
LEAST_DOUBT = 0.05  # 0..1; images with less are not listed


def measure_doubt(found: Found) -> np.ndarray:
    """Return how likely each image is in the wrong cluster: floating (n_images,), 0 to 1.

    An image is right where most of its neighbours are in its cluster (`confidence`), and where its cluster's images are
    more like it than those of the next cluster: a logistic function of its silhouette. The second finds an image whose
    background was not removed well: it has no neighbour of its own model, and all it has are in one cluster.
    """
    return 1 - found.confidence / (1 + np.exp(-STEEPNESS * found.silhouette))


def summarise_clusters(found: Found, n_doubtful_max: float = 0.5) -> list[dict]:
    """Return one row for each cluster, by id: size, mean confidence, doubt, medoid, most frequent true label.

    `doubt` is the number of images that are expected to be wrong: the sum of 1 - confidence.
    """
    rows = []
    for cluster in np.unique(found.cluster).tolist():
        members = found.members(cluster)
        confidence = found.confidence[members]
        rows.append(
            {
                "id": cluster,
                "size": len(members),
                "confidence": float(confidence.mean()),
                "doubt": float((1 - confidence).sum()),
                "doubtful": int((confidence < n_doubtful_max).sum()),
                "medoid": found.medoid[cluster],
            }
        )
    return rows


def find_doubtful_images(found: Found, n_max: int = 60) -> list[dict]:
    """Return the images with the largest doubt, with the medoids of their cluster and of the runner-up.

    A medoid is not compared with itself: it is listed with the runner-up only. `gain` is the number of pairs of images
    that an answer is expected to set right: the doubt times the size of the image's cluster.
    """
    result: list[dict] = []
    size_of = dict(zip(*np.unique(found.cluster, return_counts=True), strict=True))
    doubt = measure_doubt(found)
    for i in np.argsort(-doubt, kind="stable").tolist():
        own, other = found.medoid[int(found.cluster[i])], found.medoid.get(int(found.runner_up[i]))
        if (own == i and other is None) or len(result) == n_max or doubt[i] <= LEAST_DOUBT:
            continue
        others = found.members(int(found.cluster[i]))
        if found.is_answered(np.array([i]), others[others != i]):
            continue
        gain = float(doubt[i]) * int(size_of[found.cluster[i]])
        result.append({"image": i, "own": own if own != i else None, "other": other, "gain": gain})
    return result


def find_likely_merges(found: Found, n_max: int = 30) -> list[dict]:
    """Return the pairs of clusters that may be one model, with their medoids: first where an answer gains most.

    `likeness` is the mean doubt (1 - confidence) of the images that have the other cluster as runner-up, counted in
    the smaller cluster's images; or how likely a parted cluster belongs to the other (`find_likely_homes`), if that is
    more. On clusters with labels this finds models that were split far better than the distance between centres does
    (`doc/log.md`). `gain` is the number of pairs of images that an answer is expected to set right: the likeness times
    the sizes of both clusters.
    """
    clusters, size = np.unique(found.cluster, return_counts=True)
    homes = find_likely_homes(found)
    votes: dict[tuple[int, int], float] = {}
    for i in np.flatnonzero(found.runner_up >= 0):
        one, other = sorted((int(found.cluster[i]), int(found.runner_up[i])))
        pair = (one, other)
        votes[pair] = votes.get(pair, 0.0) + 1 - float(found.confidence[i])
    size_of = dict(zip(clusters.tolist(), size.tolist(), strict=True))
    pairs = []
    for pair in sorted(votes.keys() | homes.keys()):
        if set(pair) <= size_of.keys() and pair[0] != pair[1]:
            sizes = [size_of[cluster] for cluster in pair]
            likeness = max(min(1.0, votes.get(pair, 0.0) / min(sizes)), homes.get(pair, 0.0))
            if likeness == 0 or found.is_answered(found.members(pair[0]), found.members(pair[1])):
                continue
            images = [found.medoid[cluster] for cluster in pair]
            gain = likeness * sizes[0] * sizes[1]
            pairs.append({"clusters": list(pair), "images": images, "likeness": likeness, "gain": gain})
    return sorted(pairs, key=lambda item: (-item["gain"], item["clusters"]))[:n_max]


def find_likely_homes(found: Found) -> dict[tuple[int, int], float]:
    """Return for each cluster that an answer has parted from one of twice its size where it may belong, and how likely.

    How likely it belongs to another cluster is a softmax of the mean cosines to all others; the cluster that it was
    parted from keeps its share. Clusters that were called different are not named again. Keys are pairs of clusters,
    ascending; values are 0 to 1.
    """
    clusters, index, size = np.unique(found.cluster, return_inverse=True, return_counts=True)
    parted = set()
    for a, b, same in found.answers:
        here, there = int(index[a]), int(index[b])
        if not same and 2 * min(size[here], size[there]) <= max(size[here], size[there]):
            parted.add(here if size[here] < size[there] else there)
    if not parted:
        return {}
    centre = means_of(found.direction, index, len(clusters))
    homes: dict[tuple[int, int], float] = {}
    for here in sorted(parted):
        odds = np.exp(STEEPNESS * (centre @ centre[here]))
        odds[here] = 0
        for there in np.argsort(-odds).tolist()[:-1]:
            one, other = (int(clusters[c]) for c in sorted((here, there)))
            if not found.is_answered(found.members(one), found.members(other)):
                homes[one, other] = max(homes.get((one, other), 0.0), float(odds[there] / odds.sum()))
                break
    return homes


def find_likely_splits(found: Found, n_max: int = 30) -> list[dict]:
    """Return the clusters that may be two models, with the medoids of two halves: first where an answer gains most.

    The halves are those of 2-means, with 2 images each at least. `spread` is the mean squared distance of a cluster's
    directions to their centre, from 0 (all the same) to 1 (nothing in common). `gain` is the number of pairs of images
    that an answer is expected to set right: how much farther apart (cosine distance) the images of different halves
    are than those of the same half, less what is usual (the median of the clusters, where there are three), times the
    sizes of the halves. What is usual are the halves of one model: its views from the left and the right, say.
    """
    result = []
    for cluster in np.unique(found.cluster).tolist():
        members = found.members(cluster)
        rows = found.direction[members]
        spread = float(((rows - rows.mean(axis=0)) ** 2).sum(axis=1).mean())
        if len(members) < 4 or spread < 1e-6:
            continue
        part = split_by_two_means(rows)
        sizes = np.bincount(part, minlength=2)
        if sizes.min() < 2 or found.is_answered(members[part == 0], members[part == 1]):
            continue
        nearness = measure_typicality(rows, part)
        heads = [int(members[np.flatnonzero(part == p)[np.argmax(nearness[part == p])]]) for p in (0, 1)]
        sums = np.stack([rows[part == p].sum(axis=0) for p in (0, 1)]).astype(float)
        within = (np.einsum("hf,hf->h", sums, sums) - sizes) / (sizes * (sizes - 1))  # mean cosine of a half's images
        between = float(sums[0] @ sums[1]) / float(sizes[0] * sizes[1])
        apart = float(within @ sizes) / len(members) - between
        item = {"cluster": cluster, "images": heads, "sizes": sizes.tolist(), "spread": spread, "apart": apart}
        result.append(item)
    usual = float(np.median([item["apart"] for item in result])) if len(result) > 2 else 0.0
    for item in result:
        item["gain"] = max(0.0, item.pop("apart") - usual) * item["sizes"][0] * item["sizes"][1]
    return sorted(result, key=lambda item: (-item["gain"], item["cluster"]))[:n_max]


def rank_questions(found: Found) -> list[tuple[int, int]]:
    """Return pairs of images to ask a person about ("same model or different?"), the most gainful first.

    They are those of the three lists: likely merges, likely splits, doubtful images with the medoid of their cluster.
    Questions that earlier answers settle are not asked.
    """
    questions = [(item["gain"], *item["images"]) for item in find_likely_merges(found) + find_likely_splits(found)]
    for item in find_doubtful_images(found):
        other = item["other"] if item["own"] is None else item["own"]
        questions.append((item["gain"], item["image"], other))
    return [(a, b) for _, a, b in sorted(questions, key=lambda question: (-question[0], question[1:]))]


def split_by_two_means(rows: np.ndarray, n_rounds: int = 20) -> np.ndarray:
    """Cut rows (n, n_features) in two by k-means, begun at the sign of the main axis: int64 (n,), 0 or 1."""
    centred = rows - rows.mean(axis=0)
    axis = np.linalg.svd(centred @ centred.T)[0][:, 0] if len(rows) <= 500 else centred @ centred[0]
    part = (axis > np.median(axis)).astype(np.int64)
    for _ in range(n_rounds):
        if len(np.unique(part)) < 2:
            break
        a, b = means_of(rows, part, 2)
        new = ((rows - b) ** 2).sum(axis=1) < ((rows - a) ** 2).sum(axis=1)
        if (new == part).all():
            break
        part = new.astype(np.int64)
    return part


def describe_cuts(found: Found, granularities: np.ndarray, cut_clusters: np.ndarray) -> list[dict]:
    """Describe the stored cuts, coarsest first: granularity, clusters of the images, medoids, ARI where labels exist.

    granularities : floating ndarray of shape (n_cuts,); cut_clusters : int ndarray of shape (n_cuts, n_images)
    """
    known = [i for i, label in enumerate(found.labels) if label]
    labels = [found.labels[i] for i in known]
    cuts = []
    for granularity, cluster in zip(granularities, cut_clusters, strict=True):
        ids, index = np.unique(cluster, return_inverse=True)
        order = np.lexsort((-measure_typicality(found.direction, index), index))
        medoids = order[np.unique(index[order], return_index=True)[1]]
        cuts.append(
            {
                "granularity": round(float(granularity), 4),
                "n_clusters": len(ids),
                "clusters": cluster.tolist(),
                "medoids": dict(zip(ids.tolist(), medoids.tolist(), strict=True)),
                "ari": adjusted_rand_score(labels, cluster[known]) if known else None,
            }
        )
    return cuts
