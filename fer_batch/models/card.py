"""Cards: what a classifier is and how faces must be prepared for it.

A weight file ``NAME.safetensors`` stands beside its card ``NAME.json``. Inference takes every
number (classes, size, mean, crop margin, temperature) from the card, so that it cannot drift from
training.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Protocol, TypeVar

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from fer_batch import plugins
from fer_batch.emotions import EMOTIONS
from fer_batch.errors import ConfigError, WeightsError

if TYPE_CHECKING:  # planning a run must not wait for torch
    import torch

WEIGHTS_DIR = Path(__file__).parents[1] / "weights"
DEFAULT_WEIGHTS = "ferplus-resnet-compact"


class FileCard(BaseModel):
    """What every card says of its weight file."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    name: str
    sha256: str = ""
    """Hash of the weight file. A run is done again when it changes."""


AnyCard = TypeVar("AnyCard", bound=FileCard)


class Card(FileCard):
    """What a classifier is, and how faces must be prepared for it."""

    classes: tuple[str, ...] = Field(min_length=2)
    """Emotions in the order of the classifier's outputs."""
    input_size_px: int = Field(gt=0)
    mean: tuple[float, ...] = Field(min_length=1)
    """Subtracted from the grey values in [0, 1], for each channel that the classifier takes."""
    std: tuple[Annotated[float, Field(gt=0)], ...] = Field(min_length=1)
    """The difference is divided by it, for each channel."""
    crop: Literal["box", "points"] = "box"
    """How faces are cut. box: the square around the box. points: rotated and scaled so that the
    five points lie as in ArcFace's 112x112 template (Deng et al., 2019)."""
    crop_margin: float = Field(gt=-0.5, le=1)
    """Added on each side of a face's square box, or of the template, as a fraction of its side."""


class ModelCard(Card):
    """The card of a weight file: also what its network is, and how it was made."""

    network: str
    """Name for `build_network`."""
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


class Predict(Protocol):
    """A loaded classifier; several threads may call it at once."""

    def __call__(self, crops: torch.Tensor) -> torch.Tensor:
        """Probabilities (M, classes) float32, in the order of the card's classes.

        Args:
            crops: (M, C, S, S) float32 on the device of the classifier, cut and normalised as its
                card says. M is not 0.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassifierSpec:
    """A classifier that another package brings."""

    card: Card
    create: Callable[[torch.device], Predict]
    """Called with the device; imports and loads the classifier only then."""


def find_classifier(name: str) -> ClassifierSpec | None:
    """The classifier that another package brings by this name, if any.

    Raises:
        ConfigError: It cannot be loaded.
        WeightsError: Its card names an unknown emotion.
    """
    if _shipped(name).is_file() or name not in plugins.names(plugins.CLASSIFIERS):
        return None
    spec = plugins.load(plugins.CLASSIFIERS, name)
    if not isinstance(spec, ClassifierSpec):
        raise ConfigError(f"classifier {name}: expected a ClassifierSpec, found {spec!r}")
    _check_classes(spec.card, name)
    return spec


def find_card(weights: str) -> Card:
    """The card of the classifier that a configuration means: see `config.Classifier.weights`.

    Raises:
        ConfigError: Another package brings it, and it cannot be loaded.
        WeightsError: There is no such classifier, or its card cannot be used.
    """
    spec = find_classifier(weights)
    return spec.card if spec else read_card(find_weights(weights))


def find_weights(weights: str) -> Path:
    """The weight file that a configuration means: ``default``, a shipped name, or a path.

    Raises:
        WeightsError: There is no such file.
    """
    shipped = _shipped(weights)
    path = shipped if shipped.is_file() else Path(weights)
    if path.suffix == ".safetensors" and path.is_file():
        return path
    brought = plugins.names(plugins.CLASSIFIERS)
    if weights in brought:
        raise WeightsError(
            f"{weights} is the classifier of another package, without a network that fer_batch "
            "knows: it can process files, but heatmaps, explanations and evaluation need a "
            ".safetensors file"
        )
    names = ["default", *sorted(file.stem for file in WEIGHTS_DIR.glob("*.safetensors")), *brought]
    raise WeightsError(
        f"no weights {weights!r}{plugins.did_you_mean(weights, names)}: give a .safetensors file "
        f"or one of {', '.join(names)}"
    )


def read_card(path: Path) -> ModelCard:
    """The card beside the weight file of a classifier.

    Raises:
        WeightsError: The card is missing or not valid, or names an unknown emotion.
    """
    card = read_card_as(ModelCard, path)
    _check_classes(card, str(path.with_suffix(".json")))
    return card


def read_card_as(kind: type[AnyCard], path: Path) -> AnyCard:
    """The card beside a weight file, as one of this kind.

    Raises:
        WeightsError: The card is missing or not valid.
    """
    card_path = path.with_suffix(".json")
    try:
        return kind.model_validate_json(card_path.read_bytes())
    except OSError as error:
        raise WeightsError(f"{path}: its card {card_path.name} cannot be read: {error}") from error
    except ValidationError as error:
        raise WeightsError(f"{card_path}: not a valid card: {error}") from error


def _shipped(name: str) -> Path:
    return WEIGHTS_DIR / f"{DEFAULT_WEIGHTS if name == 'default' else name}.safetensors"


def _check_classes(card: Card, where: str) -> None:
    unknown = sorted(set(card.classes) - set(EMOTIONS))
    if unknown:
        raise WeightsError(f"{where}: unknown emotions {unknown}; known are {list(EMOTIONS)}")
