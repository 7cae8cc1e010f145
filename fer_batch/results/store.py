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
import hashlib
import itertools
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from fer_batch.errors import StoreError
from fer_batch.records import ChunkResult, MediaFile, MediaRow
from fer_batch.results import tables
from fer_batch.results.parquet import TableFile, keep_only, reading, writing
from fer_batch.storage import claims, locks, urls

IMAGES_PER_PART = 4096
_REQUESTS = 32
"""Files behind a URL that are read at once."""

_STAMP = ["media", "root", "status", "size_bytes", "mtime_ns", "config_hash"]
"""Columns of media that tell whether a file is done: of many files, all take twice as long."""
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
                    urls.make_folder(path.parent)
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

    def commit(self, check: Callable[[], None] = lambda: None) -> None:
        """Put the finished files of the part into the run; files not finished leave no rows.

        Args:
            check: Called when all that is left is to rename; what it raises prevents that.
        """
        kept = {row.media for row in self._rows if row.status != "failed"}
        media, frames, faces = (self._files[table] for table in ("media", "frames", "faces"))
        with writing(self._out):
            media.append(tables.media_table(self._rows))
            media.close()
            for file in (frames, faces):
                file.close()
                keep_only(file.temporary, kept)
            check()
            media.path.unlink(missing_ok=True)  # an older row must not stand for newer rows
            for file in (frames, faces, media):
                urls.publish(file.temporary, file.path)

    def abort(self) -> None:
        """Give up what is not committed; safe to call at any time, and more than once."""
        for file in self._files.values():
            file.discard()


def is_committed(out: Path, part: str) -> bool:
    """Whether a part stands in the run."""
    return _path(out, "media", part).exists()


def media_rows(out: Path, parts: Sequence[str] | None = None) -> list[MediaRow]:
    """What became of the files of the run, ordered by name; empty where there is no run yet.

    Args:
        out: Output folder.
        parts: Those to read, as far as they are there; None reads all.

    Raises:
        StoreError: A media file is damaged, or was written by another version of the tables.
    """
    paths = _media_files(out) if parts is None else [_path(out, "media", part) for part in parts]
    rows = [MediaRow(**row) for part in _read_each(paths) for row in part]
    return sorted(rows, key=lambda row: row.media)


def pending(
    files: Sequence[MediaFile], out: Path, *, config_hash: str, parts: Sequence[str] | None = None
) -> list[MediaFile]:
    """Files that have no result yet: new, changed, set up otherwise, or failed last time.

    Args:
        files: To ask about.
        out: Output folder.
        config_hash: Of how they are to be done.
        parts: In which their results would stand, where that is known; None looks for them.

    Raises:
        StoreError: A file's name belongs to another file, of another input folder, in this run.
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
    """The committed parts that may hold results of these files.

    Those of videos are known by name; a still image may be in any.
    """
    parts = [path.stem.removeprefix("part-") for path in _media_files(out)]
    if any(file.kind == "image" for file in files):
        return parts
    wanted = {part_id([file.media]) for file in files}
    return [part for part in parts if part in wanted]


def forget(out: Path, medias: Sequence[str]) -> None:
    """Remove files from the run: their media rows first, then their frames and faces.

    Runs that share the folder may forget at the same time: they wait for each other.
    """
    gone = set(medias)
    if not gone:
        return
    lock_file = out / ".forget.lock"
    with writing(out), contextlib.nullcontext() if urls.is_url(out) else locks.locked(lock_file):
        for part, members in _parts(out).items():
            kept = {media for media in members if media not in gone}
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

    Call it with the lock held and not shared. A part whose frames or faces are gone leaves the
    run as a whole.
    """
    parts = _parts(out)
    with writing(out):
        for folder in (out, *(out / table for table in tables.SCHEMAS)):
            for path in folder.glob(urls.TEMPORARY.format("*")):
                path.unlink()
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
    with reading(out / table):
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
        temporary = urls.temporary_for(out / "run.json")
        with temporary.open("w", encoding="utf-8") as file:
            json.dump(run, file, indent=2)
            file.flush()
            os.fsync(file.fileno())
        urls.publish(temporary, out / "run.json")


def read_run(out: Path) -> dict[str, Any]:
    """What `write_run` wrote.

    Raises:
        StoreError: There is none, or it is not JSON.
    """
    try:
        run: dict[str, Any] = json.loads((out / "run.json").read_text(encoding="utf-8"))
    except urls.failures(ValueError) as error:
        raise StoreError(
            f"{out} is not the output folder of a finished run: run.json cannot be read: "
            f"{urls.reason(error)}"
        ) from error
    return run


def _path(out: Path, table: tables.Name, part: str) -> Path:
    return out / table / (f"part-{part}.parquet" if table == "media" else f"{part}.parquet")


def _media_files(out: Path) -> list[Path]:
    with reading(out / "media"):
        return sorted((out / "media").glob("part-" + _PART_FILE))


def _parts(out: Path) -> dict[str, dict[str, str]]:
    """The committed parts: files and their kind."""
    paths = _media_files(out)
    return {
        path.stem.removeprefix("part-"): {row["media"]: row["kind"] for row in rows}
        for path, rows in zip(paths, _read_each(paths, ["media", "kind"]), strict=True)
    }


def _read_each(
    paths: Sequence[Path], columns: list[str] | None = None
) -> Iterator[list[dict[str, Any]]]:
    """The rows of each media file; those behind a URL, a request each, are read side by side."""
    if not any(map(urls.is_url, paths)):
        yield from (_read_media(path, columns) for path in paths)
        return
    with ThreadPoolExecutor(_REQUESTS) as pool:
        yield from pool.map(_read_media, paths, itertools.repeat(columns))


def _read_media(path: Path, columns: list[str] | None = None) -> list[dict[str, Any]]:
    with (
        reading(path),
        contextlib.suppress(FileNotFoundError),
        pq.ParquetFile(urls.contents(path)) as file,
    ):
        version = (file.schema_arrow.metadata or {}).get(b"fer_batch.schema_version", b"?").decode()
        if version != tables.VERSION:
            raise StoreError(
                f"{path} has tables of version {version}, this fer_batch knows {tables.VERSION}: "
                "choose another output folder with -o"
            )
        rows: list[dict[str, Any]] = file.read(columns, use_threads=False).to_pylist()
        return rows
    return []  # gone since it was listed: another run is doing its files anew
