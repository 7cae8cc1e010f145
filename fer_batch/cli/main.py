"""``fer-batch``: the command line, with its logging, progress and exit codes."""

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

from fer_batch import __version__
from fer_batch.api.progress import showing, stop_on_interrupt
from fer_batch.cli import explain as cli_explain
from fer_batch.cli import models as cli_models
from fer_batch.cli import render as cli_render
from fer_batch.cli import schema as cli_schema
from fer_batch.cli import setup as cli_setup
from fer_batch.cli.options import EXIT_FILES_FAILED, Commands, place
from fer_batch.errors import EXIT_DISK_FULL, EXIT_UNAVAILABLE

# Everything else is imported where it is used: --help must not wait for torch and pandas.
if TYPE_CHECKING:
    from fer_batch.pipeline.manifest import Summary

EXIT_USAGE = 2
EXIT_INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and exit with its code."""
    parsed = _parser().parse_args(arguments)
    logging.basicConfig(
        level=logging.WARNING if parsed.verbose else logging.ERROR,
        format="%(levelname)s %(name)s: %(message)s",
    )
    logging.getLogger("fer_batch").setLevel(logging.INFO if parsed.verbose else logging.ERROR)
    warnings.filterwarnings("ignore", "Image size", module="PIL")  # decode.max_image_mp decides
    from fer_batch.errors import FerError, StoreDiskFullError, UnavailableError

    try:
        code: int = parsed.run(parsed)
    except StoreDiskFullError as error:
        code = _complain(error, EXIT_DISK_FULL)
    except UnavailableError as error:
        code = _complain(error, EXIT_UNAVAILABLE)
    except FerError as error:
        code = _complain(error, EXIT_USAGE)
    except KeyboardInterrupt:
        code = EXIT_INTERRUPTED
    except BrokenPipeError:  # the output is not read to its end: `fer-batch show OUT | head`
        sys.stderr.close()
        code = 0
    except ModuleNotFoundError as error:
        from fer_batch.extras import how_to_install

        code = _complain(f"{error}. To install it: {how_to_install(error.name)}", EXIT_USAGE)
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

    settings = argparse.ArgumentParser(add_help=False)
    settings.add_argument("--config", type=Path, metavar="FILE", help="YAML file with settings")
    settings.add_argument(
        "--set",
        dest="overrides",
        action="append",
        default=[],
        metavar="SECTION.KEY=VALUE",
        help="change one setting, also one of the file; can be repeated",
    )
    verbosity = argparse.ArgumentParser(add_help=False)
    verbosity.add_argument(
        "-q", "--quiet", action="store_true", help="print errors only, no progress and no summary"
    )
    verbosity.add_argument(
        "-v", "--verbose", action="store_true", help="log each step on standard error"
    )

    _add_process(commands, [settings, verbosity])
    _add_work(commands)

    cli_render.add_commands(commands, [settings, verbosity])

    show = commands.add_parser(
        "show", parents=[verbosity], help="print a table of the files of a run"
    )
    show.add_argument("out", type=place, metavar="OUT", help="output folder of a run")
    show.set_defaults(run=_show)

    config = commands.add_parser(
        "config", parents=[settings, verbosity], help="print all settings as a YAML file"
    )
    config.add_argument("--commented", action="store_true", help="explain each setting")
    config.set_defaults(run=_config)

    cli_schema.add_command(commands)
    cli_explain.add_commands(commands, verbosity)
    cli_models.add_commands(commands, verbosity)
    cli_setup.add_commands(commands)
    return parser


def _add_process(commands: Commands, parents: list[argparse.ArgumentParser]) -> None:
    process = commands.add_parser(
        "process",
        parents=[*parents, cli_render.span(), cli_render.look()],
        help="find faces and their emotions in videos and images, and write tables",
        description="Find videos and images, recognise the emotion of every face in every frame, "
        "and write tables. A second run with the same output processes only files that are new, "
        "were changed, or failed before.",
    )
    process.add_argument(
        "inputs",
        nargs="+",
        type=place,
        metavar="INPUT",
        help="file, folder (with all folders in it) or URL",
    )
    process.add_argument(
        "-o", "--out", required=True, type=place, help="folder or URL for the results"
    )
    process.add_argument(
        "--threads", type=int, metavar="N", help="number of CPU threads (all cores)"
    )
    process.add_argument(
        "--device", help="cpu, cuda, cuda:N, or several: cuda:0,cuda:1 (all GPUs, else the CPU)"
    )
    process.add_argument("--annotate", action="store_true", help="also make annotated copies")
    process.add_argument("--force", action="store_true", help="process all files again")
    process.set_defaults(run=_process)


def _add_work(commands: Commands) -> None:
    work = commands.add_parser(
        "work",
        help="process files of a shared run (used by the Prefect flows)",
        description="Process files of a shard of a shared run. Prints the share that is done, and "
        "logs on standard error.",
    )
    work.add_argument("out", type=place, metavar="OUT", help="output folder of the run")
    work.add_argument("run_id", metavar="RUN", help="id of the run")
    work.add_argument("number", type=int, metavar="SHARD", help="number of the shard")
    work.add_argument(
        "generation", type=int, metavar="GENERATION", help="generation of the claim on the shard"
    )
    work.add_argument("start", type=int, metavar="START", help="first file of the shard")
    work.add_argument("stop", type=int, metavar="STOP", help="first file after those to process")
    work.add_argument(
        "--retry-transient",
        action="store_true",
        help=f"exit with {EXIT_UNAVAILABLE} if a disk or network does not answer",
    )
    work.set_defaults(run=_work, verbose=True)


def _work(parsed: argparse.Namespace) -> int:
    stop = threading.Event()
    with stop_on_interrupt(stop):
        from fer_batch.distributed.shard_worker import work

        is_done = work(
            parsed.out,
            parsed.run_id,
            parsed.number,
            parsed.generation,
            slice(parsed.start, parsed.stop),
            retry_transient=parsed.retry_transient,
            on_progress=lambda progress: print(progress.share, flush=True),
            stop=stop,
        )
    return 0 if is_done else EXIT_INTERRUPTED


def _process(parsed: argparse.Namespace) -> int:
    config = cli_render.configure(parsed)
    stop = threading.Event()
    with stop_on_interrupt(stop), showing(not parsed.quiet) as show:
        from fer_batch.pipeline.process import process

        summary = process(
            parsed.inputs,
            parsed.out,
            config,
            force=parsed.force,
            on_progress=lambda progress: show(progress.share, str(progress)),
            stop=stop,
        )
    for problem in summary.problems:
        print(f"{problem.status}: {problem.media}: {problem.error}", file=sys.stderr)
    if not parsed.quiet:
        _print_summary(summary, parsed.out, config.detector.name)
    if summary.interrupted:
        print("interrupted: finished files are kept; run again to continue", file=sys.stderr)
        return EXIT_INTERRUPTED
    rendered = cli_render.annotate(parsed, config) if parsed.annotate else 0
    return EXIT_FILES_FAILED if summary.n_failed else rendered


def _show(parsed: argparse.Namespace) -> int:
    from rich.console import Console
    from rich.table import Table

    from fer_batch.api.run import overview
    from fer_batch.config import Quality
    from fer_batch.report.usability import count_unusable, describe
    from fer_batch.results import store, timeline

    files = overview(timeline.summary(parsed.out))
    table = Table(*files.columns, box=None, pad_edge=False)
    for column in table.columns[2:6]:
        column.justify = "right"
    table.columns[0].overflow = "fold"
    for row in files.itertuples(index=False):
        table.add_row(*row)
    Console().print(table)
    if (parsed.out / "run.json").exists():  # the first run may still be at work
        limits = Quality.model_validate(store.read_run(parsed.out)["config"].get("quality", {}))
        if unusable := describe(count_unusable(parsed.out, limits)):
            print(f"faces that are not good enough to classify: {unusable}")
    return 0


def _config(parsed: argparse.Namespace) -> int:
    from fer_batch.config import dump

    print(dump(cli_render.configure(parsed), commented=parsed.commented), end="")
    return 0


def _print_summary(summary: Summary, out: Path, detector: str) -> None:
    from fer_batch.faces.detectors import find_detector

    if summary.n_ok + summary.n_partial + summary.n_failed or summary.interrupted:
        print(f"{summary}\n{summary.n_frames:,} frames, {summary.n_faces:,} faces")
    else:
        print(f"nothing new: {summary.n_skipped:,} files were done before")
    print(f"tables: {out}/media, {out}/frames, {out}/faces")
    if summary.n_frames and not summary.n_faces:
        advice = find_detector(detector).advice
        print(f"no face was found: {advice}" if advice else "no face was found")


def _complain(error: Exception | str, code: int) -> int:
    print(f"fer-batch: {error}", file=sys.stderr)
    return code
