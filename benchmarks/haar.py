"""Settings of the Haar detector: number of faces found, and time.

Pictures with annotated noses and clips come from ../shared/media.
"""

from __future__ import annotations

import csv
import time
from collections import defaultdict
from itertools import product

import av
import numpy as np
import torch
from PIL import Image, ImageOps

from benchmarks.measuring import SHARED, write_page
from fer_batch.config import Detector, Haar
from fer_batch.faces.detectors import build_detector
from fer_batch.records import Bytes

MEDIA = SHARED / "media"
CLIPS = {  # every n-th of the first frames, up to 40
    "intel_asl_again.mkv": 4,
    "fr_short_hamilton.mp4": 8,
    "pyfeat_WolfgangLanger_Pexels.mp4": 12,
    "pyfeat_no_face.mp4": 5,
}
SETTINGS = [*product((0.1,), (1.1, 1.15, 1.2, 1.25), (2, 3, 4, 5)), (0.12, 1.1, 5), (0.12, 1.2, 3)]


def read_clip(name: str) -> list[Bytes]:
    """Some frames of a clip."""
    with av.open(str(MEDIA / "videos" / name)) as video:
        frames = list(video.decode(video=0))[:: CLIPS[name]][:40]
        return [frame.to_ndarray(format="rgb24") for frame in frames]


def read_noses() -> dict[str, list[tuple[float, float]]]:
    """The annotated noses of each picture."""
    noses = defaultdict(list)
    with (MEDIA / "images" / "noses.csv").open(newline="") as table:
        for row in csv.DictReader(table):
            point = (row["nose_x_px"], row["nose_y_px"])
            noses[row["image"]] += [(float(point[0]), float(point[1]))] if point[0] else []
    return noses


def match(boxes: np.ndarray, noses: list[tuple[float, float]]) -> tuple[int, int]:
    """Number of boxes that contain a nose of their own, and of other boxes."""
    left = list(noses)
    for x1, y1, x2, y2 in boxes:
        held = [(x, y) for x, y in left if x1 <= x <= x2 and y1 <= y <= y2]
        if held:
            left.remove(held[0])
    n_right = len(noses) - len(left)
    return n_right, len(boxes) - n_right


def main() -> None:
    """Try all settings and write the page."""
    noses = read_noses()
    pictures = {}
    for name in noses:
        with Image.open(MEDIA / "images" / name) as picture:
            pictures[name] = np.asarray(ImageOps.exif_transpose(picture).convert("RGB"))
    clips = {name: read_clip(name) for name in CLIPS}
    n_noses = sum(map(len, noses.values()))
    lines = [
        "# Settings of the Haar detector",
        "",
        f"`right`: boxes that hold one of {n_noses} noses known in {len(pictures)} pictures;",
        "`wrong`: the others. Per clip: CPU ms/frame in one thread, frames with a face, faces.",
        "",
        "| min_face | scale_factor | min_neighbors | right | wrong | " + " | ".join(clips) + " |",
        "|---|---|---|---|---|" + "---|" * len(clips),
    ]
    for min_face, scale_factor, min_neighbors in SETTINGS:
        haar = Haar(min_face=min_face, scale_factor=scale_factor, min_neighbors=min_neighbors)
        detector = build_detector(Detector(name="haar", haar=haar), device=torch.device("cpu"))
        found = [match(detector.detect([pictures[name]]).box_px, noses[name]) for name in pictures]
        cells = [str(sum(column)) for column in zip(*found, strict=True)]
        for frames in clips.values():
            began = time.process_time()
            faces = detector.detect(frames)
            cpu_ms = 1e3 * (time.process_time() - began) / len(frames)
            n_with = len(np.unique(faces.frame_row))
            cells.append(f"{cpu_ms:.0f} ms, {n_with}/{len(frames)}, {len(faces)}")
        lines.append(
            f"| {min_face} | {scale_factor} | {min_neighbors} | " + " | ".join(cells) + " |"
        )
    write_page("haar", lines)


if __name__ == "__main__":
    main()
