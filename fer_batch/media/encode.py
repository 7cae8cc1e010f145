"""Write videos with ffmpeg: frames at their own times, with the sound of the source."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import IO, cast

import av
import ffmpeg
import numpy as np
from av.audio.codeccontext import AudioCodecContext
from av.audio.stream import AudioStream

from fer_batch.config import Render, Sampling
from fer_batch.errors import RenderError, StoreDiskFullError
from fer_batch.media.ffmpeg import ffmpeg_path
from fer_batch.records import Bytes, MediaInfo
from fer_batch.storage import urls

logger = logging.getLogger(__name__)

GIF_WIDTH, GIF_RATE = 480, 12.5

_TICK = Fraction(1, 90_000)
"""Unit of frame times; exact for the usual rates, even for 30000/1001."""
_COPIED_SOUND = frozenset({"aac", "flac", "mp3", "opus"})
"""Codecs that MP4 files can hold and browsers can play; other sound is converted to AAC."""
_AAC_LAYOUTS = "mono|stereo|3.0|4.0|5.0|5.1|7.1"
"""Arrangements of loudspeakers that AAC has; ffmpeg converts others to the closest of these."""
_LOG_BYTES, _LOG_LINES = 4096, 4
"""How much of the end of ffmpeg's messages is read, and how many lines are shown."""


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary file that replaces ``path`` if the block ends without an exception.

    Raises:
        RenderError: The file or its folder cannot be written.
        StoreDiskFullError: No space is left.
    """
    try:
        urls.make_folder(path.parent)
        with urls.replacing(path) as temporary:
            yield temporary
    except urls.failures() as error:
        if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
            raise _disk_full(path) from error
        why = getattr(error, "strerror", None) or urls.reason(error)
        raise RenderError(f"{path}: cannot be written: {why}") from error


@dataclass(frozen=True, slots=True)
class Sound:
    """The sound track to put into a video."""

    path: Path
    track: int
    """Number of the sound track in the file, from 0."""
    codec: str
    origin_s: float
    """The time in the file that becomes 0 in the video."""
    start_s: float | None
    """Sound before this is left out, in seconds from the start of the file."""
    end_s: float | None
    """Sound after this is left out, in seconds from the start of the file."""


def find_sound(path: Path, span: Sampling) -> Sound | None:
    """The main sound track of a file, limited to the time span; None where there is no sound.

    Raises:
        RenderError: The file cannot be opened.
    """
    try:
        with av.open(str(path), metadata_errors="replace") as container:
            stream = container.streams.best("audio")
            if not isinstance(stream, AudioStream):
                return None
            context: AudioCodecContext | None = stream.codec_context
            if context is None or not context.sample_rate:
                logger.warning("%s: its sound cannot be decoded and is left out", path)
                return None
            return Sound(
                path=path,
                track=container.streams.audio.index(stream),
                codec=context.codec.canonical_name,
                origin_s=(container.start_time or 0) / av.time_base + (span.start_s or 0.0),
                start_s=span.start_s,
                end_s=span.end_s,
            )
    except av.FFmpegError as error:
        raise RenderError(f"{path}: cannot be opened: {error.strerror}") from error


class VideoWriter:
    """Encodes frames into an MP4 file or a GIF.

    The MP4 file plays in browsers: H.264, 4:2:0, with its index at the beginning. The GIF loops,
    and has at most `GIF_WIDTH` pixels in width and `GIF_RATE` frames per second.

    A context manager: the file is complete when the block ends without an exception. Frames go
    through a pipe, so that a slow encoder slows down the caller instead of filling the memory.
    Colours are stored, and labelled, as BT.709. 4:2:0 needs an even width and height: the last
    column or row is repeated where necessary.

    Raises:
        RenderError: From any method, when ffmpeg fails; it shows ffmpeg's last messages.
        StoreDiskFullError: From any method, when no space is left.
    """

    def __init__(
        self, path: Path, info: MediaInfo, settings: Render, *, comment: str, sound: Sound | None
    ) -> None:
        """Ffmpeg is not started yet.

        Args:
            path: The new file.
            info: Size and rate of the frames.
            settings: The settings of the encoder.
            comment: Text for the file's metadata.
            sound: The sound to add, if any.
        """
        self._path = path
        self._comment = comment if settings.format == "gif" else None
        self._info = info
        self._command = _command(path, settings, comment, sound)
        self._last_tick = -1

    def __enter__(self) -> VideoWriter:
        # ffmpeg writes its messages to a file: an unread pipe would stall it once full
        self._log = tempfile.TemporaryFile()
        try:
            self._process = subprocess.Popen(  # noqa: S603
                self._command, bufsize=0, stdin=subprocess.PIPE, stdout=self._log, stderr=self._log
            )
        except OSError as error:
            self._log.close()
            raise RenderError(f"{self._command[0]}: cannot be started: {error}") from error
        self._pipe = cast(IO[bytes], self._process.stdin)
        # The numbers of open files mean nothing to the libraries of ffmpeg on Windows.
        pipe = self._pipe if sys.platform == "win32" else f"pipe:{self._pipe.fileno()}"
        self._nut = av.open(pipe, "w", format="nut")
        self._stream = self._nut.add_stream("rawvideo", rate=self._info.frame_rate or 25)
        self._stream.width = self._info.width_px + self._info.width_px % 2
        self._stream.height = self._info.height_px + self._info.height_px % 2
        self._stream.pix_fmt = "rgb24"
        self._stream.codec_context.time_base = _TICK
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        _: TracebackType | None,
    ) -> None:
        try:
            if error:
                self._process.kill()
            with contextlib.suppress(av.FFmpegError):  # the exit code tells what is wrong
                self._nut.close()
            self._pipe.close()
            code = self._process.wait()
            if error:
                return
            if code:
                raise self._failure(code)
            if self._comment:
                _add_gif_comment(self._path, self._comment)
            if messages := self._last_messages():
                logger.warning("%s: written, but ffmpeg says: %s", self._path, messages)
        finally:
            self._log.close()

    def write(self, rgb: Bytes, pts_s: float) -> None:
        """Add a frame.

        Args:
            rgb: (H, W, 3) uint8.
            pts_s: Its presentation time in seconds, later than that of the previous frame.
        """
        height, width = rgb.shape[:2]
        if height % 2 or width % 2:
            rgb = np.pad(rgb, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        self._last_tick = max(round(pts_s / _TICK), self._last_tick + 1)
        packet = av.Packet(np.ascontiguousarray(rgb))  # type: ignore[arg-type]  # takes any buffer
        packet.stream = self._stream
        packet.time_base = _TICK
        packet.pts = packet.dts = self._last_tick
        packet.is_keyframe = True
        try:
            self._nut.mux(packet)
        except BrokenPipeError as error:
            raise self._failure(self._process.wait()) from error

    def _failure(self, code: int) -> RenderError | StoreDiskFullError:
        messages = self._last_messages()
        if "No space left on device" in messages:
            return _disk_full(self._path)
        end = f"signal {-code} ended it" if code < 0 else f"it ended with code {code}"
        return RenderError(f"ffmpeg failed: {messages or end}")

    def _last_messages(self) -> str:
        size = self._log.seek(0, os.SEEK_END)
        self._log.seek(max(size - _LOG_BYTES, 0))
        lines = self._log.read().decode(errors="replace").splitlines()
        return "; ".join([line.strip() for line in lines if line.strip()][-_LOG_LINES:])


def _command(path: Path, settings: Render, comment: str, sound: Sound | None) -> list[str]:
    streams = [ffmpeg.input("pipe:0", format="nut")]
    if settings.format == "gif":
        options = _gif_options()
    else:
        options = _mp4_options(settings) | {"metadata": f"comment={comment}"}
    if sound:
        if sound.codec in _COPIED_SOUND:
            options["acodec"] = "copy"
        else:
            options |= {"acodec": "aac", "af": f"aformat=channel_layouts={_AAC_LAYOUTS}"}
        options["strict"] = "experimental"  # ffmpeg 5.1 calls FLAC in MP4 files experimental
        place: dict[str, object] = {"itsoffset": -sound.origin_s}
        if sound.start_s is not None:
            # Start reading a little early, then cut where the video begins.
            place |= {"ss": sound.start_s, "noaccurate_seek": None}
            options["ss"] = 0
        if sound.end_s is not None:
            options["t"] = sound.end_s - (sound.start_s or 0.0)
        streams.append(ffmpeg.input(str(sound.path), **place)[f"a:{sound.track}"])
    # -max_error_rate: the video is made no matter how much of the sound is damaged.
    general = ["-copyts", "-max_error_rate", "1", "-hide_banner", "-loglevel", "error", "-y"]
    output = ffmpeg.output(*streams, str(path.absolute()), **options).global_args(*general)
    command: list[str] = output.compile(cmd=ffmpeg_path())
    return command


def _mp4_options(settings: Render) -> dict[str, object]:
    codec = settings.codec
    if codec == "auto":
        codec = "h264_nvenc" if _has_nvenc(ffmpeg_path()) else "libx264"
    preset = settings.preset or ("veryfast" if codec == "libx264" else None)
    return {
        "format": "mp4",
        "movflags": "+faststart",
        "vcodec": codec,
        **({"cq": settings.crf, "rc": "vbr"} if "nvenc" in codec else {"crf": settings.crf}),
        **({"preset": preset} if preset else {}),
        "vf": "scale=out_color_matrix=bt709:out_range=tv,format=yuv420p",
        **dict.fromkeys(("colorspace", "color_primaries", "color_trc"), "bt709"),
        "color_range": "tv",
        "fps_mode": "passthrough",  # before ffmpeg 9 the default repeats frames at every tick
        "enc_time_base": f"{_TICK.numerator}/{_TICK.denominator}",
        "video_track_timescale": _TICK.denominator,
    }


def _gif_options() -> dict[str, object]:
    shrink = f"fps={GIF_RATE},scale='min({GIF_WIDTH},iw)':-1:flags=lanczos"
    palette = "split[a][b];[a]palettegen[p];[b][p]paletteuse=dither=bayer"
    return {"format": "gif", "vf": f"{shrink},{palette}", "loop": 0}


@cache
def _has_nvenc(program: str) -> bool:
    """Whether a GPU can encode. Only a trial tells: ffmpeg lists what it was built with."""
    trial = ffmpeg.input("color=size=256x256:duration=0.1", format="lavfi").output(
        "-", format="null", vcodec="h264_nvenc"
    )
    command = trial.global_args("-hide_banner", "-loglevel", "quiet").compile(cmd=program)
    try:
        return subprocess.run(command, stdin=subprocess.DEVNULL, check=False).returncode == 0  # noqa: S603
    except OSError:
        return False


def _add_gif_comment(path: Path, comment: str) -> None:
    """Add a comment to a GIF, which ffmpeg cannot do."""
    with path.open("r+b") as gif:
        gif.seek(-1, os.SEEK_END)  # the trailer
        gif.write(b"\x21\xfe" + bytes([len(comment)]) + comment.encode() + b"\x00\x3b")


def _disk_full(path: Path) -> StoreDiskFullError:
    return StoreDiskFullError(
        f"no space left in {path.parent}: free some and run again; what is finished is kept"
    )
