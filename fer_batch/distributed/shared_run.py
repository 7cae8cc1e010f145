"""A run as a queue of shards in its output folder, which any number of processes work on together.

```
OUT/.run/plan.json                 the current run: its settings and its number of shards
OUT/.run/plan.<n>                  claims on the right to plan and to end a run
OUT/.run/<id>/names.json           names of all files of the run
OUT/.run/<id>/shards/00001.json    files of a shard
OUT/.run/<id>/claims/00001.<n>     claims on a shard (`fer_batch.storage.claims`)
OUT/.run/<id>/claims/00001.done    exists when the shard is done
OUT/.run/<id>/pieces/              pieces of long videos (`fer_batch.distributed.pieces`)
```

The first process plans the run, and others join it. A process that finds all shards done ends the
run: it writes run.json and removes the rest. A run that nobody works on any more is continued by
the next process that has the same settings, and replaced by one that has others.
"""

from __future__ import annotations

import itertools
import json
import math
import uuid
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fer_batch.config import Config
from fer_batch.distributed.pieces import can_split
from fer_batch.errors import ConfigError, StoreError
from fer_batch.pipeline.manifest import Problem, Summary, run_manifest
from fer_batch.pipeline.plan import Plan, plan_for
from fer_batch.records import MediaFile, Piece
from fer_batch.results import store
from fer_batch.results.columns import VERSION
from fer_batch.results.parquet import writing
from fer_batch.settings import validate
from fer_batch.storage import claims, urls
from fer_batch.storage.claims import Claim, ClaimLostError, Claims

MAX_WAIT_S = 86_400.0
"""How long a process waits for another that plans a run, ends it, or makes pictures of it."""
DRAWING_LEASE_S = 60.0
FORMAT = f"2, tables {VERSION}"
"""Version of the files in OUT/.run. A run of another version counts as one with other settings."""


@dataclass(frozen=True, slots=True)
class Shard:
    """Files that one process does."""

    number: int
    files: tuple[MediaFile, ...]
    """Videos or still images, not both; or one piece of a video."""
    piece_shards: tuple[int, ...] = ()
    """If not empty, the work is to join the pieces of the only file, which these shards hold."""

    @property
    def label(self) -> str:
        """For people: ``shard 3: b/c.mp4 and 2 more``."""
        file, n_more = self.files[0], len(self.files) - 1
        if self.piece_shards:
            more = f", put together from {len(self.piece_shards)} pieces"
        elif file.piece.n > 1:
            more = f", piece {file.piece.number + 1} of {file.piece.n}"
        else:
            more = f" and {n_more:,} more" if n_more else ""
        return f"shard {self.number}: {file.media}{more}"


class SharedRun:
    """The current run of an output folder, which processes share.

    Attributes:
        folder: Holds what is only needed until the run ends.
        members: One claim for each process that has joined.
    """

    def __init__(self, out: Path, header: dict[str, Any]) -> None:
        self.out = out
        self.id: str = header["id"]
        self.config_hash: str = header["config_hash"]
        self.has_known_format = header.get("format") == FORMAT
        self.n_shards: int = header["n_shards"]
        self._piece_shards = {
            int(number): shards for number, shards in header.get("piece_shards", {}).items()
        }
        self._header = header
        self._media: frozenset[str] | None = None
        self.began = datetime.fromisoformat(header["began"])
        self.lease_s: float = header["lease_s"]
        self.folder: Path = out / ".run" / self.id
        self.members = Claims(self.folder / "members", self.lease_s)
        self._claims = Claims(self.folder / "claims", self.lease_s)

    @classmethod
    def current(cls, out: Path) -> SharedRun | None:
        """The current run of an output folder; None if there is none."""
        with suppress(FileNotFoundError):
            return cls(out, json.loads(urls.read(out / ".run" / "plan.json")))
        return None

    def shard(self, number: int) -> Shard:
        """One shard, counted from 1."""
        values = json.loads(urls.read(self._file(number)))
        files = [
            MediaFile(
                **{**file, "path": urls.path_of(file["path"]), "piece": Piece(**file["piece"])}
            )
            for file in values["files"]
        ]
        return Shard(number, tuple(files), tuple(values["piece_shards"]))

    def write(self, shard: Shard) -> None:
        """Write a shard to the place where `shard` reads it."""
        values = asdict(shard)
        self._file(shard.number).write_text(json.dumps(values, default=str), encoding="utf-8")

    def clear(self) -> None:
        """Remove everything that is only needed until the run ends."""
        (self.out / ".run" / "plan.json").unlink(missing_ok=True)
        urls.remove_folder(self.folder)

    def plan(self, files: Sequence[MediaFile]) -> Plan:
        """A plan to do some files as the run wants it.

        Raises:
            ConfigError: This host has other weights than the host that planned the run.
        """
        plan = plan_for(files, validate(Config, self._header["config"]))
        if plan.config_hash != self.config_hash:
            raise ConfigError(
                f"the run in {self.out} was planned with other weights than this host has: "
                "put the same files in place"
            )
        return plan

    def take(self, number: int) -> Claim | None:
        """Claim a shard; None if it is done or another process has it."""
        with writing(self.out):
            return self._claims.take(_name(number)) if self._file(number).exists() else None

    def check(self, number: int, generation: int) -> None:
        """Raise `ClaimLostError` if a shard was given to another process."""
        if not claims.is_current(self.folder / "claims", _name(number), generation):
            raise ClaimLostError(f"{self.out}: shard {number} was given to another worker")

    def free_shards(self, *, skip: Collection[int] = ()) -> list[int]:
        """Numbers of the shards that can be claimed now, without those to skip."""
        states = self._claims.states()
        if self.has_ended():
            return []
        return [
            number
            for number in range(1, self.n_shards + 1)
            if number not in skip
            and states.get(_name(number), "free") == "free"
            and all(
                states.get(_name(piece)) == "done" for piece in self._piece_shards.get(number, ())
            )
        ]

    def release_silent(self) -> None:
        """Make shards free whose workers have fallen silent."""
        self._claims.release_silent()

    def has_other_workers(self, *, own: Collection[int] = ()) -> bool:
        """Whether other processes hold shards, or held some that are not released yet."""
        states = self._claims.states()
        return any(
            states.get(_name(number)) in ("held", "silent")
            for number in range(1, self.n_shards + 1)
            if number not in own
        )

    def is_done(self) -> bool:
        """Whether every shard is done."""
        n_done = Counter(self._claims.states().values())["done"]
        return n_done == self.n_shards or self.has_ended()

    def has_ended(self) -> bool:
        """Whether another process has ended the run and removed it."""
        current = SharedRun.current(self.out)
        return current is None or current.id != self.id

    def media(self) -> frozenset[str]:
        """Names of all files of the run, which are read only once."""
        if self._media is None:
            self._media = frozenset(json.loads(urls.read(self.folder / "names.json")))
        return self._media

    def share(self) -> float:
        """Fraction of the run that is done, in [0, 1], by number of shards."""
        shares = self._claims.shares()
        return 1.0 if self.has_ended() else sum(shares.values()) / max(1, self.n_shards)

    def _file(self, number: int) -> Path:
        return self.folder / "shards" / f"{_name(number)}.json"


@contextmanager
def join_run(
    plan: Plan, out: Path, *, force: bool = False, max_mb: float, split_mb: float, lease_s: float
) -> Iterator[SharedRun]:
    """Join the current run of an output folder, or begin one.

    The caller does shards inside the ``with`` block. If all shards are done when the block is left,
    the run is ended.

    Args:
        plan: The work of a run that is begun.
        out: Output folder; it need not exist.
        force: Whether a run that is begun also does files of the plan that are done.
        max_mb: Megabytes of files in one shard. A larger file has a shard of its own.
        split_mb: Megabytes above which a video is done in pieces of about this size.
        lease_s: Seconds of silence after which the shard of a worker is given to another.

    Raises:
        StoreError: Another run with other settings is writing to the folder, or the folder cannot
            be written.
    """
    with writing(out):
        urls.make_folder(out / ".run")
    right = Claims(out / ".run", lease_s)
    with _wait_for(right, "plan", out), writing(out):
        run = _joinable(plan, out) or _begin(
            plan, out, force=force, max_mb=max_mb, split_mb=split_mb, lease_s=lease_s
        )
        member = run.members.take(uuid.uuid4().hex)
        run.media()  # read now, as the file is removed when the run ends
    with member or nullcontext():
        yield run
    if run.is_done():
        with _wait_for(right, "plan", out):
            _end(run, plan)


@contextmanager
def drawing_lock(out: Path) -> Iterator[None]:
    """Let only one process at a time make pictures of a run; the others wait."""
    with _wait_for(Claims(out / ".run", DRAWING_LEASE_S), "drawing", out):
        yield


def summary(plan: Plan, out: Path, began: datetime) -> Summary:
    """What became of the files of a plan, from the media rows that all processes wrote."""
    todo = {file.media for file in plan.todo}
    rows = [
        row
        for row in store.media_rows(out, store.parts_of(plan.todo, out))
        if row.media in todo and row.config_hash == plan.config_hash
    ]
    statuses = Counter(row.status for row in rows)
    return Summary(
        n_ok=statuses["ok"],
        n_partial=statuses["partial"],
        n_failed=statuses["failed"],
        n_skipped=plan.n_done,
        n_frames=sum(row.n_frames_decoded for row in rows),
        n_faces=sum(row.n_faces for row in rows),
        seconds=(datetime.now(UTC) - began).total_seconds(),
        interrupted=len(rows) < len(todo),
        device=plan.config.runtime.device,
        stage_seconds={},
        problems=tuple(Problem(row.media, row.status, row.error) for row in rows if row.error),
    )


def make_shards(
    files: Sequence[MediaFile], config: Config, *, max_mb: float, split_mb: float
) -> list[Shard]:
    """Divide files into shards of about the same size, the largest first.

    Args:
        files: Still images, then videos; no shard holds both.
        config: Decides which videos can be done in pieces.
        max_mb: Megabytes in one shard, give or take half a file.
        split_mb: Megabytes above which a video is done in pieces, which have at most this size.
    """
    long = {f: None for f in files if f.size_bytes > split_mb * 1e6 and can_split(f, config)}
    groups: list[tuple[MediaFile, ...]] = []
    whole = (file for file in files if file not in long)
    for kind, group in itertools.groupby(whole, key=lambda file: file.kind):
        same = list(group)
        length = store.IMAGES_PER_PART if kind == "image" else len(same)
        for start in range(0, len(same), length):
            groups += _balanced(same[start : start + length], max_mb * 1e6)
    for file in long:
        n = math.ceil(file.size_bytes / (split_mb * 1e6))
        groups += [(replace(file, piece=Piece(number, n)),) for number in range(n)]
    shards = list(map(Shard, itertools.count(1), sorted(groups, key=_size, reverse=True)))
    pieces = defaultdict[str, list[int]](list)
    for shard in shards:
        pieces[shard.files[0].media].append(shard.number)
    joining = enumerate(long, start=len(shards) + 1)
    return [*shards, *(Shard(n, (file,), tuple(pieces[file.media])) for n, file in joining)]


def _balanced(files: Sequence[MediaFile], max_bytes: float) -> Iterator[tuple[MediaFile, ...]]:
    """The files of each shard. All bytes are divided evenly; the middle of a file decides."""
    total = _size(files)
    shard_bytes = total / math.ceil(total / max_bytes) if total else math.inf
    ends = itertools.accumulate(file.size_bytes for file in files)
    shards = [
        (end - file.size_bytes / 2) // shard_bytes for file, end in zip(files, ends, strict=True)
    ]
    for _, pairs in itertools.groupby(zip(shards, files, strict=True), key=lambda pair: pair[0]):
        yield tuple(file for _, file in pairs)


def _wait_for(right: Claims, name: str, out: Path) -> Claim:
    with writing(out):
        return claims.wait_for(right, name, max_wait_s=MAX_WAIT_S)


def _joinable(plan: Plan, out: Path) -> SharedRun | None:
    """The current run if it has the same settings; one that has others and is dead is removed."""
    run = SharedRun.current(out)
    if run is None or (run.has_known_format and run.config_hash == plan.config_hash):
        return run
    if run.members.is_anyone_alive():
        raise StoreError(
            f"another run with other settings is writing to {out}: wait for it, or choose another "
            "folder"
        )
    run.clear()
    return None


def _begin(
    plan: Plan, out: Path, *, force: bool, max_mb: float, split_mb: float, lease_s: float
) -> SharedRun:
    with store.lock(out):
        store.reconcile(out)
        todo = plan.todo if force else store.pending(plan.todo, out, config_hash=plan.config_hash)
        replaced = todo if force else [file for file in todo if file.kind == "image"]
        store.forget(out, [file.media for file in replaced])
    shards = make_shards(todo, plan.config, max_mb=max_mb, split_mb=split_mb)
    header = {
        "id": uuid.uuid4().hex[:12],
        "format": FORMAT,
        "n_shards": len(shards),
        "piece_shards": {
            shard.number: shard.piece_shards for shard in shards if shard.piece_shards
        },
        "began": datetime.now(UTC).isoformat(),
        "lease_s": lease_s,
        "config": plan.config.model_dump(mode="json"),
        "config_hash": plan.config_hash,
    }
    run = SharedRun(out, header)
    with writing(out):
        for name in ("shards", "claims", "members"):
            urls.make_folder(run.folder / name)
        for shard in shards:
            run.write(shard)
        names = json.dumps([file.media for file in todo])
        (run.folder / "names.json").write_text(names, encoding="utf-8")
        urls.write(out / ".run" / "plan.json", json.dumps(header).encode())
    return run


def _end(run: SharedRun, plan: Plan) -> None:
    """Tidy the output, write run.json and remove the run, unless another process did so."""
    if run.has_ended():
        return
    with suppress(StoreError), store.lock(run.out):  # held by a worker that lost its shard
        store.reconcile(run.out)
    store.write_run(run.out, run_manifest(plan, run.began, summary(plan, run.out, run.began)))
    run.clear()


def _size(files: Sequence[MediaFile]) -> float:
    return sum(file.size_bytes / file.piece.n for file in files)


def _name(number: int) -> str:
    return f"{number:05}"
