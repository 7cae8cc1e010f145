"""Contact sheets of a run: the highlights of each video, and all files at a glance."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path

import pandas as pd

from fer_batch.config import Config
from fer_batch.errors import RenderError
from fer_batch.records import Bytes, MediaRow, Status
from fer_batch.render.layers.clock import clock_text
from fer_batch.render.outputs import (
    Output,
    Progress,
    Work,
    check_run,
    marker,
    names_of,
    remove_temporaries,
)
from fer_batch.report import highlights
from fer_batch.report.highlights import Highlight, TrackHighlights
from fer_batch.report.run_files import RunFiles
from fer_batch.report.sheet_layout import Cell, Line, Tile, draw_overview, draw_sheet
from fer_batch.results import store
from fer_batch.storage import urls

FILES_PER_PAGE = 60
MOST_TRACKS = 12
"""Lines of a video's sheet: crowds have hundreds of tracks, most of them short."""
IMAGES_PER_EMOTION = 6
_STATUSES: tuple[Status, ...] = ("ok", "partial", "failed")


def make_sheets(
    out: Path,
    config: Config,
    *,
    media: str | Collection[str] | None = None,
    force: bool = False,
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> list[Path]:
    """Make pictures that show a run at a glance, in its folder ``sheets``.

    ``run-001.png`` and so on have a thumbnail of every file, ``images.png`` the strongest faces of
    each emotion among the still images, ``<media>.png`` the strongest moment of each emotion of
    each track of a video. Only frames that are shown are decoded. A sheet that was made by the same
    version from the same rows is not made again. A file that fails does not stop the others.

    Args:
        out: Output folder of a run.
        config: Configuration of the run; only ``render`` and ``runtime`` may differ from it.
        media: Names of videos: only their sheets are made; None makes all sheets.
        force: Also make again what is up to date.
        on_progress: Called from this thread whenever a frame or file is done.

    Returns:
        The sheets of the whole run, then those of videos, by name.

    Raises:
        RenderError: There is no run in ``out``, a name is not that of a video of which it has
            frames, or files failed: they are named, and all others are done.
        StoreError: Another run is writing to ``out``, or its tables cannot be read.
        StoreDiskFullError: No space is left; finished sheets are kept.
    """
    check_run(out)
    with store.lock(out):
        run = RunFiles(out, config)
        remove_temporaries(out / "sheets")
        sheets = _plan(run, out, config)
        chosen = names_of(out, media, sheets.videos, what="frames of a video")
        if chosen is not None:
            sheets = _Sheets([], [], {name: sheets.videos[name] for name in sorted(chosen)})
        stale = [sheet for sheet in sheets.all() if force or not sheet.output.is_current()]
        names = [row.media for sheet in stale for row in sheet.rows]
        work = Work(dict.fromkeys(names, 1), on_progress)
        _Maker(run, out.resolve().name, config.render.smooth_s, stale, work).make(sheets)
    work.check(len(run.rows), "shown")
    return [sheet.output.path for sheet in sheets.all()]


@dataclass(frozen=True, slots=True)
class _Sheet:
    output: Output
    rows: Sequence[MediaRow]
    """The files that it shows."""


@dataclass(frozen=True, slots=True)
class _Sheets:
    pages: Sequence[_Sheet]
    """Thumbnails of all files."""
    images: Sequence[_Sheet]
    """One sheet of the still images, or none where there are no still images."""
    videos: Mapping[str, _Sheet]
    """The sheet of each video of which the run has frames, by its name."""

    def all(self) -> list[_Sheet]:
        return [*self.pages, *self.images, *self.videos.values()]


def _plan(run: RunFiles, out: Path, config: Config) -> _Sheets:
    """All sheets that the run can have."""
    look = (config.render.smooth_s, config.render.shows("blur"))

    def sheet(name: str, rows: Sequence[MediaRow]) -> _Sheet:
        return _Sheet(Output(out / "sheets" / name, marker(*look, *map(asdict, rows))), rows)

    pages = [
        sheet(f"run-{number:03}.png", run.rows[first : first + FILES_PER_PAGE])
        for number, first in enumerate(range(0, len(run.rows), FILES_PER_PAGE), 1)
    ]
    decoded = [row for row in run.rows if row.n_frames_decoded]
    images = [row for row in decoded if row.kind == "image"]
    videos = {row.media: sheet(_name(row), [row]) for row in decoded if row.kind == "video"}
    return _Sheets(pages, [sheet("images.png", images)] if images else [], videos)


def _name(row: MediaRow) -> str:
    """Where the sheet of a video stands; never the place of one of the whole run."""
    name = f"{row.media}.png"
    return f"{name}.png" if re.fullmatch(r"images\.png|run-\d{3,}\.png", name) else name


class _Maker:
    """Makes the sheets that are not up to date; each video is decoded once for all of them."""

    def __init__(
        self, run: RunFiles, title: str, smooth_s: float, stale: Sequence[_Sheet], work: Work
    ) -> None:
        self._run = run
        self._title = title
        self._smooth_s = smooth_s
        self._stale = {sheet.output.path for sheet in stale}
        self._work = work

    def make(self, sheets: _Sheets) -> None:
        for page in sheets.pages:
            self._make_page(page, sheets.videos)
        if not sheets.pages:
            for sheet in sheets.videos.values():
                if self._is_stale(sheet):
                    self._tile(sheet.rows[0], sheet)
        for sheet in sheets.images:
            if self._is_stale(sheet):
                self._make_images(sheet)

    def _is_stale(self, sheet: _Sheet) -> bool:
        return sheet.output.path in self._stale

    def _is_complete(self, sheet: _Sheet) -> bool:
        """Whether no file of the sheet has failed."""
        return self._work.failures.keys().isdisjoint(row.media for row in sheet.rows)

    def _make_page(self, page: _Sheet, videos: Mapping[str, _Sheet]) -> None:
        """Make a page of thumbnails, and the sheets of its videos on the way."""
        tiles = []
        for row in page.rows:
            sheet = videos.get(row.media)
            sheet = sheet if sheet and self._is_stale(sheet) else None
            if sheet or self._is_stale(page):
                tiles.append(self._tile(row, sheet))
        if self._is_stale(page):
            first = self._run.rows.index(page.rows[0]) + 1
            counts = Counter(row.status for row in page.rows)
            facts = _join(
                f"files {first:,} to {first + len(tiles) - 1:,}",
                *(f"{counts[status]} {status}" for status in _STATUSES if counts[status]),
            )
            picture = draw_overview(self._title, facts, tiles)
            page.output.save(picture, is_complete=self._is_complete(page))

    def _tile(self, row: MediaRow, sheet: _Sheet | None) -> Tile:
        """The thumbnail of a file. Its sheet is made too, where one is given."""
        tile = _blank_tile(row, "cannot be shown")
        with self._work.file(row.media):
            if row.n_frames_decoded:
                tile = self._show(row, sheet)
            else:
                path = urls.join(row.root, row.media)
                tile = _blank_tile(row, (row.error or row.status).removeprefix(f"{path}: "))
        return tile

    def _show(self, row: MediaRow, sheet: _Sheet | None) -> Tile:
        faces = self._run.faces(row)
        if row.kind == "video":
            tracks = highlights.of_tracks(faces, smooth_s=self._smooth_s, most=MOST_TRACKS)
            chosen = [each for track in tracks for each in track.highlights]
        else:
            tracks, chosen = [], highlights.of_images(faces, most=1)
        best = highlights.most_expressive(chosen)
        shown = best.frame_index if best else self._run.middle(row)
        wanted = {each.frame_index for each in chosen} if sheet else set()
        thumbnail: Bytes | None = None
        pictures: dict[Highlight, Bytes] = {}
        for frame_index, frame in self._run.frames(row, faces, wanted | {shown}):
            if frame_index == shown:
                thumbnail = frame.thumbnail(best)
            ours = [each for each in chosen if each.frame_index == frame_index]
            pictures |= {each: frame.face(each) for each in ours}
            self._work.frames_done(1)
        if thumbnail is None and not pictures:
            raise RenderError(f"{row.media}: no frame could be decoded")
        if sheet:
            sheet.output.save(_draw_video(row, tracks, faces, pictures))
        detail = _join("" if row.status == "ok" else row.status, _duration(row))
        return Tile(thumbnail, row.media, best, detail)

    def _make_images(self, sheet: _Sheet) -> None:
        """Make the sheet of the still images."""
        faces = self._run.image_faces
        chosen = highlights.of_images(faces, most=IMAGES_PER_EMOTION)
        chosen = [each for each in chosen if each.strength >= highlights.STRONG]
        pictures: dict[Highlight, Bytes] = {}
        for row in sheet.rows:
            ours = [each for each in chosen if each.media == row.media]
            with self._work.file(row.media):
                if ours:
                    [(_, frame)] = self._run.frames(row, self._run.faces(row), {0})
                    pictures |= {each: frame.face(each) for each in ours}
                    self._work.frames_done(1)
        ranks: dict[int, list[Cell]] = {}
        for _, alike in groupby(sorted(chosen, key=_emotion), key=_emotion):
            for rank, each in enumerate(alike):
                ranks.setdefault(rank, []).append(Cell(pictures.get(each), each, each.media))
        lines = [Line("", "", cells) for cells in ranks.values()]
        facts = _join(
            f"strongest faces of {_count(len(sheet.rows), 'still image')}",
            _count(len(faces), "face"),
        )
        note = "" if chosen else "no face shows an emotion clearly"
        picture = draw_sheet(self._title, facts, lines, note)
        sheet.output.save(picture, is_complete=self._is_complete(sheet))


def _draw_video(
    row: MediaRow,
    tracks: Sequence[TrackHighlights],
    faces: pd.DataFrame,
    pictures: Mapping[Highlight, Bytes],
) -> Bytes:
    n_frames = faces["track_id"].value_counts()
    left_out = n_frames.drop([track.track_id for track in tracks])
    facts = _join(
        _duration(row),
        _count(row.n_frames_decoded, "frame"),
        _count(len(faces), "face"),
        _count(len(n_frames), "track"),
        "" if row.status == "ok" else row.status,
    )
    note = "" if tracks else "no face was found"
    if len(left_out):
        frames = _count(int(left_out.max()), "frame")
        note = f"and {_count(len(left_out), 'more track')}, each in at most {frames}"
    lines = [
        Line(
            f"#{track.track_id}",
            _count(track.n_frames, "frame"),
            [Cell(pictures.get(each), each, clock_text(each.pts_s)) for each in track.highlights],
        )
        for track in tracks
    ]
    return draw_sheet(row.media, facts, lines, note)


def _emotion(highlight: Highlight) -> int:
    return highlight.emotion


def _blank_tile(row: MediaRow, problem: str) -> Tile:
    return Tile(None, row.media, None, _duration(row), problem)


def _duration(row: MediaRow) -> str:
    return "" if row.duration_s is None else clock_text(row.duration_s)


def _count(n: int, what: str) -> str:
    return f"{n:,} {what}" + ("" if n == 1 else "s")


def _join(*facts: str) -> str:
    return " · ".join(filter(None, facts))
