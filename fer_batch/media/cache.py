"""Download files behind URLs into a local folder of limited size, before they are decoded.

Threads and processes share the folder. A file in use is locked, so that a crash frees it: those who
read it hold a shared lock, and who downloads it holds an exclusive one. Unused files are kept until
their room is needed; then those that were not used for the longest time are removed first. All
decisions are made under the lock of the folder, which is held only for moments; its lock file holds
the number of bytes that are in the folder or being downloaded.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

from fer_batch.config import Runtime
from fer_batch.errors import MediaError
from fer_batch.records import MediaFile
from fer_batch.storage import locks, urls
from fer_batch.storage.downloads import cache_folder

ROOM = 0.1
"""This fraction of the limit is freed when room is needed, as listing the folder takes time."""
_WAIT_S = 0.1
_LOCK = ".lock"
_PART = ".part"
"""Extension of a file that is being downloaded, ``<key>.<bytes>.part``; the name holds its size."""


@contextlib.contextmanager
def fetched(
    file: MediaFile, runtime: Runtime, *, go_on: Callable[[], bool] = lambda: True
) -> Iterator[MediaFile]:
    """The file with a path on this disk; a file behind a URL is downloaded into the cache.

    It stays there until the block ends. If there is no room, this waits until other files are not
    used any more; a file that is larger than the whole cache waits until no other file is in use.

    Args:
        file: Any file.
        runtime: Says where the cache is, and how large it may be.
        go_on: Asked while the file waits or is downloaded; False stops it.

    Raises:
        MediaError: The file is missing, cannot be downloaded, or has changed since it was found.
            Errors about the file that are raised in the block name its URL.
    """
    if not urls.is_url(file.path):
        yield file
        return
    folder = runtime.cache_dir.expanduser() if runtime.cache_dir else cache_folder() / "media"
    with contextlib.ExitStack() as stack:
        try:
            cache = _Cache(folder, int(runtime.cache_gb * 1e9))
            path = stack.enter_context(cache.hold(file, go_on))
        except urls.failures() as error:
            message = f"{file.path}: cannot be fetched: {urls.reason(error)}"
            raise MediaError(message, file.path) from error
        try:
            yield replace(file, path=path)
        except MediaError as error:
            message = str(error).replace(str(path), str(file.path))
            raise type(error)(message, file.path, error.frame_index) from error


@dataclass(frozen=True, slots=True)
class _Cache:
    """The folder and its size limit."""

    folder: Path
    max_bytes: int

    @contextlib.contextmanager
    def hold(self, file: MediaFile, go_on: Callable[[], bool]) -> Iterator[Path]:
        """The local path of the file, which is downloaded if it is missing."""
        self.folder.mkdir(parents=True, exist_ok=True)
        stamp = f"{file.path}\0{file.size_bytes}\0{file.mtime_ns}"
        key = hashlib.blake2b(stamp.encode(), digest_size=16).hexdigest()
        path = self.folder / f"{key}{file.path.suffix}"
        part = self.folder / f"{key}.{file.size_bytes}{_PART}"
        with contextlib.ExitStack() as use:
            if not self._take(path, part, file.size_bytes, go_on, use):
                try:
                    urls.download(file.path, part, go_on)
                    if part.stat().st_size != file.size_bytes:
                        message = f"{file.path}: it was changed since it was listed: run again"
                        raise MediaError(message, file.path)
                except BaseException:
                    with self._locked():
                        use.close()
                        part.unlink(missing_ok=True)
                    raise
                # Windows cannot rename an open file, so its lock is released first. Nobody else
                # takes it meanwhile, as that needs the folder's lock.
                with self._locked():
                    use.close()
                    part.replace(path)
                    use.enter_context(locks.locked(path, shared=True))
            yield path

    def _take(
        self,
        path: Path,
        part: Path,
        size: int,
        go_on: Callable[[], bool],
        use: contextlib.ExitStack,
    ) -> bool:
        """Lock the file and return True; if it is missing, lock ``part``, with room for it."""
        while go_on():
            with self._locked() as total:
                if path.exists():
                    use.enter_context(locks.locked(path, shared=True))
                    os.utime(path)
                    return True
                if not _is_used(part) and self._make_room(size, total):
                    use.enter_context(locks.locked(part))
                    return False
            time.sleep(_WAIT_S)
        raise InterruptedError("given up")

    def _locked(self) -> contextlib.AbstractContextManager[IO[bytes]]:
        """Hold the lock of the folder; gives the file with the number of bytes."""
        return locks.locked(self.folder / _LOCK)

    def _make_room(self, size: int, total: IO[bytes]) -> bool:
        """Reserve ``size`` bytes; returns False when there is no room and none can be made."""
        total.seek(0)
        used = int(total.read() or self.max_bytes)
        if used + size > self.max_bytes or self._free() < size:
            used = self._clean(size)
        is_alone = used == 0
        has_room = is_alone or (used + size <= self.max_bytes and self._free() >= size)
        total.truncate(0)
        total.write(str(used + size * has_room).encode())
        return has_room

    def _clean(self, size: int) -> int:
        """Remove unused files until there is room; returns the number of bytes that are left.

        Counting anew also corrects the number where a process crashed after it reserved bytes.
        """
        entries = [entry for entry in os.scandir(self.folder) if entry.name != _LOCK]
        entries.sort(key=lambda entry: entry.stat().st_mtime_ns)
        used = sum(map(_size, entries))
        for entry in entries:
            if used + size <= (1 - ROOM) * self.max_bytes and self._free() >= size:
                break
            if not _is_used(Path(entry)):
                used -= _size(entry)
                Path(entry).unlink()
        return used

    def _free(self) -> int:
        return shutil.disk_usage(self.folder).free


def _size(entry: os.DirEntry[str]) -> int:
    name = entry.name
    return int(name.split(".")[1]) if name.endswith(_PART) else entry.stat().st_size


def _is_used(path: Path) -> bool:
    """Whether a thread or process has locked the file."""
    if path.exists():
        try:
            with locks.locked(path, wait=False):
                pass
        except BlockingIOError:
            return True
    return False
