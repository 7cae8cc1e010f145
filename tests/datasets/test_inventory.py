"""What a data set holds: counts by emotion, and pictures that stand twice."""

from pathlib import Path

from fer_batch.datasets.inventory import counts, duplicates
from fer_batch.datasets.pictures import load_data
from tests.support import datasets_made as make


def test_counts_by_emotion_and_split(tmp_path: Path) -> None:
    table = counts(load_data("ferplus", make.make_ferplus(tmp_path), size_px=48, labels="six"))
    assert table.index.name == "emotion"
    assert table.index.tolist() == [*make.SIX, "total"]
    assert table.columns.tolist() == ["train", "valid", "test"]
    assert table["train"].tolist() == [2, 1, 1, 1, 1, 1, 7]


def test_duplicates_across_splits_and_labels_at_odds(tmp_path: Path) -> None:
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
    table = duplicates(load_data("folders", tmp_path, size_px=48, drop_duplicates=False))
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
    assert duplicates(data).empty
