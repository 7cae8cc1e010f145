"""Files behind URLs, fetched before they are decoded into a local folder of bounded size.

Threads and processes share the folder. A file in use is locked, shared by its users, and alone by
who fetches it, so that a crash frees it. What nobody uses stays until room is needed, and then goes
longest unused first. All decisions are made under the folder's own lock, which is held for
moments only; the lock file holds the number of bytes that are in the folder or on their way.
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
"""Fraction of the bound that is freed when room is needed, as to look for files takes time."""
_WAIT_S = 0.1
_LOCK = ".lock"
_PART = ".part"
"""Ending of a file on its way, ``<key>.<bytes>.part``: what it will take stands in its name."""


@contextlib.contextmanager
def fetched(
    file: MediaFile, runtime: Runtime, *, go_on: Callable[[], bool] = lambda: True
) -> Iterator[MediaFile]:
    """The file with a path on this disk: a local one as it is, another from the cache.

    While the block lasts, it stays there. A file for which there is no room waits until others are
    not used any more; one that is larger than the whole cache waits until none is.

    Args:
        file: Any file.
        runtime: Says where the cache is, and how large.
        go_on: Asked while the file waits or is fetched; False ends that.

    Raises:
        MediaError: It is gone, cannot be fetched, or is not what was listed. Errors of the block
            that are about the file name its URL.
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
    """The folder and its bound."""

    folder: Path
    max_bytes: int

    @contextlib.contextmanager
    def hold(self, file: MediaFile, go_on: Callable[[], bool]) -> Iterator[Path]:
        """Where the file is; fetched, if it is not there."""
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
        """Lock the file and return True; or, where it is missing, lock `part`, with room for it."""
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
        """The folder's lock, and the file in which the number of its bytes stands."""
        return locks.locked(self.folder / _LOCK)

    def _make_room(self, size: int, total: IO[bytes]) -> bool:
        """Count these bytes in, if there is room for them, or can be made."""
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
        """Remove what nobody uses, the longest unused first, until there is room; gives the rest.

        What other processes count in and do not have any more is counted out by this.
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
    """Whether anyone has locked a file."""
    if path.exists():
        try:
            with locks.locked(path, wait=False):
                pass
        except BlockingIOError:
            return True
    return False
