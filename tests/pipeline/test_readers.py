"""Many readers: every frame once and in order, several threads in one video, no thread left."""

import threading
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fer_batch.config import Config, load
from fer_batch.errors import DecodeError
from fer_batch.media import discovery
from fer_batch.media.decode import FrameReader, video
from fer_batch.media.decode.decord_decoder import DecordDecoder
from fer_batch.pipeline import readers as pool_module
from fer_batch.pipeline.readers import Chunk, EndOfFile, ReaderPool
from fer_batch.records import DecodeReport, FrameChunk, MediaFile
from tests.support.clips import RECIPES, clip, cut, numbered, read_number

Made = Callable[[str], Path]
CONFIG = load(None, ["decode.segment_frames=10", "decode.chunk_mb=0.2"])
TOGETHER_S = 20


def pool(
    files: list[MediaFile], readers: int, buffer_mb: float = 1, config: Config = CONFIG
) -> ReaderPool:
    return ReaderPool(files, config, readers=readers, buffer_mb=buffer_mb)


def drain(working: ReaderPool) -> dict[str, list[Chunk | EndOfFile]]:
    """All that comes, by file."""
    items = defaultdict(list)
    while taken := working.take(8):
        for item in taken:
            items[item.file.media].append(item)
            if isinstance(item, Chunk):
                working.release(item)
    assert working.at_end
    return items


def frames_of(items: list[Chunk | EndOfFile]) -> list[FrameChunk]:
    assert [isinstance(item, EndOfFile) for item in items] == [False] * (len(items) - 1) + [True]
    return [item.frames for item in items if isinstance(item, Chunk)]


@pytest.mark.parametrize("readers", [1, 2, 5])
@pytest.mark.parametrize("buffer_mb", [0.01, 10])
def test_clips_read_in_segments_are_the_same_as_read_by_one_thread(
    made: Made, readers: int, buffer_mb: float
) -> None:
    files = [discovery.find([made(name)])[0] for name in RECIPES]
    with pool(files, readers, buffer_mb) as working:
        items = drain(working)
    assert set(items) == {file.media for file in files}
    for file in files:
        with FrameReader(file, CONFIG.sampling, CONFIG.decode) as alone:
            whole = list(alone)
        chunks = frames_of(items[file.media])
        for name in ("rgb", "frame_index", "pts_s", "is_damaged"):
            np.testing.assert_array_equal(
                np.concatenate([getattr(chunk, name) for chunk in chunks]),
                np.concatenate([getattr(chunk, name) for chunk in whole]),
            )
        end = items[file.media][-1]
        assert isinstance(end, EndOfFile)
        assert (end.info, end.outcome) == (alone.info, alone.report)


def test_one_video_is_read_by_several_threads_at_once(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    meeting = threading.Barrier(3)
    decode = DecordDecoder.decode

    def meet(self, *segment):
        meeting.wait(TOGETHER_S)
        return decode(self, *segment)

    monkeypatch.setattr(DecordDecoder, "decode", meet)
    file = discovery.find([made("plain")])[0]  # 60 frames, 3 groups
    with pool([file], readers=3) as working:
        (items,) = drain(working).values()
    numbers = [read_number(rgb) for chunk in frames_of(items) for rgb in chunk.rgb]
    assert numbers == list(range(60))


def test_error_in_the_middle_ends_the_file_there(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(**arrays):
        if arrays["frame_index"][0] >= 20:
            raise DecodeError("no more", tmp_path)
        return FrameChunk(**arrays)

    monkeypatch.setattr(video, "FrameChunk", fail)
    other = clip(tmp_path / "short.mp4", numbered(8))
    files = [discovery.find([path])[0] for path in (made("plain"), other)]
    with pool(files, readers=4) as working:
        items = drain(working)
    assert sum(len(chunk.rgb) for chunk in frames_of(items[files[0].media])) == 20
    first, second = (items[file.media][-1] for file in files)
    assert isinstance(first, EndOfFile)
    assert str(first.outcome) == "no more"
    assert isinstance(second, EndOfFile)
    assert isinstance(second.outcome, DecodeReport)


@pytest.mark.parametrize("readers", [1, 3])
def test_files_without_a_frame_have_an_end(made: Made, tmp_path: Path, readers: int) -> None:
    (tmp_path / "text.mp4").write_text("no video")
    cut(made("plain"), tmp_path / "cut.mp4", 0.9)
    files = [discovery.find([path])[0] for path in [*sorted(tmp_path.iterdir()), made("plain")]]
    late = load(None, ["sampling.start_s=100"])
    with pool(files, readers, config=late) as working:
        items = drain(working)
    assert {name: len(each) for name, each in items.items()} == dict.fromkeys(items, 1)
    assert len(items) == len(files)


@pytest.mark.parametrize("readers", [1, 4])
def test_abandoned_file_ends_and_others_go_on(made: Made, readers: int) -> None:
    files = [discovery.find([made(name)])[0] for name in ("plain", "mkv")]
    seen = defaultdict(int)
    with pool(files, readers, buffer_mb=0.05) as working:
        while taken := working.take(1):
            for item in taken:
                seen[item.file.media] += isinstance(item, Chunk)
                if isinstance(item, Chunk):
                    if item.file == files[0]:
                        working.abandon(item.file)
                    working.release(item)
    assert seen[files[0].media] < 5
    assert seen[files[1].media] * 4 >= 60


@pytest.mark.parametrize("readers", [1, 4])
def test_leaving_early_ends_the_threads(made: Made, readers: int) -> None:
    files = [discovery.find([made(name)])[0] for name in ("plain", "gif", "mkv")]
    with pool(files, readers, buffer_mb=0.05) as working:
        assert working.take(1)
    assert not [t for t in threading.enumerate() if t.name.startswith("fer_batch-reader")]


def test_pixels_count_until_they_are_released(made: Made) -> None:
    with pool([discovery.find([made("plain")])[0]], readers=1, buffer_mb=0.01) as working:
        (first,) = working.take(8)
        assert isinstance(first, Chunk)
        assert working.take(8, wait=False) == []
        working.release(first)
        assert len(working.take(8)) == 1


def test_mistake_in_a_thread_is_raised(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> EndOfFile:
        raise MemoryError("a mistake")

    monkeypatch.setattr(pool_module, "EndOfFile", fail)
    with (
        pool([discovery.find([made("plain")])[0]], readers=2) as working,
        pytest.raises(MemoryError, match="a mistake"),
    ):
        drain(working)
