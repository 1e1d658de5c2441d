"""The kinds of value that the constants of `config.py` have: type, range or choices, and how a message names them."""

import re
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Interval
from pydantic import AfterValidator, Field, TypeAdapter, ValidationError


def between(low: float, high: float) -> Interval:
    """Return the range from `low` to `high`, both included."""
    return Interval(ge=low, le=high)


def check_folder_name(name: str) -> str:
    """Return `name`; raises ValueError where it can't be the name of a folder directly below raw_img/."""
    if name in ("", ".", "..") or re.search(r'[/\\:*?"<>|\x00-\x1f]', name):
        raise ValueError
    return name


def check_folder_names(names: str) -> str:
    """Return `names`; raises ValueError where one of them can't be a folder's name, or there is none."""
    if not [check_folder_name(name) for name in split_names(names)]:
        raise ValueError
    return names


def split_names(names: str | None) -> list[str]:
    """Return the names in a text with commas between them.

    >>> split_names("a, b"), split_names(None)
    (['a', 'b'], [])
    """
    return [name.strip() for name in (names or "").split(",") if name.strip()]


def check_label_pattern(pattern: str) -> str:
    """Return `pattern`; raises ValueError where it is no regular expression with at least one group."""
    try:
        n_groups = re.compile(pattern).groups
    except re.error as error:
        raise ValueError(f"this one is wrong: {error}") from None
    if not n_groups:
        raise ValueError
    return pattern


def check_onnx_path(path: str) -> str:
    """Return `path`; raises ValueError where it is not that of an .onnx file."""
    if not path.lower().endswith(".onnx"):
        raise ValueError
    return path


Count = Annotated[int, Ge(1)]
CountOrZero = Annotated[int, Ge(0)]
Seed = Annotated[int, between(0, 2**31 - 1)]
Share = Annotated[float, between(0, 1)]
PositiveShare = Annotated[float, Interval(gt=0, le=1)]
Text = Annotated[str, Field(min_length=1)]
Dataset = Annotated[
    str, AfterValidator(check_folder_name), Field(description="the name of a folder below raw_img/, without / or \\")
]
Datasets = Annotated[
    str,
    AfterValidator(check_folder_names),
    Field(description="names of folders below raw_img/, without / or \\, commas between them"),
]
LabelPattern = Annotated[
    str,
    AfterValidator(check_label_pattern),
    Field(description="a regular expression whose group 1 is the label, such as '^([^_]+)_'"),
]
OnnxPath = Annotated[str, AfterValidator(check_onnx_path), Field(description="the path of an .onnx file")]
SchedulerAddress = Annotated[
    str,
    Field(pattern=r"^(tcp|tls)://[^/\s]+:\d+$"),
    Field(description='the address of a Dask scheduler, such as "tcp://host:8786"'),
]
EarlierBlock = Literal[
    "mixed0", "mixed1", "mixed2", "mixed3", "mixed4", "mixed5", "mixed6", "mixed7", "mixed8", "mixed9"
]
Block = Literal[EarlierBlock, "mixed10"]  # the eleven Inception blocks of InceptionV3


def describe(kind: Any) -> str:
    """Return a kind in words, as messages name it.

    >>> describe(Count), describe(Share | None)
    ('a whole number from 1', 'a number from 0 to 1, or None')
    """
    if kind is NoneType:
        return "None"
    if get_origin(kind) in (Union, UnionType):
        return ", or ".join(describe(choice) for choice in get_args(kind))
    if get_origin(kind) is Literal:
        return "one of " + ", ".join(map(repr, get_args(kind)))
    base, *limits = get_args(kind) if get_origin(kind) is Annotated else (kind,)
    words = {bool: "True or False", int: "a whole number", float: "a number", str: "a text"}[base]
    for limit in limits:
        words = getattr(limit, "description", None) or words
        for name, word in (("gt", "above"), ("ge", "from"), ("le", "to")):
            number = getattr(limit, name, None)
            words += "" if number is None else f" {word} {number}"
    return words


def problem_of(value: object, kind: Any) -> str | None:
    """Return why `value` is not of `kind`, "must be ...", or None. 1.0 is no whole number, and 1 is not True.

    >>> problem_of(3, Count), problem_of(0, Count)
    (None, 'must be a whole number from 1')
    """
    try:
        TypeAdapter(kind).validate_python(value, strict=True)
    except ValidationError as error:
        reason = error.errors()[0].get("ctx", {}).get("error", "")  # what a check of this module said
        return f"must be {describe(kind)}" + (f"; {reason}" if str(reason) else "")
    return None
