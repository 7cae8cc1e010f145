"""A real browser that plays a video, and what it saw."""

from __future__ import annotations

import base64
import contextlib
import functools
import io
import json
import shutil
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

import numpy as np
from PIL import Image

from tests.support.clips import Rgb

PATH = shutil.which("chromium") or shutil.which("google-chrome")
PLAYER = Path(__file__).with_name("player.html")
PATIENCE_S = 60
OPTIONS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
    *("--no-first-run", "--no-default-browser-check", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--disable-quic", "--disable-extensions"),
    "--autoplay-policy=no-user-gesture-required",
]


@dataclass(frozen=True)
class Seen:
    """What a browser says after it has played a video to its end."""

    duration_s: float
    current_s: float
    width_px: int
    height_px: int
    n_frames: int
    """That it decoded."""
    sound_bytes: int
    """Of sound that it decoded."""
    frames: list[tuple[float, Rgb]]
    """Those that it had time to show: their times, and the pixels that stood on the screen."""


def play(path: Path, profile: Path) -> Seen:
    """Play a video.

    Args:
        path: The video.
        profile: Folder for the browser's own files; one that does not exist.
    """
    answers: SimpleQueue[dict[str, Any]] = SimpleQueue()
    with _serving(path.parent, answers) as address:
        page = f"{address}/player.html?{path.name}"
        command = [str(PATH), *OPTIONS, f"--user-data-dir={profile}", page]
        with (profile.with_suffix(".log")).open("wb") as log:
            browser = subprocess.Popen(command, stdout=log, stderr=log)
            try:
                answer = answers.get(timeout=PATIENCE_S)
            except Empty:
                words = Path(log.name).read_text(errors="replace")[-2000:]
                raise AssertionError(f"the browser says nothing but:\n{words}") from None
            finally:
                browser.kill()
                browser.wait()
    assert "error" not in answer, answer["error"]
    frames = [(frame["pts_s"], _pixels(frame["png"])) for frame in answer.pop("frames")]
    return Seen(**answer, frames=frames)


@contextlib.contextmanager
def _serving(folder: Path, answers: SimpleQueue[dict[str, Any]]) -> Iterator[str]:
    """A web server for a folder and the player; its address."""
    shutil.copy(PLAYER, folder)
    handler = functools.partial(_Handler, answers, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


class _Handler(SimpleHTTPRequestHandler):
    """Gives files, and takes what the player saw."""

    def __init__(self, answers: SimpleQueue[dict[str, Any]], *args: Any, **options: Any) -> None:
        self._answers = answers
        super().__init__(*args, **options)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(204)
        self.end_headers()
        self._answers.put(json.loads(body))

    def log_message(self, format: str, *args: Any) -> None:
        pass


def _pixels(url: str) -> Rgb:
    with Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))) as picture:
        return np.asarray(picture.convert("RGB"))
