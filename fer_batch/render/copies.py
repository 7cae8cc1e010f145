"""Annotated copies of the videos and images of a run, made from its tables."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import av
from PIL import Image, PngImagePlugin

from fer_batch import __version__
from fer_batch.config import Config, Render, Sampling, cpu_threads
from fer_batch.errors import FerError, RenderError, StoreDiskFullError
from fer_batch.media import discovery
from fer_batch.media.cache import fetched
from fer_batch.media.decode import FrameReader
from fer_batch.media.encode import VideoWriter, find_sound, replacing
from fer_batch.models.card import find_weights
from fer_batch.records import MediaInfo, MediaRow
from fer_batch.render.annotations import Annotations, load_annotations
from fer_batch.render.layers import Layers
from fer_batch.results import store
from fer_batch.storage import urls

if TYPE_CHECKING:  # it needs torch, which takes seconds to load
    from fer_batch.explain.explainer import Explainer

_JPEG_SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif")
_JPEG_QUALITY = 92
_END_BYTES = 4096
"""Of a picture's beginning and end; the marker of a still image stands in its first, of a GIF in
its last ones."""
_LONGEST_GIF_S = 30.0


@dataclass(frozen=True, slots=True)
class Progress:
    """How far rendering has come."""

    n_files_done: int
    n_files: int
    """Without those that are up to date."""
    n_frames: int
    share: float
    """Part of the work that is done, in [0, 1], by number of frames."""

    def __str__(self) -> str:
        return f"{self.n_files_done:,}/{self.n_files:,} files  {self.n_frames:,} frames"


def render(
    out: Path,
    config: Config,
    *,
    only: Collection[str] | None = None,
    force: bool = False,
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> list[Path]:
    """Draw what a run found into copies of its videos and images, in the folder ``annotated``.

    ``a/b.mov`` becomes ``annotated/a/b.mov.mp4``, and ``b.mp4`` stays ``b.mp4``; JPEG stays JPEG,
    other still images become PNG. A copy that was made by the same version, with the same settings,
    from the same rows is left alone. A file that fails does not stop the others.

    Args:
        out: Output folder of a run.
        config: That of the run; what may differ is ``render`` and ``runtime``.
        only: Names (relative POSIX paths) to keep; None keeps all. Several such calls may work on
            one folder at the same time, as long as no file is in two of them.
        force: Also make again what is up to date.
        on_progress: Called from this thread whenever frames are done.

    Returns:
        The copies of all files of which the run has frames, by name.

    Raises:
        RenderError: There is no run in ``out``, or files failed: these are named, all others done.
        StoreError: Another run is writing to ``out``, or its tables cannot be read.
        StoreDiskFullError: No space is left; what was finished stays.
    """
    check_run(out)
    failures = []
    with store.lock(out, shared=only is not None):
        copies = _copies(out, config, only)
        if only is None:
            for path in (out / "annotated").rglob(urls.TEMPORARY.format("*")):
                path.unlink()
        stale = [copy for copy in copies if force or not copy.is_current()]
        stale.sort(key=lambda copy: copy.row.kind)  # images together: see load_annotations
        meter = _Meter(stale, on_progress)
        rows = [copy.row for copy in stale]
        explainer = _load_explainer(config) if stale and config.render.shows("heatmap") else None
        loaded = load_annotations(out, rows, smooth_s=config.render.smooth_s)
        for copy, faces in zip(stale, loaded, strict=True):
            try:
                make = _make_picture if copy.row.kind == "image" else _make_video
                make(copy, partial(_layers, copy, faces, config, explainer), config, meter)
            except StoreDiskFullError:
                raise
            except FerError as error:
                failures.append(f"{copy.row.media}: {error}")
            meter.file_done()
    if failures:
        counts = f"{len(failures)} of {len(copies)} files could not be rendered"
        raise RenderError("\n".join([f"{counts}:", *failures]))
    return [copy.path for copy in copies]


def check_run(out: Path) -> None:
    """See that there is something to draw.

    Raises:
        RenderError: There is no run in ``out``.
    """
    if not store.media_rows(out):
        raise RenderError(f"{out} holds no results: make some with `fer-batch process` first")


@dataclass(frozen=True, slots=True)
class _Copy:
    """An annotated copy, there already or still to be made."""

    row: MediaRow
    path: Path
    marker: str
    """Stands in the file: of all that decides how it looks."""

    def is_current(self) -> bool:
        """Whether the file is there and has this marker."""
        try:
            if self.path.suffix == ".mp4":
                with self.path.open("rb") as file, av.open(file) as video:
                    return video.metadata.get("comment") == self.marker
            with self.path.open("rb") as picture:
                head = picture.read(_END_BYTES)
                picture.seek(max(picture.seek(0, os.SEEK_END) - _END_BYTES, 0))
                return self.marker.encode() in head + picture.read()
        except urls.failures(av.FFmpegError):
            return False


class _Meter:
    """Counts what is done and reports it."""

    def __init__(self, work: Sequence[_Copy], on_progress: Callable[[Progress], None]) -> None:
        self._n_files = len(work)
        self._n_expected = sum(copy.row.n_frames_decoded for copy in work) or 1
        self._n_files_done = self._n_frames = 0
        self._on_progress = on_progress

    def frames_done(self, n: int) -> None:
        self._n_frames += n
        self._report()

    def file_done(self) -> None:
        self._n_files_done += 1
        self._report()

    def _report(self) -> None:
        share = min(self._n_frames / self._n_expected, 1.0)
        self._on_progress(Progress(self._n_files_done, self._n_files, self._n_frames, share))


def _copies(out: Path, config: Config, only: Collection[str] | None) -> list[_Copy]:
    """One for each file of which the run has frames.

    Raises:
        RenderError: A name in `only` is not in the run.
    """
    rows = store.media_rows(out)
    names = {row.media for row in rows}
    unknown = sorted(set(only or ()) - names)
    if unknown:
        raise RenderError(f"{out} holds no results of {unknown[0]}")
    return [
        _Copy(row, out / "annotated" / _name(row, names, config.render), _marker(row, config))
        for row in rows
        if row.n_frames_decoded and (only is None or row.media in only)
    ]


def _name(row: MediaRow, taken: Collection[str], settings: Render) -> str:
    """Where a copy stands below ``annotated``; never the place of another file's copy."""
    name, ending = row.media, ".png" if row.kind == "image" else f".{settings.format}"
    if name.lower().endswith((ending, *(_JPEG_SUFFIXES if row.kind == "image" else ()))):
        return name
    name += ending
    while name in taken:
        name += ending
    return name


def _marker(row: MediaRow, config: Config) -> str:
    values = {"row": asdict(row), "render": config.render.model_dump(mode="json")}
    text = json.dumps([__version__, values, config.sampling.model_dump(mode="json")])
    return f"fer_batch {hashlib.sha256(text.encode()).hexdigest()[:16]}"


def _load_explainer(config: Config) -> Explainer:
    from fer_batch.explain.explainer import Explainer
    from fer_batch.models.classifier import pick_device

    weights = find_weights(config.classifier.weights)
    return Explainer(weights, pick_device(config.runtime.device))


def _layers(
    copy: _Copy,
    faces: Annotations,
    config: Config,
    explainer: Explainer | None,
    info: MediaInfo,
) -> Layers:
    heatmaps = None
    if explainer:
        from fer_batch.render.heatmaps import Heatmaps

        if explainer.card.name != copy.row.model:
            raise RenderError(
                f"it was processed with {copy.row.model}, whose heatmaps {explainer.card.name} "
                "cannot make: set classifier.weights"
            )
        heatmaps = Heatmaps(explainer, config.render.smooth_s)
    return Layers(copy.row.kind, info, faces, config, heatmaps)


def _make_video(
    copy: _Copy, prepare: Callable[[MediaInfo], Layers], config: Config, meter: _Meter
) -> None:
    span = Sampling(start_s=config.sampling.start_s, end_s=config.sampling.end_s)
    begin_s = span.start_s or 0.0
    with ExitStack() as stack:
        source = stack.enter_context(fetched(discovery.source_of(copy.row), config.runtime))
        temporary = stack.enter_context(replacing(copy.path))
        threads = cpu_threads(config.runtime)
        reader = stack.enter_context(FrameReader(source, span, config.decode, threads))
        layers = prepare(reader.info)
        sound = None
        if config.render.format == "gif":
            _check_gif(reader.info, span)
        else:
            sound = find_sound(source.path, span)
        writer = stack.enter_context(
            VideoWriter(temporary, layers.info, config.render, comment=copy.marker, sound=sound)
        )
        for chunk in reader:
            for rgb, pts_s in zip(layers.draw(chunk), chunk.pts_s.tolist(), strict=True):
                writer.write(rgb, pts_s - begin_s)
            meter.frames_done(len(chunk.rgb))
        if reader.report.n_frames_decoded == 0:
            raise RenderError(f"{source.path}: no frame could be decoded")


def _check_gif(info: MediaInfo, span: Sampling) -> None:
    length_s = min(info.duration_s or math.inf, span.end_s or math.inf) - (span.start_s or 0.0)
    if length_s > _LONGEST_GIF_S:
        raise RenderError(
            f"a GIF of {length_s:.0f} s would be huge: give --start and --end, at most "
            f"{_LONGEST_GIF_S:g} s apart"
        )


def _make_picture(
    copy: _Copy, prepare: Callable[[MediaInfo], Layers], config: Config, meter: _Meter
) -> None:
    with (
        fetched(discovery.source_of(copy.row), config.runtime) as source,
        FrameReader(source, config.sampling, config.decode) as reader,
    ):
        layers = prepare(reader.info)
        picture = Image.fromarray(next(layers.draw(next(iter(reader)))))
    with replacing(copy.path) as temporary:
        if copy.path.suffix.lower() in _JPEG_SUFFIXES:
            picture.save(temporary, "JPEG", quality=_JPEG_QUALITY, comment=copy.marker)
        else:
            text = PngImagePlugin.PngInfo()
            text.add_text("comment", copy.marker)
            picture.save(temporary, "PNG", pnginfo=text)
    meter.frames_done(1)
