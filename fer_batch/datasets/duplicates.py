"""Search for duplicates: pictures with the same pixels, or other copies of the same photograph.

Copies of a photograph differ in brightness, contrast, compression, watermark and, because a face
detector cut them out, by a few pixels of position. Therefore local contrast is compared (each pixel
minus the mean of its surroundings, divided by their deviation; as in Jarrett et al., 2009), by
normalised correlation at the best small shift: first all pictures coarsely, then the best few
closely.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from fer_batch.records import Bools, Bytes, Floats, Ints

COMPARED_PX = 48
"""Pictures of any size are compared at this size."""
COARSE_PX = 12
COARSE_SIGMA_PX = 8.0
COARSE_CORRELATION = 0.5
N_CANDIDATES = 8
"""The coarse comparison keeps at most eight pictures of at least this correlation. Of the 1,837
training pictures of FER+ with a copy that one of seven coarse methods found, it keeps 1,822."""
SIGMA_PX = 3.0
SHIFT_PX = 3
FINE_CORRELATION = 0.7
"""Two pictures of at least this correlation are the same photograph. In FER+, of 48 pairs from each
range: above 0.75 all are copies, from 0.7 to 0.75 all but 2, from 0.65 to 0.7 about half, below
few."""
NOISE = 5.0
"""Deviation in grey levels that is treated as noise."""
BLOCK = 512


@dataclass(frozen=True, slots=True, eq=False)
class Pairs:
    """Rows of pictures that show the same photograph."""

    first: Ints
    """(K,) int64, rows of the first set."""
    second: Ints
    """(K,) int64, rows of the second set."""
    is_equal: Bools
    """(K,) true: equal pixel by pixel; false: near-duplicates."""

    def __post_init__(self) -> None:
        if not len(self.first) == len(self.second) == len(self.is_equal):
            raise ValueError("first, second and is_equal must have the same length")

    def __len__(self) -> int:
        return len(self.first)


def find_pairs(pictures: Bytes, others: Bytes) -> Pairs:
    """Find pictures that also occur, equal, nearly equal or mirrored, in another set.

    Args:
        pictures: (N, S, S) uint8 grey.
        others: (M, S, S) uint8 grey.

    Returns:
        All equal pairs, then the near-duplicates: at most 8 for each of `pictures`.
    """
    equal = _equal(pictures, others)
    near = _near(pictures, others)
    near = near[(pictures[near[:, 0]] != others[near[:, 1]]).any(axis=(1, 2))]
    first, second = np.concatenate([equal, near]).T
    return Pairs(first, second, np.arange(len(first)) < len(equal))


def _equal(pictures: Bytes, others: Bytes) -> Ints:
    """Row pairs (K, 2)."""
    rows: dict[bytes, list[int]] = {}
    for row, other in enumerate(others):
        rows.setdefault(other.tobytes(), []).append(row)
    found = [
        (row, other)
        for row, picture in enumerate(pictures)
        for other in rows.get(picture.tobytes(), ())
    ]
    return np.array(found, np.int64).reshape(-1, 2)


def _near(pictures: Bytes, others: Bytes) -> Ints:
    """Row pairs (K, 2), equal pictures among them."""
    coarse, fine = _describe(pictures)
    their_coarse, their_fine = (
        np.concatenate([described, described[:, :, ::-1]]) for described in _describe(others)
    )
    found = {
        (row, other % len(others))
        for row, other in _candidates(coarse, their_coarse)
        if _correlation(fine[row], their_fine[other]) >= FINE_CORRELATION
    }
    return np.array(sorted(found), np.int64).reshape(-1, 2)


def _describe(pictures: Bytes) -> tuple[Floats, Bytes]:
    """Local contrast: coarse (N, 12, 12), and fine (N, 48, 48), stored as 128 + 40 * contrast."""
    coarse = np.empty((len(pictures), COARSE_PX, COARSE_PX), np.float32)
    fine = np.empty((len(pictures), COMPARED_PX, COMPARED_PX), np.uint8)
    for row, picture in enumerate(pictures):
        if picture.shape != (COMPARED_PX, COMPARED_PX):
            picture = cv2.resize(picture, (COMPARED_PX, COMPARED_PX), interpolation=cv2.INTER_AREA)
        coarse[row] = cv2.resize(
            _local_contrast(picture, COARSE_SIGMA_PX),
            (COARSE_PX, COARSE_PX),
            interpolation=cv2.INTER_AREA,
        )
        fine[row] = np.clip(128 + 40 * _local_contrast(picture, SIGMA_PX), 0, 255)
    return coarse, fine


def _local_contrast(picture: Bytes, sigma_px: float) -> Floats:
    detail = picture - cv2.GaussianBlur(picture.astype(np.float32), (0, 0), sigma_px)
    variance = cv2.GaussianBlur(detail * detail, (0, 0), sigma_px)
    contrast: Floats = detail / np.sqrt(variance + NOISE * NOISE)
    return contrast


def _candidates(coarse: Floats, theirs: Floats) -> Iterator[tuple[int, int]]:
    """Row pairs to compare closely."""
    columns = _unit(theirs).T
    for start in range(0, len(coarse), BLOCK):
        correlation = _unit(coarse[start : start + BLOCK]) @ columns
        best = correlation.topk(min(N_CANDIDATES, len(theirs)))
        for row, rank in (best.values >= COARSE_CORRELATION).nonzero().tolist():
            yield start + row, int(best.indices[row, rank])


def _unit(coarse: Floats) -> Tensor:
    """Rows (N, D) of mean 0 and length 1; shorter for pictures without contrast."""
    rows = torch.from_numpy(coarse).flatten(1)
    return F.normalize(rows - rows.mean(dim=1, keepdim=True), eps=1)


def _correlation(picture: Bytes, other: Bytes) -> float:
    """Correlation of the middle of one picture with the best matching place in the other."""
    middle = slice(2 * SHIFT_PX, -2 * SHIFT_PX)
    around = slice(SHIFT_PX, -SHIFT_PX)
    fit = cv2.matchTemplate(other[around, around], picture[middle, middle], cv2.TM_CCOEFF_NORMED)
    return float(fit.max())
