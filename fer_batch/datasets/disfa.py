"""DISFA (Mavadati et al., 2013): intensities of action units in each frame of its videos."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fer_batch.datasets.files import list_folder
from fer_batch.datasets.samples import DatasetError

ACTION_UNITS = (1, 2, 4, 5, 6, 9, 12, 15, 17, 20, 25, 26)
MAX_INTENSITY = 5


def read_action_units(root: Path) -> pd.DataFrame:
    """Read the labels of DISFA, one row per frame.

    Args:
        root: Folder with ``ActionUnit_Labels/SN001/SN001_au1.txt`` and so on.

    Returns:
        ``subject``, ``frame_index`` (0-based) and ``AU1`` to ``AU26`` as int8, 0 to 5.

    Raises:
        DatasetError: A file is missing or wrong, or files of one subject differ in length.
    """
    labels = root / "ActionUnit_Labels"
    subjects = [path for path in list_folder(labels) if re.fullmatch(r"SN\d{3}", path.name)]
    if not subjects:
        raise DatasetError(f"{labels}: expected folders SN001 and so on")
    return pd.concat([_subject(folder) for folder in subjects], ignore_index=True)


def _subject(folder: Path) -> pd.DataFrame:
    units = {
        f"AU{unit}": _intensities(folder / f"{folder.name}_au{unit}.txt") for unit in ACTION_UNITS
    }
    lengths = {name: len(values) for name, values in units.items()}
    if len(set(lengths.values())) != 1:
        raise DatasetError(f"{folder}: expected as many frames for each action unit, got {lengths}")
    n = next(iter(lengths.values()))
    return pd.DataFrame(
        {"subject": folder.name, "frame_index": np.arange(n, dtype=np.int64), **units}
    )


def _intensities(path: Path) -> NDArray[np.int8]:
    """Intensities (N,) in the order of the frames."""
    try:
        lines = pd.read_csv(path, header=None, dtype=np.int64).to_numpy()
    except (OSError, ValueError) as error:
        raise DatasetError(f"{path}: expected lines of frame,intensity: {error}") from error
    frames, intensities = lines[:, 0], lines[:, -1]
    if lines.shape[1] != 2 or (frames != np.arange(1, len(frames) + 1)).any():
        raise DatasetError(f"{path}: expected lines of frame,intensity with frames 1, 2, 3, ...")
    wrong = np.flatnonzero((intensities < 0) | (intensities > MAX_INTENSITY))
    if len(wrong):
        raise DatasetError(
            f"{path}, line {wrong[0] + 1}: expected an intensity from 0 to {MAX_INTENSITY}, "
            f"found {intensities[wrong[0]]}"
        )
    return intensities.astype(np.int8)
