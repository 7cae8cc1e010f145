"""Reading of pictures with boxes: what is read, and what is refused."""

import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fer_batch.datasets import DatasetError
from fer_batch.datasets.face_boxes import read_face_boxes
from tests.support.faces_made import make_faces


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_faces(tmp_path / "faces")


def change(folder: Path, table: str, column: str, value: object, row: int = 0) -> None:
    path = folder / f"{table}.csv"
    rows = pd.read_csv(path)
    rows[column] = rows[column].astype(object)
    rows.loc[row, column] = value
    rows.to_csv(path, index=False)


def test_pictures_are_read_and_split(folder: Path) -> None:
    splits = read_face_boxes(folder)
    assert sum(map(len, splits.values())) == 180
    assert all(len(pictures) > 3 for pictures in splits.values())
    names = [picture.name for pictures in splits.values() for picture in pictures]
    assert len(set(names)) == 180
    for picture in splits["train"]:
        n_faces = {"scene": 2, "portrait": 1, "background": 0}[picture.kind]
        assert picture.box_px.shape == (n_faces, 4)
        assert picture.points_px.shape == (n_faces, 5, 2)
        assert picture.is_sure.all()
    assert [picture.name for picture in read_face_boxes(folder)["valid"]] == [
        picture.name for picture in splits["valid"]
    ]


@pytest.mark.parametrize(
    "yunet, retinaface, label, is_sure",
    [
        (0.5, 0.5, None, True),
        (0.49, 0.84, None, False),
        (0.0, 0.85, None, True),
        (0.0, 0.0, "with_mask", True),
        (0.0, 0.0, "with_mask|small", False),
    ],
)
def test_who_says_that_it_is_a_face(
    folder: Path, yunet: float, retinaface: float, label: str | None, is_sure: bool
) -> None:
    for column, value in (("yunet", yunet), ("retinaface", retinaface), ("gt", label)):
        change(folder, "boxes", column, value)
    [picture] = [
        each
        for pictures in read_face_boxes(folder).values()
        for each in pictures
        if each.name == "scene_000.jpg"
    ]
    assert picture.is_sure.tolist() == [is_sure, True]


def cut(folder: Path) -> None:
    path = folder / "scenes.tar"
    path.write_bytes(path.read_bytes()[:40_000])


def empty(folder: Path) -> None:
    with tarfile.open(folder / "portraits.tar", "w"):
        pass


def only_train(folder: Path) -> None:
    table = pd.read_csv(folder / "pictures.csv").assign(sha256_source="00000005" * 8)
    table.to_csv(folder / "pictures.csv", index=False)


@pytest.mark.parametrize(
    "damage, said",
    [
        (lambda folder: (folder / "scenes.tar").unlink(), r"scenes\.tar: cannot be read"),
        (lambda folder: (folder / "boxes.csv").unlink(), r"boxes\.csv: cannot be read"),
        (lambda folder: (folder / "boxes.csv").write_bytes(b""), r"boxes\.csv: cannot be read"),
        (lambda folder: (folder / "pictures.csv").write_text("image\nx"), "has no column kind"),
        (cut, r"scenes\.tar: "),
        (empty, r"portraits\.tar: lacks 60 pictures, such as portrait_000\.jpg"),
        (lambda folder: change(folder, "boxes", "x2", -5), r"scene_000\.jpg: a box is inverted"),
        (lambda folder: change(folder, "boxes", "y1", np.nan), r"scene_000\.jpg: a box is"),
        (lambda folder: change(folder, "boxes", "image", "new.jpg"), r"new\.jpg is not in"),
        (lambda folder: change(folder, "pictures", "kind", "cartoon"), "unknown kind cartoon"),
        (lambda folder: change(folder, "pictures", "width", "wide"), r"pictures\.csv: cannot be"),
        (lambda folder: change(folder, "boxes", "x1", "left"), r"boxes\.csv: cannot be read"),
        (lambda folder: change(folder, "pictures", "sha256_source", "12"), "64 hexadecimal digits"),
        (lambda folder: change(folder, "pictures", "image", None), "is empty in a row"),
        (only_train, "split valid has no face in 0 pictures"),
    ],
)
def test_what_is_wrong_is_named(folder: Path, damage: Callable[[Path], object], said: str) -> None:
    damage(folder)
    with pytest.raises(DatasetError, match=said):
        read_face_boxes(folder)
