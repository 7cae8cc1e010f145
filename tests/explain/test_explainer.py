"""Maps of what speaks for an emotion: one by one and in batches, on every network."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from fer_batch.emotions import EMOTIONS
from fer_batch.errors import ConfigError
from fer_batch.explain.explainer import METHODS, Explainer, Method, patches
from fer_batch.models import weights
from fer_batch.models.networks import NETWORKS, find_network
from tests.support import cards

CPU = torch.device("cpu")
SIX = EMOTIONS[:6]
LOOK_INSIDE: tuple[Method, ...] = ("gradcam", "gradcam++", "saliency")
"""Methods whose maps depend on the layers inside a network."""
SMALL_PX = 32
"""Side of crops that is fast on every network."""


def explainer(
    folder: Path,
    network: str = "resnet-compact",
    *,
    input_size_px: int | None = None,
    batch_size: int = 64,
) -> Explainer:
    spec = find_network(network)
    path = cards.make_weights(
        folder,
        network=network,
        classes=SIX,
        input_size_px=input_size_px or spec.input_size_px,
        mean=(0.5,) * spec.in_channels,
        std=(0.25,) * spec.in_channels,
    )
    return Explainer(path, CPU, batch_size=batch_size)


def crops_for(explainer: Explainer, n: int) -> torch.Tensor:
    side = explainer.card.input_size_px
    grey = torch.rand(n, 1, side, side, generator=torch.manual_seed(1)) * 4 - 2
    return grey.expand(-1, len(explainer.card.mean), -1, -1)


@pytest.mark.parametrize(
    "network, method",
    [
        *((network, method) for network in ("resnet-compact", "gimefive-13") for method in METHODS),
        *(("resnet18", method) for method in LOOK_INSIDE),
    ],
)
def test_batch_gives_what_its_faces_give_one_by_one(
    tmp_path: Path, network: str, method: Method
) -> None:
    batched = explainer(tmp_path, network, input_size_px=SMALL_PX, batch_size=2)
    crops, emotion = crops_for(batched, 3), np.array([0, 4, 5])
    together = batched.maps(crops, emotion, method)
    assert together.shape == (3, *crops.shape[2:])
    assert together.dtype == np.float32
    for row, one in enumerate(together):
        [alone] = batched.maps(crops[[row]], emotion[[row]], method)
        np.testing.assert_allclose(one, alone, rtol=1e-3, atol=1e-4 * np.abs(alone).max())
    assert np.ptp(together, axis=0).max() > 0, "each face has its own"


@pytest.mark.parametrize("network", NETWORKS)
def test_layers_are_where_each_resolution_ends(tmp_path: Path, network: str) -> None:
    one = explainer(tmp_path, network)
    maps = one.activations(crops_for(one, 1))
    sizes = [each.shape[2] for each in maps]
    assert sizes == sorted(set(sizes), reverse=True)
    assert sizes[-1] == {"vgg16": 16, "resnet-compact": 6, "gimefive-13": 8, "gimefive-17": 2}.get(
        network, 4
    )
    for each in maps:
        assert each.min() == 0, "after the rectifier"
        assert each.max() > 0


@pytest.mark.parametrize("network", ["resnet-compact", "gimefive-13", "resnet18"])
@pytest.mark.parametrize("method", LOOK_INSIDE)
def test_maps_do_not_depend_on_what_works_in_place(
    tmp_path: Path, network: str, method: Method, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = explainer(tmp_path, network, input_size_px=SMALL_PX)
    crops, emotion = crops_for(one, 2), np.array([1, 2])
    in_place = one.maps(crops, emotion, method)
    load = weights.load

    def load_without(path: Path, device: torch.device):
        loaded, card = load(path, device)
        for module in loaded.modules():
            if isinstance(module, nn.ReLU):
                module.inplace = False
        return loaded, card

    monkeypatch.setattr(weights, "load", load_without)
    apart = Explainer(tmp_path / "tiny.safetensors", CPU).maps(crops, emotion, method)
    np.testing.assert_allclose(in_place, apart, atol=1e-5 * np.abs(apart).max())


def test_gradcam_weighs_feature_maps_by_their_mean_gradient(tmp_path: Path) -> None:
    """The last layer of resnet-compact is followed by a mean and a linear layer alone."""
    one = explainer(tmp_path)
    crops, code = crops_for(one, 1), 3
    network, _ = weights.load(tmp_path / "tiny.safetensors", CPU)
    weight = network.get_submodule("head")[3].weight[code].detach()
    maps = torch.from_numpy(one.activations(crops)[-1])
    expected = (weight[:, None, None] * maps[0]).sum(dim=0).relu() / maps[0, 0].numel()
    small = expected[None, None]
    enlarged = nn.functional.interpolate(small, (48, 48), mode="bilinear", align_corners=False)
    found = one.maps(crops, np.array([code]), "gradcam")[0]
    np.testing.assert_allclose(found, enlarged[0, 0], atol=1e-5 * float(expected.max()))


def test_integrated_gradients_share_out_the_whole_difference(tmp_path: Path) -> None:
    one = explainer(tmp_path)
    crops, emotion = crops_for(one, 2), np.array([0, 3])
    difference = one.scores(crops, emotion) - one.scores(torch.zeros_like(crops), emotion)
    shares = one.maps(crops, emotion, "integrated-gradients").sum(axis=(1, 2))
    np.testing.assert_allclose(shares, difference, rtol=0.05)


def test_occlusion_is_the_mean_fall_under_the_patches_of_a_pixel(tmp_path: Path) -> None:
    one = explainer(tmp_path)
    crops, emotion = crops_for(one, 2), np.array([2, 5])
    window, starts = patches(48)
    fall = one.scores(crops, emotion)[:, None, None] - one.covered_scores(crops, emotion)
    total, n = np.zeros((2, 48, 48)), np.zeros((48, 48))
    for row, column in np.ndindex(*fall.shape[1:]):
        place = np.s_[starts[row] : starts[row] + window, starts[column] : starts[column] + window]
        total[:, *place] += fall[:, row, column, None, None]
        n[place] += 1
    assert n.min() > 0
    maps = one.maps(crops, emotion, "occlusion")
    np.testing.assert_allclose(maps, total / n, atol=1e-5)


def test_randomised_network_is_another_one_and_the_same_each_time(tmp_path: Path) -> None:
    one = explainer(tmp_path)
    crops, emotion = crops_for(one, 1), np.array([0])
    first, again = (one.randomised(seed=7).maps(crops, emotion, "gradcam++") for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - one.maps(crops, emotion, "gradcam++")).max() > 0


@pytest.mark.parametrize("method", METHODS)
def test_no_faces(tmp_path: Path, method: Method) -> None:
    one = explainer(tmp_path)
    assert one.maps(crops_for(one, 0), np.empty(0, np.int64), method).shape == (0, 48, 48)


def test_unknown_emotion_names_the_known(tmp_path: Path) -> None:
    one = explainer(tmp_path)
    with pytest.raises(ConfigError, match=r"tiny does not know contempt, only happiness, .*fear"):
        one.maps(crops_for(one, 1), np.array([EMOTIONS.index("contempt")]), "gradcam")
