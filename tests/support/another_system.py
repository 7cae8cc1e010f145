"""Make this process look like one on Windows, as far as that is possible on Linux.

Modules, functions and constants that Windows lacks are removed, and the files of /proc. Before
that, the packages that `fer_batch` uses are imported, as they have their own code for each system.
The only function of Windows that `fer_batch` calls locks files; here it uses `flock`.
"""

import ctypes
import fcntl
import importlib
import os
import pkgutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import imageio_ffmpeg

MODULES = ("fcntl", "grp", "pty", "pwd", "resource", "syslog", "termios", "tty")
OF_OS = {"fork", "forkpty", "getpgid", "getuid", "killpg", "sched_getaffinity", "setsid", "uname"}
OF_OS |= {name for name in dir(os) if name.startswith("EX_")}
OF_TIME = {"CLOCK_BOOTTIME", "CLOCK_MONOTONIC", "clock_gettime"}
OF_SIGNAL = {name for name in dir(signal) if name.startswith("SIG") and name[3] != "_"}
OF_SIGNAL -= {"SIGABRT", "SIGFPE", "SIGILL", "SIGINT", "SIGSEGV", "SIGTERM"}
ERROR_LOCK_VIOLATION = 33


class Kernel32:
    """Locks as Windows does."""

    def LockFileEx(self, handle: Any, how: int, *place: Any) -> bool:  # noqa: N802
        assert place[:3] == (0, 1, 0)  # one byte
        assert place[3]._obj.offset_high == 1 << 30  # far behind the end of any file
        flags = (fcntl.LOCK_EX if how & 2 else fcntl.LOCK_SH) | (fcntl.LOCK_NB if how & 1 else 0)
        try:
            fcntl.flock(handle.value, flags)
        except BlockingIOError:
            return False
        return True


def windows() -> list[tuple[Any, str, Any]]:
    """What `fer_batch.storage.locks` needs of Windows, as arguments of `setattr`."""
    msvcrt = ModuleType("msvcrt")
    msvcrt.get_osfhandle = lambda descriptor: descriptor  # type: ignore[attr-defined]
    sys.modules["msvcrt"] = msvcrt
    return [
        (sys, "platform", "win32"),
        (ctypes, "WinDLL", lambda *_, **__: Kernel32()),
        (ctypes, "get_last_error", lambda: ERROR_LOCK_VIOLATION),
    ]


def import_all() -> list[str]:
    """Import every module of `fer_batch`."""
    package = importlib.import_module("fer_batch")
    names = [each.name for each in pkgutil.walk_packages(package.__path__, "fer_batch.")]
    names.remove("fer_batch.__main__")
    for name in names:
        importlib.import_module(name)
    return names


def leave_linux() -> None:
    """Make this process look like one on Windows from now on; `fer_batch` is imported anew."""
    import_all()
    importlib.import_module("decord")
    os.environ["IMAGEIO_FFMPEG_EXE"] = imageio_ffmpeg.get_ffmpeg_exe()
    for name in list(sys.modules):
        if name.partition(".")[0] == "fer_batch":
            del sys.modules[name]
    subprocess.signal = SimpleNamespace(**vars(signal))  # type: ignore[attr-defined]
    for module, names in ((os, OF_OS), (time, OF_TIME), (signal, OF_SIGNAL)):
        for name in names:
            delattr(module, name)
    for name in MODULES:
        sys.modules[name] = None  # type: ignore[assignment]
    for owner, name, value in windows():
        setattr(owner, name, value)
    sys.addaudithook(_refuse)


def _refuse(event: str, arguments: tuple[Any, ...]) -> None:
    """An audit hook that refuses what fails on Windows."""
    if event == "open":
        path, mode, _ = arguments
        if str(path).startswith("/proc"):
            raise FileNotFoundError(path)
        if mode is None and Path(str(path)).is_dir():
            caller = sys._getframe(1).f_globals["__name__"]
            if caller.startswith("fer_batch"):
                raise PermissionError(path)
    if event == "ctypes.dlopen" and arguments[0] is None:
        raise TypeError("Windows has no library without a name")
