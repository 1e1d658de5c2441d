"""How good the masks of stage 01 are, how fast, and what they do to the score: every method side by side.

    python make_sample_images.py
    python benchmarks/background_removal.py
    python benchmarks/background_removal.py ../shared/data/catalogue_train ../shared/data/catalogue_train_masks
    python benchmarks/background_removal.py IMAGES MASKS --sheet=worst.png --limit=200
    python benchmarks/background_removal.py IMAGES MASKS --ari --PRETRAINED_WEIGHTS=weights.h5

IMAGES is a folder of images, MASKS one of true masks, each named like its image with .png after the name or in place
of the suffix; without them the drawn sample is taken. Every image goes through all methods in turn, in one process
and on one core; images per second count finding the mask and blending, not reading and writing. Intersection over
union (IoU) is given by kind of ground: a ground counts as cluttered where the mean absolute Laplacian of its grey
values is over 4. Single methods are taken at their word (BACKGROUND_MIN_TRUST = 0).
A second table has what sellers do to photographs: parts without any ground (close-ups; the whole image is right),
the photograph cut to a circle with an alpha channel, and the product on white with a drop shadow that has an edge. It
gives the mean IoU of "auto", and the share with an IoU under 0.9 that is trusted over 0.5.
--sheet writes the twenty images on which "auto" does worst, each with its true mask's outline and what came out;
--examples does the same with twelve images evenly drawn from all.
--ari runs stages 00, 01, 03, 04 and 05 for each method and for the true masks, with FEATURE_NETWORK = "pretrained" and
the other --NAME=value settings given, in a temporary root. An image must be named by LABEL_PATTERN for that.
"""

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np

PROJECT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(PROJECT))
import config  # noqa: E402
from pipeline import images  # noqa: E402
from pipeline.background.composites import crop_close_up, cut_out  # noqa: E402
from pipeline.background.matting import paste_on_white  # noqa: E402
from pipeline.background.network import SHIPPED_NETWORK  # noqa: E402
from pipeline.dataset import list_images, write_image  # noqa: E402
from pipeline.machinery import paths  # noqa: E402

METHODS = ("none", "sobel", "grabcut", "plain", "network", "auto")
Edited = tuple[np.ndarray, np.ndarray | None, np.ndarray]  # image BGR (H, W, 3), alpha (H, W), true mask bool (H, W)
Case = tuple[str, np.ndarray, np.ndarray, str]  # name, image BGR (H, W, 3), true mask bool (H, W), kind of ground


def load_stage() -> ModuleType:
    """Stage 01 as a module; its name can't be imported."""
    spec = importlib.util.spec_from_file_location("stage_01", PROJECT / "01.img_preprocess.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["stage_01"] = module
    spec.loader.exec_module(module)
    return module


def kind_of_ground(image_bgr: np.ndarray, mask: np.ndarray) -> str:
    """Return "plain" or "cluttered", by the local contrast of the true ground."""
    grey = cv2.cvtColor(image_bgr, cv2.COLOR_BGR2GRAY).astype(np.float32)
    outside = cv2.dilate(mask.astype(np.uint8), np.ones((9, 9), np.uint8)) == 0
    texture = np.abs(cv2.Laplacian(grey, cv2.CV_32F))[outside]
    return "cluttered" if texture.size and texture.mean() > 4 else "plain"


def read_cases(image_dir: Path, mask_dir: Path, limit: int) -> list[Case]:
    """Images with their true masks, at most `limit` of them, evenly drawn from the names in order."""
    names = [n for n in list_images(image_dir) if true_mask_path(mask_dir, n).exists()]
    if not names:
        sys.exit(f"{image_dir} has no image with a mask in {mask_dir}")
    names = names[:: max(1, -(-len(names) // limit))]
    cases = []
    for name in names:
        image_bgr, _ = images.read_image(image_dir / name)
        mask = images.read_bgr(true_mask_path(mask_dir, name))[..., 0] > 127
        cases.append((name, image_bgr, mask, kind_of_ground(image_bgr, mask)))
    return cases


def true_mask_path(mask_dir: Path, name: str) -> Path:
    """a/b.jpg -> a/b.jpg.png where that exists, else a/b.png."""
    path = mask_dir / (name + ".png")
    return path if path.exists() else (mask_dir / name).with_suffix(".png")


def iou(mask: np.ndarray, true: np.ndarray) -> float:
    """Intersection over union of two bool arrays of one shape, 0..1."""
    return float((mask & true).sum() / max(1, (mask | true).sum()))


def options_of(stage: ModuleType, method: str) -> object:
    """Return the options of stage 01 for a method; single methods are taken at their word."""
    trust = config.BACKGROUND_MIN_TRUST if method == "auto" else 0.0
    return stage.Options(method, SHIPPED_NETWORK, trust, config.RANDOM_SEED)


def measure(stage: ModuleType, cases: list[Case]) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """IoU and seconds of each method on each image: two dicts of float64 arrays of shape (n_images,)."""
    scores = {method: np.zeros(len(cases)) for method in METHODS}
    seconds = {method: np.zeros(len(cases)) for method in METHODS}
    cv2.setNumThreads(1)
    for i, (_, image_bgr, true, _) in enumerate(cases):
        for method in METHODS:
            options = options_of(stage, method)
            begin = time.perf_counter()
            mask, _, _ = stage.find_product(image_bgr, None, options)
            paste_on_white(image_bgr, mask)
            seconds[method][i] = time.perf_counter() - begin
            scores[method][i] = iou(mask, true)
    return scores, seconds


def table(scores: dict[str, np.ndarray], seconds: dict[str, np.ndarray], cases: list[Case]) -> str:
    """Return the figures as a Markdown table, a row for each method; seconds spread over the quarters of the images."""
    grounds = np.array([case[3] for case in cases])
    kinds = [kind for kind in ("plain", "cluttered") if (grounds == kind).any()]
    head = [
        "method",
        "IoU mean",
        "median",
        *(f"{k} mean (median)" for k in kinds),
        "under 0.5",
        "under 0.3",
        "images/s",
    ]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for method in METHODS:
        score = scores[method]
        by_kind = [f"{score[grounds == k].mean():.3f} ({np.median(score[grounds == k]):.3f})" for k in kinds]
        rates = [len(part) / part.sum() for part in np.array_split(seconds[method], 4) if len(part)]
        speed = f"{len(score) / seconds[method].sum():.0f} ({min(rates):.0f}-{max(rates):.0f})"
        shares = [f"{(score < limit).mean():.1%}" for limit in (0.5, 0.3)]
        lines.append(
            f"| {method} | {score.mean():.3f} | {np.median(score):.3f} | "
            + " | ".join([*by_kind, *shares, speed])
            + " |"
        )
    counts = ", ".join(f"{(grounds == kind).sum()} {kind}" for kind in kinds)
    return "\n".join([f"{len(cases)} images: {counts}", "", *lines])


def seller_edits(image_bgr: np.ndarray, true: np.ndarray, number: int) -> Iterator[tuple[str, Edited]]:
    """Give the name of each edit, and the edited image, its alpha or None, and its true mask."""
    rng = np.random.default_rng(number)
    close_up = crop_close_up(image_bgr, true, (0.985, 1.0), rng)
    if close_up is not None:
        yield "close-up", (close_up[0], None, np.ones(close_up[1].shape, bool))
    height, width = true.shape
    circle = np.zeros((height, width), np.uint8)
    cv2.circle(circle, (width // 2, height // 2), min(height, width) // 2, 255, -1, cv2.LINE_AA)
    yield "circle", (image_bgr, circle, true & (circle > 127))
    if true.any():
        product = cut_out(image_bgr, true)
        room = 20  # pixels around the product
        opacity = np.pad(product.mask.astype(np.float32), room)
        move = np.float32([[1, 0, rng.integers(6, 16)], [0, 1, rng.integers(6, 16)]])
        light = 1 - 0.35 * cv2.GaussianBlur(cv2.warpAffine(opacity, move, opacity.shape[::-1]), (0, 0), 1.5)
        colours = np.pad(product.image_bgr, ((room, room), (room, room), (0, 0)))
        shaded = np.where(opacity[..., None] > 0, colours, 255 * light[..., None]).astype(np.uint8)
        yield "edged shadow", (shaded, None, opacity > 0)


def edits_table(stage: ModuleType, cases: list[Case]) -> str:
    """Return the figures of `seller_edits` as a Markdown table."""
    found: dict[str, list[tuple[float, float]]] = {}  # edit -> IoU and trust of each image
    for number, (_, image_bgr, true, _) in enumerate(cases):
        for kind, (edited_bgr, alpha, right) in seller_edits(image_bgr, true, number):
            mask, _, trust = stage.find_product(edited_bgr, alpha, options_of(stage, "auto"))
            found.setdefault(kind, []).append((iou(mask, right), trust))
    lines = ["| edit | images | IoU mean | IoU under 0.9, trust over 0.5 |", "|---|---|---|---|"]
    for kind, pairs in found.items():
        scores, trusts = np.array(pairs).T
        wrong = ((scores < 0.9) & (trusts > 0.5)).mean()
        lines.append(f"| {kind} | {len(scores)} | {scores.mean():.3f} | {wrong:.1%} |")
    return "\n".join(lines)


def write_sheet(stage: ModuleType, cases: list[Case], path: Path, side: int = 200) -> None:
    """Write the images, four in a row, each before (true outline in magenta) and after "auto"."""
    sheet = np.full((-(-len(cases) // 4) * side, 8 * side, 3), 128, np.uint8)
    for place, (name, image_bgr, true, _) in enumerate(cases):
        mask, method, trust = stage.find_product(image_bgr, None, options_of(stage, "auto"))
        before, after = image_bgr.copy(), paste_on_white(image_bgr, mask)
        contours, _ = cv2.findContours(true.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(before, contours, -1, (255, 0, 255), 2)
        for column, picture in enumerate((before, after)):
            scale = side / max(picture.shape[:2])
            size = max(1, int(picture.shape[1] * scale)), max(1, int(picture.shape[0] * scale))
            tile = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
            y, x = place // 4 * side, (place % 4 * 2 + column) * side
            sheet[y : y + size[1], x : x + size[0]] = tile
        print(f"IoU {iou(mask, true):.2f}  {method:8s} trust {trust:.2f}  {name}")
    write_image(path.resolve(), sheet)
    print(f"wrote {path}")


def ari_of(method: str, stage: ModuleType, cases: list[Case], image_dir: Path, overrides: list[str]) -> dict:
    """evaluation.json of the pipeline with one method, or with the true masks, and all the rest unchanged."""
    with tempfile.TemporaryDirectory() as root:
        raw = Path(root, "raw_img", "check")
        for name, image_bgr, true, _ in cases:
            (raw / name).parent.mkdir(parents=True, exist_ok=True)
            (raw / name).write_bytes((image_dir / name).read_bytes())
            if method == "true masks":
                cleaned = Path(root, "img", "check", name)
                cleaned.parent.mkdir(parents=True, exist_ok=True)
                write_image(cleaned, paste_on_white(image_bgr, true))
        steps = [["00.make_labels_true.py"], ["01.img_preprocess.py", f"--BACKGROUND_METHOD={method}"]]
        if method == "true masks":
            steps.pop()
        steps += [[name] for name in ("03.feature_extraction.py", "04.clustering_som.py", "05.evaluation.py")]
        common = ["--DATASET=check", "--TRAIN_DATASET=check", "--FEATURE_NETWORK=pretrained", *overrides]
        for step in steps:
            done = subprocess.run(
                [sys.executable, *step, *common],
                cwd=PROJECT,
                env={**os.environ, "IMAGE_CLUSTER_ROOT": root},
                capture_output=True,
                text=True,
            )
            if done.returncode:
                sys.exit(f"{step[0]} ended with exit code {done.returncode}: {done.stderr[-500:]}")
        return json.loads(Path(root, "result", "check", "evaluation.json").read_text(encoding="utf-8"))


def main() -> None:
    """Print the tables that the arguments ask for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="*", type=Path, metavar="IMAGES MASKS")
    parser.add_argument("--sheet", type=Path, help="write the twenty worst images to this file")
    parser.add_argument("--examples", type=Path, help="write twelve images, evenly drawn, to this file")
    parser.add_argument("--limit", type=int, default=10**9, help="images at most")
    parser.add_argument("--ari", action="store_true", help="run the pipeline with each method")
    arguments, overrides = parser.parse_known_args()
    if len(arguments.folders) not in (0, 2):
        parser.error("give both IMAGES and MASKS, or neither")
    image_dir, mask_dir = arguments.folders or (paths.raw_img_dir("sample"), paths.mask_true_dir("sample"))
    stage, cases = load_stage(), read_cases(image_dir, mask_dir, arguments.limit)
    scores, seconds = measure(stage, cases)
    print(table(scores, seconds, cases), edits_table(stage, cases), sep="\n\n")
    if arguments.sheet:
        worst = np.argsort(scores["auto"], kind="stable")[:20]
        write_sheet(stage, [cases[i] for i in worst], arguments.sheet)
    if arguments.examples:
        write_sheet(stage, cases[:: -(-len(cases) // 12)], arguments.examples)
    if arguments.ari:
        print("\n| background | ARI | 95 % interval | clusters (models) |\n|---|---|---|---|")
        for method in (*METHODS, "true masks"):
            found = ari_of(method, stage, cases, image_dir, overrides)
            ari = found["scores"]["ari"]
            interval = f"{ari['low']:.3f}-{ari['high']:.3f}" if ari["low"] is not None else ""
            print(
                f"| {method} | {ari['value']:.3f} | {interval} | {found['n_clusters']} ({found['n_models']}) |",
                flush=True,
            )


if __name__ == "__main__":
    main()
