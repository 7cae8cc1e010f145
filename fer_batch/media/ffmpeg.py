"""Where the ffmpeg program is."""

from __future__ import annotations

import shutil
import subprocess
from functools import cache


@cache
def ffmpeg_path() -> str:
    """Path of ffmpeg: the system's if it is recent enough, else the binary in imageio-ffmpeg."""
    found = shutil.which("ffmpeg")
    if found and _keeps_times(found):
        return found
    import imageio_ffmpeg

    path: str = imageio_ffmpeg.get_ffmpeg_exe()
    return path


def _keeps_times(program: str) -> bool:
    """Whether it has -fps_mode (5.1, 2022): older ones lose the last frame of some videos."""
    command = [program, "-hide_banner", "-h", "long"]
    try:
        help_text = subprocess.run(command, capture_output=True, check=False).stdout  # noqa: S603
    except OSError:
        return False
    return b"-fps_mode" in help_text
