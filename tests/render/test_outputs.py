"""Files made from a run: their markers, the progress of making them, failures."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fer_batch.errors import MediaError, RenderError, StoreDiskFullError
from fer_batch.render.outputs import Output, Progress, Work, marker, names_of

RGB = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)


@pytest.mark.parametrize("name", ["a.png", "deep/b.jpg", "c.JPEG", "d.webp.png"])
def test_output_knows_what_it_was_made_from(tmp_path: Path, name: str) -> None:
    output = Output(tmp_path / name, marker("row", 1))
    assert not output.is_current()
    output.save(RGB)
    assert output.is_current()
    assert not Output(output.path, marker("row", 2)).is_current()
    with Image.open(output.path) as picture:
        assert picture.format == ("JPEG" if name.lower().endswith(("jpg", "jpeg")) else "PNG")
        assert np.abs(np.asarray(picture).mean() - RGB.mean()) < 2


def test_output_that_is_not_complete_is_never_current(tmp_path: Path) -> None:
    output = Output(tmp_path / "a.png", marker("row"))
    output.save(RGB, is_complete=False)
    assert not output.is_current()


def test_work_goes_on_after_a_failure_and_ends_at_1() -> None:
    seen: list[Progress] = []
    work = Work({"a": 10, "b": 30}, seen.append)
    with work.file("a"):
        work.frames_done(4)
        raise MediaError("it is broken", Path("a"))
    for n in (20, 20):  # more frames than expected, and a file at which work comes back
        with work.file("b"):
            work.frames_done(n)
    assert [progress.share for progress in seen] == [0.1, 0.25, 0.75, 1.0, 1.0, 1.0]
    assert seen[-1] == Progress(n_files_done=2, n_files=2, n_frames=44, share=1.0)
    with pytest.raises(RenderError, match="1 of 7 files could not be drawn:\na: it is broken"):
        work.check(7, "drawn")


def test_full_disk_ends_the_work() -> None:
    work = Work({"a": 1}, lambda progress: None)
    with pytest.raises(StoreDiskFullError), work.file("a"):
        raise StoreDiskFullError("no space left")
    work.check(1, "drawn")


def test_names_are_one_or_several_and_known(tmp_path: Path) -> None:
    known = ["a.mp4", "b.mp4"]
    assert names_of(tmp_path, None, known, what="results of") is None
    assert names_of(tmp_path, "a.mp4", known, what="results of") == {"a.mp4"}
    assert names_of(tmp_path, known, known, what="results of") == set(known)
    with pytest.raises(RenderError, match=r"holds no results of c\.mp4"):
        names_of(tmp_path, ["a.mp4", "c.mp4"], known, what="results of")
