"""Files inside files of Debian packages: zip archives (.pk3, .sh3f), Qt resources (.rcc), fonts of pictures (.ttf)."""

import functools
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

DIRECTORY, PACKED = 2, 1  # flags of a node of a Qt resource file


class Source(NamedTuple):
    """Where a picture lies."""

    path: Path  # a file
    member: str  # the picture's name inside the file; "" where the file itself is the picture


@functools.cache
def _glyphs(path: Path) -> dict[str, bytes]:
    """Return the PNG file of each glyph of a font of coloured bitmaps, by the glyph's name."""
    from fontTools.ttLib import TTFont

    strikes = TTFont(path)["CBDT"].strikeData
    return {name: bytes(glyph.imageData) for strike in strikes for name, glyph in strike.items()
            if hasattr(glyph, "imageData")}  # fmt: skip


def _walk(content: bytes, tree: int, names: int, node: int, width: int, path: str) -> Iterator[tuple[str, bool, int]]:
    """Yield of each file below a node of a Qt resource file: its path, whether it is packed, where its data begins."""
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
        yield path, bool(flags & PACKED), struct.unpack(">I", content[at + 10 : at + 14])[0]


@functools.lru_cache(maxsize=64)
def _resources(path: Path) -> dict[str, bytes]:
    """Return the files inside a Qt resource file, by their paths; none where the file is of another kind."""
    content = path.read_bytes()
    if content[:4] != b"qres":
        return {}
    version, tree, data, names = struct.unpack(">4I", content[4:20])
    found = {}
    for name, is_packed, begin in _walk(content, tree, names, 0, 22 if version >= 2 else 14, ""):
        at = data + begin
        stored = content[at + 4 : at + 4 + struct.unpack(">I", content[at : at + 4])[0]]
        found[name] = zlib.decompress(stored[4:]) if is_packed else stored
    return found


# of files that are read as a whole: suffix -> what returns the files inside by their names
UNPACKERS: dict[str, Callable[[Path], dict[str, bytes]]] = {".ttf": _glyphs, ".rcc": _resources}


def list_members(path: Path) -> list[str]:
    """Return the names of the files inside a file, sorted."""
    if path.suffix in UNPACKERS:
        return sorted(UNPACKERS[path.suffix](path))
    with zipfile.ZipFile(path) as archive:
        return sorted(archive.namelist())


def read_source(source: Source) -> bytes:
    """Return the content of a picture's file."""
    path, member = source
    if not member:
        return path.read_bytes()
    if path.suffix in UNPACKERS:
        return UNPACKERS[path.suffix](path)[member]
    with zipfile.ZipFile(path) as archive:
        return archive.read(member)
