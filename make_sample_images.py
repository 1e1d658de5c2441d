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
import zlib
from dataclasses import astuple, dataclass, field, replace
from pathlib import Path

import cv2
import numpy as np
from joblib import Parallel, delayed
from tqdm import tqdm

import config
from pipeline import files, settings
from pipeline.settings import SettingError, UserError

CANVAS = 640  # pixels per side of the canvas on which a model is drawn once, whatever the size of the photographs
SIGNATURE = b"drawn by make_sample_images.py"  # the comment in every file it writes
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
    """A centripetal Catmull-Rom curve through `points`, (n_points, 2) -> (n_points * n_steps, 2); open curves end with
    the last point. A point given twice is a corner.

    Yuksel, Schaefer, Keyser (2011), Parameterization and applications of Catmull-Rom curves,
    doi:10.1016/j.cad.2010.08.008
    """
    p = np.asarray(points, float)
    before, after = (p[-1:], p[:2]) if closed else (p[:1], p[-1:])
    p = np.concatenate([before, p, after])
    knots = np.sqrt(np.maximum(np.hypot(*np.diff(p, axis=0).T), 1e-9))[:, None]  # (n + 2, 1)
    slopes = np.diff(p, axis=0) / knots
    tangents = (slopes[:-1] * knots[1:] + slopes[1:] * knots[:-1]) / (knots[:-1] + knots[1:])  # (n + 1, 2)
    m1, m2 = ((tangents[i : len(tangents) - 1 + i] * knots[1:-1])[:, None] for i in (0, 1))
    p1, p2 = p[1:-2, None], p[2:-1, None]
    t = np.linspace(0, 1, n_steps, endpoint=False)[None, :, None]
    curve = (
        (2 * t**3 - 3 * t**2 + 1) * p1 + (t**3 - 2 * t**2 + t) * m1 + (3 * t**2 - 2 * t**3) * p2 + (t**3 - t**2) * m2
    )
    curve = curve.reshape(-1, 2)
    return curve if closed else np.concatenate([curve, p[-2:-1]])


def lines(*points) -> np.ndarray:
    """The points as they are, for outlines with straight sides."""
    return np.asarray(points, float)


def rectangle(x: float, y: float, half_width: float, half_height: float) -> np.ndarray:
    """Corners of a rectangle round (x, y), (4, 2)."""
    signs = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)])
    return signs * [half_width, half_height] + [x, y]


def arc(x: float, y: float, radius_x: float, radius_y: float, start: float = 0.0) -> np.ndarray:
    """An ellipse round (x, y) from the angle `start` (radians, clockwise from the right) to a full turn, (32, 2)."""
    turn = np.linspace(start, 2 * np.pi, 32)
    return np.stack([x + radius_x * np.cos(turn), y + radius_y * np.sin(turn)], 1)


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
        self.paint(self.area(arc(x, y, radius, radius)), material, base, radius * CANVAS * 0.8, radius * CANVAS, 0.3)


# Products. Each family turns a random generator into one Drawing; the choices that make a model come from it.
# Outlines are tables of points, which a formatter would spread over a thousand lines.
# fmt: off

SHOES = {  # family: kinds of heel, throat (x where the opening begins), stretch of the upper
    "pump": (("stiletto", "kitten", "block", "cone"), (0.27, 0.36), 1.0),
    "sandal": (("stiletto", "block", "wedge", "flat"), (0.25, 0.25), 1.1),
    "ballerina": (("flat",), (0.24, 0.32), 1.25),
    "loafer": (("flat", "block"), (0.42, 0.48), 1.3),
    "sneaker": (("sneaker",), (0.48, 0.52), 1.4),
    "boot": (("stiletto", "block", "flat", "cone", "wedge"), (0.52, 0.52), 1.0),
    "mule": (("kitten", "block", "cone", "wedge"), (0.40, 0.48), 1.1),
}
HEELS = {  # kind: height, then width at the top and at the ground and how far the ground end lies to the front
    "stiletto": ((0.20, 0.30), 0.10, 0.016, 0.030), "kitten": ((0.10, 0.15), 0.10, 0.022, 0.035),
    "block": ((0.08, 0.24), 0.13, 0.115, 0.005), "cone": ((0.12, 0.22), 0.13, 0.035, 0.050),
    "wedge": ((0.13, 0.24),), "flat": ((0.02, 0.045),), "sneaker": ((0.045, 0.10),),
}
TOES = {"pointed": 0.045, "almond": 0.065, "round": 0.085, "square": 0.080}  # how high the toe is
BAGS = {  # family: half the width, height
    "tote": ((0.28, 0.36), (0.40, 0.52)), "satchel": ((0.28, 0.36), (0.34, 0.44)),
    "hobo": ((0.32, 0.38), (0.34, 0.42)), "crossbody": ((0.22, 0.30), (0.26, 0.38)),
    "bucket": ((0.20, 0.26), (0.40, 0.48)), "clutch": ((0.34, 0.40), (0.24, 0.32)),
    "backpack": ((0.24, 0.30), (0.50, 0.60)), "bowling": ((0.30, 0.38), (0.32, 0.40)),
}


def one(rng: np.random.Generator, *choices: str) -> str:
    """One of the choices, a plain str."""
    return str(rng.choice(choices))


def choose_materials(rng: np.random.Generator, colour: str) -> tuple[Material, Material, Material, Material]:
    """Main, accent, sole and metal of a model in the named colour."""
    shade = np.clip(np.float32(COLOURS[colour]) * rng.uniform(0.85, 1.15) + rng.normal(0, 0.015, 3), 0.03, 0.97)
    seed = int(rng.integers(1 << 30))
    main = Material(tuple(shade), one(rng, "smooth", "smooth", "pebbled", "patent", "suede", "canvas", "satin"),
                    seed=seed, angle=rng.uniform(-0.8, 0.8), scale=rng.uniform(0.035, 0.09))
    ink = COLOURS[one(rng, *(("white", "tan") if shade.mean() < 0.4 else ("black", "brown")))]
    look = rng.random()
    if look < 0.45:
        main = replace(main, print=one(rng, *PRINTS), ink=ink)
    elif look < 0.70:
        main = replace(main, relief=one(rng, *RELIEFS))
    if main.relief == "quilt":
        main = replace(main, angle=0.0)
    second = ink if rng.random() < 0.45 else tuple(np.clip(shade * rng.choice([0.6, 0.8, 1.1]), 0.03, 0.97))
    accent = Material(second, one(rng, "smooth", "patent", "suede"), seed=seed + 1)
    sole = Material([*(COLOURS[name] for name in ("black", "brown", "tan", "white")), tuple(shade)][rng.integers(5)],
                    "rubber", seed=seed + 2)
    return main, accent, sole, Material(METALS[one(rng, *METALS)], "metal")


def plain(material: Material, factor: float = 1.0) -> Material:
    """The material without print and relief, darker by `factor`: linings, gussets, the far side."""
    return replace(material, colour=tuple(np.float32(material.colour) * factor), print="", relief="")


# ---- details of shoes and bags


def draw_bow(d: Drawing, x: float, y: float, size: float, material: Material) -> None:
    """A bow of two loops and a knot."""
    for side in (-size, size):
        loop = [(x, y), (x + side * 0.6, y - size * 0.5), (x + side, y - size * 0.25), (x + side, y + size * 0.3),
                (x + side * 0.5, y + size * 0.35)]
        d.paint(d.area(spline(loop)), material, 26, 8, 10)
        d.line(lines((x + side * 0.2, y), (x + side * 0.7, y)), 0.004, 0.3)
    d.stud(x, y, size * 0.22, material, 30)


def draw_buckle(d: Drawing, x: float, y: float, width: float, height: float, metal: Material,
                base: float = 26) -> None:
    """A rectangular frame with its tongue; sizes are halves."""
    frame = rectangle(x, y, width, height)
    opening = moved(moved(frame, -x, -y) * 0.62, x, y)
    d.paint(d.area(rounded(frame, 0.008), opening), metal, base, 6, 4)
    d.paint(d.path(lines((x - width, y), (x + width * 0.8, y)), 0.006), metal, base + 2, 4, 3)


def draw_chain(d: Drawing, points: np.ndarray, metal: Material, link: float = 0.022) -> None:
    """A chain of rings along points (n, 2), every second seen from its side."""
    along = np.concatenate([[0], np.cumsum(np.hypot(*np.diff(points, axis=0).T))])
    turn = np.linspace(0, 2 * np.pi, 16)
    for i, s in enumerate(np.arange(0, along[-1], link)):
        here, ahead = ([np.interp(at, along, points[:, k]) for k in (0, 1)] for at in (s, s + 0.01))
        tilt = np.arctan2(ahead[1] - here[1], ahead[0] - here[0])
        ring = np.stack([0.62 * link * np.cos(turn), (0.36, 0.16)[i % 2] * link * np.sin(turn)], 1)
        turned = ring @ np.array([[np.cos(tilt), np.sin(tilt)], [-np.sin(tilt), np.cos(tilt)]])
        d.paint(d.path(moved(turned, *here), 0.007), metal, 16, 4, 3, 0.2)


def draw_strap(d: Drawing, points: np.ndarray, kind: str, width: float, strap: Material, metal: Material) -> None:
    """A handle or strap along points (n, 2): "leather", "rolled" or "chain"."""
    if kind == "chain":
        draw_chain(d, points, metal)
        return
    d.paint(d.path(points, width), strap, 8, *((7, 5) if kind == "leather" else (14, 12)))
    if kind == "leather" and width > 0.02:
        d.stitches(points, tuple(np.clip(np.float32(strap.colour) * 1.6 + 0.1, 0, 1)), 0.01, 0.003)


def draw_clasp(d: Drawing, rng: np.random.Generator, x: float, y: float, metal: Material, accent: Material) -> None:
    """What closes a bag."""
    kind = one(rng, "turnlock", "plate", "ring", "belt", "tassel", "padlock")
    if kind == "turnlock":
        d.paint(d.area(rounded(rectangle(x, y, 0.035, 0.02), 0.018)), metal, 50, 6, 6)
        d.paint(d.path(lines((x, y - 0.012), (x, y + 0.012)), 0.012), plain(metal, 0.8), 58, 6, 4)
    elif kind == "plate":
        d.paint(d.area(rounded(rectangle(x, y, 0.06, 0.012), 0.004)), metal, 50, 4, 4)
    elif kind == "ring":
        d.paint(d.path(arc(x, y, 0.035, 0.035), 0.014), metal, 50, 6, 5)
    elif kind == "belt":
        d.paint(d.path(lines((x, y - 0.09), (x, y + 0.09)), 0.045), accent, 50, 5, 8)
        draw_buckle(d, x, y + 0.03, 0.034, 0.028, metal, 54)
    elif kind == "tassel":
        for k in np.linspace(-1, 1, 9):
            d.paint(d.path(lines((x + 0.006 * k, y), (x + 0.026 * k, y + 0.13)), 0.008), accent, 50, 4, 3, 0.25)
        d.stud(x, y, 0.018, metal, 54)
    else:
        d.paint(d.path(arc(x, y, 0.018, 0.026, np.pi), 0.009), metal, 50, 4, 4)
        d.paint(d.area(rounded(rectangle(x, y + 0.022, 0.028, 0.022), 0.006)), metal, 52, 6, 6)


# ---- shoes


@dataclass(frozen=True)
class Shoe:
    """A shoe from its side, toe to the left, before it is drawn."""

    rng: np.random.Generator
    family: str
    main: Material
    accent: Material
    sole: Material
    metal: Material
    kind: str  # of heel, one of HEELS
    heel: float  # height of the heel and, below the ball, of the sole; parts of the canvas
    platform: float
    throat: float  # x where the opening begins
    stretch: float  # how much higher than a pump's the upper is
    toe_shape: str  # one of TOES

    GROUND = 0.80
    TOE = 0.07

    @property
    def back(self) -> float:
        """x of the heel's end; a foot on a high heel is shorter."""
        return 0.93 - 0.35 * self.heel

    @property
    def rise(self) -> float:
        """Height of the toe box."""
        return TOES[self.toe_shape]

    def on(self, x: float, up: float = 0.0) -> tuple[float, float]:
        """The point `up` above the insole at x, which rises in a smooth step from ball to heel."""
        t = np.clip((x - 0.36) / (self.back - 0.08 - 0.36), 0, 1)
        return x, self.GROUND - self.platform - (self.heel - self.platform) * t * t * (3 - 2 * t) - up * self.stretch

    def insole(self, start: float, stop: float, up: float = 0.0) -> np.ndarray:
        """The insole's line from x = start to stop, (24, 2)."""
        return np.array([self.on(x, up) for x in np.linspace(start, stop, 24)])

    def toe_box(self) -> list[tuple[float, float]]:
        """Points of the outline from the sole over the toe."""
        on, rise, toe = self.on, self.rise, self.TOE
        return {
            "pointed": [on(toe - 0.025, 0.008), on(toe - 0.025, 0.012), on(0.17, rise + 0.02)],
            "almond": [on(toe - 0.012, 0.005), on(toe + 0.005, 0.04), on(0.17, rise + 0.012)],
            "round": [on(toe), on(toe - 0.008, 0.045), on(0.11, rise + 0.005), on(0.19, rise + 0.025)],
            "square": [on(toe - 0.005), on(toe - 0.005), on(toe, rise * 0.8), on(toe + 0.01, rise * 0.9),
                       on(0.19, rise + 0.025)],
        }[self.toe_shape]

    def instep(self) -> float:
        """Height of the upper where the opening begins."""
        return self.rise + 0.03 + 0.10 * (self.throat - 0.2)


def draw_sole(d: Drawing, shoe: Shoe) -> None:
    """The sole, and the heel under it."""
    on, back, ground, main, sole = shoe.on, shoe.back, shoe.GROUND + 0.016, shoe.main, shoe.sole
    if shoe.kind in ("wedge", "sneaker", "flat"):
        sneaker = shoe.kind == "sneaker"
        lift = 0.022 if sneaker else 0.004
        end = back + (0.012 if sneaker else -0.01)
        outline = [*shoe.insole(shoe.TOE, back, lift), (end, ground - 0.026), (back - 0.03, ground), (0.40, ground),
                   (0.12, ground), (shoe.TOE - 0.008, ground - 0.03 - lift / 2)]
        cover = plain(main) if shoe.kind == "wedge" and sole.colour == COLOURS["black"] else sole
        relief = "ribs" if shoe.kind == "wedge" and sole.colour == COLOURS["tan"] else ""
        d.paint(d.area(rounded(np.array(outline), 0.012)), replace(cover, relief=relief, scale=0.02, angle=1.5), 16,
                10, 14)
        if sneaker:
            d.line(moved(shoe.insole(0.08, back), 0, 0.012), 0.004, 0.35)
            for x in np.arange(0.11, back - 0.02, 0.022):
                d.line(lines((x, ground - 0.012), (x + 0.006, ground)), 0.006, 0.45)
        return
    bottom = shoe.insole(0.085, back - 0.10)
    d.paint(d.area(np.concatenate([bottom, moved(bottom, 0, 0.016 + shoe.platform)[::-1]])), sole, 14, 8, 8)
    _, top_width, width, lean = HEELS[shoe.kind]
    right, seat = back - 0.005, on(back - 0.02)[1]
    tip = right - lean
    outline = [(right, seat - 0.01), (right, seat - 0.01), (right - lean * 0.6, (seat + ground) / 2), (tip, ground),
               (tip, ground), (tip - width, ground), (tip - width, ground),
               (right - top_width * 0.62 - lean * 0.4, seat * 0.7 + ground * 0.3),
               on(right - top_width, -0.01), on(right - top_width, -0.01)]
    d.paint(d.area(spline(outline)), replace(main, relief="") if shoe.rng.random() < 0.6 else sole, 8, 14, 20)
    d.paint(d.area(rectangle(tip - width / 2, ground - 0.006, width / 2, 0.006)), plain(sole, 0.5), 12, 4, 4)


def draw_boot(d: Drawing, shoe: Shoe) -> None:
    """A boot with a low, middle or high shaft, closed in one of five ways."""
    rng, on, back, accent, metal = shoe.rng, shoe.on, shoe.back, shoe.accent, shoe.metal
    shaft = float(rng.choice([0.26, 0.33, 0.52]))
    crown = max(0.05, on(back, shaft + 0.06)[1])
    front, rear = 0.60 - 0.05 * (shaft > 0.4) - 0.2 * shoe.heel, back + 0.015
    middle = (front + rear) / 2
    mouth = [(front, crown + 0.01), (front + 0.1, crown - 0.02), (rear - 0.01, crown - 0.01),
             (rear - 0.05, crown + 0.02)]
    d.paint(d.area(spline(mouth)), plain(shoe.main, 0.4), 2, 4, 12)
    draw_sole(d, shoe)
    outline = [*shoe.toe_box(), on(0.36, shoe.rise + 0.075), (front - 0.04, on(front, 0.22)[1]),
               (front, crown + 0.25 * shaft), (front - 0.015, crown), (front - 0.015, crown), (rear, crown - 0.008),
               (rear, crown - 0.008), (rear - 0.032, on(back, 0.17)[1]), (rear, on(back, 0.06)[1]), on(back - 0.005),
               on(back - 0.005)]
    d.paint(d.area(np.concatenate([spline(outline, closed=False), shoe.insole(back - 0.01, 0.09)])), shoe.main, 10,
            34, 75)
    style = one(rng, "chelsea", "zip", "laces", "belts", "cuff")
    if style == "chelsea":
        gore = [(middle - 0.05, crown + 0.005), (middle + 0.05, crown + 0.005), (middle + 0.035, crown + 0.15),
                (middle - 0.03, crown + 0.15)]
        d.paint(d.area(spline(gore)), replace(plain(accent, 0.7), relief="ribs", scale=0.012), 40, 2, 6)
    elif style == "zip":
        zipper = lines((middle + 0.02, crown + 0.01), on(middle, 0.06))
        d.line(zipper, 0.016, 0.5)
        d.stitches(zipper, metal.colour, 0.006, 0.007)
        d.stud(middle + 0.02, crown + 0.04, 0.011, metal, 44)
    elif style == "laces":
        for y in np.linspace(crown + 0.03, on(front, 0.23)[1], 5):
            d.paint(d.path(lines((front - 0.012, y), (front + 0.06, y + 0.015)), 0.012), accent, 42, 4, 4)
            d.stud(front + 0.065, y + 0.015, 0.008, metal, 42)
    elif style == "belts":
        for up in (0.20, 0.15):
            belt = spline([on(front - 0.03, up), (middle, on(front, up - 0.015)[1]), (rear, on(back, up - 0.04)[1])],
                          False)
            d.paint(d.path(belt, 0.026), accent, 42, 5, 6)
            draw_buckle(d, middle + 0.03, float(np.interp(middle + 0.03, *belt.T)), 0.022, 0.02, metal, 46)
    else:
        cuff = lines((front - 0.022, crown - 0.012), (rear + 0.01, crown - 0.016), (rear + 0.002, crown + 0.06),
                     (front - 0.018, crown + 0.065))
        d.paint(d.area(rounded(cuff, 0.015)), replace(accent, finish="suede"), 40, 12, 16)
    d.stitches(spline([on(0.33, 0.015), on(0.37, 0.08), on(0.42, 0.13)], closed=False), accent.colour)


def draw_footbed(d: Drawing, shoe: Shoe) -> None:
    """The inner sole of an open shoe, as far as it is seen from above, and the sole under it."""
    upper = shoe.insole(0.085, shoe.back - 0.005, 0.028)
    d.paint(d.area(np.concatenate([upper, shoe.insole(shoe.back - 0.005, 0.085)])), plain(shoe.sole, 0.8), 4, 6, 6)
    draw_sole(d, shoe)


def draw_sandal(d: Drawing, shoe: Shoe) -> None:
    """Two or three bands over the foot, or a criss-cross, each with its darker far half."""
    rng, on = shoe.rng, shoe.on
    draw_footbed(d, shoe)
    width, height, lean = rng.uniform(0.045, 0.10), shoe.rise + rng.uniform(0.02, 0.06), rng.uniform(0.02, 0.06)

    def band(left: list[tuple[float, float]], wide: float) -> np.ndarray:
        side = spline(left, closed=False)
        return d.area(np.concatenate([side, moved(side, wide, 0)[::-1]]))

    starts = (0.11, 0.22, 0.33)[: int(rng.integers(2, 4))]
    for x in starts:
        far = [on(x + lean, height), on(x + lean + 0.035, height * 0.75), on(x + lean + 0.045, 0.02)]
        d.paint(band(far, width * 0.9), plain(shoe.main, 0.5), 4, 4, 8)
    for x in starts:
        near = [on(x, -0.004), on(x + 0.002, height * 0.55), on(x + lean, height)]
        d.paint(band(near, width), shoe.main, 14, 9, 14)
        d.stitches(moved(spline(near, closed=False)[2:-2], 0.010, 0), shoe.accent.colour, 0.009, 0.003)
    if rng.random() < 0.5:
        d.paint(band([on(0.30, 0.0), on(0.24, height * 0.6), on(0.13, height)], width * 0.8), shoe.accent, 24, 8, 12)


def draw_mule(d: Drawing, shoe: Shoe) -> None:
    """An upper that ends at the instep, with or without toes."""
    on, rise, throat, peak = shoe.on, shoe.rise, shoe.throat, shoe.instep()
    draw_footbed(d, shoe)
    open_toe = shoe.rng.random() < 0.5
    start = 0.17 if open_toe else 0.09
    vamp = [on(start), on(start), on(start + 0.02, rise + 0.01)] if open_toe else shoe.toe_box()
    inside = [on(throat - 0.01, peak), on(throat + 0.02, peak + 0.012), on(throat + 0.08, 0.06),
              on(throat + 0.05, 0.05)]
    d.paint(d.area(spline(inside)), plain(shoe.main, 0.4), 6, 4, 6)
    outline = [*vamp, on(throat - 0.06, peak - 0.005), on(throat, peak + 0.01), on(throat, peak + 0.01),
               on(throat + 0.05, 0.07), on(throat + 0.10), on(throat + 0.10)]
    body = np.concatenate([spline(outline, closed=False), shoe.insole(throat + 0.10, start)])
    d.paint(d.area(body), shoe.main, 12, 30, 55)


def draw_closed_shoe(d: Drawing, shoe: Shoe) -> None:
    """Pump, ballerina, loafer and sneaker: an upper with an opening that shows the lining."""
    rng, on, back, throat, peak = shoe.rng, shoe.on, shoe.back, shoe.throat, shoe.instep()
    low = shoe.family in ("pump", "ballerina")
    counter = rng.uniform(0.13, 0.165) + (0.09 if shoe.family == "sneaker" and rng.random() < 0.35 else 0)
    middle = (throat + back) / 2 + 0.04
    near = [on(throat, peak), on(throat, peak), on(throat + 0.03, peak - (0.045 if low else 0.02)),
            on(middle, counter * 0.72 - (0.02 if low else 0)), on(back - 0.035, counter - 0.004), on(back + 0.002,
                                    counter),
            on(back + 0.002, counter)]
    far = [on(throat, peak), on(throat + 0.05, peak + 0.010), on(middle, counter * 0.86),
           on(back - 0.02, counter + 0.006),
           on(back + 0.002, counter)]
    lining = Material(COLOURS[one(rng, "beige", "tan", "black", "grey")], "suede", seed=shoe.main.seed + 3)
    inside = np.concatenate([spline(far, closed=False), moved(spline(near, closed=False), 0, 0.01)[::-1]])
    d.paint(d.area(inside), plain(lining, 0.7), 2, 4, 10)
    draw_sole(d, shoe)
    vamp = [on(0.30, shoe.rise + 0.065)] if throat > 0.38 else []
    outline = [*shoe.toe_box(), *vamp, *near, on(back + 0.014, 0.075), on(back - 0.006), on(back - 0.006)]
    body = d.area(np.concatenate([spline(outline, closed=False), shoe.insole(back - 0.01, 0.09)]))
    d.paint(body, shoe.main, 10, 34, 60)
    d.stitches(moved(spline(near, closed=False), 0, 0.012)[16:], shoe.accent.colour, 0.008, 0.003)
    if rng.random() < 0.4:
        cap = np.concatenate([spline([*shoe.toe_box(), on(0.20, shoe.rise + 0.05), on(0.23, 0.05), on(0.21),
                                on(0.21)], False),
                              shoe.insole(0.21, 0.09)])
        d.paint(d.area(cap) * body, shoe.sole if shoe.family == "sneaker" else shoe.accent, 14, 30, 60, 0.15)
    if shoe.family == "sneaker":
        draw_laces_and_mark(d, shoe, body, counter)
    elif shoe.family == "loafer":
        draw_apron(d, shoe)


def draw_laces_and_mark(d: Drawing, shoe: Shoe, body: np.ndarray, counter: float) -> None:
    """A sneaker's laces and the mark on its side."""
    on, accent, back = shoe.on, shoe.accent, shoe.back
    for t in np.linspace(0, 1, 6):
        x, up = 0.30 + (shoe.throat - 0.30) * t, (shoe.rise + 0.068) * (1 - t) + shoe.instep() * t
        d.paint(d.path(lines(on(x - 0.006, up), on(x + 0.035, up - 0.04)), 0.012), accent, 40, 5, 4)
        d.stud(*on(x + 0.038, up - 0.043), 0.006, shoe.metal, 40)
    x, y = on(0.58, 0.075)
    mark = one(shoe.rng, "stripes", "swoosh", "star", "panel")
    if mark == "stripes":
        for step in (0, 0.035, 0.07):
            d.paint(d.path(lines((x - 0.06 + step, y - 0.02), (x - 0.09 + step, y + 0.07)), 0.016), accent, 44, 2, 3,
                    0.1)
    elif mark == "swoosh":
        outline = [(x - 0.16, y + 0.03), (x - 0.10, y + 0.055), (x + 0.16, y - 0.035), (x - 0.08, y + 0.005)]
        d.paint(d.area(spline(outline)) * body, accent, 44, 2, 3, 0.1)
    elif mark == "star":
        turn = np.arange(10) * np.pi / 5 - np.pi / 2
        reach = np.where(np.arange(10) % 2, 0.022, 0.052)
        d.paint(d.area(np.stack([x + reach * np.cos(turn), y + 0.02 + reach * np.sin(turn)], 1)), accent, 44, 2, 3,
                0.1)
    else:
        panel = [on(back - 0.14, 0.03), on(back - 0.10, counter - 0.04), on(back + 0.02, counter),
                 on(back + 0.02, 0.03)]
        d.paint(d.area(spline(panel)) * body, accent, 42, 4, 6, 0.2)


def draw_apron(d: Drawing, shoe: Shoe) -> None:
    """A loafer's seam, its strap, and a metal bar or a tassel on it."""
    on, x, up, rise = shoe.on, shoe.throat, shoe.instep(), shoe.rise
    seam = spline([on(0.10, rise * 0.75), on(0.20, rise * 0.8), on(0.33, rise + 0.01), on(x - 0.01, up - 0.035)],
                  False)
    d.line(seam, 0.008, 0.4)
    d.stitches(moved(seam, 0, 0.008), shoe.accent.colour)
    d.paint(d.path(spline([on(x - 0.10, 0.015), on(x - 0.075, 0.07), on(x - 0.06, up - 0.012)], False), 0.045),
            shoe.accent, 40, 6, 10)
    if shoe.rng.random() < 0.5:
        d.paint(d.path(lines(on(x - 0.10, up - 0.035), on(x - 0.03, up - 0.03)), 0.014), shoe.metal, 46, 5, 4)
        return
    for k in range(7):
        fringe = lines(on(x - 0.10 + 0.006 * k, up - 0.03), on(x - 0.13 + 0.014 * k, up - 0.085))
        d.paint(d.path(fringe, 0.007), shoe.accent, 44, 3, 3)


def draw_ankle_strap(d: Drawing, shoe: Shoe) -> None:
    """A strap round the ankle on a stay at the heel, with or without a middle strap to the toes."""
    rng, on, back = shoe.rng, shoe.on, shoe.back
    x, y = back - 0.09, on(back)[1] - rng.uniform(0.17, 0.26)
    strap, width = (shoe.accent if rng.random() < 0.5 else shoe.main), rng.uniform(0.016, 0.034)
    near = spline([(back - 0.002, y - 0.005), (x + 0.02, y + 0.014), (x - 0.06, y + 0.002), (x - 0.065, y - 0.006)],
                  False)
    far = spline([(x - 0.065, y - 0.006), (x + 0.01, y - 0.022), (back - 0.002, y - 0.005)], closed=False)
    d.paint(d.path(far, width * 0.8), plain(strap, 0.6), 4, 5, 6)
    d.paint(d.path(spline([on(back - 0.03, 0.005), on(back + 0.006, 0.08), (back, y)], False), width * 1.6),
            shoe.main, 20, 10, 12)
    d.paint(d.path(near, width), strap, 30, 7, 7)
    draw_buckle(d, x, y + 0.012, 0.016, width * 0.75, shoe.metal, 36)
    if rng.random() < 0.35:
        d.paint(d.path(spline([on(0.30, shoe.rise + 0.02), on(0.45, 0.16), (x - 0.05, y)], False), width * 0.9),
                strap, 26, 6, 7)


def draw_trim(d: Drawing, shoe: Shoe) -> None:
    """What sits on the toes."""
    x, y = shoe.on(shoe.throat - 0.045, shoe.instep() - 0.03)
    trim = one(shoe.rng, "", "bow", "buckle", "studs", "pearls", "flower")
    if trim == "bow":
        draw_bow(d, x, y, shoe.rng.uniform(0.045, 0.07), shoe.accent)
    elif trim == "buckle":
        draw_buckle(d, x, y + 0.01, 0.038, 0.026, shoe.metal, 40)
    elif trim == "flower":
        for turn in np.arange(6) * np.pi / 3:
            d.stud(x + 0.026 * np.cos(turn), y + 0.022 * np.sin(turn), 0.02, shoe.accent, 34)
        d.stud(x, y, 0.014, shoe.metal, 40)
    elif trim and shoe.family != "sandal":
        bead = shoe.metal if trim == "studs" else Material((0.88, 0.92, 0.94), "patent")
        for along in np.linspace(0.13, shoe.throat + 0.05, 7):
            d.stud(*shoe.on(along, 0.022), 0.009, bead, 34)


def draw_shoe(rng: np.random.Generator, family: str, colour: str) -> Drawing:
    """A shoe of one of the families of SHOES from its side, toe to the left."""
    kinds, throat, stretch = SHOES[family]
    kind = one(rng, *kinds)
    heel = rng.uniform(*HEELS[kind][0]) * (0.5 if family == "loafer" and kind == "block" else 1)
    thick = {"sneaker": 0.75 * heel, "flat": 0.7 * heel, "wedge": float(rng.choice([0.02, 0.07]))}
    platform = thick.get(kind, float(rng.choice([0.0, 0.0, 0.05])) if heel > 0.18 else 0.0)
    toes = ("round", "almond") if family == "sneaker" else tuple(TOES)
    shoe = Shoe(rng, family, *choose_materials(rng, colour), kind, heel, platform, rng.uniform(*throat), stretch,
                one(rng, *toes))
    d = Drawing()
    {"boot": draw_boot, "sandal": draw_sandal, "mule": draw_mule}.get(family, draw_closed_shoe)(d, shoe)
    if family == "sandal" or (family in ("pump", "ballerina") and rng.random() < 0.5):
        draw_ankle_strap(d, shoe)
    if family in ("pump", "ballerina", "mule", "sandal"):
        draw_trim(d, shoe)
    return d


# ---- bags


@dataclass(frozen=True)
class Bag:
    """A bag from its front, before it is drawn."""

    rng: np.random.Generator
    family: str
    main: Material
    accent: Material
    metal: Material
    strap: Material
    strap_kind: str  # "leather", "rolled" or "chain"
    strap_width: float
    half: float  # half of its width, its top and its base, parts of the canvas
    top: float
    base: float
    slant: float  # how much narrower the top is at each side

    def at(self, across: float, down: float, right: float = 0.0, below: float = 0.0) -> tuple[float, float]:
        """A point of the front: `across` -1..1 from side to side, `down` 0..1 from top to base, moved by the rest."""
        return 0.5 + across * self.half + right, self.top + down * (self.base - self.top) + below

    def arch(self, spread: float, peak: float, foot: float) -> np.ndarray:
        """A handle of half width `spread` from the height `foot` up to `peak`, (n, 2)."""
        half = [(-spread, foot), (-spread * 0.92, (foot + peak) / 2), (-spread * 0.45, peak)]
        return spline([(0.5 + x, y) for x, y in half] + [(0.5 - x, y) for x, y in half[::-1]], closed=False)

    def outline(self) -> np.ndarray:
        """The front's outline, (n, 2)."""
        at, rng = self.at, self.rng
        if self.family == "hobo":
            return spline([at(-1, 0.05), at(-1, 0.05), at(-0.5, 0.26), at(0, 0.30), at(0.5, 0.26), at(1, 0.05),
                           at(1, 0.05),
                           at(0.95, 0.68), at(0.55, 1), at(0, 1.02), at(-0.55, 1), at(-0.95, 0.68)])
        if self.family == "bowling":
            return spline([at(-1, 0.92), at(-0.94, 1), at(0, 1.01), at(0.94, 1), at(1, 0.92), at(0.94, 0.33),
                           at(0.6, 0.03),
                           at(0, -0.01), at(-0.6, 0.03), at(-0.94, 0.33)])
        if self.family == "backpack":
            return spline([at(-1, 0.93), at(-0.86, 1), at(0.86, 1), at(1, 0.93), at(0.97, 0.27), at(0.5, 0),
                           at(-0.5, 0),
                           at(-0.97, 0.27)])
        if self.family == "bucket":
            return rounded(lines(at(-0.88, 1), at(0.88, 1), at(1, 0, self.slant), at(-1, 0, -self.slant)), 0.03)
        corners = lines(at(-1, 1), at(1, 1), at(1, 0, -self.slant), at(-1, 0, self.slant))
        return rounded(corners, rng.uniform(0.01, 0.07))


def draw_behind(d: Drawing, bag: Bag) -> None:
    """Straps and handles that lie behind the front."""
    at, top, strap = bag.at, bag.top, bag.strap
    rise = bag.rng.uniform(0.16, 0.30)
    if bag.family in ("crossbody", "hobo", "bucket"):
        peak = max(0.06, top - rise - (0.10 if bag.family == "crossbody" else 0.05))
        kind = "rolled" if bag.family == "hobo" else bag.strap_kind
        draw_strap(d, bag.arch(bag.half * 0.83, peak, top + 0.06), kind, bag.strap_width, strap, bag.metal)
    elif bag.family == "backpack":
        for side in (-1, 1):
            points = [at(side * 0.3, 0.05), at(side, 0.2, side * 0.03), at(side, 0.55, side * 0.05),
                      at(side * 0.93, 0.9)]
            draw_strap(d, spline(points, closed=False), "leather", 0.04, plain(strap, 0.8), bag.metal)
        draw_strap(d, bag.arch(0.06, top - 0.06, top + 0.03), "rolled", 0.022, strap, bag.metal)
    elif bag.family != "clutch":
        kind = "leather" if bag.strap_kind == "chain" else bag.strap_kind
        behind = moved(bag.arch(bag.half * 0.45, max(0.05, top - rise), top + 0.03), 0.015, -0.012)
        draw_strap(d, behind, kind, bag.strap_width, plain(strap, 0.7), bag.metal)


def draw_front(d: Drawing, bag: Bag) -> None:
    """The body with its gusset, and what divides or covers the front."""
    rng, at, main, accent = bag.rng, bag.at, bag.main, bag.accent
    outline = bag.outline()
    if bag.family in ("satchel", "tote", "crossbody", "bowling"):
        depth = rng.uniform(0.03, 0.06)
        both = np.concatenate([outline, moved(outline, depth, -depth * 0.45)])
        d.paint(d.area(cv2.convexHull(both.astype(np.float32))[:, 0]), plain(main, 0.62), 2, 10, 14)
    elif bag.family == "bucket":
        mouth = [at(-1, 0, -bag.slant), at(0, 0, 0, -0.05), at(1, 0, bag.slant), at(0, 0, 0, 0.05)]
        d.paint(d.area(spline(mouth)), plain(main, 0.35), 2, 3, 10)
    body = d.area(outline)
    soft_body = bag.family in ("hobo", "backpack", "bowling", "bucket")
    d.paint(body, main, 12, 34 if soft_body else 22, 80 if bag.family == "hobo" else 45)
    if bag.family in ("tote", "clutch", "bowling") or rng.random() < 0.3:
        centre = at(0, 0.5)
        seam = moved(moved(outline, -centre[0], -centre[1]) * [0.94, 0.92], *centre)
        d.stitches(np.concatenate([seam, seam[:1]]), accent.colour, 0.011, 0.0035)
    split = one(rng, "", "bottom", "bands", "pocket", "wings")
    if split == "bottom":
        band = rng.uniform(0.60, 0.78)
        d.paint(d.area(lines(at(-2, band), at(2, band), at(2, 2), at(-2, 2))) * body, accent, 16, 22, 40, 0.2)
    elif split == "bands":
        for side in (-0.45, 0.45):
            d.paint(d.path(lines(at(side, 0), at(side, 1)), 0.035) * body, accent, 36, 4, 6, 0.3)
    elif split == "pocket":
        width = rng.uniform(0.45, 0.7)
        pocket = rounded(lines(at(-width, 0.9), at(width, 0.9), at(width, 0.5), at(-width, 0.5)), 0.03)
        d.paint(d.area(pocket) * body, replace(main, angle=main.angle + 0.3), 44, 6, 12, 0.45)
        d.stitches(np.concatenate([pocket, pocket[:1]]), accent.colour, 0.01, 0.0035)
        d.line(lines(at(-width, 0.5, 0.02, 0.03), at(width, 0.5, -0.02, 0.03)), 0.01, 0.5)
        d.stud(*at(width, 0.5, -0.03, 0.03), 0.01, bag.metal, 56)
    elif split == "wings":
        for side in (-1, 1):
            wing = spline([at(side, 0), at(side, 1), at(side * 0.6, 1), at(side * 0.78, 0.5)])
            d.paint(d.area(wing) * body, accent, 30, 8, 20, 0.3)


def draw_flap(d: Drawing, bag: Bag) -> None:
    """A straight, round or pointed flap over the front, with its clasp."""
    rng, at, drop = bag.rng, bag.at, bag.rng.uniform(0.42, 0.66)
    inset = bag.slant * (1 - drop / 2)
    side, head = 1.02 - inset / bag.half, [at(-1, 0.03, bag.slant), at(-1, -0.02, bag.slant + 0.02)]
    if bag.family == "backpack":
        side, head = 0.85, [at(-0.85, 0.22), at(-0.5, -0.01)]
    shape = one(rng, "straight", "round", "pointed")
    tail = {"straight": [at(side, drop - 0.06), at(side, drop, -0.02)],
            "round": [at(side, 0.55 * drop), at(0.5, drop)],
            "pointed": [at(side, 0.4 * drop), at(side, 0.4 * drop)]}[shape]
    middle = {"straight": [], "round": [at(0, drop + 0.04)], "pointed": [at(0, drop + 0.1), at(0, drop + 0.1)]}[shape]
    right = [(1 - x, y) for x, y in head[::-1]]
    points = [*head, *right, *tail, *middle, *[(1 - x, y) for x, y in tail[::-1]]]
    flap = rounded(lines(*points), 0.02) if shape == "straight" else spline(points)
    cover = bag.accent if rng.random() < 0.35 else bag.main
    d.paint(d.area(flap), cover, 40, 9, 14, 0.5)
    top = at(0, 0)
    rim = moved(moved(flap, -top[0], -top[1]) * [0.955, 0.94], top[0], top[1] + 0.004)
    d.stitches(rim, bag.accent.colour if cover is bag.main else bag.main.colour, 0.01, 0.0035)
    draw_clasp(d, rng, *at(0, drop, 0, 0.01 if shape == "pointed" else -0.02), bag.metal, plain(bag.strap, 0.9))


def draw_closing(d: Drawing, bag: Bag) -> None:
    """How the bag is closed: flap, cord, zip, or open with or without a clasp."""
    rng, at, metal = bag.rng, bag.at, bag.metal
    if bag.family in ("satchel", "crossbody", "clutch", "backpack"):
        draw_flap(d, bag)
        return
    if bag.family == "bucket":
        cord = [at(-1, 0, 0, 0.07), at(-0.2, 0, 0, 0.082), at(0, 0, 0, 0.09), at(0.2, 0, 0, 0.082), at(1, 0, 0, 0.07)]
        for across in np.linspace(-0.87, 0.87, 8):
            d.stud(*at(across, 0, 0, 0.07), 0.012, metal, 40)
        d.paint(d.path(spline(cord, closed=False), 0.014), bag.strap, 44, 5, 5)
        for side in (-1, 1):
            end = at(0, 0, side * 0.05, 0.27)
            d.paint(d.path(spline([at(0, 0, 0, 0.09), at(0, 0, side * 0.03, 0.17), end], False), 0.013), bag.strap,
                    46, 5, 5)
            d.stud(*end, 0.018, metal if side < 0 else bag.accent, 48)
        return
    if bag.family == "bowling":
        zipper = spline([at(-0.94, 0.44), at(-0.6, 0.15), at(0, 0.11), at(0.6, 0.15), at(0.94, 0.44)], closed=False)
        d.line(zipper, 0.012, 0.5)
        d.stitches(zipper, metal.colour, 0.006, 0.006)
        d.stud(*at(-0.6, 0.18), 0.012, metal, 50)
    elif bag.family == "hobo":
        d.line(spline([at(-0.97, 0.14), at(0, 0.42), at(0.97, 0.14)], closed=False), 0.01, 0.45)
        for x in (-0.3, 0, 0.3):
            d.line(spline([at(x, 0.46), at(x + 0.06, 0.62), at(x - 0.03, 0.87)], closed=False), 0.012, 0.12, 2.5)
    if rng.random() < 0.7:
        draw_clasp(d, rng, *at(0, 0.2 if bag.family == "tote" else 0.5), metal, bag.accent)


def draw_bag(rng: np.random.Generator, family: str, colour: str) -> Drawing:
    """A bag of one of the families of BAGS from its front."""
    main, accent, _, metal = choose_materials(rng, colour)
    half, tall = (rng.uniform(*limits) for limits in BAGS[family])
    base = 0.68 if family == "clutch" else 0.90
    kind = str(rng.choice(["leather", "rolled", "chain"], p=[0.5, 0.3, 0.2]))
    strap = accent if rng.random() < 0.5 else plain(main)
    bag = Bag(rng, family, main, accent, metal, strap, kind, float(rng.choice([0.018, 0.028, 0.042])), half,
              base - tall,
              base, rng.uniform(-0.05, 0.06))
    d = Drawing()
    draw_behind(d, bag)
    draw_front(d, bag)
    draw_closing(d, bag)
    if family in ("tote", "satchel", "bowling"):
        handle = bag.arch(half * 0.45, max(0.07, bag.top - rng.uniform(0.14, 0.26)), bag.top + 0.055)
        draw_strap(d, handle, "leather" if kind == "chain" else kind, bag.strap_width, strap, metal)
        for side in (-0.45, 0.45):
            d.paint(d.area(rounded(rectangle(*bag.at(side, 0, 0, 0.06), 0.022, 0.04), 0.012)), strap, 46, 5, 8)
            d.stud(*bag.at(side, 0, 0, 0.08), 0.010, metal, 52)
    if family == "clutch" and rng.random() < 0.5:
        loop = [bag.at(1, 0.2, -0.02), bag.at(1, 0.5, 0.06), bag.at(1, 1, 0.05, 0.08), bag.at(1, 1, -0.01, 0.02),
                bag.at(1, 0.5, -0.01)]
        draw_strap(d, spline(loop, closed=False), kind, 0.02, strap, metal)
    return d


# fmt: on


# Photographs: what a seller does to a product.

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


def ground_white(rng: np.random.Generator, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """A cut-out's white, or nearly."""
    return np.full((*x.shape, 3), rng.choice([1.0, 1.0, 0.97, 0.94]), np.float32)


def ground_graded(rng: np.random.Generator, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """A studio's paper roll: one colour, a glow, a soft or hard horizon."""
    step = 1 / (1 + np.exp((rng.uniform(0.5, 0.8) - y) / rng.uniform(0.01, 0.12)))
    glow = np.exp(-((x - rng.uniform(0.2, 0.8)) ** 2 + (y - 0.4) ** 2) / 0.35)
    return tint(rng, 0.45, 0.95, 0.08) * (0.78 + 0.16 * glow + rng.uniform(-0.12, 0.12) * step)[..., None]


def ground_cloth(rng: np.random.Generator, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """A woven cloth with folds."""
    size = len(x)
    folds = np.gradient(soft(noise(rng, size, size / rng.uniform(3, 9)), 6), axis=1)
    weave = np.sin(x * size * 1.2) * np.sin(y * size * 1.2)
    return tint(rng, 0.3, 0.95) * (0.8 + rng.uniform(0, 4) * folds + 0.03 * weave)[..., None]


def ground_planks(rng: np.random.Generator, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Wooden planks, each of its own brightness, with grain along them."""
    size, n = len(x), rng.uniform(4, 9)
    plank = np.floor(y * n)
    grain = cv2.resize(noise(rng, size, 5.0)[:, : size // 12], (size, size)) + 0.6 * noise(rng, size, size / 20)
    gap = np.clip(np.abs(y * n - plank - 0.5) - 0.47, 0, 0.03) / 0.03
    bright = np.float32(rng.uniform(0.75, 1.1, int(n) + 1))[plank.astype(int)] * (1 + 0.07 * grain) * (1 - 0.6 * gap)
    wood = tint(rng, 0.35, 0.85, 0.05) * np.float32([0.62, 0.82, 1.0]) * bright[..., None]
    return wood if rng.random() < 0.5 else np.ascontiguousarray(wood.transpose(1, 0, 2))


def ground_tiles(rng: np.random.Generator, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Marbled tiles, of one colour or two, in perspective."""
    size, n, slant = len(x), rng.uniform(3, 7), rng.uniform(0, 0.5)
    u, v = (x - 0.5) * (1 + slant * y) * n, (y + 0.3 * slant * y * y) * n
    joint = np.maximum(np.abs(u - np.round(u)) < 0.02, np.abs(v - np.round(v)) < 0.02).astype(np.float32)
    chequer = (np.floor(u + 0.5) + np.floor(v + 0.5)) % 2 * float(rng.choice([0.0, 0.0, 0.12, 0.5]))
    marble = 0.05 * noise(rng, size, size / 8) + 0.02 * noise(rng, size, 6)
    return tint(rng, 0.5, 0.95, 0.05) * (1 - chequer + marble - 0.2 * soft(joint, 1))[..., None]


def ground_carpet(rng: np.random.Generator, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Pile or grass, some with a print."""
    size = len(x)
    pile = 0.13 * noise(rng, size, 3.0) + 0.08 * noise(rng, size, 12.0)
    ground = tint(rng, 0.3, 0.85, 0.14) * (1 + pile)[..., None]
    if rng.random() < 0.65:
        return ground
    ink = 0.5 * printed(one(rng, *PRINTS), x / 0.13, y / 0.13, rng)[..., None]
    return ground * (1 - ink) + tint(rng, 0.2, 0.9, 0.2) * ink


def ground_lights(rng: np.random.Generator, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Lamps out of focus behind a table."""
    size = len(x)
    canvas = np.ones((size, size, 3), np.float32) * tint(rng, 0.15, 0.6, 0.15) * (0.7 + 0.6 * y[..., None])
    for _ in range(int(rng.integers(8, 26))):
        spot, centre = np.zeros((size, size), np.uint8), rng.uniform(0, size, 2).astype(int).tolist()
        cv2.circle(spot, centre, int(rng.uniform(0.02, 0.13) * size), 255, -1, cv2.LINE_AA)
        canvas[spot > 0] += tint(rng, 0.1, 0.4, 0.25)
    floor = 1 / (1 + np.exp((0.72 - y) / 0.01))[..., None]
    table = tint(rng, 0.3, 0.8) * (1.29 - 0.4 * y[..., None])
    return np.clip(soft(canvas, 0.008 * size) * (1 - floor) + table * floor, 0, 1)


def wall(rng: np.random.Generator, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """A plain or papered wall."""
    canvas = np.ones((*x.shape, 3), np.float32) * tint(rng, 0.45, 0.95, 0.08)
    if rng.random() < 0.5:
        canvas *= 1 - 0.10 * printed(one(rng, "stripes", "check", "dots"), x / 0.11, y / 0.11, rng)[..., None]
    return canvas


def ground_shelf(rng: np.random.Generator, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Shelves full of things."""
    size, canvas = len(x), wall(rng, x, y)
    for board in (0.30, rng.uniform(0.62, 0.72), 0.95):
        draw_clutter(canvas, rng, board * size, int(rng.integers(3, 7)))
        box_of(canvas, 0, board * size, size, 0.03 * size, tint(rng, 0.3, 0.8, 0.08))
    return soft(canvas, rng.uniform(0.5, 4))


def ground_room(rng: np.random.Generator, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """A floor before a wall with things at it."""
    size, canvas = len(x), wall(rng, x, y)
    horizon = rng.uniform(0.60, 0.78) * size
    draw_clutter(canvas, rng, horizon + 0.02 * size, int(rng.integers(2, 7)))
    canvas = soft(canvas, rng.uniform(1, 6))
    floor = GROUNDS[one(rng, "planks", "tiles", "carpet", "cloth")](rng, x, y)
    square = np.float32([[0, 0], [size, 0], [size, size], [0, size]])
    left, right, near = -0.9 * size, 1.9 * size, 1.2 * size
    seen = np.float32([[-0.1 * size, horizon], [1.1 * size, horizon], [right, near], [left, near]])
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
    """What lies behind the product: BGR float32 (size, size, 3), about 0..1."""
    y, x = np.mgrid[:size, :size].astype(np.float32) / size
    return GROUNDS[kind](rng, x, y).astype(np.float32, copy=False)


def view(
    cover: np.ndarray, rng: np.random.Generator, seller: Seller, size: int, fill: float, shift: tuple[float, float]
) -> tuple[np.ndarray, float, float]:
    """From where one shot is taken.

    Parameters
    ----------
    cover : the product's coverage, ndarray of shape (CANVAS, CANVAS), 0..1
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
    rows, columns = np.nonzero(cover > 0.5)
    left, right, top, bottom = columns.min(), columns.max(), rows.min(), rows.max()
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
    return cv2.getPerspectiveTransform(np.float32(corners[:, :2]), np.float32(target)), yaw, pitch


def develop(
    drawing: Drawing, matrix: np.ndarray, yaw: float, pitch: float, seller: Seller, size: int
) -> tuple[np.ndarray, np.ndarray]:
    """The product under the seller's lamp.

    Its height makes it turn like a relief (what is nearer moves further) and reflect the lamp.

    Returns
    -------
    lit : colour, ndarray of shape (size, size, 3), float32 BGR from 0, with no meaning where it is not covered
    cover : ndarray of shape (size, size), float32, 0..1
    """
    lit, cover = np.zeros((size, size, 3), np.float32), np.zeros((size, size), np.float32)
    left, top, width, height_ = cv2.boundingRect((drawing.cover > 0).astype(np.uint8))
    corners = np.float32([[(left + i * width, top + j * height_) for i in (0, 1) for j in (0, 1)]])
    reach = cv2.perspectiveTransform(corners, matrix)[0]
    low = np.clip(np.floor(reach.min(0) - 0.06 * size), 0, size - 1).astype(int)
    high = np.clip(np.ceil(reach.max(0) + 0.06 * size), 1, size).astype(int)
    box = np.s_[low[1] : high[1], low[0] : high[0]]

    y, x = np.mgrid[box].astype(np.float32)
    inverse = np.linalg.inv(matrix)
    inverse = (inverse / inverse[2, 2]).astype(np.float32)
    far = inverse[2, 0] * x + inverse[2, 1] * y + 1
    u = (inverse[0, 0] * x + inverse[0, 1] * y + inverse[0, 2]) / far
    v = (inverse[1, 0] * x + inverse[1, 1] * y + inverse[1, 2]) / far
    near = cv2.remap(soft(drawing.height, 3), u, v, cv2.INTER_LINEAR)
    u, v = u + near * np.float32(np.tan(yaw)), v - near * np.float32(np.tan(pitch))
    seen, height, gloss, colour = (
        cv2.remap(layer, u, v, cv2.INTER_LINEAR)
        for layer in (drawing.cover, drawing.height, drawing.gloss, drawing.colour)
    )
    colour /= np.maximum(seen, 0.05)[..., None]
    scale = np.float32(
        min(1.5, abs(np.linalg.det(inverse[:2, :2])) ** -0.5)
    )  # pixels of the photograph in one of the canvas
    height = soft(height, 1.2) * scale
    gx, gy = (cv2.Sobel(height, cv2.CV_32F, *axis, scale=1 / 8) for axis in ((1, 0), (0, 1)))
    length = np.sqrt(gx * gx + gy * gy + 1)
    lamp = np.float32(seller.light) / np.linalg.norm(seller.light).astype(np.float32)
    half = lamp + np.float32([0, 0, 1])
    half /= np.linalg.norm(half)
    diffuse = np.maximum((lamp[2] - gx * lamp[0] - gy * lamp[1]) / length, 0)
    shine = np.maximum((half[2] - gx * half[0] - gy * half[1]) / length, 0)
    window = np.clip((0.75 + 0.7 * half[0] * gx - 0.8 * gy) / length, 0, 1)  # a second, weaker lamp from the other side
    for _ in range(5):  # to the power of 32; repeated squares take a tenth of the time of **
        shine, window = shine * shine, window * window
    lit[box] = colour * (seller.ambient + (1.25 - seller.ambient) * diffuse)[..., None]
    lit[box] += (gloss * (0.45 * shine + 0.20 * window * window))[..., None]
    cover[box] = seen
    return lit, cover


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
    return ground * (1 - np.float32(strength) * np.clip(shadow, 0, 1))[..., None]


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
    fill = seller.fill * rng.uniform(0.88, 1.06)
    shots = [(fill, (0.0, 0.0))]
    if rng.random() < 0.15:  # a pair
        aside = rng.uniform(0.08, 0.20) * rng.choice([-1, 1])
        shots = [(fill * 0.72, (aside, -0.10)), (fill * 0.76, (-aside, 0.10))]
    cover = np.zeros((large, large), np.float32)
    for part, shift in shots:
        lit, seen = develop(drawing, *view(drawing.cover, rng, seller, large, part, shift), seller, large)
        image = cast_shadow(image, seen, rng, seller)
        image += (lit - image) * seen[..., None]
        cover = np.maximum(cover, seen)
    if rng.random() < 0.35:
        image, cover = np.ascontiguousarray(image[:, ::-1]), np.ascontiguousarray(cover[:, ::-1])
    image = cv2.pow(np.clip(image, 0, 1), seller.gamma) * np.float32(seller.cast) * np.float32(rng.uniform(0.9, 1.1))
    if seller.ground != "white":
        off = np.linspace(-1, 1, large, dtype=np.float32) ** 2
        image *= (1 - np.float32(rng.uniform(0, 0.11)) * (off[:, None] + off))[..., None]
    image = soft(image, float(rng.choice([0, 0, 1.0, 2.0])))
    hidden = np.zeros((large, large), np.float32)
    if rng.random() < seller.text:
        write_text(image, hidden, own)
    image = cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA)
    image += rng.uniform(0, 0.02) * rng.standard_normal(image.shape, np.float32)
    shown = cv2.resize(cover * (1 - hidden), (size, size), interpolation=cv2.INTER_AREA)
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
    families = rng.permutation([*SHOES, *BAGS])[: max(2, n_models // 2)]
    colours = rng.permutation(list(COLOURS))[: max(2, n_models // 3)]
    models = []
    for i in range(n_models):
        family, colour = families[(i // 2) % len(families)], rng.choice(colours)
        if i % 2:
            colour = models[-1].colour  # a near relative: same family, same colour
        model_seed = (seed, first_id + i)
        models.append(
            Model(str(first_id + i), str(family), str(colour), model_seed, int(rng.integers(fewest, most + 1)))
        )
    return models


def signed(content: bytes) -> bytes:
    """A JPEG or PNG file with SIGNATURE as its comment, by which a later run knows the files it may write over."""
    if content.startswith(b"\xff\xd8"):
        end = 4 + int.from_bytes(content[4:6], "big")  # of the JFIF header, which must come first
        return content[:end] + b"\xff\xfe" + (len(SIGNATURE) + 2).to_bytes(2, "big") + SIGNATURE + content[end:]
    chunk = b"tEXtComment\0" + SIGNATURE
    end = 33  # of the signature and the header of every PNG
    size, checksum = len(chunk) - 4, zlib.crc32(chunk)  # the type is counted in the checksum only
    return content[:end] + size.to_bytes(4, "big") + chunk + checksum.to_bytes(4, "big") + content[end:]


def is_signed(path: Path) -> bool:
    """Whether a file bears SIGNATURE."""
    with path.open("rb") as handle:
        return SIGNATURE in handle.read(128)


def put(path: Path, content: bytes) -> None:
    """Write a file whole; raises UserError where a file stands there that this script did not write."""
    if path.exists() and not is_signed(path):
        raise UserError(
            f"{files.shown(path)} was not written by make_sample_images.py: move it away or set another SAMPLE_NAME"
        )
    with files.whole(path) as temporary:
        temporary.write_bytes(signed(content))


def draw_images(model: Model, size: int, image_dir: Path, mask_dir: Path) -> list[Path]:
    """Draw a model and all its images; returns the files written."""
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
            put(path, content)
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
    drawn = Parallel(settings.n_jobs(), return_as="generator")(
        delayed(draw_images)(model, config.SAMPLE_IMAGE_SIZE, image_dir, mask_dir) for model in models
    )
    written = [path for paths in tqdm(drawn, dataset, len(models), unit="model", disable=None) for path in paths]
    kept = {files.shown(path) for path in written}
    for name, fingerprint in (files.read_record(record_path) or {}).get("outputs", {}).items():
        path = files.root() / name
        ours = path.is_relative_to(image_dir) or path.is_relative_to(mask_dir)
        if ours and name not in kept and files.fingerprint_file(path) == fingerprint:
            files.inside(path).unlink()
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
