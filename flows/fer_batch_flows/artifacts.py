"""What a run shows on its page in Prefect: progress, then what `fer-batch report` wrote."""

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

MOST_FILES = 100
MOST_PICTURES = 12
PROGRESS_S, LAST_S = 10.0, 10.0
"""How often progress is shown, and how long a run that is done waits for it."""
PICTURES_BYTES = 1_000_000
"""Of all of them together: Prefect's database keeps them."""

_LINK = re.compile(r"^(- [\w ,]+: )\[(.*)\]\(.*\)$", re.MULTILINE)
_WORST_FIRST = ("failed", "partial", "ok")


@contextmanager
def showing(run: SharedRun) -> Iterator[None]:
    """Show how far a run is. The work does not wait for a server that does not answer."""
    progress = create_progress_artifact(run.share * 100, key="progress", description=str(run.out))
    ended = Event()

    def show() -> None:
        is_last = False
        while not is_last:
            is_last = ended.wait(PROGRESS_S)
            try:
                update_progress_artifact(progress, round(run.share * 100, 1))
            except Exception as error:  # noqa: BLE001 - a server that is away must not stop the work
                get_run_logger().warning("the progress cannot be shown: %s", error)

    thread = Thread(target=copy_context().run, args=[show], daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(LAST_S)


def publish(output: Path) -> None:
    """Make artifacts of the flow run that calls it: `summary`, `files` and `timelines`.

    Args:
        output: Output folder of a run, with its report.
    """
    output = output.absolute()
    where = code(str(output), most=200)
    text = (output / "report" / "summary.md").read_text(encoding="utf-8")
    create_markdown_artifact(_summary(text, output), key="summary", description=where)
    rows = heapq.nsmallest(MOST_FILES, _files(output), key=_rank)
    create_table_artifact([_line(row, output) for row in rows], key="files", description=where)
    pictures = list(_pictures(output))
    if pictures:
        create_markdown_artifact("\n\n".join(pictures), key="timelines", description=where)


def _summary(text: str, output: Path) -> str:
    """The report without the files, which have an artifact, and with paths: links lead nowhere."""
    text = text.partition("\n## Files\n")[0]
    return _LINK.sub(lambda found: found[1] + code(str(output / found[2]), most=200), text)


def _files(output: Path) -> Iterator[dict[str, str]]:
    with (output / "report" / "files.csv").open(encoding="utf-8", newline="") as file:
        yield from csv.DictReader(file)


def _rank(row: dict[str, str]) -> tuple[int, bool]:
    """Problems come first, then files of which the report tells what was seen."""
    return _WORST_FIRST.index(row["status"]), not row["frames"]


def _line(row: dict[str, str], output: Path) -> dict[str, str]:
    """What a file says in the table, whose cells are Markdown."""
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
    """The timelines of the videos with most faces, as pictures that are part of the text."""
    drawn = (row for row in _files(output) if row["timeline"])
    room = PICTURES_BYTES
    for row in heapq.nlargest(MOST_PICTURES, drawn, key=lambda row: int(row["n_faces"])):
        png = base64.b64encode((output / row["timeline"]).read_bytes()).decode()
        room -= len(png)
        if room >= 0:
            yield f"![timeline](data:image/png;base64,{png})"
