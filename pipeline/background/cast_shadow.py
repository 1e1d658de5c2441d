"""A drop shadow with an edge: ground, evenly darkened, in the shape of the product moved aside.

A shadow without an edge is found by its slope (`smooth_ground.find_shadows`). This one is found by its shape.
"""

import cv2
import numpy as np

from pipeline.background.colour import ground_light, to_bgr
from pipeline.background.ground import Ground, is_smooth, noise_limit
from pipeline.background.regions import square

MIN_LIGHT, MAX_LIGHT = 0.3, 0.97  # cube root of the share of the ground's light that a shadow leaves
EVEN_LIGHT = 0.03  # of the same; the middle of a shadow varies by less
MIN_SHADOW = 0.002  # share of the image; a smaller shadow changes no mask by much
# IoU of the shadow and the visible part of the product moved aside. Of 60 cut-outs with an edged shadow nine in ten
# have more; soft shadows have up to 0.53, photographs of a catalogue without an edged shadow up to 0.41
MIN_AGREEMENT = 0.55
MAX_SHIFT = 0.15  # of the image's longest side
PENUMBRA = 7  # pixels; width of the square by which a shadow's middle is widened to hold its soft rim


def erase_cast_shadow(image_bgr: np.ndarray, lab: np.ndarray, ground: Ground) -> tuple[np.ndarray, np.ndarray, Ground]:
    """Return image, L*a*b* and ground as they would be without a cast shadow; as they are where there is none.

    image_bgr : uint8 (H, W, 3); lab : float32 (H, W, 3); ground : `fit_ground` of the image
    """
    shadow = find_cast_shadow(lab, ground) if is_smooth(ground) else None
    if shadow is None:
        return image_bgr, lab, ground
    lab = np.where(shadow[..., None], ground.surface, lab)
    image_bgr = np.where(shadow[..., None], to_bgr(ground.surface), image_bgr)
    return image_bgr, lab, ground._replace(distance=np.where(shadow, np.float32(0), ground.distance))


def find_cast_shadow(lab: np.ndarray, ground: Ground) -> np.ndarray | None:
    """Return the cast shadow on a smooth ground, bool (H, W), or None where there is none.

    The visible part of a shadow is the product's outline moved by a vector, without the product. For all vectors at
    once, two correlations say how well that agrees with the evenly darkened ground (intersection over union): of the
    darkened ground with the product, and of the product with itself.

    lab : float32 (H, W, 3), CIE L*a*b*; ground : `fit_ground` of the image
    """
    light, chroma = ground_light(lab, ground.surface)
    far = ground.distance > noise_limit(ground)
    dark = far & (light > MIN_LIGHT) & (light < MAX_LIGHT) & (chroma < 4)
    if np.count_nonzero(dark) < MIN_SHADOW * dark.size:
        return None
    histogram = np.bincount((light[dark] / (EVEN_LIGHT / 2)).astype(np.int32))
    level = (np.convolve(histogram, [1, 1, 1, 1], mode="full").argmax() - 1) * EVEN_LIGHT / 2  # of the fullest four
    even = dark & (np.abs(light - level) < EVEN_LIGHT)
    even = cv2.morphologyEx(even.view(np.uint8), cv2.MORPH_OPEN, square(3))
    if np.count_nonzero(even) < MIN_SHADOW * even.size:
        return None
    soft_rim = dark & (light > level - EVEN_LIGHT) & (cv2.dilate(even, square(PENUMBRA)) > 0)
    product = far & ~soft_rim
    shift, agreement = _best_shift(soft_rim.view(np.uint8), product.view(np.uint8))
    if agreement < MIN_AGREEMENT:
        return None
    moved = cv2.warpAffine(
        product.view(np.uint8), np.float32([[1, 0, shift[0]], [0, 1, shift[1]]]), product.shape[::-1]
    )
    return soft_rim & (cv2.dilate(moved, square(PENUMBRA)) > 0)


def _best_shift(shadow: np.ndarray, product: np.ndarray) -> tuple[tuple[int, int], float]:
    """Return the vector (right, down) by which the product's outline fits the shadow best, and the IoU, 0..1.

    shadow, product : uint8 (H, W), 0 and 1, with no pixel in common
    """
    height, width = shadow.shape
    far = round(MAX_SHIFT * max(height, width))
    size = cv2.getOptimalDFTSize(height + far), cv2.getOptimalDFTSize(width + far)
    spectrum = np.fft.rfft2(product, size)
    covered, own = (
        np.fft.fftshift(np.fft.irfft2(np.fft.rfft2(part, size) * spectrum.conj(), size)) for part in (shadow, product)
    )  # pixels of the shadow, and of the product, under the product moved by each vector
    visible = np.count_nonzero(product) - own
    agreement = covered / np.maximum(1, np.count_nonzero(shadow) + visible - covered)
    y, x = size[0] // 2, size[1] // 2
    near = agreement[y - far : y + far + 1, x - far : x + far + 1]
    down, right = np.unravel_index(near.argmax(), near.shape)
    return (int(right) - far, int(down) - far), float(near.max())
