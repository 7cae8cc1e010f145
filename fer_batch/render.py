"""Annotated copies of the videos and images of a run, made from its tables."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import av
from PIL import Image, PngImagePlugin

from fer_batch import __version__, store
from fer_batch.annotation import Annotations, load_annotations
from fer_batch.config import Config, Sampling, cpu_threads
from fer_batch.decode import FrameReader
from fer_batch.draw import Painter
from fer_batch.encode import TEMPORARY, VideoWriter, find_sound, replacing
from fer_batch.schema import FerError, MediaFile, MediaRow, RenderError, StoreDiskFullError

_JPEG_SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif")
_JPEG_QUALITY = 92
_HEAD_BYTES = 4096
"""Within which the marker of a still image stands."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far rendering has come."""

    n_files_done: int
    n_files: int
    """Without those that are up to date."""
    n_frames: int
    share: float
    """Part of the work that is done, in [0, 1], by number of frames."""


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
    if not store.media_rows(out):
        raise RenderError(f"{out} holds no results: make some with `fer-batch process` first")
    failures = []
    with store.lock(out, shared=only is not None):
        copies = _copies(out, config, only)
        if only is None:
            for path in (out / "annotated").rglob(TEMPORARY.format("*")):
                path.unlink()
        stale = [copy for copy in copies if force or not copy.is_current()]
        stale.sort(key=lambda copy: copy.row.kind)  # images together: see load_annotations
        meter = _Meter(stale, on_progress)
        rows = [copy.row for copy in stale]
        loaded = load_annotations(out, rows, smooth_s=config.render.smooth_s)
        for copy, faces in zip(stale, loaded, strict=True):
            try:
                make = _make_picture if copy.row.kind == "image" else _make_video
                make(copy, faces, config, meter)
            except StoreDiskFullError:
                raise
            except FerError as error:
                failures.append(f"{copy.row.media}: {error}")
            meter.file_done()
    if failures:
        counts = f"{len(failures)} of {len(copies)} files could not be rendered"
        raise RenderError("\n".join([f"{counts}:", *failures]))
    return [copy.path for copy in copies]


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
            if self.row.kind == "image":
                with self.path.open("rb") as picture:
                    return self.marker.encode() in picture.read(_HEAD_BYTES)
            with av.open(str(self.path)) as video:
                return video.metadata.get("comment") == self.marker
        except (OSError, av.FFmpegError):
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
        _Copy(row, out / "annotated" / _name(row, names), _marker(row, config))
        for row in rows
        if row.n_frames_decoded and (only is None or row.media in only)
    ]


def _name(row: MediaRow, taken: Collection[str]) -> str:
    """Where a copy stands below ``annotated``; never the place of another file's copy."""
    name, ending = row.media, ".png" if row.kind == "image" else ".mp4"
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


def _source(row: MediaRow) -> MediaFile:
    """The file that the row is about.

    Raises:
        RenderError: It is gone, or is not the same any more.
    """
    path = Path(row.root, row.media)
    try:
        status = path.stat()
    except OSError as error:
        raise RenderError(f"{path}: the source cannot be read: {error.strerror}") from error
    if (status.st_size, status.st_mtime_ns) != (row.size_bytes, row.mtime_ns):
        raise RenderError(
            f"{path}: the source has changed since it was processed: run `fer-batch process` again"
        )
    return MediaFile(path, row.media, row.kind, row.size_bytes, row.mtime_ns)


def _make_video(copy: _Copy, faces: Annotations, config: Config, meter: _Meter) -> None:
    source = _source(copy.row)
    span = Sampling(start_s=config.sampling.start_s, end_s=config.sampling.end_s)
    begin_s = span.start_s or 0.0
    sound = find_sound(source.path, span)
    threads = cpu_threads(config.runtime)
    with (
        replacing(copy.path) as temporary,
        FrameReader(source, span, config.decode, threads) as reader,
        VideoWriter(
            temporary, reader.info, config.render, comment=copy.marker, sound=sound
        ) as writer,
    ):
        painter = _painter(reader, faces, config)
        for chunk in reader:
            frames = zip(chunk.rgb, chunk.frame_index.tolist(), chunk.pts_s.tolist(), strict=True)
            for rgb, frame_index, pts_s in frames:
                painter.draw(rgb, faces.at(frame_index), pts_s=pts_s)
                writer.write(rgb, pts_s - begin_s)
            meter.frames_done(len(chunk.rgb))
        if reader.report.n_frames_decoded == 0:
            raise RenderError(f"{source.path}: no frame could be decoded")


def _make_picture(copy: _Copy, faces: Annotations, config: Config, meter: _Meter) -> None:
    with FrameReader(_source(copy.row), config.sampling, config.decode) as reader:
        rgb = next(iter(reader)).rgb[0]
        _painter(reader, faces, config).draw(rgb, faces.at(0))
    picture = Image.fromarray(rgb)
    with replacing(copy.path) as temporary:
        if copy.path.suffix.lower() in _JPEG_SUFFIXES:
            picture.save(temporary, "JPEG", quality=_JPEG_QUALITY, comment=copy.marker)
        else:
            text = PngImagePlugin.PngInfo()
            text.add_text("comment", copy.marker)
            picture.save(temporary, "PNG", pnginfo=text)
    meter.frames_done(1)


def _painter(reader: FrameReader, faces: Annotations, config: Config) -> Painter:
    bars = faces.bars if config.render.bars else ()
    return Painter(reader.info.width_px, reader.info.height_px, bars)
