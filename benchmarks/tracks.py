"""Tracks for each person in a shot, and tracks where there is no face.

python -m benchmarks.tracks

Clips come from ../shared. The persons were counted by eye.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from benchmarks.measuring import SHARED, write_page
from fer_batch.config import load
from fer_batch.pipeline.process import process
from fer_batch.results import timeline

VIDEOS = SHARED / "media" / "videos"
DETECTOR = [
    "detector.name=yunet",
]
RATES = (None, 10, 5, 2, 1)
"""Frames per second that are looked at; None: all."""


@dataclass(frozen=True, slots=True)
class Shot:
    """A clip, or a part of it, in which the persons are known."""

    media: str
    persons: int
    start_s: float = 0.0
    end_s: float = 1000.0


SHOTS = (
    Shot("liveportrait_d0.mp4", 1),
    Shot("liveportrait_d13.mp4", 1),
    Shot("liveportrait_s20.mp4", 1),
    Shot("pyfeat_single_face.mp4", 1),
    Shot("pyfeat_WolfgangLanger_Pexels.mp4", 1),
    Shot("pyfeat_face_noface.mov", 1, end_s=2.4),
    Shot("intel_asl_again.mkv", 1),
    Shot("intel_preview_head-pose-face-detection-female-and-male.gif", 2),
    Shot("intel_preview_face-demographics-walking-and-pause.gif", 3),
    Shot("pyfeat_face_noface.mov", 0, start_s=2.4),
    Shot("pyfeat_no_face.mp4", 0),
    Shot("intel_bottle-detection.mp4", 0),
)
CROWDS = ("fr_short_hamilton.mp4", "facenet_video.mp4")
"""Clips in which nobody can say how many faces there are."""


def find(rate: float | None, *settings: str) -> pd.DataFrame:
    """The tracks of all clips: media, begin_s, is_short."""
    sampling = [] if rate is None else [f"sampling.fps={rate}"]
    names = sorted({*CROWDS, *(shot.media for shot in SHOTS)})
    with tempfile.TemporaryDirectory() as out:
        config = load(None, [*DETECTOR, *sampling, *settings, "runtime.device=cpu"])
        process([VIDEOS / name for name in names], Path(out), config)
        faces = timeline.load(out, short=True)
    tracks = faces.groupby(["media", "track_id"], observed=True)
    return tracks.agg(begin_s=("pts_s", "first"), is_short=("is_short", "first")).reset_index()


def cell(tracks: pd.DataFrame, shot: Shot) -> str:
    """Number of tracks that are not short and of those that are."""
    inside = (tracks["begin_s"] >= shot.start_s) & (tracks["begin_s"] < shot.end_s)
    is_short = tracks.loc[(tracks["media"] == shot.media) & inside, "is_short"]
    n_short = int(is_short.sum())
    return f"{len(is_short) - n_short}" + (f" + {n_short}" if n_short else "")


def table(runs: list[pd.DataFrame], titles: list[str]) -> Iterator[str]:
    """A row for each shot, and one for each crowd."""
    yield f"| shot | persons | {' | '.join(titles)} |"
    yield "|:--|--:|" + "--:|" * len(titles)
    for shot in (*SHOTS, *(Shot(name, -1) for name in CROWDS)):
        span = f", from {shot.start_s:g} s" if shot.start_s else ""
        persons = "many" if shot.persons < 0 else str(shot.persons)
        cells = " | ".join(cell(tracks, shot) for tracks in runs)
        yield f"| {shot.media}{span} | {persons} | {cells} |"


def page() -> Iterator[str]:
    """The lines of the document."""
    yield "# Tracks and persons"
    yield ""
    yield "Tracks that YuNet's faces make with the default settings, at several frames per second;"
    yield "after the plus sign: short ones (`track.min_s`), which are left out of everything else."
    yield "A shot is right if it has as many tracks as persons."
    yield ""
    runs = [find(rate) for rate in RATES]
    yield from table(runs, ["all frames", *(f"{rate} fps" for rate in RATES[1:])])
    yield from ("", "## Without weak faces", "")
    yield "The same with `detector.yunet.weak_score=0.7`, so that there are none."
    yield ""
    runs = [find(rate, "detector.yunet.weak_score=0.7") for rate in RATES[:3]]
    yield from table(runs, ["all frames", "10 fps", "5 fps"])


def main() -> None:
    """Measure and write."""
    write_page("tracks", page())


if __name__ == "__main__":
    main()
