"""Annotated copies of the videos and images of a run, made from its tables."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from fer_batch.config import Config, Render, Sampling, cpu_threads
from fer_batch.errors import RenderError
from fer_batch.media import discovery
from fer_batch.media.cache import fetched
from fer_batch.media.decode import FrameReader
from fer_batch.media.encode import VideoWriter, find_sound, replacing
from fer_batch.records import MediaInfo, MediaRow
from fer_batch.render.annotations import Annotations, load_annotations
from fer_batch.render.file_annotator import FileAnnotator, heatmaps_of, load_explainer
from fer_batch.render.outputs import (
    JPEG_SUFFIXES,
    Output,
    Progress,
    Work,
    check_run,
    marker,
    names_of,
    remove_temporaries,
)
from fer_batch.results import store

if TYPE_CHECKING:  # it needs torch, which takes seconds to load
    from fer_batch.explain.explainer import Explainer

_LONGEST_GIF_S = 30.0


def render(
    out: Path,
    config: Config,
    *,
    media: str | Collection[str] | None = None,
    force: bool = False,
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> list[Path]:
    """Draw what a run found into copies of its videos and images, in the folder ``annotated``.

    ``a/b.mov`` becomes ``annotated/a/b.mov.mp4``, and ``b.mp4`` stays ``b.mp4``; JPEG stays JPEG,
    other still images become PNG. A copy that was made by the same version, with the same settings,
    from the same rows is not made again. A file that fails does not stop the others.

    Args:
        out: Output folder of a run.
        config: Configuration of the run; only ``render`` and ``runtime`` may differ from it.
        media: Names of the files to render; None renders all. Several such calls may work on one
            folder at the same time, as long as no file is in two of them.
        force: Also make again what is up to date.
        on_progress: Called from this thread whenever frames are done.

    Returns:
        The copies of all these files of which the run has frames, by name.

    Raises:
        RenderError: There is no run in ``out``, a name is not in it, or files failed: they are
            named, and all others are done.
        StoreError: Another run is writing to ``out``, or its tables cannot be read.
        StoreDiskFullError: No space is left; finished copies are kept.
    """
    check_run(out)
    with store.lock(out, shared=media is not None):
        copies = _copies(out, config, media)
        if media is None:
            remove_temporaries(out / "annotated")
        stale = [copy for copy in copies if force or not copy.output.is_current()]
        stale.sort(key=lambda copy: copy.row.kind)  # images together: see load_annotations
        work = Work({copy.row.media: copy.row.n_frames_decoded for copy in stale}, on_progress)
        explainer = load_explainer(config) if stale else None
        rows = [copy.row for copy in stale]
        loaded = load_annotations(out, rows, smooth_s=config.render.smooth_s)
        for copy, annotations in zip(stale, loaded, strict=True):
            with work.file(copy.row.media):
                make = _make_image if copy.row.kind == "image" else _make_video
                prepare = partial(_annotator, copy.row, annotations, config, explainer)
                make(copy, prepare, config, work)
    work.check(len(copies), "rendered")
    return [copy.output.path for copy in copies]


@dataclass(frozen=True, slots=True)
class _Copy:
    """An annotated copy, whether it is there already or not."""

    row: MediaRow
    output: Output


def _copies(out: Path, config: Config, media: str | Collection[str] | None) -> list[_Copy]:
    """One for each of these files of which the run has frames.

    Raises:
        RenderError: A name is not in the run.
    """
    rows = store.media_rows(out)
    names = {row.media for row in rows}
    chosen = names_of(out, media, names, what="results of")
    return [
        _Copy(row, Output(out / "annotated" / _name(row, names, config.render), _mark(row, config)))
        for row in rows
        if row.n_frames_decoded and (chosen is None or row.media in chosen)
    ]


def _name(row: MediaRow, taken: Collection[str], settings: Render) -> str:
    """Where a copy stands below ``annotated``; never the place of another file's copy."""
    name, ending = row.media, ".png" if row.kind == "image" else f".{settings.format}"
    if name.lower().endswith((ending, *(JPEG_SUFFIXES if row.kind == "image" else ()))):
        return name
    name += ending
    while name in taken:
        name += ending
    return name


def _mark(row: MediaRow, config: Config) -> str:
    settings = [section.model_dump(mode="json") for section in (config.render, config.sampling)]
    return marker(asdict(row), *settings)


def _annotator(
    row: MediaRow,
    annotations: Annotations,
    config: Config,
    explainer: Explainer | None,
    info: MediaInfo,
) -> FileAnnotator:
    heatmaps = heatmaps_of(row, explainer, config)
    return FileAnnotator(row.kind, info, annotations, config, heatmaps)


def _make_video(
    copy: _Copy, prepare: Callable[[MediaInfo], FileAnnotator], config: Config, work: Work
) -> None:
    span = Sampling(start_s=config.sampling.start_s, end_s=config.sampling.end_s)
    begin_s = span.start_s or 0.0
    with ExitStack() as stack:
        source = stack.enter_context(fetched(discovery.source_of(copy.row), config.runtime))
        temporary = stack.enter_context(replacing(copy.output.path))
        threads = cpu_threads(config.runtime)
        reader = stack.enter_context(FrameReader(source, span, config.decode, threads))
        annotator = prepare(reader.info)
        sound = None
        if config.render.format == "gif":
            _check_gif(reader.info, span)
        else:
            sound = find_sound(source.path, span)
        comment = copy.output.marker
        writer = stack.enter_context(
            VideoWriter(temporary, annotator.info, config.render, comment=comment, sound=sound)
        )
        for chunk in reader:
            for rgb, pts_s in zip(annotator.draw(chunk), chunk.pts_s.tolist(), strict=True):
                writer.write(rgb, pts_s - begin_s)
            work.frames_done(len(chunk.rgb))
        if reader.report.n_frames_decoded == 0:
            raise RenderError(f"{source.path}: no frame could be decoded")


def _check_gif(info: MediaInfo, span: Sampling) -> None:
    length_s = min(info.duration_s or math.inf, span.end_s or math.inf) - (span.start_s or 0.0)
    if length_s > _LONGEST_GIF_S:
        raise RenderError(
            f"a GIF of {length_s:.0f} s would be huge: give --start and --end, at most "
            f"{_LONGEST_GIF_S:g} s apart"
        )


def _make_image(
    copy: _Copy, prepare: Callable[[MediaInfo], FileAnnotator], config: Config, work: Work
) -> None:
    with (
        fetched(discovery.source_of(copy.row), config.runtime) as source,
        FrameReader(source, config.sampling, config.decode) as reader,
    ):
        [rgb] = prepare(reader.info).draw(next(iter(reader)))
    copy.output.save(rgb)
    work.frames_done(1)
