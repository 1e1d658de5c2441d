"""Baseline, step 5: its features by t-SNE, coloured by true model and by cluster.

    python original_src/visualize.py
    python original_src/visualize.py --DATASET=bags

Reads:  data/D/baseline/features.npy, data/D/baseline/img_paths.txt, data/D/baseline/labels_pred.csv,
        data/D/baseline/labels_true.csv where there are labels
Writes: result/D/baseline/tsne.png
Config: DATASET, RANDOM_SEED
"""

import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import config
from pipeline.machinery import files, paths, run
from pipeline.machinery.errors import UserError
from pipeline.machinery.paths import display_path


def embed(features: np.ndarray, seed: int) -> np.ndarray:
    """t-SNE of features (n_images, n_features) -> places (n_images, 2); fewer than 4 images lie on a line."""
    if len(features) < 4:
        return np.stack([np.arange(len(features)), np.zeros(len(features))], 1)
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    small = PCA(min(50, *features.shape), random_state=seed).fit_transform(features)
    return TSNE(perplexity=min(30, (len(features) - 1) / 3), init="pca", random_state=seed).fit_transform(small)


def draw(path: Path, places: np.ndarray, panels: dict[str, list[str]]) -> None:
    """Write one scatter plot per panel (title -> label of each image), side by side."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(panels), figsize=(7 * len(panels), 7), squeeze=False)
    for axis, (title, labels) in zip(axes[0], panels.items(), strict=True):
        _, colours = np.unique(labels, return_inverse=True)
        axis.scatter(*places.T, c=colours, cmap="gist_ncar", s=12)
        axis.set(title=f"{title} ({colours.max() + 1})", xticks=[], yticks=[])
    figure.tight_layout()
    with files.atomic_write(path) as temporary:
        figure.savefig(temporary, dpi=100)
    pyplot.close(figure)


def main() -> None:
    """Draw the picture."""
    begin = time.perf_counter()
    folder = paths.data_dir(config.DATASET) / "baseline"
    features = files.read_npy(folder / "features.npy", "original_src/extract_features.py")
    names = files.read_lines(folder / "img_paths.txt", "original_src/extract_features.py")
    rows = files.read_csv(folder / "labels_pred.csv", ["image", "cluster"], "original_src/make_labels_pred.py")
    if [row["image"] for row in rows] != names or len(features) != len(names):
        raise UserError(
            f"{display_path(folder)}/labels_pred.csv was made from other features: run original_src/make_labels_pred.py"
        )
    panels = {"clusters": [row["cluster"] for row in rows]}
    if (folder / "labels_true.csv").exists():
        true = files.read_csv(folder / "labels_true.csv", ["image", "label"], "original_src/make_labels_true.py")
        label_of = {row["image"]: row["label"] for row in true}
        panels = {"true models": [label_of.get(name, "") for name in names], **panels}
    path = paths.result_dir(config.DATASET) / "baseline" / "tsne.png"
    draw(path, embed(features, config.RANDOM_SEED), panels)
    run.summary(len(names), len(names), 0, [path], time.perf_counter() - begin)


if __name__ == "__main__":
    run.run(main, __doc__)
