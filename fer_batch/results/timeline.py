"""Emotions over time, from the tables of a run: load, smooth, find segments, sum up."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fer_batch.emotions import EMOTIONS
from fer_batch.errors import StoreError
from fer_batch.records import Floats, Ints, MediaRow, Seconds
from fer_batch.results import store
from fer_batch.results.columns import Name
from fer_batch.results.tables import dominant
from fer_batch.storage import urls

HOLD_S = 5.0
"""Seconds of a gap in which the last frame before it still counts: some videos leave out frames
that repeat."""

IMAGES_AT_ONCE = 256
"""Number of still images whose rows are read together: opening the tables for each takes longer."""

_EMOTIONS = list(EMOTIONS)


@dataclass(frozen=True, slots=True, eq=False)
class Binned:
    """What the faces of a video show, in W bins of equal length."""

    edges_s: Seconds
    """(W + 1,) float64, the times between which the bins are, in seconds."""
    probs: Floats
    """(W, 8) mean over the faces of each bin, in EMOTIONS order; NaN where there is no face."""
    n_faces: Floats
    """(W,) mean over the frames of each bin; NaN where there is no frame."""


@dataclass(frozen=True, slots=True, eq=False)
class FileTables:
    """The rows of one input file in all tables of a run."""

    row: MediaRow
    faces: pd.DataFrame
    """As from `load`."""
    frames: pd.DataFrame
    """As from `load_frames`."""


def load(
    out: Path | str,
    *,
    media: str | Sequence[str] | None = None,
    short: bool = False,
    usable: bool = False,
) -> pd.DataFrame:
    """The faces of a run, ordered by media, frame_index, face_index.

    ``media`` and ``emotion`` are categories, the latter in EMOTIONS order; ``track_id`` is Int32;
    ``is_short`` and ``is_usable`` are boolean. Older runs do not know the last two: all their faces
    are loaded.

    Args:
        out: Output folder of a run.
        media: Names of the files whose faces are loaded; None loads all.
        short: Also faces of short tracks (``track.min_s``), which are mostly none.
        usable: Only faces that are good enough to classify (``is_usable``).

    Raises:
        StoreError: ``out`` is not the output folder of a run, or a table cannot be read.
    """
    faces = _read_faces(out, _names(media), short=short, usable=usable)
    faces["emotion"] = faces["emotion"].cat.set_categories(_EMOTIONS)
    faces["track_id"] = faces["track_id"].astype("Int32")
    return faces.sort_values(["media", "frame_index", "face_index"], ignore_index=True)


def load_frames(out: Path | str, *, media: str | Sequence[str] | None = None) -> pd.DataFrame:
    """The frames of a run, ordered by media and frame_index.

    Args:
        out: Output folder of a run.
        media: Names of the files whose frames are loaded; None loads all.

    Raises:
        StoreError: ``out`` is not the output folder of a run, or a table cannot be read.
    """
    frames = _read(out, "frames", media=_names(media))
    return frames.sort_values(["media", "frame_index"], ignore_index=True)


def load_media(out: Path | str) -> pd.DataFrame:
    """The input files of a run and what became of them, ordered by name.

    Raises:
        StoreError: ``out`` is not the output folder of a run, or a table cannot be read.
    """
    return _read(out, "media").sort_values("media", ignore_index=True)


def each_file(
    out: Path | str, rows: Iterable[MediaRow], *, short: bool = False, usable: bool = False
) -> Iterator[FileTables]:
    """The tables of a run, file by file, for runs that are larger than memory.

    Each video is read alone, and up to `IMAGES_AT_ONCE` still images that follow each other are
    read together.

    Args:
        out: Output folder of a run.
        rows: The files, from `store.media_rows`; they come in this order.
        short: As for `load`.
        usable: As for `load`.

    Raises:
        StoreError: ``out`` is not the output folder of a run, or a table cannot be read.
    """
    for kind, group in itertools.groupby(rows, key=lambda row: row.kind):
        size = IMAGES_AT_ONCE if kind == "image" else 1
        while block := list(itertools.islice(group, size)):
            media = [row.media for row in block]
            faces = load(out, media=media, short=short, usable=usable)
            frames = load_frames(out, media=media)
            faces_of, frames_of = (
                dict(iter(table.groupby("media", observed=True))) for table in (faces, frames)
            )
            for row in block:
                yield FileTables(
                    row,
                    faces=faces_of.get(row.media, faces[:0]),
                    frames=frames_of.get(row.media, frames[:0]),
                )


def smooth(faces: pd.DataFrame, *, seconds: float) -> pd.DataFrame:
    """Smooth the probabilities of each track: an exponential moving average over the past.

    What a track showed ``t`` seconds ago has the weight ``exp(-t / seconds)``, whatever the frame
    rate; so what was before a long gap hardly counts. ``emotion`` and ``confidence`` are those of
    the smoothed probabilities. Faces without a track or without probabilities stay as they are.

    Args:
        faces: From `load`.
        seconds: Time constant; 0 changes nothing.
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
    _, confidence = dominant(probs)
    return faces.assign(**columns, emotion=_categories(probs), confidence=confidence)


def segments(faces: pd.DataFrame, *, min_s: float = 0.0) -> pd.DataFrame:
    """The times over which a track shows the same strongest emotion.

    A segment lasts from its first to its last frame. Short segments are left out, not merged into
    their neighbours: call `smooth` first to get fewer and longer ones.

    Args:
        faces: From `load` or `smooth`.
        min_s: Length of the shortest segment that is kept, in seconds.

    Returns:
        media, track_id, emotion, start_s, end_s, n_faces, confidence (mean); ordered by track and
        time.
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


def binned(
    out: Path | str,
    media: str,
    *,
    most: int,
    smooth_s: float,
    short: bool = False,
    usable: bool = False,
) -> Binned:
    """The mean of what all faces of a video show, in bins of equal length.

    A bin without a frame has the values of the bin before, for at most `HOLD_S`; after that its
    values are unknown. Such bins only occur where frames come irregularly.

    Args:
        out: Output folder of a run.
        media: Name of a video of which the run has frames at two different times or more.
        most: Largest number of bins; there are not more bins than frames.
        smooth_s: Time constant of `smooth`, which is used if the bins are shorter than it.
        short: As for `load`.
        usable: As for `load`.

    Raises:
        StoreError: ``out`` is not the output folder of a run, a table cannot be read, or there are
            no two such frames.
    """
    frames = _read(out, "frames", media=[media], columns=["media", "frame_index", "pts_s"])
    pts_s = frames["pts_s"].to_numpy(np.float64)
    if len(pts_s) < 2 or pts_s[0] == pts_s[-1]:
        raise StoreError(f"{out} has not two frames of {media} at different times")
    step_s = float(np.median(np.diff(pts_s)))
    edges_s = np.linspace(pts_s[0], pts_s[-1] + step_s, min(most, len(pts_s)) + 1)
    n_bins, bin_s = len(edges_s) - 1, edges_s[1] - edges_s[0]
    columns = ["media", "frame_index", "track_id", "pts_s", "emotion", *EMOTIONS]
    faces = _read_faces(out, [media], columns, short=short, usable=usable)
    frame_of_face = np.searchsorted(frames["frame_index"], faces["frame_index"])
    if bin_s < smooth_s:
        faces = smooth(faces, seconds=smooth_s)

    def place(times_s: Seconds) -> Ints:  # the bin of the middle of a frame, which is on no edge
        places: Ints = np.searchsorted(edges_s, times_s + step_s / 2) - 1
        return places.clip(0, n_bins - 1)

    def means(places: Ints, values: Floats) -> Floats:
        known = ~np.isnan(values)
        sums = np.bincount(places[known], values[known], n_bins)
        with np.errstate(invalid="ignore"):
            return (sums / np.bincount(places[known], minlength=n_bins)).astype(np.float32)

    at, at_face = place(pts_s), place(faces["pts_s"].to_numpy(np.float64))
    probs = [means(at_face, faces[name].to_numpy(np.float32)) for name in EMOTIONS]
    n_faces = means(at, np.bincount(frame_of_face, minlength=len(frames)).astype(np.float32))
    number = np.arange(n_bins)
    last = np.maximum.accumulate(np.where(np.isin(number, at), number, 0))
    is_held = (number - last) * bin_s <= HOLD_S
    return Binned(
        edges_s,
        np.where(is_held[:, None], np.stack(probs, axis=1)[last], np.float32(np.nan)),
        np.where(is_held, n_faces[last], np.float32(np.nan)),
    )


def strongest(row: Mapping[Any, Any]) -> str:
    """The three strongest emotions of a row of `summary` as text: ``happiness 62%, neutral 9%``."""
    shown = [name for name in EMOTIONS if row[name] >= 0.005]
    shown.sort(key=lambda name: -row[name])
    return ", ".join(f"{name} {row[name]:.0%}" for name in shown[:3])


def summary(
    out: Path | str,
    *,
    media: str | Sequence[str] | None = None,
    short: bool = False,
    usable: bool = False,
) -> pd.DataFrame:
    """One row for each input file: its frames and faces, and their mean emotions.

    Args:
        out: Output folder of a run.
        media: Names of the files; None takes all.
        short: As for `load`.
        usable: As for `load`.

    Returns:
        media, kind, status; frames (their number); seconds (from the first to the last frame);
        face_share (fraction of frames with a face); tracks (their number); the mean probability of
        each emotion over all faces of all frames; emotion (the strongest of these). Values are
        missing if there is no face or no frame.

    Raises:
        StoreError: ``out`` is not the output folder of a run, or a table cannot be read.
    """
    media = _names(media)
    frames = _read(out, "frames", media=media, columns=["media", "pts_s"])
    columns = ["media", "frame_index", "track_id", *EMOTIONS]
    faces = _read_faces(out, media, columns, short=short, usable=usable)
    faces_of = faces.groupby("media", observed=True)
    pts_s = frames.groupby("media", observed=True)["pts_s"]
    rows = _read(out, "media", media=media, columns=["media", "kind", "status"])
    rows = rows.sort_values("media").set_index("media")
    rows["frames"] = pts_s.size()
    rows["seconds"] = pts_s.max() - pts_s.min()
    n_with_face = faces_of["frame_index"].nunique().reindex(rows.index, fill_value=0)
    rows["face_share"] = n_with_face / rows["frames"]
    rows["tracks"] = faces_of["track_id"].nunique()
    rows[_EMOTIONS] = faces_of[_EMOTIONS].mean()
    rows["emotion"] = _categories(rows[_EMOTIONS].to_numpy(np.float32))
    rows = rows.fillna({"frames": 0, "tracks": 0}).astype({"frames": int, "tracks": int})
    return rows.reset_index()


def _names(media: str | Sequence[str] | None) -> Sequence[str] | None:
    return [media] if isinstance(media, str) else media


def _read(
    out: Path | str,
    table: Name,
    *,
    media: Sequence[str] | None = None,
    columns: list[str] | None = None,
) -> pd.DataFrame:
    rows: pd.DataFrame
    rows = store.read(urls.path_of(out), table, media=media, columns=columns).to_pandas()
    if table != "media":  # in alphabetical order, as sorting follows the categories
        rows["media"] = rows["media"].cat.set_categories(sorted(rows["media"].cat.categories))
    return rows


def _read_faces(
    out: Path | str,
    media: Sequence[str] | None,
    columns: Sequence[str] | None = None,
    *,
    short: bool,
    usable: bool,
) -> pd.DataFrame:
    """The faces that `load` chooses, in the order of the table."""
    flags = ["is_short", "is_usable"]
    faces = _read(out, "faces", media=media, columns=[*columns, *flags] if columns else None)
    faces[flags] = faces[flags].astype("boolean")
    is_wanted = short | ~faces["is_short"].fillna(False)
    is_wanted &= (not usable) | faces["is_usable"].fillna(True)
    return faces[is_wanted]


def _tracked(faces: pd.DataFrame) -> pd.DataFrame:
    """Faces with a track and an emotion, ordered by track and time."""
    rows = faces[faces["track_id"].notna() & faces["emotion"].notna()]
    return rows.sort_values(["media", "track_id", "frame_index"])


def _categories(probs: Floats) -> pd.Categorical[str]:
    code, _ = dominant(probs)
    return pd.Categorical.from_codes(code, pd.Index(EMOTIONS))
