"""Change training images as sellers change theirs: light, pose, frame, shop text, ground."""

import cv2
import numpy as np

WHITE_FROM = 250  # a pixel whose channels are all from here up is ground that stage 01 left white, JPEG's noise aside


def augment(image_rgb: np.ndarray, mask: np.ndarray | None, rng: np.random.Generator, strength: float) -> np.ndarray:
    """Return a training image changed as sellers change theirs.

    Turned, scaled, shifted, seen from aside, mirrored, relit, with a colour cast, blurred, covered by bars of shop
    text, compressed; with a mask, set on a random ground.

    Parameters
    ----------
    image_rgb : uint8 ndarray of shape (size, size, 3), product on white
    mask : uint8 ndarray of shape (size, size), 255 on the product; or None to leave the ground white
    strength : 0 changes nothing but the mirror and the ground

    Returns
    -------
    uint8 RGB ndarray of shape (size, size, 3)
    """
    size = image_rgb.shape[0]
    if strength > 0:
        image_rgb, mask = warp(image_rgb, mask, rng, strength)
    if rng.random() < 0.5:
        image_rgb, mask = image_rgb[:, ::-1], None if mask is None else mask[:, ::-1]
    picture = image_rgb.astype(np.float32)
    if strength > 0:
        picture = relight(picture, rng, strength)
    if mask is not None:
        picture = np.where(mask[..., None] > 127, picture, random_ground(size, rng))
    if strength > 0:
        picture = edit(np.ascontiguousarray(picture), rng, strength)
    return np.ascontiguousarray(np.clip(picture, 0, 255).astype(np.uint8))


def warp(
    image_rgb: np.ndarray, mask: np.ndarray | None, rng: np.random.Generator, strength: float
) -> tuple[np.ndarray, np.ndarray | None]:
    """Turn, scale, shift and tilt an image and its mask alike: uint8 (size, size, 3) and (size, size) or None."""
    size = image_rgb.shape[0]
    corners = np.float32([[0, 0], [size, 0], [size, size], [0, size]]) - size / 2
    angle, scale = np.deg2rad(rng.normal(0, 12) * strength), np.exp(rng.normal(-0.05, 0.12) * strength)
    turn = scale * np.float32([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    moved = corners @ turn.T + size / 2
    moved += rng.normal(0, 0.03 * size * strength, (4, 2)) + rng.normal(0, 0.03 * size * strength, 2)
    matrix = cv2.getPerspectiveTransform(corners + np.float32(size / 2), moved.astype(np.float32))
    image_rgb = cv2.warpPerspective(image_rgb, matrix, (size, size), borderValue=(255, 255, 255))
    if mask is not None:
        mask = cv2.warpPerspective(mask, matrix, (size, size), flags=cv2.INTER_NEAREST)
    return image_rgb, mask


def relight(picture: np.ndarray, rng: np.random.Generator, strength: float) -> np.ndarray:
    """Change light, colour cast and contrast of all but the white ground: float32 (size, size, 3), 0 to 255."""
    cast = np.exp(rng.normal(0, 0.12 * strength) + rng.normal(0, 0.05 * strength, 3))  # (3,), per channel
    contrast = np.exp(rng.normal(0, 0.1 * strength))
    white = picture.min(axis=2, keepdims=True) >= WHITE_FROM
    lit = np.clip((picture * cast - 128) * contrast + 128, 0, 255)
    return np.where(white, picture, lit).astype(np.float32)


def edit(picture: np.ndarray, rng: np.random.Generator, strength: float) -> np.ndarray:
    """Blur a picture, draw shop text on it, compress it, each by chance: float32 RGB (size, size, 3), 0 to 255.

    The array given may be changed. Returns a picture of any numeric type.
    """
    if rng.random() < 0.25 * strength:
        picture = cv2.GaussianBlur(picture, (0, 0), rng.uniform(0.3, 1.2))
    if rng.random() < 0.2 * strength:
        draw_text_bar(picture, rng)
    if rng.random() < 0.25 * strength:
        quality = int(rng.integers(35, 90))
        picture_bgr = np.clip(picture[..., ::-1], 0, 255).astype(np.uint8)
        coded = cv2.imencode(".jpg", picture_bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
        picture = cv2.imdecode(coded, cv2.IMREAD_COLOR)[..., ::-1]
    return picture


def random_ground(size: int, rng: np.random.Generator) -> np.ndarray:
    """Draw a ground of blurred noise between two colours: float32 (size, size, 3), 0 to 255."""
    cells = int(rng.integers(1, 24))
    noise = rng.random((cells + 1, cells + 1, 1 if rng.random() < 0.5 else 3)).astype(np.float32)
    weight = cv2.resize(noise, (size, size), interpolation=cv2.INTER_LINEAR).reshape(size, size, -1)
    one, other = rng.uniform(0, 255, (2, 3))
    return (one + (other - one) * weight).astype(np.float32)


def draw_text_bar(picture: np.ndarray, rng: np.random.Generator) -> None:
    """Draw a bar with strokes like small print at the top or the bottom, in place: float32 (size, size, 3)."""
    size = picture.shape[0]
    height = int(size * rng.uniform(0.04, 0.12))
    top = (
        int(rng.integers(0, max(1, size // 8)))
        if rng.random() < 0.5
        else size - height - int(rng.integers(0, size // 8))
    )
    left, right = np.sort(rng.integers(0, size, 2))
    bar, ink = rng.uniform(0, 255, (2, 3))
    if rng.random() < 0.5:
        picture[top : top + height, left:right] = bar
    x = int(left)
    while x < right:
        width = int(rng.integers(1, max(2, height // 2 + 1)))
        picture[top + height // 4 : top + 3 * height // 4, x : x + width] = ink
        x += width + int(rng.integers(1, 4))
