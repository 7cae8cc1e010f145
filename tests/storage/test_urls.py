"""Inputs and outputs behind URLs: all as with local ones, from a real S3 server or from memory."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import av
import pandas as pd
import pytest
from PIL import Image

from fer_batch.config import load
from fer_batch.errors import MediaError, StoreError
from fer_batch.media import discovery
from fer_batch.pipeline import process as pipeline
from fer_batch.results import store, timeline
from fer_batch.storage import urls
from tests.support import ROOT
from tests.support.clips import clip
from tests.support.command import run
from tests.support.portraits import portrait, portraits
from tests.support.results import CONFIG_HASH, chunk, row, still, write

CONFIG = load(None)
NAMES = ["b.mp4", "a/deep/c.JPG", "a/b.mkv", "a/notes.txt", "B.png", ".hidden.mp4", "~$x.mp4"]
NAMES += [".git/a.mp4", "a.mp4.part", "a.TMP.mp4", "__MACOSX/a.mp4", "odd #?%20é.mp4"]
NAMES += ["out/run.json", "out/faces/x.parquet", "out/annotated/a.mp4"]
NAMES += ["killed/.lock", "killed/faces/x.parquet", "killed/annotated/a.mp4"]
NAMES += ["faces/b.jpg", "project/run.json", "project/c.mp4", "in/faces/d.jpg", "in/x/run.json"]
NAMES += ["Videos_LeftCamera/LeftVideoSN001_comp.avi"]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(params=["s3", "memory"])
def place(request: pytest.FixtureRequest) -> Path:
    """A URL below which there is nothing."""
    if request.param == "memory":
        return urls.path_of(f"memory://{uuid.uuid4().hex}")
    bucket: Path = request.getfixturevalue("bucket")
    return bucket / "videos"


@pytest.fixture
def requests(bucket: Path) -> list[str]:
    """What is asked of the server from now on, as METHOD path."""
    asked: list[str] = []

    def note(request: object, **_: object) -> None:
        asked.append(f"{request.method} {urlsplit(request.url).path}")  # type: ignore[attr-defined]

    bucket.fs.s3.meta.events.register("before-send.s3", note)
    return asked


def upload(folder: Path, url: Path) -> Path:
    for file in folder.rglob("*"):
        if file.is_file():
            (url / file.relative_to(folder).as_posix()).write_bytes(file.read_bytes())
    return url


def save(folder: Path, *names: str, n_faces: int = 1) -> Path:
    """Videos and still images with faces."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".mp4":
            clip(path, portraits(n_faces, 6))
        else:
            Image.fromarray(portrait(n_faces)).save(path)
    return folder


def tables(out: Path) -> dict[str, pd.DataFrame]:
    media_table = timeline.load_media(out).drop(columns=["seconds", "mtime_ns", "root"])
    frames, faces = timeline.load_frames(out), timeline.load(out)
    return {"media": media_table, "frames": frames, "faces": faces}


def assert_same(out: Path, expected: Path) -> None:
    want = tables(expected)
    for name, table in tables(out).items():
        pd.testing.assert_frame_equal(table, want[name], atol=1e-5, rtol=0, obj=name)


@pytest.mark.parametrize("text", ["/data/x", "file:///data/x", "x", "local:///data/x"])
def test_a_local_path_is_a_plain_one(text: str) -> None:
    path = urls.path_of(text)
    assert type(path) is type(Path())
    assert str(path) == text.partition("://")[2] or path == Path(text)
    assert not urls.is_url(path)


def test_a_url_keeps_its_slashes_and_is_taken_again() -> None:
    path = urls.path_of("memory://bucket/a b/#?.mp4")
    assert urls.is_url(path)
    assert str(urls.path_of(path)) == str(path) == "memory://bucket/a b/#?.mp4"
    assert str(urls.join("memory://bucket", "a/b.mp4")) == "memory://bucket/a/b.mp4"


def test_the_same_files_are_found_as_in_a_folder(tmp_path: Path, place: Path) -> None:
    for name in NAMES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    upload(tmp_path, place)
    local, remote = discovery.find([tmp_path]), discovery.find([place])
    assert len(local) > 6
    for here, there in zip(local, remote, strict=True):
        assert there.media == here.media
        assert (there.kind, there.subject, there.camera) == (here.kind, here.subject, here.camera)
        assert there.size_bytes == here.size_bytes
        assert str(there.path) == f"{place}/{here.media}"
        assert urls.stamp(there.path) == (there.size_bytes, there.mtime_ns)
        assert there.path.read_bytes() == here.path.read_bytes()


def test_several_urls_have_their_common_parent_as_root(place: Path) -> None:
    for name in ["day1/a.mp4", "day2/b.mp4", "day2/.c.mp4", "day20/d.mp4", "scan"]:
        (place / name).write_bytes(b"1")

    def names(*inputs: str) -> list[str]:
        return [file.media for file in discovery.find([place / each for each in inputs])]

    assert names("day1", "day2") == names("day2", "day1/a.mp4") == ["day1/a.mp4", "day2/b.mp4"]
    assert names("day2", "day2/b.mp4") == ["b.mp4"]
    assert names("day2/b.mp4", "day2/.c.mp4") == [".c.mp4", "b.mp4"]
    assert names("scan") == ["scan"]


def test_objects_that_stand_for_folders_are_none(bucket: Path) -> None:
    for key in ("in/", "in/a/", "in//b.mp4"):
        bucket.fs.pipe_file(f"{bucket.path}{key}", b"1")
    assert [file.media for file in discovery.find([bucket / "in"])] == ["/b.mp4"]


def test_inputs_that_do_not_fit_together(tmp_path: Path, place: Path) -> None:
    (place / "a.mp4").write_bytes(b"1")
    with pytest.raises(MediaError, match="local files and URLs cannot be in one run"):
        discovery.find([tmp_path, place])
    with pytest.raises(MediaError, match=r"absent: there is no such file or folder"):
        discovery.find([place, place / "absent"])
    urls.path_of("memory://other/a.mp4").write_bytes(b"1")
    urls.path_of("memory://another/a.mp4").write_bytes(b"1")
    with pytest.raises(MediaError, match="no folder in common"):
        discovery.find([urls.path_of("memory://other"), urls.path_of("memory://another")])


def test_a_thousand_objects_are_one_request(bucket: Path, requests: list[str]) -> None:
    for number in range(20):
        (bucket / f"in/{number % 7}/{number}.mp4").write_bytes(b"1")
    requests.clear()
    assert len(discovery.find([bucket / "in"])) == 20
    assert len(requests) == 1


def test_tables_are_those_of_a_local_run(tmp_path: Path, place: Path) -> None:
    save(tmp_path / "in", "a/clip.mp4", "still.png", n_faces=3)
    save(tmp_path / "in", "a/none.mp4", "none.jpg", n_faces=0)
    (tmp_path / "in/broken.mp4").write_bytes(b"no video")
    source = upload(tmp_path / "in", place / "in")
    pipeline.process([tmp_path / "in"], tmp_path / "out", CONFIG)
    summary = pipeline.process([source], place / "out", CONFIG)
    assert (summary.n_ok, summary.n_failed) == (4, 1)
    here, there = (
        {item.media: item for item in store.media_rows(out)}
        for out in (tmp_path / "out", place / "out")
    )
    error = str(here["broken.mp4"].error)
    assert there["broken.mp4"].error == error.replace(str(tmp_path / "in"), str(source))
    for out in (tmp_path / "out", place / "out"):
        store.forget(out, ["broken.mp4"])
    assert_same(place / "out", tmp_path / "out")


def test_second_run_does_only_what_is_missing_or_changed(tmp_path: Path, place: Path) -> None:
    source = upload(save(tmp_path, "a.mp4", "b.mp4", "c.png"), place / "in")
    out = place / "in/out"
    assert pipeline.process([source], out, CONFIG).n_ok == 3
    assert pipeline.process([source], out, CONFIG).n_skipped == 3
    (source / "a.mp4").write_bytes(
        save(tmp_path, "d.mp4", n_faces=2).joinpath("d.mp4").read_bytes()
    )
    (source / "e.png").write_bytes((tmp_path / "c.png").read_bytes())
    summary = pipeline.process([source], out, CONFIG)
    assert (summary.n_ok, summary.n_skipped) == (2, 2)
    assert timeline.load(out, media="a.mp4")["track_id"].nunique() == 2
    assert len(timeline.load(out)) == 12 + 6 + 2


def test_an_object_that_vanished_fails_alone(
    tmp_path: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = upload(save(tmp_path, "a.png", "b.png"), place / "in")
    found = discovery.find([source])
    (source / "a.png").unlink()
    monkeypatch.setattr(discovery, "find", lambda inputs: found)
    summary = pipeline.process([source], tmp_path / "out", CONFIG)
    assert (summary.n_ok, summary.n_failed) == (1, 1)
    [problem] = summary.problems
    assert problem.error.startswith(f"{source}/a.png: cannot be fetched")


def test_names_in_a_folder(tmp_path: Path, place: Path) -> None:
    for folder in (tmp_path, place):
        (folder / "sub").mkdir()
        (folder / "a b.1").write_bytes(b"")
        (folder / "sub" / "c.1").write_bytes(b"")
        assert sorted(urls.names(folder)) == ["a b.1", "sub"]
        assert urls.names(folder / "absent") == []


def replace_and_fail(path: Path) -> None:
    with urls.replacing(path) as temporary:
        temporary.write_bytes(b"half of the n")
        raise ZeroDivisionError


@pytest.mark.parametrize("is_local", [True, False])
def test_a_file_is_replaced_as_a_whole_or_not_at_all(
    tmp_path: Path, place: Path, monkeypatch: pytest.MonkeyPatch, is_local: bool
) -> None:
    folder = tmp_path / "results" if is_local else place
    urls.make_folder(folder)
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    path = folder / "a.txt"
    urls.write(path, b"old")
    with pytest.raises(ZeroDivisionError):
        replace_and_fail(path)
    assert urls.read(path) == b"old"
    with urls.replacing(path) as temporary:
        temporary.write_bytes(b"new")
        assert urls.read(path) == b"old"
    assert urls.read(path) == b"new"
    assert urls.names(folder) == ["a.txt"]
    assert [*(tmp_path / "temporary").iterdir()] == []


def test_the_content_is_on_the_disk_before_the_name_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.txt"
    urls.write(path, b"old")

    def fail(descriptor: int) -> None:
        raise OSError("the disk does not answer")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="does not answer"):
        urls.write(path, b"new")
    assert path.read_bytes() == b"old"
    assert urls.names(tmp_path) == ["a.txt"]


def test_what_killed_writers_left_is_removed(tmp_path: Path) -> None:
    urls.temporary_for(tmp_path / "a.txt").write_bytes(b"half of")
    (tmp_path / ".hidden").touch()
    urls.remove_temporaries(tmp_path)
    assert urls.names(tmp_path) == [".hidden"]


def test_the_source_of_a_row(place: Path) -> None:
    (place / "a.mp4").write_bytes(b"1234")
    [file] = discovery.find([place])
    known = row("a.mp4", root=str(place), size_bytes=4, mtime_ns=file.mtime_ns)
    assert discovery.source_of(known) == file
    (place / "a.mp4").write_bytes(b"12345")
    with pytest.raises(MediaError, match="has changed"):
        discovery.source_of(known)
    (place / "a.mp4").unlink()
    with pytest.raises(MediaError, match="cannot be read"):
        discovery.source_of(known)


def test_a_killed_run_is_tidied_up(place: Path) -> None:
    write(place, chunk("v.mp4", [1, 2]))
    write(place, still("a.png"), still("b.png"))
    write(place, chunk("w.mp4", [1]))
    (place / "media" / f"part-{store.part_id(['w.mp4'])}.parquet").unlink()
    store.forget(place, ["a.png"])
    store.reconcile(place)
    assert [item.media for item in store.media_rows(place)] == ["b.png", "v.mp4"]
    assert set(timeline.load(place)["media"]) == {"b.png", "v.mp4"}
    (place / "faces" / f"{store.part_id(['v.mp4'])}.parquet").unlink()
    store.reconcile(place)
    assert [item.media for item in store.media_rows(place)] == ["b.png"]


def test_nothing_is_left_on_this_disk(
    tmp_path: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    write(place, chunk("v.mp4", [1]))
    store.write_run(place, {"a": 1})
    with store.PartWriter(place, "0" * 16, config_hash=CONFIG_HASH, model_card_json="{}") as part:
        part.append(chunk("w.mp4", [1]))  # not committed
    assert store.read_run(place) == {"a": 1}
    assert [*tmp_path.iterdir()] == []


def test_pandas_reads_the_tables(bucket: Path) -> None:
    write(bucket / "out", chunk("v.mp4", [1, 2]))
    assert len(pd.read_parquet(f"{bucket}out/faces")) == 3


def test_everything_from_the_command_line(
    tmp_path: Path, bucket: Path, requests: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    save(tmp_path, "deep/clip.mp4", "still.png")
    source, out = upload(tmp_path, bucket / "in"), bucket / "out"
    assert run("process", str(source), "-o", str(out), "--annotate") == 0
    assert f"tables: {out}/media" in capsys.readouterr().out
    assert run("show", str(out)) == 0
    assert "deep/clip.mp4" in capsys.readouterr().out
    assert run("sheet", str(out)) == 0
    names = {entry.name for entry in urls.listing(out)}
    assert {"annotated/deep/clip.mp4", "annotated/still.png"} <= names
    assert {"sheets/run-001.png", "sheets/images.png", "sheets/deep/clip.mp4.png"} <= names
    clip_of_s3 = tmp_path / "annotated.mp4"
    clip_of_s3.write_bytes((out / "annotated/deep/clip.mp4").read_bytes())
    with av.open(str(clip_of_s3)) as video:
        assert len([*video.decode(video=0)]) == 6

    requests.clear()
    assert run("render", str(out)) == run("sheet", str(out)) == 0
    assert run("process", str(source), "-o", str(out)) == 0
    written = {name for name in requests if name.startswith("PUT") and "/.locks/" not in name}
    assert {name.rpartition("/")[2] for name in written} <= {".lock", "run.json"}


@pytest.mark.slow
def test_explanations_replace_older_ones(tmp_path: Path, place: Path) -> None:
    source, out = upload(save(tmp_path, "a.png"), place / "in"), place / "out"
    pipeline.process([source], out, CONFIG)
    assert run("explain", str(out), "--pictures=1") == 0
    names = {entry.name for entry in urls.listing(out / "explain")}
    assert {"summary.md", "summary.csv", "explanations.parquet"} < names
    assert any(name.startswith("faces/") for name in names)
    assert run("explain", str(out), "--pictures=0") == 0
    names = {entry.name for entry in urls.listing(out / "explain")}
    assert "summary.md" in names
    assert not any(name.startswith("faces/") for name in names)


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["process", "foo://x", "-o", "OUT"], "foo://x: there is no protocol foo://"),
        (["process", "s3://no-such-bucket/in", "-o", "OUT"], "bucket does not exist"),
        (["process", "BUCKET/in", "-o", "s3://no-such-bucket"], "bucket does not exist"),
        (["process", "BUCKET/nothing", "-o", "OUT"], "nothing: there is no such file or folder"),
        (["process", "BUCKET/in", "OUT", "-o", "OUT"], "local files and URLs cannot be in one run"),
        (["show", "BUCKET/nothing"], "is not the output folder of a run"),
        (["render", "BUCKET/nothing"], "is not the output folder of a finished run"),
        (["explain", "s3://no-such-bucket/out"], "is not the output folder of a finished run"),
    ],
)
def test_mistake_is_one_line_and_exit_code_2(
    tmp_path: Path,
    bucket: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    said: str,
) -> None:
    (bucket / "in/a.mp4").write_bytes(b"1")
    places = {"BUCKET": str(bucket).rstrip("/"), "OUT": str(tmp_path)}
    for name, path in places.items():
        arguments = [argument.replace(name, path) for argument in arguments]
    assert run(*arguments) == 2
    error = capsys.readouterr().err
    assert said in error
    assert len([line for line in error.splitlines() if line.startswith("fer-batch")]) == 1


@pytest.mark.parametrize(
    "environment, said",
    [
        ({"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}, "set AWS_ACCESS_KEY_ID"),
        pytest.param(
            {"AWS_ENDPOINT_URL": "http://127.0.0.1:9"},
            "AWS_ENDPOINT_URL",
            marks=pytest.mark.slow,  # it is tried again for seconds
        ),
    ],
)
@pytest.mark.parametrize("function", ["discovery.find([path])", "store.lock(path).__enter__()"])
def test_server_that_cannot_be_used(
    bucket: Path, environment: dict[str, str], function: str, said: str
) -> None:
    code = f"""if True:
        from fer_batch.media import discovery
        from fer_batch.results import store
        from fer_batch.storage import urls
        from fer_batch.errors import FerError
        path = urls.path_of("{bucket}in")
        try:
            {function}
        except FerError as error:
            print(error)
    """
    environment = {**os.environ, **environment, "AWS_EC2_METADATA_DISABLED": "true"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert said in done.stdout


def test_credentials_that_are_not_enough(s3: str, bucket: Path) -> None:
    def allow(n_requests: int) -> None:
        text = {"Content-Type": "text/plain"}
        url = f"{s3}/moto-api/reset-auth"
        urlopen(Request(url, f"{n_requests}".encode(), text, method="POST")).close()

    write(bucket / "out", chunk("v.mp4", [1]))
    allow(0)
    try:
        with pytest.raises(MediaError, match="credentials in use do not allow it"):
            discovery.find([bucket / "in"])
        with pytest.raises(StoreError, match="credentials in use do not allow it"):
            store.lock(bucket / "out").__enter__()
        with pytest.raises(StoreError, match="credentials in use do not allow it"):
            store.media_rows(bucket / "out")
    finally:
        allow(1 << 60)


def test_missing_package_is_named() -> None:
    code = """if True:
        import sys
        sys.modules["s3fs"] = None
        from fer_batch.cli.main import main
        main(["show", "s3://bucket/out"])
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "pip install" in done.stderr
    assert "[s3]'" in done.stderr


KILLED = """
import os, signal, sys
from fer_batch.pipeline import process as pipeline
from fer_batch.storage import urls
from tests.storage.test_urls import CONFIG
source, out, step = sys.argv[1:]
left, real = int(step), urls.publish
def publish(*where):
    global left
    left -= 1
    if left < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    real(*where)
urls.publish = publish
pipeline.process([urls.path_of(source)], urls.path_of(out), CONFIG)
"""


@pytest.mark.slow
def test_killed_between_uploads_the_next_run_finishes_the_work(
    tmp_path: Path, bucket: Path
) -> None:
    source = upload(save(tmp_path / "in", "a.mp4", "c.png", "d.png"), bucket / "in")
    pipeline.process([tmp_path / "in"], tmp_path / "out", CONFIG)
    for step in range(0, 20, 2):
        out = bucket / f"out{step}"
        command = [sys.executable, "-c", KILLED, str(source), str(out), str(step)]
        killed = subprocess.run(command, cwd=ROOT, check=False).returncode
        for name, table in tables(out).items() if urls.listing(out / "media") else ():
            keys = [key for key in ("media", "frame_index", "face_index") if key in table]
            assert not table.duplicated(keys).any(), f"{name} after {step} uploads"
        pipeline.process([source], out, CONFIG)
        assert_same(out, tmp_path / "out")
        if not killed:
            break
    assert not killed
    assert step >= 8  # three tables of each of two parts, run.json, and the lock that is given back
