"""Keep the state of long work in one file, so that the next run goes on from it where a run was killed."""

import json
from pathlib import Path

import numpy as np

from pipeline.machinery.files import atomic_write


class Checkpoint:
    """Arrays and a few values, written whole or not at all.

    path : a .npz file
    key : fingerprint of all that the work depends on; a file with another key is not read
    """

    def __init__(self, path: Path, key: str):
        self.path, self.key = path, key

    def write(self, arrays: dict[str, list[np.ndarray]], state: dict) -> None:
        """Write lists of arrays by their names, and `state`, which JSON can hold."""
        named = {f"{name}_{i}": value for name, values in arrays.items() for i, value in enumerate(values)}
        lengths = {name: len(values) for name, values in arrays.items()}
        text = json.dumps({"key": self.key, "lengths": lengths, "state": state})
        with atomic_write(self.path) as temporary:
            np.savez(temporary, state=np.array(text), **named)

    def read(self) -> tuple[dict[str, list[np.ndarray]], dict] | None:
        """Return the `arrays` and `state` last written; None where no file has this key, or the file is damaged."""
        try:
            with np.load(self.path, allow_pickle=False) as stored:
                about = json.loads(str(stored["state"]))
                if about["key"] != self.key:
                    return None
                lengths = about["lengths"].items()
                return {name: [stored[f"{name}_{i}"] for i in range(n)] for name, n in lengths}, dict(about["state"])
        except Exception:  # zipfile and NumPy's parser of the header may raise anything on damaged bytes
            return None

    def remove(self) -> None:
        """Remove the file where there is one."""
        self.path.unlink(missing_ok=True)
