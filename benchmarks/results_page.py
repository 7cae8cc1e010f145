"""Writes docs/results.md from the records that `benchmarks/results.py` made in docs/results/."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pandas as pd

from benchmarks.results_runs import (
    BATCH,
    CUDA_BATCH,
    OURS,
    RECORDS,
    ROOT,
    ROUNDS,
    RUNS,
    SEVEN,
    TABLE4,
    WITH_COPIES,
    six_name,
)
from fer_batch.evaluation.plots import accuracy_against_time
from fer_batch.models.card import DEFAULT_WEIGHTS
from fer_batch.models.networks import NETWORKS, describe

PAPER = {
    "gimefive-13": 0.641,
    "gimefive-15": 0.656,
    "gimefive-15-do": 0.675,
    "resnet18": 0.647,
    "resnet34": 0.671,
}
"""Test accuracy on FER2013, six classes, in the GiMeFive paper."""
OVERFITS = 0.1
"""Difference of validation and training loss, in nats, above which more epochs do not help."""


def write() -> None:
    """Write the page and its plot."""
    plot()
    (ROOT / "docs" / "results.md").write_text(f"{page()}\n", encoding="utf-8")


def read(run: str, name: str) -> dict[str, object] | None:
    """A record of a run; None where the run is missing."""
    path = RECORDS / run / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else None


def percent(value: float) -> str:
    """A fraction as text."""
    return f"{value:.1%}".replace("%", " %")


def interval(metrics: dict[str, float]) -> str:
    """An accuracy with its 95 % interval."""
    low, high = (f"{100 * metrics[key]:.1f}" for key in ("accuracy_low", "accuracy_high"))
    return f"{percent(metrics['accuracy'])} ({low} to {high})"


def against_goal(name: str, goal: float) -> str:
    """A sentence on whether the accuracy of a run reaches a goal."""
    metrics = read(name, "test")
    if metrics is None:
        return "not trained yet"
    missing = goal - metrics["accuracy"]
    return "reached" if missing <= 0 else f"missed by {100 * missing:.1f} points"


def networks_section() -> Iterator[str]:
    """Table of the networks."""
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
    """Table 3: the pictures, and the number of those left out."""
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
        names = [six_name(network, augmented=augmented) for augmented in (True, False)]
        tests = [read(name, "test") for name in names]
        cards = [read(name, "card") for name in names]
        paper = percent(PAPER[network]) if network in PAPER else ""
        measured = [interval(test) if test else "not trained yet" for test in tests]
        valid = [percent(card["metrics"]["valid_accuracy"]) if card else "" for card in cards]
        epochs = " / ".join(str(card["recipe"]["epochs"]) for card in cards if card)
        yield f"| {' | '.join([network, paper, *measured, *valid, epochs])} |"
    yield ""
    reached = [
        f"{network}: {against_goal(six_name(network), goal)}" for network, goal in PAPER.items()
    ]
    yield f"Against the paper: {'; '.join(reached)}."
    yield "On its validation pictures the paper has 72.5 % with augmentation and 65.3 % without."
    for run in RUNS:
        if run.recipe == "fer2013-six" and read(run.name, "card"):
            yield ""
            yield f"`{run.name}`: {evidence(run.name)}"


def single_section(run: str, title: str, goal: float) -> Iterator[str]:
    """A network that has a goal of its own."""
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
    yield f"Goal {percent(goal)}: {against_goal(run, goal)}. {evidence(run)}"
    yield f"Calibration error {test['ece']:.3f}, goal at most 0.02."
    yield f"File {test['file_mb']:.1f} MB, goal at most 12."


def evidence(run: str) -> str:
    """What to try next, from the losses of the last epoch, if they can be compared."""
    recipe = read(run, "card")["recipe"]
    if recipe["mixup"] or recipe["label_smoothing"]:
        return ""
    last = pd.read_csv(RECORDS / run / "epochs.csv").iloc[-1]
    gap = last["valid_loss"] - last["train_loss"]
    pictures = "augmented training pictures" if recipe["augment"] else "training pictures"
    losses = (
        f"In the last epoch the loss was {last['train_loss']:.3f} on {pictures} "
        f"and {last['valid_loss']:.3f} on validation:"
    )
    if gap < OVERFITS:
        return f"{losses} it hardly overfits, so more epochs come next."
    return f"{losses} it overfits, so stronger regularisation comes next."


def epochs_of(run: str) -> str:
    """Number of epochs of a run, and the best of them."""
    table = pd.read_csv(RECORDS / run / "epochs.csv")
    return f"{len(table)}, {int(table['epoch'][table['valid_accuracy'].argmax()])}"


def plot() -> None:
    """Accuracy on the six classes by time per face, for the trained networks."""
    speed = json.loads((RECORDS / "speed.json").read_text())["cpu"]
    rows = [
        {**test, "model": network, "ms_per_face": speed[network]}
        for network in NETWORKS
        if (test := read(six_name(network), "test"))
    ]
    if rows:
        accuracy_against_time(pd.DataFrame(rows), RECORDS / "accuracy-time.png")


def table4_section() -> Iterator[str]:
    """The best points of the grid."""
    yield "## The grid of Table 4"
    yield ""
    path = RECORDS / f"{TABLE4}.csv"
    if not path.exists():
        yield f"`fer-batch sweep --config {TABLE4}`: 72 trainings, not run yet."
        return
    table = pd.read_csv(path)
    yield f"The best 10 of {len(table)} trainings by validation accuracy; all are in"
    yield f"[{path.name}](results/{path.name})."
    yield ""
    yield table.head(10).round({"valid_accuracy": 4, "seconds": 0}).to_markdown(index=False)


INTRODUCTION = """# Results of training

Written by `benchmarks/results.py` from what the runs left in `docs/results/`; no figure is typed by
hand. `make results DATA=DIR` trains whatever is missing, on a GPU where there is one. Nothing is
chosen on a test split. Training pictures that also stand in a held-out split, as they are or nearly
so, are left out; published figures on FER2013 rarely do without them.
"""


def page() -> str:
    """The text of docs/results.md."""
    sections = [
        [INTRODUCTION.strip()],
        networks_section(),
        data_section(),
        six_section(),
        picture("accuracy-time.png", "accuracy against time"),
        single_section(SEVEN, "Seven classes, FER2013 PrivateTest", 0.735),
        single_section(DEFAULT_WEIGHTS, "Eight classes, FER+ PrivateTest: the default", 0.89),
        picture(f"{DEFAULT_WEIGHTS}/confusion.png", "confusion"),
        picture(f"{DEFAULT_WEIGHTS}/reliability.png", "reliability"),
        single_section(WITH_COPIES, "Eight classes, FER+ PrivateTest, copies left in", 0.89),
        table4_section(),
        training_section(),
        missing_section(),
    ]
    return "\n\n".join(text for section in sections if (text := "\n".join(section)))


def picture(name: str, title: str) -> Iterator[str]:
    """A plot, if it exists."""
    if (RECORDS / name).exists():
        yield f"![{title}](results/{name})"


def training_section() -> Iterator[str]:
    """How the models were trained."""
    yield "## How they were trained"
    yield ""
    yield "| run | optimiser | learning rate | batch | epochs | augmented |"
    yield "|:--|:--|--:|--:|--:|:--|"
    for run in RUNS:
        if card := read(run.name, "card"):
            recipe = card["recipe"]
            yield (
                f"| {run.name} | {recipe['optimizer']} | {recipe['learning_rate']} | "
                f"{recipe['batch_size']} | {recipe['epochs']} | "
                f"{'yes' if recipe['augment'] else 'no'} |"
            )
    yield ""
    yield "Tried and left: SGD for `gimefive-13`, which was behind Adam after five epochs on a"
    yield "third of the pictures."


def missing_section() -> Iterator[str]:
    """Models that still have to be trained."""
    yield "## What is missing"
    yield ""
    absent = [run.name for run in RUNS if read(run.name, "test") is None]
    yield f"Not trained yet, for want of a GPU: {', '.join(absent) or 'nothing'}."
