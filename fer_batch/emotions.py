"""The emotions: their order, the label sets of data sets, their colours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

EMOTIONS = (
    "happiness",
    "surprise",
    "sadness",
    "anger",
    "disgust",
    "fear",
    "neutral",
    "contempt",
)
"""The one ordered list of emotions; every table, model output and plot uses this order."""

LabelSet = Literal["six", "seven", "eight"]

LABEL_SETS: dict[LabelSet, tuple[str, ...]] = {
    "six": EMOTIONS[:6],
    "seven": EMOTIONS[:7],
    "eight": EMOTIONS,
}
"""``six``: flat RAF-DB; ``seven``: FER2013 (with neutral); ``eight``: FER+ (with contempt)."""

Colour = tuple[int, int, int]

COLOURS: dict[str, Colour] = {
    "happiness": (240, 228, 66),
    "surprise": (230, 159, 0),
    "sadness": (56, 140, 226),
    "anger": (228, 88, 30),
    "disgust": (0, 168, 120),
    "fear": (204, 121, 167),
    "neutral": (205, 205, 205),
    "contempt": (134, 206, 250),
}
"""Colour (RGB) of each emotion in all drawings. These are the colours of Okabe and Ito, which
colour-blind people can tell apart, but the darkest is lighter, and black is grey, to be visible on
a dark panel."""


def in_order(probs: NDArray[np.float32], classes: Sequence[str]) -> NDArray[np.float32]:
    """Probabilities in EMOTIONS order.

    Args:
        probs: (M, C) float32, one column for each class.
        classes: C emotions, in the order of a model's outputs.

    Returns:
        (M, 8) float32, NaN for emotions that are not among the classes.
    """
    ordered = np.full((len(probs), len(EMOTIONS)), np.nan, np.float32)
    ordered[:, [EMOTIONS.index(name) for name in classes]] = probs
    return ordered
