"""A run as a queue of shards in its output folder, which any number of processes do together.

```
OUT/.run/plan.json                 the run under way: settings, and what each shard holds
OUT/.run/plan.<n>                  claims of the right to plan and to end a run
OUT/.run/<id>/names.json           all its files
OUT/.run/<id>/shards/00001.json    files of a shard
OUT/.run/<id>/claims/00001.<n>     see `fer_batch.storage.claims`; 00001.done when it is done
OUT/.run/<id>/pieces/              of long videos, see `fer_batch.distributed.pieces`
```

The first process plans; the others take part. Whoever finds everything done ends the run: it
writes run.json and removes the rest. A run that nobody works on any more is continued by the next
process that comes with the same settings, and given up by one that comes with others.
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
from functools import cached_property
from pathlib import Path
from typing import Any

from fer_batch.config import Config
from fer_batch.distributed.pieces import can_split
from fer_batch.errors import ConfigError, StoreError
from fer_batch.pipeline.manifest import Problem, Summary, run_manifest
from fer_batch.pipeline.plan import Plan, plan_for
from fer_batch.records import MediaFile, Piece
from fer_batch.results import store
from fer_batch.results.parquet import writing
from fer_batch.settings import validate
from fer_batch.storage import claims, urls
from fer_batch.storage.claims import Claim, ClaimLostError, Claims

PATIENCE_S = 86_400.0
"""How long a process waits for another that plans or ends a run, or makes pictures of it."""
DRAWING_LEASE_S = 60.0


@dataclass(frozen=True, slots=True)
class Shard:
    """Files that one process does."""

    number: int
    files: tuple[MediaFile, ...]
    """Videos or still images, not both; or a piece of a video."""
    joins: tuple[int, ...] = ()
    """Shards of the pieces of its only file: its work is to put them together."""

    @property
    def label(self) -> str:
        """For people: ``shard 3: b/c.mp4 and 2 more``."""
        file, n_more = self.files[0], len(self.files) - 1
        if self.joins:
            more = f", put together from {len(self.joins)} pieces"
        elif file.piece.n > 1:
            more = f", piece {file.piece.number + 1} of {file.piece.n}"
        else:
            more = f" and {n_more:,} more" if n_more else ""
        return f"shard {self.number}: {file.media}{more}"


class SharedRun:
    """The run under way in an output folder.

    Attributes:
        folder: Of what is needed as long as it is under way.
        members: One claim for each process that takes part.
    """

    def __init__(self, out: Path, header: dict[str, Any]) -> None:
        self.out = out
        self.id: str = header["id"]
        self.config_hash: str = header["config_hash"]
        self.n_shards: int = header["n_shards"]
        self._joins = {int(number): shards for number, shards in header["joins"].items()}
        self._header = header
        self.began = datetime.fromisoformat(header["began"])
        self.lease_s: float = header["lease_s"]
        self.folder: Path = out / ".run" / self.id
        self.members = Claims(self.folder / "members", self.lease_s)
        self._claims = Claims(self.folder / "claims", self.lease_s)

    @classmethod
    def under_way(cls, out: Path) -> SharedRun | None:
        """The run of an output folder; None where there is none."""
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
        return Shard(number, tuple(files), tuple(values["joins"]))

    def write(self, shard: Shard) -> None:
        """Put a shard where `shard` finds it."""
        values = asdict(shard)
        self._file(shard.number).write_text(json.dumps(values, default=str), encoding="utf-8")

    def clear(self) -> None:
        """Remove the run: no process takes part any more."""
        (self.out / ".run" / "plan.json").unlink(missing_ok=True)
        urls.remove_folder(self.folder)

    def plan(self, files: Sequence[MediaFile]) -> Plan:
        """The work on some files, as this process would do it.

        Raises:
            ConfigError: It would give other results than the run's: other weights stand here.
        """
        plan = plan_for(files, validate(Config, self._header["config"]))
        if plan.config_hash != self.config_hash:
            raise ConfigError(
                f"the run in {self.out} was planned with other weights than those that stand here: "
                "put the same files in place"
            )
        return plan

    def take(self, number: int) -> Claim | None:
        """Claim a shard; None when it is done or another process has it."""
        with writing(self.out):
            return self._claims.take(_name(number)) if self._file(number).exists() else None

    def check(self, number: int, generation: int) -> None:
        """Raise `ClaimLostError` when a shard was given to another process."""
        if not claims.is_current(self.folder / "claims", _name(number), generation):
            raise ClaimLostError(f"{self.out}: shard {number} was given to another worker")

    def free(self, passed: Collection[int]) -> list[int]:
        """Numbers of the shards that can be claimed now, without those that this process passes."""
        states = self._claims.states()
        if self.has_ended:
            return []
        return [
            number
            for number in range(1, self.n_shards + 1)
            if number not in passed
            and states.get(_name(number), "free") == "free"
            and all(states.get(_name(piece)) == "done" for piece in self._joins.get(number, ()))
        ]

    def is_at_work_elsewhere(self, own: Collection[int]) -> bool:
        """Whether other processes hold shards."""
        states = self._claims.states()
        return any(
            states.get(_name(number)) == "held"
            for number in range(1, self.n_shards + 1)
            if number not in own
        )

    @property
    def is_done(self) -> bool:
        """Whether every shard is."""
        done = Counter(self._claims.states().values())["done"]
        return done == self.n_shards or self.has_ended

    @property
    def has_ended(self) -> bool:
        """Whether another process has ended the run, and removed it."""
        current = SharedRun.under_way(self.out)
        return current is None or current.id != self.id

    @cached_property
    def medias(self) -> set[str]:
        """Names of all its files."""
        return set(json.loads(urls.read(self.folder / "names.json")))

    @property
    def share(self) -> float:
        """Part of the run that is done, in [0, 1], by shards."""
        shares = self._claims.shares()
        return 1.0 if self.has_ended else sum(shares.values()) / max(1, self.n_shards)

    def _file(self, number: int) -> Path:
        return self.folder / "shards" / f"{_name(number)}.json"


@contextmanager
def take_part(
    plan: Plan, out: Path, *, force: bool = False, max_mb: float, split_mb: float, lease_s: float
) -> Iterator[SharedRun]:
    """Take part in the run under way in an output folder, or begin one.

    The shards are done inside the block. When all are done it is the end of the run.

    Args:
        plan: What a run that begins has to do.
        out: Output folder; it need not exist.
        force: Whether files of the plan that are done by now are done again.
        max_mb: Megabytes of files in one shard; a larger file has one of its own.
        split_mb: Megabytes above which a video is done in pieces of about this size.
        lease_s: Seconds of silence after which the shard of a worker is given to another.

    Raises:
        StoreError: Another run with other settings is at work there, or it cannot be written.
    """
    with writing(out):
        urls.make_folder(out / ".run")
    right = Claims(out / ".run", lease_s)
    with _held(right, "plan", out), writing(out):
        run = _under_way(plan, out) or _begin(
            plan, out, force=force, max_mb=max_mb, split_mb=split_mb, lease_s=lease_s
        )
        member = run.members.take(uuid.uuid4().hex)
        _ = run.medias  # read as long as it is surely there
    with member or nullcontext():
        yield run
    if run.is_done:
        with _held(right, "plan", out):
            _end(run, plan)


@contextmanager
def drawing(out: Path) -> Iterator[None]:
    """Keep others from making pictures of a run at the same time, and wait for those who do."""
    with _held(Claims(out / ".run", DRAWING_LEASE_S), "drawing", out):
        yield


def summary(plan: Plan, out: Path, began: datetime) -> Summary:
    """What became of the files of a plan, told from the rows that all processes wrote."""
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


def cut(
    files: Sequence[MediaFile], config: Config, *, max_mb: float, split_mb: float
) -> list[Shard]:
    """Cut files into shards of about the same size, the largest first.

    Args:
        files: Still images before videos; no shard holds both.
        config: Tells which videos may be done in pieces.
        max_mb: Megabytes in one shard, give or take half a file.
        split_mb: Megabytes above which a video is done in pieces, of at most as much.
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
    joins = enumerate(long, start=len(shards) + 1)
    return [*shards, *(Shard(n, (file,), tuple(pieces[file.media])) for n, file in joins)]


def _balanced(files: Sequence[MediaFile], max_bytes: float) -> Iterator[tuple[MediaFile, ...]]:
    """Files in order, each in the shard in whose share of all bytes its middle lies."""
    total = _size(files)
    share = total / math.ceil(total / max_bytes) if total else math.inf
    ends = itertools.accumulate(file.size_bytes for file in files)
    turns = [(end - file.size_bytes / 2) // share for file, end in zip(files, ends, strict=True)]
    for _, pairs in itertools.groupby(zip(turns, files, strict=True), key=lambda pair: pair[0]):
        yield tuple(file for _, file in pairs)


def _held(right: Claims, name: str, out: Path) -> Claim:
    with writing(out):
        return claims.held(right, name, patience_s=PATIENCE_S)


def _under_way(plan: Plan, out: Path) -> SharedRun | None:
    """The run that this one can take part in; one that is in its way and dead is cleared."""
    run = SharedRun.under_way(out)
    if run is None or run.config_hash == plan.config_hash:
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
    shards = cut(todo, plan.config, max_mb=max_mb, split_mb=split_mb)
    header = {
        "id": uuid.uuid4().hex[:12],
        "n_shards": len(shards),
        "joins": {shard.number: shard.joins for shard in shards if shard.joins},
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
    """Bring the output in order and remove the run, unless another process did so."""
    if run.has_ended:
        return
    with suppress(StoreError), store.lock(run.out):  # held by a worker that lost its shard
        store.reconcile(run.out)
    store.write_run(run.out, run_manifest(plan, run.began, summary(plan, run.out, run.began)))
    run.clear()


def _size(files: Sequence[MediaFile]) -> float:
    return sum(file.size_bytes / file.piece.n for file in files)


def _name(number: int) -> str:
    return f"{number:05}"
