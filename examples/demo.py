"""The main task with a real face: make a short clip from a portrait, process it, show the results.

The portrait is NASA's of Eileen Collins (public domain), which comes with scikit-image.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import pandas as pd
from PIL import Image
from skimage import data

from fer_batch.media.ffmpeg import ffmpeg_path

FPS = 25
SHOTS = [
    # seconds, then where the camera is at the start and at the end: left, top, width of the view
    (4.0, (0.00, 0.00, 1.00), (0.22, 0.07, 0.50)),
    (2.0, (0.10, 0.62, 0.55), (0.45, 0.62, 0.55)),  # the space suit: no face
    (4.0, (0.20, 0.11, 0.50), (0.10, 0.00, 0.70)),
]


def make_clip(portrait: Path, clip: Path) -> None:
    """Move over the portrait and zoom, 640x360 at 25 frames per second."""
    chains = []
    for number, (seconds, start, end) in enumerate(SHOTS):
        frames = round(seconds * FPS)
        left, top, width = (
            f"({a}+({b - a:.4f})*on/{frames})" for a, b in zip(start, end, strict=True)
        )
        chains.append(
            f"[0:v]scale=4096:-1,crop=4096:2304*16/9:0:0,"
            f"zoompan=z='1/{width}':x='iw*{left}':y='ih*{top}':d={frames}:s=640x640:fps={FPS},"
            f"crop=640:360:0:0[shot{number}]"
        )
    joined = "".join(f"[shot{number}]" for number in range(len(SHOTS)))
    graph = ";".join([*chains, f"{joined}concat=n={len(SHOTS)}"])
    command = [ffmpeg_path(), "-v", "error", "-y", "-i", str(portrait), "-filter_complex", graph]
    subprocess.run([*command, "-pix_fmt", "yuv420p", str(clip)], check=True)


def main() -> None:
    """Make the clip, process and annotate it, and print paths and rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, help="folder for the material and the results")
    out = parser.parse_args().out
    material, results = out / "media", out / "results"
    material.mkdir(parents=True, exist_ok=True)
    Image.fromarray(data.astronaut()).save(material / "portrait.jpg", quality=95)
    Image.fromarray(data.chelsea()).save(material / "cat.png")
    make_clip(material / "portrait.jpg", material / "clip.mp4")

    fer_batch = [sys.executable, "-m", "fer_batch"]
    subprocess.run([*fer_batch, "process", material, "-o", results, "--annotate"], check=True)
    subprocess.run([*fer_batch, "sheet", results, "--quiet"], check=True)

    faces = pd.read_parquet(results / "faces")
    print(f"\nannotated video: {results}/annotated/clip.mp4")
    print(f"contact sheets:  {results}/sheets\n")
    print(f'pd.read_parquet("{results}/faces"), first rows:')
    print(
        faces[["media", "pts_s", "track_id", "emotion", "confidence", "happiness"]]
        .head(8)
        .to_string()
    )


if __name__ == "__main__":
    main()
