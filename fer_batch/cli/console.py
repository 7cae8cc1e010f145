"""What the commands share: places to read and write, a progress bar, and a gentle Ctrl-C."""

from __future__ import annotations

import signal
import sys
import threading
from argparse import ArgumentTypeError
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


def place(text: str) -> Path:
    """A path or URL of the command line, for argparse."""
    from fer_batch.errors import ConfigError
    from fer_batch.storage.urls import path_of

    try:
        return path_of(text)
    except ConfigError as error:
        raise ArgumentTypeError(str(error)) from error


@contextmanager
def interrupts(stop: threading.Event) -> Iterator[None]:
    """Ctrl-C sets `stop`, so that what is complete is kept; a second one interrupts at once."""

    def first(number: int, frame: object) -> None:
        stop.set()
        signal.signal(signal.SIGINT, before)
        print("stopping after what is under way; Ctrl-C again to stop at once", file=sys.stderr)

    before = signal.signal(signal.SIGINT, first)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def progress_bar(quiet: bool) -> Iterator[Callable[[float, str], None]]:
    """A bar on standard error, when that is a terminal; takes the share done and what to say."""
    if quiet or not sys.stderr.isatty():
        yield lambda share, text: None
        return
    from rich import progress
    from rich.console import Console

    columns = (
        progress.BarColumn(),
        progress.TaskProgressColumn(),
        progress.TimeRemainingColumn(),
        progress.TextColumn("{task.description}"),
    )
    in_one_place = sys.stdout.isatty()  # else what is printed would follow the bar out of its file
    with progress.Progress(
        *columns, console=Console(stderr=True), redirect_stdout=in_one_place
    ) as bar:
        task = bar.add_task("starting", total=1.0)
        yield lambda share, text: bar.update(task, completed=share, description=text)
