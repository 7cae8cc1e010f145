"""How far a run is spread: a parameter of the flow, and what Prefect makes of it."""

from typing import Any, Literal

from prefect.task_runners import ProcessPoolTaskRunner, TaskRunner, ThreadPoolTaskRunner
from pydantic import BaseModel, ConfigDict, Field


class Scale(BaseModel):
    """How the work is cut, and who does it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    shard_mb: float = Field(500, gt=0, description="Megabytes of files in one task run.")
    split_mb: float = Field(
        4000, gt=0, description="Megabytes above which a video is done in pieces of this size."
    )
    runner: Literal["threads", "processes", "dask", "ray"] = Field(
        "threads", description="Where task runs go: this process, processes, Dask or Ray."
    )
    slots: int = Field(
        1, ge=1, le=1024, description="Shards that this run does at the same time; one fills a GPU."
    )
    address: str | None = Field(
        None, description="Of a Dask or Ray cluster; a local one is started where it is empty."
    )
    workers: int = Field(
        1, ge=1, le=1024, description="Runs that share the work; the others go to the work pool."
    )
    timeout_s: float = Field(
        86_400, gt=0, description="Seconds after which a process that does a shard is killed."
    )
    lease_s: float = Field(
        60, ge=1, description="Seconds of silence after which a shard goes to another worker."
    )


def runner_for(scale: Scale) -> TaskRunner[Any]:
    """What runs the tasks of a run. Dask and Ray are extras of the package."""
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
