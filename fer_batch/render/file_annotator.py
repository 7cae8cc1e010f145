"""What a run found in one file, drawn on its frames."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from fer_batch.config import Config, Sampling
from fer_batch.errors import RenderError
from fer_batch.models.card import find_weights
from fer_batch.records import Bytes, FrameChunk, MediaInfo, MediaKind, MediaRow
from fer_batch.render.annotations import Annotations
from fer_batch.render.annotator import Annotator
from fer_batch.render.content import Annotation, EmotionsOverTime, Setup

if TYPE_CHECKING:  # they need torch, which takes seconds to load
    from fer_batch.explain.explainer import Explainer
    from fer_batch.render.heatmaps import Heatmaps


class FileAnnotator:
    """Draws on the frames of one file, in order."""

    def __init__(
        self,
        kind: MediaKind,
        info: MediaInfo,
        annotations: Annotations,
        config: Config,
        heatmaps: Heatmaps | None = None,
    ) -> None:
        """Prepare what does not change from frame to frame.

        Args:
            kind: Of the file; a still image has neither clock nor strip.
            info: Of the file.
            annotations: Of the file.
            config: Which layers are drawn, and which part of the file is shown.
            heatmaps: Of the file; None draws no heatmaps.
        """
        is_video = kind == "video"
        self._annotations = annotations
        self._heatmaps = heatmaps
        self._hides_faces = config.render.shows("blur")
        over_time = annotations.over_time if is_video else EmotionsOverTime.unknown()
        self._annotator = Annotator(
            Setup(
                width_px=info.width_px,
                height_px=info.height_px,
                settings=config.render,
                emotions=annotations.emotions,
                has_time=is_video,
                over_time=over_time,
                span_s=_span_s(over_time, config.sampling),
            )
        )
        self.info = replace(info, width_px=self._annotator.width_px)
        """Of the finished pictures."""

    def draw(self, chunk: FrameChunk) -> Iterator[Bytes]:
        """The finished pictures (H, W, 3) uint8 of a chunk, whose own frames are drawn on."""
        times_s = chunk.pts_s.tolist()
        shown = [self._shown(*at) for at in zip(chunk.frame_index.tolist(), times_s, strict=True)]
        if self._heatmaps:
            shown = self._heatmaps.with_maps(chunk, shown)
        for rgb, annotation in zip(chunk.rgb, shown, strict=True):
            yield self._annotator.draw(rgb, annotation)

    def _shown(self, frame_index: int, pts_s: float) -> Annotation:
        hidden_px = self._annotations.paths.at(pts_s) if self._hides_faces else None
        return replace(self._annotations.at(frame_index), pts_s=pts_s, hidden_px=hidden_px)


def load_explainer(config: Config) -> Explainer | None:
    """The network that heatmaps are made with, for many files; None where none are drawn.

    Raises:
        WeightsError: The weights cannot be used.
    """
    if not config.render.shows("heatmap"):
        return None
    from fer_batch.explain.explainer import Explainer
    from fer_batch.models.devices import pick_device

    weights = find_weights(config.classifier.weights)
    return Explainer(weights, pick_device(config.runtime.device))


def heatmaps_of(row: MediaRow, explainer: Explainer | None, config: Config) -> Heatmaps | None:
    """What makes the heatmaps of one file; None where none are drawn.

    Raises:
        RenderError: The file was processed with another model.
    """
    if explainer is None:
        return None
    from fer_batch.render.heatmaps import Heatmaps

    if explainer.card.name != row.model:
        raise RenderError(
            f"it was processed with {row.model}, whose heatmaps {explainer.card.name} cannot "
            "make: set classifier.weights"
        )
    return Heatmaps(explainer, config.render.smooth_s)


def _span_s(over_time: EmotionsOverTime, sampling: Sampling) -> tuple[float, float]:
    """Times of the first and the last frame that was looked at and is shown."""
    if not len(over_time.pts_s):
        return 0.0, 0.0
    first_s, last_s = over_time.pts_s[[0, -1]].tolist()
    begin_s = max(first_s, sampling.start_s or first_s)
    return begin_s, max(begin_s, min(last_s, sampling.end_s or last_s))
