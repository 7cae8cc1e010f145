"""The emotions: their one order, the label sets of data sets, their colours."""

from __future__ import annotations

from typing import Literal

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
"""``six``: RAF-DB here; ``seven``: FER2013 (+ neutral); ``eight``: FER+ (+ contempt)."""

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
"""Colour (RGB) of each emotion in every picture: Okabe and Ito's set, which colour-blind people
can tell apart, its darkest lightened and its black made grey to be seen on a dark panel."""
