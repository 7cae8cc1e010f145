"""What the classifier looks at, laid over the faces of a video."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

from fer_batch.explain.explainer import Explainer
from fer_batch.faces.crop import crop, squares
from fer_batch.faces.similarity import CENTRE, Similarity
from fer_batch.records import Bytes, Faces, Floats, FrameChunk
from fer_batch.render.painter import Annotation

_OPACITY = 0.75
"""Of the colours where a map is highest; where it is 0 the face is left alone."""


class Heat(NamedTuple):
    """The map of one face and where its crop was cut."""

    values: Floats
    """(S, S) float32 in [0, 1]."""
    box_px: Floats
    """(4,) x1 y1 x2 y2 of the face: only what is inside is coloured."""
    square: Similarity
    """Where the crop was cut; see `squares`."""

    def lay(self, frame: Bytes) -> None:
        """Colour the face, in place: the higher the map, the brighter and the less transparent.

        Args:
            frame: (H, W, 3) uint8 RGB.
        """
        height, width = frame.shape[:2]
        left, right = np.clip(self.box_px[::2].round(), 0, width).astype(int).tolist()
        top, bottom = np.clip(self.box_px[1::2].round(), 0, height).astype(int).tolist()
        under = frame[top:bottom, left:right]
        if not under.size:
            return
        side = len(self.values)
        inverse = self.square.inverse()
        corner = inverse.factor * complex(left, top) + inverse.shift
        to_values = Similarity(side * inverse.factor, side * (corner + CENTRE))
        values = cv2.warpAffine(
            self.values,
            to_values.matrix(),
            under.shape[1::-1],
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        )
        levels = np.rint(255 * values).astype(np.uint8)
        colours = cv2.cvtColor(cv2.applyColorMap(levels, cv2.COLORMAP_INFERNO), cv2.COLOR_BGR2RGB)
        share = _OPACITY * values[..., None]
        under[:] = np.rint(under + share * (colours.astype(np.float32) - under))


class Heatmaps:
    """Grad-CAM maps of the emotions that the labels name, steadied along their tracks."""

    def __init__(self, explainer: Explainer, smooth_s: float) -> None:
        """Nothing is seen yet.

        Args:
            explainer: Of the run's weights.
            smooth_s: Time constant over which the maps of a track are steadied; 0 is off.
        """
        self._explainer = explainer
        self._smooth_s = smooth_s
        self._last: dict[int, tuple[float, Floats]] = {}

    def look(self, chunk: FrameChunk, shown: Sequence[Annotation]) -> list[list[Heat]]:
        """The maps of the labelled faces of each frame.

        Args:
            chunk: Frames, later than those before.
            shown: What is drawn on each of them.
        """
        rows = [(n, m) for n, each in enumerate(shown) for m in np.flatnonzero(each.emotion >= 0)]
        points = [px[m] for n, m in rows if (px := shown[n].points_px) is not None]
        faces = Faces(
            frame_row=np.array([n for n, _ in rows], np.int64),
            box_px=_stack([shown[n].box_px[m] for n, m in rows], (4,)),
            score=np.full(len(rows), np.nan, np.float32),
            points_px=_stack(points, (5, 2)) if len(points) == len(rows) else None,
        )
        card = self._explainer.card
        emotion = np.array([shown[n].emotion[m] for n, m in rows], np.int64)
        maps = self._explainer.maps(crop(chunk.rgb, faces, card), emotion, "gradcam")
        heats: list[list[Heat]] = [[] for _ in shown]
        square = squares(faces, card)
        for row, ((n, m), values) in enumerate(zip(rows, maps, strict=True)):
            scaled = values / max(float(values.max()), 1e-6)
            tracks = shown[n].track_id
            if tracks is not None:
                scaled = self._steady(int(tracks[m]), scaled, float(chunk.pts_s[n]))
            heats[n].append(Heat(scaled, faces.box_px[row], square[row]))
        return heats

    def _steady(self, track: int, values: Floats, pts_s: float) -> Floats:
        before_s, before = self._last.get(track, (-math.inf, values))
        past = math.exp((before_s - pts_s) / self._smooth_s) if self._smooth_s else 0.0
        steady: Floats = values + past * (before - values)
        self._last[track] = pts_s, steady
        return steady


def _stack(rows: list[Floats], shape: tuple[int, ...]) -> Floats:
    return np.array(rows, np.float32).reshape(-1, *shape)
