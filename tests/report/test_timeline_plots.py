"""Pictures of timelines: what stands in them, read from their pixels."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fer_batch.emotions import COLOURS, EMOTIONS
from fer_batch.records import Bytes
from fer_batch.report import timeline_plots
from fer_batch.results.timeline import Binned


def draw(path: Path, binned: Binned, name: str = "v.mp4") -> Bytes:
    timeline_plots.timeline(binned, name, "some facts", path)
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))


def bins(n_faces: list[float], *, end_s: float = 60.0) -> Binned:
    """A third each of the first three emotions wherever there is a face."""
    probs = np.full((len(n_faces), len(EMOTIONS)), np.nan, np.float32)
    probs[np.array(n_faces) > 0, :3] = 1 / 3
    return Binned(np.linspace(0, end_s, len(n_faces) + 1), probs, np.array(n_faces, np.float32))


def shares(rgb: Bytes) -> dict[str, float]:
    """Of the picture, by emotion; without neutral, as letters are grey too."""
    same = {
        name: (np.abs(rgb - np.array(colour)).max(axis=-1) <= 2).mean()
        for name, colour in COLOURS.items()
        if name != "neutral"
    }
    return {name: float(share) for name, share in same.items() if share > 1e-4}


def test_emotions_are_stacked_where_faces_are(tmp_path: Path) -> None:
    whole = shares(draw(tmp_path / "a.png", bins([1, 1])))
    half = shares(draw(tmp_path / "b.png", bins([0, 2])))
    unknown = shares(draw(tmp_path / "c.png", bins([np.nan, 2])))
    for seen in (whole, half, unknown):
        assert list(seen) == list(EMOTIONS[:3])
        assert max(seen.values()) < 1.1 * min(seen.values())
    assert half["happiness"] == pytest.approx(unknown["happiness"], rel=0.02)
    assert half["happiness"] == pytest.approx(whole["happiness"] / 2, rel=0.1)


def test_no_face_looks_different_from_no_frame(tmp_path: Path) -> None:
    without, unknown = (draw(tmp_path / "x.png", bins([nothing, 1])) for nothing in (0, np.nan))
    left = np.s_[100:300, 150:450]
    assert unknown[left].min() == 255
    assert without[left].min() < 255 < without[left].mean() + 50


@pytest.mark.parametrize(
    "name",
    ["$x$ \\frac{", "会議の録画.mp4", "a\nb\x00c.mp4", "long " * 60 + ".mp4", "\U0001f600.mp4"],
)
@pytest.mark.parametrize("end_s", [0.08, 36_000.0, 3e6])
def test_any_name_and_length_fits(tmp_path: Path, name: str, end_s: float) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rgb = draw(tmp_path / "x.png", bins([1, 0], end_s=end_s), name)
    assert rgb.shape == (506, 1210, 3)
    assert rgb[:, -3:].min() == rgb[:3].min() == 255


@pytest.mark.parametrize(
    "time_s, text", [(0, "0:00"), (59.96, "1:00"), (61.5, "1:01.5"), (36_000, "10:00:00")]
)
def test_time_text(time_s: float, text: str) -> None:
    assert timeline_plots.time_text(time_s) == text
