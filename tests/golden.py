"""Fingerprints of all that the pipeline writes for a small drawn catalogue: the yardstick of a pure move.

    .venv/bin/python tests/golden.py save golden.json            before the change
    .venv/bin/python tests/golden.py compare golden.json         after it: names every file that differs; exit code 1
    .venv/bin/python tests/golden.py compare golden.json --from=03     only the stages from 03 on, over the saved files

The files themselves lie in a folder beside the JSON (`golden.json` -> `golden.root/`). Records (.json), seconds and
what holds a date are left out; arrays are compared by their values.
"""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np

PROJECT = Path(__file__).resolve().parent.parent
SETTINGS = (
    "--SAMPLE_TRAIN_MODELS=6",
    "--SAMPLE_MODELS=5",
    "--SAMPLE_MIN_IMAGES=7",
    "--SAMPLE_MAX_IMAGES=9",
    "--IMAGE_SIZE=75",
    "--EPOCHS=2",
    "--PRETRAINED_WEIGHTS=random",
    "--SAVE_MASKS=True",
    "--CLUSTER_FOLDERS=copy",
)
STEPS = (
    ("make_sample_images.py", None),
    ("00.make_labels_true.py", "sample_train"),
    ("01.img_preprocess.py", "sample_train"),
    ("make_training_image_folders.py", None),
    ("02.feature_network_fine_tuning.py", None),
    ("00.make_labels_true.py", "sample"),
    ("01.img_preprocess.py", "sample"),
    ("03.feature_extraction.py", "sample"),
    ("04.clustering_som.py", "sample"),
    ("05.evaluation.py", "sample"),
    ("06.visualization.py", "sample"),
)
LEFT_OUT = re.compile(r"\.json$|\.lock$|history\.csv$|report\.html$|/\.")


def content_print(path: Path) -> str:
    """Fingerprint of a file's content; of .npz and .h5, of the arrays' names, types, shapes and values."""
    digest = hashlib.blake2b(digest_size=12)
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as arrays:
            for name in sorted(arrays.files):
                digest.update(f"{name} {arrays[name].dtype} {arrays[name].shape}".encode() + arrays[name].tobytes())
    elif path.suffix == ".h5":
        with h5py.File(path) as stored:
            names: list[str] = []
            stored.visit(names.append)
            for name in sorted(names):
                if isinstance(stored[name], h5py.Dataset):
                    digest.update(name.encode() + np.asarray(stored[name]).tobytes())
    else:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def run_pipeline(root: Path, first: str) -> None:
    """Run the stages from `first` on over `root`, as their own processes."""
    started = not first
    for script, dataset in STEPS:
        started = started or script.startswith(first)
        if started:
            chosen = [f"--DATASET={dataset}"] if dataset else []
            environment = {**os.environ, "IMAGE_CLUSTER_ROOT": str(root)}
            command = [sys.executable, script, *SETTINGS, *chosen, "--REDO=True"]
            subprocess.run(command, cwd=PROJECT, env=environment, check=True, stdout=subprocess.DEVNULL)


def fingerprints(root: Path) -> dict[str, str]:
    """The fingerprint of each compared file below `root`, by its path."""
    files = sorted(path for path in root.rglob("*") if path.is_file())
    named = {path.relative_to(root).as_posix(): path for path in files}
    return {name: content_print(path) for name, path in named.items() if not LEFT_OUT.search(name)}


def main() -> int:
    action, stored = sys.argv[1], Path(sys.argv[2]).resolve()
    first = next((argument.split("=")[1] for argument in sys.argv[3:] if argument.startswith("--from=")), "")
    saved_root, root = stored.with_suffix(".root"), stored.with_suffix(f".{os.getpid()}")
    if action == "save":
        shutil.rmtree(saved_root, ignore_errors=True)
        run_pipeline(saved_root, first)
        stored.write_text(json.dumps(fingerprints(saved_root), indent=1), encoding="utf-8")
        return 0
    if first:
        shutil.copytree(saved_root, root)
    try:
        run_pipeline(root, first)
        before, after = json.loads(stored.read_text(encoding="utf-8")), fingerprints(root)
    finally:
        shutil.rmtree(root, ignore_errors=True)
    differing = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
    print("\n".join(differing) or f"all {len(before)} files are the same")
    return bool(differing)


if __name__ == "__main__":
    sys.exit(main())
