"""Long videos that are done in pieces, by any number of processes, and put together again.

A piece is a range of a video's segments, which are the same for everyone who opens the file
(`fer_batch.media.decode.segments`). A file whose `MediaFile.piece` is set goes through
`fer_batch.pipeline.process` like any other. What is found in a frame does not depend on other
frames; only tracks do. So a piece is stored with its cuts, and when pieces are joined the faces are
tracked again, through the whole video. See docs/decisions/0016-pieces.md.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import TypeAdapter

from fer_batch.config import Config
from fer_batch.errors import DecodeError, FerError, StoreError
from fer_batch.faces.detectors import min_score
from fer_batch.faces.short_tracks import ShortTracks
from fer_batch.faces.tracking import CutDetector, Tracker
from fer_batch.pipeline.collector import FileOutcome
from fer_batch.pipeline.manifest import media_row
from fer_batch.pipeline.plan import Plan
from fer_batch.records import (
    Bools,
    ChunkResult,
    DecodeReport,
    Faces,
    Floats,
    Ints,
    MediaFile,
    MediaInfo,
    MediaRow,
    Piece,
)
from fer_batch.results import store
from fer_batch.results.columns import TABLES
from fer_batch.results.parquet import TableFile, reading, writing
from fer_batch.storage import urls

_SUMMARY = b"fer_batch.piece"
"""Key of a `_Summary` in the metadata of a piece's file."""


@dataclass(frozen=True, slots=True)
class _Summary:
    """What joining needs to know about a piece besides the rows of its frames and faces."""

    identity: str
    """File, configuration and piece, from `_identity`."""
    info: MediaInfo | None
    report: DecodeReport | None
    error: str | None
    """Why there is no report."""
    seconds: float
    cuts: list[int]
    """Positions, within the piece, of the frames that begin a new shot."""
    first: list[list[float]] | None
    """Histograms of the first frame (see `CutDetector`); None if the piece has no frame."""
    last: list[list[float]] | None
    """Histograms of the last frame; None if the piece has no frame."""


def can_split(file: MediaFile, config: Config) -> bool:
    """Whether a file can be done in pieces.

    With ``detector.every`` above 1 it cannot: the faces of a frame then depend on earlier frames.
    """
    return file.kind == "video" and config.detector.every == 1


def is_finished(folder: Path, file: MediaFile) -> bool:
    """Whether a piece is done.

    Args:
        folder: Where all pieces of a run are.
        file: The video, with its `MediaFile.piece`.
    """
    return _path(folder, file).exists() or _joined_mark(folder, file).exists()


class PieceCollector:
    """Stores pieces of videos, each as a whole or not at all; for `fer_batch.pipeline.process`.

    A piece that was done before is replaced. Leaving the ``with`` block removes what is not
    finished.

    Args:
        folder: Where all pieces of a run are, and nothing else.
        plan: The work: videos that can be split (`can_split`), with their `MediaFile.piece`.
        before_commit: Called before a piece is put in its place. An exception from it prevents
            that.

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
            self._table(file).append(_merged(result))

    def finish(self, outcome: FileOutcome) -> MediaRow:
        """Put a finished piece in its place; returns a media row that counts only this piece."""
        row = outcome.row(self._plan)
        report = outcome.report if isinstance(outcome.report, DecodeReport) else None
        first, last = outcome.cuts.first, outcome.cuts.last
        summary = _Summary(
            identity=_identity(self._plan, outcome.file),
            info=outcome.info,
            report=report,
            error=None if report else row.error,
            seconds=outcome.seconds,
            cuts=outcome.cuts.found,
            first=None if first is None else first.tolist(),
            last=None if last is None else last.tolist(),
        )
        with writing(self._folder):
            table = self._table(outcome.file)
            content = TypeAdapter(_Summary).dump_json(summary)
            table.parquet.add_key_value_metadata({_SUMMARY: content})
            table.commit(self._before_commit)
        return row

    def close(self) -> None:
        """Do nothing: every finished piece is already in its place."""

    def _table(self, file: MediaFile) -> TableFile:
        if file not in self._tables:
            path = _path(self._folder, file)
            urls.make_folder(path.parent)
            self._tables[file] = TableFile(path, _schema())
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
    """Put the pieces of a video into the tables of a run, as if it had been done as a whole.

    The pieces are removed after the video is committed. A call that was killed at any moment can be
    repeated; a call after a complete one does nothing.

    Args:
        plan: The plan of the run.
        file: The video.
        n_pieces: Number of its pieces, all of which are finished.
        folder: As for `PieceCollector`.
        out: Output folder of the run.
        before_commit: Called before the video is committed. An exception from it prevents that.

    Raises:
        StoreError: A piece is missing, damaged, or of another run; or the output cannot be written.
    """
    joined = _joined_mark(folder, file)
    if not joined.exists():
        pieces = [replace(file, piece=Piece(number, n_pieces)) for number in range(n_pieces)]
        summaries = [_read_summary(plan, piece, folder) for piece in pieces]
        row = _joined_row(plan, file, summaries)
        with store.PartWriter(
            out,
            store.part_id([file.media]),
            config_hash=plan.config_hash,
            model_card_json=plan.card.model_dump_json(),
        ) as writer:
            if row.status != "failed":
                paths = [_path(folder, piece) for piece in pieces]
                for frames, faces in _rows(plan, summaries, paths):
                    writer.append_rows(frames, faces)
                    row = replace(row, n_faces=row.n_faces + len(faces))
            writer.finish(row)
            writer.commit(before_commit)
        with writing(folder):
            joined.write_bytes(b"")
    with writing(folder):
        for path in joined.parent.iterdir():
            if path.name != joined.name:
                path.unlink(missing_ok=True)


def _joined_row(plan: Plan, file: MediaFile, pieces: Sequence[_Summary]) -> MediaRow:
    """The media row of the whole video, without the number of faces.

    If pieces failed, it has the error of the first of them.
    """
    errors = [FerError(piece.error) for piece in pieces if piece.error is not None]
    if any(piece.info != pieces[0].info for piece in pieces):
        errors.append(
            DecodeError(f"{file.path}: the file was changed while it was read", file.path)
        )
    report = DecodeReport.join([piece.report for piece in pieces if piece.report])
    return media_row(
        file,
        pieces[0].info,
        errors[0] if errors else report,
        plan=plan,
        n_faces=0,
        seconds=sum(piece.seconds for piece in pieces),
    )


def _rows(
    plan: Plan, pieces: Sequence[_Summary], paths: Sequence[Path]
) -> Iterator[tuple[pa.Table, pa.Table]]:
    """Rows of ``frames`` and ``faces``, in order, with the tracks of the whole video."""
    short = ShortTracks[tuple[pa.Table, pa.Table]](plan.config)
    for frames, faces, found, track_id in _tracked(plan, pieces, paths):
        pts_s = frames["pts_s"].to_numpy()
        for rows, is_short in short.add((frames, faces), track_id, found.frame_row, pts_s):
            yield rows[0], _with(rows[1], is_short=is_short)
    for rows, is_short in short.end():
        yield rows[0], _with(rows[1], is_short=is_short)


def _tracked(
    plan: Plan, pieces: Sequence[_Summary], paths: Sequence[Path]
) -> Iterator[tuple[pa.Table, pa.Table, Faces, Ints]]:
    """Frames and faces of one group of rows after the other, and the tracks of these faces.

    Weak faces that continue no track are left out.
    """
    config = plan.config
    tracker = Tracker(config.track, min_score(config.detector))
    cuts = CutDetector(config.track.cut_threshold)
    before: Floats | None = None
    for piece, path in zip(pieces, paths, strict=True):
        if piece.first is None:
            continue
        first, n_frames, shots = np.array(piece.first, np.float32), 0, list(piece.cuts)
        if before is not None and cuts.is_cut(before[None], first[None]).item():
            shots.append(0)
        before = np.array(piece.last, np.float32)
        with _opened(path) as file:
            for group in range(file.num_row_groups):  # all faces of a frame are in one group
                frames, faces, found = _divided(file.read_row_group(group))
                is_cut = np.isin(np.arange(n_frames, n_frames + len(frames)), shots)
                track_id = tracker.update(found, frames["pts_s"].to_numpy(), is_cut)
                n_frames += len(frames)
                stays = track_id >= 0
                found, track_id = found.take(stays), track_id[stays]
                n_faces = np.bincount(found.frame_row, minlength=len(frames))
                frames = _with(frames, n_faces=n_faces)
                faces = _with(faces.filter(stays), face_index=found.face_index, track_id=track_id)
                yield frames, faces, found, track_id


def _with(rows: pa.Table, **columns: Bools | Ints) -> pa.Table:
    """Rows with other values in some columns."""
    for name, values in columns.items():
        place = rows.schema.get_field_index(name)
        field = rows.schema.field(place)
        rows = rows.set_column(place, field, pa.array(values, field.type))
    return rows


def _schema() -> pa.Schema:
    """Columns of a piece's file: those of ``frames``, then the others of ``faces``."""
    frames, faces = TABLES["frames"].schema, TABLES["faces"].schema
    return pa.schema([*frames, *(field for field in faces if field.name not in frames.names)])


def _merged(result: ChunkResult) -> pa.Table:
    """A row for each face, and a row without values of ``faces`` for each frame without a face."""
    frames, faces = TABLES["frames"].rows(result), TABLES["faces"].rows(result)
    n_rows = np.maximum(frames["n_faces"].to_numpy(), 1)
    frame_of_row = np.repeat(np.arange(len(frames)), n_rows)
    has_face = np.isin(frame_of_row, result.faces.frame_row)
    frames = frames.take(pa.array(frame_of_row))
    faces = faces.take(pa.array(has_face.cumsum() - 1, mask=~has_face))
    schema = _schema()
    columns = [(frames if name in frames.schema.names else faces)[name] for name in schema.names]
    return pa.Table.from_arrays(columns, schema=schema)


def _divided(rows: pa.Table) -> tuple[pa.Table, pa.Table, Faces]:
    """Rows of ``frames``, rows of ``faces``, and what tracking needs to know of the faces."""
    has_face = rows["face_index"].is_valid()
    is_first = pc.equal(pc.fill_null(rows["face_index"], 0), 0)
    frames, faces = (
        rows.filter(chosen).select(table.schema.names).cast(table.schema)
        for chosen, table in ((is_first, TABLES["frames"]), (has_face, TABLES["faces"]))
    )
    frame_row = is_first.to_numpy().cumsum() - 1
    sides = [faces[name].to_numpy() for name in ("x1_px", "y1_px", "x2_px", "y2_px")]
    found = Faces(
        frame_row=frame_row[has_face.to_numpy()],
        box_px=np.stack(sides, axis=1),
        score=faces["detection_score"].to_numpy(),
    )
    return frames, faces, found


def _path(folder: Path, file: MediaFile) -> Path:
    return folder / store.part_id([file.media]) / f"{file.piece.number:04}.parquet"


def _joined_mark(folder: Path, file: MediaFile) -> Path:
    """Path of a file that exists once the pieces of a video are joined and no longer needed."""
    return _path(folder, file).with_name("joined")


def _identity(plan: Plan, file: MediaFile) -> str:
    piece = f"piece {file.piece.number} of {file.piece.n}"
    return f"{piece}: {file.media} {file.size_bytes} {file.mtime_ns} {plan.config_hash}"


def _read_summary(plan: Plan, file: MediaFile, folder: Path) -> _Summary:
    path = _path(folder, file)
    with _opened(path) as table:
        summary = TypeAdapter(_Summary).validate_json(table.metadata.metadata[_SUMMARY])
    if summary.identity != _identity(plan, file):
        raise StoreError(f"{path} is not of this run: delete {folder} and run again")
    return summary


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[pq.ParquetFile]:
    with reading(path), pq.ParquetFile(urls.contents(path)) as table:
        yield table
