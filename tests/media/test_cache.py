"""The cache of inputs behind URLs: bounded, shared by threads and processes, crash-safe."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fer_batch.config import Runtime
from fer_batch.errors import DecodeError, MediaError
from fer_batch.media import discovery
from fer_batch.media.cache import fetched
from fer_batch.records import MediaFile
from fer_batch.storage import urls
from tests.support import ROOT

KB = 1000


@pytest.fixture
def folder() -> Path:
    """A URL below which there is nothing."""
    return urls.path_of(f"memory://{uuid.uuid4().hex}")


def runtime(cache: Path, kb: float) -> Runtime:
    return Runtime(cache_dir=cache, cache_gb=kb / 1e6)


def fill(folder: Path, count: int, kb: int = 100) -> list[MediaFile]:
    for number in range(count):
        (folder / f"{number:03}.mp4").write_bytes(bytes([number]) * kb * KB)
    return discovery.find([folder])


def sizes(cache: Path) -> list[int]:
    """Of the files in the cache, those on their way included."""
    return [path.stat().st_size for path in cache.iterdir() if path.name != ".lock"]


def use(file: MediaFile, settings: Runtime) -> Path:
    """Have a file fetched and see that it is right."""
    with fetched(file, settings) as local:
        assert local.path.read_bytes() == file.path.read_bytes()
        assert local.path.suffix == file.path.suffix
        return local.path


def test_a_local_file_is_used_where_it_is(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").touch()
    [file] = discovery.find([tmp_path])
    with fetched(file, runtime(tmp_path / "cache", 1)) as local:
        assert local is file
    assert not (tmp_path / "cache").exists()


def test_what_was_fetched_is_used_again(tmp_path: Path, folder: Path) -> None:
    [file] = fill(folder, 1)
    path = use(file, runtime(tmp_path, 1000))
    path.write_bytes(b"ours")
    with fetched(file, runtime(tmp_path, 1000)) as local:
        assert local.path.read_bytes() == b"ours"


def test_a_changed_file_is_fetched_anew(tmp_path: Path, folder: Path) -> None:
    [file] = fill(folder, 1)
    before = use(file, runtime(tmp_path, 1000))
    file.path.write_bytes(b"other")
    with (
        pytest.raises(MediaError, match="changed since it was listed: run again"),
        fetched(MediaFile(file.path, "b", "video", 6, file.mtime_ns), runtime(tmp_path, 1000)),
    ):
        pass
    assert use(discovery.find([folder])[0], runtime(tmp_path, 1000)) != before
    assert sorted(sizes(tmp_path)) == [5, 100 * KB]


def test_the_longest_unused_goes_first(tmp_path: Path, folder: Path) -> None:
    files = fill(folder, 4)
    settings = runtime(tmp_path, 350)
    a, b, c = paths = [use(file, settings) for file in files[:3]]
    for when, path in enumerate(paths):
        os.utime(path, (when, when))
    assert use(files[0], settings) == a
    d = use(files[3], settings)
    assert [path.exists() for path in (a, b, c, d)] == [True, False, True, True]
    assert sum(sizes(tmp_path)) <= 350 * KB


def test_what_is_in_use_stays(tmp_path: Path, folder: Path) -> None:
    files = fill(folder, 4)
    settings = runtime(tmp_path, 250)
    with fetched(files[0], settings) as first:
        for file in files[1:]:
            use(file, settings)
        assert first.path.exists()
        with fetched(files[0], settings) as again:  # shared
            assert again.path == first.path
        assert sum(sizes(tmp_path)) <= 250 * KB


def test_no_room_is_waited_for(tmp_path: Path, folder: Path) -> None:
    files = fill(folder, 2)
    settings = runtime(tmp_path, 150)
    asked = threading.Event()

    def wait() -> bool:
        asked.set()
        return True

    with ThreadPoolExecutor(1) as pool:
        with fetched(files[0], settings):
            waiting = pool.submit(lambda: fetched(files[1], settings, go_on=wait).__enter__())
            asked.wait()
            assert len(sizes(tmp_path)) == 1
        assert waiting.result().path.exists()
    assert len(sizes(tmp_path)) == 1


def test_waiting_and_fetching_can_be_given_up(tmp_path: Path, folder: Path) -> None:
    files = fill(folder, 2)
    answers = iter([True, True, False])
    with (
        fetched(files[0], runtime(tmp_path, 150)),
        pytest.raises(MediaError, match="given up"),
        fetched(files[1], runtime(tmp_path, 150), go_on=lambda: next(answers)),
    ):
        pass
    answers = iter([True, False])
    with (
        pytest.raises(MediaError, match="given up"),
        fetched(files[1], runtime(tmp_path, 150), go_on=lambda: next(answers)),
    ):
        pass
    assert len(sizes(tmp_path)) <= 1


def test_a_file_larger_than_the_cache_is_alone_in_it(tmp_path: Path, folder: Path) -> None:
    small, large = *fill(folder / "small", 1), *fill(folder / "large", 1, kb=300)
    settings = runtime(tmp_path, 150)
    use(small, settings)
    use(large, settings)
    assert sizes(tmp_path) == [300 * KB]
    answers = iter([True, True, False])
    with (
        fetched(small, settings),
        pytest.raises(MediaError, match="given up"),
        fetched(large, settings, go_on=lambda: next(answers)),
    ):
        pass
    assert sizes(tmp_path) == [100 * KB]


def test_errors_name_the_url(tmp_path: Path, folder: Path) -> None:
    [file] = fill(folder, 1)
    with (
        pytest.raises(DecodeError, match=r"^memory://.*/000.mp4: bad$") as caught,
        fetched(file, runtime(tmp_path, 1000)) as local,
    ):
        raise DecodeError(f"{local.path}: bad", local.path, 3)
    assert (caught.value.path, caught.value.frame_index) == (file.path, 3)


def test_a_failed_fetch_leaves_nothing(tmp_path: Path, folder: Path) -> None:
    [file] = fill(folder, 1)
    file.path.unlink()
    with (
        pytest.raises(MediaError, match=r"000.mp4: cannot be fetched"),
        fetched(file, runtime(tmp_path, 1000)),
    ):
        pass
    assert sizes(tmp_path) == []


def test_the_bound_holds_with_many_threads(tmp_path: Path, folder: Path) -> None:
    files = fill(folder, 12, kb=20)
    settings = runtime(tmp_path, 90)

    def work(number: int) -> None:
        for step in range(12):
            use(files[(number * 5 + step * 7) % 12], settings)
            assert sum(sizes_now(tmp_path)) <= 90 * KB

    with ThreadPoolExecutor(6) as pool:
        assert len(list(pool.map(work, range(6)))) == 6
    assert all(path.suffix == ".mp4" for path in tmp_path.iterdir() if path.name != ".lock")


def sizes_now(cache: Path) -> list[int]:
    """As `sizes`, while others come and go: what is gone does not count."""
    found = []
    for path in cache.iterdir():
        try:
            found.append(path.stat().st_size)
        except FileNotFoundError:
            continue
    return found


WORKER = """
import sys
from pathlib import Path
from fer_batch.media import discovery
from fer_batch.storage import urls
from tests.media.test_cache import KB, runtime, sizes_now, use
url, cache, first = sys.argv[1:]
files = discovery.find([urls.path_of(url)])
for step in range(24):
    use(files[(int(first) + step * 5) % len(files)], runtime(Path(cache), 90))
    assert sum(sizes_now(Path(cache))) <= 90 * KB
"""
HOLDER = """
import sys, time
from pathlib import Path
from fer_batch.media import discovery
from fer_batch.storage import urls
from fer_batch.media.cache import fetched
from tests.media.test_cache import runtime
url, cache = sys.argv[1:]
with fetched(discovery.find([urls.path_of(url)])[0], runtime(Path(cache), 150)):
    print("held", flush=True)
    time.sleep(600)
"""


def start(code: str, *arguments: str | Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def test_the_bound_holds_with_two_processes(tmp_path: Path, bucket: Path) -> None:
    fill(bucket, 8, kb=20)
    workers = [start(WORKER, bucket, tmp_path, first) for first in ("0", "3")]
    for worker in workers:
        worker.communicate()
    assert [worker.returncode for worker in workers] == [0, 0]
    assert 0 < sum(sizes(tmp_path)) <= 90 * KB


def test_a_killed_process_frees_what_it_held(tmp_path: Path, bucket: Path) -> None:
    files = fill(bucket, 2)
    answers = iter([True, True, False])
    with start(HOLDER, bucket, tmp_path) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with (
            pytest.raises(MediaError, match="given up"),
            fetched(files[1], runtime(tmp_path, 150), go_on=lambda: next(answers)),
        ):
            pass
        holder.send_signal(signal.SIGKILL)
    use(files[1], runtime(tmp_path, 150))
    assert len(sizes(tmp_path)) == 1


def test_a_half_fetched_file_of_a_killed_process_is_never_used(
    tmp_path: Path, folder: Path
) -> None:
    files = fill(folder, 2)
    path = use(files[0], runtime(tmp_path, 250))
    path.rename(path.with_name(f"{path.stem}.{100 * KB}.part"))
    assert use(files[0], runtime(tmp_path, 250)) == path
    path.rename(path.with_name(f"{path.stem}.{100 * KB}.part"))
    use(files[1], runtime(tmp_path, 150))
    assert sizes(tmp_path) == [100 * KB]
