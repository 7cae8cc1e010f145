"""Pictures of explanations."""

from collections.abc import Callable
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
from PIL import Image

from fer_batch.explain import plots as explain_plots
from fer_batch.explain.plots import MeanMaps
from tests.support.datasets_made import photograph

RNG = np.random.default_rng(0)
FACE = photograph(0)
PROBS = RNG.dirichlet(np.ones(8)).astype(np.float32)
MAPS = RNG.random((8, 48, 48), np.float32)


def mean() -> MeanMaps:
    found = MeanMaps()
    found.add(MAPS * 255, {"gradcam": MAPS, "occlusion": MAPS - 0.5})
    return found


def mistakes(n: int) -> Callable[[Path], None]:
    codes = np.arange(n) % 8
    faces = np.stack([photograph(seed) for seed in range(n)]) if n else np.empty((0, 48, 48))
    maps = RNG.random((n, 2, 48, 48), np.float32)
    probs = np.tile(PROBS, (n, 1))
    return lambda path: explain_plots.mistakes(faces, codes, codes[::-1], probs, maps, path)


PICTURES: dict[str, Callable[[Path], None]] = {
    "every emotion": lambda path: explain_plots.face_maps(
        FACE, dict(enumerate(MAPS)), PROBS, "gradcam", "a.mp4", path
    ),
    "two emotions, for and against": lambda path: explain_plots.face_maps(
        FACE, {0: MAPS[0] - 0.5, 7: -MAPS[1]}, PROBS, "occlusion", "a.mp4", path
    ),
    "maps of nothing": lambda path: explain_plots.face_maps(
        FACE, dict.fromkeys(range(8), np.zeros_like(MAPS[0])), PROBS, "gradcam", "a", path
    ),
    "covered": lambda path: explain_plots.occlusion_study(
        FACE, RNG.random((7, 7), np.float32), 0, 0.9, "a.mp4", path
    ),
    "activations": lambda path: explain_plots.activations(
        FACE, [RNG.random((40, 48, 48), np.float32), np.zeros((3, 2, 2), np.float32)], "a", path
    ),
    "emotion": lambda path: explain_plots.emotion_page(mean(), 0, "default", path),
    "mistakes": mistakes(24),
    "one mistake": mistakes(1),
    "no mistake": mistakes(0),
}


@pytest.mark.parametrize("draw", PICTURES.values(), ids=PICTURES.keys())
def test_pictures_are_pngs_and_leave_no_figure_open(
    draw: Callable[[Path], None], tmp_path: Path
) -> None:
    draw(tmp_path / "picture.png")
    with Image.open(tmp_path / "picture.png") as picture:
        assert picture.format == "PNG"
        assert 400 <= picture.width <= 1600
        assert picture.height <= 1600
    assert plt.get_fignums() == []


def test_mean_and_spread_are_those_of_all_faces() -> None:
    maps = RNG.normal(size=(10, 4, 4)).astype(np.float32)
    faces = RNG.random((10, 4, 4), np.float32)
    parts = MeanMaps()
    for rows in (np.s_[:3], np.s_[3:]):
        parts.add(faces[rows], {"saliency": maps[rows]})
    scaled = maps / np.abs(maps).max(axis=(1, 2), keepdims=True)
    found, spread = parts.mean_and_std("saliency")
    assert parts.n == 10
    np.testing.assert_allclose(found, scaled.mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(spread, scaled.std(axis=0), atol=1e-6)
    np.testing.assert_allclose(parts.face / parts.n, faces.mean(axis=0), atol=1e-6)


def test_map_of_nothing_adds_nothing() -> None:
    one = MeanMaps()
    one.add(MAPS[:1], {"gradcam": np.zeros_like(MAPS[:1])})
    assert not np.any(one.mean_and_std("gradcam"))


def test_strongest_place_is_brightest(tmp_path: Path) -> None:
    """A map of one spot in the upper left, beside a black face."""
    spot = np.zeros((48, 48), np.float32)
    spot[:16, :16] = 1
    path = tmp_path / "a.png"
    explain_plots.face_maps(np.zeros((48, 48), np.uint8), {0: spot}, PROBS, "gradcam", "", path)
    with Image.open(path) as picture:
        grey = np.asarray(picture.convert("L")).astype(int)
    rows = np.flatnonzero((grey < 5).mean(axis=1) > 0.4)  # where the three pictures are
    bright = [np.mean(grey[half] > 130) for half in np.array_split(rows, 2)]
    assert bright[0] > bright[1] + 0.05
