"""Pull step of the deployments: whether a run fits the version that its worker has installed."""

from prefect.client.orchestration import get_client
from prefect.flows import load_flow_from_entrypoint
from prefect.runtime import flow_run
from prefect.states import Failed


def check_parameters() -> None:
    """Fail a run whose parameters are not those of its flow here.

    Raises:
        ValueError: When the run was made for a version with other parameters; its state says so,
            too.
    """
    with get_client(sync_client=True) as client:
        run = client.read_flow_run(flow_run.id)
        entrypoint = client.read_deployment(run.deployment_id).entrypoint
        known = load_flow_from_entrypoint(entrypoint).parameters
        misfits = run.parameters.keys() - known.properties.keys()
        misfits |= set(known.required) - run.parameters.keys()
        if misfits:
            message = (
                f"made for another version of fer_batch, see {', '.join(sorted(misfits))}: install "
                "the same version everywhere, run fer-batch deploy, and submit the run again"
            )
            client.set_flow_run_state(run.id, Failed(message=message))
            raise ValueError(message)
