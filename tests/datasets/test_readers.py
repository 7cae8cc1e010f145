"""Data sets in their own layouts, made by code, and the real FER+ where it is at hand."""

import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fer_batch.datasets import READERS, SPLITS, DatasetError, Samples, read_samples
from fer_batch.datasets.disfa import ACTION_UNITS, read_action_units
from fer_batch.emotions import EMOTIONS
from fer_batch.errors import ConfigError
from tests.support import datasets_made as make


def emotions(samples: Samples) -> dict[str, str]:
    """The most likely emotion of each picture, by path."""
    found = (EMOTIONS[column] for column in samples.targets.argmax(axis=1))
    return dict(zip(samples.paths, found, strict=True))


def read_all(name: str, root: Path) -> dict[str, Samples]:
    return {split: read_samples(name, root, split) for split in SPLITS}


def people(samples: Samples) -> set[str]:
    return {Path(path).name.split("_")[0] for path in samples.paths}


# FER+


def test_ferplus_majority_protocol(tmp_path: Path) -> None:
    samples = read_samples("ferplus", make.make_ferplus(tmp_path), "train")
    shares = {
        Path(path).name: {EMOTIONS[k]: round(float(row[k]), 3) for k in np.flatnonzero(row)}
        for path, row in zip(samples.paths, samples.targets, strict=True)
    }
    assert shares == {
        "clear.png": {"happiness": 1.0},
        "mixed.png": {"happiness": 0.667, "surprise": 0.333},
        **{f"{emotion}.png": {emotion: 1.0} for emotion in EMOTIONS[1:]},
    }
    assert samples.dropped == {"no majority": 2, "unknown": 1, "not a face": 1, "no picture": 1}


def test_ferplus_splits_are_its_folders(tmp_path: Path) -> None:
    for split, samples in read_all("ferplus", make.make_ferplus(tmp_path)).items():
        assert {path.split("/")[0] for path in samples.paths} == {f"FER2013{split.title()}"}


@pytest.mark.parametrize(
    "before, after, message",
    [
        ("fear", "panic", "columns missing: fear; there are: Usage, Image name"),
        ("Training,clear", "Learning,clear", "line 2: expected a Usage of Training, .*'Learning'"),
        ("clear.png,0,9", "clear.png,0,nine", "line 2: expected numbers of votes.*nine"),
        ("clear.png,0,9", "clear.png,9", "line 2: expected 12 values"),
        ("clear.png,0,9", "mixed.png,0,9", "lists FER2013Train/mixed.png 2 times"),
        ("contempt.png,1,0,0,0,1,0,0,8", "contempt.png,1,0,0,0,1,8,0,0", "none of contempt"),
    ],
)
def test_ferplus_table_errors(tmp_path: Path, before: str, after: str, message: str) -> None:
    table = make.make_ferplus(tmp_path) / "fer2013new.csv"
    table.write_text(table.read_text().replace(before, after, 1))
    with pytest.raises(DatasetError, match=message):
        read_samples("ferplus", tmp_path, "train")


def test_ferplus_missing_table_and_pictures(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"expected FER\+'s fer2013new\.csv"):
        read_samples("ferplus", tmp_path, "train")
    (make.make_ferplus(tmp_path) / "FER2013Train" / "mixed.png").unlink()
    with pytest.raises(DatasetError, match=r"1 of 9 pictures.*FER2013Train/mixed\.png"):
        read_samples("ferplus", tmp_path, "train")


# FER2013


def test_fer2013_folders(tmp_path: Path) -> None:
    make.make_fer2013(tmp_path)
    names = {"angry": "anger", "happy": "happiness", "sad": "sadness"}
    for split, samples in read_all("fer2013", tmp_path).items():
        prefix = {"train": "Training", "valid": "PublicTest", "test": "PrivateTest"}[split]
        folder = "train" if split == "train" else "test"
        assert emotions(samples) == {
            f"{folder}/{name}/{prefix}_{number}.png": names.get(name, name)
            for number, name in enumerate(make.FER2013_FOLDERS)
        }


def test_fer2013_folder_errors(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"folders train and test, or fer2013\.csv or icml"):
        read_samples("fer2013", tmp_path, "train")
    make.make_fer2013(tmp_path)
    make.touch(tmp_path / "test" / "sad" / "other.png")
    with pytest.raises(DatasetError, match=r"other\.png: expected .* PublicTest or PrivateTest"):
        read_samples("fer2013", tmp_path, "valid")
    shutil.rmtree(tmp_path / "train" / "sad")
    with pytest.raises(DatasetError, match="sad: expected a folder: No such"):
        read_samples("fer2013", tmp_path, "train")
    (tmp_path / "train" / "sad").mkdir()
    with pytest.raises(DatasetError, match="sad: expected pictures, found an empty folder"):
        read_samples("fer2013", tmp_path, "train")


@pytest.mark.parametrize(
    "name, columns",
    [
        ("fer2013.csv", ("emotion", "pixels", "Usage")),
        ("icml_face_data.csv", ("emotion", " Usage", " pixels")),
    ],
)
def test_fer2013_table(tmp_path: Path, name: str, columns: tuple[str, ...]) -> None:
    path = make.make_fer2013_csv(tmp_path / name, columns)
    aliases = {"angry": "anger", "happy": "happiness", "sad": "sadness"}
    classes = [aliases.get(name, name) for name in make.FER2013_FOLDERS]
    for root in (path, tmp_path):
        for start, samples in zip((0, 7, 14), read_all("fer2013", root).values(), strict=True):
            rows = range(start, start + 7)
            assert list(emotions(samples)) == [f"fer{row:07}.png" for row in rows]
            assert list(emotions(samples).values()) == classes
            assert samples.pixels is not None
            assert (samples.pixels == np.stack([make.photograph(row) for row in rows])).all()


@pytest.mark.parametrize(
    "values, message",
    [
        ((7, "0", "Training"), "line 2: expected an emotion from 0 to 6, got '7'"),
        ((0, "0 1 2", "Training"), "line 2: expected 2304 pixels from 0 to 255"),
        ((0, "256 " * 2304, "Training"), "line 2: expected 2304 pixels from 0 to 255"),
        ((0, "0", "Holdout"), "line 2: expected a Usage of Training, PublicTest, PrivateTest"),
        ((0, "0 " * 2304, "Training"), "none of happiness, surprise, sadness, disgust, fear"),
        ((0, "0", "PublicTest"), r"fer2013\.csv: no rows of Training"),
    ],
)
def test_fer2013_table_errors(tmp_path: Path, values: tuple[object, ...], message: str) -> None:
    make.write_csv(tmp_path / "fer2013.csv", [("emotion", "pixels", "Usage"), values])
    with pytest.raises(DatasetError, match=message):
        read_samples("fer2013", tmp_path, "train")


# RAF-DB


def test_rafdb(tmp_path: Path) -> None:
    make.make_rafdb(tmp_path)
    samples = read_all("rafdb", tmp_path)
    assert emotions(samples["test"]) == {
        f"Image/aligned/test_{code}0000_aligned.jpg": emotion
        for code, emotion in enumerate(
            ["surprise", "fear", "disgust", "happiness", "sadness", "anger", "neutral"], 1
        )
    }
    assert len(samples["train"]) + len(samples["valid"]) == 280
    assert 10 <= len(samples["valid"]) <= 50
    assert not set(samples["train"].paths) & set(samples["valid"].paths)


@pytest.mark.parametrize(
    "line, message",
    [
        ("train_00001.jpg 8", "line 281: expected train_.* label from 1 to 7, found 'train_00001"),
        ("valid_00001.jpg 1", "line 281: expected train_"),
        (
            "test_00009.jpg 1",
            r"1 of 8 pictures .*Image/aligned/test_00009_aligned\.jpg",
        ),
    ],
)
def test_rafdb_errors(tmp_path: Path, line: str, message: str) -> None:
    with pytest.raises(DatasetError, match=r"expected RAF-DB's list_patition_label\.txt"):
        read_samples("rafdb", tmp_path, "test")
    table = make.make_rafdb(tmp_path, n_train=39) / "EmoLabel" / "list_patition_label.txt"
    table = table.rename(tmp_path / table.name)  # the other place where it may stand
    with table.open("a") as lines:
        lines.write(line)
    with pytest.raises(DatasetError, match=message):
        read_samples("rafdb", tmp_path, "test")


def test_rafdb_without_an_emotion(tmp_path: Path) -> None:
    table = make.make_rafdb(tmp_path, n_train=1) / "EmoLabel" / "list_patition_label.txt"
    table.write_text(table.read_text().replace("test_20000.jpg 2\n", ""))
    with pytest.raises(DatasetError, match=r"split test: expected .* there are none of fear"):
        read_samples("rafdb", tmp_path, "train")


def test_incomplete_data_set_can_be_read(tmp_path: Path) -> None:
    table = make.make_rafdb(tmp_path, n_train=1) / "EmoLabel" / "list_patition_label.txt"
    table.write_text(table.read_text().replace("test_20000.jpg 2\n", ""))
    samples = read_samples("rafdb", tmp_path, "test", allow_missing_classes=True)
    assert len(samples) == 6
    (message,) = samples.missing_classes
    assert "split test: expected pictures of happiness" in message
    assert message.endswith("there are none of fear")


@pytest.mark.parametrize("suffix", [".jpg", ""])
def test_rafdb_flat_folders_with_official_splits(tmp_path: Path, suffix: str) -> None:
    make.make_flat(tmp_path / "train", tmp_path / "train_labels.csv", suffix=suffix)
    make.make_flat(tmp_path / "test", tmp_path / "test" / "any.csv", n=1, suffix=suffix)
    samples = read_all("rafdb-flat", tmp_path)
    assert emotions(samples["test"]) == {f"test/000_{emotion}.jpg": emotion for emotion in make.SIX}
    assert len(samples["train"]) + len(samples["valid"]) == 180
    assert len(samples["valid"]) > 0


def test_rafdb_flat_alone_is_divided(tmp_path: Path) -> None:
    make.make_flat(tmp_path, tmp_path / "labels.csv")
    samples = read_all("rafdb-flat", tmp_path)
    paths = [path for part in samples.values() for path in part.paths]
    assert sorted(paths) == sorted(path.name for path in tmp_path.glob("*.jpg"))
    assert len(samples["train"]) > 100
    assert min(map(len, samples.values())) > 0


def test_rafdb_flat_test_folder_alone_is_test(tmp_path: Path) -> None:
    make.make_flat(tmp_path / "test", tmp_path / "test" / "labels.csv", n=2)
    assert len(read_samples("rafdb-flat", tmp_path, "test")) == 12
    with pytest.raises(DatasetError, match="no pictures of rafdb-flat, split train"):
        read_samples("rafdb-flat", tmp_path, "train")


def add_row(row: str) -> Callable[[Path], object]:
    def add(root: Path) -> None:
        with (root / "labels.csv").open("a") as table:
            table.write(row)

    return add


@pytest.mark.parametrize(
    "spoil, message",
    [
        (add_row("none_fear,5\n"), "line 8: expected the name of a picture .* found 'none_fear'"),
        (add_row("000_fear,6\n"), "line 8: .* label from 0 to 5, found '000_fear' and '6'"),
        (
            add_row("000_fear,4\n"),
            r"label 4 is disgust, but the file is named 000_fear\.jpg",
        ),
        (add_row("000_fear,5\n"), r"lists 000_fear\.jpg 2 times"),
        (lambda root: make.touch(root / "x_fear.jpg"), r"lacks 1 pictures: .*x_fear\.jpg"),
        (lambda root: (root / "labels.csv").unlink(), "expected one CSV table in it.*found 0"),
        (lambda root: (root / "more").mkdir(), "more: expected a picture, found a folder"),
    ],
)
def test_rafdb_flat_errors(tmp_path: Path, spoil: Callable[[Path], object], message: str) -> None:
    make.make_flat(tmp_path, tmp_path / "labels.csv", n=1)
    spoil(tmp_path)
    with pytest.raises(DatasetError, match=message):
        read_all("rafdb-flat", tmp_path)


# CK+


def test_ckplus_peak_frames_carry_the_label(tmp_path: Path) -> None:
    samples = read_all("ckplus", make.make_ckplus(tmp_path))
    labels = ("anger", "contempt", "disgust", "fear", "happiness", "sadness", "surprise")
    found = {path: emotion for part in samples.values() for path, emotion in emotions(part).items()}
    assert found == {
        f"cohn-kanade-images/S{k:03}/001/S{k:03}_001_{frame:08}.png": labels[k % 7]
        for k in range(30)
        for frame in (2, 3, 4)
    }
    for part in samples.values():
        assert part.dropped == {"sequence without a label": len(people(part))}


@pytest.mark.parametrize("layout", ["published", "class folders"])
def test_ckplus_has_nobody_in_two_splits(tmp_path: Path, layout: str) -> None:
    if layout == "published":
        make.make_ckplus(tmp_path)
    else:
        for number in range(30):
            for emotion in ("anger", "fear"):
                make.touch(tmp_path / emotion / f"S{number:03}_001_{number:08}.png")
    groups = [people(part) for part in read_all("ckplus", tmp_path).values()]
    assert sum(map(len, groups)) == len(set().union(*groups)) == 30
    assert len(groups[0]) > 15


def rewrite(text: str) -> Callable[[Path], object]:
    label = "Emotion/S001/001/S001_001_00000004_emotion.txt"
    return lambda root: (root / label).write_text(text)


@pytest.mark.parametrize(
    "spoil, message",
    [
        (rewrite("happy"), r"S001_001_00000004_emotion\.txt: expected one number"),
        (rewrite("8.0"), r"expected a label from 0 to 7, found 8\.0"),
        (rewrite("2.5"), r"expected a label from 0 to 7, found 2\.5"),
        (
            lambda root: (root / "Emotion/S001/001/x_emotion.txt").write_text("1"),
            "S001/001 has two labels",
        ),
        (
            lambda root: shutil.rmtree(root / "cohn-kanade-images" / "S001"),
            "expected the labelled sequence S001/001",
        ),
        (lambda root: shutil.rmtree(root / "Emotion" / "S001"), "none of contempt"),
        (lambda root: shutil.rmtree(root / "Emotion"), "Emotion: expected labels"),
        (
            lambda root: shutil.rmtree(root / "cohn-kanade-images"),
            "cohn-kanade-images: expected a folder",
        ),
    ],
)
def test_ckplus_errors(tmp_path: Path, spoil: Callable[[Path], object], message: str) -> None:
    spoil(make.make_ckplus(tmp_path, n_subjects=7))
    with pytest.raises(DatasetError, match=message):
        read_samples("ckplus", tmp_path, "train")


def test_ckplus_in_neither_layout(tmp_path: Path) -> None:
    (tmp_path / "extended-cohn-kanade-images").mkdir()
    with pytest.raises(DatasetError, match=r"expected CK\+'s cohn-kanade-images and Emotion, or"):
        read_samples("ckplus", tmp_path, "train")


# Class folders


@pytest.mark.parametrize("name", ["folders", "tfeid"])
def test_class_folders_without_splits_are_divided(tmp_path: Path, name: str) -> None:
    make.make_folders(tmp_path, ["Happy", "sadness", "Surprised"], n=60)
    (tmp_path / "Happy" / ".DS_Store").touch()
    (tmp_path / "Happy" / "Thumbs.db").touch()
    samples = read_all(name, tmp_path)
    found = {path: emotion for part in samples.values() for path, emotion in emotions(part).items()}
    assert Counter(found.values()) == {"happiness": 60, "sadness": 60, "surprise": 60}
    assert found["Surprised/0000.png"] == "surprise"
    shares = [len(part) / 180 for part in samples.values()]
    assert shares == pytest.approx([0.8, 0.1, 0.1], abs=0.1)


@pytest.mark.parametrize("valid", ["valid", "val", "validation"])
def test_class_folders_with_splits(tmp_path: Path, valid: str) -> None:
    for split in ("train", valid, "test"):
        make.make_folders(tmp_path / split, ["joy", "afraid"])
    samples = read_all("folders", tmp_path)
    assert emotions(samples["valid"]) == {
        f"{valid}/afraid/0000.png": "fear",
        f"{valid}/joy/0000.png": "happiness",
    }
    assert [len(part) for part in samples.values()] == [2, 2, 2]


def test_class_folders_without_valid_give_a_part_of_train(tmp_path: Path) -> None:
    make.make_folders(tmp_path / "train", ["anger", "neutral"], n=60)
    make.make_folders(tmp_path / "test", ["anger", "neutral"], n=2)
    samples = read_all("folders", tmp_path)
    assert len(samples["train"]) + len(samples["valid"]) == 120
    assert all(path.startswith("train/") for path in samples["valid"].paths)
    assert 2 <= len(samples["valid"]) <= 30
    assert len(samples["test"]) == 4


@pytest.mark.parametrize(
    "names, message",
    [
        (["happy", "bored"], "bored: 'bored' is not an emotion; known names are afraid, anger"),
        (["train/happy", "extra/happy"], "extra: expected only folders of splits here: train"),
        (["train/happy", "train/sad", "test/sad"], "split test: .* there are none of happiness"),
        (["test/happy"], "no pictures of folders, split train"),
        ([], "expected folders named like emotions, or train, valid"),
    ],
)
def test_class_folder_errors(tmp_path: Path, names: list[str], message: str) -> None:
    make.make_folders(tmp_path, names)
    with pytest.raises(DatasetError, match=message):
        read_samples("folders", tmp_path, "train")


# CSV


def test_csv_with_splits(tmp_path: Path) -> None:
    rows = [("a/1.png", "Angry", "train"), ("2.png", "fear", "val"), ("3.png", "contempt", "test")]
    for path, *_ in rows:
        make.touch(tmp_path / path)
    table = make.write_csv(tmp_path / "faces.csv", [("path", "label", "split"), *rows])
    samples = read_all("csv", table)
    assert [emotions(part) for part in samples.values()] == [
        {"a/1.png": "anger"},
        {"2.png": "fear"},
        {"3.png": "contempt"},
    ]
    assert samples["test"].root == tmp_path


def test_csv_without_splits_is_divided(tmp_path: Path) -> None:
    make.make_folders(tmp_path, ["x"], n=100)
    rows = [(f"x/{number:04}.png", "neutral") for number in range(100)]
    table = make.write_csv(tmp_path / "faces.csv", [("path", "label"), *rows])
    samples = read_all("csv", table)
    assert sorted(path for part in samples.values() for path in part.paths) == [p for p, _ in rows]
    assert min(map(len, samples.values())) > 0


@pytest.mark.parametrize(
    "rows, message",
    [
        ([("path", "emotion")], "columns missing: label; there are: path, emotion"),
        ([("path", "label"), ("1.png", "bored")], "line 2: 'bored' is not an emotion"),
        ([("path", "label", "split"), ("1.png", "sad", "dev")], "line 2: .* found 'dev'"),
        ([("path", "label", "split"), ("1.png", "sad", "train")], r"1 of 1 .* missing.* 1\.png"),
    ],
)
def test_csv_errors(tmp_path: Path, rows: list[tuple[str, ...]], message: str) -> None:
    with pytest.raises(DatasetError, match=r"expected a CSV table: .*No such file"):
        read_samples("csv", tmp_path / "none.csv", "train")
    table = make.write_csv(tmp_path / "faces.csv", rows)
    with pytest.raises(DatasetError, match=message):
        read_samples("csv", table, "train")


# All


@pytest.mark.parametrize(
    "targets, pixels",
    [
        (np.ones((2, 8), np.float32), None),
        (np.eye(8, dtype=np.float32), None),
        (np.eye(2, 8), None),
        (np.eye(2, 8, dtype=np.float32), np.zeros((3, 48, 48), np.uint8)),
        (np.eye(2, 8, dtype=np.float32), np.zeros((2, 48, 48), np.float32)),
    ],
)
def test_samples_check_their_arrays(targets: np.ndarray, pixels: np.ndarray | None) -> None:
    with pytest.raises(ValueError, match="must"):
        Samples("any", "train", Path(), ("a", "b"), targets, {}, pixels)


def test_unknown_data_set_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no data set 'imagenet'; there are: fer2013, .*, csv"):
        read_samples("imagenet", tmp_path, "train")


@pytest.mark.parametrize("name", READERS)
def test_missing_root_is_an_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(DatasetError, match="nowhere"):
        read_samples(name, tmp_path / "nowhere", "train")


# DISFA


def test_disfa(tmp_path: Path) -> None:
    make.make_disfa(tmp_path, "SN002", n=3)
    make.make_disfa(tmp_path, "SN001", n=4)
    table = read_action_units(tmp_path)
    assert table["subject"].tolist() == ["SN001"] * 4 + ["SN002"] * 3
    assert table["frame_index"].tolist() == [0, 1, 2, 3, 0, 1, 2]
    for unit in ACTION_UNITS:
        assert table[f"AU{unit}"].dtype == np.int8
        expected = [(unit + frame) % 6 for frame in (1, 2, 3, 4, 1, 2, 3)]
        assert table[f"AU{unit}"].tolist() == expected


@pytest.mark.parametrize(
    "text, message",
    [
        (None, r"SN001_au4\.txt: expected lines of frame,intensity: .*No such file"),
        ("", "expected lines of frame,intensity"),
        ("1,0\n2,x\n", "expected lines of frame,intensity"),
        ("1,0,0\n2,0,0\n3,0,0\n4,0,0\n", "expected lines of frame,intensity with frames 1, 2"),
        ("1\n2\n3\n4\n", "expected lines of frame,intensity with frames 1, 2"),
        ("0,0\n1,0\n2,0\n3,0\n", "expected lines of frame,intensity with frames 1, 2"),
        ("1,0\n2,6\n3,0\n4,0\n", "line 2: expected an intensity from 0 to 5, found 6"),
        ("1,0\n2,0\n3,-1\n4,0\n", "line 3: expected an intensity from 0 to 5, found -1"),
        ("1,0\n2,0\n", "SN001: expected as many frames for each action unit.*'AU4': 2"),
    ],
)
def test_disfa_errors(tmp_path: Path, text: str | None, message: str) -> None:
    file = make.make_disfa(tmp_path) / "ActionUnit_Labels" / "SN001" / "SN001_au4.txt"
    file.unlink() if text is None else file.write_text(text)
    with pytest.raises(DatasetError, match=message):
        read_action_units(tmp_path)


def test_disfa_without_subjects(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="ActionUnit_Labels: expected a folder"):
        read_action_units(tmp_path)
    (tmp_path / "ActionUnit_Labels").mkdir()
    with pytest.raises(DatasetError, match="expected folders SN001 and so on"):
        read_action_units(tmp_path)
