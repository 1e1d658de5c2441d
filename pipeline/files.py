"""Where the files between the stages lie, and how they are read and written.

A file is written whole or not at all (`whole`). An image is named by its path relative to its data set's folder,
with "/" on every system. Each output has a record (.json) with the settings and the fingerprints of the inputs it
was made from: that is how a stage knows that it is up to date (`up_to_date`) or out of step (`check_in_step`).
"""

import ast
import contextlib
import csv
import functools
import hashlib
import json
import math
import os
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

import config
from pipeline.images import IMAGE_SUFFIXES
from pipeline.settings import UserError, remedy_of

PROJECT = Path(__file__).resolve().parent.parent
MACHINERY = {PROJECT / "pipeline" / f"{name}.py" for name in ("files", "settings", "environment", "memory", "parallel")}

# ---- folders -------------------------------------------------------------------------------------


def root() -> Path:
    """The folder that holds raw_img/ img/ data/ ...: the environment's IMAGE_CLUSTER_ROOT, or the project's own."""
    chosen = os.environ.get("IMAGE_CLUSTER_ROOT")
    return _resolved(chosen or str(Path(config.__file__).parent))


@functools.cache
def _resolved(folder: str) -> Path:
    """A folder without symbolic links in its path, which is asked for many times an image."""
    return Path(folder).resolve()


def raw_img_dir(dataset: str) -> Path:
    """The photographs as they came."""
    return root() / "raw_img" / dataset


def img_dir(dataset: str) -> Path:
    """The photographs with the background removed."""
    return root() / "img" / dataset


def mask_dir(dataset: str) -> Path:
    """The masks of stage 01: `a/b.jpg` -> `a/b.jpg.png`, 0 and 255."""
    return root() / "mask" / dataset


def mask_true_dir(dataset: str) -> Path:
    """The true masks of drawn images, named like those of `mask_dir`."""
    return root() / "mask_true" / dataset


def data_dir(dataset: str) -> Path:
    """Labels, features and clusters."""
    return root() / "data" / dataset


def training_images_dir(dataset: str) -> Path:
    """One folder of images for each known model."""
    return root() / "training_images" / dataset


def model_dir(dataset: str) -> Path:
    """The fine-tuned network."""
    return root() / "model" / dataset


def result_dir(dataset: str) -> Path:
    """Scores, pictures and the report."""
    return root() / "result" / dataset


def written_dirs() -> list[Path]:
    """The folders of DATASET and TRAIN_DATASET that stages write to."""
    folders_of = (img_dir, mask_dir, data_dir, training_images_dir, model_dir, result_dir)
    return [folder_of(dataset) for dataset in (config.DATASET, config.TRAIN_DATASET) for folder_of in folders_of]


def shown(path: Path) -> str:
    """`path` relative to the root where it lies below it, with "/": as messages and records name it."""
    return path.relative_to(root()).as_posix() if path.is_relative_to(root()) else path.as_posix()


def inside(path: Path) -> Path:
    """Return `path`, a place to write to or to remove; raises UserError where it leads out of the root.

    Refused are "..", and symbolic links to folders below the root: what lies behind one is not the project's to change.
    """
    if not path.is_relative_to(root()) or path.parent.resolve() != path.parent:
        raise UserError(
            f"{shown(path)} leads to another folder, {path.parent.resolve()}: nothing is written there; put a folder "
            "in the link's place, or set IMAGE_CLUSTER_ROOT to the folder that everything shall lie in"
        )
    return path


# ---- looking ---------------------------------------------------------------------------------------


def require(path: Path, stage: str) -> Path:
    """Return `path`; raises UserError naming the `stage` that makes it where it does not exist."""
    if not path.exists():
        raise UserError(f"{shown(path)} not found: run {stage} first")
    return path


def list_images(folder: Path) -> list[str]:
    """Names of the image files in `folder` and below, relative to it, with "/", in code point order.

    An image file is one with a suffix of `IMAGE_SUFFIXES` in any case, hidden files and folders excepted.
    Symbolic links to files are followed where they lead to a file; links to folders are not.
    """
    names = []
    for directory, folders, entries in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        prefix = Path(directory).relative_to(folder).as_posix()
        prefix = "" if prefix == "." else prefix + "/"
        names += [
            prefix + name
            for name in entries
            if not name.startswith(".") and os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES  # noqa: PTH122
        ]
    return sorted(names)


def name_problem(name: str) -> str | None:
    """Why an image of this name can't be taken (it would not fit on one line of UTF-8 text), or None where it can."""
    if any(ord(character) < 32 or character in "\x7f\x85\u2028\u2029" for character in name):
        return "the file name holds a line break or another control character: rename it"
    if any("\ud800" <= character <= "\udfff" for character in name):
        return "the file name is not valid Unicode: rename it"
    return None


def images_of(folder: Path, remedy: str) -> list[str]:
    """`list_images(folder)`; raises UserError ending in `remedy` where the folder is missing or has none."""
    if not folder.is_dir():
        raise UserError(f"{shown(folder)}/ not found: {remedy}")
    names = list_images(folder)
    if not names:
        raise UserError(f"{shown(folder)}/ holds no image ({' '.join(sorted(IMAGE_SUFFIXES))}): {remedy}")
    return names


# ---- writing whole or not at all -------------------------------------------------------------------


@contextlib.contextmanager
def whole(path: Path, waited_for: bool = True) -> Iterator[Path]:
    """Give a temporary path beside `path`, with its suffix; rename it onto `path` at the end, remove it on an error.

    Before the renaming, the content is `waited_for` until it is on the disk. Not so the many images whose fingerprints
    a record holds: one that a power failure emptied is found by that, and made again.

    Raises UserError where the disk is full or read-only, or the folder is no place to write to (see `inside`).

    >>> with whole(data_dir("bags") / "features.npy") as temporary:
    ...     np.save(temporary, features)
    """
    if path.is_relative_to(root()):  # Keras's cache is elsewhere
        inside(path)
    # a leading dot keeps it out of `list_images`; the name's own length is limited by file systems. The same each time:
    # what a killed run left is written over by the next one
    temporary = path.with_name(f".{fingerprint(os.fsencode(path.name).hex())[:12]}.tmp{path.suffix}")
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
            raise UserError(f"{shown(path)} can't be written ({error.strerror or error}): {remedy}") from None
        raise
    finally:
        with contextlib.suppress(OSError):  # on a read-only disk there is none
            temporary.unlink()


def remove_temporaries(folder: Path) -> None:
    """Remove what a killed run of `whole` left directly in `folder`."""
    for path in folder.glob(".*.tmp*"):
        inside(path).unlink(missing_ok=True)


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a UTF-8 table with a header line; cells are quoted where they need it."""
    # names that are not valid Unicode occur in skipped.csv: they are shown with backslashes
    with (
        whole(path) as temporary,
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
        raise UserError(f"{shown(path)} can't be read as a table ({error}): run {stage} again") from None
    if missing:
        raise UserError(f"{shown(path)} lacks the column {missing[0]}: run {stage} again")
    for line, row in enumerate(rows, start=2):
        if any(row[name] is None for name in columns):
            raise UserError(f"{shown(path)}, row {line}: too few cells: run {stage} again")
    return rows


def write_json(path: Path, value: object) -> None:
    """Write `value` as UTF-8 JSON; NaN and infinity, which JSON does not know, are written as null."""
    # piece by piece: the text of a record of many images is large
    with whole(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as handle:
        json.dump(_plain(value), handle, ensure_ascii=False, indent=1, allow_nan=False)
        handle.write("\n")


def read_json(path: Path, stage: str) -> dict:
    """Read a JSON object that `stage` writes; raises UserError where it is missing or damaged."""
    require(path, stage)
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise UserError(f"{shown(path)} is damaged: run {stage} again")
    return value


def write_lines(path: Path, lines: Iterable[object]) -> None:
    """Write one line of UTF-8 text for each of `lines`; raises UserError where one holds a line break."""
    lines = [str(line) for line in lines]
    for line in lines:
        if "\n" in line or "\r" in line:
            raise UserError(f"{line!r} can't stand on one line of {shown(path)}: rename that file")
    with whole(path) as temporary:
        temporary.write_text("".join(line + "\n" for line in lines), encoding="utf-8", newline="\n")


def read_lines(path: Path, stage: str) -> list[str]:
    """Read the lines of a UTF-8 text that `stage` writes; raises UserError where it is missing or not text."""
    require(path, stage)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise UserError(f"{shown(path)} is not UTF-8 text: run {stage} again") from None
    # not splitlines(): that also breaks at U+2028 and others, which may stand in file names
    return text.removesuffix("\n").split("\n") if text else []


def write_npy(path: Path, values: np.ndarray) -> None:
    """Write an array as .npy, without pickle."""
    with whole(path) as temporary:
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
        raise UserError(f"{shown(path)} is damaged or no .npy array: run {stage} again")
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
        raise UserError(f"{shown(path)} is damaged or lacks an array: run {stage} again with --REDO=True") from None


def _member(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    """One array of a .npz; raises ValueError and others where it is damaged."""
    info = archive.getinfo(name)
    with archive.open(info) as handle:
        version = np.lib.format.read_magic(handle)
        read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        shape, by_columns, dtype = read_header.get(version)(handle)
        n_bytes = math.prod(shape) * dtype.itemsize
        if info.compress_type != zipfile.ZIP_STORED or dtype.hasobject or n_bytes != info.file_size - handle.tell():
            raise ValueError(name)
        values = np.empty(shape[::-1] if by_columns else shape, dtype)
        if n_bytes and handle.readinto(values.reshape(-1).view(np.uint8)) != n_bytes:
            raise ValueError(name)
        handle.read()  # the end of the file, where the checksum is compared
    return values.T if by_columns else values


# ---- the features: an array and its names, always in step ------------------------------------------


def read_features(dataset: str, memory_map: bool = True) -> tuple[np.ndarray, list[str]]:
    """The features of `dataset` and the names of its images.

    Returns
    -------
    features : ndarray of shape (n_images, n_features), a floating dtype, memory-mapped unless asked otherwise
    img_paths : list of n_images different names, row i of `features` belongs to name i

    Raises UserError where a file is missing or damaged, or the two do not fit together. Values are not looked at.
    """
    stage = "03.feature_extraction.py"
    features_path, names_path = data_dir(dataset) / "features.npy", data_dir(dataset) / "img_paths.txt"
    features = read_npy(features_path, stage, memory_map)
    img_paths = read_lines(names_path, stage)
    if features.ndim != 2 or features.shape[1] == 0 or not np.issubdtype(features.dtype, np.floating):
        raise UserError(
            f"{shown(features_path)} has shape {features.shape} and type {features.dtype}, "
            f"not (n_images, n_features) of a floating type: run {stage} again"
        )
    if len(features) != len(img_paths):
        raise UserError(
            f"{shown(features_path)} has {len(features)} rows and {shown(names_path)} has {len(img_paths)} lines: "
            f"run {stage} again"
        )
    if len(set(img_paths)) != len(img_paths):
        twice = next(name for name, count in Counter(img_paths).items() if count > 1)
        raise UserError(f"{shown(names_path)} names {twice} twice: run {stage} again")
    if not img_paths:
        raise UserError(f"{shown(features_path)} holds no image: run {stage} again")
    return features, img_paths


# ---- fingerprints and records ----------------------------------------------------------------------


def fingerprint(value: object) -> str:
    """Fingerprint of a value that JSON can hold, 32 hexadecimal digits (BLAKE2b)."""
    text = json.dumps(_plain(value), ensure_ascii=True, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def fingerprint_file(path: Path) -> str:
    """Fingerprint of a file's content, 32 hexadecimal digits; "missing" or "unreadable" where it has none."""
    if not path.is_file():  # a named pipe would wait for a writer for ever
        return "missing"
    digest = hashlib.blake2b(digest_size=16)
    try:
        with path.open("rb") as handle:
            while block := handle.read(1 << 20):
                digest.update(block)
    except OSError:
        return "unreadable"
    return digest.hexdigest()


def fingerprint_folder(folder: Path, names: Sequence[str]) -> str:
    """Fingerprint of the named files of `folder`: of the names and of the contents."""
    return fingerprint([(name, fingerprint_file(folder / name)) for name in names])


def made_from(stage_file: str, inputs: Mapping[str, str], setting_names: Iterable[str]) -> dict:
    """What an output depends on, for its record.

    Parameters
    ----------
    stage_file : the stage's `__file__`; a change of its code, or of a module that it reaches (see `code_paths`),
        counts as a change, comments and docstrings aside
    inputs : for each input its path as `shown` names it, and its fingerprint
    setting_names : the constants of config.py that change the output
    """
    return {
        "stage": Path(stage_file).name,
        "code": fingerprint([[name, _read_code(PROJECT / name)[0]] for name in code_paths(Path(stage_file))]),
        "inputs": dict(inputs),
        "settings": {name: _plain(getattr(config, name)) for name in setting_names},
    }


def code_paths(stage_path: Path) -> list[str]:
    """The modules of the project that decide what a stage computes: the stage's file and all that it imports, in turn.

    Left out are `config.py`, whose values a record holds one by one, and the machinery (files, settings, workers),
    which hands values on and computes none. Names are relative to the project, with "/", in code point order.
    """
    found: set[Path] = set()
    to_read = [stage_path.resolve()]
    while to_read:
        path = to_read.pop()
        if path in found:
            continue
        found.add(path)
        for module in _read_code(path)[1]:
            parts = module.split(".")
            # a package's __init__.py runs before its modules
            for i in range(1, len(parts) + 1):
                place = PROJECT.joinpath(*parts[:i])
                to_read += [file for file in (place.with_suffix(".py"), place / "__init__.py") if file.is_file()]
        to_read = [path for path in to_read if not _is_machinery(path)]
    return sorted(Path(os.path.relpath(path, PROJECT)).as_posix() for path in found)


def _is_machinery(path: Path) -> bool:
    """Whether a module of the project has no say in what is computed."""
    return path == PROJECT / "config.py" or path in MACHINERY or PROJECT / "pipeline" / "machinery" in path.parents


@functools.cache
def _read_code(path: Path) -> tuple[str, tuple[str, ...]]:
    """The code of a module without comments and docstrings, and the dotted names that it may import modules by."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    package = Path(os.path.relpath(path.parent, PROJECT)).parts
    names: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            source = ".".join([*above, *filter(None, [node.module])])
            names += [source, *(f"{source}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and type(first.value.value) is str:
                node.body[0] = ast.Pass()
    return ast.unparse(tree), tuple(dict.fromkeys(names))


def write_record(record_path: Path, origin: dict, outputs: Iterable[Path], **results: object) -> None:
    """Write the record of `outputs` (files), after them: what they were made from, their fingerprints, `results`."""
    prints = {shown(path): fingerprint_file(path) for path in outputs}
    write_json(record_path, {"made_from": origin, "outputs": prints, **results})


def read_record(record_path: Path) -> dict | None:
    """The record, or None where there is none or it is damaged."""
    try:
        record = json.loads(record_path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) and isinstance(record.get("made_from"), dict) else None


def up_to_date(record_path: Path, origin: dict) -> bool:
    """Whether the recorded outputs are there, unchanged, and were made from `origin`. Never where config.REDO."""
    record = read_record(record_path)
    if config.REDO or record is None or record["made_from"] != _plain(origin):
        return False
    outputs = record.get("outputs")
    return isinstance(outputs, dict) and all(fingerprint_file(root() / name) == v for name, v in outputs.items())


def recorded(path: Path, record_path: Path) -> dict | None:
    """The record at `record_path` where it speaks of `path` as it is now; None where someone else put `path` there."""
    record = read_record(record_path)
    outputs = record.get("outputs") if record else None
    good = isinstance(outputs, dict) and outputs.get(shown(path)) == fingerprint_file(path)
    return record if good else None


@contextlib.contextmanager
def as_written(path: Path, stage: str) -> Iterator[None]:
    """Raise UserError where what is done with the content of `path` fails since `stage` never wrote it like that."""
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise UserError(f"{shown(path)} does not hold what {stage} writes: run {stage} --REDO=True") from error


def check_in_step(output: Path, record_path: Path, inputs: Sequence[Path], stage: str) -> None:
    """Raise UserError where the record says that `output` was made from other `inputs` (files) than those there now."""
    record = read_record(record_path)
    used = record["made_from"].get("inputs") if record else None
    if not isinstance(used, dict):
        return
    for path in inputs:
        if shown(path) in used and used[shown(path)] != fingerprint_file(path):
            raise UserError(f"{shown(output)} was made from another {shown(path)} than the one there now: run {stage}")


def _plain(value: object) -> object:
    """`value` with NumPy's scalars and arrays, tuples and paths as JSON's kinds, NaN and infinity as None."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist())
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Path):
        return shown(value)
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value


# ---- what a stage says at its end ------------------------------------------------------------------


def summary(n_in: int, n_out: int, n_skipped: int, wrote: Sequence[Path], seconds: float, what: str = "images") -> None:
    """Print a stage's last line: that nothing disappeared, what was written, how long it took."""
    listed = ", ".join(shown(path) + ("/" if path.is_dir() else "") for path in wrote)
    print(f"{n_in} {what} in = {n_out} out + {n_skipped} skipped; wrote {listed} in {seconds:.1f} s")


def unchanged(wrote: Sequence[Path]) -> None:
    """Print that inputs and settings have not changed since the outputs were written."""
    listed = ", ".join(shown(path) + ("/" if path.is_dir() else "") for path in wrote)
    print(f"unchanged: {listed} (--REDO=True does it again)")
