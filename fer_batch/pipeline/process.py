"""Process files: decode, detect, track, crop, classify, and write tables.

One loop takes all files through these stages. Each of its steps

1. takes decoded chunks from the readers and submits them to the detector (`_submit_search`),
2. collects the faces of the oldest search, tracked, and cuts them out (`_collect_search`),
3. submits the faces of many chunks for classification, once there are enough (`_submit_batch`),
4. writes the rows of the oldest batch, and commits the files that end in it (`_write_batch`).

Decoding (`ReaderPool`), detection and classification (`Lanes`) run in other threads meanwhile. All
chunks pass through the loop in the order in which they come from the readers.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from fer_batch.config import Config
from fer_batch.errors import DetectorError, FerError, UnavailableError, is_transient
from fer_batch.pipeline.classification import Classification, CroppedFaces, cut_out
from fer_batch.pipeline.collector import Collector, FileOutcome, Results
from fer_batch.pipeline.face_finder import FaceFinder, FoundFaces, Search, TrackingState
from fer_batch.pipeline.lanes import Lanes, Resources
from fer_batch.pipeline.manifest import Problem, Summary, run_manifest
from fer_batch.pipeline.plan import Plan, make_plan
from fer_batch.pipeline.readers import Chunk, EndOfFile, ReaderPool
from fer_batch.pipeline.stopwatch import Stopwatch
from fer_batch.records import ChunkResult, MediaFile
from fer_batch.results import store

logger = logging.getLogger(__name__)

SEARCH_FRAMES = 64
"""How many frames are searched together, if so many are ready."""
MAX_BATCHES = 2
"""How many batches of faces may be in classification while the next one is collected."""
MAX_WAITING_FRAMES = 4096
"""How many frames may wait for a classification batch to fill."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run has come."""

    n_files_done: int
    n_files: int
    n_frames: int
    """Frames that went through detection."""
    n_faces: int
    """Faces that were found in them."""
    seconds: float
    """Time since the run began, above 0."""
    share: float
    """The fraction of the work that is done, in [0, 1], by file size."""

    def __str__(self) -> str:
        return (
            f"{self.n_files_done:,}/{self.n_files:,} files  {self.n_frames:,} frames  "
            f"{self.n_faces:,} faces  {self.n_frames / self.seconds:,.0f} frames/s"
        )


def process(
    inputs: Sequence[Path],
    out: Path,
    config: Config,
    *,
    force: bool = False,
    on_progress: Callable[[Progress], None] = lambda progress: None,
    stop: threading.Event | None = None,
) -> Summary:
    """Process files and folders into the tables of `out`, except files that are already done.

    Args:
        inputs: Files and folders; folders are searched with all their subfolders.
        out: Output folder.
        config: The settings.
        force: Process files again that are already done.
        on_progress: Called from this thread whenever frames are done.
        stop: Set it to end the run early; files that are complete by then are kept.

    Returns:
        What was done. It lists the files that failed; they raise no exception.

    Raises:
        ConfigError, MediaError, WeightsError, DetectorError: The run cannot begin.
        StoreError: The output cannot be written; files that were committed before are kept.
    """
    began = datetime.now(UTC)
    with store.lock(out):
        store.reconcile(out)
        plan = make_plan(inputs, out, config, force=force)
        store.forget(out, [file.media for file in plan.todo if file.kind == "image"])
        with Collector(out, plan) as collector:
            summary = run_plan(plan, collector, on_progress=on_progress, stop=stop)
        store.write_run(out, run_manifest(plan, began, summary))
    return summary


def run_plan(
    plan: Plan,
    results: Results,
    *,
    retry_transient: bool = False,
    on_progress: Callable[[Progress], None] = lambda progress: None,
    stop: threading.Event | None = None,
) -> Summary:
    """Process the files of a plan.

    Args:
        plan: The files and the settings.
        results: Takes the results; closed when all files are done.
        retry_transient: Raise an error when a disk or network does not answer, so that the caller
            can try again later. Otherwise such a file counts as failed.
        on_progress: As for `process`.
        stop: As for `process`.

    Raises:
        UnavailableError: With `retry_transient`.
        WeightsError, DetectorError, StoreError: As for `process`.
    """
    started = time.perf_counter()
    run = _Run(plan, results, retry_transient, on_progress)
    if plan.todo:
        run.run(stop or threading.Event())
        results.close()
    return run.summary(time.perf_counter() - started)


@dataclass(slots=True)
class _FileProgress:
    """What is known about a file between its first chunk and its last row."""

    file: MediaFile
    tracking: TrackingState
    began: float = field(default_factory=time.perf_counter)
    n_faces: int = 0
    share: float = 0.0
    """The fraction of the file that went through detection."""
    error: FerError | None = None


@dataclass(frozen=True, slots=True, eq=False)
class _Batch:
    """Chunks whose faces are being classified, and the ends of files between them."""

    items: Sequence[CroppedFaces | EndOfFile]
    classification: Classification


class _Run:
    """The loop over all files of a plan, and its counts."""

    def __init__(
        self,
        plan: Plan,
        results: Results,
        retry_transient: bool,
        on_progress: Callable[[Progress], None],
    ) -> None:
        self._plan, self._results = plan, results
        self._retry_transient, self._on_progress = retry_transient, on_progress
        self._files: dict[str, _FileProgress] = {}
        self._searches: deque[tuple[Sequence[Chunk | EndOfFile], Search]] = deque()
        self._waiting: list[CroppedFaces | EndOfFile] = []
        self._batches: deque[_Batch] = deque()
        self._size = sum(file.size_bytes for file in plan.todo) or 1
        self._size_done = 0
        self._counts: Counter[str] = Counter()
        self._problems: list[Problem] = []
        self._interrupted = False
        self._began = time.perf_counter()
        self._device = "none"
        self._watch = Stopwatch()

    def run(self, stop: threading.Event) -> None:
        """Process all files, or as many as are complete when `stop` is set."""
        config = self._plan.config
        resources = Resources.of(config)
        self._device = ", ".join(map(str, resources.devices))
        self._batch_size = resources.batch_size
        with (
            ReaderPool(
                self._plan.todo,
                config,
                readers=resources.readers,
                buffer_mb=resources.buffer_mb,
            ) as readers,
            self._load(resources) as self._lanes,
        ):
            self._finder = FaceFinder(self._lanes.detect, config, self._watch)
            while self._step(readers):
                self._report()
                if stop.is_set():
                    self._interrupted = True
                    break
            while self._searches:
                self._collect_search(readers)
            self._submit_batch()
            while self._batches:
                self._write_batch()
            self._report()

    def summary(self, seconds: float) -> Summary:
        """The counts so far."""
        return Summary(
            n_ok=self._counts["ok"],
            n_partial=self._counts["partial"],
            n_failed=self._counts["failed"],
            n_skipped=self._plan.n_done,
            n_frames=self._counts["frames"],
            n_faces=self._counts["faces"],
            seconds=seconds,
            device=self._device,
            stage_seconds=dict(self._watch.seconds),
            problems=tuple(sorted(self._problems, key=lambda problem: problem.media)),
            interrupted=self._interrupted,
        )

    def _load(self, resources: Resources) -> Lanes:
        with self._watch.time("load"):
            return Lanes(self._plan, resources, self._watch)

    def _step(self, readers: ReaderPool) -> bool:
        """Submit what is ready, and collect what is due; returns False at the end of all files."""
        items = self._take(readers, wait=not self._searches)
        if not items and self._searches:
            with self._watch.time("wait for faces"):
                self._searches[0][1].faces.wait()
            items = self._take(readers, wait=False)
        if items:
            self._submit_search(items)
        n_frames_behind = sum(search.n_frames for _, search in list(self._searches)[1:])
        if self._searches and (n_frames_behind >= self._lanes.n_frames or not items):
            self._collect_search(readers)
        while self._batches and (
            len(self._batches) > MAX_BATCHES or self._batches[0].classification.is_done()
        ):
            self._write_batch()
        return bool(self._searches) or not readers.at_end

    def _take(self, readers: ReaderPool, *, wait: bool) -> Sequence[Chunk | EndOfFile]:
        with self._watch.time("wait for frames"):
            return readers.take(SEARCH_FRAMES, wait=wait)

    def _submit_search(self, items: Sequence[Chunk | EndOfFile]) -> None:
        """Have the detector search the frames of some chunks."""
        chunks = []
        for item in items:
            if item.file.media not in self._files:
                is_piece = item.file.piece.n > 1  # its tracks are made again, with other pieces
                tracking = self._finder.begin(item.file.kind, keeps_weak=is_piece)
                self._files[item.file.media] = _FileProgress(item.file, tracking)
            if isinstance(item, Chunk):
                chunks.append((self._files[item.file.media].tracking, item.frames))
        self._searches.append((items, self._finder.submit(chunks)))

    def _collect_search(self, readers: ReaderPool) -> None:
        """Cut out the faces of the oldest search, and free its frames."""
        items, search = self._searches.popleft()
        with self._watch.time("wait for faces"):
            search.faces.wait()
        faces_of_chunks = iter(self._finder.collect(search))
        for item in items:
            if isinstance(item, EndOfFile):
                self._waiting.append(item)
                continue
            progress, found = self._files[item.file.media], next(faces_of_chunks)
            if isinstance(found, DetectorError):
                progress.error = progress.error or found
                readers.abandon(item.file)
            elif not progress.error:
                self._waiting.append(self._cut_out(progress, item, found))
            readers.release(item)
        if self._is_batch_due():
            self._submit_batch()

    def _cut_out(self, progress: _FileProgress, chunk: Chunk, found: FoundFaces) -> CroppedFaces:
        frames, n_frames = chunk.frames, chunk.info.n_frames_container
        if n_frames:
            share_of_video = (int(frames.frame_index[-1]) + 1) / n_frames
            piece = chunk.file.piece
            progress.share = min(max(0.0, share_of_video * piece.n - piece.number), 1.0)
        self._counts["detected frames"] += len(frames.rgb)
        self._counts["detected faces"] += len(found.faces)
        with self._watch.time("crop"):
            limits = self._plan.config.quality
            return cut_out(chunk.file.media, frames, found, self._plan.card, limits)

    def _is_batch_due(self) -> bool:
        """Whether a batch is full, too many frames wait for it, or a video can be committed."""
        results = [item.result for item in self._waiting if isinstance(item, CroppedFaces)]
        n_ends = len(self._waiting) - len(results)
        return (
            sum(len(result.faces) for result in results) >= self._batch_size
            or sum(len(result.pts_s) for result in results) + n_ends >= MAX_WAITING_FRAMES
            or any(
                isinstance(item, EndOfFile) and item.file.kind == "video" for item in self._waiting
            )
        )

    def _submit_batch(self) -> None:
        """Have the waiting faces classified."""
        items, self._waiting = self._waiting, []
        faces = [item for item in items if isinstance(item, CroppedFaces)]
        self._batches.append(_Batch(items, Classification(faces, self._lanes.classify)))

    def _write_batch(self) -> None:
        """Write the rows of the oldest batch, and finish the files that end in it."""
        batch = self._batches.popleft()
        with self._watch.time("wait for probabilities"):
            results = iter(batch.classification.results())
        with self._watch.time("write"):
            for item in batch.items:
                if isinstance(item, EndOfFile):
                    self._finish(item)
                else:
                    self._append(next(results))

    def _append(self, result: ChunkResult) -> None:
        progress = self._files[result.media]
        self._results.append(progress.file, result)
        progress.n_faces += len(result.faces)
        self._counts["faces"] += len(result.faces)
        self._counts["frames"] += len(result.pts_s)

    def _finish(self, end: EndOfFile) -> None:
        progress = self._files.pop(end.file.media)
        error = end.outcome if isinstance(end.outcome, Exception) else None
        if self._retry_transient and is_transient(error):
            raise UnavailableError(f"{end.file.media}: {error}")
        row = self._results.finish(
            FileOutcome(
                progress.file,
                end.info,
                progress.error or end.outcome,
                n_faces=progress.n_faces,
                seconds=time.perf_counter() - progress.began,
                cuts=progress.tracking.cuts,
            )
        )
        self._counts[row.status] += 1
        self._size_done += progress.file.size_bytes
        self._watch.add("decode", end.seconds)
        if row.error:
            self._problems.append(Problem(row.media, row.status, row.error))
            logger.warning("%s is %s: %s", row.media, row.status, row.error)
        else:
            logger.info("%s is ok: %d faces", row.media, row.n_faces)

    def _report(self) -> None:
        size_under_way = sum(each.file.size_bytes * each.share for each in self._files.values())
        self._on_progress(
            Progress(
                n_files_done=sum(self._counts[status] for status in ("ok", "partial", "failed")),
                n_files=len(self._plan.todo),
                n_frames=self._counts["detected frames"],
                n_faces=self._counts["detected faces"],
                seconds=time.perf_counter() - self._began,
                share=min(1.0, (self._size_done + size_under_way) / self._size),
            )
        )
