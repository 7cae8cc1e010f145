"""A Prefect server, its database and workers, to be killed, stopped and started again."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.support import ROOT
from tests.support.deployment import Deployed, environment_for, free_port, processes_with

KILLS = int(os.environ.get("KILLS", "1"))
"""Of each kind; ten in `make faults`."""
ENDED = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}
POSTGRES = max(Path("/usr/lib/postgresql").glob("*/bin"), default=None)
"""Programs of the server, where Debian puts them."""
HUB = "10.231.77.1"
"""Address of this host for the others of `hosts`."""
# In the processes that do shards: the disk is slow, and one can read what is put in place.
SLOW = """
import sys
if "work" in sys.orig_argv:
    import os, time
    from fer_batch.storage import urls
    fsync, publish = os.fsync, urls.publish

    def slow(file):
        time.sleep(0.2)
        fsync(file)

    def told(temporary, path):
        publish(temporary, path)
        with open(os.environ["PUBLISHED"], "a") as file:
            print(os.environ["PART"], path.name, file=file)

    os.fsync, urls.publish = slow, told
"""


class Cluster:
    """Parts are named, and everything that a part started belongs to it.

    Attributes:
        deployed: The server, with the deployments of the project.
    """

    def __init__(self, home: Path, host: str = "127.0.0.1", **environment: str) -> None:
        self._home, self._host, self._port = home, host, free_port(host)
        self._published = home / "published"
        (home / "sitecustomize.py").write_text(textwrap.dedent(SLOW))
        self._environment = environment_for(f"http://{host}:{self._port}/api", home)
        self._environment |= {
            "PYTHONPATH": os.pathsep.join([str(home), self._environment["PYTHONPATH"]]),
            "PUBLISHED": str(self._published),
            "PREFECT_WORKER_QUERY_SECONDS": "1",
            "OMP_NUM_THREADS": "1",
            **environment,
        }
        self.deployed = Deployed(self._environment["PREFECT_API_URL"], self._environment)
        self._parts: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for name in list(self._parts):
            self.kill(name)

    def start(
        self, name: str, *command: str, inside: Sequence[str] = (), user: str | None = None
    ) -> None:
        """Start a part, by another command that is to start it."""
        with (self._home / f"{name}.log").open("ab") as log:
            self._parts[name] = subprocess.Popen(
                [*inside, *command],
                cwd=ROOT,
                env=self._environment | {"PART": f"{self._home}/{name}/"},
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                user=user,
            )

    def serve(self) -> None:
        """Start the server and put the deployments there.

        A machine that is too busy for heartbeats is not taken for a dead one.
        """
        self.start_server()
        command = [sys.executable, "-m", "fer_batch", "deploy"]
        subprocess.run(command, cwd=ROOT, env=self._environment, check=True)
        for automation in self.ask("automations/filter", "POST", limit=10):
            self.ask(f"automations/{automation['id']}", "PATCH", enabled=False)

    def start_server(self) -> None:
        address = ("--host", self._host, "--port", str(self._port))
        self.start("server", sys.executable, "-m", "prefect", "server", "start", *address)
        while True:
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"{self.deployed.api}/health", timeout=5).close()
                return
            assert self._parts["server"].poll() is None, self.log("server")
            time.sleep(0.5)

    def start_worker(self, name: str, inside: Sequence[str] = ()) -> None:
        worker = ("-m", "prefect", "worker", "start", "--pool", "fer-batch", "--limit", "1")
        self.start(name, sys.executable, *worker, "--name", name, inside=inside)

    def pids(self, name: str, *words: str) -> list[int]:
        """Processes of a part, or those that have these words in their command."""
        return [
            pid
            for pid in processes_with(f"PART={self._home}/{name}/")
            if set(words) <= set(_command(pid))
        ]

    def signal(self, what: signal.Signals, name: str, *words: str) -> int:
        """Send a signal to `pids`; gives to how many."""
        pids = self.pids(name, *words)
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, what)
        return len(pids)

    def kill(self, name: str) -> None:
        """End a part at once with everything that it started, as a power cut does."""
        while self.signal(signal.SIGKILL, name):
            self._parts[name].poll()
        self._parts[name].wait()

    def log(self, name: str) -> str:
        return (self._home / f"{name}.log").read_text(encoding="utf-8", errors="replace")

    def published(self, name: str = "") -> list[str]:
        """Names of the files that a worker put in place, or all did; they are forgotten then."""
        lines = self._published.read_text().splitlines() if self._published.exists() else []
        self._published.unlink(missing_ok=True)
        return [line.split()[1] for line in lines if name in line.split()[0]]

    def submit(self, **parameters: object) -> str:
        """Ask for a run of `process-dataset`; gives its id."""
        deployment = self.ask("deployments/name/process-dataset/on-demand")["id"]
        values = {"report": False, **parameters}
        path = f"deployments/{deployment}/create_flow_run"
        return str(self.ask(path, "POST", parameters=values)["id"])

    def state(self, run: str) -> tuple[str, str]:
        """Type and message of the state of a run."""
        state = self.ask(f"flow_runs/{run}")["state"]
        return state["type"], state["message"] or ""

    def end(self, run: str) -> tuple[str, str]:
        """Type and message of the state in which a run ends."""
        while (state := self.state(run))[0] not in ENDED:
            time.sleep(1)
        return state

    def ask(self, path: str, method: str = "GET", **values: object) -> Any:
        """What the server answers, asked again and again until it does."""
        while True:
            with contextlib.suppress(OSError):
                return self.deployed.ask(path, method, **values)
            time.sleep(1)


@contextlib.contextmanager
def database() -> Iterator[tuple[str, list[str], Callable[[], None]]]:
    """A database of PostgreSQL: its URL, its command for the user postgres, and a wait for it."""
    with tempfile.TemporaryDirectory() as name:  # where the user postgres may go
        shutil.chown(name, "postgres")
        folder, port = Path(name) / "data", str(free_port("127.0.0.1"))
        make = [POSTGRES / "initdb", "-D", folder, "--auth=trust", "--no-sync", "--locale=C"]
        subprocess.run(make, user="postgres", cwd="/", check=True, stdout=subprocess.DEVNULL)

        def wait() -> None:
            ready = [POSTGRES / "pg_isready", "-q", "-h", "127.0.0.1", "-p", port]
            while subprocess.run(ready, check=False).returncode:
                time.sleep(0.2)

        command = [str(POSTGRES / "postgres"), "-D", str(folder), "-p", port, "-k", name]
        yield f"postgresql+asyncpg://postgres@127.0.0.1:{port}/postgres", command, wait


@contextlib.contextmanager
def hosts(*names: str) -> Iterator[dict[str, list[str]]]:
    """Hosts on one network; gives for each the command that runs another one there.

    Each has its own network, processes and `/proc`; the files are those of this host, which is
    `HUB` to them.
    """
    with contextlib.ExitStack() as stack:
        _ip("link", "add", "fer-hub", "type", "bridge")
        stack.callback(_ip, "link", "delete", "fer-hub")
        _ip("address", "add", f"{HUB}/24", "dev", "fer-hub")
        _ip("link", "set", "fer-hub", "up")
        for number, name in enumerate(names, start=2):
            host, cable = f"fer-{name}", cable_of(name)
            _ip("netns", "add", host)
            stack.callback(_ip, "netns", "delete", host)
            _ip("link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", host)
            _ip("link", "set", cable, "master", "fer-hub", "up")
            _ip("-n", host, "address", "add", f"10.231.77.{number}/24", "dev", "eth0")
            for each in ("lo", "eth0"):
                _ip("-n", host, "link", "set", each, "up")
        alone = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
        yield {name: ["ip", "netns", "exec", f"fer-{name}", *alone] for name in names}


def cable_of(name: str) -> str:
    """The network device by which a host of `hosts` hangs on the hub."""
    return f"fer-c-{name}"


def plug(name: str, how: str) -> None:
    """Set the cable of a host ``up`` or ``down``."""
    _ip("link", "set", cable_of(name), how)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)


def _command(pid: int) -> list[str]:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace").split("\0")
    return []
