"""`make serve`: one command starts everything, says what is wrong, and leaves nothing behind."""

import os
import signal
import socket
import subprocess
import sys
import time
from datetime import datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

from tests.support import ROOT
from tests.support.deployment import Deployed, processes_with

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
from flows.processes import Processes
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
        env=os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{folder}"},
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


def run_module(*module: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", *module],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_port_in_use_is_said() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        done = run_module("flows.serve", "--port", str(port))
    assert done.returncode == 1
    assert done.stderr == (
        f"fer-batch: cannot listen on 127.0.0.1:{port}: Address already in use. "
        f"Stop what runs there, or choose another port: make serve PORT={port + 1}\n"
    )


def test_a_server_that_is_not_there_is_said(tmp_path: Path) -> None:
    with socket.socket() as other:  # bound, and does not listen
        other.bind(("127.0.0.1", 0))
        api = f"http://127.0.0.1:{other.getsockname()[1]}/api"
        done = run_module("flows.deploy", PREFECT_API_URL=api, PREFECT_HOME=str(tmp_path))
    assert done.returncode == 1
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
        done = run_module("flows.deploy", PREFECT_API_URL=api, PREFECT_HOME=str(tmp_path))
        server.shutdown()
    assert done.returncode == 1
    assert done.stderr.startswith("fer-batch: Client error '401 Unauthorized'")


@pytest.mark.slow
def test_a_wrong_value_is_refused_at_once(deployed: Deployed) -> None:
    run = ("deployment", "run", "process-dataset/on-demand", "--param=input=a", "--param=output=b")
    said = " ".join(deployed.prefect(*run, "--param=force=perhaps", check=False).split())
    assert "Validation failed for field 'force'" in said
    assert "'perhaps' is not of type 'boolean'" in said


@pytest.mark.slow
def test_a_run_made_for_another_version_says_so(deployed: Deployed, tmp_path: Path) -> None:
    deployment = f"deployments/{deployed.ask('deployments/name/render-run/on-demand')['id']}"
    deployed.ask(deployment, "PATCH", parameters={"loops": True}, enforce_parameter_schema=False)
    try:
        state, message = deployed.run("render-run/on-demand", output=str(tmp_path))
    finally:
        deployed.ask(deployment, "PATCH", parameters={}, enforce_parameter_schema=True)
    assert state == "FAILED"
    assert message.startswith("made for another version of fer_batch, see loops: ")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_run_that_no_worker_takes_says_so(deployed: Deployed, tmp_path: Path) -> None:
    deployed.prefect("work-pool", "pause", "fer-batch")
    run = deployed.submit("explain-run/on-demand", output=str(tmp_path))
    message = deployed.wait_for(run, "NoWorker")
    deployed.prefect("work-pool", "resume", "fer-batch")
    assert message.startswith("no free worker in pool fer-batch")
    assert str(tmp_path) in deployed.wait_for(run, "Failed")  # there is no run in this folder


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_night_waits_for_none_before_it_and_a_lost_one_says_so(
    deployed: Deployed, tmp_path: Path
) -> None:
    where = {"input": str(tmp_path / "absent"), "output": str(tmp_path / "out")}
    first = deployed.submit("process-dataset/nightly", **where)
    deployed.wait_for(first, "Submitting")
    while not (pids := processes_with(f"PREFECT__FLOW_RUN_ID={first}")):
        time.sleep(0.2)
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)  # as if the power of its host had gone
    second = deployed.submit("process-dataset/nightly", **where)
    assert deployed.wait_for(second, "Cancelled") == "Deployment concurrency limit reached."
    message = deployed.wait_for(first, "Crashed")
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    assert message.startswith("no sign of life for 180 s")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_nights_are_scheduled(deployed: Deployed) -> None:
    name = "process-dataset/nightly"
    deployed.prefect("deployment", "schedule", "create", name, "--cron=0 2 * * *")
    try:
        nightly = {"deployments": {"name": {"any_": ["nightly"]}}}
        scheduled = {"flow_runs": {"state": {"name": {"any_": ["Scheduled"]}}}}
        while len(runs := deployed.ask("flow_runs/filter", "POST", **nightly, **scheduled)) < 3:
            time.sleep(1)
    finally:
        deployed.prefect("deployment", "schedule", "clear", name, "--accept-yes")
    nights = [datetime.fromisoformat(run["expected_start_time"]) for run in runs]
    assert {night.strftime("%H:%M %Z") for night in nights} == {"02:00 UTC"}
    assert len({night.date() for night in nights}) == len(nights)
