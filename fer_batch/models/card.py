"""Model cards: what a weight file is and how faces must be prepared for it.

A weight file ``NAME.safetensors`` stands beside its card ``NAME.json``. Inference takes every
number (classes, size, mean, crop margin, temperature) from the card, so that it cannot drift from
training.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from fer_batch.emotions import EMOTIONS
from fer_batch.errors import WeightsError

WEIGHTS_DIR = Path(__file__).parents[1] / "weights"
DEFAULT_WEIGHTS = "ferplus-resnet-compact"


class ModelCard(BaseModel):
    """What one weight file is, how it was made, and how faces must be prepared for it."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    name: str
    network: str
    """Name for `build_network`."""
    classes: tuple[str, ...] = Field(min_length=2)
    """Emotions in the order of the network's outputs."""
    input_size_px: int = Field(gt=0)
    mean: tuple[float, ...] = Field(min_length=1)
    """Taken from the grey values in [0, 1], for each channel that the network takes."""
    std: tuple[Annotated[float, Field(gt=0)], ...] = Field(min_length=1)
    """What the rest is divided by, for each channel."""
    crop: Literal["box", "points"] = "box"
    """How faces were cut for training. box: the square around the box. points: turned and scaled
    so that the five points lie as in ArcFace's 112x112 template (Deng et al., 2019)."""
    crop_margin: float = Field(gt=-0.5, le=1)
    """Added on each side of a face's square box, or of the template, as a fraction of its side."""
    temperature: float = Field(gt=0)
    """Logits are divided by it before the softmax (Guo et al., 2017)."""
    trained_on: str
    n_train: int
    n_train_dropped: dict[str, int]
    """Training pictures left out, by reason."""
    metrics: dict[str, float]
    """By metric and split; accuracies are fractions in [0, 1]."""
    licence: str
    recipe: dict[str, JsonValue]
    """What `fer-batch train` was told to make the file: a `TrainConfig`."""
    sha256: str = ""
    """Of the weight file."""


def find_weights(weights: str) -> Path:
    """The weight file that a configuration means: ``default``, a shipped name, or a path.

    Raises:
        WeightsError: There is no such file.
    """
    shipped = WEIGHTS_DIR / f"{DEFAULT_WEIGHTS if weights == 'default' else weights}.safetensors"
    path = shipped if shipped.is_file() else Path(weights)
    if path.suffix != ".safetensors" or not path.is_file():
        names = ", ".join(
            ["default", *sorted(file.stem for file in WEIGHTS_DIR.glob("*.safetensors"))]
        )
        raise WeightsError(f"no weights {weights!r}: give a .safetensors file or one of {names}")
    return path


def read_card(path: Path) -> ModelCard:
    """The card beside a weight file.

    Raises:
        WeightsError: The card is missing or not valid, or names an unknown emotion.
    """
    card_path = path.with_suffix(".json")
    try:
        card = ModelCard.model_validate_json(card_path.read_bytes())
    except OSError as error:
        raise WeightsError(f"{path}: its card {card_path.name} cannot be read: {error}") from error
    except ValidationError as error:
        raise WeightsError(f"{card_path}: not a valid card: {error}") from error
    unknown = sorted(set(card.classes) - set(EMOTIONS))
    if unknown:
        raise WeightsError(f"{card_path}: unknown emotions {unknown}; known are {list(EMOTIONS)}")
    return card
