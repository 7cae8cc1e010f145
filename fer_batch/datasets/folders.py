"""Pictures in folders named like their emotion, and pictures listed in a CSV table."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from fer_batch.datasets.files import emotion_named, files_in, table_rows, visible
from fer_batch.datasets.samples import DatasetError, Labelled, Samples, Split, select
from fer_batch.emotions import EMOTIONS

SPLIT_NAMES: dict[str, Split] = {
    "train": "train",
    "valid": "valid",
    "val": "valid",
    "validation": "valid",
    "test": "test",
}


def folders(root: Path, split: Split) -> Samples:
    """Any folder of class folders, or of such folders for ``train``, ``valid`` and ``test``.

    Args:
        root: Folder that holds ``happy`` and so on, or ``train/happy`` and so on; ``val`` and
            ``validation`` mean ``valid``. Without splits, pictures are divided 80/10/10 by file
            name; without ``valid``, it is a tenth of ``train``.
        split: Which split.

    Raises:
        DatasetError: A folder's name is no emotion, a folder is empty, or one is missing in a split
            that stands in another.
    """
    return class_folders("folders", root, split)


def tfeid(root: Path, split: Split) -> Samples:
    """TFEID, the Taiwanese Facial Expression Image Database (Chen & Yen, 2007), as class folders.

    Persons are not known: put them into folders of splits where nobody shall stand in two.

    Args:
        root: As for `folders`.
        split: Which split.

    Raises:
        DatasetError: As for `folders`.
    """
    return class_folders("tfeid", root, split)


def table(root: Path, split: Split) -> Samples:
    """Any CSV table with the columns ``path``, ``label`` and, where there are splits, ``split``.

    Args:
        root: The table; its paths are relative to the folder that it stands in. Splits that it
            lacks are made as for `folders`.
        split: Which split.

    Raises:
        DatasetError: A column or a picture is missing, or a label or split is not known.
    """
    pictures = []
    for place, row in table_rows(root, ("path", "label")):
        own = row.get("split")
        if own is not None and own.lower() not in SPLIT_NAMES:
            raise DatasetError(f"{place}: expected a split of {_names()}, found {own!r}")
        path = Path(row["path"])
        pictures.append(
            Labelled(
                path.as_posix(),
                emotion_named(row["label"], place),
                path.name,
                None if own is None else SPLIT_NAMES[own.lower()],
            )
        )
    return select("csv", root.parent, split, pictures)


def class_folders(
    name: str, root: Path, split: Split, person: Callable[[Path], str] = lambda path: path.name
) -> Samples:
    """The pictures of class folders, which may stand in folders of splits.

    Args:
        name: Of the data set.
        root: The outermost folder.
        split: Which split.
        person: Whom a picture shows.

    Raises:
        DatasetError: As for `folders`.
    """
    parts = {path: SPLIT_NAMES.get(path.name.lower()) for path in _folders_in(root)}
    if not any(parts.values()):
        parts = {root: None}
    for part, own in parts.items():
        if part != root and own is None:
            raise DatasetError(f"{part}: expected only folders of splits here: {_names()}")
    pictures = [
        Labelled(path.relative_to(root).as_posix(), emotion, person(path), own)
        for part, own in parts.items()
        for folder in _folders_in(part)
        for emotion in [emotion_named(folder.name, folder)]
        for path in files_in(folder)
    ]
    shown = {picture.emotion for picture in pictures}
    classes = [emotion for emotion in EMOTIONS if emotion in shown]
    return select(name, root, split, pictures, classes=classes)


def _folders_in(root: Path) -> list[Path]:
    folders = [path for path in visible(root) if path.is_dir()]
    if not folders:
        raise DatasetError(f"{root}: expected folders named like emotions, or {_names()}")
    return folders


def _names() -> str:
    return ", ".join(SPLIT_NAMES)
