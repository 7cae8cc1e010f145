"""Contact sheets of a run: the right frames, the right files, and what happens when it cannot."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fer_batch.config import Config, Render
from fer_batch.emotions import EMOTIONS
from fer_batch.errors import RenderError, StoreDiskFullError
from fer_batch.media import discovery
from fer_batch.media.decode import FrameReader
from fer_batch.render.outputs import Progress
from fer_batch.report import contact_sheets as sheets
from fer_batch.report.contact_sheets import make_sheets
from fer_batch.results import store
from fer_batch.storage import urls
from tests.support import results
from tests.support.clips import Rgb, clip, numbered, read_number
from tests.support.command import run as command

CONFIG = Config(render=Render(smooth_s=0))
SIZE = (160, 160)
BOX = (30.0, 55.0, 130.0, 155.0)
"""Of a face so large that what is around it is the whole frame, and so its number is seen."""
FACE_PX, LEFT, LABEL, TOP = 176, 28, 112, 104
"""Of the layout."""


def look_at(out: Path, source: Path, shows: dict[int, int] | None = None, **row: object) -> None:
    """Write tables that saw a face in each of these frames, with this emotion.

    An emotion is the stronger, the later it is.
    """
    shows = {0: 0} if shows is None else shows
    root = next(folder for folder in source.parents if folder.name == "in")
    [file] = [file for file in discovery.find([root]) if file.path == source]
    with FrameReader(file, CONFIG.sampling, CONFIG.decode) as reader:
        pts_s = np.concatenate([chunk.pts_s for chunk in reader])
        duration_s = reader.info.duration_s
    n, m = len(pts_s), len(shows)
    probs = np.full((m, len(EMOTIONS)), 0.01, np.float32)
    for at, (frame_index, emotion) in enumerate(shows.items()):
        probs[at, emotion] = 0.6 + 0.3 * frame_index / n
    seen = results.result(
        file.media,
        np.bincount(list(shows), minlength=n).tolist(),
        pts_s=pts_s,
        box_px=BOX,
        track_id=0 if file.kind == "video" else None,
        probs=probs,
    )
    values = {
        "root": str(root),
        "kind": file.kind,
        "size_bytes": file.size_bytes,
        "mtime_ns": file.mtime_ns,
        "n_frames_decoded": n,
        "duration_s": duration_s,
    }
    results.write(out, seen, rows=[results.row(file.media, **{**values, **row})])


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Output folder of a run over a video, a still image, and a file that failed."""
    source = tmp_path / "in"
    (source / "deep").mkdir(parents=True)
    clip(source / "deep" / "a.mov", numbered(60, SIZE))
    Image.fromarray(next(numbered(1, SIZE, first=500))).save(source / "b.png")
    out = tmp_path / "out"
    look_at(out, source / "deep" / "a.mov", {**dict.fromkeys(range(10, 40), 0), 50: 6, 55: 2})
    look_at(out, source / "b.png", {0: 1})
    failed = results.row("c.mp4", status="failed", error="no header", n_frames_decoded=0)
    results.write(out, rows=[failed])
    return out


def picture(path: Path) -> Rgb:
    with Image.open(path) as image:
        return np.asarray(image)


def faces_of(path: Path, n: int, label: int = LABEL) -> list[int]:
    """Numbers of the frames in the first line of a sheet."""
    sheet = picture(path)
    lefts = [LEFT + label + column * (FACE_PX + 14) for column in range(n)]
    return [read_number(sheet[TOP : TOP + FACE_PX, x : x + FACE_PX]) for x in lefts]


def thumbnails_of(path: Path, n: int) -> list[int]:
    """Numbers of the frames in the first row of a page, whose frames are square."""
    sheet = picture(path)
    lefts = [LEFT + 40 + column * (240 + 14) for column in range(n)]
    return [read_number(sheet[TOP : TOP + 160, x : x + 160]) for x in lefts]


def stamps(out: Path) -> dict[str, int]:
    """The sheets that there are, and when they were written."""
    folder = out / "sheets"
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.stat().st_mtime_ns for path in paths}


def test_sheets_of_a_run(run: Path) -> None:
    assert make_sheets(run, CONFIG) == [
        run / "sheets/run-001.png",
        run / "sheets/images.png",
        run / "sheets/deep/a.mov.png",
    ]
    assert len(stamps(run)) == 3


def test_each_emotion_at_its_strongest_moment(run: Path) -> None:
    make_sheets(run, CONFIG)
    assert faces_of(run / "sheets/deep/a.mov.png", 3) == [39, 55, 50]  # in EMOTIONS order
    assert faces_of(run / "sheets/images.png", 1, label=0) == [500]


def test_page_shows_the_most_expressive_frame(run: Path) -> None:
    make_sheets(run, CONFIG)
    assert thumbnails_of(run / "sheets/run-001.png", 3) == [500, -1, 55]  # b.png, c.mp4, deep/a.mov


def test_video_without_a_face_shows_its_middle(tmp_path: Path) -> None:
    source = tmp_path / "in/a.mp4"
    source.parent.mkdir()
    clip(source, numbered(60, SIZE))
    look_at(tmp_path / "out", source, {})
    [page, _] = make_sheets(tmp_path / "out", CONFIG)
    assert thumbnails_of(page, 1) == [30]


@pytest.mark.parametrize("rotation_deg", [90, 180])
def test_frames_are_upright(tmp_path: Path, rotation_deg: int) -> None:
    source = tmp_path / "in/a.mp4"
    source.parent.mkdir()
    clip(source, numbered(30, SIZE), rotation_deg=rotation_deg)
    look_at(tmp_path / "out", source, {17: 0})
    [page, sheet] = make_sheets(tmp_path / "out", CONFIG)
    assert (thumbnails_of(page, 1), faces_of(sheet, 1)) == ([17], [17])


def test_many_files_make_many_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sheets, "FILES_PER_PAGE", 2)
    source = tmp_path / "in"
    source.mkdir()
    for number in range(5):
        path = source / f"{number}.png"
        Image.fromarray(next(numbered(1, SIZE, first=number))).save(path)
        look_at(tmp_path / "out", path)
    *pages, images = make_sheets(tmp_path / "out", CONFIG)
    assert [path.name for path in pages] == ["run-001.png", "run-002.png", "run-003.png"]
    assert [thumbnails_of(page, 2) for page in pages] == [[0, 1], [2, 3], [4, -1]]
    before = stamps(tmp_path / "out")
    Image.fromarray(next(numbered(1, SIZE, first=5))).save(source / "5.png")
    look_at(tmp_path / "out", source / "5.png")
    make_sheets(tmp_path / "out", CONFIG)
    changed = {name for name, stamp in stamps(tmp_path / "out").items() if before[name] != stamp}
    assert changed == {"run-003.png", images.name}


def test_video_never_takes_the_place_of_a_page(tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    clip(source / "a.mp4", numbered(5, SIZE)).rename(source / "run-001")
    [file] = discovery.find([source / "run-001"])
    status = file.path.stat()
    results.write(
        tmp_path / "out",
        results.chunk("run-001", [0]),
        rows=[
            results.row(
                "run-001",
                root=str(source),
                kind="video",
                size_bytes=status.st_size,
                mtime_ns=status.st_mtime_ns,
            )
        ],
    )
    paths = make_sheets(tmp_path / "out", CONFIG)
    assert [path.name for path in paths] == ["run-001.png", "run-001.png.png"]


def test_what_is_up_to_date_is_left_alone(run: Path) -> None:
    make_sheets(run, CONFIG)
    before = stamps(run)
    make_sheets(run, CONFIG)
    assert stamps(run) == before
    make_sheets(run, CONFIG, force=True)
    assert not set(stamps(run).values()) & set(before.values())


def test_other_smoothing_and_new_rows_make_it_again(run: Path) -> None:
    make_sheets(run, CONFIG)
    before = stamps(run)
    make_sheets(run, Config())
    assert not set(stamps(run).values()) & set(before.values())
    before = stamps(run)
    store.forget(run, ["deep/a.mov"])
    look_at(run, run.parent / "in/deep/a.mov", {3: 0}, seconds=7.0)
    make_sheets(run, Config())
    changed = {name for name, stamp in stamps(run).items() if before[name] != stamp}
    assert changed == {"run-001.png", "deep/a.mov.png"}
    assert faces_of(run / "sheets/deep/a.mov.png", 1) == [3]


@pytest.mark.parametrize("harm", ["remove", "change"])
def test_source_that_is_not_the_same_any_more(run: Path, harm: str) -> None:
    source = run.parent / "in/deep/a.mov"
    data, status = source.read_bytes(), source.stat()
    source.unlink() if harm == "remove" else source.write_bytes(b"other")
    says = r"1 of 3 files could not be shown:\ndeep/a\.mov: .*a\.mov: the source " + (
        "cannot be read: No such file" if harm == "remove" else "has changed"
    )
    with pytest.raises(RenderError, match=says):
        make_sheets(run, CONFIG)
    assert set(stamps(run)) == {"run-001.png", "images.png"}
    assert thumbnails_of(run / "sheets/run-001.png", 3) == [500, -1, -1]
    source.write_bytes(data)
    os.utime(source, ns=(status.st_atime_ns, status.st_mtime_ns))
    make_sheets(run, CONFIG)
    assert thumbnails_of(run / "sheets/run-001.png", 3) == [500, -1, 55]


def test_progress_goes_from_nothing_to_all(run: Path) -> None:
    seen: list[Progress] = []
    make_sheets(run, CONFIG, on_progress=seen.append)
    assert [progress.share for progress in seen] == sorted(progress.share for progress in seen)
    assert (seen[-1].n_files_done, seen[-1].n_files, seen[-1].share) == (3, 3, 1.0)


def test_only_the_sheets_of_some_videos(run: Path) -> None:
    assert make_sheets(run, CONFIG, media="deep/a.mov") == [run / "sheets/deep/a.mov.png"]
    assert set(stamps(run)) == {"deep/a.mov.png"}
    assert faces_of(run / "sheets/deep/a.mov.png", 3) == [39, 55, 50]
    with pytest.raises(RenderError, match=r"holds no frames of a video b\.png"):
        make_sheets(run, CONFIG, media=["deep/a.mov", "b.png"])


def test_interrupt_leaves_nothing_half_made(run: Path) -> None:
    def interrupt(progress: Progress) -> None:
        if progress.n_files_done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_sheets(run, CONFIG, on_progress=interrupt)
    assert stamps(run) == {}
    leftover = run / "sheets/deep" / urls.TEMPORARY.format("a.mov.png")
    leftover.parent.mkdir(parents=True)
    leftover.touch()
    make_sheets(run, CONFIG)
    assert len(stamps(run)) == 3


def test_full_disk_ends_the_run(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(StoreDiskFullError, match="no space left"):
        make_sheets(run, CONFIG)
    assert stamps(run) == {}


def test_no_run_or_a_busy_one(run: Path, tmp_path: Path) -> None:
    with pytest.raises(RenderError, match="holds no results"):
        make_sheets(tmp_path / "nothing", CONFIG)
    assert not (tmp_path / "nothing").exists()
    with store.lock(run), pytest.raises(store.StoreError, match="another run"):
        make_sheets(run, CONFIG)


def test_faces_can_be_hidden(run: Path) -> None:
    paths = make_sheets(run, CONFIG)
    before = [picture(path) for path in paths]
    stamped = stamps(run)
    blurred = CONFIG.render.model_copy(update={"blur": True})
    make_sheets(run, Config(render=blurred))
    assert not set(stamps(run).values()) & set(stamped.values())
    for path, shown in zip(paths, before, strict=True):
        hidden = picture(path)
        assert hidden.shape == shown.shape
        assert (hidden != shown).any(axis=2).sum() > 5000


def test_command(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store.write_run(run, {"config": CONFIG.model_dump(mode="json")})
    assert command("sheet", run) == 0
    assert capsys.readouterr().out == f"3 sheets: {run}/sheets\n"
    before = stamps(run)
    assert command("sheet", run, "--quiet", "--force") == 0
    assert capsys.readouterr().out == ""
    assert not set(stamps(run).values()) & set(before.values())
    assert command("sheet", run, "--force", "--media", "deep/a.mov") == 0
    assert capsys.readouterr().out == f"1 sheets: {run}/sheets\n"
    (run.parent / "in/b.png").unlink()
    assert command("sheet", run, "--force") == 1
    assert "b.png" in capsys.readouterr().err
    assert command("sheet", run.parent / "in") == 2


def test_real_run(shared: Path, tmp_path: Path) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    for name in ("videos/pyfeat_single_face.mp4", "images/pd_apollo11_crew.jpg"):
        (source / Path(name).name).symlink_to(shared / "media" / name)
    assert command("process", source, "-o", out, "-q") == 0
    assert command("sheet", out, "-q") == 0
    sheet = picture(out / "sheets/pyfeat_single_face.mp4.png")
    face = sheet[TOP : TOP + FACE_PX, LEFT + LABEL : LEFT + LABEL + FACE_PX]
    assert face.std() > 30
