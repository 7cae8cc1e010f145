"""Lock files, with `flock` and with the function of Windows, for which `flock` stands in here."""

import importlib
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fer_batch.storage import locks
from tests.support import ROOT
from tests.support.another_system import windows

HOLD = """
import sys, time
from pathlib import Path
from fer_batch.storage.locks import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture(autouse=True, params=["posix", "windows"])
def _system(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as there:
        if request.param == "windows":
            for owner, name, value in windows():
                there.setattr(owner, name, value, raising=False)
        importlib.reload(locks)
        yield
    importlib.reload(locks)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / ".lock"


@pytest.mark.parametrize("first, second", [(False, False), (True, False), (False, True)])
def test_a_lock_is_shared_only_when_both_want_to(path: Path, first: bool, second: bool) -> None:
    with (
        locks.locked(path, shared=first, wait=False),
        pytest.raises(BlockingIOError),
        locks.locked(path, shared=second, wait=False),
    ):
        pass
    with locks.locked(path, shared=True, wait=False), locks.locked(path, shared=True, wait=False):
        pass
    with locks.locked(path, shared=second, wait=False):
        pass


def test_threads_wait_for_one_another_and_the_file_keeps_its_content(path: Path) -> None:
    def count(_: int) -> None:
        with locks.locked(path) as file:
            file.seek(0)
            number = int(file.read() or 0)
            file.truncate(0)
            file.write(str(number + 1).encode())

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(count, range(40)))
    assert path.read_bytes() == b"40"


def test_the_lock_of_a_killed_process_is_free(path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], cwd=ROOT, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(BlockingIOError), locks.locked(path, wait=False):
            pass
        waiting = threading.Thread(target=lambda: locks.locked(path).__enter__())
        waiting.start()
        holder.kill()
        waiting.join()


def test_a_lock_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), locks.locked(tmp_path / "absent" / ".lock"):
        pass
