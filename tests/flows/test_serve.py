"""`fer-batch serve` starts everything, says what is wrong, and leaves nothing behind."""

import os
import socket
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

from tests.support import ROOT
from tests.support.deployment import SOURCES

# A worker with a flow run in a session of its own, that ends before it or does not.
WORKER = """
import subprocess, sys, time
from pathlib import Path
run = [sys.executable, "-c", "import time; time.sleep(600)"]
child = subprocess.Popen(run, start_new_session=True)
Path("pid").write_text(str(child.pid))
Path("pid").rename("started")
time.sleep({seconds})
"""
SERVE = """
import os, time
from pathlib import Path
from fer_batch_flows.processes import Processes
with Processes(dict(os.environ)) as processes:
    processes.start("worker", "worker")
    while not Path("started").exists():
        processes.check()
        time.sleep(0.05)
    {then}
"""


def serve(folder: Path, *, seconds: float, then: str) -> "subprocess.CompletedProcess[str]":
    (folder / "worker.py").write_text(WORKER.format(seconds=seconds))
    return subprocess.run(
        [sys.executable, "-c", SERVE.format(then=then)],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": f"{SOURCES}{os.pathsep}{folder}"},
        capture_output=True,
        text=True,
        check=False,
    )


def lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize("seconds", [600, 0], ids=["worker lives", "worker has ended"])
def test_no_process_is_left(tmp_path: Path, seconds: float) -> None:
    done = serve(tmp_path, seconds=seconds, then="pass")
    assert done.returncode == 0, done.stderr
    assert not lives(int((tmp_path / "started").read_text()))


def test_a_part_that_ends_is_named(tmp_path: Path) -> None:
    done = serve(tmp_path, seconds=0, then="while True: processes.check()")
    assert "ServeError: the worker ended with exit code 0" in done.stderr


def run_command(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "fer_batch", *arguments],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": SOURCES} | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_port_in_use_is_said() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        done = run_command("serve", "--port", str(port))
    assert done.returncode == 2
    assert done.stderr == (
        f"fer-batch: cannot listen on 127.0.0.1:{port}: Address already in use. "
        f"Stop what runs there, or choose another port: --port {port + 1}\n"
    )


def test_a_server_that_is_not_there_is_said(tmp_path: Path) -> None:
    with socket.socket() as other:  # bound, and does not listen
        other.bind(("127.0.0.1", 0))
        api = f"http://127.0.0.1:{other.getsockname()[1]}/api"
        done = run_command("deploy", PREFECT_API_URL=api, PREFECT_HOME=str(tmp_path))
    assert done.returncode == 2
    assert done.stderr.startswith(f"fer-batch: no Prefect server at {api}/: ")


def test_a_server_that_wants_a_password_is_said(tmp_path: Path) -> None:
    class Refusing(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path.endswith("/health") else 401)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(b"{}")

    with HTTPServer(("127.0.0.1", 0), Refusing) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        api = f"http://127.0.0.1:{server.server_port}/api"
        done = run_command("deploy", PREFECT_API_URL=api, PREFECT_HOME=str(tmp_path))
        server.shutdown()
    assert done.returncode == 2
    assert done.stderr.startswith("fer-batch: Client error '401 Unauthorized'")
