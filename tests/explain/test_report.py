"""Explaining whole runs and data sets: every face once, from its own pixels, whatever fails."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from fer_batch import plotting
from fer_batch.cli import explain as cli_explain
from fer_batch.config import Config, load
from fer_batch.datasets.pictures import load_data
from fer_batch.emotions import EMOTIONS
from fer_batch.errors import ConfigError, ExplainError, StoreError
from fer_batch.explain import plots
from fer_batch.explain.explainer import METHODS, Explainer
from fer_batch.explain.face_sources import FaceSelection, PictureFaces, RunFaces, rebatch
from fer_batch.explain.report import ALL, CHANCE, TABLE, explain
from fer_batch.models.networks import NETWORKS
from fer_batch.pipeline import process as pipeline
from fer_batch.results import store, timeline
from tests.support.bars import TINY
from tests.support.cards import make_weights
from tests.support.clips import clip
from tests.support.command import run as command
from tests.support.portraits import portrait, portraits

pytestmark = pytest.mark.usefixtures("one_thread", "_nothing_is_drawn")
CPU = torch.device("cpu")
N_FRAMES = 6
KEY = ["media", "frame_index", "face_index"]


@pytest.fixture
def _nothing_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures are empty files: to draw them takes longer than to explain the faces."""
    monkeypatch.setattr(plots, "save", lambda figure, path, **_: path.touch())


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Of a network that is fast enough for tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(NETWORKS, "tiny", TINY)
        yield make_weights(tmp_path_factory.mktemp("weights"), network="tiny", input_size_px=24)


@pytest.fixture(scope="module")
def config(weights: Path) -> Config:
    return load(None, ["decode.segment_frames=3", f"classifier.weights={weights}"])


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, config: Config) -> Path:
    """A run over two videos and an image, beside its input."""
    root = tmp_path_factory.mktemp("finished")
    source = root / "in" / "day 1"
    source.mkdir(parents=True)
    clip(source.parent / "one.mp4", portraits(1, N_FRAMES))
    clip(source / "two.mp4", portraits(2, N_FRAMES))
    Image.fromarray(portrait(3)).save(source / "still.png")
    pipeline.process([source.parent], root / "out", config)
    return root


@pytest.fixture
def copy(finished: Path, tmp_path: Path) -> Path:
    """The output folder of the same run, and its input, to be changed."""
    shutil.copytree(finished / "out", tmp_path / "out")
    return tmp_path / "out"


@pytest.fixture(scope="module")
def explainer(weights: Path) -> Explainer:
    return Explainer(weights, CPU)


def faces_of(out: Path, explainer: Explainer, **selection: object) -> RunFaces:
    config = Config.model_validate(store.read_run(out)["config"])
    return RunFaces(out, config, explainer.card, FaceSelection(**selection))  # type: ignore[arg-type]


def read(folder: Path) -> pd.DataFrame:
    return pd.read_parquet(folder / TABLE).astype({"media": str, "emotion": str, "method": str})


def test_every_face_of_a_run_is_explained_from_its_own_pixels(
    finished: Path, tmp_path: Path, explainer: Explainer
) -> None:
    faces = faces_of(finished / "out", explainer, max_drawn=0)
    summary = explain(faces, explainer, tmp_path, ["gradcam", "saliency"])
    table = read(tmp_path)
    seen = timeline.load(finished / "out").astype({"media": str, "emotion": str})
    assert len(faces) == len(seen) == 3 * N_FRAMES + 3
    for method in ("gradcam", "saliency", CHANCE):
        rows = table[table["method"] == method].merge(seen, on=KEY, suffixes=("", "_seen"))
        assert len(rows) == len(seen)
        assert (rows["emotion"] == rows["emotion_seen"]).all()
        np.testing.assert_allclose(rows["score"], rows["confidence"], atol=1e-4)
        np.testing.assert_allclose(rows["pts_s"], rows["pts_s_seen"])
        assert (rows["track_id"].fillna(-1) == rows["track_id_seen"].fillna(-1)).all()
    assert table["label"].isna().all()
    everything = summary[summary["emotion"] == ALL]
    assert everything["method"].tolist() == ["gradcam", "saliency", CHANCE]
    assert (everything["n"] == len(seen)).all()
    assert everything["mouth_share"].tolist() == pytest.approx(
        table.groupby("method", sort=False)["mouth_share"].mean().tolist(), abs=1e-6
    )
    assert not (tmp_path / "faces").exists()


def test_table_says_what_made_it(finished: Path, tmp_path: Path, explainer: Explainer) -> None:
    for n in (2, 1):
        faces = faces_of(finished / "out", explainer, sample=2, max_drawn=n)
        explain(faces, explainer, tmp_path, ["gradcam"])
    metadata = pq.read_schema(tmp_path / TABLE).metadata
    assert explainer.card.sha256.encode() in metadata[b"fer_batch.model_card"]
    assert {path.name for path in tmp_path.iterdir()} == {
        *(TABLE, "summary.csv", "summary.md", "emotions", "faces")
    }
    text = (tmp_path / "summary.md").read_text(encoding="utf-8")
    assert "nan" not in text
    assert text.count("| all ") == 2
    assert len(list(tmp_path.glob("faces/**/*-covered.png"))) == 1, "no picture of an earlier call"


def test_frames_at_chosen_times(finished: Path, tmp_path: Path, explainer: Explainer) -> None:
    """Frames are shown from their own time to that of the next."""
    times = (0.0, 3.4 / 30, (N_FRAMES - 0.5) / 30)
    faces = faces_of(finished / "out", explainer, at_s=times, media=("one.mp4",))
    explain(faces, explainer, tmp_path, ["gradcam"])
    table = read(tmp_path).query("method == 'gradcam'")
    assert table["frame_index"].value_counts().to_dict() == {0: 1, 3: 1, N_FRAMES - 1: 1}
    drawn = {path.relative_to(tmp_path / "faces").as_posix() for path in tmp_path.rglob("0*.png")}
    expected = {
        f"{row.media}/{row.frame_index:06}-{row.face_index}-{what}.png"
        for row in table.itertuples()
        for what in ("gradcam", "covered", "activations")
    }
    assert drawn == expected


def test_any_emotion_can_be_explained(
    finished: Path, tmp_path: Path, explainer: Explainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plots, "save", plotting.save)  # this test draws its pictures
    faces = faces_of(
        finished / "out", explainer, emotion="fear", media=("day 1/still.png",), max_drawn=1
    )
    explain(faces, explainer, tmp_path, ["gradcam"])
    table = read(tmp_path)
    seen = timeline.load(finished / "out", media="day 1/still.png")
    assert set(table["emotion"]) == {"fear"}
    np.testing.assert_allclose(table["score"][:3], seen["fear"], atol=1e-4)
    assert [path.name for path in (tmp_path / "emotions").iterdir()] == ["fear.png"]
    drawn = [*tmp_path.rglob("0*.png"), tmp_path / "emotions" / "fear.png"]
    assert len(drawn) == 4
    for path in drawn:
        Image.open(path).verify()


def test_sample_is_of_this_size_and_always_the_same(finished: Path, explainer: Explainer) -> None:
    def keys() -> list[tuple[str, int, int]]:
        faces = faces_of(finished / "out", explainer, sample=7, max_drawn=2)
        assert len(faces) == 7
        batches = list(faces)
        assert sum(int(batch.is_drawn.sum()) for batch in batches) == 2
        return [
            (media, int(frame), int(face))
            for batch in batches
            for media, frame, face in zip(
                batch.media, batch.frame_index, batch.face_index, strict=True
            )
        ]

    assert len(set(keys())) == 7
    assert keys() == keys()


def test_larger_batches_hold_the_same_faces(finished: Path, explainer: Explainer) -> None:
    faces = faces_of(finished / "out", explainer)
    small, large = list(faces), list(rebatch(faces, 10))
    assert all(len(batch) >= 10 for batch in large[:-1])
    assert [name for batch in large for name in batch.media] == [
        name for batch in small for name in batch.media
    ]
    torch.testing.assert_close(
        torch.cat([batch.crops for batch in large]), torch.cat([batch.crops for batch in small])
    )


def test_tracks_share_the_pictures(finished: Path, explainer: Explainer) -> None:
    faces = faces_of(finished / "out", explainer, max_drawn=6)
    batches = list(faces)
    drawn = {
        (batch.media[row], int(batch.track_id[row]), int(batch.face_index[row]))
        for batch in batches
        for row in np.flatnonzero(batch.is_drawn)
    }
    assert len(drawn) >= 4, "three tracks and faces of a picture, not one track six times"


def test_a_file_that_fails_does_not_stop_the_others(
    finished: Path, copy: Path, tmp_path: Path, explainer: Explainer
) -> None:
    row = next(row for row in store.media_rows(copy) if row.media == "one.mp4")
    source = tmp_path / "in"
    shutil.copytree(finished / "in", source)
    clip(source / "one.mp4", portraits(1, 3))
    table = pq.read_table(path := next((copy / "media").glob(f"*{store.part_id(['one.mp4'])}*")))
    moved = table.set_column(1, "root", [[str(source)]])
    pq.write_table(moved.cast(table.schema), path)
    assert row.root != str(source)
    faces = faces_of(copy, explainer, max_drawn=0)
    with pytest.raises(ExplainError, match=r"1 files could not .*\none\.mp4: .*has changed since"):
        explain(faces, explainer, tmp_path / "explained", ["gradcam"])
    assert set(read(tmp_path / "explained")["media"]) == {"day 1/two.mp4", "day 1/still.png"}
    assert (tmp_path / "explained" / "summary.md").is_file()


def test_run_of_which_nothing_is_left(copy: Path, tmp_path: Path, explainer: Explainer) -> None:
    explain(
        faces_of(copy, explainer, sample=1, max_drawn=0), explainer, tmp_path / "a", ["gradcam"]
    )
    table = pq.read_table(path := next((copy / "media").glob(f"*{store.part_id(['one.mp4'])}*")))
    pq.write_table(table.set_column(1, "root", [["/gone"]]).cast(table.schema), path)
    faces = faces_of(copy, explainer, media=("one.mp4",))
    with pytest.raises(
        ExplainError, match=r"no face could be explained:\none\.mp4: .*No such file"
    ):
        explain(faces, explainer, tmp_path / "a", ["gradcam"])
    assert not (tmp_path / "a" / "summary.md").exists()


def test_other_weights_than_those_of_the_run_are_refused(finished: Path, tmp_path: Path) -> None:
    other = Explainer(make_weights(tmp_path, network="tiny", classes=EMOTIONS[:6]), CPU)
    with pytest.raises(ExplainError, match="made with other weights"):
        RunFaces(finished / "out", Config(), other.card, FaceSelection())


@pytest.mark.parametrize(
    "selection, says",
    [
        ({"media": ("none.mp4",)}, r"no results of none\.mp4"),
        ({"media": ("day 1/still.png",), "at_s": (1.0,)}, "no face at these times"),
        (
            {"media": ("one.mp4",), "at_s": (0.0, 99.0)},
            "no frame at 99 s: the longest",
        ),
    ],
)
def test_nothing_to_explain(
    finished: Path, explainer: Explainer, selection: dict[str, object], says: str
) -> None:
    with pytest.raises(ExplainError, match=says):
        faces_of(finished / "out", explainer, **selection)


def test_unknown_emotion_is_refused() -> None:
    with pytest.raises(ConfigError, match="'joy'"):
        FaceSelection(emotion="joy")


def test_labelled_pictures(tmp_path: Path, explainer: Explainer) -> None:
    for name in ("happy", "sad"):
        (tmp_path / "in" / "test" / name).mkdir(parents=True)
        for number in range(3):
            face = Image.fromarray(portrait(1, number)).crop((10, 150, 160, 300))
            face.rotate(5 * number).save(tmp_path / "in" / "test" / name / f"{number}.png")
    data = load_data(
        "folders", tmp_path / "in", size_px=explainer.card.input_size_px, splits=("test",)
    )
    faces = PictureFaces(data.pictures["test"], explainer, FaceSelection(max_drawn=1), batch_size=4)
    summary = explain(faces, explainer, tmp_path / "out", ["gradcam"])
    table = read(tmp_path / "out").query("method == 'gradcam'")
    assert sorted(table["media"]) == sorted(data.pictures["test"].paths)
    wanted = table["media"].str.contains("happy").map({True: "happiness", False: "sadness"})
    assert (table["label"].astype(str) == wanted).all()
    assert table["track_id"].isna().all()
    assert summary["n"].max() == 6
    assert len(list((tmp_path / "out" / "faces").rglob("*-gradcam.png"))) == 1


def test_command(finished: Path, copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("explain", copy, "--media", "one.mp4", "--sample", "2", "--pictures", "1") == 0
    printed = capsys.readouterr().out
    assert "| all" in printed
    assert f"everything else: {copy / 'explain'}" in printed
    assert len(list((copy / "explain" / "faces" / "one.mp4").iterdir())) == 3
    assert command("explain", copy, "--media", "none.mp4") == 2
    assert "no results of none.mp4" in capsys.readouterr().err
    assert command("explain", copy / "nowhere") == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_command_for_data(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "in" / "test" / "happy"
    folder.mkdir(parents=True)
    Image.fromarray(portrait(1)).crop((10, 150, 160, 300)).save(folder / "a.png")
    data = ["--dataset", "folders", "--data", tmp_path / "in", "-o", tmp_path / "out"]
    assert command("explain-data", weights, *data, "--emotion", "surprise", "-q") == 0
    assert not capsys.readouterr().out
    assert [path.name for path in (tmp_path / "out" / "emotions").iterdir()] == ["surprise.png"]
    assert command("explain-data", weights, *data, "--emotion", "joy") == 2
    assert "happiness" in capsys.readouterr().err


def test_command_knows_every_method() -> None:
    assert cli_explain.METHODS == METHODS


def test_folder_that_cannot_be_made(finished: Path, tmp_path: Path, explainer: Explainer) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="cannot be written"):
        explain(faces_of(finished / "out", explainer), explainer, tmp_path / "file", ["gradcam"])
