"""Fit a photograph into the square that the network takes, and turn it there."""

from collections.abc import Callable

import cv2
import numpy as np

WHITE_FROM = 240  # a pixel whose channels are all from here up counts as white ground; 255 less what JPEG changes
MARGIN = 0.06  # ground kept around the product, as a fraction of its longer side, so that the outline stays visible


def product_box(image_bgr: np.ndarray) -> tuple[int, int, int, int]:
    """Return the rectangle (top, bottom, left, right) around all pixels that are not white, with a margin.

    image_bgr : uint8 ndarray of shape (H, W, 3)

    The rectangle never leaves the image. Of a wholly white image it is the whole image.

    >>> picture = np.full((100, 100, 3), 255, np.uint8)
    >>> picture[40:60, 30:80] = 0
    >>> product_box(picture)
    (37, 63, 27, 83)
    """
    height, width = image_bgr.shape[:2]
    values = image_bgr.reshape(height, -1)  # (H, 3 * W): whole lines of bytes, which NumPy compares many at a time
    rows = np.flatnonzero(values.min(axis=1) < WHITE_FROM)
    columns = np.flatnonzero(values.min(axis=0).reshape(width, 3).min(axis=1) < WHITE_FROM)
    if not len(rows):
        return 0, height, 0, width
    top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    margin = round(MARGIN * max(bottom - top, right - left))
    return (
        int(max(0, top - margin)),
        int(min(height, bottom + margin)),
        int(max(0, left - margin)),
        int(min(width, right + margin)),
    )


def fit_image(image_bgr: np.ndarray, size: int, crop: bool) -> np.ndarray:
    """Return an image fitted into a white square, its proportions unchanged.

    Parameters
    ----------
    image_bgr : uint8 ndarray of shape (H, W, 3)
    size : pixels per side of the square
    crop : whether the image is first cut to its `product_box`, so that a product's size in the photograph does not
        matter

    Returns
    -------
    uint8 RGB ndarray of shape (size, size, 3)
    """
    if crop:
        top, bottom, left, right = product_box(image_bgr)
        image_bgr = image_bgr[top:bottom, left:right]
    height, width = image_bgr.shape[:2]
    scale = size / max(height, width)
    new_height, new_width = max(1, round(height * scale)), max(1, round(width * scale))
    # area averaging does not alias when it shrinks
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    small_bgr = cv2.resize(image_bgr, (new_width, new_height), interpolation=interpolation)
    square_rgb = np.full((size, size, 3), 255, np.uint8)
    top, left = (size - new_height) // 2, (size - new_width) // 2
    square_rgb[top : top + new_height, left : left + new_width] = cv2.cvtColor(small_bgr, cv2.COLOR_BGR2RGB)
    return square_rgb


def fit_mask(mask: np.ndarray, image_bgr: np.ndarray, size: int, crop: bool) -> np.ndarray:
    """Return the mask of an image, uint8 (H, W), laid out as `fit_image` lays out the image: uint8 (size, size)."""
    inverse_bgr = 255 - np.repeat(mask[..., None], 3, axis=2)
    if crop:
        top, bottom, left, right = product_box(image_bgr)
        inverse_bgr = inverse_bgr[top:bottom, left:right]
    return 255 - fit_image(inverse_bgr, size, crop=False)[..., 0]


def list_views(images, views: str, turn: Callable) -> list:
    """List the views of images over which features are averaged, an array or tensor (n, size, size, channels) for each.

    views : "one", the images alone; "mirrored", their mirror images too; "turned", their four quarter turns, so that
        the features of a picture lying on its side are those of the upright one
    turn : of arrays or tensors, turns them by a number of quarters
    """
    if views == "mirrored":
        return [images, images[:, :, ::-1]]
    return [images, *(turn(images, quarters) for quarters in (1, 2, 3))] if views == "turned" else [images]


def turn_quarters(images_rgb: np.ndarray, quarters: int) -> np.ndarray:
    """Turn images (n, size, size, channels) by a number of quarters, for `list_views`."""
    return np.ascontiguousarray(np.rot90(images_rgb, quarters, axes=(1, 2)))
