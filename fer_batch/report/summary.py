"""What a run leaves for people: a summary in Markdown, all files as CSV, timelines of videos."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pandas as pd
from tabulate import tabulate

from fer_batch.config import Config
from fer_batch.emotions import EMOTIONS
from fer_batch.errors import RenderError
from fer_batch.report import timeline_plots
from fer_batch.report.markdown import code
from fer_batch.report.timeline_plots import clock
from fer_batch.results import store, timeline
from fer_batch.results.parquet import writing

MOST_FILES = 100
MOST_PROBLEMS = 30
MOST_TIMELINES = 24

_FILE = ["media", "kind", "status", "error", "duration_s", "n_frames_decoded"]
_FILE += ["n_frames_damaged", "n_frames_missing", "n_faces"]
_SEEN = ["frames", "face_share", "tracks", "emotion", *EMOTIONS]
_MADE = ["timeline", "annotated", "sheet"]
_STATUSES = ("ok", "partial", "failed")
_RESULTS = {
    "all files": "report/files.csv",
    "rows of files": "media",
    "rows of frames": "frames",
    "rows of faces": "faces",
    "annotated copies": "annotated",
    "contact sheets": "sheets",
    "explanations": "explain/summary.md",
    "settings and versions": "run.json",
}
_MORE = "[report/files.csv](files.csv)"
_REASON_SIGNS = 240
"""Of longer ones the middle is left out."""
_NAME_BYTES = 255
"""Longest name of a file on the usual file systems."""


def make_report(
    out: Path,
    config: Config,
    *,
    medias: Collection[str] = (),
    on_progress: Callable[[int, int], None] = lambda n_done, n_videos: None,
) -> Path:
    """Write the folder ``report`` of a run.

    ``summary.md`` says what ran, what became of the files, and where the results are; ``files.csv``
    has a row for every file; ``timelines`` has pictures of videos. Of a run of more than
    `MOST_FILES` files, what was seen is told of so many, videos and many faces first: of no others
    frames and faces are read, and of one video at a time.

    Args:
        out: Output folder of a run.
        config: That of the run; ``render.smooth_s`` steadies the timelines.
        medias: Videos whose timelines are drawn; none: the `MOST_TIMELINES` with most faces.
        on_progress: Called with the number of videos read and of all that shall be.

    Returns:
        The summary.

    Raises:
        RenderError: A name in `medias` is not that of a video of which the run has frames.
        StoreError: ``out`` is not the output folder of a finished run, its tables cannot be read,
            or the folder cannot be written.
    """
    run = store.read_run(out)
    files = store.read(out, "media", columns=[*_FILE, "root", "config_hash"]).to_pandas()
    files = files.sort_values("media", ignore_index=True)
    files["error"] = [_reason(*each) for each in files[["root", "media", "error"]].to_numpy()]
    ranked = files.sort_values(["kind", "n_faces"], ascending=False, kind="stable")
    videos = ranked["media"][(ranked["kind"] == "video") & (ranked["n_frames_decoded"] > 0)]
    unknown = sorted(set(medias) - set(videos))
    if unknown:
        raise RenderError(f"{out} holds no frames of a video {unknown[0]}")
    drawn = set(medias) or set(videos.head(MOST_TIMELINES))
    shown = {*ranked["media"].head(MOST_FILES), *drawn}
    stills = files["media"][(files["kind"] == "image") & files["media"].isin(shown)]
    with writing(out):
        seen = [timeline.summary(out, media=stills.tolist())]
        timelines = {}
        read = [name for name in videos if name in shown]
        for number, name in enumerate(read, 1):
            seen.append(timeline.summary(out, media=name))
            for row in seen[-1].to_dict("records"):
                if name in drawn and row["seconds"] > 0:
                    timelines[name] = _draw(out, row, config.render.smooth_s)
            on_progress(number, len(read))
        for path in (out / "report" / "timelines").rglob("*.png"):
            if path.relative_to(out).as_posix() not in timelines.values():
                path.unlink()
        told = pd.concat(seen)[["media", *_SEEN]]
        files = files.merge(told, "left", on="media").astype({"frames": "Int64", "tracks": "Int64"})
        files = files.assign(timeline=files["media"].map(timelines), **_made(out, files["media"]))
        return _write(out, run, files, files["media"].isin(shown))


def _draw(out: Path, row: Mapping[Any, Any], smooth_s: float) -> str:
    """Draw the timeline of a video, and tell where, relative to the output folder."""
    name = f"{row['media']}.png"
    if max(len(part.encode()) for part in name.split("/")) > _NAME_BYTES:
        name = f"{store.part_id([row['media']])}.png"
    facts = [
        clock(row["seconds"]),
        f"{row['frames']:,} frames",
        f"{row['face_share']:.0%} with a face",
        f"tracks: {row['tracks']:,}",
        timeline.strongest(row),
        "" if row["status"] == "ok" else row["status"],
    ]
    binned = timeline.binned(out, row["media"], most=timeline_plots.BINS, smooth_s=smooth_s)
    path = out / "report" / "timelines" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    timeline_plots.timeline(binned, row["media"], " · ".join(filter(None, facts)), path)
    return f"report/timelines/{name}"


def _made(out: Path, medias: Collection[str]) -> dict[str, list[str | None]]:
    """Where the annotated copy and the sheet of each file are, relative to the output folder."""
    taken = set(medias)
    there = {
        path.relative_to(out).as_posix()
        for folder in ("annotated", "sheets")
        for path in (out / folder).rglob("*")
    }

    def first(paths: Iterable[str]) -> str | None:
        return next((path for path in paths if path in there), None)

    def copies(media: str) -> Iterable[str]:
        others = (media + ending for ending in (".mp4", ".gif", ".png"))
        names = [media, *(name for name in others if name not in taken)]
        return (f"annotated/{name}" for name in names)

    return {
        "annotated": [first(copies(media)) for media in medias],
        "sheet": [first([f"sheets/{media}.png"]) for media in medias],
    }


def _write(out: Path, run: Mapping[str, Any], files: pd.DataFrame, is_shown: pd.Series) -> Path:
    folder = out / "report"
    folder.mkdir(parents=True, exist_ok=True)
    table = files[[*_FILE, *_SEEN, *_MADE]].to_csv(index=False, float_format="%.3f")
    (folder / "files.csv").write_text(table, encoding="utf-8")
    sections = [
        f"# {code(out.resolve().name)}",
        _facts(run, files),
        _problems(files[files["status"] != "ok"]),
        _results(out),
        _table(files[is_shown], len(files)),
        _timelines(files["timeline"].dropna()),
    ]
    path = folder / "summary.md"
    path.write_text("\n\n".join(filter(None, sections)) + "\n", encoding="utf-8")
    return path


def _facts(run: Mapping[str, Any], files: pd.DataFrame) -> str:
    """What ran, and how much of what."""
    counts = files["status"].value_counts()
    statuses = [f"{counts[status]:,} {status}" for status in _STATUSES if status in counts]
    videos = files[files["kind"] == "video"]
    others = int((files["config_hash"] != run["config_hash"]).sum())
    began, ended = (run[key][:19].replace("T", " ") for key in ("began", "ended"))
    facts = {
        "last run": f"{began} to {ended} (UTC), on {run['device']}",
        "model": code(run["weights"]["name"]),
        "detector": code(run["detector"]["name"]),
        "settings": code(run["config_hash"])
        + (f"; {others:,} files were made with others" if others else ""),
        "files": ": ".join([f"{len(files):,}", ", ".join(statuses)]).removesuffix(": "),
        "videos": f"{len(videos):,}, {clock(videos['duration_s'].sum())} in all",
        "still images": f"{len(files) - len(videos):,}",
        "frames decoded": f"{files['n_frames_decoded'].sum():,}, "
        f"{files['n_frames_damaged'].sum():,} of them damaged; "
        f"{files['n_frames_missing'].sum():,} missing",
        "faces": f"{files['n_faces'].sum():,}",
    }
    titles = ["", f"fer_batch {run['fer_batch']}"]
    return tabulate(facts.items(), titles, "pipe", disable_numparse=True)


def _problems(files: pd.DataFrame) -> str:
    """Files that are not ok, and why; those that failed first."""
    if files.empty:
        return ""
    lines = []
    for file in files.sort_values(["status", "media"]).head(MOST_PROBLEMS).to_dict("records"):
        reason = code(file["error"] or "nothing was said", most=_REASON_SIGNS)
        lines.append(f"- {code(file['media'])} {file['status']}: {reason}")
    more = len(files) - len(lines)
    lines += [f"- and {more:,} more: {_MORE}"] if more else []
    return "\n".join(["## Problems\n", *lines])


def _results(out: Path) -> str:
    there = {what: path for what, path in _RESULTS.items() if (out / path).exists()}
    lines = [f"- {what}: {_link(path, path)}" for what, path in there.items()]
    return "\n".join(["## Results\n", *lines])


def _table(files: pd.DataFrame, n_files: int) -> str:
    """What was seen in each file."""
    if files.empty:
        return ""
    rows = [
        [
            code(row["media"]),
            row["status"],
            "" if pd.isna(row["frames"]) else f"{row['frames']:,}",
            "" if pd.isna(row["face_share"]) else f"{row['face_share']:.0%}",
            "" if row["kind"] == "image" or pd.isna(row["tracks"]) else f"{row['tracks']:,}",
            timeline.strongest(row),
            " ".join(_link(what, row[what]) for what in _MADE if not pd.isna(row[what])),
        ]
        for row in files.to_dict("records")
    ]
    titles = ["file", "status", "frames", "with a face", "tracks", "mean probabilities", "see"]
    sides = ["left", "left", "right", "right", "right", "left", "left"]
    table = tabulate(rows, titles, "pipe", colalign=sides, disable_numparse=True)
    more = n_files - len(files)
    note = f"\n\nand {more:,} more: {_MORE}" if more else ""
    return f"## Files\n\n{table}{note}"


def _timelines(paths: pd.Series) -> str:
    pictures = [f"!{_link('timeline', path)}" for path in paths]
    return "\n\n".join(["## Timelines", *pictures]) if pictures else ""


def _reason(root: str, media: str, error: str | float) -> str:
    """What went wrong, without the path of the file; empty where nothing did."""
    return error.removeprefix(f"{Path(root, media)}: ") if isinstance(error, str) else ""


def _link(words: str, path: str) -> str:
    """A link from the summary to what has this path in the output folder."""
    return f"[{words}]({quote(posixpath.relpath(path, 'report'))})"
