"""What every reader of a data set returns: the pictures of one split and their labels.

Splits that a data set does not have are made from a hash of the person, so that nobody is in two of
them, or of the file name where the person is not known. They are the same on every machine.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
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
    """The pictures of one split and their labels."""

    dataset: str
    split: Split
    root: Path
    paths: tuple[str, ...]
    """POSIX paths, relative to `root`."""
    targets: Floats
    """(N, 8) float32 in EMOTIONS order, rows sum to 1: one-hot, or shares of votes."""
    dropped: Mapping[str, int]
    """Number of pictures that were left out, by reason."""
    pixels: Bytes | None = None
    """(N, S, S) uint8 grey, where the table of labels contains the pictures."""
    missing_classes: tuple[str, ...] = ()
    """A message for each split that has no picture of an emotion that it should have."""

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
        """Emotions that are the most likely one of at least one picture."""
        return frozenset(EMOTIONS[column] for column in self.targets.argmax(axis=1))


@dataclass(frozen=True, slots=True)
class LabelledPicture:
    """One picture of a data set that gives each picture one emotion."""

    path: str
    """POSIX path, relative to the root."""
    emotion: str
    person: str
    """The person shown; the file name where that is not known."""
    split: Split | None = None
    """Official split; None where the data set has none."""


def select_split(
    dataset: str,
    root: Path,
    split: Split,
    pictures: Sequence[LabelledPicture],
    *,
    classes: Sequence[str] = (),
    dropped: Mapping[str, int] | None = None,
) -> Samples:
    """Select the pictures of one split.

    A data set without official splits is divided 80/10/10 by person. If it has ``train`` but not
    ``valid``, a tenth of the persons of ``train`` become ``valid``.

    Args:
        dataset: Name of the data set.
        root: Folder that the paths of the pictures are relative to.
        split: Split to select.
        pictures: All pictures of the data set.
        classes: Emotions that each official split should show.
        dropped: Number of pictures that the reader left out of this split, by reason.

    Raises:
        DatasetError: The split is empty, or a picture is missing or listed twice.
    """
    official = {picture.split for picture in pictures}
    chosen = []
    for picture in pictures:
        own = picture.split
        if own is None or (own == "train" and "valid" not in official):
            own = assign_split(picture.person, has_test=own is not None)
        if own == split:
            chosen.append(picture)
    missing: list[str] = []
    for given in official:
        emotions = {picture.emotion for picture in pictures if picture.split == given}
        where = f"{root}: {dataset}" + (f", split {given}" if given else "")
        missing += find_missing(classes, emotions, where)
    samples = from_files(
        dataset,
        root,
        split,
        paths=[picture.path for picture in chosen],
        targets=one_hot([picture.emotion for picture in chosen]),
        dropped=dropped or {},
    )
    return replace(samples, missing_classes=tuple(missing))


def assign_split(person: str, *, has_test: bool = False) -> Split:
    """The split of a person: 80/10/10, or 90/10 where the data set has a test split."""
    digest = hashlib.blake2b(person.encode(), digest_size=8).digest()
    place = int.from_bytes(digest, "big") / 2**64
    if place < (0.9 if has_test else 0.8):
        return "train"
    return "valid" if has_test or place < 0.9 else "test"


def one_hot(emotions: Sequence[str]) -> Floats:
    """(N, 8) float32 in EMOTIONS order."""
    columns = [EMOTIONS.index(emotion) for emotion in emotions]
    return np.eye(len(EMOTIONS), dtype=np.float32)[columns]


def from_files(
    dataset: str,
    root: Path,
    split: Split,
    *,
    paths: Sequence[str],
    targets: Floats,
    dropped: Mapping[str, int],
) -> Samples:
    """Samples whose pictures are files; each must exist and be listed once.

    Raises:
        DatasetError: There are no pictures, or one is missing or listed twice.
    """
    if not paths:
        raise DatasetError(f"{root}: no pictures of {dataset}, split {split}")
    path, times = Counter(paths).most_common(1)[0]
    if times > 1:
        raise DatasetError(f"{root}: {dataset} lists {path} {times} times, split {split}")
    missing = [path for path in paths if not (root / path).is_file()]
    if missing:
        raise DatasetError(
            f"{root}: {len(missing)} of {len(paths)} pictures of {dataset}, split {split}, "
            f"are missing, the first is {missing[0]}"
        )
    return Samples(dataset, split, root, tuple(paths), targets, dropped)


def find_missing(classes: Sequence[str], found: Collection[str], where: str) -> tuple[str, ...]:
    """A message about the classes that have no picture, if there are any."""
    missing = [emotion for emotion in classes if emotion not in found]
    if not missing:
        return ()
    expected, none = ", ".join(classes), ", ".join(missing)
    return (f"{where}: expected pictures of {expected}; there are none of {none}",)
