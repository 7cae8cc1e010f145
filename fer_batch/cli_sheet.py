"""``fer-batch sheet``: contact sheets of a finished run."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from fer_batch.console import progress_bar

# Everything else is imported where it is used: --help must not wait for torch and pandas.
if TYPE_CHECKING:
    from fer_batch.render import Progress

    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

EXIT_FILES_FAILED = 1


def add_command(commands: Commands, spoken: argparse.ArgumentParser) -> None:
    """Add the command to the parser of ``fer-batch``."""
    sheet = commands.add_parser(
        "sheet",
        parents=[spoken],
        help="contact sheets of a finished run",
        description="Make pictures that show a run at a glance: a thumbnail of every file, and the "
        "strongest moments of each emotion of the faces of each video, and of the still images.",
    )
    sheet.add_argument("out", type=Path, metavar="OUT", help="output folder of a run")
    sheet.add_argument("--force", action="store_true", help="also what is up to date")
    sheet.set_defaults(run=_sheet)


def _sheet(parsed: argparse.Namespace) -> int:
    from fer_batch import store
    from fer_batch.config import Config, validate
    from fer_batch.schema import RenderError
    from fer_batch.sheets import make_sheets

    config = validate(Config, store.read_run(parsed.out)["config"])
    with progress_bar(parsed.quiet) as show:

        def on_progress(progress: Progress) -> None:
            show(progress.share, f"{progress.n_files_done:,}/{progress.n_files:,} files")

        try:
            paths = make_sheets(parsed.out, config, force=parsed.force, on_progress=on_progress)
        except RenderError as error:
            print(f"fer-batch: {error}", file=sys.stderr)
            return EXIT_FILES_FAILED
    if not parsed.quiet:
        print(f"{len(paths):,} sheets: {parsed.out}/sheets")
    return 0
