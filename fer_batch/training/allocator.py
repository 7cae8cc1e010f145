"""Memory that the process keeps for its next tensor."""

from __future__ import annotations

import ctypes
import sys

M_TRIM_THRESHOLD = -1
M_MMAP_MAX = -4


def keep_freed_memory() -> None:
    """Let the C library keep what is freed, where it is glibc, for the rest of the process.

    By default it gives large blocks back to the system at once, which has to clear every page of
    the next ones: of a training step on a CPU, that can be a third.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt:
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, -1)
