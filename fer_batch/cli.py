"""``fer-batch``: arguments, logging, progress and exit codes around the library."""

from __future__ import annotations

import argparse
import errno
import logging
import sys
import threading
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fer_batch import __version__, cli_explain, cli_models, cli_render
from fer_batch.console import interrupts, progress_bar

# Everything else is imported where it is used: --help must not wait for torch and pandas.
if TYPE_CHECKING:
    from fer_batch.pipeline import Progress, Summary

EXIT_USAGE = 2
EXIT_DISK_FULL = 3
EXIT_INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and exit with its code."""
    parsed = _parser().parse_args(arguments)
    logging.basicConfig(
        level=logging.INFO if parsed.verbose else logging.ERROR,
        format="%(levelname)s %(name)s: %(message)s",
    )
    warnings.filterwarnings("ignore", "Image size", module="PIL")  # decode.max_image_mp decides
    from fer_batch.schema import FerError, StoreDiskFullError

    try:
        code: int = parsed.run(parsed)
    except StoreDiskFullError as error:
        code = _complain(error, EXIT_DISK_FULL)
    except FerError as error:
        code = _complain(error, EXIT_USAGE)
    except KeyboardInterrupt:
        code = EXIT_INTERRUPTED
    except BrokenPipeError:  # the reader of our output went away: `fer-batch show OUT | head`
        sys.stderr.close()
        code = 0
    except ModuleNotFoundError as error:
        code = _complain(f"{error}: pip install 'fer-batch[train]' brings it", EXIT_USAGE)
    except OSError as error:
        code = _complain(error, EXIT_DISK_FULL if error.errno == errno.ENOSPC else EXIT_USAGE)
    sys.exit(code)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fer-batch",
        description="Facial emotion recognition for folders of videos and images.",
        epilog="Exit codes: 0 all well; 1 some files failed; 2 wrong arguments or configuration; "
        "3 disk full; 130 interrupted.",
    )
    parser.add_argument("--version", action="version", version=f"fer-batch {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    configured = argparse.ArgumentParser(add_help=False)
    configured.add_argument("--config", type=Path, metavar="FILE", help="YAML file with settings")
    configured.add_argument(
        "--set",
        dest="overrides",
        action="append",
        default=[],
        metavar="SECTION.KEY=VALUE",
        help="one setting, stronger than the file; may be given many times",
    )
    spoken = argparse.ArgumentParser(add_help=False)
    spoken.add_argument("-q", "--quiet", action="store_true", help="no progress, errors only")
    spoken.add_argument("-v", "--verbose", action="store_true", help="log what is being done")

    _add_process(commands, [configured, spoken])

    cli_render.add_commands(commands, [configured, spoken])

    show = commands.add_parser("show", parents=[spoken], help="summary table of a run")
    show.add_argument("out", type=Path, metavar="OUT", help="output folder of a run")
    show.set_defaults(run=_show)

    config = commands.add_parser(
        "config", parents=[configured, spoken], help="print the resolved configuration"
    )
    config.set_defaults(run=_config)

    cli_explain.add_commands(commands, spoken)
    cli_models.add_commands(commands, spoken)
    return parser


def _add_process(commands: cli_models.Commands, parents: list[argparse.ArgumentParser]) -> None:
    process = commands.add_parser(
        "process",
        parents=[*parents, cli_render.span(), cli_render.look()],
        help="videos and images -> tables (and annotated videos)",
        description="Find videos and images, recognise the emotion of every face in every frame, "
        "write tables. A second run over the same output does only what is missing or changed.",
    )
    process.add_argument("inputs", nargs="+", type=Path, metavar="INPUT", help="file or folder")
    process.add_argument("-o", "--out", required=True, type=Path, help="folder for the results")
    process.add_argument(
        "--threads", type=int, metavar="N", help="CPU threads to use; all cores if not given"
    )
    process.add_argument("--annotate", action="store_true", help="also make annotated videos")
    process.add_argument("--force", action="store_true", help="do again what is done")
    process.add_argument(
        "--only",
        type=Path,
        metavar="LIST",
        help="text file with the names of the files to do, one a line, as in the tables; "
        "several such runs may share one output at the same time",
    )
    process.set_defaults(run=_process)


def _process(parsed: argparse.Namespace) -> int:
    config = cli_render.configure(parsed)
    only = _read_names(parsed.only) if parsed.only else None
    stop = threading.Event()
    with interrupts(stop), progress_bar(parsed.quiet) as show:
        from fer_batch.pipeline import process

        def on_progress(progress: Progress) -> None:
            show(
                progress.share,
                f"{progress.n_files_done:,}/{progress.n_files:,} files  "
                f"{progress.n_frames:,} frames  {progress.n_faces:,} faces  "
                f"{progress.n_frames / progress.seconds:,.0f} frames/s",
            )

        summary = process(
            parsed.inputs,
            parsed.out,
            config,
            force=parsed.force,
            only=only,
            on_progress=on_progress,
            stop=stop,
        )
    for problem in summary.problems:
        print(f"{problem.status}: {problem.media}: {problem.error}", file=sys.stderr)
    if not parsed.quiet:
        _print_summary(summary, parsed.out)
    if summary.interrupted:
        print("interrupted: what is complete stays; run again to go on", file=sys.stderr)
        return EXIT_INTERRUPTED
    rendered = cli_render.annotate(parsed, config, only=only) if parsed.annotate else 0
    return cli_render.EXIT_FILES_FAILED if summary.n_failed else rendered


def _show(parsed: argparse.Namespace) -> int:
    from rich.console import Console
    from rich.table import Table

    from fer_batch import timeline

    numbers = ("frames", "seconds", "with a face", "tracks")
    table = Table("media", "status", *numbers, "mean probabilities", box=None, pad_edge=False)
    for column in table.columns[2:6]:
        column.justify = "right"
    table.columns[0].overflow = "fold"
    for row in timeline.summary(parsed.out).to_dict("records"):
        table.add_row(
            row["media"],
            row["status"],
            f"{row['frames']:,}",
            f"{row['seconds']:.1f}" if row["kind"] == "video" else "",
            f"{row['face_share']:.0%}" if row["frames"] else "",
            str(row["tracks"]) if row["kind"] == "video" else "",
            timeline.strongest(row),
        )
    Console().print(table)
    return 0


def _config(parsed: argparse.Namespace) -> int:
    from fer_batch.config import dump

    print(dump(cli_render.configure(parsed)), end="")
    return 0


def _read_names(path: Path) -> set[str]:
    from fer_batch.schema import ConfigError

    try:
        return set(path.read_text(encoding="utf-8").split("\n")) - {""}
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--only {path}: cannot be read: {error}") from error


def _print_summary(summary: Summary, out: Path) -> None:
    n_new = summary.n_ok + summary.n_partial + summary.n_failed
    print(
        f"{n_new:,} files in {summary.seconds:.1f} s: {summary.n_ok:,} ok, "
        f"{summary.n_partial:,} partial, {summary.n_failed:,} failed; "
        f"{summary.n_skipped:,} were done before\n"
        f"{summary.n_frames:,} frames, {summary.n_faces:,} faces\n"
        f"tables: {out}/media, {out}/frames, {out}/faces"
    )
    if summary.n_frames and not summary.n_faces:
        print(
            "no face was found: try --set detector.haar.min_face=0.05 for smaller ones; the "
            "detector knows frontal faces only"
        )


def _complain(error: Exception | str, code: int) -> int:
    print(f"fer-batch: {error}", file=sys.stderr)
    return code
