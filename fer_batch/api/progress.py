"""How far work has come, and how it is interrupted."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Show = Callable[[float, str], None]
"""Takes the share of the work that is done, in [0, 1], and a line of text."""
Progress = bool | Show
"""True: a bar, where there is a terminal or a notebook; False: nothing; or who takes it instead."""


@contextmanager
def showing(progress: Progress) -> Iterator[Show]:
    """Show progress while the block runs, on standard error or in the cell of a notebook."""
    if callable(progress):
        yield progress
        return
    if not progress or not (sys.stderr.isatty() or "ipykernel" in sys.modules):
        yield lambda share, text: None
        return
    from rich import progress as bars
    from rich.console import Console

    columns = (
        bars.BarColumn(),
        bars.TaskProgressColumn(),
        bars.TimeRemainingColumn(),
        bars.TextColumn("{task.description}"),
    )
    in_one_place = sys.stdout.isatty()  # else what is printed would follow the bar out of its file
    with bars.Progress(*columns, console=Console(stderr=True), redirect_stdout=in_one_place) as bar:
        task = bar.add_task("starting", total=1.0)
        yield lambda share, text: bar.update(task, completed=share, description=text)


@contextmanager
def interrupts(stop: threading.Event, say: Callable[[str], None]) -> Iterator[None]:
    """Ctrl-C sets `stop`, so that what is complete is kept; a second one interrupts at once.

    Only the main thread can be interrupted: in others this does nothing.

    Args:
        stop: Asks the work to end.
        say: Told, at the first Ctrl-C, what happens now.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def first(number: int, frame: object) -> None:
        stop.set()
        signal.signal(signal.SIGINT, before)
        say("stopping after what is under way; interrupt again to stop at once")

    before = signal.signal(signal.SIGINT, first)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
