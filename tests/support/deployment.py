"""A Prefect server and workers with the deployments, as `fer-batch serve` sets them up."""

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support import ROOT

SOURCES = os.pathsep.join(map(str, (ROOT, ROOT / "flows")))
"""Where Python finds the packages of this repository."""


@dataclass(frozen=True)
class Deployed:
    """A running server with the deployments of prefect.yaml and two workers."""

    api: str
    environment: dict[str, str]
    python: str | Path = sys.executable
    """The one that has fer_batch."""
    folder: Path = ROOT
    """Where commands run."""

    def run(self, deployment: str, **parameters: object) -> tuple[str, str]:
        """Type and message of the state in which a run with these parameters ended."""
        state = self.ask(f"flow_runs/{self.submit(deployment, '--watch', **parameters)}")["state"]
        return state["type"], state["message"]

    def submit(self, deployment: str, *options: str, **parameters: object) -> str:
        """The id of a run with these parameters."""
        values = [f"--param={name}={json.dumps(value)}" for name, value in parameters.items()]
        said = self.prefect("deployment", "run", deployment, *values, *options, check=False)
        found = re.search(r"UUID: (\S+)", said)
        assert found, said
        return found[1]

    def wait_for(self, run: str, state: str) -> str:
        """The message of a run when it has reached the state of this name."""
        while (found := self.ask(f"flow_runs/{run}")["state"])["name"] != state:
            time.sleep(1)
        return str(found["message"])

    def artifact(self, key: str) -> str:
        """The latest artifact of this name."""
        return str(self.ask(f"artifacts/{key}/latest")["data"])

    def ask(self, path: str, method: str = "GET", **values: object) -> Any:
        body = json.dumps(values).encode() if values else None
        kind = {"Content-Type": "application/json"}
        request = urllib.request.Request(f"{self.api}/{path}", body, kind, method=method)
        with urllib.request.urlopen(request, timeout=60) as response:
            return json.loads(response.read() or "null")

    def prefect(self, *arguments: str, check: bool = True) -> str:
        done = subprocess.run(
            [self.python, "-m", "prefect", "--no-prompt", *arguments],
            cwd=self.folder,
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
def deployed_in(
    home: Path, *, python: str | Path = sys.executable, folder: Path = ROOT, sources: str = SOURCES
) -> Iterator[Deployed]:
    """Serve all of it, and stop it in the end.

    Args:
        home: Prefect's home.
        python: The one that has fer_batch.
        folder: Where it is started.
        sources: The PYTHONPATH.
    """
    port = free_port("127.0.0.1")
    api = f"http://127.0.0.1:{port}/api"
    environment = environment_for(api, home) | {
        "CUDA_VISIBLE_DEVICES": "0,1",  # two workers, also where there are fewer GPUs
        "PYTHONPATH": sources,
    }
    with (
        (home / "serve.log").open("w+", encoding="utf-8") as log,
        subprocess.Popen(
            [python, "-m", "fer_batch", "serve", "--port", str(port)],
            cwd=folder,
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
        ) as serving,
    ):
        try:
            while "Served at" not in (said := Path(log.name).read_text(encoding="utf-8")):
                assert serving.poll() is None, said
                time.sleep(0.5)
            yield Deployed(api, environment, python, folder)
        finally:
            serving.terminate()
            serving.wait(60)
    assert serving.returncode == 0, Path(log.name).read_text(encoding="utf-8")
    assert processes_with(f"PREFECT_HOME={home}") == []


def free_port(host: str) -> int:
    with socket.socket() as free:
        free.bind((host, 0))
        return int(free.getsockname()[1])


def environment_for(api: str, home: Path) -> dict[str, str]:
    """Of processes that use the server at this address, with Prefect's home in this folder."""
    return {
        **{key: value for key, value in os.environ.items() if not key.startswith("PREFECT_")},
        "PREFECT_HOME": str(home),
        "PREFECT_API_URL": api,
        "PYTHONPATH": SOURCES,
    }


def processes_with(variable: str) -> list[int]:
    """All processes with this environment variable."""
    return [
        int(path.parent.name)
        for path in Path("/proc").glob("[0-9]*/environ")
        if variable.encode() in _read(path)
    ]


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # it ended, or is another user's
        return b""
