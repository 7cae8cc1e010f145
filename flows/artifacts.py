"""What a run leaves on its page in Prefect, made from what `fer-batch report` wrote."""

import base64
import csv
import heapq
import re
from collections.abc import Iterator
from pathlib import Path

from prefect.artifacts import (
    create_image_artifact,
    create_markdown_artifact,
    create_table_artifact,
)

MOST_FILES = 100
MOST_PICTURES = 8
PICTURES_BYTES = 1_000_000
"""Of all pictures together: they are kept in Prefect's database."""

_LINK = re.compile(r"^(- [\w ,]+: )\[(.*)\]\(.*\)$", re.MULTILINE)


def publish(output: Path) -> None:
    """Make artifacts of the flow run that calls it: `summary`, `files`, `timeline-1` and so on.

    Args:
        output: Output folder of a run, with its report.
    """
    output = output.absolute()
    text = (output / "report" / "summary.md").read_text(encoding="utf-8")
    create_markdown_artifact(_summary(text, output), key="summary")
    rows = heapq.nsmallest(MOST_FILES, _files(output), key=_rank)
    create_table_artifact([_line(row, output) for row in rows], key="files")
    drawn = (row for row in _files(output) if row["timeline"])
    room = PICTURES_BYTES
    largest = heapq.nlargest(MOST_PICTURES, drawn, key=lambda row: int(row["n_faces"]))
    for number, row in enumerate(largest, 1):
        png = base64.b64encode((output / row["timeline"]).read_bytes()).decode()
        room -= len(png)
        if room >= 0:
            create_image_artifact(f"data:image/png;base64,{png}", key=f"timeline-{number}")


def _summary(text: str, output: Path) -> str:
    """The report without the files, which have an artifact, and with paths: links lead nowhere."""
    text = text.partition("\n## Files\n")[0]
    return _LINK.sub(lambda found: f"{found[1]}`{output / found[2]}`", text)


def _files(output: Path) -> Iterator[dict[str, str]]:
    with (output / "report" / "files.csv").open(encoding="utf-8", newline="") as file:
        yield from csv.DictReader(file)


def _rank(row: dict[str, str]) -> tuple[bool, bool]:
    """Problems come first, then files of which the report tells what was seen."""
    return row["status"] == "ok", not row["frames"]


def _line(row: dict[str, str], output: Path) -> dict[str, str]:
    """What a file says in the table."""
    share = row["face_share"]
    return {
        "file": row["media"],
        "status": row["status"],
        "frames": row["n_frames_decoded"],
        "faces": row["n_faces"],
        "with a face": f"{float(share):.0%}" if share else "",
        "tracks": row["tracks"],
        "emotion": row["emotion"],
        "problem": row["error"],
        "annotated": str(output / row["annotated"]) if row["annotated"] else "",
    }
