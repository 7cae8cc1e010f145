"""What all flows use: `fer-batch` commands in processes of their own, and how a flow ends.

Such a process can be killed even while it runs native code, and what it finished stays. The output
folder records what is done, never Prefect: a flow that is run again goes on where it stopped.
"""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from prefect import get_run_logger, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.futures import PrefectFuture, wait
from prefect.states import Completed, Failed

from fer_batch.distributed import supervisor

MAX_REASONS = 20
"""Of the reasons why a run failed, its state names this many."""

Level = Literal["debug", "info", "warning", "error"]


@task(name="fer-batch", task_run_name="{name}", cache_policy=NO_CACHE)
def run_command(
    name: str, arguments: list[str], timeout_s: float, log_level: Level = "info"
) -> State[None] | None:
    """Run one `fer-batch` command; when it fails, the task fails with the output of the command.

    The output is logged line by line. The command belongs to the process group of the flow run, so
    that cancelling the run stops it at once; the system kills it when the flow run dies in any
    other way.
    """
    log = forwarding(log_level)
    result = supervisor.run_command(arguments, timeout_s=timeout_s, on_log=log, on_output=log)
    return Failed(message=f"{name}: {result.message}") if result.exit_code else None


def forwarding(level: Level) -> Callable[[str], None]:
    """A function that logs lines of the library in the run, if they are of this level or above."""
    levels = logging.getLevelNamesMapping()
    logger, lowest = get_run_logger(), levels[level.upper()]

    def forward(line: str) -> None:
        number = levels.get(line.partition(" ")[0], logging.INFO)
        if number >= lowest:
            logger.log(number, line)

    return forward


def finish(
    futures: list[PrefectFuture[Any]],
    message: str,
    *,
    problems: Sequence[str] = (),
    table: Path | None = None,
) -> State[None]:
    """Wait for the commands of a flow, and return the state in which the flow ends.

    Args:
        futures: Of `run_command`. When a command failed, so does the flow, with its output.
        message: Message of the state; when the flow fails, the first line of the message.
        problems: Other reasons to fail.
        table: Markdown file that the commands wrote; becomes an artifact of the flow run.
    """
    wait(futures)
    failed = [str(each.state.message) for each in futures if not each.state.is_completed()]
    reasons = [*problems, *failed]
    if reasons:
        more = [f"and {len(reasons) - MAX_REASONS:,} more"] if len(reasons) > MAX_REASONS else []
        return Failed(message="\n".join([message, *reasons[:MAX_REASONS], *more]))
    if table:
        create_markdown_artifact(table.read_text(encoding="utf-8"), key=table.stem)
    return Completed(message=message)
