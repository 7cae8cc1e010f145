"""Measures of how well a map shows what a network looks at."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from fer_batch.explain.explainer import Explainer
from fer_batch.records import Bools, Floats, Ints

STEPS = 16
"""Number of steps in which all pixels are deleted or inserted."""
BLUR = 1 / 8
"""Standard deviation of the blur with which insertion begins, as a fraction of the crop's side: it
hides the emotion but still shows a face."""


def deletion(explainer: Explainer, crops: Tensor, emotion: Ints, maps: Floats) -> Floats:
    """Mean score while pixels become grey, those with the highest values first: low is good.

    It is the area under the curve of Petsiuk et al. (2018). Grey is the mean of the model's card.
    Pixels of equal value are taken in a random order that is always the same.

    Args:
        explainer: Gives the scores.
        crops: (M, C, S, S) float32.
        emotion: (M,) int64, positions in EMOTIONS.
        maps: (M, S, S) float32.

    Returns:
        (M,) float32 in [0, 1].
    """
    return _area(explainer, crops, torch.zeros_like(crops), emotion, maps)


def insertion(explainer: Explainer, crops: Tensor, emotion: Ints, maps: Floats) -> Floats:
    """Mean score while pixels of a blurred face become sharp, highest values first: high is good.

    See `deletion`.
    """
    from torchvision.transforms.v2.functional import gaussian_blur  # loading takes seconds

    sigma = BLUR * crops.shape[-1]
    blurred = gaussian_blur(crops, [2 * round(2 * sigma) + 1] * 2, [sigma, sigma])
    return _area(explainer, blurred, crops, emotion, maps)


def shares(maps: Floats, masks: Bools) -> Floats:
    """The share of a map's positive part that lies in each region.

    Args:
        maps: (M, S, S) float32.
        masks: (M, R, S, S), True in the region.

    Returns:
        (M, R) float32 in [0, 1]; NaN for a map without positive values.
    """
    positive = np.maximum(maps, 0)
    total = positive.sum(axis=(1, 2), keepdims=True)
    share = np.divide(positive, total, out=np.full_like(positive, np.nan), where=total > 0)
    inside: Floats = (share[:, None] * masks).sum(axis=(2, 3))
    return inside


def correlation(maps: Floats, others: Floats) -> Floats:
    """Spearman's rank correlation of the pixels of two maps.

    Compared with the maps of a network with random weights, this is the sanity check of Adebayo et
    al. (2018): a method that shows what the network has learned gives about 0.

    Args:
        maps: (M, S, S) float32.
        others: (M, S, S) float32.

    Returns:
        (M,) float32 in [-1, 1]; NaN where all pixels of a map are equal.
    """
    one, other = (_standardised_ranks(each) for each in (maps, others))
    values: Floats = (one * other).mean(axis=1)
    return values


def _area(
    explainer: Explainer, before: Tensor, after: Tensor, emotion: Ints, maps: Floats
) -> Floats:
    """The mean score while pixels of one picture are replaced by those of another, step by step."""
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
    """Rank of each pixel in its map (M, S, S): 0 for the highest value."""
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
