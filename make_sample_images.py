"""Draws a catalogue like a shopping site's, so that the pipeline runs anywhere at once.

Shoes and bags are drawn from splines with their materials, seams, straps, heels and prints, and every model is then
"photographed" by several sellers: turned, scaled, mirrored or as a pair, under another light and colour cast, on
white, graded or cluttered ground, with shop text, as a JPEG of varying quality. Two data sets come out, which share
no model: one of known models to fine-tune on, one of new models to cluster. The true outline of every product is
kept as well, to score the background removal.

The same seed draws the same pictures, whatever the number of workers. Files that this script did not write stay.

    python make_sample_images.py
    python make_sample_images.py --SAMPLE_NAME=large --SAMPLE_TRAIN_MODELS=0 --SAMPLE_MODELS=150 \
        --SAMPLE_MIN_IMAGES=40 --SAMPLE_MAX_IMAGES=94

Reads:  nothing
Writes: raw_img/sample_train/, raw_img/sample/, mask_true/sample_train/, mask_true/sample/,
        data/sample_train/sample_images.json, data/sample/sample_images.json
Config: SAMPLE_NAME, SAMPLE_SEED, SAMPLE_TRAIN_MODELS, SAMPLE_MODELS, SAMPLE_MIN_IMAGES, SAMPLE_MAX_IMAGES,
        SAMPLE_IMAGE_SIZE, N_JOBS, REDO
"""

from __future__ import annotations

import time
from dataclasses import astuple, dataclass, field, replace
from pathlib import Path

import config
import cv2
import numpy as np
from joblib import Parallel, delayed
from pipeline import files, settings
from pipeline.settings import SettingError, UserError
from tqdm import tqdm

CANVAS = 640  # pixels per side of the canvas on which a model is drawn once, whatever the size of the photographs
SUPERSAMPLING = 2  # photographs are composed at this multiple of their size and averaged down

# Colours of products, BGR in 0..1. Few on purpose: several models share each.
COLOURS = {
    "black": (0.10, 0.09, 0.09),
    "brown": (0.13, 0.22, 0.38),
    "tan": (0.30, 0.48, 0.70),
    "beige": (0.66, 0.77, 0.86),
    "white": (0.92, 0.93, 0.94),
    "red": (0.16, 0.12, 0.70),
    "navy": (0.33, 0.18, 0.12),
    "pink": (0.72, 0.66, 0.90),
    "grey": (0.52, 0.51, 0.50),
    "green": (0.26, 0.36, 0.22),
}
METALS = {"gold": (0.36, 0.66, 0.86), "silver": (0.80, 0.79, 0.78), "gunmetal": (0.30, 0.28, 0.27)}
FINISHES = {  # gloss 0..1, grain of the surface (height in canvas pixels)
    "smooth": (0.30, 0.10),
    "pebbled": (0.22, 0.55),
    "patent": (0.95, 0.0),
    "suede": (0.03, 0.25),
    "canvas": (0.02, 0.35),
    "satin": (0.50, 0.05),
    "glitter": (0.60, 0.9),
    "metal": (1.0, 0.0),
    "rubber": (0.08, 0.05),
}
PRINTS = ("stripes", "dots", "check", "houndstooth", "leopard", "flowers", "zigzag", "marble", "monogram")
RELIEFS = ("quilt", "croc", "woven", "ribs")


@dataclass(frozen=True)
class Material:
    """What a part is made of: `colour` BGR in 0..1, `finish` a key of FINISHES, `print` one of PRINTS or "" in the
    colour `ink`, `relief` one of RELIEFS or "", both with a period of `scale` (parts of the canvas), at `angle`
    radians.
    """

    colour: tuple[float, float, float]
    finish: str = "smooth"
    print: str = ""
    ink: tuple[float, float, float] = (1.0, 1.0, 1.0)
    relief: str = ""
    scale: float = 0.06
    angle: float = 0.0
    seed: int = 0


def spline(points: list, closed: bool = True, n_steps: int = 16) -> np.ndarray:
    """A Catmull-Rom curve through `points`, (n_points, 2) -> (n_points * n_steps, 2); a point given twice is a corner."""
    p = np.asarray(points, float)
    before, after = (p[-1:], p[:2]) if closed else (p[:1], p[-1:])
    p = np.concatenate([before, p, after])
    p0, p1, p2, p3 = (p[i : len(p) - 3 + i, None] for i in range(4))
    t = np.linspace(0, 1, n_steps, endpoint=False)[None, :, None]
    curve = 0.5 * (2 * p1 + (p2 - p0) * t + (2 * p0 - 5 * p1 + 4 * p2 - p3) * t**2 + (3 * p1 - p0 - 3 * p2 + p3) * t**3)
    curve = curve.reshape(-1, 2)
    return curve if closed else np.concatenate([curve, p[-2:-1]])


def lines(*points) -> np.ndarray:
    """The points as they are, for outlines with straight sides."""
    return np.asarray(points, float)


def moved(points: np.ndarray, right: float, down: float) -> np.ndarray:
    """Points (n, 2) shifted by a step."""
    return points + np.array([right, down])


def rounded(outline: np.ndarray, radius: float) -> np.ndarray:
    """An outline (n, 2) with its corners cut by `radius` and smoothed."""
    points = []
    for previous, corner, following in zip(np.roll(outline, 1, 0), outline, np.roll(outline, -1, 0), strict=True):
        for end in (previous, following):
            step = end - corner
            length = np.hypot(*step) + 1e-9
            points.append(corner + step / length * min(radius, 0.45 * length))
    curve = []
    points = np.asarray(points)
    t = np.linspace(0, 1, 9)[:, None]
    for i, corner in enumerate(outline):
        a, b = points[2 * i], points[2 * i + 1]
        curve.append((1 - t) ** 2 * a + 2 * t * (1 - t) * corner + t**2 * b)
    return np.concatenate(curve)


def noise(rng: np.random.Generator, size: int, grain: float) -> np.ndarray:
    """Smooth random field of (size, size), float32, mean 0 and deviation 1, with grains of `grain` pixels."""
    small = max(4, int(np.ceil(size / max(grain, 1.0))) + 3)
    coarse = rng.standard_normal((small, small)).astype(np.float32)
    fine = cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC)
    return (fine - fine.mean()) / (fine.std() + 1e-6)


def printed(kind: str, u: np.ndarray, v: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """How much ink lies where, 0..1: `u`, `v` are coordinates in periods of the print."""
    fu, fv = u - np.floor(u), v - np.floor(v)
    if kind == "stripes":
        return (fu < 0.45).astype(np.float32)
    if kind == "dots":
        shifted = u + 0.5 * (np.floor(v) % 2)
        return (np.hypot(shifted - np.floor(shifted) - 0.5, fv - 0.5) < 0.27).astype(np.float32)
    if kind == "check":
        thin = ((u * 2 + 0.3) % 2 < 0.12) | ((v * 2 + 0.3) % 2 < 0.12)
        return np.maximum(0.45 * (fu < 0.5) + 0.45 * (fv < 0.5), 0.9 * thin).astype(np.float32)
    if kind == "houndstooth":
        a, b = (fu < 0.5), (fv < 0.5)
        diagonal = (u * 4 + v * 4) % 1 < 0.5
        return np.where(a & b, 1.0, np.where(~a & ~b, 0.0, diagonal)).astype(np.float32)
    if kind == "zigzag":
        return (((v + 0.6 * np.abs(fu - 0.5)) % 0.7) < 0.3).astype(np.float32)
    if kind == "marble":
        wave = np.sin(2 * np.pi * (0.4 * u + 0.3 * np.sin(1.7 * v) + 0.25 * np.sin(2.3 * u + 1.3 * v)))
        return np.clip(1 - 5 * np.abs(wave), 0, 1).astype(np.float32)
    if kind == "monogram":
        shifted = u + 0.5 * (np.floor(v) % 2)
        x, y = shifted - np.floor(shifted) - 0.5, fv - 0.5
        diamond = np.abs(np.abs(x) + np.abs(y) - 0.30) < 0.05
        return (diamond | (np.hypot(x, y) < 0.10)).astype(np.float32)
    cells = np.stack([np.floor(u), np.floor(v)]).astype(np.int64)
    low = cells.min(axis=(1, 2))
    jitter = rng.random((*(cells.max(axis=(1, 2)) - low + 1), 4))
    at = jitter[cells[0] - low[0], cells[1] - low[1]]
    x, y = fu - (0.32 + 0.36 * at[..., 0]), fv - (0.32 + 0.36 * at[..., 1])
    radius, turn = np.hypot(x, y), np.arctan2(y, x) + 2 * np.pi * at[..., 2]
    if kind == "leopard":
        rim = 0.20 + 0.08 * at[..., 3] + 0.03 * np.sin(3 * turn)
        ring = (np.abs(radius - rim) < 0.075) & (np.cos(turn) + 0.8 * np.sin(2 * turn) > -0.75)
        return np.maximum(ring, 0.35 * (radius < rim)).astype(np.float32)
    petals = radius < (0.20 + 0.08 * at[..., 3]) * (0.65 + 0.35 * np.cos(5 * turn))
    return np.where(radius < 0.05, 0.3, petals).astype(np.float32)


def raised(kind: str, u: np.ndarray, v: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Height of a relief, 0..1, like `printed`."""
    if kind == "ribs":
        return 0.5 + 0.5 * np.sin(2 * np.pi * u)
    if kind == "quilt":
        return np.sqrt(np.abs(np.sin(np.pi * (u + v)) * np.sin(np.pi * (u - v))))
    if kind == "woven":
        over = (np.floor(u) + np.floor(v)) % 2 == 0
        across, along = np.abs(np.sin(np.pi * u)), np.abs(np.sin(np.pi * v))
        return np.where(over, across**0.5 * (0.6 + 0.4 * along), along**0.5 * (0.6 + 0.4 * across))
    shifted = u + 0.5 * (np.floor(v) % 2)
    x, y = np.abs(shifted - np.floor(shifted) - 0.5) * 2, np.abs(v - np.floor(v) - 0.5) * 2
    return (1 - np.clip(x, 0, 1) ** 6) * (1 - np.clip(y, 0, 1) ** 6)


@dataclass
class Drawing:
    """One product, built up part by part from back to front on a square canvas; coordinates of parts are 0..1, y down.

    Layers: `colour` (CANVAS, CANVAS, 3) float32 BGR 0..1, and (CANVAS, CANVAS) float32 each: `cover` 0..1, `height` in
    canvas pixels towards the camera, `gloss` 0..1."""

    colour: np.ndarray = field(default_factory=lambda: np.zeros((CANVAS, CANVAS, 3), np.float32))
    cover: np.ndarray = field(default_factory=lambda: np.zeros((CANVAS, CANVAS), np.float32))
    height: np.ndarray = field(default_factory=lambda: np.zeros((CANVAS, CANVAS), np.float32))
    gloss: np.ndarray = field(default_factory=lambda: np.zeros((CANVAS, CANVAS), np.float32))

    def area(self, *outlines: np.ndarray) -> np.ndarray:
        """Coverage (CANVAS, CANVAS) float32 of outlines; where two overlap is a hole."""
        mask = np.zeros((CANVAS, CANVAS), np.uint8)
        points = [np.round(outline * CANVAS * 16).astype(np.int32) for outline in outlines]
        cv2.fillPoly(mask, points, 255, cv2.LINE_AA, shift=4)
        return mask.astype(np.float32) / 255

    def path(self, points: np.ndarray, width: float) -> np.ndarray:
        """Coverage of a line of `width` (parts of the canvas) along points (n, 2), or of n_lines of (n_lines, n, 2)."""
        mask = np.zeros((CANVAS, CANVAS), np.uint8)
        paths = list(np.round(np.atleast_3d(points.T).T * CANVAS * 16).astype(np.int32))
        cv2.polylines(mask, paths, False, 255, max(1, round(width * CANVAS)), cv2.LINE_AA, shift=4)
        return mask.astype(np.float32) / 255

    def paint(
        self,
        mask: np.ndarray,
        material: Material,
        base: float = 0.0,
        bulge: float = 12.0,
        edge: float = 26.0,
        shade: float = 0.35,
    ) -> None:
        """Lays a part over what is there: rises from `base` by `bulge` (canvas pixels) over `edge` pixels from its
        rim, and shades what lies behind it by `shade` (0..1) near its rim."""
        rows, columns = np.nonzero(mask > 0)
        if not len(rows):
            return
        pad = 12
        box = (
            slice(max(0, rows.min() - pad), rows.max() + pad),
            slice(max(0, columns.min() - pad), columns.max() + pad),
        )
        m = mask[box]
        inside = cv2.distanceTransform((m > 0.5).astype(np.uint8), cv2.DIST_L2, 3)
        rise = np.sqrt(1 - (1 - np.clip(inside / edge, 0, 1)) ** 2)
        rng = np.random.default_rng(material.seed)
        y, x = np.mgrid[box].astype(np.float32) / CANVAS
        cos, sin = np.cos(material.angle), np.sin(material.angle)
        u, v = (x * cos + y * sin) / material.scale, (y * cos - x * sin) / material.scale
        gloss, grain = FINISHES[material.finish]
        colour = np.broadcast_to(np.float32(material.colour), (*m.shape, 3)).copy()
        relief = np.zeros_like(m)
        if material.print:
            ink = cv2.GaussianBlur(printed(material.print, u, v, rng), (0, 0), 0.8)[..., None]
            colour = colour * (1 - ink) + np.float32(material.ink) * ink
        if material.relief:
            relief = raised(material.relief, u, v, rng).astype(np.float32)
            colour *= (0.82 + 0.18 * relief)[..., None]
            relief *= 0.12 * material.scale * CANVAS
        surface = noise(
            rng, CANVAS, {"pebbled": 4.0, "suede": 2.0, "canvas": 2.0, "glitter": 2.0}.get(material.finish, 9.0)
        )[box]
        if material.finish == "canvas":
            surface = np.sin(x * CANVAS * 1.6) * np.sin(y * CANVAS * 1.6) * 1.4 + 0.3 * surface
        if material.finish in ("suede", "canvas"):
            colour *= (1 + 0.07 * surface)[..., None]
        if material.finish == "glitter":
            colour *= (1 + 0.30 * surface)[..., None]
        colour *= (1 + 0.04 * noise(rng, CANVAS, 90.0)[box])[..., None]
        behind = cv2.GaussianBlur(m, (0, 0), 6.0)
        self.colour[box] *= (1 - shade * behind)[..., None]
        cover = m[..., None]
        self.colour[box] = self.colour[box] * (1 - cover) + colour * cover
        self.height[box] = self.height[box] * (1 - m) + (base + bulge * rise + relief + grain * surface) * m
        self.gloss[box] = self.gloss[box] * (1 - m) + gloss * m
        self.cover[box] = np.maximum(self.cover[box], m)

    def line(self, points: np.ndarray, width: float, darken: float = 0.5, depth: float = 1.5) -> None:
        """A crease or fold: darkens and lowers what is there along points (n, 2)."""
        mask = self.path(points, width) * (self.cover > 0.5)
        self.colour *= (1 - darken * mask)[..., None]
        self.height -= depth * mask

    def stitches(self, points: np.ndarray, colour: tuple, length: float = 0.012, width: float = 0.004) -> None:
        """A dashed seam along points (n, 2)."""
        steps = np.hypot(*np.diff(points, axis=0).T)
        along = np.concatenate([[0], np.cumsum(steps)])
        starts = np.arange(0, along[-1] - length, length * 1.6)
        ends = np.stack(
            [[np.interp(starts + s, along, points[:, k]) for k in (0, 1)] for s in (0, length)]
        )  # (2, 2, n)
        mask = self.path(ends.transpose(2, 0, 1), width) * (self.cover > 0.5)
        self.colour = self.colour * (1 - mask[..., None]) + np.float32(colour) * mask[..., None]
        self.height += mask

    def stud(self, x: float, y: float, radius: float, material: Material, base: float = 14.0) -> None:
        """A round button, pearl or rivet."""
        turn = np.linspace(0, 2 * np.pi, 24, endpoint=False)
        circle = np.stack([x + radius * np.cos(turn), y + radius * np.sin(turn)], 1)
        self.paint(self.area(circle), material, base, radius * CANVAS * 0.8, radius * CANVAS, 0.3)


# Products. Each family turns a random generator into one Drawing; the choices that make a model come from it.
# The points of the outlines stand as tables, which a formatter would spread over a thousand lines.
# fmt: off


def choose_materials(rng: np.random.Generator, colour: str) -> tuple[Material, Material, Material, Material]:
    """Main, accent, sole and metal of a model in the named colour."""
    tint = np.clip(np.float32(COLOURS[colour]) * rng.uniform(0.85, 1.15) + rng.normal(0, 0.015, 3), 0.03, 0.97)
    main = Material(tuple(tint), rng.choice(["smooth", "smooth", "pebbled", "patent", "suede", "canvas", "satin"]))
    main = replace(main, seed=int(rng.integers(1 << 30)), angle=rng.uniform(-0.8, 0.8),
        scale=rng.uniform(0.035, 0.09))
    dark = tint.mean() < 0.4
    ink = COLOURS[rng.choice(["white", "beige", "tan", "red", "pink"] if dark else ["black", "brown", "navy", "red",
        "white"])]
    look = rng.random()
    if look < 0.40:
        main = replace(main, print=str(rng.choice(PRINTS)), ink=ink)
    elif look < 0.65:
        main = replace(main, relief=str(rng.choice(RELIEFS)))
    if main.relief == "quilt":
        main = replace(main, angle=0.0)
    accent_colour = ink if rng.random() < 0.45 else tuple(tint * rng.choice([0.6, 0.8, 1.1]))
    accent = Material(tuple(np.clip(accent_colour, 0.03, 0.97)), rng.choice(["smooth", "patent", "suede"]),
        seed=main.seed + 1)
    sole_colour = [COLOURS["black"], COLOURS["brown"], COLOURS["tan"], COLOURS["white"], tuple(tint)][rng.integers(5)]
    sole = Material(sole_colour, "rubber", seed=main.seed + 2)
    metal = Material(METALS[rng.choice(list(METALS))], "metal")
    return main, accent, sole, metal


def darker(material: Material, factor: float = 0.45, **changes) -> Material:
    """The material in shade: linings, gussets, the far side."""
    return replace(material, colour=tuple(np.float32(material.colour) * factor), **changes)


@dataclass(frozen=True)
class Last:
    """The foot of a shoe seen from its side, toe to the left: `y(x)` is the line on which the foot stands."""

    heel: float  # height of the heel, parts of the canvas
    platform: float  # height of the sole below the ball
    back: float  # x of the heel's end
    toe: float = 0.07
    ground: float = 0.80

    def y(self, x):
        """Height of the insole at x (canvas parts, y down), a smooth step from ball to heel."""
        t = np.clip((np.asarray(x) - 0.36) / (self.back - 0.08 - 0.36), 0, 1)
        return self.ground - self.platform - (self.heel - self.platform) * t * t * (3 - 2 * t)

    def sole(self, start: float, stop: float, n: int = 24) -> np.ndarray:
        """The line itself from x = start to stop, (n, 2)."""
        x = np.linspace(start, stop, n)
        return np.stack([x, self.y(x)], 1)


def draw_sole(d: Drawing, rng, last: Last, kind: str, main: Material, sole: Material) -> None:
    """Sole and heel of the named kind under the last."""
    g, back = last.ground, last.back
    seat = last.y(back - 0.02)
    strip = 0.016 + last.platform
    bottom = last.sole(last.toe + 0.015, back - 0.10)
    under = np.concatenate([bottom, moved(bottom, 0, strip)[::-1]])
    if kind in ("wedge", "sneaker", "flat"):
        start = last.toe + (0.005 if kind != "wedge" else 0.0)
        top = last.sole(start, back)
        lift = 0.03 if kind == "sneaker" else 0.004
        outline = np.concatenate([moved(top, 0, -lift), [[back + (0.012 if kind == "sneaker" else -0.01), g - 0.01]],
            [[back - 0.03, g + 0.016]], [[0.40, g + 0.016]], [[last.toe + 0.05, g + 0.016]],
            [[last.toe - 0.008, g - 0.015 - lift / 2]]])
        cover = replace(main, print="", relief="") if kind == "wedge" and sole.colour == COLOURS["black"] else sole
        relief = "ribs" if kind == "wedge" and sole.colour == COLOURS["tan"] else ""
        d.paint(d.area(rounded(outline, 0.012)), replace(cover, relief=relief, scale=0.02, angle=1.5), 16, 10, 14)
        if kind == "sneaker":
            d.line(moved(last.sole(last.toe + 0.01, back), 0, 0.012), 0.004, 0.35)
            for x in np.arange(last.toe + 0.04, back - 0.02, 0.022):
                d.line(lines((x, g + 0.004), (x + 0.006, g + 0.016)), 0.006, 0.45)
        return
    d.paint(d.area(under), sole, 14, 8, 8)
    width = {"stiletto": 0.016, "kitten": 0.022, "block": 0.115, "cone": 0.035}[kind]
    top_width = {"stiletto": 0.10, "kitten": 0.10, "block": 0.13, "cone": 0.13}[kind]
    lean = {"stiletto": -0.03, "kitten": -0.035, "block": -0.005, "cone": -0.05}[kind]
    right = back - 0.005
    foot = g + 0.016
    outline = [(right, seat - 0.01), (right, seat - 0.01), (right + lean * 0.6, (seat + foot) / 2),
        (right + lean, foot), (right + lean, foot), (right + lean - width, foot), (right + lean - width, foot),
        (right - top_width * 0.62 + lean * 0.4, (seat * 1.4 + foot * 0.6) / 2),
        (right - top_width, last.y(right - top_width) + 0.01), (right - top_width, last.y(right - top_width) + 0.01)]
    cover = replace(main, relief="") if rng.random() < 0.6 else sole
    d.paint(d.area(spline(outline)), cover, 8, 14, 20)
    d.paint(d.area(lines((right + lean, foot - 0.012), (right + lean, foot), (right + lean - width, foot),
        (right + lean - width, foot - 0.012))), darker(sole), 12, 4, 4)


def draw_bow(d: Drawing, x: float, y: float, size: float, material: Material) -> None:
    """A bow of two loops and a knot."""
    for side in (-1, 1):
        loop = [(x, y), (x + side * size * 0.6, y - size * 0.5), (x + side * size, y - size * 0.25),
            (x + side * size, y + size * 0.3), (x + side * size * 0.5, y + size * 0.35)]
        d.paint(d.area(spline(loop)), material, 26, 8, 10)
        d.line(lines((x + side * size * 0.2, y), (x + side * size * 0.7, y)), 0.004, 0.3)
    d.stud(x, y, size * 0.22, material, 30)


def draw_buckle(d: Drawing, x: float, y: float, width: float, height: float, metal: Material) -> None:
    """A rectangular frame with its tongue."""
    outer = lines((x - width, y - height), (x + width, y - height), (x + width, y + height), (x - width, y + height))
    inner = (outer - [x, y]) * 0.62 + [x, y]
    d.paint(d.area(rounded(outer, 0.008), inner), metal, 26, 6, 4)
    d.paint(d.path(lines((x - width, y), (x + width * 0.8, y)), 0.006), metal, 28, 4, 3)


def draw_shoe(rng: np.random.Generator, family: str, colour: str) -> Drawing:
    """A shoe from its side, toe to the left. Families: pump, sandal, ballerina, loafer, sneaker, boot, mule."""
    d = Drawing()
    main, accent, sole, metal = choose_materials(rng, colour)
    heels = {"pump": ["stiletto", "kitten", "block", "cone"], "sandal": ["stiletto", "block", "wedge", "flat"],
        "ballerina": ["flat"], "loafer": ["flat", "block"], "sneaker": ["sneaker"],
        "boot": ["stiletto", "block", "flat", "cone", "wedge"], "mule": ["kitten", "block", "cone", "wedge"]}
    kind = str(rng.choice(heels[family]))
    heel = {"stiletto": rng.uniform(0.20, 0.30), "kitten": rng.uniform(0.10, 0.15), "block": rng.uniform(0.08, 0.24),
        "cone": rng.uniform(0.12, 0.22), "wedge": rng.uniform(0.13, 0.24), "flat": rng.uniform(0.02, 0.045),
        "sneaker": rng.uniform(0.045, 0.10)}[kind]
    if family == "loafer":
        heel = min(heel, 0.10)
    platform = {"sneaker": 0.75 * heel, "flat": 0.7 * heel, "wedge": rng.choice([0.02, 0.07])}.get(kind,
        float(rng.choice([0.0, 0.0, 0.05])) if heel > 0.18 else 0.0)
    last = Last(heel, platform, 0.93 - 0.35 * heel)
    back, toe, y = last.back, last.toe, last.y
    toe_height = {"pointed": 0.045, "almond": 0.065, "round": 0.085, "square": 0.08}
    tip = str(rng.choice(list(toe_height)))
    rise = toe_height[tip] + (0.02 if family == "sneaker" else 0)
    throat = {"pump": rng.uniform(0.27, 0.36), "ballerina": rng.uniform(0.24, 0.32),
        "loafer": rng.uniform(0.42, 0.48), "sneaker": 0.50, "boot": 0.52, "sandal": 0.25,
        "mule": rng.uniform(0.40, 0.48)}[family]
    counter = 0.145 + rng.uniform(-0.015, 0.02)
    toe_box = {"pointed": [(toe - 0.025, y(toe) - 0.008), (toe - 0.025, y(toe) - 0.012),
        (0.17, y(0.17) - rise - 0.02)], "almond": [(toe - 0.012, y(toe) - 0.005), (toe + 0.005, y(toe) - 0.04),
        (0.17, y(0.17) - rise - 0.012)], "round": [(toe, y(toe)), (toe - 0.008, y(toe) - 0.045),
        (0.11, y(0.1) - rise - 0.005), (0.19, y(0.19) - rise - 0.025)], "square": [(toe - 0.005, y(toe)),
        (toe - 0.005, y(toe)), (toe, y(toe) - rise * 0.8), (toe + 0.01, y(toe) - rise * 0.9),
        (0.19, y(0.19) - rise - 0.025)]}[tip]
    top = y(throat) - rise - 0.03 - 0.10 * (throat - 0.2)
    bottom = last.sole(toe + 0.02, back - 0.01)[::-1]
    if family == "boot":
        shaft = float(rng.choice([0.26, 0.33, 0.52]))
        crown = max(0.05, y(back) - shaft - 0.06)
        front, rear = 0.60 - 0.05 * (shaft > 0.4) - 0.2 * heel, back + 0.015
        outline = [*toe_box, (0.36, y(0.36) - rise - 0.075), (front - 0.04, y(front) - 0.22),
            (front, crown + 0.25 * shaft), (front - 0.015, crown), (front - 0.015, crown), (rear, crown - 0.008),
            (rear, crown - 0.008), (rear - 0.02, y(back) - 0.16), (rear, y(back) - 0.06), (back - 0.005, y(back)),
            (back - 0.005, y(back))]
        d.paint(d.area(spline([(front, crown + 0.01), (front + 0.1, crown - 0.02), (rear - 0.01, crown - 0.01),
            (rear - 0.05, crown + 0.02)])), darker(main, 0.4, print="", relief=""), 2, 4, 12)
        draw_sole(d, rng, last, kind, main, sole)
        body = np.concatenate([spline(outline, closed=False), bottom])
        d.paint(d.area(body), main, 10, 34, 75)
        style = rng.choice(["chelsea", "zip", "laces", "belt", "cuff"])
        middle = (front + rear) / 2
        if style == "chelsea":
            gore = spline([(middle - 0.05, crown + 0.005), (middle + 0.05, crown + 0.005),
                (middle + 0.035, crown + 0.15), (middle - 0.03, crown + 0.15)])
            d.paint(d.area(gore), darker(accent, 0.7, relief="ribs", scale=0.012, angle=0.0), 40, 2, 6)
        elif style == "zip":
            zipper = lines((middle + 0.02, crown + 0.01), (middle, y(middle) - 0.06))
            d.line(zipper, 0.016, 0.5)
            d.stitches(zipper, metal.colour, 0.006, 0.007)
            d.stud(middle + 0.02, crown + 0.04, 0.011, metal, 44)
        elif style == "laces":
            for i in range(5):
                ly = crown + 0.03 + i * (y(front) - 0.2 - crown) / 5
                d.paint(d.path(lines((front - 0.012, ly), (front + 0.06, ly + 0.015)), 0.012), accent, 42, 4, 4)
                d.stud(front + 0.065, ly + 0.015, 0.008, metal, 42)
        elif style == "belt":
            for dy in (0.0, 0.05):
                strap = spline([(front - 0.03, y(front) - 0.20 + dy), (middle, y(front) - 0.185 + dy),
                    (rear, y(back) - 0.16 + dy)], closed=False)
                d.paint(d.path(strap, 0.026), accent, 42, 5, 6)
                draw_buckle(d, middle + 0.03, float(np.interp(middle + 0.03, strap[:, 0], strap[:, 1])), 0.022, 0.02,
                    metal)
        else:
            cuff = lines((front - 0.022, crown - 0.012), (rear + 0.01, crown - 0.016), (rear + 0.002, crown + 0.06),
                (front - 0.018, crown + 0.065))
            d.paint(d.area(rounded(cuff, 0.015)), replace(accent, finish="suede"), 40, 12, 16)
        d.stitches(spline([(0.33, y(0.33) - 0.015), (0.37, y(0.37) - 0.08), (0.42, y(0.4) - 0.13)], closed=False),
            accent.colour)
        return d
    if family in ("sandal", "mule"):
        d.paint(d.area(np.concatenate([last.sole(toe + 0.01, back - 0.01) - [0, 0.012], bottom])),
            darker(sole, 0.9, print=""), 4, 6, 6)
        draw_sole(d, rng, last, kind, main, sole)
        if family == "mule":
            open_toe = rng.random() < 0.5
            start = 0.17 if open_toe else None
            vamp = [(start, y(start)), (start, y(start)),
                (start + 0.02, y(start) - rise - 0.01)] if open_toe else toe_box
            outline = [*vamp, (throat - 0.06, top + 0.005), (throat, top - 0.01), (throat, top - 0.01),
                (throat + 0.05, y(throat) - 0.07), (throat + 0.10, y(throat + 0.10)),
                (throat + 0.10, y(throat + 0.10))]
            tail = last.sole(start or toe + 0.02, throat + 0.10)[::-1]
            d.paint(d.area(spline([(throat - 0.01, top), (throat + 0.02, top - 0.012),
                (throat + 0.08, y(throat) - 0.06), (throat + 0.05, y(throat) - 0.05)])),
                darker(main, 0.4, print="", relief=""), 6, 4, 6)
            d.paint(d.area(np.concatenate([spline(outline, closed=False), tail])), main, 12, 30, 55)
        else:
            for x0, x1, x2 in [(0.13, 0.19, 0.25), (0.27, 0.33, 0.40)][: int(rng.integers(1, 3))]:
                strap = spline([(x0, y(x0) - 0.005), (x1, y(x1) - rise - 0.03), (x2, y(x2) - 0.005)], closed=False)
                d.paint(d.path(strap, rng.uniform(0.03, 0.075)), main, 14, 14, 16)
            if rng.random() < 0.5:
                d.paint(d.path(spline([(0.12, y(0.12)), (0.24, y(0.24) - 0.10), (0.36, y(0.36) - 0.01)],
                    closed=False), 0.022), accent, 22, 8, 8)
    else:
        slope = 0.02 if family == "sneaker" else 0.055 if family in ("pump", "ballerina") else 0.03
        middle = (throat + back) / 2 + 0.04
        collar = float(y(back)) - counter - (0.015 if family == "sneaker" else 0)
        opening = [(throat, top), (throat, top), (throat + 0.03, top + slope * 0.8),
            (middle, (float(y(middle)) - counter * 0.72) + slope * 0.3), (back - 0.035, collar + 0.004),
            (back + 0.002, collar), (back + 0.002, collar)]
        outline = [*toe_box, *([(0.30, y(0.3) - rise - 0.065)] if throat > 0.38 else []), *opening,
            (back + 0.014, y(back) - 0.075), (back - 0.006, y(back)), (back - 0.006, y(back))]
        far = [(throat - 0.005, top + 0.004), (throat + 0.05, top - 0.012), (middle,
            float(y(middle)) - counter * 0.86), (back - 0.02, collar - 0.006), (back - 0.01, collar + 0.05),
            (middle, float(y(middle)) - 0.05)]
        lining = Material(COLOURS[rng.choice(["beige", "tan", "black", "grey"])], "suede", seed=main.seed + 3)
        d.paint(d.area(spline(far)), darker(lining, 0.7), 2, 4, 10)
        draw_sole(d, rng, last, kind, main, sole)
        body = np.concatenate([spline(outline, closed=False), bottom])
        d.paint(d.area(body), main, 10, 34, 60)
        inside = moved(spline(opening, closed=False), 0, 0.012)
        d.stitches(inside[8:], accent.colour, 0.008, 0.003)
        if family != "sneaker" and rng.random() < 0.35:
            cap = [*toe_box, (0.20, y(0.2) - rise - 0.03), (0.23, y(0.23) - 0.05), (0.21, y(0.21)), (0.21, y(0.21))]
            d.paint(d.area(np.concatenate([spline(cap, closed=False), last.sole(toe + 0.02,
                0.21)[::-1]])) * d.area(body), accent, 12, 32, 60, 0.15)
        if family == "sneaker":
            laced = np.array([[0.30, y(0.3) - rise - 0.068], [throat, top]])
            for i in range(6):
                lx, ly = laced[0] + (laced[1] - laced[0]) * (i / 5)
                d.paint(d.path(lines((lx - 0.006, ly - 0.002), (lx + 0.035, ly + 0.05)), 0.012), accent, 40, 5, 4)
                d.stud(lx + 0.038, ly + 0.054, 0.006, metal, 40)
            mark = rng.choice(["stripes", "swoosh", "star", "panel"])
            cx, cy = 0.58, float(y(0.58)) - 0.10
            if mark == "stripes":
                for i in range(3):
                    d.paint(d.path(lines((cx - 0.06 + i * 0.035, cy - 0.02), (cx - 0.09 + i * 0.035, cy + 0.07)),
                        0.016), accent, 44, 2, 3, 0.1)
            elif mark == "swoosh":
                d.paint(d.area(spline([(cx - 0.16, cy + 0.03), (cx - 0.10, cy + 0.055), (cx + 0.16, cy - 0.035),
                    (cx - 0.08, cy + 0.005)])), accent, 44, 2, 3, 0.1)
            elif mark == "star":
                turn = np.arange(10) * np.pi / 5 - np.pi / 2
                reach = np.where(np.arange(10) % 2, 0.022, 0.052)
                d.paint(d.area(np.stack([cx + reach * np.cos(turn), cy + 0.03 + reach * np.sin(turn)], 1)), accent,
                    44, 2, 3, 0.1)
            else:
                panel = spline([(back - 0.14, y(back - 0.14) - 0.03), (back - 0.10, collar + 0.05),
                    (back + 0.01, collar), (back + 0.014, y(back) - 0.03)])
                d.paint(d.area(panel) * d.area(body), accent, 42, 4, 6, 0.2)
            cap = spline([*toe_box, (0.21, y(0.2) - rise - 0.02), (0.20, y(0.2) - 0.03)])
            if rng.random() < 0.5:
                d.paint(d.area(cap) * d.area(body), replace(sole, finish="rubber"), 30, 14, 24, 0.2)
        if family == "loafer":
            apron = spline([(0.10, y(0.1) - rise * 0.75), (0.20, y(0.2) - rise * 0.8), (0.33, y(0.33) - rise - 0.01),
                (throat - 0.01, top + 0.045)], closed=False)
            d.line(apron, 0.008, 0.4)
            d.stitches(moved(apron, 0, 0.008), accent.colour)
            strap = spline([(throat - 0.10, y(throat) - 0.015), (throat - 0.075, y(throat) - 0.07),
                (throat - 0.06, top + 0.012)], closed=False)
            d.paint(d.path(strap, 0.045), accent, 40, 6, 10)
            if rng.random() < 0.5:
                d.paint(d.path(lines((throat - 0.10, top + 0.035), (throat - 0.03, top + 0.03)), 0.014), metal, 46,
                    5, 4)
            else:
                for k in range(7):
                    d.paint(d.path(lines((throat - 0.10 + 0.006 * k, top + 0.03),
                        (throat - 0.13 + 0.014 * k, top + 0.085)), 0.007), accent, 44, 3, 3)
    if family in ("pump", "sandal", "ballerina") and (family == "sandal" or rng.random() < 0.5):
        ankle_y, ankle_x = float(y(back)) - rng.uniform(0.17, 0.26), back - 0.09
        loop = spline([(back - 0.002, ankle_y - 0.005), (ankle_x + 0.02, ankle_y + 0.014),
            (ankle_x - 0.06, ankle_y + 0.002), (ankle_x - 0.06, ankle_y - 0.014), (ankle_x + 0.01, ankle_y - 0.02)])
        strap = accent if rng.random() < 0.5 else main
        width = rng.uniform(0.016, 0.034)
        d.paint(d.path(loop[64:].copy(), width * 0.8), darker(strap, 0.6), 4, 5, 6)
        d.paint(d.path(spline([(back - 0.03, y(back) - 0.005), (back + 0.006, y(back) - 0.08), (back, ankle_y)],
            closed=False), width * 1.6), main, 20, 10, 12)
        d.paint(d.path(loop[:33], width), strap, 30, 7, 7)
        draw_buckle(d, ankle_x + 0.0, ankle_y + 0.014, 0.016, width * 0.75, metal)
        if rng.random() < 0.35:
            d.paint(d.path(spline([(0.30, y(0.3) - rise - 0.02), (0.45, y(0.45) - 0.16), (ankle_x - 0.05, ankle_y)],
                closed=False), width * 0.9), strap, 26, 6, 7)
    trim = rng.choice(["", "bow", "buckle", "studs", "pearls", "flower"])
    if family in ("pump", "ballerina", "mule", "sandal"):
        tx, ty = throat - 0.045, top + 0.03
        if trim == "bow":
            draw_bow(d, tx, ty, rng.uniform(0.045, 0.07), accent)
        elif trim == "buckle":
            draw_buckle(d, tx, ty + 0.01, 0.038, 0.026, metal)
        elif trim == "flower":
            for turn in np.arange(6) * np.pi / 3:
                d.stud(tx + 0.026 * np.cos(turn), ty + 0.022 * np.sin(turn), 0.02, accent, 30)
            d.stud(tx, ty, 0.014, metal, 36)
        elif trim in ("studs", "pearls") and family != "sandal":
            bead = metal if trim == "studs" else Material((0.88, 0.92, 0.94), "patent")
            for x in np.linspace(0.13, throat + 0.05, 7):
                d.stud(x, float(y(x)) - 0.022, 0.009, bead, 34)
    return d


def draw_chain(d: Drawing, points: np.ndarray, material: Material, link: float = 0.022) -> None:
    """A chain of rings along points (n, 2)."""
    along = np.concatenate([[0], np.cumsum(np.hypot(*np.diff(points, axis=0).T))])
    turn = np.linspace(0, 2 * np.pi, 16)
    for i, s in enumerate(np.arange(0, along[-1], link)):
        x, y = (np.interp(s, along, points[:, k]) for k in (0, 1))
        a, b = (0.62 * link, 0.36 * link) if i % 2 else (0.62 * link, 0.16 * link)
        ahead = [np.interp(s + 0.01, along, points[:, k]) for k in (0, 1)]
        tilt = np.arctan2(ahead[1] - y, ahead[0] - x)
        ring = np.stack([x + a * np.cos(turn) * np.cos(tilt) - b * np.sin(turn) * np.sin(tilt),
            y + a * np.cos(turn) * np.sin(tilt) + b * np.sin(turn) * np.cos(tilt)], 1)
        d.paint(d.path(ring, 0.007), material, 16, 4, 3, 0.2)


def draw_strap(d: Drawing, points: np.ndarray, kind: str, width: float, strap: Material, metal: Material) -> None:
    """A handle or strap: "leather", "chain" or "rolled"."""
    if kind == "chain":
        draw_chain(d, points, metal)
        return
    d.paint(d.path(points, width), strap, 8, 7 if kind == "leather" else 14, 5 if kind == "leather" else 12)
    if kind == "leather" and width > 0.02:
        d.stitches(points, tuple(np.clip(np.float32(strap.colour) * 1.6 + 0.1, 0, 1)), 0.01, 0.003)


def draw_clasp(d: Drawing, rng, x: float, y: float, metal: Material, accent: Material) -> None:
    """What closes a bag: a turnlock, a plate, a ring, a belt, a tassel."""
    kind = rng.choice(["turnlock", "plate", "ring", "belt", "tassel", "padlock"])
    if kind == "turnlock":
        d.paint(d.area(rounded(lines((x - 0.035, y - 0.02), (x + 0.035, y - 0.02), (x + 0.035, y + 0.02),
            (x - 0.035, y + 0.02)), 0.018)), metal, 50, 6, 6)
        d.paint(d.path(lines((x, y - 0.012), (x, y + 0.012)), 0.012), darker(metal, 0.8), 58, 6, 4)
    elif kind == "plate":
        d.paint(d.area(rounded(lines((x - 0.06, y - 0.012), (x + 0.06, y - 0.012), (x + 0.06, y + 0.012),
            (x - 0.06, y + 0.012)), 0.004)), metal, 50, 4, 4)
    elif kind == "ring":
        turn = np.linspace(0, 2 * np.pi, 40)
        d.paint(d.path(np.stack([x + 0.035 * np.cos(turn), y + 0.035 * np.sin(turn)], 1), 0.014), metal, 50, 6, 5)
    elif kind == "belt":
        d.paint(d.path(lines((x, y - 0.09), (x, y + 0.09)), 0.045), accent, 50, 5, 8)
        draw_buckle(d, x, y + 0.03, 0.034, 0.028, metal)
    elif kind == "tassel":
        for k in np.linspace(-1, 1, 9):
            d.paint(d.path(lines((x + 0.006 * k, y), (x + 0.026 * k, y + 0.13)), 0.008), accent, 50, 4, 3, 0.25)
        d.stud(x, y, 0.018, metal, 54)
    else:
        turn = np.linspace(np.pi, 2 * np.pi, 20)
        d.paint(d.path(np.stack([x + 0.018 * np.cos(turn), y + 0.026 * np.sin(turn)], 1), 0.009), metal, 50, 4, 4)
        d.paint(d.area(rounded(lines((x - 0.028, y), (x + 0.028, y), (x + 0.028, y + 0.045), (x - 0.028, y + 0.045)),
            0.006)), metal, 52, 6, 6)


def draw_bag(rng: np.random.Generator, family: str, colour: str) -> Drawing:
    """A bag from its front. Families: tote, satchel, hobo, crossbody, bucket, clutch, backpack, bowling."""
    d = Drawing()
    main, accent, _, metal = choose_materials(rng, colour)
    strap = accent if rng.random() < 0.5 else replace(main, print="", relief="")
    kind = str(rng.choice(["leather", "rolled", "chain"], p=[0.5, 0.3, 0.2]))
    half = {"tote": rng.uniform(0.28, 0.36), "satchel": rng.uniform(0.28, 0.36), "hobo": rng.uniform(0.32, 0.38),
        "crossbody": rng.uniform(0.22, 0.30), "bucket": rng.uniform(0.20, 0.26), "clutch": rng.uniform(0.34, 0.40),
        "backpack": rng.uniform(0.24, 0.30), "bowling": rng.uniform(0.30, 0.38)}[family]
    tall = {"tote": rng.uniform(0.40, 0.52), "satchel": rng.uniform(0.34, 0.44), "hobo": rng.uniform(0.34, 0.42),
        "crossbody": rng.uniform(0.26, 0.38), "bucket": rng.uniform(0.40, 0.48), "clutch": rng.uniform(0.24, 0.32),
        "backpack": rng.uniform(0.50, 0.60), "bowling": rng.uniform(0.32, 0.40)}[family]
    base = 0.90 if family != "clutch" else 0.68
    top = base - tall
    x0, x1, c = 0.5 - half, 0.5 + half, 0.5
    slant = rng.uniform(-0.05, 0.06)
    width = float(rng.choice([0.018, 0.028, 0.042]))
    gusset = darker(main, 0.62, print="", relief="")
    depth = rng.uniform(0.03, 0.06)
    rise = rng.uniform(0.16, 0.30)

    def arch(spread: float, peak: float, foot: float) -> np.ndarray:
        return spline([(c - spread, foot), (c - spread * 0.92, foot - 0.5 * (foot - peak)),
            (c - spread * 0.45, peak), (c + spread * 0.45, peak), (c + spread * 0.92, foot - 0.5 * (foot - peak)),
            (c + spread, foot)], closed=False)

    if family in ("crossbody", "hobo", "bucket"):
        peak = max(0.06, top - rise - (0.10 if family == "crossbody" else 0.05))
        draw_strap(d, arch(half * (0.85 if family != "hobo" else 0.80), peak, top + 0.06),
            kind if family != "hobo" else "rolled", width, strap, metal)
    if family in ("tote", "satchel", "bowling"):
        back_arch = arch(half * 0.45, max(0.05, top - rise), top + 0.03)
        draw_strap(d, moved(back_arch, 0.015, -0.012), "leather" if kind == "chain" else kind, width,
            darker(strap, 0.7), metal)
    if family == "backpack":
        for side in (-1, 1):
            draw_strap(d, spline([(c + side * 0.08, top + 0.03), (c + side * (half + 0.03), top + 0.12),
                (c + side * (half + 0.05), base - 0.25), (c + side * (half - 0.02), base - 0.05)], closed=False),
                "leather", 0.04, darker(strap, 0.8), metal)
        draw_strap(d, arch(0.06, top - 0.06, top + 0.03), "rolled", 0.022, strap, metal)

    if family == "hobo":
        sag = rng.uniform(0.08, 0.16)
        outline = spline([(x0, top + 0.02), (x0, top + 0.02), (c - half * 0.5, top + sag * 0.85), (c, top + sag),
            (c + half * 0.5, top + sag * 0.85), (x1, top + 0.02), (x1, top + 0.02), (x1 - 0.02, base - 0.12),
            (c + half * 0.55, base), (c, base + 0.01), (c - half * 0.55, base), (x0 + 0.02, base - 0.12)])
    elif family == "bowling":
        outline = spline([(x0, base - 0.03), (x0 + 0.02, base), (c, base + 0.003), (x1 - 0.02, base),
            (x1, base - 0.03), (x1 - 0.02, top + 0.12), (c + half * 0.6, top + 0.01), (c, top - 0.005),
            (c - half * 0.6, top + 0.01), (x0 + 0.02, top + 0.12)])
    elif family == "backpack":
        outline = spline([(x0, base - 0.04), (x0 + 0.04, base), (x1 - 0.04, base), (x1, base - 0.04),
            (x1 - 0.01, top + 0.15), (c + half * 0.5, top), (c - half * 0.5, top), (x0 + 0.01, top + 0.15)])
    elif family == "bucket":
        outline = rounded(lines((x0 + 0.03, base), (x1 - 0.03, base), (x1 + slant, top), (x0 - slant, top)), 0.03)
    else:
        outline = rounded(lines((x0, base), (x1, base), (x1 - slant, top), (x0 + slant, top)),
            rng.uniform(0.01, 0.07))
    if family in ("satchel", "tote", "crossbody", "bowling"):
        side = np.concatenate([outline, moved(outline, depth, -depth * 0.45)])
        hull = cv2.convexHull(side.astype(np.float32))[:, 0]
        d.paint(d.area(hull), gusset, 2, 10, 14)
    if family == "bucket":
        mouth = spline([(x0 - slant, top), (c, top - 0.05), (x1 + slant, top), (c, top + 0.05)])
        d.paint(d.area(mouth), darker(main, 0.35, print="", relief=""), 2, 3, 10)
    body = d.area(outline)
    d.paint(body, main, 12, 34 if family in ("hobo", "backpack", "bowling", "bucket") else 22,
        80 if family == "hobo" else 45)

    inner = (outline - [c, (top + base) / 2]) * [0.94, 0.92] + [c, (top + base) / 2]
    if family in ("tote", "clutch", "bowling") or rng.random() < 0.3:
        d.stitches(np.concatenate([inner, inner[:1]]), accent.colour, 0.011, 0.0035)
    split = rng.choice(["", "bottom", "bands", "pocket", "side"])
    if split == "bottom":
        band = base - tall * rng.uniform(0.22, 0.4)
        d.paint(d.area(lines((0, band), (1, band), (1, 1), (0, 1))) * body, replace(accent, colour=accent.colour),
            16, 22, 40, 0.2)
    elif split == "bands":
        for side in (-1, 1):
            d.paint(d.path(lines((c + side * half * 0.45, top), (c + side * half * 0.45, base)), 0.035) * body,
                accent, 36, 4, 6, 0.3)
    elif split == "pocket" and family in ("tote", "backpack", "bowling", "hobo", "bucket"):
        px, py = half * rng.uniform(0.45, 0.7), base - tall * 0.5
        pocket = rounded(lines((c - px, base - 0.04), (c + px, base - 0.04), (c + px, py), (c - px, py)), 0.03)
        d.paint(d.area(pocket) * body, replace(main, angle=main.angle + 0.3), 44, 6, 12, 0.45)
        d.stitches(np.concatenate([pocket, pocket[:1]]), accent.colour, 0.01, 0.0035)
        d.line(lines((c - px + 0.02, py + 0.03), (c + px - 0.02, py + 0.03)), 0.01, 0.5)
        d.stud(c + px - 0.03, py + 0.03, 0.01, metal, 56)
    elif split == "side":
        for side in (-1, 1):
            wing = spline([(c + side * half, top), (c + side * half, base), (c + side * half * 0.6, base),
                (c + side * half * 0.78, (top + base) / 2)])
            d.paint(d.area(wing) * body, accent, 30, 8, 20, 0.3)

    if family in ("satchel", "crossbody", "clutch", "backpack"):
        drop = top + tall * rng.uniform(0.42, 0.66)
        flap_kind = rng.choice(["straight", "round", "pointed"])
        left, right = x0 + slant * (family != "backpack"), x1 - slant * (family != "backpack")
        left, right = left - 0.006, right + 0.006
        head = [(left, top + 0.015), (left + 0.02, top - 0.006), (right - 0.02, top - 0.006), (right, top + 0.015)]
        if family == "backpack":
            head = [(c - half * 0.85, top + 0.12), (c - half * 0.55, top - 0.006), (c + half * 0.55, top - 0.006),
                (c + half * 0.85, top + 0.12)]
            left, right = c - half * 0.85, c + half * 0.85
        tail = {"straight": [(right, drop - 0.02), (right - 0.02, drop), (left + 0.02, drop), (left, drop - 0.02)],
            "round": [(right, top + (drop - top) * 0.55), (c + half * 0.5, drop), (c, drop + 0.015),
            (c - half * 0.5, drop), (left, top + (drop - top) * 0.55)], "pointed": [(right,
            top + (drop - top) * 0.4), (right, top + (drop - top) * 0.4), (c, drop + 0.05), (c, drop + 0.05),
            (left, top + (drop - top) * 0.4), (left, top + (drop - top) * 0.4)]}[flap_kind]
        flap = spline([*head, *tail]) if flap_kind != "straight" else rounded(lines(*head, *tail), 0.02)
        cover = accent if rng.random() < 0.35 else main
        d.paint(d.area(flap), cover, 40, 9, 14, 0.5)
        rim = (flap - [c, top]) * [0.955, 0.94] + [c, top + 0.004]
        d.stitches(rim, accent.colour if cover is main else main.colour, 0.01, 0.0035)
        draw_clasp(d, rng, c, drop - 0.02 + (0.03 if flap_kind == "pointed" else 0), metal, darker(strap, 0.9))
    elif family == "bucket":
        cord = top + 0.07
        for x in np.linspace(x0 + 0.03, x1 - 0.03, 8):
            d.stud(x, cord, 0.012, metal, 40)
        d.paint(d.path(spline([(x0, cord), (c - 0.05, cord + 0.012), (c, cord + 0.02), (c + 0.05, cord + 0.012),
            (x1, cord)], closed=False), 0.014), strap, 44, 5, 5)
        for side in (-1, 1):
            d.paint(d.path(spline([(c, cord + 0.02), (c + side * 0.03, cord + 0.10), (c + side * 0.05, cord + 0.20)],
                closed=False), 0.013), strap, 46, 5, 5)
            d.stud(c + side * 0.05, cord + 0.20, 0.018, metal if rng.random() < 0.5 else accent, 48)
    elif family == "bowling":
        seam = spline([(x0 + 0.02, top + 0.16), (c - half * 0.6, top + 0.055), (c, top + 0.04),
            (c + half * 0.6, top + 0.055), (x1 - 0.02, top + 0.16)], closed=False)
        d.line(seam, 0.012, 0.5)
        d.stitches(seam, metal.colour, 0.006, 0.006)
        d.stud(c - half * 0.6, top + 0.065, 0.012, metal, 50)
    elif family == "hobo":
        seam = spline([(x0 + 0.01, top + 0.05), (c, top + sag + 0.045), (x1 - 0.01, top + 0.05)], closed=False)
        d.line(seam, 0.01, 0.45)
        for x in (c - half * 0.3, c, c + half * 0.3):
            d.line(spline([(x, top + sag + 0.06), (x + 0.02, base - 0.15), (x - 0.01, base - 0.05)], closed=False),
                0.012, 0.12, 2.5)
    if family in ("tote", "hobo", "bowling") and rng.random() < 0.7:
        draw_clasp(d, rng, c, top + tall * (0.2 if family == "tote" else 0.45), metal, accent)
    if family in ("tote", "satchel", "bowling"):
        front_arch = arch(half * 0.45, max(0.07, top - rise + 0.02), top + 0.055)
        draw_strap(d, front_arch, "leather" if kind == "chain" else kind, width, strap, metal)
        for side in (-1, 1):
            d.paint(d.area(rounded(lines((c + side * half * 0.45 - 0.022, top + 0.02),
                (c + side * half * 0.45 + 0.022, top + 0.02), (c + side * half * 0.45 + 0.022, top + 0.10),
                (c + side * half * 0.45 - 0.022, top + 0.10)), 0.012)), strap, 46, 5, 8)
            d.stud(c + side * half * 0.45, top + 0.08, 0.010, metal, 52)
    if family == "clutch" and rng.random() < 0.5:
        draw_strap(d, spline([(x1 - 0.02, top + 0.06), (x1 + 0.06, top + 0.15), (x1 + 0.05, base + 0.08),
            (x1 - 0.01, base + 0.02), (x1 - 0.01, top + 0.14)], closed=False), kind, 0.02, strap, metal)
    return d


SHOES = ("pump", "sandal", "ballerina", "loafer", "sneaker", "boot", "mule")
BAGS = ("tote", "satchel", "hobo", "crossbody", "bucket", "clutch", "backpack", "bowling")


# fmt: on

# Photographs: what a seller does to a product.

GROUNDS = ("white", "white", "graded", "graded", "cloth", "planks", "tiles", "room", "shelf", "lights", "carpet")
WORDS = (
    "SALE",
    "NEW",
    "BEST ITEM",
    "FREE SHIPPING",
    "50% OFF",
    "Spring Look",
    "daily bag",
    "HOT",
    "1+1",
    "made in Italy",
    "MD PICK",
    "230-250mm",
    "Shop & Co.",
    "LIMITED",
    "real leather",
)
FONTS = (cv2.FONT_HERSHEY_SIMPLEX, cv2.FONT_HERSHEY_DUPLEX, cv2.FONT_HERSHEY_COMPLEX, cv2.FONT_HERSHEY_TRIPLEX,
         cv2.FONT_HERSHEY_SCRIPT_COMPLEX)  # fmt: skip


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
    """A seller's style."""
    ground = str(rng.choice(GROUNDS))
    amount = 0.03 if ground == "white" else 0.075
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


def soft(image: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian blur by `sigma` pixels."""
    return cv2.GaussianBlur(image, (0, 0), sigma) if sigma > 0.2 else image


def tint(rng: np.random.Generator, low: float, high: float, strength: float = 0.12) -> np.ndarray:
    """A muted random colour, BGR (3,) float32, of brightness low..high."""
    return np.clip(rng.uniform(low, high) * (1 + rng.normal(0, strength, 3)), 0.02, 1).astype(np.float32)


def box_of(canvas: np.ndarray, x: float, y: float, width: float, height: float, colour: np.ndarray) -> None:
    """A rectangle with a lit top and a darker right side; sizes in pixels."""
    corners = np.array([[x, y], [x + width, y], [x + width, y + height], [x, y + height]])
    cv2.fillPoly(canvas, [np.int32(corners * 16)], colour.tolist(), cv2.LINE_AA, 4)
    side = np.array([[x + width * 0.86, y], [x + width, y], [x + width, y + height], [x + width * 0.86, y + height]])
    cv2.fillPoly(canvas, [np.int32(side * 16)], (colour * 0.75).tolist(), cv2.LINE_AA, 4)


def draw_clutter(canvas: np.ndarray, rng: np.random.Generator, floor: float, n: int) -> None:
    """Boxes, vases, books and balls that stand on the line y = floor (pixels)."""
    size = len(canvas)
    for _ in range(n):
        x, width, height = (rng.uniform(-0.1, 1) * size, rng.uniform(0.05, 0.22) * size, rng.uniform(0.08, 0.42) * size)
        colour = tint(rng, 0.15, 0.9, 0.35)
        kind = rng.integers(4)
        if kind == 0:
            box_of(canvas, x, floor - height, width, height, colour)
        elif kind == 1:
            for _ in range(int(rng.integers(3, 7))):
                box_of(
                    canvas, x, floor - height, width * 0.22, height * rng.uniform(0.85, 1), tint(rng, 0.15, 0.9, 0.4)
                )
                x += width * 0.24
        elif kind == 2:
            foot, neck = floor - height * 0.45, floor - height * 0.8
            vase = [(x, floor), (x, floor), (x + width, floor), (x + width, floor), (x + width * 1.1, foot),
                    (x + width * 0.7, neck), (x + width * 0.8, floor - height), (x + width * 0.2, floor - height),
                    (x + width * 0.3, neck), (x - width * 0.1, foot)]  # fmt: skip
            cv2.fillPoly(canvas, [np.int32(spline(vase) * 16)], colour.tolist(), cv2.LINE_AA, 4)
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
                    canvas, [np.int32(leaf * 16)], (tint(rng, 0.2, 0.5) * [0.6, 1.2, 0.7]).tolist(), cv2.LINE_AA, 4
                )
        else:
            centre = (int(x * 16), int((floor - width / 2) * 16))
            cv2.circle(canvas, centre, int(width * 8), colour.tolist(), -1, cv2.LINE_AA, 4)
            cv2.circle(canvas, (centre[0] - int(width * 2), centre[1] - int(width * 2)), int(width * 4),
                       np.clip(colour * 1.2, 0, 1).tolist(), -1, cv2.LINE_AA, 4)  # fmt: skip


def draw_ground(kind: str, rng: np.random.Generator, size: int) -> np.ndarray:
    """What lies behind the product: BGR float32 (size, size, 3) in 0..1."""
    y, x = np.mgrid[:size, :size].astype(np.float32) / size
    if kind == "white":
        return np.full((size, size, 3), 1.0, np.float32) * float(rng.choice([1.0, 1.0, 0.97, 0.94]))
    if kind == "graded":
        colour, horizon = tint(rng, 0.45, 0.95, 0.10), rng.uniform(0.5, 0.8)
        step = 1 / (1 + np.exp(-(y - horizon) / rng.uniform(0.01, 0.12)))
        glow = np.exp(-((x - rng.uniform(0.2, 0.8)) ** 2 + (y - 0.4) ** 2) / 0.35)
        return colour * (0.78 + 0.16 * glow + rng.uniform(-0.12, 0.12) * step)[..., None].astype(np.float32)
    if kind == "cloth":
        folds = noise(rng, size, size / rng.uniform(3, 9))
        weave = np.sin(x * size * 1.2) * np.sin(y * size * 1.2)
        shade = 0.8 + 0.10 * np.gradient(soft(folds, 6), axis=1) * 40 * rng.uniform(0, 1) + 0.03 * weave
        return (tint(rng, 0.3, 0.95) * shade[..., None]).astype(np.float32)
    if kind == "planks":
        turned = rng.random() < 0.5
        u, v = (x, y) if turned else (y, x)
        n = rng.uniform(4, 9)
        plank = np.floor(u * n).astype(int)
        brightness = rng.uniform(0.75, 1.1, plank.max() + 1)[plank]
        grain = noise(rng, size, 5.0)
        grain = cv2.resize(grain[: size // 12] if not turned else grain[:, : size // 12], (size, size))
        gap = np.clip(np.abs(u * n - np.floor(u * n) - 0.5) - 0.47, 0, 0.03) / 0.03
        colour = tint(rng, 0.35, 0.85, 0.05) * [0.62, 0.82, 1.0]
        return (colour * (brightness * (1 + 0.10 * grain) * (1 - 0.6 * gap))[..., None]).astype(np.float32)
    if kind == "tiles":
        n, slant = rng.uniform(3, 7), rng.uniform(0, 0.5)
        u, v = (x - 0.5) * (1 + slant * y) * n, (y + 0.3 * slant * y * y) * n
        line_ = np.maximum(np.abs(u - np.round(u)) < 0.02, np.abs(v - np.round(v)) < 0.02)
        chequer = (np.floor(u + 0.5) + np.floor(v + 0.5)) % 2 * rng.choice([0.0, 0.12, 0.5])
        marble = 0.05 * noise(rng, size, size / 8) + 0.02 * noise(rng, size, 6)
        return (
            tint(rng, 0.5, 0.95, 0.05) * (1 - chequer + marble - 0.2 * soft(line_.astype(np.float32), 1))[..., None]
        ).astype(np.float32)
    if kind == "carpet":
        pile = 0.16 * noise(rng, size, 3.0) + 0.10 * noise(rng, size, 12.0)
        ground = tint(rng, 0.3, 0.85, 0.18) * (1 + pile)[..., None]
        ink = printed(str(rng.choice(PRINTS)), x / 0.13, y / 0.13, rng)[..., None] * float(rng.choice([0, 0, 0.5]))
        return (ground * (1 - ink) + tint(rng, 0.2, 0.9, 0.2) * ink).astype(np.float32)
    if kind == "lights":
        canvas = np.ones((size, size, 3), np.float32) * tint(rng, 0.15, 0.6, 0.15) * (0.7 + 0.6 * y[..., None])
        for _ in range(int(rng.integers(8, 26))):
            spot = np.zeros((size, size), np.float32)
            cv2.circle(
                spot, tuple(int(v) for v in rng.uniform(0, size, 2)), int(rng.uniform(0.02, 0.13) * size), 1.0, -1
            )
            canvas += soft(spot, 5)[..., None] * tint(rng, 0.1, 0.6, 0.4)
        floor = 1 / (1 + np.exp(-(y - 0.72) / 0.01))[..., None]
        return np.clip(
            canvas * (1 - floor) + floor * tint(rng, 0.3, 0.8) * (1 - 0.4 * (y[..., None] - 0.72)), 0, 1
        ).astype(np.float32)
    floor = rng.uniform(0.60, 0.78) * size
    canvas = np.ones((size, size, 3), np.float32) * tint(rng, 0.45, 0.95, 0.10)
    if rng.random() < 0.5:
        canvas *= (1 - 0.10 * printed(str(rng.choice(["stripes", "check", "dots"])), x / 0.11, y / 0.11, rng))[
            ..., None
        ]
    if kind == "shelf":
        for line_ in (0.30, rng.uniform(0.62, 0.72), 0.95):
            draw_clutter(canvas, rng, line_ * size, int(rng.integers(3, 7)))
            box_of(canvas, 0, line_ * size, size, 0.03 * size, tint(rng, 0.3, 0.8, 0.08))
        return soft(canvas, rng.uniform(0.5, 4))
    draw_clutter(canvas, rng, floor + 0.02 * size, int(rng.integers(2, 7)))
    canvas = soft(canvas, rng.uniform(1, 6))
    ground = draw_ground(str(rng.choice(["planks", "tiles", "carpet", "cloth"])), rng, size)
    corners = np.float32([[0, 0], [size, 0], [size, size], [0, size]])
    seen = np.float32([[-0.1 * size, floor], [1.1 * size, floor], [1.9 * size, 1.2 * size], [-0.9 * size, 1.2 * size]])
    matrix = cv2.getPerspectiveTransform(corners, seen)
    laid = cv2.warpPerspective(ground, matrix, (size, size), flags=cv2.INTER_AREA)
    canvas[int(floor) :] = laid[int(floor) :]
    return canvas


def view(cover: np.ndarray, rng: np.random.Generator, seller: Seller, size: int, fill: float, shift: tuple) -> tuple:
    """A homography (3, 3) from canvas to photograph of `size` pixels, and the yaw (radians), for one shot."""
    yaw = rng.normal(0, 0.32)
    pitch = rng.normal(0, 0.12)
    roll = rng.uniform(-0.9, 0.9) if seller.flat else rng.normal(0, 0.06)
    rows, columns = np.nonzero(cover > 0.5)
    box = np.float32(
        [
            [columns.min(), rows.min()],
            [columns.max(), rows.min()],
            [columns.max(), rows.max()],
            [columns.min(), rows.max()],
        ]
    )
    centre = box.mean(0)
    p = np.c_[box - centre, np.zeros(4)]
    cy, sy, cp, sp, cr, sr = (np.cos(yaw), np.sin(yaw), np.cos(pitch), np.sin(pitch), np.cos(roll), np.sin(roll))
    turn = (
        np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
        @ np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
        @ np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    )
    q = p @ turn.T
    distance = rng.uniform(1.6, 4.0) * CANVAS
    seen = q[:, :2] * (distance / (distance - q[:, 2:]))
    low, high = seen.min(0), seen.max(0)
    scale = fill * size / (high - low).max()
    free = np.maximum(0, size * 0.97 - (high - low) * scale)
    offset = (size - (high - low) * scale) / 2 + np.float32(shift) * size + free * rng.uniform(-0.35, 0.35, 2)
    target = (seen - low) * scale + offset
    return cv2.getPerspectiveTransform(box, target.astype(np.float32)), yaw, pitch


def develop(
    drawing: Drawing, matrix: np.ndarray, yaw: float, pitch: float, seller: Seller, size: int
) -> tuple[np.ndarray, np.ndarray]:
    """The product under the seller's lamp: colour BGR float32 (size, size, 3) and cover (size, size)."""
    y, x = np.mgrid[:size, :size].astype(np.float32)
    inverse = np.linalg.inv(matrix)
    w = inverse[2, 0] * x + inverse[2, 1] * y + inverse[2, 2]
    mx = ((inverse[0, 0] * x + inverse[0, 1] * y + inverse[0, 2]) / w).astype(np.float32)
    my = ((inverse[1, 0] * x + inverse[1, 1] * y + inverse[1, 2]) / w).astype(np.float32)
    near = cv2.remap(cv2.GaussianBlur(drawing.height, (0, 0), 3), mx, my, cv2.INTER_LINEAR)
    mx, my = mx + near * np.float32(np.tan(yaw)), my - near * np.float32(np.tan(pitch))
    cover = cv2.remap(drawing.cover, mx, my, cv2.INTER_LINEAR)
    colour = cv2.remap(drawing.colour, mx, my, cv2.INTER_LINEAR) / np.maximum(cover, 0.05)[..., None]
    height = cv2.remap(drawing.height, mx, my, cv2.INTER_LINEAR)
    gloss = cv2.remap(drawing.gloss, mx, my, cv2.INTER_LINEAR)
    scale = 1 / np.sqrt(abs(np.linalg.det(inverse[:2, :2])))
    height = soft(height, 1.2) * np.float32(min(scale, 1.5))
    gx, gy = (cv2.Sobel(height, cv2.CV_32F, 1, 0, scale=1 / 8), cv2.Sobel(height, cv2.CV_32F, 0, 1, scale=1 / 8))
    length = np.sqrt(gx * gx + gy * gy + 1)
    lamp = np.float32(seller.light) / np.linalg.norm(seller.light)
    diffuse = np.clip((-gx * lamp[0] - gy * lamp[1] + lamp[2]) / length, 0, 1)
    half = lamp + np.float32([0, 0, 1])
    half /= np.linalg.norm(half)
    shine = np.clip((-gx * half[0] - gy * half[1] + half[2]) / length, 0, 1) ** 30
    window = np.clip((gx * half[0] * 0.7 - gy * 0.8 + 0.75) / length, 0, 1) ** 60
    lit = colour * (seller.ambient + (1.25 - seller.ambient) * diffuse)[..., None]
    return lit + (gloss * (0.45 * shine + 0.20 * window))[..., None], cover


def cast_shadow(ground: np.ndarray, cover: np.ndarray, rng: np.random.Generator, seller: Seller) -> np.ndarray:
    """The ground darkened under and beside the product."""
    size = len(ground)
    rows = np.nonzero(cover.max(1) > 0.5)[0]
    bottom = rows.max() if len(rows) else size
    strength = rng.uniform(0.0, 0.35) if seller.ground == "white" else rng.uniform(0.25, 0.6)
    if seller.flat:
        shift = np.float32([[1, 0, -seller.light[0] * 0.03 * size], [0, 1, -seller.light[1] * 0.03 * size]])
        shadow = soft(cv2.warpAffine(cover, shift, (size, size)), 0.012 * size)
    else:
        flat = rng.uniform(0.10, 0.25)
        lean = -seller.light[0] * rng.uniform(0.1, 0.4)
        lay = np.float32([[1, -lean, lean * bottom], [0, flat, bottom * (1 - flat)]])
        shadow = 0.7 * soft(cv2.warpAffine(cover, lay, (size, size)), 0.02 * size)
        touch = np.float32([[1, 0, 0], [0, 0.06, bottom * 0.945]])
        shadow = np.maximum(shadow, soft(cv2.warpAffine(cover, touch, (size, size)), 0.008 * size))
    return ground * (1 - strength * np.clip(shadow, 0, 1))[..., None]


def write_text(image: np.ndarray, hidden: np.ndarray, rng: np.random.Generator) -> None:
    """Shop text, in place: on a bar, in a badge, along the rim or as a watermark; `hidden` gets where it is opaque."""
    size = len(image)

    def put(text: str, x: float, y: float, height: float, colour: np.ndarray, opacity: float = 1.0) -> None:
        face, scale = FONTS[int(rng.integers(len(FONTS)))], height * size / 22
        thick = max(1, int(scale * rng.uniform(1, 3)))
        layer = np.zeros((size, size), np.uint8)
        cv2.putText(layer, text, (int(x * size), int(y * size)), face, scale, 255, thick, cv2.LINE_AA)
        layer = np.float32(layer) / 255
        image[:] = image * (1 - opacity * layer[..., None]) + colour * opacity * layer[..., None]
        if opacity > 0.9:
            np.maximum(hidden, layer, out=hidden)

    for kind in rng.choice(
        ["bar", "badge", "corner", "watermark", "frame", "price"], int(rng.integers(1, 4)), replace=False
    ):
        word, colour = str(rng.choice(WORDS)), tint(rng, 0.05, 0.9, 0.8)
        if kind == "bar":
            height, at = rng.uniform(0.06, 0.12), float(rng.choice([0.0, 1.0]))
            rows = slice(int(size * (1 - height)), size) if at else slice(0, int(size * height))
            image[rows], hidden[rows] = colour, 1
            put(
                word,
                rng.uniform(0.03, 0.4),
                (1 - height * 0.3) if at else height * 0.72,
                height * 0.55,
                np.float32([1, 1, 1]),
            )
        elif kind == "badge":
            radius, cx, cy = (rng.uniform(0.06, 0.11), float(rng.choice([0.12, 0.88])), float(rng.choice([0.12, 0.88])))
            spot = np.zeros((size, size), np.float32)
            cv2.circle(
                spot, (int(cx * size * 16), int(cy * size * 16)), int(radius * size * 16), 1.0, -1, cv2.LINE_AA, 4
            )
            image[:] = image * (1 - spot[..., None]) + colour * spot[..., None]
            np.maximum(hidden, spot, out=hidden)
            put(
                str(rng.choice(["30%", "NEW", "1+1", "HOT"])),
                cx - radius * 0.75,
                cy + 0.02,
                0.045,
                np.float32([1, 1, 1]),
            )
        elif kind == "watermark":
            put(
                word,
                rng.uniform(0.05, 0.25),
                rng.uniform(0.4, 0.6),
                rng.uniform(0.06, 0.12),
                np.float32([1, 1, 1]) * rng.choice([0.2, 1.0]),
                0.3,
            )
        elif kind == "frame":
            width = int(size * rng.uniform(0.008, 0.025))
            for rim in (np.s_[:width], np.s_[-width:], np.s_[:, :width], np.s_[:, -width:]):
                image[rim], hidden[rim] = colour, 1
        elif kind == "price":
            put(f"{rng.integers(9, 299)},{rng.choice([0, 900, 500]):03d}", rng.uniform(0.05, 0.6), 0.95, 0.06, colour)
        else:
            put(word, rng.uniform(0.03, 0.5), rng.uniform(0.06, 0.12), rng.uniform(0.04, 0.07), colour)


def photograph(drawing: Drawing, seller: Seller, rng: np.random.Generator, size: int) -> tuple[np.ndarray, np.ndarray]:
    """One image of a model: BGR uint8 (size, size, 3) and its true mask uint8 (size, size), 0 or 255."""
    large = size * SUPERSAMPLING
    own = np.random.default_rng(seller.seed)
    image = draw_ground(seller.ground, own, large)
    if rng.random() < 0.5:
        image = np.ascontiguousarray(image[:, ::-1])
    mirrored, pair = rng.random() < 0.35, rng.random() < 0.15
    fill = seller.fill * rng.uniform(0.88, 1.06)
    shots = [(fill, (0.0, 0.0))]
    if pair:
        aside = rng.uniform(0.08, 0.20) * rng.choice([-1, 1])
        shots = [(fill * 0.72, (aside, -0.10)), (fill * 0.76, (-aside, 0.10))]
    cover = np.zeros((large, large), np.float32)
    for part, shift in shots:
        matrix, yaw, pitch = view(drawing.cover, rng, seller, large, part, shift)
        lit, seen = develop(drawing, matrix, yaw, pitch, seller, large)
        image = cast_shadow(image, seen, rng, seller)
        image = image * (1 - seen[..., None]) + lit * seen[..., None]
        cover = np.maximum(cover, seen)
    if mirrored:
        image, cover = np.ascontiguousarray(image[:, ::-1]), cover[:, ::-1]
    hidden = np.zeros((large, large), np.float32)
    image = np.clip(image, 0, 1) ** np.float32(seller.gamma)
    image = image * np.float32(seller.cast) * np.float32(np.exp(rng.normal(0, 0.05)))
    y, x = np.mgrid[-1 : 1 : large * 1j, -1 : 1 : large * 1j]
    if seller.ground != "white":
        image = image * (1 - rng.uniform(0, 0.22) * (x * x + y * y) / 2)[..., None]
    image = soft(image.astype(np.float32), float(rng.choice([0, 0, 1.0, 2.0])))
    if rng.random() < seller.text:
        write_text(image, hidden, own)
    image = cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA)
    image = image + rng.normal(0, rng.uniform(0, 0.02), image.shape)
    shown = cv2.resize(np.ascontiguousarray(cover * (1 - hidden)), (size, size), interpolation=cv2.INTER_AREA)
    return np.clip(image * 255 + 0.5, 0, 255).astype(np.uint8), np.where(shown > 0.5, 255, 0).astype(np.uint8)


# The catalogue: which models there are, and their images on disk.


@dataclass(frozen=True)
class Model:
    """One product model of a catalogue; `seed` decides its looks together with `family` and `colour`."""

    id: str
    family: str
    colour: str
    seed: tuple[int, ...]
    n_images: int


def plan_catalogue(seed: int, first_id: int, n_models: int, fewest: int, most: int) -> list[Model]:
    """The models of a catalogue with their numbers of images, `fewest` to `most` of each.

    Every family comes twice or more and a third as many colours as models are used (at most all of COLOURS), so that
    neither kind nor colour tells a model.
    """
    rng = np.random.default_rng([seed, first_id])
    families = rng.permutation(SHOES + BAGS)[: max(2, n_models // 2)]
    colours = rng.permutation(list(COLOURS))[: max(2, n_models // 3)]
    models = []
    for i in range(n_models):
        family, colour = families[(i // 2) % len(families)], rng.choice(colours)
        if i % 4 == 1:
            colour = models[-1].colour  # a near relative: same family, same colour
        model_seed = (seed, first_id + i)
        models.append(
            Model(str(first_id + i), str(family), str(colour), model_seed, int(rng.integers(fewest, most + 1)))
        )
    return models


def put(path: Path, content: bytes, own: bool) -> None:
    """Write a file whole; raises UserError where a file stands there that is neither our own nor the same."""
    if path.exists() and not own:
        if path.read_bytes() == content:
            return
        raise UserError(
            f"{files.shown(path)} was not written by make_sample_images.py: move it away or set another SAMPLE_NAME"
        )
    with files.whole(path) as temporary:
        temporary.write_bytes(content)


def draw_images(model: Model, size: int, image_dir: Path, mask_dir: Path, own: set[str]) -> list[Path]:
    """Draw a model and all its images; returns the files written. `own` are the names that an earlier run wrote."""
    cv2.setNumThreads(1)
    draw = draw_shoe if model.family in SHOES else draw_bag
    drawing = draw(np.random.default_rng(model.seed), model.family, model.colour)
    written, seller, left = [], None, 0
    for number in range(model.n_images):
        rng = np.random.default_rng([*model.seed, number + 1])
        if left == 0:
            seller, left = draw_seller(rng), int(rng.integers(1, 6))
            product = f"{model.id}{number + 1:03d}"
        left -= 1
        image_bgr, mask = photograph(drawing, seller, rng, size)
        name = f"{model.id}_{product}_{number + 1}.jpg"
        jpeg = cv2.imencode(".jpg", image_bgr, [cv2.IMWRITE_JPEG_QUALITY, seller.quality])[1].tobytes()
        paths = image_dir / name, mask_dir / f"{name}.png"
        for path, content in zip(paths, (jpeg, cv2.imencode(".png", mask)[1].tobytes()), strict=True):
            put(path, content, files.shown(path) in own)
        written += paths
    return written


def draw_catalogue(dataset: str, models: list[Model]) -> None:
    """Draw the images and masks of one data set on all cores, unless they are there; remove those of a former plan."""
    began = time.perf_counter()
    image_dir, mask_dir = files.raw_img_dir(dataset), files.mask_true_dir(dataset)
    record_path = files.data_dir(dataset) / "sample_images.json"
    inputs = {"models": files.fingerprint([astuple(model) for model in models])}
    origin = files.made_from(__file__, inputs, ["SAMPLE_IMAGE_SIZE"])
    if files.up_to_date(record_path, origin):
        return files.unchanged([image_dir, mask_dir])
    before = files.read_record(record_path) or {}
    own = {
        name
        for name, print_ in before.get("outputs", {}).items()
        if files.fingerprint_file(files.root() / name) == print_
    }
    drawn = Parallel(settings.n_jobs(), return_as="generator")(
        delayed(draw_images)(model, config.SAMPLE_IMAGE_SIZE, image_dir, mask_dir, own) for model in models
    )
    written = [path for paths in tqdm(drawn, dataset, len(models), unit="model", disable=None) for path in paths]
    for name in own - {files.shown(path) for path in written}:
        (files.root() / name).unlink()
    files.write_record(record_path, origin, written, n_models=len(models), n_images=len(written) // 2)
    n_images = sum(model.n_images for model in models)
    files.summary(n_images, len(written) // 2, 0, [image_dir, mask_dir], time.perf_counter() - began)
    return None


def main() -> None:
    """Draw the known models and the new ones."""
    fewest, most = config.SAMPLE_MIN_IMAGES, config.SAMPLE_MAX_IMAGES
    if fewest > most:
        raise SettingError(f"SAMPLE_MIN_IMAGES = {fewest}: must be at most SAMPLE_MAX_IMAGES = {most}")
    for dataset, first_id, n_models in (
        (f"{config.SAMPLE_NAME}_train", 10001, config.SAMPLE_TRAIN_MODELS),
        (config.SAMPLE_NAME, 20001, config.SAMPLE_MODELS),
    ):
        if n_models:
            draw_catalogue(dataset, plan_catalogue(config.SAMPLE_SEED, first_id, n_models, fewest, most))


if __name__ == "__main__":
    settings.run(main, __doc__)
