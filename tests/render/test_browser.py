"""Annotated videos in a real browser: they play to the end, each frame at its time."""

from collections.abc import Callable, Sequence
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from fer_batch.config import Config, Decode, Sampling
from fer_batch.emotions import COLOURS
from fer_batch.media import discovery
from fer_batch.media.decode import FrameReader
from fer_batch.render.copies import render
from tests.support import browser, results
from tests.support.clips import RECIPES, SIZE, clip, read_number
from tests.support.command import run as command
from tests.support.portraits import portraits

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(browser.PATH is None, reason="needs chromium"),
]


GROWN = {"odd 444": (162, 98)}
"""Sizes grow to even ones."""


def check(seen: browser.Seen, source: Path, numbers: Sequence[int], pts_s: Sequence[float]) -> None:
    """Played to its end, as long as the source, and most frames seen, each at its time."""
    with av.open(str(source)) as file:
        duration_s = file.duration / av.time_base
    assert seen.duration_s == pytest.approx(duration_s, abs=1 / 25)
    assert seen.current_s == pytest.approx(seen.duration_s, abs=1 / 25)
    assert seen.n_frames == len(numbers)
    assert len(seen.frames) > len(numbers) / 2
    shown_s = np.array([at_s for at_s, _ in seen.frames])
    assert (np.diff(shown_s) > 0).all()
    at = np.abs(shown_s[:, None] - np.array(pts_s)).argmin(axis=1)
    np.testing.assert_allclose(shown_s, np.array(pts_s)[at], atol=1e-3)
    late = [numbers.index(read_number(rgb)) for _, rgb in seen.frames] - at
    assert set(late.tolist()) <= {0, 1}  # a busy machine shows the next one before it is copied
    assert (late == 0).mean() > 0.8


def test_video_with_faces_and_sound(tmp_path: Path) -> None:
    source = tmp_path / "in" / "a.mp4"
    source.parent.mkdir()
    clip(source, portraits(2, 60), tone=True)
    settings = ["render.bars=false"]  # bars would cover the number
    words = [word for setting in settings for word in ("--set", setting)]
    assert command("process", source, "-o", tmp_path / "out", *words, "--annotate", "-q") == 0
    seen = browser.play(tmp_path / "out/annotated/a.mp4", tmp_path / "profile")
    check(seen, source, range(60), [n / 30 for n in range(60)])
    assert (seen.width_px, seen.height_px) == (480, 300)
    assert seen.sound_bytes > 1000
    labels = (np.abs(seen.frames[-1][1] - np.array(COLOURS["happiness"])) < 40).all(axis=2)
    assert labels.sum() > 2000


@pytest.mark.parametrize(
    "name", ["plain", "ntsc", "vfr mp4", "rotated 90", "odd 444", "trimmed", "hevc", "gif"]
)
def test_video_of_any_source(made: Callable[[str], Path], tmp_path: Path, name: str) -> None:
    recipe = RECIPES[name]
    [file] = discovery.find([made(name)])
    row = results.row(
        file.media,
        root=str(file.path.parent),
        kind="video",
        size_bytes=file.size_bytes,
        mtime_ns=file.mtime_ns,
    )
    no_faces = results.chunk(file.media, [0] * len(recipe.numbers), pts_s=recipe.pts_s)
    results.write(tmp_path / "out", no_faces, rows=[row])
    [path] = render(tmp_path / "out", Config())
    seen = browser.play(path, tmp_path / "profile")
    check(seen, file.path, recipe.numbers, recipe.pts_s)
    size = GROWN.get(name, SIZE)
    assert (seen.width_px, seen.height_px) == size
    _, rgb = seen.frames[0]
    only = [recipe.numbers.index(read_number(rgb))]
    with FrameReader(file, Sampling(), Decode(), only=only) as reader:
        [[truth]] = [chunk.rgb for chunk in reader]
    bare = np.s_[: truth.shape[0] * 2 // 3, : truth.shape[1]]  # without the clock
    ours, theirs = (
        cv2.resize(each[bare], (10, 4), interpolation=cv2.INTER_AREA) for each in (rgb, truth)
    )
    assert np.abs(ours.astype(int) - theirs).mean() < 4
