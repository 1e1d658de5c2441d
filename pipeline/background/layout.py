"""What a shop puts around a photograph: a frame of one colour, banners along the top and the bottom."""

import cv2
import numpy as np

SAME_COLOUR = 30  # levels of each channel by which JPEG and text's edges may change a frame's colour
MAX_FRAME = 0.08  # of the longest side; a wider border of one colour is the ground
MAX_BANNER = 0.25  # of the height


def frame_width(image_bgr: np.ndarray) -> int:
    """Return the width in pixels of a frame of one colour around an image, uint8 BGR (H, W, 3); 0 for none."""
    colour = image_bgr[0, 0].astype(np.float64)

    def other_colours(inset: int) -> float:
        """Return the share of the rectangle `inset` pixels within the border that is not of the frame's colour."""
        inner = image_bgr[inset : len(image_bgr) - inset, inset : image_bgr.shape[1] - inset]
        lines = np.concatenate([inner[0], inner[-1], inner[:, 0], inner[:, -1]])[None]  # (1, n, 3)
        return 1 - cv2.countNonZero(cv2.inRange(lines, colour - SAME_COLOUR, colour + SAME_COLOUR)) / lines.shape[1]

    widest = min(round(MAX_FRAME * max(image_bgr.shape)), (min(image_bgr.shape[:2]) - 16) // 2)
    if widest < 2 or other_colours(widest) < 0.6 or max(other_colours(0), other_colours(1)) > 0.1:
        return 0
    # the first line within the frame is blended with the frame
    return 1 + next(inset for inset in range(2, widest + 1) if other_colours(inset) > 0.6 or inset == widest)


def banner_height(image_bgr: np.ndarray) -> int:
    """Return the height in pixels of a banner of one colour along the top, with or without text; 0 for none.

    The edge of a banner is one straight line from side to side, which no product crosses: there the banner's colour
    ends in all columns. image_bgr : uint8 (H, W, 3)
    """
    highest = min(int(len(image_bgr) * MAX_BANNER), len(image_bgr) - 16)
    if highest < 6:
        return 0
    # every fourth column shows as much, in a quarter of the time
    rows = np.ascontiguousarray(image_bgr[: highest + 3, ::4])
    colour = np.sort(rows[1], axis=0)[rows.shape[1] // 2].astype(np.float64)  # the median
    if cv2.mean(cv2.inRange(rows[:2], colour - SAME_COLOUR, colour + SAME_COLOUR))[0] < 0.97 * 255:
        return 0
    same = cv2.inRange(rows, colour - SAME_COLOUR, colour + SAME_COLOUR)
    same = cv2.reduce(same, 1, cv2.REDUCE_AVG, dtype=cv2.CV_32F)[:, 0] / 255  # share of each row
    # the line between banner and photograph is blended
    ends = np.flatnonzero((same[:-3] > 0.97) & (same[3:] < 0.05) & (same[:2].min() > 0.97))
    return int(ends[0]) + 2 if len(ends) and ends[0] > 4 else 0


def photograph_within(image_bgr: np.ndarray) -> tuple[slice, slice]:
    """Return rows and columns of the photograph within frames and banners, which may be nested.

    image_bgr : uint8 (H, W, 3)
    """
    top, left, (bottom, right) = 0, 0, image_bgr.shape[:2]
    while True:
        inner_bgr = image_bgr[top:bottom, left:right]
        width = frame_width(inner_bgr)
        above, below = (width, width) if width else (banner_height(rows) for rows in (inner_bgr, inner_bgr[::-1]))
        if not above and not below:
            return slice(top, bottom), slice(left, right)
        top, bottom, left, right = top + above, bottom - below, left + width, right - width
