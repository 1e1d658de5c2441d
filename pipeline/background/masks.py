"""Choose a mask for a scene, correct the mask, and say how far to trust it."""

import itertools
from typing import NamedTuple

import cv2
import numpy as np

from pipeline.background.cast_shadow import erase_cast_shadow
from pipeline.background.collage import are_like_colours, colour_shares
from pipeline.background.colour import to_lab
from pipeline.background.corrections import (
    add_pale_parts,
    fill_likely_holes,
    fill_white_parts,
    reconcile_masks,
    remove_unlikely_parts,
)
from pipeline.background.ground import fit_ground, is_smooth, is_white
from pipeline.background.matting import fit_edge
from pipeline.background.regions import MIN_FOREGROUND, is_plausible, size_within
from pipeline.background.scene import Scene
from pipeline.background.segmentation import (
    colour_overlap,
    segment_by_border,
    segment_by_colours,
    segment_by_grabcut,
    segment_by_sobel,
)
from pipeline.background.smooth_ground import segment_smooth_ground

GRABCUT_SIZE = 128  # longest side at which GrabCut works, pixels; 160 is no better, 96 loses 0.03 of IoU
# IoU by which a mask may fall behind the network's own in what the network expects of both, for its finer edges
LESS_LIKELY = {"plain": 0.1, "network": 0.2}
LESS_TRUSTED = 0.15  # by which the trust in a collage's view may fall behind the best one's; half of its usual spread
FAINT_DISTANCE = (
    25  # CIE76, median distance of a product from a smooth ground; a fainter one may have the ground's colour
)


class Candidate(NamedTuple):
    """A mask, the method that made it, and the trust in it."""

    mask: np.ndarray  # bool (H, W)
    method: str  # "plain", "network", "grabcut", "sobel" or "whole"
    trust: float  # 0..1
    standing_out: np.ndarray | None = None  # bool (H, W), of a smooth ground where the mask is still to be corrected


def choose_mask(scene: Scene, method: str, seed: int) -> Candidate:
    """Choose between the mask that stands out from a smooth ground and the network's mask.

    Where a smooth surface explains the border, "auto" takes the pixels that stand out from the surface, if the network
    finds this mask nearly as likely as its own. "network" takes the network's mask for any image, uncorrected.
    """
    standing_out = None
    if method == "auto" and is_smooth(scene.ground):
        standing_out = segment_smooth_ground(scene.lab, scene.ground)
        filled = fill_likely_holes(standing_out, scene.foreground_prob_at_image_size())
        trust = expected_iou(scene.foreground_prob, filled)
        if trust > _network_iou(scene) - LESS_LIKELY["plain"]:
            return Candidate(standing_out, "plain", trust, standing_out)
    mask = segment_by_network(scene, seed)
    return Candidate(mask, "network", expected_iou(scene.foreground_prob, mask), standing_out)


def segment_by_network(scene: Scene, seed: int) -> np.ndarray:
    """Return the product where the network finds it, its outline by the image's colours: bool (H, W).

    On a smooth ground GrabCut finds the outline; where the network finds GrabCut's mask far less likely, the network's
    mask is taken: blank parts of the product may have the ground's colour. On any other ground, the product seldom has
    exactly the ground's colours, and histograms of both find the outline.
    """
    if is_smooth(scene.ground):
        mask = segment_by_grabcut(scene.small_bgr, scene.foreground_prob, seed)
        least = _network_iou(scene) - LESS_LIKELY["network"]
        if is_plausible(mask) and expected_iou(scene.foreground_prob, mask) < least:
            mask = scene.foreground_prob > 0.5
    else:
        mask = segment_by_colours(scene.small_bgr, scene.foreground_prob)
    return fit_edge(mask, scene.image_bgr)


def segment_without_network(image_bgr: np.ndarray, method: str, seed: int) -> Candidate:
    """Return the mask of an image, uint8 BGR (H, W, 3), by "plain", "grabcut" or "sobel".

    "plain" is trusted by the share of the border that a smooth ground explains, the others by how unlike the colours
    inside and around the mask are.
    """
    if method == "plain":
        lab = to_lab(image_bgr)
        _, lab, ground = erase_cast_shadow(image_bgr, lab, fit_ground(lab))
        return Candidate(segment_smooth_ground(lab, ground), "plain", ground.explained)
    size = size_within(image_bgr.shape[1], image_bgr.shape[0], GRABCUT_SIZE)
    small_bgr = cv2.resize(image_bgr, size, interpolation=cv2.INTER_AREA)
    masks = {
        "sobel": lambda: segment_by_sobel(image_bgr),
        "grabcut": lambda: fit_edge(segment_by_border(small_bgr, seed), image_bgr),
    }
    mask = masks[method]()
    return Candidate(mask, method, 1 - colour_overlap(to_lab(small_bgr), mask))


def correct_mask(candidate: Candidate, scene: Scene) -> Candidate:
    """Correct a mask on a smooth ground by the network's probabilities, and the network's mask by the surface.

    A mask on any other ground, or one asked for by its method's name, is returned as it is.
    """
    if candidate.standing_out is None:
        return candidate
    mask, trust = candidate.mask, candidate.trust
    foreground_prob = scene.foreground_prob_at_image_size()
    if candidate.method == "plain":
        mask = remove_unlikely_parts(mask, foreground_prob)
        filled = fill_likely_holes(mask, foreground_prob)
        trust = expected_iou(scene.foreground_prob, filled)
        if 2 * np.count_nonzero(mask & (scene.ground.distance < FAINT_DISTANCE)) > np.count_nonzero(mask):
            mask = filled
        if is_white(scene.ground):
            mask = fill_white_parts(mask, foreground_prob)
    else:
        mask = reconcile_masks(mask, candidate.standing_out, foreground_prob, scene.ground)
    return Candidate(add_pale_parts(mask, scene.ground, foreground_prob), candidate.method, trust)


def consider_whole_image(candidate: Candidate, scene: Scene) -> Candidate:
    """Return the whole image instead of a mask where its expected IoU is higher: the product fills the image.

    Either there is a ground, and the network's probabilities hold, or there is none, and the product is everywhere. The
    trust is the expectation over both.
    """
    prob, mask = scene.no_ground_prob, candidate.mask
    trust = (1 - prob) * candidate.trust + prob * np.count_nonzero(mask) / mask.size
    trust_in_whole = (1 - prob) * float(scene.foreground_prob.mean()) + prob
    if trust_in_whole > trust:
        return Candidate(np.ones_like(mask), "whole", trust_in_whole)
    return Candidate(mask, candidate.method, trust)


def choose_view(views: list[Candidate], panels_bgr: list[np.ndarray], min_trust: float) -> int | None:
    """Return which view of a collage to keep: the first that is trusted nearly as much as any; close-ups come last.

    Sellers put first what shows the product best, and the like views of two sellers then lie together. None where
    fewer than two views show a product of like colours, trusted at least `min_trust`: shelves and skirting boards part
    photographs too, into the product and what stands above or below.

    views : the mask of each panel; panels_bgr : uint8 ndarrays of shape (H, W, 3), the panels, as large as the masks
    """
    shown = [i for i, view in enumerate(views) if view.trust >= min_trust and view.mask.mean() >= MIN_FOREGROUND]
    colours = [colour_shares(panels_bgr[i][views[i].mask]) for i in shown]
    if not any(are_like_colours(one, other) for one, other in itertools.combinations(colours, 2)):
        return None
    shown = [i for i in shown if is_plausible(views[i].mask)] or shown
    most = max(views[i].trust for i in shown)
    return next(i for i in shown if views[i].trust >= most - LESS_TRUSTED)


def expected_iou(foreground_prob: np.ndarray, mask: np.ndarray) -> float:
    """Return the intersection over union of a mask and the product that the network's probabilities let expect, 0..1.

    foreground_prob : float32 (h, w), 0..1; mask : bool of any size

    >>> round(expected_iou(np.float32([[1, 0.5], [0.25, 0]]), np.array([[True, True], [False, False]])), 3)
    0.667
    """
    share = cv2.resize(mask.astype(np.float32), foreground_prob.shape[::-1], interpolation=cv2.INTER_AREA)
    both = float(np.vdot(foreground_prob, share))
    return both / max(1e-6, float(foreground_prob.sum()) + float(share.sum()) - both)


def _network_iou(scene: Scene) -> float:
    """Return `expected_iou` of the network's own mask."""
    return expected_iou(scene.foreground_prob, scene.foreground_prob > 0.5)
