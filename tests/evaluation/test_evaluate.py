from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from fer_batch.datasets import DatasetError
from fer_batch.emotions import EMOTIONS, LABEL_SETS
from fer_batch.errors import ConfigError, StoreError, WeightsError
from fer_batch.evaluation.evaluate import (
    Evaluation,
    LabelledSplit,
    check_names,
    compare,
    evaluate,
    write_table,
)
from fer_batch.models.networks import NETWORKS, describe
from tests.support.bars import TINY
from tests.support.cards import make_weights

pytestmark = pytest.mark.usefixtures("one_thread", "quick_evaluation")
CPU = torch.device("cpu")
SIX, SEVEN = LABEL_SETS["six"], LABEL_SETS["seven"]
SIZE_PX = 16
N_EACH = 6
N_NEUTRAL = 4


@pytest.fixture(scope="module")
def quick_evaluation() -> Iterator[None]:
    """Use a small network, time it once, and draw few mistakes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(NETWORKS, "tiny", TINY)
        patch.setattr("fer_batch.evaluation.evaluate.REPETITIONS", 1)
        patch.setattr("fer_batch.evaluation.evaluate.N_MISTAKES", 2)
        yield


def make_pictures(root: Path, emotions: Sequence[str] = SEVEN, *, mirrored: bool = False) -> Path:
    """Class folders with noise in them, all of it in the split ``test``."""
    rng = np.random.default_rng(0)
    for emotion in emotions:
        folder = root / "test" / emotion
        folder.mkdir(parents=True)
        for number in range(N_NEUTRAL if emotion == "neutral" else N_EACH):
            grey = rng.integers(0, 256, (SIZE_PX, SIZE_PX), np.uint8)
            Image.fromarray(grey[:, ::-1] if mirrored else grey).save(folder / f"{number}.png")
    return root


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> LabelledSplit:
    return LabelledSplit("folders", make_pictures(tmp_path_factory.mktemp("pictures")))


@pytest.fixture(scope="module")
def six(
    tmp_path_factory: pytest.TempPathFactory, pictures: LabelledSplit, quick_evaluation: None
) -> tuple[Evaluation, Path]:
    """A model that does not know neutral, and the folder that its evaluation was written to."""
    folder = tmp_path_factory.mktemp("six")
    path = make_weights(
        folder,
        name="six",
        network="tiny",
        classes=SIX[::-1],
        input_size_px=SIZE_PX,
        temperature=0.4,
    )
    return evaluate(path, pictures, folder / "out", device=CPU), folder / "out"


def read_scores(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "scores.csv").sort_values("filepath", ignore_index=True)


def test_every_file_is_written(six: tuple[Evaluation, Path]) -> None:
    written = {path.name for path in (six[1] / "six").iterdir()}
    assert written == {
        "report.md",
        "metrics.json",
        "confusion.csv",
        "confusion.png",
        "reliability.png",
        "mistakes.png",
        "scores.csv",
    }


def test_scores_are_table_1_and_give_the_accuracy(six: tuple[Evaluation, Path]) -> None:
    evaluation, out = six
    scores = read_scores(out / "six")
    assert list(scores.columns) == ["filepath", *EMOTIONS]
    assert scores[["neutral", "contempt"]].isna().all(axis=None)
    np.testing.assert_allclose(scores[list(SIX)].sum(axis=1), 1, atol=1e-5)
    true = scores["filepath"].str.split("/").str[1]
    assert sorted(set(true)) == sorted(SIX)
    right = scores[list(SIX)].idxmax(axis=1) == true
    assert evaluation.metrics.accuracy == pytest.approx(right.mean())


def test_pictures_of_an_unknown_emotion_are_left_out_and_counted(
    six: tuple[Evaluation, Path],
) -> None:
    evaluation, out = six
    assert evaluation.metrics.n == N_EACH * len(SIX)
    assert evaluation.dropped == {"neutral": N_NEUTRAL}
    assert f"{N_NEUTRAL} neutral" in (out / "six" / "report.md").read_text(encoding="utf-8")


def test_files_say_what_the_evaluation_says(six: tuple[Evaluation, Path]) -> None:
    evaluation, out = six
    metrics = evaluation.metrics
    record = json.loads((out / "six" / "metrics.json").read_text(encoding="utf-8"))
    assert record["accuracy"] == metrics.accuracy
    assert record["ece"] == metrics.ece
    assert record["ece_uncalibrated"] == evaluation.ece_uncalibrated
    assert record["sha256"] == evaluation.card.sha256
    assert record["dropped"] == {"neutral": N_NEUTRAL}
    assert record["classes"] == list(SIX)
    confusion = pd.read_csv(out / "six" / "confusion.csv", index_col="true")
    assert list(confusion.index) == list(confusion.columns) == list(SIX)
    np.testing.assert_array_equal(confusion, metrics.confusion)
    report = (out / "six" / "report.md").read_text(encoding="utf-8")
    assert f"{metrics.accuracy:.2%}" in report
    rows = [[cell.strip() for cell in line.split("|")] for line in report.splitlines()]
    recalls = {row[1]: row[3] for row in rows if len(row) == 7}
    for emotion, recall in zip(SIX, metrics.recall, strict=True):
        assert recalls[emotion] == f"{recall:.3f}"


def test_the_error_without_temperature_is_that_of_a_model_without_one(
    six: tuple[Evaluation, Path], pictures: LabelledSplit, tmp_path: Path
) -> None:
    path = make_weights(tmp_path, network="tiny", classes=SIX[::-1], input_size_px=SIZE_PX)
    plain = evaluate(path, pictures, tmp_path, device=CPU)
    assert plain.metrics.accuracy == six[0].metrics.accuracy
    assert plain.metrics.ece == pytest.approx(plain.ece_uncalibrated, abs=1e-6)
    assert six[0].ece_uncalibrated == pytest.approx(plain.metrics.ece, abs=1e-4)
    assert six[0].metrics.ece != pytest.approx(plain.metrics.ece, abs=1e-4)


def test_flip_averages_a_picture_with_its_mirror_image(
    pictures: LabelledSplit, tmp_path: Path
) -> None:
    path = make_weights(tmp_path, network="tiny", classes=SEVEN, input_size_px=SIZE_PX)
    mirrored = LabelledSplit("folders", make_pictures(tmp_path / "mirrored", mirrored=True))
    as_they_are = evaluate(path, pictures, tmp_path / "a", device=CPU, flip=True)
    evaluate(path, mirrored, tmp_path / "b", device=CPU, flip=True, decimals=2)
    assert as_they_are.dropped == {}
    scores, rounded = (read_scores(tmp_path / name / "tiny") for name in "ab")
    np.testing.assert_array_equal(rounded["filepath"], scores["filepath"])
    np.testing.assert_allclose(rounded[list(SEVEN)], scores[list(SEVEN)], atol=0.00501)
    text = (tmp_path / "b" / "tiny" / "scores.csv").read_text(encoding="utf-8")
    assert all(len(cell) == 4 for cell in text.splitlines()[1].split(",")[1:8])


def test_models_of_any_input_stand_in_one_table(
    six: tuple[Evaluation, Path], pictures: LabelledSplit, tmp_path: Path
) -> None:
    path = make_weights(
        tmp_path,
        name="rgb",
        network="gimefive-13",
        classes=SEVEN,
        input_size_px=20,
        mean=(0.4, 0.5, 0.6),
        std=(0.2, 0.2, 0.2),
    )
    rgb = evaluate(path, pictures, tmp_path, device=CPU)
    table = compare([six[0], rgb])
    write_table(table, tmp_path)
    assert table["model"].tolist() == ["six", "rgb"]
    assert table["input"].tolist() == ["1x16x16", "3x20x20"]
    assert table["n"].tolist() == [N_EACH * 6, N_EACH * 6 + N_NEUTRAL]
    assert table["parameters"].tolist() == [
        describe("tiny", 6).parameters,
        describe("gimefive-13", 7).parameters,
    ]
    assert (table["accuracy_low"] <= table["accuracy"]).all()
    assert (table["accuracy"] <= table["accuracy_high"]).all()
    assert (table["ms_per_face"] > 0).all()
    assert table["faces_per_s_cuda"].isna().all()
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "models.csv"), table)
    lines = (tmp_path / "models.md").read_text(encoding="utf-8").splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:]] == ["six", "rgb"]
    assert len({line.count("|") for line in lines}) == 1
    assert "nan" not in "".join(lines)
    assert (tmp_path / "models.png").is_file()


def test_a_model_that_knows_nothing_of_the_pictures_is_refused(tmp_path: Path) -> None:
    root = make_pictures(tmp_path / "pictures", ["fear", "neutral"])
    path = make_weights(tmp_path, network="tiny", classes=SIX[:3], input_size_px=SIZE_PX)
    with pytest.raises(DatasetError, match=r"has 0 pictures of emotions that tiny knows: happ"):
        evaluate(path, LabelledSplit("folders", root), tmp_path, device=CPU)


def test_a_folder_that_cannot_be_made_is_an_error_for_the_user(
    pictures: LabelledSplit, tmp_path: Path
) -> None:
    path = make_weights(tmp_path, network="tiny", input_size_px=SIZE_PX)
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="choose another with -o"):
        evaluate(path, pictures, tmp_path / "file", device=CPU)


def test_two_models_of_one_name_are_refused(tmp_path: Path) -> None:
    first, second, other = (
        make_weights(tmp_path / folder, name=name, network="tiny")
        for folder, name in (("a", "same"), ("b", "same"), ("b", "other"))
    )
    check_names([first, other])
    with pytest.raises(ConfigError, match="several models are named same:"):
        check_names([first, other, second])
    with pytest.raises(WeightsError, match="card"):
        check_names([first, tmp_path / "none.safetensors"])
