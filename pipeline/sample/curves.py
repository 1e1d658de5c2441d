"""Outlines and lines as arrays of points (n_points, 2), x to the right and y down."""

import numpy as np


def spline(points: list, closed: bool = True, n_steps: int = 16) -> np.ndarray:
    """Return a centripetal Catmull-Rom curve through `points`, (n_points, 2) -> (n_points * n_steps, 2).

    An open curve ends with the last point, which is one more. A point given twice is a corner.

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


def polyline(*points) -> np.ndarray:
    """Return the points as they are, for outlines with straight sides."""
    return np.asarray(points, float)


def rectangle(x: float, y: float, half_width: float, half_height: float) -> np.ndarray:
    """Corners of a rectangle round (x, y), (4, 2)."""
    signs = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)])
    return signs * [half_width, half_height] + [x, y]


def arc(x: float, y: float, radius_x: float, radius_y: float, start: float = 0.0) -> np.ndarray:
    """Return an ellipse round (x, y) from the angle `start` (radians, clockwise from the right) on, (32, 2)."""
    turn = np.linspace(start, 2 * np.pi, 32)
    return np.stack([x + radius_x * np.cos(turn), y + radius_y * np.sin(turn)], 1)


def shift(points: np.ndarray, right: float, down: float) -> np.ndarray:
    """Points (n, 2) shifted by a step."""
    return points + np.array([right, down])


def fillet(outline: np.ndarray, radius: float) -> np.ndarray:
    """Return an outline (n, 2) with its corners cut by `radius` and smoothed."""
    ends = []
    for previous, corner, following in zip(np.roll(outline, 1, 0), outline, np.roll(outline, -1, 0), strict=True):
        for end in (previous, following):
            step = end - corner
            length = np.hypot(*step) + 1e-9
            ends.append(corner + step / length * min(radius, 0.45 * length))
    curve = []
    t = np.linspace(0, 1, 9)[:, None]
    for i, corner in enumerate(outline):
        a, b = ends[2 * i], ends[2 * i + 1]
        curve.append((1 - t) ** 2 * a + 2 * t * (1 - t) * corner + t**2 * b)
    return np.concatenate(curve)
