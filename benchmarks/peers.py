"""Other tools on the same clips; writes docs/benchmarks/<date>-peers.md.

    benchmarks/peers.py [--rounds 3] [CLIP ...]

The peers live in an environment of their own, outputs/peers, which the first run sets up. Clips and
the weights of YuNet and RetinaFace come from ../shared. Every measurement is the second pass over a
clip in a process of its own; in each round every tool has its turn.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared"
PEERS = ROOT / "outputs" / "peers"
PACKAGES = ("fer==25.10.3",)  # brings facenet-pytorch
CLIPS = ("intel_asl_again.mkv", "pyfeat_WolfgangLanger_Pexels.mp4")
OURS = {
    "fer-batch, haar": [],
    "fer-batch, yunet": [
        "detector.name=yunet",
        f"detector.yunet.weights={SHARED / 'weights' / 'face_detection_yunet_2023mar.onnx'}",
    ],
    "fer-batch, retinaface mobilenet0.25": [
        "detector.name=retinaface",
        "detector.retinaface.network=mobilenet0.25",
        f"detector.retinaface.weights={SHARED / 'weights' / 'retinaface_mnet025_m2man.pth'}",
    ],
}
Pass = Callable[[], tuple[int, int]]
"""Goes over a clip: frames, and frames with a face."""


def fer_batch(clip: str, settings: list[str]) -> Pass:
    """Ours: detection, tracks, classification, tables."""
    import pyarrow.dataset as ds

    from fer_batch import pipeline
    from fer_batch.config import load

    config = load(None, settings)

    def run() -> tuple[int, int]:
        with tempfile.TemporaryDirectory() as out:
            summary = pipeline.process([Path(clip)], Path(out), config)
            frames = ds.dataset(Path(out) / "frames").to_table(["n_faces"])["n_faces"]
        return summary.n_frames, sum(n > 0 for n in frames.to_pylist())

    return run


def fer(clip: str, settings: list[str]) -> Pass:
    """The package fer as it comes, rows only."""
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
    """Frames that OpenCV decodes."""
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
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6,
    }


def set_up() -> None:
    """Install the peers, where they are not yet."""
    if not (PEERS / "ready").exists():
        subprocess.run([sys.executable, "-m", "venv", PEERS], check=True)
        subprocess.run([PEERS / "bin" / "pip", "install", "--quiet", *PACKAGES], check=True)
        (PEERS / "ready").touch()


def measure_apart(tool: str, clip: str) -> dict[str, float]:
    """A measurement in a process and an environment of its own."""
    python = sys.executable if tool in OURS else PEERS / "bin" / "python"
    done = subprocess.run(
        [python, __file__, "--measure", tool, SHARED / "media" / "videos" / clip],
        check=True,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"CUDA_VISIBLE_DEVICES": ""},
    )
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def page(clips: Sequence[str], rounds: int) -> Iterator[str]:
    """The lines of the document."""
    yield f"# Beside other tools, {datetime.now(UTC):%Y-%m-%d}"
    yield ""
    yield f"{os.cpu_count()} CPU cores, no GPU, each tool with its own defaults; medians of"
    yield f"{rounds} rounds in which each has its turn. `fer-batch` gives the emotions of every"
    yield "face, tracks, true times and tables; `fer` rows of the first face; MTCNN boxes only."
    yield "Written by `benchmarks/peers.py`."
    for clip in clips:
        found: dict[str, list[dict[str, float]]] = {tool: [] for tool in TOOLS}
        for _ in range(rounds):
            for tool, results in found.items():
                results.append(measure_apart(tool, clip))
        medians = {
            tool: {key: statistics.median(each[key] for each in results) for key in results[0]}
            for tool, results in found.items()
        }
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
    text = "\n".join(page(options.clips, options.rounds))
    path = ROOT / "docs" / "benchmarks" / f"{datetime.now(UTC):%Y-%m-%d}-peers.md"
    path.write_text(f"{text}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
