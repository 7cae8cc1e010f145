"""The pictures of docs/styles, which show every style and hold its layout.

``make styles`` makes them again.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from skimage import data

from fer_batch.config import Config, Render
from fer_batch.emotions import EMOTIONS
from fer_batch.explain.explainer import Explainer
from fer_batch.models.card import find_weights
from fer_batch.records import ChunkResult, FrameChunk, MediaInfo
from fer_batch.render.annotations import load_annotations
from fer_batch.render.file_annotator import FileAnnotator
from fer_batch.render.heatmaps import Heatmaps
from tests.support import results
from tests.support.clips import Rgb

Points = NDArray[np.float64]

FOLDER = Path(__file__).parents[2] / "docs" / "styles"
STYLES = {
    "full": Render(),
    "minimal": Render(style="minimal"),
    "heatmap": Render(style="heatmap"),
    "side-by-side": Render(style="side-by-side"),
    "blur": Render(blur=True),
    "crowd": Render(),
}
SIZE = (640, 360)
N, SHOWN = 40, 28
"""Frames, and the one that is shown."""
_FACE = np.array(
    [(175, 65), (274, 163), (204, 103), (243, 99), (222, 124), (209, 140), (244, 137)], float
)
"""Two corners and five points of the face in the portrait."""


def picture(name: str) -> Rgb:
    """A frame of a made video, in this style."""
    rgb, faces = _crowd() if name == "crowd" else _portrait()
    found = _found(faces)
    with tempfile.TemporaryDirectory() as out:
        results.write(Path(out), found)
        rows = [results.row(found.media)]
        [shown] = load_annotations(Path(out), rows, smooth_s=0.5)
    config = Config(render=STYLES[name])
    heatmaps = None
    if config.render.shows("heatmap"):
        explainer = Explainer(find_weights("default"), torch.device("cpu"))
        heatmaps = Heatmaps(explainer, config.render.smooth_s)
    info = MediaInfo(*SIZE, 0, None, None, None, "h264")
    annotator = FileAnnotator("video", info, shown, config, heatmaps)
    one = np.s_[SHOWN : SHOWN + 1]
    chunk = FrameChunk(rgb[None], found.frame_index[one], found.pts_s[one], found.is_damaged[one])
    return next(annotator.draw(chunk))


def _portrait() -> tuple[Rgb, Points]:
    rgb = cv2.resize(data.astronaut()[:288], SIZE, interpolation=cv2.INTER_AREA)
    return rgb, _FACE[None] * SIZE[0] / 512


def _crowd() -> tuple[Rgb, Points]:
    """Nine times the face."""
    left, top, width, height = 102, 20, 356, 200
    tile = data.astronaut()[top : top + height, left : left + width]
    rgb = cv2.resize(np.tile(tile, (3, 3, 1)), SIZE, interpolation=cv2.INTER_AREA)
    corners = np.array([(x * width - left, y * height - top) for y in range(3) for x in range(3)])
    return rgb, (_FACE + corners[:, None]) * SIZE[0] / (3 * width)


def _found(faces: Points) -> ChunkResult:
    """Each face in every frame, laughing more and more, each a little later than the other."""
    m, index = len(faces), np.arange(N)
    mood = np.clip((index[:, None] - 3 * np.arange(m) % 25 - 4) / 20, 0.02, 0.98)
    probs = np.zeros((N, m, len(EMOTIONS)), np.float32)
    probs[..., 0], probs[..., 1], probs[..., 6] = mood**2, mood * (1 - mood), 1 - mood
    faces = np.tile(faces.astype(np.float32), (N, 1, 1))
    return results.result(
        "a.mp4",
        [m] * N,
        box_px=faces[:, :2].reshape(-1, 4),
        points_px=faces[:, 2:],
        track_id=np.tile(np.arange(m), N),
        probs=probs.reshape(N * m, -1),
    )


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name in STYLES:
        Image.fromarray(picture(name)).save(FOLDER / f"{name}.jpg", quality=80, optimize=True)
