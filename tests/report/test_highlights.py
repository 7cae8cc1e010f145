"""Which highlights are chosen."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fer_batch.emotions import EMOTIONS
from fer_batch.report import highlights
from fer_batch.report.highlights import Highlight
from fer_batch.results import timeline
from tests.support import results

HAPPY, SAD, NEUTRAL = (EMOTIONS.index(name) for name in ("happiness", "sadness", "neutral"))
RATE = 25


def faces(
    folder: Path,
    tracks: Sequence[Sequence[dict[int, float]]],
    media: str = "a.mp4",
    n_classes: int = 8,
) -> pd.DataFrame:
    """Faces of tracks that all begin at frame 0, given by what each shows frame by frame."""
    n = max(map(len, tracks), default=0)
    rows = [
        (frame, track, shown[frame])
        for frame in range(n)
        for track, shown in enumerate(tracks)
        if frame < len(shown)
    ]
    probs = np.full((len(rows), 8), np.nan, np.float32)
    probs[:, :n_classes] = 0.01
    for at, (_, _, values) in enumerate(rows):
        for emotion, prob in values.items():
            probs[at, emotion] = prob
    results.write(
        folder,
        results.result(
            media,
            [sum(frame < len(shown) for shown in tracks) for frame in range(n)],
            pts_s=np.arange(n) / RATE,
            track_id=[track for _, track, _ in rows],
            probs=probs,
        ),
    )
    return timeline.load(folder, media=media)


def shown(highlight: Highlight) -> tuple[int, int]:
    return highlight.emotion, highlight.frame_index


def test_each_emotion_at_its_strongest(tmp_path: Path) -> None:
    happy = [{HAPPY: 0.6 + 0.01 * frame} for frame in range(30)]
    sad = [{SAD: 0.9 - 0.01 * frame} for frame in range(30)]
    [track] = highlights.of_tracks(faces(tmp_path, [[*happy, *sad]]), smooth_s=0, most=5)
    assert (track.track_id, track.n_frames) == (0, 60)
    assert [shown(highlight) for highlight in track.highlights] == [(HAPPY, 29), (SAD, 30)]
    assert [highlight.prob for highlight in track.highlights] == pytest.approx([0.89, 0.9])
    assert track.highlights[1].pts_s == pytest.approx(30 / RATE)


@pytest.mark.parametrize("at", [0, 30, 59])
def test_a_slip_of_one_frame_is_not_shown(tmp_path: Path, at: int) -> None:
    values = [{NEUTRAL: 0.8}] * 60
    values[at] = {SAD: 0.99}
    found = faces(tmp_path, [values])
    [track] = highlights.of_tracks(found, smooth_s=0.5, most=5)
    assert [highlight.emotion for highlight in track.highlights] == [NEUTRAL]
    [track] = highlights.of_tracks(found, smooth_s=0, most=5)
    assert [highlight.emotion for highlight in track.highlights] == [SAD, NEUTRAL]


def test_what_is_shown_is_the_smoothed_probability(tmp_path: Path) -> None:
    found = faces(tmp_path, [[{HAPPY: 0.5 + 0.4 * (frame % 2)} for frame in range(60)]])
    [track] = highlights.of_tracks(found, smooth_s=0.5, most=5)
    [highlight] = track.highlights
    smooth = timeline.smooth(found, seconds=0.5)
    assert highlight.prob == pytest.approx(smooth["happiness"][highlight.frame_index])
    assert highlight.strength <= highlight.prob


def test_weak_emotions_are_left_out_but_for_the_strongest(tmp_path: Path) -> None:
    values = [{HAPPY: 0.45}] * 20 + [{SAD: 0.4}] * 20
    [track] = highlights.of_tracks(faces(tmp_path, [values]), smooth_s=0, most=5)
    assert [shown(highlight) for highlight in track.highlights] == [(HAPPY, 0)]


def test_tracks_that_are_there_most_come_first(tmp_path: Path) -> None:
    lengths = [20, 40, 30, 2]
    found = faces(tmp_path, [[{HAPPY: 0.9}] * length for length in lengths])
    tracks = highlights.of_tracks(found, smooth_s=0.5, most=2)
    assert [(track.track_id, track.n_frames) for track in tracks] == [(1, 40), (2, 30)]


def test_emotions_that_the_model_does_not_know(tmp_path: Path) -> None:
    found = faces(tmp_path, [[{HAPPY: 0.9}] * 20], n_classes=6)
    [track] = highlights.of_tracks(found, smooth_s=0.5, most=5)
    assert [highlight.emotion for highlight in track.highlights] == [HAPPY]
    found = faces(tmp_path, [[{}] * 20], n_classes=0)
    [track] = highlights.of_tracks(found, smooth_s=0.5, most=5)
    assert track.highlights == ()


def test_video_without_faces(tmp_path: Path) -> None:
    assert highlights.of_tracks(faces(tmp_path, []), smooth_s=0.5, most=5) == []


def test_images_show_one_face_per_emotion(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    stills = [results.still(f"{name}.png", n_faces=4, seed=int(rng.integers(99))) for name in "abc"]
    results.write(tmp_path, *stills)
    found = timeline.load(tmp_path)
    chosen = highlights.of_images(found, most=2)
    assert len({(highlight.media, highlight.emotion) for highlight in chosen}) == len(chosen)
    for emotion in range(len(EMOTIONS)):
        ours = [highlight for highlight in chosen if highlight.emotion == emotion]
        assert len(ours) <= 2
        assert [highlight.prob for highlight in ours] == sorted(
            (m.prob for m in ours), reverse=True
        )
        of_class = found[found["emotion"] == EMOTIONS[emotion]]
        if ours:
            assert ours[0].prob == pytest.approx(of_class["confidence"].max())
    assert highlights.of_images(found[:0], most=2) == []


def test_most_expressive() -> None:
    def highlight(emotion: int, strength: float) -> Highlight:
        return Highlight("a.mp4", 0, 0, 0.0, emotion, strength, strength)

    neutral, weak, strong = highlight(NEUTRAL, 0.9), highlight(SAD, 0.4), highlight(HAPPY, 0.6)
    assert highlights.most_expressive([neutral, weak, strong]) == strong
    assert highlights.most_expressive([neutral, weak]) == neutral
    assert highlights.most_expressive([]) is None
