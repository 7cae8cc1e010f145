"""The command line: its output, its exit codes, and a folder of everything that can go wrong."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from fer_batch.datasets import READERS
from fer_batch.results import timeline
from tests.support.clips import RECIPES, cut, zeroed
from tests.support.command import run
from tests.support.portraits import portrait

READABLE = [
    *("plain", "tone", "one frame", "name", "ntsc", "vfr mp4", "rotated 90", "rotated 180"),
    *("rotated 270", "odd 444", "trimmed", "ts", "interlaced ts", "10 bit", "hevc", "vp9", "av1"),
    *("mjpeg avi", "no duration", "gif"),
]


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "in" / "one.png"
    path.parent.mkdir()
    Image.fromarray(portrait(1)).save(path)
    return path


def bad_images(folder: Path) -> dict[str, str]:
    """Still images that are read in spite of everything, and some that cannot be: their status."""
    grey = np.linspace(0, 65535, 48 * 64).reshape(48, 64).astype(np.uint16)
    Image.fromarray(grey).save(folder / "deep.png")
    Image.new("CMYK", (64, 48), (10, 200, 30, 0)).save(folder / "print.jpg")
    Image.new("RGB", (1, 1)).save(folder / "dot.png")
    turned = Image.new("RGB", (64, 48))
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save(folder / "turned.jpg", exif=exif)
    Image.new("1", (20_000, 20_000)).save(folder / "bomb.png")
    (folder / "text.jpg").write_text("not a picture")
    (folder / "empty.png").touch()
    whole = folder / "whole.jpg"
    Image.fromarray(portrait(1)).save(whole, quality=95)
    (folder / "half.jpg").write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    ok = dict.fromkeys(["deep.png", "print.jpg", "dot.png", "turned.jpg", "whole.jpg"], "ok")
    return ok | {
        "bomb.png": "failed",
        "text.jpg": "failed",
        "empty.png": "failed",
        "half.jpg": "partial",
    }


def test_supervisor_does_not_import_torch() -> None:
    """It starts a process for each shard, and must not take the memory of one itself."""
    code = "import sys, fer_batch.distributed.supervisor; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_folder_of_everything_that_goes_wrong(
    tmp_path: Path, made: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    for name in READABLE:
        (folder / RECIPES[name].file).symlink_to(made(name))
    (folder / "zero.mp4").touch()
    (folder / "text.mp4").write_text("not a video" * 1000)
    (folder / "noise.mkv").write_bytes(np.random.default_rng(0).bytes(50_000))
    cut(made("plain"), folder / "cut.mp4", 0.7)
    (folder / "cut-head.mp4").unlink()
    cut(made("no duration"), folder / "cut.mkv", 0.6)
    zeroed(made("plain"), folder / "hole.mp4", 0.5, 0.55)
    status = dict.fromkeys(["zero.mp4", "text.mp4", "noise.mkv"], "failed")
    status |= dict.fromkeys(["cut.mp4", "hole.mp4"], "partial")
    status |= {RECIPES[name].file: "ok" for name in READABLE} | bad_images(folder)
    locked = folder / "locked.mp4"
    locked.write_bytes(made("plain").read_bytes())
    locked.chmod(0)
    status["locked.mp4"] = "ok" if os.access(locked, os.R_OK) else "failed"  # root may read it

    assert run("process", folder, "-o", out) == 1
    said = capsys.readouterr()
    media = timeline.load_media(out).set_index("media")
    found = media["status"].to_dict()
    assert found.pop("cut.mkv") in {"ok", "partial"}  # without a duration nothing tells
    assert found == status
    for name in media.index[media["status"] != "ok"]:
        assert media.loc[name, "error"]
        assert f"{media.loc[name, 'status']}: {name}: " in said.err
    assert "Traceback" not in said.err + said.out

    frames = timeline.load_frames(out).groupby("media", observed=True)
    for name in READABLE:
        recipe = RECIPES[name]
        rows = frames.get_group(recipe.file)
        np.testing.assert_allclose(rows["pts_s"], recipe.pts_s, atol=1e-3, err_msg=name)
        assert rows["frame_index"].tolist() == list(range(len(recipe.pts_s)))
    how = media[["decoder", "n_segments", "n_segments_fallback"]]
    assert how.loc["plain.mp4"].tolist() == ["decord", 1, 0]
    assert how.loc["av1.mp4"].tolist() == ["pyav", 1, 1]  # Decord does not know AV1
    assert media.loc["cut.mp4", "n_frames_missing"] > 0
    assert media.loc["hole.mp4", ["n_frames_missing", "n_frames_damaged"]].sum() > 0
    assert (media.loc["turned.jpg", ["width_px", "height_px"]] == [48, 64]).all()


def test_process_show_render(
    picture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert run("process", picture, "-o", out, "--annotate") == 0
    said = capsys.readouterr().out
    assert "1 files" in said
    assert "1 ok" in said
    assert f"{out}/faces" in said
    assert (out / "annotated" / "one.png").exists()

    assert run("process", picture, "-o", out) == 0
    assert "nothing new: 1 files were done before\n" in capsys.readouterr().out
    assert run("show", out) == 0
    said = capsys.readouterr().out
    assert "one.png" in said
    assert "faces that are not good enough to classify: 0.0%\n" in said
    (out / "annotated" / "one.png").unlink()
    assert run("render", out, "--quiet") == 0
    assert (out / "annotated" / "one.png").exists()


def test_quiet_says_nothing(
    picture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("process", picture, "-o", tmp_path / "out", "--quiet") == 0
    assert capsys.readouterr() == ("", "")


def test_advice_where_no_face_was_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.fromarray(portrait(0)).save(tmp_path / "empty.png")
    assert run("process", tmp_path / "empty.png", "-o", tmp_path / "out") == 0
    advice = "no face was found: try --set detector.yunet.longest_side_px=1280"
    assert advice in capsys.readouterr().out


def test_start_and_end(made: Callable[[str], Path], tmp_path: Path) -> None:
    assert run("process", made("plain"), "-o", tmp_path, "--start", "0.5", "--end", "1") == 0
    pts_s = timeline.load_frames(tmp_path)["pts_s"]
    assert (pts_s.min(), pts_s.max()) == pytest.approx((0.5, 29 / 30), abs=1e-3)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["process", "none", "-o", "out"], "none"),
        (["process", "in/one.png", "-o", "out", "--set", "sampling.evry=2"], "sampling.evry"),
        (["process", "in/one.png", "-o", "out", "--config", "none.yaml"], "none.yaml"),
        (["process", "in/one.png", "-o", "in/one.png"], "is a file"),
        (["work", "out", "id", "1", "1", "0", "1"], "run id has ended"),
        (["process", "in/one.png", "-o", "out", "--set", "runtime.device=cuda:9"], "cuda:9"),
        (["process", "in/one.png", "-o", "out", "--set", "classifier.weights=x"], "no weights 'x'"),
        (["show", "in"], "not the output folder"),
        (["render", "in"], "not the output folder"),
        (["process", "in/one.png"], "-o"),
        (["train", "--config", "none.yaml", "--data", "in", "-o", "out"], "none.yaml"),
    ],
)
def test_mistake_is_one_line_and_exit_code_2(
    picture: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(picture.parents[1])
    assert run(*arguments) == 2
    error = capsys.readouterr().err
    assert message in error.splitlines()[-1]
    assert "Traceback" not in error


@pytest.mark.skipif(
    sys.platform != "linux" or os.getuid() != 0, reason="needs to mount a small disk"
)
def test_full_disk_is_exit_code_3(
    made: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "none", disk], check=False)
    if mounted.returncode:
        pytest.skip("cannot mount a small disk here")
    try:
        assert run("process", made("plain"), "-o", disk / "out") == 3
    finally:
        subprocess.run(["umount", disk], check=True)
    error = capsys.readouterr().err
    assert "no space left" in error
    assert "Traceback" not in error


def test_interrupt_keeps_what_is_complete(
    made: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    for number in range(300):
        shutil.copy(made("plain"), folder / f"{number:03d}.mp4")

    def interrupt() -> None:
        while not list(out.glob("media/part-*")):
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt, daemon=True)
    thread.start()
    assert run("process", folder, "-o", out) == 130
    thread.join()
    error = capsys.readouterr().err
    assert "stopping, finished files are kept" in error
    assert "run again to continue" in error
    assert "Traceback" not in error
    n_done = len(timeline.load_media(out))
    assert 0 < n_done < 300
    assert timeline.load_frames(out)["media"].nunique() == n_done


def test_help_does_not_wait_for_heavy_imports() -> None:
    command = [sys.executable, "-X", "importtime", "-m", "fer_batch", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert imported.isdisjoint(
        {"torch", "pandas", "numpy", "cv2", "av", "pyarrow", "pydantic", "rich"}
    )
    assert "process" in done.stdout


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    from fer_batch import __version__

    assert run("--version") == 0
    assert capsys.readouterr().out == f"fer-batch {__version__}\n"


def test_config_prints_all_settings(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("config", "--set", "sampling.fps=5") == 0
    plain = capsys.readouterr().out
    assert "  fps: 5.0\n" in plain
    assert run("config", "--set", "sampling.fps=5", "--commented") == 0
    commented = capsys.readouterr().out
    assert "# Use every N-th frame.\n  every: 1\n" in commented
    assert yaml.safe_load(commented) == yaml.safe_load(plain)


def test_help_names_every_data_set(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("data", "evaluate", "explain-data"):
        assert run(command, "--help") == 0
        text = capsys.readouterr().out
        assert [name for name in READERS if name not in text] == []
