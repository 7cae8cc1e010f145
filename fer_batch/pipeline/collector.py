"""Write the results of files into parts of the tables; a part is committed when it is complete."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from fer_batch.config import Config
from fer_batch.faces.short_tracks import ShortTracks
from fer_batch.faces.tracking import CutDetector
from fer_batch.pipeline.manifest import media_row
from fer_batch.pipeline.plan import Plan
from fer_batch.records import (
    Bools,
    ChunkResult,
    DecodeReport,
    Ints,
    MediaFile,
    MediaInfo,
    MediaRow,
)
from fer_batch.results import store

IMAGE_PART_S = 300.0
"""Results of still images are committed at least this often."""


@dataclass(frozen=True, slots=True, eq=False)
class FileOutcome:
    """What is known about a file after its last chunk."""

    file: MediaFile
    info: MediaInfo | None
    """None when the file could not be opened."""
    report: DecodeReport | Exception
    """How decoding went, or the error that ended it."""
    n_faces: int
    seconds: float
    """Wall time from opening the file to its last row."""
    cuts: CutDetector
    """Has seen all frames of the file."""

    def row(self, plan: Plan) -> MediaRow:
        """The media row of the file."""
        return media_row(
            self.file,
            self.info,
            self.report,
            plan=plan,
            n_faces=self.n_faces,
            seconds=self.seconds,
        )


class Results(Protocol):
    """Takes the results of files: `Collector`, or a `PieceCollector`."""

    def append(self, file: MediaFile, result: ChunkResult) -> None:
        """Add the rows of one chunk of a file that is not finished yet."""

    def finish(self, outcome: FileOutcome) -> MediaRow:
        """Add a file's media row, after its last chunk; returns it."""

    def close(self) -> None:
        """Commit what is finished."""


class _Video:
    """The part of one video, whose rows are written once it is known which tracks are short."""

    def __init__(self, writer: store.PartWriter, config: Config) -> None:
        self.writer = writer
        self._tracks = ShortTracks[ChunkResult](config)

    def append(self, result: ChunkResult, track_id: Ints) -> None:
        self._write(self._tracks.add(result, track_id, result.faces.frame_row, result.pts_s))

    def end(self) -> None:
        self._write(self._tracks.end())

    def _write(self, known: Sequence[tuple[ChunkResult, Bools]]) -> None:
        for result, is_short in known:
            self.writer.append(replace(result, is_short=is_short))


class Collector:
    """Writes each video into a part of its own, and many still images into one part.

    A video is committed when it is finished. Images are committed when a part is full, when the
    last commit was more than ``image_part_s`` ago, and by `close`. Leaving the ``with`` block
    without `close` drops what is not committed.

    Args:
        out: Output folder.
        plan: The files, and the settings of the run.
        image_part_s: How long finished images may wait for their commit.
        before_commit: Called before every commit; an exception from it prevents the commit.

    Raises:
        StoreError: From any method, when the output cannot be written.
    """

    def __init__(
        self,
        out: Path,
        plan: Plan,
        *,
        image_part_s: float = IMAGE_PART_S,
        before_commit: Callable[[], None] = lambda: None,
    ) -> None:
        self._out = out
        self._plan = plan
        self._image_part_s = image_part_s
        self._before_commit = before_commit
        self._images_left = {file.media: None for file in plan.todo if file.kind == "image"}
        self._image_results: dict[str, list[ChunkResult]] = {}
        self._images: store.PartWriter | None = None
        self._n_images = 0
        self._committed_at = time.monotonic()
        self._videos: dict[str, _Video] = {}

    def __enter__(self) -> Collector:
        return self

    def __exit__(self, *_: object) -> None:
        videos = [video.writer for video in self._videos.values()]
        for writer in [*videos, *([self._images] if self._images else [])]:
            writer.abort()

    def append(self, file: MediaFile, result: ChunkResult) -> None:
        """Add the rows of one chunk of a file that is not finished yet."""
        if result.track_id is None:
            self._image_results.setdefault(file.media, []).append(result)
        else:
            self._video(file).append(result, result.track_id)

    def finish(self, outcome: FileOutcome) -> MediaRow:
        """Add a file's media row, after its last chunk; returns it."""
        file, row = outcome.file, outcome.row(self._plan)
        if file.kind == "image":
            self._finish_image(file, row)
        else:
            video = self._video(file)
            video.end()
            video.writer.finish(row)
            video.writer.commit(self._before_commit)
            del self._videos[file.media]
        return row

    def close(self) -> None:
        """Commit the images that are finished."""
        if self._images:
            self._images.commit(self._before_commit)
            self._images = None
        self._n_images = 0
        self._committed_at = time.monotonic()

    def _finish_image(self, file: MediaFile, row: MediaRow) -> None:
        if self._images is None:
            self._images = self._writer(list(self._images_left))
        for result in self._image_results.pop(file.media, []):
            self._images.append(result)
        self._images.finish(row)
        del self._images_left[file.media]
        self._n_images += 1
        age_s = time.monotonic() - self._committed_at
        if self._n_images == store.IMAGES_PER_PART or age_s > self._image_part_s:
            self.close()

    def _video(self, file: MediaFile) -> _Video:
        if file.media not in self._videos:
            self._videos[file.media] = _Video(self._writer([file.media]), self._plan.config)
        return self._videos[file.media]

    def _writer(self, media: Sequence[str]) -> store.PartWriter:
        return store.PartWriter(
            self._out,
            store.part_id(media),
            config_hash=self._plan.config_hash,
            model_card_json=self._plan.card.model_dump_json(),
        )
