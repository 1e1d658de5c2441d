"""Every kind of image file becomes the same upright 8-bit BGR array, or an ImageError that says why not."""

import io
import struct
import zlib

import cv2
import numpy as np
import pillow_heif
import pytest
from PIL import Image, ImageCms

from pipeline.dataset import write_image
from pipeline.images import ImageError, encode_image, on_white, read_bgr, read_image

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


# ---- HEIC and AVIF ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("suffix", "options"), [(".heic", {"quality": 90}), (".avif", {"quality": 90})])
def test_heic_and_avif_are_read(tmp_path, suffix, options):
    two_halves().resize((80, 40)).save(tmp_path / f"a{suffix}", chroma=444, subsampling="4:4:4", **options)
    image_bgr, alpha = read_image(tmp_path / f"a{suffix}")
    assert alpha is None
    assert is_two_halves(cv2.resize(image_bgr, (40, 20), interpolation=cv2.INTER_NEAREST))


@pytest.mark.parametrize("suffix", [".heic", ".avif"])
def test_heic_and_avif_are_turned_once(tmp_path, suffix):
    # a camera held upright: the picture is stored lying, boxes of the file and EXIF both say how to turn it
    exif = Image.Exif()
    exif[0x0112] = 6
    lying = two_halves().resize((80, 40)).rotate(90, expand=True)
    lying.save(tmp_path / f"a{suffix}", exif=exif.tobytes(), quality=90)
    image_bgr, _ = read_image(tmp_path / f"a{suffix}")
    assert is_two_halves(cv2.resize(image_bgr, (40, 20), interpolation=cv2.INTER_NEAREST), tolerance=30)


def test_ten_bits_are_scaled_to_eight(tmp_path):
    values = np.asarray(two_halves().resize((80, 40)), np.uint16) * 257
    heif = pillow_heif.from_bytes("RGB;16", (80, 40), values.tobytes())
    heif.save(tmp_path / "deep.heic", quality=-1, bit_depth=10)
    image_bgr, _ = read_image(tmp_path / "deep.heic")
    assert is_two_halves(cv2.resize(image_bgr, (40, 20), interpolation=cv2.INTER_NEAREST))


def test_a_transparent_heic_keeps_its_alpha(tmp_path):
    image = two_halves().resize((80, 40)).convert("RGBA")
    image.putalpha(Image.fromarray(np.repeat([[0, 255]], 40, axis=1).repeat(40, axis=0).astype(np.uint8)))
    image.save(tmp_path / "a.heic", quality=-1)
    _, alpha = read_image(tmp_path / "a.heic")
    assert alpha[:, :36].max() < 20 and alpha[:, 44:].min() > 235


@pytest.mark.parametrize("suffix", [".heic", ".HEIF", ".avif"])
def test_a_cleaned_heic_is_read_again(tmp_path, suffix):
    write_image(tmp_path / f"a{suffix}", np.asarray(two_halves())[..., ::-1])
    assert is_two_halves(read_bgr(tmp_path / f"a{suffix}"), tolerance=20)


# ---- colours ---------------------------------------------------------------------------------------


def wide_gamut_profile() -> bytes:
    """An ICC profile of the primaries of Display P3 and gamma 2.2, put together from the ICC specification."""

    def s15(*values: float) -> bytes:
        return b"".join(struct.pack(">i", round(value * 65536)) for value in values)

    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(2.2 * 256)) + b"\0\0"
    tags = {
        b"desc": b"desc\0\0\0\0" + struct.pack(">I", 5) + b"wide\0" + bytes(79),
        b"wtpt": b"XYZ \0\0\0\0" + s15(0.9642, 1, 0.8249), b"rXYZ": b"XYZ \0\0\0\0" + s15(0.5151, 0.2412, -0.0011),
        b"gXYZ": b"XYZ \0\0\0\0" + s15(0.2920, 0.6922, 0.0419), b"bXYZ": b"XYZ \0\0\0\0" + s15(0.1571, 0.0666, 0.7841),
        b"rTRC": curve, b"gTRC": curve, b"bTRC": curve, b"cprt": b"text\0\0\0\0none\0",
    }  # fmt: skip
    table, body, start = struct.pack(">I", len(tags)), b"", 132 + 12 * len(tags)
    for name, data in tags.items():
        table += name + struct.pack(">II", start + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    header = struct.pack(">I4sI4s4s4s", start + len(body), bytes(4), 0x02100000, b"mntr", b"RGB ", b"XYZ ")
    header += struct.pack(">6H", 2020, 1, 1, 0, 0, 0) + b"acsp" + bytes(28) + s15(0.9642, 1, 0.8249)
    return header.ljust(128, b"\0") + table + body


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_colours_of_an_embedded_profile_become_srgb(tmp_path, suffix, mode):
    if (suffix, mode) == (".jpg", "RGBA"):
        pytest.skip("JPEG knows no transparency")
    wide = ImageCms.ImageCmsProfile(io.BytesIO(wide_gamut_profile()))
    stored = ImageCms.profileToProfile(two_halves(), ImageCms.createProfile("sRGB"), wide).convert(mode)
    if mode == "RGBA":
        stored.putalpha(200)
    options = {"quality": 97, "subsampling": 0} if suffix == ".jpg" else {"lossless": True}
    stored.save(tmp_path / f"a{suffix}", icc_profile=wide.tobytes(), **options)
    image_bgr, alpha = read_image(tmp_path / f"a{suffix}")
    assert is_two_halves(image_bgr, tolerance=8)
    assert (alpha is None) if mode == "RGB" else (alpha == 200).all()
    # the file's own numbers are other ones
    assert not is_two_halves(np.asarray(stored.convert("RGB"))[..., ::-1], tolerance=8)


# sRGB's red and green as Display P3 has them (CSS Color 4); BT.2100's white of printed paper, BT.2020's own grey
P3, BT2020, SRGB_CURVE, PQ, HLG = 12, 9, 13, 16, 18


@pytest.mark.parametrize(
    ("primaries", "transfer", "stored", "shown"),
    [
        (P3, SRGB_CURVE, (234, 51, 35), (255, 0, 0)),
        (P3, SRGB_CURVE, (117, 251, 76), (0, 255, 0)),
        (1, SRGB_CURVE, (117, 251, 76), (117, 251, 76)),
        (BT2020, SRGB_CURVE, (90, 90, 90), (90, 90, 90)),
        (BT2020, PQ, (148, 148, 148), (255, 255, 255)),
        (BT2020, PQ, (255, 255, 255), (255, 255, 255)),
        (BT2020, HLG, (191, 191, 191), (254, 254, 254)),
        (BT2020, HLG, (0, 0, 0), (0, 0, 0)),
    ],
)
@pytest.mark.parametrize("suffix", [".heic", ".avif"])
def test_colours_of_code_points_become_srgb(tmp_path, suffix, primaries, transfer, stored, shown):
    path, image = tmp_path / f"a{suffix}", Image.new("RGB", (64, 64), stored)
    if suffix == ".heic":
        heif = pillow_heif.from_pillow(image)
        heif.save(path, quality=-1, chroma=444, color_primaries=primaries, transfer_characteristics=transfer)
    else:
        image.save(path, quality=100, subsampling="4:4:4")
        head, box, tail = path.read_bytes().partition(b"colrnclx")
        path.write_bytes(head + box + struct.pack(">HH", primaries, transfer) + tail[4:])
    assert np.abs(read_bgr(path)[32, 32, ::-1].astype(int) - shown).max() <= 4


def test_a_profile_comes_before_code_points_and_alpha_stays(tmp_path):
    image = Image.new("RGBA", (64, 64), (117, 251, 76, 128))
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for name, profile, shown in (("with", srgb, (117, 251, 76)), ("without", b"", (0, 255, 0))):
        path = tmp_path / f"{name}.avif"
        image.save(path, quality=100, subsampling="4:4:4", icc_profile=profile)
        data = path.read_bytes()
        box = data.find(b"colrnclx")
        path.write_bytes(data[: box + 8] + struct.pack(">HH", P3, SRGB_CURVE) + data[box + 12 :] if box > 0 else data)
        image_bgr, alpha = read_image(path)
        assert np.abs(image_bgr[32, 32, ::-1].astype(int) - shown).max() <= 4 and abs(int(alpha[32, 32]) - 128) <= 2


@pytest.mark.parametrize("profile", [b"damaged", wide_gamut_profile()[:200], wide_gamut_profile()])
def test_a_profile_that_does_not_fit_changes_nothing(tmp_path, profile):
    image = two_halves().convert("L") if len(profile) > 200 else two_halves()  # a colour profile on a grey image
    image.save(tmp_path / "a.png", icc_profile=profile)
    assert (read_bgr(tmp_path / "a.png")[..., ::-1] == np.asarray(image.convert("RGB"))).all()


def test_lab_is_read(tmp_path):
    lab = ImageCms.profileToProfile(
        two_halves(), ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
    )
    lab.save(tmp_path / "a.tif")
    assert is_two_halves(read_bgr(tmp_path / "a.tif"), tolerance=16)


# ---- more than 8 bits ------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("top", [1023, 4095, 65535])
@pytest.mark.parametrize("grey", [True, False])
def test_bits_that_a_scanner_left_empty_do_not_make_an_image_dark(tmp_path, suffix, top, grey):
    image_bgr = np.asarray(two_halves())[..., ::-1]
    image_bgr = np.ascontiguousarray(image_bgr[..., 0] if grey else image_bgr)
    image_bgr[0, 0] = 255
    cv2.imwrite(str(tmp_path / f"a{suffix}"), np.round(image_bgr / 255.0 * top).astype(np.uint16))
    found = read_bgr(tmp_path / f"a{suffix}")
    expected = np.repeat(image_bgr[..., None], 3, axis=2) if grey else image_bgr
    assert np.abs(found.astype(int) - expected).max() <= 1


def test_what_a_png_says_of_its_bits_comes_first(tmp_path):
    values = np.full((8, 8), 12_000, np.uint16)
    data = cv2.imencode(".png", values)[1].tobytes()
    chunk = b"sBIT" + bytes([14])
    chunk = struct.pack(">I", 1) + chunk + struct.pack(">I", zlib.crc32(chunk))
    (tmp_path / "said.png").write_bytes(data[:33] + chunk + data[33:])
    (tmp_path / "unsaid.png").write_bytes(data)
    assert read_bgr(tmp_path / "said.png")[0, 0, 0] == round(12_000 / 16383 * 255)
    assert read_bgr(tmp_path / "unsaid.png")[0, 0, 0] == round(12_000 / 65535 * 255)


def test_a_git_lfs_pointer_is_named_with_its_remedy(tmp_path):
    (tmp_path / "a.jpg").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12345\n")
    with pytest.raises(ImageError, match=r"Git LFS pointer .* git lfs pull"):
        read_image(tmp_path / "a.jpg")
