"""A video in pieces gives what it gives as a whole, whatever the pieces and whatever the video."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from fer_batch.config import Config, load
from fer_batch.distributed import pieces
from fer_batch.errors import DetectorError, StoreError
from fer_batch.media import discovery
from fer_batch.media.decode import FrameReader
from fer_batch.pipeline import process as pipeline
from fer_batch.pipeline.manifest import Summary
from fer_batch.pipeline.plan import Plan, make_plan
from fer_batch.records import DecodeReport, Faces, FrameChunk, Frames, MediaFile, Piece
from fer_batch.results import timeline
from tests.support import results
from tests.support.clips import RECIPES, Rgb, clip, cut, numbered, zeroed
from tests.support.detectors import use_detector
from tests.support.portraits import portraits

Made = Callable[[str], Path]
Tables = dict[str, pd.DataFrame]
CONFIG = load(None, ["decode.segment_frames=10"])
SAMPLINGS = [
    [],
    ["sampling.every=3"],
    ["sampling.fps=7"],
    ["sampling.start_s=0.7", "sampling.end_s=1.4"],
    ["sampling.start_s=100"],
]
N_FRAMES, SEAM, CUT = 70, 20, 33
"""Of `scene`: a shot begins with a segment, another within one."""


def scene() -> Iterator[Rgb]:
    """Bright squares on grey: one goes to and fro, a second from frame 10, none from frame 60."""
    for number in range(N_FRAMES):
        rgb = np.full((96, 160, 3), (30, 100, 170)[(number >= SEAM) + (number >= CUT)], np.uint8)
        if number < 60:
            left = 4 + abs(120 - 7 * number % 240)
            rgb[10:40, left : left + 30] = 255
        if 10 <= number < 60:
            rgb[60:90, 100:130] = 255
        yield rgb


def find_squares(frames: Frames) -> Faces:
    """The squares of a scene, with points; a white picture is an error."""
    rows, boxes = [], []
    for row, frame in enumerate(frames):
        if frame.min() > 220:
            raise DetectorError(f"white to the corner: {frame.shape}")
        _, _, stats, _ = cv2.connectedComponentsWithStats((frame[..., 0] > 215).astype(np.uint8))
        for left, top, width, height, area in stats[1:]:
            if area > 200:
                rows.append(row)
                boxes.append((left, top, left + width, top + height))
    box_px = np.array(boxes, np.float32).reshape(-1, 4)
    return Faces(
        frame_row=np.array(rows, np.int64),
        box_px=box_px,
        score=np.ones(len(rows), np.float32),
        points_px=box_px[:, None, :2] + np.arange(10, dtype=np.float32).reshape(5, 2),
    )


@pytest.fixture
def squares(monkeypatch: pytest.MonkeyPatch) -> None:
    """A detector for scenes."""
    use_detector(monkeypatch, find_squares)


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The scene with a key frame every tenth frame: seven segments."""
    return clip(tmp_path_factory.mktemp("scene") / "scene.mp4", scene(), options={"g": "10"})


def tables(out: Path) -> Tables:
    media_rows = timeline.load_media(out)
    assert (media_rows["seconds"] > 0).all()
    return {
        "media": media_rows.drop(columns="seconds"),
        "frames": timeline.load_frames(out),
        "faces": timeline.load(out, short=True),
    }


def assert_same(have: Tables, want: Tables) -> None:
    for name in want:
        pd.testing.assert_frame_equal(have[name], want[name], atol=1e-5, rtol=0, obj=name)


def undivided(path: Path, out: Path, config: Config = CONFIG) -> Tables:
    pipeline.process([path], out, config)
    return tables(out)


def planned(path: Path, out: Path, config: Config = CONFIG) -> tuple[Plan, MediaFile]:
    plan = make_plan([path], out, config)
    return plan, plan.todo[0]


def do(plan: Plan, file: MediaFile, piece: Piece, folder: Path, **how) -> Summary:
    """One piece, into the folder of all."""
    plan = replace(plan, todo=(replace(file, piece=piece),))
    with pieces.PieceCollector(folder, plan) as collector:
        return pipeline.run_plan(plan, collector, **how)


def divided(path: Path, folder: Path, numbers: Sequence[int], config: Config = CONFIG) -> Tables:
    """The tables after doing these pieces in this order."""
    plan, file = planned(path, folder / "out", config)
    n = len(set(numbers))
    for number in numbers:
        do(plan, file, Piece(number, n), folder / "pieces")
    pieces.join_pieces(plan, file, n, folder / "pieces", folder / "out")
    assert not list((folder / "pieces").rglob("*.parquet"))
    return tables(folder / "out")


def read(file: MediaFile, config: Config) -> tuple[list[FrameChunk], DecodeReport]:
    with FrameReader(file, config.sampling, config.decode) as reader:
        return list(reader), reader.report


def harmed(made: Made, folder: Path) -> Iterator[Path]:
    """Damaged copies of clips with several key frames."""
    for name in ("long mp4", "long hevc", "long mkv", "long avi", "ts"):
        source = made(name)
        yield zeroed(source, folder / f"zeroed-{source.name}", 0.45, 0.55)
        yield zeroed(source, folder / f"start-{source.name}", 0.25, 0.3)
        yield cut(source, folder / f"cut-{source.name}", 0.6)


def assert_adds_up(path: Path, n: int, config: Config) -> None:
    """Frames and report of the pieces are those of the whole."""
    file = discovery.find([path])[0]
    chunks, report = read(file, config)
    parts = [read(replace(file, piece=Piece(number, n)), config) for number in range(n)]
    assert DecodeReport.join([each for _, each in parts]) == report
    in_parts = [chunk for some, _ in parts for chunk in some]
    for name in ("frame_index", "pts_s", "is_damaged", "rgb"):
        have, want = (
            np.concatenate([getattr(chunk, name) for chunk in some] or [np.empty(0)])
            for some in (in_parts, chunks)
        )
        np.testing.assert_array_equal(have, want)


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("n", [2, 5])
def test_pieces_of_any_clip_add_up(made: Made, name: str, n: int) -> None:
    assert_adds_up(made(name), n, CONFIG)


@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("name", ["b-frames", "hevc open", "vfr mkv", "trimmed", "one frame"])
def test_pieces_of_a_sample_add_up(made: Made, name: str, sampling: list[str]) -> None:
    assert_adds_up(made(name), 3, load(None, ["decode.segment_frames=10", *sampling]))


@pytest.mark.parametrize("sampling", SAMPLINGS[::3])
def test_pieces_of_damaged_clips_add_up(made: Made, tmp_path: Path, sampling: list[str]) -> None:
    for path in harmed(made, tmp_path):
        assert_adds_up(path, 4, load(None, ["decode.segment_frames=10", *sampling]))


@pytest.mark.usefixtures("squares")
@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_tables_are_those_of_the_undivided_run(
    video: Path, tmp_path: Path, sampling: list[str]
) -> None:
    config = load(None, ["decode.segment_frames=10", *sampling])
    want = undivided(video, tmp_path / "whole", config)
    for n in (3,) if sampling else (1, 2, 3, 7, 9):
        assert_same(divided(video, tmp_path / str(n), range(n), config), want)


@pytest.mark.usefixtures("squares")
def test_a_new_column_reaches_the_tables_of_both(
    video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("frames", "faces"):
        results.add_column(monkeypatch, name, f"is_new_in_{name}")
    want = undivided(video, tmp_path / "whole")
    assert want["frames"]["is_new_in_frames"].all()
    assert want["faces"]["is_new_in_faces"].all()
    assert_same(divided(video, tmp_path, range(3)), want)


@pytest.mark.usefixtures("squares")
def test_tracks_go_through_seams_and_end_at_cuts(video: Path, tmp_path: Path) -> None:
    faces = divided(video, tmp_path, range(7))["faces"].set_index("frame_index")["track_id"]
    assert set(faces.loc[: SEAM - 1]) == {0, 1}
    assert set(faces.loc[SEAM : CUT - 1]) == {2, 3}
    assert set(faces.loc[CUT:]) == {4, 5}
    assert len(faces) == 60 + 50


def find_weak_squares(frames: Frames) -> Faces:
    """The squares of a scene; they are weak in two frames of three, where they stand left."""
    faces = find_squares(frames)
    left = faces.box_px[:, 0]
    return replace(
        faces, score=np.where((left % 3 > 0.9) | (left < 60), 0.5, 0.9).astype(np.float32)
    )


@pytest.mark.parametrize("order", [range(7), [2, 0, 1], [1, 0]])
def test_weak_faces_are_those_of_the_whole(
    video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, order: Sequence[int]
) -> None:
    use_detector(monkeypatch, find_weak_squares, min_score=0.7)
    want = undivided(video, tmp_path / "whole")
    assert (want["faces"]["detection_score"] < 0.7).any()
    assert len(want["faces"]) < 60 + 50
    assert want["faces"]["is_short"].nunique() == 2
    assert want["media"]["n_faces"].tolist() == [want["frames"]["n_faces"].sum()]
    assert_same(divided(video, tmp_path / "pieces", order), want)


@pytest.mark.parametrize("n_faces", [0, 2])
def test_real_faces_have_the_same_probabilities(tmp_path: Path, n_faces: int) -> None:
    path = clip(tmp_path / "a.mp4", portraits(n_faces, 24), options={"g": "8"})
    config = load(None, ["decode.segment_frames=8"])
    want = undivided(path, tmp_path / "whole", config)
    assert len(want["faces"]) == 24 * n_faces
    assert_same(divided(path, tmp_path, range(3), config), want)


@pytest.mark.usefixtures("squares")
@pytest.mark.parametrize("name", ["hevc open", "h264 open", "trimmed", "vfr mkv", "ts", "raw"])
def test_tables_of_odd_clips(made: Made, tmp_path: Path, name: str) -> None:
    want = undivided(made(name), tmp_path / "whole")
    assert_same(divided(made(name), tmp_path, range(3)), want)


@pytest.mark.usefixtures("squares")
def test_tables_of_damaged_clips(made: Made, tmp_path: Path) -> None:
    for number, path in enumerate([*harmed(made, tmp_path)][::4]):
        want = undivided(path, tmp_path / f"whole {number}")
        assert_same(divided(path, tmp_path / str(number), range(4)), want)
        assert want["media"]["status"].item() == "partial"


@pytest.mark.usefixtures("squares")
def test_order_and_repetition_do_not_matter(video: Path, tmp_path: Path) -> None:
    want = undivided(video, tmp_path / "whole")
    assert_same(divided(video, tmp_path, [4, 0, 2, 4, 1, 3, 0]), want)


@pytest.mark.usefixtures("squares")
def test_video_that_cannot_be_read_is_failed(tmp_path: Path) -> None:
    path = tmp_path / "text.mp4"
    path.write_text("not a video")
    want = undivided(path, tmp_path / "whole")
    assert want["media"]["status"].item() == "failed"
    assert_same(divided(path, tmp_path, range(3)), want)


@pytest.mark.usefixtures("squares")
def test_error_in_a_piece_fails_the_video(tmp_path: Path) -> None:
    white = [np.full((96, width, 3), 255, np.uint8) for width in (160, 160)]
    shown = [*scene()]
    shown[45], shown[65] = white
    path = clip(tmp_path / "white.mp4", shown, options={"g": "10"})
    want = undivided(path, tmp_path / "whole")
    assert "white to the corner" in want["media"]["error"].item()
    assert want["frames"].empty
    assert_same(divided(path, tmp_path, range(7)), want)


@pytest.mark.usefixtures("squares")
def test_piece_is_there_as_a_whole_or_not_at_all(video: Path, tmp_path: Path) -> None:
    slowly = load(None, ["decode.segment_frames=10", "runtime.buffer_mb=0.05"])
    plan, file = planned(video, tmp_path / "out", slowly)
    piece, folder, stop = Piece(1, 2), tmp_path / "pieces", threading.Event()
    stop.set()
    assert do(plan, file, piece, folder, stop=stop).interrupted
    assert not pieces.is_finished(folder, replace(file, piece=piece))
    assert not [path for path in folder.rglob("*") if path.is_file()]

    shares: list[float] = []
    summary = do(plan, file, piece, folder, on_progress=lambda now: shares.append(now.share))
    assert (summary.n_ok, summary.n_frames) == (1, 40)
    assert (shares == sorted(shares), shares[0] < 0.5, shares[-1]) == (True, True, 1)
    assert pieces.is_finished(folder, replace(file, piece=piece))
    assert not pieces.is_finished(folder, replace(file, piece=Piece(0, 2)))


class ClaimLostError(Exception):
    """The work was given to another process."""


def lose_claim() -> None:
    raise ClaimLostError


@pytest.mark.usefixtures("squares")
def test_nothing_is_put_in_place_by_who_lost_the_claim(video: Path, tmp_path: Path) -> None:
    plan, file = planned(video, tmp_path / "out")
    folder, out, whole = tmp_path / "pieces", tmp_path / "out", Piece(0, 1)
    with (
        pytest.raises(ClaimLostError),
        pieces.PieceCollector(folder, plan, before_commit=lose_claim) as collector,
    ):
        pipeline.run_plan(plan, collector)
    assert not pieces.is_finished(folder, file)

    do(plan, file, whole, folder)
    with pytest.raises(ClaimLostError):
        pieces.join_pieces(plan, file, 1, folder, out, before_commit=lose_claim)
    assert not [path for path in out.rglob("*") if path.is_file()]
    pieces.join_pieces(plan, file, 1, folder, out)
    assert len(tables(out)["frames"]) == N_FRAMES


@pytest.mark.usefixtures("squares")
def test_joining_goes_on_after_a_kill(video: Path, tmp_path: Path) -> None:
    want = undivided(video, tmp_path / "whole")
    plan, file = planned(video, tmp_path / "out")
    folder, kept, out = tmp_path / "pieces", tmp_path / "kept", tmp_path / "out"
    for number in range(2):
        do(plan, file, Piece(number, 2), folder)
    shutil.copytree(folder, kept)

    def join() -> None:
        pieces.join_pieces(plan, file, 2, folder, out)
        assert_same(tables(out), want)
        assert not list(folder.rglob("*.parquet"))
        assert pieces.is_finished(folder, replace(file, piece=Piece(1, 2)))

    join()
    join()  # nothing is left to do
    (second,) = kept.rglob("0001.parquet")
    shutil.copy(second, folder / second.parent.name)
    join()  # killed while the pieces were removed
    shutil.rmtree(folder)
    shutil.copytree(kept, folder)
    join()  # killed after the commit


@pytest.mark.usefixtures("squares")
def test_what_is_no_piece_of_the_run_is_refused(video: Path, tmp_path: Path) -> None:
    plan, file = planned(video, tmp_path / "out")
    folder, out = tmp_path / "pieces", tmp_path / "out"
    do(plan, file, Piece(0, 2), folder)
    with pytest.raises(StoreError, match=r"0001\.parquet cannot be read"):
        pieces.join_pieces(plan, file, 2, folder, out)
    (first,) = folder.rglob("0000.parquet")
    first.with_name("0001.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(StoreError, match=r"0001\.parquet cannot be read"):
        pieces.join_pieces(plan, file, 2, folder, out)
    with pytest.raises(StoreError, match="not of this run"):
        pieces.join_pieces(plan, replace(file, mtime_ns=1), 2, folder, out)
    with pytest.raises(StoreError, match="not of this run"):
        pieces.join_pieces(plan, file, 1, folder, out)
    with pytest.raises(StoreError, match="not of this run"):
        pieces.join_pieces(replace(plan, config_hash="f"), file, 2, folder, out)
    assert not (out / "media").exists()


@pytest.mark.usefixtures("squares")
def test_video_that_was_changed_between_pieces_is_failed(video: Path, tmp_path: Path) -> None:
    path = Path(shutil.copy(video, tmp_path / "a.mp4"))
    plan, file = planned(path, tmp_path / "out")
    do(plan, file, Piece(0, 2), tmp_path / "pieces")
    clip(path, numbered(30))
    do(plan, file, Piece(1, 2), tmp_path / "pieces")
    pieces.join_pieces(plan, file, 2, tmp_path / "pieces", tmp_path / "out")
    row = timeline.load_media(tmp_path / "out").iloc[0]
    assert row["status"] == "failed"
    assert "was changed" in row["error"]


def test_only_videos_whose_every_frame_is_looked_at_can_be_split(video: Path) -> None:
    file = discovery.find([video])[0]
    assert pieces.can_split(file, CONFIG)
    assert not pieces.can_split(replace(file, kind="image"), CONFIG)
    assert not pieces.can_split(file, load(None, ["detector.every=2"]))


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["facenet_video.mp4", "fr_short_hamilton.mp4", "intel_asl_again.mkv"]
)
def test_real_videos(shared: Path, tmp_path: Path, name: str) -> None:
    path = shared / "media" / "videos" / name
    want = undivided(path, tmp_path / "whole")
    assert len(want["faces"])
    for n in (2, 3):
        assert_same(divided(path, tmp_path / str(n), range(n)), want)
