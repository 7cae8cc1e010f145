"""How the work of a run is shared out: a parameter of the flow, and the task runner for it."""

from typing import Any, Literal

from prefect.task_runners import ProcessPoolTaskRunner, TaskRunner, ThreadPoolTaskRunner
from pydantic import BaseModel, ConfigDict, Field

from fer_batch.errors import ConfigError
from fer_batch.extras import how_to_install


class Scale(BaseModel):
    """How the work is divided, and who does it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    shard_mb: float = Field(500, gt=0, description="Megabytes of files in one task run.")
    split_mb: float = Field(
        4000, gt=0, description="Megabytes above which a video is done in pieces of this size."
    )
    runner: Literal["threads", "processes", "dask", "ray"] = Field(
        "threads",
        description="Where task runs go: threads of this process, other processes, Dask or Ray.",
    )
    slots: int = Field(
        1,
        ge=1,
        le=1024,
        description="Shards that this run does at the same time; one of them keeps a GPU busy.",
    )
    address: str | None = Field(
        None, description="Address of a Dask or Ray cluster; empty: a local cluster is started."
    )
    workers: int = Field(
        1,
        ge=1,
        le=1024,
        description="Runs that share the work: this one, and others that the work pool starts.",
    )
    timeout_s: float = Field(
        86_400, gt=0, description="Seconds after which a process that does a shard is killed."
    )
    lease_s: float = Field(
        60,
        ge=1,
        description="Seconds without a sign of life after which another worker gets the shard.",
    )


def runner_for(scale: Scale) -> TaskRunner[Any]:
    """The task runner of a run.

    Raises:
        ConfigError: The package of the runner is not installed.
    """
    try:
        return _runner_for(scale)
    except ModuleNotFoundError as error:
        hint = how_to_install(error.name)
        raise ConfigError(f"runner {scale.runner}: {error}. To install it: {hint}") from error


def _runner_for(scale: Scale) -> TaskRunner[Any]:
    if scale.runner == "dask":
        from prefect_dask import DaskTaskRunner

        local = {"n_workers": scale.slots, "threads_per_worker": 1}
        return DaskTaskRunner(scale.address, cluster_kwargs=None if scale.address else local)
    if scale.runner == "ray":
        from prefect_ray import RayTaskRunner

        local = {} if scale.address else {"num_cpus": scale.slots}
        return RayTaskRunner(scale.address, init_kwargs=local)
    if scale.runner == "processes":
        return ProcessPoolTaskRunner(max_workers=scale.slots)
    return ThreadPoolTaskRunner(max_workers=scale.slots)
