"""Files fetched and decoded ahead, several parts at once, into a queue that is bounded in bytes."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from fer_batch.config import Config
from fer_batch.errors import DecodeError
from fer_batch.media.cache import fetched
from fer_batch.media.decode import FrameReader
from fer_batch.records import DecodeReport, FrameChunk, MediaFile, MediaInfo


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


@dataclass(slots=True, eq=False)
class _Job:
    """A file under way."""

    file: MediaFile
    reader: FrameReader = field(init=False)
    close: Callable[[], None] = field(init=False)
    """These two are known once the file is open."""
    info: MediaInfo | None = None
    is_busy: bool = True
    """Whether a thread opens the file, or goes on reading it: no other may take a part."""
    n_given: int = 0
    """Parts that threads have taken."""
    turn: int = 0
    """Part whose chunks are due."""
    n_threads: int = 1
    """That have to do with it."""
    is_abandoned: bool = False
    has_ended: bool = False
    """Whether its `End` was handed on."""
    seconds: float = 0.0

    def has_part(self) -> bool:
        """Whether a thread may take a part."""
        return not (self.is_busy or self.has_ended) and self.n_given < self.reader.n_parts


class ReaderPool:
    """Threads that decode files in their order, one part of a file each at a time.

    Chunks of one file come in order and are followed by its `End`; files interleave, and at most as
    many as there are readers are open. A reader whose part is not yet due decodes up to its first
    chunk and waits. Decoded pixels that are handed on and not released never exceed the budget by
    more than one chunk per reader. Leaving the ``with`` block stops and joins the threads.
    """

    def __init__(
        self, files: Sequence[MediaFile], config: Config, *, readers: int, buffer_mb: float
    ) -> None:
        self._files = deque(files)
        self._config = config
        self._budget = buffer_mb * 1e6
        self._items: deque[Chunk | End] = deque()
        self._held = 0
        self._jobs: list[_Job] = []
        self._n_running = self._n_readers = readers
        self._error: BaseException | None = None
        self._stopped = False
        self._changed = threading.Condition()
        self._threads = [
            threading.Thread(target=self._run, name=f"fer_batch-reader-{number}", daemon=True)
            for number in range(readers)
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
        for job in self._jobs:
            if job.info:
                job.close()

    @property
    def at_end(self) -> bool:
        """Whether nothing more will come."""
        with self._changed:
            return not self._items and not self._n_running

    def take(self, max_frames: int, *, wait: bool = True) -> list[Chunk | End]:
        """What is ready, in order; its pixels count until each chunk is released.

        Args:
            max_frames: Take no further chunk when there are as many.
            wait: For the first item, unless all is over.
        """
        with self._changed:
            if wait:
                self._changed.wait_for(
                    lambda: self._items or self._error or not self._n_running,
                )
            if self._error:
                raise self._error
            taken: list[Chunk | End] = []
            n_frames = 0
            while self._items and n_frames < max_frames:
                item = self._items.popleft()
                taken.append(item)
                if isinstance(item, Chunk):
                    n_frames += len(item.frames.rgb)
            return taken

    def release(self, chunk: Chunk) -> None:
        """Count the pixels of a chunk no longer."""
        with self._changed:
            self._held -= chunk.frames.rgb.nbytes
            self._changed.notify_all()

    def abandon(self, file: MediaFile) -> None:
        """Stop decoding a file whose frames cannot be used; its `End` still comes."""
        with self._changed:
            for job in self._jobs:
                job.is_abandoned |= job.file == file

    def _run(self) -> None:
        try:
            while job := self._next_job():
                if job.info is None:
                    self._open(job)
                else:
                    self._read(job, job.n_given - 1)
        except BaseException as error:  # noqa: BLE001 - `take` raises it
            self._error = error
        finally:
            with self._changed:
                self._n_running -= 1
                self._changed.notify_all()

    def _next_job(self) -> _Job | None:
        """The earliest file that has a part, else a new one; None when there will be neither."""
        with self._changed:
            while not self._stopped:
                job = next((job for job in self._jobs if job.has_part()), None)
                if job:
                    job.is_busy = True
                    job.n_given += 1
                    job.n_threads += 1
                    return job
                if self._files and len(self._jobs) < self._n_readers:
                    self._jobs.append(_Job(self._files.popleft()))
                    return self._jobs[-1]
                if not self._files and not any(job.is_busy for job in self._jobs):
                    return None
                self._changed.wait()
            return None

    def _open(self, job: _Job) -> None:
        error: Exception | None = None
        started = time.perf_counter()
        config = self._config
        try:
            with contextlib.ExitStack() as stack:
                local = fetched(job.file, config.runtime, go_on=lambda: not self._stopped)
                reader = FrameReader(stack.enter_context(local), config.sampling, config.decode)
                job.reader = stack.enter_context(reader)
                job.info, job.close = reader.info, stack.pop_all().close
        except Exception as caught:  # noqa: BLE001 - what one file does must not end the others
            error = caught
        self._count(job, started)
        if error or not job.reader.n_parts:
            self._end(job, error)
        self._free(job)
        self._leave(job)

    def _read(self, job: _Job, number: int) -> None:
        """Decode a part as far as its first chunk; when it is due, hand it on and go on."""
        error: Exception | None = None
        try:
            with contextlib.ExitStack() as left:
                left.callback(self._free, job)
                started = time.perf_counter()
                part = job.reader.take()
                if not part.is_open:
                    left.close()
                chunks = left.enter_context(contextlib.closing(job.reader.read(part)))
                chunk = next(chunks, None)
                self._count(job, started)
                while chunk is not None and self._is_due(job, number):
                    self._put(job, chunk)
                    started = time.perf_counter()
                    chunk = next(chunks, None)
                    self._count(job, started)
        except Exception as caught:  # noqa: BLE001 - as above
            error = caught
        if self._is_due(job, number):
            job.turn += 1
            if error or job.turn == job.reader.n_parts:
                self._end(job, error)
            with self._changed:
                self._changed.notify_all()
        self._leave(job)

    def _count(self, job: _Job, started: float) -> None:
        with self._changed:
            job.seconds += time.perf_counter() - started

    def _is_due(self, job: _Job, number: int) -> bool:
        """Wait for the turn of a part; False when it will not come."""
        with self._changed:
            self._changed.wait_for(lambda: self._stopped or job.has_ended or job.turn == number)
            return not (self._stopped or job.has_ended)

    def _put(self, job: _Job, frames: FrameChunk) -> None:
        n_bytes = frames.rgb.nbytes
        with self._changed:
            self._changed.wait_for(
                lambda: self._stopped or not self._held or self._held + n_bytes <= self._budget
            )
            if job.is_abandoned:
                raise DecodeError(f"{job.file.media}: given up", job.file.path)
            self._held += n_bytes
            self._items.append(Chunk(job.file, job.reader.info, frames))
            self._changed.notify_all()

    def _end(self, job: _Job, error: Exception | None) -> None:
        outcome = error or job.reader.report
        with self._changed:
            job.has_ended = True
            self._jobs.remove(job)
            self._items.append(End(job.file, job.info, outcome, job.seconds))
            self._changed.notify_all()

    def _free(self, job: _Job) -> None:
        """Let other threads take parts."""
        with self._changed:
            job.is_busy = False
            self._changed.notify_all()

    def _leave(self, job: _Job) -> None:
        """Close a file that no thread uses any more."""
        with self._changed:
            job.n_threads -= 1
            is_over = job.has_ended and not job.n_threads
        if is_over and job.info:
            job.close()
