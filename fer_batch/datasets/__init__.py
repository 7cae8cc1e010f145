"""Labelled face pictures on disk -> the samples of one split, with emotions mapped by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from fer_batch.datasets.ckplus import ckplus
from fer_batch.datasets.fer import fer2013, ferplus
from fer_batch.datasets.folders import folders, table, tfeid
from fer_batch.datasets.rafdb import rafdb, rafdb_flat
from fer_batch.datasets.samples import SPLITS, DatasetError, Samples, Split
from fer_batch.errors import ConfigError

__all__ = ["READERS", "SPLITS", "DatasetError", "Samples", "Split", "read_samples"]

READERS: dict[str, Callable[[Path, Split], Samples]] = {
    "fer2013": fer2013,
    "ferplus": ferplus,
    "rafdb": rafdb,
    "rafdb-flat": rafdb_flat,
    "ckplus": ckplus,
    "tfeid": tfeid,
    "folders": folders,
    "csv": table,
}
"""Readers by the data set's name: each takes its root and a split."""


def read_samples(name: str, root: Path, split: Split) -> Samples:
    """The pictures of one split of a data set and what they show.

    Raises:
        ConfigError: There is no such data set.
        DatasetError: It does not have the layout or the labels that it should have.
    """
    if name not in READERS:
        raise ConfigError(f"no data set {name!r}; there are: {', '.join(READERS)}")
    return READERS[name](root, split)
