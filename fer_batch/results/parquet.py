"""Parquet files written group by group, and what goes wrong in reading and writing them."""

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
    """One Parquet file under its temporary name, written group by group: memory stays flat."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self.path = path
        # Not that of another writer, who was given up and comes back.
        self.temporary = urls.temporary_for(path.with_name(f"{path.name}.{os.urandom(4).hex()}"))
        self._file = self.temporary.open("wb")
        self.parquet = pq.ParquetWriter(self._file, schema, compression="zstd")
        self._buffer: list[pa.Table] = []

    def append(self, rows: pa.Table) -> None:
        """Add rows; they are written when enough have come."""
        if len(rows):
            self._buffer.append(rows)
        n_rows = sum(map(len, self._buffer))
        if n_rows >= ROWS_PER_GROUP or len(self._buffer) >= TABLES_PER_GROUP:
            self._flush()

    def close(self) -> None:
        """Complete the file and bring it to the disk."""
        self._flush()
        self.parquet.close()
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()

    def commit(self, check: Callable[[], None] = lambda: None) -> None:
        """Complete the file and put it in its place, unless `check` raises just before that."""
        self.close()
        check()
        urls.publish(self.temporary, self.path)

    def discard(self) -> None:
        """Close and remove the temporary file, if it is still there."""
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


def keep_only(path: Path, medias: AbstractSet[str]) -> None:
    """Rewrite a file without the rows of other files than these, where it has any."""
    with reading(path), pq.ParquetFile(urls.contents(path)) as old:
        present = set(old.read(["media"])["media"].unique().to_pylist())
    if present <= medias:
        return
    kept = pa.array(list(medias), pa.string())
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
    """Make a StoreError, or StoreDiskFullError, of what goes wrong in writing to this folder."""
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
            "mend this one"
        ) from error


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Make a StoreError of what goes wrong in reading this file."""
    try:
        yield
    except urls.failures(pa.ArrowException) as error:
        message = f"{path} cannot be read: {urls.reason(error)}"
        if isinstance(error, pa.ArrowException) or not urls.is_url(path):
            message += ". If it is damaged, delete it and run again"
        raise StoreError(message) from error
