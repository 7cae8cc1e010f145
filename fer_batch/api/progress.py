"""How far work has come, and how it is interrupted."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

LINE_S = 30
"""Seconds between two lines of progress where there is neither a terminal nor a notebook."""

Show = Callable[[float, str], None]
"""Takes the share of the work that is done, in [0, 1], and a line of text."""
Progress = bool | Show
"""True: a bar; False: nothing; or a function that shows progress in another way."""


@contextmanager
def showing(progress: Progress) -> Iterator[Show]:
    """Show progress while the block runs.

    Args:
        progress: True shows a bar, in a notebook or on standard error; where that is not a
            terminal, a line every `LINE_S` seconds.
    """
    if callable(progress):
        yield progress
    elif not progress:
        yield lambda share, text: None
    elif sys.stderr.isatty() or "ipykernel" in sys.modules:
        with _bar() as show:
            yield show
    else:
        yield _lines()


@contextmanager
def stop_on_interrupt(stop: threading.Event) -> Iterator[None]:
    """Set `stop` at the first Ctrl-C, to end in an orderly way; the second one stops at once.

    Only the main thread can be interrupted: in others this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def first(number: int, frame: object) -> None:
        stop.set()
        signal.signal(signal.SIGINT, before)
        sys.stderr.write("stopping, finished files are kept; press Ctrl-C again to stop at once\n")

    before = signal.signal(signal.SIGINT, first)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


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
        if time.monotonic() - shown_s >= LINE_S:
            shown_s = time.monotonic()
            sys.stderr.write(f"{share:.0%}  {text}\n")
            sys.stderr.flush()

    return show
