"""Prefect flow `explain-run`: a finished run in, heatmaps of its faces out."""

from collections.abc import Sequence
from typing import Annotated, Literal

from prefect import flow
from prefect.client.schemas.objects import State
from pydantic import Field

from fer_batch.cli.explain import METHODS
from fer_batch.emotions import EMOTIONS
from fer_batch.storage.urls import path_of

from .commands import finish, run_command
from .fields import Device, Seconds


@flow(name="explain-run")
def explain_run(  # noqa: PLR0913 - the parameters are the form that people fill in
    output: str,
    *,
    media: Sequence[str] = (),
    at: Sequence[float] = (),
    method: Annotated[Sequence[Literal[METHODS]], Field(min_length=1)] = ("gradcam",),
    emotion: Literal[EMOTIONS] | None = None,
    sample: Annotated[int, Field(ge=1)] | None = 1000,
    pictures: Annotated[int, Field(ge=0)] = 24,
    device: Device = "auto",
    timeout_s: Seconds = 86_400,
) -> State[None]:
    """Show what the classifier looked at in the faces of a run, and how far to trust that.

    Args:
        output: Output folder of a run; the explanations go into its folder `explain`.
        media: Names of the files to explain, as in the tables; empty: all.
        at: Only the frames that the videos show at these times in seconds.
        method: One or more methods to explain with.
        emotion: Explain this emotion instead of the strongest one of each face.
        sample: Explain at most this many faces, chosen at random; empty: all.
        pictures: Draw at most this many faces.
        device: auto, cpu, cuda, cuda:N or mps.
        timeout_s: Seconds after which the command is killed.
    """
    command = ["explain", output, f"--pictures={pictures}", f"--device={device}"]
    command += [f"--media={name}" for name in media] + [f"--at={time_s}" for time_s in at]
    command += [f"--method={name}" for name in method]
    command += [f"--emotion={emotion}"] * bool(emotion) + [f"--sample={sample}"] * bool(sample)
    explaining = run_command.submit("explain", command, timeout_s)
    explained = path_of(output) / "explain"
    return finish([explaining], f"explanations: {explained}", table=explained / "summary.md")
