"""The folders that the files between the stages lie in, and how a path is named to the user."""

import functools
import hashlib
import os
from pathlib import Path

from pipeline.machinery.errors import UserError

PROJECT = Path(__file__).resolve().parents[2]
MAX_NAME_BYTES = 255  # of a file's name without its folder, on nearly every file system


def root() -> Path:
    """Return the folder that holds raw_img/, img/ ...: the environment's IMAGE_CLUSTER_ROOT, or the project's own."""
    return _resolved(os.environ.get("IMAGE_CLUSTER_ROOT") or str(PROJECT))


@functools.cache
def _resolved(folder: str) -> Path:
    """Return a folder without symbolic links in its path, which is asked for many times an image."""
    return Path(folder).resolve()


def raw_img_dir(dataset: str) -> Path:
    """Return the folder of the photographs as they came."""
    return root() / "raw_img" / dataset


def img_dir(dataset: str) -> Path:
    """Return the folder of the photographs with the background removed."""
    return root() / "img" / dataset


def mask_dir(dataset: str) -> Path:
    """Return the folder of stage 01's masks: `a/b.jpg` -> `a/b.jpg.png`, 0 and 255."""
    return root() / "mask" / dataset


def mask_path(dataset: str, name: str) -> Path:
    """Return the path of an image's mask: the image's name with .png after it, see `fit_name`."""
    return mask_dir(dataset) / fit_name(f"{name}.png")


def fit_name(name: str) -> str:
    """Return a name with "/" whose last part has at most MAX_NAME_BYTES; different names stay different.

    Long names come from addresses, and from scripts with three bytes a letter: 84 letters of Korean are too long.

    >>> fit_name("a/b.jpg"), fit_name("a/" + 252 * "b" + ".jpg")[-18:]
    ('a/b.jpg', 'bbbbb~07afffa2.jpg')
    """
    folder, slash, last = name.rpartition("/")
    data = os.fsencode(last)
    if len(data) <= MAX_NAME_BYTES:
        return name
    suffix = os.path.splitext(last)[1][-16:]  # noqa: PTH122
    tail = f"~{hashlib.blake2b(data, digest_size=4).hexdigest()}{suffix}"
    stem = data[: MAX_NAME_BYTES - len(os.fsencode(tail))].decode("utf-8", "ignore")  # no half letter
    return folder + slash + stem + tail


def mask_true_dir(dataset: str) -> Path:
    """Return the folder of the true masks of drawn images, named like those of `mask_dir`."""
    return root() / "mask_true" / dataset


def data_dir(dataset: str) -> Path:
    """Return the folder of labels, features and clusters."""
    return root() / "data" / dataset


def training_images_dir(dataset: str) -> Path:
    """Return the folder that holds a folder of images for each known model."""
    return root() / "training_images" / dataset


def model_dir(dataset: str) -> Path:
    """Return the folder of the fine-tuned network."""
    return root() / "model" / dataset


def result_dir(dataset: str) -> Path:
    """Return the folder of scores, pictures and the report."""
    return root() / "result" / dataset


def written_dirs(dataset: str) -> list[Path]:
    """Return the folders of `dataset` that stages write to."""
    folders_of = (img_dir, mask_dir, data_dir, training_images_dir, model_dir, result_dir)
    return [folder_of(dataset) for folder_of in folders_of]


def display_path(path: Path) -> str:
    """Return `path` as messages and records name it: with "/", below the root relative to the root."""
    return path.relative_to(root()).as_posix() if path.is_relative_to(root()) else path.as_posix()


def check_within_root(path: Path) -> Path:
    """Return `path`, a place to write to or to remove; raises UserError where it leads out of the root.

    Refused are "..", and symbolic links to folders below the root: the project must not change files behind a link.
    """
    if not path.is_relative_to(root()) or path.parent.resolve() != path.parent:
        raise UserError(
            f"{display_path(path)} leads to another folder, {path.parent.resolve()}: nothing is written there; "
            "put a folder in the link's place, or set IMAGE_CLUSTER_ROOT to the folder that everything shall lie in"
        )
    return path
