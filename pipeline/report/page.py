"""report.html: what it shows, and how it is put into one file that asks the network for nothing."""

import base64
import hashlib
import io
import json
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path

import numpy as np
from PIL import Image

import config
from pipeline import files, parallel, settings
from pipeline.report.found import Found, Grid, typicality
from pipeline.som import means_of

TEMPLATE_DIR = Path(__file__).resolve().parent
DEFAULTS_PATH = TEMPLATE_DIR.parent / "default_settings.json"
PACKAGES = ("numpy", "scipy", "scikit-learn", "opencv-python-headless", "pillow", "tensorflow", "keras", "minisom",
            "igraph", "matplotlib")  # fmt: skip
RELATION = "verdict"  # third column of corrections.csv: "same" or "different"
SPRITE_SIDE = 10  # thumbnails in a row and in a column of a sprite


# ---- what is doubtful ------------------------------------------------------------------------------


def cluster_table(found: Found, n_doubtful_max: float = 0.5) -> list[dict]:
    """One row for each cluster, by id: size, mean confidence, doubt, medoid, most frequent true label.

    `doubt` is the number of images that are expected to be wrong: the sum of 1 - confidence.
    """
    rows = []
    for cluster in np.unique(found.cluster).tolist():
        members = found.members(cluster)
        confidence = found.confidence[members]
        rows.append(
            {
                "id": cluster,
                "size": len(members),
                "confidence": float(confidence.mean()),
                "doubt": float((1 - confidence).sum()),
                "doubtful": int((confidence < n_doubtful_max).sum()),
                "medoid": found.medoid[cluster],
            }
        )
    return rows


def doubtful_images(found: Found, n_max: int = 60) -> list[dict]:
    """The images with the lowest confidence, with the medoids of their cluster and of the runner-up.

    A medoid is not compared with itself: it is listed with the runner-up only.
    """
    result = []
    for i in np.argsort(found.confidence, kind="stable").tolist():
        own, other = found.medoid[int(found.cluster[i])], found.medoid.get(int(found.runner_up[i]))
        if (own == i and other is None) or len(result) == n_max or found.confidence[i] >= 0.95:
            continue
        result.append({"image": i, "own": own if own != i else None, "other": other})
    return result


def likely_merges(found: Found, n_max: int = 30) -> list[dict]:
    """Pairs of clusters that may be one model, the likeliest first, with their medoids.

    `likeness` is the mean doubt (1 - confidence) of the images that have the other cluster as runner-up, counted in
    the smaller cluster's images. On clusters with labels this finds models that were split far better than the
    distance between centres does (`doc/results.md`).
    """
    clusters, size = np.unique(found.cluster, return_counts=True)
    votes: dict[tuple[int, int], float] = {}
    for i in np.flatnonzero(found.runner_up >= 0):
        pair = tuple(sorted((int(found.cluster[i]), int(found.runner_up[i]))))
        votes[pair] = votes.get(pair, 0.0) + 1 - float(found.confidence[i])
    size_of = dict(zip(clusters.tolist(), size.tolist(), strict=True))
    pairs = [
        {
            "clusters": list(pair),
            "images": [found.medoid[cluster] for cluster in pair],
            "likeness": min(1.0, vote / min(size_of[cluster] for cluster in pair)),
        }
        for pair, vote in votes.items()
        if set(pair) <= size_of.keys() and pair[0] != pair[1] and vote > 0
    ]
    return sorted(pairs, key=lambda item: (-item["likeness"], item["clusters"]))[:n_max]


def likely_splits(found: Found, n_max: int = 30) -> list[dict]:
    """Clusters that may be two models, the likeliest first, with the medoids of the two halves of each.

    Loose clusters come first: `spread` is the mean squared distance of a cluster's directions to their centre, from 0
    (all the same) to 1 (nothing in common). The halves are those of 2-means, with 2 images each at least.
    """
    result = []
    for cluster in np.unique(found.cluster).tolist():
        members = found.members(cluster)
        rows = found.direction[members]
        spread = float(((rows - rows.mean(axis=0)) ** 2).sum(axis=1).mean())
        if len(members) < 4 or spread < 1e-6:
            continue
        part = two_means(rows)
        sizes = np.bincount(part, minlength=2)
        if sizes.min() < 2:
            continue
        nearness = typicality(rows, part)
        heads = [int(members[np.flatnonzero(part == p)[np.argmax(nearness[part == p])]]) for p in (0, 1)]
        result.append({"cluster": cluster, "images": heads, "sizes": sizes.tolist(), "spread": spread})
    return sorted(result, key=lambda item: (-item["spread"], item["cluster"]))[:n_max]


def two_means(rows: np.ndarray, n_rounds: int = 20) -> np.ndarray:
    """Cut rows (n, n_features) in two by k-means, begun at the sign of the main axis: int64 (n,), 0 or 1."""
    centred = rows - rows.mean(axis=0)
    axis = np.linalg.svd(centred @ centred.T)[0][:, 0] if len(rows) <= 500 else centred @ centred[0]
    part = (axis > np.median(axis)).astype(np.int64)
    for _ in range(n_rounds):
        if len(np.unique(part)) < 2:
            break
        a, b = means_of(rows, part, 2)
        new = ((rows - b) ** 2).sum(axis=1) < ((rows - a) ** 2).sum(axis=1)
        if (new == part).all():
            break
        part = new.astype(np.int64)
    return part


def cuts_of(found: Found, som: dict) -> list[dict]:
    """The stored cuts, coarsest first: granularity, clusters of the images, medoids, and the ARI where labels exist."""
    from sklearn.metrics import adjusted_rand_score

    known = [i for i, label in enumerate(found.labels) if label]
    labels = [found.labels[i] for i in known]
    cuts = []
    for granularity, cluster in zip(som["cut_granularity"], som["cut_clusters"], strict=True):
        ids, index = np.unique(cluster, return_inverse=True)
        order = np.lexsort((-typicality(found.direction, index), index))
        medoids = order[np.unique(index[order], return_index=True)[1]]
        cuts.append(
            {
                "granularity": round(float(granularity), 4),
                "n_clusters": len(ids),
                "clusters": cluster.tolist(),
                "medoids": dict(zip(ids.tolist(), medoids.tolist(), strict=True)),
                "ari": adjusted_rand_score(labels, cluster[known]) if known else None,
            }
        )
    return cuts


def skipped_rows() -> list[dict[str, str]]:
    """Every image that a stage left out, with its reason."""
    data_dir = files.data_dir(config.DATASET)
    rows = []
    for name in ("skipped.csv", "features_skipped.csv"):
        if (data_dir / name).exists():
            rows += files.read_csv(data_dir / name, ["image", "stage", "reason"], "01.img_preprocess.py")
    return rows


def run_facts(evaluation: dict, own: dict) -> dict:
    """How the result was made: seconds, settings (`own`: those of stage 06), versions, weights, skipped images."""
    data_dir, model_dir = files.data_dir(config.DATASET), files.model_dir(config.TRAIN_DATASET)
    records = [data_dir / "labels_true.json", data_dir / "preprocess.json", model_dir / "feature_network.json",
               data_dir / "features.json", data_dir / "clustering.json",
               files.result_dir(config.DATASET) / "evaluation.json"]  # fmt: skip
    stages, used = [], dict(own)
    for path in records:
        if record := files.read_record(path):
            stages.append({"stage": record["made_from"].get("stage"), "seconds": record.get("seconds")})
            used |= record["made_from"].get("settings") or {}
    features_record = files.recorded(data_dir / "features.npy", data_dir / "features.json") or {}
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return {
        "stages": stages,
        "settings": changed_settings(used),
        "initial_weights": evaluation.get("initial_weights"),
        "network": features_record.get("network"),
        "versions": versions,
        "skipped": skipped_rows(),
    }


def write_defaults() -> None:
    """Take the values that config.py has now as the defaults; for whoever changes a default."""
    files.write_json(DEFAULTS_PATH, {name: getattr(config, name) for name in settings.names()})


def changed_settings(used: dict[str, object]) -> list[dict]:
    """The settings that differ from the defaults (`pipeline/default_settings.json`), as the stages used them."""
    defaults = json.loads(DEFAULTS_PATH.read_text(encoding="utf-8"))
    return [
        {"name": name, "value": repr(value), "default": repr(defaults.get(name))}
        for name, value in used.items()
        if name in defaults and value != defaults[name]
    ]


def sprite_plan(n_images: int, budget: float, bytes_per_pixel: float, largest: int) -> tuple[int, int]:
    """Side of a thumbnail in pixels and number of thumbnails that fit into `budget` bytes.

    Thumbnails first get smaller, down to 40 pixels, then fewer. Base64 makes 4 characters of 3 bytes.
    """
    side = int(min(largest, np.sqrt(budget * 0.75 / (max(1, n_images) * bytes_per_pixel))))
    side = max(min(40, largest), side // 4 * 4)
    return side, int(min(n_images, budget * 0.75 / (side * side * bytes_per_pixel)))


def sprites_of(tiles: np.ndarray, order: np.ndarray, side: int, n_across: int = SPRITE_SIDE) -> Iterator[bytes]:
    """WebP pictures of `n_across` x `n_across` thumbnails each, in the given order of images, made when asked for.

    tiles : uint8 RGB ndarray of shape (n_images, TILE, TILE, 3); order : int64 (n_thumbnails,)
    """

    def sprite(part: np.ndarray) -> bytes:
        n_rows = -(-len(part) // n_across)
        sheet = Image.new("RGB", (n_across * side, n_rows * side), "white")
        for k, i in enumerate(part):
            small = Image.fromarray(tiles[i]).resize((side, side), Image.Resampling.LANCZOS)
            sheet.paste(small, (k % n_across * side, k // n_across * side))
        buffer = io.BytesIO()
        sheet.save(buffer, "WEBP", quality=76, method=4)
        return buffer.getvalue()

    parts = np.split(order, np.arange(n_across**2, len(order), n_across**2)) if len(order) else []
    return parallel.in_threads(sprite, parts)


def thumbnail_order(found: Found, n_thumbnails: int) -> np.ndarray:
    """The images that get a thumbnail, in the order of clusters: all, or the first ones of every cluster."""
    if n_thumbnails >= len(found.names):
        return found.order
    _, start, size = np.unique(found.cluster[found.order], return_index=True, return_counts=True)
    rank = np.arange(len(found.order)) - np.repeat(start, size)
    # the first of each cluster, the second of each, ...
    chosen = np.lexsort((np.arange(len(rank)), rank))[:n_thumbnails]
    return found.order[np.sort(chosen)]


def embedded(value: object) -> str:
    """JSON that can stand in a <script> element whatever the texts in it are."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def report_data(found: Found, som: dict, grid: Grid, typical: np.ndarray, plane: dict) -> dict:
    """What the page's script works on. Images are numbers: places in `names`."""
    models = sorted({label for label in found.labels if label})
    number = {model: i for i, model in enumerate(models)}
    cuts = cuts_of(found, som)
    current = next((k for k, cut in enumerate(cuts) if cut["clusters"] == found.cluster.tolist()), None)
    return {
        "dataset": config.DATASET,
        "key": files.fingerprint([found.names, found.cluster.tolist()])[:16],  # marks belong to one result
        "names": found.names,
        "models": models,
        "label": [number.get(label, -1) for label in found.labels],
        "cluster": found.cluster.tolist(),
        "runnerUp": found.runner_up.tolist(),
        "confidence": [round(float(c), 4) for c in found.confidence],
        "outlier": np.flatnonzero(found.outlier).tolist(),
        "unit": found.unit.tolist(),
        "order": found.order.tolist(),
        "clusters": cluster_table(found),
        "map": {
            "rows": grid.rows,
            "cols": grid.cols,
            "lying": grid.rows != grid.cols,
            "centre": np.round(grid.centre, 3).tolist(),
            "corner": np.round(grid.polygon[0] - grid.centre[0], 4).tolist(),
            "pair": grid.pair.tolist(),
            "edge": np.round(grid.edge, 3).tolist(),
            "ridge": np.round(grid.ridge / max(float(grid.ridge.max(initial=0)), 1e-9), 3).tolist(),
            "u": np.round(som["u_matrix"].ravel().astype(float), 4).tolist(),
            "hits": som["hits"].ravel().tolist(),
            "cluster": som["unit_cluster"].ravel().tolist(),
            "typical": typical.tolist(),
        },
        "cuts": cuts,
        "current": current,
        "review": {
            "images": doubtful_images(found),
            "merges": likely_merges(found),
            "splits": likely_splits(found),
            "earlier": earlier_corrections(),
            "columns": ["image_a", "image_b", RELATION],
        },
        "tsne": plane,
    }


def earlier_corrections() -> list[list[str]]:
    """The rows of corrections.csv as it is now, so that a download from the report keeps them."""
    path = files.data_dir(config.DATASET) / "corrections.csv"
    if not path.exists():
        return []
    columns = ["image_a", "image_b", RELATION]
    return [[row[name] for name in columns] for row in files.read_csv(path, columns, "the review list of report.html")]


def write_report(context: dict, data: dict, sprites: Iterable[bytes], sprite_facts: dict, path: Path) -> None:
    """Render the page: everything inside, its own script the only one that may run, no request to anywhere.

    It is written piece by piece, each of the `sprites` when its place comes.
    """
    import jinja2

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
        "data": embedded(data | {"sprites": sprite_facts}),
        "sprites": (base64.b64encode(sprite).decode() for sprite in sprites),
    }
    with files.whole(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as handle:
        try:
            handle.writelines(environment.get_template("report.html").generate(context))
        except jinja2.UndefinedError as error:
            raise LookupError(f"{path.name}: {error}") from error


def worst_with_images(found: Found, evaluation: dict, n_shown: int = 8) -> dict:
    """Most split and most merged models of evaluation.json, with images of each part."""

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


def summary_facts(found: Found, clustering: dict, clusters: list[dict]) -> dict:
    """What a person asks first, and what to look at first."""
    several = [row for row in clusters if row["size"] > 2] or clusters
    doubtful = int((found.confidence < 0.5).sum())
    return {
        "mean_confidence": float(found.confidence.mean()),
        "doubtful": doubtful,
        "doubtful_share": doubtful / len(found.names),
        "most_doubtful": min(several, key=lambda row: (row["confidence"], -row["size"])),
        "singles": sum(row["size"] == 1 for row in clusters),
        "interval": clustering.get("n_clusters_interval"),
        "merge": next(iter(likely_merges(found, n_max=1)), None),
    }


def write_page(
    found: Found, grid: Grid, som: dict, typical: np.ndarray, tiles: np.ndarray, plane: dict, facts: dict
) -> Path:
    """Write report.html within REPORT_MAX_MB."""
    path = files.result_dir(config.DATASET) / "report.html"
    data = report_data(found, som, grid, typical, plane)
    budget = config.REPORT_MAX_MB * 1e6 - len(embedded(data).encode()) - 300_000
    some = found.order[np.linspace(0, len(found.order) - 1, min(100, len(found.order))).astype(int)]
    pixels = len(some) * config.REPORT_THUMBNAIL**2
    per_pixel = sum(map(len, sprites_of(tiles, some, config.REPORT_THUMBNAIL))) / pixels * 1.1
    side, n_thumbnails = sprite_plan(len(found.names), max(budget, 0), per_pixel, config.REPORT_THUMBNAIL)
    order = thumbnail_order(found, n_thumbnails)
    # the photographs on the map first, so that it needs few sprites
    order = order[np.argsort(~np.isin(order, typical), kind="stable")]
    sprites = sprites_of(tiles, order, side)
    write_report(facts, data, sprites, {"side": side, "across": SPRITE_SIDE, "images": order.tolist()}, path)
    return path


def facts_of(found: Found, clustering: dict, evaluation: dict, unreadable: list[int], own: dict) -> dict:
    """All that the page shows besides photographs; `unreadable` are the images that could not be read.

    own : settings of stage 06
    """
    clusters = cluster_table(found)
    _, models = np.unique([label for label in found.labels if label], return_counts=True)
    return {
        "dataset": config.DATASET,
        "clustering": clustering,
        "evaluation": evaluation,
        "summary": summary_facts(found, clustering, clusters),
        "worst": worst_with_images(found, evaluation),
        "run": run_facts(evaluation, own),
        "unreadable": [found.names[i] for i in unreadable],
        "sizes": {
            "clusters": sorted((row["size"] for row in clusters), reverse=True),
            "models": sorted(models.tolist(), reverse=True),
        },
    }
