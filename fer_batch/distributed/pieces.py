"""A long video done in pieces, by any number of processes, and put together again.

A piece is some of a video's segments, which everyone who opens the file finds the same
(`fer_batch.media.decode.segments`), so that pieces are planned without opening it: a file whose
`MediaFile.piece` is set goes through `fer_batch.pipeline.process` as any other. What is found in a
frame does not depend on other frames; tracks do. So a piece is stored without tracks, with what
tells its cuts, and joining follows the faces anew. See docs/decisions/0016-pieces.md.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import TypeAdapter

from fer_batch.config import Config
from fer_batch.emotions import EMOTIONS
from fer_batch.errors import DecodeError, FerError, StoreError
from fer_batch.faces.tracking import CutDetector, Tracker
from fer_batch.pipeline.collector import FileOutcome
from fer_batch.pipeline.manifest import media_row
from fer_batch.pipeline.plan import Plan
from fer_batch.records import (
    ChunkResult,
    DecodeReport,
    Faces,
    Floats,
    MediaFile,
    MediaInfo,
    MediaRow,
    Piece,
)
from fer_batch.results import store
from fer_batch.results.parquet import TableFile, reading, writing
from fer_batch.storage import urls

BATCH_FRAMES = 1024
"""Frames of a piece that are read together when pieces are joined."""

_TAIL = b"fer_batch.piece"
_BOX, _POINTS, _PROBS = (pa.list_(pa.float32(), size) for size in (4, 10, len(EMOTIONS)))
_FACE = pa.struct(
    [("box_px", _BOX), ("score", pa.float32()), ("points_px", _POINTS), ("probs", _PROBS)]
)
_FRAMES = pa.schema(
    [
        ("frame_index", pa.int64()),
        ("pts_s", pa.float64()),
        ("is_damaged", pa.bool_()),
        ("faces", pa.list_(_FACE)),
    ]
)


@dataclass(frozen=True, slots=True)
class _Tail:
    """What a piece knows beside its frames; it stands in the metadata of its file."""

    of: str
    """File, configuration and piece, by `_name`."""
    info: MediaInfo | None
    report: DecodeReport | None
    error: str | None
    """Why there is no report."""
    n_faces: int
    seconds: float
    cuts: list[int]
    """Rows of the frames that begin a new shot."""
    first: list[list[float]] | None
    """Histograms (`CutDetector`) of the first frame; None where there is no frame. So the next."""
    last: list[list[float]] | None


def can_split(file: MediaFile, config: Config) -> bool:
    """Whether a file may be done in pieces.

    With ``detector.every`` above 1 it may not: the faces of a frame depend on the frames before.
    """
    return file.kind == "video" and config.detector.every == 1


def is_finished(folder: Path, file: MediaFile) -> bool:
    """Whether nothing is left to do for a piece.

    Args:
        folder: Of all pieces of a run.
        file: The video, with its `MediaFile.piece`.
    """
    return _path(folder, file).exists() or _joined_mark(folder, file).exists()


class PieceCollector:
    """Stores pieces of videos, each as a whole or not at all; for `fer_batch.pipeline.process`.

    A piece that is there already is replaced by the same. Leaving the ``with`` block gives up what
    is not finished.

    Args:
        folder: Of all pieces of a run, and of nothing else.
        plan: The work: videos that `can_split`, with their `MediaFile.piece`.
        before_commit: Called before a piece is put in its place; what it raises prevents it.

    Raises:
        StoreError: From any method, when the folder cannot be written.
    """

    def __init__(
        self, folder: Path, plan: Plan, *, before_commit: Callable[[], None] = lambda: None
    ) -> None:
        self._folder = folder
        self._plan = plan
        self._before_commit = before_commit
        self._tables: dict[MediaFile, TableFile] = {}

    def __enter__(self) -> PieceCollector:
        return self

    def __exit__(self, *_: object) -> None:
        for table in self._tables.values():
            table.discard()

    def append(self, file: MediaFile, result: ChunkResult) -> None:
        """Add the rows of one chunk of a piece that is not finished yet."""
        with writing(self._folder):
            self._table(file).append(_to_rows(result))

    def finish(self, outcome: FileOutcome) -> MediaRow:
        """Put a piece in its place; returns the media row of a file that ends here."""
        row = outcome.row(self._plan)
        report = outcome.report if isinstance(outcome.report, DecodeReport) else None
        first, last = outcome.cuts.first, outcome.cuts.last
        tail = _Tail(
            of=_name(self._plan, outcome.file),
            info=outcome.info,
            report=report,
            error=None if report else row.error,
            n_faces=outcome.n_faces,
            seconds=outcome.seconds,
            cuts=outcome.cuts.found,
            first=None if first is None else first.tolist(),
            last=None if last is None else last.tolist(),
        )
        with writing(self._folder):
            table = self._table(outcome.file)
            table.parquet.add_key_value_metadata({_TAIL: TypeAdapter(_Tail).dump_json(tail)})
            table.commit(self._before_commit)
        return row

    def close(self) -> None:
        """Nothing waits to be put in its place."""

    def _table(self, file: MediaFile) -> TableFile:
        if file not in self._tables:
            path = _path(self._folder, file)
            urls.make_folder(path.parent)
            self._tables[file] = TableFile(path, _FRAMES)
        return self._tables[file]


def join_pieces(
    plan: Plan,
    file: MediaFile,
    n_pieces: int,
    folder: Path,
    out: Path,
    *,
    before_commit: Callable[[], None] = lambda: None,
) -> None:
    """Put the pieces of a video into the tables of a run, as if it had been done at once.

    The pieces are removed when the video is committed. After a kill at any moment it can be done
    again; when all is done it does nothing.

    Args:
        plan: Of the run.
        file: The video.
        n_pieces: How many pieces it has. All are finished.
        folder: As for `PieceCollector`.
        out: Output folder of the run.
        before_commit: Called before the video is committed; what it raises prevents it.

    Raises:
        StoreError: A piece is missing, damaged, or of another run; or the output cannot be written.
    """
    joined = _joined_mark(folder, file)
    if not joined.exists():
        pieces = [replace(file, piece=Piece(number, n_pieces)) for number in range(n_pieces)]
        tails = [_read_tail(plan, piece, folder) for piece in pieces]
        row = _joined_row(plan, file, tails)
        with store.PartWriter(
            out,
            store.part_id([file.media]),
            config_hash=plan.config_hash,
            model_card_json=plan.card.model_dump_json(),
        ) as writer:
            if row.status != "failed":
                paths = [_path(folder, piece) for piece in pieces]
                for result in _results(plan, file, tails, paths):
                    writer.append(result)
            writer.finish(row)
            writer.commit(before_commit)
        with writing(folder):
            joined.write_bytes(b"")
    with writing(folder):
        for path in joined.parent.iterdir():
            if path.name != joined.name:
                path.unlink(missing_ok=True)


def _joined_row(plan: Plan, file: MediaFile, tails: Sequence[_Tail]) -> MediaRow:
    """The media row of the whole; the first piece that failed speaks for it."""
    errors = [FerError(tail.error) for tail in tails if tail.error is not None]
    if any(tail.info != tails[0].info for tail in tails):
        errors.append(
            DecodeError(f"{file.path}: the file was changed while it was read", file.path)
        )
    report = DecodeReport.join([tail.report for tail in tails if tail.report])
    return media_row(
        file,
        tails[0].info,
        errors[0] if errors else report,
        plan=plan,
        n_faces=sum(tail.n_faces for tail in tails),
        seconds=sum(tail.seconds for tail in tails),
    )


def _results(
    plan: Plan, file: MediaFile, tails: Sequence[_Tail], paths: Sequence[Path]
) -> Iterator[ChunkResult]:
    """All pieces one after another, with the tracks of the whole."""
    tracker, cuts = Tracker(plan.config.track), CutDetector(plan.config.track.cut_threshold)
    before: Floats | None = None
    for tail, path in zip(tails, paths, strict=True):
        if tail.first is None:
            continue
        first, n_frames, begins = np.array(tail.first, np.float32), 0, list(tail.cuts)
        if before is not None and cuts.is_cut(before[None], first[None]).item():
            begins.append(0)
        before = np.array(tail.last, np.float32)
        with _opened(path) as table:
            for rows in table.iter_batches(BATCH_FRAMES):
                is_cut = np.isin(np.arange(n_frames, n_frames + len(rows)), begins)
                result = _from_rows(file.media, rows)
                track_id = tracker.update(result.faces, result.pts_s, is_cut)
                yield replace(result, track_id=track_id)
                n_frames += len(rows)


def _to_rows(result: ChunkResult) -> pa.Table:
    """A row per frame, with its faces."""
    faces = result.faces
    points = faces.points_px
    columns = [
        _vectors(faces.box_px, _BOX),
        pa.array(faces.score),
        pa.nulls(len(faces), _POINTS) if points is None else _vectors(points, _POINTS),
        _vectors(result.probs, _PROBS),
    ]
    starts = np.searchsorted(faces.frame_row, np.arange(len(result.pts_s) + 1)).astype(np.int32)
    rows = pa.StructArray.from_arrays(columns, fields=list(_FACE))
    return pa.Table.from_arrays(
        [
            result.frame_index,
            result.pts_s,
            pa.array(result.is_damaged),
            pa.ListArray.from_arrays(starts, rows),
        ],
        schema=_FRAMES,
    )


def _from_rows(media: str, rows: pa.RecordBatch) -> ChunkResult:
    n_faces = rows["faces"].value_lengths().to_numpy()
    box_px, score, points_px, probs = rows["faces"].flatten().flatten()
    points = None if points_px.null_count else _floats(points_px).reshape(-1, 5, 2)
    return ChunkResult(
        media=media,
        frame_index=rows["frame_index"].to_numpy(),
        pts_s=rows["pts_s"].to_numpy(),
        is_damaged=rows["is_damaged"].to_numpy(zero_copy_only=False),
        faces=Faces(
            frame_row=np.repeat(np.arange(len(rows)), n_faces),
            box_px=_floats(box_px),
            score=score.to_numpy(),
            points_px=points,
        ),
        track_id=None,
        probs=_floats(probs),
    )


def _vectors(array: Floats, kind: pa.DataType) -> pa.FixedSizeListArray:
    return pa.FixedSizeListArray.from_arrays(array.ravel(), type=kind)


def _floats(vectors: pa.FixedSizeListArray) -> Floats:
    array: Floats = vectors.flatten().to_numpy().reshape(-1, vectors.type.list_size)
    return array


def _path(folder: Path, file: MediaFile) -> Path:
    return folder / store.part_id([file.media]) / f"{file.piece.number:04}.parquet"


def _joined_mark(folder: Path, file: MediaFile) -> Path:
    """A file that says that a video was put together: its pieces are not needed any more."""
    return _path(folder, file).with_name("joined")


def _name(plan: Plan, file: MediaFile) -> str:
    piece = f"piece {file.piece.number} of {file.piece.n}"
    return f"{piece}: {file.media} {file.size_bytes} {file.mtime_ns} {plan.config_hash}"


def _read_tail(plan: Plan, file: MediaFile, folder: Path) -> _Tail:
    path = _path(folder, file)
    with _opened(path) as table:
        tail = TypeAdapter(_Tail).validate_json(table.metadata.metadata[_TAIL])
    if tail.of != _name(plan, file):
        raise StoreError(f"{path} is not of this run: delete {folder} and run again")
    return tail


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[pq.ParquetFile]:
    with reading(path), pq.ParquetFile(urls.contents(path)) as table:
        yield table
