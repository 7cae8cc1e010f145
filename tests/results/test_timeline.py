from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fer_batch.emotions import EMOTIONS
from fer_batch.errors import StoreError
from fer_batch.results import store, timeline
from tests.support.results import chunk, result, row, still, write

NAMES = list(EMOTIONS)


def track(out: Path, media: str, pts_s: list[float], probs: list[list[float]]) -> pd.DataFrame:
    """Store a video with one face in each frame and these probabilities (rest 0), and load it."""
    result = chunk(media, [1] * len(pts_s), pts_s=pts_s)
    values = np.zeros((len(probs), len(EMOTIONS)), np.float32)
    values[:, : len(probs[0])] = probs
    write(out, replace(result, probs=values))
    return timeline.load(out, media=media)


def test_load_orders_by_name_and_time_whatever_the_order_of_the_parts(tmp_path: Path) -> None:
    names = ["b.mp4", "c.mp4", "a/z.mp4", "d.mp4", "a.mp4"]
    for name in names:
        write(tmp_path, chunk(name, [2, 0, 1]), chunk(name, [1], first=10))
    write(tmp_path, still("c.png"), still("B.png"))
    faces = timeline.load(tmp_path)
    keys = list(zip(faces["media"], faces["frame_index"], faces["face_index"], strict=True))
    assert keys == sorted(keys)
    assert len(keys) == 4 * len(names) + 2


def test_load_has_one_type_per_column_whatever_was_found(tmp_path: Path) -> None:
    write(tmp_path / "video", chunk("v.mp4", [1, 2]))
    write(tmp_path / "mixed", chunk("v.mp4", [1], n_classes=6))
    write(tmp_path / "mixed", still("a.png"))
    write(tmp_path / "empty", chunk("v.mp4", [0]))
    runs = [timeline.load(tmp_path / name) for name in ("video", "mixed", "empty")]
    for faces in runs:
        assert faces["track_id"].dtype == pd.Int32Dtype()
        assert list(faces["emotion"].cat.categories) == NAMES
        assert (faces[NAMES].dtypes == np.float32).all()
        assert list(faces.columns) == list(runs[0].columns)
    assert len(runs[2]) == 0
    assert runs[1]["track_id"].isna().tolist() == [True, False]


@pytest.mark.parametrize("media", ["b.mp4", ["b.mp4"], ("b.mp4", "c.png"), []])
def test_load_gives_only_the_chosen_files(tmp_path: Path, media: str | list[str]) -> None:
    write(tmp_path, chunk("a.mp4", [1]))
    write(tmp_path, chunk("b.mp4", [1]))
    write(tmp_path, still("c.png"), still("d.png"))
    want = [media] if isinstance(media, str) else list(media)
    assert timeline.load(tmp_path, media=media)["media"].tolist() == want


def test_frames_and_media_are_ordered(tmp_path: Path) -> None:
    for name in ("b.mp4", "c.mp4", "a.mp4"):
        write(tmp_path, chunk(name, [0, 1]))
    frames = timeline.load_frames(str(tmp_path))
    assert frames["media"].tolist() == ["a.mp4", "a.mp4", "b.mp4", "b.mp4", "c.mp4", "c.mp4"]
    assert frames["frame_index"].tolist() == [0, 1] * 3
    assert timeline.load_media(tmp_path)["media"].tolist() == ["a.mp4", "b.mp4", "c.mp4"]


def test_files_are_read_one_after_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timeline, "IMAGES_AT_ONCE", 2)
    for name in ("b.mp4", "a.mp4", "none.mp4"):
        write(tmp_path, chunk(name, [1, 0] if name != "none.mp4" else [0]))
    write(tmp_path, *(still(f"{number}.png", number) for number in range(5)))
    rows = store.media_rows(tmp_path)
    wanted = [*rows[::2], *rows[1::2]]
    found = list(timeline.each_file(tmp_path, wanted))
    assert [file.row for file in found] == wanted
    for file in found:
        for have, load in ((file.faces, timeline.load), (file.frames, timeline.load_frames)):
            want = load(tmp_path, media=file.row.media).astype({"media": str})
            have = have.astype({"media": str}).reset_index(drop=True)
            pd.testing.assert_frame_equal(have, want)


@pytest.mark.parametrize("reader", ["load", "load_frames", "load_media", "summary"])
def test_a_folder_that_is_no_run_is_refused(tmp_path: Path, reader: str) -> None:
    with pytest.raises(StoreError, match="not the output folder of a run"):
        getattr(timeline, reader)(tmp_path)


def test_smoothing_follows_time_and_not_frames(tmp_path: Path) -> None:
    pts_s = [0.0, 0.1, 0.5, 3.0]
    faces = track(tmp_path, "v.mp4", pts_s, [[1, 0], [0, 1], [0, 1], [1, 0]])
    smooth = timeline.smooth(faces, seconds=0.5)
    want = [1.0]
    for seen, gap_s in ((0.0, 0.1), (0.0, 0.4), (1.0, 2.5)):
        past = np.exp(-gap_s / 0.5)
        want.append(past * want[-1] + (1 - past) * seen)
    np.testing.assert_allclose(smooth["happiness"], want, atol=1e-6)
    np.testing.assert_allclose(smooth[NAMES].sum(axis=1), 1, atol=1e-6)
    assert smooth["emotion"].tolist() == ["happiness", "happiness", "surprise", "happiness"]
    np.testing.assert_array_equal(smooth["confidence"], smooth[NAMES].max(axis=1))


def test_smoothing_is_the_same_at_any_frame_rate(tmp_path: Path) -> None:
    coarse_s, fine_s = np.arange(0, 2, 0.2), np.arange(0, 2, 0.04)
    coarse, fine = (
        timeline.smooth(
            track(tmp_path, name, list(pts_s), [[float(t > 0.9), float(t <= 0.9)] for t in pts_s]),
            seconds=0.5,
        )
        for name, pts_s in (("coarse.mp4", coarse_s), ("fine.mp4", fine_s))
    )
    late = coarse["pts_s"] > 1.15
    at_same_time = np.interp(coarse["pts_s"][late], fine["pts_s"], fine["happiness"])
    np.testing.assert_allclose(coarse["happiness"][late], at_same_time, atol=0.12)


def test_smoothing_keeps_tracks_and_files_apart(tmp_path: Path) -> None:
    for name in ("v.mp4", "w.mp4"):
        write(tmp_path, chunk(name, [2, 2, 2]))
    faces = timeline.load(tmp_path)
    together = timeline.smooth(faces, seconds=1.0)
    for _, alone in faces.groupby(["media", "track_id"], observed=True):
        want = timeline.smooth(alone, seconds=1.0)
        pd.testing.assert_frame_equal(together.loc[alone.index], want)


def test_smoothing_lets_images_and_unknown_emotions_through(tmp_path: Path) -> None:
    result = chunk("v.mp4", [1, 1, 1, 1], n_classes=6)
    result.probs[1] = np.nan
    write(tmp_path, result)
    write(tmp_path, still("a.png"), still("b.png"))
    faces = timeline.load(tmp_path)
    smooth = timeline.smooth(faces, seconds=0.5)
    untouched = faces["track_id"].isna() | faces["emotion"].isna()
    assert untouched.sum() == 3
    pd.testing.assert_frame_equal(smooth[untouched], faces[untouched])
    video = smooth[smooth["media"] == "v.mp4"]
    assert video[["neutral", "contempt"]].isna().all(axis=None)
    assert video["happiness"].notna().tolist() == [True, False, True, True]
    np.testing.assert_allclose(video[NAMES].sum(axis=1), [1, 0, 1, 1], atol=1e-6)


@pytest.mark.parametrize("n_faces", [[0], [1, 2]])
def test_smoothing_of_nothing_or_by_nothing_changes_nothing(
    tmp_path: Path, n_faces: list[int]
) -> None:
    write(tmp_path, chunk("v.mp4", n_faces))
    faces = timeline.load(tmp_path)
    seconds = 0.0 if len(faces) else 1.0
    smooth = timeline.smooth(faces, seconds=seconds)
    pd.testing.assert_frame_equal(smooth, faces)
    assert smooth is not faces


def test_smoothing_accepts_any_selection_of_rows(tmp_path: Path) -> None:
    write(tmp_path, chunk("v.mp4", [1] * 6))
    faces = timeline.load(tmp_path)
    chosen = faces[faces["frame_index"] % 2 == 0].iloc[::-1]
    smooth = timeline.smooth(chosen, seconds=0.1)
    assert smooth.index.tolist() == [4, 2, 0]
    want = timeline.smooth(chosen.sort_index().reset_index(drop=True), seconds=0.1)
    np.testing.assert_array_equal(smooth[NAMES].iloc[::-1], want[NAMES])
    doubled = pd.concat([faces, faces.assign(track_id=faces["track_id"] + 1)])
    np.testing.assert_array_equal(
        timeline.smooth(doubled, seconds=0.1)[NAMES].iloc[:6],
        timeline.smooth(faces, seconds=0.1)[NAMES],
    )


def test_segments_have_the_times_of_their_first_and_last_frame(tmp_path: Path) -> None:
    pts_s = [0.0, 0.1, 0.5, 0.6, 3.0, 3.5]
    happy, sad = [0.75, 0.0, 0.25], [0.0, 0.5, 0.5 - 1e-3]
    faces = track(tmp_path, "v.mp4", pts_s, [happy, happy, sad, happy, sad, sad])
    found = timeline.segments(faces)
    assert found["emotion"].tolist() == ["happiness", "surprise", "happiness", "surprise"]
    assert found["start_s"].tolist() == [0.0, 0.5, 0.6, 3.0]
    assert found["end_s"].tolist() == [0.1, 0.5, 0.6, 3.5]
    assert found["n_faces"].tolist() == [2, 1, 1, 2]
    assert found["confidence"].tolist() == [0.75, 0.5, 0.75, 0.5]
    longer = timeline.segments(faces, min_s=0.2)
    assert longer["start_s"].tolist() == [3.0]
    assert longer.index.tolist() == [0]


def test_segments_end_with_their_track_and_file(tmp_path: Path) -> None:
    for name in ("v.mp4", "w.mp4"):
        result = chunk(name, [2, 2, 2])
        probs = np.zeros_like(result.probs)
        probs[:, EMOTIONS.index("anger")] = 1
        write(tmp_path, replace(result, probs=probs))
    found = timeline.segments(timeline.load(tmp_path))
    assert found["media"].tolist() == ["v.mp4", "v.mp4", "w.mp4", "w.mp4"]
    assert found["track_id"].tolist() == [0, 1, 0, 1]
    assert found["emotion"].tolist() == ["anger"] * 4
    assert found["end_s"].tolist() == [2 / 25] * 4


def test_segments_leave_out_images_and_faces_without_emotion(tmp_path: Path) -> None:
    write(tmp_path, still("a.png"))
    result = chunk("v.mp4", [1])
    result.probs[:] = np.nan
    write(tmp_path, result)
    found = timeline.segments(timeline.load(tmp_path))
    assert len(found) == 0
    assert list(found.columns) == [
        "media",
        "track_id",
        "emotion",
        "start_s",
        "end_s",
        "n_faces",
        "confidence",
    ]


def test_summary_of_a_mixed_run(tmp_path: Path) -> None:
    result = chunk("v.mp4", [2, 0, 1, 0], pts_s=[0.0, 0.5, 0.75, 2.0])
    probs = np.zeros_like(result.probs)
    probs[:, :2] = [[1, 0], [0.5, 0.5], [0.75, 0.25]]
    write(tmp_path, replace(result, probs=probs))
    write(tmp_path, chunk("none.mp4", [0, 0]))
    write(tmp_path, rows=[row("broken.mp4", status="failed", error="no frames")])
    write(tmp_path, still("a.png"), rows=[row("a.png", status="partial")])
    shown = timeline.summary(tmp_path).set_index("media")

    assert shown.index.tolist() == ["a.png", "broken.mp4", "none.mp4", "v.mp4"]
    assert shown["status"].tolist() == ["partial", "failed", "ok", "ok"]
    assert shown["kind"].tolist() == ["image", "video", "video", "video"]
    assert shown["frames"].tolist() == [1, 0, 2, 4]
    assert shown["tracks"].tolist() == [0, 0, 0, 2]
    assert shown["face_share"].fillna(-1).tolist() == [1, -1, 0, 0.5]
    assert shown["seconds"].fillna(-1).tolist() == [0, -1, 1 / 25, 2]
    assert shown.loc["v.mp4", ["happiness", "surprise", "fear"]].tolist() == [0.75, 0.25, 0]
    assert shown.loc["v.mp4", "emotion"] == "happiness"
    assert shown.loc[["broken.mp4", "none.mp4"], [*NAMES, "emotion"]].isna().all(axis=None)
    assert list(shown.columns) == [
        "kind",
        "status",
        "frames",
        "seconds",
        "face_share",
        "tracks",
        *NAMES,
        "emotion",
    ]


@pytest.mark.parametrize("rows", [[], [row("broken.mp4", status="failed")]])
def test_summary_of_a_run_without_frames(tmp_path: Path, rows: list[object]) -> None:
    write(tmp_path, rows=rows)  # type: ignore[arg-type]
    shown = timeline.summary(tmp_path)
    assert len(shown) == len(rows)
    assert shown["frames"].tolist() == [0] * len(rows)


def test_summary_of_chosen_files(tmp_path: Path) -> None:
    write(tmp_path, chunk("a.mp4", [1, 0]))
    write(tmp_path, chunk("b.mp4", [2]))
    whole = timeline.summary(tmp_path)
    chosen = timeline.summary(tmp_path, media="b.mp4")
    pd.testing.assert_frame_equal(chosen, whole[1:].reset_index(drop=True))
    assert len(timeline.summary(tmp_path, media=[])) == 0


def test_strongest_emotions_in_words() -> None:
    row = dict.fromkeys(NAMES, 0.004) | {"fear": 0.2, "anger": 0.7, "contempt": np.nan}
    assert timeline.strongest(row) == "anger 70%, fear 20%"
    assert timeline.strongest(dict.fromkeys(NAMES, np.nan)) == ""


def test_bins_are_means_of_faces_and_frames(tmp_path: Path) -> None:
    result = chunk("v.mp4", [1, 3, 0, 0, 2, 0], n_classes=6)
    write(tmp_path, result)
    bins = timeline.binned(tmp_path, "v.mp4", most=3, smooth_s=0)
    np.testing.assert_allclose(bins.edges_s, [0, 0.08, 0.16, 0.24])
    np.testing.assert_array_equal(bins.n_faces, np.float32([2, 0, 1]))
    means = [result.probs[:4].mean(axis=0), [np.nan] * 8, result.probs[4:].mean(axis=0)]
    np.testing.assert_allclose(bins.probs, means, rtol=1e-6)


def test_bins_no_longer_than_the_smoothing_are_smooth(tmp_path: Path) -> None:
    faces = track(tmp_path, "v.mp4", [0.0, 0.1, 0.2], [[1, 0], [0, 1], [0, 1]])
    bins = timeline.binned(tmp_path, "v.mp4", most=9, smooth_s=0.5)
    np.testing.assert_allclose(bins.probs, timeline.smooth(faces, seconds=0.5)[NAMES])
    bins = timeline.binned(tmp_path, "v.mp4", most=9, smooth_s=0.05)
    np.testing.assert_array_equal(bins.probs, faces[NAMES])


def test_every_frame_has_the_bin_of_its_time(tmp_path: Path) -> None:
    n_faces = list(range(200))
    ntsc_s = (np.arange(200) * 1001 / 30000).round(3) + 3600.0
    write(tmp_path, chunk("v.mp4", n_faces, pts_s=list(ntsc_s)))
    bins = timeline.binned(tmp_path, "v.mp4", most=960, smooth_s=0)
    np.testing.assert_array_equal(bins.n_faces, n_faces)


def test_gaps_are_held_for_a_while_and_then_unknown(tmp_path: Path) -> None:
    write(tmp_path, chunk("v.mp4", [1] * 40, pts_s=[*np.arange(20), *np.arange(60, 80)]))
    bins = timeline.binned(tmp_path, "v.mp4", most=40, smooth_s=0)
    known = ~np.isnan(bins.n_faces)
    np.testing.assert_array_equal(known, ~np.isnan(bins.probs).any(axis=1))
    assert np.diff(np.flatnonzero(np.diff(known))).tolist() == [18]


@pytest.mark.parametrize("pts_s", [[], [1.0], [1.0, 1.0]])
def test_frames_of_one_time_have_no_bins(tmp_path: Path, pts_s: list[float]) -> None:
    write(tmp_path, chunk("v.mp4", [1] * len(pts_s), pts_s=pts_s), rows=[row("v.mp4")])
    with pytest.raises(StoreError, match=r"has not two frames of v\.mp4"):
        timeline.binned(tmp_path, "v.mp4", most=9, smooth_s=0)


def flagged(out: Path) -> None:
    """A video with a person, who is not usable in the end, and a short track; and an image."""
    video = result(
        "v.mp4",
        [2, 2, 1, 1, 0],
        track_id=[0, 1, 0, 1, 0, 0],
        is_short=[False, True, False, True, False, False],
        is_usable=[True, True, True, True, False, False],
    )
    write(out, video)
    write(out, result("i.png", [1], is_usable=False))


def test_short_tracks_are_left_out_and_unusable_faces_are_not(tmp_path: Path) -> None:
    flagged(tmp_path)
    faces = timeline.load(tmp_path)
    assert faces["media"].tolist() == ["i.png"] + ["v.mp4"] * 4
    assert faces["is_short"].fillna(False).tolist() == [False] * 5
    assert len(timeline.load(tmp_path, short=True)) == 7
    assert timeline.load(tmp_path, usable=True)["frame_index"].tolist() == [0, 1]
    assert len(timeline.load(tmp_path, short=True, usable=True)) == 4
    rows = store.media_rows(tmp_path)
    counts = [len(file.faces) for file in timeline.each_file(tmp_path, rows, short=True)]
    assert counts == [1, 6]


def test_summary_and_bins_count_what_is_loaded(tmp_path: Path) -> None:
    flagged(tmp_path)

    def video(**which: bool) -> tuple[int, float]:
        row = timeline.summary(tmp_path, media="v.mp4", **which).iloc[0]
        return row["tracks"], row["face_share"]

    assert video() == (1, 0.8)
    assert video(short=True) == (2, 0.8)
    assert video(usable=True) == (1, 0.4)
    assert timeline.summary(tmp_path, usable=True)["face_share"].tolist() == [0, 0.4]

    def bins(**which: bool) -> list[float]:
        return timeline.binned(tmp_path, "v.mp4", most=5, smooth_s=0, **which).n_faces.tolist()

    assert bins() == [1, 1, 1, 1, 0]
    assert bins(short=True) == [2, 2, 1, 1, 0]
    assert bins(usable=True) == [1, 1, 0, 0, 0]


def test_runs_that_know_neither_lose_no_face(tmp_path: Path) -> None:
    write(tmp_path, chunk("v.mp4", [2, 1]))
    faces = timeline.load(tmp_path, usable=True)
    assert len(faces) == 3
    assert faces[["is_short", "is_usable"]].isna().all(axis=None)
