"""Emotions over time, from the tables of a run: loading, smoothing, segments, bins, a summary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fer_batch.emotions import EMOTIONS
from fer_batch.errors import StoreError
from fer_batch.records import Floats, Ints, Seconds
from fer_batch.results import store, tables
from fer_batch.storage import urls

HOLD_S = 5.0
"""How long the last frame before a gap speaks for it: videos may leave out frames that repeat."""

_EMOTIONS = list(EMOTIONS)


@dataclass(frozen=True, slots=True, eq=False)
class Binned:
    """What the faces of a video show, in W bins of equal length."""

    edges_s: Seconds
    """(W + 1,) float64, where bins begin and end."""
    probs: Floats
    """(W, 8) mean over the faces of each bin, in EMOTIONS order; NaN where there is none."""
    n_faces: Floats
    """(W,) mean over the frames of each bin; NaN where there is none."""


def load(out: Path | str, *, media: str | Sequence[str] | None = None) -> pd.DataFrame:
    """The faces of a run, or of these files only, ordered by media, frame_index, face_index.

    ``media`` and ``emotion`` are categories, the latter in EMOTIONS order; ``track_id`` is Int32.

    Raises:
        StoreError: ``out`` is not the output folder of a run, or a table cannot be read.
    """
    faces = _read(out, "faces", medias=_names(media))
    faces["emotion"] = faces["emotion"].cat.set_categories(_EMOTIONS)
    faces["track_id"] = faces["track_id"].astype("Int32")
    return faces.sort_values(["media", "frame_index", "face_index"], ignore_index=True)


def load_frames(out: Path | str, *, media: str | Sequence[str] | None = None) -> pd.DataFrame:
    """The frames of a run, or of these files only, ordered by media and frame_index.

    Raises:
        StoreError: ``out`` is not the output folder of a run, or a table cannot be read.
    """
    frames = _read(out, "frames", medias=_names(media))
    return frames.sort_values(["media", "frame_index"], ignore_index=True)


def load_media(out: Path | str) -> pd.DataFrame:
    """The input files of a run and what became of them, ordered by name.

    Raises:
        StoreError: ``out`` is not the output folder of a run, or a table cannot be read.
    """
    return _read(out, "media").sort_values("media", ignore_index=True)


def smooth(faces: pd.DataFrame, *, seconds: float) -> pd.DataFrame:
    """Steady each track's probabilities: an exponential moving average in time, looking back only.

    What a track showed ``t`` seconds ago counts ``exp(-t / seconds)``, whatever the frame rate, so
    a gap needs no rule of its own: the longer it is, the less of the past is left. ``emotion`` and
    ``confidence`` follow. Faces without a track or without probabilities stay as they are.

    Args:
        faces: From `load`.
        seconds: Time constant; 0 smooths nothing.
    """
    if seconds == 0:
        return faces.copy()
    rows = _tracked(faces.reset_index(drop=True))
    passed_s = rows.groupby(["media", "track_id"], observed=True)["pts_s"].diff().fillna(np.inf)
    past = np.exp(-passed_s.to_numpy() / seconds)
    steady = rows[_EMOTIONS].to_numpy(np.float64, copy=True)
    for row in np.flatnonzero(past):
        steady[row] += past[row] * (steady[row - 1] - steady[row])
    probs = faces[_EMOTIONS].to_numpy(np.float32, copy=True)
    probs[rows.index] = steady
    columns = dict(zip(EMOTIONS, probs.T, strict=True))
    _, confidence = tables.dominant(probs)
    return faces.assign(**columns, emotion=_categories(probs), confidence=confidence)


def segments(faces: pd.DataFrame, *, min_s: float = 0.0) -> pd.DataFrame:
    """Stretches over which a track shows one dominant emotion.

    Times are those of the first and last frame of a stretch. Short stretches are left out, not
    merged into their neighbours: `smooth` first for few and long ones.

    Args:
        faces: From `load` or `smooth`.
        min_s: Shortest stretch that is kept, in seconds.

    Returns:
        media, track_id, emotion, start_s, end_s, n_faces, confidence (mean), by track and time.
    """
    rows = _tracked(faces)
    keys = rows[["media", "track_id", "emotion"]].astype({"media": str, "emotion": str})
    run = (keys != keys.shift()).any(axis=1).cumsum()
    found = rows.groupby(run).agg(
        media=("media", "first"),
        track_id=("track_id", "first"),
        emotion=("emotion", "first"),
        start_s=("pts_s", "first"),
        end_s=("pts_s", "last"),
        n_faces=("pts_s", "size"),
        confidence=("confidence", "mean"),
    )
    return found[found["end_s"] - found["start_s"] >= min_s].reset_index(drop=True)


def binned(out: Path | str, media: str, *, most: int, smooth_s: float) -> Binned:
    """Means over time of what all faces of a video show.

    A bin has at least one frame where frames come regularly. One without a frame is like the bin
    before, for at most `HOLD_S`: what is missing for longer is not known.

    Args:
        out: Output folder of a run.
        media: A video of which the run has frames at different times.
        most: Number of bins.
        smooth_s: Time constant of `smooth`, which serves where bins are shorter.

    Raises:
        StoreError: ``out`` is not the output folder of a run, a table cannot be read, or there are
            no such frames.
    """
    frames = _read(out, "frames", medias=[media], columns=["media", "pts_s", "n_faces"])
    pts_s = frames["pts_s"].to_numpy(np.float64)
    if len(pts_s) < 2 or pts_s[0] == pts_s[-1]:
        raise StoreError(f"{out} has not two frames of {media} at different times")
    step_s = float(np.median(np.diff(pts_s)))
    edges_s = np.linspace(pts_s[0], pts_s[-1] + step_s, min(most, len(pts_s)) + 1)
    n_bins, bin_s = len(edges_s) - 1, edges_s[1] - edges_s[0]
    columns = ["media", "frame_index", "track_id", "pts_s", "emotion", *EMOTIONS]
    faces = _read(out, "faces", medias=[media], columns=columns)
    if bin_s < smooth_s:
        faces = smooth(faces, seconds=smooth_s)

    def place(times_s: Seconds) -> Ints:  # by the middle of a frame, which lies on no edge
        places: Ints = np.searchsorted(edges_s, times_s + step_s / 2) - 1
        return places.clip(0, n_bins - 1)

    def means(places: Ints, values: Floats) -> Floats:
        known = ~np.isnan(values)
        sums = np.bincount(places[known], values[known], n_bins)
        with np.errstate(invalid="ignore"):
            return (sums / np.bincount(places[known], minlength=n_bins)).astype(np.float32)

    at, at_face = place(pts_s), place(faces["pts_s"].to_numpy(np.float64))
    probs = [means(at_face, faces[name].to_numpy(np.float32)) for name in EMOTIONS]
    n_faces = means(at, frames["n_faces"].to_numpy(np.float32))
    number = np.arange(n_bins)
    last = np.maximum.accumulate(np.where(np.isin(number, at), number, 0))
    is_held = (number - last) * bin_s <= HOLD_S
    return Binned(
        edges_s,
        np.where(is_held[:, None], np.stack(probs, axis=1)[last], np.float32(np.nan)),
        np.where(is_held, n_faces[last], np.float32(np.nan)),
    )


def strongest(row: Mapping[Any, Any]) -> str:
    """At most three emotions of a row of `summary` in words: ``happiness 62%, neutral 9%``."""
    shown = [name for name in EMOTIONS if row[name] >= 0.005]
    shown.sort(key=lambda name: -row[name])
    return ", ".join(f"{name} {row[name]:.0%}" for name in shown[:3])


def summary(out: Path | str, *, media: str | Sequence[str] | None = None) -> pd.DataFrame:
    """One row per input file, or for these files only: what was looked at, and what was seen.

    Returns:
        media, kind, status; frames; seconds, from the first to the last frame; face_share, the
        fraction of frames with a face; tracks, the number of tracked faces; the mean
        probability of each emotion over all faces, each face of each frame counting once; emotion,
        the strongest of these. Missing where no face or no frame was found.

    Raises:
        StoreError: ``out`` is not the output folder of a run, or a table cannot be read.
    """
    medias = _names(media)
    frames = _read(out, "frames", medias=medias, columns=["media", "pts_s", "n_faces"])
    faces = _read(out, "faces", medias=medias, columns=["media", "track_id", *EMOTIONS])
    faces_of = faces.groupby("media", observed=True)
    pts_s = frames.groupby("media", observed=True)["pts_s"]
    rows = _read(out, "media", medias=medias, columns=["media", "kind", "status"])
    rows = rows.sort_values("media").set_index("media")
    rows["frames"] = pts_s.size()
    rows["seconds"] = pts_s.max() - pts_s.min()
    rows["face_share"] = (frames["n_faces"] > 0).groupby(frames["media"], observed=True).mean()
    rows["tracks"] = faces_of["track_id"].nunique()
    rows[_EMOTIONS] = faces_of[_EMOTIONS].mean()
    rows["emotion"] = _categories(rows[_EMOTIONS].to_numpy(np.float32))
    rows = rows.fillna({"frames": 0, "tracks": 0}).astype({"frames": int, "tracks": int})
    return rows.reset_index()


def _names(media: str | Sequence[str] | None) -> Sequence[str] | None:
    return [media] if isinstance(media, str) else media


def _read(
    out: Path | str,
    table: tables.Name,
    *,
    medias: Sequence[str] | None = None,
    columns: list[str] | None = None,
) -> pd.DataFrame:
    rows: pd.DataFrame
    rows = store.read(urls.path_of(out), table, medias=medias, columns=columns).to_pandas()
    if table != "media":  # alphabetical categories, else sorting would follow the files' hashes
        rows["media"] = rows["media"].cat.set_categories(sorted(rows["media"].cat.categories))
    return rows


def _tracked(faces: pd.DataFrame) -> pd.DataFrame:
    """Faces with a track and an emotion, track by track, in time."""
    rows = faces[faces["track_id"].notna() & faces["emotion"].notna()]
    return rows.sort_values(["media", "track_id", "frame_index"])


def _categories(probs: Floats) -> pd.Categorical[str]:
    code, _ = tables.dominant(probs)
    return pd.Categorical.from_codes(code, pd.Index(EMOTIONS))
