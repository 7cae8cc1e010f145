"""The shards of a run as tasks, done by this run and by other workers of the pool."""

from time import sleep
from typing import Any

from prefect import State, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import TaskRun
from prefect.deployments import run_deployment
from prefect.futures import PrefectFuture, wait
from prefect.runtime import task_run
from prefect.states import Failed
from prefect.tasks import Task
from pydantic_core import to_jsonable_python

from fer_batch.distributed.shared_run import SharedRun
from fer_batch.distributed.supervisor import do_shard
from fer_batch.errors import FerError, UnavailableError
from fer_batch.storage.urls import path_of

from .artifacts import showing
from .commands import Level, forwarding
from .scale import Scale, runner_for

RETRY_DELAYS_S = [10.0, 60.0, 300.0]
POLL_S = 2.0


def _is_transient(_task: Task[..., Any], _run: TaskRun, state: State[Any]) -> bool:
    return isinstance(state.result(raise_on_failure=False), UnavailableError)


@task(
    name="shard",
    task_run_name="shard {number}",
    cache_policy=NO_CACHE,
    retries=len(RETRY_DELAYS_S),
    retry_delay_seconds=RETRY_DELAYS_S,
    retry_condition_fn=_is_transient,
)
def shard(output: str, number: int, timeout_s: float, log_level: Level) -> bool | State[None]:
    """Do one shard, unless another worker has it; return whether it was done here."""
    try:
        return do_shard(
            path_of(output),
            number,
            timeout_s=timeout_s,
            retry_transient=task_run.run_count <= len(RETRY_DELAYS_S),
            on_log=forwarding(log_level),
        )
    except UnavailableError:
        raise
    except FerError as error:
        return Failed(message=str(error))


def do_shards(run: SharedRun, scale: Scale, log_level: Level) -> list[str]:
    """Do the free shards of a run, and wait for those of other workers.

    Returns:
        Why shards failed here, one reason for each.
    """
    under_way: dict[PrefectFuture[Any], int] = {}
    failed: dict[int, str] = {}
    with showing(run), runner_for(scale) as runner:
        while True:
            run.release_silent()
            room = scale.slots - len(under_way)
            taken = {*under_way.values(), *failed}
            for number in run.free_shards(skip=taken)[:room] if room else ():
                parameters = dict(
                    output=str(run.out),
                    number=number,
                    timeout_s=scale.timeout_s,
                    log_level=log_level,
                )
                under_way[runner.submit(shard, parameters)] = number
            if not under_way:
                if not run.has_other_workers(own=failed):
                    return list(failed.values())
                sleep(POLL_S)
            done, _ = wait(list(under_way), timeout=POLL_S)
            for future in done:
                number = under_way.pop(future)
                future.wait()  # else Prefect asks the server, which may not know its state yet
                if not future.state.is_completed():
                    failed[number] = str(future.state.message)


def call_workers(scale: Scale, **parameters: object) -> None:
    """Submit the other runs that `scale.workers` asks for, for the workers of the pool."""
    alone = scale.model_copy(update={"workers": 1})
    values = to_jsonable_python({**parameters, "scale": alone, "report": False})
    for _ in range(scale.workers - 1):
        run_deployment("process-dataset/on-demand", parameters=values, timeout=0)
