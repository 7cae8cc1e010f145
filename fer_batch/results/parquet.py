"""Parquet files written group by group, and errors of reading and writing them."""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from collections.abc import Callable, Iterator
from collections.abc import Set as AbstractSet
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from fer_batch.errors import StoreDiskFullError, StoreError
from fer_batch.storage import urls

ROWS_PER_GROUP = 8192
TABLES_PER_GROUP = 256


class TableFile:
    """A Parquet file that is written group by group, so that memory stays flat.

    It has a temporary name until `commit`.
    """

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self.path = path
        self.temporary = urls.temporary_for(path)
        self._file = self.temporary.open("wb")
        self.parquet = pq.ParquetWriter(self._file, schema, compression="zstd")
        self._buffer: list[pa.Table] = []

    def append(self, rows: pa.Table) -> None:
        """Add rows; they are written when there are enough of them.

        A group of the file holds whole tables of rows as they were added.
        """
        if len(rows):
            self._buffer.append(rows)
        n_rows = sum(map(len, self._buffer))
        if n_rows >= ROWS_PER_GROUP or len(self._buffer) >= TABLES_PER_GROUP:
            self._flush()

    def close(self) -> None:
        """Complete the file and make sure that it is on the disk."""
        self._flush()
        self.parquet.close()
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()

    def commit(self, check: Callable[[], None] = lambda: None) -> None:
        """Complete the file and rename it, unless `check`, called just before, raises."""
        self.close()
        check()
        urls.publish(self.temporary, self.path)

    def discard(self) -> None:
        """Close and remove the temporary file, if it still exists."""
        with contextlib.suppress(OSError):  # on a full disk closing fails too
            self.parquet.close()
        with contextlib.suppress(OSError):
            self._file.close()
        with contextlib.suppress(OSError):
            self.temporary.unlink(missing_ok=True)

    def _flush(self) -> None:
        if self._buffer:
            self.parquet.write_table(pa.concat_tables(self._buffer).unify_dictionaries())
            self._buffer = []


def keep_only(path: Path, media: AbstractSet[str]) -> None:
    """Remove the rows of all other input files from a Parquet file, if it has any."""
    with reading(path), pq.ParquetFile(urls.contents(path)) as old:
        present = set(old.read(["media"])["media"].unique().to_pylist())
    if present <= media:
        return
    kept = pa.array(list(media), pa.string())
    with pq.ParquetFile(urls.contents(path)) as old:
        new = TableFile(path, old.schema_arrow)
        try:
            for group in range(old.num_row_groups):
                rows = old.read_row_group(group)
                new.append(rows.filter(pc.is_in(rows["media"], value_set=kept)))
            new.commit()
        finally:
            new.discard()


@contextlib.contextmanager
def writing(out: Path) -> Iterator[None]:
    """Turn errors of writing to this folder into StoreError or StoreDiskFullError."""
    try:
        yield
    except urls.failures() as error:
        if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
            where = f"in {tempfile.gettempdir()}, for {out}" if urls.is_url(out) else f"for {out}"
            raise StoreDiskFullError(
                f"no space left {where}: free some and run again, what is finished is kept"
            ) from error
        raise StoreError(
            f"{out} cannot be written: {urls.reason(error)}. Choose another folder with -o, or "
            "repair this one"
        ) from error


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn errors of reading this file into StoreError."""
    try:
        yield
    except urls.failures(pa.ArrowException) as error:
        message = f"{path} cannot be read: {urls.reason(error)}"
        if isinstance(error, pa.ArrowException) or not urls.is_url(path):
            message += ". If it is damaged, delete it and run again"
        raise StoreError(message) from error
