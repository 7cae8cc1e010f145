"""``fer-batch``: arguments, logging, progress and exit codes around the library."""

from __future__ import annotations

import argparse
import errno
import logging
import os
import sys
import threading
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fer_batch import __version__
from fer_batch.cli import explain as cli_explain
from fer_batch.cli import models as cli_models
from fer_batch.cli import render as cli_render
from fer_batch.cli.console import interrupts, place, progress_bar

# Everything else is imported where it is used: --help must not wait for torch and pandas.
if TYPE_CHECKING:
    from fer_batch.pipeline.manifest import Summary
    from fer_batch.pipeline.process import Progress

EXIT_USAGE = 2
EXIT_DISK_FULL = 3
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
        code = _complain(error, os.EX_TEMPFAIL)
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
    _add_work(commands)

    cli_render.add_commands(commands, [configured, spoken])

    show = commands.add_parser("show", parents=[spoken], help="summary table of a run")
    show.add_argument("out", type=place, metavar="OUT", help="output folder of a run")
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
    process.add_argument(
        "inputs", nargs="+", type=place, metavar="INPUT", help="file, folder or URL"
    )
    process.add_argument(
        "-o", "--out", required=True, type=place, help="folder or URL for the results"
    )
    process.add_argument(
        "--threads", type=int, metavar="N", help="CPU threads to use; all cores if not given"
    )
    process.add_argument("--annotate", action="store_true", help="also make annotated videos")
    process.add_argument("--force", action="store_true", help="do again what is done")
    process.set_defaults(run=_process)


def _add_work(commands: cli_models.Commands) -> None:
    work = commands.add_parser(
        "work",
        help="do files of a shard of the run under way: what the Prefect flows start",
        description="Do files of a shard, print the share that is done, log on standard error.",
    )
    work.add_argument("out", type=place, metavar="OUT", help="output folder of the run")
    work.add_argument("run_id", metavar="RUN", help="id of the run")
    work.add_argument("number", type=int, metavar="SHARD", help="number of the shard")
    work.add_argument("generation", type=int, metavar="GENERATION", help="of the claim on it")
    work.add_argument("start", type=int, metavar="START", help="first file of the shard")
    work.add_argument("stop", type=int, metavar="STOP", help="first file that is left out")
    work.add_argument(
        "--patient",
        action="store_true",
        help=f"exit with {os.EX_TEMPFAIL} where a disk or network does not answer",
    )
    work.set_defaults(run=_work, verbose=True)


def _work(parsed: argparse.Namespace) -> int:
    stop = threading.Event()
    with interrupts(stop):
        from fer_batch.distributed.shard_worker import work

        is_done = work(
            parsed.out,
            parsed.run_id,
            parsed.number,
            parsed.generation,
            slice(parsed.start, parsed.stop),
            is_patient=parsed.patient,
            on_progress=lambda progress: print(progress.share, flush=True),
            stop=stop,
        )
    return 0 if is_done else EXIT_INTERRUPTED


def _process(parsed: argparse.Namespace) -> int:
    config = cli_render.configure(parsed)
    stop = threading.Event()
    with interrupts(stop), progress_bar(parsed.quiet) as show:
        from fer_batch.pipeline.process import process

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
            on_progress=on_progress,
            stop=stop,
        )
    for problem in summary.problems:
        print(f"{problem.status}: {problem.media}: {problem.error}", file=sys.stderr)
    if not parsed.quiet:
        _print_summary(summary, parsed.out, config.detector.name)
    if summary.interrupted:
        print("interrupted: what is complete stays; run again to go on", file=sys.stderr)
        return EXIT_INTERRUPTED
    rendered = cli_render.annotate(parsed, config) if parsed.annotate else 0
    return cli_render.EXIT_FILES_FAILED if summary.n_failed else rendered


def _show(parsed: argparse.Namespace) -> int:
    from rich.console import Console
    from rich.table import Table

    from fer_batch.results import timeline

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


def _print_summary(summary: Summary, out: Path, detector: str) -> None:
    from fer_batch.faces.detectors import find_detector

    print(
        f"{summary}\n"
        f"{summary.n_frames:,} frames, {summary.n_faces:,} faces\n"
        f"tables: {out}/media, {out}/frames, {out}/faces"
    )
    if summary.n_frames and not summary.n_faces:
        advice = find_detector(detector).advice
        print(f"no face was found: {advice}" if advice else "no face was found")


def _complain(error: Exception | str, code: int) -> int:
    print(f"fer-batch: {error}", file=sys.stderr)
    return code
