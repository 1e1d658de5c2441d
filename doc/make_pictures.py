"""Draw doc/pipeline.png, the picture at the top of the README, from a finished run of the pipeline.

    python3 run_all.py
    .venv/bin/python doc/make_pictures.py

Shows photographs of three clusters as they came, with the background removed, and put together by stage 04.
"""

import random
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import config
from pipeline.images import read_bgr
from pipeline.machinery import files, paths

N_CLUSTERS, N_IMAGES = 4, 4
TITLES = ("photographs as they come", "background removed", "clusters found")


def chosen_images(rows: list[dict[str, str]], seed: int) -> list[list[str]]:
    """For each of N_CLUSTERS clusters drawn from those with at least N_IMAGES images, N_IMAGES names each."""
    generator = random.Random(seed)
    by_cluster: dict[str, list[str]] = {}
    for row in rows:
        by_cluster.setdefault(row["cluster"], []).append(row["image"])
    large = sorted((names for names in by_cluster.values() if len(names) >= N_IMAGES), key=lambda names: names[0])
    return [generator.sample(names, N_IMAGES) for names in generator.sample(large, min(N_CLUSTERS, len(large)))]


def draw(raw_dir: Path, img_dir: Path, clusters: list[list[str]], seed: int) -> plt.Figure:
    """Three panels of len(clusters) x N_IMAGES photographs: shuffled as they came, shuffled and clean, by cluster."""
    mixed = [name for names in clusters for name in names]
    random.Random(seed).shuffle(mixed)
    panels = [(raw_dir, mixed), (img_dir, mixed), (raw_dir, [name for names in clusters for name in names])]
    figure = plt.figure(figsize=(12, 3.9), dpi=100, facecolor="white")
    for i, (folder, names) in enumerate(panels):
        panel = figure.add_axes((0.01 + i * 0.34, 0.01, 0.30, 0.90))
        sheet = np.full((len(clusters) * 150, N_IMAGES * 150, 3), 255, np.uint8)
        for j, name in enumerate(names):
            row, column = divmod(j, N_IMAGES)
            small = read_bgr(folder / name)[::2, ::2, ::-1][:146, :146]
            sheet[row * 150 : row * 150 + small.shape[0], column * 150 : column * 150 + small.shape[1]] = small
        panel.imshow(sheet)
        panel.set_title(TITLES[i], fontsize=14)
        panel.axis("off")
        if i:
            figure.text(0.325 + (i - 1) * 0.34, 0.44, "→", fontsize=28, ha="center", va="center")
    return figure


def main() -> None:
    dataset = config.SAMPLE_NAME
    rows = files.read_csv(paths.data_dir(dataset) / "clusters.csv", ["image", "cluster"], "04.clustering_som.py")
    clusters = chosen_images(rows, seed=3)
    figure = draw(paths.raw_img_dir(dataset), paths.img_dir(dataset), clusters, seed=1)
    path = Path(__file__).resolve().parent / "pipeline.png"
    figure.savefig(path, metadata={"Software": None})
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
