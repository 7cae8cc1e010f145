"""Contact sheets of a run: the strongest moments of each video, and all files at a glance."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import groupby
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, PngImagePlugin

from fer_batch import __version__
from fer_batch.config import Config, Sampling, cpu_threads
from fer_batch.errors import FerError, RenderError, StoreDiskFullError
from fer_batch.media import discovery
from fer_batch.media.cache import fetched
from fer_batch.media.decode import FrameReader
from fer_batch.media.encode import replacing
from fer_batch.records import Bytes, MediaRow, Status
from fer_batch.render.face_paths import FacePaths
from fer_batch.render.layers.hidden_faces import hide
from fer_batch.render.outputs import Progress, check_run
from fer_batch.report import highlights
from fer_batch.report.highlights import Moment, Track
from fer_batch.report.sheet_layout import Cell, Line, Scene, Tile, draw_overview, draw_sheet
from fer_batch.results import store, timeline
from fer_batch.storage import urls

FILES_PER_PAGE = 60
MOST_TRACKS = 12
"""Lines of a video's sheet: crowds have hundreds of tracks, most of them short."""
IMAGES_PER_EMOTION = 6
_STATUSES: tuple[Status, ...] = ("ok", "partial", "failed")
_HEAD_BYTES = 4096
"""Within which the marker of a sheet stands."""


def make_sheets(
    out: Path,
    config: Config,
    *,
    force: bool = False,
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> list[Path]:
    """Make pictures that show a run at a glance, in its folder ``sheets``.

    ``run-001.png`` and so on have a thumbnail of every file, ``images.png`` the strongest faces of
    each emotion among the still images, ``<media>.png`` the strongest moment of each emotion of
    each track of a video. Only frames that are shown are decoded. A sheet that was made by the same
    version from the same rows is left alone. A file that fails does not stop the others.

    Args:
        out: Output folder of a run.
        config: That of the run.
        force: Also make again what is up to date.
        on_progress: Called from this thread whenever a file is done.

    Returns:
        The sheets of the whole run, then those of videos, by name.

    Raises:
        RenderError: There is no run in ``out``, or files failed: these are named, all others done.
        StoreError: Another run is writing to ``out``, or its tables cannot be read.
        StoreDiskFullError: No space is left; what was finished stays.
    """
    check_run(out)
    with store.lock(out):
        run = _Run(out, config)
        for path in run.folder.rglob(urls.TEMPORARY.format("*")):
            path.unlink()
        pages, images, videos = _pages(run), _images(run), _videos(run)
        sheets = [*pages, *images, *videos.values()]
        work = _Work([sheet for sheet in sheets if force or not sheet.is_current()], on_progress)
        for page in pages:
            _make_page(run, page, videos, work)
        for sheet in images:
            _make_images(run, sheet, work)
    if work.failures:
        counts = f"{len(work.failures)} of {len(run.rows)} files could not be shown"
        raise RenderError("\n".join([f"{counts}:", *work.failures.values()]))
    return [sheet.path for sheet in sheets]


@dataclass(frozen=True, slots=True)
class _Sheet:
    """A sheet, there already or still to be made."""

    path: Path
    rows: Sequence[MediaRow]
    """The files that it shows."""
    marker: str
    """Stands in the file: of all that decides how it looks."""

    def is_current(self) -> bool:
        """Whether the file is there and has this marker."""
        try:
            with self.path.open("rb") as picture:
                return self.marker.encode() in picture.read(_HEAD_BYTES)
        except urls.failures():
            return False

    def save(self, rgb: Bytes, *, is_complete: bool = True) -> None:
        """Write it; what is not complete is never current, and so is made again next time."""
        text = PngImagePlugin.PngInfo()
        text.add_text("comment", self.marker if is_complete else "incomplete")
        with replacing(self.path) as temporary:
            Image.fromarray(rgb).save(temporary, "PNG", pnginfo=text)


class _Work:
    """What has to be made, how far it has come, and what of it failed."""

    def __init__(self, stale: Sequence[_Sheet], on_progress: Callable[[Progress], None]) -> None:
        self._stale = {sheet.path for sheet in stale}
        self._names = {row.media for sheet in stale for row in sheet.rows}
        self._done: set[str] = set()
        self._on_progress = on_progress
        self.failures: dict[str, str] = {}
        """What happened, by file."""

    def has(self, sheet: _Sheet) -> bool:
        """Whether the sheet has to be made."""
        return sheet.path in self._stale

    def is_well(self, sheet: _Sheet) -> bool:
        """Whether no file of the sheet has failed."""
        return self.failures.keys().isdisjoint(row.media for row in sheet.rows)

    @contextlib.contextmanager
    def file(self, name: str) -> Iterator[None]:
        """Notes what happens to one file, and goes on to the next."""
        try:
            yield
        except StoreDiskFullError:
            raise
        except FerError as error:
            self.failures[name] = f"{name}: {error}"
        self._done.add(name)
        n, n_files = len(self._done), len(self._names)
        self._on_progress(Progress(n, n_files, n_frames=n, share=n / n_files))


class _Run:
    """What a run found, and the frames in which it did."""

    def __init__(self, out: Path, config: Config) -> None:
        self.out = out
        self.folder = out / "sheets"
        self.title = out.resolve().name
        self.rows = store.media_rows(out)
        self._config = config

    def sheet(self, name: str, rows: Sequence[MediaRow]) -> _Sheet:
        """One that shows these files."""
        look = self._config.render
        values = [__version__, look.smooth_s, look.blur, *map(asdict, rows)]
        sha256 = hashlib.sha256(json.dumps(values).encode()).hexdigest()
        return _Sheet(self.folder / name, rows, f"fer_batch {sha256[:16]}")

    @cached_property
    def stills(self) -> pd.DataFrame:
        """The faces of all still images: they stand in few tables, to be read once."""
        names = [row.media for row in self.rows if row.kind == "image"]
        return timeline.load(self.out, media=names)

    def faces(self, row: MediaRow) -> pd.DataFrame:
        """Those of one file, from `timeline.load`."""
        if row.kind == "image":
            return self.stills[self.stills["media"] == row.media]
        return timeline.load(self.out, media=row.media)

    def tracks(self, faces: pd.DataFrame) -> list[Track]:
        """What the tracks of a video show, as many of them as a sheet has."""
        smooth_s = self._config.render.smooth_s
        return highlights.of_tracks(faces, smooth_s=smooth_s, most=MOST_TRACKS)

    def middle(self, row: MediaRow) -> int:
        """``frame_index`` in the middle of what was looked at; 0 where nothing was."""
        if row.kind == "image":
            return 0
        frames = store.read(self.out, "frames", medias=[row.media], columns=["frame_index"])
        looked_at = frames["frame_index"].to_pylist() or [0]
        return int(looked_at[len(looked_at) // 2])

    def scenes(
        self, row: MediaRow, faces: pd.DataFrame, frame_index: Collection[int]
    ) -> Iterator[tuple[int, Scene]]:
        """These frames of a file with all their faces, as far as they can be decoded.

        Raises:
            RenderError: The source is gone, or is not the same any more.
            MediaError: It cannot be read.
        """
        boxes = faces[["x1_px", "y1_px", "x2_px", "y2_px"]].to_numpy(np.float32)
        frame_of = faces["frame_index"].to_numpy()
        paths = FacePaths(faces) if self._config.render.blur else None
        source, config = discovery.source_of(row), self._config
        threads, only = cpu_threads(config.runtime), sorted(frame_index)
        with (
            fetched(source, config.runtime) as local,
            FrameReader(local, Sampling(), config.decode, threads, only=only) as reader,
        ):
            for chunk in reader:
                frames = zip(
                    chunk.frame_index.tolist(), chunk.pts_s.tolist(), chunk.rgb, strict=True
                )
                for index, pts_s, rgb in frames:
                    for box_px in paths.at(pts_s) if paths else ():
                        hide(rgb, box_px)
                    yield index, Scene(rgb, boxes[frame_of == index])


def _pages(run: _Run) -> list[_Sheet]:
    blocks = [run.rows[at : at + FILES_PER_PAGE] for at in range(0, len(run.rows), FILES_PER_PAGE)]
    return [run.sheet(f"run-{number:03}.png", block) for number, block in enumerate(blocks, 1)]


def _images(run: _Run) -> list[_Sheet]:
    """One sheet, or none where there are no still images."""
    rows = [row for row in run.rows if row.kind == "image" and row.n_frames_decoded]
    return [run.sheet("images.png", rows)] if rows else []


def _videos(run: _Run) -> dict[str, _Sheet]:
    """One sheet for each video of which the run has frames, by its name."""
    return {
        row.media: run.sheet(_name(row), [row])
        for row in run.rows
        if row.kind == "video" and row.n_frames_decoded
    }


def _name(row: MediaRow) -> str:
    """Where the sheet of a video stands; never the place of one of the whole run."""
    name = f"{row.media}.png"
    return f"{name}.png" if re.fullmatch(r"images\.png|run-\d{3,}\.png", name) else name


def _make_page(run: _Run, page: _Sheet, videos: Mapping[str, _Sheet], work: _Work) -> None:
    """Make a page of thumbnails, and the sheets of its videos on the way."""
    tiles = []
    for row in page.rows:
        sheet = videos.get(row.media)
        sheet = sheet if sheet and work.has(sheet) else None
        if sheet or work.has(page):
            tile = _blank_tile(row, "cannot be shown")
            with work.file(row.media):
                tile = _show(run, row, sheet)
            tiles.append(tile)
    if work.has(page):
        first = run.rows.index(page.rows[0]) + 1
        counts = Counter(row.status for row in page.rows)
        facts = _join(
            f"files {first:,} to {first + len(tiles) - 1:,}",
            *(f"{counts[status]} {status}" for status in _STATUSES if counts[status]),
        )
        page.save(draw_overview(run.title, facts, tiles), is_complete=work.is_well(page))


def _show(run: _Run, row: MediaRow, sheet: _Sheet | None) -> Tile:
    """Read of a file what its thumbnail needs, and its sheet, where one is to be made."""
    if not row.n_frames_decoded:
        error = row.error or row.status
        return _blank_tile(row, error.removeprefix(f"{urls.join(row.root, row.media)}: "))
    faces = run.faces(row)
    if row.kind == "video":
        tracks = run.tracks(faces)
        chosen = [moment for track in tracks for moment in track.moments]
    else:
        tracks, chosen = [], highlights.of_images(faces, most=1)
    best = highlights.most_expressive(chosen)
    shown = best.frame_index if best else run.middle(row)
    wanted = {moment.frame_index for moment in chosen} if sheet else set()
    thumbnail, pictures = None, {}
    for frame_index, scene in run.scenes(row, faces, wanted | {shown}):
        if frame_index == shown:
            thumbnail = scene.thumbnail(best)
        for moment in chosen:
            if moment.frame_index == frame_index:
                pictures[moment] = scene.face(moment)
    if thumbnail is None and not pictures:
        raise RenderError(f"{row.media}: no frame could be decoded")
    if sheet:
        sheet.save(_draw_video(row, tracks, faces, pictures))
    detail = _join("" if row.status == "ok" else row.status, _clock(row.duration_s))
    return Tile(thumbnail, row.media, best, detail)


def _draw_video(
    row: MediaRow, tracks: Sequence[Track], faces: pd.DataFrame, pictures: Mapping[Moment, Bytes]
) -> Bytes:
    n_frames = faces["track_id"].value_counts()
    left_out = n_frames.drop([track.track_id for track in tracks])
    facts = _join(
        _clock(row.duration_s),
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
            [Cell(pictures.get(moment), moment, _clock(moment.pts_s)) for moment in track.moments],
        )
        for track in tracks
    ]
    return draw_sheet(row.media, facts, lines, note)


def _make_images(run: _Run, sheet: _Sheet, work: _Work) -> None:
    """Make the sheet of the still images."""
    if not work.has(sheet):
        return
    chosen = highlights.of_images(run.stills, most=IMAGES_PER_EMOTION)
    chosen = [moment for moment in chosen if moment.strength >= highlights.STRONG]
    pictures: dict[Moment, Bytes] = {}
    for row in sheet.rows:
        ours = [moment for moment in chosen if moment.media == row.media]
        with work.file(row.media):
            if ours:
                [(_, scene)] = run.scenes(row, run.faces(row), {0})
                pictures |= {moment: scene.face(moment) for moment in ours}
    ranks: dict[int, list[Cell]] = {}
    for _, alike in groupby(sorted(chosen, key=_emotion), key=_emotion):
        for rank, moment in enumerate(alike):
            cell = Cell(pictures.get(moment), moment, moment.media)
            ranks.setdefault(rank, []).append(cell)
    lines = [Line("", "", cells) for cells in ranks.values()]
    facts = _join(
        f"strongest faces of {_count(len(sheet.rows), 'still image')}",
        _count(len(run.stills), "face"),
    )
    note = "" if chosen else "no face shows an emotion clearly"
    sheet.save(draw_sheet(run.title, facts, lines, note), is_complete=work.is_well(sheet))


def _emotion(moment: Moment) -> int:
    return moment.emotion


def _blank_tile(row: MediaRow, problem: str) -> Tile:
    return Tile(None, row.media, None, _clock(row.duration_s), problem)


def _clock(time_s: float | None) -> str:
    """A time as m:ss.s."""
    if time_s is None:
        return ""
    minutes, tenths = divmod(int(time_s * 10 + 0.5), 600)
    return f"{minutes}:{tenths // 10:02}.{tenths % 10}"


def _count(n: int, what: str) -> str:
    return f"{n:,} {what}" + ("" if n == 1 else "s")


def _join(*facts: str) -> str:
    return " · ".join(filter(None, facts))
