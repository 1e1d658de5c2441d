"""Shoes of seven families, each drawn from its side."""

from dataclasses import dataclass, replace

import numpy as np

from pipeline.sample.curves import fillet, polyline, rectangle, shift, spline
from pipeline.sample.details import draw_bow, draw_buckle
from pipeline.sample.drawing import Drawing
from pipeline.sample.materials import COLOURS, Material, choose, choose_materials, plain

# Outlines are tables of points, which a formatter would spread over a thousand lines.
# fmt: off
# family: kinds of heel, throat (x where the opening begins), stretch of the upper
SHOES: dict[str, tuple[tuple[str, ...], tuple[float, float], float]] = {
    "pump": (("stiletto", "kitten", "block", "cone"), (0.27, 0.36), 1.0),
    "sandal": (("stiletto", "block", "wedge", "flat"), (0.25, 0.25), 1.1),
    "ballerina": (("flat",), (0.24, 0.32), 1.25),
    "loafer": (("flat", "block"), (0.42, 0.48), 1.3),
    "sneaker": (("sneaker",), (0.48, 0.52), 1.4),
    "boot": (("stiletto", "block", "flat", "cone", "wedge"), (0.52, 0.52), 1.0),
    "mule": (("kitten", "block", "cone", "wedge"), (0.40, 0.48), 1.1),
}
HEEL_HEIGHTS = {  # kind: least and greatest
    "stiletto": (0.20, 0.30), "kitten": (0.10, 0.15), "block": (0.08, 0.24), "cone": (0.12, 0.22),
    "wedge": (0.13, 0.24), "flat": (0.02, 0.045), "sneaker": (0.045, 0.10),
}
HEEL_SHAPES = {  # kind: width at the top and at the ground, how far the ground end lies to the front
    "stiletto": (0.10, 0.016, 0.030), "kitten": (0.10, 0.022, 0.035), "block": (0.13, 0.115, 0.005),
    "cone": (0.13, 0.035, 0.050),
}
TOES = {"pointed": 0.045, "almond": 0.065, "round": 0.085, "square": 0.080}  # how high the toe is

@dataclass(frozen=True)
class Shoe:
    """A shoe from its side, toe to the left, before it is drawn."""

    rng: np.random.Generator
    family: str
    main: Material
    accent: Material
    sole: Material
    metal: Material
    kind: str  # of heel, one of HEEL_HEIGHTS
    heel: float  # height of the heel and, below the ball, of the sole; parts of the canvas
    platform: float
    throat: float  # x where the opening begins
    stretch: float  # how much higher than a pump's the upper is
    toe_shape: str  # one of TOES

    GROUND = 0.80
    TOE = 0.07

    @property
    def back(self) -> float:
        """Return x of the heel's end; a foot on a high heel is shorter."""
        return 0.93 - 0.35 * self.heel

    @property
    def rise(self) -> float:
        """Height of the toe box."""
        return TOES[self.toe_shape]

    def on(self, x: float, up: float = 0.0) -> tuple[float, float]:
        """Return the point `up` above the insole at x, which rises in a smooth step from ball to heel."""
        t = np.clip((x - 0.36) / (self.back - 0.08 - 0.36), 0, 1)
        return x, self.GROUND - self.platform - (self.heel - self.platform) * t * t * (3 - 2 * t) - up * self.stretch

    def insole(self, start: float, stop: float, up: float = 0.0) -> np.ndarray:
        """Return the insole's line from x = start to stop, (24, 2)."""
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
    """Draw the sole, and the heel under it."""
    on, back, ground, main, sole = shoe.on, shoe.back, shoe.GROUND + 0.016, shoe.main, shoe.sole
    if shoe.kind in ("wedge", "sneaker", "flat"):
        sneaker = shoe.kind == "sneaker"
        lift = 0.022 if sneaker else 0.004
        end = back + (0.012 if sneaker else -0.01)
        outline = [*shoe.insole(shoe.TOE, back, lift), (end, ground - 0.026), (back - 0.03, ground), (0.40, ground),
                   (0.12, ground), (shoe.TOE - 0.008, ground - 0.03 - lift / 2)]
        cover = plain(main) if shoe.kind == "wedge" and sole.colour == COLOURS["black"] else sole
        relief = "ribs" if shoe.kind == "wedge" and sole.colour == COLOURS["tan"] else ""
        d.paint(d.area(fillet(np.array(outline), 0.012)), replace(cover, relief=relief, scale=0.02, angle=1.5), 16,
                10, 14)
        if sneaker:
            d.crease(shift(shoe.insole(0.08, back), 0, 0.012), 0.004, 0.35)
            for x in np.arange(0.11, back - 0.02, 0.022):
                d.crease(polyline((x, ground - 0.012), (x + 0.006, ground)), 0.006, 0.45)
        return
    bottom = shoe.insole(0.085, back - 0.10)
    d.paint(d.area(np.concatenate([bottom, shift(bottom, 0, 0.016 + shoe.platform)[::-1]])), sole, 14, 8, 8)
    top_width, width, lean = HEEL_SHAPES[shoe.kind]
    right, seat = back - 0.005, on(back - 0.02)[1]
    tip = right - lean
    outline = [(right, seat - 0.01), (right, seat - 0.01), (right - lean * 0.6, (seat + ground) / 2), (tip, ground),
               (tip, ground), (tip - width, ground), (tip - width, ground),
               (right - top_width * 0.62 - lean * 0.4, seat * 0.7 + ground * 0.3),
               on(right - top_width, -0.01), on(right - top_width, -0.01)]
    d.paint(d.area(spline(outline)), replace(main, relief="") if shoe.rng.random() < 0.6 else sole, 8, 14, 20)
    d.paint(d.area(rectangle(tip - width / 2, ground - 0.006, width / 2, 0.006)), plain(sole, 0.5), 12, 4, 4)


def draw_boot(d: Drawing, shoe: Shoe) -> None:
    """Draw a boot with a low, middle or high shaft, closed in one of five ways."""
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
    style = choose(rng, "chelsea", "zip", "laces", "belts", "cuff")
    if style == "chelsea":
        gore = [(middle - 0.05, crown + 0.005), (middle + 0.05, crown + 0.005), (middle + 0.035, crown + 0.15),
                (middle - 0.03, crown + 0.15)]
        d.paint(d.area(spline(gore)), replace(plain(accent, 0.7), relief="ribs", scale=0.012), 40, 2, 6)
    elif style == "zip":
        zipper = polyline((middle + 0.02, crown + 0.01), on(middle, 0.06))
        d.crease(zipper, 0.016, 0.5)
        d.stitches(zipper, metal.colour, 0.006, 0.007)
        d.stud(middle + 0.02, crown + 0.04, 0.011, metal, 44)
    elif style == "laces":
        for y in np.linspace(crown + 0.03, on(front, 0.23)[1], 5):
            d.paint(d.path(polyline((front - 0.012, y), (front + 0.06, y + 0.015)), 0.012), accent, 42, 4, 4)
            d.stud(front + 0.065, y + 0.015, 0.008, metal, 42)
    elif style == "belts":
        for up in (0.20, 0.15):
            belt = spline([on(front - 0.03, up), (middle, on(front, up - 0.015)[1]), (rear, on(back, up - 0.04)[1])],
                          False)
            d.paint(d.path(belt, 0.026), accent, 42, 5, 6)
            draw_buckle(d, middle + 0.03, float(np.interp(middle + 0.03, *belt.T)), 0.022, 0.02, metal, 46)
    else:
        cuff = polyline((front - 0.022, crown - 0.012), (rear + 0.01, crown - 0.016), (rear + 0.002, crown + 0.06),
                     (front - 0.018, crown + 0.065))
        d.paint(d.area(fillet(cuff, 0.015)), replace(accent, finish="suede"), 40, 12, 16)
    d.stitches(spline([on(0.33, 0.015), on(0.37, 0.08), on(0.42, 0.13)], closed=False), accent.colour)


def draw_footbed(d: Drawing, shoe: Shoe) -> None:
    """Draw the inner sole of an open shoe, as far as it is seen from above, and the sole under it."""
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
        return d.area(np.concatenate([side, shift(side, wide, 0)[::-1]]))

    starts = (0.11, 0.22, 0.33)[: int(rng.integers(2, 4))]
    for x in starts:
        far = [on(x + lean, height), on(x + lean + 0.035, height * 0.75), on(x + lean + 0.045, 0.02)]
        d.paint(band(far, width * 0.9), plain(shoe.main, 0.5), 4, 4, 8)
    for x in starts:
        near = [on(x, -0.004), on(x + 0.002, height * 0.55), on(x + lean, height)]
        d.paint(band(near, width), shoe.main, 14, 9, 14)
        d.stitches(shift(spline(near, closed=False)[2:-2], 0.010, 0), shoe.accent.colour, 0.009, 0.003)
    if rng.random() < 0.5:
        d.paint(band([on(0.30, 0.0), on(0.24, height * 0.6), on(0.13, height)], width * 0.8), shoe.accent, 24, 8, 12)


def draw_mule(d: Drawing, shoe: Shoe) -> None:
    """Draw an upper that ends at the instep, with or without toes."""
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
    lining = Material(COLOURS[choose(rng, "beige", "tan", "black", "grey")], "suede", seed=shoe.main.seed + 3)
    inside = np.concatenate([spline(far, closed=False), shift(spline(near, closed=False), 0, 0.01)[::-1]])
    d.paint(d.area(inside), plain(lining, 0.7), 2, 4, 10)
    draw_sole(d, shoe)
    vamp = [on(0.30, shoe.rise + 0.065)] if throat > 0.38 else []
    outline = [*shoe.toe_box(), *vamp, *near, on(back + 0.014, 0.075), on(back - 0.006), on(back - 0.006)]
    body = d.area(np.concatenate([spline(outline, closed=False), shoe.insole(back - 0.01, 0.09)]))
    d.paint(body, shoe.main, 10, 34, 60)
    d.stitches(shift(spline(near, closed=False), 0, 0.012)[16:], shoe.accent.colour, 0.008, 0.003)
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
    """Draw a sneaker's laces and the mark on its side."""
    on, accent, back = shoe.on, shoe.accent, shoe.back
    for t in np.linspace(0, 1, 6):
        x, up = 0.30 + (shoe.throat - 0.30) * t, (shoe.rise + 0.068) * (1 - t) + shoe.instep() * t
        d.paint(d.path(polyline(on(x - 0.006, up), on(x + 0.035, up - 0.04)), 0.012), accent, 40, 5, 4)
        d.stud(*on(x + 0.038, up - 0.043), 0.006, shoe.metal, 40)
    x, y = on(0.58, 0.075)
    mark = choose(shoe.rng, "stripes", "swoosh", "star", "panel")
    if mark == "stripes":
        for step in (0, 0.035, 0.07):
            d.paint(d.path(polyline((x - 0.06 + step, y - 0.02), (x - 0.09 + step, y + 0.07)), 0.016), accent, 44, 2, 3,
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
    """Draw a loafer's seam, its strap, and a metal bar or a tassel on it."""
    on, x, up, rise = shoe.on, shoe.throat, shoe.instep(), shoe.rise
    seam = spline([on(0.10, rise * 0.75), on(0.20, rise * 0.8), on(0.33, rise + 0.01), on(x - 0.01, up - 0.035)],
                  False)
    d.crease(seam, 0.008, 0.4)
    d.stitches(shift(seam, 0, 0.008), shoe.accent.colour)
    d.paint(d.path(spline([on(x - 0.10, 0.015), on(x - 0.075, 0.07), on(x - 0.06, up - 0.012)], False), 0.045),
            shoe.accent, 40, 6, 10)
    if shoe.rng.random() < 0.5:
        d.paint(d.path(polyline(on(x - 0.10, up - 0.035), on(x - 0.03, up - 0.03)), 0.014), shoe.metal, 46, 5, 4)
        return
    for k in range(7):
        fringe = polyline(on(x - 0.10 + 0.006 * k, up - 0.03), on(x - 0.13 + 0.014 * k, up - 0.085))
        d.paint(d.path(fringe, 0.007), shoe.accent, 44, 3, 3)


def draw_ankle_strap(d: Drawing, shoe: Shoe) -> None:
    """Draw a strap round the ankle on a stay at the heel, with or without a middle strap to the toes."""
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
    """Draw what sits on the toes."""
    x, y = shoe.on(shoe.throat - 0.045, shoe.instep() - 0.03)
    trim = choose(shoe.rng, "", "bow", "buckle", "studs", "pearls", "flower")
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
    """Return a shoe of one of the families of SHOES from its side, toe to the left."""
    kinds, throat, stretch = SHOES[family]
    kind = choose(rng, *kinds)
    heel = rng.uniform(*HEEL_HEIGHTS[kind]) * (0.5 if family == "loafer" and kind == "block" else 1)
    thick = {"sneaker": 0.75 * heel, "flat": 0.7 * heel, "wedge": float(rng.choice([0.02, 0.07]))}
    platform = thick.get(kind, float(rng.choice([0.0, 0.0, 0.05])) if heel > 0.18 else 0.0)
    toes = ("round", "almond") if family == "sneaker" else tuple(TOES)
    shoe = Shoe(rng, family, *choose_materials(rng, colour), kind, heel, platform, rng.uniform(*throat), stretch,
                choose(rng, *toes))
    d = Drawing()
    {"boot": draw_boot, "sandal": draw_sandal, "mule": draw_mule}.get(family, draw_closed_shoe)(d, shoe)
    if family == "sandal" or (family in ("pump", "ballerina") and rng.random() < 0.5):
        draw_ankle_strap(d, shoe)
    if family in ("pump", "ballerina", "mule", "sandal"):
        draw_trim(d, shoe)
    return d
