"""What all tests share."""

from __future__ import annotations

import os
import shutil
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import imageio_ffmpeg
import pytest
import torch

from fer_batch.errors import RenderError
from fer_batch.media.ffmpeg import ffmpeg_path
from fer_batch.storage import urls
from tests.support import clips, deployment

os.environ.setdefault("SVT_LOG", "0")  # the AV1 encoder is talkative

SHARED = Path(__file__).parents[2] / "shared"


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Gives the file of a clip recipe by its name; each is built once per session."""
    folder = tmp_path_factory.mktemp("clips")
    return lambda name: clips.make(name, folder)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of reference media and data beside the project; skips where there is none."""
    if not SHARED.is_dir():
        pytest.skip(f"needs {SHARED.name}/ beside the project")
    return SHARED


@pytest.fixture(params=sorted({imageio_ffmpeg.get_ffmpeg_exe(), shutil.which("ffmpeg")} - {None}))
def each_ffmpeg(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Runs the test with the ffmpeg of imageio-ffmpeg, and again with the system's."""
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", request.param)
    ffmpeg_path.cache_clear()
    try:
        ffmpeg_path()
    except RenderError as error:
        pytest.skip(str(error))
    yield
    ffmpeg_path.cache_clear()


@pytest.fixture(scope="session")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[deployment.Deployed]:
    """A real Prefect server and worker with the deployments of the project."""
    with deployment.deployed_in(tmp_path_factory.mktemp("prefect")) as running:
        yield running


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """One thread for torch: several wait for each other on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    left = [
        thread
        for thread in set(threading.enumerate()) - before
        if not thread.daemon or thread.name.startswith("fer_batch")
    ]
    for thread in left:
        thread.join(timeout=2)
    assert not [thread.name for thread in left if thread.is_alive()]


@pytest.fixture(scope="session")
def s3() -> Iterator[str]:
    """URL of a real S3 server, in the environment of this process and those that it starts."""
    from moto.server import ThreadedMotoServer  # it takes a second to load

    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    url = f"http://127.0.0.1:{server.get_host_and_port()[1]}"
    os.environ |= {
        "AWS_ENDPOINT_URL": url,
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    yield url
    server.stop()


@pytest.fixture
def bucket(s3: str) -> Path:
    """An empty bucket of that server."""
    path = urls.path_of(f"s3://bucket-{uuid.uuid4().hex}")
    path.mkdir()
    return path
