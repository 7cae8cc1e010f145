"""A tiny data set of drawn faces in the layout of `fer_batch.datasets.face_boxes`."""

import hashlib
import io
import tarfile
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from tests.support.clips import Rgb

SIZE = (160, 120)
POINTS = np.array([(0.3, 0.4), (0.7, 0.4), (0.5, 0.6), (0.35, 0.8), (0.65, 0.8)])
"""Where the points are in a box."""
COLOURS = [(255, 0, 0), (0, 0, 255), (0, 255, 0), (255, 0, 255), (0, 255, 255)]
NAMES = ("right_eye", "left_eye", "nose", "mouth_right", "mouth_left")


def draw(boxes: list[tuple[int, int, int]]) -> Rgb:
    """A grey picture with a bright square face at each left, top, side."""
    rgb = np.full((SIZE[1], SIZE[0], 3), 60, np.uint8)
    for left, top, side in boxes:
        cv2.rectangle(rgb, (left, top), (left + side, top + side), (230, 200, 170), -1)
        for (x, y), colour in zip(POINTS, COLOURS, strict=True):
            centre = (round(left + x * side), round(top + y * side))
            cv2.circle(rgb, centre, max(1, side // 12), colour, -1)
    return rgb


def make_faces(folder: Path, n: int = 60) -> Path:
    """Pictures of each kind: scenes with two faces, portraits with one, backgrounds."""
    random = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    pictures, boxes = [], []
    for kind, n_faces in (("scene", 2), ("portrait", 1), ("background", 0)):
        with tarfile.open(folder / f"{kind}s.tar", "w") as tar:
            for number in range(n):
                name = f"{kind}_{number:03}.jpg"
                side = int(random.integers(24, 60))
                places = [
                    (5 + 80 * face, int(random.integers(2, 50)), side) for face in range(n_faces)
                ]
                _, jpeg = cv2.imencode(".jpg", draw(places)[..., ::-1])
                member = tarfile.TarInfo(name)
                member.size = len(jpeg)
                tar.addfile(member, io.BytesIO(jpeg.tobytes()))
                sha256 = hashlib.sha256(name.encode()).hexdigest()
                pictures.append((name, kind, *SIZE, sha256))
                for left, top, side in places:
                    points = (POINTS * side + (left, top)).ravel()
                    row = (left, top, left + side, top + side, 0.9, 0.9, None, *points)
                    boxes.append((name, *row))
    columns = [f"{name}_{axis}" for name in NAMES for axis in "xy"]
    pd.DataFrame(pictures, columns=["image", "kind", "width", "height", "sha256_source"]).to_csv(
        folder / "pictures.csv", index=False
    )
    pd.DataFrame(
        boxes,
        columns=["image", "x1", "y1", "x2", "y2", "yunet", "retinaface", "gt", *columns],
    ).to_csv(folder / "boxes.csv", index=False)
    return folder
