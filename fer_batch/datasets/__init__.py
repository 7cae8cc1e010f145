"""Labelled face pictures on disk, with emotions mapped by name."""

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
"""Readers by the name of the data set: each takes its root folder and a split."""


def read_samples(
    dataset: str, root: Path, split: Split, *, allow_missing_classes: bool = False
) -> Samples:
    """Read the labels of one split of a data set.

    Args:
        dataset: Name of a reader.
        root: Folder of the data set.
        split: Split to read.
        allow_missing_classes: Accept a split that has no picture of one of its emotions.

    Raises:
        ConfigError: There is no such data set.
        DatasetError: The layout or a label is not as expected.
    """
    if dataset not in READERS:
        raise ConfigError(f"no data set {dataset!r}; there are: {', '.join(READERS)}")
    samples = READERS[dataset](root, split)
    if samples.missing_classes and not allow_missing_classes:
        raise DatasetError("; ".join(samples.missing_classes))
    return samples
