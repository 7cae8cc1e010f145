"""The log of a training: ``metrics.csv`` and TensorBoard events."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import pandas as pd
from torch.utils.tensorboard import SummaryWriter

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


@dataclass(frozen=True, slots=True)
class Epoch:
    """Results of one epoch of training."""

    epoch: int
    """1-based."""
    train_loss: float
    valid_loss: float
    """Cross-entropy, in nats."""
    valid_accuracy: float
    """Fraction in [0, 1]."""
    learning_rate: float
    """Learning rate after the epoch."""
    seconds: float


def as_table(history: Sequence[DataclassInstance]) -> pd.DataFrame:
    """One row for each result of a training, such as an `Epoch`, with a column for each field."""
    return pd.DataFrame([asdict(result) for result in history])


class TrainingLog:
    """Writes the results of a training to ``metrics.csv`` and to ``tensorboard/``.

    Args:
        out: Folder for both.
        n_before: Epochs or steps that are already done; TensorBoard hides events of an earlier
            attempt that come after them.
    """

    def __init__(self, out: Path, n_before: int) -> None:
        self._table = out / "metrics.csv"
        self._board = SummaryWriter(str(out / "tensorboard"), purge_step=n_before + 1)

    def __enter__(self) -> TrainingLog:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._board.close()

    def write(self, history: Sequence[DataclassInstance]) -> None:
        """Add the last result of the history; its first field is its number."""
        as_table(history).to_csv(self._table, index=False)
        (_, number), *values = asdict(history[-1]).items()
        for name, value in values:
            self._board.add_scalar(name.replace("_", "/", 1), value, number)
        self._board.flush()
