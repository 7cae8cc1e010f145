"""Tables about a data set: counts by emotion, and duplicates."""

from pathlib import Path

from fer_batch.datasets.inventory import count_pictures, list_duplicates
from fer_batch.datasets.pictures import load_data
from tests.support import datasets_made as make


def test_counts_by_emotion_and_split(tmp_path: Path) -> None:
    table = count_pictures(
        load_data("ferplus", make.make_ferplus(tmp_path), size_px=48, labels="six")
    )
    assert table.index.name == "emotion"
    assert table.index.tolist() == [*make.SIX, "total"]
    assert table.columns.tolist() == ["train", "valid", "test"]
    assert table["train"].tolist() == [2, 1, 1, 1, 1, 1, 7]


def test_class_without_training_pictures_is_counted(tmp_path: Path) -> None:
    for number, path in enumerate(["train/happy", "valid/happy", "test/happy", "test/fear"]):
        make.save(tmp_path / path / "a.png", number)
    data = load_data("folders", tmp_path, size_px=48, allow_missing_classes=True)
    assert len(data.missing_classes) == 2  # fear in train and valid
    table = count_pictures(data)
    assert table.loc["fear"].tolist() == [0, 0, 1]
    assert table.loc["total"].tolist() == [1, 1, 2]


def test_duplicates_across_splits_and_with_different_labels(tmp_path: Path) -> None:
    one, two, three, four = (make.photograph(seed) for seed in range(4))
    for path, pixels in {
        "train/happy/one.png": one,
        "train/happy/two.png": two,
        "train/happy/two again.png": two,  # one split, one emotion: not reported
        "train/sad/three.png": three,
        "train/happy/three darker.png": three // 2,
        "valid/happy/four.png": four,
        "valid/sad/four.png": four,
        "test/happy/one brighter.png": one // 2 + 120,
        "test/sad/three.png": three,
    }.items():
        make.save(tmp_path / path, pixels)
    table = list_duplicates(load_data("folders", tmp_path, size_px=48, drop_duplicates=False))
    assert table.columns.tolist() == [
        *("path", "split", "emotion", "other_path", "other_split", "other_emotion", "kind")
    ]
    found = {(row.path, row.other_path, row.kind) for row in table.itertuples()}
    assert found == {
        ("train/happy/one.png", "test/happy/one brighter.png", "near"),
        ("train/happy/three darker.png", "train/sad/three.png", "near"),
        ("train/happy/three darker.png", "test/sad/three.png", "near"),
        ("train/sad/three.png", "test/sad/three.png", "equal"),
        ("valid/happy/four.png", "valid/sad/four.png", "equal"),
    }
    assert len(table) == 5
    first = table[table["kind"] == "equal"].iloc[0]
    assert first[["split", "emotion", "other_split", "other_emotion"]].tolist() == [
        *("train", "sadness", "test", "sadness")
    ]


def test_no_duplicates_are_an_empty_table(tmp_path: Path) -> None:
    data = load_data("fer2013", make.make_fer2013(tmp_path), size_px=48, drop_duplicates=False)
    assert list_duplicates(data).empty
