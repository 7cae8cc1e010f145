"""Prefect flow `render-run`: a finished run in, annotated videos and contact sheets out."""

from collections.abc import Sequence

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.task_runners import ThreadPoolTaskRunner

from fer_batch.config import Style

from .commands import finish, run_command
from .fields import Seconds


@flow(name="render-run", task_runner=ThreadPoolTaskRunner(max_workers=1))
def render_run(  # noqa: PLR0913 - the parameters are the form that people fill in
    output: str,
    *,
    media: Sequence[str] = (),
    style: Style = "full",
    blur: bool = False,
    gif: bool = False,
    overrides: Sequence[str] = (),
    sheet: bool = True,
    force: bool = False,
    timeout_s: Seconds = 86_400,
) -> State[None]:
    """Make annotated videos and contact sheets of a run.

    Files that are up to date are not made again.

    Args:
        output: Output folder of a run.
        media: Names of the files to annotate, as in the tables; empty: all.
        style: What is drawn: everything, boxes and labels only, heatmaps, or beside the source.
        blur: Hide the faces.
        gif: Short loops instead of MP4 files with sound.
        overrides: Settings that replace those of the run, each as section.key=value.
        sheet: Also make contact sheets of the whole run.
        force: Make files again that are up to date.
        timeout_s: Seconds after which each of the two commands is killed; what it finished stays.
    """
    chosen = [f"--media={name}" for name in media]
    settings = [f"--set={override}" for override in overrides] + ["--blur"] * blur
    again = ["--force"] * force
    what = [*chosen, *settings, f"--style={style}", *["--gif"] * gif]
    commands = {"render": ["render", output, *what, *again]}
    if sheet:
        commands["sheet"] = ["sheet", output, *settings, *again]
    futures = [run_command.submit(name, command, timeout_s) for name, command in commands.items()]
    return finish(futures, f"pictures: {output}")
