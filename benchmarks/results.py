"""Train and evaluate every model of docs/results.md, and write it.

    python -m benchmarks.results [--data DIR] [-o outputs/results] [--only NAME ...]
        [--set KEY=VALUE ...]

DIR contains ``fer2013/`` and ``ferplus/``; without it, only the page is written again. A model that
is trained is not trained again (delete its folder to do so), and a training that was stopped is
continued. Weights, metrics, logs and the packed data sets are in the folder of ``-o``; the records
from which docs/results.md is written are kept in docs/results/.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import torch
from torch.fx.experimental.optimization import fuse

from benchmarks import results_page
from benchmarks.results_runs import (
    BATCH,
    CUDA_BATCH,
    OURS,
    RECORDS,
    ROOT,
    ROUNDS,
    RUNS,
    TABLE4,
    Run,
)
from fer_batch.datasets.inventory import count_pictures
from fer_batch.datasets.pictures import load_data, pack
from fer_batch.evaluation.evaluate import LabelledSplit, evaluate
from fer_batch.models.card import DEFAULT_WEIGHTS
from fer_batch.models.networks import NETWORKS, build_network


def packed(dataset: str, data: Path, out: Path) -> Path:
    """Pack a data set into one file, so that its pictures are read only once."""
    path = out / f"{dataset}.safetensors"
    if not path.exists():
        pack(dataset, data / dataset, path, size_px=48)
    return path


def train(run: Run, data: Path, out: Path, overrides: Sequence[str]) -> Path:
    """The weights of a run; they are trained if they are missing."""
    folder = out / run.name
    weights = folder / f"{run.name}.safetensors"
    if not weights.exists():
        settings = [f"name={run.name}", *run.overrides, *overrides]
        command = ["train", "--config", run.recipe, *(f"--set={setting}" for setting in settings)]
        fer_batch(*command, "--data", packed(run.dataset, data, out), "-o", folder)
    return weights


def sweep(data: Path, out: Path) -> None:
    """Run the rest of the grid of Table 4 and record its table."""
    fer_batch(
        "sweep", "--config", TABLE4, "--data", packed("fer2013", data, out), "-o", out / TABLE4
    )
    shutil.copy(out / TABLE4 / "sweep.csv", RECORDS / f"{TABLE4}.csv")


def fer_batch(*arguments: str | Path) -> None:
    """Run a command of the project."""
    subprocess.run([sys.executable, "-m", "fer_batch", *map(str, arguments)], check=True)


def record(run: Run, weights: Path, data: Path, device: torch.device) -> None:
    """Measure trained weights on the test split and record the results."""
    folder = RECORDS / run.name
    folder.mkdir(parents=True, exist_ok=True)
    test_split = LabelledSplit(run.dataset, packed(run.dataset, data, weights.parents[1]))
    for name, flip in (("test", False), ("test-flip", True)):
        out = weights.parent / name
        evaluate(weights, test_split, out, device=device, flip=flip)
        shutil.copy(out / run.name / "metrics.json", folder / f"{name}.json")
    shutil.copy(weights.with_suffix(".json"), folder / "card.json")
    shutil.copy(weights.with_name("metrics.csv"), folder / "epochs.csv")
    if run.name == DEFAULT_WEIGHTS:
        for plot in ("confusion.png", "reliability.png"):
            shutil.copy(weights.parent / "test" / run.name / plot, folder / plot)


def record_counts(data: Path, out: Path) -> None:
    """Record the number of pictures of each emotion in each data set, and of those left out."""
    for dataset, labels in (("fer2013", "seven"), ("ferplus", None)):
        loaded = load_data(dataset, packed(dataset, data, out), size_px=48, labels=labels)
        count_pictures(loaded).to_csv(RECORDS / f"{dataset}.csv")
        (RECORDS / f"{dataset}.json").write_text(f"{json.dumps(loaded.dropped, indent=2)}\n")


def cpu_name() -> str:
    """Name of the CPU, from the system."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next(line.partition(": ")[2] for line in lines if line.startswith("model name"))


def record_speed(device: torch.device) -> None:
    """Time every network, in turn with the others."""
    cpu = torch.device("cpu")
    torch.set_num_threads(2)
    times: dict[str, dict[str, float]] = {}
    for key, where, batch in (("cpu", cpu, BATCH), ("cuda", device, CUDA_BATCH)):
        if where.type == key:
            times[key] = {name: 1e3 * s for name, s in seconds_per_face(where, batch).items()}
    torch.set_num_threads(1)
    times["one-core"] = {
        str(batch): 1e3 * seconds_per_face(cpu, batch, names=(OURS,))[OURS] for batch in (1, BATCH)
    }
    path = RECORDS / "speed.json"
    before = json.loads(path.read_text()) if path.exists() else {"where": {}}
    where = {"cpu": cpu_name(), "torch": version("torch")}
    if device.type == "cuda":
        where["cuda"] = torch.cuda.get_device_name(device)
    times["where"] = before["where"] | where
    path.write_text(f"{json.dumps(before | times, indent=2)}\n")


@torch.inference_mode()
def seconds_per_face(
    device: torch.device, batch: int, names: Sequence[str] = tuple(NETWORKS)
) -> dict[str, float]:
    """Median over rounds, each of which times every network once."""
    networks = {
        name: fuse(build_network(name, 6).eval()).to(device, memory_format=torch.channels_last)
        for name in names
    }
    times: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(1 + ROUNDS):
        for name, network in networks.items():
            spec = NETWORKS[name]
            faces = torch.rand(batch, spec.in_channels, spec.input_size_px, spec.input_size_px)
            faces = faces.to(device, memory_format=torch.channels_last)
            with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
                start = time.perf_counter()
                network(faces).sum().item()
            times[name].append((time.perf_counter() - start) / batch)
    return {name: statistics.median(each[1:]) for name, each in times.items()}


def main() -> None:
    """Train, evaluate, write."""
    names = [*(run.name for run in RUNS), TABLE4]
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--data", type=Path, help="folder that holds fer2013/ and ferplus/")
    parser.add_argument("-o", "--out", type=Path, default=ROOT / "outputs" / "results")
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="NAME")
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--speed", action="store_true", help="time the networks again")
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if options.speed:
        record_speed(device)
    if options.data:
        record_counts(options.data, options.out)
        for run in RUNS:
            if run.name in options.only:
                weights = train(run, options.data, options.out, options.overrides)
                record(run, weights, options.data, device)
        if TABLE4 in options.only:
            sweep(options.data, options.out)
    results_page.write()


if __name__ == "__main__":
    main()
