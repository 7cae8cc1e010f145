"""Labelled face pictures on disk -> one sample index, with emotions mapped by name."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image, UnidentifiedImageError

from fer_batch.schema import EMOTIONS, Bytes, FerError, Floats

Split = Literal["train", "valid", "test"]

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
FERPLUS_SPLITS = {"train": "FER2013Train", "valid": "FER2013Valid", "test": "FER2013Test"}
FERPLUS_USAGE = {"train": "Training", "valid": "PublicTest", "test": "PrivateTest"}

FER2013_FOLDERS = {
    "angry": "anger",
    "disgust": "disgust",
    "fear": "fear",
    "happy": "happiness",
    "neutral": "neutral",
    "sad": "sadness",
    "surprise": "surprise",
}
FER2013_SPLITS = {
    "train": ("train", "Training_"),
    "valid": ("test", "PublicTest_"),
    "test": ("test", "PrivateTest_"),
}


class DatasetError(FerError):
    """A data set on disk does not have the layout or the labels that it should have."""


@dataclass(frozen=True, slots=True, eq=False)
class Samples:
    """The pictures of one split and what they show."""

    name: str
    split: Split
    paths: tuple[Path, ...]
    targets: Floats
    """(N, 8) float32 in EMOTIONS order, rows sum to 1: one-hot, or shares of votes."""
    dropped: Mapping[str, int]
    """Pictures left out, by reason."""

    def __post_init__(self) -> None:
        shape = (len(self.paths), len(EMOTIONS))
        if self.targets.shape != shape or self.targets.dtype != np.float32:
            raise ValueError(
                f"targets must be float32 {shape}, got {self.targets.dtype} {self.targets.shape}"
            )

    def __len__(self) -> int:
        return len(self.paths)


def ferplus(root: Path, split: Split) -> Samples:
    """FER+ (Barsoum et al., 2016): FER2013's pictures, each with ten votes, majority protocol.

    Single votes are dropped as outliers; a picture counts when one emotion has more than half of
    what remains and that is neither ``unknown`` nor ``NF``. Targets are the shares of votes among
    the eight emotions.

    Args:
        root: Folder with ``fer2013new.csv`` and the folders ``FER2013Train|Valid|Test``.
        split: ``train``, ``valid`` (PublicTest) or ``test`` (PrivateTest).

    Raises:
        DatasetError: The table or a picture is missing, or a column is.
    """
    table = root / "fer2013new.csv"
    if not table.is_file():
        raise DatasetError(f"{root}: expected FER+'s fer2013new.csv and its FER2013* folders")
    paths: list[Path] = []
    targets: list[Floats] = []
    dropped = {"no majority": 0, "unknown": 0, "not a face": 0}
    with table.open(newline="", encoding="utf-8") as source:
        reader = csv.DictReader(source)
        missing = {"Usage", "Image name", *FERPLUS_COLUMNS} - set(reader.fieldnames or ())
        if missing:
            raise DatasetError(f"{table}: columns missing: {', '.join(sorted(missing))}")
        for row in reader:
            if row["Usage"] != FERPLUS_USAGE[split] or not row["Image name"]:
                continue
            votes = {label: int(row[column]) for column, label in FERPLUS_COLUMNS.items()}
            counted = {label: n for label, n in votes.items() if n > 1}
            winner = max(counted, key=counted.__getitem__, default="no majority")
            if not counted or 2 * counted[winner] <= sum(counted.values()):
                winner = "no majority"
            if winner in dropped:
                dropped[winner] += 1
                continue
            shares = np.array([counted.get(name, 0) for name in EMOTIONS], np.float32)
            paths.append(root / FERPLUS_SPLITS[split] / row["Image name"])
            targets.append(shares / shares.sum())
    return _samples("ferplus", split, root, paths, targets, dropped)


def fer2013(root: Path, split: Split) -> Samples:
    """FER2013 (Goodfellow et al., 2013) in Kaggle's folder layout: ``train|test/<class>/*``.

    Args:
        root: Folder that holds ``train`` and ``test``.
        split: ``train``, ``valid`` (``PublicTest_*``) or ``test`` (``PrivateTest_*``).

    Raises:
        DatasetError: A class folder is missing or empty.
    """
    folder, prefix = FER2013_SPLITS[split]
    paths: list[Path] = []
    targets: list[Floats] = []
    for name, emotion in FER2013_FOLDERS.items():
        found = sorted((root / folder / name).glob(f"{prefix}*"))
        if not found:
            raise DatasetError(f"{root / folder / name}: expected pictures named {prefix}*")
        one_hot = np.eye(len(EMOTIONS), dtype=np.float32)[EMOTIONS.index(emotion)]
        paths += found
        targets += [one_hot] * len(found)
    return _samples("fer2013", split, root, paths, targets, {})


READERS = {"ferplus": ferplus, "fer2013": fer2013}
"""Data sets by name: each takes its root folder and a split."""


def read_pixels(samples: Samples, size_px: int) -> Bytes:
    """All pictures of a split as grey (N, size_px, size_px) uint8.

    Raises:
        DatasetError: A picture cannot be read.
    """
    pixels = np.empty((len(samples), size_px, size_px), np.uint8)
    for row, path in enumerate(samples.paths):
        try:
            with Image.open(path) as picture:
                grey = picture.convert("L")
        except (OSError, UnidentifiedImageError) as error:
            raise DatasetError(f"{path}: cannot be read as a picture: {error}") from error
        if grey.size != (size_px, size_px):
            grey = grey.resize((size_px, size_px), Image.Resampling.LANCZOS)
        pixels[row] = np.asarray(grey)
    return pixels


def drop_leaks(
    train: Samples, train_pixels: Bytes, held_out: Sequence[Bytes]
) -> tuple[Samples, Bytes]:
    """Training samples without the pictures that also stand, pixel for pixel, in a held-out split.

    Args:
        train: N samples.
        train_pixels: (N, S, S) uint8 of `train`.
        held_out: Pixels of each held-out split.

    Returns:
        What is left of `train`, its number of leaks under ``dropped``, and its pixels.
    """
    seen = {_digest(picture) for pixels in held_out for picture in pixels}
    keep = np.array([_digest(picture) not in seen for picture in train_pixels], bool)
    kept = replace(
        train,
        paths=tuple(path for path, stays in zip(train.paths, keep, strict=True) if stays),
        targets=train.targets[keep],
        dropped={**train.dropped, "also in a held-out split": int((~keep).sum())},
    )
    return kept, train_pixels[keep]


def _digest(picture: Bytes) -> bytes:
    return hashlib.blake2b(picture.tobytes(), digest_size=16).digest()


def _samples(
    name: str,
    split: Split,
    root: Path,
    paths: Sequence[Path],
    targets: Sequence[Floats],
    dropped: Mapping[str, int],
) -> Samples:
    if not paths:
        raise DatasetError(f"{root}: no pictures of {name}, split {split}")
    missing = [path for path in paths if not path.is_file()]
    if missing:
        raise DatasetError(
            f"{root}: {len(missing)} pictures of {name}, split {split}, are missing, "
            f"the first is {missing[0]}"
        )
    return Samples(name, split, tuple(paths), np.stack(targets), dropped)
