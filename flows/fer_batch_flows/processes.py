"""Processes that run together: when one of them ends, that is an error, and all are ended."""

import ctypes
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Self

from fer_batch.distributed import child
from fer_batch.errors import FerError

PR_SET_CHILD_SUBREAPER = 36
STOP_S = 10


class ServeError(FerError):
    """A part of what is served does not start, or has ended."""


class Processes:
    """Python modules that run until the `with` block ends.

    On Linux, all processes that they have started end with them.
    """

    def __init__(self, environment: dict[str, str]) -> None:
        self._environment = environment
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Self:
        if sys.platform == "linux":  # the children of one that ends become children of this process
            ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
        return self

    def __exit__(self, *_: object) -> None:
        """End the last one first, and before it its children, so that it can report on them."""
        for process in reversed(self._running.values()):
            _signal(_children(process.pid), signal.SIGTERM)
            deadline = time.monotonic() + STOP_S
            while _children(process.pid) and time.monotonic() < deadline:
                time.sleep(0.1)
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(STOP_S)
        while left := _children(os.getpid()):
            _signal(left, signal.SIGKILL)
            os.waitpid(left[0], 0)

    def start(self, name: str, *module: str, quiet: bool = False, **environment: str) -> None:
        """Start a module in a session that Ctrl-C does not reach."""
        self._running[name] = subprocess.Popen(  # noqa: S603
            [*child.COMMAND, *module],
            env=self._environment | environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL if quiet else None,
            start_new_session=True,
        )

    def run(self, name: str, *module: str) -> None:
        """Run a module to its end; raise a `ServeError` when it fails, or another one ends."""
        self.start(name, *module)
        while self._running[name].poll() != 0:
            self.check()
            time.sleep(0.2)
        del self._running[name]

    def check(self) -> None:
        """Raise a `ServeError` when one of them has ended."""
        for name, process in self._running.items():
            if process.poll() is not None:
                raise ServeError(f"the {name} ended with exit code {process.returncode}")


def _children(pid: int) -> list[int]:
    """The children of all threads of a process; none if it has ended, or not on Linux."""
    found = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            found += [int(child) for child in path.read_text(encoding="ascii").split()]
    return found


def _signal(leaders: list[int], what: signal.Signals) -> None:
    """Signal the process groups of processes: that of a flow run holds the commands it started."""
    for pid in leaders:
        with suppress(ProcessLookupError):
            os.killpg(os.getpgid(pid), what)
