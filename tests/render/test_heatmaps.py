"""Heatmaps: where they lie on a frame, and that they are steady."""

import numpy as np
import pytest
import torch

from fer_batch.explain.explainer import Explainer
from fer_batch.faces.similarity import Similarity
from fer_batch.models.card import find_weights
from fer_batch.records import Floats, FrameChunk
from fer_batch.render.content import Annotation, FaceMap
from fer_batch.render.heatmaps import Heatmaps
from fer_batch.render.layers.heatmap import colour
from tests.support.portraits import portrait

SIDE = 32


@pytest.mark.parametrize("turn_deg", [0, 30, -120])
@pytest.mark.parametrize("zoom", [0.5, 3.0])
def test_a_map_lies_where_its_crop_was_cut(turn_deg: float, zoom: float) -> None:
    centre, edge = 100 + 80j, zoom * SIDE * np.exp(1j * np.radians(turn_deg))
    values = np.zeros((SIDE, SIDE), np.float32)
    values[6:10, 22:26] = 1
    frame = np.full((160, 200, 3), 40, np.uint8)
    colour(frame, FaceMap(values, np.float32([0, 0, 200, 160]), Similarity(edge, centre)))
    change = np.abs(frame.astype(int) - 40).sum(axis=2)
    y, x = (np.average(axis + 0.5, weights=change) for axis in np.indices(change.shape))
    expected = centre + edge * (complex(24, 8) / SIDE - 0.5 - 0.5j)
    assert abs(complex(x, y) - expected) < 0.5


def test_nothing_is_coloured_outside_the_box_nor_where_the_map_is_0() -> None:
    frame = np.full((160, 200, 3), 40, np.uint8)
    values = np.ones((SIDE, SIDE), np.float32)
    values[:, SIDE // 2 :] = 0
    colour(frame, FaceMap(values, np.float32([60, 50, 140, 110]), Similarity(100 + 0j, 100 + 80j)))
    rows, columns = np.nonzero((frame != 40).any(axis=2))
    assert (rows.min(), rows.max(), columns.min()) == (50, 109, 60)
    assert columns.max() <= 102


def test_box_that_left_the_frame_is_no_error() -> None:
    frame = np.full((20, 20, 3), 40, np.uint8)
    values = np.ones((SIDE, SIDE), np.float32)
    colour(frame, FaceMap(values, np.float32([-30, -30, -10, -10]), Similarity(20 + 0j, -20 - 20j)))
    assert (frame == 40).all()


@pytest.fixture(scope="module")
def explainer() -> Explainer:
    return Explainer(find_weights("default"), torch.device("cpu"))


def seen(explainer: Explainer, smooth_s: float) -> list[Floats]:
    """The maps of a face that laughs in the first frame and not in the second."""
    faces = [
        Annotation(
            box_px=np.float32([[25, 160, 130, 290]]),
            points_px=None,
            track_id=np.array([0]),
            probs=np.ones((1, 8), np.float32),
            emotion=np.array([emotion]),
            n_faces_around=1,
        )
        for emotion in (0, 6, -1)
    ]
    rgb = np.stack([portrait(1)] * 3)
    chunk = FrameChunk(rgb, np.arange(3), np.array([0, 0.1, 0.2]), np.zeros(3, np.bool_))
    maps = [face.maps[0] for face in Heatmaps(explainer, smooth_s).with_maps(chunk, faces)]
    assert maps[2] is None
    return [each.values for each in maps if each]


def test_maps_are_of_the_label_and_steadied_along_the_track(explainer: Explainer) -> None:
    first, second = seen(explainer, 0)
    assert first.max() == second.max() == 1
    assert np.abs(first - second).mean() > 0.05
    same, between = seen(explainer, 0.5)
    np.testing.assert_array_equal(same, first)
    past = np.exp(-0.1 / 0.5)
    np.testing.assert_allclose(between, past * first + (1 - past) * second, atol=1e-5)
