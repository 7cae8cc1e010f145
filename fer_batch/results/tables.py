"""The tables of a run as Arrow: their columns, and rows made from what the stages hand over."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds

from fer_batch.emotions import EMOTIONS
from fer_batch.records import ChunkResult, Floats, Ints, MediaRow
from fer_batch.storage import urls

VERSION = "1"
"""Of the columns and their meaning; stands in the metadata of every Parquet file."""

Name = Literal["media", "frames", "faces"]

FILES_AT_ONCE = 512
"""Arrow holds about 75 kB of each file of a dataset until all of them are read."""

_FLOAT = pa.float32()
_MEDIA = pa.dictionary(pa.int32(), pa.string())
_NUMBERS: dict[str, pa.DataType] = {"int": pa.int64(), "float": pa.float64()}

SCHEMAS: dict[Name, pa.Schema] = {
    # The columns are MediaRow's fields: numbers as they are, everything else is text.
    "media": pa.schema(
        (field.name, _NUMBERS.get(str(field.type).removesuffix(" | None"), pa.string()))
        for field in fields(MediaRow)
    ),
    "frames": pa.schema(
        [
            ("media", _MEDIA),
            ("frame_index", pa.int32()),
            ("pts_s", pa.float64()),
            ("n_faces", pa.int16()),
            ("is_damaged", pa.bool_()),
        ]
    ),
    "faces": pa.schema(
        [
            ("media", _MEDIA),
            ("frame_index", pa.int32()),
            ("pts_s", pa.float64()),
            ("face_index", pa.int16()),
            ("track_id", pa.int32()),
            *((name, _FLOAT) for name in ("x1_px", "y1_px", "x2_px", "y2_px")),
            ("detection_score", _FLOAT),
            ("points_px", pa.list_(_FLOAT, 10)),
            *((emotion, _FLOAT) for emotion in EMOTIONS),
            ("emotion", pa.dictionary(pa.int8(), pa.string())),
            ("confidence", _FLOAT),
        ]
    ),
}

EXPLANATIONS = pa.schema(
    [
        ("media", _MEDIA),
        ("frame_index", pa.int32()),
        ("pts_s", pa.float64()),
        ("face_index", pa.int16()),
        ("track_id", pa.int32()),
        ("label", pa.dictionary(pa.int8(), pa.string())),
        ("emotion", pa.dictionary(pa.int8(), pa.string())),
        ("score", _FLOAT),
        ("method", pa.dictionary(pa.int8(), pa.string())),
        *((name, _FLOAT) for name in ("deletion_auc", "insertion_auc")),
        *((f"{region}_share", _FLOAT) for region in ("mouth", "eyes", "brows", "outside")),
        ("random_correlation", _FLOAT),
    ]
)
"""One row per face and method of explanation, from `fer_batch.explain.faithfulness`. ``label`` is
what people said, null in a run; ``emotion`` is what is explained, ``score`` its probability."""


def dominant(probs: Floats) -> tuple[Ints, Floats]:
    """The strongest emotion of each face and its probability.

    Args:
        probs: (M, 8) in EMOTIONS order, NaN where unknown.

    Returns:
        Positions in EMOTIONS (M,) and probabilities (M,); -1 and NaN for a row without any number.
    """
    code = np.where(np.isnan(probs), -1, probs).argmax(axis=1)
    confidence = probs[np.arange(len(probs)), code]
    return np.where(np.isnan(confidence), -1, code), confidence


def media_table(rows: Iterable[MediaRow]) -> pa.Table:
    """One row per input file."""
    return pa.Table.from_pylist([asdict(row) for row in rows], SCHEMAS["media"])


def frames_table(result: ChunkResult) -> pa.Table:
    """One row per frame of the chunk."""
    n = len(result.frame_index)
    return _table(
        "frames",
        _repeat(result.media, n),
        result.frame_index,
        result.pts_s,
        np.bincount(result.faces.frame_row, minlength=n),
        result.is_damaged,
    )


def faces_table(result: ChunkResult) -> pa.Table:
    """One row per face of the chunk."""
    faces, m = result.faces, len(result.faces)
    row = faces.frame_row
    code, confidence = dominant(result.probs)
    emotion = pa.array(code, pa.int8(), mask=code < 0)
    points = None if faces.points_px is None else pa.array(faces.points_px.ravel())
    return _table(
        "faces",
        _repeat(result.media, m),
        result.frame_index[row],
        result.pts_s[row],
        np.arange(m) - np.searchsorted(row, row),  # rows of a frame stand together
        pa.nulls(m) if result.track_id is None else result.track_id,
        *faces.box_px.T,
        faces.score,
        pa.nulls(m) if points is None else pa.FixedSizeListArray.from_arrays(points, 10),
        *result.probs.T,
        pa.DictionaryArray.from_arrays(emotion, pa.array(EMOTIONS)),
        confidence,
    )


def read(
    name: Name,
    paths: Sequence[Path],
    *,
    medias: Sequence[str] | None = None,
    columns: list[str] | None = None,
) -> pa.Table:
    """The rows of Parquet files, or those of these media and these columns of them."""
    chosen = None if medias is None else ds.field("media").isin(pa.array(medias, pa.string()))
    sources = [urls.arrow_source(path)[0] for path in paths]
    files = urls.arrow_source(paths[0])[1] if paths else None
    blocks = [sources[at : at + FILES_AT_ONCE] for at in range(0, len(paths) or 1, FILES_AT_ONCE)]
    return pa.concat_tables(
        ds.dataset(block, SCHEMAS[name], filesystem=files)
        .to_table(columns, chosen)
        .combine_chunks()
        for block in blocks
    )


def _repeat(media: str, n: int) -> pa.Array[Any]:
    return pa.DictionaryArray.from_arrays(np.zeros(n, np.int32), pa.array([media]))


def _table(name: Name, *columns: Any) -> pa.Table:
    """The columns in schema order, cast to their types; NaN becomes null."""
    schema = SCHEMAS[name]
    arrays = [
        column.cast(field.type)
        if isinstance(column, pa.Array)
        else pa.array(column, field.type, from_pandas=True)
        for field, column in zip(schema, columns, strict=True)
    ]
    return pa.Table.from_arrays(arrays, schema=schema)
