"""Workers, 100,000 files, what Prefect costs, and an estimate for a million hours of video.

    python -m benchmarks.scale [--only PART ...] [-o outputs/scale]

Each part of the measurements is recorded in the folder of -o. The page is written when all parts
are there. A part is measured again if it is named.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import scale_page
from benchmarks.measuring import ROOT, measure_apart, write_page
from benchmarks.process import make_video
from benchmarks.scale_files import files
from benchmarks.scale_workers import (
    SETTLE_S,
    Done,
    Folder,
    Served,
    cli_cpu_s,
    queue,
    served,
    without_prefect,
)

WORKERS = (1, 2, 4, 8)
SHARD_S, SHARDS_EACH = 30.0, 4
FILES = (
    *(("video", 2_000, True), ("video", 20_000, True), ("video", 100_000, False)),
    *(("image", 10_000, True), ("image", 100_000, True)),
)
"""Kind, number, and whether rows are written, which takes long for videos."""
CLIPS, CLIPS_PER_SHARD, MANY_CLIPS = 4, 2, 100
SAMPLINGS = {"every frame": (), "5 frames/s": ("sampling.fps=5",)}
ROUNDS = 2


def work(video: str, end_s: str, *settings: str) -> dict[str, float]:
    """CPU time and tables of the first seconds of a video."""
    from fer_batch.config import load
    from fer_batch.pipeline import process as pipeline

    config = load(None, [f"sampling.end_s={end_s}", *settings])
    with tempfile.TemporaryDirectory() as out:
        pipeline.process([Path(video)], Path(out), config)
        size = sum(path.stat().st_size for path in Path(out).rglob("*.parquet"))
    return {"cpu_s": time.process_time(), "bytes": size}


MEASURES: dict[str, Callable[..., object]] = {"queue": queue, "files": files, "work": work}


def measure_queue() -> object:
    """Measure shards that only sleep, without Prefect."""
    with tempfile.TemporaryDirectory() as name:
        folder = Folder(Path(name))
        return [_workers(without_prefect(folder, n, SHARDS_EACH, SHARD_S)) for n in WORKERS]


def measure_workers() -> object:
    """Measure shards that only sleep, as runs of a deployment."""
    found = []
    with tempfile.TemporaryDirectory() as name:
        folder = Folder(Path(name))
        with served(folder, max(WORKERS)) as prefect:
            for n in WORKERS:
                folder.prepare(n * SHARDS_EACH, SHARD_S)
                used = _cpu_of(prefect, lambda n=n: prefect.run(n))
                found.append({**_workers(Done(folder.records(), n, SHARD_S)), **used})
                print(found[-1], file=sys.stderr)
    return found


def measure_prefect() -> object:
    """CPU time of runs of several lengths and numbers of shards, and of real work."""
    runs = {"few short": (2, 5.0), "many short": (32, 5.0), "few long": (2, 80.0)}
    with tempfile.TemporaryDirectory() as name:
        folder = Folder(Path(name))
        clip = folder.path / "clip.mp4"
        make_video(clip, 1)
        with served(folder, 1) as prefect:
            idle = _cpu_of(prefect, lambda: time.sleep(120))
            sleeping = []
            for _ in range(ROUNDS):
                for n, shard_s in runs.values():
                    folder.prepare(n, shard_s)
                    sleeping.append({"n": n, "shard_s": shard_s, **_run(prefect, folder)})
            folder.prepare_clips(clip, CLIPS)
            shard_mb = CLIPS_PER_SHARD * clip.stat().st_size / 1e6
            real = _run(prefect, folder, scale={"shard_mb": shard_mb})
        cli_s = cli_cpu_s(folder)
    return {"idle": idle, "sleeping": sleeping, "real": real, "cli_cpu_s": cli_s}


def measure_many() -> object:
    """CPU time of a real run over many videos of a minute, at five frames per second."""
    with tempfile.TemporaryDirectory() as name:
        folder = Folder(Path(name))
        clip = folder.path / "clip.mp4"
        make_video(clip, 1)
        with served(folder, 1) as prefect:
            folder.prepare_clips(clip, MANY_CLIPS)
            used = _run(prefect, folder, scale={}, config={"sampling": {"fps": 5}})
    return {"videos": MANY_CLIPS, **used}


def measure_files() -> object:
    """Runs over many files."""
    return {
        f"{count:,} {kind}s{'' if has_rows else ', no rows'}": measure_apart(
            "benchmarks.scale", "files", kind, count, "rows" if has_rows else ""
        )
        for kind, count, has_rows in FILES
    }


def measure_work() -> object:
    """CPU time for an hour of 720p, estimated from a minute without the start of a process."""
    found = {}
    with tempfile.TemporaryDirectory() as name:
        clip = Path(name, "clip.mp4")
        make_video(clip, 1.5)
        for sampling, settings in SAMPLINGS.items():
            rounds = []
            for _ in range(ROUNDS):
                short, long = (
                    measure_apart("benchmarks.scale", "work", clip, end_s, *settings)
                    for end_s in (20, 80)
                )
                rounds.append({key: 60 * (long[key] - short[key]) for key in short})
            found[sampling] = {key: statistics.median(r[key] for r in rounds) for key in rounds[0]}
        found["mb_per_hour"] = 40 * clip.stat().st_size / 1e6
    return found


PARTS = {
    "files": measure_files,
    "work": measure_work,
    "queue": measure_queue,
    "workers": measure_workers,
    "prefect": measure_prefect,
    "many": measure_many,
}


def _workers(done: Done) -> dict[str, float]:
    return {
        "n": done.n_workers,
        "shard_s": done.shard_s,
        "shards": len(done.records),
        "per_minute": done.per_minute,
        "steady_per_minute": done.steady_per_minute,
        "gap_s": done.gap_s,
    }


def _run(prefect: Served, folder: Folder, **parameters: object) -> dict[str, Any]:
    """A run on one worker: its total CPU time, and that of the processing."""
    used = _cpu_of(prefect, lambda: prefect.run(1, **parameters))
    records = folder.records()
    began = [record["began"] for record in records]
    return {
        **used,
        "work_cpu_s": sum(record["cpu_s"] for record in records),
        "span_s": max(began) - min(began),
        "n_tasks": len(records),
    }


def _cpu_of(prefect: Served, do: Callable[[], float | None]) -> dict[str, Any]:
    before, began = prefect.cpu_s(), time.monotonic()
    start_s = do()
    time.sleep(SETTLE_S)
    after = prefect.cpu_s()
    return {
        "start_s": start_s,
        "seconds": time.monotonic() - began,
        **{name: after[name] - before[name] for name in after},
    }


def main() -> None:
    """Measure missing or named parts and write the page, or (``--measure``) measure one part."""
    if sys.argv[1:2] == ["--measure"]:
        print(json.dumps(MEASURES[sys.argv[2]](*sys.argv[3:])))
        return
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--only", nargs="+", choices=PARTS, default=[], metavar="PART")
    parser.add_argument("-o", "--out", type=Path, default=ROOT / "outputs" / "scale")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    paths = {part: options.out / f"{part}.json" for part in PARTS}
    for part, measure in PARTS.items():
        if part in options.only or not (options.only or paths[part].exists()):
            values = {"load": os.getloadavg()[1], "measured": measure()}
            paths[part].write_text(json.dumps(values, indent=2))
    if all(path.exists() for path in paths.values()):
        values = {part: json.loads(path.read_text()) for part, path in paths.items()}
        write_page("scale", scale_page.lines(values))


if __name__ == "__main__":
    main()
