"""Time for drawing, compared with decoding and encoding alone.

python -m benchmarks.render [--rounds 5]
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.measuring import machine, measure_apart, median, write_page
from benchmarks.stages import make_clip

OFF = [f"render.{layer}=false" for layer in ("boxes", "labels")]
CASES = {
    "decoded and encoded, nothing drawn": ["render.style=minimal", *OFF],
    "minimal": ["render.style=minimal"],
    "full": ["render.style=full"],
    "full, faces hidden": ["render.style=full", "render.blur=true"],
    "side-by-side": ["render.style=side-by-side"],
    "heatmap": ["render.style=heatmap"],
}
FFMPEG = "ffmpeg alone"


def cpu_s() -> float:
    """CPU seconds of this process and of those it waited for."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def measure(case: str, out: str) -> dict[str, float]:
    """Make a copy of the only video of a run, after a first copy that loads everything."""
    from fer_batch.config import load
    from fer_batch.media.ffmpeg import ffmpeg_path
    from fer_batch.render.copies import render
    from fer_batch.results import store

    [row] = store.media_rows(Path(out))

    def make(end_s: float) -> None:
        if case == FFMPEG:
            command = [ffmpeg_path(), "-v", "error", "-y", "-i", Path(row.root, row.media)]
            command += ["-t", str(end_s), "-c:v", "libx264", "-preset", "veryfast", "-crf", "20"]
            subprocess.run([*command, Path(out, "bare.mp4")], check=True)
        else:
            render(Path(out), load(None, [*CASES[case], f"sampling.end_s={end_s}"]), force=True)

    make(0.5)
    cpu, wall = cpu_s(), time.perf_counter()
    make(1e3)
    n = row.n_frames_decoded
    return {
        "cpu_ms": 1e3 * (cpu_s() - cpu) / n,
        "wall_ms": 1e3 * (time.perf_counter() - wall) / n,
    }


def table(folder: Path, height: int, rounds: int) -> Iterator[str]:
    """The lines of one size of video."""
    from fer_batch.config import Config
    from fer_batch.pipeline.process import process

    clip = make_clip(folder / f"{height}.mp4", height=height, seconds=8)
    out = folder / f"out-{height}"
    process([clip], out, Config())
    names = [FFMPEG, *CASES]
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    for _ in range(rounds):
        for name in names:
            runs[name].append(measure_apart("benchmarks.render", name, out))
    medians = {name: median(each) for name, each in runs.items()}
    bare = medians[names[1]]
    yield from ("", f"## {height}p, one face", "")
    yield "| copy | CPU ms/frame | wall ms/frame | CPU, of nothing drawn | wall, of nothing drawn |"
    yield "|:--|--:|--:|--:|--:|"
    for name, each in medians.items():
        yield (
            f"| {name} | {each['cpu_ms']:.1f} | {each['wall_ms']:.1f} | "
            f"{each['cpu_ms'] / bare['cpu_ms']:.2f} | {each['wall_ms'] / bare['wall_ms']:.2f} |"
        )


def page(rounds: int) -> Iterator[str]:
    """The lines of the document."""
    yield "# Annotated videos"
    yield ""
    yield from machine()
    yield f"Medians of {rounds} rounds in which each has its turn. 200 frames, H.264 (libx264,"
    yield "veryfast, CRF 20) to the same; the CPU time is that of our process and of ffmpeg."
    yield f"`{FFMPEG}` decodes and encodes without a pipe and without RGB. Heatmaps: one network on"
    yield "the CPU, a map for every face in every frame."
    with tempfile.TemporaryDirectory() as folder:
        for height in (720, 1080):
            yield from table(Path(folder), height, rounds)


def main() -> None:
    """Measure everything and write the page, or (``--measure``) measure one thing and print it."""
    if sys.argv[1:2] == ["--measure"]:
        print(json.dumps(measure(*sys.argv[2:])))
        return
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    write_page("render", page(parser.parse_args().rounds))


if __name__ == "__main__":
    main()
