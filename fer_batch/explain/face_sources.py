"""The faces to explain, in batches: from a finished run, or from labelled pictures."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from fer_batch.config import Config, Sampling
from fer_batch.datasets.pictures import Pictures
from fer_batch.emotions import EMOTIONS
from fer_batch.errors import ConfigError, ExplainError, FerError
from fer_batch.explain.explainer import Explainer
from fer_batch.explain.regions import points_in_crops
from fer_batch.faces.crop import crop, normalise
from fer_batch.media.cache import fetched
from fer_batch.media.decode import FrameReader
from fer_batch.media.discovery import source_of
from fer_batch.models.card import ModelCard
from fer_batch.records import Bools, Faces, Floats, FrameChunk, Ints, MediaRow, Seconds
from fer_batch.results import store, timeline
from fer_batch.results.tables import dominant

MAX_GAP_S = 5.0
"""Parts of a video without a selected face are not decoded if they are longer than this."""
_TOLERANCE_S = 1e-3
_KEY = ["media", "frame_index", "face_index"]


@dataclass(frozen=True, slots=True)
class FaceSelection:
    """The faces to explain, and the emotion to explain."""

    media: tuple[str, ...] = ()
    """Names of files; empty: all files."""
    at_s: tuple[float, ...] = ()
    """Only the frames that videos show at these times; empty: all frames, and still images."""
    emotion: str | None = None
    """None: the strongest emotion of each face."""
    sample: int | None = None
    """Largest number of faces, chosen at random but always the same; None: all faces."""
    max_drawn: int = 24
    """Largest number of faces to draw; the most certain of each emotion and track come first."""

    def __post_init__(self) -> None:
        if self.emotion is not None and self.emotion not in EMOTIONS:
            known = ", ".join(EMOTIONS)
            raise ConfigError(f"no emotion is named {self.emotion!r}: there are {known}")


@dataclass(frozen=True, slots=True, eq=False)
class FaceBatch:
    """Faces to explain, one row each."""

    media: tuple[str, ...]
    frame_index: Ints
    pts_s: Seconds
    """NaN for pictures of a data set."""
    face_index: Ints
    track_id: Ints
    """-1 for a face without a track."""
    label: Ints
    """Position in EMOTIONS of the emotion that people labelled; -1 for faces without a label."""
    emotion: Ints
    """Position in EMOTIONS of the emotion to explain."""
    crops: Tensor
    """(M, C, S, S) float32."""
    points_px: Floats
    """(M, 5, 2) in pixels of the crop: see `points_in_crops`."""
    is_drawn: Bools
    """Whether pictures of the face are drawn."""

    def __len__(self) -> int:
        return len(self.media)

    @classmethod
    def join(cls, batches: Sequence[FaceBatch]) -> FaceBatch:
        """Several batches as one."""
        arrays = {
            name: np.concatenate([getattr(batch, name) for batch in batches])
            for name in cls.__slots__
            if name not in ("media", "crops")
        }
        media = tuple(name for batch in batches for name in batch.media)
        return cls(media=media, crops=torch.cat([batch.crops for batch in batches]), **arrays)


class FaceSource(Protocol):
    """Gives faces in batches, each time that it is iterated."""

    failures: list[str]
    """One line for each file with faces that could not be read; complete after the last batch."""

    def __len__(self) -> int:
        """Number of faces."""
        ...

    def __iter__(self) -> Iterator[FaceBatch]: ...


class RunFaces:
    """Selected faces of a finished run, cut again out of its videos and images.

    Only the parts of a video that show a selected face are decoded. A file that fails does not stop
    the others.

    Raises:
        ExplainError: The run has no such face or file, or was made with other weights.
        StoreError: The run cannot be read.
    """

    def __init__(
        self, out: Path, config: Config, card: ModelCard, selection: FaceSelection
    ) -> None:
        run = store.read_run(out)
        if run["weights"]["sha256"] != card.sha256:
            raise ExplainError(
                f"{out} was made with other weights ({run['weights']['name']}) than those of "
                f"{card.name} now: restore the weight file, or run `fer-batch process` again"
            )
        self.failures: list[str] = []
        self._out, self._config, self._card = out, config, card
        self._config_hash = run["config_hash"]
        self._rows = {row.media: row for row in store.media_rows(out)}
        unknown = sorted(set(selection.media) - set(self._rows))
        if unknown:
            raise ExplainError(f"{out} holds no results of {unknown[0]}")
        self._keys = _select(self._read_keys(selection), selection).set_index("media")
        if self._keys.empty:
            when = "at these times " if selection.at_s else ""
            raise ExplainError(f"{out} has no face {when}that can be explained")

    def __len__(self) -> int:
        return len(self._keys)

    def __iter__(self) -> Iterator[FaceBatch]:
        self.failures.clear()
        rows = [self._rows[media] for media in self._keys.index.unique()]
        rows.sort(key=lambda row: row.kind == "image")  # images are read from the tables together
        for file in timeline.each_file(self._out, rows):
            keys = self._keys.loc[file.row.media : file.row.media].reset_index()
            faces = file.faces.drop(columns="emotion").merge(
                keys[[*_KEY, "code", "is_drawn"]], on=_KEY, validate="one_to_one"
            )
            try:
                yield from self._read_file(file.row, faces)
            except FerError as error:
                self.failures.append(f"{file.row.media}: {error}")

    def _read_keys(self, selection: FaceSelection) -> pd.DataFrame:
        """The faces to select from: which they are, with the emotion to explain and its score."""
        score = selection.emotion or "confidence"
        columns = [*_KEY, "track_id", "is_short", "emotion", score]
        table = store.read(self._out, "faces", media=selection.media or None, columns=columns)
        keys: pd.DataFrame = table.to_pandas().astype({"media": str})
        keys = keys[~keys.pop("is_short").astype("boolean").fillna(False)]
        keys = keys.sort_values(_KEY, ignore_index=True)
        keys["score"] = keys[score]
        emotions = [selection.emotion] * len(keys) if selection.emotion else keys["emotion"]
        keys["code"] = pd.Categorical(emotions, list(EMOTIONS)).codes.astype(np.int64)
        keys = keys[keys["score"].notna() & (keys["code"] >= 0)]
        if selection.at_s:
            keys = keys.merge(self._frames_at(selection), on=_KEY[:2])
        return keys

    def _frames_at(self, selection: FaceSelection) -> pd.DataFrame:
        """The frames that a player shows at the selected times: media and frame_index."""
        videos = [name for name, row in self._rows.items() if row.kind == "video"]
        videos = [name for name in videos if not selection.media or name in selection.media]
        frames = store.read(self._out, "frames", media=videos).to_pandas().astype({"media": str})
        shown: set[tuple[str, int]] = set()
        longest_s = 0.0
        for media, rows in frames.sort_values("frame_index").groupby("media"):
            end_s = _end_s(rows["pts_s"].to_numpy(np.float64), self._rows[media].duration_s)
            longest_s = max(longest_s, end_s)
            at_s = [time_s for time_s in selection.at_s if time_s < end_s]
            last = np.searchsorted(rows["pts_s"], at_s, side="right") - 1
            shown |= {(media, index) for index in rows["frame_index"].iloc[last[last >= 0]]}
        if videos and max(selection.at_s) >= longest_s:
            raise ExplainError(
                f"{self._out} has no frame at {max(selection.at_s):g} s: "
                f"the longest of the selected videos ends at {longest_s:.2f} s"
            )
        return pd.DataFrame(sorted(shown), columns=_KEY[:2])

    def _read_file(self, row: MediaRow, faces: pd.DataFrame) -> Iterator[FaceBatch]:
        if row.config_hash != self._config_hash:
            raise ExplainError(
                "was processed with other settings or weights than the rest of the run: "
                "run `fer-batch process` again"
            )
        n_found = 0
        with fetched(source_of(row), self._config.runtime) as source:
            for sampling in _samplings(row, faces["pts_s"].to_numpy(np.float64)):
                with FrameReader(source, sampling, self._config.decode) as reader:
                    for chunk in reader:
                        inside = faces[faces["frame_index"].isin(chunk.frame_index)]
                        if len(inside):
                            n_found += len(inside)
                            yield self._cut(inside, chunk)
        if n_found < len(faces):
            raise ExplainError(f"the frames of {len(faces) - n_found} faces cannot be decoded")

    def _cut(self, rows: pd.DataFrame, chunk: FrameChunk) -> FaceBatch:
        frame_index = rows["frame_index"].to_numpy(np.int64)
        nan = np.full(10, np.nan)
        points = [nan if each is None else each for each in rows["points_px"]]
        faces = Faces(
            frame_row=np.searchsorted(chunk.frame_index, frame_index),
            box_px=rows[["x1_px", "y1_px", "x2_px", "y2_px"]].to_numpy(np.float32),
            score=rows["detection_score"].to_numpy(np.float32),
            points_px=np.array(points, np.float32).reshape(-1, 5, 2),
        )
        return FaceBatch(
            media=tuple(rows["media"]),
            frame_index=frame_index,
            pts_s=rows["pts_s"].to_numpy(np.float64),
            face_index=rows["face_index"].to_numpy(np.int64),
            track_id=rows["track_id"].fillna(-1).to_numpy(np.int64),
            label=np.full(len(rows), -1),
            emotion=rows["code"].to_numpy(np.int64),
            crops=crop(chunk.rgb, faces, self._card),
            points_px=points_in_crops(faces, self._card),
            is_drawn=rows["is_drawn"].to_numpy(np.bool_),
        )


class PictureFaces:
    """Labelled pictures, each filled by one face.

    Raises:
        ConfigError: The model does not know the emotion.
    """

    def __init__(
        self,
        pictures: Pictures,
        explainer: Explainer,
        selection: FaceSelection,
        *,
        batch_size: int = 256,
    ) -> None:
        self.failures: list[str] = []
        self._pictures, self._card, self._batch_size = pictures, explainer.card, batch_size
        probs = np.concatenate(
            [explainer.probs(crops) for crops in self._crops(np.arange(len(pictures)))]
        )
        code, score = dominant(probs)
        if selection.emotion:
            code = np.full(len(probs), EMOTIONS.index(selection.emotion))
            score = probs[:, code[0]]
        keys = pd.DataFrame({"media": pictures.paths, "track_id": -1, "code": code, "score": score})
        self._keys = _select(keys, selection)

    def __len__(self) -> int:
        return len(self._keys)

    def __iter__(self) -> Iterator[FaceBatch]:
        n_done = 0
        for crops in self._crops(self._keys.index.to_numpy()):
            rows = self._keys.iloc[n_done : n_done + len(crops)]
            n_done += len(crops)
            zeros = np.zeros(len(rows), np.int64)
            faces = Faces(zeros, np.zeros((len(rows), 4), np.float32), zeros.astype("f4"))
            yield FaceBatch(
                media=tuple(rows["media"]),
                frame_index=zeros,
                pts_s=np.full(len(rows), np.nan),
                face_index=zeros,
                track_id=zeros - 1,
                label=self._pictures.targets[rows.index].argmax(axis=1),
                emotion=rows["code"].to_numpy(np.int64),
                crops=crops,
                points_px=points_in_crops(faces, self._card),
                is_drawn=rows["is_drawn"].to_numpy(np.bool_),
            )

    def _crops(self, rows: Ints) -> Iterator[Tensor]:
        for first in range(0, len(rows), self._batch_size):
            batch = rows[first : first + self._batch_size]
            yield normalise(self._pictures.pixels[batch], self._card)


def rebatch(batches: Iterable[FaceBatch], size: int) -> Iterator[FaceBatch]:
    """The same faces in batches of at least this size; the last one may be smaller."""
    waiting: list[FaceBatch] = []
    for batch in batches:
        waiting.append(batch)
        if sum(map(len, waiting)) >= size:
            yield FaceBatch.join(waiting)
            waiting = []
    if waiting:
        yield FaceBatch.join(waiting)


def _select(keys: pd.DataFrame, selection: FaceSelection) -> pd.DataFrame:
    """The rows of the sample, in their order, with a column ``is_drawn``.

    Args:
        keys: media, track_id, code (of the emotion) and score of each face.
        selection: Gives the size of the sample and the number of faces to draw.
    """
    if selection.sample is not None and selection.sample < len(keys):
        keys = keys.sample(selection.sample, random_state=0).sort_index()
    surest = keys.sort_values("score", ascending=False, kind="stable")
    rank_in_track = surest.groupby(["media", "track_id", "code"], dropna=False).cumcount()
    rank_in_emotion = surest.groupby(["code", rank_in_track]).cumcount()
    ranks = pd.DataFrame({"track": rank_in_track, "emotion": rank_in_emotion})
    drawn = ranks.sort_values(["track", "emotion"], kind="stable").index[: selection.max_drawn]
    return keys.assign(is_drawn=keys.index.isin(drawn))


def _end_s(pts_s: Seconds, duration_s: float | None) -> float:
    """When the last frame of a video ends: it is shown for as long as the longest of the others."""
    if len(pts_s) > 1:
        return float(pts_s[-1] + np.diff(pts_s).max())
    return duration_s or math.inf


def _samplings(row: MediaRow, pts_s: Seconds) -> list[Sampling]:
    """Samplings of the parts of a file in which these times lie, in their order."""
    if row.kind == "image":
        return [Sampling()]
    times = np.unique(pts_s)
    parts = np.split(times, np.flatnonzero(np.diff(times) > MAX_GAP_S) + 1)
    return [
        Sampling(start_s=max(0.0, part[0] - _TOLERANCE_S), end_s=part[-1] + _TOLERANCE_S)
        for part in parts
    ]
