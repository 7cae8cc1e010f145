"""Run a Python module in a process that ends when its parent ends.

The parent starts it with `COMMAND`, gives it a pipe as standard input, and keeps the other end of
the pipe open. The operating system closes the pipe when the parent ends, in whatever way; then the
process ends itself.
"""

from __future__ import annotations

import ctypes
import os
import runpy
import signal
import sys
import threading
from pathlib import Path

COMMAND = (sys.executable, "-m", "fer_batch.distributed.child")
"""Start of a command line; the name of the module and its arguments follow."""
_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Run the module that the command line names."""
    end_with_parent()
    sys.argv = sys.argv[1:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


def end_with_parent() -> None:
    """Make this process end when its parent ends; its standard input is empty from now on."""
    if sys.platform == "linux":  # also works while native code blocks the thread below
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    pipe = os.dup(sys.stdin.fileno())
    with Path(os.devnull).open("rb") as empty:
        os.dup2(empty.fileno(), sys.stdin.fileno())

    def watch() -> None:
        while os.read(pipe, 1):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="fer_batch-parent", daemon=True).start()


if __name__ == "__main__":
    main()
