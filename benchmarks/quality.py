"""Accuracy of the classifier on faces of every quality, and what measuring it costs.

python -m benchmarks.quality --data FERPLUS

FERPLUS is the folder of FER+, or the file that it was packed into. Only validation pictures are
used: thresholds are chosen from these tables.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import torch

from benchmarks.crops import framed
from benchmarks.detectors import build
from benchmarks.measuring import DETECTORS, machine, parse_data, write_page
from fer_batch.config import Quality as Limits
from fer_batch.config import load
from fer_batch.datasets.pictures import Pictures, load_data
from fer_batch.faces.crop import crop
from fer_batch.faces.detectors import Detector
from fer_batch.faces.quality import measure
from fer_batch.models.card import find_card, find_weights
from fer_batch.models.classifier import Classifier
from fer_batch.records import Bools, Bytes, Faces, Floats

N_DEGRADED = 600
FACE_PX = 192
"""Side of the enlarged pictures in their frames."""

Change = Callable[[Bytes], Bytes]


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """Faces that were found again, one for each of M pictures."""

    is_right: Bools
    measures: Mapping[str, Floats]

    def __add__(self, other: Found) -> Found:
        measures = {
            name: np.concatenate([mine, other.measures[name]])
            for name, mine in self.measures.items()
        }
        return Found(np.concatenate([self.is_right, other.is_right]), measures)


def blurred(frame: Bytes, share: float) -> Bytes:
    """Out of focus: a Gaussian whose sigma is a share of the face."""
    return cv2.GaussianBlur(frame, (0, 0), share * FACE_PX)


def lit(frame: Bytes, factor: float) -> Bytes:
    """Darker, or brighter until it is white."""
    return np.clip(frame * np.float32(factor) + 0.5, 0, 255).astype(np.uint8)


def shrunk(frame: Bytes, face_px: int) -> Bytes:
    """The face so small."""
    scale = face_px / FACE_PX
    return cv2.resize(frame, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)


def beyond(frame: Bytes, share: float) -> Bytes:
    """The left side of the face cut off by the edge of the frame."""
    edge = (frame.shape[1] - FACE_PX) // 2
    return np.ascontiguousarray(frame[:, edge + round(share * FACE_PX) :])


def turned(frame: Bytes, angle_deg: float) -> Bytes:
    """The frame turned around its centre, clockwise."""
    height, width = frame.shape[:2]
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), -angle_deg, 1)
    return cv2.warpAffine(frame, turn, (width, height), borderMode=cv2.BORDER_REPLICATE)


def degraded(change: Callable[..., Bytes], amounts: Sequence[float]) -> list[Change]:
    """The change by each amount."""
    return [partial(change, **{change.__code__.co_varnames[1]: amount}) for amount in amounts]


FAMILIES: dict[str, tuple[list[Change], Sequence[float]]] = {
    "size_px": (
        degraded(shrunk, (6, 8, 10, 12, 16, 20, 24, 32, 48, 96)),
        (0, 8, 10, 12, 16, 20, 24, 32, 48),
    ),
    "sharpness": (
        degraded(blurred, (0.005, 0.01, 0.02, 0.03, 0.04, 0.06, 0.08)),
        (0, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3, 0.5),
    ),
    "brightness": (
        degraded(lit, (0.02, 0.04, 0.08, 0.15, 0.3, 0.6, 1, 1.5, 2, 3, 4)),
        (0, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 0.9, 0.95),
    ),
    "edge_share": (degraded(beyond, (0, 0.1, 0.2, 0.3, 0.4, 0.5)), (0, 0.01, 0.1, 0.2, 0.3, 0.4)),
    "roll_deg": (
        degraded(turned, (-75, -60, -45, -30, -15, 0, 15, 30, 45, 60, 75)),
        (0, 10, 20, 30, 40, 50, 60),
    ),
    "yaw_deg": ([np.asarray], (0, 10, 20, 30, 40, 50)),
    "pitch_deg": ([np.asarray], (0, 5, 10, 15, 20, 30)),
}
"""By measure, how pictures are changed, and the edges of the rows of its table."""


def look(detector: Detector, classifier: Classifier, pictures: Pictures, change: Change) -> Found:
    """What becomes of changed pictures in which exactly one face is found.

    In small pictures it is where it was found in the large ones: detectors differ most in them.
    """
    whole = framed(pictures.pixels)
    frames = [change(frame) for frame in whole]
    is_smaller = len(frames[0]) < len(whole[0])
    faces: Faces = detector.detect(whole if is_smaller else frames)
    alone = np.bincount(faces.frame_row, minlength=len(frames)) == 1
    faces = faces.take(alone[faces.frame_row])
    if is_smaller:
        scale = np.float32(len(frames[0]) / len(whole[0]))
        faces = replace(faces, box_px=faces.box_px * scale, points_px=faces.points_px * scale)
    probs = classifier(crop(frames, faces, classifier.card))
    quality = measure(frames, faces, classifier.card, Limits())
    true = pictures.targets.argmax(axis=1)[faces.frame_row]
    measures = {name: abs(getattr(quality, name)) for name in FAMILIES}
    return Found(probs.argmax(axis=1) == true, measures)


def table(name: str, found: Found, n: int) -> Iterator[str]:
    """Accuracy against one measure."""
    values, edges = found.measures[name], FAMILIES[name][1]
    yield from ("", f"## {name}", "")
    yield f"{len(values):,} of {n:,} pictures have exactly one face."
    yield ""
    yield f"| {name} | faces | right | 95% interval |"
    yield "|:--|--:|--:|--:|"
    for low, high in zip(edges, (*edges[1:], np.inf), strict=True):
        right = found.is_right[(values >= low) & (values < high)]
        if len(right):
            half = 1.96 * np.sqrt(right.mean() * (1 - right.mean()) / len(right))
            span = f"{low:g} to {high:g}" if high < np.inf else f"from {low:g}"
            yield f"| {span} | {len(right):,} | {right.mean():.1%} | ± {half:.1%} |"


def cost(side_px: int, with_points: bool) -> float:
    """CPU microseconds per face."""
    rng = np.random.default_rng(0)
    frame = rng.integers(0, 256, (720, 1280, 3), np.uint8)
    n = 400
    corner = rng.uniform(0, 700 - side_px, (n, 2)).astype(np.float32)
    face = np.array([[0.3, 0.4], [0.7, 0.4], [0.5, 0.6], [0.35, 0.8], [0.65, 0.8]], np.float32)
    noise = rng.normal(0, 0.02, (n, 5, 2)).astype(np.float32)
    faces = Faces(
        frame_row=np.zeros(n, np.int64),
        box_px=np.hstack([corner, corner + side_px]).astype(np.float32),
        score=np.ones(n, np.float32),
        points_px=corner[:, None] + side_px * (face + noise) if with_points else None,
    )
    card = find_card("default")
    began = time.process_time()
    measure([frame], faces, card, Limits())
    return 1e6 * (time.process_time() - began) / n


def page(ferplus: Path) -> Iterator[str]:
    """The lines of the document."""
    weights = find_weights("default")
    yield "# Accuracy on faces of every quality"
    yield ""
    yield from machine()
    yield f"`{weights.stem}` and YuNet on validation pictures of FER+, enlarged to {FACE_PX} pixels"
    yield "and set into a frame of their repeated edge: all of them for yaw and pitch, as they are;"
    yield f"the first {N_DEGRADED:,} of them for each degree of the other changes. Right: the"
    yield "strongest emotion is the one that most people saw. Angles are without sign. Faces are"
    yield "found again in the changed pictures, except in the small ones: there they are known."
    classifier = Classifier(weights, torch.device("cpu"), batch_size=64, flip=False)
    detector = build(load(None, DETECTORS["yunet"]))
    pictures = load_data("ferplus", ferplus, size_px=48, splits=("valid",)).pictures["valid"]
    some = pictures.where(np.arange(len(pictures)) < N_DEGRADED)
    for name, (changes, _) in FAMILIES.items():
        used = pictures if len(changes) == 1 else some
        found, *more = (look(detector, classifier, used, change) for change in changes)
        for each in more:
            found += each
        yield from table(name, found, len(used) * len(changes))
    yield from ("", "## Cost", "", "| face | points | CPU µs per face |", "|:--|:--|--:|")
    for side_px in (48, 192, 640):
        for with_points in (False, True):
            micros = cost(side_px, with_points)
            yield f"| {side_px} px | {'five' if with_points else 'none'} | {micros:.0f} |"


def main() -> None:
    """Measure and write."""
    data = parse_data(__doc__)
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    write_page("quality", page(data))


if __name__ == "__main__":
    main()
