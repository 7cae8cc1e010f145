"""Grad-CAM maps of the faces of a video: what the classifier looks at."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from fer_batch.explain.explainer import Explainer
from fer_batch.faces.crop import crop, squares
from fer_batch.records import Faces, Floats, FrameChunk
from fer_batch.render.content import Annotation, FaceMap


class Heatmaps:
    """Maps of the emotions that the labels name, smoothed along their tracks."""

    def __init__(self, explainer: Explainer, smooth_s: float) -> None:
        """Remember no map yet.

        Args:
            explainer: Of the run's weights.
            smooth_s: Time constant over which the maps of a track are smoothed; 0 is off.
        """
        self._explainer = explainer
        self._smooth_s = smooth_s
        self._last: dict[int, tuple[float, Floats]] = {}

    def with_maps(self, chunk: FrameChunk, annotations: Sequence[Annotation]) -> list[Annotation]:
        """The same annotations with the maps of all faces that have a label.

        Args:
            chunk: Frames, later than those before.
            annotations: One for each of them.
        """
        rows = [
            (n, m) for n, each in enumerate(annotations) for m in np.flatnonzero(each.emotion >= 0)
        ]
        points = [px[m] for n, m in rows if (px := annotations[n].points_px) is not None]
        faces = Faces(
            frame_row=np.array([n for n, _ in rows], np.int64),
            box_px=_stack([annotations[n].box_px[m] for n, m in rows], (4,)),
            score=np.full(len(rows), np.nan, np.float32),
            points_px=_stack(points, (5, 2)) if len(points) == len(rows) else None,
        )
        card = self._explainer.card
        emotion = np.array([annotations[n].emotion[m] for n, m in rows], np.int64)
        values = self._explainer.maps(crop(chunk.rgb, faces, card), emotion, "gradcam")
        maps: list[list[FaceMap | None]] = [[None] * len(each.emotion) for each in annotations]
        square = squares(faces, card)
        for row, ((n, m), of_face) in enumerate(zip(rows, values, strict=True)):
            scaled = of_face / max(float(of_face.max()), 1e-6)
            tracks = annotations[n].track_id
            if tracks is not None:
                scaled = self._smooth(int(tracks[m]), scaled, float(chunk.pts_s[n]))
            maps[n][m] = FaceMap(scaled, faces.box_px[row], square[row])
        return [replace(each, maps=some) for each, some in zip(annotations, maps, strict=True)]

    def _smooth(self, track: int, values: Floats, pts_s: float) -> Floats:
        before_s, before = self._last.get(track, (-math.inf, values))
        past = math.exp((before_s - pts_s) / self._smooth_s) if self._smooth_s else 0.0
        smooth: Floats = values + past * (before - values)
        self._last[track] = pts_s, smooth
        return smooth


def _stack(rows: list[Floats], shape: tuple[int, ...]) -> Floats:
    return np.array(rows, np.float32).reshape(-1, *shape)
