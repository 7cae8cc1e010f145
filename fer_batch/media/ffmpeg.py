"""Find the ffmpeg program."""

from __future__ import annotations

import subprocess
from functools import cache

from fer_batch.errors import RenderError


@cache
def ffmpeg_path() -> str:
    """Path of ffmpeg: the one in imageio-ffmpeg, or what ``IMAGEIO_FFMPEG_EXE`` names.

    Where that package has no ffmpeg for the machine, it gives the system's.

    Raises:
        RenderError: There is none, it cannot be started, or it is older than 5.1.
    """
    import imageio_ffmpeg

    try:
        path: str = imageio_ffmpeg.get_ffmpeg_exe()
    except RuntimeError as error:
        raise RenderError(f"ffmpeg is missing: {error}") from error
    try:
        command = [path, "-hide_banner", "-h", "long"]
        help_text = subprocess.run(command, capture_output=True, check=False).stdout  # noqa: S603
    except OSError as error:
        raise RenderError(f"{path}: ffmpeg cannot be started: {error.strerror}") from error
    # Without -fps_mode (5.1, 2022) the last frame of some videos is lost.
    if b"-fps_mode" not in help_text:
        raise RenderError(f"{path}: this ffmpeg is too old: version 5.1 or newer is needed")
    return path
