"""Composed photographs with true masks: cut-out products before other grounds, with shadows, text and other things.

The network of stage 01 learns from these, so each kind of what is hard to tell apart occurs often.
"""

from typing import NamedTuple

import cv2
import numpy as np

from pipeline.background.regions import bounding_box, square
from pipeline.sample.grounds import GROUNDS, blur, draw_ground
from pipeline.sample.shop_text import draw_shop_text

SIDE = 256  # pixels per side of a composed photograph
MIN_CROP = 70  # pixels per side of a close-up's part; a smaller one is blurred when enlarged, unlike a photograph
CROP_TRIALS = 80  # random parts looked at; more than half of the photographs have none without ground


class Cutout(NamedTuple):
    """A product, cut to its box."""

    image_bgr: np.ndarray  # uint8 (H, W, 3); the pixels at its edge have the colour of those further in
    mask: np.ndarray  # uint8 (H, W), 0 and 1


def cut_out(image_bgr: np.ndarray, mask: np.ndarray) -> Cutout:
    """Cut the product out of an image, uint8 BGR (H, W, 3), by its mask, bool (H, W), which holds something.

    At the edge the camera blended product and ground: these pixels take the colour of the product further in.
    """
    box = bounding_box(mask)
    image_bgr, whole = image_bgr[box].copy(), mask[box].astype(np.uint8)
    inside = cv2.erode(whole, square(3))
    weight = cv2.blur(inside.astype(np.float32), (7, 7))
    edge = (inside == 0) & (weight > 0.01)
    further_in = cv2.blur(image_bgr * inside[..., None].astype(np.float32), (7, 7))
    image_bgr[edge] = np.clip(further_in[edge] / weight[edge, None], 0, 255)
    return Cutout(image_bgr, whole)


def recolour(image_bgr: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the image in other colours, four of ten as they are: another hue, paler or stronger, lighter or darker."""
    if rng.random() < 0.4:
        return image_bgr
    hsv = cv2.cvtColor(image_bgr, cv2.COLOR_BGR2HSV).astype(np.float32)
    hsv[..., 0] = (hsv[..., 0] + rng.uniform(0, 180)) % 180
    hsv[..., 1] = np.clip(hsv[..., 1] * rng.choice([0, 0.3, 0.7, 1, 1.5]) + rng.choice([0, 0, 20]), 0, 255)
    value = hsv[..., 2] / 255
    kind = rng.choice(["pale", "dark", "curve", "negative", "same"], p=[0.25, 0.15, 0.3, 0.08, 0.22])
    if kind == "pale":
        value = 1 - (1 - value) * rng.uniform(0.08, 0.5)
    elif kind == "dark":
        value = value * rng.uniform(0.15, 0.5)
    elif kind == "curve":
        value = value ** rng.uniform(0.4, 2.5)
    elif kind == "negative":
        value = 1 - value
    hsv[..., 2] = 255 * value
    return cv2.cvtColor(hsv.astype(np.uint8), cv2.COLOR_HSV2BGR)


def disguise(product: Cutout, ground_bgr: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the product's image, made hard to tell from a ground of the colour `ground_bgr` (3,); mostly as it is.

    Parts of the ground's colour, highlights of it, the whole faded towards it, nothing but lines, stripes.
    """
    kinds = ["parts", "light", "faded", "lines", "stripes", "as it is"]
    kind = rng.choice(kinds, p=[0.12, 0.08, 0.07, 0.07, 0.07, 0.59])
    image_bgr, (height, width) = product.image_bgr.copy(), product.mask.shape

    def within(far: int) -> np.ndarray:
        """Return where the product's outline is farther than `far` pixels: bool (height, width)."""
        framed = cv2.copyMakeBorder(product.mask, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
        return cv2.distanceTransform(framed, cv2.DIST_L2, 3)[1:-1, 1:-1] > far

    if kind == "parts":
        field = cv2.resize(rng.normal(0, 1, (rng.integers(2, 7),) * 2), (width, height), interpolation=cv2.INTER_CUBIC)
        part = field > np.quantile(field, rng.uniform(0.5, 0.9))
        part &= within(2) | (rng.random() < 0.5)
        image_bgr[part] = np.clip(image_bgr[part] * rng.uniform(0, 0.1) + 0.95 * ground_bgr, 0, 255)
    elif kind == "light":
        image_bgr[image_bgr.max(axis=2) > rng.integers(60, 220)] = ground_bgr
    elif kind == "faded":
        share = rng.uniform(0.3, 0.9)
        image_bgr = (image_bgr * (1 - share) + ground_bgr * share).astype(np.uint8)
    elif kind == "lines":
        lines = cv2.Canny(image_bgr, 80, 200) > 0
        blank = within(round(max(height, width) * rng.uniform(0.006, 0.02))) & ~lines
        share = rng.uniform(0, 0.12)
        image_bgr[blank] = image_bgr[blank] * share + ground_bgr * (1 - share)
    elif kind == "stripes":
        along = np.mgrid[:height, :width][rng.integers(2)]
        stripe = along * int(rng.integers(3, 20)) // max(height, width) % 2 == 0
        image_bgr[stripe] = rng.uniform(0, 255, 3) if rng.random() < 0.6 else ground_bgr
    return image_bgr


def change_view(product: Cutout, longest: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return the product turned, scaled to about `longest` pixels, sheared, mirrored, and half of the time bent.

    The first value is its image, uint8 BGR (h, w, 3), the second its opacity, float32 (h, w), 0..1.
    """
    image_bgr, opacity = product.image_bgr, product.mask.astype(np.float32)
    if rng.random() < 0.5:
        image_bgr, opacity = np.ascontiguousarray(image_bgr[:, ::-1]), np.ascontiguousarray(opacity[:, ::-1])
    shrink = min(1.0, 1.2 * longest / max(opacity.shape))
    size = max(4, round(opacity.shape[1] * shrink)), max(4, round(opacity.shape[0] * shrink))
    image_bgr, opacity = (cv2.resize(values, size, interpolation=cv2.INTER_AREA) for values in (image_bgr, opacity))
    width, height = size
    angle = np.deg2rad(rng.normal(0, 15) if rng.random() < 0.9 else rng.uniform(-180, 180))
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    stretch, scale = np.exp(rng.normal(0, 0.12)), longest / max(size)
    matrix = np.diag([scale * stretch, scale / stretch]) @ turn @ [[1, rng.normal(0, 0.1)], [0, 1]]
    corners = np.array([[0, 0], [width, 0], [0, height], [width, height]]) @ matrix.T
    low, high = corners.min(axis=0) - 2, corners.max(axis=0) + 2
    width, height = np.ceil(high - low).astype(int).tolist()
    warp = np.column_stack([matrix, -low])
    image_bgr = cv2.warpAffine(image_bgr, warp, (width, height), borderMode=cv2.BORDER_REPLICATE)
    opacity = cv2.warpAffine(opacity, warp, (width, height))
    if rng.random() < 0.5:
        knots, far = int(rng.integers(2, 6)), rng.uniform(0.02, 0.08) * max(height, width)
        y, x = np.mgrid[:height, :width].astype(np.float32)
        bends = far * rng.standard_normal((2, knots, knots), np.float32)
        x, y = (
            along + cv2.resize(bend, (width, height), interpolation=cv2.INTER_CUBIC)
            for along, bend in zip((x, y), bends, strict=True)
        )
        image_bgr = cv2.remap(image_bgr, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        opacity = cv2.remap(opacity, x, y, cv2.INTER_LINEAR)
    return image_bgr, opacity


def lay_over(canvas: np.ndarray, values: np.ndarray, opacity: np.ndarray, x: int, y: int) -> None:
    """Put `values` (h, w, ...) with their opacity (h, w) on the canvas (SIDE, SIDE, ...), in place, corner at x, y."""
    height, width = opacity.shape
    top, left, bottom, right = max(0, y), max(0, x), min(SIDE, y + height), min(SIDE, x + width)
    if bottom > top and right > left:
        here, there = np.s_[top:bottom, left:right], np.s_[top - y : bottom - y, left - x : right - x]
        share = opacity[there].reshape(bottom - top, right - left, *(1,) * (canvas.ndim - 2))
        canvas[here] += (values[there] - canvas[here]) * share


def draw_backdrop(photographs: list[np.ndarray], rng: np.random.Generator) -> tuple[np.ndarray, bool]:
    """Return what lies behind a product, float32 BGR (SIDE, SIDE, 3), 0..255, and whether it is plain.

    photographs : uint8 BGR of any size, of which some become grounds; may be empty
    """
    kind = rng.choice(["white", "graded", "photograph", "drawn", "noise"], p=[0.2, 0.25, 0.3, 0.2, 0.05])
    if kind == "white":
        return np.full((SIDE, SIDE, 3), 255 if rng.random() < 0.8 else rng.integers(240, 256), np.float32), True
    if kind == "graded":
        return _graded_backdrop(rng), True
    if kind == "photograph" and photographs:
        return _part_of_photograph(photographs[rng.integers(len(photographs))], rng), False
    if kind == "noise":
        return _noise_backdrop(rng), False
    form = list(GROUNDS)[rng.integers(len(GROUNDS))]
    return np.clip(255 * draw_ground(form, rng, SIDE), 0, 255), form in ("white", "graded")


def _graded_backdrop(rng: np.random.Generator) -> np.ndarray:
    """Return a ground between two colours, some with grain: float32 BGR (SIDE, SIDE, 3), 0..255."""
    light = rng.uniform(20, 250) if rng.random() < 0.4 else rng.uniform(180, 252)
    one = light + rng.normal(0, 12 if rng.random() < 0.6 else 45, 3)
    other = one + rng.normal(0, 18) + rng.normal(0, 5, 3)
    y, x = np.mgrid[-1 : 1 : SIDE * 1j, -1 : 1 : SIDE * 1j]
    angle = rng.uniform(0, 2 * np.pi)
    share = (np.cos(angle) * x + np.sin(angle) * y + 1) / 2
    form = rng.choice(["line", "round", "wall and floor"], p=[0.56, 0.24, 0.2])
    if form == "round":
        share = np.hypot(x, y) / 1.4
    elif form == "wall and floor":
        share = 1 / (1 + np.exp((rng.uniform(-0.3, 0.7) - y) * rng.choice([8, 30, 100])))
    smooth = one + (other - one) * share[..., None]
    grain = rng.normal(0, rng.uniform(0.5, 4), (SIDE, SIDE, 1)) if rng.random() < 0.3 else 0
    return np.clip(smooth + grain, 0, 255).astype(np.float32)


def _part_of_photograph(photograph: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return a part of a photograph, some mirrored, recoloured or blurred: float32 BGR (SIDE, SIDE, 3), 0..255."""
    height, width = (np.array(photograph.shape[:2]) * rng.uniform(0.4, 1)).astype(int)
    top, left = (
        int(rng.integers(0, all_ - part + 1)) for all_, part in zip(photograph.shape, (height, width), strict=False)
    )
    part = cv2.resize(photograph[top : top + height, left : left + width], (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    part = part[:, ::-1] if rng.random() < 0.5 else part
    part = recolour(np.ascontiguousarray(part), rng) if rng.random() < 0.2 else part
    return blur(part.astype(np.float32), rng.uniform(0.5, 3) * (rng.random() < 0.3))


def _noise_backdrop(rng: np.random.Generator) -> np.ndarray:
    """Return coarse or fine noise between two colours: float32 BGR (SIDE, SIDE, 3), 0..255."""
    cells = int(rng.integers(2, 40))
    noise = rng.random((cells, cells, 1 if rng.random() < 0.5 else 3), np.float32)
    way = cv2.INTER_CUBIC if rng.random() < 0.5 else cv2.INTER_NEAREST
    share = cv2.resize(noise, (SIDE, SIDE), interpolation=way).reshape(SIDE, SIDE, -1)
    one, other = rng.uniform(0, 255, (2, 3))
    return np.clip(one + (other - one) * share, 0, 255).astype(np.float32)


def compose_photograph(
    cutouts: list[Cutout], photographs: list[np.ndarray], rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return a composed photograph, uint8 BGR (SIDE, SIDE, 3), and its mask, float32 (SIDE, SIDE), 0..1.

    cutouts : at least one product; photographs : uint8 BGR of any size, for grounds, may be empty
    """
    canvas, plain = draw_backdrop(photographs, rng)
    ground_bgr, mask = canvas.mean(axis=(0, 1)), np.zeros((SIDE, SIDE), np.float32)
    if rng.random() < (0.04 if plain else 0.3):
        for _ in range(rng.integers(1, 4)):
            _put_at_side(canvas, choose_cutout(cutouts, rng), rng)
    product = choose_cutout(cutouts, rng)
    _put_product(canvas, mask, Cutout(disguise(product, ground_bgr, rng), product.mask), rng)
    if not plain and rng.random() < 0.06:  # something in front
        image_bgr, opacity = change_view(choose_cutout(cutouts, rng), 0.3 * SIDE, rng)
        x, y = int(rng.uniform(-50, SIDE - 50)), int(SIDE - opacity.shape[0] * rng.uniform(0.3, 0.8))
        lay_over(canvas, image_bgr.astype(np.float32), opacity, x, y)
        lay_over(mask, np.zeros_like(opacity), opacity, x, y)
    if rng.random() < 0.3:
        canvas /= 255
        hidden = np.zeros_like(mask)
        draw_shop_text(canvas, hidden, rng)
        canvas, mask = 255 * canvas, mask * (1 - hidden)
    if not plain or ground_bgr.min() < 250:
        canvas *= np.exp(rng.normal(0, 0.04, 3)).astype(np.float32)
    return develop(canvas, rng), mask


def crop_close_up(
    image_bgr: np.ndarray, mask: np.ndarray, share: tuple[float, float], rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray] | None:
    """Return a random part of a photograph of which the product covers a `share` between two limits, and its mask.

    image_bgr : uint8 (H, W, 3); mask : bool (H, W). None where no such part is found at once, or only a small one.
    """
    height, width = mask.shape
    covered = cv2.integral(mask.astype(np.uint8))
    for _ in range(CROP_TRIALS):
        h = int(rng.integers(MIN_CROP, max(MIN_CROP + 1, int(0.95 * height))))
        w = round(h * np.exp(rng.normal(0, 0.25)))
        if not (MIN_CROP <= w <= width and h <= height):
            continue
        y, x = int(rng.integers(0, height - h + 1)), int(rng.integers(0, width - w + 1))
        inside = int(covered[y + h, x + w]) - covered[y, x + w] - covered[y + h, x] + covered[y, x]
        if share[0] <= inside / (h * w) <= share[1]:
            part = np.s_[y : y + h, x : x + w]
            size = max(8, round(w * SIDE / max(h, w))), max(8, round(h * SIDE / max(h, w)))
            close_up = cv2.resize(image_bgr[part].astype(np.float32), size, interpolation=cv2.INTER_CUBIC)
            return develop(close_up, rng), cv2.resize(mask[part].astype(np.float32), size)
    return None


def choose_cutout(cutouts: list[Cutout], rng: np.random.Generator) -> Cutout:
    """Return one of the products, most of them recoloured."""
    one = cutouts[rng.integers(len(cutouts))]
    return Cutout(recolour(one.image_bgr, rng), one.mask)


def develop(canvas: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return a canvas, float32 BGR (H, W, 3), as a camera and a JPEG file leave it: uint8 BGR (H, W, 3)."""
    canvas = blur(canvas, rng.uniform(0.4, 1.5) * (rng.random() < 0.25))
    if rng.random() < 0.2:
        canvas += rng.normal(0, rng.uniform(1, 7), canvas.shape)
    quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(45, 97))]
    coded = cv2.imencode(".jpg", np.clip(canvas, 0, 255).astype(np.uint8), quality)[1]
    return cv2.imdecode(coded, cv2.IMREAD_COLOR)


def _put_at_side(canvas: np.ndarray, thing: Cutout, rng: np.random.Generator) -> None:
    """Put another thing at a side of the canvas, in place, half of the time out of focus."""
    image_bgr, opacity = change_view(thing, SIDE * rng.uniform(0.15, 0.5), rng)
    height, width = opacity.shape
    sigma = 2.0 * (rng.random() < 0.5)
    outside = rng.uniform(0.2, 0.7)  # share of the thing
    x, y = rng.uniform(-0.5, 0.5, 2) * (width, height) + rng.uniform(0, SIDE - np.array([width, height]) / 2)
    side = rng.integers(4)
    x = (-outside * width, SIDE - (1 - outside) * width, x, x)[side]
    y = (y, y, -outside * height, SIDE - (1 - outside) * height)[side]
    lay_over(canvas, blur(image_bgr.astype(np.float32), sigma), blur(opacity, sigma), int(x), int(y))


def _put_product(canvas: np.ndarray, mask: np.ndarray, product: Cutout, rng: np.random.Generator) -> None:
    """Put one to three views of a product, some with shadows, on the canvas, and mark them in the mask, in place."""
    copies = 1 if rng.random() < 0.86 else int(rng.integers(2, 4))
    longest = SIDE * rng.uniform(0.35, 0.98) / copies**0.6 if rng.random() < 0.9 else SIDE * rng.uniform(0.95, 1.3)
    for i in range(copies):
        image_bgr, opacity = change_view(product, longest, rng)
        height, width = opacity.shape
        x, y = (SIDE / 2 + rng.normal(0, 0.07 * SIDE, 2) - (width / 2, height / 2)).astype(int).tolist()
        x += int((i - (copies - 1) / 2) * SIDE / copies)
        if rng.random() < 0.4:
            shadow = blur(opacity, rng.choice([1.5, 4, 10])) * np.float32(rng.uniform(0.15, 0.6))
            right, down = int(rng.normal(0, 0.03 * SIDE)), int(abs(rng.normal(0, 0.04 * SIDE)))
            if rng.random() < 0.4:  # where the product touches the floor
                shadow, down = cv2.resize(shadow, (width, max(3, height // 7))), height - height // 14
            black = np.full((*shadow.shape, 3), 0.2 * canvas.min(), np.float32)
            lay_over(canvas, black, shadow, x + right, y + down)
        opacity = blur(opacity, 0.6 * (rng.random() < 0.5))
        lay_over(canvas, image_bgr.astype(np.float32), opacity, x, y)
        lay_over(mask, np.ones_like(opacity), opacity, x, y)
