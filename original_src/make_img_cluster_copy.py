"""Copy the photographs into one folder per cluster of the baseline, to look through them.

    python original_src/make_img_cluster_copy.py

An earlier result/D/baseline/clusters/ is replaced.

Reads:  raw_img/D/, data/D/baseline/labels_pred.csv
Writes: result/D/baseline/clusters/
Config: DATASET
"""

import shutil
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import config
from pipeline.machinery import files, paths, run
from pipeline.machinery.errors import UserError
from pipeline.machinery.paths import display_path


def main() -> None:
    """Copy to a new folder, then put it in the place of the old one."""
    begin = time.perf_counter()
    raw_img_dir, folder = paths.raw_img_dir(config.DATASET), paths.result_dir(config.DATASET) / "baseline"
    labels_path = paths.data_dir(config.DATASET) / "baseline" / "labels_pred.csv"
    rows = files.read_csv(labels_path, ["image", "cluster"], "original_src/make_labels_pred.py")
    gone = [row["image"] for row in rows if not (raw_img_dir / row["image"]).is_file()]
    if gone:
        raise UserError(
            f"{display_path(raw_img_dir / gone[0])} not found, but clustered: run original_src/run_all.py again"
        )
    new, target = folder / ".clusters.new", folder / "clusters"
    shutil.rmtree(new, ignore_errors=True)
    for row in rows:
        copy = new / row["cluster"] / row["image"]
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(raw_img_dir / row["image"], copy)
    shutil.rmtree(target, ignore_errors=True)
    new.rename(target)
    run.summary(len(rows), len(rows), 0, [target], time.perf_counter() - begin)


if __name__ == "__main__":
    run.run(main, __doc__)
