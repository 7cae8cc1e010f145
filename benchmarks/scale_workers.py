"""The runs of benchmarks/scale.py: workers with and without Prefect, and their cost."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks.measuring import ROOT
from tests.support.cluster import database
from tests.support.deployment import free_port

VIDEO_MB = 10
TICKS = os.sysconf("SC_CLK_TCK")
SETTLE_S = 30
"""Time for the server to write what it received during a run."""
ENDED = ["COMPLETED", "FAILED", "CRASHED", "CANCELLED"]


@dataclass(frozen=True)
class Done:
    """Results of the processes that did shards, each of which should take `shard_s`."""

    records: Sequence[Mapping[str, float]]
    n_workers: int
    shard_s: float

    @property
    def cpu_s(self) -> float:
        """Number of shards."""
        return sum(record["cpu_s"] for record in self.records)

    @property
    def per_minute(self) -> float:
        """Shards per minute, from the first start to the last end."""
        began = [record["began"] for record in self.records]
        return 60 * len(began) / (max(began) + self.shard_s - min(began))

    @property
    def gap_s(self) -> float:
        """Median from the end of a shard to the start of its worker's next one."""
        began = defaultdict(list)
        for record in self.records:
            began[record["worker"]].append(record["began"])
        gaps = [
            later - earlier - self.shard_s
            for times in began.values()
            for earlier, later in pairwise(sorted(times))
        ]
        return statistics.median(gaps)

    @property
    def steady_per_minute(self) -> float:
        """Shards per minute while all workers work: each shard takes `shard_s` and a gap."""
        return 60 * self.n_workers / (self.shard_s + self.gap_s)


class Folder:
    """Folder of the records of runs.

    Attributes:
        environment: Of the processes that take part.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.videos, self.out = path, path / "videos", path / "out"
        self._records = path / "records"
        self._records.mkdir()
        paths = [Path(__file__).with_name("standin"), ROOT]
        self.environment = {
            **{key: value for key, value in os.environ.items() if "PREFECT" not in key},
            "PYTHONPATH": os.pathsep.join(map(str, paths)),
            "RECORDS": str(self._records),
        }

    def prepare(self, n_shards: int, shard_s: float) -> None:
        """Make videos with a size but no content, for this many shards that sleep this long."""
        self._clear()
        (self._records / "shard_s").write_text(str(shard_s))
        for number in range(n_shards):
            with (self.videos / f"{number:04}.mp4").open("wb") as file:
                file.truncate(VIDEO_MB * 1_000_000)

    def prepare_clips(self, clip: Path, count: int) -> None:
        """Copy a video that is really processed."""
        self._clear()
        for number in range(count):
            shutil.copy(clip, self.videos / f"{number:04}.mp4")

    def records(self) -> list[dict[str, float]]:
        """Records of the last run."""
        return [json.loads(path.read_text()) for path in self._records.glob("*.json")]

    def _clear(self) -> None:
        for folder in (self.videos, self.out):
            shutil.rmtree(folder, ignore_errors=True)
        for record in self._records.iterdir():
            record.unlink()
        self.videos.mkdir()


def without_prefect(folder: Folder, n_workers: int, shards_each: int, shard_s: float) -> Done:
    """A run whose workers are processes that only take shards."""
    from fer_batch.config import Config
    from fer_batch.distributed.shared_run import join_run
    from fer_batch.pipeline.plan import make_plan

    folder.prepare(n_workers * shards_each, shard_s)
    plan = make_plan([folder.videos], folder.out, Config())
    part = join_run(plan, folder.out, max_mb=VIDEO_MB, split_mb=1000, lease_s=60)
    with part, contextlib.ExitStack() as stack:
        workers = [
            stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-m", "benchmarks.scale", "--measure", "queue", folder.out],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    env=folder.environment,
                )
            )
            for _ in range(n_workers)
        ]
        for worker in workers:
            worker.stdout.readline()
        for worker in workers:  # all are ready: go
            worker.stdin.close()
        for worker in workers:
            worker.stdout.read()
    return Done(folder.records(), n_workers, shard_s)


def queue(out: str) -> None:
    """Start one worker process."""
    from fer_batch.distributed.shared_run import SharedRun
    from fer_batch.distributed.supervisor import do_shard

    run = SharedRun.current(Path(out))
    print("ready", flush=True)
    sys.stdin.read()
    while free := run.free_shards():
        do_shard(Path(out), free[0], timeout_s=600)


def cli_cpu_s(folder: Folder) -> float:
    """CPU time of `fer-batch process` on the videos of the last run."""
    shutil.rmtree(folder.out)
    command = [sys.executable, "-m", "fer_batch", "process", folder.videos, "-q", "-o", folder.out]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, env=folder.environment)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


class Served:
    """Prefect server, deployments and workers of `fer-batch serve`.

    Args:
        folder: Of the runs.
        pid: Of the process that started them all.
        database_pid: Of that of the server's database.
        api: Where the server answers.
    """

    def __init__(self, folder: Folder, pid: int, database_pid: int, api: str) -> None:
        self._folder, self._pid, self._database_pid, self._api = folder, pid, database_pid, api

    def run(
        self,
        n_workers: int,
        scale: Mapping[str, object] = {"shard_mb": VIDEO_MB},
        **parameters: object,
    ) -> float:
        """Run `process-dataset` on so many workers to its end; seconds to the first shard."""
        found = self._ask("deployments/name/process-dataset/on-demand")
        values = {
            "input": str(self._folder.videos),
            "output": str(self._folder.out),
            "report": False,
            "scale": {**scale, "workers": n_workers},
            **parameters,
        }
        submitted = time.time()
        run = self._ask(f"deployments/{found['id']}/create_flow_run", parameters=values)
        busy = {"flow_runs": {"state": {"type": {"not_any_": ENDED}}}}
        while self._ask("flow_runs/count", **busy):
            time.sleep(5)
        state = self._ask(f"flow_runs/{run['id']}")["state"]
        if state["type"] != "COMPLETED":
            raise SystemExit(f"{state['type']}: {state['message']}")
        return min(record["began"] for record in self._folder.records()) - submitted

    def cpu_s(self) -> dict[str, float]:
        """CPU time of database, server and workers, each with the processes that it started."""
        used = {"database": _tree_cpu_s(self._database_pid), "server": 0.0, "workers": 0.0}
        for pid in _children(self._pid):
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
            used["server" if b"server" in command else "workers"] += _tree_cpu_s(pid)
        return used

    def _ask(self, path: str, **body: object) -> Any:
        data = json.dumps(body).encode() if body else None
        request = urllib.request.Request(
            f"{self._api}/{path}", data, {"Content-Type": "application/json"}
        )
        while True:
            try:
                with urllib.request.urlopen(request, timeout=120) as response:
                    return json.load(response)
            except (TimeoutError, urllib.error.HTTPError) as error:
                if getattr(error, "code", 503) != 503:  # a busy server, a locked database
                    raise
                print(f"{path}: {error}", file=sys.stderr)
                time.sleep(5)


@contextlib.contextmanager
def served(folder: Folder, n_workers: int) -> Iterator[Served]:
    """Serve this many workers with PostgreSQL, as docs/deploy.md recommends for many workers.

    Nothing of it is left in the end.
    """
    with (
        database() as (url, command, wait),
        subprocess.Popen(command, user="postgres", cwd="/", stderr=subprocess.DEVNULL) as postgres,
    ):
        try:
            wait()
            yield from _served(folder, n_workers, url, postgres.pid)
        finally:
            postgres.send_signal(signal.SIGINT)  # without waiting for clients


def _served(folder: Folder, n_workers: int, url: str, database_pid: int) -> Iterator[Served]:
    port = free_port("127.0.0.1")
    api = f"http://127.0.0.1:{port}/api"
    home = folder.path / "prefect"
    home.mkdir()
    environment = {
        **folder.environment,
        "PREFECT_HOME": str(home),
        "PREFECT_API_URL": api,
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": url,
        "CUDA_VISIBLE_DEVICES": ",".join(map(str, range(n_workers))),  # a worker for each
    }
    log = home / "serve.log"
    with (
        log.open("w") as file,
        subprocess.Popen(
            [sys.executable, "-m", "fer_batch", "serve", "--port", str(port)],
            cwd=ROOT,
            env=environment,
            stdout=file,
            stderr=subprocess.STDOUT,
        ) as serving,
    ):
        try:
            while "Served at" not in log.read_text():
                if serving.poll() is not None:
                    raise SystemExit(log.read_text())
                time.sleep(1)
            time.sleep(SETTLE_S)
            yield Served(folder, serving.pid, database_pid, api)
        finally:
            serving.terminate()
            serving.wait(120)


def _tree_cpu_s(pid: int) -> float:
    """CPU time of a process, of the processes that it started, and of those that have ended."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    own = sum(map(int, fields[11:15])) / TICKS
    return own + sum(map(_tree_cpu_s, _children(pid)))


def _children(pid: int) -> list[int]:
    paths = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for path in paths for child in path.read_text().split()]
