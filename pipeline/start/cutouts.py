"""Pictures with a transparent ground out of three Debian packages, unpacked into one folder.

openclipart-png (public domain), fonts-noto-color-emoji (SIL OFL 1.1), sweethome3d-furniture (CC0, CC-BY 3.0).
"""

from pathlib import Path

import cv2
import numpy as np

from pipeline.start.packages import Source, list_members, read_source

CLIPART_LEFT_OUT = ("shapes", "signs_and_symbols", "icons", "geography", "special", "buttons", "stickmen", "cards",
                    "smilies", "unsorted", "led", "roadsigns", "flags", "tux")  # fmt: skip  # no things, or too alike
EMOJI_THINGS = ("u1F3", "u1F4", "u1F5", "u1F6", "u1F9", "u1FA")  # glyph names of animals, food, things, faces
MIN_PIXELS = 300  # of a thing; smaller pictures hold no detail
MIN_SIDE = 40  # pixels of its shorter side
MAX_ELONGATION = 5.0  # longer side by shorter
FILLED = (0.12, 0.985)  # share of its box that a thing fills; a full box is a picture with a ground, not a thing
OPAQUE = 127  # alpha above which a pixel belongs to the thing
WHITE = 250  # a pixel with all channels from here up, joined to the border, is the ground of a picture without alpha


def list_cutouts(folder: Path) -> list[Source]:
    """Return all pictures of the three packages below `folder`, in the order of their names."""
    sources = []
    for path in sorted(folder.rglob("*.png")):
        if "openclipart" in path.parts and not any(word in str(path).lower() for word in CLIPART_LEFT_OUT):
            sources.append(Source(path, ""))
    for path in sorted(folder.rglob("*.sh3f")):
        names = [name for name in list_members(path) if name.endswith(".png") and name.count("/") == 1]
        sources += [Source(path, name) for name in names]
    for path in sorted(folder.rglob("NotoColorEmoji.ttf")):
        names = [name for name in list_members(path) if name[:4] in EMOJI_THINGS and "_" not in name]
        sources += [Source(path, name) for name in names]
    return sources


def read_cutout(source: Source) -> np.ndarray | None:
    """Return a thing cut to its box, uint8 BGRA (H, W, 4); None where the picture is unfit to show a product."""
    picture = cv2.imdecode(np.frombuffer(read_source(source), np.uint8), cv2.IMREAD_UNCHANGED)
    if picture is None or picture.ndim != 3:
        return None
    if picture.dtype == np.uint16:
        picture = (picture // 257).astype(np.uint8)
    if picture.shape[2] == 3:
        picture = np.dstack([picture, opaque_inside(picture)])
    rows, columns = np.nonzero(picture[..., 3] > OPAQUE)
    if len(rows) < MIN_PIXELS:
        return None
    picture = picture[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    short, long = sorted(picture.shape[:2])
    filled = (picture[..., 3] > OPAQUE).mean()
    is_fit = short >= MIN_SIDE and long / short <= MAX_ELONGATION and FILLED[0] <= filled <= FILLED[1]
    return picture if is_fit else None


def opaque_inside(picture_bgr: np.ndarray) -> np.ndarray:
    """Return the alpha of a picture on white, uint8 (H, W): 0 on the white that is joined to the border, else 255."""
    white = np.pad((picture_bgr.min(axis=2) >= WHITE).astype(np.uint8), 1, constant_values=1)
    parts = cv2.connectedComponents(white, connectivity=4)[1]
    return np.where(parts == parts[0, 0], 0, 255).astype(np.uint8)[1:-1, 1:-1]
