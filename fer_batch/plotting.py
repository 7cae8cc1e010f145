"""Figures, and how they are saved as small PNG files.

They are made with Matplotlib's objects and not with pyplot, which has global state.
Colours are those of Okabe & Ito (2008), which colour-blind readers can tell apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from PIL import Image

BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#8a8a8a"
DPI = 110


def new_figure(
    width_in: float,
    height_in: float,
    *,
    rows: int = 1,
    columns: int = 1,
    heights: Sequence[float] | None = None,
) -> tuple[Figure, list[Axes]]:
    """A figure with a grid of axes that do not overlap; the axes are listed row by row."""
    figure = Figure(
        figsize=(width_in, height_in),
        dpi=DPI,
        layout=ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.08),
    )
    grid = figure.subplots(rows, columns, squeeze=False, height_ratios=heights)
    for axes in grid.flat:
        axes.spines[["top", "right"]].set_visible(False)
    return figure, list(grid.flat)


def percent(share: float, _position: float) -> str:
    """Label of a tick that shows a share."""
    return f"{100 * share:g}%"


def save(figure: Figure, path: Path, *, all_colours: bool = False) -> None:
    """Write a PNG file with 256 colours, which is a third of the size, or with all colours."""
    content = BytesIO()
    figure.savefig(content)
    with Image.open(content) as opened:
        picture = opened.convert("RGB")
    picture = picture if all_colours else picture.quantize(256)
    small = BytesIO()
    picture.save(small, "PNG", optimize=True)
    path.write_bytes(small.getvalue())
