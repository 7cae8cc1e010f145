"""Workers, servers and disks that fail in the middle of runs: no row is lost, none is doubled."""

import os
import random
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from fer_batch.config import load
from fer_batch.distributed.shared_run import SharedRun, join_run
from fer_batch.distributed.supervisor import do_shard
from fer_batch.errors import StoreDiskFullError
from fer_batch.pipeline import process as pipeline
from fer_batch.pipeline.plan import make_plan
from fer_batch.results import timeline
from fer_batch.storage import urls
from tests.support.clips import clip
from tests.support.cluster import HUB, KILLS, POSTGRES, Cluster, database, hosts, plug
from tests.support.portraits import portrait, portraits

pytestmark = [pytest.mark.timeout(3600), pytest.mark.usefixtures("one_thread")]

Tables = dict[str, pd.DataFrame]
CONFIG = load(None, ["runtime.threads=1"])
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
PAUSE_S = 6.0
"""About the time that a shard takes."""


@pytest.fixture(scope="module")
def footage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nine videos, one of them longer, and four pictures."""
    folder = tmp_path_factory.mktemp("footage")
    for number in range(8):
        clip(folder / f"{number}.mp4", portraits(1 + number % 3, 6))
    clip(folder / "long.mp4", portraits(1, 60))
    for number in range(4):
        Image.fromarray(portrait(2, number)).save(folder / f"{number}.jpg")
    return folder


@pytest.fixture(scope="module")
def undisturbed(footage: Path, tmp_path_factory: pytest.TempPathFactory) -> Tables:
    out = tmp_path_factory.mktemp("undisturbed")
    pipeline.process([footage], out, CONFIG)
    return tables(out)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster(tmp_path_factory.mktemp("prefect")) as cluster:
        cluster.serve()
        yield cluster


@pytest.fixture
def job(footage: Path, tmp_path: Path) -> Callable[..., dict[str, object]]:
    """Parameters of a run over all files in several shards, the long video in pieces."""
    return lambda **scale: {
        "input": str(footage),
        "output": str(tmp_path / "out"),
        "config": CONFIG.model_dump(mode="json"),
        "scale": {"shard_mb": 0.05, "split_mb": 0.03, **scale},
    }


def tables(out: Path) -> Tables:
    """What a run says, without what differs from run to run."""
    media = timeline.load_media(out).drop(columns=["seconds", "mtime_ns", "root"])
    return {
        "media": media.reset_index(drop=True),
        "frames": timeline.load_frames(out).reset_index(drop=True),
        "faces": timeline.load(out).reset_index(drop=True),
    }


def wait_for_work(cluster: Cluster, worker: str) -> None:
    """Wait until a worker does a shard."""
    while not cluster.pids(worker, "fer_batch", "work"):
        time.sleep(0.2)


def assert_same(out: Path, expected: Tables) -> None:
    for name, table in tables(out).items():
        pd.testing.assert_frame_equal(table, expected[name], atol=1e-5, rtol=0, obj=name)


def assert_whole(out: Path, expected: Tables) -> None:
    """The tables are those of an undisturbed run, and nothing else was left."""
    assert_same(out, expected)
    parts = [{path.stem[-16:] for path in (out / table).iterdir()} for table in expected]
    assert parts == [parts[0]] * 3
    assert is_whole(out)
    assert not [path for path in (out / ".run").iterdir() if path.is_dir()]
    assert not list(out.rglob("*fer-batch-tmp*"))


def is_whole(out: Path) -> bool:
    """Whether a run has ended there."""
    return (out / "run.json").exists() and SharedRun.current(out) is None


def assert_no_row_is_doubled(out: Path) -> None:
    if any((out / "faces").glob("*.parquet")):
        faces = pd.read_parquet(out / "faces", columns=["media", "frame_index", "face_index"])
        assert not faces.duplicated().any()


@pytest.mark.faults
def test_killed_workers(
    cluster: Cluster, job: Callable[..., dict[str, object]], tmp_path: Path, undisturbed: Tables
) -> None:
    """Each round ends the process that does a shard, then the worker, then the whole host."""
    dice, out = random.Random(0), tmp_path / "out"
    n_killed: Counter[str] = Counter()
    while min(n_killed["work"], n_killed["worker"], n_killed["host"]) < KILLS:
        cluster.submit(**job())
        cluster.start_worker("w")
        wait_for_work(cluster, "w")
        time.sleep(dice.uniform(0, PAUSE_S))
        n_killed["work"] += cluster.signal(signal.SIGKILL, "w", "fer_batch", "work")
        time.sleep(dice.uniform(0, PAUSE_S))
        n_killed["worker"] += cluster.signal(signal.SIGKILL, "w", "worker", "start")
        time.sleep(dice.uniform(0, PAUSE_S))
        n_killed["host"] += bool(cluster.pids("w"))
        cluster.kill("w")
        assert_no_row_is_doubled(out)
        if is_whole(out):
            shutil.rmtree(out)
    cluster.start_worker("w")
    assert cluster.end(cluster.submit(**job()))[0] == "COMPLETED"
    cluster.kill("w")
    assert_whole(out, undisturbed)


@pytest.mark.faults
def test_two_hosts_share_a_run(
    cluster: Cluster, job: Callable[..., dict[str, object]], tmp_path: Path, undisturbed: Tables
) -> None:
    cluster.published()
    runs = [cluster.submit(**job()) for _ in range(2)]
    for worker in ("a", "b"):
        cluster.start_worker(worker)
    states = [cluster.end(run) for run in runs]
    for worker in ("a", "b"):
        cluster.kill(worker)
    assert [state for state, _ in states] == ["COMPLETED"] * 2, states
    done = Counter(name for name in cluster.published() if name.startswith("part-"))
    assert set(done.values()) == {1}
    assert_whole(tmp_path / "out", undisturbed)


@pytest.mark.faults
def test_a_worker_comes_back_after_its_shard_was_given_away(
    cluster: Cluster, job: Callable[..., dict[str, object]], tmp_path: Path, undisturbed: Tables
) -> None:
    out = tmp_path / "out"
    cluster.submit(**job(lease_s=3))
    cluster.start_worker("stopped")
    while not list(out.glob("faces/*fer-batch-tmp")):  # it is writing
        time.sleep(0.05)
    cluster.signal(signal.SIGSTOP, "stopped")
    cluster.start_worker("other")
    assert cluster.end(cluster.submit(**job(lease_s=3)))[0] == "COMPLETED"
    cluster.published()
    cluster.signal(signal.SIGCONT, "stopped")
    while cluster.pids("stopped") != cluster.pids("stopped", "worker", "start"):
        time.sleep(0.5)
    for worker in ("stopped", "other"):
        cluster.kill(worker)
    assert len({name[-24:] for name in cluster.published()}) <= 1  # what it was putting in place
    assert_whole(out, undisturbed)


def disturb(cluster: Cluster, job: dict[str, object], out: Path, kill: Callable[[], None]) -> None:
    """Kill something many times while a worker does a shard, then have a run do what is left."""
    dice = random.Random(0)
    for _ in range(KILLS):
        while not cluster.pids("w", "fer_batch", "work"):
            worker = cluster.pids("w", "worker", "start")
            if not worker:
                cluster.start_worker("w")
            elif cluster.pids("w") == worker:  # no run is under way
                if is_whole(out):
                    shutil.rmtree(out)
                cluster.submit(**job)
                wait_for_work(cluster, "w")
            time.sleep(0.2)
        time.sleep(dice.uniform(0, PAUSE_S))
        kill()
    assert cluster.end(cluster.submit(**job))[0] == "COMPLETED"
    cluster.kill("w")


@pytest.mark.faults
def test_killed_servers(
    cluster: Cluster, job: Callable[..., dict[str, object]], tmp_path: Path, undisturbed: Tables
) -> None:
    def kill() -> None:
        cluster.kill("server")
        cluster.start_server()

    disturb(cluster, job(), tmp_path / "out", kill)
    assert_whole(tmp_path / "out", undisturbed)


@needs_root
@pytest.mark.slow
@pytest.mark.skipif(not POSTGRES, reason="needs PostgreSQL: make postgres")
def test_killed_databases(
    tmp_path_factory: pytest.TempPathFactory,
    job: Callable[..., dict[str, object]],
    tmp_path: Path,
    undisturbed: Tables,
) -> None:
    home, out = tmp_path_factory.mktemp("prefect"), tmp_path / "out"
    with (
        database() as (url, command, wait),
        Cluster(home, PREFECT_SERVER_DATABASE_CONNECTION_URL=url) as cluster,
    ):

        def start() -> None:
            cluster.start("postgres", *command, user="postgres")
            wait()

        def kill() -> None:
            cluster.kill("postgres")
            start()

        start()
        cluster.serve()

        disturb(cluster, job(), out, kill)
    assert_whole(out, undisturbed)


@needs_root
@pytest.mark.faults
@pytest.mark.skipif(not shutil.which("ip"), reason="needs ip of iproute2")
def test_a_lost_network_and_a_lost_host(
    tmp_path_factory: pytest.TempPathFactory,
    job: Callable[..., dict[str, object]],
    tmp_path: Path,
    undisturbed: Tables,
) -> None:
    home = tmp_path_factory.mktemp("prefect")
    with hosts("a", "b") as inside, Cluster(home, HUB) as cluster:
        cluster.serve()
        runs = {}
        for name in inside:
            cluster.start_worker(name, inside[name])
            runs[name] = cluster.submit(**job(lease_s=3))
            wait_for_work(cluster, name)
        for name in inside:
            plug(name, "down")
        time.sleep(20)
        plug("b", "up")
        cluster.kill("a")
        assert cluster.end(runs["b"])[0] == "COMPLETED"
    assert_whole(tmp_path / "out", undisturbed)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small file system of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", folder], check=True)
    yield folder
    subprocess.run(["umount", folder], check=True)


def fill(disk: Path, room: int) -> None:
    """Leave only so many bytes of a disk."""
    ballast = disk / "ballast"
    ballast.unlink(missing_ok=True)
    ballast.write_bytes(bytes(shutil.disk_usage(disk).free - room))


@needs_root
@pytest.mark.faults
def test_a_full_disk(
    cluster: Cluster, job: Callable[..., dict[str, object]], disk: Path, undisturbed: Tables
) -> None:
    out = disk / "out"
    cluster.start_worker("w")
    parameters = job(shard_mb=1, split_mb=1) | {"output": str(out)}
    for room in (0, 120_000):
        fill(disk, room)
        state, message = cluster.end(cluster.submit(**parameters))
        assert state == "FAILED"
        assert f"no space left for {out}: free some" in message
    (disk / "ballast").unlink()
    assert cluster.end(cluster.submit(**parameters))[0] == "COMPLETED"
    cluster.kill("w")
    assert_whole(out, undisturbed)


@needs_root
@pytest.mark.faults
@pytest.mark.usefixtures("s3")
def test_a_worker_without_space_of_its_own_leaves_the_shard_to_others(
    footage: Path, disk: Path, monkeypatch: pytest.MonkeyPatch, undisturbed: Tables
) -> None:
    urls.path_of("s3://faults").mkdir()
    out = urls.path_of("s3://faults/out")
    fill(disk, 4096)  # on a disk without any, Python takes another one
    plan = make_plan([footage], out, CONFIG)
    with join_run(plan, out, max_mb=0.1, split_mb=1000, lease_s=60) as run:
        shards = run.free_shards()
        with monkeypatch.context() as here:
            here.setenv("TMPDIR", str(disk))
            with pytest.raises(StoreDiskFullError, match=f"no space left in {disk}"):
                do_shard(out, 1, timeout_s=300)
        assert run.free_shards() == shards
        assert all(do_shard(out, number, timeout_s=300) for number in shards)
    assert_same(out, undisturbed)
