"""What the flows share: `fer-batch` commands in processes of their own, and how a flow ends.

Such a process can be killed whatever native code it is in, and what it finished stays. The output
folder says what is done, never Prefect: running a flow again goes on where it stopped.
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

NAMED = 20
"""Reasons to fail that the state of a run names."""

Level = Literal["debug", "info", "warning", "error"]


@task(name="fer-batch", task_run_name="{name}", cache_policy=NO_CACHE)
def run_command(
    name: str, arguments: list[str], timeout_s: float, log_level: Level = "info"
) -> State[None] | None:
    """Run one `fer-batch` command; when it fails, the task fails with what it said.

    What it says is logged as it says it. It is in the process group of the flow run, so that
    cancelling stops it at once, and the system kills it when the flow run dies in any other way.
    """
    log = forwarding(log_level)
    ended = supervisor.run_command(arguments, timeout_s=timeout_s, on_log=log, on_output=log)
    return Failed(message=f"{name}: {ended.said}") if ended.code else None


def forwarding(level: Level) -> Callable[[str], None]:
    """Takes lines that the library logs and logs them in the run, from a level on."""
    levels = logging.getLevelNamesMapping()
    logger, least = get_run_logger(), levels[level.upper()]

    def forward(line: str) -> None:
        number = levels.get(line.partition(" ")[0], logging.INFO)
        if number >= least:
            logger.log(number, line)

    return forward


def finish(
    futures: list[PrefectFuture[Any]],
    message: str,
    *,
    problems: Sequence[str] = (),
    table: Path | None = None,
) -> State[None]:
    """Wait for the commands of a flow and give the state that it ends in.

    Args:
        futures: Of `run_command`; when one failed, so does the flow, with what it said.
        message: Of the state when all is well, and the first line of it when not.
        problems: Other reasons to fail.
        table: Markdown file that the commands wrote, shown as an artifact of the flow run.
    """
    wait(futures)
    failed = [str(each.state.message) for each in futures if not each.state.is_completed()]
    reasons = [*problems, *failed]
    if reasons:
        more = [f"and {len(reasons) - NAMED:,} more"] if len(reasons) > NAMED else []
        return Failed(message="\n".join([message, *reasons[:NAMED], *more]))
    if table:
        create_markdown_artifact(table.read_text(encoding="utf-8"), key=table.stem)
    return Completed(message=message)
