"""`make serve`: one command starts everything, says what is wrong, and leaves nothing behind."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
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


def test_a_port_in_use_is_said() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        done = subprocess.run(
            [sys.executable, "-m", "flows.serve", "--port", str(port)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr == (
        f"fer-batch: cannot listen on 127.0.0.1:{port}: Address already in use. "
        f"Stop what runs there, or choose another port: make serve PORT={port + 1}\n"
    )
