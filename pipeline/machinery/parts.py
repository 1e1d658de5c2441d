"""Keep rows of an array on the disk while they are computed, so that the next run goes on from an interrupted one."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from pipeline.machinery.errors import UserError
from pipeline.machinery.files import atomic_write, read_json, read_npz, write_json
from pipeline.machinery.paths import check_within_root
from pipeline.machinery.records import fingerprint


class Parts:
    """Rows computed but not yet in the array that they are for: a folder of .npz files, each written whole.

    folder : holds a sub-folder for each key
    key : fingerprint of all that rows depend on besides their items; the sub-folder's name
    stage : the script that writes the parts, for messages
    """

    def __init__(self, folder: Path, key: str, stage: str):
        self.folder, self.stage = folder, stage
        self.own = folder / key
        check_within_root(self.own / "a part")

    def begin(self, about: dict) -> None:
        """Store a description of the rows to come, and remove parts under other keys."""
        for path in self.folder.glob("*"):
            if path != self.own:
                shutil.rmtree(path)
        write_json(self.own / "about.json", about)

    def about(self) -> dict:
        """Return the description that `begin` stored; empty where there is none."""
        path = self.own / "about.json"
        return read_json(path, self.stage) if path.exists() else {}

    def add(self, rows: list[tuple[str, np.ndarray]]) -> None:
        """Keep pairs of an item's fingerprint and its row, float32 (n_features,)."""
        if rows:
            keys, values = zip(*rows, strict=True)
            with atomic_write(self.own / f"{fingerprint(keys)}.npz") as temporary:
                np.savez(temporary, keys=np.array(keys), rows=np.stack(values))

    def read(self) -> Iterator[tuple[str, np.ndarray]]:
        """Yield all pairs kept; a damaged part is removed."""
        for path in sorted(self.own.glob("[!.]*.npz")):
            try:
                part = read_npz(path, self.stage, ("keys", "rows"))
            except UserError:
                path.unlink()
            else:
                yield from zip(part["keys"].tolist(), part["rows"], strict=True)

    def remove(self) -> None:
        """Remove all parts, those under other keys too."""
        shutil.rmtree(self.folder, ignore_errors=True)
