"""Prefect flows `train-model` and `sweep-model`.

A data set in; weights with their card, or the table of a sweep, out.
"""

from collections.abc import Sequence
from pathlib import Path

from prefect import flow
from prefect.client.schemas.objects import State

from .commands import finish, run_command
from .fields import Device, Seconds


@flow(name="train-model")
def train_model(
    config: Path,
    data: Path,
    output: Path,
    *,
    overrides: Sequence[str] = (),
    device: Device = "auto",
    timeout_s: Seconds = 86_400,
) -> State[None]:
    """Train one classifier; running it again goes on from the last checkpoint.

    Args:
        config: YAML file of the recipe, or the name of a recipe that comes with fer_batch.
        data: Folder of the data set, or the file that it was packed into.
        output: Folder for the weights; made where it is missing.
        overrides: Settings that replace those of the recipe, each as key=value.
        device: auto, cpu, cuda, cuda:N or mps.
        timeout_s: Seconds after which the training is killed; its last checkpoint stays.
    """
    where = ["--config", str(config), "--data", str(data), "-o", str(output), "--device", device]
    settings = [f"--set={override}" for override in overrides]
    training = run_command.submit("train", ["train", *where, *settings], timeout_s)
    return finish([training], f"weights: {output}")


@flow(name="sweep-model")
def sweep_model(
    config: Path,
    data: Path,
    output: Path,
    *,
    device: Device = "auto",
    timeout_s: Seconds = 604_800,
) -> State[None]:
    """Try the values of a sweep; runs on the same output at the same time share the trials.

    Args:
        config: YAML file of the sweep, or the name of a sweep that comes with fer_batch.
        data: Folder of the data set, or the file that it was packed into.
        output: Folder for the table and the trials; made where it is missing.
        device: auto, cpu, cuda, cuda:N or mps.
        timeout_s: Seconds after which the sweep is killed; running it again goes on.
    """
    where = ["--config", str(config), "--data", str(data), "-o", str(output), "--device", device]
    sweeping = run_command.submit("sweep", ["sweep", *where], timeout_s)
    return finish([sweeping], f"table: {output / 'sweep.csv'}", table=output / "sweep.md")
