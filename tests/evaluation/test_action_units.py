from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fer_batch.datasets import DatasetError
from fer_batch.datasets.disfa import ACTION_UNITS
from fer_batch.emotions import EMOTIONS
from fer_batch.errors import StoreError
from fer_batch.evaluation.action_units import ALL, PROTOTYPES, compare_action_units
from fer_batch.records import Faces
from tests.support.results import chunk, row, write

N = 30
RISING = [0] * 10 + [1, 2] * 5 + [3, 4] * 5
"""Intensities of N frames, the last 20 of them present."""


def make_labels(root: Path, subject: str, units: Mapping[int, Sequence[int]]) -> Path:
    """DISFA's label files; action units that are not given are never active."""
    folder = root / "ActionUnit_Labels" / subject
    folder.mkdir(parents=True)
    for unit in ACTION_UNITS:
        values = units.get(unit, [0] * N)
        lines = [f"{number},{value}\n" for number, value in enumerate(values, start=1)]
        (folder / f"{subject}_au{unit}.txt").write_text("".join(lines), encoding="utf-8")
    return root


def make_run(
    out: Path,
    subject: str | None,
    happiness: Sequence[float],
    *,
    camera: str = "left",
    n_faces: Sequence[int] | None = None,
    box_px: Sequence[Sequence[float]] | None = None,
) -> Path:
    """A video of N frames, or of `n_faces`, whose faces have this probability of happiness."""
    name = f"{camera}{subject}.mp4"
    made = chunk(name, n_faces or [1] * len(happiness), n_classes=6)
    probs = made.probs.copy()
    probs[:, 0] = happiness
    probs[:, 1:6] = (1 - probs[:, :1]) / 5
    boxes = made.faces.box_px if box_px is None else np.array(box_px, np.float32)
    faces = Faces(made.faces.frame_row, boxes, made.faces.score)
    video = row(name, subject=subject, camera=camera if subject else None)
    write(out, replace(made, probs=probs, faces=faces), rows=[video])
    return out


def agreement(table: pd.DataFrame, emotion: str, subject: str = ALL) -> pd.Series:
    (found,) = table[(table["emotion"] == emotion) & (table["subject"] == subject)].iloc
    return found


def rising_with_noise() -> list[float]:
    noise = np.random.default_rng(0).normal(0, 0.02, N)
    return list((0.2 + np.array(RISING) / 8 + noise).clip(0, 1))


def test_a_probability_that_follows_the_action_units_agrees(tmp_path: Path) -> None:
    root = make_labels(tmp_path, "SN001", {6: RISING, 12: RISING})
    found = compare_action_units(make_run(tmp_path, "SN001", [x / 5 for x in RISING]), root)
    smile = agreement(found, "happiness")
    assert (smile["spearman"], smile["roc_auc"]) == (pytest.approx(1), 1)
    assert (smile["n_frames"], smile["n_without_face"], smile["n_present"]) == (N, 0, 20)
    assert found["emotion"].tolist() == 2 * list(PROTOTYPES)
    assert set(PROTOTYPES) < set(EMOTIONS)


def test_one_that_goes_the_other_way_disagrees(tmp_path: Path) -> None:
    root = make_labels(tmp_path, "SN001", {6: RISING, 12: RISING})
    found = compare_action_units(make_run(tmp_path, "SN001", [1 - x / 5 for x in RISING]), root)
    smile = agreement(found, "happiness")
    assert (smile["spearman"], smile["roc_auc"]) == (pytest.approx(-1), 0)


def test_a_prototype_is_present_when_all_of_it_is(tmp_path: Path) -> None:
    root = make_labels(tmp_path, "SN001", {6: RISING, 12: [0] * 25 + [5] * 5})
    found = compare_action_units(make_run(tmp_path, "SN001", rising_with_noise()), root)
    assert agreement(found, "happiness")["n_present"] == 5


def test_what_is_not_defined_is_nan(tmp_path: Path) -> None:
    always = {unit: [1] * N for unit in (1, 4, 15)}
    root = make_labels(tmp_path, "SN001", {**always, 6: RISING})
    found = compare_action_units(make_run(tmp_path, "SN001", rising_with_noise()), root)
    smile, sad, disgusted = (
        agreement(found, emotion) for emotion in ("happiness", "sadness", "disgust")
    )
    assert smile["n_present"] == 0
    assert np.isnan(smile["roc_auc"])
    assert smile["spearman"] > 0.5  # half a smile has a strength
    assert sad["n_present"] == N
    assert np.isnan(sad[["spearman", "roc_auc"]].astype(float)).all()
    assert np.isnan(disgusted[["spearman", "roc_auc"]].astype(float)).all()


def test_frames_without_a_face_are_counted_and_left_out(tmp_path: Path) -> None:
    root = make_labels(tmp_path, "SN001", {6: RISING, 12: RISING})
    n_faces = [0] * 4 + [1] * 22 + [0] * 4
    probs = [x / 5 for x in RISING[4:26]]
    found = compare_action_units(make_run(tmp_path, "SN001", probs, n_faces=n_faces), root)
    smile = agreement(found, "happiness")
    assert (smile["n_frames"], smile["n_without_face"], smile["n_present"]) == (N, 8, 16)
    assert smile["spearman"] == pytest.approx(1)


def test_no_face_at_all_gives_counts_only(tmp_path: Path) -> None:
    root = make_labels(tmp_path, "SN001", {6: RISING, 12: RISING})
    found = compare_action_units(make_run(tmp_path, "SN001", [], n_faces=[0] * N), root)
    smile = agreement(found, "happiness")
    assert (smile["n_frames"], smile["n_without_face"], smile["n_present"]) == (N, N, 0)
    assert np.isnan(smile["roc_auc"])


def test_the_largest_face_is_the_subject(tmp_path: Path) -> None:
    root = make_labels(tmp_path, "SN001", {6: RISING, 12: RISING})
    probs = [prob for x in RISING for prob in (1 - x / 5, x / 5)]
    small, large = [0, 0, 50, 50], [60, 0, 160, 100]
    run = make_run(tmp_path, "SN001", probs, n_faces=[2] * N, box_px=[small, large] * N)
    smile = agreement(compare_action_units(run, root), "happiness")
    assert (smile["n_frames"], smile["spearman"]) == (N, pytest.approx(1))


def test_frames_are_joined_by_their_index(tmp_path: Path) -> None:
    root = make_labels(tmp_path, "SN001", {6: RISING, 12: RISING})
    made = chunk("v.mp4", [1] * 10)
    index = np.arange(2, 62, 6)  # every sixth frame, the later half beyond the last label
    probs = made.probs.copy()
    probs[:5, 0] = [RISING[frame] / 5 for frame in index[:5]]
    video = row("v.mp4", subject="SN001", camera="left")
    write(tmp_path, replace(made, frame_index=index, probs=probs), rows=[video])
    smile = agreement(compare_action_units(tmp_path, root), "happiness")
    assert (smile["n_frames"], smile["n_present"]) == (5, 3)
    assert smile["spearman"] == pytest.approx(1)


def test_subjects_stand_alone_and_together_but_cameras_apart(tmp_path: Path) -> None:
    for subject in ("SN001", "SN002"):
        make_labels(tmp_path, subject, {6: RISING, 12: RISING})
    follows, opposes = [x / 5 for x in RISING], [1 - x / 5 for x in RISING]
    make_run(tmp_path, "SN002", opposes)
    make_run(tmp_path, "SN001", follows)
    make_run(tmp_path, "SN001", follows, camera="right")
    found = compare_action_units(tmp_path, tmp_path)
    smiles = found[found["emotion"] == "happiness"].set_index(["subject", "camera"])
    assert smiles["n_frames"].to_dict() == {
        ("SN001", "left"): N,
        ("SN001", "right"): N,
        ("SN002", "left"): N,
        (ALL, "left"): 2 * N,
        (ALL, "right"): N,
    }
    want = [1, 1, -1, 0, 1]
    np.testing.assert_allclose(smiles["spearman"], want, atol=0.05)


def test_a_run_over_other_videos_is_refused(tmp_path: Path) -> None:
    root = make_labels(tmp_path, "SN001", {})
    with pytest.raises(DatasetError, match="one of DISFA's"):
        compare_action_units(make_run(tmp_path / "run", None, [0.5] * N), root)


def test_a_subject_without_labels_is_named(tmp_path: Path) -> None:
    root = make_labels(tmp_path, "SN001", {})
    run = make_run(tmp_path / "run", "SN001", [0.5] * N)
    make_run(run, "SN007", [0.5] * N)
    with pytest.raises(DatasetError, match="no action units of SN007"):
        compare_action_units(run, root)


def test_a_run_without_coded_frames_is_refused(tmp_path: Path) -> None:
    root = make_labels(tmp_path, "SN001", {})
    video = row("v.mp4", subject="SN001", camera="left")
    write(tmp_path / "run", chunk("v.mp4", [1, 1], first=N), rows=[video])
    with pytest.raises(DatasetError, match="none of the frames"):
        compare_action_units(tmp_path / "run", root)


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="not the output folder of a run"):
        compare_action_units(tmp_path, tmp_path)
