"""`fer-batch deploy`: put work pool, deployments and automations on the Prefect server.

Running it again brings up to date what is there.
"""

import subprocess
import sys
import time
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

from prefect.automations import AutomationCore, ChangeFlowRunState, EventTrigger, Posture
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
from prefect.client.schemas.objects import StateType
from prefect.exceptions import ObjectAlreadyExists, PrefectHTTPStatusError
from prefect.settings import PREFECT_API_URL
from prefect.workers.process import ProcessWorker

from fer_batch.errors import FerError
from fer_batch.settings import CONFIGS

POOL = "fer-batch"
RUNS = {
    "match": {"prefect.resource.id": "prefect.flow-run.*"},
    "match_related": {"prefect.resource.role": "work-pool", "prefect.resource.name": POOL},
    "for_each": {"prefect.resource.id"},
}
BEAT = "prefect.flow-run.heartbeat"
ENDED = {f"prefect.flow-run.{name}" for name in ("Completed", "Failed", "Cancelled", "Crashed")}
LOST_RUNS = AutomationCore(
    name="fer-batch: lost runs",
    description="A run whose worker or host died says so, and gives its slots back.",
    trigger=EventTrigger(
        **RUNS,
        after={BEAT, "prefect.flow-run.Pending", "prefect.flow-run.Running"},
        expect={BEAT, *ENDED},
        posture=Posture.Proactive,
        within=timedelta(seconds=180),
    ),
    actions=[
        ChangeFlowRunState(
            state=StateType.CRASHED,
            message="no sign of life for 180 s: its worker or host died, or does not reach the "
            "server. What it finished is kept; run it again to do the rest.",
        )
    ],
)
WAITING_RUNS = AutomationCore(
    name="fer-batch: waiting runs",
    description="A run that no worker takes says so.",
    trigger=EventTrigger(**RUNS, expect={"prefect.flow-run.Late"}, posture=Posture.Reactive),
    actions=[
        ChangeFlowRunState(
            name="NoWorker",
            state=StateType.SCHEDULED,
            message=f"no free worker in pool {POOL}: wait for one, or start one with "
            f"prefect worker start --pool {POOL} --limit 1",
        )
    ],
)


class DeployError(FerError):
    """The server cannot be brought up to date."""


def deploy(slots: int | None, wait_s: float) -> None:
    """Bring pool, deployments and automations up to date on the server of PREFECT_API_URL.

    Args:
        slots: How many runs the pool allows at once; None leaves it as it is, at first no limit.
        wait_s: Seconds to wait for the server.

    Raises:
        DeployError: When no server answers, or when it refuses.
    """
    try:
        _set_up_pool(slots, wait_s)
    except PrefectHTTPStatusError as error:
        raise DeployError(str(error)) from error
    own = Path("prefect.yaml")
    file = own if own.exists() else CONFIGS / "prefect.yaml"
    options = ("--no-prompt", "deploy", "--all", "--prefect-file", str(file))
    command = [sys.executable, "-m", "prefect", *options]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)  # noqa: S603
    if done.returncode:
        raise DeployError(done.stdout)


def _set_up_pool(slots: int | None, wait_s: float) -> None:
    if not PREFECT_API_URL.value():  # Prefect would start a server of its own, and stop it again
        raise DeployError(
            "no Prefect server is named: export PREFECT_API_URL=http://HOST:4200/api, with "
            "127.0.0.1 as HOST for a server on this machine"
        )
    with get_client(sync_client=True) as client:
        deadline = time.monotonic() + wait_s
        while problem := client.api_healthcheck():
            if time.monotonic() > deadline:
                raise DeployError(f"no Prefect server at {client.api_url}: {problem}")
        template = ProcessWorker.get_default_base_job_template()
        pool = WorkPoolCreate(name=POOL, type=ProcessWorker.type, base_job_template=template)
        with suppress(ObjectAlreadyExists):
            client.create_work_pool(pool)
        if slots:
            client.update_work_pool(POOL, WorkPoolUpdate(concurrency_limit=slots))
        for automation in (LOST_RUNS, WAITING_RUNS):
            _bring_up_to_date(client, automation)


def _bring_up_to_date(client: SyncPrefectClient, wanted: AutomationCore) -> None:
    """Leave alone what is as wanted: a change forgets which runs are being watched."""
    found = client.read_automations_by_name(wanted.name)
    if not found:
        client.create_automation(wanted)
    elif any(getattr(found[0], field) != value for field, value in wanted):
        client.update_automation(found[0].id, wanted)
