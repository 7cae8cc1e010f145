"""How the C library manages the memory of this process."""

from __future__ import annotations

import ctypes
import sys

M_TRIM_THRESHOLD = -1
M_MMAP_MAX = -4


def reuse_freed_memory() -> None:
    """Make glibc keep memory that was freed for the next tensors; other C libraries stay as is.

    By default, large blocks go back to the system at once, which then clears every page of the next
    ones. On a CPU that can take a third of a training step.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt:
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, -1)
