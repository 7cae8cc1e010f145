"""What is drawn on which frame."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fer_batch.emotions import EMOTIONS
from fer_batch.records import ChunkResult, Floats
from fer_batch.render.annotations import (
    AROUND_S,
    LABEL_MARGIN,
    Annotations,
    load_annotations,
    steady_labels,
)
from fer_batch.results import timeline
from tests.support import results


def result(
    tracks: list[list[int]],
    *,
    step: int = 1,
    probs: Floats | None = None,
    media: str = "a.mp4",
    fps: float = 10.0,
) -> ChunkResult:
    """Frames 0, step, 2 * step, ... showing these tracks."""
    index = np.arange(len(tracks)) * step
    n_faces = [len(faces) for faces in tracks]
    box_px = np.tile(np.float32([10, 20, 30, 40]), (sum(n_faces), 1))
    box_px[:, 0] += np.repeat(np.arange(len(tracks)), n_faces)
    return results.result(
        media,
        n_faces,
        frame_index=index,
        pts_s=index / fps,
        box_px=box_px,
        track_id=[track for faces in tracks for track in faces],
        probs=results.HAPPY if probs is None else probs,
    )


def annotations(tmp_path: Path, chunk: ChunkResult, *, smooth_s: float = 0.0) -> Annotations:
    results.write(tmp_path, chunk)
    [loaded] = load_annotations(tmp_path, [results.row(chunk.media)], smooth_s=smooth_s)
    return loaded


def shown(loaded: Annotations, frame_index: int) -> list[int]:
    track_id = loaded.at(frame_index).track_id
    return [] if track_id is None else track_id.tolist()


def test_each_frame_shows_its_own_faces(tmp_path: Path) -> None:
    loaded = annotations(tmp_path, result([[0], [], [0, 1], [1]]))
    assert [shown(loaded, index) for index in range(4)] == [[0], [], [0, 1], [1]]
    np.testing.assert_array_equal(loaded.at(2).box_px[:, 0], [12, 12])


def test_frames_between_show_the_last_faces_while_their_tracks_live(tmp_path: Path) -> None:
    loaded = annotations(tmp_path, result([[0, 1], [0], [], [0]], step=10))
    assert [shown(loaded, index) for index in (0, 5, 10, 15, 20, 25, 30, 31)] == [
        [0, 1],
        [0],
        [0],
        [0],
        [],
        [],
        [0],
        [],
    ]
    np.testing.assert_array_equal(loaded.at(19).box_px, loaded.at(10).box_px)


def test_frames_before_the_first_one_seen_show_nothing(tmp_path: Path) -> None:
    chunk = result([[0], [0]], step=5)
    late = replace(chunk, frame_index=chunk.frame_index + 5)
    assert shown(annotations(tmp_path, late), 4) == []


def test_most_faces_around_are_counted(tmp_path: Path) -> None:
    tracks = [[0] for _ in range(60)]
    tracks[30] = [0, 1, 2]
    loaded = annotations(tmp_path, result(tracks))
    half = round(AROUND_S / 2 * 10)
    assert (
        loaded.at(30 - half + 1).n_faces_around
        == loaded.at(30).n_faces_around
        == loaded.at(30 + half - 1).n_faces_around
        == 3
    )
    assert loaded.at(30 - half - 1).n_faces_around == loaded.at(30 + half + 1).n_faces_around == 1


def test_still_image_has_no_tracks(tmp_path: Path) -> None:
    results.write(tmp_path, results.still("b.png", 3), results.still("c.png", 0))
    rows = [results.row("b.png"), results.row("c.png")]
    first, second = load_annotations(tmp_path, rows, smooth_s=0.5)
    assert first.at(0).track_id is None
    assert len(first.at(0).box_px) == 3
    assert len(second.at(0).box_px) == 0


def test_each_file_gets_its_own_annotations(tmp_path: Path) -> None:
    for name, track in (("a.mp4", 4), ("b.mp4", 5)):
        results.write(tmp_path, result([[track]], media=name))
    results.write(tmp_path, results.still("c.png", 2))
    rows = [results.row(name) for name in ("b.mp4", "c.png", "a.mp4")]
    b, c, a = load_annotations(tmp_path, rows, smooth_s=0)
    assert (shown(a, 0), shown(b, 0), len(c.at(0).box_px)) == ([4], [5], 2)


def test_emotions_are_those_that_the_model_knows(tmp_path: Path) -> None:
    probs = np.full((1, 8), np.nan, np.float32)
    probs[:, :6] = 1 / 6
    assert annotations(tmp_path, result([[0]], probs=probs)).emotions == tuple(range(6))


def test_probabilities_are_steadied(tmp_path: Path) -> None:
    probs = np.eye(8, dtype=np.float32)[[0, 1] * 10]
    chunk = result([[0]] * 20, probs=probs)
    loaded = annotations(tmp_path, chunk, smooth_s=0.5)
    expected = timeline.smooth(timeline.load(tmp_path), seconds=0.5)["happiness"].to_numpy()
    drawn = [float(loaded.at(index).probs[0, 0]) for index in range(20)]
    np.testing.assert_allclose(drawn, expected, rtol=1e-6)
    assert np.std(drawn[10:]) < 0.2


@pytest.mark.parametrize("smooth_s, n_labels", [(0.5, 1), (0.0, 2)])
def test_label_is_steady_unless_smoothing_is_off(
    tmp_path: Path, smooth_s: float, n_labels: int
) -> None:
    close = np.full((20, 8), 0.04, np.float32)
    close[:, :2] = [0.38, 0.38]
    close[::2, 0] += LABEL_MARGIN / 2
    close[1::2, 1] += LABEL_MARGIN / 2
    loaded = annotations(tmp_path, result([[0]] * 20, probs=close), smooth_s=smooth_s)
    assert len({int(loaded.at(index).emotion[0]) for index in range(20)}) == n_labels


def test_label_changes_when_another_emotion_clearly_leads() -> None:
    probs = np.full((5, 8), 0.01, np.float32)
    lead = np.array([0.2, -0.05, -LABEL_MARGIN * 1.5, -0.05, 0.05])
    probs[:, 3], probs[:, 5] = 0.4 + lead / 2, 0.4 - lead / 2
    assert steady_labels(np.zeros(5, np.int64), probs).tolist() == [3, 3, 5, 5, 5]


def test_label_of_each_track_is_its_own_and_needs_probabilities() -> None:
    probs = np.eye(8, dtype=np.float32)[[0, 1, 2, 1]]
    probs[2] = np.nan
    assert steady_labels(np.array([7, 8, 7, 8]), probs).tolist() == [0, 1, -1, 1]


def test_points_are_there_when_every_face_has_them(tmp_path: Path) -> None:
    chunk = results.chunk("a.mp4", [1, 2])
    loaded = annotations(tmp_path, chunk)
    points = loaded.at(1).points_px
    assert points is not None
    np.testing.assert_array_equal(points, chunk.faces.points_px[1:])
    results.write(tmp_path / "still", results.still("b.png"))
    rows = [results.row("b.png")]
    [still] = load_annotations(tmp_path / "still", rows, smooth_s=0)
    assert still.at(0).points_px is None


def test_shares_are_means_over_the_faces_of_each_stretch(tmp_path: Path) -> None:
    joy, grief = np.eye(len(EMOTIONS), dtype=np.float32)[[0, 2]]
    probs = np.stack([joy, joy, grief, grief])
    loaded = annotations(tmp_path, result([[0], [0, 1], [], [0]], probs=probs))
    # frames at 0.0, 0.1, 0.2 (nobody), 0.3 s; the stretch from 0.15 s on shows the frame before it
    shares = loaded.over_time.shares(np.array([-0.2, -0.1, 0.1, 0.15, 0.2, 0.3, 0.4]))
    nobody = [np.nan] * 2
    expected = [nobody, [1, 0], [0.5, 0.5], [0.5, 0.5], nobody, [0, 1]]
    np.testing.assert_allclose(shares[:, [0, 2]], expected)


def test_paths_lead_straight_through_gaps(tmp_path: Path) -> None:
    chunk = result([[0], [], [0], [1]], step=10)  # at 0, 1, 2 and 3 s, 1 px to the right each
    paths = annotations(tmp_path, chunk).paths
    at = {pts_s: paths.at(pts_s)[:, 0].tolist() for pts_s in (-0.1, 0.0, 0.5, 2.0, 2.1, 2.5, 3.1)}
    assert at == {-0.1: [10], 0.0: [10], 0.5: [10.5], 2.0: [12], 2.1: [12], 2.5: [], 3.1: [13]}


def test_short_tracks_are_hidden_and_not_shown(tmp_path: Path) -> None:
    chunk = replace(result([[0, 1], [0]]), is_short=np.array([False, True, False]))
    loaded = annotations(tmp_path, chunk)
    assert [shown(loaded, index) for index in (0, 1)] == [[0], [0]]
    assert len(loaded.paths.at(0.0)) == 2
