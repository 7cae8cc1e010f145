"""The main job, from files to tables: complete, in order, resumable, never stopped by one file."""

import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from fer_batch.config import load
from fer_batch.emotions import EMOTIONS
from fer_batch.errors import DetectorError, MediaError
from fer_batch.faces.detectors import build_detector
from fer_batch.pipeline import process as pipeline
from fer_batch.records import Faces, Frames
from fer_batch.results import store, timeline
from tests.support.clips import clip, cut
from tests.support.cluster import KILLS
from tests.support.detectors import use_detector
from tests.support.portraits import portrait, portraits

CONFIG = load(None, ["decode.segment_frames=10"])
N_FRAMES = 12


def save(path: Path, n_faces: int, number: int = 0) -> Path:
    """A video or a still image with so many faces."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".mp4":
        return clip(path, portraits(n_faces, N_FRAMES))
    Image.fromarray(portrait(n_faces, number)).save(path)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Videos and images with 0, 1 and 3 faces, in nested folders."""
    root = tmp_path_factory.mktemp("media")
    for n_faces in (0, 1, 3):
        save(root / f"day {n_faces}" / "clip.mp4", n_faces)
        save(root / f"day {n_faces}" / "still.png", n_faces, number=n_faces)
    return root


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    """The same folder, to be changed."""
    return Path(shutil.copytree(folder, tmp_path / "media"))


def tables(out: Path) -> dict[str, pd.DataFrame]:
    """What a run says, without what differs from run to run."""
    media = timeline.load_media(out).drop(columns=["seconds", "mtime_ns", "root"])
    return {
        "media": media.reset_index(drop=True),
        "frames": timeline.load_frames(out).reset_index(drop=True),
        "faces": timeline.load(out).reset_index(drop=True),
    }


def assert_same(out: Path, expected: dict[str, pd.DataFrame]) -> None:
    for name, table in tables(out).items():
        pd.testing.assert_frame_equal(table, expected[name], atol=1e-5, rtol=0, obj=name)


@pytest.fixture(scope="module")
def undisturbed(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, pd.DataFrame]:
    out = tmp_path_factory.mktemp("undisturbed")
    pipeline.process([folder], out, CONFIG)
    return tables(out)


@pytest.mark.parametrize("kind", ["clip.mp4", "still.png"])
@pytest.mark.parametrize("n_faces", [0, 1, 3])
@pytest.mark.parametrize("batch_size", [1, 64])
def test_every_frame_and_every_face_has_its_row(
    folder: Path, tmp_path: Path, kind: str, n_faces: int, batch_size: int
) -> None:
    config = load(None, [f"runtime.batch_size={batch_size}"])
    source = folder / f"day {n_faces}" / kind
    summary = pipeline.process([source], tmp_path / "out", config)
    n_frames = N_FRAMES if kind == "clip.mp4" else 1
    assert (summary.n_ok, summary.n_frames, summary.n_faces) == (1, n_frames, n_frames * n_faces)

    frames, faces = timeline.load_frames(tmp_path / "out"), timeline.load(tmp_path / "out")
    assert frames["frame_index"].tolist() == list(range(n_frames))
    np.testing.assert_allclose(frames["pts_s"], np.arange(n_frames) / 30, atol=1e-3)
    assert (frames["n_faces"] == n_faces).all()
    assert faces["face_index"].tolist() == list(range(n_faces)) * n_frames
    assert faces["track_id"].isna().all() == (kind == "still.png" or not n_faces)
    if kind == "clip.mp4":
        assert faces["track_id"].tolist() == list(range(n_faces)) * n_frames
    np.testing.assert_allclose(faces[list(EMOTIONS)].sum(axis=1), 1, atol=1e-4)
    assert ((faces["x2_px"] - faces["x1_px"]).between(60, 150)).all()
    media = timeline.load_media(tmp_path / "out").iloc[0]
    assert (media["media"], media["status"], media["n_faces"]) == (kind, "ok", n_frames * n_faces)


def test_a_folder_gives_what_its_files_give_alone(
    folder: Path, undisturbed: dict[str, pd.DataFrame], tmp_path: Path
) -> None:
    single = []
    for number, file in enumerate(sorted(folder.rglob("*.*"))):
        pipeline.process([file], tmp_path / str(number), CONFIG)
        faces = timeline.load(tmp_path / str(number))
        single.append(faces.assign(media=file.relative_to(folder).as_posix()))
    alone = pd.concat(single).reset_index(drop=True)
    columns = ["media", "frame_index", "face_index", "track_id", *EMOTIONS]
    together = undisturbed["faces"]
    pd.testing.assert_frame_equal(
        alone[columns], together[columns], check_dtype=False, check_categorical=False, atol=1e-5
    )


@pytest.mark.parametrize(
    "means",
    [
        {"batch_size": 1, "readers": 1, "threads": 1, "buffer_mb": 0.1},
        {"batch_size": 7, "readers": 4, "threads": 5, "device": "cpu,cpu"},
    ],
)
def test_tables_do_not_depend_on_what_the_run_may_use(
    folder: Path,
    undisturbed: dict[str, pd.DataFrame],
    tmp_path: Path,
    means: dict[str, object],
) -> None:
    settings = [f"runtime.{name}={value}" for name, value in means.items()]
    config = load(None, ["decode.segment_frames=10", *settings])
    pipeline.process([folder], tmp_path, config)
    assert_same(tmp_path, undisturbed)


def test_second_run_does_only_what_is_missing_or_changed(
    copy: Path, undisturbed: dict[str, pd.DataFrame], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    (copy / "day 1" / "clip.mp4").rename(tmp_path / "away.mp4")
    assert pipeline.process([copy], out, CONFIG).n_ok == 5

    again = pipeline.process([copy], out, CONFIG)
    assert (again.n_ok, again.n_skipped, again.n_frames) == (0, 5, 0)

    (tmp_path / "away.mp4").rename(copy / "day 1" / "clip.mp4")
    save(copy / "day 0" / "still.png", 1, number=1)
    again = pipeline.process([copy], out, CONFIG)
    assert (again.n_ok, again.n_skipped) == (2, 4)
    faces = timeline.load(out, media="day 0/still.png")
    assert len(faces) == 1

    save(copy / "day 0" / "still.png", 0)
    pipeline.process([copy], out, CONFIG)
    assert_same(out, undisturbed)


def test_force_and_other_settings_do_it_again(
    copy: Path, undisturbed: dict[str, pd.DataFrame], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    pipeline.process([copy], out, CONFIG)
    assert pipeline.process([copy], out, CONFIG, force=True).n_ok == 6
    assert_same(out, undisturbed)
    fewer = load(None, ["sampling.every=4"])
    assert pipeline.process([copy], out, fewer).n_ok == 6
    assert timeline.load_frames(out)["frame_index"].max() == 8


def test_one_bad_file_takes_no_other_down(
    copy: Path, undisturbed: dict[str, pd.DataFrame], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    (copy / "empty.mp4").touch()
    (copy / "text.jpg").write_text("not a picture")
    cut(copy / "day 3" / "clip.mp4", copy / "cut.mp4", 0.9)
    (copy / "cut-head.mp4").unlink()
    summary = pipeline.process([copy], out, CONFIG)
    assert {(p.media, p.status) for p in summary.problems} == {
        ("empty.mp4", "failed"),
        ("text.jpg", "failed"),
        ("cut.mp4", "partial"),
    }
    assert all(problem.error for problem in summary.problems)
    good = {
        name: table[table["media"].isin(undisturbed["media"]["media"])]
        for name, table in tables(out).items()
    }
    for name, table in good.items():
        pd.testing.assert_frame_equal(
            table.reset_index(drop=True).astype({"media": str}),
            undisturbed[name].astype({"media": str}),
            check_dtype=False,
            atol=1e-5,
        )
    media = timeline.load_media(out).set_index("media")
    assert media.loc["cut.mp4", "n_frames_missing"] > 0
    assert 0 < (timeline.load_frames(out)["media"] == "cut.mp4").sum() < N_FRAMES

    save(copy / "empty.mp4", 1)
    again = pipeline.process([copy], out, CONFIG)  # failed files are tried again, partial are not
    assert (again.n_ok, again.n_failed, again.n_skipped) == (1, 1, 7)


def test_detector_error_fails_its_file_only(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    detector = build_detector(CONFIG.detector, torch.device("cpu"))

    def picky(frames: Frames) -> Faces:
        if any(len(detector.detect([frame])) == 3 for frame in frames):
            raise DetectorError("three are too many")
        return detector.detect(frames)

    use_detector(monkeypatch, picky)
    summary = pipeline.process([folder], tmp_path, CONFIG)
    assert [(p.media, p.error) for p in summary.problems] == [
        ("day 3/clip.mp4", "three are too many"),
        ("day 3/still.png", "three are too many"),
    ]
    assert summary.n_ok == 4
    assert not timeline.load_frames(tmp_path)["media"].str.startswith("day 3").any()


def test_stop_keeps_what_is_complete_and_the_next_run_goes_on(
    folder: Path, undisturbed: dict[str, pd.DataFrame], tmp_path: Path
) -> None:
    stop = threading.Event()
    config = load(None, ["runtime.buffer_mb=0.1"])

    def on_progress(progress: pipeline.Progress) -> None:
        if progress.n_files_done >= 1:
            stop.set()

    summary = pipeline.process([folder], tmp_path, config, on_progress=on_progress, stop=stop)
    assert summary.interrupted
    assert 0 < summary.n_ok < 6
    assert len(timeline.load_media(tmp_path)) == summary.n_ok
    pipeline.process([folder], tmp_path, CONFIG)
    assert_same(tmp_path, undisturbed)


def test_full_queue_and_failing_loop_leave_no_thread(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(frames: Frames) -> Faces:
        raise RuntimeError("a mistake in the detector")

    use_detector(monkeypatch, fail)
    with pytest.raises(RuntimeError, match="a mistake"):
        pipeline.process([folder], tmp_path, load(None, ["runtime.buffer_mb=0.1"]))
    assert store.media_rows(tmp_path) == []


def test_progress_ends_at_one(folder: Path, tmp_path: Path) -> None:
    seen: list[pipeline.Progress] = []
    pipeline.process([folder], tmp_path, CONFIG, on_progress=seen.append)
    shares = [progress.share for progress in seen]
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(1)
    assert (seen[-1].n_files_done, seen[-1].n_files) == (6, 6)


def test_folder_without_media_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    with pytest.raises(MediaError, match="in"):
        pipeline.process([tmp_path / "in"], tmp_path / "out", CONFIG)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killed_many_times_the_tables_are_those_of_an_undisturbed_run(
    folder: Path, tmp_path: Path
) -> None:
    media, out = tmp_path / "media", tmp_path / "out"
    for number in range(8):
        shutil.copytree(folder, media / str(number))
    pipeline.process([media], tmp_path / "expected", CONFIG)
    command = [sys.executable, "-m", "fer_batch", "process", str(media), "-o", str(out), "-q"]
    command += [f"--set={setting}" for setting in ["decode.segment_frames=10"]]

    def run(action: Callable[[subprocess.Popen[bytes]], int]) -> int:
        with subprocess.Popen(command) as process:
            return action(process)

    began = time.monotonic()
    assert run(lambda process: process.wait()) == 0
    whole_s = time.monotonic() - began
    assert_same(out, tables(tmp_path / "expected"))

    dice = random.Random(0)
    n_killed = n_done = 0
    while n_killed < 2 * KILLS:
        if n_done == 48:
            shutil.rmtree(out)

        def kill(process: subprocess.Popen[bytes]) -> int:
            time.sleep(dice.uniform(0.3, 1.0) * whole_s)
            process.send_signal(signal.SIGKILL)
            return process.wait()

        n_killed += run(kill) == -signal.SIGKILL
        n_done = len(store.media_rows(out)) if (out / "media").is_dir() else 0
        faces = pd.read_parquet(out / "faces") if n_done else pd.DataFrame(columns=["media"])
        assert not faces.duplicated(["media", "frame_index", "face_index"]).any()
    assert run(lambda process: process.wait()) == 0
    assert_same(out, tables(tmp_path / "expected"))
