"""What the process that does files of a shard runs; the `supervisor` starts and watches it."""

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
    file_range: slice,
    *,
    retry_transient: bool,
    on_progress: Callable[[Progress], None],
    stop: threading.Event,
) -> bool:
    """Do files of a shard, except those that an earlier process has finished.

    Args:
        out: Output folder.
        run_id: Id of its current run.
        number: Number of the shard.
        generation: Generation of the claim on the shard. If there is a later one, nothing is
            committed.
        file_range: Positions of the files in the shard.
        retry_transient: As for `run_plan`.
        on_progress: Called whenever frames are done.
        stop: When set, the work ends early.

    Returns:
        Whether all these files are done.

    Raises:
        ClaimLostError: The shard was given to another process.
        FerError: As for `run_plan`.
    """
    run = SharedRun.current(out)
    if run is None or run.id != run_id:
        raise ClaimLostError(f"run {run_id} has ended in {out}")
    before_commit = partial(run.check, number, generation)
    before_commit()
    shard = run.shard(number)
    with store.lock(out, shared=True):
        if shard.piece_shards:
            (file,), n_pieces = shard.files, len(shard.piece_shards)
            join_pieces(
                run.plan(()),
                file,
                n_pieces,
                run.folder / PIECES,
                out,
                before_commit=before_commit,
            )
            return True
        plan = run.plan(_unfinished(shard.files[file_range], run))
        with collector_for(run, plan, before_commit) as collector:
            summary = run_plan(
                plan, collector, retry_transient=retry_transient, on_progress=on_progress, stop=stop
            )
    return not summary.interrupted


def _unfinished(files: Sequence[MediaFile], run: SharedRun) -> tuple[MediaFile, ...]:
    """The files that are not done. Still images are one part: all of them are done, or none."""
    if files[0].kind == "image":
        part = store.part_id([file.media for file in files])
        return () if store.is_committed(run.out, part) else tuple(files)
    if files[0].piece.n > 1:
        return tuple(file for file in files if not is_finished(run.folder / PIECES, file))
    parts = [store.part_id([file.media]) for file in files]
    return tuple(store.pending(files, run.out, config_hash=run.config_hash, parts=parts))
