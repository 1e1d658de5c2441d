"""Baseline, step 3: cluster the features by K-means, with K = number of images / NUM_IMGS_PER_MODEL.

    python original_src/make_labels_pred.py
    python original_src/make_labels_pred.py --DATASET=bags --NUM_IMGS_PER_MODEL=20

The number of clusters is assumed, not found: a model is taken to have NUM_IMGS_PER_MODEL images.

Reads:  data/D/baseline/features.npy, data/D/baseline/img_paths.txt
Writes: data/D/baseline/labels_pred.csv
Config: DATASET, NUM_IMGS_PER_MODEL, RANDOM_SEED
"""

import sys
import time
from pathlib import Path

import numpy as np
from sklearn.cluster import KMeans

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import config
from pipeline.machinery import files, paths, run
from pipeline.machinery.errors import UserError
from pipeline.machinery.paths import display_path


def n_clusters(n_images: int, images_per_model: int) -> int:
    """K, at least 1.

    >>> n_clusters(10618, 70), n_clusters(12, 70)
    (151, 1)
    """
    return max(1, n_images // images_per_model)


def cluster(features: np.ndarray, k: int, seed: int) -> np.ndarray:
    """K-means of features (n_images, n_features) -> cluster ids 0..k-1, int32 (n_images,)."""
    return KMeans(k, n_init=10, random_state=seed).fit_predict(features)


def main() -> None:
    """Cluster all images."""
    begin = time.perf_counter()
    folder, stage = paths.data_dir(config.DATASET) / "baseline", "original_src/extract_features.py"
    features, names = files.read_npy(folder / "features.npy", stage), files.read_lines(folder / "img_paths.txt", stage)
    if len(features) != len(names):
        raise UserError(
            f"{display_path(folder)}: features.npy has {len(features)} rows and img_paths.txt {len(names)}: run {stage}"
        )
    labels = cluster(features, n_clusters(len(names), config.NUM_IMGS_PER_MODEL), config.RANDOM_SEED)
    path = folder / "labels_pred.csv"
    files.write_csv(path, ["image", "cluster"], zip(names, labels.tolist(), strict=True))
    print(f"{len(set(labels.tolist()))} clusters")
    run.summary(len(names), len(labels), 0, [path], time.perf_counter() - begin)


if __name__ == "__main__":
    run.run(main, __doc__)
