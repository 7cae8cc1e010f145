"""Frames that come from no file go through the same stages."""

import contextlib
from collections.abc import Generator, Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from fer_batch.config import load
from fer_batch.emotions import EMOTIONS
from fer_batch.media.decode import Source
from fer_batch.pipeline.classification import Classification, cut_out
from fer_batch.pipeline.face_finder import FaceFinder, FoundFaces
from fer_batch.pipeline.lanes import Lanes, Resources
from fer_batch.pipeline.plan import Plan, plan_for
from fer_batch.pipeline.process import process
from fer_batch.pipeline.stopwatch import Stopwatch
from fer_batch.records import Bytes, ChunkResult, FrameChunk, MediaInfo
from fer_batch.results import timeline
from tests.support.clips import clip
from tests.support.portraits import portraits

RATE = 30


class Camera:
    """Gives one frame at a time; how many will come is not known."""

    def __init__(self, frames: Sequence[Bytes]) -> None:
        height, width = frames[0].shape[:2]
        self.info = MediaInfo(width, height, 0, Fraction(RATE), None, None, "camera")
        self._frames = frames
        self.is_closed = False

    def chunks(self) -> Generator[FrameChunk]:
        for number, frame in enumerate(self._frames):
            yield FrameChunk(
                rgb=frame[None],
                frame_index=np.array([number]),
                pts_s=np.array([number / RATE]),
                is_damaged=np.array([False]),
            )

    def close(self) -> None:
        self.is_closed = True


def classified(source: Source, plan: Plan) -> Iterator[ChunkResult]:
    """Detect, track, crop and classify, chunk by chunk."""
    watch = Stopwatch()
    with Lanes(plan, Resources.of(plan.config), watch) as lanes, contextlib.closing(source):
        finder = FaceFinder(lanes.detect, plan.config, watch)
        state = finder.begin("video")
        for chunk in source.chunks():
            [found] = finder.collect(finder.submit([(state, chunk)]))
            assert isinstance(found, FoundFaces)
            faces = cut_out("camera", chunk, found, plan.card, plan.config.quality)
            yield from Classification([faces], lanes.classify).results()


@pytest.mark.parametrize("every", [1, 3])
def test_camera_gives_what_a_video_of_its_frames_gives(tmp_path: Path, every: int) -> None:
    frames = list(portraits(2, 12))
    config = load(None, ["runtime.device=cpu", f"detector.every={every}"])
    video = clip(tmp_path / "lossless.mkv", frames, codec="ffv1", pix_fmt="bgr0", options={})
    process([video], tmp_path / "out", config)
    expected = timeline.load(tmp_path / "out")

    camera = Camera(frames)
    results = list(classified(camera, plan_for([], config)))
    assert camera.is_closed
    assert [result.pts_s.item() for result in results] == [n / RATE for n in range(12)]
    n_faces = [len(result.faces) for result in results]
    assert np.repeat(range(12), n_faces).tolist() == expected["frame_index"].tolist()
    track_id = np.concatenate([result.track_id for result in results])
    assert track_id.tolist() == expected["track_id"].tolist()
    probs = np.concatenate([result.probs for result in results])
    np.testing.assert_allclose(probs, expected[list(EMOTIONS)], atol=1e-5)
