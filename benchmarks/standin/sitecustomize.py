"""What every Python with this folder on its PYTHONPATH does first: watch ``fer-batch work``.

It leaves a record of itself in the folder that RECORDS names. Where that holds a file ``shard_s``,
it does not decode, detect and classify but sleeps, so that a shard takes so many seconds from the
start of the process, and commits a part for each of its videos.
"""

import atexit
import json
import os
import sys
import time
from pathlib import Path

BEGAN = time.time()


def sleep_and_commit(out: Path, number: int, generation: int, end: float) -> None:
    """All that a process does for a shard, but the work."""
    from fer_batch.distributed.shared_run import SharedRun
    from fer_batch.results import store
    from tests.support.results import CARD, row

    run = SharedRun.current(out)
    with store.lock(out, shared=True):
        files = run.shard(number).files
        time.sleep(max(0, end - time.time()))
        for file in files:
            run.check(number, generation)
            stamp = {"size_bytes": file.size_bytes, "mtime_ns": file.mtime_ns}
            done = row(file.media, config_hash=run.config_hash, **stamp)
            part = store.part_id([file.media])
            with store.PartWriter(
                out, part, config_hash=run.config_hash, model_card_json=CARD
            ) as writer:
                writer.finish(done)
                writer.commit()


def record(records: Path) -> None:
    """Whose shard it was, when it was done, and the CPU time of that."""
    values = {"worker": os.getppid(), "began": BEGAN, "cpu_s": time.process_time()}
    (records / f"{os.getpid()}.json").write_text(json.dumps(values))


WORKER = ["-m", "fer_batch.distributed.child", "fer_batch", "work"]
if sys.orig_argv[1:5] == WORKER and "RECORDS" in os.environ:
    out, _, number, generation, *_ = sys.orig_argv[5:]
    records = Path(os.environ["RECORDS"])
    if (records / "shard_s").exists():
        shard_s = float((records / "shard_s").read_text())
        sleep_and_commit(Path(out), int(number), int(generation), BEGAN + shard_s)
        record(records)
        os._exit(0)
    atexit.register(record, records)
