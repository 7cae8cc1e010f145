"""Progress: a bar on a terminal, otherwise a line now and then; and what Ctrl-C does."""

import contextlib
import os
import pty
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from fer_batch.api import progress

SHOW = """
from fer_batch.api.progress import showing
with showing(True) as show:
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
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(time_s))
    with progress.showing(True) as show:
        for share in (0.1, 0.2, 0.3, 0.405):
            show(share, "3/10 files")
    assert capsys.readouterr().err.splitlines() == ["20%  3/10 files", "40%  3/10 files"]
    with progress.showing(False) as show:
        show(0.5, "3/10 files")
    assert capsys.readouterr().err == ""


def test_first_interrupt_asks_and_the_second_stops(capsys: pytest.CaptureFixture[str]) -> None:
    stop = threading.Event()
    with progress.stop_on_interrupt(stop):
        signal.raise_signal(signal.SIGINT)
        assert stop.is_set()
        assert "press Ctrl-C again" in capsys.readouterr().err
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_other_threads_are_not_interrupted() -> None:
    def work() -> None:
        with progress.stop_on_interrupt(threading.Event()):
            handlers.append(signal.getsignal(signal.SIGINT))

    handlers = [signal.getsignal(signal.SIGINT)]
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert handlers[0] == handlers[1]
