"""FER2013 (Goodfellow et al., 2013) and FER+, its new labels (Barsoum et al., 2016)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from fer_batch.datasets.files import list_pictures, read_table
from fer_batch.datasets.samples import (
    DatasetError,
    Samples,
    Split,
    find_missing,
    from_files,
    one_hot,
)
from fer_batch.emotions import EMOTIONS, LABEL_SETS
from fer_batch.records import Bytes, Floats

USAGE: dict[Split, str] = {"train": "Training", "valid": "PublicTest", "test": "PrivateTest"}

FER2013_CODES = {
    "0": "anger",
    "1": "disgust",
    "2": "fear",
    "3": "happiness",
    "4": "sadness",
    "5": "surprise",
    "6": "neutral",
}
FER2013_FOLDERS = {
    "angry": "anger",
    "disgust": "disgust",
    "fear": "fear",
    "happy": "happiness",
    "neutral": "neutral",
    "sad": "sadness",
    "surprise": "surprise",
}
FER2013_FOLDER_USAGES = {"train": ("Training",), "test": ("PublicTest", "PrivateTest")}
FER2013_TABLES = ("fer2013.csv", "icml_face_data.csv")
FER2013_SIZE_PX = 48

FERPLUS_COLUMNS = {
    "neutral": "neutral",
    "happiness": "happiness",
    "surprise": "surprise",
    "sadness": "sadness",
    "anger": "anger",
    "disgust": "disgust",
    "fear": "fear",
    "contempt": "contempt",
    "unknown": "unknown",
    "NF": "not a face",
}
FERPLUS_FOLDERS: dict[Split, str] = {
    "train": "FER2013Train",
    "valid": "FER2013Valid",
    "test": "FER2013Test",
}


def fer2013(root: Path, split: Split) -> Samples:
    """Read FER2013 from Kaggle's folders ``train|test/<class>/`` or from its original table.

    Args:
        root: Folder with ``train`` and ``test``; or ``fer2013.csv`` or ``icml_face_data.csv``, or
            its folder.
        split: ``train``, ``valid`` (PublicTest) or ``test`` (PrivateTest).

    Raises:
        DatasetError: Neither layout is there, a folder is missing or empty, or a row is wrong.
    """
    tables = [root / name for name in FER2013_TABLES] if root.is_dir() else [root]
    table = next((path for path in tables if path.is_file()), None)
    if table:
        found = _fer2013_table(table, split)
    elif (root / "train").is_dir() and (root / "test").is_dir():
        found = _fer2013_folders(root, split)
    else:
        raise DatasetError(
            f"{root}: expected FER2013's folders train and test, or {' or '.join(FER2013_TABLES)}"
        )
    return _with_missing(LABEL_SETS["seven"], found, root)


def _fer2013_folders(root: Path, split: Split) -> Samples:
    folder = "train" if split == "train" else "test"
    paths: list[str] = []
    emotions: list[str] = []
    for name, emotion in FER2013_FOLDERS.items():
        for path in list_pictures(root / folder / name):
            usage = path.name.split("_")[0]
            if usage not in FER2013_FOLDER_USAGES[folder]:
                expected = " or ".join(FER2013_FOLDER_USAGES[folder])
                raise DatasetError(f"{path}: expected a name that starts with {expected}")
            if usage == USAGE[split]:
                paths.append(path.relative_to(root).as_posix())
                emotions.append(emotion)
    return from_files("fer2013", root, split, paths=paths, targets=one_hot(emotions), dropped={})


def _fer2013_table(table: Path, split: Split) -> Samples:
    paths: list[str] = []
    emotions: list[str] = []
    pixels: list[Bytes] = []
    rows = read_table(table, ("emotion", "pixels", "Usage"))
    for number, (place, row) in enumerate(rows):
        _check_usage(row, place)
        if row["Usage"] != USAGE[split]:
            continue
        if row["emotion"] not in FER2013_CODES:
            raise DatasetError(f"{place}: expected an emotion from 0 to 6, got {row['emotion']!r}")
        paths.append(f"fer{number:07}.png")  # FER+'s name of this row
        emotions.append(FER2013_CODES[row["emotion"]])
        pixels.append(_fer2013_pixels(row["pixels"], place))
    if not paths:
        raise DatasetError(f"{table}: no rows of {USAGE[split]}")
    return Samples(
        "fer2013", split, table.parent, tuple(paths), one_hot(emotions), {}, np.stack(pixels)
    )


def _fer2013_pixels(text: str, place: str) -> Bytes:
    side = FER2013_SIZE_PX
    try:
        return np.frombuffer(bytes(map(int, text.split())), np.uint8).reshape(side, side)
    except ValueError as error:
        raise DatasetError(
            f"{place}: expected {side * side} pixels from 0 to 255: {error}"
        ) from error


def ferplus(root: Path, split: Split) -> Samples:
    """Read FER+ by the majority protocol of its paper: FER2013's pictures, each with ten votes.

    Single votes are ignored as outliers. A picture is used if one emotion, not ``unknown`` or
    ``NF`` (not a face), has more than half of the other votes. Targets are the shares of the votes
    among the eight emotions.

    Args:
        root: Folder with ``fer2013new.csv`` and the folders ``FER2013Train|Valid|Test``.
        split: ``train``, ``valid`` (PublicTest) or ``test`` (PrivateTest).

    Raises:
        DatasetError: The table, a column or a picture is missing.
    """
    table = root / "fer2013new.csv"
    if not table.is_file():
        raise DatasetError(f"{root}: expected FER+'s fer2013new.csv and its FER2013* folders")
    paths: list[str] = []
    targets: list[Floats] = []
    dropped: Counter[str] = Counter()
    for place, row in read_table(table, ("Usage", "Image name", *FERPLUS_COLUMNS)):
        _check_usage(row, place)
        if row["Usage"] != USAGE[split]:
            continue
        votes = _votes(row, place)
        winner = _majority(votes) if row["Image name"] else "no picture"
        if winner not in EMOTIONS:
            dropped[winner] += 1
            continue
        shares = np.array([votes[emotion] for emotion in EMOTIONS], np.float32)
        paths.append(f"{FERPLUS_FOLDERS[split]}/{row['Image name']}")
        targets.append(shares / shares.sum())
    found = from_files(
        "ferplus",
        root,
        split,
        paths=paths,
        targets=np.reshape(targets, (-1, len(EMOTIONS))),
        dropped=dropped,
    )
    return _with_missing(EMOTIONS, found, root)


def _with_missing(classes: Sequence[str], samples: Samples, root: Path) -> Samples:
    missing = find_missing(classes, samples.emotions, f"{root}: split {samples.split}")
    return replace(samples, missing_classes=missing)


def _votes(row: Mapping[str, str], place: str) -> dict[str, int]:
    """Votes by label, without single ones."""
    try:
        votes = {label: int(row[column]) for column, label in FERPLUS_COLUMNS.items()}
    except ValueError as error:
        raise DatasetError(f"{place}: expected numbers of votes: {error}") from error
    return {label: n if n > 1 else 0 for label, n in votes.items()}


def _majority(votes: Mapping[str, int]) -> str:
    winner = max(votes, key=votes.__getitem__)
    return winner if 2 * votes[winner] > sum(votes.values()) else "no majority"


def _check_usage(row: Mapping[str, str], place: str) -> None:
    if row["Usage"] not in USAGE.values():
        raise DatasetError(
            f"{place}: expected a Usage of {', '.join(USAGE.values())}, got {row['Usage']!r}"
        )
