"""Memory during a long video, and speed with many small images.

python -m benchmarks.process [--minutes 60] [--images 10000]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

from benchmarks.measuring import machine, measure_apart, peak_mb, write_page


def rss_mb() -> float:
    """Current memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def memory(video: str, pause_s: str, end_s: str) -> dict[str, object]:
    """Memory above a bare ``import torch`` while a long video is processed."""
    import torch  # noqa: F401

    bare = rss_mb()
    from fer_batch.config import load
    from fer_batch.pipeline import process as pipeline

    samples: list[float] = []
    frames: list[int] = []

    def on_progress(progress: pipeline.Progress) -> None:
        samples.append(rss_mb() - bare)
        frames.append(progress.n_frames)
        time.sleep(float(pause_s))

    config = load(None, [f"sampling.end_s={end_s}", "detector.every=5"])
    with tempfile.TemporaryDirectory() as out:
        summary = pipeline.process([Path(video)], Path(out), config, on_progress=on_progress)
    tenths = [samples[k * (len(samples) - 1) // 10] for k in range(11)]
    peak = peak_mb() - bare
    settled = len(samples) // 5
    slope = statistics.linear_regression(frames[settled:-1], samples[settled:-1]).slope
    return {
        "n_frames": summary.n_frames,
        "peak_mb": peak,
        "tenths_mb": tenths,
        "mb_per_hour": slope * 25 * 3600,
    }


def images(folder: str) -> dict[str, object]:
    """Wall time per image over the course of a run, and the number of its files."""
    from fer_batch.config import Config
    from fer_batch.pipeline import process as pipeline

    marks = [(0, time.perf_counter())]
    with tempfile.TemporaryDirectory() as out:
        pipeline.process(
            [Path(folder)],
            Path(out),
            Config(),
            on_progress=lambda progress: marks.append((progress.n_files_done, time.perf_counter())),
        )
        n_tables = sum(1 for _ in Path(out).rglob("*.parquet"))
    marks = marks[1:]  # the first waits for the network to load
    total = marks[-1][0]
    cuts = [min(marks, key=lambda mark: abs(mark[0] - total * k / 10)) for k in range(11)]
    pace = [
        1e3 * (later[1] - earlier[1]) / max(1, later[0] - earlier[0])
        for earlier, later in pairwise(cuts)
    ]
    return {"n_images": total, "n_tables": n_tables, "ms_per_image": pace}


MEASURES = {"memory": memory, "images": images}


def make_video(path: Path, minutes: float) -> None:
    """A 720p video that repeats the demo's portrait clip without encoding it again."""
    from PIL import Image
    from skimage import data

    from examples.demo import make_clip
    from fer_batch.media.ffmpeg import ffmpeg_path

    portrait, clip, large = (path.with_name(name) for name in ("p.png", "clip.mp4", "large.mp4"))
    Image.fromarray(data.astronaut()).save(portrait)
    make_clip(portrait, clip)
    ffmpeg = [ffmpeg_path(), "-v", "error", "-y"]
    subprocess.run([*ffmpeg, "-i", clip, "-vf", "scale=1280:720", "-g", "50", large], check=True)
    loop = ["-stream_loop", "-1", "-i", large, "-t", str(60 * minutes), "-c", "copy"]
    subprocess.run([*ffmpeg, *loop, path], check=True)


def make_images(folder: Path, count: int) -> None:
    """Small pictures with no face, one or three, in nested folders."""
    from PIL import Image

    from tests.support.portraits import portrait

    for number in range(count):
        path = folder / f"{number // 1000:02d}" / f"{number // 100 % 10}" / f"{number:05d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(portrait((0, 1, 3)[number % 3], number % 1024)).resize((240, 150)).save(
            path
        )


def report(options: argparse.Namespace) -> Iterator[str]:
    """The lines of the page."""
    yield "# Long videos and many images"
    yield ""
    yield from machine()
    yield "Default configuration, but for `detector.every=5` in the video."

    with tempfile.TemporaryDirectory() as folder:
        video = Path(folder, "long.mp4")
        make_video(video, options.minutes)
        yield from ("", "## Memory above `import torch`, 720p", "")
        yield "`growth`: the slope of a line through the samples after the first fifth, per hour of"
        yield "video at 25 frames/s."
        yield ""
        yield "| run | frames | peak MB | growth, MB/h | MB at 0, 10, ... 100 % of the run |"
        yield "|---|---|---|---|---|"
        for name, pause_s, end_s in (
            (f"{options.minutes:g} minutes", 0, 60 * options.minutes),
            ("2 minutes, consumer sleeps 0.5 s per batch", 0.5, 120),
        ):
            run = measure_apart("benchmarks.process", "memory", video, pause_s, end_s)
            tenths = ", ".join(f"{value:.0f}" for value in run["tenths_mb"])
            yield (
                f"| {name} | {run['n_frames']:,} | {run['peak_mb']:.0f} | "
                f"{run['mb_per_hour']:+.0f} | {tenths} |"
            )

    with tempfile.TemporaryDirectory() as folder:
        make_images(Path(folder), options.images)
        run = measure_apart("benchmarks.process", "images", folder)
        yield from ("", "## Many small images in nested folders", "")
        pace = ", ".join(f"{value:.1f}" for value in run["ms_per_image"])
        yield f"{run['n_images']:,} images of 240x150; {run['n_tables']} table files."
        yield f"Wall ms per image in each tenth of the run: {pace}."


def main() -> None:
    """Measure everything and write the page, or (``--measure``) measure one thing and print it."""
    if sys.argv[1:2] == ["--measure"]:
        print(json.dumps(MEASURES[sys.argv[2]](*sys.argv[3:])))
        return
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--images", type=int, default=10_000)
    write_page("process", report(parser.parse_args()))


if __name__ == "__main__":
    main()
