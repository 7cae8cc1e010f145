"""All pictures of a data set in memory, for training and evaluation."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from fer_batch.datasets import SPLITS, DatasetError, Samples, Split, read_samples
from fer_batch.datasets.duplicates import COMPARED_PX, find_pairs
from fer_batch.emotions import EMOTIONS, LABEL_SETS, LabelSet
from fer_batch.records import Bools, Bytes, Floats
from fer_batch.storage import urls

logger = logging.getLogger(__name__)

PACKED_SUFFIX = ".safetensors"
PACKED_FORMAT = "fer-batch pictures 2"
NEAR, EQUAL = 1, 2


@dataclass(frozen=True, slots=True, eq=False)
class Pictures:
    """The pictures of one split, in memory."""

    paths: tuple[str, ...]
    """POSIX paths, relative to the root of the data set."""
    pixels: Bytes
    """(N, S, S) uint8 grey."""
    targets: Floats
    """(N, 8) float32 in EMOTIONS order, rows sum to 1."""

    def __post_init__(self) -> None:
        n, size = len(self.paths), self.pixels.shape[-1]
        if self.pixels.shape != (n, size, size) or self.pixels.dtype != np.uint8:
            raise ValueError(
                f"pixels must be uint8 ({n}, S, S), got {self.pixels.dtype} {self.pixels.shape}"
            )
        if self.targets.shape != (n, len(EMOTIONS)) or self.targets.dtype != np.float32:
            raise ValueError(
                f"targets must be float32 ({n}, {len(EMOTIONS)}), "
                f"got {self.targets.dtype} {self.targets.shape}"
            )

    def __len__(self) -> int:
        return len(self.paths)

    def where(self, keep: Bools) -> Pictures:
        """Only the pictures for which `keep` (N,) is true."""
        paths = tuple(path for path, stays in zip(self.paths, keep, strict=True) if stays)
        return Pictures(paths, self.pixels[keep], self.targets[keep])


@dataclass(frozen=True, slots=True, eq=False)
class Data:
    """A data set in memory."""

    dataset: str
    pictures: Mapping[Split, Pictures]
    dropped: Mapping[str, int]
    """Number of training pictures that were left out, by reason."""
    missing_classes: tuple[str, ...] = ()
    """A message for each split that has no picture of an emotion that it should have."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Emotions in the targets of ``train``, or of all splits if it is not loaded, in order."""
        loaded = self.pictures
        counted = [loaded["train"]] if "train" in loaded else list(loaded.values())
        shares = sum(pictures.targets.sum(axis=0) for pictures in counted)
        return tuple(np.array(EMOTIONS)[shares > 0].tolist())


def load_data(
    dataset: str,
    root: Path,
    *,
    size_px: int,
    labels: LabelSet | None = None,
    splits: Sequence[Split] = SPLITS,
    drop_duplicates: bool = True,
    allow_missing_classes: bool = False,
) -> Data:
    """Read a data set into memory.

    Args:
        dataset: Name of a reader.
        root: Folder of the data set, or a file that `pack` wrote.
        size_px: Side of the pictures; others are resized.
        labels: Pictures whose most likely emotion is not in this set are dropped, and the other
            targets are renormalised over it; None keeps all.
        splits: Splits to read.
        drop_duplicates: Drop training pictures that also occur, equal or nearly so, in one of the
            other `splits`.
        allow_missing_classes: Accept a split that has no picture of one of its emotions.

    Raises:
        ConfigError: There is no such data set.
        DatasetError: The data set is not as expected, or a picture cannot be read.
    """
    find_duplicates = drop_duplicates and "train" in splits and len(splits) > 1
    if root.suffix == PACKED_SUFFIX:
        stored = _read_packed(dataset, root, splits, size_px)
    else:
        stored = _read_root(
            dataset,
            root,
            splits,
            size_px,
            find_duplicates=find_duplicates,
            allow_missing_classes=allow_missing_classes,
        )
    pictures, dropped = dict(stored.pictures), dict(stored.dropped)
    if find_duplicates:
        duplicates = np.max(list(stored.duplicates.values()), axis=0)
        pictures["train"] = pictures["train"].where(duplicates == 0)
        dropped["also in a held-out split"] = int((duplicates == EQUAL).sum())
        dropped["near-duplicate in a held-out split"] = int((duplicates == NEAR).sum())
    if labels:
        for split, before in pictures.items():
            pictures[split] = _keep_labels(before, labels)
            if not len(pictures[split]):
                expected = ", ".join(LABEL_SETS[labels])
                raise DatasetError(f"{root}: split {split} has no picture of {expected}")
            if split == "train":
                dropped["not one of the emotions"] = len(before) - len(pictures[split])
    dropped = {reason: n for reason, n in dropped.items() if n}
    logger.info("%s: left out of the training pictures: %s", dataset, dropped)
    return Data(dataset, pictures, dropped, stored.missing_classes)


def fingerprint(data: Data) -> str:
    """Hash of everything that a training sees: emotions, pictures and targets."""
    content = hashlib.blake2b(repr(data.classes).encode(), digest_size=16)
    for split, pictures in data.pictures.items():
        content.update(split.encode())
        content.update(pictures.pixels.tobytes() + pictures.targets.tobytes())
    return content.hexdigest()


def pack(dataset: str, root: Path, path: Path, *, size_px: int) -> None:
    """Write all pictures and targets of a data set to one file that `load_data` reads quickly.

    Only what the reader drops is dropped. Duplicates are searched here and stored, so that
    `load_data` returns the same from the file as from `root`.

    Args:
        dataset: Name of a reader.
        root: Folder of the data set.
        path: File to write, ``*.safetensors``; it never exists in part.
        size_px: Side of the pictures in the file, best their original one.

    Raises:
        ConfigError: There is no such data set.
        DatasetError: The data set is not as expected, or the file cannot be written.
    """
    if path.suffix != PACKED_SUFFIX:
        raise DatasetError(f"{path}: the name of a packed data set ends in {PACKED_SUFFIX}")
    stored = _read_root(dataset, root, SPLITS, size_px, find_duplicates=True)
    tensors: dict[str, Bytes | Floats] = {
        f"duplicates.{split}": duplicates for split, duplicates in stored.duplicates.items()
    }
    paths = {}
    for split, pictures in stored.pictures.items():
        tensors |= {f"pixels.{split}": pictures.pixels, f"targets.{split}": pictures.targets}
        paths[split] = pictures.paths
    metadata = {
        "format": PACKED_FORMAT,
        "dataset": dataset,
        "dropped": json.dumps(stored.dropped),
        "paths": json.dumps(paths),
    }
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        urls.write(path, save(tensors, metadata))
    except OSError as error:
        raise DatasetError(f"{path}: cannot be written: {error}") from error


@dataclass(frozen=True, slots=True, eq=False)
class _Stored:
    """Some splits of a data set before duplicates and labels are dropped."""

    pictures: Mapping[Split, Pictures]
    dropped: Mapping[str, int]
    """Number of training pictures that the reader left out, by reason."""
    duplicates: Mapping[Split, Bytes]
    """By held-out split, whether each training picture also occurs in it: 0, NEAR or EQUAL."""
    missing_classes: tuple[str, ...] = ()


def _read_root(
    dataset: str,
    root: Path,
    splits: Sequence[Split],
    size_px: int,
    *,
    find_duplicates: bool,
    allow_missing_classes: bool = False,
) -> _Stored:
    pictures: dict[Split, Pictures] = {}
    compared: dict[Split, Bytes] = {}
    dropped: Mapping[str, int] = {}
    missing: list[str] = []
    # Duplicates are compared in one fixed size, so that they do not depend on `size_px`.
    sizes_px = (size_px, COMPARED_PX) if find_duplicates else (size_px,)
    for split in splits:
        samples = read_samples(dataset, root, split, allow_missing_classes=allow_missing_classes)
        missing += samples.missing_classes
        resized = _resized(_images(samples), len(samples), *sizes_px)
        pictures[split] = Pictures(samples.paths, resized[0], samples.targets)
        compared[split] = resized[-1]
        if split == "train":
            dropped = samples.dropped
    duplicates = _find_duplicates(compared) if find_duplicates else {}
    return _Stored(pictures, dropped, duplicates, tuple(dict.fromkeys(missing)))


def _images(samples: Samples) -> Iterator[Image.Image]:
    """The pictures in grey, in their original sizes."""
    if samples.pixels is not None:
        yield from map(Image.fromarray, samples.pixels)
        return
    for path in samples.paths:
        try:
            with Image.open(samples.root / path) as picture:
                yield picture.convert("L")
        except (OSError, ValueError, Image.DecompressionBombError) as error:
            message = f"{samples.root / path}: cannot be read as a picture: {error}"
            raise DatasetError(message) from error


def _resized(images: Iterable[Image.Image], n: int, *sizes_px: int) -> list[Bytes]:
    """All `n` pictures in each of the sizes."""
    arrays = [np.empty((n, size, size), np.uint8) for size in sizes_px]
    for row, image in enumerate(images):
        for array, size in zip(arrays, sizes_px, strict=True):
            array[row] = np.asarray(image.resize((size, size), Image.Resampling.LANCZOS))
    return arrays


def _find_duplicates(compared: Mapping[Split, Bytes]) -> dict[Split, Bytes]:
    train = compared["train"]
    held_out = [split for split in compared if split != "train"]
    pairs = find_pairs(train, np.concatenate([compared[split] for split in held_out]))
    places = np.repeat(np.arange(len(held_out)), [len(compared[split]) for split in held_out])
    duplicates = np.zeros((len(held_out), len(train)), np.uint8)
    kinds = np.where(pairs.is_equal, EQUAL, NEAR).astype(np.uint8)
    np.maximum.at(duplicates, (places[pairs.second], pairs.first), kinds)
    return dict(zip(held_out, duplicates, strict=True))


def _read_packed(dataset: str, path: Path, splits: Sequence[Split], size_px: int) -> _Stored:
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != PACKED_FORMAT:
                raise DatasetError(f"{path}: packed by another version: pack the data set again")
            if metadata["dataset"] != dataset:
                raise DatasetError(
                    f"{path}: expected the packed data set {dataset}, found {metadata['dataset']}"
                )
            names = [name for name in sorted(file.keys()) if name.split(".")[1] in splits]
            tensors = {name: file.get_tensor(name) for name in names}
    except (OSError, SafetensorError) as error:
        raise DatasetError(f"{path}: cannot be read as a packed data set: {error}") from error
    paths = json.loads(metadata["paths"])
    pictures = {}
    for split in splits:
        pixels = tensors[f"pixels.{split}"]
        if pixels.shape[1] != size_px:
            (pixels,) = _resized(map(Image.fromarray, pixels), len(pixels), size_px)
        pictures[split] = Pictures(tuple(paths[split]), pixels, tensors[f"targets.{split}"])
    if "train" not in splits:
        return _Stored(pictures, {}, {})
    duplicates: dict[Split, Bytes] = {
        split: tensors[f"duplicates.{split}"] for split in splits if split != "train"
    }
    return _Stored(pictures, json.loads(metadata["dropped"]), duplicates)


def _keep_labels(pictures: Pictures, labels: LabelSet) -> Pictures:
    """Only pictures whose most likely emotion is in the label set, with targets over that set."""
    n = len(LABEL_SETS[labels])
    kept = pictures.where(pictures.targets.argmax(axis=1) < n)
    targets = np.where(np.arange(len(EMOTIONS)) < n, kept.targets, 0)
    return replace(kept, targets=targets / targets.sum(axis=1, keepdims=True))
