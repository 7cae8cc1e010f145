"""Classifiers on labelled pictures: scores, plots and mistakes of each, and a table of them all."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np
import pandas as pd
import torch
from tabulate import tabulate

from fer_batch.datasets import DatasetError, Split
from fer_batch.datasets.pictures import Pictures, load_data
from fer_batch.emotions import EMOTIONS
from fer_batch.errors import ConfigError, StoreError
from fer_batch.evaluation import plots
from fer_batch.evaluation.metrics import (
    Metrics,
    as_record,
    calibration_error,
    measure,
    scale_temperature,
)
from fer_batch.explain import plots as explain_plots
from fer_batch.explain.explainer import Explainer
from fer_batch.faces.crop import normalise
from fer_batch.models.card import ModelCard, read_card
from fer_batch.models.classifier import Classifier
from fer_batch.models.networks import describe
from fer_batch.records import Floats
from fer_batch.results.tables import dominant

logger = logging.getLogger(__name__)

BATCH_SIZE = 64
CUDA_BATCH_SIZE = 1024
REPETITIONS = 5
"""Of a batch, of whose times the median counts."""
N_MISTAKES = 24

SHOWN = {
    "model": ("model", "{}"),
    "network": ("network", "{}"),
    "parameters": ("parameters", "{:,}"),
    "macs": ("MACs", "{:,}"),
    "file_mb": ("MB", "{:.1f}"),
    "input": ("input", "{}"),
    "classes": ("classes", "{}"),
    "dataset": ("data", "{}"),
    "split": ("split", "{}"),
    "n": ("pictures", "{:,}"),
    "accuracy": ("accuracy", "{:.1%}"),
    "accuracy_low": ("95 % from", "{:.1%}"),
    "accuracy_high": ("to", "{:.1%}"),
    "macro_f1": ("macro F1", "{:.3f}"),
    "ece": ("ECE", "{:.3f}"),
    "ms_per_face": ("ms/face (CPU)", "{:.2f}"),
    "cpu_threads": ("threads", "{}"),
    "faces_per_s_cuda": ("faces/s (CUDA)", "{:,.0f}"),
}
"""Columns of the table of models, with the title and the format that people read."""


@dataclass(frozen=True, slots=True)
class HeldOut:
    """The pictures that models are evaluated on."""

    dataset: str
    """Name of a reader."""
    root: Path
    """Where the data set is, or the file that it was packed into."""
    split: Split = "test"
    _read: dict[int, Pictures] = field(default_factory=dict, repr=False, compare=False)

    def pictures(self, size_px: int) -> Pictures:
        """The pictures with sides of `size_px`, read once.

        Raises:
            ConfigError: There is no such data set.
            DatasetError: It is not as it should be.
        """
        if size_px not in self._read:
            data = load_data(self.dataset, self.root, size_px=size_px, splits=(self.split,))
            self._read[size_px] = data.pictures[self.split]
        return self._read[size_px]


@dataclass(frozen=True, slots=True)
class Speed:
    """How long a face takes, from crops in memory to probabilities in memory."""

    ms_per_face: float
    """On the CPU, in batches of `BATCH_SIZE`."""
    cpu_threads: int
    faces_per_s_cuda: float | None
    """On the CUDA device, in batches of `CUDA_BATCH_SIZE`; None without one."""


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """One model on one split of a data set."""

    card: ModelCard
    held_out: HeldOut
    dropped: Mapping[str, int]
    """Pictures left out because the model does not know their emotion, by emotion."""
    metrics: Metrics
    ece_uncalibrated: float
    """Expected calibration error without the card's temperature, which is taken back out of the
    probabilities: exactly, unless those are means with the mirror image."""
    speed: Speed


def check_names(weights: Iterable[Path]) -> None:
    """Make sure that no two models would write into one folder.

    Raises:
        ConfigError: Two have one name.
        WeightsError: A card cannot be read.
    """
    names = Counter(read_card(path).name for path in weights)
    shared = [name for name, times in names.items() if times > 1]
    if shared:
        raise ConfigError(
            f"several models are named {', '.join(shared)}: evaluate them into different folders, "
            "or give their files and cards different names"
        )


def evaluate(
    weights: Path,
    held_out: HeldOut,
    out: Path,
    *,
    device: torch.device,
    flip: bool = False,
    decimals: int | None = None,
) -> Evaluation:
    """Measure one model, and write all there is to see of it into a folder.

    ``OUT/<name>/`` gets ``report.md``, ``metrics.json``, ``confusion.csv``, ``confusion.png``,
    ``reliability.png``, ``mistakes.png`` (the most confident ones, with what speaks for the
    predicted and for the true emotion), and ``scores.csv``: each picture's path and its probability
    of each emotion, empty where the model has no such class.
    A class that only the model knows stays: to predict it is a mistake.

    Args:
        weights: Weight file, with its card beside it.
        held_out: What to measure it on.
        out: Folder for the model's folder.
        device: Where the model runs. Its time is taken on the CPU, and on a CUDA device as well.
        flip: Whether each picture and its mirror image are averaged.
        decimals: Of ``scores.csv``; None keeps full precision.

    Raises:
        ConfigError: There is no such data set.
        DatasetError: It is not as it should be, or shows nothing that the model knows.
        StoreError: The folder cannot be written.
        WeightsError: The weights cannot be used.
    """
    classifier = Classifier(weights, device, batch_size=BATCH_SIZE, flip=flip)
    card = read_card(weights)
    folder = out / card.name
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"{folder} cannot be made: {error}; choose another with -o") from error
    pictures, dropped = _known(held_out.pictures(card.input_size_px), card, held_out)
    logger.info("%s: %d pictures, left out: %s", card.name, len(pictures), dropped)
    probs = _classify(classifier, pictures)
    uncalibrated = scale_temperature(probs, 1 / card.temperature)
    evaluation = Evaluation(
        card=card,
        held_out=held_out,
        dropped=dropped,
        metrics=measure(probs, pictures.targets),
        ece_uncalibrated=calibration_error(uncalibrated, pictures.targets),
        speed=_measure_speed(weights, classifier, device, flip=flip),
    )
    _write_scores(pictures, probs, folder / "scores.csv", decimals)
    explainer = Explainer(weights, device, batch_size=BATCH_SIZE)
    _write_mistakes(explainer, pictures, probs, folder / "mistakes.png")
    _write_metrics(evaluation, folder)
    return evaluation


def compare(evaluations: Sequence[Evaluation]) -> pd.DataFrame:
    """One row per model: what it is, what it costs and how good it is.

    Returns:
        model, network, parameters, macs (of one face), file_mb, classes, input (channels x height
        x width), dataset, split, n (pictures), accuracy with accuracy_low and accuracy_high (95 %),
        macro_f1, ece, ms_per_face and cpu_threads (CPU, batches of 64), faces_per_s_cuda.
    """
    table = pd.DataFrame([_row(evaluation) for evaluation in evaluations])
    return table.astype({"faces_per_s_cuda": float})


def write_table(table: pd.DataFrame, out: Path) -> None:
    """Write what `compare` gives as ``models.csv``, ``models.md`` and ``models.png`` (a plot)."""
    table.to_csv(out / "models.csv", index=False)
    titles = [title for title, _ in SHOWN.values()]
    rows = [
        [form.format(row[column]) for column, (_, form) in SHOWN.items()]
        for row in table.to_dict("records")
    ]
    (out / "models.md").write_text(_markdown(titles, rows), encoding="utf-8")
    plots.accuracy_against_time(table, out / "models.png")


def _known(
    pictures: Pictures, card: ModelCard, held_out: HeldOut
) -> tuple[Pictures, dict[str, int]]:
    """The pictures whose emotion the model knows, and how many show each of the others."""
    emotions = np.array(EMOTIONS)[pictures.targets.argmax(axis=1)]
    keep = np.isin(emotions, card.classes)
    if keep.sum() < 2:
        raise DatasetError(
            f"{held_out.root}: {held_out.dataset}, split {held_out.split}, has {keep.sum()} "
            f"pictures of what {card.name} knows: {', '.join(card.classes)}"
        )
    return pictures.where(keep), dict(Counter(emotions[~keep].tolist()))


def _classify(classifier: Classifier, pictures: Pictures) -> Floats:
    starts = range(0, len(pictures), BATCH_SIZE)
    batches = (pictures.pixels[start : start + BATCH_SIZE] for start in starts)
    return np.concatenate([classifier(normalise(batch, classifier.card)) for batch in batches])


def _measure_speed(
    weights: Path, classifier: Classifier, device: torch.device, *, flip: bool
) -> Speed:
    faces_per_s_cuda = None
    if device.type == "cuda":
        large = Classifier(weights, device, batch_size=CUDA_BATCH_SIZE, flip=flip)
        faces_per_s_cuda = CUDA_BATCH_SIZE / _median_seconds(large, CUDA_BATCH_SIZE)
        classifier = Classifier(weights, torch.device("cpu"), batch_size=BATCH_SIZE, flip=flip)
    return Speed(
        ms_per_face=1000 * _median_seconds(classifier, BATCH_SIZE) / BATCH_SIZE,
        cpu_threads=torch.get_num_threads(),
        faces_per_s_cuda=faces_per_s_cuda,
    )


def _median_seconds(classifier: Classifier, n_faces: int) -> float:
    card = classifier.card
    crops = torch.rand(n_faces, len(card.mean), card.input_size_px, card.input_size_px)
    times_s = []
    for _ in range(1 + REPETITIONS):
        start_s = perf_counter()
        classifier(crops)
        times_s.append(perf_counter() - start_s)
    return median(times_s[1:])  # the first one sets up kernels and memory


def _row(evaluation: Evaluation) -> dict[str, object]:
    card, metrics, held_out = evaluation.card, evaluation.metrics, evaluation.held_out
    facts = describe(card.network, len(card.classes), input_size_px=card.input_size_px)
    return {
        "model": card.name,
        "network": card.network,
        "parameters": facts.parameters,
        "macs": facts.macs,
        "file_mb": facts.file_mb,
        "classes": len(card.classes),
        "input": f"{len(card.mean)}x{card.input_size_px}x{card.input_size_px}",
        "dataset": held_out.dataset,
        "split": held_out.split,
        "n": metrics.n,
        "accuracy": metrics.accuracy,
        "accuracy_low": metrics.accuracy_low,
        "accuracy_high": metrics.accuracy_high,
        "macro_f1": metrics.macro_f1,
        "ece": metrics.ece,
        **asdict(evaluation.speed),
    }


def _write_scores(pictures: Pictures, probs: Floats, path: Path, decimals: int | None) -> None:
    scores = pd.DataFrame(probs, columns=list(EMOTIONS))
    scores.insert(0, "filepath", pictures.paths)
    precision = None if decimals is None else f"%.{decimals}f"
    scores.to_csv(path, index=False, float_format=precision)


def _write_mistakes(explainer: Explainer, pictures: Pictures, probs: Floats, path: Path) -> None:
    true, (predicted, confidence) = pictures.targets.argmax(axis=1), dominant(probs)
    wrong = np.flatnonzero(predicted != true)
    worst = wrong[np.argsort(-confidence[wrong], kind="stable")][:N_MISTAKES]
    crops = normalise(pictures.pixels[worst], explainer.card)
    maps = [explainer.maps(crops, codes[worst], "gradcam") for codes in (predicted, true)]
    explain_plots.mistakes(
        pictures.pixels[worst],
        true[worst],
        predicted[worst],
        probs[worst],
        np.stack(maps, axis=1),
        path,
    )


def _write_metrics(evaluation: Evaluation, folder: Path) -> None:
    card, metrics = evaluation.card, evaluation.metrics
    record = {
        **_row(evaluation),
        "sha256": card.sha256,
        "temperature": card.temperature,
        "ece_uncalibrated": evaluation.ece_uncalibrated,
        "dropped": evaluation.dropped,
        **as_record(metrics),
    }
    text = json.dumps(record, indent=2, allow_nan=False)
    (folder / "metrics.json").write_text(f"{text}\n", encoding="utf-8")
    names = list(metrics.classes)
    counts = pd.DataFrame(metrics.confusion, pd.Index(names, name="true"), names)
    counts.to_csv(folder / "confusion.csv")
    plots.confusion(metrics, folder / "confusion.png")
    plots.reliability(metrics, folder / "reliability.png")
    (folder / "report.md").write_text(_report(evaluation), encoding="utf-8")


def _report(evaluation: Evaluation) -> str:
    card, metrics, held_out = evaluation.card, evaluation.metrics, evaluation.held_out
    left_out = ", ".join(f"{n:,} of {emotion}" for emotion, n in evaluation.dropped.items())
    facts = [
        ("pictures", f"{metrics.n:,}"),
        ("left out, not known to the model", left_out or "none"),
        ("accuracy", f"{metrics.accuracy:.2%}"),
        ("95 % interval", f"{metrics.accuracy_low:.2%} to {metrics.accuracy_high:.2%}"),
        ("macro F1", f"{metrics.macro_f1:.3f}"),
        ("balanced accuracy", f"{metrics.balanced_accuracy:.2%}"),
        ("expected calibration error", f"{metrics.ece:.3f}"),
        ("without the card's temperature", f"{evaluation.ece_uncalibrated:.3f}"),
        ("mean negative log-likelihood", f"{metrics.nll:.3f}"),
        ("milliseconds per face on the CPU", f"{evaluation.speed.ms_per_face:.2f}"),
    ]
    scores = zip(metrics.precision, metrics.recall, metrics.f1, strict=True)
    per_class = [
        [name, *(f"{score:.3f}" for score in row), f"{support:,}"]
        for name, row, support in zip(metrics.classes, scores, metrics.support, strict=True)
    ]
    return "\n".join(
        [
            f"# {card.name} on {held_out.dataset}, split {held_out.split}\n",
            _markdown(["", card.network], facts),
            _markdown(["emotion", "precision", "recall", "F1", "pictures"], per_class),
            "![Confusion matrix](confusion.png)\n",
            "![Reliability diagram](reliability.png)\n",
            "The most confident mistakes, with Grad-CAM of the predicted and the true emotion:\n",
            "![Mistakes](mistakes.png)\n",
        ]
    )


def _markdown(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table whose first column is text and the others are numbers; nan is left empty."""
    cells = [["" if cell == "nan" else cell for cell in row] for row in rows]
    sides = ["left", *["right"] * (len(titles) - 1)]
    return tabulate(cells, titles, "pipe", colalign=sides, disable_numparse=True) + "\n"
