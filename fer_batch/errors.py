"""Errors that fer_batch raises on purpose; their text is meant for the user."""

from __future__ import annotations

import errno
from pathlib import Path

EXIT_DISK_FULL = 3
EXIT_UNAVAILABLE = 75
"""Exit codes of `fer-batch` after two of these errors; 75 is EX_TEMPFAIL, which Windows lacks."""

TRANSIENT = frozenset(
    {
        *(errno.EIO, errno.ESTALE, errno.EAGAIN, errno.ETIMEDOUT, errno.ENOTCONN, errno.ECONNRESET),
        *(errno.ECONNREFUSED, errno.ECONNABORTED, errno.EHOSTUNREACH, errno.EHOSTDOWN),
        *(errno.ENETUNREACH, errno.ENETDOWN, errno.ENETRESET),
    }
)
"""Codes of errors of disks and networks that may be gone when the same is tried again."""


class FerError(Exception):
    """Base class of every error that fer_batch raises on purpose."""


class ConfigError(FerError):
    """A configuration value is wrong or unknown."""


class MediaError(FerError):
    """A media file cannot be used.

    Attributes:
        path: The file.
        frame_index: The frame that cannot be used, or None for the whole file.
    """

    def __init__(self, message: str, path: Path, frame_index: int | None = None) -> None:
        super().__init__(message)
        self.path = path
        self.frame_index = frame_index


class DecodeError(MediaError):
    """The file was opened but its frames cannot be decoded."""


class DetectorError(FerError):
    """A face detector cannot be created, or failed on a batch."""


class WeightsError(FerError):
    """A weight file is missing or was altered, or does not fit its network."""


class StoreError(FerError):
    """The output folder cannot be read or written."""


class StoreDiskFullError(StoreError):
    """The disk of the output folder is full; finished files are kept."""


class UnavailableError(FerError):
    """A disk or network does not answer now, but may answer later."""


def is_transient(error: BaseException | None) -> bool:
    """Whether an error, or one of its causes, may be gone when the same is tried again."""
    if error is None:
        return False
    is_own = isinstance(error, OSError) and error.errno in TRANSIENT
    return is_own or is_transient(error.__cause__)


class RenderError(FerError):
    """An annotated video cannot be made."""


class ExplainError(FerError):
    """There are no faces to explain, or some of them cannot be explained."""


class PictureError(FerError):
    """What was given to an `Analyzer` is no picture."""
