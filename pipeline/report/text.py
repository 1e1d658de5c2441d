"""Text of any script in pictures: each character in an installed font that has it."""

from collections.abc import Iterable
from functools import cache
from pathlib import Path

import numpy as np
from matplotlib import font_manager, ft2font
from PIL import ImageDraw, ImageFont

# beginnings of the file names of fonts with Hangul, the better ones first
HANGUL_FONTS = ("notosanscjk", "notosanskr", "nanumgothic", "nanumbarungothic", "malgun", "applesdgothicneo",
                "applegothic", "undotum", "dotum", "gulim", "nanum", "notoserifcjk", "arialuni")  # fmt: skip


@cache
def _charmap(path: str) -> frozenset[int]:
    try:
        return frozenset(ft2font.FT2Font(path).get_charmap())
    except (RuntimeError, OSError):  # a bitmap or damaged font
        return frozenset()


@cache
def installed_fonts() -> tuple[str, ...]:
    """Return the paths of the installed fonts of normal weight, those with Hangul first."""

    def rank(path: str) -> tuple[int, str]:
        stem = Path(path).stem.lower().replace(" ", "").replace("-", "")
        return next((i for i, name in enumerate(HANGUL_FONTS) if stem.startswith(name)), len(HANGUL_FONTS)), path

    unusual = ("bold", "italic", "oblique", "light", "thin", "extra", "lastresort", "emoji")
    paths = [path for path in font_manager.findSystemFonts() if not any(u in Path(path).stem.lower() for u in unusual)]
    return tuple(sorted(paths, key=rank))


@cache
def find_fonts(characters: frozenset[str]) -> tuple[str, ...]:
    """Return paths of fonts that together have the characters, DejaVu Sans, which comes with matplotlib, first.

    Characters that no font has are left out (see `find_undrawable`).
    """
    chosen = [font_manager.findfont("DejaVu Sans")]
    missing = {ord(c) for c in characters} - _charmap(chosen[0])
    for path in installed_fonts():
        if not missing:
            break
        has = missing & _charmap(path)
        if has:
            chosen.append(path)
            missing -= has
    return tuple(chosen)


def find_undrawable(texts: Iterable[str]) -> set[str]:
    """Return the characters of `texts` that no installed font has."""
    characters = frozenset("".join(texts))
    has = set().union(*(_charmap(path) for path in find_fonts(characters)))
    return {c for c in characters if ord(c) not in has}


def shorten(text: str, size: int, max_width: float) -> str:
    """Return `text`, or its beginning and its end with an ellipsis between them, at most `max_width` pixels wide."""
    widths = np.array([_font_for(c, size).getlength(c) for c in text])
    if widths.sum() <= max_width:
        return text
    half = (max_width - _font_for("…", size).getlength("…")) / 2
    n_first = int(np.searchsorted(np.cumsum(widths), half, side="right"))
    n_last = int(np.searchsorted(np.cumsum(widths[::-1]), half, side="right"))
    return text[:n_first] + "…" + text[len(text) - n_last :]


def draw_text(draw: ImageDraw.ImageDraw, xy: tuple[float, float], text: str, size: int) -> None:
    """Draw one line of text, its top left corner at `xy`, each character in a font that has it."""
    x, y = xy
    for c in text:
        font = _font_for(c, size)
        draw.text((x, y + size), c, fill="#222222", font=font, anchor="ls")
        x += font.getlength(c)


@cache
def _font_for(character: str, size: int) -> ImageFont.FreeTypeFont:
    paths = find_fonts(frozenset(character))
    return ImageFont.truetype(paths[-1], size)
