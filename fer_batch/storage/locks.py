"""Lock files that threads and processes hold against each other, on every operating system.

The operating system releases a lock when its process ends, however it ends. A lock keeps nobody
from reading or writing the file, only others from locking it: `flock` works like that, and on
Windows the lock is on a byte that lies far behind the end of any file.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO

if sys.platform == "win32":
    import ctypes
    import msvcrt
    from ctypes import wintypes

    _FAIL_IMMEDIATELY, _EXCLUSIVE = 1, 2
    _ERROR_LOCK_VIOLATION = 33
    _BYTE = 1 << 30
    """The higher half of the position of the locked byte."""

    class _Overlapped(ctypes.Structure):
        _fields_ = (
            ("internal", ctypes.c_void_p),
            ("internal_high", ctypes.c_void_p),
            ("offset", wintypes.DWORD),
            ("offset_high", wintypes.DWORD),
            ("event", wintypes.HANDLE),
        )
else:
    import fcntl


@contextlib.contextmanager
def locked(path: Path, *, shared: bool = False, wait: bool = True) -> Iterator[IO[bytes]]:
    """Hold a lock on a local file, which is made where it is missing, until the block is left.

    Args:
        path: The file. It may have content.
        shared: Let others hold it at the same time who share it too.
        wait: Wait until nobody else holds it.

    Yields:
        The file, open for reading and appending.

    Raises:
        BlockingIOError: Somebody else holds it, and `wait` is False.
        OSError: The file cannot be opened.
    """
    with path.open("a+b") as file:
        _lock(file.fileno(), shared=shared, wait=wait)
        yield file


def _lock(descriptor: int, *, shared: bool, wait: bool) -> None:
    """Lock an open file until it is closed."""
    if sys.platform == "win32":
        how = (0 if shared else _EXCLUSIVE) | (0 if wait else _FAIL_IMMEDIATELY)
        kernel32 = ctypes.WinDLL("kernel32", use_last_error=True)
        handle = wintypes.HANDLE(msvcrt.get_osfhandle(descriptor))
        where = _Overlapped(offset_high=_BYTE)
        if not kernel32.LockFileEx(handle, how, 0, 1, 0, ctypes.byref(where)):
            error = ctypes.get_last_error()
            raise BlockingIOError if error == _ERROR_LOCK_VIOLATION else ctypes.WinError(error)
    else:
        fcntl.flock(
            descriptor,
            (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB),
        )
