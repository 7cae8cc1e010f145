from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from fer_batch.emotions import EMOTIONS
from fer_batch.errors import StoreDiskFullError, StoreError
from fer_batch.records import Faces, MediaFile, MediaRow, Quality
from fer_batch.results import store
from tests.support import ROOT
from tests.support.results import CARD, CONFIG_HASH, chunk, row, still, write

TABLES = ("media", "frames", "faces")


def media_file(media: str, root: str = "/data", **changes: object) -> MediaFile:
    like = row(media)
    return replace(
        MediaFile(Path(root, media), media, like.kind, like.size_bytes, like.mtime_ns), **changes
    )


def tables(out: Path) -> dict[str, pd.DataFrame]:
    """The three tables as a user reads them, in a fixed order of rows."""
    read = {name: pd.read_parquet(out / name) for name in TABLES}
    keys = [key for key in ("media", "frame_index", "face_index")]
    for name, table in read.items():
        table["media"] = table["media"].astype(str)
        order = [key for key in keys if key in table]
        read[name] = table.sort_values(order, ignore_index=True)
    return read


def assert_same(have: dict[str, pd.DataFrame], want: dict[str, pd.DataFrame]) -> None:
    for name in TABLES:
        pd.testing.assert_frame_equal(have[name], want[name], check_categorical=False)


def temporaries(out: Path) -> list[Path]:
    return [path for path in out.rglob("*") if "tmp" in path.name]


def test_a_video_comes_back_as_it_was_appended(tmp_path: Path) -> None:
    first = chunk("a b/ü.mp4", [1, 0, 2], pts_s=[0.0, 0.1, 0.15])
    second = chunk("a b/ü.mp4", [0, 3], pts_s=[1.0, 7.25], first=5, seed=1)
    write(tmp_path, first, second)

    frames = pd.read_parquet(tmp_path / "frames")
    assert list(frames["media"].unique()) == ["a b/ü.mp4"]
    assert frames["frame_index"].tolist() == [0, 1, 2, 5, 6]
    assert frames["pts_s"].tolist() == [0.0, 0.1, 0.15, 1.0, 7.25]
    assert frames["n_faces"].tolist() == [1, 0, 2, 0, 3]
    damaged = np.concatenate([first.is_damaged, second.is_damaged])
    assert frames["is_damaged"].tolist() == damaged.tolist()

    faces = pd.read_parquet(tmp_path / "faces")
    assert faces["frame_index"].tolist() == [0, 2, 2, 6, 6, 6]
    assert faces["pts_s"].tolist() == [0.0, 0.15, 0.15, 7.25, 7.25, 7.25]
    assert faces["face_index"].tolist() == [0, 0, 1, 0, 1, 2]
    assert faces["track_id"].tolist() == [0, 0, 1, 0, 1, 2]
    for columns, want in {
        ("x1_px", "y1_px", "x2_px", "y2_px"): [first.faces.box_px, second.faces.box_px],
        ("detection_score",): [first.faces.score[:, None], second.faces.score[:, None]],
        EMOTIONS: [first.probs, second.probs],
    }.items():
        np.testing.assert_array_equal(faces[list(columns)], np.concatenate(want))
    points = np.concatenate([first.faces.points_px, second.faces.points_px])
    np.testing.assert_array_equal(np.stack(faces["points_px"]).reshape(-1, 5, 2), points)
    probs = np.concatenate([first.probs, second.probs])
    assert faces["emotion"].tolist() == [EMOTIONS[i] for i in probs.argmax(1)]
    np.testing.assert_array_equal(faces["confidence"], probs.max(1))


def test_writer_that_was_given_up_does_not_disturb_the_next(tmp_path: Path) -> None:
    part = store.part_id(["v.mp4"])
    result = chunk("v.mp4", [1] * 3)

    def writer() -> store.PartWriter:
        return store.PartWriter(tmp_path, part, config_hash=CONFIG_HASH, model_card_json=CARD)

    with writer() as late:
        late.append(chunk("v.mp4", [2] * 100, seed=1))
        with writer() as current:
            current.append(result)
            late.abort()
            current.finish(row("v.mp4"))
            current.commit()
    write(tmp_path / "alone", result)
    assert_same(tables(tmp_path), tables(tmp_path / "alone"))
    assert not temporaries(tmp_path)


def test_columns_and_types_are_the_documented_ones(tmp_path: Path) -> None:
    write(tmp_path, chunk("v.mp4", [1]))
    faces = pq.read_table(tmp_path / "faces").schema
    want = {
        "media": "dictionary<values=string, indices=int32, ordered=0>",
        "frame_index": "int32",
        "pts_s": "double",
        "face_index": "int16",
        "track_id": "int32",
        "is_short": "bool",
        "x1_px": "float",
        "y1_px": "float",
        "x2_px": "float",
        "y2_px": "float",
        "detection_score": "float",
        "points_px": "fixed_size_list<element: float>[10]",
        **dict.fromkeys(Quality.__slots__, "float"),
        "is_usable": "bool",
        **dict.fromkeys(EMOTIONS, "float"),
        "emotion": "dictionary<values=string, indices=int8, ordered=0>",
        "confidence": "float",
    }
    assert {field.name: str(field.type) for field in faces} == want
    frames = pq.read_table(tmp_path / "frames").schema
    assert frames.names == ["media", "frame_index", "pts_s", "n_faces", "is_damaged"]
    assert pq.read_table(tmp_path / "media").schema.names == list(MediaRow.__slots__)


@pytest.mark.parametrize("table", TABLES)
def test_every_file_says_how_it_was_made(tmp_path: Path, table: str) -> None:
    write(tmp_path, chunk("v.mp4", [1]))
    (path,) = (tmp_path / table).iterdir()
    metadata = pq.read_schema(path).metadata
    assert metadata[b"fer_batch.schema_version"] == b"1.1"
    assert metadata[b"fer_batch.config_hash"] == CONFIG_HASH.encode()
    assert metadata[b"fer_batch.model_card"] == CARD.encode()


def test_media_rows_come_back_whole_and_by_name(tmp_path: Path) -> None:
    failed = row(
        "c.mp4",
        status="failed",
        error="no moov atom",
        width_px=None,
        frame_rate=None,
        duration_s=None,
        decoder=None,
        subject="SN001",
        camera="left",
        mtime_ns=2**62,
    )
    write(tmp_path, rows=[failed])
    images = [row("b.png"), row("a/z.png", status="partial")]
    write(tmp_path, still("b.png"), still("a/z.png"), rows=images)
    assert store.media_rows(tmp_path) == [images[1], images[0], failed]


def test_emotions_that_the_model_does_not_know_are_null(tmp_path: Path) -> None:
    result = chunk("v.mp4", [2, 1], n_classes=6)
    result.probs[1] = np.nan  # a face that the network made nothing of
    write(tmp_path, result)
    faces = pq.read_table(tmp_path / "faces")
    assert faces["neutral"].null_count == faces["contempt"].null_count == 3
    assert faces["happiness"].null_count == faces["fear"].null_count == 1
    emotion = faces["emotion"].to_pylist()
    assert emotion[1] is None
    assert faces["confidence"][1].as_py() is None
    assert emotion[0] == EMOTIONS[int(np.nanargmax(result.probs[0]))]


def test_a_still_image_has_no_track_and_its_points_may_be_null(tmp_path: Path) -> None:
    write(tmp_path, still("a.png", 2), still("b.png", 0), still("c.png", 1))
    faces = pq.read_table(tmp_path / "faces")
    assert faces["media"].to_pylist() == ["a.png", "a.png", "c.png"]
    assert faces["track_id"].null_count == faces["points_px"].null_count == 3
    assert pd.read_parquet(tmp_path / "frames")["n_faces"].tolist() == [2, 0, 1]


def test_a_run_without_faces_has_a_readable_table_of_faces(tmp_path: Path) -> None:
    write(tmp_path, chunk("v.mp4", [0, 0]))
    write(tmp_path, still("a.png", 0))
    empty = pd.read_parquet(tmp_path / "faces")
    assert len(empty) == 0
    other = tmp_path / "other"
    write(other, chunk("v.mp4", [1]))
    assert list(empty.columns) == list(pd.read_parquet(other / "faces").columns)


def test_videos_and_images_with_and_without_points_read_as_one_table(tmp_path: Path) -> None:
    write(tmp_path, chunk("v.mp4", [1, 1]))
    write(tmp_path, still("a.png"))
    write(tmp_path, chunk("w.mp4", [1], n_classes=6))
    faces = pd.read_parquet(tmp_path / "faces")
    assert sorted(faces["media"].astype(str)) == ["a.png", "v.mp4", "v.mp4", "w.mp4"]


def test_a_long_video_is_streamed_in_row_groups(tmp_path: Path) -> None:
    results = [chunk("v.mp4", [1] * 1000, first=1000 * i, seed=i) for i in range(20)]
    write(tmp_path, *results)
    (path,) = (tmp_path / "faces").iterdir()
    with pq.ParquetFile(path) as file:
        assert file.num_row_groups >= 2
        assert file.read()["frame_index"].to_pylist() == list(range(20_000))


def test_many_images_share_one_part(tmp_path: Path) -> None:
    names = [f"{i:04}.png" for i in range(600)]
    write(tmp_path, *(still(name) for name in names))
    assert [len(list((tmp_path / table).iterdir())) for table in TABLES] == [1, 1, 1]
    assert pd.read_parquet(tmp_path / "faces")["media"].tolist() == names


def test_part_ids_are_stable_and_depend_on_the_members() -> None:
    assert store.part_id(["a.mp4"]) == store.part_id(("a.mp4",))
    lists = [["a"], ["b"], ["a", "b"], ["b", "a"], ["ab"], []]
    assert len({store.part_id(members) for members in lists}) == len(lists)


def writer(out: Path, part: str = "0123456789abcdef") -> store.PartWriter:
    return store.PartWriter(out, part, config_hash=CONFIG_HASH, model_card_json=CARD)


def test_nothing_is_visible_before_the_commit(tmp_path: Path) -> None:
    write(tmp_path, chunk("v.mp4", [1]))
    before = tables(tmp_path)
    with writer(tmp_path) as part:
        part.append(chunk("w.mp4", [1] * 10_000))
        part.finish(row("w.mp4"))
        assert temporaries(tmp_path)
        assert_same(tables(tmp_path), before)
    assert not temporaries(tmp_path)
    assert_same(tables(tmp_path), before)


def test_an_exception_leaves_no_trace(tmp_path: Path) -> None:
    def fail() -> None:
        with writer(tmp_path) as part:
            part.append(chunk("w.mp4", [1]))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_writer_that_was_late_leaves_alone_what_another_has_committed(tmp_path: Path) -> None:
    with writer(tmp_path, store.part_id(["a.mp4"])) as late:
        late.append(chunk("a.mp4", [1, 2, 0]))
        write(tmp_path, chunk("a.mp4", [1, 2, 0]))
        before = tables(tmp_path)
    assert_same(tables(tmp_path), before)


@pytest.mark.parametrize("n_frames", [1, 20_000])
def test_a_failed_file_keeps_its_media_row_only(tmp_path: Path, n_frames: int) -> None:
    result = chunk("v.mp4", [1] * n_frames)
    write(tmp_path, result, rows=[row("v.mp4", status="failed", error="broken")])
    assert [item.error for item in store.media_rows(tmp_path)] == ["broken"]
    assert len(pd.read_parquet(tmp_path / "frames")) == 0
    assert len(pd.read_parquet(tmp_path / "faces")) == 0
    assert not temporaries(tmp_path)


def test_an_image_part_drops_failed_and_unfinished_files(tmp_path: Path) -> None:
    rows = [row("a.png"), row("b.png", status="failed"), row("d.png", status="partial")]
    write(tmp_path, *(still(f"{name}.png", 2) for name in "abcd"), rows=rows)
    assert [item.media for item in store.media_rows(tmp_path)] == ["a.png", "b.png", "d.png"]
    assert pd.read_parquet(tmp_path / "frames")["media"].tolist() == ["a.png", "d.png"]
    assert pd.read_parquet(tmp_path / "faces")["media"].tolist() == ["a.png"] * 2 + ["d.png"] * 2


def test_pending_is_everything_in_a_new_folder(tmp_path: Path) -> None:
    files = [media_file("b.mp4"), media_file("a.png")]
    assert store.pending(files, tmp_path / "new", config_hash=CONFIG_HASH) == files


@pytest.mark.parametrize("status", ["ok", "partial"])
def test_pending_leaves_out_what_is_done(tmp_path: Path, status: str) -> None:
    write(tmp_path, chunk("v.mp4", [1]), rows=[row("v.mp4", status=status)])
    files = [media_file("v.mp4"), media_file("w.mp4")]
    assert store.pending(files, tmp_path, config_hash=CONFIG_HASH) == files[1:]


@pytest.mark.parametrize(
    "change, config_hash, status",
    [
        ({"size_bytes": 1}, CONFIG_HASH, "ok"),
        ({"mtime_ns": 1}, CONFIG_HASH, "ok"),
        ({}, "other", "ok"),
        ({}, CONFIG_HASH, "failed"),
    ],
)
def test_pending_names_what_changed_or_failed(
    tmp_path: Path, change: dict[str, int], config_hash: str, status: str
) -> None:
    write(tmp_path, chunk("v.mp4", [1]), rows=[row("v.mp4", status=status)])
    files = [media_file("v.mp4", **change)]
    assert store.pending(files, tmp_path, config_hash=config_hash) == files


def test_pending_of_videos_reads_no_other_part(tmp_path: Path) -> None:
    write(tmp_path, chunk("v.mp4", [1]))
    broken = tmp_path / "media" / f"part-{'0' * 16}.parquet"
    broken.write_bytes(b"no table")
    files = [media_file("v.mp4"), media_file("w.mp4")]
    assert store.pending(files, tmp_path, config_hash=CONFIG_HASH) == files[1:]
    with pytest.raises(StoreError, match="damaged"):
        store.pending([*files, media_file("a.png")], tmp_path, config_hash=CONFIG_HASH)


def test_another_file_of_the_same_name_is_refused(tmp_path: Path) -> None:
    write(tmp_path, chunk("sub/v.mp4", [1]))
    other = media_file("sub/v.mp4", "/elsewhere", size_bytes=1)
    with pytest.raises(StoreError, match=r"/elsewhere/sub/v\.mp4.*-o.*--force"):
        store.pending([other], tmp_path, config_hash=CONFIG_HASH)


def test_a_moved_folder_is_still_done(tmp_path: Path) -> None:
    write(tmp_path, chunk("v.mp4", [1]))
    moved = [media_file("v.mp4", "/elsewhere")]
    assert store.pending(moved, tmp_path, config_hash=CONFIG_HASH) == []


def test_forget_takes_files_out_of_videos_and_image_parts(tmp_path: Path) -> None:
    write(tmp_path, chunk("v.mp4", [1, 2]))
    write(tmp_path, chunk("w.mp4", [1]))
    write(tmp_path, still("a.png"), still("b.png"), still("c.png"))
    store.forget(tmp_path, ["v.mp4", "b.png", "never-seen.png"])
    for name, table in tables(tmp_path).items():
        assert sorted(set(table["media"])) == ["a.png", "c.png", "w.mp4"], name
    assert pq.read_schema(next((tmp_path / "faces").iterdir())).metadata
    store.forget(tmp_path, ["a.png", "c.png", "w.mp4"])
    assert store.media_rows(tmp_path) == []
    assert list(tmp_path.rglob("*.parquet")) == []


def test_runs_that_share_a_folder_forget_one_after_the_other(tmp_path: Path) -> None:
    names = [f"{i}.png" for i in range(24)]
    write(tmp_path, *(still(name) for name in names))
    together = threading.Barrier(16, timeout=60)

    def forget(name: str) -> None:
        together.wait()
        store.forget(tmp_path, [name])

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(forget, names[:16]))
    for table in tables(tmp_path).values():
        assert sorted(table["media"]) == sorted(names[16:])
    assert not temporaries(tmp_path)


def test_a_media_file_that_another_run_takes_away_meanwhile_is_passed_over(tmp_path: Path) -> None:
    write(tmp_path, chunk("v.mp4", [1]))
    (tmp_path / "media" / f"part-{'0' * 16}.parquet").symlink_to("gone")  # listed, not there
    assert [item.media for item in store.media_rows(tmp_path)] == ["v.mp4"]


def test_reconcile_leaves_a_sound_run_and_foreign_files_alone(tmp_path: Path) -> None:
    write(tmp_path, chunk("v.mp4", [1]))
    write(tmp_path, still("a.png"), still("b.png"))
    for name in ("notes.txt", "faces/_notes.txt", "frames/.keep", "media/.tmp"):
        (tmp_path / name).write_text("mine")
    before = {p: (p.stat().st_ino, p.read_bytes()) for p in tmp_path.rglob("*") if p.is_file()}
    store.reconcile(tmp_path)
    after = {p: (p.stat().st_ino, p.read_bytes()) for p in tmp_path.rglob("*") if p.is_file()}
    assert after == before


@pytest.mark.parametrize("table", ["frames", "faces"])
def test_a_part_that_lost_a_table_is_pending_again(tmp_path: Path, table: str) -> None:
    write(tmp_path, chunk("v.mp4", [1]))
    write(tmp_path, chunk("w.mp4", [1]))
    (tmp_path / table / f"{store.part_id(['v.mp4'])}.parquet").unlink()
    store.reconcile(tmp_path)
    assert [item.media for item in store.media_rows(tmp_path)] == ["w.mp4"]
    assert set(pd.read_parquet(tmp_path / "frames")["media"]) == {"w.mp4"}


# --- killed at any moment: first by an exception after which nothing works any more ---------------

OLD = {"v.mp4": 1, "w.mp4": 1, "a.png": 1, "b.png": 1, "c.png": 1}
NEW = {"v.mp4": 2, "w.mp4": 1, "x.mp4": 1, "a.png": 1, "b.png": 2, "c.png": 2, "d.png": 1}


def process(out: Path, versions: dict[str, int]) -> None:
    """A run over files whose content is a number: what a pipeline does with the store."""
    files = [media_file(name, size_bytes=version) for name, version in versions.items()]
    with store.lock(out):
        store.reconcile(out)
        todo = store.pending(files, out, config_hash=CONFIG_HASH)
        store.forget(out, [file.media for file in todo])
        images = [file for file in todo if file.kind == "image"]
        for part in [*([file] for file in todo if file.kind == "video"), images]:
            results = [
                still(file.media, 2, seed=file.size_bytes)
                if file.kind == "image"
                else chunk(file.media, [1, 0, 2], seed=file.size_bytes)
                for file in part
            ]
            if part:
                rows = [row(file.media, size_bytes=file.size_bytes) for file in part]
                write(out, *results, rows=rows)


class Killed(BaseException):
    pass


@pytest.fixture
def kill_at(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], None]]:
    """After ``kill_at(n)`` the n-th change of a name, and every later one, raises Killed."""

    def arm(last: int) -> None:
        count = 0

        def dying(function: Callable[..., None]) -> Callable[..., None]:
            def call(*args: object, **kwargs: object) -> None:
                nonlocal count
                count += 1
                if count > last:
                    raise Killed
                function(*args, **kwargs)

            return call

        for name in ("replace", "unlink"):
            monkeypatch.setattr(os, name, dying(getattr(os, name)))

    yield arm
    monkeypatch.undo()


def test_a_kill_between_any_two_steps_loses_and_doubles_nothing(
    tmp_path: Path, kill_at: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    undisturbed = tmp_path / "undisturbed"
    process(undisturbed, OLD)
    shutil.copytree(undisturbed, tmp_path / "old")
    process(undisturbed, NEW)
    want = tables(undisturbed)
    for step in range(100):
        out = shutil.copytree(tmp_path / "old", tmp_path / str(step))
        kill_at(step)
        try:
            process(out, NEW)
            killed = False
        except Killed:
            killed = True
        monkeypatch.undo()
        read = tables(out)
        for name, table in read.items():
            keys = [key for key in ("media", "frame_index", "face_index") if key in table]
            assert not table.duplicated(keys).any(), f"{name} after {step} steps"
        n_frames, n_faces = (read[name]["media"].value_counts() for name in ("frames", "faces"))
        for media in read["media"]["media"]:
            whole = (3, 3) if media.endswith(".mp4") else (1, 2)
            assert (n_frames[media], n_faces[media]) == whole, f"{media} after {step} steps"
        process(out, NEW)
        assert_same(tables(out), want)
        assert not temporaries(out)
        if not killed:
            break
    assert not killed
    assert step > 15


def test_a_kill_while_a_video_is_replaced_leaves_no_old_row_beside_new_faces(
    tmp_path: Path, kill_at: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    for step in range(20):
        out = tmp_path / str(step)
        write(out, chunk("v.mp4", [1]), rows=[row("v.mp4", n_faces=1)])
        kill_at(step)
        try:
            write(out, chunk("v.mp4", [2]), rows=[row("v.mp4", n_faces=2)])
            killed = False
        except Killed:
            killed = True
        monkeypatch.undo()
        store.reconcile(out)
        n_faces = [item.n_faces for item in store.media_rows(out)]
        assert sum(n_faces) == store.read(out, "faces").num_rows, f"after {step} steps"
        if not killed:
            break
    assert n_faces == [2]


KILL = """
import os, signal, sys
from pathlib import Path
from tests.results.test_store import NEW, process
step, real = int(sys.argv[2]), os.replace
def replace(*args):
    global step
    step -= 1
    if step < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*args)
os.replace = replace
process(Path(sys.argv[1]), NEW)
"""


@pytest.mark.parametrize("step", [0, 4, 8])
def test_sigkill_is_survived(tmp_path: Path, step: int) -> None:
    undisturbed, out = tmp_path / "undisturbed", tmp_path / "out"
    process(undisturbed, NEW)
    process(out, OLD)
    command = [sys.executable, "-c", KILL, str(out), str(step)]
    child = subprocess.run(command, cwd=ROOT)
    assert child.returncode == -signal.SIGKILL
    process(out, NEW)
    assert_same(tables(out), tables(undisturbed))
    assert not temporaries(out)


# --- the folder ----------------------------------------------------------------------------------


def test_the_lock_keeps_a_second_run_out(tmp_path: Path) -> None:
    out = tmp_path / "new" / "run"
    with store.lock(out):
        with pytest.raises(StoreError, match="another run is writing to"), store.lock(out):
            pass
        store.write_run(out, {})
    with store.lock(out):
        pass


@pytest.mark.parametrize("first, second", [(True, False), (False, True)])
def test_runs_share_the_lock_only_when_both_want_to(
    tmp_path: Path, first: bool, second: bool
) -> None:
    with (
        store.lock(tmp_path, shared=first),
        pytest.raises(StoreError, match="another run"),
        store.lock(tmp_path, shared=second),
    ):
        pass
    with store.lock(tmp_path, shared=True), store.lock(tmp_path, shared=True):
        pass


def test_the_lock_is_free_again_after_an_exception(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), store.lock(tmp_path):
        raise ZeroDivisionError
    with store.lock(tmp_path):
        pass


def test_an_output_that_is_a_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("mine")
    with (
        pytest.raises(StoreError, match=r"notes\.txt is a file: choose a folder"),
        store.lock(file),
    ):
        pass
    below = file / "out"
    with pytest.raises(StoreError, match="cannot be written"), store.lock(below):
        pass
    assert file.read_text() == "mine"


@pytest.mark.skipif(os.geteuid() == 0, reason="permissions do not stop root")
def test_an_output_without_permission_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(StoreError, match="cannot be written"), store.lock(tmp_path / "out"):
        pass


def test_a_folder_with_other_files_is_taken_and_they_stay(tmp_path: Path) -> None:
    (tmp_path / "holiday.jpg").write_text("mine")
    process(tmp_path, OLD)
    assert (tmp_path / "holiday.jpg").read_text() == "mine"


def test_tables_of_another_version_are_refused(tmp_path: Path) -> None:
    write(tmp_path, chunk("v.mp4", [1]))
    (path,) = (tmp_path / "media").iterdir()
    table = pq.read_table(path)
    metadata = {**table.schema.metadata, b"fer_batch.schema_version": b"99"}
    pq.write_table(table.replace_schema_metadata(metadata), path)
    for function in (store.media_rows, store.reconcile, lambda out: store.read(out, "faces")):
        with pytest.raises(StoreError, match=r"version 99.*knows 1.*-o"):
            function(tmp_path)


def test_a_damaged_media_file_is_named(tmp_path: Path) -> None:
    write(tmp_path, chunk("v.mp4", [1]))
    (path,) = (tmp_path / "media").iterdir()
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(StoreError, match=f"{path.name} cannot be read"):
        store.reconcile(tmp_path)


def test_read_gives_chosen_files_and_columns(tmp_path: Path) -> None:
    write(tmp_path, chunk("v.mp4", [1, 1]))
    write(tmp_path, still("a.png"), still("b.png"))
    rows = store.read(tmp_path, "faces", media=["v.mp4", "b.png"], columns=["media"])
    assert sorted(rows["media"].to_pylist()) == ["b.png", "v.mp4", "v.mp4"]
    assert rows.column_names == ["media"]


@pytest.mark.parametrize("name", [".", "missing"])
def test_read_wants_a_run(tmp_path: Path, name: str) -> None:
    with pytest.raises(StoreError, match="not the output folder of a run"):
        store.read(tmp_path / name, "faces")


def test_run_json_comes_back(tmp_path: Path) -> None:
    run: dict[str, object] = {"config": {"track": {"min_iou": 0.3}}, "files": ["ü.mp4"], "n": None}
    store.write_run(tmp_path, {"old": True})
    store.write_run(tmp_path, run)
    assert store.read_run(tmp_path) == run
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]


@pytest.mark.parametrize("text", [None, "{", "\udcff"])
def test_a_missing_or_broken_run_json_is_said_so(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "run.json").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(StoreError, match=r"run.json cannot be read"):
        store.read_run(tmp_path)


# --- the disk is full ----------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)]
    try:
        mounted = subprocess.run(mount, capture_output=True).returncode == 0
    except FileNotFoundError:
        mounted = False
    if not mounted:
        pytest.skip("a tmpfs cannot be mounted here")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_full_disk_is_told_apart_and_keeps_what_is_finished(small_disk: Path) -> None:
    out = small_disk / "out"
    write(out, chunk("v.mp4", [1, 2]))
    before = tables(out)
    with pytest.raises(StoreDiskFullError, match="no space left"):
        write(out, *(chunk("w.mp4", [1] * 1000, first=1000 * i) for i in range(20)))
    assert not temporaries(out)
    store.reconcile(out)
    assert_same(tables(out), before)
    (out / "ballast").write_bytes(bytes(1000))  # the space was given back


@pytest.mark.parametrize(
    "code, error",
    [
        (errno.ENOSPC, StoreDiskFullError),
        (errno.EDQUOT, StoreDiskFullError),
        (errno.EIO, StoreError),
    ],
)
@pytest.mark.parametrize("function", ["fsync", "replace"])
def test_errors_of_the_disk_at_the_commit(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    function: str,
    code: int,
    error: type[StoreError],
) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise OSError(code, os.strerror(code))

    write(tmp_path, chunk("v.mp4", [1]))
    before = tables(tmp_path)
    monkeypatch.setattr(os, function, fail)
    with pytest.raises(StoreError) as caught:
        write(tmp_path, chunk("w.mp4", [1]))
    assert type(caught.value) is error
    with pytest.raises(error):
        store.write_run(tmp_path, {})
    monkeypatch.undo()
    store.reconcile(tmp_path)
    assert_same(tables(tmp_path), before)
    assert not temporaries(tmp_path)


def test_no_faces_but_a_points_array_of_no_rows(tmp_path: Path) -> None:
    none = np.empty((0, 4), np.float32)
    result = chunk("v.mp4", [0])
    faces = Faces(np.empty(0, np.int64), none, none[:, 0], np.empty((0, 5, 2), np.float32))
    write(tmp_path, replace(result, faces=faces))
    assert pd.read_parquet(tmp_path / "frames")["n_faces"].tolist() == [0]
