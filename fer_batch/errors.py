"""Everything that is raised on purpose; the text of each is meant for the user."""

from __future__ import annotations

import errno
from pathlib import Path

EXIT_DISK_FULL = 3
EXIT_UNAVAILABLE = 75
"""Exit codes of `fer-batch` after two of these errors; 75 is EX_TEMPFAIL, which Windows lacks."""

_PASSING = frozenset(
    {
        *(errno.EIO, errno.ESTALE, errno.EAGAIN, errno.ETIMEDOUT, errno.ENOTCONN, errno.ECONNRESET),
        *(errno.ECONNREFUSED, errno.ECONNABORTED, errno.EHOSTUNREACH, errno.EHOSTDOWN),
        *(errno.ENETUNREACH, errno.ENETDOWN, errno.ENETRESET),
    }
)


class FerError(Exception):
    """Root of every error that fer_batch raises on purpose; its text is meant for the user."""


class ConfigError(FerError):
    """A configuration value is wrong or unknown."""


class MediaError(FerError):
    """A media file cannot be used.

    Attributes:
        path: The file.
        frame_index: The frame at which it happened, or None when it concerns the whole file.
    """

    def __init__(self, message: str, path: Path, frame_index: int | None = None) -> None:
        super().__init__(message)
        self.path = path
        self.frame_index = frame_index


class DecodeError(MediaError):
    """The file was opened but its frames cannot be decoded."""


class DetectorError(FerError):
    """A face detector cannot be built or failed on a batch."""


class WeightsError(FerError):
    """A weight file is missing, altered, or does not fit its network."""


class StoreError(FerError):
    """The output folder cannot be read or written."""


class StoreDiskFullError(StoreError):
    """No space is left for the output folder; what was finished before is kept."""


class UnavailableError(FerError):
    """A disk or network does not answer; the same may go well a little later."""


def may_pass(error: BaseException | None) -> bool:
    """Whether an error, or one that led to it, is of a disk or network that may answer later."""
    is_passing = isinstance(error, OSError) and error.errno in _PASSING
    return error is not None and (is_passing or may_pass(error.__cause__))


class RenderError(FerError):
    """An annotated video cannot be made."""


class ExplainError(FerError):
    """There is nothing to explain, or some of it cannot be explained."""
