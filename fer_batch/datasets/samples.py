"""What every reader of a data set gives: the pictures of one split and what they show.

Splits that a data set does not have are made from a hash of the person, so that nobody stands in
two of them; where the person is not known, of the file name. They are the same on every machine.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from fer_batch.emotions import EMOTIONS
from fer_batch.errors import FerError
from fer_batch.records import Bytes, Floats

Split = Literal["train", "valid", "test"]
SPLITS: tuple[Split, ...] = ("train", "valid", "test")


class DatasetError(FerError):
    """A data set on disk does not have the layout or the labels that it should have."""


@dataclass(frozen=True, slots=True, eq=False)
class Samples:
    """The pictures of one split and what they show."""

    name: str
    split: Split
    root: Path
    paths: tuple[str, ...]
    """POSIX, relative to `root`."""
    targets: Floats
    """(N, 8) float32 in EMOTIONS order, rows sum to 1: one-hot, or shares of votes."""
    dropped: Mapping[str, int]
    """What was left out, by reason."""
    pixels: Bytes | None = None
    """(N, S, S) uint8 grey, where the table of the labels holds the pictures themselves."""

    def __post_init__(self) -> None:
        shape = (len(self.paths), len(EMOTIONS))
        if self.targets.shape != shape or self.targets.dtype != np.float32:
            raise ValueError(
                f"targets must be float32 {shape}, got {self.targets.dtype} {self.targets.shape}"
            )
        if not np.allclose(self.targets.sum(axis=1), 1, atol=1e-4):
            raise ValueError("the rows of targets must sum to 1")
        if self.pixels is not None and (
            len(self.pixels) != len(self.paths) or self.pixels.dtype != np.uint8
        ):
            raise ValueError(
                f"pixels must be uint8 ({len(self.paths)}, _, _), "
                f"got {self.pixels.dtype} {self.pixels.shape}"
            )

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def emotions(self) -> frozenset[str]:
        """The emotions that are the most likely one of some picture."""
        return frozenset(EMOTIONS[column] for column in self.targets.argmax(axis=1))


@dataclass(frozen=True, slots=True)
class Labelled:
    """One picture as a reader finds it."""

    path: str
    """POSIX, relative to the root."""
    emotion: str
    person: str
    """Whom it shows; the file name where that is not known."""
    split: Split | None = None
    """The official one; None where the data set has none."""


def select(
    name: str,
    root: Path,
    split: Split,
    pictures: Sequence[Labelled],
    *,
    classes: Sequence[str] = (),
    dropped: Mapping[str, int] | None = None,
) -> Samples:
    """The pictures of one split of a data set that gives each picture one emotion.

    A data set without official splits is divided 80/10/10 by person; one with ``train`` but
    without ``valid`` gives a tenth of the persons of ``train`` to ``valid``.

    Args:
        name: Of the data set.
        root: What the pictures' paths are relative to.
        split: Which split.
        pictures: All of the data set.
        classes: Emotions that each official split must show.
        dropped: What the reader left out of this split, by reason.

    Raises:
        DatasetError: The split is empty, an official one lacks a class, or a picture is missing or
            listed twice.
    """
    official = {picture.split for picture in pictures}
    chosen = []
    for picture in pictures:
        own = picture.split
        if own is None or (own == "train" and "valid" not in official):
            own = divide(picture.person, test_is_given=own is not None)
        if own == split:
            chosen.append(picture)
    for given in official:
        emotions = {picture.emotion for picture in pictures if picture.split == given}
        demand(classes, emotions, f"{root}: {name}" + (f", split {given}" if given else ""))
    return from_files(
        name,
        root,
        split,
        paths=[picture.path for picture in chosen],
        targets=one_hot([picture.emotion for picture in chosen]),
        dropped=dropped or {},
    )


def divide(person: str, *, test_is_given: bool = False) -> Split:
    """The split of a person: 80/10/10, or 90/10 where the test split is given."""
    digest = hashlib.blake2b(person.encode(), digest_size=8).digest()
    place = int.from_bytes(digest, "big") / 2**64
    if place < (0.9 if test_is_given else 0.8):
        return "train"
    return "valid" if test_is_given or place < 0.9 else "test"


def one_hot(emotions: Sequence[str]) -> Floats:
    """(N, 8) float32 in EMOTIONS order."""
    columns = [EMOTIONS.index(emotion) for emotion in emotions]
    return np.eye(len(EMOTIONS), dtype=np.float32)[columns]


def from_files(
    name: str,
    root: Path,
    split: Split,
    *,
    paths: Sequence[str],
    targets: Floats,
    dropped: Mapping[str, int],
) -> Samples:
    """Samples whose pictures are files, each there and listed once.

    Raises:
        DatasetError: There are none, or one is missing or listed twice.
    """
    if not paths:
        raise DatasetError(f"{root}: no pictures of {name}, split {split}")
    path, times = Counter(paths).most_common(1)[0]
    if times > 1:
        raise DatasetError(f"{root}: {name} lists {path} {times} times, split {split}")
    missing = [path for path in paths if not (root / path).is_file()]
    if missing:
        raise DatasetError(
            f"{root}: {len(missing)} of {len(paths)} pictures of {name}, split {split}, "
            f"are missing, the first is {missing[0]}"
        )
    return Samples(name, split, root, tuple(paths), targets, dropped)


def demand(classes: Sequence[str], found: Collection[str], where: str) -> None:
    """Check that every class has a picture.

    Raises:
        DatasetError: A class has none.
    """
    lacking = [emotion for emotion in classes if emotion not in found]
    if lacking:
        raise DatasetError(
            f"{where}: expected pictures of {', '.join(classes)}; "
            f"there are none of {', '.join(lacking)}"
        )
