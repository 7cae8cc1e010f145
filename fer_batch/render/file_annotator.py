"""All that is drawn on the frames of one file, one layer over the other."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from fer_batch.config import Config, Sampling
from fer_batch.records import Bytes, FrameChunk, MediaInfo, MediaKind
from fer_batch.render.annotations import Annotations
from fer_batch.render.annotator import Painter
from fer_batch.render.layers.hidden_faces import hide
from fer_batch.render.layers.strip import Ribbon

if TYPE_CHECKING:  # it needs torch, which takes seconds to load
    from fer_batch.render.heatmaps import Heatmaps


class Layers:
    """Draws what a run found on the frames of one file, in order.

    Hidden faces come first, then heatmaps, then boxes and words; heatmaps are of the faces as they
    were.
    """

    def __init__(
        self,
        kind: MediaKind,
        info: MediaInfo,
        faces: Annotations,
        config: Config,
        heatmaps: Heatmaps | None,
    ) -> None:
        """Prepare what does not change from frame to frame.

        Args:
            kind: Of the file; a still image has neither clock nor timeline.
            info: Of the file.
            faces: Of the file.
            config: Which layers, and which part of the file is shown.
            heatmaps: Of the file; None draws none.
        """
        settings = config.render
        self._faces = faces
        self._paths = faces.paths if settings.blur else None
        self._heatmaps = heatmaps
        self._is_double = settings.style == "side-by-side"
        self._has_time = kind == "video"
        size = (info.width_px, info.height_px)
        has_ribbon = self._has_time and settings.shows("timeline") and faces.bars
        ribbon = _ribbon(size, faces, config.sampling) if has_ribbon else None
        self._painter = Painter(size, settings, bars=faces.bars, ribbon=ribbon)
        self.info = replace(info, width_px=info.width_px * (1 + self._is_double))
        """Of what is drawn."""

    def draw(self, chunk: FrameChunk) -> Iterator[Bytes]:
        """The frames (H, W, 3) uint8 of a chunk with everything on them; its own are drawn on."""
        shown = [self._faces.at(frame_index) for frame_index in chunk.frame_index.tolist()]
        heats = self._heatmaps.look(chunk, shown) if self._heatmaps else [[] for _ in shown]
        rows = zip(chunk.rgb, shown, heats, chunk.pts_s.tolist(), strict=True)
        for rgb, annotation, heat, pts_s in rows:
            for box_px in self._paths.at(pts_s) if self._paths else ():
                hide(rgb, box_px)
            source = rgb.copy() if self._is_double else None
            for each in heat:
                each.lay(rgb)
            self._painter.draw(rgb, annotation, pts_s=pts_s if self._has_time else None)
            yield rgb if source is None else np.hstack([source, rgb])


def _ribbon(size: tuple[int, int], faces: Annotations, span: Sampling) -> Ribbon:
    """As long as the part that is shown."""
    height = round(min(size) / 20)
    first_s, last_s = faces.span_s
    begin_s, end_s = max(first_s, span.start_s or first_s), min(last_s, span.end_s or last_s)
    edges_s = np.linspace(begin_s, max(begin_s, end_s), size[0] - height + 1)
    return Ribbon(faces.shares(edges_s), edges_s[:-1], height)
