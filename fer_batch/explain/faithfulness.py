"""Numbers that say how well a map tells what a network looks at."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from fer_batch.explain.explainer import Explainer
from fer_batch.records import Bools, Floats, Ints

STEPS = 16
"""In which all pixels are deleted or inserted."""
BLUR = 1 / 8
"""Standard deviation of the blur from which insertion begins, in sides of the crop: enough to hide
an emotion, too little to look like no face."""


def deletion(explainer: Explainer, crops: Tensor, emotion: Ints, maps: Floats) -> Floats:
    """Mean score while pixels become grey, those with the highest values first: low is good.

    It is the area under the curve of Petsiuk et al. (2018). Grey is the mean of the model's card.
    Pixels of one value go in a random order, always the same.

    Args:
        explainer: What the maps are of.
        crops: (M, C, S, S) float32.
        emotion: (M,) int64, positions in EMOTIONS.
        maps: (M, S, S) float32.

    Returns:
        (M,) float32 in [0, 1].
    """
    return _area(explainer, crops, torch.zeros_like(crops), emotion, maps)


def insertion(explainer: Explainer, crops: Tensor, emotion: Ints, maps: Floats) -> Floats:
    """Mean score while pixels of a blurred face become sharp, the highest first: high is good.

    See `deletion`.
    """
    from torchvision.transforms.v2.functional import gaussian_blur  # here: takes seconds

    sigma = BLUR * crops.shape[-1]
    blurred = gaussian_blur(crops, [2 * round(2 * sigma) + 1] * 2, [sigma, sigma])
    return _area(explainer, blurred, crops, emotion, maps)


def shares(maps: Floats, masks: Bools) -> Floats:
    """How much of a map's positive part lies in each region.

    Args:
        maps: (M, S, S) float32.
        masks: (M, R, S, S).

    Returns:
        (M, R) float32 in [0, 1]; NaN where a map is positive nowhere.
    """
    positive = np.maximum(maps, 0)
    total = positive.sum(axis=(1, 2), keepdims=True)
    share = np.divide(positive, total, out=np.full_like(positive, np.nan), where=total > 0)
    inside: Floats = (share[:, None] * masks).sum(axis=(2, 3))
    return inside


def correlation(maps: Floats, others: Floats) -> Floats:
    """Spearman's rank correlation of the pixels of two maps.

    With the maps of a network with random weights, this is the sanity check of Adebayo et al.
    (2018): a method that shows what a network has learned gives about 0.

    Args:
        maps: (M, S, S) float32.
        others: (M, S, S) float32.

    Returns:
        (M,) float32 in [-1, 1]; NaN where a map has one value only.
    """
    one, other = (_standardised_ranks(each) for each in (maps, others))
    values: Floats = (one * other).mean(axis=1)
    return values


def _area(
    explainer: Explainer, before: Tensor, after: Tensor, emotion: Ints, maps: Floats
) -> Floats:
    """The mean score while the pixels of one picture give way to those of another."""
    rank = torch.from_numpy(_falling_ranks(maps))[:, None]
    n_pixels = maps.shape[1] * maps.shape[2]
    scores = np.stack(
        [
            explainer.scores(torch.where(rank < step * n_pixels / STEPS, after, before), emotion)
            for step in range(STEPS + 1)
        ]
    )
    area: Floats = np.trapezoid(scores, dx=1 / STEPS, axis=0)  # type: ignore[assignment]
    return area


def _falling_ranks(maps: Floats) -> Ints:
    """0 for the highest pixel of each map, and so on: (M, S, S)."""
    flat = maps.reshape(len(maps), maps.shape[1] * maps.shape[2])
    shuffled = np.random.default_rng(0).permutation(flat.shape[1])
    order = shuffled[np.argsort(-flat[:, shuffled], axis=1, kind="stable")]
    ranks = np.empty(flat.shape, np.int64)
    np.put_along_axis(ranks, order, np.arange(flat.shape[1])[None], axis=1)
    return ranks.reshape(maps.shape)


def _standardised_ranks(maps: Floats) -> Floats:
    flat = pd.DataFrame(maps.reshape(len(maps), maps.shape[1] * maps.shape[2]))
    ranks = flat.rank(axis=1).to_numpy(np.float32)
    centred = ranks - ranks.mean(axis=1, keepdims=True)
    spread = centred.std(axis=1, keepdims=True)
    unknown = np.full_like(centred, np.nan)
    standardised: Floats = np.divide(centred, spread, out=unknown, where=spread > 0)
    return standardised
