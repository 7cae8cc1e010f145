"""What the flows share: `fer-batch` commands in processes of their own.

Such a process can be killed whatever native code it is in, and what it finished stays. The output
folder says what is done, never Prefect: running a flow again goes on where it stopped.
"""

import asyncio
import ctypes
import signal
import sys
from asyncio.subprocess import PIPE
from collections import deque
from functools import partial
from pathlib import Path
from typing import Annotated, Any, cast

from prefect import get_run_logger, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.futures import PrefectFuture, wait
from prefect.states import Completed, Failed
from pydantic import Field

PR_SET_PDEATHSIG = 1
REASON_LINES = 20
Positive = Annotated[float, Field(gt=0)]


@task(name="fer-batch", task_run_name="{name}", cache_policy=NO_CACHE)
async def run_command(name: str, arguments: list[str], timeout_s: float) -> State[None] | None:
    """Run one `fer-batch` command; when it fails, the task fails with what it said on stderr.

    What it says is logged as it says it.

    The process is in the process group of the flow run, so that cancelling stops it at once, and
    the system kills it when the flow run dies in any other way.
    """
    die_with_flow = partial(ctypes.CDLL(None).prctl, PR_SET_PDEATHSIG, signal.SIGKILL)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "fer_batch", *arguments),
        stdout=PIPE,
        stderr=PIPE,
        preexec_fn=die_with_flow,
    )
    try:
        async with asyncio.timeout(timeout_s):
            _, said = await asyncio.gather(_log(process.stdout), _log(process.stderr))
            code = await process.wait()
    except TimeoutError:
        return Failed(message=f"{name}: killed after {timeout_s:g} s, as timeout_s says")
    finally:
        if process.returncode is None:
            process.kill()
    if code < 0:
        said.append(f"{name}: stopped by the system: {signal.strsignal(-code)}")
    return Failed(message="\n".join(said)) if code else None


async def _log(stream: asyncio.StreamReader | None) -> deque[str]:
    """Log each line that a process says, and give the last ones."""
    last = deque[str](maxlen=REASON_LINES)
    async for line in cast(asyncio.StreamReader, stream):
        last.append(line.decode(errors="replace").rstrip())
        get_run_logger().info(last[-1])
    return last


def finish(
    futures: list[PrefectFuture[Any]], message: str, *, table: Path | None = None
) -> State[None]:
    """Wait for the commands of a flow and give the state that it ends in.

    Args:
        futures: Of `run_command`; when one failed, so does the flow, with what it said.
        message: Of the state when all is well.
        table: Markdown file that the commands wrote, shown as an artifact of the flow run.
    """
    wait(futures)
    failed = [str(each.state.message) for each in futures if not each.state.is_completed()]
    if failed:
        return Failed(message="\n".join(failed))
    if table:
        create_markdown_artifact(table.read_text(encoding="utf-8"), key=table.stem)
    return Completed(message=message)
