"""What each style makes of the frames of a file."""

from pathlib import Path

import numpy as np
import pytest

from fer_batch.config import Config, Render
from fer_batch.models.card import find_weights
from fer_batch.records import Bools, Bytes, ChunkResult, FrameChunk, MediaInfo, MediaKind
from fer_batch.render.annotations import load_annotations
from fer_batch.render.file_annotator import FileAnnotator
from tests.support import results
from tests.support.portraits import portrait

BOXES = np.float32([[25, 160, 130, 290], [185, 160, 290, 290], [345, 160, 450, 290]])
"""Of the faces of a portrait."""
N = 6


def file(kind: MediaKind, n_faces: int, *, looked_at: range = range(N)) -> ChunkResult:
    """What a run found in a file whose frames, at 10 per second, show faces that laugh."""
    n = len(looked_at)
    return results.result(
        f"a.{kind}",
        [n_faces] * n,
        frame_index=looked_at,
        box_px=np.tile(BOXES[:n_faces], (n, 1)),
        track_id=np.tile(np.arange(n_faces), n) if kind == "video" else None,
    )


def frames(n_faces: int, count: int = N, *, first: int = 0) -> FrameChunk:
    index = np.arange(first, first + count)
    return FrameChunk(
        rgb=np.stack([portrait(n_faces)] * count),
        frame_index=index,
        pts_s=index / 10,
        is_damaged=np.zeros(count, np.bool_),
    )


def draw(tmp_path: Path, found: ChunkResult, *chunks: FrameChunk, **render: object) -> list[Bytes]:
    kind: MediaKind = "video" if found.track_id is not None else "image"
    results.write(tmp_path, found)
    [faces] = load_annotations(tmp_path, [results.row(found.media)], smooth_s=0)
    info = MediaInfo(480, 300, 0, None, None, None, "h264")
    config = Config(render=Render(smooth_s=0, **render))
    heatmaps = None
    if config.render.shows("heatmap"):
        import torch

        from fer_batch.explain.explainer import Explainer
        from fer_batch.render.heatmaps import Heatmaps

        explainer = Explainer(find_weights("default"), torch.device("cpu"))
        heatmaps = Heatmaps(explainer, config.render.smooth_s)
    annotator = FileAnnotator(kind, info, faces, config, heatmaps)
    drawn = [rgb for chunk in chunks for rgb in annotator.draw(chunk)]
    assert {rgb.shape for rgb in drawn} == {(300, annotator.info.width_px, 3)}
    return drawn


def changed(rgb: Bytes, n_faces: int) -> Bools:
    """Where a frame differs from its source."""
    return (rgb != portrait(n_faces)).any(axis=2)


@pytest.mark.parametrize("kind", ["video", "image"])
@pytest.mark.parametrize("n_faces", [0, 1, 3])
@pytest.mark.parametrize("style", ["full", "minimal", "heatmap", "side-by-side"])
def test_every_style_draws_at_the_faces(
    tmp_path: Path, style: str, n_faces: int, kind: MediaKind
) -> None:
    looked_at = range(N) if kind == "video" else range(1)
    found = file(kind, n_faces, looked_at=looked_at)
    chunk = frames(n_faces, len(looked_at))
    for rgb in draw(tmp_path, found, chunk, style=style):
        if style == "side-by-side":
            np.testing.assert_array_equal(rgb[:, :480], portrait(n_faces))
            rgb = rgb[:, 480:]
        mask = changed(rgb, n_faces)
        for x1, y1, x2, y2 in BOXES[:n_faces].astype(int):
            inside = mask[y1 + 20 : y2 - 20, x1 + 20 : x2 - 20].mean()
            assert mask[y1 : y1 + 2, x1:x2].mean() > 0.9
            assert inside > 0.8 if style == "heatmap" else inside < 0.1
        if not n_faces:
            has_clock = kind == "video" and style != "minimal"
            assert mask.any() == has_clock


@pytest.mark.parametrize("style", ["full", "heatmap"])
def test_chunks_do_not_matter(tmp_path: Path, style: str) -> None:
    found = file("video", 2)
    at_once = draw(tmp_path, found, frames(2), style=style)
    parts = [frames(2, first=first, count=count) for first, count in ((0, 1), (1, 3), (4, 2))]
    one_by_one = draw(tmp_path, found, *parts, style=style)
    for one, other in zip(at_once, one_by_one, strict=True):
        np.testing.assert_allclose(one, other, atol=2)


def test_faces_are_hidden_in_every_frame_of_a_track(tmp_path: Path) -> None:
    """Also in those between the frames that were looked at, and a little before and after."""
    found = file("video", 1, looked_at=range(1, 5, 3))
    bare = dict.fromkeys(("boxes", "labels"), False)
    drawn = draw(tmp_path, found, frames(1), style="minimal", blur=True, **bare)
    x1, y1, x2, y2 = BOXES[0].astype(int)
    for rgb in drawn:
        mask = changed(rgb, 1)
        assert mask[y1 + 5 : y2 - 5, x1 + 5 : x2 - 5].mean() > 0.9
        assert not mask[:, 200:].any()
        detail = np.diff(rgb[y1 + 30 : y2 - 30, x1 + 20 : x2 - 20].astype(int), axis=1)
        assert (detail == 0).all(axis=2).mean() > 0.8


def test_labels_stay_over_hidden_faces(tmp_path: Path) -> None:
    [shown, *_] = draw(tmp_path, file("video", 1), frames(1))
    [hidden, *_] = draw(tmp_path, file("video", 1), frames(1), blur=True)
    x1, y1, x2, _ = BOXES[0].astype(int)
    for part in (np.s_[y1, x1 + 30 : x2 - 30], np.s_[y1 - 12 : y1 - 6, x1 + 20]):
        np.testing.assert_allclose(hidden[part], shown[part], atol=8)


def test_hidden_faces_are_hidden_on_both_sides(tmp_path: Path) -> None:
    [rgb, *_] = draw(tmp_path, file("video", 1), frames(1), style="side-by-side", blur=True)
    x1, y1, x2, y2 = BOXES[0].astype(int)
    assert changed(rgb[:, :480], 1)[y1:y2, x1:x2].mean() > 0.9
