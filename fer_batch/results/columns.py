"""Every column of every table: the data dictionary that `fer-batch schema` prints.

A new column of ``frames`` or ``faces`` is one line here. A new column of ``media`` is also a field
of `fer_batch.records.MediaRow`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
import pyarrow as pa

from fer_batch.emotions import EMOTIONS
from fer_batch.records import ChunkResult
from fer_batch.results.tables import Column, Table, dominant

VERSION = "1.1"
"""Version of the columns and their meaning, ``major.minor``; in the metadata of every Parquet file.

A new column raises the minor version. It must be nullable, as runs of an older minor version are
read with nulls in it. Removing a column or changing its meaning raises the major version: runs of
another major version are refused."""

Name = Literal["media", "frames", "faces"]
_INT, _DOUBLE, _TEXT = pa.int64(), pa.float64(), pa.string()
_INDEX, _COUNT, _FLOAT = pa.int32(), pa.int16(), pa.float32()
_NAME, _CATEGORY = pa.dictionary(pa.int32(), _TEXT), pa.dictionary(pa.int8(), _TEXT)


def _media(result: ChunkResult) -> pa.Array:
    positions = np.zeros(len(result.frame_index), np.int32)
    return pa.DictionaryArray.from_arrays(positions, pa.array([result.media]))


def _points(result: ChunkResult) -> pa.Array:
    points = result.faces.points_px
    if points is None:
        return pa.nulls(len(result.faces))
    return pa.FixedSizeListArray.from_arrays(pa.array(points.ravel()), 10)


def _emotion(result: ChunkResult) -> pa.Array:
    code, _ = dominant(result.probs)
    positions = pa.array(code, pa.int8(), mask=code < 0)
    return pa.DictionaryArray.from_arrays(positions, pa.array(EMOTIONS))


def _of_frame(column: Column) -> Column:
    """A column of ``faces`` that repeats a column of ``frames`` for each face of a frame."""
    return replace(
        column, values=lambda result: column.array(result).take(pa.array(result.faces.frame_row))
    )


def _of_picture(name: str, description: str, unit: str) -> Column:
    description += " Missing if the file could not be opened."
    return Column(name, _INT, description, unit, is_nullable=True)


def _box_side(name: str, position: int, side: str) -> Column:
    return Column(
        name,
        _FLOAT,
        f"{side} edge of the face's box in the upright picture.",
        "pixels",
        values=lambda result: result.faces.box_px[:, position],
    )


def _probability(emotion: str) -> Column:
    position = EMOTIONS.index(emotion)
    return Column(
        emotion,
        _FLOAT,
        f"Probability of {emotion}. Missing if the classifier was not trained on it.",
        "0 to 1",
        is_nullable=True,
        values=lambda result: result.probs[:, position],
    )


def _measure(name: str, description: str, unit: str | None = None) -> Column:
    """A column with a field of the faces' `Quality`."""
    description += " Missing in tables older than version 1.1."
    return Column(
        name,
        pa.bool_() if name == "is_usable" else _FLOAT,
        description,
        unit,
        is_nullable=True,
        values=lambda result: (
            pa.nulls(len(result.faces)) if result.quality is None else getattr(result.quality, name)
        ),
    )


_FRAME_KEY = (
    Column("media", _NAME, "Name of the file, as in the table media.", values=_media),
    Column(
        "frame_index",
        _INDEX,
        "Position of the frame in the video, counted from 0.",
        values=lambda result: result.frame_index,
    ),
    Column(
        "pts_s",
        _DOUBLE,
        "When a player shows the frame, counted from the start of the video.",
        "seconds",
        values=lambda result: result.pts_s,
    ),
)

TABLES: dict[Name, Table] = {
    "media": Table(
        "One row for each input file: what it is, and what became of it.",
        (
            Column("media", _TEXT, "Name of the file: its path relative to root."),
            Column("root", _TEXT, "Input folder or URL."),
            Column("kind", _TEXT, "video or image."),
            Column(
                "status",
                _TEXT,
                "ok; partial: some frames are missing or damaged; failed: there are no results.",
            ),
            Column(
                "error", _TEXT, "What went wrong. Missing if the status is ok.", is_nullable=True
            ),
            Column("size_bytes", _INT, "Size of the file.", "bytes"),
            Column(
                "mtime_ns",
                _INT,
                "When the file was last changed, counted from the start of 1970 (UTC).",
                "nanoseconds",
            ),
            Column(
                "subject",
                _TEXT,
                "Person in a video of DISFA, e.g. SN001. Missing for other files.",
                is_nullable=True,
            ),
            Column(
                "camera",
                _TEXT,
                "Camera of a video of DISFA: left or right. Missing for other files.",
                is_nullable=True,
            ),
            _of_picture("width_px", "Width of the upright picture.", "pixels"),
            _of_picture("height_px", "Height of the upright picture.", "pixels"),
            _of_picture(
                "rotation_deg",
                "How far the stored picture is turned counter-clockwise to be upright.",
                "degrees",
            ),
            Column(
                "frame_rate",
                _TEXT,
                "Average frame rate as a fraction, e.g. 30000/1001. Missing for an image, or if "
                "unknown.",
                "frames per second",
                is_nullable=True,
            ),
            Column(
                "duration_s",
                _DOUBLE,
                "Length of the video, as the file says. Missing for an image, or if unknown.",
                "seconds",
                is_nullable=True,
            ),
            Column(
                "n_frames_container",
                _INT,
                "Number of frames that the file says it shows. Missing if unknown.",
                is_nullable=True,
            ),
            Column("n_frames_decoded", _INT, "Number of frames that could be read."),
            Column("n_frames_damaged", _INT, "Number of frames that were read with errors."),
            Column("n_frames_missing", _INT, "Number of frames that could not be read."),
            Column("n_faces", _INT, "Number of rows in the table faces."),
            Column(
                "decoder",
                _TEXT,
                "Software that read the file: decord, pyav, decord+pyav or pillow. Missing if the "
                "file failed with an error.",
                is_nullable=True,
            ),
            Column("n_segments", _INT, "Number of parts in which the video was read (segments)."),
            Column(
                "n_segments_fallback",
                _INT,
                "Number of segments that PyAV read because Decord could not.",
            ),
            Column("detector", _TEXT, "Name of the face detector."),
            Column("model", _TEXT, "Name of the emotion classifier."),
            Column(
                "config_hash",
                _TEXT,
                "Fingerprint of all settings and weight files that can change results.",
            ),
            Column("seconds", _DOUBLE, "How long it took to process the file.", "seconds"),
        ),
    ),
    "frames": Table(
        "One row for each frame that was read, with or without a face.",
        (
            *_FRAME_KEY,
            Column(
                "n_faces",
                _COUNT,
                "Number of faces in the frame: its rows in the table faces.",
                values=lambda result: np.bincount(
                    result.faces.frame_row, minlength=len(result.frame_index)
                ),
            ),
            Column(
                "is_damaged",
                pa.bool_(),
                "Whether the frame was read with errors.",
                values=lambda result: result.is_damaged,
            ),
        ),
    ),
    "faces": Table(
        "One row for each face in each frame.",
        (
            *map(_of_frame, _FRAME_KEY),
            Column(
                "face_index",
                _COUNT,
                "Number of the face within its frame, counted from 0.",
                values=lambda result: result.faces.face_index,
            ),
            Column(
                "track_id",
                _INDEX,
                "Number of the track: the same for one face over time in one video, counted from "
                "0. Missing for an image.",
                is_nullable=True,
                values=lambda result: (
                    pa.nulls(len(result.faces)) if result.track_id is None else result.track_id
                ),
            ),
            Column(
                "is_short",
                pa.bool_(),
                "Whether the track lasts less than the setting track.min_s: such a face is mostly "
                "none. Missing for an image.",
                is_nullable=True,
                values=lambda result: (
                    pa.nulls(len(result.faces)) if result.is_short is None else result.is_short
                ),
            ),
            _box_side("x1_px", 0, "Left"),
            _box_side("y1_px", 1, "Upper"),
            _box_side("x2_px", 2, "Right"),
            _box_side("y2_px", 3, "Lower"),
            Column(
                "detection_score",
                _FLOAT,
                "How sure the detector is of the face; its scale differs between detectors. "
                "Missing if the detector skipped the frame (setting detector.every).",
                is_nullable=True,
                values=lambda result: result.faces.score,
            ),
            Column(
                "points_px",
                pa.list_(_FLOAT, 10),
                "x and y of right eye, left eye, nose, right and left corner of the mouth, in the "
                "upright picture. Missing if the detector finds no such points.",
                "pixels",
                is_nullable=True,
                values=_points,
            ),
            _measure("size_px", "Size of the face: the longer side of its box.", "pixels"),
            _measure(
                "sharpness",
                "Variance of the Laplacian of the face in grey at 48x48 pixels, divided by its "
                "variance: low for a blurred face, whatever its size and light.",
            ),
            _measure("brightness", "Mean brightness of the face; 1 is white.", "0 to 1"),
            _measure(
                "yaw_deg",
                "How far the face looks to the right of the picture; below 0: to the left. Like "
                "pitch_deg and roll_deg, it needs points_px that tell a pose.",
                "degrees",
            ),
            _measure("pitch_deg", "How far the face looks up; below 0: down.", "degrees"),
            _measure(
                "roll_deg",
                "How far the face is tilted clockwise; below 0: counter-clockwise.",
                "degrees",
            ),
            _measure(
                "edge_share",
                "Share of the square that was cut out for the classifier that lies outside the "
                "picture.",
                "0 to 1",
            ),
            _measure(
                "is_usable",
                "Whether the face is good enough to classify: within the limits that the section "
                "quality of the settings sets for the columns from size_px to edge_share.",
            ),
            *map(_probability, EMOTIONS),
            Column(
                "emotion",
                _CATEGORY,
                "Emotion with the highest probability. Missing if there is no probability.",
                is_nullable=True,
                values=_emotion,
            ),
            Column(
                "confidence",
                _FLOAT,
                "Probability of that emotion. Missing if there is no probability.",
                "0 to 1",
                is_nullable=True,
                values=lambda result: dominant(result.probs)[1],
            ),
        ),
    ),
}


def _share(region: str, place: str) -> Column:
    return Column(
        f"{region}_share",
        _FLOAT,
        f"Share of the positive part of the map that lies {place}. Missing if no part is positive.",
        "0 to 1",
        is_nullable=True,
    )


EXPLANATIONS = Table(
    "One row for each explained face and method of explanation (fer-batch explain).",
    (
        Column("media", _NAME, "Name of the file, or path of a picture of a data set."),
        Column("frame_index", _INDEX, "As in the table faces. 0 for a picture of a data set."),
        Column(
            "pts_s",
            _DOUBLE,
            "As in the table faces. Missing for a picture of a data set.",
            "seconds",
            is_nullable=True,
        ),
        Column("face_index", _COUNT, "As in the table faces. 0 for a picture of a data set."),
        Column(
            "track_id",
            _INDEX,
            "As in the table faces. Missing for an image or a picture of a data set.",
            is_nullable=True,
        ),
        Column(
            "label",
            _CATEGORY,
            "Emotion that people saw in a picture of a data set. Missing for a run.",
            is_nullable=True,
        ),
        Column("emotion", _CATEGORY, "Emotion that is explained."),
        Column("score", _FLOAT, "Probability of that emotion.", "0 to 1"),
        Column(
            "method",
            _CATEGORY,
            "How the map of important pixels was made. chance: a map that is the same everywhere.",
        ),
        Column(
            "deletion_auc",
            _FLOAT,
            "Mean score while the most important pixels become grey. Low for a good map.",
            "0 to 1",
        ),
        Column(
            "insertion_auc",
            _FLOAT,
            "Mean score while the most important pixels of a blurred face become sharp. High for a "
            "good map.",
            "0 to 1",
        ),
        _share("mouth", "on the mouth"),
        _share("eyes", "on the eyes"),
        _share("brows", "on the eyebrows"),
        _share("outside", "beside the face"),
        Column(
            "random_correlation",
            _FLOAT,
            "Rank correlation with the map of a network with random weights. About 0 for a good "
            "method. Missing if one of the maps is the same everywhere.",
            "-1 to 1",
            is_nullable=True,
        ),
    ),
)
