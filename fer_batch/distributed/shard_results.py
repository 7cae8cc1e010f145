"""Where the results of a shard go. Loads no network, as who watches over a shard needs it too."""

from __future__ import annotations

import math
from collections.abc import Callable

from fer_batch.distributed.pieces import PieceCollector
from fer_batch.distributed.shared_run import SharedRun
from fer_batch.errors import MediaError
from fer_batch.faces.tracking import CutDetector
from fer_batch.pipeline.collector import Collector, FileOutcome
from fer_batch.pipeline.plan import Plan
from fer_batch.records import MediaFile

PIECES = "pieces"
"""Folder of a run under way."""


def set_aside(
    run: SharedRun, file: MediaFile, reason: str, before_commit: Callable[[], None]
) -> None:
    """Let a file, or a piece of it, count as failed without reading it."""
    plan = run.plan([file])
    error = MediaError(f"set aside, as it {reason}", file.path)
    outcome = FileOutcome(file, None, error, n_faces=0, seconds=0, cuts=CutDetector(1))
    with collector_for(run, plan, before_commit) as collector:
        collector.finish(outcome)
        collector.close()


def collector_for(
    run: SharedRun, plan: Plan, before_commit: Callable[[], None]
) -> PieceCollector | Collector:
    """Where the results of files go, all of one shard."""
    if any(file.piece.n > 1 for file in plan.todo):
        return PieceCollector(run.folder / PIECES, plan, before_commit=before_commit)
    return Collector(run.out, plan, image_part_s=math.inf, before_commit=before_commit)
