"""Pull step of the deployments: where the code of a worker is, and whether a run fits it."""

from pathlib import Path

from prefect.client.orchestration import get_client
from prefect.flows import load_flow_from_entrypoint
from prefect.runtime import flow_run
from prefect.states import Failed

ROOT = Path(__file__).parents[1]


def enter() -> dict[str, str]:
    """Make the folder of this code the working directory of the run, whatever the worker's is.

    Raises:
        ValueError: When the run was made from code with other parameters than here; its state
            says so, too.
    """
    with get_client(sync_client=True) as client:
        run = client.read_flow_run(flow_run.id)
        entrypoint = client.read_deployment(run.deployment_id).entrypoint
        known = load_flow_from_entrypoint(f"{ROOT}/{entrypoint}").parameters
        misfits = run.parameters.keys() - known.properties.keys()
        misfits |= set(known.required) - run.parameters.keys()
        if misfits:
            message = (
                f"made for another version of fer_batch, see {', '.join(sorted(misfits))}: install "
                "the same one everywhere, run python -m flows.deploy, and submit the run again"
            )
            client.set_flow_run_state(run.id, Failed(message=message))
            raise ValueError(message)
    return {"directory": str(ROOT)}
