"""The definition of the columns, and runs whose tables have another version."""

from __future__ import annotations

import typing
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fer_batch.errors import StoreError
from fer_batch.records import MediaRow
from fer_batch.results import store, timeline
from fer_batch.results.columns import EXPLANATIONS, TABLES, VERSION
from fer_batch.results.tables import Column
from tests.results.test_store import media_file
from tests.support.results import CONFIG_HASH, add_column, chunk, row, still, write

UNITS = {"px": "pixels", "s": "seconds", "ns": "nanoseconds", "bytes": "bytes", "deg": "degrees"}
COLUMNS = [
    pytest.param(column, id=f"{name}.{column.name}")
    for name, table in (*TABLES.items(), ("explanations", EXPLANATIONS))
    for column in table.columns
]


def rewrite(out: Path, version: str, *, change: Callable[[str, pa.Table], pa.Table]) -> None:
    """Give the tables of a run another version and another content, without texts for columns."""
    for name in TABLES:
        for path in (out / name).iterdir():
            old = pq.read_table(path)
            metadata = {**old.schema.metadata, b"fer_batch.schema_version": version.encode()}
            new = change(name, old)
            fields = [field.remove_metadata() for field in new.schema]
            pq.write_table(new.cast(pa.schema(fields, metadata)), path)


def lacking(name: str, table: pa.Table) -> pa.Table:
    return table.drop_columns({"media": ["subject"]}.get(name, ["is_new"]))


@pytest.mark.parametrize("column", COLUMNS)
def test_every_column_is_described(column: Column) -> None:
    assert column.description.endswith(".")
    assert ("Missing" in column.description) == column.is_nullable
    suffix = column.name.rpartition("_")[2]
    assert column.unit == UNITS.get(suffix, column.unit)


def test_media_has_the_fields_of_its_rows() -> None:
    types = typing.get_type_hints(MediaRow)
    assert [column.name for column in TABLES["media"].columns] == list(types)
    for column in TABLES["media"].columns:
        assert column.is_nullable == (type(None) in typing.get_args(types[column.name]))


@pytest.mark.parametrize("name", TABLES)
def test_files_hold_description_and_unit_of_their_columns(tmp_path: Path, name: str) -> None:
    write(tmp_path, chunk("v.mp4", [1]))
    [path] = (tmp_path / name).iterdir()
    schema = pq.read_schema(path)
    for column in TABLES[name].columns:
        texts = schema.field(column.name).metadata
        assert texts[b"description"].decode() == column.description
        assert texts.get(b"unit", b"").decode() == (column.unit or "")


@pytest.fixture
def older(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run of version 1, which lacks columns that are known now."""
    for name in ("frames", "faces"):
        add_column(monkeypatch, name, "is_new")
    write(tmp_path, chunk("v.mp4", [1, 2]))
    write(tmp_path, still("a.png"), still("b.png"))
    rewrite(tmp_path, "1", change=lacking)
    return tmp_path


def test_an_older_run_is_read_with_nulls_in_new_columns(older: Path) -> None:
    assert [item.subject for item in store.media_rows(older)] == [None] * 3
    for table in (timeline.load(older), timeline.load_frames(older)):
        assert set(table["media"]) == {"a.png", "b.png", "v.mp4"}
        assert table["is_new"].isna().all()
    assert timeline.load_media(older)["subject"].isna().all()
    assert timeline.summary(older)["frames"].tolist() == [1, 1, 2]


def test_an_older_run_is_continued(older: Path) -> None:
    files = [media_file(name) for name in ("v.mp4", "a.png", "w.mp4")]
    store.reconcile(older)
    assert store.pending(files, older, config_hash=CONFIG_HASH) == files[2:]
    store.forget(older, ["a.png"])
    write(older, chunk("w.mp4", [1]), rows=[row("w.mp4", subject="SN001")])
    assert [item.subject for item in store.media_rows(older)] == [None, None, "SN001"]
    faces = timeline.load(older)
    assert faces["media"].tolist() == ["b.png", *["v.mp4"] * 3, "w.mp4"]
    assert faces["is_new"].notna().tolist() == [False] * 4 + [True]


def same(name: str, table: pa.Table) -> pa.Table:
    return table


@pytest.mark.parametrize("change", [same, lacking])
def test_pandas_reads_old_and_new_parts_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[str, pa.Table], pa.Table]
) -> None:
    for name in ("frames", "faces"):
        add_column(monkeypatch, name, "is_new")
    write(tmp_path, chunk("v.mp4", [1, 2]))
    write(tmp_path, still("a.png"))
    rewrite(tmp_path, "1", change=change)
    for name in ("w.mp4", "x.mp4", "y.mp4"):  # their files come before and after the old ones
        write(tmp_path, chunk(name, [1]))
    for name in TABLES:
        table = pd.read_parquet(tmp_path / name)
        assert set(table["media"]) == {"a.png", "v.mp4", "w.mp4", "x.mp4", "y.mp4"}


def test_a_newer_minor_version_is_read_without_its_new_columns(tmp_path: Path) -> None:
    def with_more(name: str, table: pa.Table) -> pa.Table:
        return table.append_column("of_the_future", pa.array(range(len(table))))

    write(tmp_path, chunk("v.mp4", [1, 2]))
    rows = store.media_rows(tmp_path)
    faces = timeline.load(tmp_path)
    major = VERSION.partition(".")[0]
    rewrite(tmp_path, f"{major}.99", change=with_more)
    assert store.media_rows(tmp_path) == rows
    pd.testing.assert_frame_equal(timeline.load(tmp_path), faces)


@pytest.mark.parametrize("version", ["0.9", "2", "10.0", "?"])
def test_another_major_version_is_refused(tmp_path: Path, version: str) -> None:
    write(tmp_path, chunk("v.mp4", [1]))
    rewrite(tmp_path, version, change=same)
    with pytest.raises(StoreError, match=rf"version {version.replace('?', '.')}, .* knows 1.*-o"):
        timeline.load(tmp_path)
