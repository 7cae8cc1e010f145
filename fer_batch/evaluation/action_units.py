"""A run over DISFA's videos against the action units that people coded in them.

DISFA (Mavadati et al., 2013) has no emotion labels, but an intensity from 0 to 5 of twelve action
units in each frame. An emotion's probability should rise with the action units of its prototype.
"""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score

from fer_batch.datasets import DatasetError
from fer_batch.datasets.disfa import action_units
from fer_batch.results import timeline

PROTOTYPES = {
    "happiness": (6, 12),
    "surprise": (1, 2, 5, 26),
    "sadness": (1, 4, 15),
    "anger": (4, 5),  # of 4+5+7+23
    "disgust": (9, 15),  # of 9+15+16
    "fear": (1, 2, 4, 5, 20, 26),  # of 1+2+4+5+7+20+26
}
"""Action units of EMFACS' prototypes (Friesen & Ekman, 1983), as far as DISFA codes them."""

ALL = "all"
"""In the place of a subject: the frames of all subjects together."""


def compare_action_units(results: Path, labels_root: Path) -> pd.DataFrame:
    """How well a run's emotions follow the coded action units, by subject and over all.

    A frame's largest face is the subject's. An emotion's intensity is the mean of its prototype's
    action units, and it is present where each of them is coded 1 (a trace) or more: strict, so
    that rich prototypes are rare, but the same rule for all. The cameras are kept apart,
    because both show the same moments. There are no p-values: neighbouring frames are alike.

    Args:
        results: Output folder of a run over DISFA's videos in their own layout.
        labels_root: DISFA's root, which holds ``ActionUnit_Labels``.

    Returns:
        By subject (the last is `ALL`), camera and emotion: n_frames, decoded and coded;
        n_without_face, those of them that are left out because no face was found; n_present, those
        of the rest that show the prototype; spearman, the rank correlation of probability and
        intensity; roc_auc, of the probability for presence. NaN where these are not defined, as
        for a prototype that is present in no frame or in all.

    Raises:
        DatasetError: No video of the run is one of DISFA's, or its labels are missing.
        StoreError: ``results`` is not the output folder of a run, or a table cannot be read.
    """
    frames = _coded_frames(results, labels_root)
    by_subject = pd.concat([frames, frames.assign(subject=ALL)]).groupby(["subject", "camera"])
    return pd.DataFrame(
        [
            {"subject": subject, "camera": camera, "emotion": emotion, **_agreement(part, emotion)}
            for (subject, camera), part in by_subject
            for emotion in PROTOTYPES
        ]
    )


def _coded_frames(results: Path, labels_root: Path) -> pd.DataFrame:
    """Every frame that was decoded and coded, with its largest face where it has one."""
    media = timeline.load_media(results)[["media", "subject", "camera"]].dropna()
    if media.empty:
        raise DatasetError(
            f"{results}: no video of this run is one of DISFA's, as "
            "Videos_LeftCamera/LeftVideoSN001_comp.avi is: run `fer-batch process` over them first"
        )
    labels = action_units(labels_root)
    uncoded = sorted(set(media["subject"]) - set(labels["subject"]))
    if uncoded:
        raise DatasetError(f"{labels_root}: no action units of {', '.join(uncoded)}")
    faces = timeline.load(results)
    faces["area_px"] = (faces["x2_px"] - faces["x1_px"]) * (faces["y2_px"] - faces["y1_px"])
    largest = faces.sort_values("area_px").drop_duplicates(["media", "frame_index"], keep="last")
    seen = timeline.load_frames(results)[["media", "frame_index"]].merge(
        largest[["media", "frame_index", "area_px", *PROTOTYPES]], how="left"
    )
    coded = seen.merge(media).merge(labels, on=["subject", "frame_index"])
    if coded.empty:
        raise DatasetError(
            f"{labels_root}: none of the frames in {results} is coded: are they the same videos?"
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
