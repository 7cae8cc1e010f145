"""Train and evaluate every model of docs/results.md, and write it.

    benchmarks/results.py [--data DIR] [-o outputs/results] [--only NAME ...] [--set KEY=VALUE ...]

DIR holds ``fer2013/`` and ``ferplus/``; without it, the page is only written again. A model that is
trained is not trained again, and a training that was stopped goes on. Weights, metrics, logs and
the packed data sets are in the folder of ``-o``. What docs/results.md is
written from stays in docs/results/.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import pandas as pd
import torch
from torch.fx.experimental.optimization import fuse

from fer_batch.card import DEFAULT_WEIGHTS
from fer_batch.evaluate import HeldOut, evaluate
from fer_batch.inventory import counts
from fer_batch.networks import NETWORKS, build_network, describe
from fer_batch.pictures import load_data, pack
from fer_batch.plots import accuracy_against_time

ROOT = Path(__file__).parents[1]
RECORDS = ROOT / "docs" / "results"
PLAIN = "-plain"
SEVEN = "fer2013-seven"
OURS = "resnet-compact"
SOURCE = {  # test accuracy on FER2013, six classes, in the GiMeFive paper
    "gimefive-13": 0.641,
    "gimefive-15": 0.656,
    "gimefive-15-do": 0.675,
    "resnet18": 0.647,
    "resnet34": 0.671,
}
OWN = {OURS: ("optimizer=sgd", "learning_rate=0.1")}
"""Settings by which a network departs from the recipe of the six classes: as for the default."""
OVERFITS = 0.1
"""Validation loss above training loss, in nats, from which more epochs alone will not help."""
ROUNDS = 7
BATCH = 64
CUDA_BATCH = 4096


@dataclass(frozen=True)
class Run:
    """One model to train."""

    name: str
    recipe: str
    dataset: str
    overrides: tuple[str, ...] = ()


RUNS = [
    Run(DEFAULT_WEIGHTS, DEFAULT_WEIGHTS, "ferplus"),
    Run(SEVEN, SEVEN, "fer2013"),
    *(
        Run(
            f"fer2013-six-{network}{suffix}",
            "fer2013-six",
            "fer2013",
            (f"network={network}", *off, *OWN.get(network, ())),
        )
        for suffix, off in (("", ()), (PLAIN, ("augment=null",)))
        for network in NETWORKS
    ),
]


def packed(dataset: str, data: Path, out: Path) -> Path:
    """A data set as one file, so that no training reads pictures or searches duplicates again."""
    path = out / f"{dataset}.safetensors"
    if not path.exists():
        pack(dataset, data / dataset, path, size_px=48)
    return path


def train(run: Run, data: Path, out: Path, overrides: Sequence[str]) -> Path:
    """The weights of a run, trained where they are missing."""
    folder = out / run.name
    weights = folder / f"{run.name}.safetensors"
    if not weights.exists():
        settings = [f"name={run.name}", *run.overrides, *overrides]
        command = ["train", "--config", ROOT / "configs" / "train" / f"{run.recipe}.yaml"]
        command += ["--data", packed(run.dataset, data, out), "-o", folder]
        command += [f"--set={setting}" for setting in settings]
        subprocess.run([sys.executable, "-m", "fer_batch", *command], check=True)
    return weights


def record(run: Run, weights: Path, data: Path, device: torch.device) -> None:
    """Measure trained weights on the test split and keep what the page is written from."""
    folder = RECORDS / run.name
    folder.mkdir(parents=True, exist_ok=True)
    held_out = HeldOut(run.dataset, packed(run.dataset, data, weights.parents[1]))
    for name, flip in (("test", False), ("test-flip", True)):
        out = weights.parent / name
        evaluate(weights, held_out, out, device=device, flip=flip)
        shutil.copy(out / run.name / "metrics.json", folder / f"{name}.json")
    shutil.copy(weights.with_suffix(".json"), folder / "card.json")
    shutil.copy(weights.with_name("metrics.csv"), folder / "epochs.csv")
    if run.name == DEFAULT_WEIGHTS:
        for plot in ("confusion.png", "reliability.png"):
            shutil.copy(weights.parent / "test" / run.name / plot, folder / plot)


def record_counts(data: Path, out: Path) -> None:
    """How many pictures of each emotion each data set has, and what was left out."""
    for dataset, labels in (("fer2013", "seven"), ("ferplus", None)):
        loaded = load_data(dataset, packed(dataset, data, out), size_px=48, labels=labels)
        counts(loaded).to_csv(RECORDS / f"{dataset}.csv")
        (RECORDS / f"{dataset}.json").write_text(f"{json.dumps(loaded.dropped, indent=2)}\n")


def cpu_name() -> str:
    """As the system calls it."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next(line.partition(": ")[2] for line in lines if line.startswith("model name"))


def record_speed(device: torch.device) -> None:
    """Time every network beside the others, in turns."""
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
    """Median over rounds in which every network has its turn."""
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


def read(run: str, name: str) -> dict[str, object] | None:
    """A record of a run; None where the run is missing."""
    path = RECORDS / run / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else None


def percent(value: float) -> str:
    """A fraction for people."""
    return f"{value:.1%}".replace("%", " %")


def interval(metrics: dict[str, float]) -> str:
    """An accuracy with its 95 % interval."""
    low, high = (f"{100 * metrics[key]:.1f}" for key in ("accuracy_low", "accuracy_high"))
    return f"{percent(metrics['accuracy'])} ({low} to {high})"


def against_goal(name: str, goal: float) -> str:
    """Whether the accuracy of a run reaches a goal, in words."""
    metrics = read(name, "test")
    if metrics is None:
        return "not trained yet"
    missing = goal - metrics["accuracy"]
    return "reached" if missing <= 0 else f"missed by {100 * missing:.1f} points"


def networks_section() -> Iterator[str]:
    """The networks themselves."""
    speed = json.loads((RECORDS / "speed.json").read_text())
    cuda = speed.get("cuda", {})
    yield "## Networks"
    yield ""
    yield "As `fer-batch models` prints them, at six classes; parameters are exactly those of the"
    yield f"paper. Milliseconds per face in batches of {BATCH} on two CPU cores"
    yield f"({speed['where']['cpu']}), the median of {ROUNDS} rounds in which each has its turn."
    if cuda:
        yield f"Faces per second in batches of {CUDA_BATCH} on a {speed['where']['cuda']}."
    yield ""
    yield "| network | parameters | million MACs | MB | input | ms/face | faces/s (CUDA) |"
    yield "|:--|--:|--:|--:|--:|--:|--:|"
    for name in NETWORKS:
        facts = describe(name, 6)
        yield (
            f"| {name} | {facts.parameters:,} | {facts.macs / 1e6:.0f} | {facts.file_mb:.1f} | "
            f"{facts.in_channels}x{facts.input_size_px}x{facts.input_size_px} | "
            f"{speed['cpu'][name]:.2f} | {f'{1e3 / cuda[name]:,.0f}' if cuda else ''} |"
        )
    yield ""
    alone, together = (speed["one-core"][str(batch)] for batch in (1, BATCH))
    yield f"On one core, `{OURS}` takes {together:.2f} ms per face in such batches (goal: 3), and"
    yield f"{alone:.2f} ms for a face alone."


def data_section() -> Iterator[str]:
    """Table 3, and what was left out."""
    yield "## Data"
    for dataset in ("fer2013", "ferplus"):
        table = pd.read_csv(RECORDS / f"{dataset}.csv", index_col=0)
        dropped = json.loads((RECORDS / f"{dataset}.json").read_text())
        yield from ("", f"### {dataset}", "", f"| | {' | '.join(table.columns)} |")
        yield f"|:--|{'--:|' * len(table.columns)}"
        for emotion, row in zip(table.index, table.to_numpy(), strict=True):
            yield f"| {emotion} | {' | '.join(f'{n:,}' for n in row)} |"
        reasons = ", ".join(f"{reason} {n:,}" for reason, n in dropped.items())
        yield ""
        yield f"Left out of training: {reasons}."


def six_section() -> Iterator[str]:
    """Table 2."""
    yield "## Six classes, FER2013"
    yield ""
    yield "Trained on Training, the best epoch chosen on PublicTest, measured once on PrivateTest,"
    yield "with 95 % bootstrap intervals. The paper's figures are those of its own test pictures."
    yield ""
    yield "| network | paper | with augmentation | without | validation with | without | epochs |"
    yield "|:--|--:|--:|--:|--:|--:|--:|"
    for network in NETWORKS:
        names = [f"fer2013-six-{network}{suffix}" for suffix in ("", PLAIN)]
        tests = [read(name, "test") for name in names]
        cards = [read(name, "card") for name in names]
        paper = percent(SOURCE[network]) if network in SOURCE else ""
        measured = [interval(test) if test else "not trained yet" for test in tests]
        valid = [percent(card["metrics"]["valid_accuracy"]) if card else "" for card in cards]
        epochs = " / ".join(str(card["recipe"]["epochs"]) for card in cards if card)
        yield f"| {' | '.join([network, paper, *measured, *valid, epochs])} |"
    yield ""
    reached = [
        f"{network}: {against_goal(f'fer2013-six-{network}', goal)}"
        for network, goal in SOURCE.items()
    ]
    yield f"Against the paper: {'; '.join(reached)}."
    yield "On its validation pictures the paper has 72.5 % with augmentation and 65.3 % without."


def single_section(run: str, title: str, goal: float) -> Iterator[str]:
    """One network with a goal of its own."""
    yield f"## {title}"
    yield ""
    test, flip, card = (read(run, name) for name in ("test", "test-flip", "card"))
    if not (test and flip and card):
        yield f"Goal {percent(goal)}. Not trained yet: it takes a GPU, or a CPU for days."
        return
    yield "| | |"
    yield "|:--|--:|"
    yield f"| pictures: training, test | {card['n_train']:,}, {test['n']:,} |"
    yield f"| epochs, the best of them | {epochs_of(run)} |"
    yield f"| validation accuracy | {percent(card['metrics']['valid_accuracy'])} |"
    yield f"| test accuracy (95 % interval) | {interval(test)} |"
    yield f"| with test-time flip | {interval(flip)} |"
    yield f"| macro F1 | {test['macro_f1']:.3f} |"
    yield (
        f"| expected calibration error, before temperature {card['temperature']:.2f} | "
        f"{test['ece']:.3f}, {test['ece_uncalibrated']:.3f} |"
    )
    yield ""
    yield f"Goal {percent(goal)}: {against_goal(run, goal)}. {evidence(run, card['recipe'])}"
    yield f"Calibration error {test['ece']:.3f}, goal at most 0.02."
    yield f"File {test['file_mb']:.1f} MB, goal at most 12."


def evidence(run: str, recipe: dict[str, object]) -> str:
    """What the losses of the last epoch say to try next, where they can be compared."""
    if recipe["mixup"] or recipe["label_smoothing"]:
        return ""
    last = pd.read_csv(RECORDS / run / "epochs.csv").iloc[-1]
    gap = last["valid_loss"] - last["train_loss"]
    losses = (
        f"In the last epoch the loss was {last['train_loss']:.3f} on augmented training pictures "
        f"and {last['valid_loss']:.3f} on validation:"
    )
    if gap < OVERFITS:
        return f"{losses} it hardly overfits, so more epochs come next."
    return f"{losses} it overfits, so stronger regularisation comes next."


def epochs_of(run: str) -> str:
    """How many epochs a run had, and which of them was the best."""
    table = pd.read_csv(RECORDS / run / "epochs.csv")
    return f"{len(table)}, {int(table['epoch'][table['valid_accuracy'].argmax()])}"


def plot() -> None:
    """Accuracy on the six classes against time, of what is trained."""
    speed = json.loads((RECORDS / "speed.json").read_text())["cpu"]
    rows = [
        {**test, "model": network, "ms_per_face": speed[network]}
        for network in NETWORKS
        if (test := read(f"fer2013-six-{network}", "test"))
    ]
    if rows:
        accuracy_against_time(pd.DataFrame(rows), RECORDS / "accuracy-time.png")


INTRODUCTION = """# Results of training

Written by `benchmarks/results.py` from what the runs left in `docs/results/`; no figure is typed by
hand. `make results DATA=DIR` trains whatever is missing, on a GPU where there is one. Nothing is
chosen on a test split. Training pictures that also stand in a held-out split, as they are or nearly
so, are left out; published figures on FER2013 rarely do without them.
"""


def page() -> Iterator[str]:
    """The lines of docs/results.md."""
    yield INTRODUCTION
    yield from networks_section()
    yield ""
    yield from data_section()
    yield ""
    yield from six_section()
    if (RECORDS / "accuracy-time.png").exists():
        yield from ("", "![Accuracy against time](results/accuracy-time.png)")
    yield ""
    yield from single_section(SEVEN, "Seven classes, FER2013 PrivateTest", 0.735)
    yield ""
    yield from single_section(DEFAULT_WEIGHTS, "Eight classes, FER+ PrivateTest: the default", 0.89)
    if (RECORDS / DEFAULT_WEIGHTS / "confusion.png").exists():
        yield ""
        for plot_name in ("confusion", "reliability"):
            yield f"![{plot_name}](results/{DEFAULT_WEIGHTS}/{plot_name}.png)"
    yield from ("", "## What is missing", "")
    absent = [run.name for run in RUNS if read(run.name, "test") is None]
    yield f"Not trained yet, for want of a GPU: {', '.join(absent) or 'nothing'}."
    yield "Nor is the grid of the paper's Table 4 (`configs/sweep/table4.yaml`: 72 trainings)."


def main() -> None:
    """Train, evaluate, write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--data", type=Path, help="folder that holds fer2013/ and ferplus/")
    parser.add_argument("-o", "--out", type=Path, default=ROOT / "outputs" / "results")
    parser.add_argument("--only", nargs="+", choices=[run.name for run in RUNS], metavar="NAME")
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--speed", action="store_true", help="time the networks again")
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    RECORDS.mkdir(exist_ok=True)
    if options.speed or not (RECORDS / "speed.json").exists():
        record_speed(device)
    if options.data:
        record_counts(options.data, options.out)
        for run in RUNS:
            if options.only is None or run.name in options.only:
                weights = train(run, options.data, options.out, options.overrides)
                record(run, weights, options.data, device)
    plot()
    (ROOT / "docs" / "results.md").write_text("\n".join(page()) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
