"""What the benchmarks share: measurements in separate processes, and writing of pages."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared"
WEIGHTS = SHARED / "weights"
DETECTORS = {
    "glance": [
        "detector.name=glance",
        "detector.glance.weak_score=0.5",
    ],
    "haar": ["detector.name=haar"],
    "yunet": [
        "detector.name=yunet",
        "detector.yunet.weak_score=0.7",
    ],
    "retinaface mobilenet0.25": [
        "detector.name=retinaface",
        "detector.retinaface.network=mobilenet0.25",
        f"detector.retinaface.weights={WEIGHTS / 'retinaface_mnet025_m2man.pth'}",
        "detector.retinaface.weak_score=0.7",
    ],
}
"""Settings of each, without weak faces, as for still images."""
PACKAGES = ("torch", "decord", "av", "opencv-python-headless", "pyarrow")


def measure_apart(module: str, *arguments: object, python: Path | str = sys.executable) -> object:
    """Run ``python -m module --measure`` in a separate process; return its last line, from JSON."""
    command = [str(python), "-m", module, "--measure", *map(str, arguments)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}")
    return json.loads(done.stdout.splitlines()[-1])


def parse_data(doc: str) -> Path:
    """The data set named on the command line; ``doc`` is the docstring of the script."""
    parser = argparse.ArgumentParser(description=doc.split("\n", maxsplit=1)[0])
    parser.add_argument(
        "--data", type=Path, required=True, help="FER+, or the file it is packed in"
    )
    data: Path = parser.parse_args().data
    return data


def median(runs: Sequence[dict[str, float]]) -> dict[str, float]:
    """The median of each number."""
    return {key: statistics.median(run[key] for run in runs) for key in runs[0]}


def peak_mb() -> float:
    """Largest memory of this process; `ru_maxrss` would include that of its parent."""
    status = Path("/proc/self/status").read_text()
    return float(status.partition("VmHWM:")[2].split()[0]) * 1024 / 1e6


def machine() -> Iterator[str]:
    """Lines about the machine and the versions."""
    packages = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    yield f"{os.cpu_count()} CPU cores ({platform.machine()}){_gpus()}, Python"
    yield f"{platform.python_version()}, {packages}."


def write_page(kind: str, lines: Iterable[str]) -> None:
    """Write ``docs/benchmarks/<date>-<commit>-<kind>.md``."""
    command = ["git", "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    name = f"{datetime.now(UTC):%Y-%m-%d}-{commit.stdout.strip()}-{kind}.md"
    text = "\n".join([*lines, "", f"Written by `benchmarks/{kind}.py`.", ""])
    (ROOT / "docs" / "benchmarks" / name).write_text(text, encoding="utf-8")
    print(text)


def _gpus() -> str:
    import torch

    names = [torch.cuda.get_device_name(n) for n in range(torch.cuda.device_count())]
    return "".join(f", {name}" for name in names)
