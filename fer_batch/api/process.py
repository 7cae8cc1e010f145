"""Runs are made, or opened."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

from fer_batch.api.arguments import SettingsLike, configure, place
from fer_batch.api.progress import Progress, showing, stop_on_interrupt
from fer_batch.api.run import Run


def process(
    inputs: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    settings: SettingsLike = None,
    force: bool = False,
    progress: Progress = False,
) -> Run:
    """Find every face in videos and images, and write its emotions into tables.

    A second call processes only files that are new, were changed, or failed before. Files that fail
    raise nothing, `Run.problems` names them. An interruption (Ctrl-C) ends the call soon, a second
    one at once. Finished files are kept, and others are begun anew by the next call.

    Args:
        inputs: File, folder (searched to its depths) or URL, or several of them.
        out: Folder or URL for the results.
        settings: What differs from the defaults: a dict such as ``{"sampling.fps": 5}``, the path
            of a YAML file, or a `Config`.
        force: Process all files again.
        progress: True shows a bar; a function is called with the share that is done and a text.

    Raises:
        ConfigError: A setting is wrong or unknown.
        MediaError: An input is missing, or there are no videos and images in it.
        StoreError: Another run is writing to ``out``, it holds results of other files, or it cannot
            be written.
        DetectorError, WeightsError: A model cannot be loaded.
        KeyboardInterrupt: It was interrupted.
    """
    config, folder = configure(settings), place(out)
    sources = [inputs] if isinstance(inputs, str | Path) else inputs
    stop = threading.Event()
    with stop_on_interrupt(stop), showing(progress) as show:
        from fer_batch.pipeline.process import process as run  # it needs torch

        summary = run(
            [place(source) for source in sources],
            folder,
            config,
            force=force,
            on_progress=lambda done: show(done.share, str(done)),
            stop=stop,
        )
    if summary.interrupted:
        raise KeyboardInterrupt("finished files are kept: process again to continue")
    return Run(folder)


def open_run(folder: str | Path) -> Run:
    """The run whose results are in a folder, or behind a URL.

    Raises:
        StoreError: There is no run in it, or it cannot be read.
    """
    run = Run(folder)
    run.media()
    return run
