"""Which tracks are short, and when that is known."""

from collections.abc import Sequence

import numpy as np
import pytest

from fer_batch.config import Config, load
from fer_batch.faces.short_tracks import ShortTracks

RATE = 25.0


def short(
    frames: Sequence[Sequence[int]],
    *settings: str,
    pts_s: Sequence[float] | None = None,
    chunk_frames: int = 7,
) -> list[list[int]]:
    """The short tracks of each frame, given the tracks of its faces."""
    times_s = np.arange(len(frames)) / RATE if pts_s is None else np.array(pts_s)
    tracks = ShortTracks[list[list[int]]](load(None, settings))
    known = []
    for first in range(0, len(frames), chunk_frames):
        chunk = list(map(list, frames[first : first + chunk_frames]))
        frame_row = np.repeat(np.arange(len(chunk)), list(map(len, chunk)))
        ids = np.array([track for frame in chunk for track in frame], np.int64)
        known += tracks.add(chunk, ids, frame_row, times_s[first : first + chunk_frames])
    found = []
    for chunk, is_short in [*known, *tracks.end()]:
        flags = iter(is_short.tolist())
        found += [[track for track in frame if next(flags)] for frame in chunk]
    return found


@pytest.mark.parametrize("n, is_short", [(1, True), (9, True), (10, False), (30, False)])
def test_a_track_lasts_until_the_frame_after_its_last_face(n: int, is_short: bool) -> None:
    frames = [[]] * 5 + [[0]] * n + [[]] * 40
    assert short(frames) == (frames if is_short else [[]] * len(frames))


def test_gaps_count() -> None:
    assert short([[0], *[[]] * 8, [0], *[[]] * 40]) == [[]] * 50


def test_one_frame_per_second_is_not_short() -> None:
    assert short([[], [0], [], [1]], pts_s=[0, 1, 2, 3]) == [[]] * 4


def test_last_frame_lasts_as_long_as_the_one_before() -> None:
    assert short([[]] * 40 + [[0]] * 10) == [[]] * 50
    assert short([[]] * 40 + [[0]] * 9) == [[]] * 40 + [[0]] * 9


@pytest.mark.parametrize("n", [1, 2, 5])
def test_the_whole_of_a_brief_video_is_not_short(n: int) -> None:
    assert short([[0]] * n) == [[]] * n
    assert short([[0, 1]] + [[0]] * n) == [[1]] + [[]] * n


def test_zero_makes_no_track_short() -> None:
    assert short([[], [0], *[[]] * 40], "track.min_s=0") == [[]] * 42


def test_video_without_frames_or_faces() -> None:
    assert short([]) == []
    assert short([[]] * 30) == [[]] * 30


@pytest.mark.parametrize("every", [1, 4])
def test_chunks_do_not_matter(every: int) -> None:
    rng = np.random.default_rng(0)
    alive = [(int(first), int(first + length)) for first, length in rng.integers(1, 90, (60, 2))]
    frames = [
        [track for track, (first, end) in enumerate(alive) if first <= row < end and row % 13]
        for row in range(200)
    ]
    settings = f"detector.every={every}"
    want = short(frames, settings, chunk_frames=200)
    assert any(want)
    assert want != frames
    for size in (1, 3, 64):
        assert short(frames, settings, chunk_frames=size) == want


def test_little_is_held_back() -> None:
    config = Config()
    tracks, held = ShortTracks[int](config), 0
    for row in range(2000):  # a new face in every fifth frame, for one frame
        ids = np.array([] if row % 5 else [row], np.int64)
        held += 1 - len(tracks.add(row, ids, np.zeros(len(ids), np.int64), np.array([row / RATE])))
        assert held <= (config.track.min_s + config.track.max_gap_s) * RATE + 2


def test_a_long_track_holds_nothing_back() -> None:
    tracks = ShortTracks[int](Config())
    one = np.zeros(1, np.int64)
    counts = [len(tracks.add(row, one, one, np.array([row / RATE]))) for row in range(50)]
    assert counts == [0] * 10 + [11] + [1] * 39
