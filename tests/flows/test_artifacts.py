"""What a run leaves on its page in Prefect."""

from __future__ import annotations

import base64
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from fer_batch_flows import artifacts
from PIL import Image

from fer_batch.config import Config
from fer_batch.report.summary import make_report
from tests.support.results import chunk, finish, row, still, write

HOSTILE = "a|b `c` [d](e).mp4"


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Output folder of a run with a report."""
    out = tmp_path_factory.mktemp("run") / "out"
    write(out, chunk(HOSTILE, [1, 0]), rows=[row(HOSTILE, n_faces=1)])
    write(out, chunk("crowd.mp4", [20, 30]), rows=[row("crowd.mp4", n_faces=50)])
    write(out, still("b.png"))
    broken = {"status": "failed", "n_frames_decoded": 0, "n_faces": 0}
    write(out, rows=[row("z.mp4", error="/data/z.mp4: no header", **broken)])
    (out / "annotated").mkdir()
    (out / "annotated" / "crowd.mp4").touch()
    make_report(finish(out), Config())
    return out


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What would be sent to Prefect, by key."""
    sent: dict[str, Any] = {}

    def create(data: Any, *, key: str, description: str) -> None:
        sent[key] = data

    monkeypatch.setattr(artifacts, "create_markdown_artifact", create)
    monkeypatch.setattr(artifacts, "create_table_artifact", create)
    return sent


def test_the_summary_has_paths_for_links(made: dict[str, Any], output: Path) -> None:
    artifacts.publish(output)
    assert f"- rows of faces: `{output}/faces`" in made["summary"]
    assert "- `z.mp4` failed: `no header`" in made["summary"]
    assert "](" not in made["summary"]
    assert "crowd.mp4" not in made["summary"]


def test_the_table_begins_with_problems(made: dict[str, Any], output: Path) -> None:
    artifacts.publish(output)
    files = {line["file"]: line for line in made["files"]}
    assert list(files) == ["`z.mp4`", r"`a\x7cb \x60c\x60 [d](e).mp4`", "`b.png`", "`crowd.mp4`"]
    assert files["`z.mp4`"]["problem"] == "`no header`"
    crowd = files["`crowd.mp4`"]
    assert (crowd["with a face"], crowd["tracks"]) == ("100%", "30")
    assert crowd["annotated"] == f"`{output}/annotated/crowd.mp4`"


def test_timelines_are_few_pictures_with_most_faces_first(
    made: dict[str, Any], output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifacts.publish(output)
    pictures = [part.split(")")[0] for part in made["timelines"].split("base64,")[1:]]
    crowd, hostile = map(base64.b64decode, pictures)
    timelines = output / "report" / "timelines"
    assert crowd == (timelines / "crowd.mp4.png").read_bytes()
    assert hostile == (timelines / f"{HOSTILE}.png").read_bytes()
    assert Image.open(BytesIO(crowd)).format == "PNG"
    monkeypatch.setattr(artifacts, "MAX_PICTURES_BYTES", len(pictures[0]))
    artifacts.publish(output)
    assert made["timelines"].count("base64") == 1


def test_a_large_table_is_cut(
    made: dict[str, Any], output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(artifacts, "MAX_FILES", 1)
    artifacts.publish(output)
    assert [line["file"] for line in made["files"]] == ["`z.mp4`"]
