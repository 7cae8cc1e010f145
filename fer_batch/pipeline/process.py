"""The order of the stages: readers -> detection -> tracks -> crops -> classification -> tables.

Readers decode ahead into a bounded queue. One loop takes what is ready and has it searched for
faces by the lanes; while they work, it tracks and crops the faces found before, and collects crops
across frames and files until a batch for classification is full. Rows go to the collector in order,
and a file is committed when its last face is classified.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fer_batch.config import Config
from fer_batch.emotions import EMOTIONS
from fer_batch.errors import DetectorError, FerError, UnavailableError, may_pass
from fer_batch.faces.crop import crop
from fer_batch.pipeline.collector import Collector, Ending, Results
from fer_batch.pipeline.face_finder import FaceFinder, FileFaces, Found, Search
from fer_batch.pipeline.lanes import Lanes, Pending, Resources
from fer_batch.pipeline.manifest import Problem, Summary, run_manifest
from fer_batch.pipeline.plan import Plan, make_plan
from fer_batch.pipeline.readers import Chunk, End, ReaderPool
from fer_batch.pipeline.stopwatch import Stopwatch
from fer_batch.records import ChunkResult, Floats, MediaFile
from fer_batch.results import store

logger = logging.getLogger(__name__)

SEARCH_FRAMES = 64
"""Frames that are searched together, when as many are ready."""
BATCHES = 2
"""Batches of faces that may wait for their probabilities while the next is collected."""
WAITING_FRAMES = 4096
"""Frames whose rows may wait for a classification batch to fill."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run has come."""

    n_files_done: int
    n_files: int
    n_frames: int
    """Frames in which faces were looked for; so the next."""
    n_faces: int
    seconds: float
    """Since the run began, above 0."""
    share: float
    """Part of the work that is done, in [0, 1], by size of the files."""

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
    """Process files and folders into the tables of `out`; what is done already is left alone.

    Args:
        inputs: Files and folders, searched recursively.
        out: Output folder.
        config: How.
        force: Do again what is done.
        on_progress: Called from this thread whenever frames are done.
        stop: When set, the run ends early; what is complete stays.

    Returns:
        What was done; files that failed are in it, they raise nothing.

    Raises:
        ConfigError, MediaError, WeightsError, DetectorError: The run cannot begin.
        StoreError: The output cannot be written; files committed before stay.
    """
    began = datetime.now(UTC)
    with store.lock(out):
        store.reconcile(out)
        plan = make_plan(inputs, out, config, force=force)
        store.forget(out, [file.media for file in plan.todo if file.kind == "image"])
        with Collector(out, plan) as collector:
            summary = work(plan, collector, on_progress=on_progress, stop=stop)
        store.write_run(out, run_manifest(plan, began, summary))
    return summary


def work(
    plan: Plan,
    collector: Results,
    *,
    is_patient: bool = False,
    on_progress: Callable[[Progress], None] = lambda progress: None,
    stop: threading.Event | None = None,
) -> Summary:
    """Do the files of a plan.

    Args:
        plan: The work; its configuration says how.
        collector: Takes the rows, and is closed when all is done.
        is_patient: Raise when a file cannot be read now but may be later, instead of calling it
            failed.
        on_progress: As for `process`.
        stop: As for `process`.

    Raises:
        UnavailableError: With `is_patient`.
        WeightsError, DetectorError, StoreError: As for `process`.
    """
    started = time.perf_counter()
    run = _Run(plan, is_patient, on_progress)
    if plan.todo:
        run.work(collector, stop or threading.Event())
        collector.close()
    return run.summary(time.perf_counter() - started)


@dataclass(slots=True)
class _Job:
    """A file under way."""

    file: MediaFile
    faces: FileFaces
    began: float = field(default_factory=time.perf_counter)
    n_faces: int = 0
    share: float = 0.0
    """Part of the file that went through the detector."""
    error: FerError | None = None


@dataclass(frozen=True, slots=True, eq=False)
class _Detected:
    """A chunk whose faces wait for their classification; its pixels are gone."""

    job: _Job
    result: ChunkResult
    """Probabilities are NaN."""
    crops: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class _Batch:
    """Rows that wait for their probabilities, and files that end after them."""

    items: Sequence[_Detected | End]
    probs: Pending[Floats] | None
    """None where there is no face."""

    def is_done(self) -> bool:
        return self.probs is None or self.probs.is_done()


class _Run:
    """The loop over all files of one plan, and what it counts."""

    def __init__(
        self, plan: Plan, is_patient: bool, on_progress: Callable[[Progress], None]
    ) -> None:
        self._plan, self._config, self._on_progress = plan, plan.config, on_progress
        self._is_patient = is_patient
        self._jobs: dict[str, _Job] = {}
        self._searches: deque[tuple[Sequence[Chunk | End], Search]] = deque()
        self._waiting: list[_Detected | End] = []
        self._batches: deque[_Batch] = deque()
        self._size = sum(file.size_bytes for file in plan.todo) or 1
        self._size_done = 0
        self._counts: Counter[str] = Counter()
        self._problems: list[Problem] = []
        self._interrupted = False
        self._began = time.perf_counter()
        self._device = "none"
        self._watch = Stopwatch()

    def work(self, collector: Results, stop: threading.Event) -> None:
        """Do everything that the plan holds, until it is done or `stop` is set."""
        resources = Resources.of(self._config)
        self._device = ", ".join(map(str, resources.devices))
        self._batch_size = resources.batch_size
        self._collector = collector
        with (
            ReaderPool(
                self._plan.todo,
                self._config,
                readers=resources.readers,
                buffer_mb=resources.buffer_mb,
            ) as readers,
            self._load(resources) as self._lanes,
        ):
            self._finder = FaceFinder(self._lanes.detect, self._config, self._watch)
            while self._advance(readers):
                self._report()
                if stop.is_set():
                    self._interrupted = True
                    break
            while self._searches:
                self._follow(readers)
            self._classify()
            while self._batches:
                self._write()
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

    def _advance(self, readers: ReaderPool) -> bool:
        """Begin a search, go on with one that has ended; False when nothing is left to begin."""
        items = self._take(readers, wait=not self._searches)
        if not items and self._searches:
            with self._watch.time("wait for faces"):
                self._searches[0][1].faces.wait()
            items = self._take(readers, wait=False)
        if items:
            self._look(items)
        n_behind = sum(search.n_frames for _, search in list(self._searches)[1:])
        if self._searches and (n_behind >= self._lanes.n_frames or not items):
            self._follow(readers)
        while self._batches and (len(self._batches) > BATCHES or self._batches[0].is_done()):
            self._write()
        return bool(self._searches) or not readers.at_end

    def _load(self, resources: Resources) -> Lanes:
        with self._watch.time("load"):
            return Lanes(self._plan, resources, self._watch)

    def _take(self, readers: ReaderPool, *, wait: bool) -> Sequence[Chunk | End]:
        with self._watch.time("wait for frames"):
            return readers.take(SEARCH_FRAMES, wait=wait)

    def _look(self, items: Sequence[Chunk | End]) -> None:
        parts = []
        for item in items:
            job = self._jobs.get(item.file.media) or self._begin(item.file)
            if isinstance(item, Chunk):
                parts.append((job.faces, item.frames))
        self._searches.append((items, self._finder.look(parts)))

    def _follow(self, readers: ReaderPool) -> None:
        """Take the faces of the oldest search."""
        items, search = self._searches.popleft()
        with self._watch.time("wait for faces"):
            search.faces.wait()
        found = iter(self._finder.find(search))
        for item in items:
            if isinstance(item, End):
                self._waiting.append(item)
                continue
            job, each = self._jobs[item.file.media], next(found)
            if isinstance(each, DetectorError):
                job.error = job.error or each
                readers.abandon(item.file)
            if isinstance(each, Found) and not job.error:
                self._waiting.append(self._prepare(job, item, each))
                self._counts["detected frames"] += len(item.frames.rgb)
                self._counts["detected faces"] += len(each.faces)
            readers.release(item)
        if self._is_enough():
            self._classify()

    def _is_enough(self) -> bool:
        """Whether a batch is full, too many rows wait for it, or a video waits to be committed."""
        results = [item.result for item in self._waiting if isinstance(item, _Detected)]
        n_ends = len(self._waiting) - len(results)
        return (
            sum(len(result.faces) for result in results) >= self._batch_size
            or sum(len(result.pts_s) for result in results) + n_ends >= WAITING_FRAMES
            or any(isinstance(item, End) and item.file.kind == "video" for item in self._waiting)
        )

    def _begin(self, file: MediaFile) -> _Job:
        job = _Job(file, self._finder.begin(file.kind))
        self._jobs[file.media] = job
        return job

    def _prepare(self, job: _Job, chunk: Chunk, found: Found) -> _Detected:
        frames = chunk.frames
        with self._watch.time("crop"):
            crops = crop(frames.rgb, found.faces, self._plan.card)
        if chunk.info.n_frames_container:
            share = (int(frames.frame_index[-1]) + 1) / chunk.info.n_frames_container
            share = share * job.file.piece.n - job.file.piece.number
            job.share = min(max(0.0, share), 1.0)
        result = ChunkResult(
            media=chunk.file.media,
            frame_index=frames.frame_index,
            pts_s=frames.pts_s,
            is_damaged=frames.is_damaged,
            faces=found.faces,
            track_id=found.track_id,
            probs=np.full((len(found.faces), len(EMOTIONS)), np.nan, np.float32),
        )
        return _Detected(job, result, crops)

    def _classify(self) -> None:
        """Have the faces that wait classified, and write what has been."""
        waiting, self._waiting = self._waiting, []
        crops = [item.crops for item in waiting if isinstance(item, _Detected) and len(item.crops)]
        probs = self._lanes.classify(torch.cat(crops)) if crops else None
        self._batches.append(_Batch(waiting, probs))

    def _write(self) -> None:
        """Hand on the rows of the oldest batch, finish the files that end with it."""
        batch = self._batches.popleft()
        probs = np.empty((0, len(EMOTIONS)), np.float32)
        if batch.probs:
            with self._watch.time("wait for probabilities"):
                probs = batch.probs.result()
        row = 0
        with self._watch.time("write"):
            for item in batch.items:
                if isinstance(item, End):
                    self._finish(item)
                else:
                    self._append(item, probs[row : row + len(item.crops)])
                    row += len(item.crops)

    def _append(self, item: _Detected, probs: Floats) -> None:
        self._collector.append(item.job.file, replace(item.result, probs=probs))
        item.job.n_faces += len(probs)
        self._counts["faces"] += len(probs)
        self._counts["frames"] += len(item.result.pts_s)

    def _finish(self, end: End) -> None:
        job = self._jobs.pop(end.file.media)
        if self._is_patient and isinstance(end.outcome, Exception) and may_pass(end.outcome):
            raise UnavailableError(f"{end.file.media}: {end.outcome}")
        row = self._collector.finish(
            Ending(
                job.file,
                end.info,
                job.error or end.outcome,
                n_faces=job.n_faces,
                seconds=time.perf_counter() - job.began,
                cuts=job.faces.cuts,
            )
        )
        self._counts[row.status] += 1
        self._size_done += job.file.size_bytes
        self._watch.add("decode", end.seconds)
        if row.error:
            self._problems.append(Problem(row.media, row.status, row.error))
            logger.warning("%s is %s: %s", row.media, row.status, row.error)
        else:
            logger.info("%s is ok: %d faces", row.media, row.n_faces)

    def _report(self) -> None:
        shares = sum(job.file.size_bytes * job.share for job in self._jobs.values())
        self._on_progress(
            Progress(
                n_files_done=sum(self._counts[status] for status in ("ok", "partial", "failed")),
                n_files=len(self._plan.todo),
                n_frames=self._counts["detected frames"],
                n_faces=self._counts["detected faces"],
                seconds=time.perf_counter() - self._began,
                share=min(1.0, (self._size_done + shares) / self._size),
            )
        )
