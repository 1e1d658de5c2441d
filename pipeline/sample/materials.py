"""Colours and materials of products, and the choice of them."""

from dataclasses import dataclass, replace

import numpy as np

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
    """What a part is made of.

    `colour` is BGR in 0..1, `finish` a key of FINISHES, `print` one of PRINTS or "" in the colour `ink`, `relief` one
    of RELIEFS or "", both with a period of `scale` (parts of the canvas), at `angle` radians.
    """

    colour: tuple[float, float, float]
    finish: str = "smooth"
    print: str = ""
    ink: tuple[float, float, float] = (1.0, 1.0, 1.0)
    relief: str = ""
    scale: float = 0.06
    angle: float = 0.0
    seed: int = 0


def choose(rng: np.random.Generator, *choices: str) -> str:
    """One of the choices, a plain str."""
    return str(rng.choice(choices))


def choose_materials(rng: np.random.Generator, colour: str) -> tuple[Material, Material, Material, Material]:
    """Return main, accent, sole and metal of a model in the named colour."""
    shade = np.clip(
        np.array(COLOURS[colour], np.float32) * rng.uniform(0.85, 1.15) + rng.normal(0, 0.015, 3), 0.03, 0.97
    )
    seed = int(rng.integers(1 << 30))
    main = Material(
        tuple(shade),
        choose(rng, "smooth", "smooth", "pebbled", "patent", "suede", "canvas", "satin"),
        seed=seed,
        angle=rng.uniform(-0.8, 0.8),
        scale=rng.uniform(0.035, 0.09),
    )
    ink = COLOURS[choose(rng, *(("white", "tan") if shade.mean() < 0.4 else ("black", "brown")))]
    look = rng.random()
    if look < 0.45:
        main = replace(main, print=choose(rng, *PRINTS), ink=ink)
    elif look < 0.70:
        main = replace(main, relief=choose(rng, *RELIEFS))
    if main.relief == "quilt":
        main = replace(main, angle=0.0)
    second = ink if rng.random() < 0.45 else tuple(np.clip(shade * rng.choice([0.6, 0.8, 1.1]), 0.03, 0.97))
    accent = Material(second, choose(rng, "smooth", "patent", "suede"), seed=seed + 1)
    sole = Material(
        [*(COLOURS[name] for name in ("black", "brown", "tan", "white")), tuple(shade)][rng.integers(5)],
        "rubber",
        seed=seed + 2,
    )
    return main, accent, sole, Material(METALS[choose(rng, *METALS)], "metal")


def plain(material: Material, factor: float = 1.0) -> Material:
    """Return the material without print and relief, darker by `factor`: linings, gussets, the far side."""
    return replace(material, colour=tuple(np.array(material.colour, np.float32) * factor), print="", relief="")
