"""The commands that make pictures of a run: what their options mean, and what they return."""

from pathlib import Path

import av
import pytest
from PIL import Image

from fer_batch.results import store
from tests.support.clips import clip
from tests.support.command import run as command
from tests.support.portraits import portrait, portraits


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Output folder of a run over a video of 30 frames and a picture."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "in").mkdir()
    clip(folder / "in" / "a.mp4", portraits(1, 30), tone=True)
    Image.fromarray(portrait(2)).save(folder / "in" / "b.png")
    assert command("process", folder / "in", "-o", folder / "out", "-q") == 0
    return folder / "out"


def made(run: Path) -> set[str]:
    return {path.name for path in (run / "annotated").iterdir()}


def size_of(path: Path) -> tuple[int, int, int]:
    """Width, height and number of frames."""
    with av.open(str(path)) as video:
        frames = list(video.decode(video=0))
        return frames[0].width, frames[0].height, len(frames)


@pytest.mark.parametrize(
    "options, width, n_frames",
    [
        ([], 480, 30),
        (["--style", "minimal", "--crf", "40", "--codec", "libx264"], 480, 30),
        (["--style", "heatmap", "--blur"], 480, 30),
        (["--style", "side-by-side", "--start", "0.5"], 960, 15),
        (["--set", "render.bars=false", "--end", "0.5"], 480, 15),
    ],
)
def test_options_stand_for_settings(
    run: Path, options: list[str], width: int, n_frames: int
) -> None:
    assert command("render", run, "-q", *options) == 0
    assert made(run) >= {"a.mp4", "b.png"}
    assert size_of(run / "annotated" / "a.mp4") == (width, 300, n_frames)


def test_some_files_and_gifs(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("render", run, "--media", "a.mp4", "--gif") == 0
    assert "a.mp4.gif" in made(run)
    assert capsys.readouterr().out == f"1 annotated files: {run}/annotated\n"


@pytest.mark.parametrize(
    "options, code, says",
    [
        (["--style", "loud"], 2, "render.style"),
        (["--crf", "70"], 2, "render.crf"),
        (["--start", "9", "--end", "3"], 2, "must be after start_s"),
        (["--media", "c.mp4"], 1, "holds no results of c.mp4"),
        (["--codec", "nonsense"], 1, "a.mp4: ffmpeg failed: "),
        (["--set", "classifier.weights=nowhere", "--style", "heatmap"], 2, "no weights 'nowhere'"),
    ],
)
def test_what_is_wrong_is_said(
    run: Path, capsys: pytest.CaptureFixture[str], options: list[str], code: int, says: str
) -> None:
    assert command("render", run, "-q", "--force", *options) == code
    assert says in capsys.readouterr().err


def test_process_takes_the_options_of_render(run: Path, tmp_path: Path) -> None:
    source, out = run.parent / "in" / "a.mp4", tmp_path / "out"
    options = ["--annotate", "--style", "side-by-side", "--blur", "--end", "0.2"]
    assert command("process", source, "-o", out, "-q", *options) == 0
    assert size_of(out / "annotated" / "a.mp4") == (960, 300, 6)
    assert store.read_run(out)["config"]["render"]["blur"] is True
