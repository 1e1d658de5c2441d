"""Every kind of image file becomes the same upright 8-bit BGR array, or an ImageError that says why not."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from pipeline.images import ImageError, encode_image, on_white, read_bgr, read_image, write_image

RED, GREEN = (200, 30, 20), (20, 160, 40)


def two_halves() -> Image.Image:
    """40 wide, 20 high: left half red, right half green."""
    image = Image.new("RGB", (40, 20), RED)
    image.paste(GREEN, (20, 0, 40, 20))
    return image


def is_two_halves(image_bgr: np.ndarray, tolerance: int = 12) -> bool:
    left, right = image_bgr[:, 2:18].reshape(-1, 3), image_bgr[:, 22:38].reshape(-1, 3)
    return image_bgr.shape == (20, 40, 3) and all(
        np.abs(half.astype(int) - colour[::-1]).max() <= tolerance for half, colour in ((left, RED), (right, GREEN))
    )


@pytest.mark.parametrize(
    ("name", "mode", "options"),
    [
        ("a.jpg", "RGB", {"quality": 95, "subsampling": 0}),
        ("progressive.jpg", "RGB", {"quality": 95, "subsampling": 0, "progressive": True}),
        ("cmyk.jpg", "CMYK", {"quality": 95, "subsampling": 0}),
        ("a.png", "RGB", {}),
        ("alpha.png", "RGBA", {}),
        ("palette.png", "P", {}),
        ("a.bmp", "RGB", {}),
        ("a.tiff", "RGB", {}),
        ("cmyk.tif", "CMYK", {}),
        ("a.webp", "RGB", {"lossless": True}),
        ("a.gif", "P", {}),
        ("가방 1, 왼쪽.png", "RGB", {}),
    ],
)
def test_formats_and_modes(tmp_path, name, mode, options):
    # convert("P") would dither; quantize keeps the two colours
    image = two_halves().quantize(2) if mode == "P" else two_halves().convert(mode)
    image.save(tmp_path / name, **options)
    assert is_two_halves(read_bgr(tmp_path / name))


def test_the_content_counts_not_the_suffix(tmp_path):
    two_halves().save(tmp_path / "a.png")
    (tmp_path / "a.png").rename(tmp_path / "a.jpg")
    assert is_two_halves(read_bgr(tmp_path / "a.jpg"))


@pytest.mark.parametrize(
    ("orientation", "undo"),
    [
        (1, None),
        (2, Image.Transpose.FLIP_LEFT_RIGHT),
        (3, Image.Transpose.ROTATE_180),
        (4, Image.Transpose.FLIP_TOP_BOTTOM),
        (5, Image.Transpose.TRANSPOSE),
        (6, Image.Transpose.ROTATE_90),
        (7, Image.Transpose.TRANSVERSE),
        (8, Image.Transpose.ROTATE_270),
    ],
)
def test_exif_orientation_is_applied(tmp_path, orientation, undo):
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = two_halves() if undo is None else two_halves().transpose(undo)
    stored.save(tmp_path / "a.jpg", exif=exif, quality=95, subsampling=0)
    assert is_two_halves(read_bgr(tmp_path / "a.jpg"))


def test_sixteen_bits_are_scaled(tmp_path):
    grey = np.array([[0, 257 * 100, 65535]], dtype=np.uint16)
    Image.fromarray(grey).save(tmp_path / "a.png")
    assert read_bgr(tmp_path / "a.png")[0].tolist() == [[0] * 3, [100] * 3, [255] * 3]


def test_alpha_is_given_and_blends_over_white(tmp_path):
    rgba = np.array([[[10, 20, 30, 0], [10, 20, 30, 255], [0, 0, 0, 51]]], dtype=np.uint8)
    Image.fromarray(rgba).save(tmp_path / "a.png")
    image_bgr, alpha = read_image(tmp_path / "a.png")
    assert image_bgr[0].tolist() == [[30, 20, 10], [30, 20, 10], [0, 0, 0]]
    assert alpha.tolist() == [[0, 255, 51]]
    assert on_white(image_bgr, alpha)[0].tolist() == [[255] * 3, [30, 20, 10], [204] * 3]


def test_an_opaque_alpha_channel_is_none(tmp_path):
    two_halves().convert("RGBA").save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png")[1] is None


def test_first_frame_of_an_animation(tmp_path):
    frames = [two_halves(), Image.new("RGB", (40, 20))]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert is_two_halves(read_bgr(tmp_path / "a.gif"))


def bomb() -> bytes:
    """A PNG of 60,000 x 60,000 pixels in its header, with hardly any data."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def jpeg() -> bytes:
    buffer = io.BytesIO()
    two_halves().resize((400, 200)).save(buffer, "JPEG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "empty"),
        (b"this is text", "not an image"),
        (b"<svg/>", "not an image"),
        (jpeg()[:600], "can't be read|damaged"),
        (bomb(), "million"),
    ],
)
def test_files_that_are_no_good_say_why(tmp_path, content, said):
    (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(ImageError, match=said):
        read_image(tmp_path / "a.jpg")


def test_missing_file_folder_and_dangling_link(tmp_path):
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "link.jpg").symlink_to(tmp_path / "nowhere.jpg")
    for name in ("none.jpg", "folder.jpg", "link.jpg"):
        with pytest.raises(ImageError):
            read_image(tmp_path / name)


@pytest.mark.parametrize("suffix", [".jpg", ".JPEG", ".png", ".bmp", ".tif", ".webp", ".gif"])
def test_written_images_are_read_again(tmp_path, suffix):
    path = tmp_path / f"가방{suffix}"
    write_image(path, np.asarray(two_halves())[..., ::-1].copy())
    assert is_two_halves(read_bgr(path), tolerance=25)


def test_unknown_suffix_is_refused():
    with pytest.raises(ImageError, match="svg"):
        encode_image(np.zeros((2, 2, 3), np.uint8), ".svg")
