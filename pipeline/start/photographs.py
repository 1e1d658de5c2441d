"""Photographs out of Debian packages, unpacked into one folder: wallpapers, textures of games, pictures of GCompris.

gnome-backgrounds, mate-backgrounds, plasma-workspace-wallpapers, lomiri-wallpapers-*, ukui-wallpapers (files);
ufoai-textures, openarena-081-textures (archives *.pk3); gcompris-qt-data (Qt resources *.rcc). Licences: the card.
"""

import functools
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from pipeline.start.cutouts import Source

FOLDERS = ("backgrounds", "wallpapers")  # that hold wallpapers
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
MAPS = ("_nm.", "_sm.", "_gm.", "_pls.", "_rm.", "screenshot")  # bumps and shines of textures; small copies
MIN_SIDE = 64  # pixels of the shorter side
MAX_SIDE = 2200  # pixels of the longer side; larger ones are shrunk
MIN_CONTRAST = 6.0  # grey levels of deviation; flatter pictures show nothing
DIRECTORY, PACKED = 2, 1  # flags of a node of a Qt resource file


def list_photographs(folder: Path) -> list[tuple[Source, int]]:
    """Return all photographs below `folder`, in the order of their names, with the pieces to be cut of each at most."""
    wallpapers: dict[Path, Path] = {}  # the largest file of each
    for path in sorted(path for suffix in SUFFIXES for path in folder.rglob(f"*{suffix}")):
        if any(part in FOLDERS for part in path.parts) and not path.is_symlink() and _is_photograph(path.name):
            key = path.parents[2] if "contents" in path.parts else path
            if key not in wallpapers or path.stat().st_size > wallpapers[key].stat().st_size:
                wallpapers[key] = path
    found = [(Source(path, ""), 14) for path in wallpapers.values()]
    for path in sorted(folder.rglob("*.pk3")):
        with zipfile.ZipFile(path) as archive:
            found += [(Source(path, name), 1) for name in sorted(archive.namelist()) if _is_photograph(name)]
    for path in sorted(folder.rglob("*.rcc")):
        found += [(Source(path, name), 2) for name in sorted(_resources(path)) if _is_photograph(name)]
    return found


def _is_photograph(name: str) -> bool:
    """Return whether a name is that of a picture of use."""
    return name.lower().endswith(SUFFIXES) and not any(word in name for word in MAPS)


def _walk(content: bytes, tree: int, names: int, node: int, width: int, path: str) -> Iterator[tuple[str, int]]:
    """Give the paths below a node of a Qt resource file, and where their data begins."""
    at = tree + node * width
    name_at, flags = struct.unpack(">IH", content[at : at + 6])
    if node:
        begin = names + name_at
        length = 2 * struct.unpack(">H", content[begin : begin + 2])[0]
        path += "/" + content[begin + 6 : begin + 6 + length].decode("utf-16-be")
    if flags & DIRECTORY:
        count, first = struct.unpack(">2I", content[at + 6 : at + 14])
        for child in range(first, first + count):
            yield from _walk(content, tree, names, child, width, path)
    else:
        yield f"{path}|{flags & PACKED}", struct.unpack(">I", content[at + 10 : at + 14])[0]


@functools.lru_cache(maxsize=64)
def _resources(path: Path) -> dict[str, bytes]:
    """Return the files inside a Qt resource file by their paths; none where it is not one."""
    content = path.read_bytes()
    if content[:4] != b"qres":
        return {}
    version, tree, data, names = struct.unpack(">4I", content[4:20])
    found = {}
    for name, begin in _walk(content, tree, names, 0, 22 if version >= 2 else 14, ""):
        at = data + begin
        stored = content[at + 4 : at + 4 + struct.unpack(">I", content[at : at + 4])[0]]
        name, _, packed = name.rpartition("|")
        found[name] = zlib.decompress(stored[4:]) if packed == "1" else stored
    return found


def read_photograph(source: Source) -> np.ndarray | None:
    """Return a photograph, uint8 BGR (H, W, 3); None where it is too small, flat or can't be read."""
    if not source.member:
        content = source.path.read_bytes()
    elif source.path.suffix == ".rcc":
        content = _resources(source.path)[source.member]
    else:
        with zipfile.ZipFile(source.path) as archive:
            content = archive.read(source.member)
    photograph = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    if photograph is None or min(photograph.shape[:2]) < MIN_SIDE or photograph.std() < MIN_CONTRAST:
        return None
    longer = max(photograph.shape[:2])
    if longer > MAX_SIDE:
        scale = MAX_SIDE / longer
        photograph = cv2.resize(photograph, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return photograph
