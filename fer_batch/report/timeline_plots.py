"""Plots of what the faces of a video show over time, in the colours of its annotated copy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, MaxNLocator, MultipleLocator

from fer_batch.emotions import COLOURS, EMOTIONS
from fer_batch.plotting import DPI, GREY, new_figure, percent, save
from fer_batch.render.sprites import fit
from fer_batch.results.timeline import Binned

BINS = 960
"""About as many as the plot has columns of pixels."""
MOST_TICKS = 12

_WIDTH_IN, _HEIGHT_IN = 11.0, 4.6
_NO_FACE: dict[str, Any] = {"fc": "white", "ec": "#c8c8c8", "hatch": "////", "linewidth": 0}
"""Style of the time without a face."""
_TICKS_S = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400)


def timeline(binned: Binned, name: str, facts: str, path: Path) -> None:
    """Plot the emotions, stacked, and below them the number of faces per frame.

    Args:
        binned: What the faces show.
        name: Title; characters that the font does not have are replaced, and a long one loses its
            middle.
        facts: A line of text below the title.
        path: PNG to write.
    """
    figure, (above, below) = new_figure(_WIDTH_IN, _HEIGHT_IN, rows=2, heights=(3, 1))
    title = fit(name, 20, round(0.7 * _WIDTH_IN * DPI))  # not the title's 17 px: its font is wider
    above.set_title(title, loc="left", fontsize=11, fontweight="bold", pad=20, parse_math=False)
    above.text(0, 1.03, facts, transform=above.transAxes, fontsize=9, color="#555555")
    known = _stack(above, binned)
    handles = [Patch(color=_colour(code), label=EMOTIONS[code]) for code in reversed(known)]
    handles += [Patch(**_NO_FACE, label="no face")] if (binned.n_faces == 0).any() else []
    figure.legend(handles=handles, loc="outside right upper", frameon=False, fontsize=9)
    above.set_ylim(0, 1)
    above.yaxis.set_major_formatter(FuncFormatter(percent))
    above.set_ylabel("mean of all faces")
    above.tick_params(labelbottom=False)
    below.stairs(binned.n_faces, binned.edges_s, fill=True, color=GREY)
    below.set_ylim(0, max(1.0, 1.05 * float(np.nanmax(binned.n_faces))))
    below.yaxis.set_major_locator(MaxNLocator(3, integer=True, min_n_ticks=2))
    below.set_ylabel("faces")
    below.set_xlabel(f"time in the video, in steps of {np.diff(binned.edges_s[:2])[0]:.3g} s")
    for axes in (above, below):
        _set_time(axes, binned)
    save(figure, path)


def time_text(time_s: float, _position: float = 0) -> str:
    """A time as m:ss, or h:mm:ss, with a fraction where it has one."""
    tenths = round(10 * time_s)
    minutes, seconds = divmod(tenths // 10, 60)
    hours, minutes = divmod(minutes, 60)
    text = f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
    return f"{text}.{tenths % 10}" if tenths % 10 else text


def _stack(axes: Axes, binned: Binned) -> list[int]:
    """Draw the emotions; returns the positions in EMOTIONS of those that are known."""
    known: list[int] = np.flatnonzero(~np.isnan(binned.probs).all(axis=0)).tolist()
    tops = binned.probs[:, known].cumsum(axis=1)
    for column in reversed(range(len(known))):  # each from 0 up, so that there are no gaps
        colour = _colour(known[column])
        axes.stairs(tops[:, column], binned.edges_s, fill=True, color=colour, linewidth=0)
    empty = np.where(binned.n_faces == 0, 1.0, np.nan)
    axes.stairs(empty, binned.edges_s, fill=True, **_NO_FACE)
    return known


def _set_time(axes: Axes, binned: Binned) -> None:
    first_s, end_s = binned.edges_s[[0, -1]].tolist()
    step_s = next((step for step in _TICKS_S if (end_s - first_s) / step <= MOST_TICKS), None)
    axes.set_xlim(first_s, end_s)
    axes.xaxis.set_major_locator(MultipleLocator(step_s) if step_s else MaxNLocator(MOST_TICKS))
    axes.xaxis.set_major_formatter(FuncFormatter(time_text))


def _colour(code: int) -> str:
    return "#" + bytes(COLOURS[EMOTIONS[code]]).hex()
