"""Devices by name."""

import pytest
import torch

from fer_batch.errors import ConfigError
from fer_batch.models.devices import pick_device, pick_devices


def test_device_that_is_not_there_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    for name in ("cuda:99", "mps"):
        with pytest.raises(ConfigError, match=f"{name} is not there"):
            pick_device(name)


@pytest.mark.parametrize("name", ["tpu", "gpu 0", "meta", ""])
def test_what_is_not_a_device_is_an_error(name: str) -> None:
    with pytest.raises(ConfigError, match=r"--device take auto, cpu, cuda, cuda:N or mps"):
        pick_device(name)


def test_gpu_of_a_mac(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert pick_device("mps").type == "mps"
    assert [device.type for device in pick_devices("mps, cpu")] == ["mps", "cpu"]
    with pytest.raises(ConfigError, match="mps:1 is not there"):
        pick_device("mps:1")
