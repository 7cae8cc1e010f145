"""Runs from Python: what is made is what the command line makes, and mistakes are named."""

import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import fer_batch
from fer_batch import Run
from fer_batch.config import Config, load
from fer_batch.emotions import EMOTIONS
from fer_batch.errors import (
    ConfigError,
    ExplainError,
    FerError,
    MediaError,
    PictureError,
    RenderError,
    StoreError,
)
from fer_batch.pipeline import process as pipeline
from fer_batch.render.still import annotated_frame
from fer_batch.results import store, timeline
from tests.support import results
from tests.support.clips import clip
from tests.support.portraits import portrait, portraits

FACES = {"detector.yunet": {"min_score": 0.65}, "detector.yunet.nms_iou": 0.35}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A video of 20 frames with a face, in a folder of its own, a picture with two and a text."""
    folder = tmp_path_factory.mktemp("in")
    (folder / "monday").mkdir()
    clip(folder / "monday" / "interview.mp4", portraits(1, 20))
    Image.fromarray(portrait(2)).save(folder / "two.png")
    (folder / "text.png").write_text("not a picture")
    return folder


@pytest.fixture(scope="module")
def run(inputs: Path) -> Run:
    return fer_batch.process(inputs, inputs.parent / "out", settings=FACES)


VIDEO = "monday/interview.mp4"


def test_package_loads_what_is_used_and_nothing_else() -> None:
    code = (
        "import sys, fer_batch; dir(fer_batch); "
        "print(*{name.partition('.')[0] for name in sys.modules}); fer_batch.open_run; "
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"torch", "pandas", "pyarrow", "cv2", "numpy", "pydantic", "yaml", "PIL", "av", "rich"}
    assert not heavy & set(done.stdout.split())
    assert set(fer_batch.__all__) <= set(dir(fer_batch))
    assert all(getattr(fer_batch, name) for name in fer_batch.__all__)
    with pytest.raises(AttributeError, match="no attribute 'analyser'"):
        fer_batch.analyser  # noqa: B018


def test_tables_are_those_of_the_pipeline(inputs: Path, run: Run, tmp_path: Path) -> None:
    pipeline.process([inputs], tmp_path / "out", load(None, FACES))
    pd.testing.assert_frame_equal(run.faces(), timeline.load(tmp_path / "out"))
    pd.testing.assert_frame_equal(run.frames(), timeline.load_frames(tmp_path / "out"))
    expected = timeline.load_media(tmp_path / "out").drop(columns="seconds")
    pd.testing.assert_frame_equal(run.media().drop(columns="seconds"), expected)
    assert run.problems()[["media", "status"]].to_numpy().tolist() == [["text.png", "failed"]]
    assert "not a picture" in run.problems()["error"].item()


def test_media_chooses_files_in_every_table(run: Run) -> None:
    assert run.faces(VIDEO)["media"].unique().tolist() == [VIDEO]
    assert len(run.faces(media="two.png")) == 2
    assert len(run.frames(VIDEO)) == 20
    both = [VIDEO, "two.png"]
    for table in (run.faces(both), run.frames(both), run.media(both), run.summary(both)):
        assert sorted(set(table["media"])) == both


def test_smoothed_faces_and_segments_are_those_of_timeline(run: Run) -> None:
    smooth = timeline.smooth(run.faces(VIDEO), seconds=0.5)
    pd.testing.assert_frame_equal(run.faces(VIDEO, smooth_s=0.5), smooth)
    pd.testing.assert_frame_equal(run.segments(VIDEO), timeline.segments(smooth))
    pd.testing.assert_frame_equal(
        run.segments(VIDEO, min_s=0.1, smooth_s=0), timeline.segments(run.faces(VIDEO), min_s=0.1)
    )
    assert run.segments(min_s=60).empty


def test_second_call_does_what_is_missing(inputs: Path, run: Run) -> None:
    began = store.read_run(run.folder)["began"]
    again = fer_batch.process([inputs / "monday", str(inputs)], run.folder, settings=FACES)
    assert again.folder == run.folder
    latest = store.read_run(run.folder)
    assert latest["began"] >= began
    assert latest["counts"]["n_skipped"] == 2
    assert latest["counts"]["n_failed"] == 1


def test_run_says_what_it_is(run: Run) -> None:
    said = repr(run)
    assert said.startswith(f"Run('{run.folder}'): 3 files (2 ok, 1 failed), 21 frames, ")
    assert "\n" not in said
    html = run._repr_html_()
    assert all(word in html for word in (VIDEO, "two.png", "failed", "mean probabilities"))


def test_run_of_many_files_shows_the_first(tmp_path: Path) -> None:
    names = [f"<{number:03}>.png" for number in range(103)]
    results.write(tmp_path, *(results.still(name) for name in names))
    html = Run(results.finish(tmp_path))._repr_html_()
    assert "&lt;099&gt;.png" in html
    assert "&lt;100&gt;" not in html
    assert "and 3 more" in html


def test_run_reads_what_is_there_now(tmp_path: Path) -> None:
    results.write(tmp_path, results.still("a.png"))
    run = fer_batch.open_run(str(tmp_path))
    assert len(run.media()) == 1
    results.write(tmp_path, results.still("b.png", n_faces=3))
    assert len(run.media()) == 2
    assert len(run.faces("b.png")) == 3


def test_annotated_copies_sheets_and_reports(run: Run) -> None:
    shown: list[tuple[float, str]] = []

    def progress(share: float, text: str) -> None:
        shown.append((share, text))

    paths = run.render(VIDEO, style="minimal", progress=progress)
    assert [path.relative_to(run.folder).as_posix() for path in paths] == [f"annotated/{VIDEO}"]
    assert shown[-1] == (1.0, "1/1 files  20 frames")
    made = paths[0].stat().st_mtime_ns
    assert run.render(VIDEO, style="minimal") == paths
    assert run.render(VIDEO, settings={"render.style": "minimal"}) == paths
    assert paths[0].stat().st_mtime_ns == made
    run.render(VIDEO, style="minimal", force=True)
    assert paths[0].stat().st_mtime_ns > made
    assert [path.name for path in run.sheet()] == ["run-001.png", "images.png", "interview.mp4.png"]
    report = run.report(VIDEO, progress=progress)
    assert report.read_text().count("![timeline]") == 1
    assert shown[-1] == (1.0, "1/1 videos")


def test_shown_frame_is_that_of_the_annotated_copy(run: Run) -> None:
    [copy] = run.render("two.png", style="minimal")
    shown = run.show("two.png", style="minimal")
    np.testing.assert_array_equal(shown, Image.open(copy))
    expected = annotated_frame(run.folder, run._config({"render.blur": True}), VIDEO, 0.4)
    np.testing.assert_array_equal(
        run.show(VIDEO, at=0.4, settings={"render": {"blur": True}}), expected
    )


def test_explanation_is_of_the_chosen_faces(run: Run) -> None:
    summary = run.explain("two.png", sample=1, emotion="anger", method=["gradcam", "gradcam"])
    assert (run.folder / "explain" / "summary.md").exists()
    assert summary.query("method == 'gradcam' and emotion == 'anger'")["n"].tolist() == [1]


def test_settings_in_every_form(tmp_path: Path, run: Run) -> None:
    (tmp_path / "own.yaml").write_text("sampling.fps: 5\nrender: {crf: 30}\n")
    assert run._config(tmp_path / "own.yaml").sampling.fps == 5
    assert run._config(str(tmp_path / "own.yaml")).render.crf == 30
    assert run._config({"render.crf": 30}).detector.yunet.min_score == 0.65  # of the run
    assert run._config(Config()) == Config()
    weights = tmp_path / "net.onnx"
    assert run._config({"detector.yunet.weights": weights}).detector.yunet.weights == str(weights)


@pytest.mark.parametrize(
    "settings, said",
    [
        ({"detector.nme": "haar"}, r"detector\.nme: unknown setting \(did you mean detector\.name"),
        ({"fps": 5}, r"did you mean sampling\.fps"),
        ({"render": {"style": "loud"}}, "'full', 'minimal', 'heatmap' or 'side-by-side'"),
        ({"sampling": 5}, "sampling"),
        ("none.yaml", r"none\.yaml: cannot be read"),
        (["sampling.fps=5"], "expected a dict, the path of a YAML file or a .*Config, got list"),
    ],
)
def test_wrong_settings_are_named(tmp_path: Path, settings, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        fer_batch.process(tmp_path, tmp_path / "out", settings=settings)
    assert not (tmp_path / "out").exists()


def test_unknown_names_are_named_with_the_one_that_was_meant(run: Run) -> None:
    for ask in (
        run.faces,
        run.frames,
        run.media,
        run.summary,
        run.segments,
        run.render,
        run.report,
    ):
        for name in ("interview.mp4", "monday/interveiw.mp4"):
            with pytest.raises(StoreError, match=rf"'{name}' \(did you mean {VIDEO}\?\)"):
                ask(name)
    with pytest.raises(StoreError, match="did you mean monday"):
        run.show("interview.mp4")
    with pytest.raises(StoreError, match="no results of 'x': "):
        run.explain("x")
    with pytest.raises(StoreError, match="an empty list"):
        run.faces([])


@pytest.mark.parametrize(
    "options, error, said",
    [
        ({"emotion": "hapiness"}, ConfigError, f"'hapiness'.*{EMOTIONS[0]}"),
        ({"method": "magic"}, ConfigError, "'magic': there are gradcam, "),
        ({"sample": -1}, ConfigError, "sample: expected 0 or more, got -1"),
        ({"media": "text.png"}, ExplainError, "no face"),
        ({"settings": {"runtime.device": "gpu"}}, ConfigError, "'gpu' is not a device"),
    ],
)
def test_wrong_questions_to_explain_are_named(run: Run, options, error, said: str) -> None:
    with pytest.raises(error, match=said):
        run.explain(**options)


def test_other_mistakes_are_named(run: Run, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="smooth_s: expected 0 or more, got -1"):
        run.faces(smooth_s=-1)
    with pytest.raises(ConfigError, match="min_s: expected 0 or more, got -2"):
        run.segments(min_s=-2)
    with pytest.raises(ConfigError, match=r"render\.style.*'loud'"):
        run.render(style="loud")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="at: expected 0 or more, got -3"):
        run.show(VIDEO, at=-3)
    with pytest.raises(RenderError, match="holds no frames of text"):
        run.show("text.png")
    with pytest.raises(StoreError, match="not the output folder of a run"):
        fer_batch.open_run(tmp_path)
    with pytest.raises(MediaError, match="missing"):
        fer_batch.process(tmp_path / "missing", tmp_path / "out")
    assert repr(Run(tmp_path)) == f"Run('{tmp_path}'): cannot be read"


def test_home_folder_is_known(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Run("~/results").folder == tmp_path / "results"


def test_folder_of_a_run_in_progress_is_refused(inputs: Path, tmp_path: Path) -> None:
    with store.lock(tmp_path), pytest.raises(StoreError, match="another run is writing to"):
        fer_batch.process(inputs, tmp_path)


def test_interrupt_keeps_what_is_complete_and_comes_through(inputs: Path, tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGINT)
    interrupted: list[str] = []

    def interrupt(share: float, text: str) -> None:
        if not interrupted:
            interrupted.append(text)
            signal.raise_signal(signal.SIGINT)

    settings = {"decode.chunk_mb": 0.5, "runtime.buffer_mb": 1}  # a frame at a time
    with pytest.raises(KeyboardInterrupt, match="finished files are kept"):
        fer_batch.process(inputs, tmp_path / "out", settings=settings, progress=interrupt)
    assert signal.getsignal(signal.SIGINT) == before
    done = store.media_rows(tmp_path / "out")
    assert len(done) < 3
    assert store.read_run(tmp_path / "out")["counts"]["interrupted"] is True
    run = fer_batch.process(inputs, tmp_path / "out", settings=settings)
    assert len(run.media()) == 3
    assert store.read_run(run.folder)["counts"]["n_skipped"] == sum(
        row.status == "ok" for row in done
    )


def test_urls_are_used_like_folders(inputs: Path, run: Run, bucket: Path) -> None:
    (bucket / "in" / "two.png").write_bytes((inputs / "two.png").read_bytes())
    there = fer_batch.process(str(bucket / "in"), str(bucket / "out"), settings=FACES)
    faces = fer_batch.open_run(str(bucket / "out")).faces()
    expected = run.faces("two.png")
    pd.testing.assert_frame_equal(faces.astype({"media": str}), expected.astype({"media": str}))
    assert repr(there).startswith(
        f"Run({str(bucket / 'out')!r}): 1 files (1 ok), 1 frames, 2 faces"
    )
    [copy] = there.render()
    assert np.asarray(Image.open(copy.open("rb"))).shape == portrait(2).shape


def test_errors_are_of_one_family() -> None:
    assert fer_batch.FerError is FerError
    for each in (ConfigError, ExplainError, MediaError, PictureError, RenderError, StoreError):
        assert issubclass(each, FerError)
