"""The process that does files of a shard; the `supervisor` starts and watches it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from fer_batch.distributed.pieces import is_finished, join_pieces
from fer_batch.distributed.shard_results import PIECES, collector_for
from fer_batch.distributed.shared_run import SharedRun
from fer_batch.pipeline.process import Progress, run_plan
from fer_batch.records import MediaFile
from fer_batch.results import store
from fer_batch.storage.claims import ClaimLostError


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
        is_patient: Raise an error when a disk or network does not answer; see `run_plan`.
        on_progress: Called whenever frames are done.
        stop: Ends it early.

    Raises:
        ClaimLostError: The shard was given to another process.
        FerError: As `run_plan`.
    """
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
            summary = run_plan(
                plan, collector, retry_transient=is_patient, on_progress=on_progress, stop=stop
            )
    return not summary.interrupted


def _left(files: Sequence[MediaFile], run: SharedRun) -> tuple[MediaFile, ...]:
    """Files that are not done; still images are done together, in one part, or not at all."""
    if files[0].kind == "image":
        part = store.part_id([file.media for file in files])
        return () if store.is_committed(run.out, part) else tuple(files)
    if files[0].piece.n > 1:
        return tuple(file for file in files if not is_finished(run.folder / PIECES, file))
    parts = [store.part_id([file.media]) for file in files]
    return tuple(store.pending(files, run.out, config_hash=run.config_hash, parts=parts))
