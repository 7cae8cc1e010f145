"""Media made by code: clips whose every frame carries its own number, and ways to harm them.

``clip(path, numbered(60))`` writes 60 frames; ``read_number(rgb)`` says which frame a decoder gave
back. The number survives lossy coding, scaling and colour conversion. `RECIPES` are clips of all
kinds with what is in them; the fixture ``made`` builds them by name, once per session.
"""

from __future__ import annotations

import itertools
import subprocess
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from fer_batch.media.ffmpeg import ffmpeg_path

Rgb = NDArray[np.uint8]

N_BITS, N_CHECK = 10, 4
GRID = N_BITS + N_CHECK
TICK = Fraction(1, 90_000)
SOUND_HZ = 16_000
SIZE = (160, 96)


def _code(number: int) -> int:
    return number << N_CHECK | (number * 11 + 5) % 2**N_CHECK


def paint_number(rgb: Rgb, number: int) -> Rgb:
    """Paint ``number`` (0 to 1023) as black and white cells over the upper third, in place."""
    height, width = rgb.shape[:2]
    edges = np.linspace(0, width, GRID + 1).round().astype(int)
    for cell, (left, right) in enumerate(itertools.pairwise(edges)):
        bit = _code(number) >> (GRID - 1 - cell) & 1
        rgb[: height // 3, left:right] = 235 if bit else 20
    return rgb


def read_number(rgb: Rgb) -> int:
    """The number painted in a frame, or -1 when none can be read."""
    height, width = rgb.shape[:2]
    if height < 12:
        return -1
    band = rgb[height // 12 : height // 4].mean(axis=(0, 2))
    centres = ((np.arange(GRID) + 0.5) * width / GRID).astype(int)
    levels = np.array([band[max(0, x - 1) : x + 2].mean() for x in centres])
    code = int("".join("1" if level > 127 else "0" for level in levels), 2)
    number = code >> N_CHECK
    is_sharp = bool((np.abs(levels - 127) > 50).all())
    return number if is_sharp and _code(number) == code else -1


def numbered(count: int, size: tuple[int, int] = SIZE, first: int = 0) -> Iterator[Rgb]:
    """``count`` frames (H, W, 3) uint8 of ``size`` (width, height), numbered from ``first``."""
    width, height = size
    y, x = np.mgrid[:height, :width]
    for number in range(first, first + count):
        red = (x * 255 // width + 3 * number) % 256
        green = (y * 255 // height + 2 * number) % 256
        blue = np.full_like(red, 60 + number % 120)
        yield paint_number(np.stack([red, green, blue], axis=-1).astype(np.uint8), number)


def clip(
    path: Path,
    frames: Iterable[Rgb],
    *,
    codec: str = "libx264",
    rate: Fraction | int = 30,
    pts_s: Sequence[float] | None = None,
    pix_fmt: str = "yuv420p",
    rotation_deg: int = 0,
    tone: bool = False,
    options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
) -> Path:
    """Encode uint8 (H, W, 3) ``frames`` to ``path`` and return it.

    Args:
        path: Where to write; its suffix chooses the container.
        frames: All of one size.
        codec: ffmpeg's name of an encoder.
        rate: Frames per second, where ``pts_s`` is not given.
        pts_s: Presentation time of each frame, for a variable rate.
        pix_fmt: Pixel format that is stored.
        rotation_deg: Counter-clockwise turn that a player has to apply to show ``frames`` upright.
        tone: Add a sound track (AAC) of the same length.
        options: For the encoder; by default small groups of pictures and fast coding.
        container_options: For the container.
    """
    if options is None:
        options = {"g": "20", **({"preset": "ultrafast"} if codec.startswith("libx26") else {})}
    tick = TICK if pts_s else 1 / Fraction(rate)
    times = itertools.count() if pts_s is None else (round(at / tick) for at in pts_s)
    with av.open(str(path), "w", container_options=container_options or {}) as out:
        stream = out.add_stream(codec, rate=Fraction(rate), options=dict(options))
        sound = out.add_stream("aac", rate=SOUND_HZ, layout="mono") if tone else None
        at = 0
        for upright, at in zip(frames, times, strict=False):
            rgb = np.rot90(upright, -rotation_deg // 90)
            if not stream.codec_context.is_open:
                stream.height, stream.width = rgb.shape[:2]
                stream.pix_fmt = pix_fmt
                stream.codec_context.time_base = tick
                if rotation_deg:
                    stream.set_display_rotation(rotation_deg)
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24")
            frame.time_base, frame.pts = tick, at
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
        if sound is not None:
            for packet in _tone(sound, float((at + 1) * tick)):
                out.mux(packet)
    return path


def _tone(sound: av.AudioStream, seconds: float) -> Iterator[list[av.Packet]]:
    for start in range(0, int(seconds * SOUND_HZ), 1024):
        wave = np.sin((start + np.arange(1024)) * 440 * 2 * np.pi / SOUND_HZ)
        frame = av.AudioFrame.from_ndarray(
            wave.astype(np.float32)[None], format="fltp", layout="mono"
        )
        frame.sample_rate, frame.pts = SOUND_HZ, start
        yield sound.encode(frame)
    yield sound.encode(None)


def ffmpeg(*arguments: str | Path) -> None:
    """Run the ffmpeg program, quietly; its error output is in the exception."""
    command = [ffmpeg_path(), "-v", "error", "-y", *map(str, arguments)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)


@dataclass(frozen=True)
class Recipe:
    """How to make a clip, and what is in it."""

    file: str
    make: Callable[[Path, Callable[[str], Path]], object]
    """Given where to write, and a function that gives other recipes' files."""
    numbers: Sequence[int] = range(60)
    """Of the frames that are shown, in order."""
    pts_s: Sequence[float] = tuple(n / 30 for n in range(60))


def _encoded(file: str, *, count: int = 60, size: tuple[int, int] = SIZE, **how) -> Recipe:
    times = how.get("pts_s") or [n / how.get("rate", 30) for n in range(count)]
    return Recipe(
        file,
        lambda path, _: clip(path, numbered(count, size), **how),
        range(count),
        [float(at - times[0]) for at in times],
    )


def _trimmed(path: Path, made: Callable[[str], Path]) -> None:
    # Copied from the key frame at 20: frames 20 to 26 are stored and not shown.
    ffmpeg("-ss", "0.9", "-i", made("b-frames"), "-c", "copy", path)


def _late(path: Path, made: Callable[[str], Path]) -> None:
    ffmpeg(
        *("-i", made("tone"), "-itsoffset", "0.5", "-i", made("plain")),
        *("-map", "0:a", "-map", "1:v", "-c", "copy", path),
    )


def _x265(*parameters: str) -> dict[str, str]:
    return {"preset": "ultrafast", "x265-params": ":".join(["log-level=none", *parameters])}


_UNEVEN = [0.0, *(n / 30 + (0.011 if n % 3 else 0.0) for n in range(1, 40)), *range(2, 22)]
_OPEN = ["keyint=16:min-keyint=16:scenecut=0", "open-gop=1:bframes=3:b-adapt=0"]
_OPEN_264 = {"preset": "ultrafast", "x264-params": ":".join(_OPEN)}
_REFRESH = {"preset": "ultrafast", "g": "20", "x264-params": "intra-refresh=1"}
_B_FRAMES = {"preset": "ultrafast", "g": "20", "bf": "2"}
_VPX = {"g": "20", "deadline": "realtime", "cpu-used": "8", "b": "1M"}
_AV1 = {"g": "20", "preset": "8", "crf": "10", "svtav1-params": "lp=1"}
_INTERLACED = {"g": "12", "bf": "2", "flags": "+ildct+ilme", "b": "2M"}

RECIPES = {
    "plain": _encoded("plain.mp4"),
    "b-frames": _encoded("b-frames.mp4", options=_B_FRAMES),
    "tone": _encoded("tone.mp4", tone=True),
    "one frame": _encoded("one.mp4", count=1),
    "name": _encoded("ein Gesicht, deux visages - \u4e09\u5f20\u8138 #4%20.mp4", count=20),
    "ntsc": _encoded("ntsc.mp4", rate=Fraction(30_000, 1001)),
    "vfr mp4": _encoded("vfr.mp4", pts_s=_UNEVEN),
    "vfr mkv": _encoded("vfr.mkv", pts_s=_UNEVEN),
    "rotated 90": _encoded("rotated90.mp4", rotation_deg=90),
    "rotated 180": _encoded("rotated180.mp4", rotation_deg=180),
    "rotated 270": _encoded("rotated270.mov", rotation_deg=270),
    "odd 444": _encoded("odd.mp4", size=(161, 97), pix_fmt="yuv444p"),
    "odd vp9": _encoded("odd.webm", size=(161, 97), codec="libvpx-vp9", options=_VPX),
    "10 bit": _encoded("deep.mp4", pix_fmt="yuv420p10le"),
    "hevc": _encoded("hevc.mp4", codec="libx265", options=_x265("keyint=20", "open-gop=0")),
    "hevc open": _encoded("open.mp4", codec="libx265", options=_x265(*_OPEN)),
    "h264 open": _encoded("open.ts", options=_OPEN_264),
    "refresh": _encoded("refresh.ts", options=_REFRESH),
    "vp9": _encoded("vp9.webm", codec="libvpx-vp9", options=_VPX),
    "vp8": _encoded("vp8.webm", count=30, codec="libvpx", options=_VPX),
    "av1": _encoded("av1.mp4", codec="libsvtav1", options=_AV1),
    "mjpeg avi": _encoded("mjpeg.avi", codec="mjpeg", pix_fmt="yuvj420p"),
    "mpeg4 avi": _encoded("mpeg4.avi", codec="mpeg4"),
    "xvid b-frames": _encoded("xvid.avi", codec="mpeg4", options={"g": "20", "bf": "2"}),
    "h264 avi": _encoded("h264.avi", options=_B_FRAMES),
    "ts": _encoded("plain.ts", options=_B_FRAMES),
    "interlaced ts": _encoded("fields.ts", codec="mpeg2video", options=_INTERLACED),
    "prores": _encoded("prores.mov", codec="prores_ks", pix_fmt="yuv422p10le"),
    "gif": _encoded("loop.gif", codec="gif", pix_fmt="rgb8", rate=25),
    "raw": _encoded("raw.h264", options=_B_FRAMES, rate=25),
    "mkv": _encoded("plain.mkv", tone=True),
    "long mp4": _encoded("long.mp4", count=120, options=_B_FRAMES),
    "long hevc": _encoded("long-hevc.mp4", count=120, codec="libx265", options=_x265(*_OPEN)),
    "long mkv": _encoded("long.mkv", count=120, tone=True),
    "long avi": _encoded("long.avi", count=120, codec="mpeg4"),
    "no duration": _encoded("live.mkv", container_options={"live": "1"}),
    "fragments": _encoded("cmaf.mp4", container_options={"movflags": "frag_keyframe+empty_moov"}),
    "trimmed": Recipe("trimmed.mp4", _trimmed, range(27, 60), [n / 30 for n in range(33)]),
    "late": Recipe("late.mp4", _late, range(60), [0.5 + n / 30 for n in range(60)]),
}
"""Clips that must be read completely, the odd ones first met in research and in the wild."""


def make(name: str, folder: Path) -> Path:
    """The file of a recipe, in ``folder``, built when it is not there."""
    path = folder / RECIPES[name].file
    if not path.exists():
        RECIPES[name].make(path, lambda other: make(other, folder))
    return path


def zeroed(source: Path, target: Path, begin: float, end: float) -> Path:
    """A copy whose bytes between two fractions of its length are zero."""
    data = bytearray(source.read_bytes())
    first, last = int(begin * len(data)), int(end * len(data))
    data[first:last] = bytes(last - first)
    target.write_bytes(data)
    return target


def cut(source: Path, target: Path, end: float) -> Path:
    """A copy that ends at a fraction of its length. MP4 keeps its table of frames."""
    if source.suffix == ".mp4":
        head = target.with_stem(f"{target.stem}-head")
        ffmpeg("-i", source, "-c", "copy", "-movflags", "faststart", head)
        source = head
    data = source.read_bytes()
    target.write_bytes(data[: int(end * len(data))])
    return target
