"""The configuration: frozen sections, one per stage, read from YAML and ``section.key=value``."""

from __future__ import annotations

import copy
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from fer_batch.errors import ConfigError, did_you_mean

Model = TypeVar("Model", bound=BaseModel)

Style = Literal["full", "minimal", "heatmap", "side-by-side"]
LayerName = Literal[
    "boxes",
    "labels",
    "bars",
    "ids",
    "points",
    "heatmap",
    "strip",
    "clock",
    "blur",
    "side_by_side",
]
_FULL: tuple[LayerName, ...] = ("boxes", "labels", "bars", "ids", "points", "strip", "clock")
STYLES: dict[Style, frozenset[LayerName]] = {
    "full": frozenset(_FULL),
    "minimal": frozenset({"boxes", "labels"}),
    "heatmap": frozenset({"boxes", "labels", "bars", "ids", "heatmap", "strip", "clock"}),
    "side-by-side": frozenset({*_FULL, "side_by_side"}),
}
"""The layers of each style."""


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Sampling(_Section):
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


class Decode(_Section):
    """How files become frames."""

    decoder: Literal["auto", "decord", "pyav"] = "auto"
    """auto: Decord, segment by segment, and PyAV for what Decord cannot do."""
    chunk_mb: float = Field(48, gt=0)
    """Decoded pixels that travel together; at least one frame, at most 64."""
    segment_frames: int = Field(60, ge=1)
    """Least number of frames in a segment given to Decord; segments start at key frames."""
    segment_mb: float = Field(192, gt=0)
    """Decoded size above which a segment goes to PyAV, which holds no read-ahead."""
    max_image_mp: float = Field(178, gt=0, le=178)
    """Still images above this many megapixels are refused as decompression bombs."""


class Haar(_Section):
    """OpenCV's Viola-Jones cascade for frontal faces."""

    scale_factor: float = Field(1.2, gt=1.0, le=2.0)
    """Step between the sizes of the image pyramid."""
    min_neighbors: int = Field(3, ge=0)
    """Overlapping hits that make a face; higher means fewer false faces."""
    min_face: float = Field(0.1, gt=0, lt=1)
    """Smallest face, as a fraction of the frame's shorter side; half of it costs four times as
    much, as frames are shrunk until such a face just fills the cascade's window."""


class RetinaFace(_Section):
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
    """Of two faces that overlap more than this, the surer one stays."""


class YuNet(_Section):
    """OpenCV's YuNet (Wu et al., 2023): small and fast on a CPU, with points."""

    weights: str | None = None
    """face_detection_yunet_2023mar.onnx, of OpenCV's model zoo."""
    longest_side_px: int = Field(640, ge=64, le=4096)
    """Larger frames are shrunk to this longest side before faces are looked for."""
    min_score: float = Field(0.7, gt=0, lt=1)
    """Least score of a face."""
    nms_iou: float = Field(0.3, gt=0, le=1)
    """Of two faces that overlap more than this, the surer one stays."""


class Detector(_Section):
    """How faces are found."""

    name: Literal["haar", "retinaface", "yunet"] = "haar"
    """haar: needs no download."""
    every: int = Field(1, ge=1)
    """Look for faces in every N-th frame of a video only; in between they move on with their
    tracks, and a cut is looked at in any case."""
    haar: Haar = Haar()
    retinaface: RetinaFace = RetinaFace()
    yunet: YuNet = YuNet()


class Track(_Section):
    """How faces of consecutive frames become tracks."""

    min_iou: float = Field(0.3, gt=0, le=1)
    """Least overlap between a face and where its track is expected."""
    max_gap_s: float = Field(0.5, ge=0)
    """A track without a face for longer than this has ended."""
    cut_threshold: float = Field(0.3, gt=0, le=1)
    """Change of picture between two frames, in [0, 1], above which all tracks end."""


class Classifier(_Section):
    """How faces are classified."""

    weights: str = "default"
    """Name of weights that ship with fer_batch, or path of a .safetensors file beside its card."""
    flip: bool = False
    """Average the probabilities of each face and its mirror image: steadier, twice the time."""


class Render(_Section):
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
    """gif: a short loop without sound."""
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


class Runtime(_Section):
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
    """Decoded pixels that may wait or be under way, over all files; empty: 256, with a GPU 2048."""
    cache_dir: Path | None = None
    """Folder into which inputs behind URLs are fetched; empty: fer_batch/media below the user's
    cache folder. Processes may share it."""
    cache_gb: float = Field(20, gt=0)
    """Least recently used files leave that folder before it is larger. A single file may be: then
    it is fetched when no other is in use."""


class Config(_Section):
    """Everything that can be set."""

    sampling: Sampling = Sampling()
    decode: Decode = Decode()
    detector: Detector = Detector()
    track: Track = Track()
    classifier: Classifier = Classifier()
    render: Render = Render()
    runtime: Runtime = Runtime()


RESULT_SECTIONS = {"sampling", "decode", "detector", "track", "classifier"}
"""Sections that change tables; a change here makes a second run do the work again."""


def load(
    path: Path | None = None,
    overrides: Sequence[str] | Mapping[str, object] = (),
    *,
    base: Config | None = None,
) -> Config:
    """Read a YAML file (all keys optional) and apply ``section.key=value`` overrides to it.

    Args:
        path: The file, if any.
        overrides: Stronger than the file; as text, or as values by name: sections within sections,
            or names with dots.
        base: Where unnamed values come from; the defaults if None.

    Raises:
        ConfigError: The file cannot be read, or a key or value is wrong; every problem is named.
    """
    values = layer(path, overrides, base.model_dump() if base else {})
    try:
        return validate(Config, values)
    except ConfigError as error:
        raise ConfigError(f"{error}. `fer-batch config` lists every key.") from error


def layer(
    path: Path | None, overrides: Sequence[str] | Mapping[str, object], base: dict[str, Any]
) -> dict[str, Any]:
    """Values with those of a YAML file, then those of overrides, laid over them.

    Raises:
        ConfigError: The file cannot be read, or an override cannot.
    """
    values = copy.deepcopy(base)
    _merge(values, read_yaml(path) if path else {})
    if isinstance(overrides, Mapping):
        _merge(values, overrides)
    else:
        for override in overrides:
            _merge(values, _parse(override))
    return values


def read_yaml(path: Path) -> dict[str, Any]:
    """The sections of a YAML file.

    Raises:
        ConfigError: It cannot be read, or does not hold keys with values.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: cannot be read as YAML: {error}") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: expected sections with keys, found {type(values).__name__}")
    return values


def validate(model: type[Model], values: dict[str, Any]) -> Model:
    """The values as a checked model.

    Raises:
        ConfigError: A key is unknown or a value is wrong; every problem is named.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        problems = []
        for item in error.errors():
            key = ".".join(map(str, item["loc"]))
            if item["type"] == "extra_forbidden":
                problems.append(f"{key}: no such setting{did_you_mean(key, _keys(model))}")
            else:
                problems.append(f"{key or 'configuration'}: {item['msg']} (got {item['input']!r})")
        raise ConfigError("; ".join(problems)) from error


def dump(config: Config) -> str:
    """The configuration as YAML that `load` reads back."""
    text: str = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)
    return text


def result_hash(config: Config, weights_sha256: str, detector_sha256: str) -> str:
    """Hash (16 hex digits) of all that decides what the tables hold, weights included."""
    values = config.model_dump(mode="json", include=RESULT_SECTIONS)
    detector = values["detector"]
    values["detector"] = {key: detector[key] for key in ("name", "every", config.detector.name)}
    values["weights_sha256"] = [weights_sha256, detector_sha256]
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]


def cpu_threads(runtime: Runtime) -> int:
    """Threads to use: as configured, else the cores this process may run on."""
    return runtime.threads or len(os.sched_getaffinity(0))


def _merge(values: dict[str, Any], stronger: Mapping[str, object]) -> None:
    for key, value in stronger.items():
        section, dot, rest = str(key).partition(".")
        if dot:
            value = {rest: value}
        if isinstance(value, Mapping):
            if not isinstance(values.get(section), dict):
                values[section] = {}
            _merge(values[section], value)
        else:
            values[section] = os.fspath(value) if isinstance(value, os.PathLike) else value


def _parse(override: str) -> dict[str, Any]:
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"--set {override}: expected key=value")
    try:
        return {key.strip(): yaml.safe_load(text)}
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {override}: {error}") from error


def _keys(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """The names of all settings of a model: ``section.key``."""
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _keys(field.annotation, f"{prefix}{name}.")
        else:
            yield prefix + name
