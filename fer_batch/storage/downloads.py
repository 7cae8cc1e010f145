"""Files that are downloaded into the user's cache on first use, and files inside a zip."""

from __future__ import annotations

import hashlib
import http.client
import io
import logging
import os
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from fer_batch.errors import WeightsError
from fer_batch.storage import locks

logger = logging.getLogger(__name__)

TIMEOUT_S = 30
"""Seconds without an answer of the server after which a download ends."""
_BLOCK_BYTES = 1 << 20
_LOG_EVERY_BYTES = 10 << 20


def fetch(url: str, sha256: str) -> Path:
    """Path of a file from the web in the user's `cache_folder`; it is downloaded on first use.

    A download that was interrupted is continued. If several processes want the same file at once,
    one downloads it and the others wait.

    Args:
        url: Address of the file; its last part is the file's name.
        sha256: First hex digits of the file's hash or, for a zip, of the hash of the only file in
            it: the names of releases contain either.

    Raises:
        WeightsError: The file cannot be downloaded, or it has another hash.
    """
    path = cache_folder() / Path(urlsplit(url).path).name
    try:
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            with locks.locked(path.with_name(f".{path.name}.lock")):
                if not path.exists():  # nobody fetched it while we waited
                    _download(url, path, sha256)
        if not _has_hash(path, sha256):
            raise WeightsError(
                f"{path}: its sha256 does not begin with {sha256}: remove it, to fetch it again"
            )
    except (OSError, http.client.HTTPException) as error:
        raise WeightsError(
            f"{url}: cannot be fetched: {error}. Try again, which continues the download, or "
            f"fetch it by other means and put it at {path}"
        ) from error
    return path


def cache_folder() -> Path:
    """``$XDG_CACHE_HOME/fer_batch`` or ``~/.cache/fer_batch``."""
    folder = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (folder if folder.is_absolute() else Path.home() / ".cache") / "fer_batch"


def read_unzipped(path: Path) -> io.BytesIO:
    """The content of a file or, for a zip with one file, of the file in it.

    Raises:
        OSError: It cannot be read.
        zipfile.BadZipFile, zlib.error: The zip is damaged.
    """
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            if len(members) == 1:
                return io.BytesIO(archive.read(members[0]))
    return io.BytesIO(path.read_bytes())


def _download(url: str, path: Path, sha256: str) -> None:
    part = path.with_name(f"{path.name}.part")
    _fetch_rest(url, part)
    if not _has_hash(part, sha256):
        part.unlink()
        raise WeightsError(f"{url}: the sha256 of the download does not begin with {sha256}")
    part.replace(path)


def _fetch_rest(url: str, part: Path) -> None:
    """Download what a partial file lacks."""
    with part.open("ab") as file:
        done = file.tell()
        request = Request(url, headers={"Range": f"bytes={done}-"} if done else {})  # noqa: S310
        try:
            with urlopen(request, timeout=TIMEOUT_S) as response:  # noqa: S310
                if response.status != http.client.PARTIAL_CONTENT:  # it sends the whole file
                    file.truncate(done := 0)
                total = done + int(response.headers.get("Content-Length", 0))
                logger.info("fetching %s, %.0f MB", url, (total - done) / 1e6)
                for block in iter(lambda: response.read(_BLOCK_BYTES), b""):
                    file.write(block)
                    done += len(block)
                    if done // _LOG_EVERY_BYTES > (done - len(block)) // _LOG_EVERY_BYTES:
                        logger.info("%s: %.0f of %.0f MB", part.stem, done / 1e6, total / 1e6)
        except HTTPError as error:
            if not done or error.code != http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
                raise
            return  # the partial file is complete
    if done < total:
        raise ConnectionError(f"the connection ended after {done} of {total} bytes")


def _has_hash(path: Path, sha256: str) -> bool:
    return any(digest.startswith(sha256) for digest in _hashes(path))


def _hashes(path: Path) -> Iterator[str]:
    with path.open("rb") as file:
        yield hashlib.file_digest(file, "sha256").hexdigest()
    try:
        yield hashlib.file_digest(read_unzipped(path), "sha256").hexdigest()
    except (zipfile.BadZipFile, zlib.error):
        return
