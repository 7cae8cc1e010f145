"""Pictures in folders that are named like their emotion, and pictures listed in a CSV table."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from fer_batch.datasets.files import list_folder, list_pictures, parse_emotion, read_table
from fer_batch.datasets.samples import DatasetError, LabelledPicture, Samples, Split, select_split
from fer_batch.emotions import EMOTIONS

SPLIT_NAMES: dict[str, Split] = {
    "train": "train",
    "valid": "valid",
    "val": "valid",
    "validation": "valid",
    "test": "test",
}


def folders(root: Path, split: Split) -> Samples:
    """Read class folders, directly or below ``train``, ``valid`` and ``test``.

    Args:
        root: Folder that contains ``happy`` and so on, or ``train/happy`` and so on; ``val`` and
            ``validation`` mean ``valid``. Without splits, pictures are divided 80/10/10 by file
            name; without ``valid``, a tenth of ``train`` becomes ``valid``.
        split: Split to read.

    Raises:
        DatasetError: The name of a folder is not an emotion, or a folder is empty.
    """
    return class_folders("folders", root, split)


def tfeid(root: Path, split: Split) -> Samples:
    """Read TFEID, the Taiwanese Facial Expression Image Database (Chen & Yen, 2007).

    It consists of class folders and does not name persons: make folders ``train``, ``valid`` and
    ``test`` yourself if nobody may be in two splits.

    Args:
        root: As for `folders`.
        split: Split to read.

    Raises:
        DatasetError: As for `folders`.
    """
    return class_folders("tfeid", root, split)


def table(root: Path, split: Split) -> Samples:
    """Read a CSV table with the columns ``path``, ``label`` and, if there are splits, ``split``.

    Args:
        root: The table; its paths are relative to its folder. Missing splits are made as for
            `folders`.
        split: Split to read.

    Raises:
        DatasetError: A column or a picture is missing, or a label or split is unknown.
    """
    pictures = []
    for place, row in read_table(root, ("path", "label")):
        own = row.get("split")
        if own is not None and own.lower() not in SPLIT_NAMES:
            raise DatasetError(f"{place}: expected a split of {_names()}, found {own!r}")
        path = Path(row["path"])
        pictures.append(
            LabelledPicture(
                path.as_posix(),
                parse_emotion(row["label"], place),
                path.name,
                None if own is None else SPLIT_NAMES[own.lower()],
            )
        )
    return select_split("csv", root.parent, split, pictures)


def class_folders(
    dataset: str, root: Path, split: Split, person: Callable[[Path], str] = lambda path: path.name
) -> Samples:
    """Read class folders, which may be below folders of splits.

    Args:
        dataset: Name of the data set.
        root: The outermost folder.
        split: Split to read.
        person: Returns the person that a picture shows.

    Raises:
        DatasetError: As for `folders`.
    """
    split_folders = {path: SPLIT_NAMES.get(path.name.lower()) for path in _folders_in(root)}
    if not any(split_folders.values()):
        split_folders = {root: None}
    for folder, own in split_folders.items():
        if folder != root and own is None:
            raise DatasetError(f"{folder}: expected only folders of splits here: {_names()}")
    pictures = [
        LabelledPicture(path.relative_to(root).as_posix(), emotion, person(path), own)
        for split_folder, own in split_folders.items()
        for folder in _folders_in(split_folder)
        for emotion in [parse_emotion(folder.name, folder)]
        for path in list_pictures(folder)
    ]
    shown = {picture.emotion for picture in pictures}
    classes = [emotion for emotion in EMOTIONS if emotion in shown]
    return select_split(dataset, root, split, pictures, classes=classes)


def _folders_in(root: Path) -> list[Path]:
    folders = [path for path in list_folder(root) if path.is_dir()]
    if not folders:
        raise DatasetError(f"{root}: expected folders named like emotions, or {_names()}")
    return folders


def _names() -> str:
    return ", ".join(SPLIT_NAMES)
