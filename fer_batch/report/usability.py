"""How many faces of a run are good enough to classify, and why the others are not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from fer_batch.config import Quality as Limits
from fer_batch.faces.quality import unusable
from fer_batch.records import Quality
from fer_batch.results import store

FACES, UNUSABLE = "faces", "unusable"


def count_unusable(
    out: Path, limits: Limits, *, media: Sequence[str] | None = None
) -> Counter[str]:
    """Count faces by the reason that makes them unusable.

    Faces of short tracks do not count, nor those of older runs, which were not measured.

    Args:
        out: Output folder of a run.
        limits: The section ``quality`` of its configuration.
        media: Names of the files; None takes all.

    Returns:
        ``faces`` (their number), ``unusable``, and the number for each reason of
        `fer_batch.faces.quality.unusable`; a face may have several.

    Raises:
        StoreError: ``out`` is not the output folder of a run, or a table cannot be read.
    """
    columns = ["is_short", *Quality.__slots__]
    faces = store.read(out, "faces", media=media, columns=columns).to_pandas()
    is_short = faces["is_short"].astype("boolean").fillna(False)
    faces = faces[~is_short & faces["is_usable"].notna()]
    reasons = unusable(faces, limits)
    return Counter(
        {
            FACES: len(faces),
            UNUSABLE: int((~faces["is_usable"].astype(bool)).sum()),
            **{reason: int(is_so.sum()) for reason, is_so in reasons.items()},
        }
    )


def describe(counts: Counter[str]) -> str:
    """The counts for people: ``12.0% (blurred 8.1%, small 5.0%)``; empty where there is no face."""
    if not counts[FACES]:
        return ""
    reasons = [
        f"{reason} {n / counts[FACES]:.1%}"
        for reason, n in counts.most_common()
        if n and reason not in (FACES, UNUSABLE)
    ]
    share = f"{counts[UNUSABLE] / counts[FACES]:.1%}"
    return f"{share} ({', '.join(reasons)})" if reasons else share
