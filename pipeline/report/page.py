"""Render report.html: its content, in one file that loads nothing from the network."""

import base64
import hashlib
import io
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import jinja2
import numpy as np
from PIL import Image

from pipeline.report.found import Found
from pipeline.report.grid import Grid
from pipeline.report.review import (
    describe_cuts,
    find_doubtful_images,
    find_likely_merges,
    find_likely_splits,
    summarise_clusters,
)

TEMPLATE_DIR = Path(__file__).resolve().parent
RELATION = "verdict"  # third column of corrections.csv: "same" or "different"
SPRITE_SIDE = 10  # thumbnails in a row and in a column of a sprite
PAGE_BYTES = 300_000  # what the page holds besides photographs and data, with something to spare


def plan_sprites(n_images: int, budget: float, bytes_per_pixel: float, largest: int) -> tuple[int, int]:
    """Return the side of a thumbnail in pixels and the number of thumbnails that fit into `budget` bytes.

    Thumbnails first get smaller, down to 40 pixels, then fewer. Base64 makes 4 characters of 3 bytes.
    """
    side = int(min(largest, np.sqrt(budget * 0.75 / (max(1, n_images) * bytes_per_pixel))))
    side = max(min(40, largest), side // 4 * 4)
    return side, int(min(n_images, budget * 0.75 / (side * side * bytes_per_pixel)))


def draw_sprites(
    tiles: np.ndarray, order: np.ndarray, side: int, ordered_map: Callable[..., Iterable] = map
) -> Iterable[bytes]:
    """Return WebP pictures of SPRITE_SIDE x SPRITE_SIDE thumbnails each, in the given order, made when asked for.

    tiles : uint8 RGB ndarray of shape (n_images, TILE, TILE, 3); order : int64 (n_thumbnails,)
    ordered_map : like `map`; the place to draw several sprites at once
    """

    def sprite(part: np.ndarray) -> bytes:
        n_rows = -(-len(part) // SPRITE_SIDE)
        sheet = Image.new("RGB", (SPRITE_SIDE * side, n_rows * side), "white")
        for k, i in enumerate(part):
            small = Image.fromarray(tiles[i]).resize((side, side), Image.Resampling.LANCZOS)
            sheet.paste(small, (k % SPRITE_SIDE * side, k // SPRITE_SIDE * side))
        buffer = io.BytesIO()
        sheet.save(buffer, "WEBP", quality=76, method=4)
        return buffer.getvalue()

    parts = np.split(order, np.arange(SPRITE_SIDE**2, len(order), SPRITE_SIDE**2)) if len(order) else []
    return ordered_map(sprite, parts)


def order_thumbnails(found: Found, n_thumbnails: int) -> np.ndarray:
    """Return the images that get a thumbnail, in the order of clusters: all, or the first ones of every cluster."""
    if n_thumbnails >= len(found.names):
        return found.order
    _, start, size = np.unique(found.cluster[found.order], return_index=True, return_counts=True)
    rank = np.arange(len(found.order)) - np.repeat(start, size)
    # the first of each cluster, the second of each, ...
    chosen = np.lexsort((np.arange(len(rank)), rank))[:n_thumbnails]
    return found.order[np.sort(chosen)]


def embed_json(value: object) -> str:
    """Return JSON that is safe inside a <script> element, whatever its texts hold."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def collect_data(found: Found, som_arrays: dict[str, np.ndarray], grid: Grid, typical: np.ndarray) -> dict:
    """Return the data of the page's script, without the t-SNE plane and the sprites. Images are places in `names`.

    som_arrays : "u_matrix", "hits", "unit_cluster" of shape (rows, cols), "cut_granularity" (n_cuts,), "cut_clusters"
        (n_cuts, n_images)
    typical : int64 (n_units,), the typical image of each unit, -1 for none
    """
    models = sorted({label for label in found.labels if label})
    number = {model: i for i, model in enumerate(models)}
    cuts = describe_cuts(found, som_arrays["cut_granularity"], som_arrays["cut_clusters"])
    current = next((k for k, cut in enumerate(cuts) if cut["clusters"] == found.cluster.tolist()), None)
    return {
        "names": found.names,
        "models": models,
        "label": [number.get(label, -1) for label in found.labels],
        "cluster": found.cluster.tolist(),
        "runnerUp": found.runner_up.tolist(),
        "confidence": [round(float(c), 4) for c in found.confidence],
        "outlier": np.flatnonzero(found.outlier).tolist(),
        "unit": found.unit.tolist(),
        "order": found.order.tolist(),
        "clusters": summarise_clusters(found),
        "map": _describe_map(som_arrays, grid, typical),
        "cuts": cuts,
        "current": current,
        "review": {
            "images": find_doubtful_images(found),
            "merges": find_likely_merges(found),
            "splits": find_likely_splits(found),
            "columns": ["image_a", "image_b", RELATION],
            "earlier": found.corrections,
        },
    }


def _describe_map(som_arrays: dict[str, np.ndarray], grid: Grid, typical: np.ndarray) -> dict:
    """Return the map as the page draws it."""
    return {
        "rows": grid.rows,
        "cols": grid.cols,
        "lying": grid.rows != grid.cols,
        "centre": np.round(grid.centre, 3).tolist(),
        "corner": np.round(grid.polygon[0] - grid.centre[0], 4).tolist(),
        "pair": grid.pair.tolist(),
        "edge": np.round(grid.edge, 3).tolist(),
        "ridge": np.round(grid.ridge / max(float(grid.ridge.max(initial=0)), 1e-9), 3).tolist(),
        "u": np.round(som_arrays["u_matrix"].ravel().astype(float), 4).tolist(),
        "hits": som_arrays["hits"].ravel().tolist(),
        "cluster": som_arrays["unit_cluster"].ravel().tolist(),
        "typical": typical.tolist(),
    }


def render_page(context: dict, data: dict, sprites: Iterable[bytes]) -> Iterator[str]:
    """Yield the page piece by piece: everything is inside, only its own script may run, nothing is requested.

    A sprite is drawn when its place in the page comes. Raises LookupError where the template finds no value.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATE_DIR), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    script = (TEMPLATE_DIR / "report.js").read_text(encoding="utf-8")
    style = (TEMPLATE_DIR / "report.css").read_text(encoding="utf-8")
    digest = {
        name: base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        for name, text in (("script", script), ("style", style))
    }
    context |= {
        "script": script,
        "style": style,
        "digest": digest,
        "data": embed_json(data),
        "sprites": (base64.b64encode(sprite).decode() for sprite in sprites),
    }
    try:
        yield from environment.get_template("report.html").generate(context)
    except jinja2.UndefinedError as error:
        raise LookupError(f"report.html: {error}") from error


def illustrate_errors(found: Found, evaluation: dict, n_shown: int = 8) -> dict:
    """Return the most split and most merged models of evaluation.json, with images of each part."""

    def some(model: str, cluster: str) -> list[int]:
        members = found.members(int(cluster))
        return [int(i) for i in members if found.labels[i] == model][:n_shown]

    split = [
        item | {"parts": [part | {"images": some(item["model"], part["cluster"])} for part in item["clusters"]]}
        for item in evaluation.get("most_split") or []
    ]
    merged = [
        item
        | {
            "parts": [
                part | {"images": [some(model, part["cluster"]) for model in item["models"]]}
                for part in item["clusters"]
            ]
        }
        for item in evaluation.get("most_merged") or []
    ]
    return {"split": split, "merged": merged}


def summarise(found: Found, clustering: dict, clusters: list[dict]) -> dict:
    """Return the numbers and the clusters that the page shows first."""
    several = [row for row in clusters if row["size"] > 2] or clusters
    doubtful = int((found.confidence < 0.5).sum())
    return {
        "mean_confidence": float(found.confidence.mean()),
        "doubtful": doubtful,
        "doubtful_share": doubtful / len(found.names),
        "most_doubtful": min(several, key=lambda row: (row["confidence"], -row["size"])),
        "singles": sum(row["size"] == 1 for row in clusters),
        "interval": clustering.get("n_clusters_interval"),
        "merge": next(iter(find_likely_merges(found, n_max=1)), None),
    }


def render_report(
    found: Found, data: dict, facts: dict, tiles: np.ndarray, typical: np.ndarray, max_bytes: float, largest: int,
    ordered_map: Callable[..., Iterable] = map,
) -> Iterator[str]:  # fmt: skip
    """Render report.html piece by piece, with as many and as large thumbnails as fit.

    Parameters
    ----------
    data : of the page's script (`collect_data`); facts : all that the page shows besides photographs (`collect_facts`)
    tiles : uint8 RGB ndarray of shape (n_images, TILE, TILE, 3)
    typical : int64 (n_units,), the typical image of each unit, -1 for none
    max_bytes : size of the page at most; largest : side of a thumbnail at most, pixels
    ordered_map : like `map`; the place to draw several sprites at once
    """
    budget = max_bytes - len(embed_json(data).encode()) - PAGE_BYTES
    some = found.order[np.linspace(0, len(found.order) - 1, min(100, len(found.order))).astype(int)]
    per_pixel = sum(map(len, draw_sprites(tiles, some, largest, ordered_map))) / (len(some) * largest**2) * 1.1
    side, n_thumbnails = plan_sprites(len(found.names), max(budget, 0), per_pixel, largest)
    order = order_thumbnails(found, n_thumbnails)
    # the photographs on the map first, so that it needs few sprites
    order = order[np.argsort(~np.isin(order, typical), kind="stable")]
    sprites = draw_sprites(tiles, order, side, ordered_map)
    data = data | {"sprites": {"side": side, "across": SPRITE_SIDE, "images": order.tolist()}}
    return render_page(facts, data, sprites)


def collect_facts(found: Found, dataset: str, clustering: dict, evaluation: dict, unreadable: list[int]) -> dict:
    """Return all that the page shows besides photographs, without "run" (how the result was made).

    clustering, evaluation : the content of clustering.json and evaluation.json
    unreadable : places in `found.names` of the photographs that could not be read
    """
    clusters = summarise_clusters(found)
    _, models = np.unique([label for label in found.labels if label], return_counts=True)
    return {
        "dataset": dataset,
        "clustering": clustering,
        "evaluation": evaluation,
        "summary": summarise(found, clustering, clusters),
        "worst": illustrate_errors(found, evaluation),
        "unreadable": [found.names[i] for i in unreadable],
        "sizes": {
            "clusters": sorted((row["size"] for row in clusters), reverse=True),
            "models": sorted(models.tolist(), reverse=True),
        },
    }
