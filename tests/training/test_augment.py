"""Training transforms: named, switchable, within bounds, the same with the same seed."""

import pytest
import torch

from fer_batch.training.augment import Augment, augment


def off(**changes: float) -> Augment:
    names = Augment.model_fields
    return Augment.model_validate(dict.fromkeys(names, 0) | changes)


def pictures(n: int = 64) -> torch.Tensor:
    return torch.rand(n, 1, 24, 24, generator=torch.Generator().manual_seed(0))


def test_augmentation_that_is_off_changes_nothing() -> None:
    result = augment(pictures(), off(), torch.Generator().manual_seed(0))
    torch.testing.assert_close(result, pictures(), atol=1e-5, rtol=0)


def test_flip_mirrors_its_share() -> None:
    before = pictures(400)
    after = augment(before, off(flip=0.25), torch.Generator().manual_seed(0))
    mirrored = (after - before.flip(-1)).abs().amax((1, 2, 3)) < 1e-4
    same = (after - before).abs().amax((1, 2, 3)) < 1e-4
    assert (mirrored ^ same).all()
    assert mirrored.float().mean().item() == pytest.approx(0.25, abs=0.07)


@pytest.mark.parametrize(
    "change",
    [{"rotate_deg": 30}, {"scale": 0.3}, {"shift": 0.2}, {"brightness": 0.5}, {"contrast": 0.5}],
)
def test_each_change_changes_within_bounds(change: dict[str, float]) -> None:
    before = pictures()
    after = augment(before, off(**change), torch.Generator().manual_seed(0))
    assert after.shape == before.shape
    assert 0 <= after.min() <= after.max() <= 1
    assert ((after - before).abs().mean((1, 2, 3)) > 1e-3).float().mean() > 0.9


def test_erasing_paints_rectangles_on_its_share() -> None:
    before = pictures(400)
    after = augment(before, off(erase=0.5), torch.Generator().manual_seed(0))
    changed = ((after - before).abs() > 1e-4).float().mean((1, 2, 3))
    assert (changed > 0).float().mean().item() == pytest.approx(0.5, abs=0.08)
    assert changed.max() < 0.3
