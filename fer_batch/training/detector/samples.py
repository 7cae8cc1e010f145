"""Crops to train a detector on: cut out of pictures, put together, changed in colour."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TypeVar

import cv2
import numpy as np
from numpy.random import Generator
from torch.utils.data import Dataset

from fer_batch.datasets.face_boxes import FacePicture
from fer_batch.datasets.samples import DatasetError
from fer_batch.records import Bools, Bytes, Floats
from fer_batch.training.detector.recipe import Colour, DetectorRecipe, Geometry, Phase

_Choice = TypeVar("_Choice")
SHRUNK = {
    1: cv2.IMREAD_COLOR,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    8: cv2.IMREAD_REDUCED_COLOR_8,
}
"""How JPEGs are decoded at a fraction of their size."""
SMALLEST_PX = 6
"""Smaller faces are neither right nor wrong."""
MIN_VISIBLE = 0.6
"""Share of a box that must be inside a crop, else the face is neither right nor wrong."""
MAX_ENLARGED = 2.0
MIRRORED = [1, 0, 2, 4, 3]
"""Which point each becomes in a mirror."""
SEPIA = np.array([[0.393, 0.769, 0.189], [0.349, 0.686, 0.168], [0.272, 0.534, 0.131]], np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class Crop:
    """A training picture with its faces, which may reach beyond its edges."""

    rgb: Bytes
    """(S, S, 3) uint8."""
    box_px: Floats
    """(F, 4) float32."""
    points_px: Floats
    """(F, 5, 2) float32, NaN where unknown."""
    is_sure: Bools
    """(F,) False where a box is neither right nor wrong."""


class CropDataset(Dataset[Crop]):
    """The crops of a training: the same for a number, whoever asks for it.

    Args:
        pictures: What crops are cut out of.
        recipe: How.
        phase: Number of the phase.

    Raises:
        DatasetError: There is no picture of a kind that the recipe names; or, by a crop, a picture
            cannot be decoded.
    """

    def __init__(self, pictures: Sequence[FacePicture], recipe: DetectorRecipe, phase: int) -> None:
        self._recipe = recipe
        self._number = phase
        self._phase: Phase = recipe.phases[phase]
        self._pictures = {
            kind: [picture for picture in pictures if picture.kind == kind]
            for kind in recipe.geometry.kinds
        }
        missing = [kind for kind, members in self._pictures.items() if not members]
        if missing:
            raise DatasetError(
                f"no {missing[0]} among the pictures of the training: leave it out of "
                "geometry.kinds"
            )
        self._faceless = [picture for picture in pictures if not len(picture.box_px)]

    def __len__(self) -> int:
        return self._phase.steps * self._phase.batch_size

    def __getitem__(self, number: int) -> Crop:
        random = np.random.default_rng([self._recipe.seed, self._number, number])
        geometry = self._recipe.geometry
        n = int(_draw(geometry.grids, random))
        edges = np.linspace(0, self._phase.crop_px, n + 1).round().astype(int)
        parts = []
        for top, bottom in pairwise(edges):
            for left, right in pairwise(edges):
                part = self._cut(self._choose(random), (right - left, bottom - top), random)
                parts.append(_shifted(part, left, top))
        rgb = np.vstack(
            [np.hstack([part.rgb for part in parts[row * n : row * n + n]]) for row in range(n)]
        )
        return Crop(
            _recoloured(rgb, self._recipe.colour, random),
            np.concatenate([part.box_px for part in parts]),
            np.concatenate([part.points_px for part in parts]),
            np.concatenate([part.is_sure for part in parts]),
        )

    def _choose(self, random: Generator) -> FacePicture:
        pictures = self._pictures[_draw(self._recipe.geometry.kinds, random)]
        return pictures[random.integers(len(pictures))]

    def _cut(self, picture: FacePicture, size: tuple[int, int], random: Generator) -> Crop:
        """A part of a picture; where the picture ends, a faceless one or a colour goes on."""
        geometry = self._recipe.geometry
        canvas = np.full((*size[::-1], 3), random.integers(0, 256, 3), np.uint8)
        matrix = _view(picture, size, geometry, random)
        if self._faceless and random.random() < geometry.on_background:
            behind = self._faceless[random.integers(len(self._faceless))]
            _draw_picture(behind, _view(behind, size, geometry, random), canvas)
        _draw_picture(picture, matrix, canvas)
        return _labelled(picture, matrix, canvas)


def read_picture(picture: FacePicture, *, shrink: int = 1) -> Bytes:
    """The pixels (H, W, 3) uint8, RGB, of a picture shrunk to 1/1, 1/2, 1/4 or 1/8.

    Raises:
        DatasetError: It cannot be decoded, or has another size than `picture.size_px`.
    """
    bgr = cv2.imdecode(np.frombuffer(picture.jpeg, np.uint8), SHRUNK[shrink])
    if bgr is None:
        raise DatasetError(f"{picture.name}: is not a picture, or is damaged")
    if shrink == 1 and bgr.shape[1::-1] != tuple(picture.size_px):
        raise DatasetError(f"{picture.name}: has not the size that pictures.csv says")
    return np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8)


def _draw(shares: Mapping[_Choice, float], random: Generator) -> _Choice:
    """One of the keys, as often as its share of all says."""
    weights = np.array(list(shares.values()))
    return list(shares)[random.choice(len(shares), p=weights / weights.sum())]


def _labelled(picture: FacePicture, matrix: Floats, rgb: Bytes) -> Crop:
    """A part of a picture with the faces that are in it."""
    turn = matrix[:, :2]
    is_mirrored = np.linalg.det(turn) < 0
    centre = picture.box_px.reshape(-1, 2, 2).mean(axis=1) @ turn.T + matrix[:, 2]
    # A tilted face has a box between the upright one and the one on its side.
    extent = (picture.box_px[:, 2:] - picture.box_px[:, :2]) @ (
        turn.T**2 / math.sqrt(abs(np.linalg.det(turn)))
    )
    box_px = np.hstack([centre - extent / 2, centre + extent / 2]).astype(np.float32)
    points_px = (picture.points_px @ turn.T + matrix[:, 2]).astype(np.float32)
    shown = np.clip(box_px, 0, np.tile(rgb.shape[1::-1], 2))
    visible = (shown[:, 2:] - shown[:, :2]).prod(axis=1) / extent.prod(axis=1)
    is_sure = picture.is_sure & (visible >= MIN_VISIBLE) & (extent.min(axis=1) >= SMALLEST_PX)
    inside = visible > 0
    return Crop(
        rgb,
        box_px[inside],
        (points_px[:, MIRRORED] if is_mirrored else points_px)[inside],
        is_sure[inside],
    )


def _view(
    picture: FacePicture, size: tuple[int, int], geometry: Geometry, random: Generator
) -> Floats:
    """Matrix (2, 3) that takes the picture's pixels to those of a part of this size."""
    side = max(size)
    whole = np.array(picture.size_px, float)
    faces = np.flatnonzero(picture.is_sure)
    if len(faces) and random.random() < geometry.follow_face:
        box = picture.box_px[random.choice(faces)]
        low, high = geometry.face_px
        wanted_px = math.exp(random.uniform(math.log(low), math.log(min(high, side))))
        scale = wanted_px / float((box[2:] - box[:2]).max())
        source = (box[:2] + box[2:]) / 2
        target = random.uniform(0.1, 0.9, 2) * size
    else:
        scale = side / (whole.min() * random.uniform(0.4, 1.3))
        reach = np.minimum(side / scale, whole) / 2
        source = random.uniform(reach, whole - reach)
        target = np.array(size) / 2
    scale = min(max(scale, side / (3 * whole.max())), MAX_ENLARGED)
    is_tilted = random.random() < geometry.tilted
    angle = math.radians(random.uniform(-geometry.tilt_deg, geometry.tilt_deg) * is_tilted)
    mirror = np.diag([random.choice([-1.0, 1.0]), 1.0])
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    turn = scale * turn @ mirror
    return np.column_stack([turn, target - turn @ source])


def _draw_picture(picture: FacePicture, matrix: Floats, canvas: Bytes) -> None:
    """Draw what `matrix` shows of a picture; the rest of the canvas stays as it is."""
    scale = math.sqrt(abs(np.linalg.det(matrix[:, :2])))
    rgb = read_picture(picture, shrink=max(n for n in SHRUNK if n * scale <= 1 or n == 1))
    shrunk = scale * picture.size_px[0] / rgb.shape[1]
    if shrunk < 0.75:
        size = np.maximum(1, np.round(np.array(rgb.shape[1::-1]) * shrunk)).astype(int)
        rgb = np.asarray(cv2.resize(rgb, size.tolist(), interpolation=cv2.INTER_AREA), np.uint8)
    turn = matrix[:, :2] @ np.diag(np.array(picture.size_px) / rgb.shape[1::-1])
    shift = turn @ [0.5, 0.5] + matrix[:, 2] - 0.5  # OpenCV counts from the centres of pixels
    cv2.warpAffine(
        rgb,
        np.column_stack([turn, shift]),
        canvas.shape[1::-1],
        dst=canvas,
        borderMode=cv2.BORDER_TRANSPARENT,
    )


def _recoloured(rgb: Bytes, shares: Colour, random: Generator) -> Bytes:
    """A crop as other cameras, light and files would show it."""
    pixels = rgb.astype(np.float32)
    if random.random() < shares.light:
        cast = random.uniform(-12, 12, 3) * (random.random() < 0.5)
        pixels = pixels * np.float32(random.uniform(0.5, 1.4))
        pixels += np.float32(random.uniform(-30, 30) + cast)
    if random.random() < shares.dark:
        pixels = pixels * np.float32(random.uniform(0.1, 0.4))
    if random.random() < shares.grey:
        pixels = np.repeat(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2)
    if random.random() < shares.sepia:
        pixels = pixels @ SEPIA.T
    if random.random() < shares.blur:
        pixels = _blurred(pixels, random)
    if random.random() < shares.coarse:
        height, width = pixels.shape[:2]
        factor = random.uniform(0.35, 0.8)
        small = cv2.resize(pixels, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
        pixels = np.asarray(cv2.resize(small, (width, height)), np.float32)
    if random.random() < shares.noise:
        grain = random.standard_normal(pixels.shape, dtype=np.float32)
        pixels = pixels + np.float32(random.uniform(2, 20)) * grain
    changed = np.clip(pixels, 0, 255).astype(np.uint8)
    if random.random() < shares.jpeg:
        quality = int(random.integers(15, 81))
        _, file = cv2.imencode(".jpg", changed, [cv2.IMWRITE_JPEG_QUALITY, quality])
        changed = np.asarray(cv2.imdecode(file, cv2.IMREAD_COLOR), np.uint8)
    return changed


def _blurred(pixels: Floats, random: Generator) -> Floats:
    if random.random() < 0.5:
        return np.asarray(cv2.GaussianBlur(pixels, (0, 0), random.uniform(0.5, 2.5)), np.float32)
    length = int(random.integers(3, 12))
    angle = random.uniform(0, math.pi)
    middle = (length - 1) / 2
    reach = middle * np.array([math.cos(angle), math.sin(angle)])
    start, end = (np.round(middle + sign * reach).astype(int).tolist() for sign in (-1, 1))
    line = np.zeros((length, length), np.float32)
    cv2.line(line, start, end, (1.0,))
    return np.asarray(cv2.filter2D(pixels, -1, line / line.sum()), np.float32)


def _shifted(crop: Crop, left: int, top: int) -> Crop:
    return replace(
        crop,
        box_px=crop.box_px + np.array([left, top, left, top], np.float32),
        points_px=crop.points_px + np.array([left, top], np.float32),
    )
