"""The process that does files of a shard; `fer_batch.supervise` starts and watches it."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from fer_batch import store
from fer_batch.claims import ClaimLostError
from fer_batch.collect import Collector, Ending
from fer_batch.pieces import PieceCollector, is_finished, join_pieces
from fer_batch.plan import Plan
from fer_batch.schema import MediaError, MediaFile
from fer_batch.sharding import SharedRun
from fer_batch.track import CutDetector

if TYPE_CHECKING:
    from fer_batch.pipeline import Progress

PIECES = "pieces"
"""Folder of a run under way."""


def work(  # noqa: PLR0913 - they come from a command line
    out: Path,
    run_id: str,
    number: int,
    generation: int,
    span: slice,
    *,
    is_patient: bool,
    on_progress: Callable[[Progress], None],
    stop: threading.Event,
) -> bool:
    """Do files of a shard, except those that an earlier process has finished.

    Returns whether it came to the end.

    Args:
        out: Output folder.
        run_id: Of the run under way there.
        number: Of the shard.
        generation: Of the claim on it; nothing is committed when there is a later one.
        span: Which files.
        is_patient: As for `pipeline.work`; so the next.
        on_progress: Called whenever frames are done.
        stop: Ends it early.

    Raises:
        ClaimLostError: The shard was given to another process.
        FerError: As `pipeline.work`.
    """
    from fer_batch import pipeline  # not for those who only set files aside: it loads torch

    run = SharedRun.under_way(out)
    if run is None or run.id != run_id:
        raise ClaimLostError(f"run {run_id} has ended in {out}")
    before_commit = partial(run.check, number, generation)
    before_commit()
    shard = run.shard(number)
    with store.lock(out, shared=True):
        if shard.joins:
            (file,), folder = shard.files, run.folder / PIECES
            join_pieces(
                run.plan(()), file, len(shard.joins), folder, out, before_commit=before_commit
            )
            return True
        plan = run.plan(_left(shard.files[span], run))
        with collector_for(run, plan, before_commit) as collector:
            summary = pipeline.work(
                plan, collector, is_patient=is_patient, on_progress=on_progress, stop=stop
            )
    return not summary.interrupted


def set_aside(
    run: SharedRun, file: MediaFile, reason: str, before_commit: Callable[[], None]
) -> None:
    """Let a file, or a piece of it, count as failed without reading it."""
    plan = run.plan([file])
    error = MediaError(f"set aside, as it {reason}", file.path)
    ending = Ending(file, None, error, n_faces=0, seconds=0, cuts=CutDetector(1))
    with collector_for(run, plan, before_commit) as collector:
        collector.finish(ending)
        collector.close()


def collector_for(
    run: SharedRun, plan: Plan, before_commit: Callable[[], None]
) -> PieceCollector | Collector:
    """Where the results of files go, all of one shard."""
    if any(file.piece.n > 1 for file in plan.todo):
        return PieceCollector(run.folder / PIECES, plan, before_commit=before_commit)
    return Collector(run.out, plan, image_part_s=math.inf, before_commit=before_commit)


def _left(files: Sequence[MediaFile], run: SharedRun) -> tuple[MediaFile, ...]:
    """Files that are not done; still images are done together, in one part, or not at all."""
    if files[0].kind == "image":
        part = store.part_id([file.media for file in files])
        return () if store.is_committed(run.out, part) else tuple(files)
    if files[0].piece.n > 1:
        return tuple(file for file in files if not is_finished(run.folder / PIECES, file))
    parts = [store.part_id([file.media]) for file in files]
    return tuple(store.pending(files, run.out, config_hash=run.config_hash, parts=parts))
