"""`python -m flows.serve`: Prefect server, deployments and workers on one machine, until Ctrl-C."""

import argparse
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import NoReturn

from .processes import Processes, ServeError

START_S = 180
WORKER = ("prefect", "worker", "start", "--pool", "fer-batch", "--limit", "1", "--name")
READY = """
Served at {page}; Ctrl-C stops everything. In another terminal, in this folder:

  {setting}{prefect} deployment run process-dataset/on-demand \\
      -p input=/data/videos -p output=/data/emotions --watch
"""


def serve(host: str, port: int) -> NoReturn:
    """Serve until an error or a signal; every process that began here has ended then.

    Raises:
        ServeError: When the port is taken, or a part does not start, or ends.
    """
    _check_free(host, port)
    page = f"http://{host}:{port}"
    environment = os.environ | {"PREFECT_API_URL": f"{page}/api", "DO_NOT_TRACK": "1"}
    # One worker for each GPU: two runs never share one by accident.
    devices = {f"gpu-{gpu}": {"CUDA_VISIBLE_DEVICES": gpu} for gpu in _gpus()} or {"cpu": {}}
    with Processes(environment) as processes:
        address = ("--host", host, "--port", str(port))
        processes.start("server", "prefect", "server", "start", *address, quiet=True)
        slots = str(len(devices))
        processes.run("deployment", "flows.deploy", "--wait", str(START_S), "--slots", slots)
        for name, device in devices.items():
            processes.start(f"worker {name}", *WORKER, name, **device)
        setting = "" if port == 4200 else f"PREFECT_API_URL={page}/api "
        prefect = os.path.relpath(Path(sys.executable).with_name("prefect"))
        print(READY.format(page=page, setting=setting, prefect=prefect), flush=True)
        while True:
            processes.check()
            time.sleep(1)


def _check_free(host: str, port: int) -> None:
    with socket.socket() as wanted:
        wanted.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            wanted.bind((host, port))
        except OSError as error:
            raise ServeError(
                f"cannot listen on {host}:{port}: {error.strerror}. "
                f"Stop what runs there, or choose another port: make serve PORT={port + 1}"
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
        signal.signal(each, signal.SIG_IGN)
    raise SystemExit


def main() -> None:
    """Serve; exit code 0 after Ctrl-C or SIGTERM, 1 when something went wrong."""
    parser = argparse.ArgumentParser(prog="python -m flows.serve", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (127.0.0.1)")
    parser.add_argument("--port", type=int, default=4200, help="port to listen on (4200)")
    parsed = parser.parse_args()
    os.chdir(Path(__file__).parents[1])  # with prefect.toml and prefect.yaml
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, _stop)
    try:
        serve(parsed.host, parsed.port)
    except ServeError as error:
        sys.exit(f"fer-batch: {error}")


if __name__ == "__main__":
    main()
