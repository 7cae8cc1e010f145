"""Networks: names, sizes, shapes."""

import pytest
import torch

from fer_batch.networks import NETWORKS, build_network

PARAMETERS = {  # of the GiMeFive paper, at six classes
    "gimefive-13": 2_606_086,
    "gimefive-10": 10_474_118,
    "gimefive-15": 10_478_086,
    "gimefive-15-do": 10_478_086,
    "gimefive-16": 10_478_598,
    "gimefive-17": 41_950_726,
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_gimefive_has_the_published_number_of_parameters(name: str) -> None:
    network = build_network(name, 6)
    assert sum(p.numel() for p in network.parameters() if p.requires_grad) == PARAMETERS[name]


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("n_classes, size", [(6, 64), (8, 48)])
def test_crops_become_logits(name: str, n_classes: int, size: int) -> None:
    if name == "gimefive-17" and size == 48:
        pytest.skip("six poolings need 64 pixels")
    channels = 1 if name.startswith("resnet") else 3
    with torch.inference_mode():
        logits = build_network(name, n_classes).eval()(torch.zeros(2, channels, size, size))
    assert logits.shape == (2, n_classes)


def test_unknown_name_lists_the_known() -> None:
    with pytest.raises(ValueError, match=r"'vgg99'.*gimefive-15-do"):
        build_network("vgg99", 8)
