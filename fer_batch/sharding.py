"""A run cut into shards that are processes of their own: what they share and leave open.

Each shard is done by ``fer-batch process --only LIST`` with the inputs and settings of the run.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from fer_batch import store
from fer_batch.config import Config
from fer_batch.manifest import run_manifest
from fer_batch.plan import Plan, make_plan, shards


@dataclass(frozen=True, slots=True)
class Shard:
    """Files that one process does."""

    label: str
    """For people: ``shard 3: b/c.mp4 and 2 more``."""
    path: Path
    """Text file with the names of the files, one a line."""


@dataclass(frozen=True, slots=True)
class ShardedRun:
    """The work of a run, cut into shards that can be done in any order or at the same time."""

    plan: Plan
    shards: tuple[Shard, ...]


@contextmanager
def sharded(
    inputs: Sequence[Path], out: Path, config: Config, *, force: bool = False, max_mb: float
) -> Iterator[ShardedRun]:
    """Plan a run; inside the block the shards are done, leaving it writes run.json.

    The output folder is brought in order first. Until the block is left, no other run may be cut
    into shards for it.

    Args:
        inputs: Files and folders, searched recursively.
        out: Output folder; it need not exist.
        config: How.
        force: Also the files that are done.
        max_mb: Megabytes of files in one shard; a larger file has one of its own.

    Raises:
        MediaError, WeightsError: As `make_plan`.
        StoreError: Another run is writing to the output folder, or it cannot be written.
    """
    began = datetime.now(UTC)
    folder = out / ".shards"
    with store.lock(folder):
        try:
            with store.lock(out):
                store.reconcile(out)
            plan = make_plan(inputs, out, config, force=force)
            yield ShardedRun(plan, tuple(_write_lists(folder, shards(plan.todo, max_mb))))
            with store.lock(out):  # shards that were killed leave rows that nobody else removes
                store.reconcile(out)
                _write_run(plan, out, began)
        finally:
            shutil.rmtree(folder)


def _write_lists(folder: Path, medias_of_shards: Iterator[Sequence[str]]) -> Iterator[Shard]:
    for number, medias in enumerate(medias_of_shards, start=1):
        path = folder / f"{number:04}.txt"
        path.write_text("\n".join(medias), encoding="utf-8")
        more = f" and {len(medias) - 1} more" if len(medias) > 1 else ""
        yield Shard(f"shard {number}: {medias[0]}{more}", path)


def _write_run(plan: Plan, out: Path, began: datetime) -> None:
    """Write run.json, which no shard can write, from the rows that the shards wrote."""
    todo = {file.media for file in plan.todo}
    rows = [
        row
        for row in store.media_rows(out)
        if row.media in todo and row.config_hash == plan.config_hash
    ]
    statuses = Counter(row.status for row in rows)
    counts = {
        "n_ok": statuses["ok"],
        "n_partial": statuses["partial"],
        "n_failed": statuses["failed"],
        "n_skipped": plan.n_done,
        "n_faces": sum(row.n_faces for row in rows),
        "seconds": (datetime.now(UTC) - began).total_seconds(),
        "interrupted": len(rows) < len(todo),
    }
    device = plan.config.runtime.device
    manifest = run_manifest(plan, began=began, device=device, counts=counts, stage_seconds={})
    store.write_run(out, manifest)
