"""Claims, as several processes see them: each `Claims` object stands for one."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from fer_batch.errors import StoreError
from fer_batch.storage import claims, urls
from fer_batch.storage.claims import ClaimLostError, Claims

LEASE_S = 0.6
HOLD = """
import sys, time
from fer_batch.storage.claims import Claims
from fer_batch.storage.urls import path_of
with Claims(path_of(sys.argv[1]), float(sys.argv[2])).take("a") as claim:
    claim.share = 0.25
    print("held", flush=True)
    time.sleep(600)
"""
RACE = """
import sys
from fer_batch.storage.claims import Claims
from fer_batch.storage.urls import path_of
mine = Claims(path_of(sys.argv[1]), 60)
print("ready", flush=True)
sys.stdin.readline()
print(*(number for number in range(20) if mine.take(str(number))), flush=True)
sys.stdin.readline()  # what it took would be free for others as soon as it has ended
"""


@pytest.fixture(params=["disk", pytest.param("s3", marks=pytest.mark.slow)])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Where claims are: a file system, or a real S3 server."""
    if request.param == "disk":
        return tmp_path
    request.getfixturevalue("s3")
    bucket = urls.path_of(f"s3://{tmp_path.name.replace('_', '-').lower()}")
    bucket.mkdir()
    return bucket / "claims"


@pytest.fixture
def holder(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds `a` and is a quarter through."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder), str(LEASE_S)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_work_is_held_by_one_until_it_is_left(folder: Path) -> None:
    one, other = Claims(folder, LEASE_S), Claims(folder, LEASE_S)
    claim = one.take("a")
    assert claim
    with claim:
        assert other.take("a") is None
        assert other.states() == {"a": "held"}
        assert other.take("b")
        time.sleep(1.5 * LEASE_S)
        assert other.states()["a"] == "held"
        claim.check()
    again = other.take("a")
    assert again
    assert again.generation == 2
    with pytest.raises(ClaimLostError, match="a was given"):
        claim.check()


def test_what_is_done_is_not_taken_again(folder: Path) -> None:
    one, other = Claims(folder, LEASE_S), Claims(folder, LEASE_S)
    claim = one.take("a")
    assert claim
    with claim:
        claim.finish()
    assert other.states() == {"a": "done"}
    assert other.shares() == {"a": 1}
    assert other.take("a") is None


def test_of_many_processes_one_gets_each(folder: Path) -> None:
    with ExitStack() as stack:
        racers = [
            stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-c", RACE, str(folder)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )
            for _ in range(4)
        ]
        for racer in racers:
            assert racer.stdout
            assert racer.stdout.readline() == "ready\n"
        for racer in racers:
            assert racer.stdin
            racer.stdin.write("go\n")
            racer.stdin.flush()
        taken = [
            name for racer in racers if racer.stdout for name in racer.stdout.readline().split()
        ]
        for racer in racers:
            racer.communicate()
    assert sorted(taken) == sorted(map(str, range(20)))


def test_what_a_killed_process_held_is_free_at_once(
    folder: Path, holder: subprocess.Popen[str]
) -> None:
    watching = Claims(folder, 60)
    assert watching.take("a") is None
    holder.kill()
    holder.wait()
    claim = watching.take("a")
    assert claim
    assert claim.generation == 2


def test_on_other_systems_a_killed_process_is_noticed_by_its_silence(
    folder: Path, holder: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims, "_this_host", lambda: None)
    watching = Claims(folder, LEASE_S)
    holder.kill()
    holder.wait()
    assert watching.take("a") is None
    time.sleep(1.5 * LEASE_S)
    assert watching.take("a")


def test_a_process_that_comes_back_has_lost(
    folder: Path, holder: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    watching = Claims(folder, LEASE_S)
    monkeypatch.setattr(claims, "_is_dead", lambda claim: False)  # as on another host
    os.kill(holder.pid, signal.SIGSTOP)
    first_look = watching.take("a")
    time.sleep(1.5 * LEASE_S)
    second_look = watching.take("a")
    os.kill(holder.pid, signal.SIGCONT)
    assert first_look is None
    assert second_look
    with second_look:
        time.sleep(LEASE_S)  # it beats again, without effect
        second_look.check()
        assert not claims.is_current(folder, "a", 1)
        assert Claims(folder, LEASE_S).states() == {"a": "held"}


def test_what_one_found_silent_is_free_for_all(
    folder: Path, holder: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    watching = Claims(folder, LEASE_S)
    monkeypatch.setattr(claims, "_is_dead", lambda claim: False)  # as on another host
    os.kill(holder.pid, signal.SIGSTOP)
    assert watching.states() == {"a": "held"}
    time.sleep(1.5 * LEASE_S)
    assert Claims(folder, LEASE_S).take("a") is None
    assert watching.states() == {"a": "silent"}
    assert Claims(folder, LEASE_S).states() == {"a": "held"}
    watching.release_silent()
    assert watching.states() == {"a": "free"}
    assert Claims(folder, LEASE_S).take("a")
    assert not claims.is_current(folder, "a", 1)


def test_who_was_too_late_by_generations_does_not_get_it(folder: Path) -> None:
    class Late(Claims):
        """Is interrupted after it has looked."""

        def _list(self) -> tuple[dict[str, int], set[str]]:
            seen = super()._list()
            for _ in range(3):
                claim = Claims(folder, LEASE_S).take("a")
                assert claim
                with claim:
                    pass
            return seen

    first = Claims(folder, LEASE_S).take("a")
    assert first
    with first:
        pass
    assert Late(folder, LEASE_S).take("a") is None
    last = Claims(folder, LEASE_S).take("a")
    assert last
    assert last.generation == 5
    last.check()


def test_a_holder_that_cannot_beat_stops_by_itself(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(path: Path, content: bytes) -> None:
        raise OSError("no space")

    claim = Claims(folder, LEASE_S).take("a")
    assert claim
    monkeypatch.setattr(urls, "write", fail)
    with claim:
        claim.check()
        time.sleep(1.5 * LEASE_S)
        with pytest.raises(ClaimLostError):
            claim.check()
        with pytest.raises(ClaimLostError):
            claim.finish()


def test_a_claim_that_was_cleared_away_is_lost(folder: Path) -> None:
    claim = Claims(folder, LEASE_S).take("a")
    assert claim
    (folder / "a.1").unlink()
    with claim, pytest.raises(ClaimLostError):
        claim.check()
    assert Claims(folder, LEASE_S).states() == {}


def test_who_died_while_it_created_its_claim_is_passed(folder: Path) -> None:
    (folder / "a.1").touch()
    watching = Claims(folder, LEASE_S)
    assert watching.take("a") is None
    time.sleep(1.5 * LEASE_S)
    assert watching.take("a")


def test_others_see_how_far_it_is(folder: Path, holder: subprocess.Popen[str]) -> None:
    watching = Claims(folder, LEASE_S)
    time.sleep(LEASE_S)
    assert watching.shares() == {"a": 0.25}
    assert watching.is_anyone_alive()
    holder.kill()
    holder.wait()
    assert not watching.is_anyone_alive()


def test_waiting_for_a_holder(folder: Path) -> None:
    mine = Claims(folder, LEASE_S)
    with (
        claims.wait_for(mine, "plan", max_wait_s=1),
        pytest.raises(StoreError, match="plan"),
        claims.wait_for(mine, "plan", max_wait_s=0.1),
    ):
        pass
    with claims.wait_for(mine, "plan", max_wait_s=1) as claim:
        assert claim.generation == 2


def test_nothing_can_be_claimed_where_the_folder_was_removed(tmp_path: Path) -> None:
    assert Claims(tmp_path / "absent", LEASE_S).take("a") is None


@pytest.mark.parametrize("first, second", [(False, False), (True, False), (False, True)])
def test_a_lock_of_claims_is_shared_only_when_both_want_to(
    folder: Path, first: bool, second: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims, "LOCK_LEASE_S", LEASE_S)
    with (
        claims.locked(folder, shared=first),
        pytest.raises(BlockingIOError),
        claims.locked(folder, shared=second),
    ):
        pass
    with claims.locked(folder, shared=True), claims.locked(folder, shared=True):
        pass
    with claims.locked(folder, shared=second):
        pass
