"""Photographs out of Debian packages, unpacked into one folder: wallpapers, textures of games, pictures of GCompris.

gnome-backgrounds, mate-backgrounds, plasma-workspace-wallpapers, lomiri-wallpapers-*, ukui-wallpapers (files);
ufoai-textures, openarena-081-textures (archives *.pk3); gcompris-qt-data (Qt resources *.rcc). Licences: the card.
"""

from pathlib import Path

import cv2
import numpy as np

from pipeline.start.packages import Source, list_members, read_source

FOLDERS = ("backgrounds", "wallpapers")  # that hold wallpapers
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
MAPS = ("_nm.", "_sm.", "_gm.", "_pls.", "_rm.", "screenshot")  # bumps and shines of textures; small copies
MIN_SIDE = 64  # pixels of the shorter side
MAX_SIDE = 2200  # pixels of the longer side; larger ones are shrunk
MIN_CONTRAST = 6.0  # grey levels of deviation; flatter pictures show nothing


def list_photographs(folder: Path) -> list[tuple[Source, int]]:
    """Return all photographs below `folder`, in the order of their names, with the pieces to be cut of each at most."""
    wallpapers: dict[Path, Path] = {}  # the largest file of each
    for path in sorted(path for suffix in SUFFIXES for path in folder.rglob(f"*{suffix}")):
        if any(part in FOLDERS for part in path.parts) and not path.is_symlink() and _is_photograph(path.name):
            key = path.parents[2] if "contents" in path.parts else path
            if key not in wallpapers or path.stat().st_size > wallpapers[key].stat().st_size:
                wallpapers[key] = path
    found = [(Source(path, ""), 14) for path in wallpapers.values()]
    for suffix, n_pieces in ((".pk3", 1), (".rcc", 2)):
        for path in sorted(folder.rglob(f"*{suffix}")):
            found += [(Source(path, name), n_pieces) for name in list_members(path) if _is_photograph(name)]
    return found


def _is_photograph(name: str) -> bool:
    """Return whether a name is that of a picture of use."""
    return name.lower().endswith(SUFFIXES) and not any(word in name for word in MAPS)


def read_photograph(source: Source) -> np.ndarray | None:
    """Return a photograph, uint8 BGR (H, W, 3); None where it is too small, flat or can't be read."""
    photograph = cv2.imdecode(np.frombuffer(read_source(source), np.uint8), cv2.IMREAD_COLOR)
    if photograph is None or min(photograph.shape[:2]) < MIN_SIDE or photograph.std() < MIN_CONTRAST:
        return None
    longer = max(photograph.shape[:2])
    if longer > MAX_SIDE:
        scale = MAX_SIDE / longer
        photograph = cv2.resize(photograph, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return photograph
