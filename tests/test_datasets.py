"""Data sets in their own layouts, made by code, and the real FER+ where it is at hand."""

import csv
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fer_batch.card import find_weights
from fer_batch.classify import Classifier
from fer_batch.datasets import DatasetError, drop_leaks, fer2013, ferplus, read_pixels
from fer_batch.schema import EMOTIONS

COLUMNS = [
    *("Usage", "Image name", "neutral", "happiness", "surprise", "sadness", "anger", "disgust"),
    *("fear", "contempt", "unknown", "NF"),
]
VOTES = {  # file: votes in the order of COLUMNS, from neutral
    "clear.png": [0, 9, 1, 0, 0, 0, 0, 0, 0, 0],
    "mixed.png": [0, 6, 3, 0, 0, 0, 0, 0, 0, 1],
    "half.png": [5, 5, 0, 0, 0, 0, 0, 0, 0, 0],
    "unknown.png": [0, 0, 0, 0, 1, 1, 0, 0, 8, 0],
    "thing.png": [0, 0, 0, 0, 0, 0, 0, 0, 0, 10],
    "contempt.png": [1, 0, 0, 0, 1, 0, 0, 8, 0, 0],
    "all single.png": [1, 1, 1, 1, 1, 1, 1, 1, 1, 1],
}


def picture(path: Path, grey: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((48, 48), grey, np.uint8)).save(path)


@pytest.fixture
def ferplus_root(tmp_path: Path) -> Path:
    with (tmp_path / "fer2013new.csv").open("w", newline="") as table:
        writer = csv.writer(table)
        writer.writerow(COLUMNS)
        for number, (name, votes) in enumerate(VOTES.items()):
            writer.writerow(["Training", name, *votes])
            picture(tmp_path / "FER2013Train" / name, 10 * number)
        writer.writerow(["PublicTest", "valid.png", *VOTES["clear.png"]])
        writer.writerow(["PrivateTest", "", *VOTES["clear.png"]])
    picture(tmp_path / "FER2013Valid" / "valid.png", 10)
    return tmp_path


def test_ferplus_majority_protocol(ferplus_root: Path) -> None:
    samples = ferplus(ferplus_root, "train")
    shares = {
        path.name: {EMOTIONS[k]: round(float(row[k]), 3) for k in np.flatnonzero(row)}
        for path, row in zip(samples.paths, samples.targets, strict=True)
    }
    assert shares == {
        "clear.png": {"happiness": 1.0},
        "mixed.png": {"happiness": 0.667, "surprise": 0.333},
        "contempt.png": {"contempt": 1.0},
    }
    assert samples.dropped == {"no majority": 2, "unknown": 1, "not a face": 1}


def test_pictures_of_a_held_out_split_are_dropped(ferplus_root: Path) -> None:
    train, valid = ferplus(ferplus_root, "train"), ferplus(ferplus_root, "valid")
    pixels = read_pixels(train, 48)
    kept, kept_pixels = drop_leaks(train, pixels, [read_pixels(valid, 48)])
    assert [path.name for path in kept.paths] == ["clear.png", "contempt.png"]
    assert kept.dropped["also in a held-out split"] == 1
    assert kept_pixels[:, 0, 0].tolist() == [0, 50]
    assert kept.targets.shape == (2, 8)


def test_split_without_pictures_is_an_error(ferplus_root: Path) -> None:
    with pytest.raises(DatasetError, match="split test"):
        ferplus(ferplus_root, "test")


def test_missing_picture_is_named(ferplus_root: Path) -> None:
    (ferplus_root / "FER2013Train" / "mixed.png").unlink()
    with pytest.raises(DatasetError, match=r"1 pictures.*mixed\.png"):
        ferplus(ferplus_root, "train")


def test_missing_table_and_missing_columns_are_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"fer2013new\.csv"):
        ferplus(tmp_path, "train")
    (tmp_path / "fer2013new.csv").write_text("Usage,Image name,neutral\n")
    with pytest.raises(DatasetError, match="columns missing: NF, anger"):
        ferplus(tmp_path, "train")


def test_unreadable_picture_is_named(ferplus_root: Path) -> None:
    (ferplus_root / "FER2013Train" / "mixed.png").write_text("not a picture")
    with pytest.raises(DatasetError, match=r"mixed\.png: cannot be read"):
        read_pixels(ferplus(ferplus_root, "train"), 48)


def test_pixels_are_resized_on_demand(ferplus_root: Path) -> None:
    assert read_pixels(ferplus(ferplus_root, "train"), 64).shape == (3, 64, 64)


def test_fer2013_folders(tmp_path: Path) -> None:
    names = {"angry": "anger", "disgust": "disgust", "fear": "fear", "happy": "happiness"}
    names |= {"neutral": "neutral", "sad": "sadness", "surprise": "surprise"}
    for folder in names:
        picture(tmp_path / "train" / folder / "Training_00001.png", 1)
        picture(tmp_path / "test" / folder / "PublicTest_00002.png", 2)
        picture(tmp_path / "test" / folder / "PrivateTest_00003.png", 3)
    for split, number in (("train", 1), ("valid", 2), ("test", 3)):
        samples = fer2013(tmp_path, split)
        found = {
            path.parent.name: EMOTIONS[int(row.argmax())]
            for path, row in zip(samples.paths, samples.targets, strict=True)
        }
        assert found == names
        assert (read_pixels(samples, 48) == number).all()
    (tmp_path / "train" / "sad" / "Training_00001.png").unlink()
    with pytest.raises(DatasetError, match="sad: expected pictures named Training_"):
        fer2013(tmp_path, "train")


@pytest.fixture(scope="module")
def real_ferplus(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fer")
    subprocess.run([sys.executable, shared / "data" / "unpack_fer.py", folder], check=True)
    return folder / "ferplus"


@pytest.mark.slow
def test_real_ferplus_has_the_counts_of_its_protocol(real_ferplus: Path) -> None:
    counts = [len(ferplus(real_ferplus, split)) for split in ("train", "valid", "test")]
    assert counts == [25_057, 3_199, 3_152]


@pytest.mark.slow
def test_default_weights_are_as_right_as_their_card_says(real_ferplus: Path) -> None:
    samples = ferplus(real_ferplus, "test")
    classify = Classifier(find_weights("default"), torch.device("cpu"), batch_size=64, flip=False)
    card = classify.card
    pixels = torch.from_numpy(read_pixels(samples, card.input_size_px))
    probs = classify((pixels[:, None] / 255 - card.mean) / card.std)
    accuracy = float((probs.argmax(axis=1) == samples.targets.argmax(axis=1)).mean())
    assert accuracy == pytest.approx(card.metrics["test_accuracy"], abs=0.002)
