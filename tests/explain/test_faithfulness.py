"""What maps are worth, on models of which it is known what they look at."""

from pathlib import Path
from typing import cast

import cv2
import numpy as np
import torch

from fer_batch.explain.explainer import Explainer, Method
from fer_batch.explain.faithfulness import STEPS, correlation, deletion, insertion, shares
from fer_batch.faces.crop import normalise
from fer_batch.models.card import find_weights
from fer_batch.records import Floats, Ints

SIDE = 16
EMOTION = np.zeros(2, np.int64)


class LooksAtTheLeftTop:
    """Its score is how bright the left upper quarter is."""

    def scores(self, crops: torch.Tensor, emotion: Ints) -> Floats:
        assert len(crops) == len(emotion)
        return crops[:, 0, : SIDE // 2, : SIDE // 2].mean(dim=(1, 2)).numpy()


MODEL = cast(Explainer, LooksAtTheLeftTop())
CROPS = torch.ones(2, 1, SIDE, SIDE)
TRUE = np.zeros((2, SIDE, SIDE), np.float32)
TRUE[:, : SIDE // 2, : SIDE // 2] = 1


def test_deletion_is_low_where_a_map_is_true() -> None:
    found = {name: deletion(MODEL, CROPS, EMOTION, maps) for name, maps in cases().items()}
    # A quarter of the pixels is all that counts: the score falls to 0 in the first quarter, or
    # stays at 1 until the last one.
    np.testing.assert_allclose(found["true"], 1 / 8, atol=1e-6)
    np.testing.assert_allclose(found["false"], 7 / 8, atol=1e-6)
    np.testing.assert_allclose(found["flat"], 1 / 2, atol=0.05)


def test_insertion_is_high_where_a_map_is_true() -> None:
    dark = CROPS.clone()
    dark[:, :, : SIDE // 2, : SIDE // 2] = 2  # a blur takes away from what is bright
    found = {name: insertion(MODEL, dark, EMOTION, maps) for name, maps in cases().items()}
    assert (found["true"] > found["flat"] + 0.05).all()
    assert (found["flat"] > found["false"] + 0.05).all()


def cases() -> dict[str, Floats]:
    return {"true": TRUE, "false": -TRUE, "flat": np.ones_like(TRUE)}


def test_each_face_has_its_own_curve() -> None:
    maps = np.stack([TRUE[0], -TRUE[0]])
    np.testing.assert_allclose(deletion(MODEL, CROPS, EMOTION, maps), [1 / 8, 7 / 8], atol=1e-6)


def test_all_pixels_are_reached() -> None:
    seen: list[float] = []

    class Watching(LooksAtTheLeftTop):
        def scores(self, crops: torch.Tensor, emotion: Ints) -> Floats:
            seen.append(float(crops.mean()))
            return super().scores(crops, emotion)

    deletion(cast(Explainer, Watching()), CROPS, EMOTION, TRUE)
    np.testing.assert_allclose(seen, 1 - np.arange(STEPS + 1) / STEPS, atol=1e-2)


def test_shares_are_of_what_speaks_for() -> None:
    maps = np.array([[[3, 1], [-8, 0]], [[-1, -1], [-1, 0]]], np.float32)
    left, upper = [[True, False], [True, False]], [[True, True], [False, False]]
    found = shares(maps, np.array([[left, upper]] * 2))
    np.testing.assert_allclose(found[0], [0.75, 1])
    assert np.isnan(found[1]).all(), "nothing speaks for it"


def test_correlation_is_of_ranks() -> None:
    maps = np.random.default_rng(0).random((4, 8, 8), np.float32)
    flat = np.zeros_like(maps[0])
    found = correlation(maps, np.stack([maps[0] ** 3, -maps[1], maps[0], flat]))
    np.testing.assert_allclose(found[:2], [1, -1], atol=1e-5)
    assert abs(found[2]) < 0.4
    assert np.isnan(found[3])


def test_maps_show_what_was_learned(shared: Path) -> None:
    """The sanity check of Adebayo et al. (2018) on the weights that ship."""
    sheet = cv2.imread(str(shared / "data/fer/ferplus_valid_0.png"), cv2.IMREAD_GRAYSCALE)
    faces = np.stack([sheet[:48, left : left + 48] for left in range(0, 48 * 24, 48)])
    explainer = Explainer(find_weights("default"), torch.device("cpu"))
    random_explainers = [explainer.randomised(seed) for seed in range(3)]
    crops = normalise(faces, explainer.card)
    emotion = np.nanargmax(explainer.probs(crops), axis=1)
    flat = insertion(explainer, crops, emotion, np.ones(faces.shape, np.float32)).mean()
    methods: tuple[Method, ...] = ("gradcam", "gradcam++", "saliency")
    for method in methods:
        maps = explainer.maps(crops, emotion, method)
        random = [
            correlation(maps, other.maps(crops, emotion, method)) for other in random_explainers
        ]
        assert abs(np.nanmean(random)) < 0.3, method
        assert insertion(explainer, crops, emotion, maps).mean() > flat + 0.05, method
