"""Shards done by real processes, which files, signals and disks end in all ways."""

import os
import subprocess
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from fer_batch.config import load
from fer_batch.distributed.shared_run import SharedRun, join_run
from fer_batch.distributed.supervisor import do_shard, run_command
from fer_batch.errors import StoreDiskFullError, StoreError, UnavailableError
from fer_batch.pipeline import process as pipeline
from fer_batch.pipeline.plan import make_plan
from fer_batch.results import store, timeline
from fer_batch.storage import urls
from tests.support.clips import clip
from tests.support.portraits import portrait, portraits

CONFIG = load(None, ["runtime.threads=1"])
FAULTS = """
    import os, signal, time
    from pathlib import Path
    from fer_batch.media.decode import FrameReader

    enter = FrameReader.__enter__

    def faulty(self):
        name = self._file.path.name
        if "killer" in name:
            os.kill(os.getpid(), signal.SIGSEGV)
        if "sleeper" in name:
            time.sleep(600)
        if "flaky" in name and not Path(os.environ["MENDED"]).exists():
            raise OSError(5, "Input/output error")
        return enter(self)

    FrameReader.__enter__ = faulty
"""


@pytest.fixture
def _faults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes started from here crash, hang or lose the disk at files of these names."""
    folder = tmp_path / "faults"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(textwrap.dedent(FAULTS))
    paths = [str(folder), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    monkeypatch.setenv("MENDED", str(tmp_path / "mended"))


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


@pytest.fixture
def save(tmp_path: Path) -> Callable[..., Path]:
    def make(*names: str) -> Path:
        folder = tmp_path / "media"
        for number, name in enumerate(names):
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.suffix == ".mp4":
                clip(path, portraits(1, 4))
            else:
                Image.fromarray(portrait(1, number)).save(path)
        return folder

    return make


def do_all(
    folder: Path, out: Path, *, timeout_s: float = 300, split_mb: float = 1e6
) -> dict[str, str]:
    """Status of every file after one process has done all shards, one after the other."""
    plan = make_plan([folder], out, CONFIG)
    with join_run(plan, out, max_mb=1000, split_mb=split_mb, lease_s=60) as run:
        while shards := run.free_shards():
            for number in shards:
                assert do_shard(out, number, timeout_s=timeout_s)
    return {row.media: row.status for row in store.media_rows(out)}


def test_shards_give_what_one_process_gives(save: Callable[..., Path], tmp_path: Path) -> None:
    folder = save("a.mp4", "b.mp4", "c.png", "d.png")
    assert set(do_all(folder, tmp_path / "shards").values()) == {"ok"}
    pipeline.process([folder], tmp_path / "one", CONFIG)
    shards, one = timeline.load(tmp_path / "shards"), timeline.load(tmp_path / "one")
    assert shards.round(4).equals(one.round(4))
    run = store.read_run(tmp_path / "shards")
    assert run["counts"]["n_ok"] == 4


@pytest.mark.slow
def test_shards_on_s3_give_what_one_process_gives(
    save: Callable[..., Path], tmp_path: Path, s3: str
) -> None:
    bucket = urls.path_of("s3://shards")
    bucket.mkdir()
    folder = save("a.mp4", "b.mp4", "c.png")
    for path in folder.iterdir():
        (bucket / "in" / path.name).write_bytes(path.read_bytes())
    assert set(do_all(bucket / "in", bucket / "out", split_mb=0.02).values()) == {"ok"}
    pipeline.process([folder], tmp_path / "one", CONFIG)
    shards, one = timeline.load(bucket / "out"), timeline.load(tmp_path / "one")
    assert shards.round(4).equals(one.round(4))


@pytest.mark.slow
def test_pieces_give_what_one_process_gives(tmp_path: Path) -> None:
    path = tmp_path / "media" / "long.mp4"
    path.parent.mkdir()
    source = clip(path, portraits(2, 60), options={"g": "10"})
    n_mb = source.stat().st_size / 1e6
    assert do_all(source, tmp_path / "pieces", split_mb=n_mb / 2.5) == {"long.mp4": "ok"}
    pipeline.process([source], tmp_path / "one", CONFIG)
    pieces, one = timeline.load(tmp_path / "pieces"), timeline.load(tmp_path / "one")
    assert pieces.round(4).equals(one.round(4))
    assert [path for path in (tmp_path / "pieces" / ".run").iterdir() if path.is_dir()] == []


@pytest.mark.slow
@pytest.mark.usefixtures("_faults")
def test_a_piece_that_kills_its_process_fails_its_video(
    save: Callable[..., Path], out: Path
) -> None:
    folder = save("killer.mp4")
    half_mb = (folder / "killer.mp4").stat().st_size / 2e6
    assert do_all(folder, out, split_mb=half_mb) == {"killer.mp4": "failed"}
    assert "set aside" in str(store.media_rows(out)[0].error)


@pytest.mark.slow
@pytest.mark.usefixtures("_faults")
def test_a_file_that_kills_its_process_twice_is_set_aside(
    save: Callable[..., Path], out: Path
) -> None:
    folder = save("a.mp4", "killer.mp4", "z.mp4", "1.png", "2 killer.png")
    statuses = do_all(folder, out)
    killers = {name for name, status in statuses.items() if status == "failed"}
    assert killers == {"killer.mp4", "2 killer.png"}
    assert len(statuses) == 5
    rows = {row.media: row for row in store.media_rows(out)}
    assert "set aside, as it ended 2 processes" in str(rows["killer.mp4"].error)
    assert "Segmentation fault" in str(rows["killer.mp4"].error)
    assert len(timeline.load(out)) == 2 * 4 + 1


@pytest.mark.slow
@pytest.mark.usefixtures("_faults")
def test_a_file_that_hangs_is_set_aside(save: Callable[..., Path], out: Path) -> None:
    statuses = do_all(save("a.png", "sleeper.mp4"), out, timeout_s=25)
    assert statuses == {"a.png": "ok", "sleeper.mp4": "failed"}
    assert "killed after 25 s" in str(store.media_rows(out)[1].error)


@pytest.mark.slow
@pytest.mark.usefixtures("_faults")
def test_what_can_pass_is_waited_for(save: Callable[..., Path], out: Path, tmp_path: Path) -> None:
    plan = make_plan([save("a.mp4", "flaky.mp4")], out, CONFIG)
    with join_run(plan, out, max_mb=1000, split_mb=1e6, lease_s=60):
        with pytest.raises(UnavailableError, match="Input/output error"):
            do_shard(out, 1, timeout_s=300, retry_transient=True)
        (tmp_path / "mended").touch()
        assert do_shard(out, 1, timeout_s=300, retry_transient=True)
    assert {row.status for row in store.media_rows(out)} == {"ok"}


@pytest.mark.usefixtures("_faults")
def test_in_the_end_it_is_a_failure(save: Callable[..., Path], out: Path) -> None:
    assert do_all(save("a.mp4", "flaky.mp4"), out) == {"a.mp4": "ok", "flaky.mp4": "failed"}


@pytest.mark.slow
def test_files_that_vanished_since_they_were_planned_fail_by_name(
    save: Callable[..., Path], out: Path
) -> None:
    folder = save("a.mp4", "b.png")
    plan = make_plan([folder], out, CONFIG)
    with join_run(plan, out, max_mb=1000, split_mb=1e6, lease_s=60) as run:
        folder.rename(folder.with_name("elsewhere"))
        assert all(do_shard(out, number, timeout_s=300) for number in run.free_shards())
    rows = store.media_rows(out)
    assert {row.status for row in rows} == {"failed"}
    assert all("No such file" in str(row.error) for row in rows)


def test_a_shard_that_others_hold_or_did_is_left_to_them(
    save: Callable[..., Path], out: Path
) -> None:
    assert not do_shard(out, 1, timeout_s=1)
    plan = make_plan([save("a.png")], out, CONFIG)
    with join_run(plan, out, max_mb=1000, split_mb=1e6, lease_s=60) as run:
        claim = run.take(1)
        assert claim
        with claim:
            assert not do_shard(out, 1, timeout_s=1)


def test_a_worker_whose_shard_was_given_away_says_so_and_commits_nothing(
    save: Callable[..., Path], out: Path
) -> None:
    said: list[str] = []
    plan = make_plan([save("a.mp4")], out, CONFIG)
    with join_run(plan, out, max_mb=1000, split_mb=1e6, lease_s=60) as run:
        first = run.take(1)
        assert first
        with first:
            pass
        second = run.take(1)
        assert second
        arguments = ["work", str(out), run.id, "1", str(first.generation), "0", "1"]
        with second:
            ended = run_command(arguments, timeout_s=300, on_log=said.append)
    assert ended.exit_code == 2
    assert not ended.was_killed
    assert ended.message == "\n".join(said)
    assert "given to another worker" in ended.message
    assert store.media_rows(out) == []


def test_a_run_that_keeps_the_output_is_named(save: Callable[..., Path], out: Path) -> None:
    plan = make_plan([save("a.mp4")], out, CONFIG)
    with (
        join_run(plan, out, max_mb=1000, split_mb=1e6, lease_s=60),
        store.lock(out),
        pytest.raises(StoreError, match="another run is writing"),
    ):
        do_shard(out, 1, timeout_s=300)
    assert SharedRun.current(out)


@pytest.mark.slow
def test_a_full_disk_here_leaves_the_shard_to_others(
    save: Callable[..., Path], out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "full"
    folder.mkdir()
    code = "import fer_batch.storage.urls as u\ndef full(*a): raise OSError(28, 'full')\n"
    code += "u.publish = full\n"
    (folder / "sitecustomize.py").write_text(code)
    plan = make_plan([save("a.mp4")], out, CONFIG)
    with join_run(plan, out, max_mb=1000, split_mb=1e6, lease_s=60) as run:
        with monkeypatch.context() as here:
            here.setenv(
                "PYTHONPATH", os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])
            )
            with pytest.raises(StoreDiskFullError, match="no space left"):
                do_shard(out, 1, timeout_s=300)
        assert run.free_shards() == [1]
        assert do_shard(out, 1, timeout_s=300)
    assert [row.status for row in store.media_rows(out)] == ["ok"]


def test_a_crash_on_windows_is_a_death(monkeypatch: pytest.MonkeyPatch) -> None:
    wait = subprocess.Popen.wait

    def crashed(self: "subprocess.Popen[str]", timeout: float | None = None) -> int:
        wait(self, timeout)
        return 0xC000_0005

    monkeypatch.setattr(subprocess.Popen, "wait", crashed)
    ended = run_command(
        ["work", "nowhere", "id", "1", "1", "0", "1"], timeout_s=60, on_log=lambda line: None
    )
    assert ended.was_killed
    assert ended.message.endswith("stopped by the system: status 0xc0000005")
