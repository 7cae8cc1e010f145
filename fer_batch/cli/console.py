"""What the commands share: paths as arguments, progress, and a gentle Ctrl-C."""

from __future__ import annotations

import signal
import sys
import threading
import time
from argparse import ArgumentTypeError
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

PROGRESS_S = 30
"""Seconds between two lines of progress where standard error is not a terminal."""

Show = Callable[[float, str], None]
"""Shows progress: the share that is done, and a text."""


def place(text: str) -> Path:
    """A path or URL of the command line, for argparse."""
    from fer_batch.errors import ConfigError
    from fer_batch.storage.urls import path_of

    try:
        return path_of(text)
    except ConfigError as error:
        raise ArgumentTypeError(str(error)) from error


@contextmanager
def stop_on_interrupt(stop: threading.Event) -> Iterator[None]:
    """Set `stop` at the first Ctrl-C, to finish the current files; the second one stops at once."""

    def first(number: int, frame: object) -> None:
        stop.set()
        signal.signal(signal.SIGINT, before)
        print("stopping after the current files; press Ctrl-C again to stop now", file=sys.stderr)

    before = signal.signal(signal.SIGINT, first)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def progress_bar(quiet: bool) -> Iterator[Show]:
    """Show progress on standard error: as a bar on a terminal, else as a line every 30 s."""
    if quiet:
        yield lambda share, text: None
    elif sys.stderr.isatty():
        with _bar() as show:
            yield show
    else:
        yield _lines()


@contextmanager
def _bar() -> Iterator[Show]:
    from rich import progress
    from rich.console import Console

    columns = (
        progress.BarColumn(),
        progress.TaskProgressColumn(),
        progress.TimeRemainingColumn(),
        progress.TextColumn("{task.description}"),
    )
    on_terminal = sys.stdout.isatty()  # rich would move what is printed into a file to the terminal
    with progress.Progress(
        *columns, console=Console(stderr=True), redirect_stdout=on_terminal
    ) as bar:
        task = bar.add_task("starting", total=1.0)
        yield lambda share, text: bar.update(task, completed=share, description=text)


def _lines() -> Show:
    shown_s = time.monotonic()

    def show(share: float, text: str) -> None:
        nonlocal shown_s
        if time.monotonic() - shown_s >= PROGRESS_S:
            shown_s = time.monotonic()
            print(f"{share:.0%}  {text}", file=sys.stderr, flush=True)

    return show
