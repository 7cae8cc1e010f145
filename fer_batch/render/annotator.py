"""All layers together, drawn on frames one after the other."""

from __future__ import annotations

import itertools

import numpy as np

from fer_batch.records import Bytes
from fer_batch.render.canvas import SMALLEST_TEXT_PX, Canvas, Face, Rect
from fer_batch.render.content import Annotation, Setup
from fer_batch.render.layers import entries_for

_TEXT_SIZE = 11
"""Largest text at a face, in units of `Canvas.unit`."""
_MANY, _SOME = 0.65, 0.8
"""Part of that size where there are many faces, and where there are more than two."""


class Annotator:
    """Draws on the frames of one video, in order, or on one still image.

    Few faces get a panel of bars each; many get a bar of colours under their boxes and share one
    legend. Sizes depend on the frame's shorter side and on the face. How a track was drawn is
    remembered, so that its label and panel neither jump from side to side nor change their size all
    the time.
    """

    def __init__(self, setup: Setup) -> None:
        """Prepare the layers.

        Args:
            setup: What is known of the file.
        """
        layers = [(entry.is_face_by_face, entry.layer(setup)) for entry in entries_for(setup)]
        footer_px = max((layer.footer_px for _, layer in layers), default=0)
        self._room = Rect(0, 0, setup.width_px, setup.height_px - footer_px)
        self._groups = [
            (is_face_by_face, [layer for _, layer in group])
            for is_face_by_face, group in itertools.groupby(layers, key=lambda pair: pair[0])
        ]
        self._text_px: dict[int, int] = {}
        self.width_px = setup.width_px * max((layer.n_columns for _, layer in layers), default=1)
        """Width of what `draw` gives."""

    def draw(self, rgb: Bytes, annotation: Annotation) -> Bytes:
        """Draw on a frame.

        Args:
            rgb: (H, W, 3) uint8 RGB, of the size that the setup says; it is drawn on.
            annotation: What is known of the frame.

        Returns:
            (H, `width_px`, 3) uint8 RGB, the finished picture.
        """
        canvas = Canvas(rgb, self._room)
        faces = self._faces(canvas, annotation)
        canvas.taken += [face.box for face in faces]
        for is_face_by_face, layers in self._groups:
            for some in [[face] for face in faces] if is_face_by_face else [faces]:
                for layer in layers:
                    layer.draw(canvas, some, annotation)
        return canvas.picture

    def _faces(self, canvas: Canvas, annotation: Annotation) -> list[Face]:
        points, track_id, maps = annotation.points_px, annotation.track_id, annotation.maps
        faces = []
        for row, box_px in enumerate(annotation.box_px):
            box = Rect(*np.rint(box_px).astype(int).tolist())
            track = None if track_id is None else int(track_id[row])
            faces.append(
                Face(
                    box=box,
                    points_px=() if points is None else points[row].tolist(),
                    track_id=track,
                    probs=annotation.probs[row],
                    emotion=int(annotation.emotion[row]),
                    map=maps[row] if maps else None,
                    text_px=self._steady_text_px(canvas, annotation, track, box),
                )
            )
        return faces

    def _steady_text_px(
        self, canvas: Canvas, annotation: Annotation, track: int | None, box: Rect
    ) -> int:
        """Size of the text at a face: as before, unless that is clearly too small or too large."""
        text_px = _text_px(canvas.unit, annotation, box.y2 - box.y1)
        before = text_px if track is None else self._text_px.setdefault(track, text_px)
        if 0.75 * before < text_px < 1.33 * before:
            return before
        if track is not None:
            self._text_px[track] = text_px
        return text_px


def _text_px(unit: float, annotation: Annotation, face_px: float) -> int:
    n_faces = annotation.n_faces_around
    part = 1.0 if n_faces <= 2 else _MANY if annotation.has_many_faces else _SOME
    full = _TEXT_SIZE * unit * part
    return max(round(min(max(0.18 * face_px, 0.65 * full), full)), SMALLEST_TEXT_PX)
