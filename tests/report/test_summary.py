"""The report of a run: what it says, what it draws, and what it reads to know it."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from PIL import Image

from fer_batch.config import Config
from fer_batch.errors import RenderError, StoreError
from fer_batch.render.outputs import Progress
from fer_batch.report import summary as report
from fer_batch.report.summary import make_report
from fer_batch.results import store
from tests.support.command import run as command
from tests.support.results import chunk, finish, row, still, write

HOSTILE = "会議/a|b `c` <b>*d*_[e](f)\n# g.mp4"
LONG = "n" * 250 + ".mp4"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Output folder of a run over videos and images, with what other commands made, reported."""
    out = tmp_path_factory.mktemp("run") / "out"
    write(out, chunk("a/one.mp4", [1, 0, 1, 1]))
    write(out, chunk("crowd.mp4", [20, 30, 40]), rows=[row("crowd.mp4", n_faces=90)])
    write(out, chunk("none.mp4", [0, 0, 0]), rows=[row("none.mp4", n_faces=0)])
    write(out, chunk("frame.mp4", [1, 1], pts_s=[1, 1]))
    write(out, chunk(HOSTILE, [1, 1]))
    write(out, still("b.png"), still("c.jpg", 0), rows=[row("b.png"), row("c.jpg", n_faces=0)])
    lost = {"status": "partial", "n_frames_missing": 5, "error": "it ends early"}
    write(out, chunk("cut.mp4", [1, 1]), rows=[row("cut.mp4", **lost)])
    broken = {"status": "failed", "n_frames_decoded": 0, "n_faces": 0, "config_hash": "other"}
    write(out, rows=[row("bad.mp4", error="/data/bad.mp4: no | header\nat all", **broken)])
    for made in ("a/one.mp4", "b.png", "cut.mp4.gif"):
        touch(out / "annotated" / made)
    touch(out / "sheets" / "a" / "one.mp4.png")
    touch(out / "explain" / "summary.md")
    make_report(finish(out), Config())
    return out


def touch(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def summary(out: Path) -> str:
    return (out / "report" / "summary.md").read_text(encoding="utf-8")


def table(out: Path) -> dict[str, dict[str, str]]:
    """The rows of files.csv by name."""
    with (out / "report" / "files.csv").open(encoding="utf-8", newline="") as file:
        return {line["media"]: line for line in csv.DictReader(file)}


def cells(line: str) -> list[str]:
    """Of a row of a Markdown table."""
    return [cell.strip() for cell in line.strip("|").split("|")]


def files_table(text: str) -> dict[str, list[str]]:
    lines = text.split("## Files\n\n")[1].split("\n\n")[0].splitlines()
    return {cells(line)[0].strip("`"): cells(line)[1:] for line in lines[2:]}


def timelines(out: Path) -> set[str]:
    folder = out / "report" / "timelines"
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*.png")}


def test_the_summary_says_what_ran_and_what_became_of_it(run: Path) -> None:
    text = summary(run)
    assert "fer_batch 1.2.3" in text.splitlines()[2]
    assert dict(cells(line) for line in text.splitlines()[4:13]) == {
        "last run": "2026-01-02 03:04:05 to 2026-01-02 04:05:06 (UTC), on cpu",
        "model": "`hand-made`",
        "detector": "`yunet`",
        "settings": "`c0ffee`; 1 files were made with others",
        "files": "9: 7 ok, 1 partial, 1 failed",
        "videos": "7, 0:00.7 in all",
        "still images": "2",
        "frames decoded": "24, 0 of them damaged; 5 missing",
        "faces": "105",
    }
    problems = text.split("## Problems\n\n")[1].split("\n\n")[0].splitlines()
    assert problems == [
        r"- `bad.mp4` failed: `no \x7c header\x0aat all`",
        "- `cut.mp4` partial: `it ends early`",
    ]


def test_the_table_tells_what_was_seen(run: Path) -> None:
    rows = files_table(summary(run))
    assert [*rows][:3] == ["a/one.mp4", "b.png", "bad.mp4"]
    assert len(rows) == 9
    assert rows["a/one.mp4"][:4] == ["ok", "4", "75%", "1"]
    assert rows["crowd.mp4"][:4] == ["ok", "3", "100%", "40"]
    assert rows["b.png"][:4] == ["ok", "1", "100%", ""]
    assert rows["none.mp4"] == ["ok", "3", "0%", "0", "", "[timeline](timelines/none.mp4.png)"]
    assert rows["bad.mp4"] == ["failed", "", "", "", "", ""]
    assert rows["cut.mp4"][0] == "partial"
    assert rows["a/one.mp4"][4].startswith(table(run)["a/one.mp4"]["emotion"])


def test_hostile_names_stay_text(run: Path) -> None:
    text = summary(run)
    name = r"会議/a\x7cb \x60c\x60 <b>*d*_[e](f)\x0a# g.mp4"
    assert name in files_table(text)
    assert not any(line.startswith("# g") for line in text.splitlines())
    assert text.count("<b>") == text.count(f"`{name}`") == 1
    assert table(run)[HOSTILE]["timeline"] == f"report/timelines/{HOSTILE}.png"


def test_every_link_leads_somewhere(run: Path) -> None:
    links = [
        part.split(")")[0] for part in summary(run).split("](")[1:] if not part.startswith("f)")
    ]
    assert all((run / "report" / unquote(link)).exists() for link in links)
    assert set(links) >= {
        *("files.csv", "../media", "../annotated", "../explain/summary.md", "../run.json"),
        *("timelines/a/one.mp4.png", "../annotated/a/one.mp4", "../sheets/a/one.mp4.png"),
        *("../annotated/b.png", "../annotated/cut.mp4.gif"),
    }


def test_a_copy_of_another_file_is_not_taken_for_its_own(tmp_path: Path) -> None:
    out = tmp_path / "out"
    for name in ("a.mov", "a.mov.mp4"):
        write(out, chunk(name, [1, 1]), rows=[row(name, kind="video")])
    (out / "annotated").mkdir()
    (out / "annotated" / "a.mov.mp4").touch()
    make_report(finish(out), Config())
    assert table(out)["a.mov"]["annotated"] == ""
    assert table(out)["a.mov.mp4"]["annotated"] == "annotated/a.mov.mp4"


def test_videos_that_last_have_timelines(run: Path) -> None:
    drawn = {"a/one.mp4", "crowd.mp4", "none.mp4", "cut.mp4", HOSTILE}
    assert timelines(run) == {f"{name}.png" for name in drawn}
    for path in (run / "report" / "timelines").rglob("*.png"):
        with Image.open(path) as picture:
            assert picture.width == 1210


def test_chosen_timelines_replace_those_of_before(tmp_path: Path) -> None:
    for name in ("a.mp4", "b/c.mp4"):
        write(tmp_path, chunk(name, [1, 1]))
    make_report(finish(tmp_path), Config())
    assert timelines(tmp_path) == {"a.mp4.png", "b/c.mp4.png"}
    make_report(tmp_path, Config(), media="a.mp4")
    assert timelines(tmp_path) == {"a.mp4.png"}
    with pytest.raises(RenderError, match=r"holds no frames of a video z\.png"):
        make_report(tmp_path, Config(), media=["a.mp4", "z.png"])


def test_a_name_too_long_for_one_more_ending(tmp_path: Path) -> None:
    write(tmp_path, chunk(LONG, [1, 1]))
    text = make_report(finish(tmp_path), Config()).read_text(encoding="utf-8")
    assert timelines(tmp_path) == {f"{store.part_id([LONG])}.png"}
    [name] = files_table(text)
    assert len(name) == 81


@pytest.mark.parametrize("kind", ["empty", "images", "failed"])
def test_runs_without_videos(tmp_path: Path, kind: str) -> None:
    if kind == "images":
        write(tmp_path, still("a.png"), still("b.png", 3))
    if kind == "failed":
        write(tmp_path, rows=[row("a.mp4", status="failed", error="gone", n_frames_decoded=0)])
    text = make_report(finish(tmp_path), Config()).read_text(encoding="utf-8")
    assert len(table(tmp_path)) == {"empty": 0, "images": 2, "failed": 1}[kind]
    assert ("## Files" in text, "## Problems" in text) == (kind != "empty", kind == "failed")
    assert "## Timelines" not in text


def test_of_a_large_run_little_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "MOST_FILES", 3)
    monkeypatch.setattr(report, "MOST_TIMELINES", 2)
    monkeypatch.setattr(report, "MOST_PROBLEMS", 2)
    for number in range(6):
        name = f"{number}.mp4"
        write(tmp_path, chunk(name, [1, 1]), rows=[row(name, n_faces=number)])
        bad = row(f"bad {number}.mp4", status="failed", error="no", n_frames_decoded=0, n_faces=0)
        write(tmp_path, rows=[bad])
    write(tmp_path, still("z.png", 9), rows=[row("z.png", n_faces=9)])
    asked: list[Any] = []
    progress: list[Progress] = []
    read = store.read

    def spy(out: Path, name: Any, **options: Any) -> Any:
        asked.append((name, options.get("media")))
        return read(out, name, **options)

    monkeypatch.setattr(store, "read", spy)
    make_report(finish(tmp_path), Config(), on_progress=progress.append)
    text = summary(tmp_path)
    assert all(names is not None for name, names in asked if name != "media")
    assert {media for name, names in asked if name == "faces" for media in names} == {
        *("3.mp4", "4.mp4", "5.mp4")
    }
    assert list(files_table(text)) == ["3.mp4", "4.mp4", "5.mp4"]
    assert "and 10 more: [report/files.csv](files.csv)" in text
    assert "and 4 more: [report/files.csv](files.csv)" in text
    assert timelines(tmp_path) == {"4.mp4.png", "5.mp4.png"}
    assert len(table(tmp_path)) == 13
    assert [each.n_files_done for each in progress] == [1, 2, 3]
    assert progress[-1] == Progress(n_files_done=3, n_files=3, n_frames=6, share=1.0)
    assert table(tmp_path)["0.mp4"]["frames"] == ""


@pytest.mark.parametrize("what", ["nothing", "no run.json"])
def test_a_folder_without_a_finished_run(tmp_path: Path, what: str) -> None:
    if what == "no run.json":
        write(tmp_path, chunk("a.mp4", [1, 1]))
    with pytest.raises(StoreError, match="not the output folder of a finished run"):
        make_report(tmp_path, Config())


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, chunk("a.mp4", [1, 1]))
    finish(tmp_path)
    assert command("report", tmp_path, "--media", "a.mp4", "--set", "render.smooth_s=0") == 0
    assert capsys.readouterr().out == f"report: {tmp_path}/report/summary.md\n"
    assert timelines(tmp_path) == {"a.mp4.png"}
    assert command("report", tmp_path, "-q", "--media", "absent.mp4") == 2
    assert "absent.mp4" in capsys.readouterr().err
