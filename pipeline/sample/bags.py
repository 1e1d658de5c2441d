"""Bags of eight families, each drawn from its front."""

from dataclasses import dataclass, replace

import cv2
import numpy as np

from pipeline.sample.curves import fillet, polyline, rectangle, shift, spline
from pipeline.sample.details import draw_clasp, draw_strap
from pipeline.sample.drawing import Drawing
from pipeline.sample.materials import Material, choose, choose_materials, plain

# Outlines are tables of points, which a formatter would spread over a thousand lines.
# fmt: off
BAGS = {  # family: half the width, height
    "tote": ((0.28, 0.36), (0.40, 0.52)), "satchel": ((0.28, 0.36), (0.34, 0.44)),
    "hobo": ((0.32, 0.38), (0.34, 0.42)), "crossbody": ((0.22, 0.30), (0.26, 0.38)),
    "bucket": ((0.20, 0.26), (0.40, 0.48)), "clutch": ((0.34, 0.40), (0.24, 0.32)),
    "backpack": ((0.24, 0.30), (0.50, 0.60)), "bowling": ((0.30, 0.38), (0.32, 0.40)),
}

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
        """Return a point of the front: `across` -1..1, `down` 0..1 from top to base, moved by `right` and `below`."""
        return 0.5 + across * self.half + right, self.top + down * (self.base - self.top) + below

    def arch(self, spread: float, peak: float, foot: float) -> np.ndarray:
        """Return a handle of half width `spread` from the height `foot` up to `peak`, (n, 2)."""
        half = [(-spread, foot), (-spread * 0.92, (foot + peak) / 2), (-spread * 0.45, peak)]
        return spline([(0.5 + x, y) for x, y in half] + [(0.5 - x, y) for x, y in half[::-1]], closed=False)

    def outline(self) -> np.ndarray:
        """Return the front's outline, (n, 2)."""
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
            return fillet(polyline(at(-0.88, 1), at(0.88, 1), at(1, 0, self.slant), at(-1, 0, -self.slant)), 0.03)
        corners = polyline(at(-1, 1), at(1, 1), at(1, 0, -self.slant), at(-1, 0, self.slant))
        return fillet(corners, rng.uniform(0.01, 0.07))


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
        behind = shift(bag.arch(bag.half * 0.45, max(0.05, top - rise), top + 0.03), 0.015, -0.012)
        draw_strap(d, behind, kind, bag.strap_width, plain(strap, 0.7), bag.metal)


def draw_front(d: Drawing, bag: Bag) -> None:
    """Draw the body with its gusset, and what divides or covers the front."""
    rng, at, main, accent = bag.rng, bag.at, bag.main, bag.accent
    outline = bag.outline()
    if bag.family in ("satchel", "tote", "crossbody", "bowling"):
        depth = rng.uniform(0.03, 0.06)
        both = np.concatenate([outline, shift(outline, depth, -depth * 0.45)])
        d.paint(d.area(cv2.convexHull(both.astype(np.float32))[:, 0]), plain(main, 0.62), 2, 10, 14)
    elif bag.family == "bucket":
        mouth = [at(-1, 0, -bag.slant), at(0, 0, 0, -0.05), at(1, 0, bag.slant), at(0, 0, 0, 0.05)]
        d.paint(d.area(spline(mouth)), plain(main, 0.35), 2, 3, 10)
    body = d.area(outline)
    soft_body = bag.family in ("hobo", "backpack", "bowling", "bucket")
    d.paint(body, main, 12, 34 if soft_body else 22, 80 if bag.family == "hobo" else 45)
    if bag.family in ("tote", "clutch", "bowling") or rng.random() < 0.3:
        centre = at(0, 0.5)
        seam = shift(shift(outline, -centre[0], -centre[1]) * [0.94, 0.92], *centre)
        d.stitches(np.concatenate([seam, seam[:1]]), accent.colour, 0.011, 0.0035)
    split = choose(rng, "", "bottom", "bands", "pocket", "wings")
    if split == "bottom":
        band = rng.uniform(0.60, 0.78)
        d.paint(d.area(polyline(at(-2, band), at(2, band), at(2, 2), at(-2, 2))) * body, accent, 16, 22, 40, 0.2)
    elif split == "bands":
        for side in (-0.45, 0.45):
            d.paint(d.path(polyline(at(side, 0), at(side, 1)), 0.035) * body, accent, 36, 4, 6, 0.3)
    elif split == "pocket":
        width = rng.uniform(0.45, 0.7)
        pocket = fillet(polyline(at(-width, 0.9), at(width, 0.9), at(width, 0.5), at(-width, 0.5)), 0.03)
        d.paint(d.area(pocket) * body, replace(main, angle=main.angle + 0.3), 44, 6, 12, 0.45)
        d.stitches(np.concatenate([pocket, pocket[:1]]), accent.colour, 0.01, 0.0035)
        d.crease(polyline(at(-width, 0.5, 0.02, 0.03), at(width, 0.5, -0.02, 0.03)), 0.01, 0.5)
        d.stud(*at(width, 0.5, -0.03, 0.03), 0.01, bag.metal, 56)
    elif split == "wings":
        for side in (-1, 1):
            wing = spline([at(side, 0), at(side, 1), at(side * 0.6, 1), at(side * 0.78, 0.5)])
            d.paint(d.area(wing) * body, accent, 30, 8, 20, 0.3)


def draw_flap(d: Drawing, bag: Bag) -> None:
    """Draw a straight, round or pointed flap over the front, with its clasp."""
    rng, at, drop = bag.rng, bag.at, bag.rng.uniform(0.42, 0.66)
    inset = bag.slant * (1 - drop / 2)
    side, head = 1.02 - inset / bag.half, [at(-1, 0.03, bag.slant), at(-1, -0.02, bag.slant + 0.02)]
    if bag.family == "backpack":
        side, head = 0.85, [at(-0.85, 0.22), at(-0.5, -0.01)]
    shape = choose(rng, "straight", "round", "pointed")
    tail = {"straight": [at(side, drop - 0.06), at(side, drop, -0.02)],
            "round": [at(side, 0.55 * drop), at(0.5, drop)],
            "pointed": [at(side, 0.4 * drop), at(side, 0.4 * drop)]}[shape]
    middle = {"straight": [], "round": [at(0, drop + 0.04)], "pointed": [at(0, drop + 0.1), at(0, drop + 0.1)]}[shape]
    right = [(1 - x, y) for x, y in head[::-1]]
    points = [*head, *right, *tail, *middle, *[(1 - x, y) for x, y in tail[::-1]]]
    flap = fillet(polyline(*points), 0.02) if shape == "straight" else spline(points)
    cover = bag.accent if rng.random() < 0.35 else bag.main
    d.paint(d.area(flap), cover, 40, 9, 14, 0.5)
    top = at(0, 0)
    rim = shift(shift(flap, -top[0], -top[1]) * [0.955, 0.94], top[0], top[1] + 0.004)
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
        d.crease(zipper, 0.012, 0.5)
        d.stitches(zipper, metal.colour, 0.006, 0.006)
        d.stud(*at(-0.6, 0.18), 0.012, metal, 50)
    elif bag.family == "hobo":
        d.crease(spline([at(-0.97, 0.14), at(0, 0.42), at(0.97, 0.14)], closed=False), 0.01, 0.45)
        for x in (-0.3, 0, 0.3):
            d.crease(spline([at(x, 0.46), at(x + 0.06, 0.62), at(x - 0.03, 0.87)], closed=False), 0.012, 0.12, 2.5)
    if rng.random() < 0.7:
        draw_clasp(d, rng, *at(0, 0.2 if bag.family == "tote" else 0.5), metal, bag.accent)


def draw_bag(rng: np.random.Generator, family: str, colour: str) -> Drawing:
    """Return a bag of one of the families of BAGS from its front."""
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
            d.paint(d.area(fillet(rectangle(*bag.at(side, 0, 0, 0.06), 0.022, 0.04), 0.012)), strap, 46, 5, 8)
            d.stud(*bag.at(side, 0, 0, 0.08), 0.010, metal, 52)
    if family == "clutch" and rng.random() < 0.5:
        loop = [bag.at(1, 0.2, -0.02), bag.at(1, 0.5, 0.06), bag.at(1, 1, 0.05, 0.08), bag.at(1, 1, -0.01, 0.02),
                bag.at(1, 0.5, -0.01)]
        draw_strap(d, spline(loop, closed=False), kind, 0.02, strap, metal)
    return d
