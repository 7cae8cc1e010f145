"""`fer-batch` commands as processes of their own, and shards that survive what kills a process."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, cast

from fer_batch.distributed import child
from fer_batch.distributed.shard_results import set_aside
from fer_batch.distributed.shared_run import Shard, SharedRun
from fer_batch.errors import (
    EXIT_DISK_FULL,
    EXIT_UNAVAILABLE,
    StoreDiskFullError,
    StoreError,
    UnavailableError,
)
from fer_batch.results.parquet import writing
from fer_batch.storage.claims import Claim, ClaimLostError

LAST_LINES = 20
DEATHS = 2
"""Of processes, after which the file that they all worked on is set aside."""
WINDOWS_CRASH = 0xC000_0000
"""Exit codes of processes that crashed on Windows begin here."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended."""

    code: int
    """Exit code; below 0 when it was killed: minus the number of the signal."""
    said: str
    """The last lines of its standard error, or why it was killed."""

    @property
    def was_killed(self) -> bool:
        """Whether it did not end by itself."""
        return self.code < 0


def run_command(
    arguments: Sequence[str],
    *,
    timeout_s: float,
    on_log: Callable[[str], None],
    on_output: Callable[[str], None] = lambda line: None,
) -> Ended:
    """Run ``fer-batch`` in a process of its own, whatever native code it may hang or crash in.

    It ends when the process that called this dies.

    Args:
        arguments: Of the command.
        timeout_s: Seconds after which it is killed.
        on_log: Takes each line of its standard error.
        on_output: Takes each line of its standard output.
    """
    last = deque[str](maxlen=LAST_LINES)
    is_late = threading.Event()

    def kill() -> None:
        is_late.set()
        process.kill()

    def read(lines: IO[str], take: Callable[[str], None]) -> None:
        for line in lines:
            take(line.rstrip())

    def hear(line: str) -> None:
        last.append(line)
        on_log(line)

    with subprocess.Popen(  # noqa: S603 - arguments are ours
        [*child.COMMAND, "fer_batch", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        errors="replace",
        env=os.environ | {"PYTHONIOENCODING": "utf-8:backslashreplace"},
    ) as process:
        timer = threading.Timer(timeout_s, kill)
        reader = threading.Thread(target=read, args=(process.stdout, on_output), daemon=True)
        timer.start()
        reader.start()
        try:
            read(cast(IO[str], process.stderr), hear)
            code = process.wait()
        finally:
            timer.cancel()
            process.kill()
            reader.join()
    if is_late.is_set():
        return Ended(-signal.SIGTERM, f"killed after {timeout_s:g} s, as timeout_s says")
    if code >= WINDOWS_CRASH:
        last.append(f"stopped by the system: status {code:#x}")
        code -= 1 << 32
    elif code < 0:
        last.append(f"stopped by the system: {signal.strsignal(-code)}")
    return Ended(code, "\n".join(last))


def do_shard(
    out: Path,
    number: int,
    *,
    timeout_s: float,
    is_patient: bool = False,
    on_log: Callable[[str], None] = lambda line: None,
) -> bool:
    """Do one shard of the run under way; False when another process does it or has done it.

    When the process that works on it is killed, its files are halved and done in two processes, and
    so on. A file that was there twice is set aside: its row says ``failed`` and why.

    Args:
        out: Output folder.
        number: Of the shard.
        timeout_s: Seconds after which such a process is killed.
        is_patient: Raise when a file cannot be read now but may be later.
        on_log: Takes what the processes log.

    Raises:
        UnavailableError: With `is_patient`.
        StoreDiskFullError: There is no space left here; other hosts may have some.
        StoreError: The shard cannot be done here.
    """
    run = SharedRun.under_way(out)
    if run is None or (claim := run.take(number)) is None:
        return False
    with claim, contextlib.suppress(ClaimLostError):
        _do(run, run.shard(number), claim, partial(_work, timeout_s, is_patient, on_log))
        with writing(out):
            claim.finish()
        return True
    return False


def _do(
    run: SharedRun,
    shard: Shard,
    claim: Claim,
    work: Callable[[SharedRun, Shard, Claim, range], Ended],
) -> None:
    deaths: Counter[int] = Counter()
    spans = [range(len(shard.files))]
    while spans:
        span = spans.pop()
        ended = work(run, shard, claim, span)
        if not ended.was_killed:
            continue
        deaths.update(span)
        half = len(span) // 2
        if half:
            spans += [span[half:], span[:half]]
        elif deaths[span[0]] < DEATHS:
            spans.append(span)
        else:
            reason = f"ended {DEATHS} processes: {ended.said.splitlines()[-1]}"
            set_aside(run, shard.files[span[0]], reason, claim.check)


def _work(
    timeout_s: float,
    is_patient: bool,
    on_log: Callable[[str], None],
    run: SharedRun,
    shard: Shard,
    claim: Claim,
    span: range,
) -> Ended:
    """Do files of a shard in a process of their own."""

    def on_output(line: str) -> None:
        claim.share = (span.start + float(line) * len(span)) / len(shard.files)

    values = map(str, (run.id, shard.number, claim.generation, span.start, span.stop))
    arguments = ["work", str(run.out), *values, *["--patient"] * is_patient]
    ended = run_command(arguments, timeout_s=timeout_s, on_log=on_log, on_output=on_output)
    if ended.was_killed or not ended.code:
        return ended
    claim.check()
    errors = {EXIT_UNAVAILABLE: UnavailableError, EXIT_DISK_FULL: StoreDiskFullError}
    raise errors.get(ended.code, StoreError)(f"{shard.label}: {ended.said}")
