"""Plots of training and evaluation, as small PNG files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import LogLocator, MaxNLocator
from matplotlib.transforms import Bbox

from fer_batch.evaluation.metrics import BINS, Metrics
from fer_batch.plotting import BLUE, GREY, ORANGE, new_figure, percent, save

_GAPS_PX = (8, 18, 32, 50, 75)
_DIRECTIONS = ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, 1), (1, -1), (-1, -1))


def curves(epochs: pd.DataFrame, path: Path) -> None:
    """Plot losses and validation accuracy over the epochs of a training, and mark the best epoch.

    Args:
        epochs: One row per epoch: epoch, train_loss, valid_loss, valid_accuracy.
        path: PNG to write.
    """
    best = epochs.iloc[int(epochs["valid_accuracy"].argmax())]
    figure, (losses, accuracy) = new_figure(9, 3.6, columns=2)
    losses.plot(epochs["epoch"], epochs["train_loss"], ".-", color=BLUE, label="training")
    losses.plot(epochs["epoch"], epochs["valid_loss"], ".-", color=ORANGE, label="validation")
    losses.set_ylabel("cross-entropy")
    losses.legend(frameon=False)
    accuracy.plot(epochs["epoch"], epochs["valid_accuracy"], ".-", color=ORANGE)
    accuracy.plot(best["epoch"], best["valid_accuracy"], "o", color=ORANGE)
    accuracy.set_ylabel("validation accuracy")
    accuracy.set_title(f"best: {best['valid_accuracy']:.2%} in epoch {best['epoch']:.0f}")
    accuracy.yaxis.set_major_formatter(percent)
    for axes in (losses, accuracy):
        axes.axvline(best["epoch"], color=GREY, linewidth=0.8, linestyle=":", zorder=0)
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    save(figure, path)


def confusion(metrics: Metrics, path: Path) -> None:
    """Plot the confusion matrix: shares of each row as colour, shares and counts as text."""
    shares = metrics.confusion / np.maximum(metrics.support, 1)[:, None]
    size = 2.2 + 0.72 * len(metrics.classes)
    figure, (axes,) = new_figure(size, size)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for row, column in np.ndindex(*shares.shape):
        count, share = metrics.confusion[row, column], shares[row, column]
        if count:
            color = "white" if share > 0.6 else "black"
            text = f"{share:.0%}\n{count:,}"
            axes.text(column, row, text, ha="center", va="center", fontsize=8, color=color)
    ticks = range(len(metrics.classes))
    axes.set_xticks(ticks, metrics.classes, rotation=40, ha="right", rotation_mode="anchor")
    axes.set_yticks(ticks, metrics.classes)
    axes.tick_params(length=0)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    axes.set_title(f"accuracy {metrics.accuracy:.1%}, {metrics.n:,} pictures")
    save(figure, path)


def reliability(metrics: Metrics, path: Path) -> None:
    """Plot accuracy by confidence (reliability diagram), and below how often each occurs."""
    bins = metrics.reliability
    edges = np.linspace(0, 1, BINS + 1)
    figure, (above, below) = new_figure(5, 5.6, rows=2, heights=(3, 1))
    above.plot([0, 1], [0, 1], color=GREY, linewidth=0.8, linestyle="--", label="ideal")
    above.bar(
        edges[:-1], bins.accuracy, 1 / BINS, align="edge", color=BLUE, alpha=0.5, edgecolor="white"
    )
    above.plot(bins.confidence, bins.accuracy, "o", color=ORANGE, markersize=4, label="mean of bin")
    above.set_ylabel("accuracy")
    above.set_ylim(0, 1)
    above.set_title(f"expected calibration error {metrics.ece:.3f}")
    above.legend(frameon=False)
    below.bar(edges[:-1], bins.n / metrics.n, 1 / BINS, align="edge", color=GREY, edgecolor="white")
    below.set_ylabel("pictures")
    below.set_xlabel("confidence")
    for axes in (above, below):
        axes.set_xlim(0, 1)
        axes.yaxis.set_major_formatter(percent)
    save(figure, path)


def accuracy_against_time(table: pd.DataFrame, path: Path) -> None:
    """Plot the accuracy of models, with intervals, against the time per face.

    Args:
        table: One row per model: model, accuracy, accuracy_low, accuracy_high, ms_per_face.
        path: PNG to write.
    """
    figure, (axes,) = new_figure(7.5, 5)
    accuracy = table["accuracy"]
    spread = [accuracy - table["accuracy_low"], table["accuracy_high"] - accuracy]
    axes.errorbar(
        table["ms_per_face"], accuracy, yerr=spread, fmt="o", color=BLUE, ecolor=GREY, elinewidth=1
    )
    axes.set_xscale("log")
    axes.margins(0.12)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_xlabel("milliseconds per face (log scale)")
    axes.set_ylabel("accuracy")
    axes.yaxis.set_major_formatter(percent)
    _label(figure, axes, table)
    save(figure, path)


def _label(figure: Figure, axes: Axes, table: pd.DataFrame) -> None:
    """Write the name of each model at the nearest free place to its point."""
    figure.draw_without_rendering()  # computes the layout: positions in pixels are not known before
    frame = axes.get_window_extent()
    lows, highs = (
        axes.transData.transform(table[["ms_per_face", end]].to_numpy(np.float64))
        for end in ("accuracy_low", "accuracy_high")
    )
    taken = [Bbox([low - 5, high + 5]) for low, high in zip(lows, highs, strict=True)]
    for name, x, y in table[["model", "ms_per_face", "accuracy"]].itertuples(index=False):
        text = axes.annotate(
            name,
            (x, y),
            (0, 0),
            textcoords="offset pixels",
            ha="center",
            va="center",
            fontsize=9,
            arrowprops={"arrowstyle": "-", "color": GREY, "linewidth": 0.6, "shrinkB": 4},
            in_layout=False,
        )
        extent = Text.get_window_extent(text)  # the text of the annotation without its arrow
        half = np.array([extent.width, extent.height]) / 2
        shifts = [direction * (half + gap) for gap in _GAPS_PX for direction in _DIRECTIONS]
        centre = axes.transData.transform((x, y))
        places = [Bbox([centre + shift - half, centre + shift + half]) for shift in shifts]
        free = [
            not place.count_overlaps(taken)
            and frame.contains(*place.min)
            and frame.contains(*place.max)
            for place in places
        ]
        chosen = int(np.argmax(free))  # the first place if none is free
        text.set_position((shifts[chosen][0], shifts[chosen][1]))
        taken.append(places[chosen])
