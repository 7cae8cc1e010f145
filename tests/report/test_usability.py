"""What is said of faces that are not good enough to classify."""

from pathlib import Path

from fer_batch.config import Quality
from fer_batch.report.usability import count_unusable, describe
from tests.support import results

LIMITS = Quality(min_brightness=0.1, min_size_px=51)


def test_faces_are_counted_by_reason(tmp_path: Path) -> None:
    video = results.result(
        "v.mp4",
        [1, 1, 1, 1, 1],
        track_id=[0, 0, 0, 0, 1],
        is_short=[False] * 4 + [True],
        is_usable=[True, True, True, False, False],
    )
    results.write(tmp_path, video)
    results.write(tmp_path, results.chunk("old.mp4", [3]))
    counts = count_unusable(tmp_path, LIMITS.model_copy(update={"min_size_px": 0}))
    assert describe(counts) == "25.0% (dark 25.0%)"
    both = count_unusable(tmp_path, LIMITS, media=["v.mp4"])
    assert describe(both + counts) == "25.0% (small 50.0%, dark 25.0%)"


def test_without_faces_nothing_is_said(tmp_path: Path) -> None:
    results.write(tmp_path, results.chunk("old.mp4", [3]))
    assert describe(count_unusable(tmp_path, LIMITS)) == ""
