"""Weight files and cards: round trip, tampering, and the classifier that uses them."""

from pathlib import Path

import numpy as np
import pytest
import torch

from fer_batch.emotions import EMOTIONS, LABEL_SETS
from fer_batch.errors import ConfigError, WeightsError
from fer_batch.models import weights
from fer_batch.models.card import find_weights, read_card
from fer_batch.models.classifier import Classifier
from fer_batch.models.networks import build_network
from tests.support.cards import make_weights, room_for

CPU = torch.device("cpu")


def classifier(path: Path, *, batch_size: int = 64, flip: bool = False) -> Classifier:
    return Classifier(path, CPU, batch_size=batch_size, flip=flip)


@pytest.fixture
def crops() -> torch.Tensor:
    return torch.randn(10, 1, 48, 48, generator=torch.Generator().manual_seed(1))


def test_face_has_the_same_probabilities_in_any_batch(tmp_path: Path) -> None:
    crops = torch.randn(21, 1, 48, 48, generator=torch.Generator().manual_seed(1))
    ours = classifier(make_weights(tmp_path), flip=True)
    expected = ours(crops)
    for size in (1, 3, 7, 8, 9):
        parts = [ours(part) for part in crops.split(size)]
        np.testing.assert_array_equal(np.concatenate(parts), expected)
    np.testing.assert_array_equal(ours(crops.flip(0)), expected[::-1])


def test_short_memory_makes_smaller_batches_with_the_same_result(
    tmp_path: Path, crops: torch.Tensor
) -> None:
    ours = classifier(make_weights(tmp_path))
    expected = ours(crops)
    for n_faces in (3, 1):
        with room_for(n_faces):
            np.testing.assert_allclose(ours(crops), expected, atol=1e-5)
    with room_for(0), pytest.raises(ConfigError, match="memory for one face"):
        ours(crops)


def test_what_is_saved_is_loaded_to_half_precision(tmp_path: Path, crops: torch.Tensor) -> None:
    path = make_weights(tmp_path)
    torch.manual_seed(0)
    original = build_network("resnet-compact", 8).eval()
    network, card = weights.load(path, CPU)
    with torch.inference_mode():
        torch.testing.assert_close(network(crops), original(crops), atol=5e-3, rtol=0)
    assert card == read_card(path)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["tiny.json", "tiny.safetensors"]


def test_altered_file_is_refused(tmp_path: Path) -> None:
    path = make_weights(tmp_path)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(WeightsError, match="altered or cut"):
        weights.load(path, CPU)


def test_card_of_another_network_is_refused(tmp_path: Path) -> None:
    path = make_weights(tmp_path)
    card = read_card(path).model_copy(update={"network": "gimefive-13"})
    path.with_suffix(".json").write_text(card.model_dump_json())
    with pytest.raises(WeightsError, match="does not hold a gimefive-13"):
        weights.load(path, CPU)


@pytest.mark.parametrize("text", ["", "{}", "[1]", "nonsense"])
def test_broken_card_is_refused(tmp_path: Path, text: str) -> None:
    path = make_weights(tmp_path)
    path.with_suffix(".json").write_text(text)
    with pytest.raises(WeightsError, match="not a valid card"):
        read_card(path)


def test_unknown_emotion_is_refused(tmp_path: Path) -> None:
    path = make_weights(tmp_path, classes=("happiness", "joy"))
    with pytest.raises(WeightsError, match="joy"):
        read_card(path)


@pytest.mark.parametrize("name", ["nothing", "README.md", "/", ""])
def test_weights_that_are_not_there(name: str) -> None:
    with pytest.raises(WeightsError, match="default"):
        find_weights(name)


def test_default_weights_are_what_their_card_says() -> None:
    path = find_weights("default")
    _, card = weights.load(path, CPU)
    assert path.stat().st_size <= 12_000_000
    assert card.classes == EMOTIONS
    assert card.metrics["test_n"] == 3152  # PrivateTest by FER+'s majority protocol
    assert card.metrics["test_accuracy"] >= 0.85


@pytest.mark.parametrize("label_set", LABEL_SETS)
def test_probabilities_stand_in_the_order_of_emotions(
    tmp_path: Path, crops: torch.Tensor, label_set: str
) -> None:
    classes = LABEL_SETS[label_set]
    probs = classifier(make_weights(tmp_path / "a", classes=classes))(crops)
    assert probs.dtype == np.float32
    assert probs.shape == (10, 8)
    np.testing.assert_allclose(np.nansum(probs, axis=1), 1, atol=1e-5)
    assert np.isnan(probs).all(axis=0).tolist() == [name not in classes for name in EMOTIONS]

    backwards = classifier(make_weights(tmp_path / "b", classes=classes[::-1]))(crops)
    order = [EMOTIONS.index(name) for name in classes]
    np.testing.assert_allclose(backwards[:, order[::-1]], probs[:, order], atol=1e-6)


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_batches_do_not_change_probabilities(
    tmp_path: Path, crops: torch.Tensor, batch_size: int
) -> None:
    path = make_weights(tmp_path)
    expected = np.concatenate([classifier(path)(crop[None]) for crop in crops])
    np.testing.assert_allclose(classifier(path, batch_size=batch_size)(crops), expected, atol=1e-5)


def test_flip_makes_mirror_images_equal(tmp_path: Path, crops: torch.Tensor) -> None:
    flipping = classifier(make_weights(tmp_path), flip=True)
    np.testing.assert_allclose(flipping(crops), flipping(crops.flip(-1)), atol=1e-5)


def test_temperature_softens(tmp_path: Path, crops: torch.Tensor) -> None:
    sharp = classifier(make_weights(tmp_path / "a", temperature=0.1))(crops)
    soft = classifier(make_weights(tmp_path / "b", temperature=10))(crops)
    assert (sharp.max(axis=1) > soft.max(axis=1)).all()


def test_no_faces_no_probabilities(tmp_path: Path) -> None:
    assert classifier(make_weights(tmp_path))(torch.empty(0, 1, 48, 48)).shape == (0, 8)
