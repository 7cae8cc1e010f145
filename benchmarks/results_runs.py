"""The trainings for docs/results.md, and where their records are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fer_batch.models.card import DEFAULT_WEIGHTS
from fer_batch.models.networks import NETWORKS

ROOT = Path(__file__).parents[1]
RECORDS = ROOT / "docs" / "results"
OURS = "resnet-compact"
SIX = "fer2013-six"
SEVEN = "fer2013-seven"
WITH_COPIES = f"{DEFAULT_WEIGHTS}-with-copies"
TABLE4 = "table4"
BATCH = 64
CUDA_BATCH = 4096
ROUNDS = 7
"""Number of rounds, each of which times every network once."""


@dataclass(frozen=True)
class Run:
    """One model to train."""

    name: str
    recipe: str
    dataset: str
    overrides: tuple[str, ...] = ()


def six_name(network: str, *, augmented: bool = True) -> str:
    """The run of a network on six classes."""
    return f"{SIX}-{network}" if augmented else f"{SIX}-{network}-plain"


def _six(network: str, *, augmented: bool) -> Run:
    overrides = [f"network={network}"]
    if network == OURS:  # as for the default weights
        overrides += ["optimizer=sgd", "learning_rate=0.1"]
    if not augmented:
        overrides += ["augment=null"]
    return Run(six_name(network, augmented=augmented), SIX, "fer2013", tuple(overrides))


RUNS = [
    Run(DEFAULT_WEIGHTS, DEFAULT_WEIGHTS, "ferplus"),
    Run(WITH_COPIES, DEFAULT_WEIGHTS, "ferplus", ("drop_duplicates=false",)),
    Run(SEVEN, SEVEN, "fer2013"),
    *(_six(network, augmented=augmented) for augmented in (True, False) for network in NETWORKS),
]
