"""The process that does files of a shard; `fer_batch.supervise` starts and watches it."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from fer_batch import pipeline, store
from fer_batch.claims import ClaimLostError
from fer_batch.collect import Collector
from fer_batch.manifest import Summary
from fer_batch.pipeline import Progress
from fer_batch.schema import MediaFile
from fer_batch.sharding import SharedRun


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
) -> Summary:
    """Do files of a shard, except those that an earlier process has finished.

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
    run = SharedRun.under_way(out)
    if run is None or run.id != run_id:
        raise ClaimLostError(f"run {run_id} has ended in {out}")
    run.check(number, generation)
    with store.lock(out, shared=True):
        plan = run.plan(_left(run.shard(number).files[span], out, run.config_hash))
        with Collector(
            out,
            plan,
            image_part_s=math.inf,
            before_commit=partial(run.check, number, generation),
        ) as collector:
            return pipeline.work(
                plan, collector, is_patient=is_patient, on_progress=on_progress, stop=stop
            )


def _left(files: Sequence[MediaFile], out: Path, config_hash: str) -> tuple[MediaFile, ...]:
    """Files that are not done; still images are done together, in one part, or not at all."""
    if files[0].kind == "image":
        part = store.part_id([file.media for file in files])
        return () if store.is_committed(out, part) else tuple(files)
    parts = [store.part_id([file.media]) for file in files]
    return tuple(store.pending(files, out, config_hash=config_hash, parts=parts))
