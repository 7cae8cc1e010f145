"""Comparison of the detectors.

    python -m benchmarks.detectors [--data FERPLUS]

Pictures with annotated noses or boxes, clips and the weights of the detectors come from ../shared;
FERPLUS is the folder of FER+, or the file that it was packed into. Without it, two longer sections
are left out.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image, ImageOps

from benchmarks.haar import CLIPS, MEDIA, match, read_clip, read_noses
from benchmarks.measuring import DETECTORS, SHARED, write_page
from fer_batch.config import Config, load
from fer_batch.datasets.face_boxes import read_face_boxes
from fer_batch.datasets.pictures import load_data
from fer_batch.evaluation.detection import compare
from fer_batch.faces.detectors import Detector, build_detector
from fer_batch.faces.tracking import iou
from fer_batch.media import discovery
from fer_batch.media.decode import FrameReader
from fer_batch.pipeline.face_finder import FaceFinder, FoundFaces
from fer_batch.pipeline.lanes import Pending
from fer_batch.pipeline.stopwatch import Stopwatch
from fer_batch.records import Bytes, Faces, FrameChunk
from fer_batch.training.detector.samples import read_picture

EVERY = (1, 2, 3, 5, 10)
WALKS = ("facenet_video.mp4", "pyfeat_single_face.mp4", "liveportrait_s20.mp4")
ENLARGED = 4
N_FRAMED = 500
HELD_OUT = {"yunet": (0.5, 0.6, 0.7, 0.8), "glance": (0.3, 0.4, 0.5, 0.6, 0.7)}
"""Scores at which each detector is measured."""
LEAST_SCORE = 0.01
SIZES_PX = (8, 12, 16, 24, 32, 64, np.inf)
SAME = 0.5
"""Overlap above which an estimated box counts as the one that was found there."""


def build(config: Config) -> Detector:
    """The detector, in one thread on the CPU."""
    return build_detector(config.detector, device=torch.device("cpu"))


def accuracy(detector: Detector) -> tuple[int, int]:
    """Number of boxes that contain an annotated nose of their own, and of other boxes."""
    counts = np.zeros(2, np.int64)
    for name, noses in read_noses().items():
        with Image.open(MEDIA / "images" / name) as picture:
            rgb = np.asarray(ImageOps.exif_transpose(picture).convert("RGB"))
        counts += match(detector.detect([rgb]).box_px, noses)
    return int(counts[0]), int(counts[1])


def cost(detector: Detector, frames: list[Bytes]) -> tuple[float, int, int]:
    """CPU milliseconds per frame, frames with a face, and faces."""
    detector.detect(frames[:2])
    start = time.process_time()
    faces = detector.detect(frames)
    ms = 1e3 * (time.process_time() - start) / len(frames)
    return ms, len(np.unique(faces.frame_row)), len(faces)


def framing(detector: Detector, pictures: Bytes) -> str:
    """Longer side and centre of boxes, relative to the side of the FER+ pictures."""
    size, edge = ENLARGED * pictures.shape[1], pictures.shape[1]
    frames = []
    for picture in pictures:
        large = cv2.resize(picture, (size, size), interpolation=cv2.INTER_CUBIC)
        framed = cv2.copyMakeBorder(large, *[edge] * 4, cv2.BORDER_REPLICATE)
        frames.append(np.repeat(framed[..., None], 3, axis=2))
    faces = detector.detect(frames)
    alone = np.bincount(faces.frame_row, minlength=len(frames)) == 1
    box = (faces.box_px[alone[faces.frame_row]] - edge) / size
    side = (box[:, 2:] - box[:, :2]).max(axis=1)
    x, y = np.median((box[:, :2] + box[:, 2:]) / 2 - 0.5, axis=0)
    low, middle, high = np.percentile(side, [25, 50, 75])
    return f"{len(box)} | {middle:.2f} ({low:.2f} to {high:.2f}) | {x:+.2f}, {y:+.2f}"


def read_chunks(name: str) -> list[FrameChunk]:
    """A clip as the pipeline reads it."""
    (file,) = discovery.find([MEDIA / "videos" / name])
    config = Config()
    with FrameReader(file, config.sampling, config.decode) as reader:
        return list(reader)


def follow(settings: list[str], every: int, chunks: list[FrameChunk]) -> tuple[float, list[Faces]]:
    """CPU milliseconds per frame for detection and tracking, and the faces of each chunk."""
    config = load(None, [*settings, f"detector.every={every}"])
    detector = build(config)
    finder = FaceFinder(
        lambda frames: Pending([], lambda _: detector.detect(frames)),
        config,
        Stopwatch(),
    )
    state = finder.begin("video")
    start = time.process_time()
    found = [finder.collect(finder.submit([(state, chunk)]))[0] for chunk in chunks]
    ms = 1e3 * (time.process_time() - start)
    faces = [each.faces for each in found if isinstance(each, FoundFaces)]
    return ms / sum(len(chunk.rgb) for chunk in chunks), faces


def agreement(faces: list[Faces], reference: list[Faces]) -> tuple[float, float]:
    """Share of the reference's boxes that were found, and share of boxes that are not in it."""
    held = extra = n_reference = n = 0
    for one, other in zip(faces, reference, strict=True):
        for row in np.union1d(one.frame_row, other.frame_row):
            boxes, wanted = (each.box_px[each.frame_row == row] for each in (one, other))
            n += len(boxes)
            n_reference += len(wanted)
            if len(boxes) and len(wanted):
                same = iou(boxes, wanted) >= SAME
                held += int(same.any(axis=0).sum())
                extra += int((~same.any(axis=1)).sum())
            else:
                extra += len(boxes)
    return held / max(1, n_reference), extra / max(1, n)


def page(ferplus: Path | None) -> Iterator[str]:
    """The lines of the document."""
    detectors = {name: build(load(None, settings)) for name, settings in DETECTORS.items()}
    yield "# Detectors"
    yield ""
    yield from noses_and_clips(detectors)
    yield from ("", "## Held-out pictures", "")
    yield from held_out()
    if ferplus is None:
        yield from ("", "Not measured anew: what a box holds, and looking at every N-th frame.")
        return
    yield from ("", "## What a box holds", "")
    yield from box_content(detectors, ferplus)
    yield from ("", "## Looking at every N-th frame", "")
    yield from every_nth()


def noses_and_clips(detectors: Mapping[str, Detector]) -> Iterator[str]:
    """Lines about the noses that are found, and what it costs."""
    yield "`right`: boxes that hold one of the annotated noses of `noses.csv`; `wrong`: the others."
    yield "Per clip: CPU ms/frame in one thread, frames with a face, faces."
    yield ""
    yield f"| detector | right | wrong | {' | '.join(CLIPS)} |"
    yield f"|---|---|---|{'---|' * len(CLIPS)}"
    clips = {name: read_clip(name) for name in CLIPS}
    for name, detector in detectors.items():
        costs = [
            f"{ms:.0f} ms, {n_frames}/{len(frames)}, {n_faces}"
            for frames in clips.values()
            for ms, n_frames, n_faces in [cost(detector, frames)]
        ]
        yield f"| {name} | {' | '.join(map(str, accuracy(detector)))} | {' | '.join(costs)} |"


def held_out() -> Iterator[str]:
    """Lines about pictures on which `glance` was not trained."""
    splits = read_face_boxes(SHARED / "data" / "faces")
    pictures = [*splits["valid"], *splits["test"]]
    frames = [read_picture(picture) for picture in pictures]
    n_faces = sum(int(picture.is_sure.sum()) for picture in pictures)
    sizes = [f"{low:g}-{high:g}" for low, high in pairwise(SIZES_PX[:-1])] + ["64+"]
    defaults = Config().detector
    yield f"{n_faces:,} faces in {len(pictures)} pictures (splits `valid` and `test`): the share"
    yield "that is found, by longer side in pixels; `wrong`: boxes that are no face; `points`: mean"
    yield "distance of a face's points in sides of the face, median. People drew some boxes. The"
    yield "others are those of two teachers, of which YuNet is one: this flatters YuNet. Average"
    yield f"precision: overlap of 0.5, boxes with a score of {LEAST_SCORE} or more. CPU ms in one"
    yield f"thread, one by one. The default scores: yunet {defaults.yunet.min_score}, glance"
    yield f"{defaults.glance.min_score}."
    yield ""
    yield f"| detector | score | all | {' | '.join(sizes)} | wrong |"
    yield f"|---|---|---|{'---|' * len(sizes)}---|"
    summary = []
    for name, scores in HELD_OUT.items():
        section = f"detector.{name}"
        settings = [f"{section}.min_score={LEAST_SCORE}", f"{section}.weak_score={LEAST_SCORE}"]
        detector = build(load(None, [f"detector.name={name}", *settings]))
        found = compare(
            (picture, detector.detect([rgb])) for picture, rgb in zip(pictures, frames, strict=True)
        )
        for score in scores:
            shares = [found.recall(score), *(found.recall(score, *px) for px in pairwise(SIZES_PX))]
            cells = [f"{share:.3f}" for share in shares]
            yield f"| {name} | {score} | {' | '.join(cells)} | {found.n_wrong(score)} |"
        ms, _, _ = cost(build(load(None, DETECTORS[name])), [frames[0], *frames])
        summary.append(
            f"| {name} | {found.average_precision():.3f} | {found.typical_point_error():.3f} "
            f"| {ms:.1f} |"
        )
    yield from (
        "",
        "| detector | average precision | points | CPU ms/picture |",
        "|---|---|---|---|",
    )
    yield from summary


def box_content(detectors: Mapping[str, Detector], ferplus: Path) -> Iterator[str]:
    """Lines about the framing of faces by boxes."""
    yield f"Boxes found in {N_FRAMED} validation pictures of FER+, enlarged {ENLARGED} times and"
    yield "set into a frame of their repeated edge, where one face is found: the longer side"
    yield "(median and quartiles) and how far the centre lies right of and below the picture's, in"
    yield "sides of the picture. A side of 1 and no shift mean that a crop by the box shows what"
    yield "the classifier was trained on."
    yield ""
    yield "| detector | pictures | longer side | shift |"
    yield "|---|---|---|---|"
    data = load_data("ferplus", ferplus, size_px=48, splits=("valid",))
    pixels = data.pictures["valid"].pixels
    chosen = np.random.default_rng(0).permutation(len(pixels))[:N_FRAMED]
    for name, detector in detectors.items():
        yield f"| {name} | {framing(detector, pixels[chosen])} |"


def every_nth() -> Iterator[str]:
    """Lines about detection in some frames only."""
    yield "CPU ms/frame of detection and tracking in one thread; how many of the boxes found with"
    yield f"N = 1 are there (overlap of {SAME} or more); and how many boxes are not among those."
    yield ""
    yield "| detector | clip | " + " | ".join(f"N = {every}" for every in EVERY) + " |"
    yield "|---|---|" + "---|" * len(EVERY)
    for clip in WALKS:
        chunks = read_chunks(clip)
        for name, settings in DETECTORS.items():
            runs = [follow(settings, every, chunks) for every in EVERY]
            cells = [
                f"{ms:.0f} ms, {held:.0%}, {extra:.0%}"
                for ms, faces in runs
                for held, extra in [agreement(faces, runs[0][1])]
            ]
            yield f"| {name} | {clip} | {' | '.join(cells)} |"


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description="Comparison of the detectors.")
    parser.add_argument("--data", type=Path, help="FER+, or the file it is packed in")
    torch.set_num_threads(1)
    write_page("detectors", page(parser.parse_args().data))


if __name__ == "__main__":
    main()
