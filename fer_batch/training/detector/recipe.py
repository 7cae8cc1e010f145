"""Recipes: how to train a detector, as settings read from YAML."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import Field, model_validator

from fer_batch.datasets.face_boxes import PictureKind
from fer_batch.settings import Settings, find_shipped, merge, validate

Share = Annotated[float, Field(gt=0)]


class Phase(Settings):
    """A stretch of the training."""

    steps: int = Field(ge=1)
    """Number of training steps."""
    crop_px: int = Field(ge=64, le=1280)
    """Side of the square crops."""
    batch_size: int = Field(ge=2)
    """Crops per step."""


class Geometry(Settings):
    """How crops are cut out of pictures."""

    kinds: dict[PictureKind, Share] = Field(
        {"scene": 0.65, "portrait": 0.2, "background": 0.15}, min_length=1
    )
    """Share of each kind of picture."""
    grids: dict[Annotated[int, Field(ge=1, le=8)], Share] = Field(
        {1: 0.65, 2: 0.25, 3: 0.1}, min_length=1
    )
    """A crop is a grid of N x N parts, each from another picture: the share of each N."""
    face_px: tuple[float, float] = (8, 300)
    """Smallest and largest side of a face around which a part is cut, in pixels of the crop."""
    follow_face: float = Field(0.75, ge=0, le=1)
    """Share of the parts that are cut around a face, where there is one."""
    on_background: float = Field(0.4, ge=0, le=1)
    """Share of the parts in which a picture without faces goes on where the picture ends; in the
    others it is one colour."""
    tilt_deg: float = Field(40, ge=0, le=180)
    """Largest rotation to either side."""
    tilted: float = Field(0.35, ge=0, le=1)
    """Share of the parts that are rotated."""

    @model_validator(mode="after")
    def _check(self) -> Geometry:
        smallest, largest = self.face_px
        if not 0 < smallest < largest:
            raise ValueError(f"face_px ({smallest}, {largest}) must be two rising numbers")
        return self


class Colour(Settings):
    """How the pixels of crops are changed: the share of crops with each change."""

    light: float = Field(0.7, ge=0, le=1)
    """Brightness, contrast and colour cast."""
    dark: float = Field(0.1, ge=0, le=1)
    """As dark as 10 to 40 %."""
    grey: float = Field(0.15, ge=0, le=1)
    sepia: float = Field(0.05, ge=0, le=1)
    blur: float = Field(0.15, ge=0, le=1)
    """Out of focus, or moved."""
    coarse: float = Field(0.1, ge=0, le=1)
    """Shrunk and enlarged again."""
    noise: float = Field(0.15, ge=0, le=1)
    jpeg: float = Field(0.25, ge=0, le=1)
    """Compressed with a quality of 15 to 80."""


class DetectorRecipe(Settings):
    """How to train one detector."""

    name: str = Field(pattern=r"^[\w.-]+$")
    """Name of the weight file."""
    phases: tuple[Phase, ...] = Field(min_length=1)
    """One after the other; the learning rate falls over all of them together."""
    learning_rate: float = Field(2e-3, gt=0)
    """Highest learning rate; it falls along a cosine to a twentieth (Loshchilov & Hutter, 2017)."""
    warm_up_steps: int = Field(100, ge=0)
    """Steps over which the learning rate rises."""
    weight_decay: float = Field(1e-3, ge=0)
    ema_decay: float = Field(0.998, ge=0, lt=1)
    """Decay of the moving average of the weights that is validated and saved."""
    box_weight: float = Field(2.0, ge=0)
    """Weight of the boxes in the loss."""
    points_weight: float = Field(0.5, ge=0)
    """Weight of the points in the loss."""
    geometry: Geometry = Geometry()
    colour: Colour = Colour()
    validate_every: int = Field(500, ge=1)
    """Steps between two validations, each with a checkpoint."""
    seed: int = 0
    """Seed of all random numbers."""
    trained_on: str
    """Written to the card: what the pictures are, where their faces come from, what they lack."""
    licence: str = "unknown"
    """Written to the card."""

    @property
    def n_steps(self) -> int:
        """Steps of all phases."""
        return sum(phase.steps for phase in self.phases)


def load_recipe(path: Path, overrides: Sequence[str] = ()) -> DetectorRecipe:
    """Read a recipe, and replace values by those of ``key=value`` overrides.

    Args:
        path: YAML file, or the bare name of a recipe that comes with fer_batch.
        overrides: Settings that replace those of the file.

    Raises:
        ConfigError: The file cannot be read, or a key or value is wrong; every problem is named.
    """
    path = find_shipped(path, "train-detector")
    return validate(DetectorRecipe, merge({}, path=path, overrides=overrides))
