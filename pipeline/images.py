"""Any image file into an array, safely, and back.

Pillow reads (HEIC by pillow-heif): it knows the formats, the modes, EXIF's orientation and colour profiles, and it
tells the size before it decodes.
"""

import contextlib
import io
import struct
import warnings
from pathlib import Path

import cv2
import numpy as np
import pillow_heif
from PIL import Image, ImageCms, ImageOps

from pipeline.code_points import convert_code_points, find_code_points

JPEG_SUFFIXES = frozenset({".jpg", ".jpeg", ".jpe", ".jfif"})
HEIF_SUFFIXES = frozenset({".heic", ".heif", ".hif", ".avif"})
IMAGE_SUFFIXES = JPEG_SUFFIXES | HEIF_SUFFIXES | {".png", ".webp", ".bmp", ".tif", ".tiff", ".gif"}
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "DIB", "TIFF", "GIF", "HEIF", "AVIF")  # none that runs programs, such as EPS
# photographs and drawings that are not read: suffix -> what it is
UNREAD_SUFFIXES = {
    **dict.fromkeys((".psd", ".psb"), "a Photoshop file"),
    **dict.fromkeys((".cr2", ".cr3", ".crw", ".nef", ".nrw", ".arw", ".srf", ".sr2", ".dng", ".raf", ".orf", ".rw2",
                     ".rwl", ".pef", ".srw", ".x3f", ".3fr", ".fff", ".iiq", ".kdc", ".dcr", ".mrw", ".erf", ".mef",
                     ".mos", ".raw"), "a camera's raw file"),
    **dict.fromkeys((".jp2", ".j2k", ".jpx", ".jpf"), "JPEG 2000"),
    **dict.fromkeys((".svg", ".svgz", ".ai", ".eps"), "a drawing"),
    ".jxl": "JPEG XL", ".tga": "a Targa file", ".xcf": "a GIMP file", ".exr": "an OpenEXR file",
}  # fmt: skip
MAX_PIXELS = 100_000_000  # a decoded image of this size takes 300 MB
MAX_BYTES = 500_000_000
JPEG_QUALITY = 95
LFS_POINTER = b"version https://git-lfs.github.com/spec/"  # how the text begins that stands for a file in Git LFS
ORIENTATION = 0x0112  # EXIF's tag

pillow_heif.register_heif_opener()
pillow_heif.options.DECODE_THREADS = 1  # several images are read at once already
# Pillow warns of half-broken metadata, which does not concern the pixels, and of sizes, which are checked here
warnings.filterwarnings("ignore", module=r"PIL\.")


class ImageError(Exception):
    """Why a file can't be used as an image, in a few words for `skipped.csv`."""


def read_image(path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    """Read an image file of any of `FORMATS`, whatever its suffix says, turned upright by its EXIF orientation.

    Returns
    -------
    image_bgr : uint8 ndarray of shape (H, W, 3); transparent pixels keep their colour
    alpha : uint8 ndarray of shape (H, W), 0 transparent to 255 opaque, or None where every pixel is opaque

    Images of more than 8 bits are scaled to 8 bits (see `_top_of`), colours of an embedded profile or of code points
    (Display P3, HDR), CMYK and palettes converted to sRGB, of an animation the first frame is taken.
    Raises ImageError where the file can't be opened, is no image, is truncated or damaged, or is over `MAX_PIXELS`.
    """
    try:
        data = _bytes_of(path)
        with Image.open(io.BytesIO(data), formats=FORMATS) as opened:
            width, height = opened.size
            if width * height > MAX_PIXELS:
                raise ImageError(f"{width}x{height} pixels are more than {MAX_PIXELS // 1_000_000} million")
            opened.load()
            picture = _read_deep(opened, data) or opened
            _turn_upright(picture, data)
            picture = _convert_code_points(picture, data)
        rgba = _to_rgba(convert_to_srgb(picture), _significant_bits(data))
    except ImageError:
        raise
    except Image.DecompressionBombError:
        raise ImageError(f"more than {MAX_PIXELS // 1_000_000} million pixels") from None
    except Image.UnidentifiedImageError:
        raise ImageError("not an image of a known format, or a damaged one") from None
    except MemoryError:
        raise ImageError("too large for the memory") from None
    except OSError as error:
        raise ImageError(f"can't be read: {error.strerror or error}") from None
    except Exception as error:  # a decoder on hostile bytes may raise anything
        raise ImageError(f"damaged: {type(error).__name__}") from None
    image_bgr = cv2.cvtColor(rgba[..., :3], cv2.COLOR_RGB2BGR)  # (H, W, 3)
    alpha = np.ascontiguousarray(rgba[..., 3]) if rgba.shape[2] == 4 else None
    return image_bgr, None if alpha is None or alpha.min() == 255 else alpha


def read_bgr(path: Path) -> np.ndarray:
    """Read an image file as `read_image` does, transparent pixels over white: uint8 BGR (H, W, 3)."""
    image_bgr, alpha = read_image(path)
    return image_bgr if alpha is None else on_white(image_bgr, alpha)


def on_white(image_bgr: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Blend an image over white: uint8 BGR (H, W, 3) and uint8 alpha (H, W) -> uint8 BGR (H, W, 3).

    >>> on_white(np.zeros((1, 1, 3), np.uint8), np.full((1, 1), 255, np.uint8)).tolist()
    [[[0, 0, 0]]]
    """
    weight = alpha[..., None].astype(np.uint16)
    return ((image_bgr * weight + 255 * (255 - weight) + 127) // 255).astype(np.uint8)


def encode_image(image_bgr: np.ndarray, suffix: str) -> bytes:
    """Return the bytes of an image file of the format that `suffix` names.

    image_bgr : uint8 BGR ndarray of shape (H, W, 3), or grey (H, W)

    HEIC and AVIF would take seconds for a photograph: JPEG is written in their place, which readers tell by content.
    Raises ImageError for a suffix that is none of `IMAGE_SUFFIXES` and for an image its format can't hold.
    """
    suffix = suffix.lower()
    if suffix not in IMAGE_SUFFIXES:
        raise ImageError(f"no image format is known by the suffix {suffix}")
    if suffix in JPEG_SUFFIXES | HEIF_SUFFIXES | {".png", ".bmp"}:
        as_jpeg = suffix not in {".png", ".bmp"}
        options = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY] if as_jpeg else []
        good, data = cv2.imencode(".jpg" if as_jpeg else suffix, image_bgr, options)
        if not good:
            raise ImageError(f"can't be written as {suffix}")
        return data.tobytes()
    picture = Image.fromarray(image_bgr if image_bgr.ndim == 2 else image_bgr[..., ::-1])
    buffer = io.BytesIO()
    try:
        if suffix == ".webp":
            picture.save(buffer, "WEBP", quality=JPEG_QUALITY)
        else:
            picture.save(buffer, "GIF" if suffix == ".gif" else "TIFF")
    except (OSError, ValueError) as error:
        raise ImageError(f"can't be written as {suffix}: {error}") from None
    return buffer.getvalue()


def _bytes_of(path: Path) -> bytes:
    """Return the content of a regular file of at most MAX_BYTES."""
    if not path.is_file():
        raise ImageError("no such file" if not path.exists() else "not a regular file")
    size = path.stat().st_size
    if size == 0:
        raise ImageError("the file is empty")
    if size > MAX_BYTES:
        raise ImageError(f"the file is larger than {MAX_BYTES // 1_000_000} MB")
    data = path.read_bytes()
    if data.startswith(LFS_POINTER):
        raise ImageError("a Git LFS pointer in the place of the picture: run git lfs pull in its repository")
    return data


def _turn_upright(image: Image.Image, data: bytes) -> None:
    """Turn an image upright by its EXIF orientation, in place; an image with a damaged EXIF block stays as it is.

    In HEIC and AVIF, boxes ("irot", "imir") say how the image is turned, and EXIF's orientation says it a second time:
    pillow-heif has turned the image and reset EXIF, Pillow has put the boxes of an AVIF into EXIF, where it has any.
    """
    if image.format == "AVIF" and b"irot" not in data and b"imir" not in data:
        return
    with contextlib.suppress(Exception):
        ImageOps.exif_transpose(image, in_place=True)


def convert_to_srgb(image: Image.Image) -> Image.Image:
    """Return an image in sRGB by its embedded colour profile; as it is where it has none that can be used."""
    profile = image.info.get("icc_profile")
    if not profile:
        return image
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if "srgb" in ImageCms.getProfileDescription(source).lower():
            return image
        clear = _is_clear(image)
        colours = image.convert("RGB") if image.mode in {"P", "RGBA", "RGBa", "PA", "RGBX"} else image
        colours = colours.convert("L") if colours.mode in {"LA", "La"} else colours
        spaces = {"RGB": "RGB", "L": "GRAY", "CMYK": "CMYK", "LAB": "Lab"}
        if spaces.get(colours.mode) != source.profile.xcolor_space.strip():
            return image
        found = ImageCms.profileToProfile(colours, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):  # a damaged profile
        return image
    if found is None:  # only where it changes an image in place, says the documentation
        return image
    if clear:
        found.putalpha(image.convert("RGBA").getchannel("A"))
    return found


def _convert_code_points(image: Image.Image, data: bytes) -> Image.Image:
    """Return a HEIC or AVIF image in sRGB by its code points; as it is where it has none, or a colour profile."""
    if image.format not in {"HEIF", "AVIF"} or image.info.get("icc_profile"):
        return image
    said = image.info.get("nclx_profile")  # of the file's main image; of an AVIF, Pillow does not tell it
    points = (said["color_primaries"], said["transfer_characteristics"]) if said else find_code_points(data)
    if points is None or image.mode not in {"RGB", "RGBA"}:
        return image
    found = Image.fromarray(convert_code_points(np.asarray(image.convert("RGB")), *points))
    if image.mode == "RGBA":
        found.putalpha(image.getchannel("A"))
    return found


def _read_deep(image: Image.Image, data: bytes) -> Image.Image | None:
    """Return a colour image of 16 bits whose values do not use them all, as 8 bits; None for any other.

    Pillow would keep the upper 8 of the 16 bits, which in an image of 12 bits are nearly black.
    """
    bits = image.tag_v2.get(258) if image.format == "TIFF" else None  # type: ignore[attr-defined]
    deep = (image.format == "PNG" and data[24:25] == b"\x10") or (bits and set(np.atleast_1d(bits)) == {16})
    if not deep or image.mode not in {"RGB", "RGBA", "RGBX", "LA"}:
        return None
    values = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if values is None or values.dtype != np.uint16 or values.ndim != 3:
        return None
    colours_rgb = values[..., 2::-1]
    top = _top_of(float(colours_rgb.max(initial=0)), _significant_bits(data))
    if top == 65535:
        return None
    scaled = (np.minimum(colours_rgb, top) / top * 255 + 0.5).astype(np.uint8)
    if values.shape[2] == 4:
        alpha_top = 65535 if values[..., 3].max(initial=0) > top else top
        scaled = np.dstack([scaled, (values[..., 3] / alpha_top * 255 + 0.5).astype(np.uint8)])
    found = Image.fromarray(scaled)
    found.info = {**image.info}
    return found


def _significant_bits(data: bytes) -> int | None:
    """Return how many bits of a PNG's samples carry the image by its sBIT chunk; None where nothing is said."""
    place = data.find(b"sBIT", 0, 4096) if data.startswith(b"\x89PNG") else -1
    if place < 4:
        return None
    (length,) = struct.unpack(">I", data[place - 4 : place])
    bits = data[place + 4 : place + 4 + length]
    return max(bits[:3]) if 0 < length <= 4 else None


def _top_of(largest: float, bits: int | None) -> float:
    """Return the value that stands for white in an image of 16 bits whose largest value is `largest`.

    A scanner's 10 or 12 bits are often stored without being scaled. Nothing above 4095 then occurs, which of a
    photograph scaled to 16 bits, 6 % of white, is not to be expected. What PNG says of its bits comes first.

    >>> _top_of(60000, None), _top_of(4000, None), _top_of(900, 12), _top_of(12000, 14)
    (65535, 4095, 4095, 16383)
    """
    tops = [2**bits - 1] if bits and bits < 16 else [255, 1023, 4095]
    return next((top for top in tops if largest <= top), 65535)


def _is_clear(image: Image.Image) -> bool:
    """Return whether an image's mode knows transparency."""
    return image.mode in {"RGBA", "LA", "PA", "La", "RGBa"} or "transparency" in image.info


def _to_rgba(image: Image.Image, bits: int | None = None) -> np.ndarray:
    """Return the pixels of any mode as uint8 RGB (H, W, 3), or RGBA (H, W, 4) where the mode knows transparency."""
    if image.mode in {"I;16", "I;16L", "I;16B", "I;16N", "I", "F"}:
        grey = np.asarray(image).astype(np.float64)  # (H, W)
        # integer modes come from 16-bit files; a float image says its range only by its values
        largest = float(grey.max(initial=0))
        top = (
            _top_of(largest, bits) if image.mode != "F" else 65535.0 if largest > 255 else 255.0 if largest > 1 else 1.0
        )
        grey = np.nan_to_num(np.clip(grey / top * 255 + 0.5, 0, 255)).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)
    mode = "RGBA" if _is_clear(image) else "RGB"
    return np.asarray(image if image.mode == mode else image.convert(mode))
