"""The pictures of stage 06, as PNG and SVG: the same bytes each time, colours that colour-blind people tell apart."""

import base64
import gc
import io
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from pipeline import images
from pipeline.report.found import Found
from pipeline.report.grid import Grid
from pipeline.report.plane import COLOURS, choose_styles, match_models
from pipeline.report.text import draw_text, find_fonts, shorten
from pipeline.report.thumbnails import TILE, read_thumbnail

NAMED_GROUPS = 500  # groups with a name in a t-SNE picture: of more, none could be read


class Picture(NamedTuple):
    """One picture as the content of two files."""

    png: bytes
    svg: bytes


def new_figure(width: float, height: float, texts: Iterable[str] = ()):
    """Return a matplotlib figure (inches) with fonts for the scripts of `texts`; it gives the same bytes each time."""
    import matplotlib
    from matplotlib import font_manager
    from matplotlib.figure import Figure

    families = []
    for path in find_fonts(frozenset("".join(texts))):
        font_manager.fontManager.addfont(path)
        families.append(font_manager.FontProperties(fname=path).get_name())
    matplotlib.rcParams["font.family"] = families
    matplotlib.rcParams["svg.hashsalt"] = "image-clustering"
    return Figure(figsize=(width, height), layout="constrained")


def render_figure(figure) -> Picture:
    """Return a figure as PNG (150 dots per inch) and SVG, without dates, and clear it."""
    png, svg = io.BytesIO(), io.BytesIO()
    figure.savefig(png, format="png", dpi=150, bbox_inches="tight", metadata={"Software": None})
    figure.savefig(svg, format="svg", bbox_inches="tight", metadata={"Date": None, "Creator": None})
    figure.clear()
    gc.collect()  # a figure's parts refer to one another, and would stay in memory with its pixels
    return Picture(png.getvalue(), svg.getvalue())


def draw_tsne(found: Found, sample: np.ndarray, plane: np.ndarray, dataset: str) -> Picture:
    """Draw the t-SNE plane coloured by model and by cluster, or by cluster and by confidence without labels.

    sample : int64 (n_sample,), the images drawn; plane : float32 (n_sample, 2)
    """
    cluster, labels = found.cluster[sample], [found.labels[i] for i in sample]
    clusters, size = np.unique(cluster, return_counts=True)
    clusters = clusters[np.argsort(-size, kind="stable")]
    middle = {int(c): np.median(plane[cluster == c], axis=0) for c in clusters}
    style = dict(zip(middle, choose_styles(np.array(list(middle.values()))), strict=True))
    figure = new_figure(20, 10.6, labels)
    left, right = figure.subplots(1, 2)
    known = any(labels)
    if known:
        partner = match_models(labels, cluster)
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
    figure.suptitle(f"t-SNE of {len(found.names)} images of {dataset}{part}", fontsize=16)
    return render_figure(figure)


def _scatter(axes, plane: np.ndarray, groups: list[str], style: dict[str, tuple[str, str]], n_cut: int) -> None:
    """Draw points by group, with the names of the largest NAMED_GROUPS, less `n_cut` characters, at their middles."""
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
    """Return the length of the beginning that all names share, shortened to leave three characters of each."""
    if len(names) < 2:
        return 0
    first, last = min(names), max(names)
    prefix = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last)))
    return max(0, min(prefix, min(map(len, names)) - 3))


def draw_units(
    grid: Grid, values: np.ndarray, unit_cluster: np.ndarray, title: str, label: str, numbers: bool
) -> Picture:
    """Draw the map's units coloured by `values` (n_units,), with cluster borders; `numbers`: each value as a number."""
    from matplotlib import colors
    from matplotlib.collections import LineCollection, PolyCollection

    width = float(np.clip(max(grid.rows, grid.cols) * 0.42, 6, 16))
    figure = new_figure(width, width * (np.ptp(grid.centre[:, 1]) + 1) / (np.ptp(grid.centre[:, 0]) + 1) + 1.2)
    axes = figure.subplots()
    # hit counts: a few units hold most of the images
    norm = colors.PowerNorm(0.5, vmin=0, vmax=max(float(values.max()), 1)) if numbers else None
    cells = PolyCollection(grid.polygon, array=values, cmap="cividis", norm=norm, edgecolors="face", linewidths=0.3)
    axes.add_collection(cells)
    border = unit_cluster[grid.pair[:, 0]] != unit_cluster[grid.pair[:, 1]]
    axes.add_collection(LineCollection(grid.edge[border], colors="white", linewidths=2.6))
    axes.add_collection(LineCollection(grid.edge[border], colors="black", linewidths=1.0))
    if norm:
        bright = norm(values) > 0.55
        size = float(np.clip(10 - max(grid.rows, grid.cols) / 12, 4, 8))
        for unit in np.flatnonzero(values):
            colour = "black" if bright[unit] else "white"
            axes.text(*grid.centre[unit], f"{values[unit]:.0f}", color=colour, fontsize=size, ha="center", va="center")
    low, high = grid.polygon.min(axis=(0, 1)), grid.polygon.max(axis=(0, 1))
    axes.set(xlim=(low[0], high[0]), ylim=(high[1], low[1]), aspect="equal", xticks=[], yticks=[], title=title)
    figure.colorbar(cells, ax=axes, label=label, orientation="horizontal", shrink=0.6, pad=0.02, aspect=40)
    return render_figure(figure)


def draw_sizes(found: Found, dataset: str) -> Picture:
    """Draw the sizes of the clusters, and of the models where they are known, largest first."""
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
    axes.set_title(f"Sizes, {dataset}", parse_math=False)
    return render_figure(figure)


def draw_history(rows: list[dict[str, str]]) -> Picture:
    """Draw the training: every numeric column of history.csv over the epochs, losses apart from others."""
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
    return render_figure(figure)


def draw_sheet(title: str, tiles: Sequence[np.ndarray], captions: Sequence[str], n_cols: int) -> Picture:
    """Draw a sheet of photographs with a caption below each (in the SVG one embedded JPEG, text as text).

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
    captions = [shorten(caption, 11, TILE) for caption in captions]
    title = shorten(title, 16, width - 2 * edge)
    texts = [
        f'<text x="{x}" y="{y + TILE + 13}" font-size="11">{escape(caption)}</text>'
        for (x, y), caption in zip(places, captions, strict=True)
    ]
    buffer = io.BytesIO()
    sheet.save(buffer, "JPEG", quality=88)
    for (x, y), caption in zip(places, captions, strict=True):
        draw_text(draw, (x, y + TILE + 2), caption, 11)
    draw_text(draw, (edge, 6), title, 16)
    shapes = [f'<text x="{edge}" y="22" font-size="16">{escape(title)}</text>', *texts]
    return Picture(encode_png(sheet), render_svg(width, height, buffer.getvalue(), shapes))


def encode_png(sheet: Image.Image) -> bytes:
    """Return an RGB picture as a PNG file."""
    return images.encode_image(np.asarray(sheet)[..., ::-1], ".png")


def render_svg(width: int, height: int, jpeg: bytes, shapes: Iterable[str]) -> bytes:
    """Return an SVG picture: an embedded JPEG of the whole size with vector shapes above."""
    content = base64.b64encode(jpeg).decode()
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        'font-family="sans-serif" fill="#222">',
        f'<image width="{width}" height="{height}" href="data:image/jpeg;base64,{content}"/>',
        *shapes,
        "</svg>\n",
    ]
    return "\n".join(lines).encode()


def draw_photo_map(
    grid: Grid, unit_cluster: np.ndarray, hits: np.ndarray, typical: np.ndarray, tiles: np.ndarray
) -> Picture:
    """Draw each unit's most typical photograph, ridges of the U-matrix between them, cluster borders, hits.

    unit_cluster, hits, typical : int ndarrays of shape (n_units,): cluster, number of images, typical image or -1
    tiles : uint8 RGB ndarray of shape (n_images, TILE, TILE, 3)
    """
    side = int(np.clip(2800 // max(grid.cols, grid.rows), 24, TILE))
    low = grid.polygon.min(axis=(0, 1))
    width, height = (np.ceil((grid.polygon.max(axis=(0, 1)) - low) * side).astype(int) + 1).tolist()
    sheet = Image.new("RGB", (width, height), "white")
    inner = int(side * (0.76 if grid.polygon.shape[1] == 6 else 0.92))
    for unit in np.flatnonzero(typical >= 0):
        x, y = ((grid.centre[unit] - low) * side - inner / 2).astype(int)
        sheet.paste(Image.fromarray(tiles[typical[unit]]).resize((inner, inner), Image.Resampling.LANCZOS), (x, y))
    buffer = io.BytesIO()
    sheet.save(buffer, "JPEG", quality=85)
    draw = ImageDraw.Draw(sheet)
    shapes = _draw_ridges(draw, grid, unit_cluster, low, side)
    if side >= 40:
        shapes += _draw_hits(draw, grid, hits, low, side, inner)
    return Picture(encode_png(sheet), render_svg(width, height, buffer.getvalue(), shapes))


def _draw_ridges(
    draw: ImageDraw.ImageDraw, grid: Grid, unit_cluster: np.ndarray, low: np.ndarray, side: int
) -> list[str]:
    """Draw the edges between units, borders of clusters last; returns them as SVG paths."""
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
    return shapes


def _draw_hits(
    draw: ImageDraw.ImageDraw, grid: Grid, hits: np.ndarray, low: np.ndarray, side: int, inner: int
) -> list[str]:
    """Draw the number of images of each unit that has several; returns the numbers as SVG texts."""
    shapes = []
    for unit in np.flatnonzero(hits > 1):
        x, y = (grid.centre[unit] - low) * side + (-inner / 2 + 1, inner / 2)
        number = str(int(hits[unit]))
        draw.rectangle((x, y - 11, x + 7 * len(number) + 2, y), fill="white")
        draw_text(draw, (x + 1, y - 12), number, 10)
        place = f'x="{x + 1:.1f}" y="{y - 2:.1f}" font-size="10"'
        shapes.append(f'<text {place} paint-order="stroke" stroke="#fff" stroke-width="3">{number}</text>')
    return shapes


def choose_for_sheet(found: Found, cluster: int, n_max: int) -> list[int]:
    """Return the images of a cluster's contact sheet: the most typical and, as the last quarter, the most doubtful."""
    members = found.members(cluster)
    if len(members) <= n_max:
        return members.tolist()
    doubtful = members[np.argsort(found.confidence[members], kind="stable")][: n_max // 4]
    typical = [int(i) for i in members if i not in set(doubtful.tolist())][: n_max - len(doubtful)]
    return typical + doubtful.tolist()


def draw_contact_sheet(found: Found, tiles: np.ndarray, cluster: int, n_max: int) -> Picture:
    """Draw at most `n_max` photographs of a cluster, the medoid first."""
    chosen, size = choose_for_sheet(found, cluster, n_max), len(found.members(cluster))
    title = f"Cluster {cluster}: {size} images" + (f", {len(chosen)} shown" if len(chosen) < size else "")
    title += f", mean confidence {found.confidence[found.cluster == cluster].mean():.2f}"
    return draw_sheet(title, [tiles[i] for i in chosen], [found.names[i] for i in chosen], 10)


def draw_before_after(
    names: Sequence[str], raw_dir: Path, img_dir: Path, title: str, n_shown: int = 24
) -> Picture | None:
    """Draw photographs as they came, each beside its cleaned one; None where no photograph has both.

    The photographs are taken at even steps from all `names` that lie in both folders.
    """
    both = [name for name in names if (raw_dir / name).is_file() and (img_dir / name).is_file()]
    both = [both[i] for i in np.unique(np.linspace(0, len(both) - 1, min(n_shown, len(both))).astype(int))]
    tiles: list[np.ndarray] = []
    captions: list[str] = []
    for name in both:
        before, after = (read_thumbnail(folder / name, TILE) for folder in (raw_dir, img_dir))
        if before is not None and after is not None:
            tiles += [before, after]
            captions += [name, "background removed"]
    return draw_sheet(title, tiles, captions, 8) if tiles else None
