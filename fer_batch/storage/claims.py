"""Claims: work that many processes, on many hosts, give to one of them at a time.

A claim is a file that only one process can create. Its holder *beats*: it rewrites the file every
few seconds. Who finds it unchanged for `lease_s` of its own clock, or knows that its holder is
dead, takes over by creating the claim of the next *generation*. A holder that comes back finds that
one and knows that it lost; so no clocks are compared, nothing is deleted while others look at it,
and all that is asked of the folder is that a file can be created by one process only: true of
local disks, of NFS, and of S3 (``If-None-Match``). The generation is a fencing token (Kleppmann,
"How to do distributed locking", 2016).
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
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
"""In one lease."""
LOCK_LEASE_S = 60.0

State = Literal["free", "held", "silent", "done"]


class ClaimLostError(StoreError):
    """The work was given to another process; what this one has not committed is not needed."""


class Claim:
    """Work that this process holds, until the ``with`` block is left.

    Attributes:
        share: Part of the work that is done, in [0, 1]; others see it with the next beat.
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
        with contextlib.suppress(*urls.failures()):  # others will find it silent
            self._write("free")

    def check(self) -> None:
        """Raise `ClaimLostError` when the work may belong to another process by now."""
        is_silent = _now_s() - self._beaten_s > self._lease_s
        if is_silent or not is_current(self._folder, self._name, self.generation):
            raise ClaimLostError(f"{self._folder}: {self._name} was given to another worker")

    def finish(self) -> None:
        """Say that the work is done: nobody will take it again."""
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
    """The claims of one folder, as one process sees them.

    Args:
        folder: Shared by all. Where it is missing there is nothing to claim.
        lease_s: Seconds of silence after which a holder counts as dead; the same for all.
    """

    def __init__(self, folder: Path, lease_s: float) -> None:
        self._folder, self._lease_s = folder, lease_s
        self._seen: dict[str, tuple[bytes, float]] = {}

    def take(self, name: str) -> Claim | None:
        """Claim work; None when it is done, or another process holds it or was faster."""
        generations, done = self._list()
        last = generations.get(name, 0)
        if name in done or self._state(name, last) == "held":
            return None
        generation = last + 1
        if not create(_file(self._folder, name, generation), _content("held")):
            return None
        if last and not _file(self._folder, name, last).exists():  # others are far ahead
            _file(self._folder, name, generation).unlink(missing_ok=True)
            return None
        _file(self._folder, name, generation - 2).unlink(missing_ok=True)
        return Claim(self._folder, name, generation, self._lease_s)

    def states(self) -> dict[str, State]:
        """State of all work that was ever claimed.

        Work of a holder that was silent for a lease, as far as this object could see, is free for
        all from then on, whatever they have seen.
        """
        generations, done = self._list()
        states: dict[str, State] = {}
        for name, generation in generations.items():
            state = "done" if name in done else self._state(name, generation)
            if state == "silent":
                with contextlib.suppress(*urls.failures()):
                    create(_file(self._folder, name, generation + 1), _content("free"))
                state = "free"
            states[name] = state
        return states

    def is_anyone_alive(self, names: Callable[[str], bool] = lambda name: True) -> bool:
        """Whether a holder beats, of work with such names; waits a lease for one that is silent."""
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
        """Part that is done, in [0, 1], of all work that was ever claimed."""
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


def held(claims: Claims, name: str, *, patience_s: float) -> Claim:
    """Claim work, waiting for whoever holds it.

    Raises:
        StoreError: It is still held by another process after `patience_s`.
    """
    deadline = _now_s() + patience_s
    while (claim := claims.take(name)) is None:
        if _now_s() > deadline:
            raise StoreError(f"another run holds {name} for more than {patience_s:g} s")
        time.sleep(0.2)
    return claim


@contextlib.contextmanager
def locked(folder: Path, *, shared: bool) -> Iterator[None]:
    """A lock made of claims, for where there is no `flock`.

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
    """Create a file; False when another process was faster, or the folder was removed."""
    try:
        with path.open("xb") as file:
            file.write(content)
    except (FileExistsError, FileNotFoundError):
        return False
    return True


def is_current(folder: Path, name: str, generation: int) -> bool:
    """Whether no later generation has been claimed and the claim was not cleared away."""
    is_there = _file(folder, name, generation).exists()
    return is_there and not _file(folder, name, generation + 1).exists()


def _file(folder: Path, name: str, generation: int) -> Path:
    return folder / f"{name}.{generation}"


def _content(state: State, *, beat: int = 0, share: float = 0.0) -> bytes:
    host, pid = _this_host(), os.getpid()
    values = {"state": state, "beat": beat, "share": round(share, 4)}
    return json.dumps({**values, "host": host, "pid": pid, "started": _started(pid)}).encode()


def _is_dead(claim: dict[str, Any]) -> bool:
    """Whether the holder was a process of this host that has ended."""
    is_here = claim.get("host") == _this_host()
    return is_here and _started(int(claim["pid"])) != claim["started"]


@cache
def _this_host() -> str:
    """This boot of this machine, and the container in it."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return f"{socket.gethostname()} {boot} {Path('/proc/self/ns/pid').readlink()}"


def _started(pid: int) -> str | None:
    """When a process began, in clock ticks since boot; None when there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    state, *fields = stat.rpartition(")")[2].split()
    return None if state == "Z" else fields[18]


def _now_s() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)
