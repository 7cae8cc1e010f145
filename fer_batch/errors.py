"""Everything that is raised on purpose; the text of each is meant for the user."""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable
from pathlib import Path

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


class PictureError(FerError):
    """A picture that was given to an `Analyzer` cannot be used."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown name: `` (did you mean this or that?)``, or nothing.

    Args:
        name: The unknown name.
        known: The names that exist; parts are separated by ``/`` or ``.``.
    """
    known = list(known)
    same_end = [each for each in known if each.endswith((f"/{name}", f".{name}"))]
    similar = (same_end or difflib.get_close_matches(name, known, cutoff=0.7))[:3]
    return f" (did you mean {' or '.join(similar)}?)" if similar else ""
