"""Run `fer-batch` commands in processes of their own, and do shards even if such processes die."""

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
"""Number of processes that may die of the same file before the file is set aside."""
WINDOWS_CRASH = 0xC000_0000
"""Smallest exit code of a process that crashed on Windows."""


@dataclass(frozen=True, slots=True)
class CommandResult:
    """How a command ended."""

    exit_code: int
    """Exit code; below 0 if the process was killed: minus the number of the signal."""
    message: str
    """The last lines of its standard error, or why it was killed."""

    @property
    def was_killed(self) -> bool:
        """Whether a signal ended it."""
        return self.exit_code < 0


def run_command(
    arguments: Sequence[str],
    *,
    timeout_s: float,
    on_log: Callable[[str], None],
    on_output: Callable[[str], None] = lambda line: None,
) -> CommandResult:
    """Run ``fer-batch`` in a process of its own, as native code may hang or crash.

    The process ends when the calling process dies.

    Args:
        arguments: Arguments of the command.
        timeout_s: Seconds after which the process is killed.
        on_log: Called with each line of its standard error.
        on_output: Called with each line of its standard output.
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
        return CommandResult(-signal.SIGTERM, f"killed after {timeout_s:g} s, as timeout_s says")
    if code >= WINDOWS_CRASH:
        last.append(f"stopped by the system: status {code:#x}")
        code -= 1 << 32
    elif code < 0:
        last.append(f"stopped by the system: {signal.strsignal(-code)}")
    return CommandResult(code, "\n".join(last))


def do_shard(
    out: Path,
    number: int,
    *,
    timeout_s: float,
    retry_transient: bool = False,
    on_log: Callable[[str], None] = lambda line: None,
) -> bool:
    """Do one shard of the current run, in a process of its own.

    If that process is killed, half of its files are done in one new process and half in another,
    and so on. A file that alone killed as many processes as `DEATHS` is set aside: its media row
    says ``failed`` and why.

    Args:
        out: Output folder.
        number: Number of the shard.
        timeout_s: Seconds after which a process is killed.
        retry_transient: Raise if a file cannot be read now but perhaps later, so that the caller
            can try again. Otherwise the file fails.
        on_log: Called with each line that the processes log.

    Returns:
        Whether the shard was done here. False if another process does it or has done it.

    Raises:
        UnavailableError: Only with `retry_transient`.
        StoreDiskFullError: This host has no space left; other hosts may have some.
        StoreError: The shard cannot be done here.
    """
    run = SharedRun.current(out)
    if run is None or (claim := run.take(number)) is None:
        return False
    with claim, contextlib.suppress(ClaimLostError):
        start = partial(_run_worker, timeout_s, retry_transient, on_log)
        _do_files(run, run.shard(number), claim, start)
        with writing(out):
            claim.finish()
        return True
    return False


def _do_files(
    run: SharedRun,
    shard: Shard,
    claim: Claim,
    start: Callable[[SharedRun, Shard, Claim, range], CommandResult],
) -> None:
    deaths: Counter[int] = Counter()
    ranges = [range(len(shard.files))]
    while ranges:
        files = ranges.pop()
        result = start(run, shard, claim, files)
        if not result.was_killed:
            continue
        deaths.update(files)
        half = len(files) // 2
        if half:
            ranges += [files[half:], files[:half]]
        elif deaths[files[0]] < DEATHS:
            ranges.append(files)
        else:
            reason = f"ended {DEATHS} processes: {result.message.splitlines()[-1]}"
            set_aside(run, shard.files[files[0]], reason, claim.check)


def _run_worker(
    timeout_s: float,
    retry_transient: bool,
    on_log: Callable[[str], None],
    run: SharedRun,
    shard: Shard,
    claim: Claim,
    files: range,
) -> CommandResult:
    """Do files of a shard in a process of their own."""

    def on_output(line: str) -> None:
        claim.share = (files.start + float(line) * len(files)) / len(shard.files)

    values = map(str, (run.id, shard.number, claim.generation, files.start, files.stop))
    arguments = ["work", str(run.out), *values, *["--retry-transient"] * retry_transient]
    result = run_command(arguments, timeout_s=timeout_s, on_log=on_log, on_output=on_output)
    if result.was_killed or not result.exit_code:
        return result
    claim.check()
    errors = {EXIT_UNAVAILABLE: UnavailableError, EXIT_DISK_FULL: StoreDiskFullError}
    raise errors.get(result.exit_code, StoreError)(f"{shard.label}: {result.message}")
