"""Detectors measured on pictures whose faces are known."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from fer_batch.datasets.face_boxes import FacePicture
from fer_batch.faces.tracking import iou
from fer_batch.records import Bools, Faces, Floats

SAME = 0.5
"""Overlap from which two boxes mean the same face."""


@dataclass(frozen=True, slots=True, eq=False)
class Matches:
    """What a detector found in pictures, compared with what is there."""

    score: Floats
    """(M,) of the boxes that it found, but those that are neither right nor wrong."""
    is_right: Bools
    """(M,) whether a box is that of a face, which no box of a higher score has found."""
    face_px: Floats
    """(F,) longer side of the faces that are there."""
    found_score: Floats
    """(F,) score of the box that found each face, -inf if none did."""
    point_error: Floats
    """(F,) mean distance of its points from where they should be, divided by `face_px`; NaN where
    no box found it, or no points are known."""

    def recall(self, min_score: float, from_px: float = 0, below_px: float = np.inf) -> float:
        """Share of the faces of a size that are found with this score or more; NaN if none is."""
        chosen = (self.face_px >= from_px) & (self.face_px < below_px)
        found = self.found_score[chosen] >= min_score
        return float(found.mean()) if len(found) else np.nan

    def n_wrong(self, min_score: float) -> int:
        """Number of boxes of this score or more that are no faces."""
        return int((~self.is_right & (self.score >= min_score)).sum())

    def average_precision(self) -> float:
        """Area below the curve of precision over recall, as for COCO (Lin et al., 2014)."""
        is_right = self.is_right[np.argsort(-self.score, kind="stable")]
        n_right = np.cumsum(is_right)
        precision = n_right / np.arange(1, len(is_right) + 1)
        best = np.maximum.accumulate(precision[::-1])[::-1]
        return float(best[is_right].sum() / max(1, len(self.face_px)))

    def typical_point_error(self) -> float:
        """Median of `point_error`; NaN if none is known."""
        known = self.point_error[np.isfinite(self.point_error)]
        return float(np.median(known)) if len(known) else np.nan


def compare(pictures: Iterable[tuple[FacePicture, Faces]]) -> Matches:
    """Compare what a detector found in each picture with what is there."""
    parts = [_compare(picture, faces) for picture, faces in pictures]
    return Matches(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _compare(picture: FacePicture, faces: Faces) -> tuple[Floats, Bools, Floats, Floats, Floats]:
    overlap = iou(faces.box_px, picture.box_px)
    is_right = np.zeros(len(faces), np.bool_)
    is_counted = np.ones(len(faces), np.bool_)
    found_score = np.full(len(picture.box_px), -np.inf, np.float32)
    error = np.full(len(picture.box_px), np.nan, np.float32)
    side = (picture.box_px[:, 2:] - picture.box_px[:, :2]).max(axis=1, initial=0)
    for row in np.argsort(-faces.score, kind="stable"):
        free = np.where(picture.is_sure & np.isinf(found_score), overlap[row], 0)
        if free.max(initial=0) >= SAME:
            face = int(free.argmax())
            is_right[row] = True
            found_score[face] = faces.score[row]
            if faces.points_px is not None:
                shift = faces.points_px[row] - picture.points_px[face]
                error[face] = np.linalg.norm(shift, axis=1).mean() / side[face]
        else:
            unsure = np.where(picture.is_sure, 0, _share_inside(faces.box_px[row], picture.box_px))
            is_counted[row] = unsure.max(initial=0) < SAME
    sure = picture.is_sure
    return (
        faces.score[is_counted],
        is_right[is_counted],
        side[sure],
        found_score[sure],
        error[sure],
    )


def _share_inside(box: Floats, boxes: Floats) -> Floats:
    """The share of a box that is in each of other boxes (F, 4)."""
    shared = np.minimum(box[2:], boxes[:, 2:]) - np.maximum(box[:2], boxes[:, :2])
    share: Floats = np.clip(shared, 0, None).prod(axis=1) / max((box[2:] - box[:2]).prod(), 1e-6)
    return share
