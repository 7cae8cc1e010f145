"""Comparison of a run over DISFA's videos with the action units that people coded in them.

DISFA (Mavadati et al., 2013) has no emotion labels, but intensities from 0 to 5 of twelve action
units in each frame. The probability of an emotion should rise with the action units of its
prototype.
"""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score

from fer_batch.datasets import DatasetError
from fer_batch.datasets.disfa import read_action_units
from fer_batch.results import timeline

PROTOTYPES = {
    "happiness": (6, 12),
    "surprise": (1, 2, 5, 26),
    "sadness": (1, 4, 15),
    "anger": (4, 5),  # 4+5+7+23 in full
    "disgust": (9, 15),  # 9+15+16 in full
    "fear": (1, 2, 4, 5, 20, 26),  # 1+2+4+5+7+20+26 in full
}
"""Action units of the EMFACS prototypes (Friesen & Ekman, 1983) that DISFA codes."""

ALL = "all"
"""Name of the rows for all subjects together."""


def compare_action_units(out: Path, root: Path) -> pd.DataFrame:
    """Measure how well the emotions of a run follow the coded action units.

    The largest face of a frame is taken to be the subject's. The intensity of an emotion is the
    mean of the action units of its prototype. The emotion is present where each of them is coded 1
    (a trace) or more; this rule is the same for all emotions, and makes those with many action
    units rare. The two cameras are kept apart, as both show the same moments. There are no
    p-values, as neighbouring frames resemble each other.

    Args:
        out: Output folder of a run over DISFA's videos in their original folders.
        root: DISFA's root folder, which contains ``ActionUnit_Labels``.

    Returns:
        One row per subject (`ALL` is the last), camera and emotion, with these columns. n_frames:
        frames that were decoded and coded. n_without_face: frames among these without a face, which
        are left out. n_present: other frames that show the prototype. spearman: rank correlation of
        probability and intensity. roc_auc: how well the probability tells presence. The last two
        are NaN where they are not defined, as when the prototype is present in no frame or in all.

    Raises:
        DatasetError: No video of the run is one of DISFA's, or its labels are missing.
        StoreError: `out` is not the output folder of a run, or a table cannot be read.
    """
    frames = _coded_frames(out, root)
    by_subject = pd.concat([frames, frames.assign(subject=ALL)]).groupby(["subject", "camera"])
    return pd.DataFrame(
        [
            {"subject": subject, "camera": camera, "emotion": emotion, **_agreement(part, emotion)}
            for (subject, camera), part in by_subject
            for emotion in PROTOTYPES
        ]
    )


def _coded_frames(out: Path, root: Path) -> pd.DataFrame:
    """Frames that were decoded and coded, each with its largest face if it has one."""
    media = timeline.load_media(out)[["media", "subject", "camera"]].dropna()
    if media.empty:
        raise DatasetError(
            f"{out}: no video of this run is one of DISFA's, as "
            "Videos_LeftCamera/LeftVideoSN001_comp.avi is: run `fer-batch process` over them first"
        )
    labels = read_action_units(root)
    uncoded = sorted(set(media["subject"]) - set(labels["subject"]))
    if uncoded:
        raise DatasetError(f"{root}: no action units of {', '.join(uncoded)}")
    faces = timeline.load(out)
    faces["area_px"] = (faces["x2_px"] - faces["x1_px"]) * (faces["y2_px"] - faces["y1_px"])
    largest = faces.sort_values("area_px").drop_duplicates(["media", "frame_index"], keep="last")
    frames = timeline.load_frames(out)[["media", "frame_index"]].merge(
        largest[["media", "frame_index", "area_px", *PROTOTYPES]], how="left"
    )
    coded = frames.merge(media).merge(labels, on=["subject", "frame_index"])
    if coded.empty:
        raise DatasetError(
            f"{root}: none of the frames in {out} is coded: are they the same videos?"
        )
    return coded


def _agreement(frames: pd.DataFrame, emotion: str) -> dict[str, float]:
    seen = frames[frames["area_px"].notna()]
    units = seen[[f"AU{unit}" for unit in PROTOTYPES[emotion]]]
    intensity, present = units.mean(axis=1), (units >= 1).all(axis=1)
    probability = seen[emotion]
    ranks = probability.nunique() > 1 and intensity.nunique() > 1
    separates = probability.notna().all() and present.nunique() > 1
    return {
        "n_frames": len(frames),
        "n_without_face": len(frames) - len(seen),
        "n_present": int(present.sum()),
        "spearman": float(spearmanr(probability, intensity).statistic) if ranks else math.nan,
        "roc_auc": float(roc_auc_score(present, probability)) if separates else math.nan,
    }
