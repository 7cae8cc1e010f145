"""RAF-DB, basic emotions (Li et al., 2017): the official layout, or flat folders with a table."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from fer_batch.datasets.files import list_pictures, parse_emotion, read_table
from fer_batch.datasets.samples import DatasetError, LabelledPicture, Samples, Split, select_split
from fer_batch.emotions import LABEL_SETS

OFFICIAL_CODES = {
    "1": "surprise",
    "2": "fear",
    "3": "disgust",
    "4": "happiness",
    "5": "sadness",
    "6": "anger",
    "7": "neutral",
}
OFFICIAL_TABLE = "list_patition_label.txt"  # sic

FLAT_CODES = {
    "0": "happiness",
    "1": "surprise",
    "2": "sadness",
    "3": "anger",
    "4": "disgust",
    "5": "fear",
}


def rafdb(root: Path, split: Split) -> Samples:
    """Read RAF-DB as it is published: aligned pictures and ``list_patition_label.txt``.

    A tenth of the official training pictures, by file name, become ``valid``.

    Args:
        root: Folder with ``Image/aligned/train_00001_aligned.jpg`` and so on, and with
            ``list_patition_label.txt`` or ``EmoLabel/list_patition_label.txt``.
        split: Split to read.

    Raises:
        DatasetError: The table is missing or wrong, or a picture is missing.
    """
    tables = [root / "EmoLabel" / OFFICIAL_TABLE, root / OFFICIAL_TABLE]
    table = next((path for path in tables if path.is_file()), None)
    if table is None:
        raise DatasetError(f"{root}: expected RAF-DB's {OFFICIAL_TABLE}, here or in EmoLabel")
    pictures = list(_official(table))
    return select_split("rafdb", root, split, pictures, classes=LABEL_SETS["seven"])


def _official(table: Path) -> Iterator[LabelledPicture]:
    for number, line in enumerate(
        table.read_text(encoding="utf-8", errors="replace").splitlines(), 1
    ):
        match line.split():
            case [name, code] if code in OFFICIAL_CODES and name.startswith(("train_", "test_")):
                path = f"Image/aligned/{Path(name).stem}_aligned.jpg"
                own: Split = "train" if name.startswith("train_") else "test"
                yield LabelledPicture(path, OFFICIAL_CODES[code], name, own)
            case []:
                pass
            case _:
                raise DatasetError(
                    f"{table}, line {number}: expected train_* or test_* and a label from 1 to 7, "
                    f"found {line!r}"
                )


def rafdb_flat(root: Path, split: Split) -> Samples:
    """Read flat folders of pictures ``name_emotion.jpg`` with a table ``name,label`` (GiMeFive's).

    The labels are 0 to 5: happiness, surprise, sadness, anger, disgust, fear. If there is a folder
    ``test``, a tenth of ``train`` becomes ``valid``, else all pictures are divided 80/10/10, both
    by file name.

    Args:
        root: Folder with ``train`` and ``test``, or with one of them, or with the pictures
            themselves. The table of a folder is the only CSV file in it, or beside it
            ``train_labels.csv`` or ``test_labels.csv``.
        split: Split to read.

    Raises:
        DatasetError: A table is missing, a picture is only in the folder or only in the table, or
            the label and the end of the file name are different emotions.
    """
    folders = [root / name for name in ("train", "test") if (root / name).is_dir()]
    official = root / "test" in folders
    pictures = [
        LabelledPicture(
            path.relative_to(root).as_posix(),
            emotion,
            path.name,
            ("test" if folder.name == "test" else "train") if official else None,
        )
        for folder in folders or [root]
        for path, emotion in _flat(root, folder)
    ]
    return select_split("rafdb-flat", root, split, pictures, classes=LABEL_SETS["six"])


def _flat(root: Path, folder: Path) -> Iterator[tuple[Path, str]]:
    """Pictures of one folder and their emotions."""
    tables = sorted({*folder.glob("*.csv"), *root.glob(f"{folder.name}_labels.csv")})
    if len(tables) != 1:
        raise DatasetError(
            f"{folder}: expected one CSV table in it, or {folder.name}_labels.csv beside it, "
            f"found {len(tables)} tables"
        )
    files = {path.name: path for path in list_pictures(folder) if path not in tables}
    files |= {path.stem: path for path in files.values()}
    labelled = set()
    for place, row in read_table(tables[0], ("name", "label")):
        path, emotion = files.get(row["name"]), FLAT_CODES.get(row["label"])
        if path is None or emotion is None:
            raise DatasetError(
                f"{place}: expected the name of a picture in {folder} and a label from 0 to 5, "
                f"found {row['name']!r} and {row['label']!r}"
            )
        if parse_emotion(path.stem.rpartition("_")[2], path) != emotion:
            raise DatasetError(
                f"{place}: label {row['label']} is {emotion}, but the file is named {path.name}"
            )
        labelled.add(path)
        yield path, emotion
    unlabelled = sorted(set(files.values()) - labelled)
    if unlabelled:
        raise DatasetError(f"{tables[0]}: lacks {len(unlabelled)} pictures: {unlabelled[0]}, ...")
