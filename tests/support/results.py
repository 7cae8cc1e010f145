"""Hand-made results of a run, for the tests of what is stored and read back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike

from fer_batch.config import Config
from fer_batch.emotions import EMOTIONS, in_order
from fer_batch.records import Bools, ChunkResult, Faces, MediaRow, Quality
from fer_batch.results import columns, store
from fer_batch.results.tables import Column

if TYPE_CHECKING:
    import pytest

HAPPY = tuple(float(name == "happiness") for name in EMOTIONS)
CONFIG_HASH = "c0ffee"
CARD = '{"name": "hand-made"}'


def result(
    media: str,
    n_faces: Sequence[int],
    *,
    frame_index: ArrayLike | None = None,
    pts_s: ArrayLike | None = None,
    box_px: ArrayLike = (0, 0, 0, 0),
    points_px: ArrayLike | None = None,
    track_id: ArrayLike | None = None,
    probs: ArrayLike = HAPPY,
    is_short: ArrayLike | None = None,
    is_usable: ArrayLike | None = None,
) -> ChunkResult:
    """A chunk with ``n_faces[i]`` faces in frame i, by default ten frames per second.

    Boxes, tracks and probabilities may be given for each face, or one for all of them. Without
    ``track_id`` it is that of a still image. Where ``is_usable`` is False, faces are dark.
    """
    n, m = len(n_faces), sum(n_faces)
    index = np.arange(n) if frame_index is None else np.array(frame_index, np.int64)
    return ChunkResult(
        media=media,
        frame_index=index,
        pts_s=index / 10 if pts_s is None else np.array(pts_s, np.float64),
        is_damaged=np.zeros(n, np.bool_),
        faces=Faces(
            frame_row=np.repeat(np.arange(n), n_faces),
            box_px=np.full((m, 4), box_px, np.float32),
            score=np.ones(m, np.float32),
            points_px=points_px,
        ),
        track_id=None if track_id is None else np.full(m, track_id, np.int64),
        probs=np.full((m, len(EMOTIONS)), probs, np.float32),
        quality=None if is_usable is None else quality(np.full(m, is_usable, np.bool_)),
        is_short=None if is_short is None else np.full(m, is_short, np.bool_),
    )


def quality(is_usable: Bools) -> Quality:
    """Of faces some of which are so dark that they are not usable."""
    values = np.full(len(is_usable), 50, np.float32)
    nothing = np.zeros(len(is_usable), np.float32)
    return Quality(
        size_px=values,
        sharpness=values * 100,
        brightness=np.where(is_usable, np.float32(0.5), np.float32(0)),
        yaw_deg=nothing,
        pitch_deg=nothing * np.float32(np.nan),
        roll_deg=nothing,
        edge_share=nothing,
        is_usable=is_usable,
    )


def chunk(
    media: str,
    n_faces: Sequence[int],
    *,
    pts_s: Sequence[float] | None = None,
    first: int = 0,
    n_classes: int = 8,
    seed: int = 0,
) -> ChunkResult:
    """A chunk with ``n_faces[i]`` random faces in frame i, every face with points and a track."""
    rng = np.random.default_rng([seed, *media.encode()])
    n, m = len(n_faces), sum(n_faces)
    index = np.arange(first, first + n)
    probs = rng.dirichlet(np.ones(n_classes), m).astype(np.float32)
    made = result(
        media,
        n_faces,
        frame_index=index,
        pts_s=index / 25 if pts_s is None else pts_s,
        track_id=np.concatenate([np.arange(0), *(np.arange(k) for k in n_faces)]),
        probs=in_order(probs, EMOTIONS[:n_classes]),
    )
    is_damaged = rng.random(n) < 0.3
    faces = replace(
        made.faces,
        box_px=rng.random((m, 4), np.float32),
        score=rng.random(m, np.float32),
        points_px=rng.random((m, 5, 2), np.float32),
    )
    return replace(made, is_damaged=is_damaged, faces=faces)


def still(media: str, n_faces: int = 1, *, seed: int = 0) -> ChunkResult:
    """The result of a still image, as a detector without points gives it."""
    made = chunk(media, [n_faces], pts_s=[0.0], seed=seed)
    return replace(made, faces=replace(made.faces, points_px=None), track_id=None)


def row(media: str, **changes: object) -> MediaRow:
    """A media row; the kind follows the name."""
    values: dict[str, object] = {
        "media": media,
        "root": "/data",
        "kind": "video" if media.endswith(".mp4") else "image",
        "status": "ok",
        "error": None,
        "size_bytes": 1000,
        "mtime_ns": 1_700_000_000_000_000_001,
        "subject": None,
        "camera": None,
        "width_px": 640,
        "height_px": 360,
        "rotation_deg": 0,
        "frame_rate": "30000/1001",
        "duration_s": 0.1,
        "n_frames_container": 3,
        "n_frames_decoded": 3,
        "n_frames_damaged": 0,
        "n_frames_missing": 0,
        "n_faces": 3,
        "decoder": "pyav",
        "n_segments": 1,
        "n_segments_fallback": 1,
        "detector": "yunet",
        "model": "hand-made",
        "config_hash": CONFIG_HASH,
        "seconds": 0.5,
    }
    return MediaRow(**{**values, **changes})  # type: ignore[arg-type]


def add_column(monkeypatch: pytest.MonkeyPatch, table: columns.Name, name: str) -> None:
    """Add a column, true in every row, to ``frames`` or ``faces`` for the duration of a test."""
    first, *others = columns.TABLES[table].columns
    new = Column(
        name,
        pa.bool_(),
        "Made by a test. Missing in older runs.",
        is_nullable=True,
        values=lambda result: np.ones(len(first.array(result)), np.bool_),
    )
    changed = replace(columns.TABLES[table], columns=(first, *others, new))
    monkeypatch.setitem(columns.TABLES, table, changed)


def write(out: Path, *results: ChunkResult, rows: Sequence[MediaRow] | None = None) -> None:
    """Commit these chunks as one part; by default every file of them is ok."""
    names = list(dict.fromkeys(result.media for result in results))
    rows = [row(name) for name in names] if rows is None else rows
    part = store.part_id([row.media for row in rows])
    with store.PartWriter(out, part, config_hash=CONFIG_HASH, model_card_json=CARD) as writer:
        for result in results:
            writer.append(result)
        for media_row in rows:
            writer.finish(media_row)
        writer.commit()


def finish(out: Path) -> Path:
    """Write run.json, as a run does in its end."""
    out.mkdir(exist_ok=True)
    (out / "media").mkdir(exist_ok=True)
    run = {
        "fer_batch": "1.2.3",
        "began": "2026-01-02T03:04:05+00:00",
        "ended": "2026-01-02T04:05:06+00:00",
        "device": "cpu",
        "config_hash": CONFIG_HASH,
        "weights": {"name": "hand-made"},
        "detector": {"name": "yunet"},
        "config": Config().model_dump(mode="json"),
    }
    store.write_run(out, run)
    return out
