"""Files of pretrained weights: found in Keras's cache, downloaded, and checked before anything reads them.

The architecture and its files are arguments. Nothing that is stored in a weights file is ever executed.
"""

import hashlib
import os
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pipeline.machinery.errors import UserError
from pipeline.machinery.files import atomic_write
from pipeline.machinery.paths import PROJECT, display_path
from pipeline.machinery.records import fingerprint_file

if TYPE_CHECKING:
    import keras

MAX_ARRAY_BYTES = 100_000_000  # of one array in a weights file; the largest of InceptionV3 has 14 MB
NO_ANSWER_SECONDS = 15  # a download without an answer is given up after this time
TRY_AGAIN_SECONDS = 3600  # where the weights may be missing, a download that failed is not tried again for this time
BY_NAME = ("auto", "imagenet", "random")  # what a setting may ask for besides the path of a file


class Pretrained(NamedTuple):
    """ImageNet's weights of an architecture, as keras.applications offers them."""

    architecture: str  # as messages name it
    url: str
    md5: str | None  # of the file's content; None: not checked

    @property
    def cache_path(self) -> Path:
        """Return where Keras keeps the file."""
        home = Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras")
        return home / "models" / self.url.rpartition("/")[2]


def path_of(chosen: str) -> Path:
    """Return the path that a setting gives; a relative path starts at the project's folder."""
    return PROJECT / Path(chosen).expanduser()


def known(pretrained: Pretrained, chosen: str, setting: str, seed: int) -> str:
    """Return an identity of the initial weights without loading them: "imagenet", "random, ..." or a fingerprint.

    chosen : "auto", "imagenet", "random" or the path of a .h5 file
    setting : the setting's name, for messages
    seed : of random weights

    The identity changes whenever other weights would be loaded, but for a download that would succeed only now. Raises
    UserError where the file is missing.
    """
    if chosen not in BY_NAME:
        if not path_of(chosen).is_file():
            raise UserError(
                f"{setting}: no file {chosen}: give the path of a .h5 file, "
                'relative to the project\'s folder or absolute, or "auto"'
            )
        return fingerprint_file(path_of(chosen))
    if chosen == "imagenet" or (chosen == "auto" and pretrained.cache_path.is_file()):
        return "imagenet"
    return f"random, RANDOM_SEED = {seed}"


def initialise(network: "keras.Model", pretrained: Pretrained, chosen: str, setting: str, unreached_path: Path) -> str:
    """Load the initial weights that a setting asks for into `network`, which has random ones.

    Returns the kind of weights: "imagenet", "random" or the path as given. Parameters as in `known`, `imagenet_path`.
    """
    if chosen == "random":
        return "random"
    if chosen in BY_NAME:
        path = imagenet_path(pretrained, chosen == "imagenet", setting, unreached_path)
        if path is None:
            return "random"
        load(network, path, pretrained.architecture)
        return "imagenet"
    known(pretrained, chosen, setting, 0)  # says so where the file is missing
    load(network, path_of(chosen), pretrained.architecture)
    return chosen


def imagenet_path(pretrained: Pretrained, needed: bool, setting: str, unreached_path: Path) -> Path | None:
    """Return the file of ImageNet's weights, downloaded if need be; None where that fails and they are not `needed`.

    unreached_path : a file that is written where the download fails; while the file is younger than TRY_AGAIN_SECONDS,
        weights that are not `needed` are not asked for again
    """
    path = pretrained.cache_path
    if path.is_file():
        return path
    recently = unreached_path.is_file() and 0 <= time.time() - unreached_path.stat().st_mtime < TRY_AGAIN_SECONDS
    if recently and not needed:
        return None
    try:
        download(pretrained.url, path, pretrained.md5)
    except OSError as error:
        if needed:
            raise UserError(
                f"ImageNet's weights could not be downloaded ({error}): connect to the network, "
                f'put them at {path}, or set {setting} to "auto" or to the path of a .h5 file'
            ) from None
        with atomic_write(unreached_path) as temporary:
            temporary.touch()
        return None
    return path


def download(url: str, path: Path, md5: str | None) -> None:
    """Download `url` to `path`, whole or not at all; raises OSError where no answer comes or `md5` differs.

    The download is given up when nothing has come for NO_ANSWER_SECONDS. It runs in a thread, since the look-up of a
    host's name has no time limit.
    """
    last = time.monotonic()
    failed: list[Exception] = []

    def fetch() -> None:
        nonlocal last
        digest = hashlib.md5(usedforsecurity=False)
        try:
            with urllib.request.urlopen(url, timeout=NO_ANSWER_SECONDS) as answer, atomic_write(path) as temporary:
                with temporary.open("wb") as handle:
                    while block := answer.read(1 << 16):
                        last = time.monotonic()
                        digest.update(block)
                        handle.write(block)
                if md5 not in (None, digest.hexdigest()):
                    raise OSError("what came is not the file expected")
        except (OSError, ValueError, UserError) as error:  # URLError and timeouts are OSErrors
            failed.append(error)

    worker = threading.Thread(target=fetch, daemon=True)
    worker.start()
    while worker.is_alive():
        worker.join(0.1)
        if time.monotonic() - last > NO_ANSWER_SECONDS:
            raise OSError(f"no answer within {NO_ANSWER_SECONDS} seconds")
    if failed:
        raise OSError(str(getattr(failed[0], "reason", failed[0])))


def load(network: "keras.Model", path: Path, architecture: str) -> None:
    """Load an .h5 file into `network`; raises UserError where the file does not fit the `architecture`."""
    check_weights_file(path, architecture)
    try:
        network.load_weights(path)
    except Exception as error:  # keras raises whatever a file's structure makes it raise
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"{display_path(path)} does not fit {architecture} ({first[:150]})") from None


def check_weights_file(path: Path, architecture: str) -> None:
    """Raise UserError where `path` is no HDF5 file, or one that could read other files or run code.

    Refused: links to other files, data sets stored outside or assembled from elsewhere, object types, and data sets
    over MAX_ARRAY_BYTES, which a small compressed file can hold.
    """
    import h5py

    def visit(group: h5py.Group) -> None:
        for name in group:
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                raise UserError(f"{display_path(path)}: {group.name}/{name} is a link: not taken as weights")
            item = group[name]
            if isinstance(item, h5py.Group):
                visit(item)
            elif item.external or item.is_virtual or item.dtype.kind not in "fiub":
                raise UserError(
                    f"{display_path(path)}: {item.name} is of type {item.dtype} or stored elsewhere: "
                    "not taken as weights"
                )
            elif item.nbytes > MAX_ARRAY_BYTES:
                raise UserError(f"{display_path(path)}: {item.name} is too large for weights of {architecture}")

    try:
        with h5py.File(path, "r") as handle:
            visit(handle)
    except UserError:
        raise
    except Exception:  # h5py raises whatever HDF5 makes of damaged bytes
        raise UserError(f"{display_path(path)} is no HDF5 file (.h5) or is damaged") from None
