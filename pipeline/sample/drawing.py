"""The canvas on which a product is drawn, part by part."""

from dataclasses import dataclass, field
from functools import cached_property

import cv2
import numpy as np

from pipeline.sample.curves import arc
from pipeline.sample.materials import FINISHES, Material
from pipeline.sample.pixels import Box, as_channels, blend, blur, box_around
from pipeline.sample.textures import print_pattern, relief_pattern, smooth_noise

CANVAS = 640  # pixels per side of the canvas on which a model is drawn once, whatever the size of the photographs
MARGIN = 12  # canvas pixels round a part in which its shading of what lies behind it is seen


@dataclass
class Drawing:
    """One product, built up part by part from back to front on a square canvas; coordinates of parts are 0..1, y down.

    Layers: `colour` (CANVAS, CANVAS, 3) float32 BGR 0..1, and (CANVAS, CANVAS) float32 each: `cover` 0..1, `height` in
    canvas pixels towards the camera, `gloss` 0..1.
    """

    colour: np.ndarray = field(default_factory=lambda: np.zeros((CANVAS, CANVAS, 3), np.float32))
    cover: np.ndarray = field(default_factory=lambda: np.zeros((CANVAS, CANVAS), np.float32))
    height: np.ndarray = field(default_factory=lambda: np.zeros((CANVAS, CANVAS), np.float32))
    gloss: np.ndarray = field(default_factory=lambda: np.zeros((CANVAS, CANVAS), np.float32))

    @cached_property
    def parallax_height(self) -> np.ndarray:
        """The smoothed height (CANVAS, CANVAS), by which parts move when a finished product is turned."""
        return blur(self.height, 3)

    @cached_property
    def extent(self) -> Box:
        """The box of a finished product on the canvas."""
        return box_around(self.cover) or np.s_[0:0, 0:0]

    @cached_property
    def opaque_extent(self) -> Box:
        """The box of what a finished product covers by more than half."""
        return box_around(self.cover > 0.5) or np.s_[0:0, 0:0]

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
        """Lay a part over what is there.

        The part rises from `base` by `bulge` (canvas pixels) over `edge` pixels from its rim, and shades what lies
        behind it by `shade` (0..1) near its rim.
        """
        if (extent := box_around(mask)) is None:
            return
        box = tuple(slice(max(0, part.start - MARGIN), part.stop - 1 + MARGIN) for part in extent)
        m = mask[box]
        inside = cv2.distanceTransform((m > 0.5).astype(np.uint8), cv2.DIST_L2, 3)
        rise = np.sqrt(1 - (1 - np.clip(inside / edge, 0, 1)) ** 2)
        rng = np.random.default_rng(material.seed)
        y, x = np.mgrid[box].astype(np.float32) / CANVAS
        cos, sin = np.cos(material.angle), np.sin(material.angle)
        u, v = (x * cos + y * sin) / material.scale, (y * cos - x * sin) / material.scale
        gloss, grain = FINISHES[material.finish]
        colour = np.broadcast_to(np.array(material.colour, np.float32), (*m.shape, 3)).copy()
        relief = np.zeros_like(m)
        if material.print:
            ink = blur(print_pattern(material.print, u, v, rng), 0.8)
            colour = blend(colour, np.array(material.ink, np.float32), ink)
        if material.relief:
            relief = relief_pattern(material.relief, u, v, rng).astype(np.float32)
            colour *= as_channels(0.82 + 0.18 * relief)
            relief *= 0.12 * material.scale * CANVAS
        surface = smooth_noise(
            rng, CANVAS, {"pebbled": 4.0, "suede": 2.0, "canvas": 2.0, "glitter": 2.0}.get(material.finish, 9.0)
        )[box]
        if material.finish == "canvas":
            surface = np.sin(x * CANVAS * 1.6) * np.sin(y * CANVAS * 1.6) * 1.4 + 0.3 * surface
        if material.finish in ("suede", "canvas"):
            colour *= as_channels(1 + 0.07 * surface)
        if material.finish == "glitter":
            colour *= as_channels(1 + 0.30 * surface)
        colour *= as_channels(1 + 0.04 * smooth_noise(rng, CANVAS, 90.0)[box])
        self.colour[box] *= as_channels(1 - shade * blur(m, 6.0))
        self.colour[box] = blend(self.colour[box], colour, m)
        self.height[box] = self.height[box] * (1 - m) + (base + bulge * rise + relief + grain * surface) * m
        self.gloss[box] = self.gloss[box] * (1 - m) + gloss * m
        self.cover[box] = np.maximum(self.cover[box], m)

    def crease(self, points: np.ndarray, width: float, darken: float = 0.5, depth: float = 1.5) -> None:
        """Draw a crease or fold: darkens and lowers what is there along points (n, 2)."""
        mask = self.path(points, width) * (self.cover > 0.5)
        if box := box_around(mask):
            self.colour[box] *= as_channels(1 - darken * mask[box])
            self.height[box] -= depth * mask[box]

    def stitches(self, points: np.ndarray, colour: tuple, length: float = 0.012, width: float = 0.004) -> None:
        """Draw a dashed seam along points (n, 2)."""
        steps = np.hypot(*np.diff(points, axis=0).T)
        along = np.concatenate([[0], np.cumsum(steps)])
        starts = np.arange(0, along[-1] - length, length * 1.6)
        ends = np.stack(
            [[np.interp(starts + s, along, points[:, k]) for k in (0, 1)] for s in (0, length)]
        )  # (2, 2, n)
        mask = self.path(ends.transpose(2, 0, 1), width) * (self.cover > 0.5)
        if box := box_around(mask):
            self.colour[box] = blend(self.colour[box], np.array(colour, np.float32), mask[box])
            self.height[box] += mask[box]

    def stud(self, x: float, y: float, radius: float, material: Material, base: float = 14.0) -> None:
        """Draw a round button, pearl or rivet."""
        self.paint(self.area(arc(x, y, radius, radius)), material, base, radius * CANVAS * 0.8, radius * CANVAS, 0.3)
