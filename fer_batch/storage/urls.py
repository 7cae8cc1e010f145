"""Files on this disk and behind URLs (``s3://bucket/videos``), used in the same way.

A local path is a plain `pathlib.Path`. A URL is a `UPath`, which has the same methods, so type
annotations say Path for both. This module holds what differs: behind a URL there are no folders to
make, no renaming and no locks.
"""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from fer_batch.errors import ConfigError
from fer_batch.extras import how_to_install

if TYPE_CHECKING:
    from upath import UPath

TEMPORARY = ".{}.fer-batch-tmp"
"""Name of a file that is not complete. Readers of Parquet folders skip names that begin with a dot.
The ending tells such files from those of other programs."""

_ADVICE = {
    "NoCredentialsError": "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE",
    "EndpointConnectionError": "see that the server is there, and AWS_ENDPOINT_URL right",
    "FileNotFoundError": "there is no such file or bucket",
    "PermissionError": "the credentials in use do not allow it",
}
"""What to do about an error, by the name of its class."""
_MODIFIED = ("LastModified", "mtime", "last_modified", "updated", "created")
"""Keys under which file systems tell the time of the last change."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A file in a listing."""

    name: str
    """Path relative to the listed folder; empty if the listed path is the file itself."""
    size_bytes: int
    mtime_ns: int
    """A whole number of seconds: object stores give fractions only in some answers."""


def path_of(place: Path | str) -> Path:
    """A local path, or a URL that is used like one. ``file://`` gives a local path.

    Raises:
        ConfigError: The protocol is not known, or its package is missing.
    """
    if isinstance(place, Path) or "://" not in str(place):
        return Path(place)
    from upath import UPath

    protocol = str(place).partition("://")[0]
    try:
        # Cached listings would not show what other processes write.
        url = UPath(place, use_listings_cache=False)
        if url.protocol in ("file", "local"):
            return Path(url.path)
        _ = url.fs
    except ValueError as error:
        raise ConfigError(f"{place}: there is no protocol {protocol}://") from error
    except ImportError as error:
        wanted = how_to_install("s3fs") if protocol == "s3" else "install the package that it names"
        raise ConfigError(f"{place}: {error}: {wanted}") from error
    return cast(Path, url)


def is_url(path: Path) -> bool:
    """Whether a path is a URL."""
    return not isinstance(path, Path)


def join(root: str, name: str) -> Path:
    """The path of a file from the columns ``root`` and ``media`` of a run's table."""
    return path_of(f"{root}/{name}") if "://" in root else Path(root, name)


def listing(url: Path) -> list[Entry]:
    """All files at or below a URL, found with few requests; empty if there are none.

    Raises:
        failures: It cannot be listed.
    """
    fs, base = _parts(url)
    return [
        Entry(key.removeprefix(base).removeprefix("/"), info["size"], _mtime_ns(info))
        for key, info in fs.find(base, detail=True).items()
        if info["type"] == "file" and not key.endswith("/")  # such keys mark empty folders
    ]


def names(folder: Path) -> list[str]:
    """Names of all files and folders in a folder; empty if it is missing."""
    with contextlib.suppress(FileNotFoundError):
        if not is_url(folder):
            return os.listdir(folder)  # noqa: PTH208 - five times as fast as paths
        fs, base = _parts(folder)
        return [key.rstrip("/").rpartition("/")[2] for key in fs.ls(base, detail=False)]
    return []


def stamp(path: Path) -> tuple[int, int]:
    """Size in bytes and time of the last change in ns; for a URL the same as in `listing`.

    Raises:
        failures: It is missing, or cannot be reached.
    """
    if is_url(path):
        fs, key = _parts(path)
        info = fs.info(key)
        return info["size"], _mtime_ns(info)
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def download(url: Path, target: Path, go_on: Callable[[], bool]) -> None:
    """Fetch a whole file, unless `go_on`, called again and again, returns False.

    Raises:
        failures: It cannot be fetched.
        InterruptedError: `go_on` returned False.
    """
    from fsspec.callbacks import Callback

    class Watch(Callback):  # type: ignore[misc]
        def relative_update(self, inc: int = 1) -> None:
            if not go_on():
                raise InterruptedError("the download was given up")

    fs, key = _parts(url)
    fs.get_file(key, str(target), callback=Watch())


def contents(path: Path) -> Path | io.BytesIO:
    """What readers of whole files accept: a local path itself, or the bytes behind a URL."""
    return io.BytesIO(read(path)) if is_url(path) else path


def read(path: Path) -> bytes:
    """The content of a file. One request, as the file behind a URL may be replaced meanwhile."""
    if not is_url(path):
        return path.read_bytes()
    fs, key = _parts(path)
    content: bytes = fs.cat_file(key)
    return content


def write(path: Path, content: bytes) -> None:
    """Write a file, as a whole or not at all: see `replacing`."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary file, which replaces `path` when the block ends without an exception.

    Whoever reads `path` finds the old or the new file as a whole, even after a power failure.
    """
    temporary = temporary_for(path)
    try:
        yield temporary
        if not is_url(path):
            with temporary.open("r+b") as file:
                os.fsync(file.fileno())
        publish(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def remove_temporaries(folder: Path) -> None:
    """Remove the temporary files that killed writers left in a folder. No writer may be at work."""
    for path in folder.glob(TEMPORARY.format("*")):
        path.unlink()


def temporary_for(path: Path) -> Path:
    """A new path for a file before `publish`: beside `path`, or on this disk if that is a URL."""
    if not is_url(path):
        return path.with_name(TEMPORARY.format(uuid.uuid4().hex))
    descriptor, name = tempfile.mkstemp(prefix="fer-batch-", suffix=path.suffix)
    os.close(descriptor)
    return Path(name)


def publish(temporary: Path, path: Path) -> None:
    """Move a complete file to its place, and make sure that the folder is on the disk."""
    if is_url(path):
        fs, key = _parts(path)
        fs.put_file(str(temporary), key)
        temporary.unlink()
        return
    temporary.replace(path)
    with contextlib.suppress(OSError):  # Windows and some network file systems cannot sync a folder
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def make_folder(path: Path) -> None:
    """Make a local folder; URLs have no folders."""
    if not is_url(path):
        path.mkdir(parents=True, exist_ok=True)


def remove_folder(path: Path) -> None:
    """Remove a folder and everything in it, if it exists."""
    if is_url(path):
        fs, key = _parts(path)
        if fs.exists(key):
            fs.rm(key, recursive=True)
    else:
        shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def local_folder(path: Path) -> Iterator[Path]:
    """The folder itself; for a URL a folder on this disk, whose files are uploaded at the end."""
    if not is_url(path):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="fer-batch-") as name:
        yield Path(name)
        fs, key = _parts(path)
        for file in Path(name).rglob("*"):
            if file.is_file():
                fs.put_file(str(file), f"{key}/{file.relative_to(name).as_posix()}")


def arrow_source(path: Path) -> tuple[str, Any]:
    """Path and file system for pyarrow's datasets."""
    return _parts(path)[::-1] if is_url(path) else (str(path), None)


def failures(*others: type[Exception]) -> tuple[type[Exception], ...]:
    """All exceptions that reading and writing may raise, and `others`: S3 has its own ones."""
    botocore = sys.modules.get("botocore.exceptions")
    return (OSError, *([botocore.BotoCoreError] if botocore else []), *others)


def reason(error: Exception) -> str:
    """What went wrong in reading or writing and, if known, what to do about it."""
    advice = _ADVICE.get(type(error).__name__) if getattr(error, "errno", None) is None else None
    return f"{str(error).rstrip('.')}: {advice}" if advice else str(error)


def _parts(url: Path) -> tuple[Any, str]:
    """The file system of a URL, and the path in it."""
    at = cast("UPath", url)
    return at.fs, at.path.rstrip("/")


def _mtime_ns(info: dict[str, Any]) -> int:
    when = next((info[key] for key in _MODIFIED if info.get(key)), 0)
    if isinstance(when, str):
        when = datetime.fromisoformat(when)
    seconds = when.timestamp() if isinstance(when, datetime) else when
    return int(seconds) * 1_000_000_000
