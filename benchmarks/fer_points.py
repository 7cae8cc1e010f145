"""Positions of the five points of a face in the pictures of FER: `regions.FER_POINTS`.

    python -m benchmarks.fer_points FERPLUS YUNET

FERPLUS is the data set's folder, YUNET OpenCV's weights. Pictures of 48 pixels are enlarged and
given a border, as YuNet needs some space around a face.
"""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np

from fer_batch.config import YuNet
from fer_batch.datasets.pictures import load_data
from fer_batch.faces.detectors.yunet import YuNetDetector

SCALE, BORDER_PX = 4, 64


def main(root: Path, weights: str) -> None:
    """Print median and spread."""
    pictures = load_data("ferplus", root, size_px=48, splits=("valid", "test"))
    detector = YuNetDetector(YuNet(weights=weights))
    found = []
    for grey in np.concatenate([each.pixels for each in pictures.pictures.values()]):
        large = cv2.resize(grey, None, fx=SCALE, fy=SCALE, interpolation=cv2.INTER_CUBIC)
        framed = cv2.copyMakeBorder(large, *(BORDER_PX,) * 4, cv2.BORDER_REPLICATE)
        faces = detector.detect([cv2.cvtColor(framed, cv2.COLOR_GRAY2RGB)])
        if len(faces) == 1 and faces.points_px is not None:
            found.append((faces.points_px[0] - BORDER_PX) / (48 * SCALE))
    points = np.array(found)
    print(f"one face in {len(points):,} pictures")
    print(f"median {np.median(points, axis=0).round(3).tolist()}")
    print(f"standard deviation {points.std(axis=0).round(3).tolist()}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
