"""Pictures and videos made from a run: which are up to date, how far the work is, what failed."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import av
from PIL import Image, PngImagePlugin

from fer_batch import __version__
from fer_batch.errors import FerError, RenderError, StoreDiskFullError
from fer_batch.media.encode import replacing
from fer_batch.records import Bytes
from fer_batch.results import store
from fer_batch.storage import urls

JPEG_SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif")
_JPEG_QUALITY = 92
_END_BYTES = 4096
"""Length of a picture's beginning and end that are searched for its marker: still images have it at
the beginning, GIFs at the end."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How much of the work is done."""

    n_files_done: int
    n_files: int
    """Files to do, without those that are up to date."""
    n_frames: int
    """Frames that are done."""
    share: float
    """Part of the work that is done, in [0, 1]."""

    def __str__(self) -> str:
        return f"{self.n_files_done:,}/{self.n_files:,} files  {self.n_frames:,} frames"


@dataclass(frozen=True, slots=True)
class Output:
    """A file that is made from a run, whether it is there already or not."""

    path: Path
    marker: str
    """A text in the file. It changes with everything that decides how the file looks: see `marker`.
    """

    def is_current(self) -> bool:
        """Whether the file is there and has this marker."""
        try:
            if self.path.suffix == ".mp4":
                with self.path.open("rb") as file, av.open(file) as video:
                    return video.metadata.get("comment") == self.marker
            with self.path.open("rb") as picture:
                head = picture.read(_END_BYTES)
                picture.seek(max(picture.seek(0, os.SEEK_END) - _END_BYTES, 0))
                return self.marker.encode() in head + picture.read()
        except urls.failures(av.FFmpegError):
            return False

    def save(self, rgb: Bytes, *, is_complete: bool = True) -> None:
        """Write a still image: JPEG where the name says so, else PNG.

        Args:
            rgb: (H, W, 3) uint8.
            is_complete: Whether nothing is missing in it; otherwise it is made again next time.

        Raises:
            RenderError: It cannot be written.
            StoreDiskFullError: No space is left.
        """
        picture, comment = Image.fromarray(rgb), self.marker if is_complete else "incomplete"
        with replacing(self.path) as temporary:
            if self.path.suffix.lower() in JPEG_SUFFIXES:
                picture.save(temporary, "JPEG", quality=_JPEG_QUALITY, comment=comment)
            else:
                text = PngImagePlugin.PngInfo()
                text.add_text("comment", comment)
                picture.save(temporary, "PNG", pnginfo=text)


class Work:
    """Files that are made one after the other: counts what is done, and collects what failed."""

    def __init__(
        self, n_frames: Mapping[str, int], on_progress: Callable[[Progress], None]
    ) -> None:
        """Nothing is done yet.

        Args:
            n_frames: Frames expected of each input file, by its name.
            on_progress: Called whenever something is done.
        """
        self._n_expected = n_frames
        self._n_expected_in_all = sum(n_frames.values()) or 1
        self._on_progress = on_progress
        self._done: set[str] = set()
        self._n_expected_done = self._n_expected_now = self._n_now = self._n_frames = 0
        self.failures: dict[str, str] = {}
        """What went wrong, by input file."""

    @contextlib.contextmanager
    def file(self, name: str) -> Iterator[None]:
        """A block that works on one input file. If it fails, the error is kept for `check`.

        Raises:
            StoreDiskFullError: No space is left; this error is not kept.
        """
        self._n_expected_now = 0 if name in self._done else self._n_expected[name]
        self._n_now = 0
        try:
            yield
        except StoreDiskFullError:
            raise
        except FerError as error:
            self.failures[name] = f"{name}: {error}"
        self._done.add(name)
        self._n_expected_done += self._n_expected_now
        self._n_now = 0
        self._report()

    def frames_done(self, n: int) -> None:
        """Count frames of the file that is being worked on."""
        self._n_frames += n
        self._n_now += n
        self._report()

    def check(self, n_files: int, what: str) -> None:
        """Raise an error if files failed.

        Args:
            n_files: Number of all files.
            what: What could not be done with them, such as ``rendered``.

        Raises:
            RenderError: Files failed; the text names each of them, with the reason.
        """
        if self.failures:
            counts = f"{len(self.failures)} of {n_files} files could not be {what}"
            raise RenderError("\n".join([f"{counts}:", *self.failures.values()]))

    def _report(self) -> None:
        done = self._n_expected_done + min(self._n_now, self._n_expected_now)
        share = done / self._n_expected_in_all
        self._on_progress(Progress(len(self._done), len(self._n_expected), self._n_frames, share))


def marker(*values: object) -> str:
    """A short text that changes with these values (of types that JSON has) and with the version."""
    sha256 = hashlib.sha256(json.dumps([__version__, *values]).encode()).hexdigest()
    return f"fer_batch {sha256[:16]}"


def check_run(out: Path) -> None:
    """Raise an error if there is nothing to draw.

    Raises:
        RenderError: There is no run in ``out``.
    """
    if not store.media_rows(out):
        raise RenderError(f"{out} holds no results: make some with `fer-batch process` first")


def names_of(
    out: Path, media: str | Collection[str] | None, known: Collection[str], *, what: str
) -> set[str] | None:
    """The names that a caller gave, checked; None where none were given.

    Args:
        out: Output folder of the run.
        media: One name or several.
        known: Names that are allowed.
        what: What the run has of these, for the error: ``results of``.

    Raises:
        RenderError: One of the names is not allowed.
    """
    if media is None:
        return None
    names = {media} if isinstance(media, str) else set(media)
    unknown = sorted(names - set(known))
    if unknown:
        raise RenderError(f"{out} holds no {what} {unknown[0]}")
    return names


def remove_temporaries(folder: Path) -> None:
    """Remove unfinished files of a killed process; no other process may write to the folder."""
    for path in folder.rglob(urls.TEMPORARY.format("*")):
        path.unlink()
