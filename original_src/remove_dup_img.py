"""Find photographs that are the same pixel for pixel, and on demand move the repeats away.

    python original_src/remove_dup_img.py
    python original_src/remove_dup_img.py --BASELINE_MOVE_DUPLICATES=True

Without the setting, only the list is written. Moved images lie in data/D/baseline/duplicates/ under their own names:
nothing is deleted. The first image by name stays.

Reads:  raw_img/D/
Writes: data/D/baseline/duplicates.csv, data/D/baseline/duplicates/
Config: DATASET, BASELINE_MOVE_DUPLICATES
"""

import hashlib
import shutil
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import config
from pipeline import images
from pipeline.dataset import images_of
from pipeline.machinery import files, paths, run
from pipeline.machinery.errors import UserError
from pipeline.machinery.paths import display_path


def duplicates(folder: Path, names: list[str]) -> list[tuple[str, str]]:
    """Pairs (repeat, first) of the named images with the same pixels; unreadable ones are passed over."""
    first_of, pairs = {}, []
    for name in names:
        try:
            image_bgr = images.read_bgr(folder / name)
        except images.ImageError:
            continue
        key = image_bgr.shape, hashlib.blake2b(image_bgr.tobytes(), digest_size=16).digest()
        first = first_of.setdefault(key, name)
        if first != name:
            pairs.append((name, first))
    return pairs


def main() -> None:
    """List the repeats; move them where asked."""
    begin = time.perf_counter()
    raw_img_dir, folder = paths.raw_img_dir(config.DATASET), paths.data_dir(config.DATASET) / "baseline"
    names = images_of(raw_img_dir, "put the photographs there, or set DATASET in config.py")
    pairs = duplicates(raw_img_dir, names)
    files.write_csv(folder / "duplicates.csv", ["image", "same_as"], pairs)
    moved = pairs if config.BASELINE_MOVE_DUPLICATES else []
    for name, _ in moved:
        target = folder / "duplicates" / name
        if target.exists():
            raise UserError(f"{display_path(target)} is there already: move it away, then run this again")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(raw_img_dir / name, target)
    print(f"{len(pairs)} repeats found, {len(moved)} moved to {display_path(folder / 'duplicates')}/")
    seconds = time.perf_counter() - begin
    run.summary(len(names), len(names) - len(moved), len(moved), [folder / "duplicates.csv"], seconds)


if __name__ == "__main__":
    run.run(main, __doc__)
