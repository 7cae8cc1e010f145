"""CK+, the Extended Cohn-Kanade data set (Lucey et al., 2010)."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from fer_batch.datasets.files import list_folder, list_pictures
from fer_batch.datasets.folders import class_folders
from fer_batch.datasets.samples import (
    DatasetError,
    LabelledPicture,
    Samples,
    Split,
    assign_split,
    select_split,
)

CODES = (
    "neutral",
    "anger",
    "contempt",
    "disgust",
    "fear",
    "happiness",
    "sadness",
    "surprise",
)
LABELLED_FRAMES = 3
"""Frames at the end of a sequence, where the expression is strongest."""


def ckplus(root: Path, split: Split) -> Samples:
    """CK+ as published, or as class folders; divided 80/10/10 by subject.

    The last three frames of each labelled sequence carry its label; sequences without a label are
    counted as dropped. In class folders the start of a file name is the subject: ``S005_``.

    Args:
        root: Folder with ``cohn-kanade-images/S005/001/*.png`` and
            ``Emotion/S005/001/*_emotion.txt``; or with class folders.
        split: Split to read.

    Raises:
        DatasetError: The layout is a different one, a label is wrong or has no pictures.
    """
    images, labels = root / "cohn-kanade-images", root / "Emotion"
    if not images.is_dir() and not labels.is_dir():
        try:
            return class_folders("ckplus", root, split, person=lambda path: path.name.split("_")[0])
        except DatasetError as error:
            raise DatasetError(
                f"{root}: expected CK+'s cohn-kanade-images and Emotion, or class folders: {error}"
            ) from error
    pictures: list[LabelledPicture] = []
    dropped: Counter[str] = Counter()
    emotions = _labels(labels)
    for sequence in (
        sequence for subject in list_folder(images) for sequence in list_folder(subject)
    ):
        emotion = emotions.pop(sequence.relative_to(images), None)
        person = sequence.parent.name
        if emotion is None:
            dropped["sequence without a label"] += assign_split(person) == split
            continue
        pictures += [
            LabelledPicture(path.relative_to(root).as_posix(), emotion, person)
            for path in list_pictures(sequence)[-LABELLED_FRAMES:]
        ]
    if emotions:
        raise DatasetError(f"{images}: expected the labelled sequence {min(emotions)}")
    return select_split("ckplus", root, split, pictures, classes=CODES[1:], dropped=dropped)


def _labels(folder: Path) -> dict[Path, str]:
    """Emotions by sequence, ``S005/001``."""
    found: dict[Path, str] = {}
    for path in sorted(folder.glob("*/*/*_emotion.txt")):
        try:
            code = float(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise DatasetError(f"{path}: expected one number: {error}") from error
        if code not in range(len(CODES)):
            raise DatasetError(f"{path}: expected a label from 0 to {len(CODES) - 1}, found {code}")
        sequence = path.parent.relative_to(folder)
        if sequence in found:
            raise DatasetError(f"{path}: {sequence} has two labels")
        found[sequence] = CODES[int(code)]
    if not found:
        raise DatasetError(f"{folder}: expected labels S*/*/*_emotion.txt")
    return found
