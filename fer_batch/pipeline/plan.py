"""Plan a run: compare the input files with the results that are already there. Loads no network."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from fer_batch.config import Config, result_hash
from fer_batch.errors import MediaError
from fer_batch.faces.detectors import check_crop, weights_sha256
from fer_batch.media import discovery
from fer_batch.media.decode.decord_decoder import find_decord
from fer_batch.models.card import Card, find_card
from fer_batch.records import MediaFile
from fer_batch.results import store


@dataclass(frozen=True, slots=True)
class Plan:
    """The work of one run."""

    todo: tuple[MediaFile, ...]
    """Files that are new or changed, or failed last time: still images first, then by path."""
    n_done: int
    """The number of files that need no work, as their rows are already there."""
    config: Config
    config_hash: str
    detector_sha256: str
    """SHA-256 of the detector's weight file; empty where it has none."""
    card: Card

    def without(self, media: Collection[str]) -> Plan:
        """The plan without the files of these names."""
        return replace(self, todo=tuple(file for file in self.todo if file.media not in media))


def make_plan(inputs: Sequence[Path], out: Path, config: Config, *, force: bool = False) -> Plan:
    """Find the files of a run, and which of them need work.

    Args:
        inputs: Files and folders, searched recursively.
        out: Output folder; it may be missing.
        config: The settings.
        force: Process files again that are already done.

    Raises:
        ConfigError: The classifier needs points and the detector gives none, or the configured
            decoder is not installed.
        MediaError: An input is missing or holds no media.
        StoreError: The output belongs to other files.
        WeightsError: The classifier's weights, their card or the detector's weights are missing.
    """
    files = discovery.find(inputs)
    if not files:
        raise MediaError(f"no videos or images in {', '.join(map(str, inputs))}", inputs[0])
    plan = plan_for(files, config)
    todo = files if force else store.pending(files, out, config_hash=plan.config_hash)
    return replace(
        plan,
        todo=tuple(sorted(todo, key=lambda file: (file.kind != "image", file.media))),
        n_done=len(files) - len(todo),
    )


def plan_for(files: Sequence[MediaFile], config: Config) -> Plan:
    """A plan to process all of these files.

    Raises:
        ConfigError: The classifier needs points and the detector gives none, or the configured
            decoder is not installed.
        WeightsError: The classifier's weights, their card or the detector's weights are missing.
    """
    find_decord(config.decode)
    card = find_card(config.classifier.weights)
    check_crop(card, config.detector)
    detector_sha256 = weights_sha256(config.detector)
    return Plan(
        todo=tuple(files),
        n_done=0,
        config=config,
        config_hash=result_hash(config, card.sha256, detector_sha256),
        detector_sha256=detector_sha256,
        card=card,
    )
