"""Speed and memory of ``fer-batch process``; writes docs/benchmarks/<date>-<commit>.md.

    benchmarks/process.py [--clip FILE] [--minutes 30] [--images 10000] [--rounds 5]

Every measurement runs in a process of its own, so that its memory and CPU time are its own.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))
CLIP = ROOT.parent / "shared" / "media" / "videos" / "intel_asl_again.mkv"
PACKAGES = ("torch", "decord", "av", "opencv-python-headless", "pyarrow")


def rss_mb() -> float:
    """Memory that this process holds now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def speed(clip: str) -> dict[str, object]:
    """CPU and wall time per frame of one clip, after a first run has loaded everything."""
    from fer_batch import pipeline, store
    from fer_batch.config import Config

    with tempfile.TemporaryDirectory() as out:
        pipeline.process([Path(clip)], Path(out), Config())
        cpu, wall = time.process_time(), time.perf_counter()
        summary = pipeline.process([Path(clip)], Path(out), Config(), force=True)
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        stages = store.read_run(Path(out))["stage_seconds"]
    per_frame = {stage: 1e3 * seconds / summary.n_frames for stage, seconds in stages.items()}
    return {
        "cpu_ms": 1e3 * cpu / summary.n_frames,
        "frames_per_s": summary.n_frames / wall,
        "n_frames": summary.n_frames,
        "n_faces": summary.n_faces,
        "stages_ms": per_frame,
    }


def memory(video: str, pause_s: str, end_s: str) -> dict[str, object]:
    """Memory above a bare ``import torch`` while a long video is processed."""
    import torch  # noqa: F401

    bare = rss_mb()
    from fer_batch import pipeline
    from fer_batch.config import load

    samples: list[float] = []

    def on_progress(progress: pipeline.Progress) -> None:
        samples.append(rss_mb() - bare)
        time.sleep(float(pause_s))

    config = load(None, [f"sampling.end_s={end_s}"])
    with tempfile.TemporaryDirectory() as out:
        summary = pipeline.process([Path(video)], Path(out), config, on_progress=on_progress)
    tenths = [samples[k * (len(samples) - 1) // 10] for k in range(11)]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6 - bare
    return {"n_frames": summary.n_frames, "peak_mb": peak, "tenths_mb": tenths}


def images(folder: str) -> dict[str, object]:
    """Wall time per image over the course of a run, and the number of its files."""
    from fer_batch import pipeline
    from fer_batch.config import Config

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


MEASURES = {"speed": speed, "memory": memory, "images": images}


def measure(name: str, *arguments: object) -> dict[str, object]:
    """Run one measurement in a process of its own."""
    command = [sys.executable, __file__, "--measure", name, *map(str, arguments)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    result: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return result


def make_video(path: Path, minutes: float) -> None:
    """A 720p video of the demo's portrait clip, looped without encoding again."""
    from fer_batch.ffmpeg import ffmpeg_path

    sys.path.insert(0, str(ROOT / "examples"))
    from demo import make_clip
    from PIL import Image
    from skimage import data

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
    from portraits import portrait

    for number in range(count):
        path = folder / f"{number // 1000:02d}" / f"{number // 100 % 10}" / f"{number:05d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(portrait((0, 1, 3)[number % 3], number % 1024)).resize((240, 150)).save(
            path
        )


def report(options: argparse.Namespace) -> Iterator[str]:
    """The lines of the page."""
    revision = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],
        check=True,
        capture_output=True,
        text=True,
        cwd=ROOT,
    ).stdout.strip()
    yield f"# `fer-batch process`, {datetime.now(UTC):%Y-%m-%d}, commit {revision}"
    yield ""
    packages = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    yield f"{os.cpu_count()} cores ({platform.machine()}), Python {platform.python_version()},"
    yield f"{packages}."
    yield f"Written by `benchmarks/process.py`; load average at the start {os.getloadavg()[0]:.1f}."
    yield "Default configuration."

    runs = [measure("speed", options.clip) for _ in range(options.rounds)]
    yield from ("", "## CPU per frame", "")
    yield f"`{options.clip.name}`: {runs[0]['n_frames']} frames, {runs[0]['n_faces']} faces."
    yield "Loading is left out."
    yield ""
    cpu = sorted(float(run["cpu_ms"]) for run in runs)
    pace = sorted(float(run["frames_per_s"]) for run in runs)
    yield f"| what | median of {len(runs)} | range |"
    yield "|---|---|---|"
    yield f"| CPU ms/frame | {statistics.median(cpu):.1f} | {cpu[0]:.1f}-{cpu[-1]:.1f} |"
    yield f"| frames/s | {statistics.median(pace):.1f} | {pace[0]:.1f}-{pace[-1]:.1f} |"
    for stage in runs[0]["stages_ms"]:
        values = sorted(run["stages_ms"][stage] for run in runs)
        middle, low, high = statistics.median(values), values[0], values[-1]
        yield f"| {stage}, wall ms/frame | {middle:.2f} | {low:.2f}-{high:.2f} |"

    with tempfile.TemporaryDirectory() as folder:
        video = Path(folder, "long.mp4")
        make_video(video, options.minutes)
        yield from ("", "## Memory above `import torch`, 720p", "")
        yield "| run | frames | peak MB | MB at 0, 10, ... 100 % of the run |"
        yield "|---|---|---|---|"
        for name, pause_s, end_s in (
            (f"{options.minutes:g} minutes", 0, 60 * options.minutes),
            ("2 minutes, consumer sleeps 0.5 s per batch", 0.5, 120),
        ):
            run = measure("memory", video, pause_s, end_s)
            tenths = ", ".join(f"{value:.0f}" for value in run["tenths_mb"])
            yield f"| {name} | {run['n_frames']:,} | {run['peak_mb']:.0f} | {tenths} |"

    with tempfile.TemporaryDirectory() as folder:
        make_images(Path(folder), options.images)
        run = measure("images", folder)
        yield from ("", "## Many small images in nested folders", "")
        pace = ", ".join(f"{value:.1f}" for value in run["ms_per_image"])
        yield f"{run['n_images']:,} images of 240x150; {run['n_tables']} table files."
        yield f"Wall ms per image in each tenth of the run: {pace}."


def main() -> None:
    """Measure everything and write the page, or (``--measure``) one thing and print it."""
    if sys.argv[1:2] == ["--measure"]:
        print(json.dumps(MEASURES[sys.argv[2]](*sys.argv[3:])))
        return
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clip", type=Path, default=CLIP)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    page = "\n".join(report(options)) + "\n"
    title = page.splitlines()[0]
    path = ROOT / "docs" / "benchmarks" / f"{title.split(', ')[1]}-{title.split()[-1]}.md"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8")
    print(page, path, sep="\n")


if __name__ == "__main__":
    main()
