"""Processes that end when their parent ends, in whatever way."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fer_batch.distributed import child
from tests.support import ROOT

ELSEWHERE = (
    sys.executable,
    "-c",
    "import sys; sys.platform = 'darwin'; from fer_batch.distributed.child import main; main()",
)
PARENT = """
import subprocess, sys, time
with subprocess.Popen(sys.argv[1:], stdin=subprocess.PIPE):
    time.sleep(600)
"""
SLEEPING = "import time; print('ready', flush=True); time.sleep(600)"
BLOCKING = "import ctypes; print('ready', flush=True); ctypes.PyDLL(None).sleep(600)"
"""Native code during which no other Python code can run."""


@pytest.mark.parametrize(
    "command, code", [(child.COMMAND, SLEEPING), (child.COMMAND, BLOCKING), (ELSEWHERE, SLEEPING)]
)
def test_it_ends_when_its_parent_is_killed(
    tmp_path: Path, command: tuple[str, ...], code: str
) -> None:
    (tmp_path / "busy.py").write_text(code, encoding="utf-8")
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, *command, "busy"],
        env={"PYTHONPATH": f"{ROOT}:{tmp_path}"},
        stdout=subprocess.PIPE,
    ) as parent:
        assert parent.stdout
        assert parent.stdout.readline() == b"ready\n"
        parent.kill()
        assert parent.stdout.read() == b""  # at its end nobody has it open


def test_it_ends_when_its_parent_was_gone_before(tmp_path: Path) -> None:
    (tmp_path / "busy.py").write_text(SLEEPING, encoding="utf-8")
    ended = subprocess.run(
        [*child.COMMAND, "busy"],
        env={"PYTHONPATH": f"{ROOT}:{tmp_path}"},
        stdin=subprocess.DEVNULL,
        check=False,
    )
    assert ended.returncode == -signal.SIGTERM


def test_the_module_runs_as_if_it_was_started_itself(tmp_path: Path) -> None:
    (tmp_path / "tell.py").write_text("import sys\nprint(__name__, sys.argv, sys.stdin.read())")
    with subprocess.Popen(
        [*child.COMMAND, "tell", "-q", "a b"],
        env={"PYTHONPATH": f"{ROOT}:{tmp_path}"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout
        assert process.stdout.read() == f"__main__ {[str(tmp_path / 'tell.py'), '-q', 'a b']} \n"
