"""What a run has to do: discovery against what the output already holds. Loads no network."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from fer_batch import media, store
from fer_batch.card import ModelCard, find_weights, read_card
from fer_batch.config import Config, result_hash
from fer_batch.detectors import weights_sha256
from fer_batch.schema import ConfigError, MediaError, MediaFile


@dataclass(frozen=True, slots=True)
class Plan:
    """The work of one run."""

    todo: tuple[MediaFile, ...]
    """Files that are new, changed, or failed last time; still images first, then by path."""
    n_done: int
    """Files found whose rows are already there."""
    config: Config
    config_hash: str
    detector_sha256: str
    """Of the detector's weight file; empty where it has none."""
    weights: Path
    card: ModelCard


def make_plan(
    inputs: Sequence[Path],
    out: Path,
    config: Config,
    *,
    force: bool = False,
    only: Collection[str] | None = None,
) -> Plan:
    """Find the files of a run and tell which still need work.

    Args:
        inputs: Files and folders, searched recursively.
        out: Output folder; it need not exist.
        config: What to do with the files.
        force: Also the files that are done.
        only: Names (relative POSIX paths) to keep; None keeps all.

    Raises:
        MediaError: An input is missing or holds no media.
        ConfigError: A name in `only` was not found.
        StoreError: The output belongs to other files.
        WeightsError: The classifier's weights or their card are missing.
    """
    files = media.find(inputs)
    if not files:
        raise MediaError(f"no videos or images in {', '.join(map(str, inputs))}", inputs[0])
    if only is not None:
        absent = sorted(set(only) - {file.media for file in files})
        if absent:
            raise ConfigError(
                f"{len(absent)} listed files were not found, the first is {absent[0]}"
            )
        files = [file for file in files if file.media in only]
    weights = find_weights(config.classifier.weights)
    card = read_card(weights)
    detector_sha256 = weights_sha256(config.detector)
    config_hash = result_hash(config, card.sha256, detector_sha256)
    todo = files if force else store.pending(files, out, config_hash=config_hash)
    return Plan(
        todo=tuple(sorted(todo, key=lambda file: (file.kind != "image", file.media))),
        n_done=len(files) - len(todo),
        config=config,
        config_hash=config_hash,
        detector_sha256=detector_sha256,
        weights=weights,
        card=card,
    )


def shards(files: Sequence[MediaFile], max_mb: float) -> Iterator[tuple[str, ...]]:
    """Cut the files, in order, into shards of at most `max_mb` megabytes and at least one file."""
    shard: list[str] = []
    size = 0
    for file in files:
        if shard and size + file.size_bytes > max_mb * 1e6:
            yield tuple(shard)
            shard, size = [], 0
        shard.append(file.media)
        size += file.size_bytes
    if shard:
        yield tuple(shard)
