"""Tables about a data set: how many pictures it has of each emotion, and its duplicates."""

from __future__ import annotations

import numpy as np
import pandas as pd

from fer_batch.datasets.duplicates import find_pairs
from fer_batch.datasets.pictures import Data
from fer_batch.emotions import EMOTIONS


def count_pictures(data: Data) -> pd.DataFrame:
    """Count pictures by most likely emotion and split (Table 3 of the source project).

    Returns:
        int64, one row per emotion of any split, in EMOTIONS order, and ``total``; one column per
        split.
    """
    table = pd.DataFrame(
        {
            split: np.bincount(pictures.targets.argmax(axis=1), minlength=len(EMOTIONS))
            for split, pictures in data.pictures.items()
        },
        index=pd.Index(EMOTIONS, name="emotion"),
    )
    table = table[table.any(axis=1) | table.index.isin(data.classes)]
    table.loc["total"] = table.sum()
    return table


def list_duplicates(data: Data) -> pd.DataFrame:
    """List pictures that occur in two splits, or in one split with two emotions.

    Args:
        data: Loaded without dropping the duplicates. With pictures of 48 px, the near-duplicates
            are those that `load_data` drops.

    Returns:
        One row per pair: ``path``, ``split``, ``emotion``, ``other_path``, ``other_split``,
        ``other_emotion`` and ``kind``, which is ``equal`` (pixel by pixel) or ``near``. Pairs
        within one split that have the same emotion are left out.
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
    other_split = table["split"] != table["other_split"]
    other_emotion = table["emotion"] != table["other_emotion"]
    reported: pd.DataFrame = table[other_split | other_emotion]
    return reported.drop_duplicates(ignore_index=True)
