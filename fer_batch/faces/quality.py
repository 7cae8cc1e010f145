"""How good faces are for classification: size, sharpness, brightness, pose, how much is outside.

Probabilities are as good as the picture of a face is. Nothing here looks at them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from fer_batch.config import Quality as Limits
from fer_batch.faces.crop import cut_box, squares
from fer_batch.faces.similarity import CENTRE
from fer_batch.models.card import Card
from fer_batch.records import Bools, Faces, Floats, Frames, Quality

SIDE_PX = 48
"""Size at which sharpness is measured: that of FER's pictures, as more cannot help a classifier."""
ENOUGH = 4
"""Pixels of a face in each direction for one pixel at that size; of larger faces some are left out.
"""
FACE_CM = (
    (-3.151, -2.625, -3.466),
    (3.151, -2.625, -3.466),
    (0.0, 1.127, -7.476),
    (-2.456, 4.343, -4.284),
    (2.456, 4.343, -4.284),
)
"""Right eye, left eye, nose, right and left corner of the mouth of a generic face: right, down and
away from the camera that it looks at. Vertices of MediaPipe's canonical face model (Apache 2.0): 1,
61, 291, and the middles of 33 and 133, 263 and 362."""
DISTANCE_CM = 100.0
"""From the camera to a face, as it is not known: the angles hardly depend on it."""
FLATTEST = 0.02
"""Points that are narrower than this, in sides of their box, lie on a line: they tell no pose."""
_GRID = 16
_ANGLES = ("yaw_deg", "pitch_deg", "roll_deg")


def measure(frames: Frames, faces: Faces, card: Card, limits: Limits) -> Quality:
    """Measure faces.

    - ``size_px``: the longer side of the box.
    - ``sharpness``: the variance of the Laplacian (Pech-Pacheco et al., 2000) of the square around
      the box, in grey, resized to 48x48 and divided by its variance: it depends neither on the size
      nor on light and contrast.
    - ``brightness``: the mean of the same square (BT.601 luma), as a fraction of white.
    - ``yaw_deg``, ``pitch_deg``, ``roll_deg``: the rotation of a generic face, which
      `cv2.solvePnP` (SQPnP, Terzakis & Lourakis, 2020) finds from the five points, as seen by a
      camera that looks straight at it: first up or down, then to a side, then tilted in the
      picture. NaN for faces without points, and where the points tell no pose.
    - ``edge_share``: how much of the square that the classifier gets lies outside the frame.

    Args:
        frames: Upright pictures.
        faces: M faces; ``frame_row`` is the position in `frames`.
        card: Says how faces are cut out for the classifier.
        limits: What ``is_usable`` depends on.

    Raises:
        ValueError: The card wants points and the faces have none.
    """
    sharpness, brightness = _sharpness_and_brightness(frames, faces)
    measures = {
        "size_px": (faces.box_px[:, 2:] - faces.box_px[:, :2]).max(axis=1, initial=0),
        "sharpness": sharpness,
        "brightness": brightness,
        **dict(zip(_ANGLES, _angles_deg(faces).T, strict=True)),
        "edge_share": _edge_share(frames, faces, card),
    }
    too_bad = np.any([*unusable(measures, limits).values()], axis=0)
    return Quality(**measures, is_usable=~too_bad)


def unusable(measures: Mapping[str, Any], limits: Limits) -> dict[str, Bools]:
    """Which faces are not usable, by reason; a missing measure is no reason.

    Args:
        measures: The fields of a `Quality`, or the columns of the table ``faces``.
        limits: The section ``quality`` of the configuration.
    """

    def of(name: str) -> Floats:
        return np.asarray(measures[name], np.float32)

    return {
        "small": of("size_px") < limits.min_size_px,
        "blurred": of("sharpness") < limits.min_sharpness,
        "dark": of("brightness") < limits.min_brightness,
        "bright": of("brightness") > limits.max_brightness,
        "turned to a side": abs(of("yaw_deg")) > limits.max_yaw_deg,
        "turned up or down": abs(of("pitch_deg")) > limits.max_pitch_deg,
        "tilted": abs(of("roll_deg")) > limits.max_roll_deg,
        "beyond the edge": of("edge_share") > limits.max_edge_share,
    }


def _sharpness_and_brightness(frames: Frames, faces: Faces) -> tuple[Floats, Floats]:
    sharpness, brightness = np.empty((2, len(faces)), np.float32)
    size_px = (faces.box_px[:, 2:] - faces.box_px[:, :2]).max(axis=1)
    steps = np.maximum(1, size_px / (ENOUGH * SIDE_PX)).astype(int).tolist()
    for row, (frame_row, box) in enumerate(zip(faces.frame_row, faces.box_px, strict=True)):
        step = steps[row]
        grey = cut_box(frames[int(frame_row)][::step, ::step], box / step, 0, SIDE_PX)
        mean, contrast = cv2.meanStdDev(grey)
        _, detail = cv2.meanStdDev(cv2.Laplacian(grey, cv2.CV_32F))
        sharpness[row] = (detail / contrast).item() ** 2 if contrast.item() else 0
        brightness[row] = mean.item() / 255
    return sharpness, brightness


def _angles_deg(faces: Faces) -> Floats:
    """Yaw, pitch and roll (M, 3)."""
    angles = np.full((len(faces), 3), np.nan, np.float32)
    if faces.points_px is None:
        return angles
    model = np.array(FACE_CM)
    model -= model.mean(axis=0)
    with np.errstate(invalid="ignore"):  # points may be infinite
        points = faces.points_px - faces.points_px.mean(axis=1, keepdims=True)
    for row in np.flatnonzero(_has_pose(points, faces)):
        focal_px = DISTANCE_CM * _radius(points[row]) / _radius(model)
        camera = np.diag([focal_px, focal_px, 1])
        found, turn, _ = cv2.solvePnP(model, points[row], camera, None, flags=cv2.SOLVEPNP_SQPNP)
        if found:
            angles[row] = _yaw_pitch_roll(np.asarray(cv2.Rodrigues(turn)[0]))
    return angles


def _radius(points: NDArray[np.floating]) -> float:
    """Root of the mean squared distance of points (5, D) from their mean, which is 0."""
    return float(np.sqrt((points**2).sum(axis=-1).mean()))


def _has_pose(points: Floats, faces: Faces) -> Bools:
    """Whether points (M, 5, 2) around 0 are finite and do not lie on a line."""
    with np.errstate(invalid="ignore", over="ignore"):
        xx, xy, yy = (
            (points[..., one] * points[..., other]).mean(axis=1)
            for one, other in ((0, 0), (0, 1), (1, 1))
        )
        narrow_px2 = (xx + yy) / 2 - np.hypot((xx - yy) / 2, xy)  # smaller eigenvalue
        side_px = (faces.box_px[:, 2:] - faces.box_px[:, :2]).max(axis=1)
        has_pose: Bools = (narrow_px2 > (FLATTEST * side_px) ** 2) & np.isfinite(narrow_px2)
    return has_pose


def _yaw_pitch_roll(turn: NDArray[Any]) -> tuple[float, float, float]:
    """Angles in degrees of a rotation ``roll @ yaw @ pitch``, the last of which comes first."""
    yaw = np.arcsin(np.clip(turn[2, 0], -1, 1))
    pitch = -np.arctan2(turn[2, 1], turn[2, 2])
    roll = np.arctan2(turn[1, 0], turn[0, 0])
    return tuple(np.degrees([yaw, pitch, roll]).tolist())


def _edge_share(frames: Frames, faces: Faces, card: Card) -> Floats:
    """Of the points of a grid in each square, the share that lies outside the frame."""
    at = (np.arange(_GRID) + 0.5) / _GRID
    grid = (at + 1j * at[:, None]).ravel()[None] - CENTRE
    size_px = np.array([frame.shape[1::-1] for frame in frames], np.float64).reshape(-1, 2)
    width, height = size_px[faces.frame_row].T[..., None]
    places = squares(faces, card)(grid)
    x, y = places.real, places.imag
    share: Floats = ((x < 0) | (x > width) | (y < 0) | (y > height)).mean(axis=1, dtype=np.float32)
    return share
