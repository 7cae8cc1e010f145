"""The layout of contact sheets: faces and thumbnails cut from frames, with text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from fer_batch.emotions import COLOURS, EMOTIONS, Colour
from fer_batch.records import Bytes, Floats
from fer_batch.render import sprites
from fer_batch.render.sprites import FADED, INK, PAPER, fit
from fer_batch.report.highlights import Highlight

_FACE_PX = 176
_THUMBNAIL_PX = (240, 160)
"""Width and height of the space that a whole frame is fitted into."""
_CONTEXT = 1.8
"""Side of the square that is cut around a face, in longer sides of its box."""
_EMPTY: Colour = (25, 27, 32)
_PROBLEM: Colour = (255, 176, 120)

_TITLE_PX, _TEXT_PX, _SMALL_PX = 24, 15, 13
_MARGIN_PX, _GAP_PX, _LINE_PX = 28, 14, 20
_HEAD_PX = 104
_LABEL_PX = 112
_LEAST_WIDTH_PX = 620
_TILES_PER_ROW = 6


class FrameWithFaces:
    """A frame with its faces; every picture in a sheet is cut from one."""

    def __init__(self, rgb: Bytes, box_px: Mapping[int, Floats]) -> None:
        """Take a frame.

        Args:
            rgb: (H, W, 3) uint8.
            box_px: (4,) float32 of each of its faces, by face_index.
        """
        self._rgb = rgb
        self._box_px = box_px

    def face(self, highlight: Highlight) -> Bytes:
        """A square around the face; black where the frame is too narrow for it."""
        height, width = self._rgb.shape[:2]
        x1, y1, x2, y2 = self._box_px[highlight.face_index].tolist()
        face_px = max(x2 - x1, y2 - y1, 1.0)
        side = round(max(min(_CONTEXT * face_px, height, width), face_px))
        left, right = _span((x1 + x2) / 2, side, width)
        top, bottom = _span((y1 + y2) / 2, side, height)
        part = self._rgb[max(top, 0) : bottom, max(left, 0) : right]
        beyond = (max(-top, 0), max(bottom - height, 0), max(-left, 0), max(right - width, 0))
        square = cv2.copyMakeBorder(part, *beyond, cv2.BORDER_CONSTANT)
        return _resize(np.asarray(square, np.uint8), _FACE_PX, _FACE_PX)

    def thumbnail(self, highlight: Highlight | None) -> Bytes:
        """The whole frame, small; the face has a box in the colour of its emotion."""
        height, width = self._rgb.shape[:2]
        scale = min(_THUMBNAIL_PX[0] / width, _THUMBNAIL_PX[1] / height)
        small = _resize(self._rgb, max(round(scale * width), 1), max(round(scale * height), 1))
        if highlight is not None:
            x1, y1, x2, y2 = (
                np.rint(self._box_px[highlight.face_index] * scale).astype(int).tolist()
            )
            colour = COLOURS[EMOTIONS[highlight.emotion]]
            cv2.rectangle(small, (x1 - 3, y1 - 3), (x2 + 3, y2 + 3), INK, 1)
            cv2.rectangle(small, (x1 - 2, y1 - 2), (x2 + 2, y2 + 2), colour, 1)
            cv2.rectangle(small, (x1 - 1, y1 - 1), (x2 + 1, y2 + 1), INK, 1)
        return small


@dataclass(frozen=True, slots=True, eq=False)
class Cell:
    """A face in a sheet."""

    picture: Bytes | None
    """From `FrameWithFaces.face`; None where the frame could not be decoded."""
    highlight: Highlight
    caption: str


@dataclass(frozen=True, slots=True, eq=False)
class Line:
    """Faces side by side, at most one per emotion."""

    name: str
    detail: str
    cells: Sequence[Cell]


@dataclass(frozen=True, slots=True, eq=False)
class Tile:
    """A file in an overview."""

    picture: Bytes | None
    """From `FrameWithFaces.thumbnail`; None where there is none."""
    name: str
    highlight: Highlight | None
    """The face in the picture; None where there is none."""
    detail: str
    problem: str = ""
    """Why there is no picture."""


def draw_sheet(title: str, facts: str, lines: Sequence[Line], note: str = "") -> Bytes:
    """A sheet of faces with a column for each emotion that occurs.

    Args:
        title: Shortened where it is too long.
        facts: Written below the title.
        lines: From top to bottom.
        note: Written below them.
    """
    emotions = sorted({cell.highlight.emotion for line in lines for cell in line.cells})
    label_px = _LABEL_PX if any(line.name for line in lines) else 0
    step_x, step_y = _FACE_PX + _GAP_PX, _FACE_PX + 2 * _LINE_PX + 2 * _GAP_PX
    width = label_px + len(emotions) * step_x - _GAP_PX
    canvas = _canvas(width, len(lines) * step_y + (2 * _LINE_PX if note else 0), title, facts)
    for number, line in enumerate(lines):
        y = _HEAD_PX + number * step_y
        _write(canvas, line.name, _MARGIN_PX, y, colour=PAPER, size_px=_TITLE_PX, bold=True)
        _write(canvas, line.detail, _MARGIN_PX, y + 34, colour=FADED, size_px=_SMALL_PX)
        cells = {cell.highlight.emotion: cell for cell in line.cells}
        for column, emotion in enumerate(emotions):
            x = _MARGIN_PX + label_px + column * step_x
            _draw_cell(canvas, x, y, cells.get(emotion))
    _write(canvas, note, _MARGIN_PX, _HEAD_PX + len(lines) * step_y, colour=FADED)
    return canvas


def draw_overview(title: str, facts: str, tiles: Sequence[Tile]) -> Bytes:
    """A sheet of thumbnails.

    Args:
        title: Shortened where it is too long.
        facts: Written below the title.
        tiles: Row by row; at least one.
    """
    step_x, step_y = _THUMBNAIL_PX[0] + _GAP_PX, _THUMBNAIL_PX[1] + 2 * _LINE_PX + 2 * _GAP_PX
    n_columns = min(len(tiles), _TILES_PER_ROW)
    n_rows = -(-len(tiles) // n_columns)
    canvas = _canvas(n_columns * step_x - _GAP_PX, n_rows * step_y, title, facts)
    for number, tile in enumerate(tiles):
        row, column = divmod(number, n_columns)
        _draw_tile(canvas, _MARGIN_PX + column * step_x, _HEAD_PX + row * step_y, tile)
    return canvas


def _canvas(width: int, height: int, title: str, facts: str) -> Bytes:
    """An empty sheet with its title, and room of this size below it."""
    width = max(width, _LEAST_WIDTH_PX)
    size = (_HEAD_PX + height + _MARGIN_PX - _GAP_PX, width + 2 * _MARGIN_PX, 3)
    canvas = np.full(size, INK, np.uint8)
    title, facts = fit(title, _TITLE_PX, width), fit(facts, _TEXT_PX, width)
    _write(canvas, title, _MARGIN_PX, 24, colour=PAPER, size_px=_TITLE_PX, bold=True)
    _write(canvas, facts, _MARGIN_PX, 62, colour=FADED)
    return canvas


def _draw_cell(canvas: Bytes, x: int, y: int, cell: Cell | None) -> None:
    space = canvas[y : y + _FACE_PX, x : x + _FACE_PX]
    space[:] = _EMPTY
    if cell is None:
        return
    if cell.picture is not None:
        space[:] = cell.picture
    emotion, prob = EMOTIONS[cell.highlight.emotion], cell.highlight.prob
    below = y + _FACE_PX
    canvas[below : below + 4, x : x + round(prob * _FACE_PX)] = COLOURS[emotion]
    _write(canvas, emotion, x, below + 9, colour=COLOURS[emotion])
    _write_left_of(canvas, f"{prob:.0%}", x + _FACE_PX, below + 9, PAPER)
    caption = fit(cell.caption, _SMALL_PX, _FACE_PX)
    _write(canvas, caption, x, below + 9 + _LINE_PX, colour=FADED, size_px=_SMALL_PX)


def _draw_tile(canvas: Bytes, x: int, y: int, tile: Tile) -> None:
    width, height = _THUMBNAIL_PX
    canvas[y : y + height, x : x + width] = _EMPTY
    if tile.picture is not None:
        high, wide = tile.picture.shape[:2]
        top, left = y + (height - high) // 2, x + (width - wide) // 2
        canvas[top : top + high, left : left + wide] = tile.picture
    below = y + height + 7
    _write(canvas, fit(tile.name, _TEXT_PX, width), x, below, colour=PAPER)
    below += _LINE_PX
    taken = _write_left_of(canvas, tile.detail, x + width, below, FADED)
    if tile.problem:
        problem = fit(tile.problem, _TEXT_PX, width - taken)
        _write(canvas, problem, x, below, colour=_PROBLEM)
    elif tile.highlight is None:
        _write(canvas, "no face", x, below, colour=FADED)
    else:
        emotion = EMOTIONS[tile.highlight.emotion]
        words = f"{emotion} {tile.highlight.prob:.0%}"
        _write(canvas, words, x, below, colour=COLOURS[emotion])


def _write(
    canvas: Bytes,
    words: str,
    x: int,
    y: int,
    *,
    colour: Colour,
    size_px: int = _TEXT_PX,
    bold: bool = False,
) -> None:
    sprites.text(words, size_px, colour, bold=bold).paste(canvas, x, y)


def _write_left_of(canvas: Bytes, words: str, x: int, y: int, colour: Colour) -> int:
    """Write words that end at ``x``; returns their width with a space before them."""
    sprite = sprites.text(words, _TEXT_PX, colour)
    sprite.paste(canvas, x - sprite.width, y)
    return sprite.width + _TEXT_PX if words else 0


def _span(middle: float, length: int, limit: int) -> tuple[int, int]:
    """An interval of this length around ``middle``, moved inside 0 to ``limit``.

    One that is too long sticks out on both sides.
    """
    spare = limit - length
    start = spare // 2 if spare < 0 else min(max(round(middle - length / 2), 0), spare)
    return start, start + length


def _resize(rgb: Bytes, width: int, height: int) -> Bytes:
    method = cv2.INTER_AREA if width < rgb.shape[1] else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(rgb, (width, height), interpolation=method), np.uint8)
