"""How well stage 01 cuts out products that one sees through, which no data set at hand has: each method, side by side.

    python benchmarks/see_through.py
    python benchmarks/see_through.py --images=40 --sheet=see_through.png

Eight kinds of products (branches, bicycles, glasses, baskets, rackets, rings, hangers, scissors) are drawn at three
times the size, turned and scaled, and put on white and on graded grounds, half of the images each, with noise and JPEG
of quality 88. Prints the mean intersection over union of each kind, ground and method. --sheet writes the first two
images of each kind, their true masks and those of "auto".
"""

import argparse
from collections.abc import Callable

import cv2
import numpy as np
from background_removal import iou, load_stage, options_of

SIDE = 300  # pixels per side of an image
LARGE = 3 * SIDE  # and as it is drawn
METHODS = ("sobel", "grabcut", "plain", "network", "auto")
Rng = np.random.Generator


def at(x: float, y: float) -> tuple[int, int]:
    """Return a place on the drawing, from shares of its side."""
    return round(x * LARGE), round(y * LARGE)


def line(mask: np.ndarray, one: tuple[float, float], other: tuple[float, float], width: float) -> None:
    cv2.line(mask, at(*one), at(*other), 255, max(1, round(width)), cv2.LINE_AA)


def oval(
    mask: np.ndarray, centre: tuple[float, float], radii: tuple[float, float], width: int, turn: float = 0
) -> None:
    cv2.ellipse(mask, at(*centre), at(*radii), turn, 0, 360, 255, width, cv2.LINE_AA)


def branches(mask: np.ndarray, rng: Rng) -> None:
    def grow(root: np.ndarray, angle: float, length: float, width: float, forks: int) -> None:
        tip = root + length * np.array([np.cos(angle), np.sin(angle)])
        line(mask, root, tip, width)
        for _ in range(rng.integers(2, 4) if forks else 0):
            grow(tip, angle + rng.normal(0, 0.55), length * rng.uniform(0.65, 0.85), 0.68 * width, forks - 1)

    grow(np.array([0.5, 0.92]), -np.pi / 2, 0.2, 34, 5)


def bicycle(mask: np.ndarray, rng: Rng) -> None:
    radius, tyre = rng.uniform(0.16, 0.2), int(rng.integers(6, 14))
    n_spokes, spoke = int(rng.integers(8, 28)), int(rng.integers(1, 4))
    back, front, crank, seat, head = (0.26, 0.62), (0.74, 0.62), (0.47, 0.64), (0.4, 0.36), (0.66, 0.36)
    for x, y in (back, front):
        oval(mask, (x, y), (radius, radius), tyre)
        oval(mask, (x, y), (radius / 8, radius / 8), -1)
        for angle in 2 * np.pi * np.arange(n_spokes) / n_spokes:
            line(mask, (x, y), (x + radius * np.cos(angle), y + radius * np.sin(angle)), spoke)
    for one, other in ((back, crank), (back, seat), (crank, seat), (crank, head), (seat, head), (head, front)):
        line(mask, one, other, tyre + 4)
    line(mask, head, (0.68, 0.28), tyre + 4)
    line(mask, (0.68, 0.28), (0.6, 0.27), tyre + 4)
    oval(mask, seat, (0.06, 0.02), -1)


def glasses(mask: np.ndarray, rng: Rng) -> None:
    width, height = int(rng.integers(10, 24)), 0.17 * rng.uniform(0.7, 1)
    for x in (0.29, 0.71):
        oval(mask, (x, 0.5), (0.17, height), width)
    cv2.ellipse(mask, at(0.5, 0.5), at(0.06, 0.04), 0, 180, 360, 255, width, cv2.LINE_AA)
    line(mask, (0.12, 0.5), (0.05, 0.42), width)
    line(mask, (0.88, 0.5), (0.95, 0.42), width)


def basket(mask: np.ndarray, rng: Rng) -> None:
    n, width = int(rng.integers(4, 9)), int(rng.integers(6, 18))
    for share in np.linspace(0, 1, n + 1):
        line(mask, (0.15 + 0.7 * share, 0.2), (0.15 + 0.7 * share, 0.8), width)
        line(mask, (0.15, 0.2 + 0.6 * share), (0.85, 0.2 + 0.6 * share), width)


def racket(mask: np.ndarray, rng: Rng) -> None:
    strings, head, width = np.zeros_like(mask), np.zeros_like(mask), int(rng.integers(14, 24))
    apart, thick = rng.integers(20, 44) / LARGE, int(rng.integers(2, 5))
    for far in np.arange(0, 0.5, apart):
        line(strings, (0.31 + far, 0.05), (0.31 + far, 0.6), thick)
        line(strings, (0.3, 0.09 + far), (0.7, 0.09 + far), thick)
    oval(head, (0.5, 0.34), (0.19, 0.25), -1)
    np.maximum(mask, np.minimum(strings, head), out=mask)
    oval(mask, (0.5, 0.34), (0.19, 0.25), width)
    line(mask, (0.5, 0.59), (0.5, 0.93), 2 * width)


def ring(mask: np.ndarray, rng: Rng) -> None:
    oval(mask, (0.5, 0.5), (0.33, 0.33), int(rng.integers(20, 70)))


def hanger(mask: np.ndarray, rng: Rng) -> None:
    width, neck, left, right = int(rng.integers(8, 16)), (0.5, 0.4), (0.12, 0.66), (0.88, 0.66)
    for one, other in ((neck, left), (left, right), (right, neck), (neck, (0.5, 0.37))):
        line(mask, one, other, width)
    cv2.ellipse(mask, at(0.5, 0.32), at(0.05, 0.05), 0, -200, 90, 255, width, cv2.LINE_AA)


def scissors(mask: np.ndarray, rng: Rng) -> None:
    width = int(rng.integers(14, 26))
    for side in (-1, 1):
        line(mask, (0.5 - 0.12 * side, 0.08), (0.5 + 0.1 * side, 0.62), width + 10)
        oval(mask, (0.5 + 0.14 * side, 0.75), (0.1, 0.13), width, -15 * side)


KINDS: tuple[Callable, ...] = (branches, bicycle, glasses, basket, racket, ring, hanger, scissors)


def photograph(kind: Callable, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the product on white (even numbers) or a graded ground: uint8 BGR (SIDE, SIDE, 3), and its mask, bool."""
    rng = np.random.default_rng([number, KINDS.index(kind)])
    large = np.zeros((LARGE, LARGE), np.uint8)
    kind(large, rng)
    turn = cv2.getRotationMatrix2D(at(0.5, 0.5), rng.normal(0, 10), rng.uniform(0.75, 1.05))
    small = cv2.resize(cv2.warpAffine(large, turn, (LARGE, LARGE)), (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    opacity = small[..., None] / 255
    ground = np.full((SIDE, SIDE, 3), 255.0)
    if number % 2:
        y, x = np.mgrid[-1 : 1 : SIDE * 1j, -1 : 1 : SIDE * 1j]
        angle = rng.uniform(0, 2 * np.pi)
        slope = (np.cos(angle) * x + np.sin(angle) * y) * rng.uniform(4, 14)
        ground = rng.uniform(170, 245) + rng.normal(0, 6, 3) + slope[..., None]
    colour = rng.uniform(0, 170, 3) if rng.random() < 0.8 else rng.uniform(20, 220, 3)
    light = cv2.resize(rng.normal(0, rng.uniform(5, 30), (12, 12)), (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
    image = (
        ground * (1 - opacity) + np.clip(colour + light[..., None], 0, 255) * opacity + rng.normal(0, 1, ground.shape)
    )
    coded = cv2.imencode(".jpg", np.clip(image, 0, 255).astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, 88])[1]
    return cv2.imdecode(coded, cv2.IMREAD_COLOR), small > 127


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=16, help="of each kind")
    parser.add_argument("--sheet", help="PNG to write")
    asked = parser.parse_args()
    stage = load_stage()
    print(f"| product, ground | {' | '.join(METHODS)} |\n|---|{'---|' * len(METHODS)}")
    every, rows = [], []
    for kind in KINDS:
        cases = [photograph(kind, number) for number in range(asked.images)]
        masks = [{m: stage.find_in_small_image(image, options_of(stage, m))[0] for m in METHODS} for image, _ in cases]
        scores = np.array(
            [[iou(found[m], true) for m in METHODS] for found, (_, true) in zip(masks, cases, strict=True)]
        )
        every.append(scores)
        for ground, part in (("white", scores[::2]), ("graded", scores[1::2])):
            print(
                f"| {kind.__name__}, {ground} | {' | '.join(f'{score:.3f}' for score in part.mean(axis=0))} |",
                flush=True,
            )
        for found, (image, true) in list(zip(masks, cases, strict=True))[:2]:
            shown = (np.repeat(255 * mask[..., None].astype(np.uint8), 3, axis=2) for mask in (true, found["auto"]))
            rows.append(np.hstack([image, *shown]))
    print(f"| all | {' | '.join(f'{score:.3f}' for score in np.concatenate(every).mean(axis=0))} |")
    if asked.sheet:
        half = len(rows) // 2
        cv2.imwrite(asked.sheet, np.hstack([np.vstack(rows[:half]), np.vstack(rows[half:])]))


if __name__ == "__main__":
    main()
