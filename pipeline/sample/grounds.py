"""What lies behind a product: paper, cloth, planks, tiles, carpet, lamps, shelves, a room."""

import cv2
import numpy as np

from pipeline.sample.curves import spline
from pipeline.sample.materials import PRINTS, choose
from pipeline.sample.pixels import as_channels, blend, blur, coloured
from pipeline.sample.textures import print_pattern, smooth_noise


def tint(rng: np.random.Generator, low: float, high: float, strength: float = 0.12) -> np.ndarray:
    """Return a muted random colour, BGR (3,) float32, of brightness low..high."""
    return np.clip(rng.uniform(low, high) * (1 + rng.normal(0, strength, 3)), 0.02, 1).astype(np.float32)


def draw_box(canvas: np.ndarray, x: float, y: float, width: float, height: float, colour: np.ndarray) -> None:
    """Draw a rectangle with a lit top and a darker right side; sizes in pixels."""
    corners = np.array([[x, y], [x + width, y], [x + width, y + height], [x, y + height]])
    cv2.fillPoly(canvas, [(corners * 16).astype(np.int32)], colour.tolist(), cv2.LINE_AA, 4)
    side = np.array([[x + width * 0.86, y], [x + width, y], [x + width, y + height], [x + width * 0.86, y + height]])
    cv2.fillPoly(canvas, [(side * 16).astype(np.int32)], (colour * 0.75).tolist(), cv2.LINE_AA, 4)


def draw_clutter(canvas: np.ndarray, rng: np.random.Generator, floor: float, n: int) -> None:
    """Boxes, vases, books and balls that stand on the line y = floor (pixels)."""
    size = len(canvas)
    for _ in range(n):
        x, width, height = (rng.uniform(-0.1, 1) * size, rng.uniform(0.05, 0.22) * size, rng.uniform(0.08, 0.42) * size)
        colour = tint(rng, 0.15, 0.9, 0.35)
        kind = rng.integers(4)
        if kind == 0:
            draw_box(canvas, x, floor - height, width, height, colour)
        elif kind == 1:
            for _ in range(int(rng.integers(3, 7))):
                draw_box(
                    canvas, x, floor - height, width * 0.22, height * rng.uniform(0.85, 1), tint(rng, 0.15, 0.9, 0.4)
                )
                x += width * 0.24
        elif kind == 2:
            foot, neck = floor - height * 0.45, floor - height * 0.8
            vase = [(x, floor), (x, floor), (x + width, floor), (x + width, floor), (x + width * 1.1, foot),
                    (x + width * 0.7, neck), (x + width * 0.8, floor - height), (x + width * 0.2, floor - height),
                    (x + width * 0.3, neck), (x - width * 0.1, foot)]  # fmt: skip
            cv2.fillPoly(canvas, [(spline(vase) * 16).astype(np.int32)], colour.tolist(), cv2.LINE_AA, 4)
            for _ in range(int(rng.integers(0, 12))):
                tip = (x + width * 0.5 + rng.normal(0, width), floor - height - rng.uniform(0.2, 0.9) * height)
                leaf = spline(
                    [
                        (x + width * 0.5, floor - height),
                        ((x + width * 0.5 + tip[0]) / 2 + 8, (floor - height + tip[1]) / 2),
                        tip,
                    ]
                )
                cv2.fillPoly(
                    canvas,
                    [(leaf * 16).astype(np.int32)],
                    (tint(rng, 0.2, 0.5) * [0.6, 1.2, 0.7]).tolist(),
                    cv2.LINE_AA,
                    4,
                )
        else:
            centre = (int(x * 16), int((floor - width / 2) * 16))
            cv2.circle(canvas, centre, int(width * 8), colour.tolist(), -1, cv2.LINE_AA, 4)
            cv2.circle(canvas, (centre[0] - int(width * 2), centre[1] - int(width * 2)), int(width * 4),
                       np.clip(colour * 1.2, 0, 1).tolist(), -1, cv2.LINE_AA, 4)  # fmt: skip


def ground_white(rng: np.random.Generator, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return a cut-out's white, or nearly."""
    return np.full((x.size, x.size, 3), rng.choice([1.0, 1.0, 0.97, 0.94]), np.float32)


def ground_graded(rng: np.random.Generator, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return a studio's paper roll: one colour, a glow, a soft or hard horizon."""
    step = 1 / (1 + np.exp((rng.uniform(0.5, 0.8) - y) / rng.uniform(0.01, 0.12)))
    glow = np.exp(-((x - rng.uniform(0.2, 0.8)) ** 2 + (y - 0.4) ** 2) / 0.35)
    return coloured(tint(rng, 0.45, 0.95, 0.08), 0.78 + 0.16 * glow + rng.uniform(-0.12, 0.12) * step)


def ground_cloth(rng: np.random.Generator, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return a woven cloth with folds."""
    size = x.size
    folds = np.gradient(blur(smooth_noise(rng, size, size / rng.uniform(3, 9)), 6), axis=1)
    weave = np.sin(x * size * 1.2) * np.sin(y * size * 1.2)
    return coloured(tint(rng, 0.3, 0.95), 0.8 + rng.uniform(0, 4) * folds + 0.03 * weave)


def ground_planks(rng: np.random.Generator, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Wooden planks, each of its own brightness, with grain along them."""
    size, n = x.size, rng.uniform(4, 9)
    plank = np.floor(y * n)
    fine = cv2.resize(smooth_noise(rng, size, 5.0)[:, : size // 12], (size, size))
    grain = fine + 0.6 * smooth_noise(rng, size, size / 20)
    gap = np.clip(np.abs(y * n - plank - 0.5) - 0.47, 0, 0.03) / 0.03
    bright = (
        np.array(rng.uniform(0.75, 1.1, int(n) + 1), np.float32)[plank.astype(int)]
        * (1 + 0.07 * grain)
        * (1 - 0.6 * gap)
    )
    wood = coloured(tint(rng, 0.35, 0.85, 0.05) * np.array([0.62, 0.82, 1.0], np.float32), bright)
    return wood if rng.random() < 0.5 else cv2.transpose(wood)


def ground_tiles(rng: np.random.Generator, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Marbled tiles, of one colour or two, in perspective."""
    size, n, slant = x.size, rng.uniform(3, 7), rng.uniform(0, 0.5)
    u, v = (x - 0.5) * (1 + slant * y) * n, (y + 0.3 * slant * y * y) * n
    joint = np.maximum(np.abs(u - np.round(u)) < 0.02, np.abs(v - np.round(v)) < 0.02).astype(np.float32)
    chequer = (np.floor(u + 0.5) + np.floor(v + 0.5)) % 2 * float(rng.choice([0.0, 0.0, 0.12, 0.5]))
    marble = 0.05 * smooth_noise(rng, size, size / 8) + 0.02 * smooth_noise(rng, size, 6)
    return coloured(tint(rng, 0.5, 0.95, 0.05), 1 - chequer + marble - 0.2 * blur(joint, 1))


def ground_carpet(rng: np.random.Generator, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Pile or grass, some with a print."""
    size = x.size
    pile = 0.13 * smooth_noise(rng, size, 3.0) + 0.08 * smooth_noise(rng, size, 12.0)
    ground = coloured(tint(rng, 0.3, 0.85, 0.14), 1 + pile)
    if rng.random() < 0.65:
        return ground
    u, v = np.broadcast_arrays(x / 0.13, y / 0.13)
    ink = 0.5 * print_pattern(choose(rng, *PRINTS), u, v, rng)
    return blend(ground, tint(rng, 0.2, 0.9, 0.2), ink)


def ground_lights(rng: np.random.Generator, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Lamps out of focus behind a table."""
    size = x.size
    canvas = np.ones((size, size, 3), np.float32) * tint(rng, 0.15, 0.6, 0.15) * (0.7 + 0.6 * y[..., None])
    spot = np.zeros((size, size), np.uint8)
    for _ in range(int(rng.integers(8, 26))):
        column, row = rng.uniform(0, size, 2).astype(int).tolist()
        radius = int(rng.uniform(0.02, 0.13) * size)
        cv2.circle(spot, (column, row), radius, 255, -1, cv2.LINE_AA)
        rim = radius + 2  # with the pixels that are covered in part
        box = np.s_[max(0, row - rim) : row + rim + 1, max(0, column - rim) : column + rim + 1]
        canvas[box][spot[box] > 0] += tint(rng, 0.1, 0.4, 0.25)
        spot[box] = 0
    floor = 1 / (1 + np.exp((0.72 - y) / 0.01))[..., None]
    table = tint(rng, 0.3, 0.8) * (1.29 - 0.4 * y[..., None])
    return np.clip(blur(canvas, 0.008 * size) * (1 - floor) + table * floor, 0, 1)


def draw_wall(rng: np.random.Generator, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return a plain or papered wall."""
    size = x.size
    canvas = np.empty((size, size, 3), np.float32)
    canvas.reshape(size, -1)[:] = np.tile(tint(rng, 0.45, 0.95, 0.08), size)
    if rng.random() < 0.5:
        u, v = np.broadcast_arrays(x / 0.11, y / 0.11)
        canvas *= as_channels(1 - 0.10 * print_pattern(choose(rng, "stripes", "check", "dots"), u, v, rng))
    return canvas


def ground_shelf(rng: np.random.Generator, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Shelves full of things."""
    size, canvas = x.size, draw_wall(rng, x, y)
    for board in (0.30, rng.uniform(0.62, 0.72), 0.95):
        draw_clutter(canvas, rng, board * size, int(rng.integers(3, 7)))
        draw_box(canvas, 0, board * size, size, 0.03 * size, tint(rng, 0.3, 0.8, 0.08))
    return blur(canvas, rng.uniform(0.5, 4))


def ground_room(rng: np.random.Generator, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return a floor before a wall with things at it."""
    size, canvas = x.size, draw_wall(rng, x, y)
    horizon = rng.uniform(0.60, 0.78) * size
    draw_clutter(canvas, rng, horizon + 0.02 * size, int(rng.integers(2, 7)))
    canvas = blur(canvas, rng.uniform(1, 6))
    floor = GROUNDS[choose(rng, "planks", "tiles", "carpet", "cloth")](rng, x, y)
    square = np.array([[0, 0], [size, 0], [size, size], [0, size]], np.float32)
    left, right, near = -0.9 * size, 1.9 * size, 1.2 * size
    seen = np.array([[-0.1 * size, horizon], [1.1 * size, horizon], [right, near], [left, near]], np.float32)
    laid = cv2.warpPerspective(floor, cv2.getPerspectiveTransform(square, seen), (size, size), flags=cv2.INTER_AREA)
    canvas[int(horizon) :] = laid[int(horizon) :]
    return canvas


GROUNDS = {
    "white": ground_white,
    "graded": ground_graded,
    "cloth": ground_cloth,
    "planks": ground_planks,
    "tiles": ground_tiles,
    "carpet": ground_carpet,
    "lights": ground_lights,
    "shelf": ground_shelf,
    "room": ground_room,
}
GROUND_SHARES = (0.2, 0.2, 0.09, 0.09, 0.08, 0.08, 0.08, 0.09, 0.09)  # of sellers, in the order of GROUNDS


def draw_ground(kind: str, rng: np.random.Generator, size: int) -> np.ndarray:
    """Return what lies behind the product: BGR float32 (size, size, 3), about 0..1."""
    steps = np.arange(size, dtype=np.float32) / size
    x, y = steps[None], steps[:, None]  # (1, size) and (size, 1), which broadcast to the whole ground
    return GROUNDS[kind](rng, x, y).astype(np.float32, copy=False)
