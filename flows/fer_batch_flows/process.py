"""Prefect flow `process-dataset`: folders of videos and images in, tables and annotated videos out.

Each task run is a *shard* of files. Any number of runs on one output folder share its shards.
"""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.futures import PrefectFuture, wait
from prefect.states import Failed

from fer_batch import config as configuration
from fer_batch.config import Config
from fer_batch.distributed import shared_run
from fer_batch.distributed.shared_run import SharedRun
from fer_batch.errors import FerError
from fer_batch.pipeline.plan import make_plan
from fer_batch.storage.urls import path_of

from .artifacts import publish
from .commands import Level, finish, run_command
from .scale import Scale
from .shards import call_workers, do_shards


@flow(name="process-dataset")
def process_dataset(  # noqa: PLR0913 - the parameters are the form that people fill in
    input: str | list[str],
    output: str,
    *,
    annotate: bool = False,
    report: bool = True,
    force: bool = False,
    scale: Scale = Scale(),
    log_level: Level = "info",
    config: Config | Path = Config(),
) -> State[None]:
    """Find the faces and their emotions in every video and picture of a folder.

    Only files that are new, changed, or failed last time are processed. Runs on the same output at
    the same time share the work.

    Args:
        input: A file, folder or URL, or a list of them; folders are searched recursively.
        output: Folder or URL for the results; made where it is missing.
        annotate: Also make annotated videos.
        report: Also make a summary with pictures, and show it here.
        force: Also process the files that are done.
        scale: How the work is cut, and who does it.
        log_level: Lowest level of the library's messages that are logged.
        config: Settings, or the path of a YAML file with settings.
    """
    inputs = input if isinstance(input, list) else [input]
    began = datetime.now(UTC)
    try:
        out = path_of(output)
        settings = config if isinstance(config, Config) else configuration.load(config)
        plan = left = make_plan([path_of(each) for each in inputs], out, settings, force=force)
        reasons: list[str] = []
        while not reasons and (left.todo or SharedRun.current(out)):
            with shared_run.join_run(
                left,
                out,
                force=force,
                max_mb=scale.shard_mb,
                split_mb=scale.split_mb,
                lease_s=scale.lease_s,
            ) as run:
                if left is plan:
                    call_workers(input=inputs, output=output, config=config, scale=scale)
                reasons = do_shards(run, scale, log_level)
                left = left.without(run.media())
        summary = shared_run.summary(plan, out, began)
        drawn = []
        if not summary.interrupted:
            with shared_run.drawing_lock(out):
                drawn = _draw(out, annotate=annotate, report=report, timeout_s=scale.timeout_s)
    except FerError as error:
        return Failed(message=str(error))
    failed = [f"{each.media}: {each.error}" for each in summary.problems if each.status == "failed"]
    if summary.interrupted:
        failed += reasons or ["some files were not done: run it again"]
    return finish(drawn, str(summary), problems=failed)


def _draw(
    output: Path, *, annotate: bool, report: bool, timeout_s: float
) -> list[PrefectFuture[Any]]:
    """Make annotated videos and the report, if asked for, one after the other."""
    commands = ["render"] * annotate + ["report"] * report
    futures = []
    for command in commands:
        futures.append(run_command.submit(command, [command, str(output)], timeout_s))
        wait(futures)
    if report and futures[-1].state.is_completed():
        publish(output)
    return futures
