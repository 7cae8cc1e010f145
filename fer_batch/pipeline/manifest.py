"""What a run says of itself: the media row of each file, its summary, and run.json."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from fer_batch import __version__, plugins
from fer_batch.errors import FerError
from fer_batch.pipeline.plan import Plan
from fer_batch.records import DecodeReport, MediaFile, MediaInfo, MediaRow, Status

PACKAGES = ("torch", "decord", "av", "opencv-python-headless", "pillow", "numpy", "pyarrow")
"""Whose versions can change results."""


@dataclass(frozen=True, slots=True)
class Problem:
    """A file that is not ok."""

    media: str
    status: Status
    error: str


@dataclass(frozen=True, slots=True)
class Summary:
    """What a run did."""

    n_ok: int
    n_partial: int
    n_failed: int
    n_skipped: int
    """Files whose rows were there already."""
    n_frames: int
    n_faces: int
    seconds: float
    device: str
    stage_seconds: Mapping[str, float]
    """Wall time by stage; of what several threads do at once, the sum over them."""
    problems: tuple[Problem, ...]
    interrupted: bool
    """True when the run was asked to stop before its end."""

    def __str__(self) -> str:
        return (
            f"{self.n_ok + self.n_partial + self.n_failed:,} files in {self.seconds:.1f} s: "
            f"{self.n_ok:,} ok, {self.n_partial:,} partial, {self.n_failed:,} failed; "
            f"{self.n_skipped:,} were done before"
        )


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


def run_manifest(plan: Plan, began: datetime, summary: Summary) -> dict[str, object]:
    """What run.json holds."""
    counts = asdict(summary)
    stage_seconds = counts.pop("stage_seconds")
    del counts["problems"]
    return {
        "fer_batch": __version__,
        "began": began.isoformat(timespec="seconds"),
        "ended": datetime.now(UTC).isoformat(timespec="seconds"),
        "device": counts.pop("device"),
        "counts": counts,
        "stage_seconds": {stage: round(value, 3) for stage, value in stage_seconds.items()},
        "config_hash": plan.config_hash,
        "weights": {"name": plan.card.name, "sha256": plan.card.sha256},
        "detector": {"name": plan.config.detector.name, "sha256": plan.detector_sha256 or None},
        "config": plan.config.model_dump(mode="json"),
        "versions": {
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in PACKAGES},
            **plugins.versions(plugins.DETECTORS, plan.config.detector.name),
            **plugins.versions(plugins.CLASSIFIERS, plan.config.classifier.weights),
        },
    }
