"""What a seller does to a product: place, light, colour cast, shadow, text."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import cv2
import numpy as np

from pipeline.sample.drawing import CANVAS, Drawing
from pipeline.sample.grounds import GROUND_SHARES, GROUNDS, draw_ground
from pipeline.sample.pixels import Box, as_channels, blur, box_around, scale_channels
from pipeline.sample.shop_text import draw_shop_text

SUPERSAMPLING = 2  # photographs are composed at this multiple of their size and averaged down
REACH = 0.06  # part of the photograph by which a turned product may reach beyond its flat outline
SURROUNDINGS = 8  # pixels round a product by which its height is smoothed and its slope is taken


@dataclass(frozen=True)
class Seller:
    """How one seller photographs: the same for all images of one product id."""

    seed: int  # of ground and text, so that a seller's images share both
    ground: str  # one of GROUNDS
    light: tuple[float, float, float]  # direction towards the lamp: right, down, towards the camera
    ambient: float  # light that comes from everywhere, 0..1
    cast: tuple[float, float, float]  # gain of blue, green, red
    gamma: float
    flat: bool  # laid on the ground and photographed from above, so at any angle
    text: float  # chance that shop text is written on an image
    fill: float  # part of the frame that the product takes
    quality: int  # of the JPEG


def draw_seller(rng: np.random.Generator) -> Seller:
    """Return a seller's style."""
    ground = str(rng.choice(list(GROUNDS), p=GROUND_SHARES))
    amount = 0.05 if ground == "white" else 0.10
    return Seller(
        seed=int(rng.integers(1 << 30)),
        ground=ground,
        light=(rng.uniform(-0.8, 0.8), rng.uniform(-0.9, -0.3), rng.uniform(0.6, 1.1)),
        ambient=rng.uniform(0.35, 0.65),
        cast=tuple(np.exp(rng.normal(0, amount, 3) + rng.normal(0, amount))),
        gamma=float(np.exp(rng.normal(0, 0.18))),
        flat=ground in ("cloth", "planks", "carpet") and rng.random() < 0.6,
        text=float(rng.choice([0.0, 0.3, 0.9])),
        fill=rng.uniform(0.62, 0.94),
        quality=int(rng.choice([40, 60, 75, 85, 92])),
    )


def choose_viewpoint(
    drawing: Drawing, rng: np.random.Generator, seller: Seller, size: int, fill: float, shift: tuple[float, float]
) -> tuple[np.ndarray, float, float]:
    """From where one shot is taken.

    Parameters
    ----------
    drawing : the product
    size : pixels per side of the photograph
    fill : part of the photograph that the product takes, 0..1
    shift : how far it stands from the middle, to the right and down, parts of the photograph

    Returns
    -------
    matrix : homography of shape (3, 3) from canvas to photograph
    yaw, pitch : how far the product is turned about the vertical and the horizontal axis, radians
    """
    yaw, pitch = np.clip(rng.normal(0, 0.32), -0.75, 0.75), rng.normal(0, 0.12)
    roll = rng.uniform(-0.9, 0.9) if seller.flat else rng.normal(0, 0.06)
    rows, columns = drawing.opaque_extent
    left, right, top, bottom = columns.start, columns.stop - 1, rows.start, rows.stop - 1
    corners = np.array([(left, top, 0), (right, top, 0), (right, bottom, 0), (left, bottom, 0)], float)
    (cy, cp, cr), (sy, sp, sr) = np.cos([yaw, pitch, roll]), np.sin([yaw, pitch, roll])
    turned_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    turned_x = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
    turned_z = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
    turned = (corners - corners.mean(0)) @ (turned_z @ turned_x @ turned_y).T  # (4, 3)
    distance = rng.uniform(1.6, 4.0) * CANVAS
    seen = turned[:, :2] * (distance / (distance - turned[:, 2:]))
    low, high = seen.min(0), seen.max(0)
    scale = fill * size / (high - low).max()
    free = np.maximum(0, size - (high - low) * scale)
    place = 0.5 + rng.uniform(-0.35, 0.35, 2)
    if not seller.flat and seller.ground not in ("white", "graded"):
        place[1] = rng.uniform(0.6, 0.9)  # it stands on the floor, which is below
    target = (seen - low) * scale + np.clip(free * place + np.array(shift) * size, 0, free)
    return cv2.getPerspectiveTransform(np.array(corners[:, :2], np.float32), np.array(target, np.float32)), yaw, pitch


@dataclass(frozen=True)
class Shot:
    """A product as one photograph shows it, in the box of the photograph that holds it all.

    lit_bgr : ndarray of shape (height, width, 3), float32 from 0, with no meaning where nothing is covered
    cover : ndarray of shape (height, width), float32, 0..1
    """

    box: Box
    lit_bgr: np.ndarray
    cover: np.ndarray


def render(drawing: Drawing, matrix: np.ndarray, yaw: float, pitch: float, seller: Seller, size: int) -> Shot:
    """Return the product under the seller's lamp.

    The product's height makes it turn like a relief (what is nearer moves further) and reflect the lamp.
    """
    rows, columns = drawing.extent
    corners = np.array([[(x, y) for x in (columns.start, columns.stop) for y in (rows.start, rows.stop)]], np.float32)
    reach = cv2.perspectiveTransform(corners, matrix)[0]
    low = np.clip(np.floor(reach.min(0) - REACH * size), 0, size - 1).astype(int)
    high = np.clip(np.ceil(reach.max(0) + REACH * size), 1, size).astype(int)
    box = slice(low[1], high[1]), slice(low[0], high[0])

    y, x = np.ogrid[box]
    y, x = y.astype(np.float32), x.astype(np.float32)
    inverse = np.linalg.inv(matrix)
    inverse = (inverse / inverse[2, 2]).astype(np.float32)
    far = inverse[2, 0] * x + inverse[2, 1] * y + 1
    u = (inverse[0, 0] * x + inverse[0, 1] * y + inverse[0, 2]) / far
    v = (inverse[1, 0] * x + inverse[1, 1] * y + inverse[1, 2]) / far
    near = cv2.remap(drawing.parallax_height, u, v, cv2.INTER_LINEAR)
    u, v = u + near * np.float32(np.tan(yaw)), v - near * np.float32(np.tan(pitch))
    cover = cv2.remap(drawing.cover, u, v, cv2.INTER_LINEAR)
    tight = box_around(cover, SURROUNDINGS) or np.s_[0:1, 0:1]
    cover, u, v = cover[tight], u[tight], v[tight]
    box = slice(low[1] + tight[0].start, low[1] + tight[0].stop), slice(low[0] + tight[1].start, low[0] + tight[1].stop)
    height, gloss, colour = (
        cv2.remap(layer, u, v, cv2.INTER_LINEAR) for layer in (drawing.height, drawing.gloss, drawing.colour)
    )
    scale = np.float32(min(1.5, abs(np.linalg.det(inverse[:2, :2])) ** -0.5))  # photograph's pixels in a canvas pixel
    lit_bgr = np.divide(colour, as_channels(np.maximum(cover, 0.05)))
    diffuse, shine = illuminate(blur(height, 1.2) * scale, seller)
    lit_bgr *= as_channels(diffuse)
    lit_bgr += as_channels(gloss * shine)
    return Shot(box, lit_bgr, cover)


def illuminate(height: np.ndarray, seller: Seller) -> tuple[np.ndarray, np.ndarray]:
    """Return how much of the seller's light a surface of `height` (pixels) scatters, and how much it mirrors.

    Blinn (1977), Models of light reflection for computer synthesized pictures, doi:10.1145/965141.563893
    """
    gx, gy = (cv2.Sobel(height, cv2.CV_32F, *axis, scale=1 / 8) for axis in ((1, 0), (0, 1)))
    length = np.sqrt(gx * gx + gy * gy + 1)
    lamp = np.array(seller.light, np.float32) / np.linalg.norm(seller.light).astype(np.float32)
    half = lamp + np.array([0, 0, 1], np.float32)
    half /= np.linalg.norm(half)
    diffuse = np.maximum((lamp[2] - gx * lamp[0] - gy * lamp[1]) / length, 0)
    shine = np.maximum((half[2] - gx * half[0] - gy * half[1]) / length, 0)
    window = np.clip((0.75 + 0.7 * half[0] * gx - 0.8 * gy) / length, 0, 1)  # a second, weaker lamp from the other side
    for _ in range(5):  # to the power of 32; repeated squares take a tenth of the time of **
        shine *= shine
        window *= window
    return seller.ambient + (1.25 - seller.ambient) * diffuse, 0.45 * shine + 0.20 * window * window


def lay_shadow(cover: np.ndarray, lay: np.ndarray, sigma: float) -> tuple[Box, np.ndarray] | None:
    """Return the shadow of `cover`, moved by the affine `lay` and blurred, in its box; None where none is seen."""
    moved = cv2.warpAffine(cover, lay, cover.shape[::-1])
    box = box_around(moved, int(5 * sigma) + 2)  # OpenCV cuts the Gaussian off at 4 sigma
    return None if box is None else (box, blur(moved[box], sigma))


def cast_shadow(ground: np.ndarray, cover: np.ndarray, rng: np.random.Generator, seller: Seller) -> None:
    """Darken the ground under and beside the product, in place; `cover` (size, size) is where the product is."""
    size = len(ground)
    rows = np.nonzero(cover.max(1) > 0.5)[0]
    bottom = rows.max() if len(rows) else size
    strength = rng.uniform(0.0, 0.35) if seller.ground == "white" else rng.uniform(0.25, 0.6)
    if seller.flat:
        aside = np.array([[1, 0, -seller.light[0] * 0.03 * size], [0, 1, -seller.light[1] * 0.03 * size]], np.float32)
        shadows = [(1.0, lay_shadow(cover, aside, 0.012 * size))]
    else:
        flat = rng.uniform(0.10, 0.25)
        lean = -seller.light[0] * rng.uniform(0.1, 0.4)
        lying = np.array([[1, -lean, lean * bottom], [0, flat, bottom * (1 - flat)]], np.float32)
        touching = np.array([[1, 0, 0], [0, 0.06, bottom * 0.945]], np.float32)
        shadows = [(0.7, lay_shadow(cover, lying, 0.02 * size)), (1.0, lay_shadow(cover, touching, 0.008 * size))]
    shadow = np.zeros((size, size), np.float32)
    for depth, laid in shadows:
        if laid is not None:
            box, values = laid
            shadow[box] = np.maximum(shadow[box], depth * values)
    if extent := box_around(shadow):
        ground[extent] *= as_channels(1 - np.float32(strength) * np.clip(shadow[extent], 0, 1))


@lru_cache(maxsize=1)
def draw_backdrop(kind: str, seed: int, size: int) -> tuple[np.ndarray, Mapping[str, Any]]:
    """Return a seller's ground, and the state of its random generator afterwards: the seller's images share both."""
    rng = np.random.default_rng(seed)
    ground = draw_ground(kind, rng, size)
    ground.flags.writeable = False
    return ground, rng.bit_generator.state


def photograph(drawing: Drawing, seller: Seller, rng: np.random.Generator, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return one image of a model, BGR uint8 (size, size, 3), and its true mask, uint8 (size, size), 0 or 255."""
    large = size * SUPERSAMPLING
    ground, state = draw_backdrop(seller.ground, seller.seed, large)
    image: np.ndarray = cv2.flip(ground, 1) if rng.random() < 0.5 else ground.copy()
    fill = seller.fill * rng.uniform(0.88, 1.06)
    shots = [(fill, (0.0, 0.0))]
    if rng.random() < 0.15:  # a pair
        aside = rng.uniform(0.08, 0.20) * rng.choice([-1, 1])
        shots = [(fill * 0.72, (aside, -0.10)), (fill * 0.76, (-aside, 0.10))]
    cover: np.ndarray = np.zeros((large, large), np.float32)
    for taken, shift in shots:
        shot = render(drawing, *choose_viewpoint(drawing, rng, seller, large, taken, shift), seller, large)
        own_cover: np.ndarray = np.zeros((large, large), np.float32)
        own_cover[shot.box] = shot.cover
        cast_shadow(image, own_cover, rng, seller)
        part = image[shot.box]
        part += (shot.lit_bgr - part) * as_channels(shot.cover)
        np.maximum(cover, own_cover, out=cover)
    if rng.random() < 0.35:
        image, cover = cv2.flip(image, 1), cv2.flip(cover, 1)
    image, hidden = take(image, seller, rng), np.zeros((large, large), np.float32)
    if rng.random() < seller.text:
        own = np.random.default_rng()
        own.bit_generator.state = state
        draw_shop_text(image, hidden, own)
    image = cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA)
    image = image + rng.uniform(0, 0.02) * rng.standard_normal(image.shape, np.float32)
    shown = cv2.resize(cover * (1 - hidden), (size, size), interpolation=cv2.INTER_AREA)
    return np.clip(image * 255 + 0.5, 0, 255).astype(np.uint8), np.where(shown > 0.5, 255, 0).astype(np.uint8)


def take(scene: np.ndarray, seller: Seller, rng: np.random.Generator) -> np.ndarray:
    """Return the scene (size, size, 3) as the seller's camera takes it: gamma, colour cast, vignette, blur."""
    size = len(scene)
    image: np.ndarray = cv2.pow(np.clip(scene, 0, 1, out=scene), seller.gamma)
    scale_channels(image, np.array(seller.cast, np.float32))
    image *= np.float32(rng.uniform(0.9, 1.1))
    if seller.ground != "white":
        off = np.linspace(-1, 1, size, dtype=np.float32) ** 2
        image *= as_channels(1 - np.float32(rng.uniform(0, 0.11)) * (off[:, None] + off))
    return blur(image, float(rng.choice([0, 0, 1.0, 2.0])))
