"""What a detector's outputs should be, and how far they are from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import generalized_box_iou_loss

from fer_batch.faces.detectors.glance_network import decode
from fer_batch.training.detector.samples import Crop

CANDIDATE_RADIUS = 2.5
"""A cell may learn a face if it is nearer than this many strides to the centre."""
MOST_CELLS = 10
"""Most cells that learn one face."""
LEAST_TARGET = 0.05
"""Score that a cell which learns a face should have, however small the overlap."""
IOU_WEIGHT = 3.0
"""Weight of the overlap in the cost of an assignment (Ge et al., 2021)."""
POINT_SCALE = 10.0
"""Errors of points, relative to the face, are multiplied by it: smooth L1 turns at 10 %."""


@dataclass(frozen=True, slots=True, eq=False)
class Faces:
    """The faces of a batch of crops."""

    crop: Tensor
    """(G,) int64, the crop that each face is in."""
    box_px: Tensor
    """(G, 4)."""
    points_px: Tensor
    """(G, 5, 2), NaN where unknown."""


@dataclass(frozen=True, slots=True, eq=False)
class Losses:
    """Means over the cells that learn a face; each a scalar."""

    score: Tensor
    box: Tensor
    points: Tensor


def batch_faces(crops: Sequence[Crop], device: torch.device) -> tuple[Faces, Faces]:
    """The faces of crops, and what is neither a face nor none."""
    row = torch.arange(len(crops)).repeat_interleave(
        torch.tensor([len(crop.is_sure) for crop in crops])
    )
    box_px, points_px, is_sure = (
        torch.from_numpy(np.concatenate([getattr(crop, name) for crop in crops]))
        for name in ("box_px", "points_px", "is_sure")
    )
    found, unsure = (
        Faces(*(column[chosen].to(device) for column in (row, box_px, points_px)))
        for chosen in (is_sure, ~is_sure)
    )
    return found, unsure


def measure(outputs: Tensor, cells: Tensor, faces: Faces, ignored: Faces) -> Losses:
    """The losses of a batch of outputs.

    They are quality focal loss on scores (Li et al., 2020), whose targets are the overlaps of the
    boxes; generalised IoU on boxes (Rezatofighi et al., 2019); and smooth L1 on points.

    Args:
        outputs: (B, K, 15) of the network.
        cells: (K, 3) of the crops.
        faces: What is to be found.
        ignored: Cells in these boxes may have any score.
    """
    logits, boxes, points = decode(outputs, cells)
    face, cell = _assign(logits.detach(), boxes.detach(), cells, faces)
    crop = faces.crop[face]
    targets = torch.zeros_like(logits)
    counted = ~_inside(cells, ignored, len(logits))
    counted[crop, cell] = True
    n = max(1, len(face))
    box = generalized_box_iou_loss(boxes[crop, cell], faces.box_px[face], reduction="none")
    targets[crop, cell] = _iou(boxes[crop, cell].detach(), faces.box_px[face]).clamp(
        min=LEAST_TARGET
    )
    distance = (torch.sigmoid(logits) - targets) ** 2
    score = F.binary_cross_entropy_with_logits(logits, targets, reduction="none") * distance
    side = (faces.box_px[face, 2:] - faces.box_px[face, :2]).amax(1)[:, None, None]
    error = (points[crop, cell] - faces.points_px[face]) / side * POINT_SCALE
    error = error[error.isfinite()]
    return Losses(
        (score * counted).sum() / n,
        box.sum() / n,
        F.smooth_l1_loss(error, torch.zeros_like(error), reduction="sum") / max(1, len(error)),
    )


def _assign(logits: Tensor, boxes: Tensor, cells: Tensor, faces: Faces) -> tuple[Tensor, Tensor]:
    """Faces and cells that belong together, by SimOTA (Ge et al., 2021).

    Each face takes the cells with the lowest cost, as many as the sum of its best overlaps says. A
    cell that several faces want takes the one with the lowest cost.
    """
    if not len(faces.crop):
        empty = faces.crop
        return empty, empty
    centre = (faces.box_px[:, :2] + faces.box_px[:, 2:]) / 2
    offset = (cells[None, :, :2] - centre[:, None]).abs().amax(-1)
    is_near = offset < CANDIDATE_RADIUS * cells[None, :, 2]
    overlap = _iou(boxes[faces.crop], faces.box_px[:, None])
    cost = F.softplus(-logits[faces.crop]) - IOU_WEIGHT * torch.log(overlap + 1e-7)
    cost = cost.masked_fill(~is_near, torch.inf)
    overlap = overlap.masked_fill(~is_near, 0)
    best = overlap.topk(min(MOST_CELLS, len(cells)), dim=1).values
    n_cells = best.sum(1).int().clamp(min=1)
    ranked, order = cost.topk(best.shape[1], dim=1, largest=False)
    rank = torch.arange(best.shape[1], device=cost.device)
    face, place = torch.nonzero((rank < n_cells[:, None]) & ranked.isfinite(), as_tuple=True)
    cell = order[face, place]
    wanted = torch.full_like(logits, torch.inf)
    key = faces.crop[face] * logits.shape[1] + cell
    wanted.view(-1).scatter_reduce_(0, key, ranked[face, place], "amin")
    is_cheapest = ranked[face, place] == wanted.view(-1)[key]
    return face[is_cheapest], cell[is_cheapest]


def _inside(cells: Tensor, faces: Faces, n_crops: int) -> Tensor:
    """(n_crops, K) True for cells whose centre is in one of the boxes of their crop."""
    x, y = cells[:, 0], cells[:, 1]
    left, top, right, bottom = (faces.box_px[:, side, None] for side in range(4))
    inside = (x >= left) & (x <= right) & (y >= top) & (y <= bottom)
    found = torch.zeros(n_crops, len(cells), dtype=torch.bool, device=cells.device)
    face, cell = torch.nonzero(inside, as_tuple=True)
    found[faces.crop[face], cell] = True
    return found


def _iou(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union of boxes (..., 4)."""
    shared = (
        (torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2]))
        .clamp(min=0)
        .prod(-1)
    )
    area_a, area_b = ((box[..., 2:] - box[..., :2]).prod(-1) for box in (a, b))
    return shared / (area_a + area_b - shared + 1e-7)
