"""Fetching from a server that behaves, and from some that do not."""

import hashlib
import logging
import threading
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from fer_batch.errors import WeightsError
from fer_batch.storage.downloads import fetch

CONTENT = bytes(range(256)) * 50_000  # 12.8 MB
SHA256 = hashlib.sha256(CONTENT).hexdigest()[:9]


@dataclass
class Server:
    """What it serves, how, and what it was asked for."""

    url: str = ""
    content: bytes = CONTENT
    knows_range: bool = True
    ends_after: int | None = None
    asked: list[str | None] = field(default_factory=list)

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        wanted = request.headers["Range"]
        self.asked.append(wanted)
        if request.path != "/weights.pth":
            request.send_error(404)
            return
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted else 0
        if self.knows_range and start >= len(self.content):
            request.send_error(416)
            return
        start = start if self.knows_range else 0
        request.send_response(206 if start else 200)
        request.send_header("Content-Length", str(len(self.content) - start))
        request.end_headers()
        request.wfile.write(self.content[start : self.ends_after])


@pytest.fixture
def server() -> Iterator[Server]:
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.answer(self)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        state.url = f"http://127.0.0.1:{http.server_port}/weights.pth"
        thread = threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield state
        http.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "fer_batch"


def leave_part(cache: Path, content: bytes) -> None:
    cache.mkdir()
    (cache / "weights.pth.part").write_bytes(content)


def files(cache: Path) -> list[str]:
    return sorted(path.name for path in cache.iterdir() if path.suffix != ".lock")


def test_is_fetched_once(server: Server, cache: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "fer_batch"):
        path = fetch(server.url, SHA256)
    assert path == cache / "weights.pth"
    assert path.read_bytes() == CONTENT
    assert "10 of 13 MB" in caplog.text
    assert fetch(server.url, SHA256) == path
    assert server.asked == [None]
    assert files(cache) == ["weights.pth"]


def test_home_is_used_without_xdg(monkeypatch: pytest.MonkeyPatch, server: Server, tmp_path: Path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    assert fetch(server.url, SHA256) == tmp_path / ".cache/fer_batch/weights.pth"


def test_a_fetched_file_is_used_where_nothing_can_be_written(cache: Path) -> None:
    cache.mkdir()
    (cache / "weights.pth").write_bytes(CONTENT)
    cache.chmod(0o500)
    fetch("http://127.0.0.1:9/weights.pth", SHA256)
    cache.chmod(0o700)
    assert [path.name for path in cache.iterdir()] == ["weights.pth"]


@pytest.mark.parametrize("knows_range", [True, False])
def test_goes_on_with_a_part(server: Server, cache: Path, knows_range: bool) -> None:
    server.knows_range = knows_range
    leave_part(cache, CONTENT[:1000])
    assert fetch(server.url, SHA256).read_bytes() == CONTENT
    assert server.asked == ["bytes=1000-"]
    assert files(cache) == ["weights.pth"]


def test_a_part_that_is_whole(server: Server, cache: Path) -> None:
    leave_part(cache, CONTENT)
    assert fetch(server.url, SHA256).read_bytes() == CONTENT


def test_a_connection_that_ends_early_is_gone_on_with(server: Server, cache: Path) -> None:
    server.ends_after = 4_000_000
    with pytest.raises(WeightsError, match=r"cannot be fetched: .*Try again"):
        fetch(server.url, SHA256)
    assert files(cache) == ["weights.pth.part"]
    server.ends_after = None
    assert fetch(server.url, SHA256).read_bytes() == CONTENT
    assert server.asked == [None, "bytes=4000000-"]


def test_another_content_is_refused_and_not_kept(server: Server, cache: Path) -> None:
    server.content = CONTENT[::-1]
    with pytest.raises(WeightsError, match=SHA256):
        fetch(server.url, SHA256)
    assert files(cache) == []
    server.content = CONTENT
    assert fetch(server.url, SHA256).read_bytes() == CONTENT


def test_a_damaged_part_is_not_kept(server: Server, cache: Path) -> None:
    leave_part(cache, b"something else")
    with pytest.raises(WeightsError, match=SHA256):
        fetch(server.url, SHA256)
    assert fetch(server.url, SHA256).read_bytes() == CONTENT


def test_an_altered_file_is_named(server: Server) -> None:
    path = fetch(server.url, SHA256)
    path.write_bytes(CONTENT[:-1])
    with pytest.raises(WeightsError, match=rf"{path}.*remove it"):
        fetch(server.url, SHA256)


def test_offline_and_missing_files_say_where_to_put_it(server: Server, cache: Path) -> None:
    for url in ("http://127.0.0.1:9/weights.pth", server.url.replace("weights", "other")):
        path = cache / url.rpartition("/")[2]
        with pytest.raises(WeightsError, match=rf"{url}: cannot be fetched: .*put it at {path}"):
            fetch(url, SHA256)


def test_two_at_once_fetch_once(server: Server) -> None:
    with ThreadPoolExecutor(4) as pool:
        paths = list(pool.map(lambda _: fetch(server.url, SHA256), range(4)))
    assert {path.read_bytes() for path in paths} == {CONTENT}
    assert server.asked == [None]


def test_the_hash_may_be_that_of_the_only_file_in_a_zip(server: Server, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "made.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("weights.pth", CONTENT)
    server.content = (tmp_path / "made.zip").read_bytes()
    assert fetch(server.url, SHA256).read_bytes() == server.content
