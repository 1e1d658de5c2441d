"""Make the README's picture of the drawn sample: each row one model, as different sellers show it.

python make_sample_images.py
python benchmarks/sample_sheet.py            writes doc/sample.jpg
"""

import sys
from pathlib import Path

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from pipeline import images
from pipeline.dataset import images_of
from pipeline.machinery import files, paths

PROJECT = Path(__file__).resolve().parents[1]

DATASET = "sample"
N_IMAGES = 10  # of each model
QUALITY = 82  # of the JPEG, which keeps it below 400 kB
SIZE, GAP = 100, 3  # pixels of an image's side, and between images


def sheet(rows: list[list[np.ndarray]]) -> np.ndarray:
    """Images in rows on white, uint8 BGR."""
    step = SIZE + GAP
    canvas = np.full((len(rows) * step + GAP, N_IMAGES * step + GAP, 3), 255, np.uint8)
    for i, row in enumerate(rows):
        for j, image_bgr in enumerate(row):
            place = np.s_[GAP + i * step : GAP + i * step + SIZE, GAP + j * step : GAP + j * step + SIZE]
            canvas[place] = cv2.resize(image_bgr, (SIZE, SIZE), interpolation=cv2.INTER_AREA)
    return canvas


def main() -> None:
    """Write the sheet: for every model images spread evenly over its sellers."""
    folder = paths.raw_img_dir(DATASET)
    models: dict[str, list[str]] = {}
    for name in images_of(folder, "run make_sample_images.py first"):
        models.setdefault(name.split("_")[0], []).append(name)
    chosen = [[names[i] for i in np.linspace(0, len(names) - 1, N_IMAGES).astype(int)] for names in models.values()]
    path = PROJECT / "doc" / "sample.jpg"
    picture = sheet([[images.read_bgr(folder / name) for name in row] for row in chosen])
    with files.atomic_write(path) as temporary:
        temporary.write_bytes(cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1].tobytes())
    print(f"wrote {path.relative_to(PROJECT).as_posix()}, {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
