"""Decoding: every frame, its number, its time; and what is said of files that are not whole."""

from __future__ import annotations

import contextlib
import os
import random
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import av
import cv2
import numpy as np
import pytest
from PIL import ExifTags, Image

from fer_batch.config import Decode, Sampling, load
from fer_batch.errors import ConfigError, DecodeError, MediaError
from fer_batch.media import discovery
from fer_batch.media.decode import FrameReader, decord_decoder
from fer_batch.media.decode.video import MAX_CHUNK_FRAMES
from fer_batch.pipeline.plan import make_plan
from fer_batch.records import DecodeReport, FrameChunk, MediaInfo
from tests.support.clips import (
    RECIPES,
    clip,
    cut,
    ffmpeg,
    numbered,
    paint_number,
    read_number,
    zeroed,
)

Made = Callable[[str], Path]
DECODERS = ["auto", "pyav"]
UPRIGHT = {"odd 444": (161, 97), "odd vp9": (161, 97)}


class Result(NamedTuple):
    info: MediaInfo
    report: DecodeReport
    numbers: list[int]
    frame_index: list[int]
    pts_s: list[float]
    is_damaged: list[bool]
    chunks: list[FrameChunk]


def read(
    path: Path,
    decoder: str = "auto",
    *,
    threads: int = 1,
    only: Sequence[int] | None = None,
    **settings: float,
) -> Result:
    """Read all of a file; segments are short so that small clips have several."""
    sampling = {
        key: settings.pop(key) for key in ("every", "fps", "start_s", "end_s") if key in settings
    }
    decode = Decode(**{"decoder": decoder, "segment_frames": 30, **settings})
    [file] = discovery.find([path])
    with FrameReader(file, Sampling(**sampling), decode, threads, only=only) as reader:
        chunks = list(reader)
        return Result(
            reader.info,
            reader.report,
            [read_number(rgb) for chunk in chunks for rgb in chunk.rgb],
            [int(index) for chunk in chunks for index in chunk.frame_index],
            [float(pts) for chunk in chunks for pts in chunk.pts_s],
            [bool(bad) for chunk in chunks for bad in chunk.is_damaged],
            chunks,
        )


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("name", RECIPES)
def test_every_frame_is_right(made: Made, name: str, decoder: str) -> None:
    recipe = RECIPES[name]
    result = read(made(name), decoder)
    assert result.numbers == list(recipe.numbers)
    assert result.frame_index == list(range(len(recipe.numbers)))
    np.testing.assert_allclose(result.pts_s, recipe.pts_s, atol=1e-3)
    assert not any(result.is_damaged)
    assert (result.info.width_px, result.info.height_px) == UPRIGHT.get(name, (160, 96))
    assert result.info.n_frames_container == len(recipe.numbers)
    report = result.report
    assert (report.status, report.message) == ("ok", None)
    assert report.n_frames_decoded == len(recipe.numbers)


@pytest.mark.parametrize("name", RECIPES)
def test_decoders_agree_on_every_pixel(made: Made, name: str) -> None:
    # Versions of ffmpeg differ in how they spread the colour of these over their pixels.
    tolerance = 3 if name in {"10 bit", "interlaced ts", "odd vp9"} else 0
    auto, pyav = read(made(name)), read(made(name), "pyav")
    for ours, theirs in zip(auto.chunks, pyav.chunks, strict=True):
        assert np.abs(ours.rgb.astype(int) - theirs.rgb).mean() <= tolerance


@pytest.mark.parametrize("name", ["plain", "hevc open", "vp9", "interlaced ts", "trimmed", "mkv"])
def test_decord_does_what_it_can(made: Made, name: str) -> None:
    report = read(made(name), segment_frames=10).report
    assert (report.decoder, report.n_segments_fallback) == ("decord", 0)
    assert report.n_segments > 1


NOT_FOR_DECORD = ["av1", "gif", "xvid b-frames"]


@pytest.mark.parametrize("name", NOT_FOR_DECORD)
def test_pyav_does_the_rest(made: Made, name: str) -> None:
    report = read(made(name)).report
    assert report.decoder == "pyav"
    assert report.n_segments_fallback == report.n_segments


@pytest.mark.parametrize("name", NOT_FOR_DECORD)
def test_decord_alone_fails_where_it_cannot_decode(made: Made, name: str) -> None:
    result = read(made(name), "decord")
    assert result.numbers == []
    report = result.report
    assert (report.status, report.decoder, report.n_segments_fallback) == ("failed", "none", 0)
    assert report.n_frames_missing == len(RECIPES[name].numbers)
    assert "set decode.decoder to auto" in str(report.message)


def test_decord_alone_leaves_out_damaged_segments(made: Made, tmp_path: Path) -> None:
    path = zeroed(made("long mp4"), tmp_path / "hurt.mp4", 0.5, 0.55)
    result = read(path, "decord", segment_frames=20)
    check_partial(result, range(120))
    assert not any(result.is_damaged)
    assert result.report.decoder == "decord"
    assert 0 < result.report.n_frames_missing < 60
    assert "set decode.decoder to auto" in str(result.report.message)


@pytest.fixture
def _no_decord(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The package decord is not installed."""
    monkeypatch.setitem(sys.modules, "decord", None)
    decord_decoder._installed.cache_clear()
    yield
    decord_decoder._installed.cache_clear()


@pytest.mark.usefixtures("_no_decord")
def test_without_decord_auto_uses_pyav(made: Made) -> None:
    result = read(made("plain"))
    assert result.numbers == list(range(60))
    assert (result.report.status, result.report.decoder) == ("ok", "pyav")


@pytest.mark.usefixtures("_no_decord")
def test_without_decord_it_cannot_be_chosen(made: Made, tmp_path: Path) -> None:
    config = load(None, ["decode.decoder=decord"])
    with pytest.raises(ConfigError, match="pip install decord"):
        make_plan([made("plain")], tmp_path, config)
    with pytest.raises(ConfigError, match="pip install decord"):
        read(made("plain"), "decord")


def test_segment_over_budget_goes_to_pyav(made: Made) -> None:
    frame_mb = 160 * 96 * 3 / 1e6
    assert read(made("plain"), segment_mb=19 * frame_mb).report.decoder == "pyav"
    report = read(made("plain"), segment_mb=20 * frame_mb).report
    assert (report.decoder, report.n_segments) == ("decord", 3)  # groups of 20, not joined to 40


def test_sparse_frames_go_to_pyav(made: Made) -> None:
    assert read(made("plain"), every=5).report.decoder == "pyav"
    assert read(made("plain"), "decord", every=5).report.decoder == "decord"


def test_several_threads_give_the_same(made: Made) -> None:
    assert read(made("b-frames"), "pyav", threads=2).numbers == list(range(60))


@pytest.mark.parametrize("angle", [90, 180, 270])
def test_rotation_is_that_of_ffmpeg(made: Made, tmp_path: Path, angle: int) -> None:
    upright = tmp_path / "upright.png"
    source = made(f"rotated {angle}")
    ffmpeg("-i", source, "-frames:v", "1", upright)
    result = read(source)
    assert result.info.rotation_deg == angle
    np.testing.assert_array_equal(
        result.chunks[0].rgb[0], np.array(Image.open(upright).convert("RGB"))
    )


def test_container_facts(made: Made) -> None:
    info = read(made("ntsc")).info
    assert str(info.frame_rate) == "30000/1001"
    assert info.duration_s == pytest.approx(60 * 1001 / 30_000, abs=0.01)
    assert info.codec == "h264"
    assert read(made("ts")).info.start_s == pytest.approx(2 / 30, abs=1e-3)
    assert read(made("no duration")).info.duration_s == pytest.approx(2, abs=0.01)


# Chunks


def test_chunks_are_bounded_and_full(made: Made) -> None:
    frame_mb = 160 * 96 * 3 / 1e6
    whole = read(made("plain"), chunk_mb=7.5 * frame_mb, segment_frames=60)
    assert [len(chunk.rgb) for chunk in whole.chunks] == [7] * 8 + [4]
    parts = read(made("plain"), chunk_mb=7.5 * frame_mb, segment_frames=20)
    assert [len(chunk.rgb) for chunk in parts.chunks] == [7, 7, 6] * 3
    assert [len(chunk.rgb) for chunk in read(made("plain"), chunk_mb=0.01).chunks] == [1] * 60


def test_chunk_has_at_most_64_frames(tmp_path: Path) -> None:
    path = clip(tmp_path / "long.mp4", numbered(130))
    result = read(path, segment_frames=130)
    assert [len(chunk.rgb) for chunk in result.chunks] == [MAX_CHUNK_FRAMES, MAX_CHUNK_FRAMES, 2]
    assert result.numbers == list(range(130))


# Sampling


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize(
    "sampling, numbers",
    [
        ({"every": 7}, range(0, 60, 7)),
        ({"fps": 10}, range(0, 60, 3)),
        ({"fps": 30}, range(60)),
        ({"fps": 1000}, range(60)),
        ({"fps": 0.1}, [0]),
        ({"start_s": 1.0}, range(30, 60)),
        ({"end_s": 1.0}, range(30)),
        ({"start_s": 0.5, "end_s": 0.6}, [15, 16, 17]),
        ({"start_s": 1.2, "end_s": 1.7, "every": 10}, [40, 50]),
        ({"start_s": 0.05, "fps": 5}, [6, 12, 18, 24, 30, 36, 42, 48, 54]),
        ({"start_s": 100}, []),
    ],
)
@pytest.mark.parametrize("name", ["plain", "hevc open", "xvid b-frames", "mkv"])
def test_sampling(made: Made, name: str, sampling: dict[str, float], numbers, decoder: str) -> None:
    result = read(made(name), decoder, **sampling)
    assert result.numbers == result.frame_index == list(numbers)
    np.testing.assert_allclose(result.pts_s, [n / 30 for n in numbers], atol=1e-3)
    assert (result.report.status, result.report.n_frames_missing) == ("ok", 0)


def test_fps_is_even_in_time_where_the_rate_varies(made: Made) -> None:
    times = np.array(read(made("vfr mp4"), fps=4).pts_s)
    assert np.diff(times).min() > 0.2
    assert len(times) <= 4 * (times[-1] - times[0]) + 1
    assert {0.0, 5.0, 12.0, 21.0} <= set(np.round(times, 3))


def test_spans_that_meet_give_the_whole(made: Made) -> None:
    parts = [read(made("ntsc"), fps=7, start_s=a, end_s=a + 0.7).numbers for a in (0, 0.7, 1.4)]
    assert [number for part in parts for number in part] == read(made("ntsc"), fps=7).numbers


def test_segments_outside_the_span_are_not_decoded(made: Made) -> None:
    report = read(made("plain"), start_s=0.7, end_s=1.3, segment_frames=20).report
    assert report.n_segments == 1
    assert report.n_frames_decoded < 20


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("name", RECIPES)
def test_only_some_frames(made: Made, name: str, decoder: str) -> None:
    numbers = RECIPES[name].numbers
    some = sorted({0, 11, 12, len(numbers) - 1} & set(range(len(numbers))))
    result = read(made(name), decoder, only=some)
    assert result.frame_index == some
    assert result.numbers == [numbers[index] for index in some]
    assert (result.report.status, result.report.n_frames_missing) == ("ok", 0)


def test_segments_without_a_chosen_frame_are_not_decoded(made: Made) -> None:
    report = read(made("plain"), segment_frames=20, only=[25]).report
    assert (report.n_segments, report.n_frames_decoded) == (1, 1)


# Damaged files


def check_partial(result: Result, numbers: Sequence[int], step_s: float = 1 / 30) -> None:
    """What is not marked as damaged is right, and the counts add up."""
    for index, number, pts_s, is_damaged in zip(
        result.frame_index, result.numbers, result.pts_s, result.is_damaged, strict=True
    ):
        assert is_damaged or number == numbers[index], index
        assert pts_s == pytest.approx(index * step_s, abs=1e-3)
    assert sorted(set(result.frame_index)) == result.frame_index
    report = result.report
    assert report.status == "partial"
    assert report.n_frames_damaged == sum(result.is_damaged)
    assert len(result.numbers) + report.n_frames_missing == len(numbers)
    assert result.info.n_frames_container == len(numbers)
    for count, what in (
        (report.n_frames_missing, "missing"),
        (report.n_frames_damaged, "damaged"),
    ):
        assert (f"{count} of {len(numbers)} frames" in str(report.message)) or not count, what


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("name", ["long mp4", "long hevc", "long mkv", "long avi", "mjpeg avi"])
def test_cut_file_gives_its_beginning(made: Made, tmp_path: Path, name: str, decoder: str) -> None:
    source, numbers = made(name), RECIPES[name].numbers
    result = read(cut(source, tmp_path / source.name, 0.6), decoder)
    if source.suffix == ".mkv":  # promises a length only, and that of its sound is not the same
        n_promised = result.info.n_frames_container or 0
        assert n_promised == pytest.approx(len(numbers), abs=3)
        numbers = range(n_promised)
    check_partial(result, numbers)
    assert len(result.numbers) - sum(result.is_damaged) > 0.3 * len(numbers)
    assert "ends early" in str(result.report.message)


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("begin", [0.3, 0.4, 0.5])
@pytest.mark.parametrize("name", ["long mp4", "long hevc", "long mkv", "long avi"])
def test_zeroed_middle_costs_little(
    made: Made, tmp_path: Path, name: str, begin: float, decoder: str
) -> None:
    source = made(name)
    path = zeroed(source, tmp_path / source.name, begin, begin + 0.04)
    result = read(path, decoder, segment_frames=20)
    check_partial(result, range(120))
    good = [n for n, bad in zip(result.numbers, result.is_damaged, strict=True) if not bad]
    assert len(good) >= 75
    assert {0, 119} <= set(good)


def test_decord_goes_on_after_a_damaged_segment(made: Made, tmp_path: Path) -> None:
    path = zeroed(made("long mp4"), tmp_path / "hurt.mp4", 0.5, 0.55)
    report = read(path, segment_frames=20).report
    assert report.decoder == "decord+pyav"
    assert report.n_segments_fallback == 1 < report.n_segments - 2


def test_missing_counts_only_the_chosen_span(made: Made, tmp_path: Path) -> None:
    path = cut(made("plain"), tmp_path / "cut.mp4", 0.6)
    assert read(path, end_s=0.8).report.status == "ok"
    whole, sampled = read(path).report, read(path, every=2).report
    assert sampled.n_frames_missing == pytest.approx(whole.n_frames_missing / 2, abs=1)


@pytest.mark.parametrize("decoder", DECODERS)
def test_change_of_size_is_scaled_to_the_first(tmp_path: Path, decoder: str) -> None:
    small = clip(tmp_path / "small.ts", numbered(40))
    large = clip(tmp_path / "large.ts", numbered(40, (240, 144), first=40))
    path = tmp_path / "both.ts"
    path.write_bytes(small.read_bytes() + large.read_bytes())
    result = read(path, decoder, segment_frames=20)
    assert result.numbers == list(range(80))
    np.testing.assert_allclose(result.pts_s, np.arange(80) / 30, atol=1e-3)
    assert {chunk.rgb.shape[1:] for chunk in result.chunks} == {(96, 160, 3)}
    assert "scaled to 160 x 96" in str(result.report.message)


# Files that are none


def _text(path: Path, made: Made) -> None:
    path.write_text("This is not a video. " * 500)


def _noise(path: Path, made: Made) -> None:
    path.write_bytes(random.Random(0).randbytes(50_000))


def _no_table(path: Path, made: Made) -> None:
    path.write_bytes(made("plain").read_bytes()[:9000])


def _sound(path: Path, made: Made) -> None:
    ffmpeg("-i", made("tone"), "-vn", "-c", "copy", path)


def _sound_with_cover(path: Path, made: Made) -> None:
    cover = path.with_name("cover.jpg")
    Image.new("RGB", (64, 64), "red").save(cover)
    ffmpeg(
        *("-i", made("tone"), "-i", cover, "-map", "0:a", "-map", "1:v", "-c:a", "copy"),
        *("-c:v", "mjpeg", "-disposition:v:0", "attached_pic", path),
    )


def _playlist(path: Path, made: Made) -> None:
    path.write_text(f"#EXTM3U\n#EXTINF:2,\nhttp://127.0.0.1:9/{made('ts').name}\n#EXT-X-ENDLIST\n")


def _unknown_codec(path: Path, made: Made) -> None:
    path.write_bytes(made("plain").read_bytes().replace(b"avc1", b"zzz1"))


@pytest.mark.parametrize(
    "build, reason",
    [
        (lambda path, made: path.touch(), "empty"),
        (_unknown_codec, "no decoder"),
        (_text, "not a video"),
        (_noise, "not a video"),
        (_no_table, "header is missing"),
        (_sound, "no video stream"),
        (_sound_with_cover, "no video stream"),
        (_playlist, "opened|not a video"),
    ],
)
def test_unreadable_video_says_why(tmp_path: Path, made: Made, build, reason: str) -> None:
    path = tmp_path / "unreadable.mp4"
    build(path, made)
    with pytest.raises(MediaError, match=reason) as caught:
        read(path)
    assert caught.value.path == path
    assert str(path) in str(caught.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
@pytest.mark.parametrize("suffix", ["mp4", "png"])
def test_file_without_permission(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"closed.{suffix}"
    path.write_bytes(b"x" * 100)
    path.chmod(0)
    with pytest.raises(MediaError, match="Permission denied"):
        read(path)


@pytest.mark.parametrize("name", ["gone.mp4", "gone.jpg"])
def test_file_that_went_away(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.touch()
    (file,) = discovery.find([path])
    path.unlink()
    with (
        pytest.raises(MediaError, match="No such file"),
        FrameReader(file, Sampling(), Decode()),
    ):
        pass


def test_file_that_changes_while_it_is_read(made: Made, tmp_path: Path) -> None:
    path = tmp_path / "plain.ts"
    data = made("ts").read_bytes()
    path.write_bytes(data)
    with FrameReader(discovery.find([path])[0], Sampling(), Decode()) as reader:
        path.write_bytes(data[: len(data) // 2])
        with pytest.raises(DecodeError, match="changed while it was read"):
            list(reader)


# Leaving early


def _footprint() -> tuple[int, int]:
    process = Path("/proc/self")
    return len([*(process / "task").iterdir()]), len([*(process / "fd").iterdir()])


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("how", ["unread", "break", "error"])
def test_leaving_early_leaves_nothing_open(made: Made, decoder: str, how: str) -> None:
    (file,) = discovery.find([made("b-frames")])

    def visit() -> None:
        settings = Decode(decoder=decoder, segment_frames=20, chunk_mb=0.1)
        with (
            contextlib.suppress(ZeroDivisionError),
            FrameReader(file, Sampling(), settings, threads=2) as reader,
        ):
            if how == "unread":
                return
            for _ in reader:
                if how == "error":
                    raise ZeroDivisionError
                break

    visit()
    before = _footprint()
    for _ in range(3):
        visit()
    assert _footprint() == before


# Still images


def save(path: Path, image: Image.Image, **how: object) -> Path:
    image.save(path, **how)
    return path


def picture(size: tuple[int, int] = (160, 96), number: int = 5) -> Image.Image:
    return Image.fromarray(next(numbered(1, size, number)))


@pytest.mark.parametrize(
    "name, mode",
    [
        ("a.png", "RGB"),
        ("a.bmp", "RGB"),
        ("a.jpg", "L"),
        ("a.jpg", "CMYK"),
        ("a.png", "P"),
        ("a.png", "1"),
        ("a.png", "LA"),
        ("a.png", "RGBA"),
        ("a.webp", "RGB"),
        ("a.tif", "CMYK"),
        ("a.tiff", "YCbCr"),
    ],
)
def test_image_of_every_mode(tmp_path: Path, name: str, mode: str) -> None:
    result = read(save(tmp_path / name, picture().convert(mode)))
    assert result.numbers == [5]
    assert (result.pts_s, result.frame_index, result.is_damaged) == ([0.0], [0], [False])
    assert (result.report.decoder, result.report.status) == ("pillow", "ok")
    assert result.chunks[0].rgb.shape == (1, 96, 160, 3)
    assert result.info.n_frames_container == 1
    assert result.info.frame_rate is None


@pytest.mark.parametrize("orientation, angle", [*enumerate([0, 0, 180, 180, 270, 270, 90, 90], 1)])
def test_exif_orientation_is_applied(tmp_path: Path, orientation: int, angle: int) -> None:
    upright = picture()
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = upright.transpose(undo[orientation]) if orientation in undo else upright
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    result = read(save(tmp_path / "phone.jpg", stored, exif=exif))
    assert result.numbers == [5]
    assert (result.info.width_px, result.info.height_px) == (160, 96)
    assert result.info.rotation_deg == angle


@pytest.mark.parametrize("suffix", ["png", "tiff"])
def test_16_bits_are_scaled_not_clipped(tmp_path: Path, suffix: str) -> None:
    ramp = np.linspace(0, 65535, 256).astype(np.uint16)[None].repeat(4, axis=0)
    path = tmp_path / f"deep.{suffix}"
    cv2.imwrite(str(path), ramp)
    rgb = read(path).chunks[0].rgb[0]
    np.testing.assert_array_equal(rgb, np.arange(256)[None, :, None].repeat(3, 2).repeat(4, 0))


def test_transparency_lies_on_white(tmp_path: Path) -> None:
    image = Image.new("RGBA", (2, 1), (10, 20, 30, 255))
    image.putpixel((1, 0), (0, 0, 0, 0))
    rgb = read(save(tmp_path / "cut-out.png", image)).chunks[0].rgb[0]
    assert rgb.tolist() == [[[10, 20, 30], [255, 255, 255]]]


def test_one_pixel(tmp_path: Path) -> None:
    result = read(save(tmp_path / "dot.png", Image.new("RGB", (1, 1), "red")))
    assert result.chunks[0].rgb.tolist() == [[[[255, 0, 0]]]]


@pytest.mark.parametrize("suffix", ["jpg", "png", "ppm"])
def test_cut_image_gives_its_upper_part(tmp_path: Path, suffix: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (300, 400, 3), np.uint8)
    whole = save(tmp_path / f"whole.{suffix}", Image.fromarray(paint_number(noise, 5)))
    path = cut(whole, tmp_path / f"half.{suffix}", 0.6)
    result = read(path)
    assert (result.numbers, result.is_damaged) == ([5], [True])
    assert result.report.status == "partial"
    assert "damaged" in str(result.report.message)


def test_first_of_several_pictures(tmp_path: Path) -> None:
    pages = [picture(number=n) for n in (7, 8, 9)]
    path = save(tmp_path / "scan.tiff", pages[0], save_all=True, append_images=pages[1:])
    result = read(path)
    assert result.numbers == [7]
    assert result.report.status == "partial"
    assert "the first of 3 pictures was read" in str(result.report.message)


def test_sampling_leaves_images_alone(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", picture())
    assert read(path, start_s=10.0).numbers == [5]


@pytest.mark.parametrize("size, limit", [((3000, 1000), 2.5), ((60_000, 60_000), 178)])
def test_decompression_bomb_is_refused(tmp_path: Path, size: tuple[int, int], limit: float) -> None:
    path = tmp_path / "bomb.ppm"
    path.write_bytes(b"P6 %d %d 255\n" % size)
    with pytest.raises(MediaError, match="pixels"):
        read(path, max_image_mp=limit)


@pytest.mark.parametrize(
    "data, reason",
    [(b"", "empty"), (b"not a picture", "not a picture"), (b"\x89PNG\r\n\x1a\n", "unreadable.png")],
)
def test_unreadable_image_says_why(tmp_path: Path, data: bytes, reason: str) -> None:
    path = tmp_path / "unreadable.png"
    path.write_bytes(data)
    with pytest.raises(MediaError, match=reason) as caught:
        read(path)
    assert caught.value.path == path


# Real footage


@pytest.mark.parametrize(
    "name",
    [
        "fr_short_hamilton.mp4",
        "intel_asl_again.mkv",
        "intel_preview_face-demographics-walking-and-pause.gif",
        "pyfeat_face_noface.mov",
        "pyfeat_no_face.mp4",
    ],
)
def test_real_video_equals_a_plain_decode(shared: Path, name: str) -> None:
    (file,) = discovery.find([shared / "media" / "videos" / name])
    with FrameReader(file, Sampling(), Decode(segment_mb=1000)) as reader:
        ours = [
            (pts_s, rgb)
            for chunk in reader
            for pts_s, rgb in zip(chunk.pts_s, chunk.rgb, strict=True)
        ]
    with av.open(str(file.path)) as container:
        stream = container.streams.video[0]
        start_s = container.start_time / av.time_base
        for (pts_s, rgb), frame in zip(ours, container.decode(stream), strict=True):
            assert pts_s == pytest.approx(float(frame.pts * stream.time_base) - start_s, abs=1e-3)
            np.testing.assert_array_equal(rgb, frame.to_ndarray(format="rgb24"))
    assert reader.report.status == "ok"
