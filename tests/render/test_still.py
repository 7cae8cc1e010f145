"""Single annotated frames: those of the annotated copies, and pictures without a run."""

import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fer_batch.config import Config, Render, Sampling, load
from fer_batch.emotions import EMOTIONS
from fer_batch.errors import RenderError
from fer_batch.explain.explainer import Explainer
from fer_batch.media import discovery
from fer_batch.media.decode import FrameReader
from fer_batch.models.card import find_weights
from fer_batch.pipeline.process import process
from fer_batch.records import Bytes, Faces
from fer_batch.render import still
from fer_batch.render.annotations import load_annotations
from fer_batch.render.copies import render
from fer_batch.render.file_annotator import FileAnnotator, heatmaps_of, load_explainer
from fer_batch.render.still import annotate, annotated_frame
from fer_batch.results import store, timeline
from tests.support.clips import RECIPES, clip, read_number
from tests.support.portraits import portrait, portraits

RATE = 30
MINIMAL = Config(render=Render(style="minimal"))
"""Draws nothing over the number of a frame."""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Output folder of a run over a video of 80 frames, two pictures, and a file that is none."""
    folder = tmp_path_factory.mktemp("run")
    source = folder / "in"
    source.mkdir()
    clip(source / "a.mp4", portraits(2, 80))
    Image.fromarray(portrait(3)).save(source / "b.png")
    Image.fromarray(portrait(0)).save(source / "c.png")
    (source / "d.mp4").touch()
    process([source], folder / "out", load(None))
    return folder / "out"


def configured(**settings: object) -> Config:
    return Config(render=Render(**settings))


def copied(out: Path, config: Config) -> list[Bytes]:
    """First frames of the copy of the video, as they go to the encoder."""
    [row] = [row for row in store.media_rows(out) if row.media == "a.mp4"]
    [annotations] = load_annotations(out, [row], smooth_s=config.render.smooth_s)
    heatmaps = heatmaps_of(row, load_explainer(config), config)
    with FrameReader(discovery.source_of(row), Sampling(), config.decode) as reader:
        annotator = FileAnnotator(row.kind, reader.info, annotations, config, heatmaps)
        drawn = (rgb.copy() for chunk in reader for rgb in annotator.draw(chunk))
        return list(itertools.islice(drawn, 14))


@pytest.mark.parametrize(
    "settings",
    [{}, {"blur": True, "style": "side-by-side"}, {"style": "heatmap"}],
    ids=["full", "hidden, side by side", "heatmap"],
)
def test_frame_of_a_video_is_that_of_its_copy(run: Path, settings: dict[str, object]) -> None:
    config = configured(**settings)
    frames = copied(run, config)
    for number in (0, 13):
        drawn = annotated_frame(run, config, "a.mp4", (number + 0.5) / RATE)
        np.testing.assert_allclose(drawn, frames[number], atol=settings.get("style") == "heatmap")


def test_frame_is_the_one_that_a_player_shows(
    made: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(still, "LEAD_S", 0.02)  # less than some frames of this video last
    source, recipe = made("vfr mp4"), RECIPES["vfr mp4"]
    process([source], tmp_path, Config())
    for number, at_s in list(zip(recipe.numbers, recipe.pts_s, strict=True))[::7]:
        assert read_number(annotated_frame(tmp_path, MINIMAL, source.name, at_s + 1e-3)) == number
    last = annotated_frame(tmp_path, MINIMAL, source.name, 1e6)
    assert read_number(last) == recipe.numbers[-1]


def test_frames_before_the_part_that_is_shown(run: Path) -> None:
    part = MINIMAL.model_copy(update={"sampling": Sampling(start_s=1.0, end_s=2.0)})
    with pytest.raises(RenderError, match=r"a\.mp4 shows no frame at 0\.5 s"):
        annotated_frame(run, part, "a.mp4", 0.5)
    assert read_number(annotated_frame(run, part, "a.mp4", 1.5)) == 45
    assert read_number(annotated_frame(run, part, "a.mp4", 3.0)) == 59
    assert read_number(annotated_frame(run, MINIMAL, "a.mp4", 2.5 + 0.5 / RATE)) == 75


@pytest.mark.parametrize("name", ["d.mp4", "absent.mp4"])
def test_files_without_frames(run: Path, name: str) -> None:
    with pytest.raises(RenderError, match=f"holds no frames of {name}"):
        annotated_frame(run, Config(), name, 0.0)


@pytest.mark.parametrize("style", ["full", "side-by-side", "heatmap"])
def test_still_image_is_drawn_as_its_copy_with_and_without_the_run(run: Path, style: str) -> None:
    config = configured(style=style)
    [path] = render(run, config, media="b.png")
    with Image.open(path) as opened:
        expected = np.asarray(opened)
    np.testing.assert_array_equal(annotated_frame(run, config, "b.png"), expected)
    found = timeline.load(run, media="b.png")
    box_px = found[["x1_px", "y1_px", "x2_px", "y2_px"]].to_numpy(np.float32)
    points_px = np.stack(found["points_px"].to_list()).reshape(3, 5, 2).astype(np.float32)
    faces = Faces(np.zeros(3, np.int64), box_px, np.ones(3, np.float32), points_px)
    rgb = portrait(3)
    drawn = annotate(
        rgb,
        faces,
        found[list(EMOTIONS)].to_numpy(np.float32),
        config.render,
        explainer=Explainer(find_weights("default"), torch.device("cpu")),
    )
    np.testing.assert_array_equal(drawn, expected)
    np.testing.assert_array_equal(rgb, portrait(3))


def test_picture_without_faces_stays_as_it_is(run: Path) -> None:
    none = Faces(np.zeros(0, np.int64), np.zeros((0, 4), np.float32), np.zeros(0, np.float32))
    drawn = annotate(portrait(0), none, np.zeros((0, 8), np.float32), Render())
    np.testing.assert_array_equal(drawn, portrait(0))
    np.testing.assert_array_equal(annotated_frame(run, Config(), "c.png"), portrait(0))


def test_numbers_of_tracks_are_drawn_where_they_are_given() -> None:
    faces = Faces(np.zeros(1, np.int64), np.float32([[100, 100, 200, 200]]), np.ones(1, "f4"))
    probs = np.eye(len(EMOTIONS), dtype=np.float32)[:1]
    only_ids = Render(style="minimal", boxes=False, labels=False, ids=True)
    rgb = portrait(0)
    assert (annotate(rgb, faces, probs, only_ids) == rgb).all()
    drawn = annotate(rgb, faces, probs, only_ids, track_id=np.array([7]))
    assert (drawn != rgb).any()


def test_heatmap_without_a_network_is_refused() -> None:
    faces = Faces(np.zeros(1, np.int64), np.float32([[100, 100, 200, 200]]), np.ones(1, "f4"))
    probs = np.eye(len(EMOTIONS), dtype=np.float32)[:1]
    with pytest.raises(RenderError, match="need an explainer"):
        annotate(portrait(0), faces, probs, Render(style="heatmap"))
