"""Folders, tables and names of emotions, as readers of data sets meet them."""

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
"""What emotions are called in names of folders and in tables; case does not matter."""

NOT_DATA = frozenset({"Thumbs.db", "desktop.ini"})
"""Files that operating systems put beside pictures."""


def emotion_named(name: str, where: object) -> str:
    """The emotion that a data set's own name means.

    Raises:
        DatasetError: It is not a name of an emotion.
    """
    emotion = ALIASES.get(name.strip().lower())
    if emotion is None:
        raise DatasetError(
            f"{where}: {name!r} is not an emotion; known names are {', '.join(sorted(ALIASES))}"
        )
    return emotion


def visible(folder: Path) -> list[Path]:
    """What stands in a folder, sorted, without what operating systems hide there.

    Raises:
        DatasetError: It is not a folder that can be read.
    """
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise DatasetError(f"{folder}: expected a folder: {error.strerror}") from error
    return [path for path in entries if path.name[0] != "." and path.name not in NOT_DATA]


def files_in(folder: Path) -> list[Path]:
    """The files of a folder that should hold pictures and nothing else.

    Raises:
        DatasetError: It is empty, or holds a folder.
    """
    files = visible(folder)
    if not files:
        raise DatasetError(f"{folder}: expected pictures, found an empty folder")
    for path in files:
        if path.is_dir():
            raise DatasetError(f"{path}: expected a picture, found a folder")
    return files


def table_rows(path: Path, columns: Sequence[str]) -> Iterator[tuple[str, dict[str, str]]]:
    """Rows of a CSV file as (place for messages, values by column name).

    Raises:
        DatasetError: The file cannot be read, a column is missing, or a row is too short.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as source:
            reader = csv.DictReader(source, skipinitialspace=True)
            found = [name.strip() for name in reader.fieldnames or ()]
            reader.fieldnames = found
            lacking = sorted(set(columns) - set(found))
            if lacking:
                raise DatasetError(
                    f"{path}: columns missing: {', '.join(lacking)}; there are: {', '.join(found)}"
                )
            for row in reader:
                place = f"{path}, line {reader.line_num}"
                if None in row or None in row.values():
                    raise DatasetError(f"{place}: expected {len(found)} values")
                yield place, row
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(f"{path}: expected a CSV table: {error}") from error
