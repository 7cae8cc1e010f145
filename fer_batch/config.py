"""The configuration of a run: one section of settings for each stage."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

import yaml
from pydantic import Field, model_validator

from fer_batch.errors import ConfigError
from fer_batch.settings import Settings, commented_yaml, merge, validate

Style = Literal["full", "minimal", "heatmap", "side-by-side"]
Layer = Literal["boxes", "labels", "bars", "ids", "points", "heatmap", "timeline", "clock"]
_FULL: frozenset[Layer] = frozenset(get_args(Layer)) - {"heatmap"}
STYLES: dict[Style, frozenset[Layer]] = {
    "full": _FULL,
    "minimal": frozenset({"boxes", "labels"}),
    "heatmap": frozenset({"boxes", "labels", "bars", "ids", "heatmap", "timeline", "clock"}),
    "side-by-side": _FULL,
}
"""What each style draws."""


class Sampling(Settings):
    """Which frames of a video are looked at."""

    every: int = Field(1, ge=1)
    """Keep every N-th frame."""
    fps: float | None = Field(None, gt=0)
    """Keep at most this many frames per second, evenly in time; replaces `every`."""
    start_s: float | None = Field(None, ge=0)
    """Skip what is shown before this time, in seconds from the start of the video."""
    end_s: float | None = Field(None, gt=0)
    """Skip what is shown at or after this time."""

    @model_validator(mode="after")
    def _check(self) -> Sampling:
        if self.fps is not None and self.every != 1:
            raise ValueError("give either every or fps, not both")
        if self.start_s is not None and self.end_s is not None and self.end_s <= self.start_s:
            raise ValueError(f"end_s ({self.end_s}) must be after start_s ({self.start_s})")
        return self


class Decode(Settings):
    """How files become frames."""

    decoder: Literal["auto", "decord", "pyav"] = "auto"
    """decord: Decord decodes segment by segment, and PyAV what Decord cannot; pyav: PyAV decodes
    all; auto: like decord, but PyAV where `sampling` keeps few frames."""
    chunk_mb: float = Field(48, gt=0)
    """Decoded frames are passed on in groups of about this many megabytes: at least one frame, at
    most 64."""
    segment_frames: int = Field(60, ge=1)
    """Least number of frames in a segment given to Decord; segments start at key frames."""
    segment_mb: float = Field(192, gt=0)
    """Segments that are larger than this when decoded, in megabytes, are decoded by PyAV, which
    does not read ahead."""
    max_image_mp: float = Field(178, gt=0, le=178)
    """Still images above this many megapixels are refused as decompression bombs."""


class Haar(Settings):
    """OpenCV's Viola-Jones cascade for frontal faces."""

    scale_factor: float = Field(1.2, gt=1.0, le=2.0)
    """Step between the sizes of the image pyramid."""
    min_neighbors: int = Field(3, ge=0)
    """Overlapping hits that make a face; higher means fewer false faces."""
    min_face: float = Field(0.1, gt=0, lt=1)
    """Smallest face, as a fraction of the frame's shorter side; half of it costs four times as
    much, as frames are shrunk until such a face just fills the cascade's window."""


class RetinaFace(Settings):
    """RetinaFace (Deng et al., 2020) of retinaface-pytorch: faces of any pose, with points."""

    network: Literal["resnet50", "mobilenet0.25"] = "resnet50"
    """resnet50: the accurate one; mobilenet0.25: small and fast."""
    weights: str | None = None
    """File of the network's weights; empty: for resnet50 the released ones, fetched once."""
    longest_side_px: int = Field(960, ge=64, le=4096)
    """Frames are resized to this longest side before faces are looked for."""
    min_score: float = Field(0.7, gt=0, lt=1)
    """Least probability of a face."""
    nms_iou: float = Field(0.4, gt=0, le=1)
    """When two faces overlap more than this (0 to 1), only the more certain one is kept."""


class YuNet(Settings):
    """OpenCV's YuNet (Wu et al., 2023): small and fast on a CPU, with points."""

    weights: str | None = None
    """face_detection_yunet_2023mar.onnx, of OpenCV's model zoo."""
    longest_side_px: int = Field(640, ge=64, le=4096)
    """Larger frames are shrunk to this longest side before faces are looked for."""
    min_score: float = Field(0.7, gt=0, lt=1)
    """Least score of a face."""
    nms_iou: float = Field(0.3, gt=0, le=1)
    """When two faces overlap more than this (0 to 1), only the more certain one is kept."""


class Detector(Settings):
    """How faces are found."""

    name: Literal["haar", "retinaface", "yunet"] = "haar"
    """haar: frontal faces, needs no download; retinaface: faces of any pose, best on a GPU; yunet:
    faces of any pose, fast on a CPU. Each has settings of its own below."""
    every: int = Field(1, ge=1)
    """Look for faces only in every N-th frame of a video, and in the first frame after a cut. In
    the frames between, each face is moved along the path that it has taken so far."""
    haar: Haar = Haar()
    retinaface: RetinaFace = RetinaFace()
    yunet: YuNet = YuNet()


class Track(Settings):
    """How faces in consecutive frames are joined into tracks: one track is one face over time."""

    min_iou: float = Field(0.3, gt=0, le=1)
    """Smallest overlap (0 to 1) of a face with the place where a track expects it."""
    max_gap_s: float = Field(0.5, ge=0)
    """A track ends when its face was not found for longer than this, in seconds."""
    cut_threshold: float = Field(0.3, gt=0, le=1)
    """All tracks end at a cut, which is where two frames differ by more than this (0 to 1)."""


class Classifier(Settings):
    """How faces are classified."""

    weights: str = "default"
    """Name of a model that comes with fer_batch, or path of a .safetensors file that has its card
    (a .json file of the same name) beside it."""
    flip: bool = False
    """Average the probabilities of each face and its mirror image: more stable, but it takes twice
    as long."""


class Render(Settings):
    """How annotated videos look."""

    style: Style = "full"
    """full: everything but the heatmap; minimal: boxes and labels; heatmap: what the classifier
    looks at, with the rest; side-by-side: the source, and beside it `full`."""
    boxes: bool | None = None
    """Frame each face. This and the other layers are as the style has them where empty."""
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
    timeline: bool | None = None
    """Fill a strip with the mean probabilities of all faces while the video plays."""
    clock: bool | None = None
    """Write the time."""
    blur: bool = False
    """Hide the faces behind large pixels."""
    smooth_s: float = Field(0.5, ge=0)
    """Time constant over which a track's probabilities are steadied for display; 0 is off."""
    format: Literal["mp4", "gif"] = "mp4"
    """mp4: a video with sound; gif: a short loop without sound."""
    codec: str = "auto"
    """ffmpeg's name of the video encoder; auto: h264_nvenc where a GPU has it, else libx264."""
    crf: int = Field(20, ge=0, le=51)
    """Constant quality; lower is better and larger."""
    preset: str | None = None
    """Encoder preset; empty: veryfast for libx264, the encoder's own for others."""

    def shows(self, layer: Layer) -> bool:
        """Whether a layer is drawn: as it is set, else as the style has it."""
        chosen: bool | None = getattr(self, layer)
        return layer in STYLES[self.style] if chosen is None else chosen


class Runtime(Settings):
    """What the run may use. Nothing here changes results."""

    device: str = "auto"
    """cpu, cuda, cuda:N, several as cuda:0,cuda:1; auto: every GPU that is there, else the CPU."""
    device_memory_gb: float | None = Field(None, gt=0)
    """Memory that this run may take of each GPU; batches become smaller when it is short."""
    threads: int | None = Field(None, ge=1)
    """CPU threads that detect and classify; empty: all cores this process may use."""
    readers: int | None = Field(None, ge=1)
    """Threads that decode; empty: half as many as `threads`, as many when a GPU detects."""
    batch_size: int | None = Field(None, ge=1)
    """Faces per forward pass, collected across frames and files; empty: 16, with a GPU 512."""
    buffer_mb: float | None = Field(None, gt=0)
    """Megabytes of decoded frames that may be in memory at once; empty: 256, with a GPU 2048."""
    cache_dir: Path | None = None
    """Folder into which inputs behind URLs are fetched; empty: fer_batch/media below the user's
    cache folder. Processes may share it."""
    cache_gb: float = Field(20, gt=0)
    """Largest size of that folder in gigabytes; the files that were not used for longest are
    removed first. A single file that is larger is fetched while no other file is in use."""


class Config(Settings):
    """All settings of a run."""

    sampling: Sampling = Sampling()
    decode: Decode = Decode()
    detector: Detector = Detector()
    track: Track = Track()
    classifier: Classifier = Classifier()
    render: Render = Render()
    runtime: Runtime = Runtime()


RESULT_SECTIONS = {"sampling", "decode", "detector", "track", "classifier"}
"""Sections that change tables; a change here makes a second run do the work again."""

_HEAD = """All settings of fer-batch. To change some of them, copy them into a file of your own and
pass it with --config FILE, or name them on the command line: --set sampling.fps=5. The comment of a
setting says what it means to leave it empty."""


def load(
    path: Path | None = None, overrides: Sequence[str] = (), *, base: Config | None = None
) -> Config:
    """Read a YAML file (all keys are optional) and apply ``section.key=value`` overrides to it.

    Args:
        path: The file, if any.
        overrides: Settings that replace those of the file.
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
    return runtime.threads or len(os.sched_getaffinity(0))
