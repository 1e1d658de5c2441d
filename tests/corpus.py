"""Good, odd and bad image files, drawn here: what strangers' folders hold."""

import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pillow_heif
from PIL import Image, ImageDraw

pillow_heif.register_heif_opener()


def product(size: tuple[int, int] = (120, 90), seed: int = 0) -> Image.Image:
    """A red bag with a handle on a light ground, turned a little: RGB."""
    generator = np.random.default_rng(seed)
    image = Image.new("RGB", (240, 180), (236, 238, 240))
    draw = ImageDraw.Draw(image)
    x, y = generator.integers(60, 90, 2)
    draw.ellipse([x + 15, y - 30, x + 65, y + 40], outline=(120, 20, 24), width=8)
    draw.rounded_rectangle([x, y, x + 80, y + 60], 10, fill=(190, 30, 40))
    draw.rectangle([x + 30, y + 20, x + 50, y + 30], fill=(240, 200, 80))
    return image.rotate(float(generator.uniform(-8, 8)), fillcolor=(236, 238, 240)).resize(
        size, Image.Resampling.LANCZOS
    )


def encoded(image: Image.Image, kind: str = "JPEG", **options: object) -> bytes:
    """The bytes of an image file."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png_header_only(width: int, height: int) -> bytes:
    """A PNG that claims width x height pixels in its header and has no data: a decompression bomb's first half."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def flipped(data: bytes, seed: int, n_bits: int = 40) -> bytes:
    """`data` with random bits inverted behind the first 200 bytes."""
    generator = np.random.default_rng(seed)
    changed = bytearray(data)
    for position in generator.integers(200, len(data), n_bits):
        changed[position] ^= 1 << int(generator.integers(8))
    return bytes(changed)


def exif(orientation: int) -> Image.Exif:
    """An EXIF block with that orientation, 1 to 8."""
    block = Image.Exif()
    block[0x0112] = orientation
    return block


def good() -> dict[str, bytes]:
    """Files by name of which every one is an image that must come out."""
    image = product()
    jpeg = encoded(image, quality=90)
    grey16 = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
    clear = image.convert("RGBA")
    clear.putalpha(Image.fromarray((np.asarray(image)[..., 1] < 200).astype(np.uint8) * 255))
    made = {
        "1_1_plain.jpg": jpeg,
        "1_1_progressive.jpg": encoded(image, progressive=True),
        "1_1_cmyk.jpg": encoded(image.convert("CMYK")),
        "1_1_grey.jpg": encoded(image.convert("L")),
        "1_1_sixteen.png": encoded(grey16, "PNG"),
        "1_1_alpha.png": encoded(clear, "PNG"),
        "1_1_palette.png": encoded(image.quantize(32), "PNG"),
        "1_1_bits.png": encoded(image.convert("1"), "PNG"),
        "1_1_animated.gif": encoded(image, "GIF", save_all=True, append_images=[product(seed=1)]),
        "1_1_animated.webp": encoded(image, "WEBP", save_all=True, append_images=[product(seed=1)]),
        "1_1_lzw.tif": encoded(image, "TIFF", compression="tiff_lzw"),
        "1_1_old.bmp": encoded(image, "BMP"),
        "1_1_png_inside.jpg": encoded(image, "PNG"),
        "1_1_phone.HEIC": encoded(image, "HEIF", quality=80),
        "1_1_web.avif": encoded(image, "AVIF", quality=80),
        "1_1_broken_exif.jpg": encoded(image, exif=b"Exif\x00\x00MM\x00*\xff\xff\xff\xff" + b"\xff" * 40),
        "1_1_broken_icc.jpg": encoded(image, icc_profile=b"\x00\x01no profile" * 30),
        "1_1_one.png": encoded(Image.new("RGB", (1, 1), (200, 0, 0)), "PNG"),
        "1_1_line.png": encoded(Image.new("RGB", (20_000, 1), (200, 0, 0)), "PNG"),
        "1_1_upper.JPG": jpeg,
        "shop a/1_1_same.jpg": jpeg,
        "shop b/1_1_same.jpg": encoded(product(seed=2)),
        '1_1_"quoted", it\'s.jpg': jpeg,
        "1_1_👜.jpg": jpeg,
        "1_1_가방.jpg": jpeg,
        "1_1_\u1100\u1161\u1107\u1161\u11bc.jpg": encoded(product(seed=3)),  # the same word, decomposed
        "-1_1_dash.jpg": jpeg,
        "=1_1_cmd|calc.jpg": jpeg,
        "1_1_<img src=x onerror=alert(1)>.jpg": jpeg,
        "1_1_" + "x" * 240 + ".jpg": jpeg,
    }
    made.update({f"1_1_exif{i}.jpg": encoded(image, exif=exif(i)) for i in range(1, 9)})
    return made


def bad() -> dict[str, bytes]:
    """Files by name of which every one must end as a row of skipped.csv."""
    jpeg = encoded(product(), quality=90)
    return {
        "2_1_empty.jpg": b"",
        "2_1_text.jpg": b"this is no photograph\n" * 20,
        "2_1_html.png": b"<!doctype html><title>404</title>",
        "2_1_svg.jpg": b'<svg xmlns="http://www.w3.org/2000/svg"/>',
        "2_1_eps.jpg": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n",
        "2_1_truncated.jpg": jpeg[: len(jpeg) // 3],
        "2_1_truncated.png": encoded(product(), "PNG")[:900],
        "2_1_header.jpg": jpeg[:20],
        "2_1_bomb.png": png_header_only(60_000, 60_000),
        "2_1_wide.png": png_header_only(2**31 - 1, 1),
        "2_1_zero.png": png_header_only(0, 0),
        "2_1_break\n.jpg": jpeg,
        "2_1_tab\t.jpg": jpeg,
    }


def either() -> dict[str, bytes]:
    """Files by name that may come out or be skipped: damaged, but perhaps readable."""
    jpeg = encoded(product((300, 300)), quality=90)
    return {f"3_1_flipped{i}.jpg": flipped(jpeg, i) for i in range(20)}


def lay_out(folder: Path, made: dict[str, bytes]) -> None:
    """Write the files into `folder`."""
    for name, data in made.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def links(folder: Path) -> list[str]:
    """Put a dangling and a circular symbolic link, a link out to a good image and a named pipe; returns the bad."""
    (folder / "2_2_dangling.jpg").symlink_to(folder / "nowhere.jpg")
    (folder / "2_2_circle_a.jpg").symlink_to(folder / "2_2_circle_b.jpg")
    (folder / "2_2_circle_b.jpg").symlink_to(folder / "2_2_circle_a.jpg")
    (folder / "circle").symlink_to(folder, target_is_directory=True)
    os.mkfifo(folder / "2_2_pipe.jpg")
    return ["2_2_dangling.jpg", "2_2_circle_a.jpg", "2_2_circle_b.jpg", "2_2_pipe.jpg"]
