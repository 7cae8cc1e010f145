"""The order of the stages: readers -> detection -> tracks -> crops -> classification -> tables.

Readers decode several files at once into a bounded queue. One loop takes what is ready, detects and
crops faces, and collects crops across frames and files until a classification batch is full. Rows
go to the collector in order, and a file is committed when its last face is classified.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fer_batch import store
from fer_batch.classify import Classifier, pick_device
from fer_batch.collect import Collector
from fer_batch.config import Config, cpu_threads
from fer_batch.crop import check_crop, crop
from fer_batch.detectors import build_detector
from fer_batch.finding import FaceFinder, FileFaces, Found
from fer_batch.manifest import media_row, run_manifest
from fer_batch.plan import Plan, make_plan
from fer_batch.reading import Chunk, End, ReaderPool
from fer_batch.schema import (
    EMOTIONS,
    ChunkResult,
    DetectorError,
    FerError,
    Floats,
    MediaFile,
    Status,
)

logger = logging.getLogger(__name__)

DETECT_FRAMES = 64
"""Frames that go to the detector together, when as many are ready."""
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


@dataclass(frozen=True, slots=True)
class Problem:
    """A file that is not ok."""

    media: str
    status: Status
    error: str


@dataclass(frozen=True, slots=True)
class Summary:
    """What a run did."""

    n_ok: int
    n_partial: int
    n_failed: int
    n_skipped: int
    """Files whose rows were there already."""
    n_frames: int
    n_faces: int
    seconds: float
    problems: tuple[Problem, ...]
    interrupted: bool
    """True when the run was asked to stop before its end."""


def process(
    inputs: Sequence[Path],
    out: Path,
    config: Config,
    *,
    force: bool = False,
    only: Collection[str] | None = None,
    on_progress: Callable[[Progress], None] = lambda progress: None,
    stop: threading.Event | None = None,
) -> Summary:
    """Process files and folders into the tables of `out`; what is done already is left alone.

    Args:
        inputs: Files and folders, searched recursively.
        out: Output folder.
        config: How.
        force: Do again what is done.
        only: Names (relative POSIX paths) to keep. Several such runs may write to one folder at the
            same time, as long as no file is in two of them.
        on_progress: Called from this thread whenever frames are done.
        stop: When set, the run ends early; what is complete stays.

    Returns:
        What was done; files that failed are in it, they raise nothing.

    Raises:
        ConfigError, MediaError, WeightsError, DetectorError: The run cannot begin.
        StoreError: The output cannot be written; files committed before stay.
    """
    started, began = time.perf_counter(), datetime.now(UTC)
    with store.lock(out, shared=only is not None):
        if only is None:
            store.reconcile(out)
        plan = make_plan(inputs, out, config, force=force, only=only)
        store.forget(out, [file.media for file in plan.todo if file.kind == "image"])
        run = _Run(plan, config, on_progress)
        if plan.todo:
            with Collector(
                out,
                plan.todo,
                config_hash=plan.config_hash,
                model_card_json=plan.card.model_dump_json(),
            ) as collector:
                run.work(collector, stop or threading.Event())
                collector.close()
        summary = run.summary(time.perf_counter() - started)
        if only is None:
            counts = {name: value for name, value in asdict(summary).items() if name != "problems"}
            store.write_run(
                out,
                run_manifest(
                    plan, began=began, device=run.device, counts=counts, stage_seconds=run.seconds
                ),
            )
    return summary


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


class _Run:
    """The loop over all files of one plan, and what it counts."""

    def __init__(self, plan: Plan, config: Config, on_progress: Callable[[Progress], None]) -> None:
        self._plan, self._config, self._on_progress = plan, config, on_progress
        self._jobs: dict[str, _Job] = {}
        self._waiting: list[_Detected | End] = []
        self._size = sum(file.size_bytes for file in plan.todo) or 1
        self._size_done = 0
        self._counts: Counter[str] = Counter()
        self._problems: list[Problem] = []
        self._interrupted = False
        self._began = time.perf_counter()
        self.device = "none"
        self.seconds: defaultdict[str, float] = defaultdict(float)
        """Wall time by stage; decoding is summed over the readers, which run beside the rest."""

    def work(self, collector: Collector, stop: threading.Event) -> None:
        """Do everything that the plan holds, until it is done or `stop` is set."""
        runtime = self._config.runtime
        device = pick_device(runtime.device)
        threads = cpu_threads(runtime)
        torch.set_num_threads(threads)
        self.device = str(device)
        with self._timed("load"):
            check_crop(self._plan.card, self._config.detector)
            detector = build_detector(self._config.detector, threads, device)
            self._finder = FaceFinder(detector, self._config, self._timed)
            self._classifier = Classifier(
                self._plan.weights,
                device,
                batch_size=runtime.batch_size,
                flip=self._config.classifier.flip,
            )
        self._collector = collector
        with ReaderPool(self._plan.todo, self._config) as pool:
            while items := self._take(pool):
                self._do(items, pool)
                self._report()
                if stop.is_set():
                    self._interrupted = True
                    break
            self._classify()
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
            problems=tuple(sorted(self._problems, key=lambda problem: problem.media)),
            interrupted=self._interrupted,
        )

    def _take(self, pool: ReaderPool) -> list[Chunk | End]:
        with self._timed("wait for frames"):
            return pool.take(DETECT_FRAMES)

    def _do(self, items: Sequence[Chunk | End], pool: ReaderPool) -> None:
        chunks = []
        for item in items:
            job = self._jobs.get(item.file.media) or self._begin(item.file)
            if isinstance(item, Chunk) and not job.error:
                chunks.append(item)
        found = self._finder.find(
            [(self._jobs[chunk.file.media].faces, chunk.frames) for chunk in chunks]
        )
        for chunk, each in zip(chunks, found, strict=True):
            job = self._jobs[chunk.file.media]
            if isinstance(each, DetectorError):
                job.error = each
                pool.abandon(chunk.file)
            else:
                self._waiting.append(self._prepare(job, chunk, each))
                self._counts["detected frames"] += len(chunk.frames.rgb)
                self._counts["detected faces"] += len(each.faces)
        self._waiting += [item for item in items if isinstance(item, End)]
        if self._is_enough():
            self._classify()

    def _is_enough(self) -> bool:
        """Whether a batch is full, too many rows wait for it, or a video waits to be committed."""
        results = [item.result for item in self._waiting if isinstance(item, _Detected)]
        n_ends = len(self._waiting) - len(results)
        return (
            sum(len(result.faces) for result in results) >= self._config.runtime.batch_size
            or sum(len(result.pts_s) for result in results) + n_ends >= WAITING_FRAMES
            or any(isinstance(item, End) and item.file.kind == "video" for item in self._waiting)
        )

    def _begin(self, file: MediaFile) -> _Job:
        job = _Job(file, self._finder.begin(file.kind))
        self._jobs[file.media] = job
        return job

    def _prepare(self, job: _Job, chunk: Chunk, found: Found) -> _Detected:
        frames = chunk.frames
        with self._timed("crop"):
            crops = crop(frames.rgb, found.faces, self._classifier.card)
        if chunk.info.n_frames_container:
            job.share = min(1.0, (int(frames.frame_index[-1]) + 1) / chunk.info.n_frames_container)
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
        """Classify the crops that wait, hand on the rows that wait, finish the files that ended."""
        waiting, self._waiting = self._waiting, []
        crops = [item.crops for item in waiting if isinstance(item, _Detected)]
        probs = np.empty((0, len(EMOTIONS)), np.float32)
        if crops:
            with self._timed("classify"):
                probs = self._classifier(torch.cat(crops))
        row = 0
        with self._timed("write"):
            for item in waiting:
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
        row = media_row(
            job.file,
            end.info,
            job.error or end.outcome,
            plan=self._plan,
            n_faces=job.n_faces,
            seconds=time.perf_counter() - job.began,
        )
        self._collector.finish(job.file, row)
        self._counts[row.status] += 1
        self._size_done += job.file.size_bytes
        self.seconds["decode"] += end.seconds
        if row.error:
            self._problems.append(Problem(row.media, row.status, row.error))
            logger.warning("%s is %s: %s", row.media, row.status, row.error)

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

    @contextlib.contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] += time.perf_counter() - started
