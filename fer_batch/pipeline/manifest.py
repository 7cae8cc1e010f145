"""The records of a run: the media row of each file, the summary, and run.json."""

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
from fer_batch.storage import urls

PACKAGES = (
    "torch",
    "decord",
    "decord2",
    "av",
    "opencv-python-headless",
    "pillow",
    "numpy",
    "pyarrow",
)
"""Packages whose versions can change results."""


@dataclass(frozen=True, slots=True)
class Problem:
    """A file that is not ok."""

    media: str
    status: Status
    error: str


@dataclass(frozen=True, slots=True)
class Summary:
    """What a run has done."""

    n_ok: int
    n_partial: int
    n_failed: int
    n_skipped: int
    """Files whose rows were already there."""
    n_frames: int
    n_faces: int
    seconds: float
    device: str
    stage_seconds: Mapping[str, float]
    """Wall time of each stage, added up over all threads."""
    problems: tuple[Problem, ...]
    interrupted: bool
    """True when the run was stopped early."""

    def __str__(self) -> str:
        return (
            f"{self.n_ok + self.n_partial + self.n_failed:,} files in {self.seconds:.1f} s: "
            f"{self.n_ok:,} ok, {self.n_partial:,} partial, {self.n_failed:,} failed; "
            f"{self.n_skipped:,} were done before"
        )


def media_row(
    file: MediaFile,
    info: MediaInfo | None,
    report: DecodeReport | Exception,
    *,
    plan: Plan,
    n_faces: int,
    seconds: float,
) -> MediaRow:
    """The row of a file, given the report of its decoding or the error that ended it."""
    decoder: str | None
    status: Status
    if isinstance(report, DecodeReport):
        decoder, status, error = report.decoder, report.status, report.message
    else:
        decoder, status = None, "failed"
        error = str(report) if isinstance(report, FerError) else repr(report)
        report = DecodeReport("none", 0, 0, 0)
    return MediaRow(
        media=file.media,
        root=_root(file),
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
        decoder=decoder,
        n_segments=report.n_segments,
        n_segments_fallback=report.n_segments_fallback,
        detector=plan.config.detector.name,
        model=plan.card.name,
        config_hash=plan.config_hash,
        seconds=seconds,
    )


def _root(file: MediaFile) -> str:
    """The input folder or URL that the name of a file is relative to."""
    if urls.is_url(file.path):
        return str(file.path).removesuffix(file.media).rstrip("/")
    return str(file.path.parents[file.media.count("/")])


def run_manifest(plan: Plan, began: datetime, summary: Summary) -> dict[str, object]:
    """The content of run.json."""
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
            **{name: _version(name) for name in PACKAGES},
            **plugins.versions(plugins.DETECTORS, plan.config.detector.name),
            **plugins.versions(plugins.CLASSIFIERS, plan.config.classifier.weights),
        },
    }


def _version(package: str) -> str | None:
    """The installed version; None where a package is missing, as decord may be."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
