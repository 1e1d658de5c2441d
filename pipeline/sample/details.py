"""Details that shoes and bags share: bows, buckles, chains, straps, clasps."""

import numpy as np

from pipeline.sample.curves import arc, fillet, polyline, rectangle, shift, spline
from pipeline.sample.drawing import Drawing
from pipeline.sample.materials import Material, choose, plain


def draw_bow(d: Drawing, x: float, y: float, size: float, material: Material) -> None:
    """Draw a bow of two loops and a knot."""
    for side in (-size, size):
        loop = [
            (x, y),
            (x + side * 0.6, y - size * 0.5),
            (x + side, y - size * 0.25),
            (x + side, y + size * 0.3),
            (x + side * 0.5, y + size * 0.35),
        ]
        d.paint(d.area(spline(loop)), material, 26, 8, 10)
        d.crease(polyline((x + side * 0.2, y), (x + side * 0.7, y)), 0.004, 0.3)
    d.stud(x, y, size * 0.22, material, 30)


def draw_buckle(d: Drawing, x: float, y: float, width: float, height: float, metal: Material, base: float = 26) -> None:
    """Draw a rectangular frame with its tongue; sizes are halves."""
    frame = rectangle(x, y, width, height)
    opening = shift(shift(frame, -x, -y) * 0.62, x, y)
    d.paint(d.area(fillet(frame, 0.008), opening), metal, base, 6, 4)
    d.paint(d.path(polyline((x - width, y), (x + width * 0.8, y)), 0.006), metal, base + 2, 4, 3)


def draw_chain(d: Drawing, points: np.ndarray, metal: Material, link: float = 0.022) -> None:
    """Draw a chain of rings along points (n, 2), every second seen from its side."""
    along = np.concatenate([[0], np.cumsum(np.hypot(*np.diff(points, axis=0).T))])
    turn = np.linspace(0, 2 * np.pi, 16)
    for i, s in enumerate(np.arange(0, along[-1], link)):
        here, ahead = ([np.interp(at, along, points[:, k]) for k in (0, 1)] for at in (s, s + 0.01))
        tilt = np.arctan2(ahead[1] - here[1], ahead[0] - here[0])
        ring = np.stack([0.62 * link * np.cos(turn), (0.36, 0.16)[i % 2] * link * np.sin(turn)], 1)
        turned = ring @ np.array([[np.cos(tilt), np.sin(tilt)], [-np.sin(tilt), np.cos(tilt)]])
        d.paint(d.path(shift(turned, *here), 0.007), metal, 16, 4, 3, 0.2)


def draw_strap(d: Drawing, points: np.ndarray, kind: str, width: float, strap: Material, metal: Material) -> None:
    """Draw a handle or strap along points (n, 2): "leather", "rolled" or "chain"."""
    if kind == "chain":
        draw_chain(d, points, metal)
        return
    d.paint(d.path(points, width), strap, 8, *((7, 5) if kind == "leather" else (14, 12)))
    if kind == "leather" and width > 0.02:
        d.stitches(points, tuple(np.clip(np.array(strap.colour, np.float32) * 1.6 + 0.1, 0, 1)), 0.01, 0.003)


def draw_clasp(d: Drawing, rng: np.random.Generator, x: float, y: float, metal: Material, accent: Material) -> None:
    """Draw what closes a bag."""
    kind = choose(rng, "turnlock", "plate", "ring", "belt", "tassel", "padlock")
    if kind == "turnlock":
        d.paint(d.area(fillet(rectangle(x, y, 0.035, 0.02), 0.018)), metal, 50, 6, 6)
        d.paint(d.path(polyline((x, y - 0.012), (x, y + 0.012)), 0.012), plain(metal, 0.8), 58, 6, 4)
    elif kind == "plate":
        d.paint(d.area(fillet(rectangle(x, y, 0.06, 0.012), 0.004)), metal, 50, 4, 4)
    elif kind == "ring":
        d.paint(d.path(arc(x, y, 0.035, 0.035), 0.014), metal, 50, 6, 5)
    elif kind == "belt":
        d.paint(d.path(polyline((x, y - 0.09), (x, y + 0.09)), 0.045), accent, 50, 5, 8)
        draw_buckle(d, x, y + 0.03, 0.034, 0.028, metal, 54)
    elif kind == "tassel":
        for k in np.linspace(-1, 1, 9):
            d.paint(d.path(polyline((x + 0.006 * k, y), (x + 0.026 * k, y + 0.13)), 0.008), accent, 50, 4, 3, 0.25)
        d.stud(x, y, 0.018, metal, 54)
    else:
        d.paint(d.path(arc(x, y, 0.018, 0.026, np.pi), 0.009), metal, 50, 4, 4)
        d.paint(d.area(fillet(rectangle(x, y + 0.022, 0.028, 0.022), 0.006)), metal, 52, 6, 6)
