"""Encoding: colours, odd sizes, and an ffmpeg that fails in every way."""

import contextlib
import re
import signal
import stat
import subprocess
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import av
import imageio_ffmpeg
import numpy as np
import pytest
from PIL import Image

from fer_batch.config import Render
from fer_batch.errors import RenderError, StoreDiskFullError
from fer_batch.media import encode
from fer_batch.media.encode import VideoWriter, replacing
from fer_batch.media.ffmpeg import ffmpeg_path
from fer_batch.records import Bytes, MediaInfo


def info(width: int = 64, height: int = 48, rate: int = 25) -> MediaInfo:
    return MediaInfo(width, height, 0, Fraction(rate), None, None, "h264")


def write(
    path: Path,
    frames: Sequence[Bytes],
    *,
    pts_s: Sequence[float] | None = None,
    settings: Render | None = None,
) -> Path:
    height, width = frames[0].shape[:2]
    settings = settings or Render(preset="ultrafast", crf=5)
    times = [n / 25 for n in range(len(frames))] if pts_s is None else pts_s
    with VideoWriter(path, info(width, height), settings, comment="seen", sound=None) as writer:
        for frame, at in zip(frames, times, strict=True):
            writer.write(frame, at)
    return path


def read(path: Path) -> list[Bytes]:
    with av.open(str(path)) as video:
        return [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]


def frames(count: int, width: int = 64, height: int = 48) -> list[Bytes]:
    return [np.full((height, width, 3), n % 256, np.uint8) for n in range(count)]


@pytest.fixture(autouse=True)
def started(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Processes that the test started; none may be left at its end."""
    started: list[subprocess.Popen[bytes]] = []

    class Popen(subprocess.Popen[bytes]):
        def __init__(self, *args: object, **how: object) -> None:
            started.append(self)
            super().__init__(*args, **how)

    monkeypatch.setattr(subprocess, "Popen", Popen)
    yield started
    assert all(process.returncode is not None for process in started)


@pytest.fixture
def pretend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A shell script that stands in for ffmpeg; the test writes it."""
    script = tmp_path / "pretend-ffmpeg"
    script.write_text("#!/bin/sh\n")
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(encode, "ffmpeg_path", lambda: str(script))
    return script


@pytest.mark.usefixtures("each_ffmpeg")
def test_file_plays_in_browsers(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", frames(5))
    with av.open(str(path)) as video:
        context = video.streams.video[0].codec_context
        assert (context.name, context.pix_fmt) == ("h264", "yuv420p")
        assert video.metadata["comment"] == "seen"
    data = path.read_bytes()
    assert 0 < data.index(b"moov") < data.index(b"mdat")


@pytest.mark.usefixtures("each_ffmpeg")
@pytest.mark.parametrize(
    "colour", [(255, 255, 255), (0, 0, 0), (230, 40, 30), (30, 200, 60), (40, 60, 220)]
)
def test_colours_are_kept(tmp_path: Path, colour: tuple[int, int, int]) -> None:
    frame = np.full((48, 64, 3), colour, np.uint8)
    [shown] = read(write(tmp_path / "a.mp4", [frame]))
    np.testing.assert_allclose(shown.reshape(-1, 3).mean(axis=0), colour, atol=3)


@pytest.mark.usefixtures("each_ffmpeg")
@pytest.mark.parametrize("width, height", [(63, 48), (64, 47), (63, 47), (1, 1)])
def test_odd_size_grows_by_a_copy_of_the_edge(tmp_path: Path, width: int, height: int) -> None:
    frame = np.full((height, width, 3), 40, np.uint8)
    frame[-1], frame[:, -1] = 200, 200
    [shown] = read(write(tmp_path / "a.mp4", [frame]))
    assert shown.shape == (height + height % 2, width + width % 2, 3)
    np.testing.assert_allclose(shown[-1], 200, atol=12)
    np.testing.assert_allclose(shown[:, -1], 200, atol=12)


@pytest.mark.usefixtures("each_ffmpeg")
def test_times_are_kept_and_never_equal(tmp_path: Path) -> None:
    pts_s = [0.5, 0.51, 0.51, 2.0, 7.003]
    path = write(tmp_path / "a.mp4", frames(5), pts_s=pts_s)
    with av.open(str(path)) as video:
        found = [frame.time for frame in video.decode(video=0)]
    np.testing.assert_allclose(found, pts_s, atol=1e-3)
    assert len(set(found)) == 5


@pytest.mark.usefixtures("each_ffmpeg")
def test_ffmpeg_says_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(RenderError, match=r"ffmpeg failed: .*no_such_codec"):
        write(tmp_path / "a.mp4", frames(3), settings=Render(codec="no_such_codec"))


@pytest.mark.parametrize("count", [1, 2000], ids=["at the end", "on the way"])
@pytest.mark.parametrize(
    "lines, says",
    [
        ("echo first >&2; echo last words >&2; exit 3", "ffmpeg failed: first; last words$"),
        ("exit 3", "ended with code 3"),
        ("kill -9 $$", "signal 9"),
        ("head -c 100000 >/dev/null; echo tired >&2; exit 1", "tired"),
    ],
)
def test_ffmpeg_ends_badly(
    tmp_path: Path, pretend: Path, lines: str, says: str, count: int
) -> None:
    pretend.write_text(f"#!/bin/sh\n{lines}\n")
    with pytest.raises(RenderError, match=says):
        write(tmp_path / "a.mp4", frames(count))


def test_ffmpeg_that_talks_a_lot_does_not_stall(tmp_path: Path, pretend: Path) -> None:
    pretend.write_text("#!/bin/sh\nyes complaint | head -n 100000 >&2\ncat >/dev/null\nexit 1\n")
    with pytest.raises(RenderError, match="complaint"):
        write(tmp_path / "a.mp4", frames(100))


def test_full_disk_has_its_own_error(tmp_path: Path, pretend: Path) -> None:
    pretend.write_text("#!/bin/sh\necho 'av_write: No space left on device' >&2; exit 228\n")
    with pytest.raises(StoreDiskFullError, match=re.escape(f"no space left in {tmp_path}")):
        write(tmp_path / "a.mp4", frames(3))


def test_ffmpeg_that_cannot_be_started(tmp_path: Path, pretend: Path) -> None:
    pretend.chmod(0o600)
    with pytest.raises(RenderError, match="cannot be started"):
        write(tmp_path / "a.mp4", frames(3))


@pytest.fixture
def chosen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """The file that `IMAGEIO_FFMPEG_EXE` names; the test writes it."""
    path = tmp_path / "ffmpeg"
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(path))
    ffmpeg_path.cache_clear()
    yield path
    ffmpeg_path.cache_clear()


@pytest.mark.usefixtures("chosen")
def test_ffmpeg_that_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RenderError, match="ffmpeg: ffmpeg cannot be started: No such file"):
        write(tmp_path / "a.mp4", frames(3))

    def missing() -> str:
        raise RuntimeError("No ffmpeg exe could be found. Install ffmpeg")

    monkeypatch.setattr(imageio_ffmpeg, "get_ffmpeg_exe", missing)
    with pytest.raises(RenderError, match=r"ffmpeg is missing: .* Install ffmpeg"):
        write(tmp_path / "a.mp4", frames(3))


def test_ffmpeg_that_is_too_old(tmp_path: Path, chosen: Path) -> None:
    chosen.write_text("#!/bin/sh\necho '-vsync  video sync method'\n")
    chosen.chmod(0o755)
    with pytest.raises(RenderError, match=r"too old: version 5\.1 or newer"):
        write(tmp_path / "a.mp4", frames(3))
    chosen.write_text("#!/bin/sh\necho '-fps_mode  set framerate mode'\n")
    assert ffmpeg_path() == str(chosen)


@pytest.mark.parametrize("has_gpu", [True, False])
def test_a_gpu_encodes_where_there_is_one(tmp_path: Path, pretend: Path, has_gpu: bool) -> None:
    said = tmp_path / "said"
    trial = f"case $* in *lavfi*) exit {0 if has_gpu else 1};; esac"
    pretend.write_text(f"#!/bin/sh\n{trial}\necho $* > {said}\ncat > /dev/null\n")
    write(tmp_path / "a.mp4", frames(3), settings=Render(crf=30))
    expected = "-vcodec h264_nvenc" if has_gpu else "-vcodec libx264"
    quality = "-cq 30 " if has_gpu else "-crf 30 "
    assert expected in said.read_text()
    assert quality in said.read_text()


@pytest.mark.usefixtures("each_ffmpeg")
def test_gif_loops_at_its_own_rate_and_size_and_says_what_it_is(tmp_path: Path) -> None:
    pictures = [np.full((96, 600, 3), 12 * n, np.uint8) for n in range(20)]
    path = write(tmp_path / "a.gif", pictures, settings=Render(format="gif"))
    assert path.read_bytes().endswith(b"\x04seen\x00\x3b")
    with Image.open(path) as gif:
        assert gif.info["loop"] == 0
        assert (gif.n_frames, gif.size) == (10, (encode.GIF_WIDTH, 77))
        levels = []
        for number in range(10):
            gif.seek(number)
            assert gif.info["duration"] == 80
            levels.append(float(np.asarray(gif.convert("L")).mean()))
    np.testing.assert_allclose(levels, [24 * n for n in range(10)], atol=14)


def test_leaving_by_an_exception_ends_ffmpeg_at_once(
    tmp_path: Path, started: list[subprocess.Popen[bytes]]
) -> None:
    writer = VideoWriter(tmp_path / "a.mp4", info(), Render(), comment="", sound=None)
    with contextlib.suppress(KeyboardInterrupt), writer:
        writer.write(frames(1)[0], 0.0)
        raise KeyboardInterrupt
    assert started[-1].returncode == -signal.SIGKILL


def test_replacing_is_all_or_nothing(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.txt"
    with replacing(path) as temporary:
        temporary.write_text("one")
        assert not path.exists()
    assert path.read_text() == "one"
    with contextlib.suppress(KeyError), replacing(path) as temporary:
        temporary.write_text("two")
        raise KeyError
    assert path.read_text() == "one"
    assert list(path.parent.iterdir()) == [path]


def test_replacing_says_what_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(RenderError, match=r"file/a\.txt: cannot be written"),
        replacing(tmp_path / "file" / "a.txt"),
    ):
        pass
