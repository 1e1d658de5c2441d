"""How far colour alone gets on the drawn sample: K-means, told the true number of models, on colour histograms.

Prints the Adjusted Rand Index of 8x8x8 BGR histograms (square root of the shares) of the whole images, of the products
cut out by their true masks, and of 16x16 grey thumbnails of the whole images; mean and range over five seeds.

    python make_sample_images.py
    python benchmarks/sample_difficulty.py [sample]
"""

import sys
from pathlib import Path

import cv2
import numpy as np
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from pipeline.dataset import list_images
from pipeline.machinery import paths

SEEDS = range(5)


def colour_histogram(image_bgr: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
    """Square roots of the shares of 8x8x8 colours, float32 (512,): Euclidean distance becomes Hellinger's."""
    counts = cv2.calcHist([image_bgr], [0, 1, 2], mask, [8, 8, 8], [0, 256] * 3).ravel()
    return np.sqrt(counts / counts.sum())


def thumbnail(image_bgr: np.ndarray) -> np.ndarray:
    """Grey values of 16x16 pixels, standardised, float32 (256,)."""
    grey = cv2.cvtColor(cv2.resize(image_bgr, (16, 16), interpolation=cv2.INTER_AREA), cv2.COLOR_BGR2GRAY)
    grey = grey.astype(np.float32).ravel()
    return (grey - grey.mean()) / (grey.std() + 1e-6)


def main() -> None:
    """Print the scores of one drawn data set."""
    dataset = sys.argv[1] if len(sys.argv) > 1 else "sample"
    folder, masks = paths.raw_img_dir(dataset), paths.mask_true_dir(dataset)
    names = list_images(folder)
    labels = [name.split("_")[0] for name in names]
    n_models = len(set(labels))
    images = [cv2.imread(str(folder / name)) for name in names]
    cut = [cv2.imread(str(masks / f"{name}.png"), cv2.IMREAD_GRAYSCALE) for name in names]
    features = {
        "colour histogram, whole image": [colour_histogram(image, None) for image in images],
        "colour histogram, product only": [colour_histogram(*pair) for pair in zip(images, cut, strict=True)],
        "grey thumbnail, whole image": [thumbnail(image) for image in images],
    }
    print(f"{dataset}: {len(names)} images of {n_models} models; K-means, K = {n_models}")
    for name, values in features.items():
        scores = [
            adjusted_rand_score(labels, KMeans(n_models, n_init=4, random_state=seed).fit_predict(np.array(values)))
            for seed in SEEDS
        ]
        print(f"{name:<32} ARI {np.mean(scores):.3f} ({min(scores):.3f}-{max(scores):.3f})")


if __name__ == "__main__":
    main()
