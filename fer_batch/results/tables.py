"""What tables of a run are made of: columns with their meaning, rows from chunk results, reading.

The columns themselves are in `fer_batch.results.columns`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds

from fer_batch.records import ChunkResult, Floats, Ints
from fer_batch.storage import urls

FILES_AT_ONCE = 512
"""Arrow holds about 75 kB of each file of a dataset until all of them are read."""


def _not_from_chunks(result: ChunkResult) -> NoReturn:
    raise TypeError("the rows of this table are not made from chunks")


@dataclass(frozen=True, slots=True, eq=False)
class Column:
    """One column of a table."""

    name: str
    type: pa.DataType
    description: str
    """What a value means, for people who analyse the table."""
    unit: str | None = None
    """None for text, counts and positions."""
    is_nullable: bool = False
    """Whether values may be missing. Arrow itself allows that in every column."""
    values: Callable[[ChunkResult], Any] = _not_from_chunks
    """Gives the values for a chunk, one for each row of the table, with NaN for a missing one."""

    @property
    def value_type(self) -> pa.DataType:
        """The type of one value, however equal values are stored."""
        return self.type.value_type if pa.types.is_dictionary(self.type) else self.type

    @property
    def field(self) -> pa.Field:
        """The column in an Arrow schema, with its description and unit as metadata."""
        texts = {"description": self.description, "unit": self.unit}
        return pa.field(self.name, self.type, metadata={k: v for k, v in texts.items() if v})

    def array(self, result: ChunkResult) -> pa.Array:
        """The values for a chunk; NaN becomes null."""
        values = self.values(result)
        if isinstance(values, pa.Array):
            return values.cast(self.type)
        return pa.array(values, self.type, from_pandas=True)


@dataclass(frozen=True, eq=False)
class Table:
    """What a row of a table is, and its columns in order."""

    description: str
    columns: tuple[Column, ...]

    @cached_property
    def schema(self) -> pa.Schema:
        """The columns as an Arrow schema."""
        return pa.schema([column.field for column in self.columns])

    def rows(self, result: ChunkResult) -> pa.Table:
        """The rows of a chunk, for ``frames`` and ``faces``."""
        arrays = [column.array(result) for column in self.columns]
        return pa.Table.from_arrays(arrays, schema=self.schema)


def dominant(probs: Floats) -> tuple[Ints, Floats]:
    """The strongest emotion of each face and its probability.

    Args:
        probs: (M, 8) in EMOTIONS order, NaN where unknown.

    Returns:
        Positions in EMOTIONS (M,) and probabilities (M,); -1 and NaN for a row without any number.
    """
    code = np.where(np.isnan(probs), -1, probs).argmax(axis=1)
    confidence = probs[np.arange(len(probs)), code]
    return np.where(np.isnan(confidence), -1, code), confidence


def read(
    schema: pa.Schema,
    paths: Sequence[Path],
    *,
    media: Sequence[str] | None = None,
    columns: list[str] | None = None,
) -> pa.Table:
    """The rows of Parquet files, with nulls in columns that a file lacks.

    Args:
        schema: Schema of the result; other columns of the files are left out.
        paths: The files.
        media: Names of the input files whose rows are read; None reads all.
        columns: Names of the columns to read; None reads all.
    """
    chosen = None if media is None else ds.field("media").isin(pa.array(media, pa.string()))
    sources = [urls.arrow_source(path)[0] for path in paths]
    files = urls.arrow_source(paths[0])[1] if paths else None
    blocks = [sources[at : at + FILES_AT_ONCE] for at in range(0, len(paths) or 1, FILES_AT_ONCE)]
    return pa.concat_tables(
        ds.dataset(block, schema, filesystem=files).to_table(columns, chosen).combine_chunks()
        for block in blocks
    )
