"""Convert colours to sRGB by code points, which HEIC and AVIF files hold in place of a colour profile.

References: ITU-T H.273 (the code points); ITU-R BT.2100 (PQ, HLG), BT.2408 (white of printed paper at 203 cd/m2) and
BT.2087 (BT.2020 to BT.709); SMPTE EG 432-1 (Display P3's primaries).
"""

import functools
import struct

import numpy as np

BOX = b"colrnclx"  # begins the box that holds code points, in files of HEIF's kind
# linear RGB of a code point of primaries -> linear sRGB; others are taken as they are, near enough to sRGB
TO_SRGB = {
    9: ((1.6605, -0.5876, -0.0728), (-0.1246, 1.1329, -0.0083), (-0.0182, -0.1006, 1.1187)),  # BT.2020
    12: ((1.2249, -0.2247, 0.0), (-0.0420, 1.0419, 0.0), (-0.0197, -0.0786, 1.0979)),  # Display P3
}
LINEAR, PQ, HLG = 8, 16, 18  # code points of transfer functions; all others are near enough to that of sRGB
WHITE = 203.0  # cd/m2 that become white; what is brighter, such as gloss, becomes white too
STEPS = 16384  # values of linear light that are told apart, so that the darkest levels are
ROWS_AT_ONCE = 256  # bounds the memory


def find_code_points(data: bytes) -> tuple[int, int] | None:
    """Return a file's first code points, of the primaries and of the transfer function; None where it has none."""
    place = data.find(BOX)
    if place < 0 or len(data) < place + len(BOX) + 4:
        return None
    primaries, transfer = struct.unpack_from(">HH", data, place + len(BOX))
    return primaries, transfer


def convert_code_points(colours_rgb: np.ndarray, primaries: int, transfer: int) -> np.ndarray:
    """Convert an image to sRGB, uint8 RGB (H, W, 3); unchanged where its code points mean nearly sRGB.

    High dynamic range is cut at the white of printed paper.

    >>> convert_code_points(np.uint8([[[148, 148, 148]]]), 9, 16).tolist()  # 203 cd/m2
    [[[255, 255, 255]]]
    """
    if primaries not in TO_SRGB and transfer not in (LINEAR, PQ, HLG):
        return colours_rgb
    light, matrix = _linear_light(transfer), np.float32(TO_SRGB.get(primaries, np.eye(3)))
    found = np.empty_like(colours_rgb)
    for top in range(0, len(found), ROWS_AT_ONCE):
        linear = light[colours_rgb[top : top + ROWS_AT_ONCE]] @ matrix.T
        found[top : top + ROWS_AT_ONCE] = _srgb_levels()[(np.clip(linear, 0, 1) * (STEPS - 1) + 0.5).astype(np.int32)]
    return found


def _linear_light(transfer: int) -> np.ndarray:
    """Return the light of each of 256 levels, 1 for white: float32 (256,)."""
    level = np.arange(256) / 255
    if transfer == PQ:
        root = level ** (1 / 78.84375)
        ratio = np.maximum(root - 0.8359375, 0) / (18.8515625 - 18.6875 * root)
        light = 10_000 / WHITE * ratio ** (1 / 0.1593017578125)
    elif transfer == HLG:
        scene = np.where(level <= 0.5, level**2 / 3, (np.exp((level - 0.55991073) / 0.17883277) + 0.28466892) / 12)
        light = 1000 / WHITE * scene**1.2  # a display of 1,000 cd/m2
    elif transfer == LINEAR:
        light = level
    else:
        light = np.where(level <= 0.04045, level / 12.92, ((level + 0.055) / 1.055) ** 2.4)
    return light.astype(np.float32)


@functools.cache
def _srgb_levels() -> np.ndarray:
    """Return the sRGB level of each of STEPS values of linear light: uint8 (STEPS,)."""
    light = np.arange(STEPS) / (STEPS - 1)
    level = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    return (level * 255 + 0.5).astype(np.uint8)
