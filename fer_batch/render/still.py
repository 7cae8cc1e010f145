"""Single annotated frames, in memory."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fer_batch.config import Config, Render, Sampling, cpu_threads
from fer_batch.errors import RenderError
from fer_batch.media import discovery
from fer_batch.media.cache import fetched
from fer_batch.media.decode import FrameReader
from fer_batch.records import Bytes, Faces, Floats, FrameChunk, Ints, MediaRow
from fer_batch.render.annotations import load_annotations
from fer_batch.render.annotator import Annotator
from fer_batch.render.content import Annotation, Setup
from fer_batch.render.file_annotator import FileAnnotator, heatmaps_of, load_explainer
from fer_batch.results import store, tables

if TYPE_CHECKING:  # it needs torch, which takes seconds to load
    from fer_batch.explain.explainer import Explainer

LEAD_S = 2.0
"""Frames in this time before the wanted one are drawn too, as the places of labels and panels, and
heatmaps, depend on the frames before."""


def annotated_frame(out: Path, config: Config, media: str, at_s: float = 0.0) -> Bytes:
    """The frame that a player shows at a time, as the annotated copy of the file has it.

    Only a few frames are decoded. In rare cases a label or panel stands elsewhere than in the copy:
    its place there may depend on frames that are more than `LEAD_S` older.

    Args:
        out: Output folder of a run.
        config: Configuration of the run; only ``render`` and ``runtime`` may differ from it.
        media: Name of the file.
        at_s: Time in seconds, 0 at the start of the source; ignored for a still image.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        RenderError: The run has no frames of such a file, or there is none at that time.
        MediaError: The source is gone, has changed, or cannot be read.
        StoreError: ``out`` is not the output folder of a run, or its tables cannot be read.
    """
    row = next((row for row in store.media_rows(out) if row.media == media), None)
    if row is None or not row.n_frames_decoded:
        raise RenderError(f"{out} holds no frames of {media}")
    [annotations] = load_annotations(out, [row], smooth_s=config.render.smooth_s)
    explainer = load_explainer(config)
    with fetched(discovery.source_of(row), config.runtime) as source:
        for span in [Sampling()] if row.kind == "image" else _spans(row, config.sampling, at_s):
            last = None
            with FrameReader(source, span, config.decode, cpu_threads(config.runtime)) as reader:
                heatmaps = heatmaps_of(row, explainer, config)
                annotator = FileAnnotator(row.kind, reader.info, annotations, config, heatmaps)
                for chunk in reader:
                    *_, last = annotator.draw(chunk)
            if last is not None:
                return last.copy()
    raise RenderError(f"{media} shows no frame at {at_s:g} s")


def annotate(
    rgb: Bytes,
    faces: Faces,
    probs: Floats,
    settings: Render,
    *,
    track_id: Ints | None = None,
    explainer: Explainer | None = None,
) -> Bytes:
    """Draw faces on a picture, without a run.

    Args:
        rgb: (H, W, 3) uint8 RGB; it is not changed.
        faces: Its M faces.
        probs: (M, 8) float32 in EMOTIONS order, NaN where unknown.
        settings: Which layers are drawn. Clock and strip are left out, as they need a video.
        track_id: (M,) int64, the number that is written at each face; None writes none.
        explainer: The network that heatmaps are made with, where `settings` has them.

    Returns:
        (H, W, 3) uint8 RGB, a new picture; twice as wide if `settings` has it side by side.

    Raises:
        RenderError: Heatmaps are to be drawn and there is no explainer.
    """
    emotion, _ = tables.dominant(probs)
    annotation = Annotation(
        box_px=faces.box_px,
        points_px=faces.points_px,
        track_id=track_id,
        probs=probs,
        emotion=emotion,
        n_faces_around=len(faces),
    )
    if settings.shows("heatmap"):
        annotation = _with_maps(rgb, annotation, explainer)
    height, width = rgb.shape[:2]
    known = tuple(np.flatnonzero(~np.isnan(probs).all(axis=0)).tolist())
    return Annotator(Setup(width, height, settings, known)).draw(rgb.copy(), annotation)


def _spans(row: MediaRow, sampling: Sampling, at_s: float) -> Iterator[Sampling]:
    """Parts of a video that end at a time, each longer than the one before.

    The first may have no frame, where a frame is shown for a long time.
    """
    end_s = math.nextafter(min(at_s, row.duration_s or math.inf), math.inf)
    end_s = min(end_s, sampling.end_s or math.inf)
    first_s, length_s = sampling.start_s or 0.0, LEAD_S
    start_s = math.inf
    while first_s < min(end_s, start_s):
        start_s = max(end_s - length_s, first_s)
        yield Sampling(start_s=start_s, end_s=end_s)
        length_s *= 4


def _with_maps(rgb: Bytes, annotation: Annotation, explainer: Explainer | None) -> Annotation:
    from fer_batch.render.heatmaps import Heatmaps

    if explainer is None:
        raise RenderError("heatmaps need an explainer: give one, or choose another style")
    zero = np.zeros(1, np.int64)
    chunk = FrameChunk(rgb[None], zero, zero.astype(np.float64), zero.astype(np.bool_))
    [annotation] = Heatmaps(explainer, smooth_s=0).with_maps(chunk, [annotation])
    return annotation
