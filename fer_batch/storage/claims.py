"""Claims: the right of one process to do a piece of work that many processes, on many hosts, share.

A claim is a file that only one process can create. Its holder *beats*: it rewrites the file every
few seconds. A process that sees no change for `lease_s` on its own clock, or knows that the holder
is dead, takes the work over by creating the claim of the next *generation*. A holder that comes
back finds that file and knows that it lost its claim. So no clocks are compared, and no file is
deleted that others may be reading. The folder must only guarantee that a file can be created by one
process alone, as local disks, NFS and S3 (``If-None-Match``) do. The generation is a fencing token
(Kleppmann, "How to do distributed locking", 2016).
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, Literal

from fer_batch.errors import StoreError
from fer_batch.storage import urls

logger = logging.getLogger(__name__)

BEATS = 6
"""How often a holder beats in the time of one lease."""
LOCK_LEASE_S = 60.0

State = Literal["free", "held", "silent", "done"]
"""``silent``: the holder has not beaten for a lease, and the work may be taken over."""


class ClaimLostError(StoreError):
    """The work was given to another process; this one must not commit anything more."""


class Claim:
    """Work that this process holds until it leaves the ``with`` block.

    Attributes:
        share: Fraction of the work that is done, in [0, 1]. Others see it with the next beat.
    """

    def __init__(self, folder: Path, name: str, generation: int, lease_s: float) -> None:
        self._folder, self._name, self._lease_s = folder, name, lease_s
        self.generation = generation
        self.share = 0.0
        self._beat = 0
        self._beaten_s = _now_s()
        self._left = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="fer_batch-claim", daemon=True)

    def __enter__(self) -> Claim:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._left.set()
        self._thread.join()
        with contextlib.suppress(*urls.failures()):  # others then see that it is silent
            self._write("free")

    def check(self) -> None:
        """Raise `ClaimLostError` if the work may now belong to another process."""
        is_silent = _now_s() - self._beaten_s > self._lease_s
        if is_silent or not is_current(self._folder, self._name, self.generation):
            raise ClaimLostError(f"{self._folder}: {self._name} was given to another worker")

    def finish(self) -> None:
        """Mark the work as done, so that nobody takes it again."""
        self.check()
        (self._folder / f"{self._name}.done").write_bytes(b"")

    def _keep(self) -> None:
        while not self._left.wait(self._lease_s / BEATS):
            try:
                self._write("held")
                self._beaten_s = _now_s()
            except urls.failures() as error:
                logger.warning("%s: the claim cannot be written: %s", self._name, error)

    def _write(self, state: State) -> None:
        self._beat += 1
        if is_current(self._folder, self._name, self.generation):
            urls.write(
                _file(self._folder, self._name, self.generation),
                _content(state, beat=self._beat, share=self.share),
            )


class Claims:
    """The claims in one folder, as one process sees them.

    Args:
        folder: The folder that all processes share. If it is missing, nothing can be claimed.
        lease_s: Seconds without a beat after which a holder counts as dead; the same for all.
    """

    def __init__(self, folder: Path, lease_s: float) -> None:
        self._folder, self._lease_s = folder, lease_s
        self._seen: dict[str, tuple[bytes, float]] = {}

    def take(self, name: str) -> Claim | None:
        """Claim work. None if it is done, or if another process holds it or was faster."""
        generations, done = self._list()
        last = generations.get(name, 0)
        if name in done or self._state(name, last) == "held":
            return None
        generation = last + 1
        if not create(_file(self._folder, name, generation), _content("held")):
            return None
        if last and not _file(self._folder, name, last).exists():  # others took it meanwhile
            _file(self._folder, name, generation).unlink(missing_ok=True)
            return None
        _file(self._folder, name, generation - 2).unlink(missing_ok=True)
        return Claim(self._folder, name, generation, self._lease_s)

    def states(self) -> dict[str, State]:
        """State of all work that was ever claimed, as far as this object has seen it."""
        generations, done = self._list()
        return {
            name: "done" if name in done else self._state(name, generation)
            for name, generation in generations.items()
        }

    def release_silent(self) -> None:
        """Make the work of silent holders free, also for processes that have not seen the silence.

        Work that cannot be released now stays silent.
        """
        generations, done = self._list()
        for name, generation in generations.items():
            if name not in done and self._state(name, generation) == "silent":
                with contextlib.suppress(*urls.failures()):
                    create(_file(self._folder, name, generation + 1), _content("free"))

    def is_anyone_alive(self, names: Callable[[str], bool] = lambda name: True) -> bool:
        """Whether anyone holds work with such names and beats. May wait for the time of a lease."""
        before: dict[str, bytes] = {}
        while True:
            generations, done = self._list()
            states = {
                name: self._state(name, generation)
                for name, generation in generations.items()
                if name not in done and names(name)
            }
            held = {name for name, state in states.items() if state == "held"}
            contents = {name: self._read(name, generations[name])[0] for name in held}
            if any(content != before.get(name, content) for name, content in contents.items()):
                return True
            if not held:
                return False
            before |= contents
            time.sleep(min(1.0, self._lease_s / BEATS))

    def shares(self) -> dict[str, float]:
        """Fraction that is done, in [0, 1], of all work that was ever claimed."""
        generations, done = self._list()
        return {
            name: 1.0 if name in done else float(self._read(name, generation)[1].get("share", 0))
            for name, generation in generations.items()
        }

    def _list(self) -> tuple[dict[str, int], set[str]]:
        """The latest generation of each name, and the names that are done."""
        generations: dict[str, int] = {}
        done = set()
        for file in urls.names(self._folder):
            name, _, ending = file.rpartition(".")
            if ending == "done":
                done.add(name)
            elif ending.isdigit():
                generations[name] = max(generations.get(name, 0), int(ending))
        return generations, done

    def _state(self, name: str, generation: int) -> State:
        if not generation:
            return "free"
        content, claim = self._read(name, generation)
        key = f"{name}.{generation}"
        if self._seen.get(key, (None, 0))[0] != content:
            self._seen[key] = content, _now_s()
        if claim.get("state") == "free" or _is_dead(claim):
            return "free"
        return "silent" if _now_s() - self._seen[key][1] > self._lease_s else "held"

    def _read(self, name: str, generation: int) -> tuple[bytes, dict[str, Any]]:
        content = b""
        with contextlib.suppress(FileNotFoundError):  # the folder was cleared meanwhile
            content = urls.read(_file(self._folder, name, generation))
        try:
            return content, dict(json.loads(content))
        except ValueError:  # just being created
            return content, {}


def wait_for(claims: Claims, name: str, *, max_wait_s: float) -> Claim:
    """Claim work as soon as it is free.

    Raises:
        StoreError: Another process still holds it after `max_wait_s`.
    """
    deadline = _now_s() + max_wait_s
    while (claim := claims.take(name)) is None:
        if _now_s() > deadline:
            raise StoreError(f"another run holds {name} for more than {max_wait_s:g} s")
        time.sleep(0.2)
    return claim


@contextlib.contextmanager
def locked(folder: Path, *, shared: bool) -> Iterator[None]:
    """A lock that is made of claims, for places without `flock`.

    Raises:
        BlockingIOError: Another process holds it, and it is not shared by both.
    """
    mine = Claims(folder, LOCK_LEASE_S)
    name = f"shared-{uuid.uuid4().hex}" if shared else "exclusive"
    claim = mine.take(name)
    with claim or contextlib.nullcontext():
        if not claim or mine.is_anyone_alive(
            lambda other: other == "exclusive" if shared else other != name
        ):
            raise BlockingIOError
        yield
    if shared:
        _file(folder, name, 1).unlink(missing_ok=True)


def create(path: Path, content: bytes) -> bool:
    """Create a file. False if another process was faster, or the folder is gone."""
    try:
        with path.open("xb") as file:
            file.write(content)
    except (FileExistsError, FileNotFoundError):
        return False
    return True


def is_current(folder: Path, name: str, generation: int) -> bool:
    """Whether a claim still exists and nobody has claimed a later generation."""
    is_there = _file(folder, name, generation).exists()
    return is_there and not _file(folder, name, generation + 1).exists()


def _file(folder: Path, name: str, generation: int) -> Path:
    return folder / f"{name}.{generation}"


def _content(state: State, *, beat: int = 0, share: float = 0.0) -> bytes:
    host, pid = _this_host(), os.getpid()
    values = {"state": state, "beat": beat, "share": round(share, 4)}
    return json.dumps({**values, "host": host, "pid": pid, "started": _started(pid)}).encode()


def _is_dead(claim: dict[str, Any]) -> bool:
    """Whether the holder was a process of this host that has ended; False if that is not known."""
    is_here = _this_host() is not None and claim.get("host") == _this_host()
    return is_here and _started(int(claim["pid"])) != claim["started"]


@cache
def _this_host() -> str | None:
    """This machine, since its start, and the container in it; None on systems other than Linux.

    There, a holder that has ended is noticed only by its silence.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{socket.gethostname()} {boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return None


def _started(pid: int) -> str | None:
    """When a process began, in clock ticks since boot; None when there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    state, *fields = stat.rpartition(")")[2].split()
    return None if state == "Z" else fields[18]


def _now_s() -> float:
    """The time in seconds, by a clock that does not stop while the machine sleeps."""
    if sys.platform == "linux":
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    if sys.platform == "darwin":
        return time.clock_gettime(time.CLOCK_MONOTONIC)
    return time.monotonic()
