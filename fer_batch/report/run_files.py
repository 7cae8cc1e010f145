"""The files of a run, as sheets need them: their faces, and the frames that show them."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from fer_batch.config import Config, Sampling, cpu_threads
from fer_batch.media import discovery
from fer_batch.media.cache import fetched
from fer_batch.media.decode import FrameReader
from fer_batch.records import MediaRow
from fer_batch.render.face_paths import FacePaths
from fer_batch.render.layers.hidden_faces import hide
from fer_batch.report.sheet_layout import FrameWithFaces
from fer_batch.results import store, timeline


class RunFiles:
    """Reads the tables and the sources of a run."""

    def __init__(self, out: Path, config: Config) -> None:
        """Read the media table.

        Args:
            out: Output folder of the run.
            config: Configuration of the run.
        """
        self.rows = store.media_rows(out)
        self._out = out
        self._config = config

    @cached_property
    def image_faces(self) -> pd.DataFrame:
        """The faces of all still images, which are in few tables: they are read once."""
        names = [row.media for row in self.rows if row.kind == "image"]
        return timeline.load(self._out, media=names)

    def faces(self, row: MediaRow) -> pd.DataFrame:
        """The faces of one file, as `timeline.load` gives them."""
        if row.kind == "image":
            return self.image_faces[self.image_faces["media"] == row.media]
        return timeline.load(self._out, media=row.media)

    def middle(self, row: MediaRow) -> int:
        """``frame_index`` in the middle of the frames that were looked at; 0 without any."""
        if row.kind == "image":
            return 0
        frames = store.read(self._out, "frames", media=[row.media], columns=["frame_index"])
        looked_at = frames["frame_index"].to_pylist() or [0]
        return int(looked_at[len(looked_at) // 2])

    def frames(
        self, row: MediaRow, faces: pd.DataFrame, frame_index: Collection[int]
    ) -> Iterator[tuple[int, FrameWithFaces]]:
        """Frames of a file with their faces, as far as they can be decoded.

        Args:
            row: The file.
            faces: Its faces, from `faces`.
            frame_index: Which frames.

        Raises:
            MediaError: The source is gone, is not the same any more, or cannot be read.
        """
        boxes = faces[["x1_px", "y1_px", "x2_px", "y2_px"]].to_numpy(np.float32)
        frame_of, face_index = faces["frame_index"].to_numpy(), faces["face_index"].to_numpy()
        config = self._config
        hides = config.render.shows("blur")
        paths = FacePaths(timeline.load(self._out, media=row.media, short=True)) if hides else None
        threads, only = cpu_threads(config.runtime), sorted(frame_index)
        with (
            fetched(discovery.source_of(row), config.runtime) as source,
            FrameReader(source, Sampling(), config.decode, threads, only=only) as reader,
        ):
            for chunk in reader:
                times_s = chunk.pts_s.tolist()
                for index, pts_s, rgb in zip(
                    chunk.frame_index.tolist(), times_s, chunk.rgb, strict=True
                ):
                    for box_px in paths.at(pts_s) if paths else ():
                        hide(rgb, box_px)
                    rows = np.flatnonzero(frame_of == index)
                    box_px = dict(zip(face_index[rows].tolist(), boxes[rows], strict=True))
                    yield index, FrameWithFaces(rgb, box_px)
