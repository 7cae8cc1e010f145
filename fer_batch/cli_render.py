"""``fer-batch render``, and the settings that every command with a configuration takes."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from fer_batch.console import progress_bar

# Everything else is imported where it is used: --help must not wait for torch and pandas.
if TYPE_CHECKING:
    from fer_batch.config import Config
    from fer_batch.render import Progress

    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

EXIT_FILES_FAILED = 1

_KEYS = {
    "start": "sampling.start_s",
    "end": "sampling.end_s",
    "threads": "runtime.threads",
    "style": "render.style",
    "blur": "render.blur",
    "format": "render.format",
    "codec": "render.codec",
    "crf": "render.crf",
}
"""Settings that have an option of their own."""


def add_command(commands: Commands, parents: list[argparse.ArgumentParser]) -> None:
    """Add ``render`` to the parser of ``fer-batch``."""
    render = commands.add_parser(
        "render",
        parents=[*parents, span(), look()],
        help="annotated videos of a finished run",
        description="Draw what a run found on copies of its videos and pictures.",
    )
    render.add_argument("out", type=Path, metavar="OUT", help="output folder of a run")
    render.add_argument(
        "--media",
        action="append",
        metavar="NAME",
        help="only this file, named as in the tables; may be given many times",
    )
    render.add_argument("--force", action="store_true", help="also what is up to date")
    render.set_defaults(run=_render)


def span() -> argparse.ArgumentParser:
    """Options that choose a part of each video."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--start", type=float, metavar="S", help="begin each video at this second")
    parser.add_argument("--end", type=float, metavar="S", help="end each video at this second")
    return parser


def look() -> argparse.ArgumentParser:
    """Options that say how annotated videos look."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--style", help="full, minimal, heatmap or side-by-side")
    parser.add_argument(
        "--blur", action="store_const", const="true", help="hide the faces, keep their labels"
    )
    parser.add_argument(
        "--gif",
        dest="format",
        action="store_const",
        const="gif",
        help="short loops instead of MP4 files with sound",
    )
    parser.add_argument("--codec", metavar="NAME", help="ffmpeg's name of the video encoder")
    parser.add_argument("--crf", type=int, metavar="N", help="quality: lower is better and larger")
    return parser


def configure(parsed: argparse.Namespace, *, base: Config | None = None) -> Config:
    """The configuration that a command line asks for.

    Args:
        parsed: With ``config`` and ``overrides``, and any of the options that stand for a setting.
        base: Where unnamed values come from; the defaults if None.

    Raises:
        ConfigError: The file cannot be read, or a key or value is wrong.
    """
    from fer_batch.config import load

    values = {key: getattr(parsed, option, None) for option, key in _KEYS.items()}
    options = [f"{key}={value}" for key, value in values.items() if value is not None]
    return load(parsed.config, [*parsed.overrides, *options], base=base)


def annotate(
    parsed: argparse.Namespace, config: Config, *, only: Collection[str] | None = None
) -> int:
    """Make the annotated copies of a run, with a progress bar; gives the exit code."""
    from fer_batch.render import render
    from fer_batch.schema import RenderError

    with progress_bar(parsed.quiet) as show:

        def on_progress(progress: Progress) -> None:
            show(
                progress.share,
                f"annotating {progress.n_files_done:,}/{progress.n_files:,} files  "
                f"{progress.n_frames:,} frames",
            )

        try:
            paths = render(
                parsed.out, config, only=only, force=parsed.force, on_progress=on_progress
            )
        except RenderError as error:
            print(f"fer-batch: {error}", file=sys.stderr)
            return EXIT_FILES_FAILED
    if not parsed.quiet:
        print(f"{len(paths):,} annotated files: {parsed.out}/annotated")
    return 0


def _render(parsed: argparse.Namespace) -> int:
    from fer_batch import store
    from fer_batch.config import Config, validate

    of_the_run = validate(Config, store.read_run(parsed.out)["config"])
    return annotate(parsed, configure(parsed, base=of_the_run), only=parsed.media)
