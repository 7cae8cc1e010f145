"""A Prefect server, work pool and worker with the deployments, as the README sets them up."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Deployed:
    """A running server with the deployments of prefect.yaml and one worker."""

    api: str
    environment: dict[str, str]

    def run(self, deployment: str, **parameters: object) -> tuple[str, str]:
        """Type and message of the state in which a run with these parameters ended."""
        values = [f"--param={name}={json.dumps(value)}" for name, value in parameters.items()]
        said = self.prefect("deployment", "run", deployment, *values, "--watch", check=False)
        found = re.search(r"UUID: (\S+)", said)
        assert found, said
        state = self.ask(f"flow_runs/{found[1]}")["state"]
        return state["type"], state["message"]

    def artifact(self, key: str) -> str:
        """The latest artifact of this name."""
        return str(self.ask(f"artifacts/{key}/latest")["data"])

    def ask(self, path: str) -> dict[str, Any]:
        with urllib.request.urlopen(f"{self.api}/{path}", timeout=60) as response:
            return dict(json.load(response))

    def prefect(self, *arguments: str, check: bool = True) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "prefect", "--no-prompt", *arguments],
            cwd=ROOT,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        said = done.stdout + done.stderr
        assert done.returncode == 0 or not check, said
        return said


@contextlib.contextmanager
def deployed_in(home: Path) -> Iterator[Deployed]:
    """Start all of it with Prefect's home in this folder, and stop it in the end."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    api = f"http://127.0.0.1:{port}/api"
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith("PREFECT_")},
        "PREFECT_HOME": str(home),
        "PREFECT_API_URL": api,
        "PREFECT_SERVER_UI_API_URL": "/api",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
    }
    deployed = Deployed(api, environment)

    def start(*arguments: str) -> subprocess.Popen[bytes]:
        with (home / f"{arguments[0]}.log").open("wb") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "prefect", *arguments],
                cwd=home,
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    processes = []
    try:
        processes.append(start("server", "start", "--host", "127.0.0.1", "--port", str(port)))
        _wait_for(f"{api}/health", processes[0])
        deployed.prefect("work-pool", "create", "fer-batch", "--type", "process")
        deployed.prefect("deploy", "--all")
        processes.append(start("worker", "start", "--pool", "fer-batch", "--limit", "1"))
        yield deployed
    finally:
        _kill_all_with(f"PREFECT_HOME={home}")
        for process in processes:
            process.wait()


def _wait_for(url: str, server: subprocess.Popen[bytes]) -> None:
    for _ in range(240):
        try:
            urllib.request.urlopen(url, timeout=5).close()
        except OSError:
            assert server.poll() is None, "the Prefect server ended"
            time.sleep(0.5)
        else:
            return
    raise AssertionError("the Prefect server does not answer")


def _kill_all_with(variable: str) -> None:
    """Kill every process with this environment variable: flow runs have sessions of their own."""
    while found := [
        int(path.parent.name)
        for path in Path("/proc").glob("[0-9]*/environ")
        if variable.encode() in _read(path)
    ]:
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.1)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # it ended, or is another user's
        return b""
