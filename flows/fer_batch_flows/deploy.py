"""`python -m flows.deploy`: put work pool, deployments and automations on the Prefect server.

Run it again after an upgrade or a change of prefect.yaml: what is there is brought up to date.
"""

import argparse
import os
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
from prefect.workers.process import ProcessWorker

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


class DeployError(Exception):
    """The server cannot be brought up to date."""


def deploy(slots: int | None, wait_s: float) -> None:
    """Bring pool, deployments and automations up to date.

    Args:
        slots: How many runs the pool allows at once; None leaves it as it is, at first no limit.
        wait_s: Seconds to wait for the server.

    Raises:
        DeployError: When no server answers, or it refuses.
    """
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
    command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)  # noqa: S603
    if done.returncode:
        raise DeployError(done.stdout)


def _bring_up_to_date(client: SyncPrefectClient, wanted: AutomationCore) -> None:
    """Leave alone what is as wanted: a change forgets which runs are being watched."""
    found = client.read_automations_by_name(wanted.name)
    if not found:
        client.create_automation(wanted)
    elif any(getattr(found[0], field) != value for field, value in wanted):
        client.update_automation(found[0].id, wanted)


def main() -> None:
    """Deploy to the server of PREFECT_API_URL; exit code 1 when that fails."""
    parser = argparse.ArgumentParser(prog="python -m flows.deploy", description=__doc__)
    parser.add_argument("--slots", type=int, help="runs that the pool allows at once (as it is)")
    parser.add_argument("--wait", type=float, default=0, help="seconds to wait for the server (0)")
    parsed = parser.parse_args()
    os.chdir(Path(__file__).parents[1])  # with prefect.yaml
    try:
        deploy(parsed.slots, parsed.wait)
    except (DeployError, PrefectHTTPStatusError) as error:
        sys.exit(f"fer-batch: {error}")


if __name__ == "__main__":
    main()
