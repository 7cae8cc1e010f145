"""Files that are fetched on first use into the user's cache, and files that come inside a zip."""

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
"""Silence of the server after which fetching ends."""
_BLOCK_BYTES = 1 << 20
_LOG_EVERY_BYTES = 10 << 20


def fetch(url: str, sha256: str) -> Path:
    """The file of a URL in the user's `cache_folder`.

    What was fetched before is used again, and what was fetched in part is gone on with. Processes
    that want the same file at once wait for the one that fetches it.

    Args:
        url: The last part of its path names the file.
        sha256: First hex digits of the file's hash, or of the hash of the only file in it where it
            is a zip: the names of releases carry either.

    Raises:
        WeightsError: It cannot be fetched, or does not have the hash.
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
            f"{url}: cannot be fetched: {error}. Try again, which goes on where this ended, or "
            f"fetch it by other means and put it at {path}"
        ) from error
    return path


def cache_folder() -> Path:
    """``$XDG_CACHE_HOME/fer_batch`` or ``~/.cache/fer_batch``."""
    folder = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (folder if folder.is_absolute() else Path.home() / ".cache") / "fer_batch"


def read_unzipped(path: Path) -> io.BytesIO:
    """The bytes of a file, or of the only file in it where it is a zip, in memory.

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
        raise WeightsError(f"{url}: the sha256 of what came does not begin with {sha256}")
    part.replace(path)


def _fetch_rest(url: str, part: Path) -> None:
    """Fetch what `part` lacks of a URL."""
    with part.open("ab") as file:
        done = file.tell()
        request = Request(url, headers={"Range": f"bytes={done}-"} if done else {})  # noqa: S310
        try:
            with urlopen(request, timeout=TIMEOUT_S) as response:  # noqa: S310
                if response.status != http.client.PARTIAL_CONTENT:  # this is the whole file
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
            return  # there is no more than we have
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
