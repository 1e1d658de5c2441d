"""Shop text over a photograph: bars, badges, watermarks, frames, prices."""

from dataclasses import dataclass

import cv2
import numpy as np

from pipeline.sample.grounds import tint
from pipeline.sample.pixels import as_channels, box_around, coloured

WORDS = (
    "SALE",
    "NEW",
    "BEST ITEM",
    "FREE SHIPPING",
    "50% OFF",
    "Spring Look",
    "daily bag",
    "HOT",
    "1+1",
    "made in Italy",
    "MD PICK",
    "230-250mm",
    "Shop & Co.",
    "LIMITED",
    "real leather",
)
BADGES = ("30%", "NEW", "1+1", "HOT")
FONTS = (
    cv2.FONT_HERSHEY_SIMPLEX,
    cv2.FONT_HERSHEY_DUPLEX,
    cv2.FONT_HERSHEY_COMPLEX,
    cv2.FONT_HERSHEY_TRIPLEX,
    cv2.FONT_HERSHEY_SCRIPT_COMPLEX,
)
WHITE_BGR = np.ones(3, np.float32)
FONT_HEIGHT = 22  # pixels, of OpenCV's Hershey fonts at scale 1
OPAQUE = 0.9  # text of a higher opacity hides the product


@dataclass(frozen=True)
class Overprint:
    """The photograph that text is written on, changed in place.

    image : ndarray of shape (size, size, 3), float32 BGR 0..1
    hidden : ndarray of shape (size, size), float32 0..1, where opaque text covers the photograph
    """

    image: np.ndarray
    hidden: np.ndarray
    rng: np.random.Generator

    @property
    def size(self) -> int:
        """Pixels of the photograph's side."""
        return len(self.image)

    def blend(self, layer: np.ndarray, colour: np.ndarray, opacity: float = 1.0) -> None:
        """Lay `colour` over the photograph where `layer` (size, size), 0..1, covers it."""
        if box := box_around(layer):
            cover = layer[box]
            laid = coloured(colour * opacity, cover)
            self.image[box] = self.image[box] * as_channels(1 - opacity * cover) + laid
            if opacity > OPAQUE:
                self.hidden[box] = np.maximum(self.hidden[box], cover)

    def write(self, text: str, x: float, y: float, height: float, colour: np.ndarray, opacity: float = 1.0) -> None:
        """Write a line of text in a random font from its lower left corner; all lengths are parts of the size."""
        face, scale = FONTS[int(self.rng.integers(len(FONTS)))], height * self.size / FONT_HEIGHT
        thickness = max(1, int(scale * self.rng.uniform(1, 3)))
        layer = np.zeros((self.size, self.size), np.uint8)
        corner = int(x * self.size), int(y * self.size)
        cv2.putText(layer, text, corner, face, scale, 255, thickness, cv2.LINE_AA)
        self.blend(np.array(layer, np.float32) / 255, colour, opacity)

    def draw_bar(self, word: str, colour: np.ndarray) -> None:
        """Draw a bar along the upper or the lower rim, with a word in white."""
        height, at = self.rng.uniform(0.06, 0.12), float(self.rng.choice([0.0, 1.0]))
        rows = slice(int(self.size * (1 - height)), self.size) if at else slice(0, int(self.size * height))
        self.image[rows], self.hidden[rows] = colour, 1
        below = (1 - height * 0.3) if at else height * 0.72
        self.write(word, self.rng.uniform(0.03, 0.4), below, height * 0.55, WHITE_BGR)

    def draw_badge(self, _word: str, colour: np.ndarray) -> None:
        """Draw a disc in a corner, with a short text of its own."""
        rng, size = self.rng, self.size
        radius, x, y = rng.uniform(0.06, 0.11), float(rng.choice([0.12, 0.88])), float(rng.choice([0.12, 0.88]))
        disc = np.zeros((size, size), np.float32)
        cv2.circle(disc, (int(x * size * 16), int(y * size * 16)), int(radius * size * 16), 1.0, -1, cv2.LINE_AA, 4)
        self.blend(disc, colour)
        self.write(str(rng.choice(BADGES)), x - radius * 0.75, y + 0.02, 0.045, WHITE_BGR)

    def draw_watermark(self, word: str, _colour: np.ndarray) -> None:
        """Write a pale word over the middle, which hides nothing."""
        rng = self.rng
        x, y, height = rng.uniform(0.05, 0.25), rng.uniform(0.4, 0.6), rng.uniform(0.06, 0.12)
        self.write(word, x, y, height, WHITE_BGR * rng.choice([0.2, 1.0]), 0.3)

    def draw_frame(self, _word: str, colour: np.ndarray) -> None:
        """Draw a frame along the four rims."""
        width = int(self.size * self.rng.uniform(0.008, 0.025))
        for rim in (np.s_[:width], np.s_[-width:], np.s_[:, :width], np.s_[:, -width:]):
            self.image[rim], self.hidden[rim] = colour, 1

    def draw_price(self, _word: str, colour: np.ndarray) -> None:
        """Write a price near the lower rim."""
        rng = self.rng
        price = f"{rng.integers(9, 299)},{rng.choice([0, 900, 500]):03d}"
        self.write(price, rng.uniform(0.05, 0.6), 0.95, 0.06, colour)

    def draw_corner(self, word: str, colour: np.ndarray) -> None:
        """Write a word near the upper rim."""
        rng = self.rng
        self.write(word, rng.uniform(0.03, 0.5), rng.uniform(0.06, 0.12), rng.uniform(0.04, 0.07), colour)


KINDS = {
    "bar": Overprint.draw_bar,
    "badge": Overprint.draw_badge,
    "corner": Overprint.draw_corner,
    "watermark": Overprint.draw_watermark,
    "frame": Overprint.draw_frame,
    "price": Overprint.draw_price,
}


def draw_shop_text(image: np.ndarray, hidden: np.ndarray, rng: np.random.Generator) -> None:
    """Write one to three pieces of shop text over a photograph, in place.

    Parameters
    ----------
    image : ndarray of shape (size, size, 3), float32 BGR 0..1
    hidden : ndarray of shape (size, size), float32 0..1, raised to 1 where opaque text covers the photograph
    rng : source of words, places and colours
    """
    overprint = Overprint(image, hidden, rng)
    for kind in rng.choice(list(KINDS), int(rng.integers(1, 4)), replace=False):
        word, colour = str(rng.choice(WORDS)), tint(rng, 0.05, 0.9, 0.8)
        KINDS[kind](overprint, word, colour)
