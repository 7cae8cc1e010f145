"""Files decoded ahead, several at once, into a queue that is bounded in bytes."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from fer_batch.config import Config
from fer_batch.decode import FrameReader
from fer_batch.schema import DecodeError, DecodeReport, FrameChunk, MediaFile, MediaInfo


@dataclass(frozen=True, slots=True, eq=False)
class Chunk:
    """Some frames of a file."""

    file: MediaFile
    info: MediaInfo
    frames: FrameChunk


@dataclass(frozen=True, slots=True, eq=False)
class End:
    """The last that comes of a file."""

    file: MediaFile
    info: MediaInfo | None
    """None when the file could not be opened."""
    outcome: DecodeReport | Exception
    seconds: float
    """Wall time spent on decoding this file."""


class ReaderPool:
    """Threads that each decode one file at a time, in the order of the files.

    Chunks of one file come in order and are followed by its `End`; files interleave. Decoded pixels
    that nobody has taken never exceed the budget by more than one chunk per reader; pixels taken
    count until the next `take`. Leaving the ``with`` block stops and joins the threads.
    """

    def __init__(
        self, files: Sequence[MediaFile], config: Config, *, readers: int, buffer_mb: float
    ) -> None:
        self._files = iter(files)
        self._config = config
        self._budget = buffer_mb * 1e6
        self._items: deque[Chunk | End] = deque()
        self._held = 0
        self._n_running = min(readers, len(files))
        self._stopped = False
        self._abandoned: set[str] = set()
        self._changed = threading.Condition()
        self._threads = [
            threading.Thread(target=self._run, name=f"fer_batch-reader-{number}", daemon=True)
            for number in range(self._n_running)
        ]

    def __enter__(self) -> ReaderPool:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    @property
    def at_end(self) -> bool:
        """Whether nothing more will come."""
        with self._changed:
            return not self._items and not self._n_running

    def release(self, chunk: Chunk) -> None:
        """Count the pixels of a chunk no longer."""
        with self._changed:
            self._held -= chunk.frames.rgb.nbytes
            self._changed.notify_all()

    def take(self, max_frames: int, *, wait: bool = True) -> list[Chunk | End]:
        """What is ready, in order: waits for the first item, not for more; empty at the end."""
        with self._changed:
            if wait:
                self._changed.wait_for(lambda: self._items or not self._n_running)
            taken: list[Chunk | End] = []
            n_frames = 0
            while self._items and n_frames < max_frames:
                item = self._items.popleft()
                taken.append(item)
                if isinstance(item, Chunk):
                    n_frames += len(item.frames.rgb)
            return taken

    def abandon(self, file: MediaFile) -> None:
        """Stop decoding a file whose frames cannot be used; its `End` still comes."""
        self._abandoned.add(file.media)

    def _run(self) -> None:
        try:
            while (file := self._next_file()) is not None:
                self._put(self._read(file))
        finally:
            with self._changed:
                self._n_running -= 1
                self._changed.notify_all()

    def _next_file(self) -> MediaFile | None:
        with self._changed:
            return None if self._stopped else next(self._files, None)

    def _read(self, file: MediaFile) -> End:
        info: MediaInfo | None = None
        seconds, started = 0.0, time.perf_counter()
        try:
            with FrameReader(file, self._config.sampling, self._config.decode) as reader:
                info = reader.info
                for frames in reader:
                    seconds += time.perf_counter() - started
                    self._put(Chunk(file, info, frames))
                    if self._stopped or file.media in self._abandoned:
                        raise DecodeError(f"{file.media}: given up", file.path)
                    started = time.perf_counter()
                outcome: DecodeReport | Exception = reader.report
        except Exception as error:  # noqa: BLE001 - whatever one file does must not end the others
            outcome = error
        return End(file, info, outcome, seconds + time.perf_counter() - started)

    def _put(self, item: Chunk | End) -> None:
        n_bytes = item.frames.rgb.nbytes if isinstance(item, Chunk) else 0
        with self._changed:
            self._changed.wait_for(
                lambda: self._stopped or not self._held or self._held + n_bytes <= self._budget
            )
            self._held += n_bytes
            self._items.append(item)
            self._changed.notify_all()
