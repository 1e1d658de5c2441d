"""Show what was found: pictures, the report, folders of photographs, files for other tools.

    python 06.visualization.py
    python 06.visualization.py --DATASET=bags --CLUSTER_FOLDERS=hardlink

`report.html` is one file that opens offline in any browser: the map, the clusters, what to look at, the scores.
The pictures (PNG and SVG) are for papers and slides. With CLUSTER_FOLDERS the photographs of each cluster are put into
a folder of its own; a file there that this stage did not put there is never touched.

Reads:  data/D/clusters.csv, data/D/som.npz, data/D/clustering.json, data/D/features.npy, data/D/img_paths.txt,
        result/D/evaluation.json, raw_img/D/, img/D/; where they are there: data/D/labels_true.csv,
        data/D/preprocess.csv, data/D/skipped.csv, data/D/corrections.csv, model/T/history.csv
Writes: result/D/report.html, result/D/report.json, result/D/tsne.png, result/D/u_matrix.png, result/D/hit_map.png,
        result/D/photo_map.png, result/D/sizes.png, result/D/before_after.png, result/D/training_history.png,
        result/D/contact_sheets/ (an .svg beside each .png), result/D/clusters_spreadsheet.csv,
        result/D/projector/ (tensors.tsv, metadata.tsv, sprite.jpg, projector_config.json, projector_config.pbtxt),
        result/D/clusters/<id>/ (where CLUSTER_FOLDERS)
Config: DATASET, TRAIN_DATASET, RANDOM_SEED, N_JOBS, TSNE_MAX_IMAGES, TSNE_PERPLEXITY, CONTACT_SHEET_IMAGES,
        CONTACT_SHEETS_MAX, REPORT_MAX_MB, REPORT_THUMBNAIL, CLUSTER_FOLDERS, CLUSTER_FOLDERS_FROM, SPREADSHEET_BOM,
        PROJECTOR
"""

import base64
import hashlib
import io
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from html import escape
from importlib import metadata
from pathlib import Path

import joblib
import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps
from tqdm import tqdm

import config
from pipeline import files, images, settings
from pipeline.som import Directions

STAGE_03, STAGE_04, STAGE_05 = "03.feature_extraction.py", "04.clustering_som.py", "05.evaluation.py"
TEMPLATE_DIR = Path(__file__).resolve().parent / "pipeline" / "report"
TILE = 128  # pixels; side of the photographs in the pictures
# Okabe & Ito's colours, told apart with any kind of colour blindness (jfly.uni-koeln.de/color), and a grey
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9", "#CC79A7", "#B8A600", "#7F7F7F")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p", "h", "*")
HANGUL_FONTS = (
    "Noto Sans CJK KR", "Noto Sans KR", "NanumGothic", "Nanum Gothic", "NanumBarunGothic", "Malgun Gothic",
    "Apple SD Gothic Neo", "AppleGothic", "UnDotum", "Baekmuk Dotum", "Noto Sans CJK JP", "Arial Unicode MS",
)  # fmt: skip


# ---- what the earlier stages found -----------------------------------------------------------------


@dataclass
class Found:
    """Everything about the images, row i of every array belongs to `names[i]`.

    names : n_images names; labels : their true labels, "" where unknown
    cluster, runner_up : int64 (n,), runner_up -1 where there is none; confidence, distance : float64 (n,)
    outlier : bool (n,); unit : int64 (n,), row * cols + column on the map
    direction : float32 (n, n_features), the features as stage 04 compares them (`pipeline.som.Directions`)
    """

    names: list[str]
    labels: list[str]
    cluster: np.ndarray
    runner_up: np.ndarray
    confidence: np.ndarray
    distance: np.ndarray
    outlier: np.ndarray
    unit: np.ndarray
    direction: np.ndarray
    medoid: dict[int, int] = field(default_factory=dict)  # cluster -> image
    order: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))  # images by cluster, medoid first

    def __post_init__(self) -> None:
        typical = typicality(self.direction, self.cluster)
        self.order = np.lexsort((-typical, self.cluster))
        first = np.unique(self.cluster[self.order], return_index=True)[1]
        self.medoid = {int(self.cluster[i]): int(i) for i in self.order[first]}

    def members(self, cluster: int) -> np.ndarray:
        """The images of a cluster, the medoid first, then by distance to it: int64 (n_members,)."""
        return self.order[self.cluster[self.order] == cluster]


def typicality(direction: np.ndarray, cluster: np.ndarray) -> np.ndarray:
    """How near each image is to the centre of its cluster: float32 (n_images,), larger is nearer.

    The nearest one is the medoid, the image with the least sum of squared distances to the others.
    direction : float32 ndarray of shape (n_images, n_features); cluster : int ndarray of shape (n_images,)
    """
    _, index = np.unique(cluster, return_inverse=True)
    centres = centres_of(direction, index)
    return -((direction - centres[index]) ** 2).sum(axis=1)


def centres_of(direction: np.ndarray, index: np.ndarray) -> np.ndarray:
    """Mean of the rows with each index 0, 1, ...: float32 (n_groups, n_features)."""
    sums = np.zeros((index.max() + 1, direction.shape[1]), np.float64)
    np.add.at(sums, index, direction)
    return (sums / np.bincount(index)[:, None]).astype(np.float32)


def read_found() -> Found:
    """Read clusters.csv with the features and the labels; raises UserError where they do not fit together."""
    data_dir = files.data_dir(config.DATASET)
    path = data_dir / "clusters.csv"
    columns = ("image", "cluster", "confidence", "unit_row", "unit_col", "distance", "runner_up", "outlier")
    rows = files.read_csv(path, columns, STAGE_04)
    features, img_paths = files.read_features(config.DATASET)
    files.check_in_step(path, data_dir / "clustering.json", [data_dir / "features.npy"], STAGE_04)
    if [row["image"] for row in rows] != img_paths:
        raise settings.UserError(f"{files.shown(path)} has other images than features.npy: run {STAGE_04} again")
    labels = {}
    if (data_dir / "labels_true.csv").exists():
        label_rows = files.read_csv(data_dir / "labels_true.csv", ["image", "label"], "00.make_labels_true.py")
        labels = {row["image"]: row["label"] for row in label_rows}
    n_cols = read_som()["u_matrix"].shape[1]
    try:
        return Found(
            names=img_paths,
            labels=[labels.get(name, "") for name in img_paths],
            cluster=np.array([int(row["cluster"]) for row in rows]),
            runner_up=np.array([int(row["runner_up"] or -1) for row in rows]),
            confidence=np.array([float(row["confidence"]) for row in rows]),
            distance=np.array([float(row["distance"]) for row in rows]),
            outlier=np.array([row["outlier"] == "1" for row in rows]),
            unit=np.array([int(row["unit_row"]) * n_cols + int(row["unit_col"]) for row in rows]),
            direction=Directions(features)[:],
        )
    except ValueError as error:
        raise settings.UserError(f"{files.shown(path)}: {error}: run {STAGE_04} again") from None


@cache
def _som_arrays(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}


def read_som() -> dict[str, np.ndarray]:
    """The arrays of som.npz; raises UserError where it is missing, damaged or lacks one."""
    path = files.require(files.data_dir(config.DATASET) / "som.npz", STAGE_04)
    try:
        arrays = _som_arrays(path)
    except (ValueError, OSError, EOFError, KeyError):
        arrays = {}
    names = ("weights", "topology", "u_matrix", "hits", "unit_cluster", "cut_granularity", "cut_clusters")
    if missing := [name for name in names if name not in arrays]:
        raise settings.UserError(f"{files.shown(path)} is damaged or lacks {missing[0]}: run {STAGE_04} again")
    return arrays


# ---- the map's geometry ----------------------------------------------------------------------------


@dataclass
class Grid:
    """Where the units of the map lie, x to the right and y down, one unit apart.

    centre : float64 (n_units, 2); polygon : float64 (n_units, n_corners, 2)
    pair : int64 (n_pairs, 2), neighbouring units; edge : float64 (n_pairs, 2, 2), the ends of the edge they share
    ridge : float64 (n_pairs,), distance between their weights
    """

    rows: int
    cols: int
    centre: np.ndarray
    polygon: np.ndarray
    pair: np.ndarray
    edge: np.ndarray
    ridge: np.ndarray


def grid_of(weights: np.ndarray, topology: str) -> Grid:
    """The grid of a map with `weights` of shape (rows, cols, n_features), topology "rectangular" or "hexagonal".

    A hexagonal map is MiniSom's: every second column is half a unit higher, columns are sqrt(3)/2 apart.
    """
    from minisom import MiniSom

    rows, cols = weights.shape[:2]
    down, right = MiniSom(rows, cols, 1, topology=topology).get_euclidean_coordinates()
    centre = np.stack([right.ravel(), down.ravel()], axis=1)  # (n_units, 2)
    n_corners = 6 if topology == "hexagonal" else 4
    turn = 0 if topology == "hexagonal" else np.pi / 4
    angle = turn + np.arange(n_corners) * 2 * np.pi / n_corners
    radius = 0.5 / np.cos(np.pi / n_corners)
    polygon = centre[:, None] + radius * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    index = np.arange(rows * cols).reshape(rows, cols)
    steps = [(0, 1), (1, 0), (1, 1), (1, -1)]
    pair = np.concatenate(
        [
            np.stack([index[: rows - r, max(0, -c) : cols - max(0, c)].ravel(),
                      index[r:, max(0, c) : cols + min(0, c)].ravel()], axis=1)
            for r, c in steps
        ]
    )  # fmt: skip
    gap = centre[pair[:, 1]] - centre[pair[:, 0]]
    near = np.hypot(*gap.T) < 1.01
    pair, gap = pair[near], gap[near]
    across = np.stack([-gap[:, 1], gap[:, 0]], axis=1) * radius * np.sin(np.pi / n_corners)
    middle = (centre[pair[:, 0]] + centre[pair[:, 1]]) / 2
    flat = weights.reshape(rows * cols, -1)
    ridge = np.array([np.linalg.norm(flat[a] - flat[b]) for a, b in pair])
    return Grid(rows, cols, centre, polygon, pair, np.stack([middle - across, middle + across], axis=1), ridge)


def typical_of_units(found: Found, n_units: int) -> np.ndarray:
    """The image nearest to each unit's weights: int64 (n_units,), -1 for a unit without images."""
    typical = np.full(n_units, -1)
    for image in np.lexsort((np.arange(len(found.names)), -found.distance)):
        typical[found.unit[image]] = image
    return typical


# ---- photographs -----------------------------------------------------------------------------------


def thumbnail(path: Path, side: int) -> np.ndarray | None:
    """A photograph within a white square: uint8 RGB (side, side, 3), or None where it can't be read."""
    try:
        picture = small_jpeg(path, side) or Image.fromarray(images.read_bgr(path)[..., ::-1])
        picture = ImageOps.pad(picture, (side, side), Image.Resampling.LANCZOS, color="white")
    except images.ImageError:
        return None
    return np.asarray(picture)


def small_jpeg(path: Path, side: int) -> Image.Image | None:
    """A JPEG file decoded at the smallest scale that is still `side` pixels, upright; None for anything else.

    Decoding at a scale of 1/8 is what makes thumbnails of large photographs quick.
    """
    try:
        with Image.open(path, formats=("JPEG",)) as picture:
            if picture.mode not in ("RGB", "L") or picture.width * picture.height > images.MAX_PIXELS:
                return None
            picture.draft("RGB", (2 * side, 2 * side))
            return ImageOps.exif_transpose(picture.convert("RGB"))
    except Exception:  # damaged in some way: the careful reader says how
        return None


def read_thumbnails(names: Sequence[str], side: int, handle: io.IOBase) -> tuple[np.ndarray, list[int]]:
    """Thumbnails of the photographs as they came, or of the cleaned ones where only these are there.

    Returns a memory map in the open file `handle`, uint8 RGB (n_images, side, side, 3), and the images that could not
    be read: these are grey.
    """
    tiles = np.memmap(handle, np.uint8, "w+", shape=(len(names), side, side, 3))
    folders = [files.raw_img_dir(config.DATASET), files.img_dir(config.DATASET)]

    def read(i: int) -> bool:
        path = next((folder / names[i] for folder in folders if (folder / names[i]).is_file()), None)
        tile = thumbnail(path, side) if path else None
        tiles[i] = 200 if tile is None else tile
        return tile is not None

    progress = tqdm(range(len(names)), desc="thumbnails", unit="image", disable=None)
    good = joblib.Parallel(settings.n_jobs(), backend="threading")(joblib.delayed(read)(i) for i in progress)
    return tiles, [i for i, ok in enumerate(good) if not ok]


# ---- text in any script ----------------------------------------------------------------------------


@cache
def _charmap(path: str) -> frozenset[int]:
    from matplotlib import ft2font

    return frozenset(ft2font.FT2Font(path).get_charmap())


@cache
def fonts_for(characters: frozenset[str]) -> tuple[str, ...]:
    """Paths of installed fonts that together have the characters, the first one has Latin letters.

    Fonts with Hangul are tried first, then all others; characters that no font has are left out (see `undrawable`).
    """
    from matplotlib import font_manager

    chosen = [font_manager.findfont("DejaVu Sans")]
    missing = {ord(c) for c in characters} - _charmap(chosen[0])
    known = font_manager.fontManager.ttflist
    rank = {name: i for i, name in enumerate(HANGUL_FONTS)}
    regular = [font for font in known if font.style == "normal" and font.weight in (400, "normal", "regular")]
    for font in sorted(regular, key=lambda f: (rank.get(f.name, len(rank)), f.name, f.fname)):
        if not missing:
            break
        try:
            has = missing & _charmap(font.fname)
        except (RuntimeError, OSError):  # a bitmap or damaged font
            continue
        if has:
            chosen.append(font.fname)
            missing -= has
    return tuple(chosen)


def undrawable(texts: Iterable[str]) -> set[str]:
    """The characters of `texts` that no installed font has."""
    characters = frozenset("".join(texts))
    has = set().union(*(_charmap(path) for path in fonts_for(characters)))
    return {c for c in characters if ord(c) not in has}


def draw_text(draw: ImageDraw.ImageDraw, xy: tuple[float, float], text: str, size: int, max_width: float) -> None:
    """Draw one line of text, cut with an ellipsis at `max_width` pixels; each character in a font that has it."""
    runs = [(c, _font_for(c, size)) for c in text]
    widths = [font.getlength(c) for c, font in runs]
    if sum(widths) > max_width:
        dots = _font_for("…", size)
        keep = int(np.searchsorted(np.cumsum(widths), max_width - dots.getlength("…")))
        runs = [*runs[:keep], ("…", dots)]
    x, y = xy
    for c, font in runs:
        draw.text((x, y + size), c, fill="#222222", font=font, anchor="ls")
        x += font.getlength(c)


@cache
def _font_for(character: str, size: int) -> ImageFont.FreeTypeFont:
    paths = fonts_for(frozenset(character))
    return ImageFont.truetype(paths[-1], size)


# ---- pictures --------------------------------------------------------------------------------------


def new_figure(width: float, height: float, texts: Iterable[str] = ()):
    """A matplotlib figure (inches) that draws `texts` in whatever script and gives the same bytes every time."""
    import matplotlib
    from matplotlib import font_manager
    from matplotlib.figure import Figure

    families = []
    for path in fonts_for(frozenset("".join(texts))):
        font_manager.fontManager.addfont(path)
        families.append(font_manager.FontProperties(fname=path).get_name())
    matplotlib.rcParams["font.family"] = families
    matplotlib.rcParams["svg.hashsalt"] = "image-clustering"
    return Figure(figsize=(width, height), layout="constrained")


def save_figure(figure, path: Path) -> list[Path]:
    """Write a figure as .png (150 dots per inch) and .svg, without dates; returns both paths."""
    with files.whole(path) as temporary:
        figure.savefig(temporary, dpi=150, metadata={"Software": None})
    with files.whole(path.with_suffix(".svg")) as temporary:
        figure.savefig(temporary, metadata={"Date": None, "Creator": None})
    return [path, path.with_suffix(".svg")]


def styles_of(positions: np.ndarray) -> list[tuple[str, str]]:
    """A colour and a marker for each group, so that groups of one colour lie far apart.

    positions : float ndarray of shape (n_groups, 2), in the order in which groups choose
    """
    chosen = np.zeros(len(positions), int)
    for i, position in enumerate(positions):
        gaps = np.full(len(COLOURS), np.inf)
        distances = np.hypot(*(positions[:i] - position).T)
        np.minimum.at(gaps, chosen[:i], distances)
        # of colours not used yet the first, else the one whose nearest group is farthest away
        chosen[i] = int(np.argmax(np.where(np.isinf(gaps), np.finfo(float).max, gaps)))
    seen: dict[int, int] = {}
    styles = []
    for colour in chosen:
        styles.append((COLOURS[colour], MARKERS[seen.get(colour, 0) % len(MARKERS)]))
        seen[colour] = seen.get(colour, 0) + 1
    return styles


def stratified_sample(cluster: np.ndarray, n_max: int, seed: int) -> np.ndarray:
    """At most `n_max` images, every cluster with its share and at least one image: sorted int64 (n_sample,).

    Where there are more clusters than `n_max`, the largest are kept.
    """
    if len(cluster) <= n_max:
        return np.arange(len(cluster))
    rng = np.random.default_rng(seed)
    _, index, size = np.unique(cluster, return_inverse=True, return_counts=True)
    share = np.maximum(1, np.floor(size * n_max / len(cluster))).astype(int)
    rank = np.zeros(len(cluster), int)  # place of an image in a random order of its cluster
    shuffled = rng.permutation(len(cluster))
    by_cluster = shuffled[np.argsort(index[shuffled], kind="stable")]
    rank[by_cluster] = np.arange(len(cluster)) - np.repeat(np.cumsum(size) - size, size)
    wanted = np.flatnonzero(rank < share[index])
    # one image each may be more than n_max
    return np.sort(wanted[np.lexsort((wanted, -size[index[wanted]], rank[wanted]))][:n_max])


def tsne(direction: np.ndarray, perplexity: float, seed: int) -> np.ndarray:
    """t-SNE of the images in the plane, float32 (n_images, 2), each axis within -1..1.

    direction : float32 ndarray of shape (n_images, n_features), reduced to 50 principal components first, which
    changes a picture little and its time much. van der Maaten 2014, JMLR 15:3221 (Barnes-Hut).
    """
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    n_images = len(direction)
    if n_images < 5 or np.ptp(direction, axis=0).max() == 0:
        angle = 2 * np.pi * np.arange(n_images) / max(1, n_images)
        return np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)
    n_components = min(50, *direction.shape)
    reduced = PCA(n_components, svd_solver="randomized", random_state=seed).fit_transform(direction)
    plane = TSNE(
        init="pca", perplexity=min(perplexity, (n_images - 1) / 3), random_state=seed, n_jobs=settings.n_jobs()
    ).fit_transform(reduced)
    plane -= (plane.max(axis=0) + plane.min(axis=0)) / 2
    return (plane / max(np.abs(plane).max(), 1e-9)).astype(np.float32)


def matched(labels: Sequence[str], cluster: np.ndarray) -> dict[str, int]:
    """For each model the cluster that stands for it, by the Hungarian method; models without one are left out."""
    from scipy.optimize import linear_sum_assignment

    models, row = np.unique(np.array(labels, np.str_), return_inverse=True)
    clusters, column = np.unique(cluster, return_inverse=True)
    table = np.zeros((len(models), len(clusters)), int)
    np.add.at(table, (row, column), 1)
    return {str(models[r]): int(clusters[c]) for r, c in zip(*linear_sum_assignment(-table), strict=True) if models[r]}


def draw_tsne(found: Found, sample: np.ndarray, plane: np.ndarray, path: Path) -> list[Path]:
    """The t-SNE plane coloured by model and by cluster, or by cluster and by confidence without labels.

    sample : int64 (n_sample,), the images drawn; plane : float32 (n_sample, 2)
    """
    cluster, labels = found.cluster[sample], [found.labels[i] for i in sample]
    clusters, size = np.unique(cluster, return_counts=True)
    clusters = clusters[np.argsort(-size, kind="stable")]
    middle = {int(c): np.median(plane[cluster == c], axis=0) for c in clusters}
    style = dict(zip(middle, styles_of(np.array(list(middle.values()))), strict=True))
    figure = new_figure(20, 10.6, labels)
    left, right = figure.subplots(1, 2)
    known = any(labels)
    if known:
        partner = matched(labels, cluster)
        rest = [m for m in sorted({label for label in labels if label}) if m not in partner]
        by_model = {model: style[c] for model, c in partner.items()} | dict.fromkeys(rest, ("#222222", "+"))
        _scatter(left, plane, labels, by_model, common_prefix(list(by_model)))
        left.set_title(f"true: {len(by_model)} models (black +: no cluster of their own)", fontsize=14)
    else:
        points = left.scatter(*plane.T, c=found.confidence[sample], s=9, cmap="cividis", vmin=0, vmax=1, linewidths=0)
        figure.colorbar(points, ax=left, orientation="horizontal", shrink=0.5, pad=0.01, aspect=40)
        left.set_title("confidence", fontsize=14)
    _scatter(right, plane, [str(c) for c in cluster], {str(c): style[c] for c in style}, 0)
    right.set_title(f"predicted: {len(style)} clusters", fontsize=14)
    for axes in (left, right):
        axes.set(xticks=[], yticks=[], xlim=(-1.04, 1.04), ylim=(-1.04, 1.04), aspect="equal")
    part = "" if len(sample) == len(found.names) else f"; a sample of {len(sample)}, stratified by cluster"
    figure.suptitle(f"t-SNE of {len(found.names)} images of {config.DATASET}{part}", fontsize=16)
    return save_figure(figure, path)


def _scatter(axes, plane: np.ndarray, groups: list[str], style: dict[str, tuple[str, str]], n_cut: int) -> None:
    """Points by group with each group's name, less `n_cut` characters, at its middle."""
    from matplotlib import patheffects

    names = np.array(groups, np.str_)
    halo = [patheffects.withStroke(linewidth=2, foreground="white")]
    font_size = float(np.clip(11 - len(style) / 25, 5, 10))
    if (names == "").any():
        axes.scatter(*plane[names == ""].T, s=5, c="#BBBBBB", linewidths=0)
    for name, (colour, marker) in style.items():
        points = plane[names == name]
        axes.scatter(*points.T, s=16, c=colour, marker=marker, linewidths=0 if marker != "+" else 0.6, alpha=0.85)
    for name in style:
        x, y = np.median(plane[names == name], axis=0)
        text = axes.text(x, y, name[n_cut:], fontsize=font_size, ha="center", va="center", parse_math=False)
        text.set_path_effects(halo)


def common_prefix(names: list[str]) -> int:
    """Length of what all names begin with, when at least three characters of each are left."""
    if len(names) < 2:
        return 0
    first, last = min(names), max(names)
    prefix = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last)))
    return max(0, min(prefix, min(map(len, names)) - 3))


def draw_units(grid: Grid, values: np.ndarray, title: str, label: str, path: Path, som: dict, numbers: bool):
    """The map's units coloured by `values` (n_units,), with cluster borders; `numbers`: each value as a number."""
    from matplotlib import colors
    from matplotlib.collections import LineCollection, PolyCollection

    width = float(np.clip(grid.cols * 0.34, 6, 24))
    figure = new_figure(width, width * (np.ptp(grid.centre[:, 1]) + 1) / (np.ptp(grid.centre[:, 0]) + 1) + 1.2)
    axes = figure.subplots()
    # hit counts: a few units hold most of the images
    norm = colors.PowerNorm(0.5, vmin=0, vmax=max(float(values.max()), 1)) if numbers else None
    cells = PolyCollection(grid.polygon, array=values, cmap="cividis", norm=norm, edgecolors="face", linewidths=0.3)
    axes.add_collection(cells)
    unit_cluster = som["unit_cluster"].ravel()
    border = unit_cluster[grid.pair[:, 0]] != unit_cluster[grid.pair[:, 1]]
    axes.add_collection(LineCollection(grid.edge[border], colors="white", linewidths=2.6))
    axes.add_collection(LineCollection(grid.edge[border], colors="black", linewidths=1.0))
    if numbers:
        bright = norm(values) > 0.55
        size = float(np.clip(10 - grid.cols / 12, 4, 8))
        for unit in np.flatnonzero(values):
            colour = "black" if bright[unit] else "white"
            axes.text(*grid.centre[unit], f"{values[unit]:.0f}", color=colour, fontsize=size, ha="center", va="center")
    low, high = grid.polygon.min(axis=(0, 1)), grid.polygon.max(axis=(0, 1))
    axes.set(xlim=(low[0], high[0]), ylim=(high[1], low[1]), aspect="equal", xticks=[], yticks=[], title=title)
    figure.colorbar(cells, ax=axes, label=label, orientation="horizontal", shrink=0.6, pad=0.02, aspect=40)
    return save_figure(figure, path)


def draw_sizes(found: Found, path: Path) -> list[Path]:
    """Sizes of the clusters, and of the models where they are known, largest first."""
    figure = new_figure(9, 4.5)
    axes = figure.subplots()
    kinds = [("clusters", found.cluster[found.cluster >= 0], COLOURS[0], "-")]
    if any(found.labels):
        kinds.append(("models (true)", np.array([label for label in found.labels if label]), COLOURS[3], "--"))
    for name, groups, colour, line in kinds:
        sizes = np.sort(np.unique(groups, return_counts=True)[1])[::-1]
        steps = np.arange(len(sizes) + 1)
        axes.stairs(
            sizes, steps, label=f"{len(sizes)} {name}", color=colour, linestyle=line, linewidth=2, baseline=None
        )
    axes.set(xlabel="cluster or model, by size", ylabel="images", xlim=(0, None), ylim=(0, None))
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    axes.set_title(f"Sizes, {config.DATASET}", parse_math=False)
    return save_figure(figure, path)


def draw_history(rows: list[dict[str, str]], path: Path) -> list[Path]:
    """Training of the network: every numeric column of history.csv over the epochs, losses and others apart."""
    columns = {}
    for name in rows[0]:
        try:
            columns[name] = [float(row[name]) if row[name] else np.nan for row in rows]
        except ValueError:
            continue
    columns = {k: v for k, v in columns.items() if k not in ("epoch", "seconds", "learning_rate") and k}
    losses = [name for name in columns if "loss" in name]
    panels = [group for group in (losses, [name for name in columns if name not in losses]) if group]
    figure = new_figure(6 * max(1, len(panels)), 4.2, columns)
    for axes, group in zip(figure.subplots(1, max(1, len(panels)), squeeze=False)[0], panels, strict=False):
        for i, name in enumerate(group):
            line = ("-", "--", ":", "-.")[i % 4]
            axes.plot(
                range(1, len(rows) + 1), columns[name], line, color=COLOURS[i % 7], label=name, linewidth=2, marker="."
            )
        axes.set(xlabel="epoch", title="loss" if group == losses else "scores")
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
    return save_figure(figure, path)


def draw_sheet(title: str, tiles: Sequence[np.ndarray], captions: Sequence[str], n_cols: int, path: Path) -> list[Path]:
    """A sheet of photographs with a caption below each, as .png and .svg (one embedded JPEG, text as text).

    tiles : uint8 RGB arrays of shape (TILE, TILE, 3); captions : as many texts, of any script
    """
    n_rows = -(-len(tiles) // n_cols)
    step, line, top, edge = TILE + 8, 20, 34, 8
    width, height = edge + n_cols * step, top + n_rows * (step + line)
    sheet = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(sheet)
    places = [(edge + i % n_cols * step, top + i // n_cols * (step + line)) for i in range(len(tiles))]
    for (x, y), tile in zip(places, tiles, strict=True):
        sheet.paste(Image.fromarray(np.asarray(tile)), (x, y))
    fit = f' textLength="{TILE}" lengthAdjust="spacingAndGlyphs"'  # a longer caption is squeezed
    texts = [
        f'<text x="{x}" y="{y + TILE + 13}" font-size="11"{fit if len(c) > 20 else ""}>{escape(c)}</text>'
        for (x, y), c in zip(places, captions, strict=True)
    ]
    buffer = io.BytesIO()
    sheet.save(buffer, "JPEG", quality=88)
    for (x, y), caption in zip(places, captions, strict=True):
        draw_text(draw, (x, y + TILE + 2), caption, 11, TILE)
    draw_text(draw, (edge, 6), title, 16, width - 2 * edge)
    with files.whole(path) as temporary:
        sheet.save(temporary, "PNG", compress_level=6)
    write_svg(path.with_suffix(".svg"), width, height, buffer.getvalue(), [
        f'<text x="{edge}" y="22" font-size="16">{escape(title)}</text>', *texts,
    ])  # fmt: skip
    return [path, path.with_suffix(".svg")]


def write_svg(path: Path, width: int, height: int, jpeg: bytes, shapes: Iterable[str]) -> None:
    """Write an SVG picture: an embedded JPEG of the whole size with vector shapes above."""
    with files.whole(path) as temporary:
        temporary.write_text(
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
            'font-family="sans-serif" fill="#222">\n'
            f'<image width="{width}" height="{height}" href="data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"/>\n'
            + "\n".join(shapes)
            + "\n</svg>\n",
            encoding="utf-8",
        )


def draw_photo_map(grid: Grid, som: dict, typical: np.ndarray, tiles: np.ndarray, path: Path) -> list[Path]:
    """Each unit's most typical photograph, ridges of the U-matrix between them, cluster borders, hits."""
    side = int(np.clip(2800 // max(grid.cols, grid.rows), 24, TILE))
    low = grid.polygon.min(axis=(0, 1))
    width, height = (np.ceil((grid.polygon.max(axis=(0, 1)) - low) * side).astype(int) + 1).tolist()
    sheet = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(sheet)
    inner = int(side * (0.76 if grid.polygon.shape[1] == 6 else 0.92))
    for unit in np.flatnonzero(typical >= 0):
        x, y = ((grid.centre[unit] - low) * side - inner / 2).astype(int)
        sheet.paste(Image.fromarray(tiles[typical[unit]]).resize((inner, inner), Image.Resampling.LANCZOS), (x, y))
    buffer = io.BytesIO()
    sheet.save(buffer, "JPEG", quality=85)
    unit_cluster, hits = som["unit_cluster"].ravel(), som["hits"].ravel()
    border = unit_cluster[grid.pair[:, 0]] != unit_cluster[grid.pair[:, 1]]
    strength = grid.ridge / max(float(grid.ridge.max(initial=0)), 1e-9)
    shapes = []
    for i in np.lexsort((strength, border)):
        (x1, y1), (x2, y2) = (grid.edge[i] - low) * side
        shade = int(235 - 150 * strength[i])
        colour = (213, 94, 0) if border[i] else (shade, shade, shade)
        thick = max(1, round(side * (0.07 if border[i] else 0.02 + 0.05 * strength[i])))
        draw.line([(x1, y1), (x2, y2)], fill=colour, width=thick)
        line = f'<path d="M{x1:.1f} {y1:.1f}L{x2:.1f} {y2:.1f}" stroke="rgb{colour}" stroke-width="{thick}"'
        shapes.append(f'{line} stroke-linecap="round"/>')
    if side >= 40:
        for unit in np.flatnonzero(hits > 1):
            x, y = (grid.centre[unit] - low) * side + (-inner / 2 + 1, inner / 2)
            text = str(int(hits[unit]))
            box = (x, y - 11, x + 7 * len(text) + 2, y)
            draw.rectangle(box, fill="white")
            draw_text(draw, (x + 1, y - 12), text, 10, 60)
            shapes.append(
                f'<text x="{x + 1:.1f}" y="{y - 2:.1f}" font-size="10" paint-order="stroke" stroke="#fff" stroke-width="3">{text}</text>'
            )
    with files.whole(path) as temporary:
        sheet.save(temporary, "PNG", compress_level=6)
    write_svg(path.with_suffix(".svg"), width, height, buffer.getvalue(), shapes)
    return [path, path.with_suffix(".svg")]


def for_sheet(found: Found, cluster: int, n_max: int) -> list[int]:
    """The images of a cluster's contact sheet: the most typical ones and, as the last quarter, the most doubtful."""
    members = found.members(cluster)
    if len(members) <= n_max:
        return members.tolist()
    doubtful = members[np.argsort(found.confidence[members], kind="stable")][: n_max // 4]
    typical = [int(i) for i in members if i not in set(doubtful.tolist())][: n_max - len(doubtful)]
    return typical + doubtful.tolist()


def draw_contact_sheets(found: Found, tiles: np.ndarray, folder: Path) -> list[Path]:
    """A sheet for each of the CONTACT_SHEETS_MAX largest clusters, medoid first."""
    clusters, sizes = np.unique(found.cluster, return_counts=True)
    largest = clusters[np.argsort(-sizes, kind="stable")][: config.CONTACT_SHEETS_MAX]

    def sheet(cluster: int) -> list[Path]:
        shown, size = for_sheet(found, cluster, config.CONTACT_SHEET_IMAGES), len(found.members(cluster))
        title = f"Cluster {cluster}: {size} images" + (f", {len(shown)} shown" if len(shown) < size else "")
        title += f", mean confidence {found.confidence[found.cluster == cluster].mean():.2f}"
        captions = [found.names[i] for i in shown]
        return draw_sheet(title, [tiles[i] for i in shown], captions, 10, folder / f"{cluster}.png")

    fonts_for(frozenset("".join(found.names)))
    sheets = joblib.Parallel(settings.n_jobs(), backend="threading")(joblib.delayed(sheet)(int(c)) for c in largest)
    return [path for paths in sheets for path in paths]


def draw_before_after(names: Sequence[str], path: Path, n_shown: int = 24) -> list[Path]:
    """Photographs as they came, each beside its cleaned one: evenly taken from all that stage 01 changed."""
    raw_dir, img_dir = files.raw_img_dir(config.DATASET), files.img_dir(config.DATASET)
    both = [name for name in names if (raw_dir / name).is_file() and (img_dir / name).is_file()]
    both = [both[i] for i in np.unique(np.linspace(0, len(both) - 1, min(n_shown, len(both))).astype(int))]
    tiles, captions = [], []
    for name in both:
        pair = [thumbnail(folder / name, TILE) for folder in (raw_dir, img_dir)]
        if all(tile is not None for tile in pair):
            tiles += pair
            captions += [name, "background removed"]
    if not tiles:
        return []
    return draw_sheet(f"{config.DATASET}: as they came, and after stage 01", tiles, captions, 8, path)


# ---- hand-over to other tools ----------------------------------------------------------------------


def spreadsheet_cell(text: str) -> str:
    """`text` such that no spreadsheet takes it for a formula.

    >>> spreadsheet_cell("=1+1.jpg")
    "'=1+1.jpg"
    """
    return "'" + text if text[:1] in ("=", "+", "-", "@", "\t", "\r", "＝", "＋", "－", "＠") else text


def write_spreadsheet(found: Found, path: Path) -> None:
    """clusters.csv for people: sorted by cluster, with the true label, safe to open in a spreadsheet."""
    import csv

    with files.whole(path) as temporary:
        encoding = "utf-8-sig" if config.SPREADSHEET_BOM else "utf-8"
        with temporary.open("w", encoding=encoding, newline="") as handle:
            writer = csv.writer(handle)
            writer.writerow(["cluster", "image", "label", "confidence", "runner_up", "outlier", "medoid"])
            for i in found.order:
                cluster = int(found.cluster[i])
                runner_up = "" if found.runner_up[i] < 0 else int(found.runner_up[i])
                cells = [spreadsheet_cell(found.names[i]), spreadsheet_cell(found.labels[i])]
                confidence, flags = (
                    f"{found.confidence[i]:.4f}",
                    [int(found.outlier[i]), int(found.medoid[cluster] == i)],
                )
                writer.writerow([cluster, *cells, confidence, runner_up, *flags])


def write_projector(found: Found, tiles: np.ndarray, folder: Path, n_dimensions: int = 128) -> list[Path]:
    """The folder that the TensorFlow projector loads: vectors, metadata, sprite and configuration.

    Vectors are turned onto their `n_dimensions` main axes where they are longer, which the projector would do anyway:
    text of 10,000 x 2,048 numbers is more than a browser takes. The sprite is square and at most 8,192 pixels wide,
    the projector's limits.
    """
    from sklearn.decomposition import PCA

    vectors = found.direction
    if min(vectors.shape) > n_dimensions:
        pca = PCA(n_dimensions, svd_solver="randomized", random_state=config.RANDOM_SEED)
        vectors = pca.fit_transform(vectors)
    paths = [
        folder / name
        for name in ("tensors.tsv", "metadata.tsv", "sprite.jpg", "projector_config.json", "projector_config.pbtxt")
    ]
    with files.whole(paths[0]) as temporary:
        np.savetxt(temporary, vectors, fmt="%.5g", delimiter="\t")
    clean = [" ".join(name.split()) for name in found.names]
    rows = [
        f"{name}\t{c}\t{confidence:.4f}\t{' '.join(label.split())}"
        for name, c, confidence, label in zip(clean, found.cluster, found.confidence, found.labels, strict=True)
    ]
    files.write_lines(paths[1], ["image\tcluster\tconfidence\tlabel", *rows])
    n_side = int(np.ceil(np.sqrt(len(tiles))))
    side = int(min(64, 8192 // n_side))
    sprite = Image.new("RGB", (n_side * side, n_side * side), "white")
    for i in range(len(tiles)):
        small = Image.fromarray(tiles[i]).resize((side, side), Image.Resampling.BILINEAR, reducing_gap=2)
        sprite.paste(small, (i % n_side * side, i // n_side * side))
    with files.whole(paths[2]) as temporary:
        sprite.save(temporary, "JPEG", quality=80)
    files.write_json(paths[3], {"embeddings": [{
        "tensorName": config.DATASET, "tensorShape": list(vectors.shape), "tensorPath": "tensors.tsv",
        "metadataPath": "metadata.tsv", "sprite": {"imagePath": "sprite.jpg", "singleImageDim": [side, side]},
    }]})  # fmt: skip
    name = json.dumps(config.DATASET, ensure_ascii=False)
    files.write_lines(paths[4], [
        "embeddings {", f"  tensor_name: {name}", '  tensor_path: "tensors.tsv"', '  metadata_path: "metadata.tsv"',
        '  sprite { image_path: "sprite.jpg"', f"    single_image_dim: {side} single_image_dim: {side} }}", "}",
    ])  # fmt: skip
    return paths


def write_cluster_folders(found: Found, folder: Path) -> tuple[int, int]:
    """Put each cluster's photographs into `folder/<id>/`, by CLUSTER_FOLDERS; "none" removes what was put there.

    What this stage put there before (`.placed.json`) is removed first, as clusters change; a file that was changed
    since, or that someone else put there, stays, and a photograph of the same name gets a number behind its name.
    Returns how many photographs were placed and how many files were left alone.
    """
    manifest = folder / ".placed.json"
    n_left = remove_placed(folder, manifest)
    if config.CLUSTER_FOLDERS == "none":
        return 0, n_left
    source = (files.raw_img_dir if config.CLUSTER_FOLDERS_FROM == "raw_img" else files.img_dir)(config.DATASET)
    placed: dict[str, list] = {}
    try:
        for i in tqdm(found.order, desc="folders", unit="image", disable=None):
            origin = source / found.names[i]
            if not origin.is_file():
                continue
            target = free_path(folder / str(found.cluster[i]) / found.names[i].replace("/", "__"))
            target.parent.mkdir(parents=True, exist_ok=True)
            place(origin, target, config.CLUSTER_FOLDERS)
            placed[target.relative_to(folder).as_posix()] = identity(target)
    finally:
        if placed:
            files.write_json(manifest, placed)
    return len(placed), n_left


def place(origin: Path, target: Path, how: str) -> None:
    """Make `target` (which does not exist) a hard link, symbolic link or copy of `origin`; a copy where it can't be."""
    try:
        if how == "hardlink":
            os.link(origin.resolve(), target)
            return
        if how == "symlink":
            target.symlink_to(os.path.relpath(origin, target.parent))
            return
    except FileExistsError:
        raise
    except OSError:  # another file system, or one without links
        pass
    with origin.open("rb") as source, target.open("xb") as copy:
        shutil.copyfileobj(source, copy)


def free_path(path: Path) -> Path:
    """`path`, or with " (2)", " (3)", ... behind its stem where something of that name is there."""
    number, candidate = 1, path
    while os.path.lexists(candidate):
        number += 1
        candidate = path.with_name(f"{path.stem} ({number}){path.suffix}")
    return candidate


def identity(path: Path) -> list:
    """What tells whether the file at `path` is still the one that was placed: link target, or size and time."""
    if path.is_symlink():
        return ["link", os.readlink(path)]  # noqa: PTH115 (as text, unresolved)
    status = path.stat()
    return [status.st_size, status.st_mtime_ns]


def remove_placed(folder: Path, manifest: Path) -> int:
    """Remove the files that the manifest lists and that are still as they were, and folders left empty.

    Returns the number of files in the cluster folders that were left alone.
    """
    record = json.loads(manifest.read_text(encoding="utf-8")) if manifest.exists() else {}
    for name, was in record.items():
        path = folder / name
        if os.path.lexists(path) and identity(path) == was:
            path.unlink()
    manifest.unlink(missing_ok=True)
    kept = 0
    for inner in sorted(folder.glob("*")) if folder.is_dir() else ():
        if inner.is_dir() and not inner.is_symlink():
            kept += sum(1 for _ in inner.iterdir())
            if not any(inner.iterdir()):
                inner.rmdir()
    return kept


# ---- what the report shows -------------------------------------------------------------------------


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
    """Pairs of clusters that may be one model, the likeliest first.

    Clusters are compared by their centres: the distance between two centres, relative to how far the images of both
    lie from their centre. Of each pair the medoids are shown. `likeness` is 1 for equal centres, 0 where the distance
    is that of two clusters that do not touch.
    """
    clusters, index = np.unique(found.cluster, return_inverse=True)
    if len(clusters) < 2:
        return []
    centres = centres_of(found.direction, index)  # (n_clusters, n_features)
    spread = np.bincount(index, ((found.direction - centres[index]) ** 2).sum(axis=1)) / np.bincount(index)
    squared = np.maximum((centres**2).sum(axis=1)[:, None] + (centres**2).sum(axis=1) - 2 * centres @ centres.T, 0)
    ratio = squared / np.maximum(squared + spread[:, None] + spread, 1e-9)
    first, second = np.triu_indices(len(clusters), 1)
    order = np.argsort(ratio[first, second], kind="stable")[:n_max]
    return [
        {
            "clusters": [int(clusters[a]), int(clusters[b])],
            "images": [found.medoid[int(clusters[a])], found.medoid[int(clusters[b])]],
            "likeness": float(1 - ratio[a, b]),
        }
        for a, b in zip(first[order], second[order], strict=True)
    ]


def likely_splits(found: Found, n_max: int = 30) -> list[dict]:
    """Clusters that may be two models, the likeliest first: each cut in two (2-means), if both parts hold 2 images.

    `gap` is the share of the cluster's spread that the cut explains, 0..1. Of each part the medoid is shown.
    """
    result = []
    for cluster in np.unique(found.cluster).tolist():
        members = found.members(cluster)
        if len(members) < 4:
            continue
        rows = found.direction[members]
        part = two_means(rows)
        sizes = np.bincount(part, minlength=2)
        total = ((rows - rows.mean(axis=0)) ** 2).sum()
        if sizes.min() < 2 or total < 1e-9:
            continue
        within = ((rows - centres_of(rows, part)[part]) ** 2).sum()
        nearness = typicality(rows, part)
        heads = [int(members[np.flatnonzero(part == p)[np.argmax(nearness[part == p])]]) for p in (0, 1)]
        gap = float(1 - within / total)
        result.append({"cluster": cluster, "images": heads, "sizes": sizes.tolist(), "gap": gap})
    return sorted(result, key=lambda item: (-item["gap"], item["cluster"]))[:n_max]


def two_means(rows: np.ndarray, n_rounds: int = 20) -> np.ndarray:
    """Cut rows (n, n_features) in two by k-means, begun at the sign of the main axis: int64 (n,), 0 or 1."""
    centred = rows - rows.mean(axis=0)
    axis = np.linalg.svd(centred @ centred.T)[0][:, 0] if len(rows) <= 500 else centred @ centred[0]
    part = (axis > np.median(axis)).astype(np.int64)
    for _ in range(n_rounds):
        if len(np.unique(part)) < 2:
            break
        a, b = centres_of(rows, part)
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


def run_facts(clustering: dict, evaluation: dict) -> dict:
    """How the result was made: stages with seconds and settings, versions, weights, skipped images."""
    data_dir, model_dir = files.data_dir(config.DATASET), files.model_dir(config.TRAIN_DATASET)
    records = [data_dir / "labels_true.json", data_dir / "preprocess.json", model_dir / "feature_network.json",
               data_dir / "features.json", data_dir / "clustering.json",
               files.result_dir(config.DATASET) / "evaluation.json"]  # fmt: skip
    stages, used = [], {}
    for path in records:
        if record := files.read_record(path):
            stages.append({"stage": record["made_from"].get("stage"), "seconds": record.get("seconds")})
            used |= record["made_from"].get("settings") or {}
    features_record = files.read_record(data_dir / "features.json") or {}
    packages = [
        "numpy",
        "scipy",
        "scikit-learn",
        "opencv-python-headless",
        "pillow",
        "tensorflow",
        "keras",
        "minisom",
        "igraph",
        "matplotlib",
    ]
    versions = {}
    for package in packages:
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


def changed_settings(used: dict[str, object]) -> list[dict]:
    """The settings that differ from the defaults (`pipeline/default_settings.json`), as the stages used them."""
    defaults = json.loads((TEMPLATE_DIR.parent / "default_settings.json").read_text(encoding="utf-8"))
    now = {name: getattr(config, name) for name in settings.names()} | used
    return [
        {"name": name, "value": repr(value), "default": repr(defaults.get(name))}
        for name, value in now.items()
        if name in defaults
        and value != defaults[name]
        and list(value if isinstance(value, tuple) else [value]) != defaults[name]
    ]


def sprite_plan(n_images: int, budget: float, bytes_per_pixel: float, largest: int) -> tuple[int, int]:
    """Side of a thumbnail in pixels and number of thumbnails that fit into `budget` bytes.

    Thumbnails first get smaller, down to 40 pixels, then fewer. Base64 makes 4 characters of 3 bytes.
    """
    side = int(min(largest, np.sqrt(budget * 0.75 / (max(1, n_images) * bytes_per_pixel))))
    side = max(min(40, largest), side // 4 * 4)
    return side, int(min(n_images, budget * 0.75 / (side * side * bytes_per_pixel)))


def sprites_of(tiles: np.ndarray, order: np.ndarray, side: int, n_across: int = 10) -> list[bytes]:
    """WebP pictures of `n_across` x `n_across` thumbnails each, in the given order of images.

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
    return joblib.Parallel(settings.n_jobs(), backend="threading")(joblib.delayed(sprite)(part) for part in parts)


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
        },
        "tsne": plane,
    }


def earlier_corrections() -> list[list[str]]:
    """The rows of corrections.csv as it is now, so that a download from the report keeps them."""
    path = files.data_dir(config.DATASET) / "corrections.csv"
    if not path.exists():
        return []
    columns = ["image_a", "image_b", "relation"]
    return [[row[name] for name in columns] for row in files.read_csv(path, columns, "the review list of report.html")]


def write_report(context: dict, data: dict, sprites: list[bytes], sprite_facts: dict, path: Path) -> None:
    """Render the page: everything inside, its own script the only one that may run, no request to anywhere."""
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
    page = environment.get_template("report.html").render(
        **context,
        script=script,
        style=style,
        digest=digest,
        data=embedded(data | {"sprites": sprite_facts}),
        sprites=[base64.b64encode(sprite).decode() for sprite in sprites],
    )
    with files.whole(path) as temporary:
        temporary.write_text(page, encoding="utf-8", newline="\n")


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


def summary_facts(found: Found, clustering: dict, evaluation: dict, clusters: list[dict]) -> dict:
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
    }


def draw_pictures(
    found: Found, grid: Grid, som: dict, typical: np.ndarray, tiles: np.ndarray
) -> tuple[list[Path], dict]:
    """Draw all pictures; returns their paths, and the t-SNE plane for the report."""
    folder = files.result_dir(config.DATASET)
    sample = stratified_sample(found.cluster, config.TSNE_MAX_IMAGES, config.RANDOM_SEED)
    plane = tsne(found.direction[sample], config.TSNE_PERPLEXITY, config.RANDOM_SEED)
    paths = draw_tsne(found, sample, plane, folder / "tsne.png")
    u_matrix, hits = som["u_matrix"].ravel().astype(float), som["hits"].ravel().astype(float)
    paths += draw_units(grid, u_matrix, f"U-matrix, {config.DATASET}", "mean distance to the neighbouring units",
                        folder / "u_matrix.png", som, numbers=False)  # fmt: skip
    paths += draw_units(
        grid, hits, f"Images of each unit, {config.DATASET}", "images", folder / "hit_map.png", som, numbers=True
    )
    paths += draw_photo_map(grid, som, typical, tiles, folder / "photo_map.png")
    paths += draw_sizes(found, folder / "sizes.png")
    paths += draw_before_after(found.names, folder / "before_after.png")
    history_path = files.model_dir(config.TRAIN_DATASET) / "history.csv"
    if history_path.exists() and (rows := files.read_csv(history_path, [], "02.feature_network_fine_tuning.py")):
        paths += draw_history(rows, folder / "training_history.png")
    paths += draw_contact_sheets(found, tiles, folder / "contact_sheets")
    return paths, {"images": sample.tolist(), "xy": np.round(plane, 4).tolist()}


def report(
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
    write_report(facts, data, sprites, {"side": side, "across": 10, "images": order.tolist()}, path)
    return path


def main() -> None:
    begin = time.perf_counter()
    data_dir, result_dir = files.data_dir(config.DATASET), files.result_dir(config.DATASET)
    clustering = files.read_json(data_dir / "clustering.json", STAGE_04)
    evaluation_path, record_path = result_dir / "evaluation.json", result_dir / "report.json"
    evaluation = files.read_json(evaluation_path, STAGE_05)
    files.check_in_step(
        evaluation_path, evaluation_path, [data_dir / "clusters.csv", data_dir / "labels_true.csv"], STAGE_05
    )
    found, som = read_found(), read_som()

    input_paths = [data_dir / name for name in (
        "clusters.csv", "som.npz", "clustering.json", "features.npy", "img_paths.txt", "labels_true.csv", "skipped.csv",
        "corrections.csv", "preprocess.csv")]  # fmt: skip
    input_paths += [
        evaluation_path,
        files.model_dir(config.TRAIN_DATASET) / "history.csv",
        *sorted(TEMPLATE_DIR.iterdir()),
    ]
    inputs = {files.shown(path): files.fingerprint_file(path) for path in input_paths}
    for folder in (files.raw_img_dir(config.DATASET), files.img_dir(config.DATASET)):
        inputs[files.shown(folder)] = files.fingerprint_folder(folder, found.names)
    origin = files.made_from(__file__, inputs, [
        "DATASET", "RANDOM_SEED", "TSNE_MAX_IMAGES", "TSNE_PERPLEXITY", "CONTACT_SHEET_IMAGES", "CONTACT_SHEETS_MAX",
        "REPORT_MAX_MB", "REPORT_THUMBNAIL", "CLUSTER_FOLDERS", "CLUSTER_FOLDERS_FROM", "SPREADSHEET_BOM", "PROJECTOR",
    ])  # fmt: skip
    if files.up_to_date(record_path, origin):
        files.unchanged([result_dir / "report.html"])
        return

    if lost := undrawable([*found.names, *found.labels]):
        print(f"warning: no installed font has {''.join(sorted(lost))[:20]}: these characters are boxes in the pictures, "
              "not in report.html (on Debian and Ubuntu: apt install fonts-nanum)")  # fmt: skip
    grid = grid_of(som["weights"], str(som["topology"]))
    typical = typical_of_units(found, grid.rows * grid.cols)
    with tempfile.TemporaryFile() as handle:
        tiles, unreadable = read_thumbnails(found.names, TILE, handle)
        outputs, plane = draw_pictures(found, grid, som, typical, tiles)
        write_spreadsheet(found, result_dir / "clusters_spreadsheet.csv")
        if config.PROJECTOR:
            write_projector(found, tiles, result_dir / "projector")
        n_placed, n_kept = write_cluster_folders(found, result_dir / "clusters")
        clusters = cluster_table(found)
        facts = {
            "dataset": config.DATASET,
            "clustering": clustering,
            "evaluation": evaluation,
            "summary": summary_facts(found, clustering, evaluation, clusters),
            "worst": worst_with_images(found, evaluation),
            "run": run_facts(clustering, evaluation),
            "unreadable": [found.names[i] for i in unreadable],
            "sizes": {"clusters": sorted((row["size"] for row in clusters), reverse=True),
                      "models": sorted(np.unique([v for v in found.labels if v], return_counts=True)[1].tolist(), reverse=True)},
        }  # fmt: skip
        outputs.append(report(found, grid, som, typical, tiles, plane, facts))
        del tiles
    seconds = time.perf_counter() - begin
    outputs.append(result_dir / "clusters_spreadsheet.csv")
    files.write_record(record_path, origin, outputs, n_images=len(found.names), seconds=round(seconds, 2))
    if n_placed or n_kept:
        print(
            f"{n_placed} photographs placed in {files.shown(result_dir / 'clusters')}/; {n_kept} files of yours left alone"
        )
    files.summary(len(found.names), len(found.names) - len(unreadable), len(unreadable), [result_dir], seconds)


if __name__ == "__main__":
    settings.run(main, __doc__)
