"""Comparison with other tools on the same clips.

    python -m benchmarks.peers [--rounds 3] [CLIP ...]

The other tools are installed in their own environment, outputs/peers, by the first run. Clips and
the weights of YuNet and RetinaFace come from ../shared. Every measurement is the second pass over a
clip in a separate process. Each round measures every tool once.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from benchmarks.measuring import (
    DETECTORS,
    ROOT,
    SHARED,
    machine,
    measure_apart,
    median,
    peak_mb,
    write_page,
)

PEERS = ROOT / "outputs" / "peers"
PACKAGES = ("fer==25.10.3",)  # brings facenet-pytorch
CLIPS = ("intel_asl_again.mkv", "pyfeat_WolfgangLanger_Pexels.mp4")
OURS = {f"fer-batch, {name}": settings for name, settings in DETECTORS.items()} | {
    f"fer-batch, {name}, every=5": [*DETECTORS[name], "detector.every=5"]
    for name in ("haar", "yunet")
}
Pass = Callable[[], tuple[int, int]]
"""Processes a clip; returns the number of frames, and of frames with a face."""


def fer_batch(clip: str, settings: list[str]) -> Pass:
    """fer_batch: detection, tracks, classification, tables."""
    import pyarrow.dataset as ds

    from fer_batch.config import load
    from fer_batch.pipeline import process as pipeline

    config = load(None, settings)

    def run() -> tuple[int, int]:
        with tempfile.TemporaryDirectory() as out:
            summary = pipeline.process([Path(clip)], Path(out), config)
            frames = ds.dataset(Path(out) / "frames").to_table(["n_faces"])["n_faces"]
        return summary.n_frames, sum(n > 0 for n in frames.to_pylist())

    return run


def fer(clip: str, settings: list[str]) -> Pass:
    """The package fer with its defaults, rows only."""
    from fer.classes import Video
    from fer.fer import FER

    detector = FER(mtcnn="mtcnn" in settings)

    def run() -> tuple[int, int]:
        with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
            rows = Video(clip).analyze(
                detector,
                output="pandas",
                save_frames=False,
                save_video=False,
                annotate_frames=False,
                zip_images=False,
            )
        return count_frames(clip), len(rows.dropna(how="all"))

    return run


def mtcnn(clip: str, settings: list[str]) -> Pass:
    """facenet-pytorch's detector alone, frame by frame."""
    import cv2
    from facenet_pytorch import MTCNN

    detector = MTCNN(keep_all=True)

    def run() -> tuple[int, int]:
        video, n_frames, n_with_face = cv2.VideoCapture(clip), 0, 0
        while (read := video.read())[0]:
            boxes, _ = detector.detect(cv2.cvtColor(read[1], cv2.COLOR_BGR2RGB))
            n_frames += 1
            n_with_face += boxes is not None
        return n_frames, n_with_face

    return run


def count_frames(clip: str) -> int:
    """Frames, decoded by OpenCV."""
    import cv2

    video, n = cv2.VideoCapture(clip), 0
    while video.grab():
        n += 1
    return n


TOOLS: dict[str, tuple[Callable[[str, list[str]], Pass], list[str]]] = {
    **{name: (fer_batch, settings) for name, settings in OURS.items()},
    "fer, haar": (fer, []),
    "fer, mtcnn": (fer, ["mtcnn"]),
    "facenet-pytorch MTCNN, boxes only": (mtcnn, []),
}


def measure(tool: str, clip: str) -> dict[str, float]:
    """The second pass of a tool over a clip, in this process."""
    build, settings = TOOLS[tool]
    run = build(clip, settings)
    run()
    cpu, wall = time.process_time(), time.perf_counter()
    n_frames, n_with_face = run()
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    return {
        "with_face": n_with_face,
        "frames": n_frames,
        "cpu_ms": 1e3 * cpu / n_frames,
        "frames_per_s": n_frames / wall,
        "peak_mb": peak_mb(),
    }


def set_up() -> None:
    """Install the other tools if they are missing."""
    if not (PEERS / "ready").exists():
        subprocess.run([sys.executable, "-m", "venv", PEERS], check=True)
        subprocess.run([PEERS / "bin" / "pip", "install", "--quiet", *PACKAGES], check=True)
        (PEERS / "ready").touch()


def measure_tool(tool: str, clip: str) -> dict[str, float]:
    """A measurement in the environment of its tool."""
    python = sys.executable if tool in OURS else PEERS / "bin" / "python"
    clip_path = SHARED / "media" / "videos" / clip
    return measure_apart("benchmarks.peers", tool, clip_path, python=python)


def page(clips: Sequence[str], rounds: int) -> Iterator[str]:
    """The lines of the document."""
    yield "# Beside other tools"
    yield ""
    yield from machine()
    yield f"{', '.join(PACKAGES)}. Each tool with its own defaults, on the CPU; medians of {rounds}"
    yield "rounds in which each has its turn. `fer-batch` gives the emotions of every face, tracks,"
    yield "true times and tables; `fer` rows of the first face; MTCNN boxes only. `every=5`: faces"
    yield "are looked for in every fifth frame and moved on with their tracks in between."
    for clip in clips:
        found: dict[str, list[dict[str, float]]] = {tool: [] for tool in TOOLS}
        for _ in range(rounds):
            for tool, results in found.items():
                results.append(measure_tool(tool, clip))
        medians = {tool: median(results) for tool, results in found.items()}
        yield from ("", f"## {clip}", "")
        yield "| tool | frames with a face | CPU ms/frame | frames/s | times fer's | peak MB |"
        yield "|:--|--:|--:|--:|--:|--:|"
        for tool, each in medians.items():
            yield (
                f"| {tool} | {each['with_face']:.0f} of {each['frames']:.0f} | "
                f"{each['cpu_ms']:.1f} | {each['frames_per_s']:.1f} | "
                f"{each['frames_per_s'] / medians['fer, haar']['frames_per_s']:.1f} | "
                f"{each['peak_mb']:.0f} |"
            )


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("clips", nargs="*", default=CLIPS, metavar="CLIP")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--measure", nargs=2, metavar=("TOOL", "CLIP"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(*options.measure)))
        return
    set_up()
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    write_page("peers", page(options.clips, options.rounds))


if __name__ == "__main__":
    main()
