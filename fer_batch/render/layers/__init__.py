"""All layers of an annotated frame, in the order in which they are drawn.

A new layer is a class in a module of this package, a line in `LAYERS`, and a switch in
`fer_batch.config.Render`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from fer_batch.config import LayerName
from fer_batch.render.canvas import Layer
from fer_batch.render.content import Need, Setup
from fer_batch.render.layers.bars import Legend, Panels, StackedBars
from fer_batch.render.layers.boxes import Boxes
from fer_batch.render.layers.clock import Clock
from fer_batch.render.layers.heatmap import Heatmap
from fer_batch.render.layers.hidden_faces import HiddenFaces
from fer_batch.render.layers.labels import Labels
from fer_batch.render.layers.points import Points
from fer_batch.render.layers.side_by_side import SideBySide
from fer_batch.render.layers.strip import Strip


@dataclass(frozen=True, slots=True)
class Entry:
    """A layer, and when it is drawn."""

    layer: Callable[[Setup], Layer]
    switches: tuple[LayerName, ...]
    """Its names in the configuration; one of them that is on is enough."""
    needs: frozenset[Need] = frozenset()
    """What must be known of the file."""
    is_face_by_face: bool = False
    """Whether it is drawn with its neighbours in the list for one face after the other, so that a
    face in front covers those behind it as a whole."""


LAYERS = (
    Entry(HiddenFaces, ("blur",)),
    Entry(SideBySide, ("side_by_side",)),
    Entry(Heatmap, ("heatmap",)),
    Entry(Boxes, ("boxes",), is_face_by_face=True),
    Entry(Points, ("points",), is_face_by_face=True),
    Entry(StackedBars, ("bars",), frozenset({"emotions"}), is_face_by_face=True),
    Entry(Strip, ("strip",), frozenset({"emotions", "emotions over time"})),
    # From here on a layer keeps clear of those before it: see `Canvas.taken`.
    Entry(Clock, ("clock",), frozenset({"time"})),
    Entry(Legend, ("bars",), frozenset({"emotions"})),
    Entry(Labels, ("labels", "ids")),
    Entry(Panels, ("bars",), frozenset({"emotions"})),
)


def entries_for(setup: Setup) -> list[Entry]:
    """The layers that are drawn on the frames of a file."""
    return [
        entry
        for entry in LAYERS
        if any(map(setup.settings.shows, entry.switches)) and all(map(setup.has, entry.needs))
    ]
