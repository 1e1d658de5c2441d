"""True labels from the names of photographs and of folders, and whether they look like labels at all."""

import datetime
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import PurePosixPath

FEW_IMAGES = 10  # of fewer labelled images, nobody can say whether their labels are models
# share of the images that have the same label, or each a label of its own, from which labels are doubted: in a data
# set of models both leave nothing to cluster
NEARLY_ALL = 0.95
# share of the images whose label is a date or a camera's prefix: a shop that names its models like that is not known
MOST = 0.8
# what cameras, phones and messengers put in front of a number or a date
CAMERA_PREFIX = re.compile(
    r"(img|imag|image|dsc|dscn|dscf|dscnt?|cimg|pxl|mvimg|vid|mov|pano|burst|bst|sam|gopr|gp|gh|dji|wp|win|p|pic|photo|"
    r"picture|screenshot|screen|capture|scan|snapchat|kakaotalk|fb|received|whatsapp|signal|telegram|line|c360|b612|"
    r"\d{3}(apple|canon|msdcf|nikon|andro|media|olymp|panas|gopro|leica|sigma|casio|pentx)|dcim|camera|"
    r"사진|스크린샷|카카오톡)([ -]?\d{4,})?",  # a shop's models may be P1, P2, ...: a camera counts with four digits
    re.IGNORECASE,
)
DATE = re.compile(r"((?:19|20)\d\d)[-. ]?(\d\d)[-. ]?(\d\d)")


def label_from_name(name: str, pattern: str) -> str:
    """Return group 1 of `pattern`, searched in the file name without folders and suffix; "" where nothing matches.

    >>> label_from_name("shop_a/12_345_1.jpg", r"^([^_]+)_[^_]+_[^_]+$")
    '12'
    """
    match = re.search(pattern, PurePosixPath(name).stem)
    return (match.group(1) or "") if match else ""


def label_from_folder(name: str) -> str:
    """Return the name of the folder that directly holds the image; "" for one that lies in no folder of the data set.

    >>> label_from_folder("bags/tote/1.jpg")
    'tote'
    """
    return PurePosixPath(name).parent.name


def doubt_labels(labels: Sequence[str]) -> str | None:
    """Return why the labels do not look like models, in a few words, or None where nothing speaks against them.

    labels : the label of each image, "" where it has none

    >>> doubt_labels(["IMG"] * 9 + ["PXL"] * 3)
    "12 of 12 labels are what a camera or a phone begins a name with ('IMG', 'PXL')"
    """
    labelled = [label for label in labels if label]
    if len(labelled) < FEW_IMAGES:
        return None
    counts = Counter(labelled)
    for is_kind, kind in (
        (is_camera_prefix, "what a camera or a phone begins a name with"),
        (is_date, "dates"),
    ):
        found = [label for label in counts if is_kind(label)]
        n_found = sum(counts[label] for label in found)
        if n_found >= MOST * len(labelled):
            return f"{n_found} of {len(labelled)} labels are {kind} ({', '.join(map(repr, sorted(found)[:3]))})"
    label, count = counts.most_common(1)[0]
    if count >= NEARLY_ALL * len(labelled):
        return f"{count} of {len(labelled)} images have the same label, {label!r}"
    n_alone = sum(count == 1 for count in counts.values())
    if n_alone >= NEARLY_ALL * len(labelled):
        return f"{n_alone} of {len(labelled)} images each have a label that no other has, as a counter gives"
    return None


def is_camera_prefix(label: str) -> bool:
    """Return whether a label is what a camera, a phone or a messenger begins the names of its photographs with.

    >>> [is_camera_prefix(label) for label in ("IMG", "DSC0012", "100APPLE", "tote", "P12")]
    [True, True, True, False, False]
    """
    return CAMERA_PREFIX.fullmatch(label) is not None


def is_date(label: str) -> bool:
    """Return whether a label is a day from 1900 to 2099, year first, alone or with a time behind it.

    >>> [is_date(label) for label in ("20230131", "2023-01-31", "20230131-120000", "20230132", "8000000034")]
    [True, True, True, False, False]
    """
    match = DATE.match(label)
    if not match or not re.fullmatch(r"([-. T]?\d{4,9})?", label[match.end() :]):
        return False
    try:
        datetime.date(*map(int, match.groups()))
    except ValueError:
        return False
    return len(re.sub(r"\D", "", label)) in (8, 12, 14, 17)
