"""Time to plan, track and end a run over many files, without the processing of the files."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.measuring import peak_mb

SIZES_MB = {"video": 10.0, "image": 0.1}
SHARD_MB = 100.0
IN_MEMORY = Path("/dev/shm")


class Phases:
    """CPU seconds by name of the activity."""

    def __init__(self) -> None:
        self.cpu_s: dict[str, float] = {}

    @contextmanager
    def time(self, name: str) -> Iterator[None]:
        """Add the CPU time of the block."""
        began = time.process_time()
        yield
        self.cpu_s[name] = self.cpu_s.get(name, 0.0) + time.process_time() - began


def files(kind: str, count: str, rows: str) -> dict[str, object]:
    """A run over this many files, whose results are invented or not written at all."""
    with tempfile.TemporaryDirectory(dir=IN_MEMORY if IN_MEMORY.is_dir() else None) as name:
        folder, out = Path(name, "in"), Path(name, "out")
        make_files(folder, kind, 0, int(count))
        return _run(folder, out, kind, int(count), bool(rows))


def make_files(folder: Path, kind: str, first: int, last: int) -> None:
    """Files with a size but no content, a thousand per folder."""
    suffix = {"video": "mp4", "image": "jpg"}[kind]
    for number in range(first, last):
        path = folder / f"{number // 1000:04}" / f"{number:07}.{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            file.truncate(int(SIZES_MB[kind] * 1e6))


def _run(folder: Path, out: Path, kind: str, count: int, has_rows: bool) -> dict[str, object]:
    from fer_batch.config import Config
    from fer_batch.distributed import shared_run
    from fer_batch.pipeline.plan import make_plan

    phases, began = Phases(), datetime.now(UTC)
    with phases.time("find and plan"):
        plan = make_plan([folder], out, Config())
    with phases.time("cut and write shards"):
        part = shared_run.take_part(plan, out, max_mb=SHARD_MB, split_mb=1000, lease_s=60)
        run = part.__enter__()
    for number in range(1, run.n_shards + 1):
        with phases.time("look for a free shard, claim it, say it is done"):
            _ = run.free(())[0]
            claim = run.take(number)
        with claim:
            with phases.time("write its rows"):
                if has_rows:
                    _commit(run, number)
            with phases.time("look for a free shard, claim it, say it is done"):
                claim.finish()
    began_poll = time.process_time()
    _ = run.free(()), run.share
    poll_ms = 1e3 * (time.process_time() - began_poll)
    with phases.time("end"):
        part.__exit__(None, None, None)
    with phases.time("summary"):
        done = shared_run.summary(plan, out, began)
    with phases.time("plan again: nothing to do"):
        again = make_plan([folder], out, Config())
    if has_rows and (done.n_ok != count or again.todo):
        raise SystemExit(f"{done}, then {len(again.todo)} are left")
    make_files(folder, kind, count, count + 10)
    with phases.time("plan, begin and end of a run over 10 more"):
        plan = make_plan([folder], out, Config())
        with shared_run.take_part(plan, out, max_mb=SHARD_MB, split_mb=1000, lease_s=60):
            pass
    return {
        "n_shards": run.n_shards,
        "peak_mb": peak_mb(),
        "poll_ms": poll_ms,
        "bytes": {
            table.name: sum(path.stat().st_size for path in table.iterdir())
            for table in (out / name for name in ("media", "frames", "faces"))
            if has_rows
        },
        "cpu_s": phases.cpu_s,
    }


def _commit(run: object, number: int) -> None:
    """Write parts as `fer-batch work` does: one for each video, one for the images of a shard."""
    from fer_batch.results import store
    from tests.support.results import CARD, row

    files = run.shard(number).files
    parts = [files] if files[0].kind == "image" else [[file] for file in files]
    for part in parts:
        name = store.part_id([file.media for file in part])
        with store.PartWriter(
            run.out, name, config_hash=run.config_hash, model_card_json=CARD
        ) as writer:
            for file in part:
                stamp = {"size_bytes": file.size_bytes, "mtime_ns": file.mtime_ns}
                writer.finish(row(file.media, config_hash=run.config_hash, **stamp))
            writer.commit()
