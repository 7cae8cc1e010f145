"""What a run shows on its page in Prefect: its progress, then what `fer-batch report` wrote."""

import base64
import csv
import heapq
import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import copy_context
from pathlib import Path
from threading import Event, Thread

from prefect import get_run_logger
from prefect.artifacts import (
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)

from fer_batch.distributed.shared_run import SharedRun
from fer_batch.report.markdown import code

MAX_FILES = 100
MAX_PICTURES = 12
MAX_PICTURES_BYTES = 1_000_000
"""Size of all pictures of a run together: Prefect's database keeps them."""
PROGRESS_S = 10.0
"""Seconds between two updates of the progress."""
LAST_UPDATE_S = 10.0
"""Seconds that a finished run waits for the last update."""

_LINK = re.compile(r"^(- [\w ,]+: )\[(.*)\]\(.*\)$", re.MULTILINE)
_WORST_FIRST = ("failed", "partial", "ok")


@contextmanager
def showing(run: SharedRun) -> Iterator[None]:
    """Show how far a run is, inside a `with` block. The work does not wait for the server."""
    progress = create_progress_artifact(run.share() * 100, key="progress", description=str(run.out))
    ended = Event()

    def show() -> None:
        is_last = False
        while not is_last:
            is_last = ended.wait(PROGRESS_S)
            try:
                update_progress_artifact(progress, round(run.share() * 100, 1))
            except Exception as error:  # noqa: BLE001 - an absent server must not stop the work
                get_run_logger().warning("the progress cannot be shown: %s", error)

    thread = Thread(target=copy_context().run, args=[show], daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(LAST_UPDATE_S)


def publish(output: Path) -> None:
    """Make the artifacts `summary`, `files` and `timelines` of the flow run that calls this.

    Args:
        output: Output folder of a run that has a report.
    """
    output = output.absolute()
    where = code(str(output), most=200)
    text = (output / "report" / "summary.md").read_text(encoding="utf-8")
    create_markdown_artifact(_summary(text, output), key="summary", description=where)
    rows = heapq.nsmallest(MAX_FILES, _files(output), key=_rank)
    create_table_artifact([_line(row, output) for row in rows], key="files", description=where)
    pictures = list(_pictures(output))
    if pictures:
        create_markdown_artifact("\n\n".join(pictures), key="timelines", description=where)


def _summary(text: str, output: Path) -> str:
    """The report with paths for links, which would lead nowhere, and without its list of files."""
    text = text.partition("\n## Files\n")[0]
    return _LINK.sub(lambda found: found[1] + code(str(output / found[2]), most=200), text)


def _files(output: Path) -> Iterator[dict[str, str]]:
    with (output / "report" / "files.csv").open(encoding="utf-8", newline="") as file:
        yield from csv.DictReader(file)


def _rank(row: dict[str, str]) -> tuple[int, bool]:
    """Sorts problems first, then the files whose contents the report describes."""
    return _WORST_FIRST.index(row["status"]), not row["frames"]


def _line(row: dict[str, str], output: Path) -> dict[str, str]:
    """The row of a file in the table, whose cells are Markdown."""
    share, copy = row["face_share"], row["annotated"]
    return {
        "file": code(row["media"]),
        "status": row["status"],
        "frames": row["n_frames_decoded"],
        "faces": row["n_faces"],
        "with a face": f"{float(share):.0%}" if share else "",
        "tracks": row["tracks"] if row["kind"] == "video" else "",
        "emotion": row["emotion"],
        "problem": code(row["error"], most=200) if row["error"] else "",
        "annotated": code(str(output / copy), most=200) if copy else "",
    }


def _pictures(output: Path) -> Iterator[str]:
    """Timelines of the videos with the most faces, each embedded in Markdown."""
    drawn = (row for row in _files(output) if row["timeline"])
    room = MAX_PICTURES_BYTES
    for row in heapq.nlargest(MAX_PICTURES, drawn, key=lambda row: int(row["n_faces"])):
        png = base64.b64encode((output / row["timeline"]).read_bytes()).decode()
        room -= len(png)
        if room >= 0:
            yield f"![timeline](data:image/png;base64,{png})"
