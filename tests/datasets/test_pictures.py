"""Data sets in memory: from folders, tables and packed files, without what leaks."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import save_file

from fer_batch.datasets import SPLITS, DatasetError
from fer_batch.datasets.pictures import Data, Pictures, load_data, pack
from fer_batch.emotions import EMOTIONS, LABEL_SETS
from fer_batch.errors import ConfigError
from fer_batch.faces.crop import normalise
from fer_batch.models.card import find_weights
from fer_batch.models.classifier import Classifier
from tests.support import datasets_made as make


@pytest.fixture(scope="module")
def ferplus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """FER+ whose training pictures 'clear' and 'fear' also stand in the held-out splits."""
    root = make.make_ferplus(tmp_path_factory.mktemp("ferplus"))
    valid, test = (
        np.asarray(Image.open(root / folder / "anger.png"))
        for folder in ("FER2013Valid", "FER2013Test")
    )
    make.save(root / "FER2013Train" / "clear.png", valid)
    make.save(root / "FER2013Train" / "fear.png", test[:, ::-1] // 2 + 40)
    return root


def same(one: Data, other: Data) -> bool:
    return (
        one.dataset == other.dataset
        and one.dropped == other.dropped
        and all(
            one.pictures[split].paths == other.pictures[split].paths
            and (one.pictures[split].pixels == other.pictures[split].pixels).all()
            and (one.pictures[split].targets == other.pictures[split].targets).all()
            for split in SPLITS
        )
    )


def test_pictures_of_a_folder(ferplus: Path) -> None:
    data = load_data("ferplus", ferplus, size_px=48)
    test = data.pictures["test"]
    assert data.dataset == "ferplus"
    assert data.classes == tuple(name for name in EMOTIONS if name != "fear")
    assert test.paths[0] == "FER2013Test/clear.png"
    for path, pixels in zip(test.paths, test.pixels, strict=True):
        assert (pixels == np.asarray(Image.open(ferplus / path))).all()
    assert EMOTIONS[test.targets[test.paths.index("FER2013Test/fear.png")].argmax()] == "fear"


def test_colour_pictures_of_any_size_become_grey_squares(tmp_path: Path) -> None:
    colour = np.zeros((30, 60, 3), np.uint8)
    colour[..., 0] = 200
    make.save(tmp_path / "train" / "happy" / "a.png", colour)
    data = load_data("folders", tmp_path, size_px=20, splits=["train"])
    grey = np.asarray(Image.fromarray(colour).convert("L"))[0, 0]
    assert data.pictures["train"].pixels.shape == (1, 20, 20)
    assert (data.pictures["train"].pixels == grey).all()


def test_pictures_of_a_table(tmp_path: Path) -> None:
    path = make.make_fer2013_csv(tmp_path / "fer2013.csv")
    data = load_data("fer2013", path, size_px=48)
    assert data.classes == LABEL_SETS["seven"]
    assert (data.pictures["valid"].pixels[0] == make.photograph(7)).all()


@pytest.mark.parametrize("size_px", [24, 48, 64])
def test_training_pictures_of_held_out_splits_are_dropped(ferplus: Path, size_px: int) -> None:
    data = load_data("ferplus", ferplus, size_px=size_px)
    assert data.dropped == {
        "no majority": 2,
        "unknown": 1,
        "not a face": 1,
        "no picture": 1,
        "also in a held-out split": 1,
        "near-duplicate in a held-out split": 1,
    }
    assert [Path(path).stem for path in data.pictures["train"].paths] == [
        *("mixed", "neutral", "surprise", "sadness", "anger", "disgust", "contempt")
    ]
    assert [len(data.pictures[split]) for split in SPLITS] == [7, 9, 9]
    assert all(
        pictures.pixels.shape[1:] == (size_px, size_px) for pictures in data.pictures.values()
    )


def test_only_what_is_loaded_counts_as_held_out(ferplus: Path) -> None:
    data = load_data("ferplus", ferplus, size_px=48, splits=["train", "valid"])
    assert list(data.pictures) == ["train", "valid"]
    assert data.dropped["also in a held-out split"] == 1
    assert "near-duplicate in a held-out split" not in data.dropped
    assert len(load_data("ferplus", ferplus, size_px=48, splits=["train"]).pictures["train"]) == 9
    assert load_data("ferplus", ferplus, size_px=48, splits=["test"]).dropped == {}


def test_duplicates_can_stay(ferplus: Path) -> None:
    data = load_data("ferplus", ferplus, size_px=48, drop_duplicates=False)
    assert len(data.pictures["train"]) == 9


def test_label_set_drops_pictures_and_renormalises_targets(tmp_path: Path) -> None:
    root = make.make_ferplus(tmp_path)
    table = root / "fer2013new.csv"
    table.write_text(table.read_text().replace("mixed.png,0,6,3", "mixed.png,2,6,2"))
    data = load_data("ferplus", root, size_px=48, labels="six")
    train = data.pictures["train"]
    assert [Path(path).stem for path in train.paths] == [
        *("clear", "mixed", "surprise", "sadness", "anger", "disgust", "fear")
    ]
    assert train.targets[1].tolist() == pytest.approx([0.75, 0.25, 0, 0, 0, 0, 0, 0])
    assert data.dropped["not one of the emotions"] == 2
    assert data.classes == LABEL_SETS["six"]


def test_split_without_any_of_the_emotions_is_an_error(tmp_path: Path) -> None:
    make.save(tmp_path / "train" / "contempt" / "a.png")
    with pytest.raises(DatasetError, match="split train has no picture of happiness, surp"):
        load_data("folders", tmp_path, size_px=48, splits=["train"], labels="seven")


@pytest.mark.parametrize("content", [b"not a picture", b"", b"\x89PNG\r\n\x1a\n"])
def test_unreadable_picture_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "train" / "fear" / "a.png"
    make.save(path)
    path.write_bytes(content)
    with pytest.raises(DatasetError, match=r"fear/a\.png: cannot be read as a picture"):
        load_data("folders", tmp_path, size_px=48, splits=["train"])


def test_cut_picture_is_named(tmp_path: Path) -> None:
    path = tmp_path / "train" / "fear" / "a.png"
    make.save(path)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(DatasetError, match=r"fear/a\.png: cannot be read as a picture"):
        load_data("folders", tmp_path, size_px=48, splits=["train"])


@pytest.mark.parametrize("size_px", [48, 64])
@pytest.mark.parametrize("labels", [None, "six"])
def test_packed_file_gives_what_its_source_gives(
    ferplus: Path, tmp_path: Path, size_px: int, labels: str | None
) -> None:
    packed = tmp_path / "new" / "ferplus.safetensors"
    pack("ferplus", ferplus, packed, size_px=48)
    assert [path.name for path in packed.parent.iterdir()] == [packed.name]
    assert same(
        load_data("ferplus", packed, size_px=size_px, labels=labels),
        load_data("ferplus", ferplus, size_px=size_px, labels=labels),
    )


def test_packing_in_a_small_size_drops_no_other_pictures(ferplus: Path, tmp_path: Path) -> None:
    pack("ferplus", ferplus, tmp_path / "small.safetensors", size_px=12)
    small = load_data("ferplus", tmp_path / "small.safetensors", size_px=12)
    large = load_data("ferplus", ferplus, size_px=48)
    assert small.dropped == large.dropped
    assert small.pictures["train"].paths == large.pictures["train"].paths


def test_part_of_a_packed_file(ferplus: Path, tmp_path: Path) -> None:
    packed = tmp_path / "ferplus.safetensors"
    pack("ferplus", ferplus, packed, size_px=48)
    data = load_data("ferplus", packed, size_px=48, splits=["train", "valid"])
    assert list(data.pictures) == ["train", "valid"]
    assert data.dropped["also in a held-out split"] == 1
    assert "near-duplicate in a held-out split" not in data.dropped
    assert load_data("ferplus", packed, size_px=48, splits=["test"]).dropped == {}


def test_packed_file_errors(ferplus: Path, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"ferplus\.npz: the name .* ends in \.safetensors"):
        pack("ferplus", ferplus, tmp_path / "ferplus.npz", size_px=48)
    packed = tmp_path / "ferplus.safetensors"
    with pytest.raises(DatasetError, match="cannot be read as a packed data set"):
        load_data("ferplus", packed, size_px=48)
    pack("ferplus", ferplus, packed, size_px=48)
    with pytest.raises(DatasetError, match="expected the packed data set fer2013, found ferplus"):
        load_data("fer2013", packed, size_px=48)
    packed.write_bytes(packed.read_bytes()[:-1])
    with pytest.raises(DatasetError, match="cannot be read as a packed data set"):
        load_data("ferplus", packed, size_px=48)
    save_file({"weight": np.zeros(3, np.float32)}, packed)
    with pytest.raises(DatasetError, match="pack the data set again"):
        load_data("ferplus", packed, size_px=48)
    with pytest.raises(DatasetError, match="cannot be written"):
        pack("ferplus", ferplus, packed / "inside.safetensors", size_px=48)


def test_unknown_data_set_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="imagenet"):
        load_data("imagenet", tmp_path, size_px=48)


@pytest.mark.parametrize(
    "pixels, targets",
    [
        (np.zeros((2, 4, 5), np.uint8), np.zeros((2, 8), np.float32)),
        (np.zeros((2, 4, 4), np.float32), np.zeros((2, 8), np.float32)),
        (np.zeros((2, 4, 4), np.uint8), np.zeros((2, 7), np.float32)),
    ],
)
def test_pictures_check_their_arrays(pixels: np.ndarray, targets: np.ndarray) -> None:
    with pytest.raises(ValueError, match="must be"):
        Pictures(("a", "b"), pixels, targets)


@pytest.fixture(scope="module")
def real_ferplus(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fer")
    subprocess.run([sys.executable, shared / "data" / "unpack_fer.py", folder], check=True)
    return folder / "ferplus"


@pytest.mark.slow
def test_real_ferplus_has_the_counts_of_its_protocol(real_ferplus: Path) -> None:
    data = load_data("ferplus", real_ferplus, size_px=48)
    equal, near = (
        data.dropped[f"{kind} in a held-out split"] for kind in ("also", "near-duplicate")
    )
    counts = [len(data.pictures[split]) for split in SPLITS]
    assert equal == 614
    assert near == pytest.approx(1208, abs=10)  # rounding differs between processors
    assert counts == [25_057 - equal - near, 3_199, 3_152]


@pytest.mark.slow
def test_default_weights_are_as_right_as_their_card_says(real_ferplus: Path) -> None:
    classify = Classifier(find_weights("default"), torch.device("cpu"), batch_size=64, flip=False)
    card = classify.card
    data = load_data("ferplus", real_ferplus, size_px=card.input_size_px, splits=["test"])
    pictures = data.pictures["test"]
    right = classify(normalise(pictures.pixels, card)).argmax(axis=1) == pictures.targets.argmax(1)
    assert right.mean() == pytest.approx(card.metrics["test_accuracy"], abs=0.002)
