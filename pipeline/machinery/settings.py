"""The constants of `config.py`: overrides from the command line, checks of their ranges, the text of `--help`.

python 04.clustering_som.py --DATASET=bags --CLUSTER_GRANULARITY=1.2
"""

import ast
import difflib
import functools
import os
import re
from pathlib import Path
from typing import Any, get_type_hints

import config
from pipeline.machinery.errors import SettingError
from pipeline.machinery.kinds import describe, problem_of


def value(name: str) -> Any:
    """Return the present value of the constant `name`."""
    return getattr(config, name)


def names() -> list[str]:
    """Return the names of all constants of `config.py`, in its order."""
    return [name for name in vars(config) if name.isupper()]


def assign(values: dict[str, object]) -> None:
    """Set constants of `config.py` in this process."""
    for name, new in values.items():
        setattr(config, name, new)


def n_jobs() -> int:
    """Return the number of workers to use: `config.N_JOBS`, or one per core that this process may use for 0."""
    if config.N_JOBS:
        return config.N_JOBS
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def parsed(name: str, text: str) -> object:
    """Turn the text after `--NAME=` into a value of the kind that `config.py` has.

    A text setting takes the text as it is, with or without quotes; others take a Python literal.
    """
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        value = text
    if isinstance(getattr(config, name), str) and not isinstance(value, str) and value is not None:
        return text
    return value


def apply_overrides(arguments: list[str]) -> dict[str, object]:
    """Set the constants of `config` from `--NAME=value` arguments.

    Returns the overridden names with their values. Raises SettingError for an unknown name or a malformed argument.
    """
    overrides = {}
    for argument in arguments:
        name, equals, text = argument.removeprefix("--").partition("=")
        if not argument.startswith("--") or not equals:
            raise SettingError(f"{argument}: not understood; settings are given as --NAME=value, see --help")
        if name not in names():
            near = difflib.get_close_matches(name.upper(), names(), n=1, cutoff=0.0)
            raise SettingError(f"--{name}: config.py has no such setting; the nearest is {near[0]}")
        overrides[name] = parsed(name, text)
    assign(overrides)
    return overrides


def kinds_of() -> dict[str, Any]:
    """Return the kind of each constant of `config.py`, as its annotation says."""
    return get_type_hints(config, include_extras=True)


def check() -> None:
    """Raise SettingError for the first constant of `config.py` whose value is not of its kind."""
    kinds = kinds_of()
    for name in names():
        problem = problem_of(value(name), kinds[name]) if name in kinds else "is not a setting of this pipeline"
        if problem:
            raise SettingError(f"{name} = {value(name)!r}: {problem}")


def contract(doc: str) -> dict[str, str]:
    """Return the `Reads:`, `Writes:` and `Config:` entries of a stage's docstring, each joined to one line."""
    entries = re.findall(r"^(Reads|Writes|Config):(.*(?:\n[ \t]+\S.*)*)", doc, flags=re.MULTILINE)
    return {key: " ".join(text.split()) for key, text in entries}


def used(doc: str) -> list[str]:
    """Return the names of the constants that a stage uses, from the `Config:` line of its docstring."""
    return [name for name in re.findall(r"[A-Z][A-Z0-9_]+", contract(doc).get("Config", "")) if name in names()]


def deciding(doc: str) -> list[str]:
    """Return the names of the constants that a stage's outputs depend on: those that stand in no parentheses.

    >>> deciding("Config: DATASET, RANDOM_SEED (without effect on the files: N_JOBS, REDO)")
    ['DATASET', 'RANDOM_SEED']
    """
    return used(re.sub(r"\([^)]*\)", "", doc))


def dataset_of(doc: str) -> str:
    """Return a stage's data set: DATASET, or TRAIN_DATASET where its `Config:` line names that one alone."""
    alone = "TRAIN_DATASET" in used(doc) and "DATASET" not in used(doc)
    return config.TRAIN_DATASET if alone else config.DATASET


def comment_of(name: str) -> str:
    """Return the comment of a constant of `config.py`: at the end of its line, or on the lines above it."""
    match = re.search(rf"^((?:# (?!----).*\n)*){name}: .*?(?:  # (.*))?$", _source_of_config(), flags=re.MULTILINE)
    above, beside = match.groups(default="") if match else ("", "")
    return " ".join([*(line.removeprefix("# ") for line in above.splitlines()), beside]).strip()


@functools.cache
def _source_of_config() -> str:
    """Return the text of config.py."""
    return Path(config.__file__).read_text(encoding="utf-8")


def help_text(doc: str) -> str:
    """Return the stage's docstring, followed by the constants it uses with their present values and their comments."""
    kinds = kinds_of()
    lines = [f"  --{name}={value(name)!r}\n      {comment_of(name)} [{describe(kinds[name])}]" for name in used(doc)]
    return "\n".join([doc.strip(), "", "Settings of this stage (config.py), each can be given for one run:", *lines])
