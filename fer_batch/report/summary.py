"""The report of a run: a summary in Markdown, all files as CSV, timelines of videos."""

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
from fer_batch.render.outputs import Progress, names_of
from fer_batch.report import timeline_plots
from fer_batch.report.markdown import code
from fer_batch.report.timeline_plots import time_text
from fer_batch.report.usability import count_unusable, describe
from fer_batch.results import store, timeline
from fer_batch.results.parquet import writing

MOST_FILES = 100
MOST_PROBLEMS = 30
MOST_TIMELINES = 24

_FILE_COLUMNS = ["media", "kind", "status", "error", "duration_s", "n_frames_decoded"]
_FILE_COLUMNS += ["n_frames_damaged", "n_frames_missing", "n_faces"]
_CONTENT_COLUMNS = ["frames", "face_share", "tracks", "emotion", *EMOTIONS]
_PRODUCT_COLUMNS = ["timeline", "annotated", "sheet"]
_STATUSES = ("ok", "partial", "failed")
_RESULT_PATHS = {
    "all files": "report/files.csv",
    "rows of files": "media",
    "rows of frames": "frames",
    "rows of faces": "faces",
    "annotated copies": "annotated",
    "contact sheets": "sheets",
    "explanations": "explain/summary.md",
    "settings and versions": "run.json",
}
_ALL_FILES = "[report/files.csv](files.csv)"
_REASON_LENGTH = 240
"""Characters of a reason; a longer one loses its middle."""
_NAME_BYTES = 255
"""Longest name of a file on the usual file systems."""


def make_report(
    out: Path,
    config: Config,
    *,
    media: str | Collection[str] | None = None,
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> Path:
    """Write the folder ``report`` of a run.

    ``summary.md`` says what ran, what became of the files, and where the results are; ``files.csv``
    has a row for every file; ``timelines`` has pictures of videos. What the faces show is read for
    `MOST_FILES` files at most, videos first, then by number of faces. The tables of one video are
    in memory at a time.

    Args:
        out: Output folder of a run.
        config: Configuration of the run; the timelines are smoothed over ``render.smooth_s``.
        media: Names of videos whose timelines are drawn; None draws the `MOST_TIMELINES` with most
            faces.
        on_progress: Called from this thread whenever a video is done.

    Returns:
        The summary.

    Raises:
        RenderError: A name is not that of a video of which the run has frames.
        StoreError: ``out`` is not the output folder of a finished run, its tables cannot be read,
            or the folder cannot be written.
    """
    run = store.read_run(out)
    files = store.read(out, "media", columns=[*_FILE_COLUMNS, "root", "config_hash"]).to_pandas()
    files = files.sort_values("media", ignore_index=True)
    files["error"] = [_reason(*each) for each in files[["root", "media", "error"]].to_numpy()]
    ranked = files.sort_values(["kind", "n_faces"], ascending=False, kind="stable")
    videos = ranked["media"][(ranked["kind"] == "video") & (ranked["n_frames_decoded"] > 0)]
    chosen = names_of(out, media, videos.tolist(), what="frames of a video")
    with_timeline = set(videos.head(MOST_TIMELINES)) if chosen is None else chosen
    listed = {*ranked["media"].head(MOST_FILES), *with_timeline}
    images = files["media"][(files["kind"] == "image") & files["media"].isin(listed)]
    with writing(out):
        summaries = [timeline.summary(out, media=images.tolist())]
        unusable = count_unusable(out, config.quality, media=images.tolist())
        timelines, n_frames = {}, 0
        read = [name for name in videos if name in listed]
        for number, name in enumerate(read, 1):
            summaries.append(timeline.summary(out, media=name))
            unusable += count_unusable(out, config.quality, media=[name])
            for row in summaries[-1].to_dict("records"):
                n_frames += row["frames"]
                if name in with_timeline and row["seconds"] > 0:
                    timelines[name] = _draw(out, row, config.render.smooth_s)
            on_progress(Progress(number, len(read), n_frames, share=number / len(read)))
        _remove_others(out, timelines.values())
        content = pd.concat(summaries)[["media", *_CONTENT_COLUMNS]]
        files = files.merge(content, "left", on="media")
        files = files.astype({"frames": "Int64", "tracks": "Int64"})
        products = _products(out, files["media"])
        files = files.assign(timeline=files["media"].map(timelines), **products)
        return _write(out, run, files, files["media"].isin(listed), describe(unusable))


def _remove_others(out: Path, timelines: Collection[str]) -> None:
    """Remove the timelines of an earlier report."""
    for path in (out / "report" / "timelines").rglob("*.png"):
        if path.relative_to(out).as_posix() not in timelines:
            path.unlink()


def _draw(out: Path, row: Mapping[Any, Any], smooth_s: float) -> str:
    """Draw the timeline of a video; returns its path relative to the output folder."""
    name = f"{row['media']}.png"
    if max(len(part.encode()) for part in name.split("/")) > _NAME_BYTES:
        name = f"{store.part_id([row['media']])}.png"
    facts = [
        time_text(row["seconds"]),
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


def _products(out: Path, names: Collection[str]) -> dict[str, list[str | None]]:
    """Paths of the annotated copy and of the sheet of each file, relative to the output folder."""
    taken = set(names)
    there = {
        path.relative_to(out).as_posix()
        for folder in ("annotated", "sheets")
        for path in (out / folder).rglob("*")
    }

    def first(paths: Iterable[str]) -> str | None:
        return next((path for path in paths if path in there), None)

    def copies(name: str) -> list[str]:
        others = (name + ending for ending in (".mp4", ".gif", ".png"))
        return [
            f"annotated/{copy}" for copy in (name, *others) if copy == name or copy not in taken
        ]

    return {
        "annotated": [first(copies(name)) for name in names],
        "sheet": [first([f"sheets/{name}.png"]) for name in names],
    }


def _write(
    out: Path,
    run: Mapping[str, Any],
    files: pd.DataFrame,
    is_listed: pd.Series,
    unusable: str,
) -> Path:
    folder = out / "report"
    folder.mkdir(parents=True, exist_ok=True)
    table = files[[*_FILE_COLUMNS, *_CONTENT_COLUMNS, *_PRODUCT_COLUMNS]].to_csv(
        index=False, float_format="%.3f"
    )
    (folder / "files.csv").write_text(table, encoding="utf-8")
    sections = [
        f"# {code(out.resolve().name)}",
        _facts(run, files, unusable),
        _problems(files[files["status"] != "ok"]),
        _results(out),
        _table(files[is_listed], len(files)),
        _timelines(files["timeline"].dropna()),
    ]
    path = folder / "summary.md"
    path.write_text("\n\n".join(filter(None, sections)) + "\n", encoding="utf-8")
    return path


def _facts(run: Mapping[str, Any], files: pd.DataFrame, unusable: str) -> str:
    """A table of what ran, and of how many files, frames and faces there are."""
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
        "videos": f"{len(videos):,}, {time_text(videos['duration_s'].sum())} in all",
        "still images": f"{len(files) - len(videos):,}",
        "frames decoded": f"{files['n_frames_decoded'].sum():,}, "
        f"{files['n_frames_damaged'].sum():,} of them damaged; "
        f"{files['n_frames_missing'].sum():,} missing",
        "faces": f"{files['n_faces'].sum():,}",
        "not good enough to classify": unusable or "unknown",
    }
    titles = ["", f"fer_batch {run['fer_batch']}"]
    return tabulate(facts.items(), titles, "pipe", disable_numparse=True)


def _problems(files: pd.DataFrame) -> str:
    """A list of the files that are not ok, with the reasons; those that failed come first."""
    if files.empty:
        return ""
    lines = []
    for file in files.sort_values(["status", "media"]).head(MOST_PROBLEMS).to_dict("records"):
        reason = code(file["error"] or "nothing was said", most=_REASON_LENGTH)
        lines.append(f"- {code(file['media'])} {file['status']}: {reason}")
    more = len(files) - len(lines)
    lines += [f"- and {more:,} more: {_ALL_FILES}"] if more else []
    return "\n".join(["## Problems\n", *lines])


def _results(out: Path) -> str:
    there = {what: path for what, path in _RESULT_PATHS.items() if (out / path).exists()}
    lines = [f"- {what}: {_link(path, path)}" for what, path in there.items()]
    return "\n".join(["## Results\n", *lines])


def _table(files: pd.DataFrame, n_files: int) -> str:
    """A table of what the faces of each file show."""
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
            " ".join(_link(what, row[what]) for what in _PRODUCT_COLUMNS if not pd.isna(row[what])),
        ]
        for row in files.to_dict("records")
    ]
    titles = ["file", "status", "frames", "with a face", "tracks", "mean probabilities", "see"]
    alignment = ["left", "left", "right", "right", "right", "left", "left"]
    table = tabulate(rows, titles, "pipe", colalign=alignment, disable_numparse=True)
    more = n_files - len(files)
    note = f"\n\nand {more:,} more: {_ALL_FILES}" if more else ""
    return f"## Files\n\n{table}{note}"


def _timelines(paths: pd.Series) -> str:
    pictures = [f"!{_link('timeline', path)}" for path in paths]
    return "\n\n".join(["## Timelines", *pictures]) if pictures else ""


def _reason(root: str, media: str, error: str | float) -> str:
    """The error of a file without the path of the file; empty where there is none."""
    return error.removeprefix(f"{Path(root, media)}: ") if isinstance(error, str) else ""


def _link(words: str, path: str) -> str:
    """A link from the summary to a path in the output folder."""
    return f"[{words}]({quote(posixpath.relpath(path, 'report'))})"
