from pathlib import Path

import pytest
import results

from fer_batch import store
from fer_batch.config import Config
from fer_batch.schema import StoreError
from fer_batch.sharding import sharded

SIZES_KB = {"a.mp4": 400, "b/ü 1.mp4": 500, "c.mp4": 2500, "d.mp4": 300, "e.png": 1}


@pytest.fixture
def footage(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    for name, size_kb in SIZES_KB.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(size_kb * 1000))
    return folder


def test_every_file_is_in_one_shard_of_bounded_size(footage: Path, tmp_path: Path) -> None:
    with sharded([footage], tmp_path / "out", Config(), max_mb=1) as run:
        shards = [shard.path.read_text(encoding="utf-8").split("\n") for shard in run.shards]
    assert sorted(name for shard in shards for name in shard) == sorted(SIZES_KB)
    assert all(len(shard) == 1 or sum(map(SIZES_KB.get, shard)) <= 1000 for shard in shards)
    assert len(shards) == 3
    assert [shard.label for shard in run.shards] == [
        "shard 1: e.png and 2 more",
        "shard 2: c.mp4",
        "shard 3: d.mp4",
    ]


def test_nothing_to_do_is_no_shard(footage: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with sharded([footage], out, Config(), max_mb=1) as run:
        files = {file.media: file for file in run.plan.todo}
        for name, file in files.items():
            row = results.row(
                name,
                size_bytes=file.size_bytes,
                mtime_ns=file.mtime_ns,
                config_hash=run.plan.config_hash,
            )
            results.write(out, rows=[row])
    with sharded([footage], out, Config(), max_mb=1) as run:
        assert (run.shards, run.plan.n_done) == ((), len(SIZES_KB))
    with sharded([footage], out, Config(), max_mb=1, force=True) as run:
        assert len(run.plan.todo) == len(SIZES_KB)


def test_run_json_counts_what_the_shards_did(footage: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with sharded([footage], out, Config(), max_mb=1) as run:
        for name, status in [("a.mp4", "ok"), ("c.mp4", "partial"), ("d.mp4", "failed")]:
            row = results.row(name, status=status, config_hash=run.plan.config_hash, n_faces=2)
            results.write(out, rows=[row])
        assert not (out / "run.json").exists()
    counts = store.read_run(out)["counts"]
    assert isinstance(counts, dict)
    assert counts.pop("seconds") >= 0
    assert counts == {
        "n_ok": 1,
        "n_partial": 1,
        "n_failed": 1,
        "n_skipped": 0,
        "n_faces": 6,
        "interrupted": True,
    }


def test_an_output_is_sharded_by_one_run_at_a_time(footage: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with (
        sharded([footage], out, Config(), max_mb=1) as run,
        pytest.raises(StoreError, match="another run"),
        sharded([footage], out, Config(), max_mb=1),
    ):
        pass
    with sharded([footage], out, Config(), max_mb=1) as run:
        assert all(shard.path.exists() for shard in run.shards)


def test_a_killed_run_is_cleared_first_and_a_failing_one_leaves_no_lists(
    footage: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    orphan = out / "frames" / f"{'0' * 16}.parquet"
    orphan.parent.mkdir(parents=True)
    orphan.write_bytes(b"rows of a killed run")
    lists: list[Path] = []

    def interrupted() -> None:
        with sharded([footage], out, Config(), max_mb=1) as run:
            lists.extend(shard.path for shard in run.shards)
            assert not orphan.exists()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert lists
    assert not any(path.exists() for path in lists)
    assert not (out / "run.json").exists()
