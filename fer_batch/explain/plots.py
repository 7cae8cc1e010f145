"""Plots of explanations, as PNG files: of one face, of an emotion, of a model's mistakes.

The colours are perceptually uniform and safe for colour-blind readers: black is 0 and brighter is
more; in maps with negative values, red is for the emotion and blue against it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from fer_batch.emotions import COLOURS, EMOTIONS
from fer_batch.explain.explainer import Method, patches
from fer_batch.plotting import new_figure, save
from fer_batch.records import Bytes, Floats, Ints

_Sum = NDArray[np.float64]

UNITS: dict[Method, str] = {
    "gradcam": "Grad-CAM, in logits",
    "gradcam++": "Grad-CAM++",
    "occlusion": "fall of the probability when covered",
    "saliency": "size of the gradient, in logits",
    "integrated-gradients": "share of the probability",
}
"""Labels of the colour bars."""
_GREY = "#808080"
OPACITY = 0.7
"""Opacity of the strongest colour over a face."""
MIN_FALL = 0.05
"""The strongest colour is at least this fall of the probability, so that tiny falls look small."""
MAPS_SHOWN = 36
"""Largest number of feature maps that are shown of a block."""
MISTAKES_PER_ROW = 4


class _Scale(NamedTuple):
    """A colour map and the values of its ends."""

    cmap: str
    low: float
    high: float

    @property
    def options(self) -> dict[str, Any]:
        """Arguments for `Axes.imshow`."""
        return {"cmap": self.cmap, "vmin": self.low, "vmax": self.high}

    @property
    def mappable(self) -> ScalarMappable:
        """Argument for a colour bar."""
        return ScalarMappable(Normalize(self.low, self.high), self.cmap)


@dataclass(slots=True, eq=False)
class MeanMaps:
    """Mean of aligned faces, and mean and spread of their maps, summed up batch by batch."""

    n: int = 0
    """Number of faces."""
    face: _Sum = field(default_factory=lambda: np.zeros(()))
    sums: dict[Method, _Sum] = field(default_factory=dict)
    squares: dict[Method, _Sum] = field(default_factory=dict)

    def add(self, faces: Floats, maps: Mapping[Method, Floats]) -> None:
        """Add aligned faces (M, S, S) and maps (M, S, S); each map is divided by its maximum."""
        self.n += len(faces)
        self.face = self.face + faces.sum(axis=0, dtype=np.float64)
        for method, each in maps.items():
            largest = np.abs(each).max(axis=(1, 2), keepdims=True)
            scaled = np.divide(each, largest, out=np.zeros_like(each), where=largest > 0)
            self.sums[method] = self.sums.get(method, 0) + scaled.sum(axis=0, dtype=np.float64)
            squares = (scaled**2).sum(axis=0, dtype=np.float64)
            self.squares[method] = self.squares.get(method, 0) + squares

    def mean_and_std(self, method: Method) -> tuple[_Sum, _Sum]:
        """Mean and standard deviation of the maps, (S, S) each."""
        mean = self.sums[method] / self.n
        return mean, np.sqrt(np.maximum(self.squares[method] / self.n - mean**2, 0))


def face_maps(
    face: Bytes, maps: Mapping[int, Floats], probs: Floats, method: Method, title: str, path: Path
) -> None:
    """Original, heatmap and overlay, one row for each emotion.

    Args:
        face: (S, S) uint8 grey.
        maps: Map (S, S) of each emotion, by its position in EMOTIONS.
        probs: (8,) in EMOTIONS order.
        method: The method that made the maps.
        title: Title of the plot.
        path: PNG to write.
    """
    figure, grid = new_figure(5.6, 0.9 + 1.36 * len(maps), rows=len(maps), columns=3)
    scale = _scale(np.array(list(maps.values())))
    for row, (code, values) in enumerate(maps.items()):
        left, middle, right = grid[3 * row : 3 * row + 3]
        _show_face(left, face)
        _show_map(middle, values, scale)
        _show_face(right, face)
        _show_overlay(right, values, scale)
        strongest = code == np.nanargmax(probs)
        _label_row(left, code, f"{probs[code]:.1%}", bold=bool(strongest))
    for axes, name in zip(grid, ("face", "map", "overlay"), strict=False):
        axes.set_title(name, fontsize=9)
    _colour_bar(figure, grid, scale, UNITS[method])
    figure.suptitle(title, fontsize=10)
    save(figure, path, all_colours=True)


def occlusion_study(
    face: Bytes, scores: Floats, code: int, whole: float, title: str, path: Path
) -> None:
    """The face with each part covered in turn, and its score; the largest falls are marked.

    Args:
        face: (S, S) uint8 grey.
        scores: (K, K) probability of the emotion, by row and column of the patch.
        code: The emotion, a position in EMOTIONS.
        whole: Its probability if nothing is covered.
        title: Title of the plot.
        path: PNG to write.
    """
    side = len(face)
    window, starts = patches(side)
    fall = whole - scores
    scale = _scale(fall, at_least=MIN_FALL)
    third = np.sort(fall, axis=None)[-3]
    figure, (axes,) = new_figure(1.14 * len(starts) + 1.2, 1.3 * len(starts) + 0.5)
    for row, column in np.ndindex(*fall.shape):
        left, top, drop = 1.12 * column * side, 1.28 * row * side, float(fall[row, column])
        extent = (left, left + side, top + side, top)
        axes.imshow(face, cmap="gray", vmin=0, vmax=255, interpolation="bicubic", extent=extent)
        patch = (left + starts[column], top + starts[row])
        axes.add_patch(Rectangle(patch, window, window, facecolor=_GREY, edgecolor="white"))
        frame = Rectangle((left, top), side, side, facecolor="none")
        frame.set(edgecolor=scale.mappable.to_rgba(fall[row, column]))
        frame.set(linewidth=5 * abs(drop) / scale.high)
        axes.add_patch(frame)
        axes.text(
            left + side / 2,
            top + 1.04 * side,
            f"{scores[row, column]:.1%}",
            ha="center",
            va="top",
            fontsize=9,
            fontweight="bold" if drop >= third else "normal",
        )
    axes.set(xlim=(-2, left + side + 2), ylim=(top + 1.22 * side, -2), aspect="equal")
    axes.set_axis_off()
    _colour_bar(figure, [axes], scale, UNITS["occlusion"])
    figure.suptitle(
        f"{title}\n{EMOTIONS[code]} {whole:.1%}; below each picture, with the grey patch on it",
        fontsize=10,
    )
    save(figure, path, all_colours=True)


def activations(face: Bytes, maps: Sequence[Floats], title: str, path: Path) -> None:
    """The strongest feature maps of each block of the network for a face.

    Args:
        face: (S, S) uint8 grey.
        maps: Feature maps (channels, height, width) of each block; not negative.
        title: Title of the plot.
        path: PNG to write.
    """
    columns = 1 + len(maps)
    figure, grid = new_figure(2.5 * columns, 3.2, columns=columns)
    _show_face(grid[0], face)
    grid[0].set_title(f"face\n{len(face)} x {len(face)} pixels", fontsize=9)
    for block, (axes, each) in enumerate(zip(grid[1:], maps, strict=True), 1):
        shown = each[np.argsort(-each.mean(axis=(1, 2)), kind="stable")[:MAPS_SHOWN]]
        scale = _Scale("inferno", 0, max(float(shown.max()), 1e-9))
        axes.imshow(_tile(shown), **scale.options, interpolation="nearest")
        axes.set_axis_off()
        n, height, width = each.shape
        axes.set_title(f"conv{block}\n{len(shown)} of {n} maps, {height} x {width}", fontsize=9)
        bar = figure.colorbar(scale.mappable, ax=axes, location="bottom", fraction=0.05, pad=0.02)
        bar.ax.tick_params(labelsize=7)
    figure.suptitle(title, fontsize=10)
    save(figure, path, all_colours=True)


def emotion_page(mean: MeanMaps, code: int, title: str, path: Path) -> None:
    """The mean face of an emotion, with mean and standard deviation of its maps.

    Args:
        mean: Of at least one face.
        code: The emotion, a position in EMOTIONS.
        title: Title of the plot.
        path: PNG to write.
    """
    figure, grid = new_figure(8.6, 0.9 + 1.85 * len(mean.sums), rows=len(mean.sums), columns=4)
    average_face = mean.face / mean.n
    average_face -= average_face.min()  # a mean face has little contrast
    average_face *= 255 / max(average_face.max(), 1)
    for row, method in enumerate(mean.sums):
        face, average, over, spread = grid[4 * row : 4 * row + 4]
        values, deviation = mean.mean_and_std(method)
        scale = _scale(values)
        _show_face(face, average_face)
        _show_map(average, values, scale)
        _show_face(over, average_face)
        _show_overlay(over, values, scale)
        spreads = _Scale("cividis", 0, max(float(deviation.max()), 1e-9))
        _show_map(spread, deviation, spreads)
        face.set_ylabel(method, fontsize=10)
        for axes, shown in ((over, scale), (spread, spreads)):
            bar = figure.colorbar(shown.mappable, ax=axes, fraction=0.046, pad=0.03)
            bar.ax.tick_params(labelsize=7)
    titles = ("mean face", "mean map", "overlay", "standard deviation")
    for axes, name in zip(grid, titles, strict=False):
        axes.set_title(name, fontsize=9)
    figure.suptitle(
        f"{EMOTIONS[code]}: {mean.n:,} faces, {title}\neach map divided by its largest value",
        fontsize=10,
    )
    save(figure, path, all_colours=True)


def mistakes(
    pictures: Bytes, true: Ints, predicted: Ints, probs: Floats, maps: Floats, path: Path
) -> None:
    """Each picture beside its maps for the predicted and for the true emotion.

    Args:
        pictures: (N, S, S) uint8 grey.
        true: (N,) int64, positions in EMOTIONS.
        predicted: (N,) int64, positions in EMOTIONS.
        probs: (N, 8) in EMOTIONS order.
        maps: (N, 2, S, S) for the predicted and the true emotion; not negative.
        path: PNG to write.
    """
    rows = max(1, math.ceil(len(pictures) / MISTAKES_PER_ROW))
    size = (3.3 * MISTAKES_PER_ROW, 1.62 * rows)
    figure, grid = new_figure(*size, rows=rows, columns=MISTAKES_PER_ROW)
    for axes in grid:
        axes.set_axis_off()
        axes.set(xlim=(-0.04, 3.12), ylim=(1, -0.36), aspect="equal")
    for row, axes in enumerate(grid[: len(pictures)]):
        scale = _scale(maps[row])
        for column in range(3):
            left = 1.04 * column
            box: dict[str, Any] = {"extent": (left, left + 1, 1, 0), "interpolation": "bicubic"}
            axes.imshow(pictures[row], cmap="gray", vmin=0, vmax=255, **box)
            if column:
                code, values = (predicted, true)[column - 1][row], maps[row, column - 1]
                axes.imshow(values, **scale.options, alpha=_opacity(values, scale), **box)
                what = (
                    f"{('predicted', 'true')[column - 1]}\n{EMOTIONS[code]} {probs[row, code]:.0%}"
                )
                axes.text(left + 0.5, -0.04, what, ha="center", va="bottom", fontsize=8)
    save(figure, path)


def _scale(values: Floats | _Sum, *, at_least: float = 1e-9) -> _Scale:
    """The common scale of some maps: from 0, or around 0 if there are negative values."""
    largest = max(float(np.abs(values).max(initial=0)), at_least)
    if (values < 0).any():
        return _Scale("berlin", -largest, largest)
    return _Scale("inferno", 0, largest)


def _show_face(axes: Axes, face: Bytes | _Sum) -> None:
    axes.imshow(face, cmap="gray", vmin=0, vmax=255, interpolation="bicubic")
    _hide_axes(axes)


def _show_map(axes: Axes, values: Floats | _Sum, scale: _Scale) -> None:
    axes.imshow(values, **scale.options, interpolation="bicubic")
    _hide_axes(axes)


def _show_overlay(axes: Axes, values: Floats | _Sum, scale: _Scale) -> None:
    opacity = _opacity(values, scale)
    axes.imshow(values, **scale.options, alpha=opacity, interpolation="bicubic")


def _opacity(values: Floats | _Sum, scale: _Scale) -> Floats | _Sum:
    return OPACITY * np.sqrt(np.abs(values) / scale.high)


def _hide_axes(axes: Axes) -> None:
    """Show neither ticks nor a frame."""
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)


def _label_row(axes: Axes, code: int, score: str, *, bold: bool) -> None:
    """Write the emotion and its score, with its colour, to the left of a row."""
    weight = "bold" if bold else "normal"
    axes.set_ylabel(
        f"{EMOTIONS[code]}\n{score}",
        rotation=0,
        ha="right",
        va="center",
        fontsize=9,
        labelpad=16,
        fontweight=weight,
    )
    colour = tuple(part / 255 for part in COLOURS[EMOTIONS[code]])
    axes.add_patch(
        Rectangle(
            (-0.11, 0.25),
            0.06,
            0.5,
            facecolor=colour,
            edgecolor="none",
            transform=axes.transAxes,
            clip_on=False,
        )
    )


def _colour_bar(figure: Figure, grid: Sequence[Axes], scale: _Scale, unit: str) -> None:
    bar = figure.colorbar(scale.mappable, ax=list(grid), fraction=0.03, pad=0.03, aspect=40)
    bar.set_label(unit, fontsize=9)
    bar.ax.tick_params(labelsize=8)


def _tile(maps: Floats) -> Floats:
    """Maps (N, H, W) side by side in a square, with lines of NaN between them."""
    side = math.ceil(math.sqrt(len(maps)))
    padded = np.pad(maps, ((0, side * side - len(maps)), (0, 1), (0, 1)), constant_values=np.nan)
    _, height, width = padded.shape
    tiles = padded.reshape(side, side, height, width)
    return tiles.swapaxes(1, 2).reshape(side * height, side * width)[:-1, :-1]
