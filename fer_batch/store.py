"""The output folder of a run: Parquet tables, committed part by part, and its manifest.

A *part* is one video, or up to `IMAGES_PER_PART` still images: ``frames/<part>.parquet``,
``faces/<part>.parquet`` and ``media/part-<part>.parquet``. The media table is the truth: its file
is renamed into place last and taken away first, so that at any moment the rows of every file in
``media`` are complete. Rows of other files are leftovers of a killed run: `reconcile` removes them.

The order of a run: take the `lock`, `reconcile`, ask what is `pending`, `forget` those files, then
write them with one `PartWriter` per part.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from fer_batch import tables
from fer_batch.schema import ChunkResult, MediaFile, MediaRow, StoreDiskFullError, StoreError

IMAGES_PER_PART = 4096
ROWS_PER_GROUP = 8192
TABLES_PER_GROUP = 256

# Readers of Parquet folders skip names that begin with a dot; the ending makes them surely ours.
_TEMPORARY = ".{}.fer-batch-tmp"
_PART_FILE = "[0-9a-f]" * 16 + ".parquet"


def part_id(medias: Sequence[str]) -> str:
    """Name of the part that holds these files: 16 hex digits."""
    return hashlib.blake2b("\0".join(medias).encode(), digest_size=8).hexdigest()


class PartWriter:
    """Writes one part; nothing of it is visible before `commit`, which is all or nothing.

    It replaces a part of the same name; files that stand in other parts must have been forgotten
    (`forget`). Leaving the ``with`` block without `commit` leaves no trace. One thread at a time.

    Raises:
        StoreDiskFullError: From any method, when no space is left.
        StoreError: From any method, when the folder cannot be written.
    """

    def __init__(self, out: Path, part: str, *, config_hash: str, model_card_json: str) -> None:
        self._out = out
        metadata = {
            "fer_batch.schema_version": tables.VERSION,
            "fer_batch.config_hash": config_hash,
            "fer_batch.model_card": model_card_json,
        }
        self._files: dict[tables.Name, TableFile] = {}
        self._rows: list[MediaRow] = []
        try:
            with writing(out):
                for table, schema in tables.SCHEMAS.items():
                    path = _path(out, table, part)
                    path.parent.mkdir(parents=True, exist_ok=True)
                    self._files[table] = TableFile(path, schema.with_metadata(metadata))
        except StoreError:
            self.abort()
            raise

    def __enter__(self) -> PartWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.abort()

    def append(self, result: ChunkResult) -> None:
        """Add the frames and faces of one chunk; chunks of a file come in order."""
        with writing(self._out):
            self._files["frames"].append(tables.frames_table(result))
            self._files["faces"].append(tables.faces_table(result))

    def finish(self, row: MediaRow) -> None:
        """Add a file's media row; a failed file loses the frames and faces appended so far."""
        self._rows.append(row)

    def commit(self) -> None:
        """Put the finished files of the part into the run; files not finished leave no rows."""
        kept = {row.media for row in self._rows if row.status != "failed"}
        media, frames, faces = (self._files[table] for table in ("media", "frames", "faces"))
        with writing(self._out):
            media.append(tables.media_table(self._rows))
            media.close()
            for file in (frames, faces):
                file.close()
                _keep_only(file.temporary, kept)
            media.path.unlink(missing_ok=True)  # an older row must not stand for newer rows
            for file in (frames, faces, media):
                _rename(file.temporary, file.path)

    def abort(self) -> None:
        """Give up what is not committed; safe to call at any time, and more than once."""
        for file in self._files.values():
            file.discard()


class TableFile:
    """One Parquet file under its temporary name, written group by group: memory stays flat."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self.path = path
        self.temporary = path.with_name(_TEMPORARY.format(path.name))
        self._file = self.temporary.open("wb")
        self._parquet = pq.ParquetWriter(self._file, schema, compression="zstd")
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
        self._parquet.close()
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()

    def commit(self) -> None:
        """Complete the file and put it in its place."""
        self.close()
        _rename(self.temporary, self.path)

    def discard(self) -> None:
        """Close and remove the temporary file, if it is still there."""
        with contextlib.suppress(OSError):  # on a full disk closing fails too
            self._parquet.close()
        with contextlib.suppress(OSError):
            self._file.close()
        with contextlib.suppress(OSError):
            self.temporary.unlink(missing_ok=True)

    def _flush(self) -> None:
        if self._buffer:
            self._parquet.write_table(pa.concat_tables(self._buffer).unify_dictionaries())
            self._buffer = []


def media_rows(out: Path) -> list[MediaRow]:
    """What became of every file of the run, ordered by name; empty where there is no run yet.

    Raises:
        StoreError: A media file is damaged, or was written by another version of the tables.
    """
    rows = [MediaRow(**row) for path in _media_files(out) for row in _read_media(path)]
    return sorted(rows, key=lambda row: row.media)


def pending(files: Sequence[MediaFile], out: Path, *, config_hash: str) -> list[MediaFile]:
    """Files that have no result yet: new, changed, set up otherwise, or failed last time.

    Raises:
        StoreError: A file's name belongs to another file, of another input folder, in this run.
    """
    done = {row.media: row for row in media_rows(out)}
    waiting = []
    for file in files:
        row = done.get(file.media)
        stamp = (file.size_bytes, file.mtime_ns)
        same_file = row is not None and stamp == (row.size_bytes, row.mtime_ns)
        if row and not same_file and Path(row.root, row.media) != file.path:
            raise StoreError(
                f"{out} already holds {file.media} of {row.root}, and {file.path} is another file: "
                "choose another output folder with -o, or replace the old results with --force"
            )
        if not (row and same_file and row.config_hash == config_hash and row.status != "failed"):
            waiting.append(file)
    return waiting


def forget(out: Path, medias: Sequence[str]) -> None:
    """Remove files from the run: their media rows first, then their frames and faces.

    Runs that share the folder may forget at the same time: they wait for each other.
    """
    gone = set(medias)
    if not gone:
        return
    with writing(out), (out / ".forget.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        for part, members in _parts(out).items():
            kept = {media for media in members if media not in gone}
            if len(kept) == len(members):
                continue
            for table in ("media", "frames", "faces"):
                path = _path(out, table, part)
                if kept:
                    _keep_only(path, kept)
                else:
                    path.unlink(missing_ok=True)


def reconcile(out: Path) -> None:
    """Remove what a killed run left: temporary files, and rows of files that are not in media.

    Call it with the lock held and not shared. A part whose frames or faces are gone leaves the
    run as a whole.
    """
    parts = _parts(out)
    with writing(out):
        for folder in (out, *(out / table for table in tables.SCHEMAS)):
            for path in folder.glob(_TEMPORARY.format("*")):
                path.unlink()
        for part in list(parts):
            if not all(_path(out, table, part).exists() for table in ("frames", "faces")):
                _path(out, "media", part).unlink()
                del parts[part]
        for table in ("frames", "faces"):
            for path in (out / table).glob(_PART_FILE):
                members = parts.get(path.stem)
                if members is None:
                    path.unlink()
                elif "image" in members.values():  # a video is alone in its part
                    _keep_only(path, members.keys())


def read(
    out: Path,
    table: tables.Name,
    *,
    medias: Sequence[str] | None = None,
    columns: list[str] | None = None,
) -> pa.Table:
    """One table of a run, or the rows of these files and these columns of it.

    The rows of a file stand together and in order; the files come in no particular order.

    Raises:
        StoreError: ``out`` is not the output folder of a run, or a table cannot be read.
    """
    if not (out / "media").is_dir():
        raise StoreError(f"{out} is not the output folder of a run: it has no media table")
    # videos have parts of their own: a few names need a few files only
    paths = [_path(out, table, part_id([media])) for media in medias or ()]
    if medias is None or not all(path.exists() for path in paths):
        paths = sorted((out / table).glob(_path(out, table, "?" * 16).name))
    for path in paths[:1]:  # one part tells the version of all
        _read_media(_path(out, "media", path.stem.removeprefix("part-")), ["media"])
    with _reading(out / table):
        return tables.read(table, paths, medias=medias, columns=columns)


@contextlib.contextmanager
def lock(out: Path, *, shared: bool = False) -> Iterator[None]:
    """Hold the output folder, made where it is missing, against every other run.

    Args:
        out: The folder.
        shared: Let others in that share it too: runs that have no file in common.

    Raises:
        StoreError: Another run holds it, or it is not a folder that can be written.
    """
    if out.is_file():
        raise StoreError(f"{out} is a file: choose a folder for the results with -o")
    with contextlib.ExitStack() as stack:
        with writing(out):
            out.mkdir(parents=True, exist_ok=True)
            file = stack.enter_context((out / ".lock").open("w"))
            try:
                fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise StoreError(
                    f"another run is writing to {out}: wait for it, or choose another folder "
                    "with -o"
                ) from error
        yield


def write_run(out: Path, run: Mapping[str, object]) -> None:
    """Write run.json, as a whole or not at all."""
    temporary = out / _TEMPORARY.format("run.json")
    with writing(out):
        with temporary.open("w", encoding="utf-8") as file:
            json.dump(run, file, indent=2)
            file.flush()
            os.fsync(file.fileno())
        _rename(temporary, out / "run.json")


def read_run(out: Path) -> dict[str, Any]:
    """What `write_run` wrote.

    Raises:
        StoreError: There is none, or it is not JSON.
    """
    try:
        run: dict[str, Any] = json.loads((out / "run.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StoreError(
            f"{out} is not the output folder of a finished run: run.json cannot be read: {error}"
        ) from error
    return run


def _path(out: Path, table: tables.Name, part: str) -> Path:
    return out / table / (f"part-{part}.parquet" if table == "media" else f"{part}.parquet")


def _media_files(out: Path) -> list[Path]:
    return sorted((out / "media").glob("part-" + _PART_FILE))


def _parts(out: Path) -> dict[str, dict[str, str]]:
    """The committed parts: files and their kind."""
    return {
        path.stem.removeprefix("part-"): {
            row["media"]: row["kind"] for row in _read_media(path, ["media", "kind"])
        }
        for path in _media_files(out)
    }


def _read_media(path: Path, columns: list[str] | None = None) -> list[dict[str, Any]]:
    with _reading(path), contextlib.suppress(FileNotFoundError), pq.ParquetFile(path) as file:
        version = (file.schema_arrow.metadata or {}).get(b"fer_batch.schema_version", b"?").decode()
        if version != tables.VERSION:
            raise StoreError(
                f"{path} has tables of version {version}, this fer_batch knows {tables.VERSION}: "
                "choose another output folder with -o"
            )
        rows: list[dict[str, Any]] = file.read(columns).to_pylist()
        return rows
    return []  # gone since it was listed: another run is doing its files anew


def _keep_only(path: Path, medias: AbstractSet[str]) -> None:
    """Rewrite a file without the rows of other files than these, where it has any."""
    with _reading(path), pq.ParquetFile(path) as old:
        present = set(old.read(["media"])["media"].unique().to_pylist())
    if present <= medias:
        return
    kept = pa.array(list(medias), pa.string())
    with pq.ParquetFile(path) as old:
        new = TableFile(path, old.schema_arrow)
        try:
            for group in range(old.num_row_groups):
                rows = old.read_row_group(group)
                new.append(rows.filter(pc.is_in(rows["media"], value_set=kept)))
            new.commit()
        finally:
            new.discard()


def _rename(temporary: Path, path: Path) -> None:
    """Put a complete file in place, and the folder's new state on the disk."""
    temporary.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # some network file systems cannot sync a folder
            os.fsync(folder)
    finally:
        os.close(folder)


@contextlib.contextmanager
def writing(out: Path) -> Iterator[None]:
    """Make a StoreError, or StoreDiskFullError, of what goes wrong in writing to this folder."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StoreDiskFullError(
                f"no space left for {out}: free some and run again, what is finished is kept"
            ) from error
        raise StoreError(
            f"{out} cannot be written: {error}. Choose another folder with -o, or mend this one"
        ) from error


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        raise StoreError(
            f"{path} cannot be read: {error}. If it is damaged, delete it and run again"
        ) from error
