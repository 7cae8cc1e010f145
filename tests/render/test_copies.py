"""Rendering a run: every frame at its time with its sound, and what happens when it cannot."""

from collections.abc import Callable, Sequence
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from fer_batch.config import Config, Render, Sampling
from fer_batch.emotions import COLOURS
from fer_batch.errors import RenderError, StoreDiskFullError, StoreError
from fer_batch.media import discovery, encode
from fer_batch.media.decode import FrameReader
from fer_batch.records import Bytes, ChunkResult, MediaFile
from fer_batch.render.copies import render
from fer_batch.render.outputs import Progress
from fer_batch.results import store
from fer_batch.storage import urls
from tests.support import results
from tests.support.clips import RECIPES, SIZE, clip, ffmpeg, numbered, read_number

Made = Callable[[str], Path]
FAST = Config(render=Render(preset="ultrafast"))
UPRIGHT = {"odd 444": (161, 97), "odd vp9": (161, 97)}
BOX = (0.55, 0.55, 0.75, 0.9)
"""Of a face, as fractions of the frame; below the painted number."""


def look_at(
    out: Path,
    *files: MediaFile,
    sampling: Sampling | None = None,
    has_face: Callable[[int], bool] = lambda frame_index: True,
    **row: object,
) -> None:
    """Write the tables of a run that saw one face in each of these frames, happy for certain."""
    for file in files:
        chunks = []
        with FrameReader(file, sampling or Sampling(), FAST.decode) as reader:
            size = (reader.info.width_px, reader.info.height_px)
            chunks = [
                _seen(file, size, chunk.frame_index, chunk.pts_s, has_face) for chunk in reader
            ]
            report = reader.report
        values = {
            "root": str(file.path).removesuffix(file.media),
            "kind": file.kind,
            "size_bytes": file.size_bytes,
            "mtime_ns": file.mtime_ns,
            "n_frames_decoded": report.n_frames_decoded,
        }
        results.write(out, *chunks, rows=[results.row(file.media, **{**values, **row})])


def _seen(file, size, frame_index, pts_s, has_face) -> ChunkResult:
    return results.result(
        file.media,
        [int(has_face(index)) for index in frame_index.tolist()],
        frame_index=frame_index,
        pts_s=pts_s,
        box_px=np.float32(BOX) * np.float32([*size, *size]),
        track_id=0 if file.kind == "video" else None,
    )


def found(*paths: Path) -> list[MediaFile]:
    return discovery.find(paths)


def frames_of(path: Path) -> tuple[list[Bytes], list[float]]:
    """Frames and their times."""
    with av.open(str(path)) as video:
        decoded = list(video.decode(video=0))
        return [frame.to_ndarray(format="rgb24") for frame in decoded], [
            frame.time for frame in decoded
        ]


def is_drawn(frame: Bytes) -> bool:
    """Whether the label is there, just above the box."""
    height, width = frame.shape[:2]
    x1, y1, x2, _ = (np.array(BOX) * [width, height, width, height]).astype(int)
    band = frame[y1 - 6 : y1 - 4, x1:x2].astype(int)
    return bool((np.abs(band - COLOURS["happiness"]).sum(axis=2) < 60).mean() > 0.4)


MATRIX = [
    *("plain", "b-frames", "ntsc", "vfr mp4", "vfr mkv", "rotated 90", "rotated 180"),
    *("rotated 270", "odd 444", "odd vp9", "ts", "trimmed", "late", "gif", "one frame", "name"),
    *("no duration", "tone"),
]


@pytest.mark.usefixtures("each_ffmpeg")
@pytest.mark.parametrize("name", MATRIX)
def test_every_frame_is_there_at_its_time(made: Made, tmp_path: Path, name: str) -> None:
    recipe, [file] = RECIPES[name], found(made(name))
    look_at(tmp_path, file)
    [path] = render(tmp_path, FAST)
    frames, pts_s = frames_of(path)
    assert [read_number(frame) for frame in frames] == list(recipe.numbers)
    np.testing.assert_allclose(pts_s, recipe.pts_s, atol=1e-3)
    assert all(is_drawn(frame) for frame in frames)
    width, height = UPRIGHT.get(name, SIZE)
    assert frames[0].shape == (height + height % 2, width + width % 2, 3)


@pytest.mark.usefixtures("each_ffmpeg")
@pytest.mark.parametrize("name", ["plain", "ntsc", "rotated 90", "gif", "one frame", "tone"])
def test_last_frame_lasts_as_long_as_the_others(made: Made, tmp_path: Path, name: str) -> None:
    recipe, [file] = RECIPES[name], found(made(name))
    look_at(tmp_path, file)
    [path] = render(tmp_path, FAST)
    with av.open(str(path)) as video:
        stream = video.streams.video[0]
        length_s = float(stream.duration * stream.time_base)
    step_s = recipe.pts_s[1] if len(recipe.pts_s) > 1 else 1 / 30
    assert length_s == pytest.approx(recipe.pts_s[-1] + step_s, abs=2e-3)


def with_sound(path: Path, source: Path, codec: str, *options: str) -> Path:
    """A copy with a sound of two seconds that differs in every moment."""
    ffmpeg(
        *("-i", source, "-f", "lavfi", "-i", "aevalsrc=sin(2*PI*t*(200+300*t)):s=48000:d=2"),
        *("-map", "0:v", "-map", "1:a", "-c:v", "copy", "-c:a", codec, *options, path),
    )
    return path


def sound_of(path: Path) -> list[tuple[float, bytes]]:
    """Time and bytes of each packet of sound; headers that only MPEG-TS has are cut off."""
    with av.open(str(path)) as file:
        return [
            (float(packet.pts * packet.time_base), bytes(packet)[7 * (path.suffix == ".ts") :])
            for packet in file.demux(audio=0)
            if packet.size
        ]


COPIED = {
    "aac": "a.mp4",
    "libmp3lame": "a.mkv",
    "libopus": "a.mkv",
    "flac": "a.mkv",
    "aac ts": "a.ts",
}
SPAN = Sampling(start_s=0.7, end_s=1.5)


@pytest.mark.usefixtures("each_ffmpeg")
@pytest.mark.parametrize("codec", COPIED)
@pytest.mark.parametrize("sampling", [Sampling(), SPAN], ids=["whole", "span"])
def test_sound_is_copied(made: Made, tmp_path: Path, codec: str, sampling: Sampling) -> None:
    source = with_sound(tmp_path / COPIED[codec], made("plain"), codec.split()[0])
    look_at(tmp_path / "out", *found(source), sampling=sampling)
    [path] = render(tmp_path / "out", FAST.model_copy(update={"sampling": sampling}))
    with av.open(str(source)) as file:
        start_s = file.start_time / av.time_base + (sampling.start_s or 0.0)
    times = {packet: at - start_s for at, packet in sound_of(source)}
    copied = sound_of(path)
    np.testing.assert_allclose([times[packet] - at for at, packet in copied], 0, atol=2e-3)
    if sampling == SPAN:
        expected = sum(0 <= at < 0.8 for at in times.values())
        assert len(copied) == pytest.approx(expected, abs=1)
    else:
        assert [packet for _, packet in copied] == list(times)


@pytest.mark.usefixtures("each_ffmpeg")
@pytest.mark.parametrize("file, codec", [("a.mkv", "libvorbis"), ("a.mov", "pcm_s16le")])
@pytest.mark.parametrize("sampling", [Sampling(), SPAN], ids=["whole", "span"])
def test_other_sound_becomes_aac_and_stays_in_step(
    made: Made, tmp_path: Path, file: str, codec: str, sampling: Sampling
) -> None:
    source = with_sound(tmp_path / file, made("plain"), codec)
    look_at(tmp_path / "out", *found(source), sampling=sampling)
    [path] = render(tmp_path / "out", FAST.model_copy(update={"sampling": sampling}))
    rate = 8000
    wave = np.zeros(4 * rate)
    with av.open(str(path)) as video:
        assert video.streams.audio[0].codec_context.name == "aac"
        resampler = av.AudioResampler("flt", "mono", rate)
        for frame in video.decode(audio=0):
            for part in resampler.resample(frame):
                samples = part.to_ndarray()[0]
                at = round(part.time * rate) + np.arange(len(samples))
                wave[at[at >= 0]] = samples[at >= 0]
    at_s = np.arange(0.2, 0.6, 1 / rate)  # away from where coders fade in and out

    def error(shift: int) -> float:
        played_s = at_s + shift / rate + (sampling.start_s or 0.0)
        truth = np.sin(2 * np.pi * played_s * (200 + 300 * played_s))
        return float(np.abs(wave[round(0.2 * rate) :][: len(at_s)] - truth).mean())

    best = min(range(-80, 81), key=error)
    assert abs(best) <= 40  # 5 ms
    assert error(best) < 0.3  # ffmpeg 5.1: 0.24; the sound of another moment: 0.8


@pytest.mark.usefixtures("each_ffmpeg")
@pytest.mark.parametrize("layout", ["2.1", "6.1", "hexagonal"])
def test_sound_for_unusual_loudspeakers_is_made_usual(
    made: Made, tmp_path: Path, layout: str
) -> None:
    sound = ("-af", f"aformat=channel_layouts={layout}")
    source = with_sound(tmp_path / "a.mkv", made("plain"), "pcm_s16le", *sound)
    look_at(tmp_path / "out", *found(source))
    [path] = render(tmp_path / "out", FAST)
    assert len(frames_of(path)[0]) == 60
    assert sound_of(path)[-1][0] > 1.8
    with av.open(str(path)) as copy:
        assert copy.streams.audio[0].layout.name in {"stereo", "3.0", "4.0", "5.0", "5.1", "7.1"}


@pytest.mark.usefixtures("each_ffmpeg")
@pytest.mark.parametrize("seed", [4, 6])  # of 4 ffmpeg 5.1 makes loudspeakers that AAC lacks
def test_damaged_sound_does_not_cost_the_video(made: Made, tmp_path: Path, seed: int) -> None:
    random = np.random.default_rng(seed)
    whole = with_sound(tmp_path / "whole.mkv", made("plain"), "ac3")
    data = bytearray(whole.read_bytes())
    for _, packet in sound_of(whole):
        if len(packet) > 20:
            at = data.index(packet)
            data[at : at + len(packet)] = random.bytes(len(packet))
    source = tmp_path / "a.mkv"
    source.write_bytes(data)
    look_at(tmp_path / "out", *found(source))
    [path] = render(tmp_path / "out", FAST)
    assert len(frames_of(path)[0]) == 60


@pytest.mark.usefixtures("each_ffmpeg")
def test_span_shows_its_frames_from_zero_on(made: Made, tmp_path: Path) -> None:
    [file] = found(made("plain"))
    look_at(tmp_path, file, sampling=SPAN)
    [path] = render(tmp_path, FAST.model_copy(update={"sampling": SPAN}))
    frames, pts_s = frames_of(path)
    assert [read_number(frame) for frame in frames] == list(range(21, 45))
    np.testing.assert_allclose(pts_s, np.arange(24) / 30, atol=1e-3)


def test_frames_passed_over_show_the_last_ones_faces(made: Made, tmp_path: Path) -> None:
    """Looked at: every tenth frame; the face is on 0, 10, 20 and on none after."""
    [file] = found(made("plain"))
    sampling = Sampling(every=10)
    look_at(tmp_path, file, sampling=sampling, has_face=lambda frame_index: frame_index <= 20)
    [path] = render(tmp_path, FAST.model_copy(update={"sampling": sampling}))
    frames, _ = frames_of(path)
    assert [read_number(frame) for frame in frames] == list(range(60))
    assert [is_drawn(frame) for frame in frames] == [n <= 20 for n in range(60)]


def test_still_images(tmp_path: Path) -> None:
    rgb = next(numbered(1, (640, 360)))
    for name in ("a.jpg", "b.PNG", "c.webp", "d.jpeg"):
        Image.fromarray(rgb).save(tmp_path / name)
    look_at(tmp_path / "out", *found(tmp_path))
    paths = render(tmp_path / "out", FAST)
    assert [path.name for path in paths] == ["a.jpg", "b.PNG", "c.webp.png", "d.jpeg"]
    for path in paths:
        with Image.open(path) as picture:
            shown = np.asarray(picture)
        assert shown.shape == rgb.shape
        assert is_drawn(shown)


@pytest.fixture
def run(made: Made, tmp_path: Path) -> Path:
    """Output folder of a run over one short video, one image, and one file that failed."""
    source = tmp_path / "in" / "deep"
    source.mkdir(parents=True)
    clip(source / "a.mov", numbered(5))
    Image.fromarray(next(numbered(1, (320, 180)))).save(source.parent / "b.png")
    out = tmp_path / "out"
    look_at(out, *found(source.parent))
    results.write(
        out, rows=[results.row("bad.mp4", status="failed", error="x", n_frames_decoded=0)]
    )
    return out


def stamps(paths: Sequence[Path]) -> list[int]:
    return [path.stat().st_mtime_ns for path in paths]


def test_copies_stand_at_the_same_place_below_annotated(run: Path) -> None:
    assert render(run, FAST) == [run / "annotated/b.png", run / "annotated/deep/a.mov.mp4"]


def test_what_is_up_to_date_is_left_alone(run: Path) -> None:
    before = stamps(render(run, FAST))
    assert stamps(render(run, FAST)) == before
    assert stamps(render(run, FAST, force=True)) != before


def test_other_settings_and_new_rows_are_rendered_again(run: Path) -> None:
    video = run / "annotated/deep/a.mov.mp4"
    before = stamps(render(run, FAST))
    slower = Config(render=Render(preset="superfast"))
    assert not set(stamps(render(run, slower))) & set(before)
    [file] = [file for file in found(run.parent / "in") if file.kind == "video"]
    before = stamps([video])
    store.forget(run, [file.media])
    look_at(run, file, seconds=7.0)
    render(run, slower)
    assert stamps([video]) != before


def test_names_never_collide(tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    counts = {"a.mov": 1, "a.mov.mp4": 2, "a.mp4": 3}
    for name, count in counts.items():
        clip(source / name, numbered(count))
    look_at(tmp_path / "out", *found(source))
    paths = render(tmp_path / "out", FAST)
    assert [path.name for path in paths] == ["a.mov.mp4.mp4", "a.mov.mp4", "a.mp4"]
    assert [len(frames_of(path)[0]) for path in paths] == list(counts.values())


def test_some_files(run: Path) -> None:
    assert render(run, FAST, media={"b.png", "bad.mp4"}) == [run / "annotated/b.png"]
    assert not (run / "annotated/deep").exists()
    with pytest.raises(RenderError, match=r"unknown\.mp4"):
        render(run, FAST, media={"unknown.mp4"})


def test_progress_goes_from_nothing_to_all(run: Path) -> None:
    seen: list[Progress] = []
    render(run, FAST, on_progress=seen.append)
    assert seen[-1] == Progress(n_files_done=2, n_files=2, n_frames=6, share=1.0)
    assert [progress.share for progress in seen] == sorted(progress.share for progress in seen)


def test_leftovers_of_a_killed_run_are_removed(run: Path) -> None:
    leftover = run / "annotated" / "old" / urls.TEMPORARY.format("a.mp4")
    leftover.parent.mkdir(parents=True)
    leftover.touch()
    render(run, FAST)
    assert not leftover.exists()


@pytest.mark.parametrize("harm", ["remove", "change"])
def test_source_that_is_not_the_same_any_more(run: Path, harm: str) -> None:
    source = run.parent / "in/deep/a.mov"
    source.unlink() if harm == "remove" else clip(source, numbered(9))
    says = r"1 of 2 files could not be rendered:\ndeep/a\.mov: .*" + (
        "No such file" if harm == "remove" else "has changed since it was processed"
    )
    with pytest.raises(RenderError, match=says):
        render(run, FAST)
    assert (run / "annotated/b.png").exists()
    assert not list(run.glob("annotated/deep/*"))


def test_gif_is_a_copy_of_its_own(run: Path) -> None:
    gif = Config(render=Render(format="gif"))
    video = render(run, FAST)[1]
    before = stamps([video])
    paths = render(run, gif)
    assert paths == [run / "annotated/b.png", run / "annotated/deep/a.mov.gif"]
    with Image.open(paths[1]) as picture:
        assert picture.format == "GIF"
        assert picture.size == SIZE
    stamped = stamps(paths)
    assert stamps(render(run, gif)) == stamped
    assert stamps([video]) == before


def test_long_gifs_are_refused_unless_a_part_is_chosen(tmp_path: Path) -> None:
    source = tmp_path / "a.mp4"
    clip(source, numbered(33), rate=1)
    look_at(tmp_path / "out", *found(source))
    with pytest.raises(RenderError, match=r"a\.mp4: a GIF of 33 s would be huge: give --start"):
        render(tmp_path / "out", Config(render=Render(format="gif")))
    part = Config(render=Render(format="gif"), sampling=Sampling(start_s=4, end_s=6))
    [path] = render(tmp_path / "out", part)
    with Image.open(path) as picture:
        assert read_number(np.asarray(picture.convert("RGB"))) == 4


def test_side_by_side_shows_the_source_on_the_left(run: Path) -> None:
    double = Config(render=Render(style="side-by-side", preset="ultrafast"))
    drawn, _ = frames_of(render(run, double, media={"deep/a.mov"})[0])
    width = SIZE[0]
    assert [read_number(frame[:, :width]) for frame in drawn] == list(range(5))
    assert [is_drawn(frame[:, :width]) for frame in drawn] == [False] * 5
    assert [is_drawn(frame[:, width:]) for frame in drawn] == [True] * 5


def test_heatmaps_need_the_weights_of_the_run(run: Path) -> None:
    style = Config(render=Render(style="heatmap"))
    says = "b.png: it was processed with hand-made, whose heatmaps ferplus-resnet-compact cannot"
    with pytest.raises(RenderError, match=says):
        render(run, style)
    assert written(run / "annotated") == []


def written(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob("*") if path.is_file()]


def test_ffmpeg_that_fails_leaves_nothing_half_made(run: Path) -> None:
    with pytest.raises(RenderError, match=r"deep/a\.mov: ffmpeg failed: .*no_such_codec"):
        render(run, Config(render=Render(codec="no_such_codec")))
    assert written(run / "annotated") == ["b.png"]


def test_full_disk_ends_the_run(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = run.parent / "ffmpeg"
    script.write_text("#!/bin/sh\necho 'No space left on device' >&2\nexit 1\n")
    script.chmod(0o755)
    monkeypatch.setattr(encode, "ffmpeg_path", lambda: str(script))
    with pytest.raises(StoreDiskFullError, match="no space left"):
        render(run, FAST)
    assert written(run / "annotated") == ["b.png"]


def test_interrupt_leaves_nothing_half_made(run: Path) -> None:
    def interrupt(progress: Progress) -> None:
        if progress.n_frames == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        render(run, FAST, on_progress=interrupt)
    assert written(run / "annotated") == ["b.png"]
    assert len(render(run, FAST)) == 2


def test_no_run_or_a_busy_one(run: Path, tmp_path: Path) -> None:
    with pytest.raises(RenderError, match="holds no results"):
        render(tmp_path / "nothing", FAST)
    assert not (tmp_path / "nothing").exists()
    with store.lock(run), pytest.raises(StoreError, match="another run"):
        render(run, FAST)


def test_real_video(shared: Path, tmp_path: Path) -> None:
    [file] = found(shared / "media/videos/pyfeat_single_face.mp4")
    look_at(tmp_path, file)
    [path] = render(tmp_path, FAST)
    before, before_s = frames_of(file.path)
    after, after_s = frames_of(path)
    np.testing.assert_allclose(np.array(after_s), before_s, atol=1e-3)
    assert all(is_drawn(frame) for frame in after)
    corner = np.s_[10:110, 10:110]  # of the frame, where nothing is drawn
    assert np.abs(after[40][corner].astype(int) - before[40][corner]).mean() < 3
    assert [packet for _, packet in sound_of(path)] == [packet for _, packet in sound_of(file.path)]
