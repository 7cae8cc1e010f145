"""The files of a run, as sheets need them."""

from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from fer_batch.config import Config, Render
from fer_batch.report import highlights
from fer_batch.report.run_files import RunFiles
from tests.support import results


def test_faces_of_short_tracks_are_hidden_and_not_given(tmp_path: Path) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (90, 160, 3), np.uint8)
    Image.fromarray(picture).save(tmp_path / "a.png")
    stat = (tmp_path / "a.png").stat()
    found = results.result(
        "a.png",
        [2],
        box_px=[[5, 5, 30, 30], [50, 40, 90, 80]],
        track_id=[1, 0],
        is_short=[True, False],
    )
    there = results.row(
        "a.png", root=str(tmp_path), size_bytes=stat.st_size, mtime_ns=stat.st_mtime_ns
    )
    results.write(tmp_path / "out", found, rows=[there])
    files = RunFiles(tmp_path / "out", Config(render=Render(blur=True)))
    [row] = files.rows
    faces = files.faces(row)
    assert faces["track_id"].tolist() == [0]
    [best] = highlights.of_images(faces, most=1)
    [(_, frame)] = files.frames(row, faces, {0})
    shown = cv2.resize(frame.thumbnail(None), (160, 90), interpolation=cv2.INTER_AREA)

    def roughness(rows: slice, columns: slice) -> float:
        return float(abs(np.diff(shown[rows, columns].astype(float), axis=1)).mean())

    untouched = roughness(slice(5, 85), slice(110, 155))
    assert roughness(slice(10, 25), slice(10, 25)) < untouched / 2
    assert roughness(slice(50, 70), slice(60, 80)) < untouched / 2
    assert frame.face(best).shape == (176, 176, 3)
