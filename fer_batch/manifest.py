"""What a run says of itself: the media row of each file, and run.json."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Mapping
from datetime import UTC, datetime

from fer_batch import __version__
from fer_batch.plan import Plan
from fer_batch.schema import DecodeReport, FerError, MediaFile, MediaInfo, MediaRow

PACKAGES = ("torch", "decord", "av", "opencv-python-headless", "pillow", "numpy", "pyarrow")
"""Whose versions can change results."""


def media_row(
    file: MediaFile,
    info: MediaInfo | None,
    outcome: DecodeReport | Exception,
    *,
    plan: Plan,
    n_faces: int,
    seconds: float,
) -> MediaRow:
    """The row of a file that ended well (a report) or badly (an error)."""
    if isinstance(outcome, DecodeReport):
        report, status, error = outcome, outcome.status, outcome.message
    else:
        report, status = DecodeReport("none", 0, 0, 0), "failed"
        error = str(outcome) if isinstance(outcome, FerError) else repr(outcome)
    return MediaRow(
        media=file.media,
        root=str(file.path).removesuffix(file.media).rstrip("/") or "/",
        kind=file.kind,
        status=status,
        error=error,
        size_bytes=file.size_bytes,
        mtime_ns=file.mtime_ns,
        subject=file.subject,
        camera=file.camera,
        width_px=info.width_px if info else None,
        height_px=info.height_px if info else None,
        rotation_deg=info.rotation_deg if info else None,
        frame_rate=str(info.frame_rate) if info and info.frame_rate else None,
        duration_s=info.duration_s if info else None,
        n_frames_container=info.n_frames_container if info else None,
        n_frames_decoded=report.n_frames_decoded,
        n_frames_damaged=report.n_frames_damaged,
        n_frames_missing=report.n_frames_missing,
        n_faces=n_faces if status != "failed" else 0,
        decoder=report.decoder if isinstance(outcome, DecodeReport) else None,
        n_segments=report.n_segments,
        n_segments_fallback=report.n_segments_fallback,
        detector=plan.config.detector.name,
        model=plan.card.name,
        config_hash=plan.config_hash,
        seconds=seconds,
    )


def run_manifest(
    plan: Plan,
    *,
    began: datetime,
    device: str,
    counts: Mapping[str, int | float | bool],
    stage_seconds: Mapping[str, float],
) -> dict[str, object]:
    """What run.json holds."""
    return {
        "fer_batch": __version__,
        "began": began.isoformat(timespec="seconds"),
        "ended": datetime.now(UTC).isoformat(timespec="seconds"),
        "counts": dict(counts),
        "stage_seconds": {stage: round(value, 3) for stage, value in stage_seconds.items()},
        "device": device,
        "config_hash": plan.config_hash,
        "weights": {"name": plan.card.name, "sha256": plan.card.sha256},
        "detector": {"name": plan.config.detector.name, "sha256": plan.detector_sha256 or None},
        "config": plan.config.model_dump(mode="json"),
        "versions": {
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in PACKAGES},
        },
    }
