"""Read and write files: written whole or not at all; a missing or damaged file is a sentence for the user.

The readers take the name of the stage that writes the file, for this sentence.
"""

import contextlib
import csv
import hashlib
import json
import math
import os
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from pipeline.machinery.errors import UserError, remedy_of
from pipeline.machinery.paths import check_within_root, display_path, root


def require(path: Path, stage: str) -> Path:
    """Return `path`; raises UserError where it does not exist, naming the `stage` that makes it."""
    if not path.exists():
        raise UserError(f"{display_path(path)} not found: run {stage} first")
    return path


@contextlib.contextmanager
def atomic_write(path: Path, waited_for: bool = True) -> Iterator[Path]:
    """Yield a temporary path beside `path`, with its suffix; rename it to `path` at the end, remove it on an error.

    waited_for : wait until the content is on the disk before the renaming. False for the many images whose fingerprints
        a record holds: an image that a power failure emptied is noticed by its fingerprint and made again.

    Raises UserError where the disk is full or read-only, or the folder is no place to write to: `check_within_root`.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "numbers.npy"
    >>> with atomic_write(path) as temporary:
    ...     np.save(temporary, np.arange(3))
    >>> np.load(path)
    array([0, 1, 2])
    """
    if path.is_relative_to(root()):  # Keras's cache is elsewhere
        check_within_root(path)
    # a leading dot keeps it out of `list_images`; the name's own length is limited by file systems. The same each time:
    # what a killed run left is written over by the next one
    temporary = path.with_name(
        f".{hashlib.blake2b(os.fsencode(path.name), digest_size=6).hexdigest()}.tmp{path.suffix}"
    )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.unlink(missing_ok=True)
        yield temporary
        if waited_for:
            with temporary.open("rb+") as handle:
                os.fsync(handle.fileno())
        temporary.replace(path)
    except OSError as error:
        if remedy := remedy_of(error):
            raise UserError(f"{display_path(path)} can't be written ({error.strerror or error}): {remedy}") from None
        raise
    finally:
        with contextlib.suppress(OSError):  # on a read-only disk there is none
            temporary.unlink()


def write_bytes(path: Path, data: bytes) -> None:
    """Write one file of many, such as an image, without waiting until the content is on the disk."""
    with atomic_write(path, waited_for=False) as temporary:
        temporary.write_bytes(data)


def remove_temporaries(folder: Path) -> None:
    """Remove the temporary files of killed runs (`atomic_write`) directly in `folder`."""
    for path in folder.glob(".*.tmp*"):
        check_within_root(path).unlink(missing_ok=True)


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a UTF-8 table with a header line; cells are quoted where they need it."""
    # names that are not valid Unicode occur in skipped.csv: they are shown with backslashes
    with (
        atomic_write(path) as temporary,
        temporary.open("w", encoding="utf-8", errors="backslashreplace", newline="") as handle,
    ):
        writer = csv.writer(handle, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def read_csv(path: Path, columns: Sequence[str], stage: str) -> list[dict[str, str]]:
    """Read a UTF-8 table (with or without a byte order mark) that `stage` writes and that has at least `columns`.

    Raises UserError where it is missing, not a table, or lacks a column or a cell.
    """
    require(path, stage)
    try:
        with path.open(encoding="utf-8-sig", newline="") as handle:
            reader = csv.DictReader(handle, strict=True)
            rows = list(reader)
            missing = [name for name in columns if name not in (reader.fieldnames or [])]
    except (csv.Error, UnicodeDecodeError) as error:
        raise UserError(f"{display_path(path)} can't be read as a table ({error}): run {stage} again") from None
    if missing:
        raise UserError(f"{display_path(path)} lacks the column {missing[0]}: run {stage} again")
    for line, row in enumerate(rows, start=2):
        if any(row[name] is None for name in columns):
            raise UserError(f"{display_path(path)}, row {line}: too few cells: run {stage} again")
    return rows


def write_json(path: Path, value: object) -> None:
    """Write `value` as UTF-8 JSON; NaN and infinity, which JSON does not know, are written as null."""
    # piece by piece: the text of a record of many images is large
    with atomic_write(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as handle:
        json.dump(plain(value), handle, ensure_ascii=False, indent=1, allow_nan=False)
        handle.write("\n")


def read_json(path: Path, stage: str) -> dict:
    """Read a JSON object that `stage` writes; raises UserError where it is missing or damaged."""
    require(path, stage)
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise UserError(f"{display_path(path)} is damaged: run {stage} again")
    return value


def write_lines(path: Path, lines: Iterable[object]) -> None:
    """Write one line of UTF-8 text for each of `lines`; raises UserError where one holds a line break."""
    texts = [str(line) for line in lines]
    for text in texts:
        if "\n" in text or "\r" in text:
            raise UserError(f"{text!r} can't stand on one line of {display_path(path)}: rename that file")
    with atomic_write(path) as temporary:
        temporary.write_text("".join(text + "\n" for text in texts), encoding="utf-8", newline="\n")


def read_lines(path: Path, stage: str) -> list[str]:
    """Read the lines of a UTF-8 text that `stage` writes; raises UserError where it is missing or not text."""
    require(path, stage)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise UserError(f"{display_path(path)} is not UTF-8 text: run {stage} again") from None
    # not splitlines(): that also breaks at U+2028 and others, which may stand in file names
    return text.removesuffix("\n").split("\n") if text else []


def write_npy(path: Path, values: np.ndarray) -> None:
    """Write an array as .npy, without pickle."""
    with atomic_write(path) as temporary:
        np.save(temporary, values, allow_pickle=False)


def read_npy(path: Path, stage: str, memory_map: bool = False) -> np.ndarray:
    """Read an array that `stage` writes, without pickle; raises UserError where it is missing or damaged."""
    require(path, stage)
    try:
        # a memory map at first: it refuses a header that promises more than the file holds
        values = np.load(path, mmap_mode="r", allow_pickle=False)
        values = values if memory_map else np.array(values)
    except Exception:  # NumPy's parser of the header may raise anything on damaged bytes
        values = None
    if not isinstance(values, np.ndarray):
        raise UserError(f"{display_path(path)} is damaged or no .npy array: run {stage} again")
    return values


def read_npz(path: Path, stage: str, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Read the arrays `names` of a .npz that `stage` writes with `np.savez`; raises UserError where it is damaged.

    Compressed members and headers that promise more than the file holds are refused: memory is bounded by its size.
    """
    require(path, stage)
    try:
        with zipfile.ZipFile(path) as archive:
            return {name: _member(archive, f"{name}.npy") for name in names}
    except Exception:  # zipfile and NumPy's parser of the header may raise anything on damaged bytes
        raise UserError(
            f"{display_path(path)} is damaged or lacks an array: run {stage} again with --REDO=True"
        ) from None


def _member(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    """One array of a .npz; raises ValueError and others where it is damaged."""
    info = archive.getinfo(name)
    with archive.open(info) as handle:
        version = np.lib.format.read_magic(handle)
        read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        shape, by_columns, dtype = read_header[version](handle)
        n_bytes = math.prod(shape) * dtype.itemsize
        if info.compress_type != zipfile.ZIP_STORED or dtype.hasobject or n_bytes != info.file_size - handle.tell():
            raise ValueError(name)
        values = np.empty(shape[::-1] if by_columns else shape, dtype)
        # ZipExtFile has readinto(), which typeshed's IO[bytes] does not know
        if n_bytes and handle.readinto(values.reshape(-1).view(np.uint8)) != n_bytes:  # type: ignore[attr-defined]
            raise ValueError(name)
        handle.read()  # the end of the file, where the checksum is compared
    return values.T if by_columns else values


def plain(value: object) -> object:
    """`value` with NumPy's scalars and arrays, tuples and paths as JSON's kinds, NaN and infinity as None."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, Path):
        return display_path(value)
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value
