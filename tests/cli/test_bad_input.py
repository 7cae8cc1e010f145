"""Odd pictures, boxes and weights go through the whole pipeline: at most one file fails."""

import hashlib
import os
import pickle
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save

from fer_batch.config import load
from fer_batch.emotions import EMOTIONS
from fer_batch.errors import ConfigError, WeightsError
from fer_batch.models import weights
from fer_batch.models.card import read_card
from fer_batch.models.networks import NETWORKS
from fer_batch.pipeline import process as pipeline
from fer_batch.records import Faces, Frames
from fer_batch.results import store, timeline
from tests.support.bars import TINY
from tests.support.cards import make_weights
from tests.support.detectors import use_detector
from tests.support.portraits import portrait

WIDTH, HEIGHT = 120, 80


def process(folder: Path, *settings: str) -> tuple[pipeline.Summary, Path]:
    out = folder.parent / "out"
    return pipeline.process([folder], out, load(None, settings)), out


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    noise = np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "in" / "noise.png")
    return tmp_path / "in"


def set_boxes(monkeypatch: pytest.MonkeyPatch, boxes: Sequence[Sequence[float]]) -> None:
    """Make the detector find these boxes in every frame."""

    def detect(frames: Frames) -> Faces:
        each = np.array(boxes, np.float32).reshape(-1, 4)
        rows = np.repeat(np.arange(len(frames)), len(each))
        scores = np.ones(len(rows), np.float32)
        return Faces(rows, np.tile(each, (len(frames), 1)), scores)

    use_detector(monkeypatch, detect)


def test_boxes_of_a_pixel_and_at_every_border_have_their_rows(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    boxes = [
        (0, 0, 1, 1),
        (60, 40, 61, 41),
        (WIDTH - 1, HEIGHT - 1, WIDTH, HEIGHT),
        (0, 20, 30, 60),
        (90, 20, WIDTH, 60),
        (40, 0, 80, 10),
        (40, 70, 80, HEIGHT),
        (0, 0, WIDTH, HEIGHT),
        (0, 0, WIDTH, 1),
    ]
    set_boxes(monkeypatch, boxes)
    summary, out = process(folder)
    assert (summary.n_ok, summary.n_faces) == (1, len(boxes))
    faces = timeline.load(out)
    np.testing.assert_array_equal(faces[["x1_px", "y1_px", "x2_px", "y2_px"]], boxes)
    np.testing.assert_allclose(faces[list(EMOTIONS)].sum(axis=1), 1, atol=1e-4)


def test_thousands_of_faces_in_a_picture(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    boxes = [(x, y, x + 8, y + 8) for y in range(20) for x in range(100)]
    set_boxes(monkeypatch, boxes)
    monkeypatch.setitem(NETWORKS, "tiny", TINY)
    tiny = make_weights(folder.parent / "weights", network="tiny", input_size_px=16)
    summary, out = process(folder, f"classifier.weights={tiny}")
    assert (summary.n_ok, summary.n_faces) == (1, len(boxes))
    faces = timeline.load(out)
    assert faces["face_index"].tolist() == list(range(len(boxes)))
    assert faces["x1_px"].tolist() == [box[0] for box in boxes]


def test_more_faces_than_can_be_counted_fail_their_file_only(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("RGB", (50, 50)).save(folder / "plain.png")

    def many(frames: Frames) -> Faces:
        if all(np.ptp(frame) == 0 for frame in frames):
            return Faces.join([], [])
        n = 40_000
        boxes = np.tile(np.float32([1, 1, 9, 9]), (n, 1))
        return Faces(np.zeros(n, np.int64), boxes, np.ones(n, np.float32))

    use_detector(monkeypatch, many)
    summary, _ = process(folder)
    assert (summary.n_ok, summary.n_failed) == (1, 1)
    assert summary.problems[0].media == "noise.png"
    assert "40,000 faces" in summary.problems[0].error


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1), (2, 2), (23, 300)])
def test_pictures_of_any_shape(tmp_path: Path, size: tuple[int, int]) -> None:
    (tmp_path / "in").mkdir()
    Image.new("RGB", size, (200, 150, 120)).save(tmp_path / "in" / "odd.png")
    summary, out = process(tmp_path / "in")
    assert (summary.n_ok, summary.n_frames, summary.n_faces) == (1, 1, 0)
    media = timeline.load_media(out).iloc[0]
    assert (media["width_px"], media["height_px"]) == size


@pytest.mark.parametrize(
    "mode, name",
    [("L", "a.png"), ("P", "a.png"), ("RGBA", "a.png"), ("CMYK", "a.jpg"), ("I;16", "a.png")],
)
def test_face_is_found_in_pictures_of_every_kind(tmp_path: Path, mode: str, name: str) -> None:
    (tmp_path / "in").mkdir()
    picture = Image.fromarray(portrait(1))
    if mode == "I;16":
        picture = Image.fromarray(np.asarray(picture.convert("L")).astype(np.uint16) * 257)
    else:
        picture = picture.convert(mode)
    picture.save(tmp_path / "in" / name)
    summary, _ = process(tmp_path / "in")
    assert (summary.n_ok, summary.n_faces) == (1, 1)


@pytest.mark.slow
def test_face_is_found_in_a_picture_of_100_megapixels(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    picture = Image.new("RGB", (10_000, 10_000), (150, 150, 150))
    picture.paste(Image.fromarray(portrait(1)).resize((9600, 6000)), (200, 2000))
    picture.save(tmp_path / "in" / "large.jpg", quality=70)
    summary, out = process(tmp_path / "in")
    assert (summary.n_ok, summary.n_faces) == (1, 1)
    assert timeline.load(out)["x2_px"].iloc[0] < 4000


class _Evil:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[object, ...]:
        return (os.mkdir, (str(self.trace),))


def with_content(path: Path, content: bytes) -> Path:
    """A weight file with this content, and a card that has its hash."""
    path.write_bytes(content)
    sha256 = hashlib.sha256(content).hexdigest()
    card = read_card(path).model_copy(update={"sha256": sha256})
    path.with_suffix(".json").write_text(card.model_dump_json())
    return path


def test_files_that_are_no_weights_are_refused_before_anything_is_written(folder: Path) -> None:
    path = make_weights(folder.parent / "weights")
    trace = folder.parent / "trace"
    whole = path.read_bytes()
    zeros = {name: tensor * 0 for name, tensor in load_file(path).items()}
    contents = {
        b"": "does not hold a resnet-compact",
        whole[: len(whole) // 2]: "does not hold a resnet-compact",
        b"text": "does not hold a resnet-compact",
        pickle.dumps(_Evil(trace)): "does not hold a resnet-compact",
        save({"one": torch.zeros(3)}): "does not hold a resnet-compact",
        save({name: tensor[:1] for name, tensor in zeros.items() if tensor.ndim}): "does not hold",
        save({name: tensor / tensor for name, tensor in zeros.items()}): "are not finite",
    }
    for content, message in contents.items():
        with_content(path, content)
        with pytest.raises(WeightsError, match=message) as raised:
            process(folder, f"classifier.weights={path}")
        assert str(path) in str(raised.value)
        with pytest.raises(WeightsError):
            weights.load(path, torch.device("cpu"))
    assert not trace.exists()
    assert store.media_rows(folder.parent / "out") == []


def test_cuda_that_is_not_there_is_an_error_and_auto_says_what_it_took(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(ConfigError, match="cuda is not there: 0 CUDA devices"):
        process(folder, "runtime.device=cuda")
    _, out = process(folder)
    assert store.read_run(out)["device"] == "cpu"
