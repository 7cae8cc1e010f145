"""Small pictures that are pasted into frames: text, plates, panels. Each is made only once."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from fer_batch.emotions import COLOURS, EMOTIONS, Colour
from fer_batch.records import Bytes, Floats

INK = (18, 20, 24)
PAPER = (238, 238, 238)
FADED = (204, 206, 210)
GLASS = (*INK, 172)
_GROOVE = (255, 255, 255, 34)

_SHIFT = 3
"""OpenCV takes coordinates in 1 / 2**_SHIFT pixels, so that bars grow without steps."""


@dataclass(frozen=True, slots=True, eq=False)
class Sprite:
    """A partly transparent picture, ready to be pasted."""

    rgb: Bytes
    """(H, W, 3) uint8, already multiplied with the opacity."""
    transparency: Bytes
    """(H, W, 3) uint8: 255 is fully transparent."""

    @property
    def width(self) -> int:
        """In pixels."""
        return int(self.rgb.shape[1])

    @property
    def height(self) -> int:
        """In pixels."""
        return int(self.rgb.shape[0])

    def paste(self, frame: Bytes, x: int, y: int) -> None:
        """Draw it with its upper left corner at (x, y); what is outside the frame is cut off."""
        left, top = max(-x, 0), max(-y, 0)
        under = frame[max(y, 0) : max(y + self.height, 0), max(x, 0) : max(x + self.width, 0)]
        if under.size:
            part = np.s_[top : top + under.shape[0], left : left + under.shape[1]]
            kept = cv2.multiply(under, self.transparency[part], scale=1 / 255)
            under[:] = cv2.add(kept, self.rgb[part])


@lru_cache(1024)
def text(words: str, size_px: int, colour: Colour, *, bold: bool = False) -> Sprite:
    """A line of text, 1.3 times as high as its font size, the baseline at 1.0."""
    font = _font(words, size_px)
    stroke = size_px / 36 if bold else 0
    width = round(font.getlength(words) + 2 * stroke)
    picture = Image.new("RGBA", (max(width, 1), round(1.3 * size_px)), (*colour, 0))
    ImageDraw.Draw(picture).text(
        (stroke, size_px), words, colour, font, anchor="ls", stroke_width=stroke
    )
    return _sprite(picture)


def fit(words: str, size_px: int, width_px: int) -> str:
    """The words as far as the fonts have them and the width allows.

    Characters that no font has become question marks. Text that is too long loses its middle; more
    is kept of its end, where numbers and extensions are.
    """
    if not _is_plain(words):
        known = _glyphs()
        words = unicodedata.normalize("NFKC", words)
        words = "".join(character if ord(character) in known else "?" for character in words)
    font, short = _font(words, size_px), words
    for kept in range(len(words) - 1, -1, -1):
        if font.getlength(short) <= width_px:
            break
        short = f"{words[: kept // 3]}…{words[len(words) - kept + kept // 3 :]}"
    return short


def _font(words: str, size_px: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    if _is_plain(words):
        return ImageFont.load_default(size_px)
    return ImageFont.truetype(_unicode_font(), size_px)


def _is_plain(words: str) -> bool:
    """Whether Pillow's own font, which looks better, has every character."""
    return all(" " <= character <= "~" or character in "·…" for character in words)


def _unicode_font() -> Path:
    """DejaVu Sans, which comes with Matplotlib: Latin, Greek, Cyrillic, Arabic and more."""
    from matplotlib import get_data_path  # takes half a second

    return Path(get_data_path(), "fonts/ttf/DejaVuSans.ttf")


@cache
def _glyphs() -> frozenset[int]:
    from matplotlib.ft2font import FT2Font

    return frozenset(FT2Font(str(_unicode_font())).get_charmap())


@lru_cache(256)
def plate(width: int, height: int, radius: float, fill: tuple[int, int, int, int]) -> Sprite:
    """A rectangle with round corners."""
    return _sprite(_plate(width, height, radius, fill))


@lru_cache(8)
def legend(codes: tuple[int, ...], size_px: int, max_width: int) -> Sprite:
    """The names of emotions beside their colours, in one row or, where too wide, in two."""
    names = [text(EMOTIONS[code], size_px, PAPER) for code in codes]
    cell = max(name.width for name in names) + 2 * size_px
    columns = len(codes) if len(codes) * cell <= max_width else -(-len(codes) // 2)
    rows = -(-len(codes) // columns)
    line, pad = round(1.5 * size_px), size_px // 3
    under = plate(columns * cell + pad, rows * line + 2 * pad, pad, (*INK, 255))
    canvas = under.rgb.copy()
    for position, (code, name) in enumerate(zip(codes, names, strict=True)):
        x, y = pad + position % columns * cell, pad + position // columns * line
        dot = (x + size_px // 2, y + line // 2)
        cv2.circle(canvas, dot, round(0.35 * size_px), COLOURS[EMOTIONS[code]], -1, cv2.LINE_AA)
        name.paste(canvas, x + round(1.2 * size_px), y + round(0.1 * size_px))
    return Sprite(canvas, under.transparency)


@dataclass(frozen=True, slots=True, eq=False)
class Panel:
    """A bar for each emotion, made by `panel`, to be drawn with many probabilities."""

    codes: tuple[int, ...]
    """Positions in EMOTIONS of its rows."""
    size_px: int
    """Size of its text."""
    under: Sprite
    """Its background, which never changes."""
    bar_x: tuple[int, int]
    """Where bars begin, and where they end at a probability of 1."""

    def draw(self, frame: Bytes, x: int, y: int, probs: Floats, emotion: int) -> None:
        """Draw it with its upper left corner at (x, y).

        Args:
            frame: (H, W, 3) uint8 RGB.
            x: In pixels.
            y: In pixels.
            probs: (8,) in EMOTIONS order; NaN draws no bar.
            emotion: Position in EMOTIONS of the row that is emphasised; -1 for none.
        """
        self.under.paste(frame, x, y)
        size, pad = self.size_px, _pad(self.size_px)
        for row, code in enumerate(self.codes):
            strong = code == emotion
            ink = PAPER if strong else FADED
            top = y + pad + row * _line(size)
            baseline = top + round(0.12 * size)
            text(EMOTIONS[code], size, ink, bold=strong).paste(frame, x + pad, baseline)
            prob = float(probs[code])
            if np.isnan(prob):
                continue
            number = text(f"{prob:.0%}", size, ink, bold=strong)
            number.paste(frame, x + self.under.width - pad - number.width, baseline)
            start, end = self.bar_x
            bar = (x + start, top + _groove_y(size) + _thick(size) / 2, prob * (end - start))
            _draw_bar(frame, bar, _thick(size), COLOURS[EMOTIONS[code]])


@lru_cache(16)
def panel(codes: tuple[int, ...], size_px: int) -> Panel:
    """A panel with a row for each of these emotions."""
    pad, line, thick = _pad(size_px), _line(size_px), _thick(size_px)
    names = max(text(EMOTIONS[code], size_px, PAPER, bold=True).width for code in codes)
    number = text("100%", size_px, PAPER, bold=True).width
    start = pad + names + pad
    end = start + 6 * size_px
    width, height = end + pad // 2 + number + pad, len(codes) * line + 2 * pad
    picture = _plate(width, height, size_px / 2, GLASS)
    groove = _plate(end - start, thick, thick / 2, _GROOVE)
    for row in range(len(codes)):
        picture.alpha_composite(groove, (start, pad + row * line + _groove_y(size_px)))
    return Panel(codes, size_px, _sprite(picture), (start, end))


def _draw_bar(frame: Bytes, bar: tuple[float, float, float], thick: int, colour: Colour) -> None:
    """Draw a bar with round ends, given by its left end, its middle line and its length."""
    x, y, length = bar
    if length >= 0.5:
        thick = max(min(thick, round(length)), 3)
        left, right, middle = (
            round((at - 0.5) * 2**_SHIFT) for at in (x + thick / 2, x + length - thick / 2, y)
        )
        cv2.line(frame, (left, middle), (right, middle), colour, thick, cv2.LINE_AA, _SHIFT)


def _line(size_px: int) -> int:
    return round(1.45 * size_px)


def _groove_y(size_px: int) -> int:
    return (_line(size_px) - _thick(size_px)) // 2


def _pad(size_px: int) -> int:
    return round(0.7 * size_px)


def _thick(size_px: int) -> int:
    return round(0.5 * size_px) | 1


def _plate(width: int, height: int, radius: float, fill: tuple[int, int, int, int]) -> Image.Image:
    # drawn four times as large: Pillow's corners have no smooth edges of their own
    picture = Image.new("RGBA", (4 * width, 4 * height), (*fill[:3], 0))
    box = (0, 0, 4 * width - 1, 4 * height - 1)
    ImageDraw.Draw(picture).rounded_rectangle(box, 4 * radius, fill)
    return picture.resize((width, height), Image.Resampling.BOX)


def _sprite(picture: Image.Image) -> Sprite:
    rgba = np.asarray(picture)
    alpha = np.repeat(rgba[..., 3:], 3, axis=2)
    rgb = cv2.multiply(np.ascontiguousarray(rgba[..., :3]), alpha, scale=1 / 255)
    return Sprite(np.asarray(rgb, np.uint8), 255 - alpha)
