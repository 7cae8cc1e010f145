"""`fer-batch serve`: Prefect server, deployments and workers on one machine, until Ctrl-C."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

from fer_batch.settings import CONFIGS

from .processes import Processes, ServeError

START_S = 180
WORKER = ("prefect", "worker", "start", "--pool", "fer-batch", "--limit", "1", "--name")
READY = """
Served at {page}; Ctrl-C stops everything. In another terminal:

  export PREFECT_API_URL={page}/api
  {prefect} deployment run process-dataset/on-demand \\
      -p input=/data/videos -p output=/data/emotions --watch
"""


def serve(host: str, port: int) -> NoReturn:
    """Serve until an error or a signal; every process that was started here has ended then.

    Args:
        host: Address to listen on.
        port: Port to listen on.

    Raises:
        ServeError: When the port is taken, when a part does not start, or when it ends.
        SystemExit: After Ctrl-C or SIGTERM.
    """
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, _stop)
    _check_free(host, port)
    page = f"http://{host}:{port}"
    environment = _settings() | os.environ
    environment |= {"PREFECT_API_URL": f"{page}/api", "DO_NOT_TRACK": "1"}
    # One worker for each GPU, so that two runs never share one by accident.
    devices = {f"gpu-{gpu}": {"CUDA_VISIBLE_DEVICES": gpu} for gpu in _gpus()} or {"cpu": {}}
    with Processes(environment) as processes:
        address = ("--host", host, "--port", str(port))
        processes.start("server", "prefect", "server", "start", *address, quiet=True)
        options = ("--wait", str(START_S), "--slots", str(len(devices)))
        processes.run("deployment", "fer_batch", "deploy", *options)
        for name, device in devices.items():
            processes.start(f"worker {name}", *WORKER, name, **device)
        prefect = Path(sys.executable).with_name("prefect")
        print(READY.format(page=page, prefect=prefect), flush=True)
        while True:
            processes.check()
            time.sleep(1)


def _settings() -> dict[str, str]:
    """The shipped prefect.toml as environment variables, where this folder has no such file."""
    if Path("prefect.toml").exists():
        return {}
    values = tomllib.loads((CONFIGS / "prefect.toml").read_text(encoding="utf-8"))
    return dict(_variables("prefect", values))


def _variables(prefix: str, values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for key, value in values.items():
        name = f"{prefix}_{key}".upper()
        if isinstance(value, dict):
            yield from _variables(name, value)
        else:
            yield name, str(value)


def _check_free(host: str, port: int) -> None:
    with socket.socket() as wanted:
        wanted.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            wanted.bind((host, port))
        except OSError as error:
            raise ServeError(
                f"cannot listen on {host}:{port}: {error.strerror}. "
                f"Stop what runs there, or choose another port: --port {port + 1}"
            ) from None


def _gpus() -> list[str]:
    """Numbers of the GPUs that may be used, as CUDA_VISIBLE_DEVICES takes them."""
    if chosen := os.environ.get("CUDA_VISIBLE_DEVICES"):
        return chosen.split(",")
    if not (tool := shutil.which("nvidia-smi")):
        return []
    query = [tool, "--query-gpu=index", "--format=csv,noheader"]
    found = subprocess.run(query, capture_output=True, text=True, check=False)  # noqa: S603
    return found.stdout.split() if found.returncode == 0 else []


def _stop(*_: object) -> NoReturn:
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, lambda *_: None)  # SIG_IGN would be an error while one is pending
    raise SystemExit
