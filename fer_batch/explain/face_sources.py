"""The faces that are explained, batch by batch: of a finished run, or of labelled pictures."""

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
"""Stretches of a video without a chosen face that are longer are not decoded."""
_TOLERANCE_S = 1e-3
_KEY = ["media", "frame_index", "face_index"]


@dataclass(frozen=True, slots=True)
class Choice:
    """Which faces are explained, and for which emotion."""

    medias: tuple[str, ...] = ()
    """Names of files; none: all."""
    at_s: tuple[float, ...] = ()
    """Times of videos whose frames are taken; none: all, and still images too."""
    emotion: str | None = None
    """None: of each face the strongest."""
    sample: int | None = None
    """At most so many faces, chosen at random and always the same."""
    pictures: int = 24
    """At most so many of them are drawn: first the surest of each emotion and track."""

    def __post_init__(self) -> None:
        if self.emotion is not None and self.emotion not in EMOTIONS:
            known = ", ".join(EMOTIONS)
            raise ConfigError(f"no emotion is named {self.emotion!r}: there are {known}")


@dataclass(frozen=True, slots=True, eq=False)
class FaceBatch:
    """Faces with all that is needed to explain them, one row each."""

    media: tuple[str, ...]
    frame_index: Ints
    pts_s: Seconds
    """NaN for pictures of a data set."""
    face_index: Ints
    track_id: Ints
    """-1 where there is none."""
    label: Ints
    """Position in EMOTIONS of what people said; -1 where nobody did."""
    emotion: Ints
    """Position in EMOTIONS of what is to be explained."""
    crops: Tensor
    """(M, C, S, S) float32."""
    points_px: Floats
    """(M, 5, 2) in pixels of the crop: see `points_in_crops`."""
    is_drawn: Bools

    def __len__(self) -> int:
        return len(self.media)

    @classmethod
    def join(cls, parts: Sequence[FaceBatch]) -> FaceBatch:
        """Several as one."""
        arrays = {
            name: np.concatenate([getattr(part, name) for part in parts])
            for name in cls.__slots__
            if name not in ("media", "crops")
        }
        media = tuple(name for part in parts for name in part.media)
        return cls(media=media, crops=torch.cat([part.crops for part in parts]), **arrays)


class FaceSource(Protocol):
    """Faces that can be gone through once or more."""

    failures: list[str]
    """Why files gave less than they should, complete after the last batch; one line each."""

    def __len__(self) -> int:
        """Number of faces."""
        ...

    def __iter__(self) -> Iterator[FaceBatch]: ...


class RunFaces:
    """Chosen faces of a finished run, cut anew out of its videos and images.

    Only the parts of a video that show a chosen face are decoded. A file that fails does not stop
    the others.

    Raises:
        ExplainError: The run has no such face or file, or was made with other weights.
        StoreError: The run cannot be read.
    """

    def __init__(self, out: Path, config: Config, card: ModelCard, choice: Choice) -> None:
        run = store.read_run(out)
        if run["weights"]["sha256"] != card.sha256:
            raise ExplainError(
                f"{out} was made with other weights ({run['weights']['name']}) than {card.name} "
                "has now: put them back, or run `fer-batch process` again"
            )
        self.failures: list[str] = []
        self._out, self._config, self._card = out, config, card
        self._config_hash = run["config_hash"]
        self._rows = {row.media: row for row in store.media_rows(out)}
        unknown = sorted(set(choice.medias) - set(self._rows))
        if unknown:
            raise ExplainError(f"{out} holds no results of {unknown[0]}")
        self._keys = _chosen(self._read_keys(choice), choice).set_index("media")
        if self._keys.empty:
            when = "at these times " if choice.at_s else ""
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
                yield from self._of_file(file.row, faces)
            except FerError as error:
                self.failures.append(f"{file.row.media}: {error}")

    def _read_keys(self, choice: Choice) -> pd.DataFrame:
        """The faces to choose from, without their places."""
        score = choice.emotion or "confidence"
        columns = [*_KEY, "track_id", "emotion", score]
        table = store.read(self._out, "faces", media=choice.medias or None, columns=columns)
        keys: pd.DataFrame = table.to_pandas().astype({"media": str})
        keys = keys.sort_values(_KEY, ignore_index=True)
        keys["score"] = keys[score]
        known = pd.Categorical(
            [choice.emotion] * len(keys) if choice.emotion else keys["emotion"], list(EMOTIONS)
        )
        keys["code"] = known.codes.astype(np.int64)
        keys = keys[keys["score"].notna() & (keys["code"] >= 0)]
        if choice.at_s:
            keys = keys.merge(self._shown(choice), on=_KEY[:2])
        return keys

    def _shown(self, choice: Choice) -> pd.DataFrame:
        """The frames that a player shows at the chosen times: media and frame_index."""
        medias = [name for name, row in self._rows.items() if row.kind == "video"]
        medias = [name for name in medias if not choice.medias or name in choice.medias]
        frames = store.read(self._out, "frames", media=medias).to_pandas().astype({"media": str})
        shown: set[tuple[str, int]] = set()
        longest_s = 0.0
        for media, seen in frames.sort_values("frame_index").groupby("media"):
            end_s = _end_s(seen["pts_s"].to_numpy(np.float64), self._rows[media].duration_s)
            longest_s = max(longest_s, end_s)
            at_s = [time_s for time_s in choice.at_s if time_s < end_s]
            place = np.searchsorted(seen["pts_s"], at_s, side="right") - 1
            shown |= {(media, index) for index in seen["frame_index"].iloc[place[place >= 0]]}
        if medias and max(choice.at_s) >= longest_s:
            raise ExplainError(
                f"{self._out} has no frame at {max(choice.at_s):g} s: "
                f"the longest of its chosen videos ends at {longest_s:.2f} s"
            )
        return pd.DataFrame(sorted(shown), columns=_KEY[:2])

    def _of_file(self, row: MediaRow, faces: pd.DataFrame) -> Iterator[FaceBatch]:
        if row.config_hash != self._config_hash:
            raise ExplainError(
                "was processed with other settings or weights than the rest of the run: "
                "run `fer-batch process` again"
            )
        n_found = 0
        with fetched(source_of(row), self._config.runtime) as source:
            for span in _spans(row, faces["pts_s"].to_numpy(np.float64)):
                with FrameReader(source, span, self._config.decode) as reader:
                    for chunk in reader:
                        inside = faces[faces["frame_index"].isin(chunk.frame_index)]
                        if len(inside):
                            n_found += len(inside)
                            yield self._cut(inside, chunk)
        if n_found < len(faces):
            raise ExplainError(f"the frames of {len(faces) - n_found} faces cannot be decoded")

    def _cut(self, rows: pd.DataFrame, chunk: FrameChunk) -> FaceBatch:
        frame_index = rows["frame_index"].to_numpy(np.int64)
        unknown = np.full(10, np.nan)
        points = [unknown if each is None else each for each in rows["points_px"]]
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
    """Labelled pictures, each of one face that fills it.

    Raises:
        ConfigError: The model does not know the emotion.
    """

    def __init__(
        self, pictures: Pictures, explainer: Explainer, choice: Choice, *, batch_size: int = 256
    ) -> None:
        self.failures: list[str] = []
        self._pictures, self._card, self._batch_size = pictures, explainer.card, batch_size
        probs = np.concatenate(
            [explainer.probs(crops) for crops in self._crops(np.arange(len(pictures)))]
        )
        code, score = dominant(probs)
        if choice.emotion:
            code = np.full(len(probs), EMOTIONS.index(choice.emotion))
            score = probs[:, code[0]]
        keys = pd.DataFrame({"media": pictures.paths, "track_id": -1, "code": code, "score": score})
        self._keys = _chosen(keys, choice)

    def __len__(self) -> int:
        return len(self._keys)

    def __iter__(self) -> Iterator[FaceBatch]:
        keys, last = self._keys, 0
        for crops in self._crops(keys.index.to_numpy()):
            first, last = last, last + len(crops)
            rows = keys.iloc[first:last]
            nothing = np.zeros(len(rows), np.int64)
            square = Faces(nothing, np.zeros((len(rows), 4), np.float32), nothing.astype("f4"))
            yield FaceBatch(
                media=tuple(rows["media"]),
                frame_index=nothing,
                pts_s=np.full(len(rows), np.nan),
                face_index=nothing,
                track_id=nothing - 1,
                label=self._pictures.targets[rows.index].argmax(axis=1),
                emotion=rows["code"].to_numpy(np.int64),
                crops=crops,
                points_px=points_in_crops(square, self._card),
                is_drawn=rows["is_drawn"].to_numpy(np.bool_),
            )

    def _crops(self, rows: Ints) -> Iterator[Tensor]:
        for first in range(0, len(rows), self._batch_size):
            some = rows[first : first + self._batch_size]
            yield normalise(self._pictures.pixels[some], self._card)


def joined(batches: Iterable[FaceBatch], size: int) -> Iterator[FaceBatch]:
    """The same faces in batches of at least this size, but for the last."""
    waiting: list[FaceBatch] = []
    for batch in batches:
        waiting.append(batch)
        if sum(map(len, waiting)) >= size:
            yield FaceBatch.join(waiting)
            waiting = []
    if waiting:
        yield FaceBatch.join(waiting)


def _chosen(keys: pd.DataFrame, choice: Choice) -> pd.DataFrame:
    """The sample, in order, and in ``is_drawn`` which of it gets pictures.

    Args:
        keys: media, track_id, code (of the emotion) and score of each face.
        choice: How many.
    """
    if choice.sample is not None and choice.sample < len(keys):
        keys = keys.sample(choice.sample, random_state=0).sort_index()
    surest = keys.sort_values("score", ascending=False, kind="stable")
    of_track = surest.groupby(["media", "track_id", "code"], dropna=False).cumcount()
    of_emotion = surest.groupby(["code", of_track]).cumcount()
    order = pd.DataFrame({"of_track": of_track, "of_emotion": of_emotion})
    drawn = order.sort_values(["of_track", "of_emotion"], kind="stable").index[: choice.pictures]
    return keys.assign(is_drawn=keys.index.isin(drawn))


def _end_s(pts_s: Seconds, duration_s: float | None) -> float:
    """When the last frame of a video ends: it is shown for as long as the longest of the others."""
    if len(pts_s) > 1:
        return float(pts_s[-1] + np.diff(pts_s).max())
    return duration_s or math.inf


def _spans(row: MediaRow, pts_s: Seconds) -> list[Sampling]:
    """The stretches of a file in which these times lie, ascending."""
    if row.kind == "image":
        return [Sampling()]
    times = np.unique(pts_s)
    parts = np.split(times, np.flatnonzero(np.diff(times) > MAX_GAP_S) + 1)
    return [
        Sampling(start_s=max(0.0, part[0] - _TOLERANCE_S), end_s=part[-1] + _TOLERANCE_S)
        for part in parts
    ]
