"""The detector glance: its weights on real faces, odd frames, batches, damaged weight files."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from skimage import data

from fer_batch.config import Detector, Glance
from fer_batch.errors import WeightsError
from fer_batch.faces.detectors import build_detector, weights_sha256, without_weak
from fer_batch.faces.detectors.glance_network import DetectorCard
from fer_batch.models.card import WEIGHTS_DIR, find_weights, read_card_as
from fer_batch.records import Faces
from tests.support.portraits import portrait

SHIPPED = WEIGHTS_DIR / "detectors" / "glance.safetensors"


def detector(**settings: object):
    section = Glance(**{"weak_score": 0.5} | settings)
    return build_detector(Detector(name="glance", glance=section), torch.device("cpu"))


def test_real_faces_are_found_with_their_points() -> None:
    sure = detector(min_score=0.9, weak_score=0.9)  # at 0.5 also the cat and a badge
    faces = sure.detect([data.astronaut(), data.chelsea(), data.coffee()])
    assert faces.frame_row.tolist() == [0]
    right_eye, left_eye, nose, right_mouth, left_mouth = faces.points_px[0]
    np.testing.assert_allclose(right_eye, (203, 108), atol=8)  # seen with one's own eyes
    np.testing.assert_allclose(left_eye, (245, 107), atol=8)
    assert right_eye[0] < nose[0] < left_eye[0]
    assert right_mouth[0] < left_mouth[0]
    assert left_eye[1] < nose[1] < left_mouth[1]


@pytest.mark.parametrize("n_faces", [0, 1, 3])
def test_portraits(n_faces: int) -> None:
    assert len(detector().detect([portrait(n_faces, 4)])) == n_faces


def test_weak_faces_are_reported_down_to_the_weak_score() -> None:
    frames = [data.astronaut(), data.chelsea()]
    weak = detector(min_score=0.9, weak_score=0.2).detect(frames)
    assert len(weak) > 1
    assert weak.score.min() < 0.9
    config = Detector(name="glance", glance=Glance(min_score=0.9, weak_score=0.2))
    assert without_weak(weak, config).frame_row.tolist() == [0]
    for settings in ({"min_score": 0.9, "weak_score": 0.9}, {"min_score": 0.2, "weak_score": 0.9}):
        found = detector(**settings).detect(frames)
        assert len(found) == (weak.score >= settings["min_score"]).sum()


def same(one: Faces, other: Faces) -> bool:
    return all(
        np.array_equal(getattr(one, name), getattr(other, name))
        for name in ("box_px", "score", "points_px")
    )


def test_a_frame_is_the_same_whatever_else_is_in_the_batch() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (90, 130, 3), np.uint8)
    frames = [portrait(2), noise, portrait(3)[:200], data.astronaut(), portrait(2)[:, ::-1]]
    found = detector(min_score=0.2, weak_score=0.2)
    together = found.detect(frames)
    for row, frame in enumerate(frames):
        assert same(together.take(together.frame_row == row), found.detect([frame]))


def test_larger_frames_are_shrunk_and_boxes_are_in_their_pixels() -> None:
    small, large = data.astronaut(), data.astronaut().repeat(4, axis=0).repeat(4, axis=1)
    first, second = (detector().detect([frame]).box_px[0] for frame in (small, large))
    np.testing.assert_allclose(second, first * 4, atol=24)


@pytest.mark.parametrize(
    "shape", [(1, 1), (1, 300), (16, 4000), (4000, 16), (7, 9), (2000, 3000)], ids=str
)
def test_odd_frames_hold_no_face(shape: tuple[int, int]) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    for frame in (noise, np.zeros_like(noise), np.full_like(noise, 255)):
        assert len(detector().detect([frame])) == 0


def test_no_frames_no_faces() -> None:
    found = detector().detect([])
    assert (len(found), found.points_px.shape) == (0, (0, 5, 2))


def test_card_and_hash_of_the_shipped_weights() -> None:
    card = read_card_as(DetectorCard, SHIPPED)
    assert card.sha256 == weights_sha256(Detector(name="glance"))
    assert card.metrics["test_recall"] > 0.7
    assert SHIPPED.stat().st_size < 1_000_000
    with pytest.raises(WeightsError, match=r"no weights 'glance'.*ferplus-resnet-compact$"):
        find_weights("glance")  # it is no classifier


def copied(folder: Path) -> Path:
    for path in (SHIPPED, SHIPPED.with_suffix(".json")):
        shutil.copy(path, folder)
    return folder / SHIPPED.name


def test_damaged_weights_are_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"its card absent\.json cannot be read"):
        detector(weights=str(tmp_path / "absent.safetensors"))
    path = copied(tmp_path)
    assert same(detector(weights=str(path)).detect([portrait(1)]), detector().detect([portrait(1)]))
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(WeightsError, match="was altered or cut"):
        detector(weights=str(path))
    shutil.copy(WEIGHTS_DIR / "ferplus-resnet-compact.safetensors", path)
    card = json.loads(path.with_suffix(".json").read_text())
    card["sha256"] = json.loads((WEIGHTS_DIR / "ferplus-resnet-compact.json").read_text())["sha256"]
    path.with_suffix(".json").write_text(json.dumps(card))
    with pytest.raises(WeightsError, match="does not hold a glance"):
        detector(weights=str(path))


def test_annotated_noses_are_found(shared: Path) -> None:
    from benchmarks.detectors import accuracy

    n_right, n_wrong = accuracy(detector())
    assert n_right >= 42
    assert n_wrong <= 3
