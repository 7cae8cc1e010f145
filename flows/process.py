"""Prefect flow `process-dataset`: folders of videos and images in, tables and annotated videos out.

One task run per *shard* of files. A shard is ``fer-batch process --only`` in a process of its own:
it can be killed whatever native code it is in, and what it finished stays. The output folder says
what is done, never Prefect: running the flow again goes on where it stopped.
"""

import asyncio
import ctypes
import signal
import sys
from asyncio.subprocess import PIPE
from collections import deque
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, cast

from prefect import flow, get_run_logger, task, unmapped
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.futures import wait
from prefect.states import Completed, Failed
from prefect.task_runners import ThreadPoolTaskRunner
from pydantic import Field

from fer_batch import config as configuration
from fer_batch.schema import FerError
from fer_batch.sharding import sharded

PR_SET_PDEATHSIG = 1
REASON_LINES = 20
Positive = Annotated[float, Field(gt=0)]


@task(name="fer-batch", task_run_name="{name}", cache_policy=NO_CACHE)
async def run_command(name: str, arguments: list[str], timeout_s: float) -> State[None] | None:
    """Run one `fer-batch` command; when it fails, the task fails with what it said on stderr.

    The process is in the process group of the flow run, so that cancelling stops it at once, and
    the system kills it when the flow run dies in any other way.
    """
    die_with_flow = partial(ctypes.CDLL(None).prctl, PR_SET_PDEATHSIG, signal.SIGKILL)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "fer_batch", *arguments, stderr=PIPE, preexec_fn=die_with_flow
    )
    said = deque[str](maxlen=REASON_LINES)
    try:
        async with asyncio.timeout(timeout_s):
            async for line in cast(asyncio.StreamReader, process.stderr):
                said.append(line.decode(errors="replace").rstrip())
                get_run_logger().info(said[-1])
            code = await process.wait()
    except TimeoutError:
        return Failed(message=f"{name}: killed after {timeout_s:g} s, as timeout_s says")
    finally:
        if process.returncode is None:
            process.kill()
    if code < 0:
        said.append(f"{name}: stopped by the system: {signal.strsignal(-code)}")
    return Failed(message="\n".join(said)) if code else None


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
            wait(futures)
    except FerError as error:
        return Failed(message=str(error))
    states = [future.state for future in futures]
    failed = [str(state.message) for state in states if not state.is_completed()]
    if failed:
        return Failed(message="\n".join(failed))
    n_done, n_before = len(run.plan.todo), run.plan.n_done
    return Completed(message=f"{n_done} files processed, {n_before} were done before")
