"""What a data set holds, as tables: how many pictures of each emotion, and which stand twice."""

from __future__ import annotations

import numpy as np
import pandas as pd

from fer_batch.datasets.duplicates import find_pairs
from fer_batch.datasets.pictures import Data
from fer_batch.emotions import EMOTIONS


def counts(data: Data) -> pd.DataFrame:
    """Pictures by most likely emotion and split (Table 3 of the source project).

    Returns:
        int64, one row per emotion of the data set, in EMOTIONS order, and ``total``; one column
        per split.
    """
    columns = [EMOTIONS.index(emotion) for emotion in data.classes]
    table = pd.DataFrame(
        {
            split: np.bincount(pictures.targets.argmax(axis=1), minlength=len(EMOTIONS))[columns]
            for split, pictures in data.pictures.items()
        },
        index=pd.Index(data.classes, name="emotion"),
    )
    table.loc["total"] = table.sum()
    return table


def duplicates(data: Data) -> pd.DataFrame:
    """Pictures that stand in two splits, and those that one split gives two emotions.

    Args:
        data: Loaded without dropping the duplicates; at 48 px, what is near is what `load_data`
            drops.

    Returns:
        One row per pair: ``path``, ``split``, ``emotion``, ``other_path``, ``other_split``,
        ``other_emotion`` and ``kind``, which is ``equal`` (pixel by pixel) or ``near``. Pairs of
        one split with one emotion are left out.
    """
    listed = pd.concat(
        [
            pd.DataFrame(
                {
                    "path": pictures.paths,
                    "split": split,
                    "emotion": np.array(EMOTIONS)[pictures.targets.argmax(axis=1)],
                }
            )
            for split, pictures in data.pictures.items()
        ],
        ignore_index=True,
    )
    pixels = np.concatenate([pictures.pixels for pictures in data.pictures.values()])
    pairs = find_pairs(pixels, pixels)
    rows = np.sort(np.stack([pairs.first, pairs.second]), axis=0)
    first, second = (listed.loc[row].reset_index(drop=True) for row in rows)
    table = first.join(second.add_prefix("other_"))
    table["kind"] = np.where(pairs.is_equal, "equal", "near")
    across = table["split"] != table["other_split"]
    at_odds = table["emotion"] != table["other_emotion"]
    reported: pd.DataFrame = table[across | at_odds]
    return reported.drop_duplicates(ignore_index=True)
