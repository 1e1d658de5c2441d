"""Pieces of photographs: as pictures, or cut by the outline of a thing.

Photographs of landscapes, fabrics and things show textures, light and parts that no drawing shows.
"""

import cv2
import numpy as np

LEAST_CONTRAST = 9.0  # grey levels of deviation; a flatter piece shows nothing
SHAPED_SHARE = 0.45  # of pieces that are cut by an outline
LEAST_SIDE = 90  # pixels of a piece, where the photograph is larger


def cut_piece(photograph: np.ndarray, rng: np.random.Generator, n_images: int) -> list[np.ndarray]:
    """Return one place of a photograph, uint8 BGR (H, W, 3), seen `n_images` times, a little moved, scaled and turned.

    uint8 BGR (128, w, 3) or (h, 128, 3) each.
    """
    height, width = photograph.shape[:2]
    short = min(height, width)
    side = float(np.exp(rng.uniform(np.log(min(LEAST_SIDE, 0.8 * short)), np.log(short))))
    x, y = (rng.uniform(side * 0.4, length - side * 0.4) for length in (width, height))
    aspect = float(np.exp(rng.normal(0, 0.25)))
    pieces = []
    for _ in range(n_images):
        seen = side * float(np.exp(rng.normal(0, 0.12)))
        scale = 128 / (seen * max(aspect, 1 / aspect) ** 0.5)
        new_width, new_height = (
            min(128, max(24, round(seen * factor * scale))) for factor in (aspect**0.5, aspect**-0.5)
        )
        centre = (x + rng.normal(0, 0.08) * side, y + rng.normal(0, 0.08) * side)
        warp = cv2.getRotationMatrix2D(centre, rng.normal(0, 10), scale)
        warp[:, 2] += np.array([new_width / 2, new_height / 2]) - centre
        source = cv2.blur(photograph, (max(1, int(0.5 / scale)),) * 2) if scale < 0.5 else photograph
        piece = cv2.warpAffine(source, warp, (new_width, new_height), borderMode=cv2.BORDER_REFLECT)
        light = np.exp(rng.normal(0, 0.12)) * np.exp(rng.normal(0, 0.04, 3))
        pieces.append(np.clip(piece * light, 0, 255).astype(np.uint8))
    return pieces


def shape_piece(piece: np.ndarray, alpha: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return a piece cut by an outline, on white: uint8 BGR (h, w, 3); alpha : uint8 (H, W) of a cut-out."""
    longer = max(alpha.shape)
    width, height = (max(24, length * 124 // longer) for length in alpha.shape[::-1])
    piece = cv2.resize(piece, (width, height))
    cover = cv2.resize(alpha, (width, height), interpolation=cv2.INTER_AREA)
    scale = float(np.exp(rng.normal(-0.03, 0.06)))
    warp = cv2.getRotationMatrix2D((width / 2, height / 2), rng.normal(0, 8), scale)
    cover = cv2.warpAffine(cover, warp, (width, height)).astype(np.float32)[..., None] / 255
    return (piece * cover + 255 * (1 - cover)).astype(np.uint8)


def photograph_piece(
    photograph: np.ndarray, alpha: np.ndarray, rng: np.random.Generator, n_images: int, size: int
) -> list[np.ndarray] | None:
    """Return pictures of one place of a photograph, uint8 BGR (size, size, 3) on white; None where there is nothing.

    photograph : uint8 BGR (H, W, 3); alpha : uint8 (H, W), an outline that cuts some of the pieces
    """
    pieces = cut_piece(photograph, rng, n_images)
    if pieces[0].std() < LEAST_CONTRAST:
        return None
    if rng.random() < SHAPED_SHARE:
        pieces = [shape_piece(piece, alpha, rng) for piece in pieces]
    shown = []
    for piece in pieces:
        scale = size / 128
        piece = piece if scale == 1 else cv2.resize(piece, None, fx=scale, fy=scale)
        placed = np.full((size, size, 3), 255, np.uint8)
        height, width = (min(size, length) for length in piece.shape[:2])
        top, left = (size - height) // 2, (size - width) // 2
        placed[top : top + height, left : left + width] = piece[:height, :width]
        shown.append(np.ascontiguousarray(placed[:, ::-1]) if rng.random() < 0.5 else placed)
    return shown
