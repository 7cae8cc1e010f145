"""``fer-batch render``, ``sheet`` and ``report``, and options that are short for settings."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING

from fer_batch.api.progress import showing
from fer_batch.cli.options import EXIT_FILES_FAILED, Commands, place

# Everything else is imported where it is used: --help must not wait for torch and pandas.
if TYPE_CHECKING:
    from fer_batch.config import Config
    from fer_batch.render.outputs import Progress

_KEYS = {
    "start": "sampling.start_s",
    "end": "sampling.end_s",
    "threads": "runtime.threads",
    "device": "runtime.device",
    "style": "render.style",
    "blur": "render.blur",
    "format": "render.format",
    "codec": "render.codec",
    "crf": "render.crf",
}
"""The setting that each option is short for."""


def add_commands(commands: Commands, parents: list[argparse.ArgumentParser]) -> None:
    """Add ``render``, ``sheet`` and ``report`` to the parser of ``fer-batch``."""
    render = commands.add_parser(
        "render",
        parents=[*parents, span(), look()],
        help="annotated videos of a finished run",
        description="Draw what a run found on copies of its videos and images.",
    )
    render.set_defaults(run=_render)

    sheet = commands.add_parser(
        "sheet",
        parents=[*parents, _blur()],
        help="contact sheets of a finished run",
        description="Make pictures that show a run at a glance: a thumbnail of every file, the "
        "strongest moment of each emotion of each face of a video, and the strongest faces of the "
        "still images.",
    )
    sheet.set_defaults(run=_sheet)

    report = commands.add_parser(
        "report",
        parents=parents,
        help="summary of a finished run, with timelines",
        description="Write the folder report of a run: a summary in Markdown, a table of all its "
        "files, and plots of what the faces of its videos show over time.",
    )
    report.set_defaults(run=_report)
    for command in (render, sheet, report):
        command.add_argument("out", type=place, metavar="OUT", help="output folder of a run")
    for command in (render, sheet):
        command.add_argument(
            "--force", action="store_true", help="also make again what is up to date"
        )
    for command, what in (
        (render, "only this file"),
        (sheet, "only the sheet of this video"),
        (report, "only the timeline of this video"),
    ):
        command.add_argument(
            "--media",
            action="append",
            metavar="NAME",
            help=f"{what}, named as in the tables; may be given many times",
        )


def span() -> argparse.ArgumentParser:
    """Options that choose a part of each video."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--start", type=float, metavar="S", help="begin each video at this second")
    parser.add_argument("--end", type=float, metavar="S", help="end each video at this second")
    return parser


def look() -> argparse.ArgumentParser:
    """Options for the look of annotated videos."""
    parser = argparse.ArgumentParser(add_help=False, parents=[_blur()])
    parser.add_argument("--style", help="full, minimal, heatmap or side-by-side")
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


def _blur() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument(
        "--blur", action="store_const", const="true", help="hide the faces, keep their labels"
    )
    return parser


def configure(parsed: argparse.Namespace, *, base: Config | None = None) -> Config:
    """The configuration that a command line asks for.

    Args:
        parsed: With ``config`` and ``overrides``, and any of the options in `_KEYS`.
        base: Where unnamed values come from; the defaults if None.

    Raises:
        ConfigError: The file cannot be read, or a key or value is wrong.
    """
    from fer_batch.config import load

    values = {key: getattr(parsed, option, None) for option, key in _KEYS.items()}
    options = [f"{key}={value}" for key, value in values.items() if value is not None]
    return load(parsed.config, [*parsed.overrides, *options], base=base)


def annotate(
    parsed: argparse.Namespace, config: Config, *, media: Collection[str] | None = None
) -> int:
    """Make the annotated copies of a run, with a progress bar; returns the exit code."""
    from fer_batch.render.copies import render

    def make(on_progress: Callable[[Progress], None]) -> list[Path]:
        return render(parsed.out, config, media=media, force=parsed.force, on_progress=on_progress)

    return _make(parsed, make, "annotated files", "annotated")


def _render(parsed: argparse.Namespace) -> int:
    return annotate(parsed, _configure_as_run(parsed), media=parsed.media)


def _sheet(parsed: argparse.Namespace) -> int:
    from fer_batch.report.contact_sheets import make_sheets

    config = _configure_as_run(parsed)

    def make(on_progress: Callable[[Progress], None]) -> list[Path]:
        return make_sheets(
            parsed.out, config, media=parsed.media, force=parsed.force, on_progress=on_progress
        )

    return _make(parsed, make, "sheets", "sheets")


def _report(parsed: argparse.Namespace) -> int:
    from fer_batch.report.summary import make_report

    with showing(not parsed.quiet) as show:
        path = make_report(
            parsed.out,
            _configure_as_run(parsed),
            media=parsed.media,
            on_progress=lambda progress: show(
                progress.share, f"{progress.n_files_done:,}/{progress.n_files:,} videos"
            ),
        )
    if not parsed.quiet:
        print(f"report: {path}")
    return 0


def _configure_as_run(parsed: argparse.Namespace) -> Config:
    from fer_batch.config import Config
    from fer_batch.results import store
    from fer_batch.settings import validate

    return configure(parsed, base=validate(Config, store.read_run(parsed.out)["config"]))


def _make(
    parsed: argparse.Namespace,
    make: Callable[[Callable[[Progress], None]], list[Path]],
    what: str,
    folder: str,
) -> int:
    from fer_batch.errors import RenderError

    with showing(not parsed.quiet) as show:
        try:
            paths = make(lambda progress: show(progress.share, f"{what}: {progress}"))
        except RenderError as error:
            print(f"fer-batch: {error}", file=sys.stderr)
            return EXIT_FILES_FAILED
    if not parsed.quiet:
        print(f"{len(paths):,} {what}: {parsed.out}/{folder}")
    return 0
