"""Prefect flow `evaluate-models`: weights and a labelled data set in, tables and plots out."""

from pathlib import Path
from typing import Annotated, Literal

from prefect import flow
from prefect.client.schemas.objects import State
from pydantic import Field

from .commands import finish, run_command
from .fields import Device, Seconds


@flow(name="evaluate-models")
def evaluate_models(  # noqa: PLR0913 - the parameters are the form that people fill in
    weights: Annotated[list[str], Field(min_length=1)],
    dataset: str,
    data: Path,
    output: Path,
    *,
    split: Literal["train", "valid", "test"] = "test",
    flip: bool = False,
    decimals: Annotated[int, Field(ge=1, le=17)] | None = None,
    device: Device = "auto",
    timeout_s: Seconds = 86_400,
) -> State[None]:
    """Measure classifiers on one split of a data set and compare them in one table.

    Args:
        weights: Names of weights that come with fer_batch, or paths of .safetensors files.
        dataset: Name of the data set.
        data: Folder of the data set, or the file that it was packed into.
        output: Folder for the tables and plots; made where it is missing.
        split: Which pictures of the data set.
        flip: Average each picture with its mirror image.
        decimals: Decimals of the probabilities in scores.csv; empty: all.
        device: auto, cpu, cuda, cuda:N or mps.
        timeout_s: Seconds after which the evaluation is killed.
    """
    what = [*weights, "--dataset", dataset, "--data", str(data), "--split", split]
    what += ["--flip"] * flip + ([f"--decimals={decimals}"] if decimals else [])
    command = ["evaluate", *what, "-o", str(output), "--device", device]
    evaluating = run_command.submit("evaluate", command, timeout_s)
    return finish([evaluating], f"tables: {output}", table=output / "models.md")
