"""Evaluation of classifiers on labelled pictures: scores, plots and mistakes, and a comparison."""

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
"""Runs of a batch, of which the median time is reported."""
N_MISTAKES = 24

COLUMNS = {
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
"""Columns of the table of models, with their titles and formats in ``models.md``."""
MAIN_COLUMNS = (
    *("model", "n", "accuracy", "accuracy_low", "accuracy_high", "macro_f1", "ece", "ms_per_face"),
)
"""Columns that the command line prints."""


@dataclass(frozen=True, slots=True)
class LabelledSplit:
    """A split of a data set on which classifiers are evaluated."""

    dataset: str
    """Name of a reader."""
    root: Path
    """Folder of the data set, or the file that it was packed into."""
    split: Split = "test"
    _read: dict[int, Pictures] = field(default_factory=dict, repr=False, compare=False)

    def pictures(self, size_px: int) -> Pictures:
        """The pictures with sides of `size_px`; each size is read once.

        Raises:
            ConfigError: There is no such data set.
            DatasetError: The data set is not as expected.
        """
        if size_px not in self._read:
            data = load_data(self.dataset, self.root, size_px=size_px, splits=(self.split,))
            self._read[size_px] = data.pictures[self.split]
        return self._read[size_px]


@dataclass(frozen=True, slots=True)
class Speed:
    """Time per face, from crops in memory to probabilities in memory."""

    ms_per_face: float
    """On the CPU, in batches of `BATCH_SIZE`."""
    cpu_threads: int
    faces_per_s_cuda: float | None
    """On the CUDA device, in batches of `CUDA_BATCH_SIZE`; None without one."""


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """Results of one classifier on one split of a data set."""

    card: ModelCard
    data: LabelledSplit
    dropped: Mapping[str, int]
    """Number of pictures that were left out, as the classifier does not know their emotion."""
    metrics: Metrics
    ece_uncalibrated: float
    """Expected calibration error without the temperature of the card. It is exact, except with
    `flip`, where the temperature is removed from the mean of two probabilities."""
    speed: Speed


def check_names(weights: Iterable[Path]) -> None:
    """Check that no two models would write into the same folder.

    Raises:
        ConfigError: Two models have the same name.
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
    data: LabelledSplit,
    out: Path,
    *,
    device: torch.device,
    flip: bool = False,
    decimals: int | None = None,
) -> Evaluation:
    """Measure one classifier, and write the results into a folder.

    These are the files of ``OUT/<name>/``: ``report.md``, ``metrics.json``, ``confusion.csv``,
    ``confusion.png``, ``reliability.png``, ``mistakes.png`` (the most confident mistakes, with
    heatmaps for the predicted and for the true emotion), and ``scores.csv``: the path of each
    picture and its probability of each emotion, empty where the classifier has no such class.
    Classes that only the classifier knows are kept: to predict one is a mistake.

    Args:
        weights: Weight file, with its card beside it.
        data: Pictures to measure it on.
        out: Folder for the classifier's folder.
        device: Where the classifier runs. Its speed is measured on the CPU, and on a CUDA device
            if it runs on one.
        flip: Average each picture with its mirror image.
        decimals: Decimals in ``scores.csv``; None keeps full precision.

    Raises:
        ConfigError: There is no such data set.
        DatasetError: The data set is not as expected, or has no emotion that the classifier knows.
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
    pictures, dropped = _keep_known(data.pictures(card.input_size_px), card, data)
    logger.info("%s: %d pictures, left out: %s", card.name, len(pictures), dropped)
    probs = _classify(classifier, pictures)
    uncalibrated = scale_temperature(probs, 1 / card.temperature)
    evaluation = Evaluation(
        card=card,
        data=data,
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
    """Make a table with one row per classifier: what it is, what it costs and how good it is.

    Returns:
        model, network, parameters, macs (of one face), file_mb, classes, input (channels x height
        x width), dataset, split, n (pictures), accuracy with accuracy_low and accuracy_high (95 %),
        macro_f1, ece, ms_per_face and cpu_threads (CPU, batches of 64), faces_per_s_cuda.
    """
    table = pd.DataFrame([_row(evaluation) for evaluation in evaluations])
    return table.astype({"faces_per_s_cuda": float})


def write_table(table: pd.DataFrame, out: Path) -> None:
    """Write the table of `compare` as ``models.csv`` and ``models.md``, and plot ``models.png``."""
    table.to_csv(out / "models.csv", index=False)
    titles = [title for title, _ in COLUMNS.values()]
    rows = [
        [form.format(row[column]) for column, (_, form) in COLUMNS.items()]
        for row in table.to_dict("records")
    ]
    (out / "models.md").write_text(_markdown(titles, rows), encoding="utf-8")
    plots.accuracy_against_time(table, out / "models.png")


def _keep_known(
    pictures: Pictures, card: ModelCard, data: LabelledSplit
) -> tuple[Pictures, dict[str, int]]:
    """The pictures whose emotion the classifier knows, and the number of others by emotion."""
    emotions = np.array(EMOTIONS)[pictures.targets.argmax(axis=1)]
    keep = np.isin(emotions, card.classes)
    if keep.sum() < 2:
        raise DatasetError(
            f"{data.root}: {data.dataset}, split {data.split}, has {keep.sum()} "
            f"pictures of emotions that {card.name} knows: {', '.join(card.classes)}"
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
    return median(times_s[1:])  # the first run sets up kernels and memory


def _row(evaluation: Evaluation) -> dict[str, object]:
    card, metrics, data = evaluation.card, evaluation.metrics, evaluation.data
    facts = describe(card.network, len(card.classes), input_size_px=card.input_size_px)
    return {
        "model": card.name,
        "network": card.network,
        "parameters": facts.parameters,
        "macs": facts.macs,
        "file_mb": facts.file_mb,
        "classes": len(card.classes),
        "input": f"{len(card.mean)}x{card.input_size_px}x{card.input_size_px}",
        "dataset": data.dataset,
        "split": data.split,
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
    card, metrics, data = evaluation.card, evaluation.metrics, evaluation.data
    left_out = ", ".join(f"{n:,} {emotion}" for emotion, n in evaluation.dropped.items())
    facts = [
        ("pictures", f"{metrics.n:,}"),
        ("left out, as the model does not know them", left_out or "none"),
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
            f"# {card.name} on {data.dataset}, split {data.split}\n",
            _markdown(["", card.network], facts),
            _markdown(["emotion", "precision", "recall", "F1", "pictures"], per_class),
            "![Confusion matrix](confusion.png)\n",
            "![Reliability diagram](reliability.png)\n",
            "The most confident mistakes, with heatmaps for the predicted and the true emotion:\n",
            "![Mistakes](mistakes.png)\n",
        ]
    )


def _markdown(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table whose first column is text and whose others are numbers; nan is left empty."""
    cells = [["" if cell == "nan" else cell for cell in row] for row in rows]
    sides = ["left", *["right"] * (len(titles) - 1)]
    return tabulate(cells, titles, "pipe", colalign=sides, disable_numparse=True) + "\n"
