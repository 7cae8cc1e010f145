"""Progress: a bar on a terminal, otherwise a line now and then."""

import contextlib
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from fer_batch.cli import console

SHOW = """
from fer_batch.cli.console import progress_bar
with progress_bar(quiet=False) as show:
    print("epoch 1")
    show(1.0, "epochs")
"""


def test_bar_does_not_take_what_is_printed_into_a_file(tmp_path: Path) -> None:
    master, terminal = pty.openpty()
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen([sys.executable, "-c", SHOW], stdout=log, stderr=terminal)
    os.close(terminal)
    shown = b""
    with contextlib.suppress(OSError):  # this is how a terminal ends
        while True:
            shown += os.read(master, 1024)
    os.close(master)
    assert process.wait() == 0
    assert b"100%" in shown
    assert (tmp_path / "log").read_text() == "epoch 1\n"


def test_lines_where_there_is_no_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    time_s = iter([0, 10, 31, 31, 40, 62, 62])
    monkeypatch.setattr(console.time, "monotonic", lambda: next(time_s))
    with console.progress_bar(quiet=False) as show:
        for share in (0.1, 0.2, 0.3, 0.405):
            show(share, "3/10 files")
    assert capsys.readouterr().err.splitlines() == ["20%  3/10 files", "40%  3/10 files"]
    with console.progress_bar(quiet=True) as show:
        show(0.5, "3/10 files")
    assert capsys.readouterr().err == ""
