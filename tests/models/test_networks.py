"""Networks: names, sizes, shapes, what they cost."""

import pytest
import torch

from fer_batch.errors import ConfigError
from fer_batch.models.networks import NETWORKS, build_network, describe

PARAMETERS = {  # of the GiMeFive paper, at six classes
    "gimefive-13": 2_606_086,
    "gimefive-10": 10_474_118,
    "gimefive-15": 10_478_086,
    "gimefive-15-do": 10_478_086,
    "gimefive-16": 10_478_598,
    "gimefive-17": 41_950_726,
    "resnet18": 11_179_590,
    "resnet34": 21_287_750,
    "vgg16": 72_460_742,
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_network_has_the_published_number_of_parameters(name: str) -> None:
    assert describe(name, 6).parameters == PARAMETERS[name]


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("n_classes", [6, 8])
def test_crops_become_logits(name: str, n_classes: int) -> None:
    facts = describe(name, n_classes)
    crops = torch.zeros(2, facts.in_channels, facts.input_size_px, facts.input_size_px)
    with torch.inference_mode():
        logits = build_network(name, n_classes).eval()(crops)
    assert logits.shape == (2, n_classes)


def test_costs_are_those_of_the_layers() -> None:
    facts = describe("gimefive-13", 6)
    convolutions = sum(
        9 * before * after * side * side
        for before, after, side in [(3, 64, 64), (64, 128, 32), (128, 256, 16), (256, 512, 8)]
    )
    assert facts.macs == convolutions + 512 * 1024 + 1024 * 512 + 512 * 6
    assert facts.file_mb == pytest.approx(2 * facts.parameters / 1e6, rel=0.01)


def test_dropout_of_the_head_can_be_chosen() -> None:
    network = build_network("gimefive-15", 6, dropout=0.2)
    rates = [layer.p for layer in network.modules() if isinstance(layer, torch.nn.Dropout)]
    assert rates == [0.2]


def test_unknown_name_lists_the_known() -> None:
    with pytest.raises(ConfigError, match=r"'vgg99'.*gimefive-15-do"):
        build_network("vgg99", 8)
