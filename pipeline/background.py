"""Where a photograph's ground is, as stage 01 sees it: a smooth surface, the colours of the border, a small network.

The network says for each pixel how likely it shows the product. It does not look at the photograph alone but at clues:
how unlike the smooth ground and the border a pixel is, and how much detail is there, tell more than colours do.
make_background_network.py trains it on the same clues.
"""

import functools
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import cv2
import numpy as np

import config
from pipeline import files, settings

if TYPE_CHECKING:
    import onnxruntime

WORK_SIZE = 320  # longest side at which a product is looked for, pixels
MIN_FOREGROUND = 0.004  # share of the image; a smaller product is taken for a failure
MAX_FOREGROUND = 0.97  # share of the image; a larger product leaves no ground to remove
NETWORK_SIZE = 128  # pixels per side of what the network sees and says
N_CLUES = 6  # blue, green, red, distance to the smooth ground, unlikeness to the border, detail
SHIPPED_NETWORK = Path(__file__).with_name("background_network.onnx")


def to_lab(image_bgr: np.ndarray) -> np.ndarray:
    """CIE L*a*b* of a uint8 BGR image (H, W, 3) as float32: L 0..100, a and b about -127..127."""
    return cv2.cvtColor(np.multiply(image_bgr, np.float32(1 / 255), dtype=np.float32), cv2.COLOR_BGR2Lab)


def ring_of(height: int, width: int, share: float) -> np.ndarray:
    """The pixels nearer to the border than `share` of the longest side: bool (height, width)."""
    ring = np.ones((height, width), bool)
    b = max(2, round(share * max(height, width)))
    ring[b:-b, b:-b] = False
    return ring


@functools.cache
def quadratic(height: int, width: int) -> np.ndarray:
    """The terms 1, x, y, xx, xy, yy with x and y from -1 to 1: float32 (height, width, 6)."""
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j].astype(np.float32)
    return np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], axis=-1)


def length(vectors: np.ndarray) -> np.ndarray:
    """Euclidean length along the last axis, of three: float32 (..., 3) -> (...)."""
    square = cv2.multiply(vectors, vectors).reshape(-1, 1, 3)
    return cv2.sqrt(cv2.transform(square, np.ones((1, 3), np.float32))).reshape(vectors.shape[:-1])


def box_of(mask: np.ndarray) -> tuple[slice, slice]:
    """Rows and columns of the smallest rectangle that holds a mask, bool (H, W); empty where it holds nothing."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)) if len(rows) else (slice(0), slice(0))


def plausible(mask: np.ndarray) -> bool:
    """Whether a mask's share of the image is one that a product can have."""
    return MIN_FOREGROUND <= np.count_nonzero(mask) / mask.size <= MAX_FOREGROUND


def size_within(width: int, height: int, longest: int) -> tuple[int, int]:
    """Width and height scaled down so that the longer is at most `longest`, the shorter at least 8 pixels."""
    scale = min(1.0, longest / max(width, height))
    return max(8, round(width * scale)), max(8, round(height * scale))


def quantile(values: np.ndarray, share: float) -> float:
    """The value that a share of all is below, by the nearest rank: float32 (n,), n > 0.

    For as few as a border's pixels NumPy's takes ten times as long.
    """
    return float(np.sort(values)[round(share * (len(values) - 1))])


def fit_surface(terms: np.ndarray, values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted least squares: terms (n, 6), values (n, 3), weights (n,) -> coefficients (6, 3)."""
    weighted = terms * weights[:, None]  # (n, 6)
    normal = weighted.T @ terms + 1e-5 * len(terms) * np.eye(terms.shape[1], dtype=np.float32)
    return np.linalg.solve(normal, weighted.T @ values)


class Ground(NamedTuple):
    """A smooth ground, see `fit_ground`."""

    surface: np.ndarray
    distance: np.ndarray
    explained: float
    noise: float
    grain: float


def fit_ground(lab: np.ndarray) -> Ground:
    """Find the smooth ground and each pixel's distance to it: a quadratic surface in L*a*b*, fitted to the border.

    Iteratively reweighted least squares with Tukey's biweight, on a small copy; then once more on all pixels that
    the surface explains.

    Parameters
    ----------
    lab : float32 ndarray of shape (H, W, 3)

    Returns
    -------
    surface : float32 ndarray of shape (H, W, 3), the ground's L*a*b* at each pixel, also behind the product
    distance : float32 ndarray of shape (H, W), CIE76 colour difference to the surface
    explained : share of the border's pixels nearer than 6 to the surface, 0..1; plain grounds have over 0.9
    noise : median distance of these pixels; plain grounds have less than 1. Like `explained` of the small copy
    grain : the distance that 95 % of the outermost pixels nearer than 6 stay below
    """
    height, width = lab.shape[:2]
    small = cv2.resize(lab, size_within(width, height, 60), interpolation=cv2.INTER_AREA)
    h, w = small.shape[:2]
    terms, ring = quadratic(h, w), ring_of(h, w, 0.04)
    ring_terms, ring_values = terms[ring], small[ring]  # (n, 6), (n, 3)

    coefficients = np.zeros((6, 3), np.float32)
    coefficients[0] = [quantile(ring_values[:, i], 0.5) for i in range(3)]
    rest, scale = length(ring_values - coefficients[0]), 20.0
    for _ in range(5):
        coefficients = fit_surface(ring_terms, ring_values, np.maximum(1 - (rest / (3 * scale)) ** 2, 1e-3) ** 2)
        rest = length(ring_values - ring_terms @ coefficients)
        scale = min(max(3.7 * quantile(rest, 0.5), 1.5), scale)
    limit = min(max(2 * scale - 1, 2), 5)  # a wider one takes pale parts of a product for ground
    for _ in range(2):
        rest = length(small - terms @ coefficients)
        near = rest < limit
        if np.count_nonzero(near) > 50:
            weights = near * (1 - (rest / (1.6 * limit)) ** 2) ** 2
            coefficients = fit_surface(terms.reshape(-1, 6), small.reshape(-1, 3), weights.ravel())
    rest = length(ring_values - ring_terms @ coefficients)
    surface = cv2.resize(terms @ coefficients, (width, height), interpolation=cv2.INTER_LINEAR)  # (H, W, 3)
    distance = length(lab - surface)
    rows, columns = distance[[0, 1, -2, -1]], distance[:, [0, 1, -2, -1]]  # (4, W), (H, 4)
    outermost = np.concatenate([rows.ravel(), columns.ravel()])
    near, outermost = rest[rest < 6], outermost[outermost < 6]
    noise = quantile(near, 0.5) if len(near) else 6.0
    grain = quantile(outermost, 0.95) if len(outermost) else 6.0
    return Ground(surface, distance, float((rest < 6).mean()), noise, grain)


def border_distance(lab: np.ndarray) -> np.ndarray:
    """How unlike the border's colours each pixel is, in standard deviations of the nearest of five clusters of them.

    float32 L*a*b* (H, W, 3) -> float32 (H, W). A cluster of less than 3 % of the border counts as no ground.
    """
    ring = lab[ring_of(*lab.shape[:2], 0.06)]  # (n, 3)
    cv2.setRNGSeed(config.RANDOM_SEED)
    _, nearest, centres = cv2.kmeans(ring, 5, None, (3, 8, 1.0), 1, cv2.KMEANS_PP_CENTERS)
    nearest = nearest.ravel()
    count = np.bincount(nearest, minlength=5)
    spread = np.bincount(nearest, ((ring - centres[nearest]) ** 2).sum(axis=1), 5) / np.maximum(1, 3 * count)
    ground = count > 0.03 * len(ring)
    near = [length(lab - centres[i]) / np.sqrt(max(9, spread[i])) for i in np.flatnonzero(ground)]  # of (H, W)
    return functools.reduce(np.minimum, near).astype(np.float32)


# ---- the network ---------------------------------------------------------------------------------


def clues(image_bgr: np.ndarray, ground: Ground) -> np.ndarray:
    """What the network sees of an image.

    Parameters
    ----------
    image_bgr : uint8 ndarray of shape (H, W, 3)
    ground : `fit_ground` of it

    Returns
    -------
    uint8 ndarray of shape (NETWORK_SIZE, NETWORK_SIZE, N_CLUES): blue, green, red; the distance to the smooth ground;
    how unlike the border's colours it is, see `border_distance`; the detail (the Laplacian of the grey values).
    Distance and detail are square roots, since what is nearly ground matters most.
    """
    size = NETWORK_SIZE, NETWORK_SIZE
    grey = cv2.cvtColor(image_bgr, cv2.COLOR_BGR2GRAY)
    detail = np.minimum(np.abs(cv2.Laplacian(grey, cv2.CV_32F)), 60)
    distance, detail = (
        cv2.resize(values, size, interpolation=cv2.INTER_AREA) for values in (np.minimum(ground.distance, 60), detail)
    )
    small_bgr = cv2.resize(image_bgr, size, interpolation=cv2.INTER_AREA)
    coarse = cv2.resize(to_lab(small_bgr), (NETWORK_SIZE // 2, NETWORK_SIZE // 2), interpolation=cv2.INTER_AREA)
    unlike = cv2.resize(np.minimum(border_distance(coarse), 12), size, interpolation=cv2.INTER_LINEAR)
    beside = 255 * cv2.sqrt(distance / 60), 255 / 12 * unlike, 255 * cv2.sqrt(detail / 60)
    return cv2.merge([*cv2.split(small_bgr), *(values.astype(np.uint8) for values in beside)])


@functools.cache
def read_network(path: Path) -> "onnxruntime.InferenceSession":
    """The network of a file, read once; raises UserError where it can't be read.

    It computes in the thread that asks, and may be asked by several at a time.
    """
    import onnxruntime  # takes longer than an unchanged run

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4  # what goes wrong is raised; no lines of its own on stderr
    options.enable_cpu_mem_arena = False
    try:
        network = onnxruntime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])
        likely_product(network, np.zeros((NETWORK_SIZE, NETWORK_SIZE, N_CLUES), np.uint8))
    except Exception:  # onnxruntime's errors have no class in common but this one
        raise settings.UserError(
            f"BACKGROUND_NETWORK: {files.shown(path)} is no network of make_background_network.py that can be read: "
            'name another file, or "auto"'
        ) from None
    return network


def network_path() -> Path:
    """The file that BACKGROUND_NETWORK names, below the root where it is no absolute path."""
    return SHIPPED_NETWORK if config.BACKGROUND_NETWORK == "auto" else files.root() / config.BACKGROUND_NETWORK


def likely_product(network: "onnxruntime.InferenceSession", seen: np.ndarray) -> np.ndarray:
    """How likely each pixel shows the product, 0..1: `clues` -> float32 (NETWORK_SIZE, NETWORK_SIZE)."""
    (likely,) = network.run(["product"], {"clues": np.ascontiguousarray(scaled(seen).transpose(2, 0, 1)[None])})
    return likely.reshape(NETWORK_SIZE, NETWORK_SIZE)


def scaled(seen: np.ndarray) -> np.ndarray:
    """`clues` as the network takes them: uint8 -> float32, -1..1."""
    return seen.astype(np.float32) / 127.5 - 1
