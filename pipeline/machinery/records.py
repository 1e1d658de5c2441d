"""The record of an output names its inputs, settings and code; by it a stage knows whether the output is up to date.

A record is a JSON file beside the outputs with the stage's code, the settings, and the fingerprints of the inputs and
of the outputs. An output without a record was put there by someone else: it is used as it is.
"""

import ast
import contextlib
import functools
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from pipeline.machinery import settings
from pipeline.machinery.errors import UserError
from pipeline.machinery.files import plain, write_json
from pipeline.machinery.paths import PROJECT, display_path, root

# modules whose part in an output the record holds by itself: as settings, and as fingerprints of the inputs
HELD_OTHERWISE = (PROJECT / "config.py", PROJECT / "pipeline" / "dataset.py")


def fingerprint(value: object) -> str:
    """Return the fingerprint of a value that JSON can hold, 32 hexadecimal digits (BLAKE2b)."""
    text = json.dumps(plain(value), ensure_ascii=True, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def fingerprint_file(path: Path) -> str:
    """Return the fingerprint of a file's content, 32 hexadecimal digits; else "missing" or "unreadable"."""
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
    """Return the fingerprint of the names and the contents of the named files of `folder`."""
    return fingerprint([(name, fingerprint_file(folder / name)) for name in names])


def made_from(stage_file: str, inputs: Mapping[str, str], setting_names: Iterable[str] | None = None) -> dict:
    """Return all that an output depends on, for its record: "stage", "code", "inputs", "settings".

    Parameters
    ----------
    stage_file : the stage's `__file__`; a change of its code, or of a module that it reaches (see `code_paths`),
        counts as a change, comments and docstrings aside
    inputs : for each input its path as `display_path` names it, and its fingerprint
    setting_names : the constants of config.py that change the output; where not given, those of the `Config:` line of
        the stage's docstring, but the ones in parentheses
    """
    if setting_names is None:
        setting_names = settings.deciding(ast.get_docstring(ast.parse(Path(stage_file).read_text("utf-8"))) or "")
    return {
        "stage": Path(stage_file).name,
        "code": fingerprint([[name, _read_code(PROJECT / name)[0]] for name in code_paths(Path(stage_file))]),
        "inputs": dict(inputs),
        "settings": {name: plain(settings.value(name)) for name in setting_names},
    }


def code_paths(stage_path: Path) -> list[str]:
    """Return the modules that decide what a stage computes: the stage's file and all that it imports, in turn.

    Left out are `config.py`, whose values a record holds one by one; the reader of a data set, whose findings are the
    inputs; and the machinery (files, settings, workers), which hands values on and computes none. Names are relative
    to the project, with "/", in code point order.
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
    """Return whether no result depends on a module's code."""
    return path in HELD_OTHERWISE or PROJECT / "pipeline" / "machinery" in path.parents


@functools.cache
def _read_code(path: Path) -> tuple[str, tuple[str, ...]]:
    """Return a module's code without comments and docstrings, and the dotted names that it may import modules by."""
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
    """Write the record of the files `outputs`, which exist: their origin (`made_from`), fingerprints, and `results`."""
    prints = {display_path(path): fingerprint_file(path) for path in outputs}
    write_json(record_path, {"made_from": origin, "outputs": prints, **results})


def read_record(record_path: Path) -> dict | None:
    """Return the record; None where the file is missing or damaged."""
    try:
        record = json.loads(record_path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) and isinstance(record.get("made_from"), dict) else None


def up_to_date(record_path: Path, origin: dict) -> bool:
    """Return whether the recorded outputs are there, unchanged, and were made from `origin`; False with REDO."""
    record = read_record(record_path)
    if settings.value("REDO") or record is None or record["made_from"] != plain(origin):
        return False
    outputs = record.get("outputs")
    return isinstance(outputs, dict) and all(fingerprint_file(root() / name) == v for name, v in outputs.items())


def recorded(path: Path, record_path: Path) -> dict | None:
    """Return the record where it holds the fingerprint of `path`; None where someone else put `path` there."""
    record = read_record(record_path)
    outputs = record.get("outputs") if record else None
    good = isinstance(outputs, dict) and outputs.get(display_path(path)) == fingerprint_file(path)
    return record if good else None


@contextlib.contextmanager
def as_written(path: Path, stage: str) -> Iterator[None]:
    """Turn errors that the content of `path` causes in this block into a UserError: run `stage` again."""
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise UserError(f"{display_path(path)} does not hold what {stage} writes: run {stage} --REDO=True") from error


def check_in_step(
    output: Path, record_path: Path, inputs: Sequence[Path], stage: str, prints: Mapping[str, str] | None = None
) -> None:
    """Raise UserError where `output` was made from other `inputs` (files) than those there now, by its record.

    prints : fingerprints that were taken already, by the names that `display_path` gives
    """
    record = read_record(record_path)
    used = record["made_from"].get("inputs") if record else None
    if not isinstance(used, dict):
        return
    for path in inputs:
        name = display_path(path)
        if name in used and used[name] != ((prints or {}).get(name) or fingerprint_file(path)):
            raise UserError(f"{display_path(output)} was made from another {name} than the one there now: run {stage}")
