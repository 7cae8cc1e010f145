"""Sheets as pictures: what is cut out, what is written, and where."""

import cv2
import numpy as np
import pytest
from PIL import ImageFont

from fer_batch.emotions import COLOURS, EMOTIONS
from fer_batch.render.sprites import INK, fit
from fer_batch.report.highlights import Highlight
from fer_batch.report.sheet_layout import (
    Cell,
    FrameWithFaces,
    Line,
    Tile,
    draw_overview,
    draw_sheet,
)

FACE_PX, LEFT, LABEL, TOP = 176, 28, 112, 104
"""Of the layout."""


def highlight(emotion: int = 0, face_index: int = 0, prob: float = 0.8) -> Highlight:
    return Highlight("a.mp4", 0, face_index, 0.0, emotion, prob, prob)


def scene(width: int, height: int, *boxes: tuple[int, int, int, int]) -> FrameWithFaces:
    """A grey frame with a white disc in each box, as wide as high."""
    rgb = np.full((height, width, 3), 90, np.uint8)
    for x1, y1, x2, y2 in boxes:
        cv2.circle(rgb, ((x1 + x2) // 2, (y1 + y2) // 2), (x2 - x1) // 2, (255, 255, 255), -1)
    return FrameWithFaces(rgb, np.array(boxes, np.float32).reshape(-1, 4))


def disc(picture: np.ndarray) -> tuple[int, int, int, int]:
    """Where the white disc is: x1, y1, width, height."""
    y, x = np.nonzero(picture[..., 0] > 170)
    return x.min(), y.min(), np.ptp(x) + 1, np.ptp(y) + 1


@pytest.mark.parametrize("size", [(640, 360), (360, 640), (4000, 2000)])
@pytest.mark.parametrize("box", [(300, 150, 330, 180), (100, 100, 300, 300), (5, 5, 35, 35)])
def test_face_is_whole_and_not_stretched(
    size: tuple[int, int], box: tuple[int, int, int, int]
) -> None:
    picture = scene(*size, box).face(highlight())
    assert picture.shape == (FACE_PX, FACE_PX, 3)
    _, _, width, height = disc(picture)
    assert width == pytest.approx(height, abs=2)
    assert 0.4 * FACE_PX < width < 0.75 * FACE_PX


def test_face_stands_in_the_middle() -> None:
    x, y, width, height = disc(scene(640, 360, (200, 100, 260, 160)).face(highlight()))
    assert x + width / 2 == pytest.approx(FACE_PX / 2, abs=2)
    assert y + height / 2 == pytest.approx(FACE_PX / 2, abs=2)


def test_face_that_fills_a_narrow_frame() -> None:
    picture = scene(100, 400, (0, 100, 100, 240)).face(highlight())
    _, _, width, height = disc(picture)
    assert width == pytest.approx(height, abs=2)
    assert (picture[:, 5] == 0).all()
    assert (picture[:, -5] == 0).all()


def test_face_by_its_index() -> None:
    two = scene(640, 360, (100, 100, 200, 200), (400, 100, 460, 160))
    widths = [disc(two.face(highlight(face_index=face)))[2] for face in (0, 1)]
    assert widths == pytest.approx([FACE_PX / 1.8] * 2, abs=3)


@pytest.mark.parametrize("size", [(640, 360), (360, 640), (8, 8), (3000, 10), (1, 1)])
def test_thumbnail_keeps_the_shape(size: tuple[int, int]) -> None:
    width, height = size
    picture = scene(width, height).thumbnail(None)
    high, wide = picture.shape[:2]
    assert (wide, high) <= (240, 160)
    assert wide == 240 or high == 160
    assert wide / high == pytest.approx(width / height, rel=0.02) or min(wide, high) == 1


def test_thumbnail_frames_the_face_in_its_colour() -> None:
    picture = scene(480, 320, (100, 100, 200, 200)).thumbnail(highlight(emotion=2))
    framed = (picture == COLOURS["sadness"]).all(axis=2)
    y, x = np.nonzero(framed)
    assert (x.min(), y.min(), x.max(), y.max()) == (48, 48, 102, 102)


@pytest.mark.parametrize(
    "name, shown",
    [
        ("interview.mp4", "interview.mp4"),
        ("Größe, señor Łukasz – œuvre.mp4",) * 2,  # noqa: RUF001
        ("лицо и чувство.mp4",) * 2,
        ("三张脸 #4.mp4", "??? #4.mp4"),
        ("ｆｕｌｌ.mp4", "full.mp4"),  # noqa: RUF001
        ("a\nb\x07\udcff😀", "a?b??😀"),
        ("0:03.1 · 5 frames", "0:03.1 · 5 frames"),
        ("", ""),
    ],
)
def test_names_are_written_as_far_as_the_font_goes(name: str, shown: str) -> None:
    assert fit(name, 15, 1000) == shown


@pytest.mark.parametrize("width", [0, 10, 100, 300])
def test_long_names_are_shortened_to_fit(width: int) -> None:
    name = "deep/" * 40 + "take 0017.mp4"
    short = fit(name, 15, width)
    assert ImageFont.load_default(15).getlength(short) <= max(width, 15)
    assert "…" in short
    if width >= 100:
        assert short.startswith("d")
        assert short.endswith("17.mp4")


@pytest.mark.parametrize("n_lines, emotions", [(1, [0]), (1, [2, 6]), (12, list(range(8)))])
def test_sheet_has_a_place_for_every_face(n_lines: int, emotions: list[int]) -> None:
    picture = np.random.default_rng(0).integers(0, 255, (FACE_PX, FACE_PX, 3), np.uint8)
    cells = [Cell(picture, highlight(emotion), "0:00.0") for emotion in emotions]
    sheet = draw_sheet("a.mp4", "facts", [Line("#0", "9 frames", cells)] * n_lines, "note")
    height, width = sheet.shape[:2]
    for line in range(n_lines):
        for column, emotion in enumerate(emotions):
            x, y = LEFT + LABEL + column * (FACE_PX + 14), TOP + line * (FACE_PX + 68)
            assert (sheet[y : y + FACE_PX, x : x + FACE_PX] == picture).all()
            bar = (sheet[y + FACE_PX + 1, x : x + FACE_PX] == COLOURS[EMOTIONS[emotion]]).all(1)
            assert bar.sum() == round(0.8 * FACE_PX)
            assert x + FACE_PX + LEFT <= width
            assert y + FACE_PX + LEFT <= height
    margins = (sheet[:20], sheet[-10:], sheet[:, :LEFT], sheet[:, -LEFT:])
    assert all((margin == INK).all() for margin in margins)


def test_face_that_could_not_be_had_keeps_its_place() -> None:
    sheet = draw_sheet("a.mp4", "", [Line("#0", "", [Cell(None, highlight(), "0:00.0")])])
    assert (sheet[TOP + FACE_PX + 1, LEFT + LABEL] == COLOURS["happiness"]).all()


@pytest.mark.parametrize("n_tiles", [1, 2, 6, 7, 60])
def test_overview_has_a_place_for_every_file(n_tiles: int) -> None:
    picture = np.full((144, 240, 3), 255, np.uint8)
    tiles = [Tile(picture, f"{n}.mp4", highlight(), "0:01.0") for n in range(n_tiles)]
    sheet = draw_overview("run", "facts", tiles)
    # above the white of thumbnails nothing else is as large
    white = (sheet == 255).all(axis=2).astype(np.uint8)
    n_found, _, stats, _ = cv2.connectedComponentsWithStats(white)
    sizes = [tuple(stat[2:4]) for stat in stats[1:n_found] if stat[2] > 100]
    assert sizes == [(240, 144)] * n_tiles


def test_overview_without_pictures() -> None:
    tiles = [
        Tile(None, "x" * 300, None, "", "y" * 300),
        Tile(None, "a.mp4", None, "125:00.0", "cannot be shown"),
    ]
    sheet = draw_overview("run " * 200, "facts " * 200, tiles)
    assert (sheet[:, -LEFT:] == INK).all()
