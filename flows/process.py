"""Prefect flow `process-dataset`: folders of videos and images in, tables and annotated videos out.

One task run per *shard* of files; a shard is ``fer-batch process --only``.
"""

from collections.abc import Sequence
from pathlib import Path

from prefect import flow, unmapped
from prefect.client.schemas.objects import State
from prefect.futures import wait
from prefect.states import Failed
from prefect.task_runners import ThreadPoolTaskRunner

from fer_batch import config as configuration
from fer_batch.schema import FerError
from fer_batch.sharding import sharded

from .commands import Positive, finish, run_command


@flow(name="process-dataset", task_runner=ThreadPoolTaskRunner(max_workers=1))
def process_dataset(  # noqa: PLR0913 - the parameters are the form that people fill in
    input: Path | list[Path],
    output: Path,
    *,
    config: Path | None = None,
    overrides: Sequence[str] = (),
    annotate: bool = False,
    force: bool = False,
    shard_mb: Positive = 500,
    timeout_s: Positive = 86_400,
) -> State[None]:
    """Find the faces and their emotions in every video and picture of a folder.

    Only files that are new, changed, or failed last time are processed.

    Args:
        input: A file or folder, or a list of them; folders are searched recursively.
        output: Folder for the results; made where it is missing.
        config: YAML file of settings.
        overrides: Settings that replace those of the file, each as section.key=value.
        annotate: Also make annotated videos.
        force: Also process the files that are done.
        shard_mb: Megabytes of files in one task run; a larger file has one of its own.
        timeout_s: Seconds after which a task run is killed; the files it finished stay.
    """
    inputs = input if isinstance(input, list) else [input]
    options = ["--quiet", *["--force"] * force, *(f"--set={override}" for override in overrides)]
    options += ["--config", str(config)] if config else []
    process = ["process", *map(str, inputs), "-o", str(output), *options]
    render = ["render", str(output), *options]
    try:
        settings = configuration.load(config, overrides)
        with sharded(inputs, output, settings, force=force, max_mb=shard_mb) as run:
            futures = list(
                run_command.map(
                    [shard.label for shard in run.shards],
                    [[*process, "--only", str(shard.path)] for shard in run.shards],
                    unmapped(timeout_s),
                )
            )
            wait(futures)
        if annotate:
            futures.append(run_command.submit("render", render, timeout_s))
    except FerError as error:
        return Failed(message=str(error))
    n_done, n_before = len(run.plan.todo), run.plan.n_done
    return finish(futures, f"{n_done} files processed, {n_before} were done before")
