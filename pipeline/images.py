"""Any image file into an array, safely, and back.

Pillow reads: it knows the formats, the modes and EXIF's orientation, and it tells the size before it decodes.
"""

import contextlib
import io
import warnings
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageOps

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif"})
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "DIB", "TIFF", "GIF")  # no format that runs programs (EPS) or nests
MAX_PIXELS = 100_000_000  # a decoded image of this size takes 300 MB
MAX_BYTES = 500_000_000
JPEG_QUALITY = 95

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

    16-bit images are scaled to 8 bits, CMYK and palettes converted, of an animation the first frame is taken.
    Raises ImageError where the file can't be opened, is no image, is truncated or damaged, or is over `MAX_PIXELS`.
    """
    try:
        data = _bytes_of(path)
        with Image.open(io.BytesIO(data), formats=FORMATS) as opened:
            width, height = opened.size
            if width * height > MAX_PIXELS:
                raise ImageError(f"{width}x{height} pixels are more than {MAX_PIXELS // 1_000_000} million")
            opened.load()
            _turn_upright(opened)
        rgba = _to_rgba(opened)
    except ImageError:
        raise
    except Image.DecompressionBombError:
        raise ImageError(f"more than {MAX_PIXELS // 1_000_000} million pixels") from None
    except Image.UnidentifiedImageError:
        raise ImageError("not an image of a known format") from None
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
    """The bytes of an image file of the format that `suffix` names: uint8 BGR (H, W, 3) or grey (H, W).

    Raises ImageError for a suffix that is none of `IMAGE_SUFFIXES` and for an image its format can't hold.
    """
    suffix = suffix.lower()
    if suffix not in IMAGE_SUFFIXES:
        raise ImageError(f"no image format is known by the suffix {suffix}")
    if suffix in {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp"}:
        options = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY] if suffix.startswith(".j") else []
        good, data = cv2.imencode(".jpg" if suffix.startswith(".j") else suffix, image_bgr, options)
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


def write_image(path: Path, image_bgr: np.ndarray) -> None:
    """Write an image whole or not at all, in the format that the suffix of `path` names."""
    from pipeline.machinery.files import write_bytes

    write_bytes(path, encode_image(image_bgr, path.suffix))


def _bytes_of(path: Path) -> bytes:
    """The content of a regular file of at most MAX_BYTES."""
    if not path.is_file():
        raise ImageError("no such file" if not path.exists() else "not a regular file")
    size = path.stat().st_size
    if size == 0:
        raise ImageError("the file is empty")
    if size > MAX_BYTES:
        raise ImageError(f"the file is larger than {MAX_BYTES // 1_000_000} MB")
    return path.read_bytes()


def _turn_upright(image: Image.Image) -> None:
    """Apply EXIF's orientation in place; an image whose EXIF block is damaged stays as it is."""
    with contextlib.suppress(Exception):
        ImageOps.exif_transpose(image, in_place=True)


def _to_rgba(image: Image.Image) -> np.ndarray:
    """Pixels of any mode as uint8 RGB (H, W, 3), or RGBA (H, W, 4) where the mode knows transparency."""
    if image.mode in {"I;16", "I;16L", "I;16B", "I;16N", "I", "F"}:
        grey = np.asarray(image).astype(np.float64)  # (H, W)
        # integer modes come from 16-bit files; a float image says its range only by its values
        top = 65535.0 if image.mode != "F" or grey.max(initial=0) > 255 else 255.0 if grey.max(initial=0) > 1 else 1.0
        grey = np.nan_to_num(np.clip(grey / top * 255 + 0.5, 0, 255)).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)
    clear = image.mode in {"RGBA", "LA", "PA", "La", "RGBa"} or "transparency" in image.info
    mode = "RGBA" if clear else "RGB"
    return np.asarray(image if image.mode == mode else image.convert(mode))
