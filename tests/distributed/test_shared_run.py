"""A run as a queue of shards: how it is cut, joined, continued, ended."""

import json
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from fer_batch.config import Config, Detector
from fer_batch.distributed import shared_run
from fer_batch.distributed.shared_run import Shard, SharedRun, join_run, summary
from fer_batch.errors import StoreError
from fer_batch.pipeline.plan import Plan, make_plan, plan_for
from fer_batch.records import MediaFile, Piece
from fer_batch.results import store
from fer_batch.storage import claims
from tests.support import results

SIZES_KB = {"a.mp4": 400, "b/ü 1.mp4": 500, "c.mp4": 2500, "d.mp4": 300, "e.png": 1}
LEASE_S = 60.0
CONFIG = Config()


@pytest.fixture
def footage(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    for name, size_kb in SIZES_KB.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(size_kb * 1000))
    return folder


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


@pytest.fixture
def plan(footage: Path, out: Path) -> Plan:
    return make_plan([footage], out, Config())


def part(
    plan: Plan, out: Path, *, force: bool = False, max_mb: float = 1.0, lease_s: float = LEASE_S
) -> AbstractContextManager[SharedRun]:
    return join_run(plan, out, force=force, max_mb=max_mb, split_mb=1e6, lease_s=lease_s)


def do(run: SharedRun, number: int, status: str = "ok") -> None:
    """Do a shard as a worker would."""
    claim = run.take(number)
    assert claim
    with claim:
        for file in run.shard(number).files:
            row = results.row(
                file.media,
                status=status,
                n_faces=2,
                size_bytes=file.size_bytes,
                mtime_ns=file.mtime_ns,
                config_hash=run.config_hash,
            )
            results.write(run.out, rows=[row])
        claim.finish()


def do_all(run: SharedRun) -> None:
    for number in run.free_shards():
        do(run, number)


def names(shards: Sequence[Shard]) -> list[list[str]]:
    return [[file.media for file in shard.files] for shard in shards]


def cut(
    files: Sequence[MediaFile], max_mb: float, split_mb: float = 1e6, config: Config = CONFIG
) -> list[Shard]:
    return shared_run.make_shards(files, config, max_mb=max_mb, split_mb=split_mb)


def files(kind: str, sizes_mb: Sequence[float]) -> list[MediaFile]:
    return [
        MediaFile(Path(f"/{n:05}"), f"{n:05}", kind, int(size * 1e6), 0)  # type: ignore[arg-type]
        for n, size in enumerate(sizes_mb)
    ]


@pytest.mark.parametrize("max_mb", [0.001, 1, 3, 1000])
def test_every_file_is_in_one_shard_of_one_kind(plan: Plan, max_mb: float) -> None:
    shards = cut(plan.todo, max_mb)
    assert sorted(name for shard in names(shards) for name in shard) == sorted(SIZES_KB)
    assert all(len({file.kind for file in shard.files}) == 1 for shard in shards)


def test_shards_are_balanced_and_the_largest_come_first() -> None:
    shards = cut(files("video", [10.0] * 95), max_mb=100)
    sizes = [len(shard.files) for shard in shards]
    assert sizes == sorted(sizes, reverse=True)
    assert (max(sizes), min(sizes), len(sizes)) == (10, 9, 10)
    assert names(cut(files("video", [1, 1, 90, 1, 1]), max_mb=10))[0] == ["00002"]


def test_no_shard_holds_more_images_than_a_part() -> None:
    shards = cut(files("image", [0.0001] * (2 * store.IMAGES_PER_PART + 1)), max_mb=1000)
    assert [len(shard.files) for shard in shards] == [
        store.IMAGES_PER_PART,
        store.IMAGES_PER_PART,
        1,
    ]
    assert len(cut(files("image", [0.0] * 3), max_mb=1)) == 1
    assert cut([], max_mb=1) == []


def test_a_long_video_is_cut_into_pieces_and_one_shard_that_joins_them() -> None:
    shards = cut(files("video", [5.0, 35.0, 2.0]), max_mb=10, split_mb=12)
    assert [shard.number for shard in shards] == [1, 2, 3, 4, 5]
    assert [shard.files[0].piece for shard in shards] == [
        *(Piece(0, 3), Piece(1, 3), Piece(2, 3), Piece(0, 1), Piece(0, 1))
    ]
    assert names(shards) == [["00001"]] * 3 + [["00000", "00002"], ["00001"]]
    assert [shard.piece_shards for shard in shards] == [(), (), (), (), (1, 2, 3)]
    every = Config(detector=Detector(every=2))
    assert len(cut(files("video", [35.0]), max_mb=10, split_mb=12, config=every)) == 1
    assert len(cut(files("image", [35.0]), max_mb=10, split_mb=12)) == 1


def test_pieces_are_joined_when_all_are_done(tmp_path: Path, out: Path) -> None:
    (tmp_path / "long.mp4").write_bytes(bytes(3000))
    plan = make_plan([tmp_path / "long.mp4"], out, CONFIG)
    with join_run(plan, out, max_mb=1, split_mb=0.0015, lease_s=LEASE_S) as run:
        assert run.free_shards() == [1, 2]
        assert [run.shard(number).label for number in (1, 2, 3)] == [
            *("shard 1: long.mp4, piece 1 of 2", "shard 2: long.mp4, piece 2 of 2"),
            "shard 3: long.mp4, put together from 2 pieces",
        ]
        for number in (1, 2):
            claim = run.take(number)
            assert claim
            with claim:
                claim.finish()
        assert run.free_shards() == [3]
        do(run, 3)
        assert run.is_done()


def test_a_shard_says_what_it_holds(plan: Plan, out: Path) -> None:
    with part(plan, out) as run:
        shards = [run.shard(number) for number in range(1, run.n_shards + 1)]
    assert [shard.label for shard in shards] == [
        "shard 1: c.mp4",
        "shard 2: a.mp4 and 1 more",
        "shard 3: d.mp4",
        "shard 4: e.png",
    ]
    assert {file for shard in shards for file in shard.files} == set(plan.todo)


def test_a_run_ends_when_all_is_done(plan: Plan, out: Path) -> None:
    with part(plan, out) as run:
        assert not run.is_done()
        assert run.share() == 0
        do_all(run)
        assert run.is_done()
        assert run.share() == 1
        assert not (out / "run.json").exists()
    assert store.read_run(out)["counts"]["n_ok"] == len(SIZES_KB)
    assert SharedRun.current(out) is None
    assert [path.name for path in (out / ".run").iterdir() if path.is_dir()] == []


def test_a_second_process_takes_part(plan: Plan, out: Path) -> None:
    with part(plan, out) as one, part(plan, out) as other:
        assert other.id == one.id
        do(one, 1)
        claim = one.take(2)
        assert claim
        with claim:
            assert other.free_shards(skip=[4]) == [3]
            assert other.has_other_workers(own=[])
            assert not one.has_other_workers(own=[2])
            assert other.take(1) is None
        assert other.media() == set(SIZES_KB)
        do_all(other)
        assert one.is_done()
    assert len(store.media_rows(out)) == len(SIZES_KB)


def test_what_a_run_left_is_done_by_the_next(plan: Plan, footage: Path, out: Path) -> None:
    with part(plan, out) as run:
        do(run, 1)
    assert SharedRun.current(out)
    (footage / "new.mp4").write_bytes(b"1")
    wanted = make_plan([footage], out, Config())
    with part(wanted, out) as again:
        assert again.id == run.id
        assert again.free_shards() == [2, 3, 4]
        do_all(again)
        left = wanted.without(again.media())
    assert [file.media for file in left.todo] == ["new.mp4"]


def test_others_may_end_the_run_meanwhile(plan: Plan, out: Path) -> None:
    with part(plan, out) as slow:
        with part(plan, out) as run:
            do_all(run)
        assert not slow.folder.exists()
        assert slow.free_shards() == []
        assert not slow.has_other_workers(own=())
        assert slow.share() == 1
        assert slow.media() == set(SIZES_KB)
    assert store.read_run(out)["counts"]["n_ok"] == len(SIZES_KB)


def test_another_configuration_waits_for_the_living_and_replaces_the_dead(
    plan: Plan, footage: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = make_plan([footage], out, Config(detector=Detector(every=3)))
    with part(plan, out) as run:
        monkeypatch.setattr(type(run.members), "is_anyone_alive", lambda self: True)
        with pytest.raises(StoreError, match="other settings"), part(other, out):
            pass
    monkeypatch.undo()
    with part(other, out) as replaced:
        assert replaced.id != run.id
        assert run.is_done()  # for those who still hold it: there is nothing left to do
        assert run.take(1) is None


def test_a_dead_run_of_another_format_is_replaced(plan: Plan, out: Path) -> None:
    with part(plan, out) as run:
        pass
    path = out / ".run" / "plan.json"
    header = json.loads(path.read_text())
    del header["format"], header["piece_shards"]
    path.write_text(json.dumps({**header, "joins": {}}))
    with part(plan, out) as replaced:
        assert replaced.id != run.id
        do_all(replaced)
    assert store.read_run(out)["counts"]["n_ok"] == len(SIZES_KB)


def test_a_shard_whose_worker_is_silent_counts_as_held_until_it_is_released(
    plan: Plan, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims, "_is_dead", lambda claim: False)  # as on another host
    with part(plan, out, lease_s=0.3) as run:
        assert run.take(1)  # never beats
        assert run.free_shards() == [2, 3, 4]
        time.sleep(0.5)
        assert run.free_shards() == [2, 3, 4]
        assert run.has_other_workers()
        run.release_silent()
        assert run.free_shards() == [1, 2, 3, 4]
        assert not run.has_other_workers()


def test_a_direct_run_keeps_others_out(plan: Plan, out: Path) -> None:
    with store.lock(out), pytest.raises(StoreError, match="another run"), part(plan, out):
        pass


def test_what_was_done_meanwhile_is_not_done_again_unless_forced(plan: Plan, out: Path) -> None:
    with part(plan, out) as run:
        do_all(run)
    with part(plan, out) as again:
        assert again.n_shards == 0
    with part(plan, out, force=True) as forced:
        assert forced.media() == set(SIZES_KB)
        assert store.media_rows(out) == []


def test_run_json_and_summary_count_what_all_did(plan: Plan, out: Path) -> None:
    with part(plan, out) as run:
        for number, status in enumerate(["ok", "partial", "failed", "ok"], start=1):
            do(run, number, status)
    counts = store.read_run(out)["counts"]
    assert isinstance(counts, dict)
    assert counts.pop("seconds") >= 0
    expected = {"n_ok": 2, "n_partial": 2, "n_failed": 1, "n_skipped": 0, "n_faces": 10}
    assert counts | expected == counts
    assert not counts["interrupted"]
    told = summary(plan, out, run.began)
    assert (told.n_ok, told.n_partial, told.n_failed) == (2, 2, 1)


def test_what_killed_workers_left_is_cleared(plan: Plan, out: Path) -> None:
    orphan = out / "frames" / f"{'0' * 16}.parquet"
    orphan.parent.mkdir(parents=True)
    orphan.write_bytes(b"rows of a killed run")
    with part(plan, out) as run:
        assert not orphan.exists()
        do_all(run)
        orphan.write_bytes(b"rows of a killed worker")
    assert not orphan.exists()


def test_an_exception_leaves_the_run_to_others(plan: Plan, out: Path) -> None:
    def interrupted() -> None:
        with part(plan, out) as run:
            do_all(run)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not (out / "run.json").exists()
    with part(plan, out) as run:
        assert run.is_done()
    assert store.read_run(out)["counts"]["n_ok"] == len(SIZES_KB)


def test_a_worker_with_other_weights_is_refused(plan: Plan, out: Path) -> None:
    with part(plan, out) as run:
        header = json.loads((out / ".run" / "plan.json").read_text())
        other = SharedRun(out, {**header, "config_hash": "of other weights"})
        assert run.plan(plan.todo) == plan_for(plan.todo, plan.config)
        with pytest.raises(Exception, match="other weights"):
            other.plan(plan.todo)


def test_shards_can_be_read_back(plan: Plan, out: Path) -> None:
    with part(plan, out) as run:
        shard = Shard(7, plan.todo[:2])
        run.write(shard)
        assert run.shard(7) == shard
