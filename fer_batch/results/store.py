"""The output folder of a run: Parquet tables, committed part by part, and its manifest.

A *part* is one video, or up to `IMAGES_PER_PART` still images: ``frames/<part>.parquet``,
``faces/<part>.parquet`` and ``media/part-<part>.parquet``. The media file of a part is renamed into
place last and removed first, so that at any moment the rows of every file in ``media`` are
complete. Rows of other files were left by a killed run: `reconcile` removes them.

A run takes the `lock`, calls `reconcile`, asks which files are `pending`, calls `forget` for them,
then writes them with one `PartWriter` per part.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from fer_batch.errors import StoreError
from fer_batch.records import ChunkResult, MediaFile, MediaRow
from fer_batch.results import tables
from fer_batch.results.columns import TABLES, VERSION, Name
from fer_batch.results.parquet import TableFile, keep_only, reading, writing
from fer_batch.storage import claims, locks, urls

IMAGES_PER_PART = 4096
_REQUESTS = 32
"""Files behind a URL that are read at once."""

_STAMP = ["media", "root", "status", "size_bytes", "mtime_ns", "config_hash"]
"""Columns of media that tell whether a file is done. Reading all columns takes twice as long."""
_PART_FILE = "[0-9a-f]" * 16 + ".parquet"


def part_id(media: Sequence[str]) -> str:
    """Name of the part that holds these files: 16 hex digits."""
    return hashlib.blake2b("\0".join(media).encode(), digest_size=8).hexdigest()


class PartWriter:
    """Writes one part; nothing of it is visible before `commit`, which is all or nothing.

    It replaces a part of the same name. Files that are in other parts must be removed from them
    first (`forget`). Leaving the ``with`` block without `commit` leaves no trace. Only one thread
    may use it at a time.

    Raises:
        StoreDiskFullError: From any method, when no space is left.
        StoreError: From any method, when the folder cannot be written.
    """

    def __init__(self, out: Path, part: str, *, config_hash: str, model_card_json: str) -> None:
        self._out = out
        metadata = {
            "fer_batch.schema_version": VERSION,
            "fer_batch.config_hash": config_hash,
            "fer_batch.model_card": model_card_json,
        }
        self._files: dict[Name, TableFile] = {}
        self._rows: list[MediaRow] = []
        try:
            with writing(out):
                for name, table in TABLES.items():
                    path = _path(out, name, part)
                    urls.make_folder(path.parent)
                    self._files[name] = TableFile(path, table.schema.with_metadata(metadata))
        except StoreError:
            self.abort()
            raise

    def __enter__(self) -> PartWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.abort()

    def append(self, result: ChunkResult) -> None:
        """Add the frames and faces of one chunk; chunks of a file come in order."""
        self.append_rows(TABLES["frames"].rows(result), TABLES["faces"].rows(result))

    def append_rows(self, frames: pa.Table, faces: pa.Table) -> None:
        """Add rows of the tables ``frames`` and ``faces``; those of a file come in order."""
        with writing(self._out):
            self._files["frames"].append(frames)
            self._files["faces"].append(faces)

    def finish(self, row: MediaRow) -> None:
        """Add a file's media row; a failed file loses the frames and faces appended so far."""
        self._rows.append(row)

    def commit(self, check: Callable[[], None] = lambda: None) -> None:
        """Put the finished files of the part into the run. Other files leave no rows.

        Args:
            check: Called just before the files are renamed. An exception from it prevents that.
        """
        kept = {row.media for row in self._rows if row.status != "failed"}
        media, frames, faces = (self._files[table] for table in ("media", "frames", "faces"))
        with writing(self._out):
            rows = map(asdict, self._rows)
            media.append(pa.Table.from_pylist([*rows], TABLES["media"].schema))
            media.close()
            for file in (frames, faces):
                file.close()
                keep_only(file.temporary, kept)
            check()
            media.path.unlink(missing_ok=True)  # old media rows must not be beside new faces
            for file in (frames, faces, media):
                urls.publish(file.temporary, file.path)

    def abort(self) -> None:
        """Remove what is not committed. May be called at any time, and more than once."""
        for file in self._files.values():
            file.discard()


def is_committed(out: Path, part: str) -> bool:
    """Whether the run holds a part."""
    return _path(out, "media", part).exists()


def media_rows(out: Path, parts: Sequence[str] | None = None) -> list[MediaRow]:
    """The media rows of a run, ordered by name; none where there is no run yet.

    Fields of columns that an older run lacks are None.

    Args:
        out: Output folder.
        parts: Names of the parts to read; missing ones are skipped. None reads all.

    Raises:
        StoreError: A media file is damaged, or its tables have another major version.
    """
    paths = _media_files(out) if parts is None else [_path(out, "media", part) for part in parts]
    rows = [MediaRow(**row) for part in _read_each(paths) for row in part]
    return sorted(rows, key=lambda row: row.media)


def pending(
    files: Sequence[MediaFile], out: Path, *, config_hash: str, parts: Sequence[str] | None = None
) -> list[MediaFile]:
    """Files that are new or changed, failed last time, or were done with other settings.

    Args:
        files: The files to choose from.
        out: Output folder.
        config_hash: Hash of the settings with which they shall be done.
        parts: Names of the parts that may hold their results; None looks for them.

    Raises:
        StoreError: The run already holds another file of the same name, from another input folder.
    """
    paths = [
        _path(out, "media", part) for part in (parts_of(files, out) if parts is None else parts)
    ]
    done = {row["media"]: row for part in _read_each(paths, _STAMP) for row in part}
    waiting = []
    for file in files:
        row = done.get(file.media)
        stamp = (file.size_bytes, file.mtime_ns)
        same_file = row is not None and stamp == (row["size_bytes"], row["mtime_ns"])
        if row and not same_file and urls.join(row["root"], file.media) != file.path:
            raise StoreError(
                f"{out} already holds {file.media} of {row['root']}, and {file.path} is another "
                "file: choose another output folder with -o, or replace the old results with "
                "--force"
            )
        is_done = row and row["config_hash"] == config_hash and row["status"] != "failed"
        if not (is_done and same_file):
            waiting.append(file)
    return waiting


def parts_of(files: Sequence[MediaFile], out: Path) -> list[str]:
    """Names of the committed parts that may hold results of these files.

    A video's part is named after it; a still image may be in any part.
    """
    parts = [path.stem.removeprefix("part-") for path in _media_files(out)]
    if any(file.kind == "image" for file in files):
        return parts
    wanted = {part_id([file.media]) for file in files}
    return [part for part in parts if part in wanted]


def forget(out: Path, media: Sequence[str]) -> None:
    """Remove files from the run: their media rows first, then their frames and faces.

    Runs that share the folder may call it at the same time: they wait for each other.
    """
    gone = set(media)
    if not gone:
        return
    lock_file = out / ".forget.lock"
    with writing(out), contextlib.nullcontext() if urls.is_url(out) else locks.locked(lock_file):
        for part, members in _parts(out).items():
            kept = members.keys() - gone
            if len(kept) == len(members):
                continue
            for table in ("media", "frames", "faces"):
                path = _path(out, table, part)
                if kept:
                    keep_only(path, kept)
                else:
                    path.unlink(missing_ok=True)


def reconcile(out: Path) -> None:
    """Remove what a killed run left: temporary files, and rows of files that are not in media.

    The caller holds the lock and does not share it. A part that lost its frames or faces is
    removed.
    """
    parts = _parts(out)
    with writing(out):
        for folder in (out, *(out / table for table in TABLES)):
            urls.remove_temporaries(folder)
        found = {
            table: {path.stem: path for path in (out / table).glob(_PART_FILE)}
            for table in ("frames", "faces")
        }
        for part in parts.keys() - (found["frames"].keys() & found["faces"].keys()):
            _path(out, "media", part).unlink()
            del parts[part]
        for part, path in itertools.chain(*(paths.items() for paths in found.values())):
            members = parts.get(part)
            if members is None:
                path.unlink()
            elif "image" in members.values():  # a video is alone in its part
                keep_only(path, members.keys())


def read(
    out: Path,
    table: Name,
    *,
    media: Sequence[str] | None = None,
    columns: list[str] | None = None,
) -> pa.Table:
    """One table of a run.

    The rows of a file are together and in order; the files are in no particular order. Columns
    that an older run lacks are null.

    Args:
        out: Output folder.
        table: Name of the table.
        media: Names of the files whose rows are read; None reads all.
        columns: Names of the columns to read; None reads all.

    Raises:
        StoreError: ``out`` is not the output folder of a run, or a table cannot be read.
    """
    if not (out / "media").is_dir():
        raise StoreError(f"{out} is not the output folder of a run: it has no media table")
    # each video has its own part: for a few names only a few files are opened
    paths = [_path(out, table, part_id([name])) for name in media or ()]
    if media is None or not all(path.exists() for path in paths):
        paths = sorted((out / table).glob(_path(out, table, "?" * 16).name))
    for path in paths[:1]:  # all parts have the same major version
        _read_media(_path(out, "media", path.stem.removeprefix("part-")), ["media"])
    with reading(out / table):
        return tables.read(TABLES[table].schema, paths, media=media, columns=columns)


@contextlib.contextmanager
def lock(out: Path, *, shared: bool = False) -> Iterator[None]:
    """Keep other runs out of the output folder, which is made if it is missing.

    Args:
        out: The folder.
        shared: Let in other runs that share it too. Such runs must have no file in common.

    Raises:
        StoreError: Another run holds it, or it is not a folder that can be written.
    """
    with contextlib.ExitStack() as stack:
        with writing(out):
            if urls.is_url(out):
                (out / ".lock").write_bytes(b"")
            elif out.is_file():
                raise StoreError(f"{out} is a file: choose a folder for the results with -o")
            urls.make_folder(out)
            try:
                if urls.is_url(out):
                    stack.enter_context(claims.locked(out / ".locks", shared=shared))
                else:
                    stack.enter_context(locks.locked(out / ".lock", shared=shared, wait=False))
            except BlockingIOError as error:
                raise StoreError(
                    f"another run is writing to {out}: wait for it, or choose another folder "
                    "with -o"
                ) from error
        yield


def write_run(out: Path, run: Mapping[str, object]) -> None:
    """Write run.json, as a whole or not at all."""
    with writing(out):
        urls.write(out / "run.json", json.dumps(run, indent=2).encode())


def read_run(out: Path) -> dict[str, Any]:
    """The content of run.json.

    Raises:
        StoreError: It is missing, or it is not JSON.
    """
    try:
        run: dict[str, Any] = json.loads((out / "run.json").read_text(encoding="utf-8"))
    except urls.failures(ValueError) as error:
        raise StoreError(
            f"{out} is not the output folder of a finished run: run.json cannot be read: "
            f"{urls.reason(error)}"
        ) from error
    return run


def _path(out: Path, table: Name, part: str) -> Path:
    return out / table / (f"part-{part}.parquet" if table == "media" else f"{part}.parquet")


def _media_files(out: Path) -> list[Path]:
    with reading(out / "media"):
        return sorted((out / "media").glob("part-" + _PART_FILE))


def _parts(out: Path) -> dict[str, dict[str, str]]:
    """By committed part, the kind of each of its files by name."""
    paths = _media_files(out)
    return {
        path.stem.removeprefix("part-"): {row["media"]: row["kind"] for row in rows}
        for path, rows in zip(paths, _read_each(paths, ["media", "kind"]), strict=True)
    }


def _read_each(
    paths: Sequence[Path], columns: list[str] | None = None
) -> Iterator[list[dict[str, Any]]]:
    """The rows of each media file; those behind a URL are read several at a time."""
    if not any(map(urls.is_url, paths)):
        yield from (_read_media(path, columns) for path in paths)
        return
    with ThreadPoolExecutor(_REQUESTS) as pool:
        yield from pool.map(_read_media, paths, itertools.repeat(columns))


def _read_media(path: Path, columns: list[str] | None = None) -> list[dict[str, Any]]:
    columns = columns or TABLES["media"].schema.names
    with (
        reading(path),
        contextlib.suppress(FileNotFoundError),
        pq.ParquetFile(urls.contents(path)) as file,
    ):
        version = (file.schema_arrow.metadata or {}).get(b"fer_batch.schema_version", b"?").decode()
        if version.partition(".")[0] != VERSION.partition(".")[0]:
            raise StoreError(
                f"{path} has tables of version {version}, this fer_batch knows {VERSION}: "
                "choose another output folder with -o"
            )
        rows = file.read(columns, use_threads=False).to_pylist()
        return [dict.fromkeys(columns) | row for row in rows]
    return []  # removed since it was listed: another run is doing its files again
