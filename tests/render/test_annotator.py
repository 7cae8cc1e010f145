"""Drawing: what is drawn where, in which colour, and that it stays inside the frame."""

from collections.abc import Sequence
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest

from fer_batch.config import STYLES, LayerName, Render
from fer_batch.emotions import COLOURS, EMOTIONS
from fer_batch.records import Bools, Bytes, Floats
from fer_batch.render import layers
from fer_batch.render.annotator import Annotator
from fer_batch.render.canvas import Canvas, Face, Layer, Rect
from fer_batch.render.content import Annotation, EmotionsOverTime, Setup
from fer_batch.render.layers import LAYERS, Entry

ALL = range(len(EMOTIONS))
GREY = 120


def annotation(
    *boxes: tuple[float, float, float, float],
    probs: Floats | None = None,
    track_id: list[int] | None = None,
    pts_s: float = 0.0,
) -> Annotation:
    if probs is None:
        probs = np.tile(np.float32([0.5, 0.2, 0.1, 0.1, 0.05, 0.03, 0.01, 0.01]), (len(boxes), 1))
    known = np.where(np.isnan(probs), -1, probs)
    return Annotation(
        box_px=np.array(boxes, np.float32).reshape(-1, 4),
        points_px=None,
        track_id=np.array(track_id if track_id is not None else range(len(boxes)), np.int64),
        probs=probs,
        emotion=np.where(known.max(axis=1) < 0, -1, known.argmax(axis=1)),
        n_faces_around=len(boxes),
        pts_s=pts_s,
    )


def annotator(
    width: int = 640,
    height: int = 360,
    known: Sequence[int] = ALL,
    *,
    has_time: bool = False,
    **settings: object,
) -> Annotator:
    return Annotator(Setup(width, height, Render(**settings), tuple(known), has_time))


def grey(width: int = 640, height: int = 360) -> Bytes:
    return np.full((height, width, 3), GREY, np.uint8)


def changed(frame: Bytes) -> Bools:
    return (frame != GREY).any(axis=2)


def count_of(frame: Bytes, emotion: str) -> int:
    """Pixels of an emotion's colour."""
    distance = np.abs(frame.astype(int) - COLOURS[emotion]).max(axis=2)
    return int((distance <= 2).sum())


def test_no_face_no_clock_leaves_the_frame_alone() -> None:
    frame = grey()
    annotator().draw(frame, annotation())
    assert not changed(frame).any()


def test_clock_stands_in_the_lower_left_corner() -> None:
    frame = grey()
    annotator(has_time=True).draw(frame, annotation(pts_s=83.25))
    rows, columns = np.nonzero(changed(frame))
    assert rows.min() > 320
    assert columns.max() < 80


@pytest.mark.parametrize("emotion", EMOTIONS)
def test_box_has_the_colour_of_the_emotion(emotion: str) -> None:
    frame = grey()
    probs = np.eye(len(EMOTIONS), dtype=np.float32)[[EMOTIONS.index(emotion)]]
    annotator(640, 360, ()).draw(frame, annotation((200, 100, 300, 200), probs=probs))
    np.testing.assert_allclose(frame[100, 205:215], np.tile(COLOURS[emotion], (10, 1)), atol=2)


def test_colours_differ() -> None:
    colours = np.array([COLOURS[emotion] for emotion in EMOTIONS])
    distance = np.abs(colours[:, None] - colours[None]).sum(axis=2)
    assert (distance[~np.eye(len(EMOTIONS), dtype=bool)] > 60).all()


def test_inside_of_the_box_is_left_alone() -> None:
    frame = grey()
    annotator(has_time=True).draw(frame, annotation((200, 100, 300, 200)))
    assert not changed(frame)[105:195, 205:295].any()


def test_bars_grow_with_the_probability() -> None:
    counts = []
    for prob in (0.05, 0.2, 0.45):
        frame = grey()
        probs = np.zeros((1, 8), np.float32)
        probs[0, [EMOTIONS.index("neutral"), EMOTIONS.index("fear")]] = 1 - prob, prob
        annotator().draw(frame, annotation((200, 100, 300, 200), probs=probs))
        counts.append(count_of(frame, "fear"))
    assert 0 < counts[0] < counts[1] < counts[2]


def test_emotions_that_the_model_does_not_know_have_no_bar() -> None:
    probs = np.full((1, 8), 1 / 6, np.float32)
    probs[:, 6:] = np.nan
    frames = {bars: grey() for bars in (6, 8)}
    for bars, frame in frames.items():
        annotator(640, 360, range(bars)).draw(frame, annotation((200, 100, 300, 200), probs=probs))
    assert count_of(frames[8], "contempt") == 0
    right = {bars: np.nonzero(changed(frame)[:, 320:])[0] for bars, frame in frames.items()}
    assert np.ptp(right[6]) < np.ptp(right[8])


def test_face_without_probabilities_gets_a_box() -> None:
    frame = grey()
    probs = np.full((1, 8), np.nan, np.float32)
    annotator().draw(frame, annotation((200, 100, 300, 200), probs=probs))
    assert changed(frame)[100, 200:300].all()


def test_panel_stands_beside_the_face_where_there_is_room() -> None:
    for box, side in (
        ((100, 100, 200, 200), np.s_[:, 210:]),
        ((500, 100, 600, 200), np.s_[:, :490]),
    ):
        frame = grey()
        annotator().draw(frame, annotation(box))
        assert changed(frame)[side].sum() > 10_000


def test_nothing_covers_another_face_where_there_is_room() -> None:
    frame = grey(1280, 720)
    boxes = [(200, 200, 320, 330), (520, 200, 640, 330), (840, 220, 960, 350)]
    annotator(1280, 720, has_time=True).draw(frame, annotation(*boxes))
    for x1, y1, x2, y2 in boxes:
        assert not changed(frame)[y1 + 8 : y2 - 8, x1 + 8 : x2 - 8].any()


def test_many_faces_share_one_legend() -> None:
    boxes = [(40 + 100 * n, 100, 90 + 100 * n, 150) for n in range(6)]
    frame = grey()
    annotator().draw(frame, annotation(*boxes))
    legend = changed(frame)[330:]
    assert legend.sum() > 5_000
    assert not changed(frame)[200:320].any()


def test_labels_in_a_dense_crowd_leave_the_faces_visible() -> None:
    boxes = [(x, y, x + 40, y + 40) for y in range(20, 260, 46) for x in range(20, 580, 46)]
    frame = grey()
    annotator().draw(frame, annotation(*boxes))
    covered = [changed(frame)[y1 + 4 : y2 - 8, x1 + 4 : x2 - 4] for x1, y1, x2, y2 in boxes]
    assert np.mean(covered) < 0.05


@pytest.mark.parametrize("size", [(16, 16), (160, 96), (96, 160), (640, 360), (1920, 1080), (3, 2)])
@pytest.mark.parametrize("n_faces", [1, 3, 40])
def test_any_box_in_any_frame(size: tuple[int, int], n_faces: int) -> None:
    width, height = size
    rng = np.random.default_rng(n_faces)
    artist = annotator(width, height, has_time=True)
    for _ in range(5):
        corners = np.sort(rng.random((n_faces, 2, 2)) * (width, height), axis=1)
        frame = grey(width, height)
        artist.draw(frame, annotation(*corners.reshape(-1, 4)))
    edges = [(0, 0, width, height), (0, 0, 1, 1), (width - 1, height - 1, width, height)]
    artist.draw(frame, annotation(*edges))
    assert changed(frame).any()


def test_still_images_have_no_track() -> None:
    frame = grey()
    probs = np.eye(8, dtype=np.float32)[[0, 1]]
    boxes = np.float32([[100, 100, 200, 200], [400, 100, 500, 200]])
    annotator().draw(frame, Annotation(boxes, None, None, probs, np.array([0, 1]), 2))
    assert count_of(frame, "happiness")
    assert count_of(frame, "surprise")


def test_panel_does_not_jump_when_the_box_trembles() -> None:
    """Right of the face there is just room, and every other frame a little less than that."""
    artist = annotator()
    frame = grey()
    artist.draw(frame, annotation((300, 100, 400, 200)))
    start = 300 + 639 - np.nonzero(changed(frame))[1].max()
    for shift in (0, 9, 0, 14, 2, 12):
        frame = grey()
        artist.draw(frame, annotation((start + shift, 100, start + shift + 100, 200)))
        assert not changed(frame)[:, : start - 10].any()


def test_panel_stays_on_its_side_while_that_is_free() -> None:
    """It begins on the left, at the right edge of the frame, and the face walks to the middle."""
    artist = annotator()
    for x in range(540, 300, -4):
        frame = grey()
        artist.draw(frame, annotation((x, 100, x + 100, 200)))
        assert not changed(frame)[:, x + 115 :].any()
    frame = grey()
    annotator().draw(frame, annotation((x, 100, x + 100, 200)))
    assert changed(frame)[:, x + 115 :].any()


def test_label_size_follows_the_face_slowly() -> None:
    """A box that grows by a tenth keeps the size of its text; one that doubles does not."""
    artist, widths = annotator(1920, 1080, ()), []
    for size in (110, 121, 105, 240):
        frame = grey(1920, 1080)
        artist.draw(frame, annotation((800, 500, 800 + size, 500 + size)))
        widths.append(np.ptp(np.nonzero(changed(frame)[:480])[1]))
    assert widths[0] == widths[1] == widths[2] < widths[3]


def test_each_layer_has_its_switch() -> None:
    faces = replace(
        annotation((200, 100, 300, 200)),
        points_px=np.float32([[[230, 130], [270, 130], [250, 150], [235, 175], [265, 175]]]),
    )

    def drawn(**layers: object) -> Bools:
        frame = grey()
        annotator(has_time=True, **layers).draw(frame, faces)
        return changed(frame)

    off = dict.fromkeys(("boxes", "labels", "bars", "ids", "points", "clock"), False)
    assert not drawn(**off).any()
    alone = {layer: drawn(**{**off, layer: True}) for layer in off}
    assert all(mask.any() for mask in alone.values())
    places = {layer: np.argwhere(mask).mean(axis=0) for layer, mask in alone.items()}
    assert places["clock"][0] > 320
    assert places["labels"][0] < 100  # above the box
    assert places["bars"][1] > 300  # beside it
    np.testing.assert_allclose(places["boxes"], [149.5, 249.5], atol=1)
    np.testing.assert_allclose(places["points"], [152, 250], atol=1)
    assert alone["ids"].sum() < alone["labels"].sum()


def test_a_layer_is_as_the_style_has_it_unless_it_is_set() -> None:
    chosen = Render(style="minimal", bars=True, labels=False)
    shown: set[Layer] = {layer for layer in STYLES["full"] | {"heatmap"} if chosen.shows(layer)}
    assert shown == {"boxes", "bars"}


def test_strip_fills_with_time_and_labels_stay_above_it() -> None:
    probs = np.zeros((600, len(EMOTIONS)))
    probs[:300, 0], probs[300:, 2] = 1, 1
    over_time = EmotionsOverTime(np.arange(600) / 60, probs)
    setup = Setup(640, 360, Render(), tuple(ALL), True, over_time, (0.0, 10.0))
    artist, counts = Annotator(setup), []
    for pts_s in (0.0, 2.5, 7.5, 10.0):
        frame = grey()
        artist.draw(frame, annotation((200, 320, 300, 360), pts_s=pts_s))
        band = frame[333:351]
        counts.append((count_of(band[:, :190], "happiness"), count_of(band[:, 330:], "sadness")))
        assert not changed(frame[352:, 320:]).any()
    (no_joy, _), (joy, no_grief), (_, some_grief), (_, grief) = counts
    assert no_joy < 40 < joy
    assert no_grief == 0 < some_grief < grief


@pytest.mark.parametrize("size", [(17, 3), (8, 8)])
def test_strip_in_a_tiny_frame(size: tuple[int, int]) -> None:
    over_time = EmotionsOverTime(np.arange(2.0), np.ones((2, len(EMOTIONS))))
    setup = Setup(*size, Render(), tuple(ALL), True, over_time, (0.0, 1.0))
    frame = grey(*size)
    Annotator(setup).draw(frame, annotation((0, 0, 2, 2), pts_s=1.0))
    assert changed(frame).any()


def test_side_by_side_keeps_the_frame_on_the_left() -> None:
    artist = annotator(style="side-by-side")
    picture = artist.draw(grey(), annotation((200, 100, 300, 200)))
    assert picture.shape == (360, artist.width_px, 3) == (360, 1280, 3)
    assert not changed(picture[:, :640]).any()
    alone = annotator(style="full").draw(grey(), annotation((200, 100, 300, 200)))
    np.testing.assert_array_equal(picture[:, 640:], alone)


def test_every_layer_has_a_switch_and_every_switch_a_layer() -> None:
    names = {name for entry in LAYERS for name in entry.switches}
    assert names == set(get_args(LayerName))
    assert all(name in Render.model_fields for name in names)


def test_a_new_layer_is_a_class_and_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that forbids the right half of the frame to panels, and cuts off a footer."""

    class Fence(Layer):
        footer_px = 100

        def draw(self, canvas: Canvas, faces: Sequence[Face], annotation: Annotation) -> None:
            canvas.taken.append(Rect(300, 0, 640, 360))

    monkeypatch.setattr(layers, "LAYERS", (Entry(Fence, ("boxes",)), *LAYERS))
    frame = grey()
    annotator(boxes=True).draw(frame, annotation((200, 100, 300, 200)))
    assert not changed(frame)[:, 310:].any()
    assert not changed(frame)[260:].any()
    assert changed(frame)[:, :190].sum() > 10_000
