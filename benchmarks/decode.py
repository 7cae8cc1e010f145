"""Comparison of Decord, segment by segment, with PyAV.

Clips come from ../shared/media. The rounds of the two decoders alternate in one process.
"""

from __future__ import annotations

import statistics
import time
from pathlib import Path

from benchmarks.measuring import SHARED, write_page
from fer_batch.config import Decode, Sampling
from fer_batch.media import discovery
from fer_batch.media.decode import FrameReader

VIDEOS = SHARED / "media" / "videos"
CLIPS = [
    "intel_asl_again.mkv",
    "pyfeat_single_face.mp4",
    "liveportrait_d13.mp4",
    "facenet_video.mp4",
]
DECODERS = {
    "Decord": Decode(decoder="decord", segment_mb=2000),
    "auto": Decode(),
    "PyAV": Decode(decoder="pyav"),
}
ROUNDS = 5


def cpu_ms(clip: Path, decode: Decode) -> tuple[float, str]:
    """CPU time per frame for reading a whole clip, and the decoder that was used."""
    [file] = discovery.find([clip])
    began = time.process_time()
    with FrameReader(file, Sampling(), decode) as reader:
        n_frames = sum(len(chunk.rgb) for chunk in reader)
    return 1e3 * (time.process_time() - began) / n_frames, reader.report.decoder


def main() -> None:
    """Measure and write the page."""
    lines = [
        "# Decoding",
        "",
        f"CPU ms/frame with one thread, median of {ROUNDS} alternating rounds (range). Decord: no",
        "limit of segment size; auto: the default, with the decoder that it chose.",
        "",
        f"| clip | {' | '.join(DECODERS)} |",
        "|---|" + "---|" * len(DECODERS),
    ]
    for name in CLIPS:
        clip = VIDEOS / name
        rounds = [[cpu_ms(clip, how) for how in DECODERS.values()] for _ in range(ROUNDS)]
        cells = []
        for column in zip(*rounds, strict=True):
            times = sorted(ms for ms, _ in column)
            middle = statistics.median(times)
            cells.append(f"{middle:.1f} ({times[0]:.1f}-{times[-1]:.1f}), {column[0][1]}")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    write_page("decode", lines)


if __name__ == "__main__":
    main()
