"""Which models a catalogue has, and the photographs of each."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.sample.bags import BAGS, draw_bag
from pipeline.sample.drawing import Drawing
from pipeline.sample.materials import COLOURS
from pipeline.sample.photograph import draw_seller, photograph
from pipeline.sample.shoes import SHOES, draw_shoe

FAMILIES = (*SHOES, *BAGS)
MOST_OF_A_SELLER = 5  # photographs of one model by one seller, at most


@dataclass(frozen=True)
class Model:
    """One product model of a catalogue; `seed` decides its looks together with `family` and `colour`."""

    id: str
    family: str  # one of FAMILIES
    colour: str  # one of COLOURS
    seed: tuple[int, ...]
    n_images: int


@dataclass(frozen=True)
class Photograph:
    """One image of a model: `name` is `modelID_productID_imageID.jpg`, a product id is one seller's.

    image_bgr : ndarray of shape (size, size, 3), uint8
    mask : ndarray of shape (size, size), uint8, 255 where the product is seen, else 0
    quality : of the JPEG, 1..100
    """

    name: str
    image_bgr: np.ndarray
    mask: np.ndarray
    quality: int


def plan_catalogue(
    seed: int, first_id: int, n_models: int, fewest: int, most: int, families: Sequence[str] = FAMILIES
) -> list[Model]:
    """Return the models of a catalogue with their numbers of images, `fewest` to `most` of each.

    Every family comes twice or more and a third as many colours as models are used (at most all of COLOURS), so that
    neither its kind alone nor its colour alone identifies a model.
    """
    rng = np.random.default_rng([seed, first_id])
    chosen = rng.permutation(list(families))[: max(2, n_models // 2)]
    colours = rng.permutation(list(COLOURS))[: max(2, n_models // 3)]
    models: list[Model] = []
    for i in range(n_models):
        family, colour = chosen[(i // 2) % len(chosen)], rng.choice(colours)
        if i % 2:
            colour = models[-1].colour  # a near relative: same family, same colour
        n_images = int(rng.integers(fewest, most + 1))
        models.append(Model(str(first_id + i), str(family), str(colour), (seed, first_id + i), n_images))
    return models


def draw_model(model: Model) -> Drawing:
    """Return the drawing of a model."""
    draw = draw_shoe if model.family in SHOES else draw_bag
    return draw(np.random.default_rng(model.seed), model.family, model.colour)


def photograph_model(model: Model, size: int) -> Iterator[Photograph]:
    """Draw a model and yield its `n_images` photographs of `size` x `size` pixels, one to five of each seller."""
    drawing, n_left = draw_model(model), 0
    for number in range(1, model.n_images + 1):
        rng = np.random.default_rng([*model.seed, number])
        if n_left == 0:
            seller, n_left = draw_seller(rng), int(rng.integers(1, MOST_OF_A_SELLER + 1))
            product_id = f"{model.id}{number:03d}"
        n_left -= 1
        image_bgr, mask = photograph(drawing, seller, rng, size)
        yield Photograph(f"{model.id}_{product_id}_{number}.jpg", image_bgr, mask, seller.quality)
