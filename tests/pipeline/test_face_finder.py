"""Faces of the frames between those that the detector sees."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from fer_batch.config import Config, load
from fer_batch.errors import DetectorError
from fer_batch.pipeline.face_finder import FaceFinder, FoundFaces, TrackingState
from fer_batch.pipeline.lanes import Pending
from fer_batch.pipeline.stopwatch import Stopwatch
from fer_batch.records import Bytes, Faces, FrameChunk, Frames, MediaKind
from tests.support.detectors import use_detector

HEIGHT, WIDTH, SIDE = 60, 160, 20
RATE = 10.0


class Spots:
    """Finds the one bright square of a frame, and remembers how many frames it saw."""

    name = "spots"

    def __init__(self) -> None:
        self.n_seen = 0

    def detect(self, frames: Frames) -> Faces:
        self.n_seen += len(frames)
        if any((frame == 13).all() for frame in frames):
            raise DetectorError("thirteen")
        rows, boxes = [], []
        for row, frame in enumerate(frames):
            ys, xs = np.nonzero(frame[..., 0] > 200)
            if len(xs):
                rows.append(row)
                boxes.append([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1])
        box_px = np.array(boxes, np.float32).reshape(-1, 4)
        return Faces(
            frame_row=np.array(rows, np.int64),
            box_px=box_px,
            score=np.ones(len(rows), np.float32),
            points_px=np.repeat(box_px[:, None, :2], 5, axis=1),
        )


def at_once(detector: Spots) -> Callable[[Frames], Pending[Faces]]:
    """A detector that answers in the foreground."""
    return lambda frames: Pending([], lambda _: detector.detect(frames))


def frame(left: int | None, ground: int = 0) -> Bytes:
    picture = np.full((HEIGHT, WIDTH, 3), ground, np.uint8)
    if left is not None:
        picture[20 : 20 + SIDE, max(0, left) : max(0, left + SIDE)] = 255
    return picture


def chunk(frames: Sequence[Bytes], first: int = 0) -> FrameChunk:
    index = np.arange(first, first + len(frames), dtype=np.int64)
    return FrameChunk(np.stack(frames), index, index / RATE, np.zeros(len(frames), np.bool_))


def find(
    frames: Sequence[Bytes], every: int, kind: MediaKind = "video", chunk_frames: int = 100
) -> tuple[FoundFaces, int]:
    """All faces, and how many frames the detector saw."""
    detector = Spots()
    config = load(None, [f"detector.every={every}"])
    finder = FaceFinder(at_once(detector), config, Stopwatch())
    state = finder.begin(kind)
    starts = range(0, len(frames), chunk_frames)
    chunks = [(state, chunk(frames[start : start + chunk_frames], start)) for start in starts]
    found = finder.collect(finder.submit(chunks))
    rows, boxes, ids, scores, points = [], [], [], [], []
    for start, each in zip(starts, found, strict=True):
        assert isinstance(each, FoundFaces)
        assert each.faces.points_px is not None
        rows.append(each.faces.frame_row + start)
        boxes.append(each.faces.box_px)
        scores.append(each.faces.score)
        points.append(each.faces.points_px)
        ids.append(each.track_id if each.track_id is not None else np.zeros(0, np.int64))
    faces = Faces(*map(np.concatenate, (rows, boxes, scores, points)))
    return FoundFaces(faces, np.concatenate(ids)), detector.n_seen


@pytest.mark.parametrize("chunk_frames", [1, 4, 100])
def test_faces_move_on_between_the_frames_that_are_seen(chunk_frames: int) -> None:
    lefts = range(0, 26, 2)
    found, n_seen = find([frame(left) for left in lefts], 4, chunk_frames=chunk_frames)
    assert n_seen == 4
    assert found.faces.frame_row.tolist() == list(range(13))
    assert set(found.track_id) == {0}
    # Speed is known from the second sight on, and settles.
    np.testing.assert_allclose(found.faces.box_px[8:, 0], lefts[8:], atol=4)
    np.testing.assert_allclose(found.faces.box_px[:, 2] - found.faces.box_px[:, 0], SIDE)
    np.testing.assert_allclose(found.faces.points_px[:, 0], found.faces.box_px[:, :2])
    assert np.isnan(found.faces.score).tolist() == [row % 4 != 0 for row in range(13)]


def test_every_frame_is_seen_where_nothing_is_said() -> None:
    found, n_seen = find([frame(left) for left in range(0, 60, 10)], 1)
    assert n_seen == 6
    assert found.faces.box_px[:, 0].tolist() == [0, 10, 20, 30, 40, 50]
    assert not np.isnan(found.faces.score).any()


def test_cut_is_seen_at_once() -> None:
    frames = [frame(10)] * 3 + [frame(None, ground=120)] * 5
    found, n_seen = find(frames, 8)
    assert n_seen == 2
    assert found.faces.frame_row.tolist() == [0, 1, 2]


def test_face_that_left_the_frame_is_gone() -> None:
    lefts = [130, 134, 138, 142, 146, 150, 154, 158]
    found, _ = find([frame(left) for left in lefts[:5]] + [frame(None)] * 20, 4)
    assert found.faces.box_px[:, 2].max() <= WIDTH
    assert found.faces.frame_row.max() <= 8


def test_still_pictures_are_always_seen() -> None:
    found, n_seen = find([frame(0)], 5, kind="image")
    assert n_seen == 1
    assert len(found.faces) == 1
    assert len(found.track_id) == 0


def test_error_is_that_of_its_own_chunk() -> None:
    finder = FaceFinder(at_once(Spots()), Config(), Stopwatch())
    good, bad = (TrackingState("video", Config()) for _ in range(2))
    chunks = [(good, chunk([frame(0)])), (bad, chunk([frame(None, ground=13)]))]
    found = finder.collect(finder.submit(chunks))
    assert isinstance(found[0], FoundFaces)
    assert isinstance(found[1], DetectorError)


def test_weak_faces_are_kept_in_tracks_only(monkeypatch: pytest.MonkeyPatch) -> None:
    def detect(frames: Frames) -> Pending[Faces]:
        rows = np.repeat(np.arange(len(frames)), 2)
        boxes = np.tile(np.float32([[0, 0, 20, 20], [80, 0, 100, 20]]), (len(frames), 1))
        scores = np.tile(np.float32([0.9, 0.6]), len(frames))
        scores[4:6] = 0.6
        return Pending([], lambda _: Faces(rows, boxes, scores))

    use_detector(monkeypatch, lambda frames: Faces.join([], []), min_score=0.7)
    finder = FaceFinder(detect, Config(), Stopwatch())
    for kind, keeps_weak, n_faces in (
        ("video", False, [1] * 5),
        ("video", True, [2] * 5),
        ("image", False, [1, 1, 0, 1, 1]),
    ):
        state = finder.begin(kind, keeps_weak=keeps_weak)
        [found] = finder.collect(finder.submit([(state, chunk([frame(None)] * 5))]))
        assert isinstance(found, FoundFaces)
        assert np.bincount(found.faces.frame_row, minlength=5).tolist() == n_faces
