"""The pictures of stage 06, as PNG and SVG: the same bytes each time, colours that colour-blind people tell apart."""

import base64
import gc
import io
from collections.abc import Iterable, Sequence
from functools import cache
from html import escape
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps
from tqdm import tqdm

import config
from pipeline import files, images, parallel
from pipeline.report.found import Found, Grid

TILE = 128  # pixels; side of the photographs in the pictures
NAMED_GROUPS = 500  # groups with a name in a t-SNE picture: of more, none could be read
# Okabe & Ito's colours, told apart with any kind of colour blindness (jfly.uni-koeln.de/color), and a grey
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9", "#CC79A7", "#B8A600", "#7F7F7F")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p", "h", "*")
# beginnings of the file names of fonts with Hangul, the better ones first
HANGUL_FONTS = ("notosanscjk", "notosanskr", "nanumgothic", "nanumbarungothic", "malgun", "applesdgothicneo",
                "applegothic", "undotum", "dotum", "gulim", "nanum", "notoserifcjk", "arialuni")  # fmt: skip


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
            picture.draft("RGB", (side, side))
            return ImageOps.exif_transpose(picture.convert("RGB"))
    except Exception:  # damaged in some way: the careful reader says how
        return None


def read_thumbnails(names: Sequence[str], side: int, handle: io.IOBase) -> tuple[np.ndarray, list[int]]:
    """Thumbnails of the photographs as they came, or of the cleaned ones where only these are there.

    Returns a memory map in the open file `handle`, uint8 RGB (n_images, side, side, 3), and the images that could not
    be read: these are grey.
    """
    folders = [files.raw_img_dir(config.DATASET), files.img_dir(config.DATASET)]

    def read(name: str) -> np.ndarray | None:
        path = next((folder / name for folder in folders if (folder / name).is_file()), None)
        return thumbnail(path, side) if path else None

    found = parallel.in_threads(read, names)
    unreadable = []
    # written, not memory-mapped: a full disk ends a program that writes to a map
    for i, tile in enumerate(tqdm(found, "thumbnails", len(names), unit="image", disable=None)):
        if tile is None:
            unreadable.append(i)
        handle.write(np.full((side, side, 3), 200, np.uint8) if tile is None else np.ascontiguousarray(tile))
    handle.flush()
    return np.memmap(handle, np.uint8, "r", shape=(len(names), side, side, 3)), unreadable


# ---- text in any script ----------------------------------------------------------------------------


@cache
def _charmap(path: str) -> frozenset[int]:
    from matplotlib import ft2font

    try:
        return frozenset(ft2font.FT2Font(path).get_charmap())
    except (RuntimeError, OSError):  # a bitmap or damaged font
        return frozenset()


@cache
def installed_fonts() -> tuple[str, ...]:
    """Paths of the installed fonts of normal weight, those with Hangul first."""
    from matplotlib import font_manager

    def rank(path: str) -> tuple[int, str]:
        stem = Path(path).stem.lower().replace(" ", "").replace("-", "")
        return next((i for i, name in enumerate(HANGUL_FONTS) if stem.startswith(name)), len(HANGUL_FONTS)), path

    unusual = ("bold", "italic", "oblique", "light", "thin", "extra", "lastresort", "emoji")
    paths = [path for path in font_manager.findSystemFonts() if not any(u in Path(path).stem.lower() for u in unusual)]
    return tuple(sorted(paths, key=rank))


@cache
def fonts_for(characters: frozenset[str]) -> tuple[str, ...]:
    """Paths of fonts that together have the characters, DejaVu Sans, which comes with matplotlib, first.

    Characters that no font has are left out (see `undrawable`).
    """
    from matplotlib import font_manager

    chosen = [font_manager.findfont("DejaVu Sans")]
    missing = {ord(c) for c in characters} - _charmap(chosen[0])
    for path in installed_fonts():
        if not missing:
            break
        has = missing & _charmap(path)
        if has:
            chosen.append(path)
            missing -= has
    return tuple(chosen)


def undrawable(texts: Iterable[str]) -> set[str]:
    """The characters of `texts` that no installed font has."""
    characters = frozenset("".join(texts))
    has = set().union(*(_charmap(path) for path in fonts_for(characters)))
    return {c for c in characters if ord(c) not in has}


def fitted(text: str, size: int, max_width: float) -> str:
    """`text`, or its beginning and its end with an ellipsis between them, at most `max_width` pixels wide."""
    widths = np.array([_font_for(c, size).getlength(c) for c in text])
    if widths.sum() <= max_width:
        return text
    half = (max_width - _font_for("…", size).getlength("…")) / 2
    n_first = int(np.searchsorted(np.cumsum(widths), half, side="right"))
    n_last = int(np.searchsorted(np.cumsum(widths[::-1]), half, side="right"))
    return text[:n_first] + "…" + text[len(text) - n_last :]


def draw_text(draw: ImageDraw.ImageDraw, xy: tuple[float, float], text: str, size: int) -> None:
    """Draw one line of text, its top left corner at `xy`, each character in a font that has it."""
    x, y = xy
    for c in text:
        font = _font_for(c, size)
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
        figure.savefig(temporary, dpi=150, bbox_inches="tight", metadata={"Software": None})
    with files.whole(path.with_suffix(".svg")) as temporary:
        figure.savefig(temporary, bbox_inches="tight", metadata={"Date": None, "Creator": None})
    figure.clear()
    gc.collect()  # a figure's parts refer to one another, and would stay in memory with its pixels
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


def tsne(vectors: np.ndarray, perplexity: float, seed: int) -> np.ndarray:
    """t-SNE of the images in the plane, float32 (n_images, 2), each axis within -1..1.

    vectors : float32 ndarray of shape (n_images, n_axes), on the main axes, of which the first 50 are used: that
    changes a picture little and its time much. van der Maaten 2014, JMLR 15:3221 (Barnes-Hut).
    """
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    n_images = len(vectors)
    if n_images < 5 or np.ptp(vectors, axis=0).max() == 0:
        angle = 2 * np.pi * np.arange(n_images) / max(1, n_images)
        return np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)
    perplexity = min(perplexity, (n_images - 1) / 3)
    # one thread: at each of the 750 steps threads would wait for one another, which takes far longer on a busy
    # machine, and the picture would depend on their number
    with threadpool_limits(1):
        plane = TSNE(init="pca", perplexity=perplexity, max_iter=750, random_state=seed).fit_transform(vectors[:, :50])
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
    """Points by group with the name of each (of the largest NAMED_GROUPS), less `n_cut` characters, at its middle."""
    from matplotlib import patheffects

    ids, index, size = np.unique(np.array(groups, np.str_), return_inverse=True, return_counts=True)
    styles = list(dict.fromkeys(style.values()))  # fewer than groups: each is drawn once
    style_of = np.array([styles.index(style[name]) if name else -1 for name in ids.tolist()])[index]
    halo = [patheffects.withStroke(linewidth=2, foreground="white")]
    font_size = float(np.clip(11 - len(style) / 25, 5, 10))
    dot = float(np.clip(12_000 / len(plane), 7, 36))
    axes.scatter(*plane[style_of < 0].T, s=5, c="#BBBBBB", linewidths=0)
    for i, (colour, marker) in enumerate(styles):
        width = 0 if marker != "+" else 0.6
        axes.scatter(*plane[style_of == i].T, s=dot, c=colour, marker=marker, linewidths=width, alpha=0.85)
    for k in [k for k in np.argsort(-size, kind="stable") if ids[k]][:NAMED_GROUPS]:
        x, y = np.median(plane[index == k], axis=0)
        text = axes.text(x, y, ids[k][n_cut:], fontsize=font_size, ha="center", va="center", parse_math=False)
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

    width = float(np.clip(max(grid.rows, grid.cols) * 0.42, 6, 16))
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
        size = float(np.clip(10 - max(grid.rows, grid.cols) / 12, 4, 8))
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
    captions = [fitted(caption, 11, TILE) for caption in captions]
    title = fitted(title, 16, width - 2 * edge)
    texts = [
        f'<text x="{x}" y="{y + TILE + 13}" font-size="11">{escape(caption)}</text>'
        for (x, y), caption in zip(places, captions, strict=True)
    ]
    buffer = io.BytesIO()
    sheet.save(buffer, "JPEG", quality=88)
    for (x, y), caption in zip(places, captions, strict=True):
        draw_text(draw, (x, y + TILE + 2), caption, 11)
    draw_text(draw, (edge, 6), title, 16)
    images.write_image(path, np.asarray(sheet)[..., ::-1])
    write_svg(path.with_suffix(".svg"), width, height, buffer.getvalue(), [
        f'<text x="{edge}" y="22" font-size="16">{escape(title)}</text>', *texts,
    ])  # fmt: skip
    return [path, path.with_suffix(".svg")]


def write_svg(path: Path, width: int, height: int, jpeg: bytes, shapes: Iterable[str]) -> None:
    """Write an SVG picture: an embedded JPEG of the whole size with vector shapes above."""
    content = base64.b64encode(jpeg).decode()
    with files.whole(path) as temporary:
        temporary.write_text(
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
            'font-family="sans-serif" fill="#222">\n'
            f'<image width="{width}" height="{height}" href="data:image/jpeg;base64,{content}"/>\n'
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
            draw_text(draw, (x + 1, y - 12), text, 10)
            place = f'x="{x + 1:.1f}" y="{y - 2:.1f}" font-size="10"'
            shapes.append(f'<text {place} paint-order="stroke" stroke="#fff" stroke-width="3">{text}</text>')
    images.write_image(path, np.asarray(sheet)[..., ::-1])
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
    return [path for paths in parallel.in_threads(sheet, largest.tolist()) for path in paths]


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


def draw_pictures(
    found: Found, vectors: np.ndarray, grid: Grid, som: dict, typical: np.ndarray, tiles: np.ndarray
) -> tuple[list[Path], dict]:
    """Draw all pictures; returns their paths, and the t-SNE plane for the report.

    vectors : float32 (n_images, n_axes), the images on their main axes
    """
    folder = files.result_dir(config.DATASET)
    sample = stratified_sample(found.cluster, config.TSNE_MAX_IMAGES, config.RANDOM_SEED)
    plane = tsne(vectors[sample], config.TSNE_PERPLEXITY, config.RANDOM_SEED)
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
