"""Fixtures of the tests of training."""

import pytest

from tests.support.bars import make_training_quick


@pytest.fixture(autouse=True)
def _quick_training(monkeypatch: pytest.MonkeyPatch, one_thread: None) -> None:
    make_training_quick(monkeypatch)
