"""Pictures with the boxes and points of their faces, to train a detector with.

A folder holds ``pictures.csv``, ``boxes.csv`` and one tar of JPEGs for each kind of picture. Boxes
come from people and from two teachers, YuNet and RetinaFace, whose scores stand beside them.
"""

from __future__ import annotations

import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from fer_batch.datasets.samples import SPLITS, DatasetError, Split
from fer_batch.records import Bools, Floats

PictureKind = Literal["scene", "portrait", "background"]
KINDS: tuple[PictureKind, ...] = ("scene", "portrait", "background")

BOTH_TEACHERS, ONE_TEACHER = 0.5, 0.85
"""Scores from which a box is a face: if both teachers give them, or one does."""
HELD_OUT = 20
"""One picture in so many belongs to ``valid``, and as many to ``test``."""
_POINTS = tuple(
    f"{point}_{axis}"
    for point in ("right_eye", "left_eye", "nose", "mouth_right", "mouth_left")
    for axis in "xy"
)
_BOX = ("x1", "y1", "x2", "y2")
_PICTURES_CSV = {"image": str, "kind": str, "width": int, "height": int, "sha256_source": str}
_BOXES_CSV = {
    "image": str,
    "gt": str,
    **dict.fromkeys((*_BOX, "yunet", "retinaface", *_POINTS), np.float32),
}


@dataclass(frozen=True, slots=True, eq=False)
class FacePicture:
    """A picture, and what may be a face in it."""

    name: str
    kind: PictureKind
    size_px: tuple[int, int]
    """Width and height."""
    jpeg: bytes
    box_px: Floats
    """(F, 4) float32, x1 y1 x2 y2."""
    points_px: Floats
    """(F, 5, 2) float32, NaN where unknown: eyes, nose, corners of the mouth, the right ones (of
    the person) first."""
    is_sure: Bools
    """(F,) False where people and teachers do not agree that it is a face: neither right nor
    wrong."""


def read_face_boxes(folder: Path) -> dict[Split, list[FacePicture]]:
    """Read all pictures, still compressed; a picture's split follows from the hash of its source.

    Raises:
        DatasetError: A file is missing, damaged, or contradicts another; a split is empty.
    """
    pictures, boxes = _read_tables(folder)
    numbers = boxes[[*_BOX, *_POINTS]].to_numpy()
    label = boxes["gt"].fillna("")
    is_persons = ((label != "") & ~label.str.endswith("|small")).to_numpy(np.bool_)
    teachers = boxes[["yunet", "retinaface"]].to_numpy()
    is_sure = (
        is_persons | (teachers.min(axis=1) >= BOTH_TEACHERS) | (teachers.max(axis=1) >= ONE_TEACHER)
    )
    rows = boxes.groupby("image").indices
    splits: dict[Split, list[FacePicture]] = {split: [] for split in SPLITS}
    for kind in KINDS:
        of_kind = pictures[pictures["kind"] == kind]
        content = _read_tar(folder / f"{kind}s.tar", set(of_kind["image"]))
        for name, _, width, height, sha256 in of_kind[list(_PICTURES_CSV)].itertuples(index=False):
            row = rows.get(name, np.empty(0, np.int64))
            picture = FacePicture(
                name=name,
                kind=kind,
                size_px=(width, height),
                jpeg=content[name],
                box_px=numbers[row, :4],
                points_px=numbers[row, 4:].reshape(-1, 5, 2),
                is_sure=is_sure[row],
            )
            _check_boxes(picture)
            splits[_split(sha256)].append(picture)
    for split, members in splits.items():
        if not any(picture.is_sure.any() for picture in members):
            raise DatasetError(f"{folder}: split {split} has no face in {len(members)} pictures")
    return splits


def _read_tables(folder: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The pictures, and the boxes in them."""
    path = folder / "pictures.csv"
    pictures = _read_table(path, _PICTURES_CSV)
    boxes = _read_table(folder / "boxes.csv", _BOXES_CSV)
    unknown = set(boxes["image"]) - set(pictures["image"])
    if unknown:
        raise DatasetError(f"{folder / 'boxes.csv'}: {min(unknown)} is not in pictures.csv")
    other_kinds = set(pictures["kind"]) - set(KINDS)
    if other_kinds:
        raise DatasetError(f"{path}: unknown kind {min(other_kinds)}")
    if not pictures["sha256_source"].str.fullmatch("[0-9a-f]{64}").all():
        raise DatasetError(f"{path}: sha256_source must have 64 hexadecimal digits")
    return pictures, boxes


def _check_boxes(picture: FacePicture) -> None:
    shown = np.clip(picture.box_px, 0, np.tile(picture.size_px, 2))
    if not (shown[:, :2] < shown[:, 2:]).all():
        raise DatasetError(f"{picture.name}: a box is inverted, empty or outside of the picture")


def _split(sha256: str) -> Split:
    number = int(sha256[:8], 16) % HELD_OUT
    return "valid" if number == 0 else "test" if number == 1 else "train"


def _read_table(path: Path, columns: Mapping[str, type]) -> pd.DataFrame:
    """A CSV file with columns of these types."""
    try:
        table = pd.read_csv(path, dtype=columns)
    except (OSError, ValueError) as error:
        raise DatasetError(f"{path}: cannot be read: {error}") from error
    missing = [name for name in columns if name not in table]
    if missing:
        raise DatasetError(f"{path}: has no column {', '.join(missing)}")
    texts = ["image", *({"kind", "sha256_source"} & set(columns))]
    if table[texts].isna().any(axis=None):
        raise DatasetError(f"{path}: {' or '.join(texts)} is empty in a row")
    return table


def _read_tar(path: Path, names: set[str]) -> Mapping[str, bytes]:
    content = {}
    try:
        with tarfile.open(path) as tar:
            for member in tar:
                file = tar.extractfile(member)
                if file:
                    content[Path(member.name).name] = file.read()
    except (OSError, tarfile.TarError) as error:
        raise DatasetError(f"{path}: cannot be read: {error}") from error
    missing = names - set(content)
    if missing:
        raise DatasetError(f"{path}: lacks {len(missing)} pictures, such as {min(missing)}")
    return content
