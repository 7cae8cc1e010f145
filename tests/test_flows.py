"""The flows: what their files may hold, and one real server, worker and deployment."""

import ast
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
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import pandas as pd
import pytest
import skimage.data
from clips import clip

ROOT = Path(__file__).parents[1]
FLOWS = sorted((ROOT / "flows").glob("*.py"))
ALLOWED = sys.stdlib_module_names | {"prefect", "pydantic", "fer_batch"}

Run = Callable[..., tuple[str, str]]


@pytest.mark.parametrize("path", FLOWS, ids=lambda path: path.name)
def test_a_flow_file_only_wraps_the_library(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    assert len(source.splitlines()) < 120
    imported = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add(node.module or ".")
    assert {name.split(".")[0] for name in imported} <= ALLOWED
    # Postponed annotations break the parameters of flows that are served.
    assert "__future__" not in imported


@pytest.mark.parametrize("path", FLOWS, ids=lambda path: path.name)
def test_tasks_are_not_cached(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        for decorator in map(ast.unparse, node.decorator_list):
            if decorator.startswith("task"):
                assert "cache_policy=NO_CACHE" in decorator, node.name


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """Server, work pool, deployments and worker as the README sets them up; call it for a run."""
    home = tmp_path_factory.mktemp("prefect")
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

    def prefect(*arguments: str, check: bool = True) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "prefect", "--no-prompt", *arguments],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        said = done.stdout + done.stderr
        assert done.returncode == 0 or not check, said
        return said

    def run(**parameters: object) -> tuple[str, str]:
        """Type and message of the state in which a run of the deployment ended."""
        values = [f"--param={name}={json.dumps(value)}" for name, value in parameters.items()]
        said = prefect(
            "deployment", "run", "process-dataset/on-demand", *values, "--watch", check=False
        )
        found = re.search(r"UUID: (\S+)", said)
        assert found, said
        with urllib.request.urlopen(f"{api}/flow_runs/{found[1]}", timeout=60) as response:
            state = json.load(response)["state"]
        return state["type"], state["message"]

    processes = []
    try:
        processes.append(start("server", "start", "--host", "127.0.0.1", "--port", str(port)))
        _wait_for(f"{api}/health", processes[0])
        prefect("work-pool", "create", "fer-batch", "--type", "process")
        prefect("deploy", "--all")
        processes.append(start("worker", "start", "--pool", "fer-batch", "--limit", "1"))
        yield run
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


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_deployment_processes_a_folder(deployed: Run, tmp_path: Path) -> None:
    footage, out = tmp_path / "footage", tmp_path / "out"
    footage.mkdir()
    portrait = skimage.data.astronaut()
    clip(footage / "good clip.mp4", [portrait] * 12)
    cv2.imwrite(str(footage / "picture.png"), portrait[:, :, ::-1])
    where = {"input": str(footage), "output": str(out)}

    state, message = deployed(input=str(tmp_path / "absent"), output=str(out))
    assert state == "FAILED"
    assert "absent" in message

    state, message = deployed(input=str(footage), output=str(tmp_path / "other"), timeout_s=0.5)
    assert state == "FAILED"
    assert "picture.png and 1 more" in message
    assert "killed" in message

    state, message = deployed(**where, annotate=True)
    assert message == "2 files processed, 0 were done before"
    assert state == "COMPLETED"
    faces = pd.read_parquet(out / "faces")
    assert set(faces["media"]) == {"good clip.mp4", "picture.png"}
    assert len(faces) == 13
    assert {path.name for path in (out / "annotated").iterdir()} == {"good clip.mp4", "picture.png"}

    (footage / "broken.mp4").write_text("no video")
    clip(footage / "late.mp4", [portrait] * 6)
    state, message = deployed(**where, shard_mb=1e-6, overrides=["runtime.readers=1"])
    assert state == "FAILED"
    assert "broken.mp4" in message
    assert "late.mp4" not in message
    media = pd.read_parquet(out / "media").set_index("media")["status"]
    assert media.to_dict() == {
        "broken.mp4": "failed",
        "good clip.mp4": "ok",
        "late.mp4": "ok",
        "picture.png": "ok",
    }
    assert len(pd.read_parquet(out / "faces")) == 19
    assert json.loads((out / "run.json").read_text())["counts"]["n_failed"] == 1
    assert not (out / ".shards").exists()
