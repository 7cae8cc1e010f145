"""Decode files ahead in several threads, into a queue that is bounded in bytes."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto

from fer_batch.config import Config
from fer_batch.errors import DecodeError
from fer_batch.media.cache import fetched
from fer_batch.media.decode import FrameReader
from fer_batch.media.decode.source import SegmentedSource
from fer_batch.records import DecodeReport, FrameChunk, MediaFile, MediaInfo


@dataclass(frozen=True, slots=True, eq=False)
class Chunk:
    """Some frames of a file."""

    file: MediaFile
    info: MediaInfo
    frames: FrameChunk


@dataclass(frozen=True, slots=True, eq=False)
class EndOfFile:
    """Follows a file's last chunk."""

    file: MediaFile
    info: MediaInfo | None
    """None when the file could not be opened."""
    outcome: DecodeReport | Exception
    seconds: float
    """Time that threads spent on decoding this file, added up."""


class _State(Enum):
    """What can be done with a file."""

    BUSY = auto()
    """One thread opens the file or reads the packets of a segment. The others have to wait."""
    READY = auto()
    """Any thread may take the next segment."""
    ALL_TAKEN = auto()
    """Every segment was taken; some may still be decoded."""
    ENDED = auto()
    """Its `EndOfFile` is in the queue. Threads that still decode it give up."""


@dataclass(slots=True, eq=False)
class _OpenFile:
    """A file that is being read; its methods change the state, under the lock of the pool."""

    file: MediaFile
    source: SegmentedSource = field(init=False)
    """Known once the file is open; so is `info`."""
    info: MediaInfo | None = None
    close: Callable[[], None] = lambda: None
    state: _State = _State.BUSY
    n_taken: int = 0
    """Segments that threads have taken."""
    n_done: int = 0
    """Segments whose chunks were all handed on: the number of the segment whose turn it is."""
    n_threads: int = 1
    """Threads that still hold the file open."""
    seconds: float = 0.0

    def take_segment(self) -> int:
        """Keep the file for one thread, which reads the next segment; returns its number."""
        self.state = _State.BUSY
        self.n_threads += 1
        self.n_taken += 1
        return self.n_taken - 1

    def release(self) -> None:
        """Let other threads take the segments that are left."""
        if self.state is _State.BUSY:
            is_left = self.n_taken < self.source.n_segments
            self.state = _State.READY if is_left else _State.ALL_TAKEN

    def finish_segment(self) -> bool:
        """Give the turn to the next segment; returns whether there is none."""
        self.n_done += 1
        return self.n_done == self.source.n_segments

    def end(self) -> None:
        """No more chunks of it are handed on."""
        self.state = _State.ENDED

    def leave(self) -> bool:
        """One thread does not need the file any more; returns whether it was the last."""
        self.n_threads -= 1
        return self.state is _State.ENDED and not self.n_threads


class ReaderPool:
    """Threads that decode files in the given order, each thread one segment at a time.

    The chunks of a file come in order and are followed by its `EndOfFile`. Chunks of different
    files are mixed: as many files as there are threads may be open. A thread whose segment is not
    yet due decodes its first chunk and waits. Chunks that were handed on and not released never
    take more than the budget, plus one chunk per thread. Leaving the ``with`` block stops and joins
    the threads.

    Args:
        files: What to read.
        config: How to sample, fetch and decode them.
        readers: The number of threads.
        buffer_mb: The budget for decoded pixels, in megabytes.
    """

    def __init__(
        self, files: Sequence[MediaFile], config: Config, *, readers: int, buffer_mb: float
    ) -> None:
        self._files = deque(files)
        self._config = config
        self._max_bytes = buffer_mb * 1e6
        self._held_bytes = 0
        self._items: deque[Chunk | EndOfFile] = deque()
        self._open_files: list[_OpenFile] = []
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
        for opened in self._open_files:
            opened.close()

    @property
    def at_end(self) -> bool:
        """Whether nothing more will come."""
        with self._changed:
            return not self._items and not self._n_running

    def take(self, max_frames: int, *, wait: bool = True) -> list[Chunk | EndOfFile]:
        """The items that are ready, in order. Each chunk has to be released after use.

        Args:
            max_frames: No further chunk is taken once there are so many frames.
            wait: Wait for the first item, unless nothing more will come.
        """
        with self._changed:
            if wait:
                self._changed.wait_for(
                    lambda: self._items or self._error or not self._n_running,
                )
            if self._error:
                raise self._error
            taken: list[Chunk | EndOfFile] = []
            n_frames = 0
            while self._items and n_frames < max_frames:
                item = self._items.popleft()
                taken.append(item)
                if isinstance(item, Chunk):
                    n_frames += len(item.frames.rgb)
            return taken

    def release(self, chunk: Chunk) -> None:
        """Say that the pixels of a chunk are not needed any more."""
        with self._changed:
            self._held_bytes -= chunk.frames.rgb.nbytes
            self._changed.notify_all()

    def abandon(self, file: MediaFile) -> None:
        """Stop decoding a file whose frames cannot be used. Its `EndOfFile` still comes."""
        with self._changed:
            for opened in [each for each in self._open_files if each.file == file]:
                self._end(opened, DecodeError(f"{file.media}: given up", file.path))

    def _run(self) -> None:
        try:
            while task := self._next_task():
                opened, number = task
                if number is None:
                    self._open(opened)
                else:
                    self._read(opened, number)
        except BaseException as error:  # noqa: BLE001 - `take` raises it
            self._error = error
        finally:
            with self._changed:
                self._n_running -= 1
                self._changed.notify_all()

    def _next_task(self) -> tuple[_OpenFile, int | None] | None:
        """A segment of the earliest file that has one left, else a file to open.

        Returns None when there will be neither.
        """
        with self._changed:
            while not self._stopped:
                for opened in self._open_files:
                    if opened.state is _State.READY:
                        return opened, opened.take_segment()
                if self._files and len(self._open_files) < self._n_readers:
                    self._open_files.append(_OpenFile(self._files.popleft()))
                    return self._open_files[-1], None
                is_busy = any(opened.state is _State.BUSY for opened in self._open_files)
                if not self._files and not is_busy:
                    return None
                self._changed.wait()
            return None

    def _open(self, opened: _OpenFile) -> None:
        error: Exception | None = None
        config = self._config
        try:
            with self._timed(opened), contextlib.ExitStack() as stack:
                local = fetched(opened.file, config.runtime, go_on=lambda: not self._stopped)
                reader = FrameReader(stack.enter_context(local), config.sampling, config.decode)
                opened.source = stack.enter_context(reader).source
                opened.info, opened.close = opened.source.info, stack.pop_all().close
        except Exception as caught:  # noqa: BLE001 - a file that fails must not stop the others
            error = caught
        with self._changed:
            if error or not opened.source.n_segments:
                self._end(opened, error)
        self._release(opened)
        self._leave(opened)

    def _read(self, opened: _OpenFile, number: int) -> None:
        """Decode the first chunk of a segment, wait for the segment's turn, and decode the rest."""
        error: Exception | None = None
        try:
            with contextlib.ExitStack() as stack:
                stack.callback(self._release, opened)
                with self._timed(opened):
                    segment = opened.source.next_segment()
                    if not segment.is_streamed:
                        stack.close()
                    chunks = stack.enter_context(contextlib.closing(segment.chunks))
                    chunk = next(chunks, None)
                while chunk is not None and self._hand_on(opened, number, chunk):
                    with self._timed(opened):
                        chunk = next(chunks, None)
        except Exception as caught:  # noqa: BLE001 - as above
            error = caught
        with self._changed:
            self._changed.wait_for(lambda: self._is_over(opened) or opened.n_done == number)
            if not self._is_over(opened):
                is_last = opened.finish_segment()
                if error or is_last:
                    self._end(opened, error)
                self._changed.notify_all()
        self._leave(opened)

    @contextlib.contextmanager
    def _timed(self, opened: _OpenFile) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            with self._changed:
                opened.seconds += time.perf_counter() - started

    def _is_over(self, opened: _OpenFile) -> bool:
        return self._stopped or opened.state is _State.ENDED

    def _hand_on(self, opened: _OpenFile, number: int, frames: FrameChunk) -> bool:
        """Put a chunk into the queue when it is its turn and there is room.

        Returns False when it is not wanted any more.
        """
        n_bytes = frames.rgb.nbytes

        def may_go() -> bool:
            has_room = not self._held_bytes or self._held_bytes + n_bytes <= self._max_bytes
            return self._is_over(opened) or (opened.n_done == number and has_room)

        with self._changed:
            self._changed.wait_for(may_go)
            if self._is_over(opened):
                return False
            self._held_bytes += n_bytes
            self._items.append(Chunk(opened.file, opened.source.info, frames))
            self._changed.notify_all()
            return True

    def _end(self, opened: _OpenFile, error: Exception | None) -> None:
        """Put the end of a file into the queue; the lock is held."""
        outcome = error or opened.source.report
        opened.end()
        self._open_files.remove(opened)
        self._items.append(EndOfFile(opened.file, opened.info, outcome, opened.seconds))
        self._changed.notify_all()

    def _release(self, opened: _OpenFile) -> None:
        with self._changed:
            opened.release()
            self._changed.notify_all()

    def _leave(self, opened: _OpenFile) -> None:
        with self._changed:
            is_last = opened.leave()
        if is_last:
            opened.close()
