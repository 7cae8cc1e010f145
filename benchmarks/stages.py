"""Time of each stage alone, of all together, and with more faces, threads and processes.

    python -m benchmarks.stages [--rounds 3] [--set SECTION.KEY=VALUE ...]

Clips are made by code: a moving grid of one portrait. Each round makes every measurement once.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks.measuring import (
    DETECTORS,
    WEIGHTS,
    machine,
    measure_apart,
    median,
    peak_mb,
    write_page,
)

RATE = 25
Numbers = dict[str, float]


def make_clip(path: Path, *, faces: int = 1, height: int = 720, seconds: float = 8) -> Path:
    """A 16:9 video of `faces` equal faces (a square number, or 0) that move a little."""
    import cv2
    import numpy as np
    from skimage import data

    from tests.support.clips import clip

    side = round(faces**0.5)
    width = height * 16 // 9
    frame = np.full((height, width, 3), 150, np.uint8)
    if faces:
        tile = cv2.resize(data.astronaut()[20:220, 124:324], (height // side,) * 2)
        frame[:, : side * (height // side)][: side * (height // side)] = np.tile(
            tile, (side, side, 1)
        )
    moving = (np.roll(frame, 4 * (number % 12), axis=1) for number in range(int(RATE * seconds)))
    return clip(path, moving, rate=RATE, options={"g": "50", "preset": "veryfast"})


@contextmanager
def counting(results: dict[str, Numbers], name: str, n: int) -> Iterator[None]:
    """Measure elapsed and CPU milliseconds per item of `n`."""
    wall, cpu = time.perf_counter(), time.process_time()
    yield
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    results[name] = {"wall_ms": 1e3 * wall / n, "cpu_ms": 1e3 * cpu / n}


@contextmanager
def watching_gpu(busy: list[int]) -> Iterator[None]:
    """Collect the share of time, in percent, in which the GPU computes, if there is one."""
    import torch

    over = threading.Event()

    def watch() -> None:
        command = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits"]
        while not over.wait(0.2):
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            busy.append(int(done.stdout.split()[0]))

    watcher = threading.Thread(target=watch)
    if torch.cuda.is_available():
        watcher.start()
    yield
    over.set()
    if watcher.ident:
        watcher.join()


def alone(clip: str, *settings: str) -> dict[str, Numbers]:
    """Each stage alone on the frames of a clip, after everything is loaded."""
    import numpy as np

    from fer_batch.config import load
    from fer_batch.faces.crop import crop
    from fer_batch.faces.tracking import CutDetector, Tracker
    from fer_batch.pipeline.collector import Collector
    from fer_batch.pipeline.lanes import Lanes, Resources
    from fer_batch.pipeline.plan import make_plan
    from fer_batch.pipeline.stopwatch import Stopwatch
    from fer_batch.records import ChunkResult

    results: dict[str, Numbers] = {}
    config = load(None, settings)
    with tempfile.TemporaryDirectory() as folder:
        plan = make_plan([Path(clip)], Path(folder, "out"), config)
        means = Resources.of(config)
        chunks = list(read(plan.todo, config, means))
        n = sum(len(chunk.rgb) for chunk in chunks)
        with counting(results, "decode", n):
            for _ in read(plan.todo, config, means):
                pass
        with Lanes(plan, means, Stopwatch()) as lanes:
            lanes.detect(chunks[0].rgb[:32]).result()
            with counting(results, "detect", n):
                pending = [lanes.detect(list(chunk.rgb)) for chunk in chunks]
                found = [each.result() for each in pending]
            with counting(results, "track", n):
                tracker, cuts = Tracker(config.track), CutDetector(config.track.cut_threshold)
                ids = [
                    tracker.update(faces, chunk.pts_s, cuts.update(chunk.rgb))
                    for chunk, faces in zip(chunks, found, strict=True)
                ]
            with counting(results, "crop", n):
                crops = [
                    crop(chunk.rgb, faces, plan.card)
                    for chunk, faces in zip(chunks, found, strict=True)
                ]
            lanes.classify(crops[0][:1]).result() if len(crops[0]) else None
            with counting(results, "classify", n):
                waiting = [lanes.classify(each) for each in crops if len(each)]
                probs = [each.result() for each in waiting]
        faces_of = iter(probs)
        with counting(results, "write", n):
            collector = Collector(Path(folder, "out"), plan)
            for chunk, faces, track_id in zip(chunks, found, ids, strict=True):
                collector.append(
                    plan.todo[0],
                    ChunkResult(
                        media=plan.todo[0].media,
                        frame_index=chunk.frame_index,
                        pts_s=chunk.pts_s,
                        is_damaged=chunk.is_damaged,
                        faces=faces,
                        track_id=track_id,
                        probs=next(faces_of) if len(faces) else np.empty((0, 8), np.float32),
                    ),
                )
    return results


def read(files, config, means):
    """The frames of files, chunk by chunk, as the pipeline reads them."""
    from fer_batch.pipeline.readers import Chunk, ReaderPool

    with ReaderPool(files, config, readers=means.readers, buffer_mb=means.buffer_mb) as readers:
        while items := readers.take(64):
            for item in items:
                if isinstance(item, Chunk):
                    yield item.frames
                    readers.release(item)


def whole(folder: str, *settings: str) -> Numbers:
    """The pipeline over the clips of a folder, with all loading, after a first small run."""
    from fer_batch.config import load
    from fer_batch.pipeline import process as pipeline

    config = load(None, settings)
    warm = load(None, [*settings, "sampling.end_s=0.5"])
    busy: list[int] = []
    with tempfile.TemporaryDirectory() as out:
        pipeline.process([Path(folder)], Path(out, "warm"), warm)
        wall, cpu = time.perf_counter(), time.process_time()
        with watching_gpu(busy):
            summary = pipeline.process([Path(folder)], Path(out, "run"), config)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return {
        "n_frames": summary.n_frames,
        "wall_ms": 1e3 * wall / summary.n_frames,
        "cpu_ms": 1e3 * cpu / summary.n_frames,
        "faces": summary.n_faces / summary.n_frames,
        "peak_mb": peak_mb(),
        "gpu_busy": statistics.mean(busy) if busy else 0.0,
    }


def at_once(folder: str, n_runs: str) -> Numbers:
    """Several simultaneous runs over the same clips: mean CPU and elapsed time per frame."""
    command = [sys.executable, "-m", "benchmarks.stages", "--measure", "whole", folder]
    started = [
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(int(n_runs))
    ]
    runs = [json.loads(run.communicate()[0].splitlines()[-1]) for run in started]
    mean = {key: statistics.mean(run[key] for run in runs) for key in runs[0]}
    return mean | {"wall_ms": mean["wall_ms"] / len(runs)}


MEASURES: dict[str, Callable[..., object]] = {"alone": alone, "whole": whole, "at_once": at_once}


def detectors() -> dict[str, list[str]]:
    """Settings of the detectors whose weights are available."""
    return DETECTORS if WEIGHTS.is_dir() else {name: DETECTORS[name] for name in ("haar", "yunet")}


def stage_table(folder: Path, rounds: int, settings: Sequence[str]) -> Iterator[str]:
    """For each detector: its stages alone, their sum, and the whole pipeline."""
    from fer_batch.config import load
    from fer_batch.pipeline.lanes import Resources

    clip = make_clip(folder / "clip.mp4", seconds=8)
    n_lanes = Resources.of(load(None, settings)).lanes
    chosen = {"as given": list(settings)} if settings else detectors()
    yield from ("## Stages", "")
    yield "One face in each of 200 frames of 720p. Each stage alone, all its data in memory; CPU"
    yield "ms/frame, and in brackets wall ms/frame. `limit`: frames/s of the slowest stage alone;"
    yield f"`shared limit`: of {n_lanes} cores that do all stages and nothing else. The pipeline"
    yield "includes loading its networks, which the stages leave out."
    yield ""
    names = ("decode", "detect", "track", "crop", "classify", "write")
    columns = ("detector", *names, "limit", "shared limit", "pipeline", "of limit")
    yield f"| {' | '.join(columns)} | of shared limit | GPU busy |"
    yield "|:--|" + "--:|" * (len(names) + 6)
    for name, own in chosen.items():
        stages: list[dict[str, Numbers]] = []
        wholes: list[Numbers] = []
        for _ in range(rounds):
            stages.append(measure_apart("benchmarks.stages", "alone", clip, *own))
            wholes.append(measure_apart("benchmarks.stages", "whole", clip.parent, *own))
        medians = {stage: median([run[stage] for run in stages]) for stage in names}
        cells = [f"{each['cpu_ms']:.1f} ({each['wall_ms']:.1f})" for each in medians.values()]
        limit = 1e3 / max(each["wall_ms"] for each in medians.values())
        shared = 1e3 * n_lanes / sum(each["cpu_ms"] for each in medians.values())
        total = median(wholes)
        rate = 1e3 / total["wall_ms"]
        yield (
            f"| {name} | {' | '.join(cells)} | {limit:.0f} | {shared:.0f} | {rate:.0f} | "
            f"{rate / limit:.2f} | {rate / shared:.2f} | {total['gpu_busy']:.0f} % |"
        )


def growth_table(folder: Path, rounds: int, settings: Sequence[str]) -> Iterator[str]:
    """Change one thing at a time; the rest is as in the first row."""
    cases: dict[str, tuple[list[dict[str, float]], list[str]]] = {
        "720p, 1 face, 8 s, 1 file": ([{}], []),
        "32 s": ([{"seconds": 32}], []),
        "128 s": ([{"seconds": 128}], []),
        "4 files of 8 s": ([{}] * 4, []),
        "16 files of 2 s": ([{"seconds": 2}] * 16, []),
        "360p": ([{"height": 360}], []),
        "1080p": ([{"height": 1080}], []),
        "2160p": ([{"height": 2160}], []),
        "no face": ([{"faces": 0}], []),
        "4 faces": ([{"faces": 4}], []),
        "16 faces": ([{"faces": 16}], []),
        "1 thread, 32 s": ([{"seconds": 32}], ["runtime.threads=1"]),
        "1 reader, 32 s": ([{"seconds": 32}], ["runtime.readers=1"]),
        "2 readers, 32 s": ([{"seconds": 32}], ["runtime.readers=2"]),
    }
    folders = []
    for number, (clips, _) in enumerate(cases.values()):
        into = folder / str(number)
        into.mkdir()
        for count, options in enumerate(clips):
            make_clip(into / f"{count}.mp4", **options)
        folders.append(into)
    runs: dict[str, list[Numbers]] = {name: [] for name in cases}
    for _ in range(rounds):
        for into, (name, (_, own)) in zip(folders, cases.items(), strict=True):
            runs[name].append(measure_apart("benchmarks.stages", "whole", into, *settings, *own))
    yield from ("", "## Growth", "")
    yield "The whole pipeline; each row differs from the first in what it names."
    yield ""
    yield "| what | frames | faces/frame | frames/s | CPU ms/frame | peak MB |"
    yield "|:--|--:|--:|--:|--:|--:|"
    for name, each in runs.items():
        row = median(each)
        yield (
            f"| {name} | {row['n_frames']:.0f} | {row['faces']:.1f} | {1e3 / row['wall_ms']:.0f} | "
            f"{row['cpu_ms']:.1f} | {row['peak_mb']:.0f} |"
        )
    yield from ("", "## Several runs at once on one machine", "")
    yield "Runs over the same 8 s clip, started together, each with its defaults, as if it were"
    yield "alone. Frames/s are those of all runs; CPU ms/frame those of one."
    yield ""
    yield "| runs | frames/s | CPU ms/frame |"
    yield "|--:|--:|--:|"
    for n_runs in (1, 2, 4):
        row = median(
            [
                measure_apart("benchmarks.stages", "at_once", folders[0], n_runs)
                for _ in range(rounds)
            ]
        )
        yield f"| {n_runs} | {1e3 / row['wall_ms']:.0f} | {row['cpu_ms']:.1f} |"


def page(rounds: int, settings: Sequence[str]) -> Iterator[str]:
    """The lines of the document."""
    yield "# Stages and growth"
    yield ""
    yield from machine()
    yield f"Medians of {rounds} rounds. Settings: {', '.join(settings) or 'the defaults'}."
    yield ""
    with tempfile.TemporaryDirectory() as folder:
        yield from stage_table(Path(folder), rounds, settings)
    with tempfile.TemporaryDirectory() as folder:
        yield from growth_table(Path(folder), rounds, settings)


def main() -> None:
    """Measure everything and write the page, or (``--measure``) measure one thing and print it."""
    if sys.argv[1:2] == ["--measure"]:
        print(json.dumps(MEASURES[sys.argv[2]](*sys.argv[3:])))
        return
    parser = argparse.ArgumentParser(description=__doc__.split(";", maxsplit=1)[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--set", dest="settings", action="append", default=[])
    options = parser.parse_args()
    write_page("stages", page(options.rounds, options.settings))


if __name__ == "__main__":
    main()
