"""Reading of folders, tables and names of emotions, for all readers of data sets."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

from fer_batch.datasets.samples import DatasetError
from fer_batch.emotions import EMOTIONS

ALIASES = {
    **{emotion: emotion for emotion in EMOTIONS},
    "happy": "happiness",
    "joy": "happiness",
    "surprised": "surprise",
    "sad": "sadness",
    "angry": "anger",
    "disgusted": "disgust",
    "fearful": "fear",
    "afraid": "fear",
}
"""Names of emotions in folders and tables, in any case, and ours."""

SYSTEM_FILES = frozenset({"Thumbs.db", "desktop.ini"})
"""Files that operating systems create beside pictures."""


def parse_emotion(name: str, where: object) -> str:
    """The emotion that a data set calls by this name; `where` is for the message.

    Raises:
        DatasetError: The name is not known.
    """
    emotion = ALIASES.get(name.strip().lower())
    if emotion is None:
        raise DatasetError(
            f"{where}: {name!r} is not an emotion; known names are {', '.join(sorted(ALIASES))}"
        )
    return emotion


def list_folder(folder: Path) -> list[Path]:
    """Files and folders in a folder, sorted, without hidden and system files.

    Raises:
        DatasetError: The folder cannot be read.
    """
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise DatasetError(f"{folder}: expected a folder: {error.strerror}") from error
    return [path for path in entries if path.name[0] != "." and path.name not in SYSTEM_FILES]


def list_pictures(folder: Path) -> list[Path]:
    """The files of a folder that should contain only pictures.

    Raises:
        DatasetError: The folder is empty or contains a folder.
    """
    files = list_folder(folder)
    if not files:
        raise DatasetError(f"{folder}: expected pictures, found an empty folder")
    for path in files:
        if path.is_dir():
            raise DatasetError(f"{path}: expected a picture, found a folder")
    return files


def read_table(path: Path, columns: Sequence[str]) -> Iterator[tuple[str, dict[str, str]]]:
    """Rows of a CSV file, each as its place for messages and its values by column name.

    Raises:
        DatasetError: The file cannot be read, a column is missing, or a row is too short.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as source:
            reader = csv.DictReader(source, skipinitialspace=True)
            found = [name.strip() for name in reader.fieldnames or ()]
            reader.fieldnames = found
            missing = sorted(set(columns) - set(found))
            if missing:
                raise DatasetError(
                    f"{path}: columns missing: {', '.join(missing)}; there are: {', '.join(found)}"
                )
            for row in reader:
                place = f"{path}, line {reader.line_num}"
                if None in row or None in row.values():
                    raise DatasetError(f"{place}: expected {len(found)} values")
                yield place, row
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(f"{path}: expected a CSV table: {error}") from error
