"""The constants of `config.py`: overrides from the command line, ranges, what `--help` says of them.

python 04.clustering_som.py --DATASET=bags --CLUSTER_GRANULARITY=1.2
"""

import ast
import difflib
import os
import re
from collections.abc import Callable
from pathlib import Path

import config
from pipeline.machinery.errors import SettingError

Checker = Callable[[object], str | None]


def one_of(*choices: object) -> Checker:
    """Accept exactly the given values."""
    listed = ", ".join(map(repr, choices))
    # 1 == True in Python, so the kind is compared too
    return lambda value: (
        None if any(value == c and type(value) is type(c) for c in choices) else f"must be one of {listed}"
    )


def whole_number(low: int, high: int | None = None) -> Checker:
    """Accept an integer from `low` up to `high` (both included), or without an upper limit."""
    limits = f"a whole number from {low}" + ("" if high is None else f" to {high}")

    def check(value: object) -> str | None:
        good = type(value) is int and value >= low and (high is None or value <= high)
        return None if good else f"must be {limits}"

    return check


def number(low: float, high: float = float("inf"), above: bool = False) -> Checker:
    """Accept an integer or a finite float from `low` (or `above` it) to `high`."""
    limits = f"a number {'above' if above else 'from'} {low:g}" + ("" if high == float("inf") else f" to {high:g}")

    def check(value: object) -> str | None:
        good = type(value) in (int, float) and low <= value <= high and value != float("inf")
        return None if good and not (above and value == low) else f"must be {limits}"

    return check


def any_of(*checkers: Checker) -> Checker:
    """Accept what at least one of `checkers` accepts, for instance a number or None."""

    def check(value: object) -> str | None:
        messages = [checker(value) for checker in checkers]
        if None in messages:
            return None
        return messages[0] + "".join(message.replace("must be", ", or") for message in messages[1:])

    return check


def is_true_or_false(value: object) -> str | None:
    """Accept True and False."""
    return None if type(value) is bool else "must be True or False"


def is_text(value: object) -> str | None:
    """Accept a text that is not empty."""
    return None if isinstance(value, str) and value else "must be a text"


def is_dataset(value: object) -> str | None:
    """Accept the name of a folder directly below raw_img/."""
    good = isinstance(value, str) and value not in ("", ".", "..") and not re.search(r'[/\\:*?"<>|\x00-\x1f]', value)
    return None if good else "must be the name of a folder below raw_img/, without / or \\"


def are_datasets(value: object) -> str | None:
    """Accept names of folders directly below raw_img/, separated by commas."""
    names_given = listed(value) if isinstance(value, str) else []
    good = names_given and all(is_dataset(name) is None for name in names_given)
    return None if good else "must be names of folders below raw_img/, without / or \\, commas between them"


def listed(value: str | None) -> list[str]:
    """The names of a setting with commas between them: "a, b" -> ["a", "b"]; None -> []."""
    return [name.strip() for name in (value or "").split(",") if name.strip()]


def is_label_pattern(value: object) -> str | None:
    """Accept a regular expression with at least one group."""
    try:
        good = isinstance(value, str) and re.compile(value).groups >= 1
    except re.error as error:
        return f"must be a regular expression ({error})"
    return None if good else "must be a regular expression whose group 1 is the label, such as '^([^_]+)_'"


VALID: dict[str, Checker] = {
    "DATASET": is_dataset,
    "TRAIN_DATASET": is_dataset,
    "RANDOM_SEED": whole_number(0, 2**31 - 1),
    "N_JOBS": whole_number(0, 1024),
    "REDO": is_true_or_false,
    # 00.make_labels_true
    "LABEL_FROM": one_of("name", "folder", "none"),
    "LABEL_PATTERN": is_label_pattern,
    # make_sample_images
    "SAMPLE_NAME": is_dataset,
    "SAMPLE_SEED": whole_number(0, 2**31 - 1),
    "SAMPLE_TRAIN_MODELS": whole_number(0, 10000),
    "SAMPLE_MODELS": whole_number(0, 10000),
    "SAMPLE_MIN_IMAGES": whole_number(1, 10000),
    "SAMPLE_MAX_IMAGES": whole_number(1, 10000),
    "SAMPLE_IMAGE_SIZE": whole_number(64, 1024),
    # 01.img_preprocess
    "BACKGROUND_METHOD": one_of("auto", "plain", "network", "grabcut", "sobel", "none"),
    "BACKGROUND_NETWORK": is_text,
    "BACKGROUND_MIN_TRUST": number(0, 1),
    "SAVE_MASKS": is_true_or_false,
    # make_background_network
    "MASK_DATASETS": are_datasets,
    "GROUND_DATASETS": any_of(one_of(None), are_datasets),
    "COMPOSITES": whole_number(0, 1_000_000),
    "MASK_EPOCHS": whole_number(1, 1000),
    # make_training_image_folders
    "MIN_IMAGES_PER_CLASS": whole_number(1),
    # 02.feature_network_fine_tuning, 03.feature_extraction: the network
    "PRETRAINED_WEIGHTS": is_text,
    "INPUT_RANGE": one_of("auto", "-1..1", "0..1"),
    "IMAGE_SIZE": whole_number(75, 1024),
    "CROP_TO_PRODUCT": is_true_or_false,
    "FEATURE_LAYER": one_of("auto", *(f"mixed{i}" for i in range(11))),
    "POOLING": one_of("auto", "average", "max", "gem"),
    "COMPUTE_DTYPE": one_of("auto", "float32", "bfloat16"),
    # 02.feature_network_fine_tuning
    "HEAD": one_of("cosine", "softmax"),
    "HEAD_LAYER": one_of("auto", *(f"mixed{i}" for i in range(11))),
    "TEMPERATURE": number(0, 1, above=True),
    "LABEL_SMOOTHING": number(0, 0.5),
    "AUGMENTATION": number(0, 2),
    "RANDOM_GROUND": number(0, 1),
    "HEAD_EPOCHS": whole_number(0, 1000),
    "EPOCHS": whole_number(0, 10_000),
    "TRAIN_FROM_LAYER": one_of("all", *(f"mixed{i}" for i in range(10))),
    "LEARNING_RATE": number(0, 1, above=True),
    "WARMUP_EPOCHS": whole_number(0, 1000),
    "WEIGHT_DECAY": number(0, 1),
    "TRAIN_BATCH_SIZE": whole_number(2, 1024),
    "AVERAGED_EPOCHS": number(0, 100),
    "HELD_OUT_FRACTION": number(0.05, 0.5),
    "PATIENCE": whole_number(1),
    "WHITENING": number(0, 0.9),
    "REFIT": is_true_or_false,
    # 03.feature_extraction
    "FEATURE_NETWORK": one_of("fine-tuned", "pretrained"),
    "MIRROR_AVERAGE": is_true_or_false,
    "L2_NORMALIZE": is_true_or_false,
    "EXTRACTION_BATCH_SIZE": whole_number(1, 4096),
    "SAVE_TSV": is_true_or_false,
    # 04.clustering_som
    "SOM_IMAGES_PER_UNIT": number(1, 100),
    "SOM_MAX_UNITS": whole_number(4, 40000),
    "SOM_TOPOLOGY": one_of("rectangular", "hexagonal"),
    "SOM_INITIALISATION": one_of("pca", "sample"),
    "SOM_EPOCHS": whole_number(1, 1000),
    "N_CLUSTERS": whole_number(0),
    "CLUSTER_GRANULARITY": number(0.01, 100),
    "OUTLIERS": one_of("own cluster", "nearest"),
    "ASSIGN_TO": any_of(one_of(None), is_dataset),
    # 05.evaluation
    "BOOTSTRAP_RESAMPLES": whole_number(0, 100_000),
    # 06.visualization
    "TSNE_MAX_IMAGES": whole_number(10),
    "TSNE_PERPLEXITY": number(2, 200),
    "CONTACT_SHEET_IMAGES": whole_number(1, 1000),
    "CONTACT_SHEETS_MAX": whole_number(0),
    "REPORT_MAX_MB": number(1, 2000),
    "REPORT_THUMBNAIL": whole_number(24, 256),
    "CLUSTER_FOLDERS": one_of("none", "hardlink", "symlink", "copy"),
    "CLUSTER_FOLDERS_FROM": one_of("raw_img", "img"),
    "SPREADSHEET_BOM": is_true_or_false,
    "PROJECTOR": is_true_or_false,
    # original_src
    "NUM_IMGS_PER_MODEL": whole_number(1),
    "BASELINE_WEIGHTS": is_text,
    "BASELINE_IMAGE_SIZE": whole_number(32, 1024),
    "BASELINE_MOVE_DUPLICATES": is_true_or_false,
}


def value(name: str) -> object:
    """The present value of the constant `name`."""
    return getattr(config, name)


def names() -> list[str]:
    """Names of all constants of `config.py`, in its order."""
    return [name for name in vars(config) if name.isupper()]


def n_jobs() -> int:
    """Number of workers to use: `config.N_JOBS`, or one per core available to this process where that is 0."""
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
    for name, value in overrides.items():
        setattr(config, name, value)
    return overrides


def check() -> None:
    """Raise SettingError for the first constant of `config.py` whose value is not valid."""
    for name in names():
        message = VALID[name](getattr(config, name)) if name in VALID else "is not a setting of this pipeline"
        if message:
            raise SettingError(f"{name} = {getattr(config, name)!r}: {message}")


def contract(doc: str) -> dict[str, str]:
    """The `Reads:`, `Writes:` and `Config:` entries of a stage's docstring; lines indented below belong to them."""
    entries = re.findall(r"^(Reads|Writes|Config):(.*(?:\n[ \t]+\S.*)*)", doc, flags=re.MULTILINE)
    return {key: " ".join(text.split()) for key, text in entries}


def dataset_of(doc: str) -> str:
    """The data set that a stage works on: DATASET, or TRAIN_DATASET where its `Config:` line names that one alone."""
    used = set(re.findall(r"[A-Z][A-Z0-9_]+", contract(doc).get("Config", "")))
    return config.TRAIN_DATASET if "TRAIN_DATASET" in used and "DATASET" not in used else config.DATASET


def comment_of(name: str) -> str:
    """The comment of a constant of `config.py`: at the end of its line, or on the lines above it."""
    source = Path(config.__file__).read_text(encoding="utf-8")
    match = re.search(rf"^((?:# (?!----).*\n)*){name} = .*?(?:  # (.*))?$", source, flags=re.MULTILINE)
    above, beside = match.groups(default="")
    return " ".join([*(line.removeprefix("# ") for line in above.splitlines()), beside]).strip()


def help_text(doc: str) -> str:
    """The stage's docstring, followed by the constants it uses with their present values and their comments."""
    used = [name for name in re.findall(r"[A-Z][A-Z0-9_]+", contract(doc).get("Config", "")) if name in names()]
    lines = [f"  --{name}={getattr(config, name)!r}\n      {comment_of(name)}" for name in used]
    return "\n".join([doc.strip(), "", "Settings of this stage (config.py), each can be given for one run:", *lines])
