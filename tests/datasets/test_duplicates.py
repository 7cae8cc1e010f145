"""Copies of a photograph are found, other photographs are not."""

from collections.abc import Callable

import cv2
import numpy as np
import pytest

from fer_batch.datasets.duplicates import Pairs, find_pairs
from tests.support.datasets_made import photograph


def pairs_of(found: Pairs) -> set[tuple[int, int, bool]]:
    return set(
        zip(found.first.tolist(), found.second.tolist(), found.is_equal.tolist(), strict=True)
    )


def photographs(n: int, start: int = 0, side: int = 48) -> np.ndarray:
    return np.stack([photograph(seed, side) for seed in range(start, start + n)])


def jpeg(picture: np.ndarray) -> np.ndarray:
    coded = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 30])[1]
    return np.asarray(cv2.imdecode(coded, cv2.IMREAD_GRAYSCALE))


def watermark(picture: np.ndarray) -> np.ndarray:
    return np.asarray(
        cv2.putText(picture.copy(), "photos", (2, 30), cv2.FONT_HERSHEY_PLAIN, 0.7, 200)
    )


def shift(picture: np.ndarray) -> np.ndarray:
    return np.pad(picture, 2, mode="edge")[:48, 4:]


@pytest.mark.parametrize(
    "copy",
    [
        lambda picture: picture // 2 + 100,
        lambda picture: picture[:, ::-1],
        lambda picture: shift(picture),
        lambda picture: shift(picture)[:, ::-1] // 2,
        jpeg,
        watermark,
        lambda picture: cv2.GaussianBlur(picture, (0, 0), 0.7),
    ],
    ids=["contrast", "mirror", "shift", "all of these", "jpeg", "watermark", "blur"],
)
def test_copies_are_near_duplicates(copy: Callable[[np.ndarray], np.ndarray]) -> None:
    others = photographs(30)
    found = find_pairs(np.stack([copy(others[7]), photograph(100), copy(others[3])]), others)
    assert pairs_of(found) == {(0, 7, False), (2, 3, False)}


def test_other_photographs_are_not_duplicates() -> None:
    assert len(find_pairs(photographs(60), photographs(60, start=100))) == 0


def test_every_equal_pair_is_found_once() -> None:
    flat = np.full((12, 48, 48), 7, np.uint8)  # more copies than neighbours are looked at
    one, other = np.concatenate([photographs(2), flat]), np.concatenate([flat, photographs(1)])
    expected = {(0, 12, True)} | {
        (row, column, True) for row in range(2, 14) for column in range(12)
    }
    found = find_pairs(one, other)
    assert pairs_of(found) == expected
    assert len(found) == len(expected)


def test_flat_pictures_of_other_greys_are_not_duplicates() -> None:
    flat = np.arange(0, 250, 10, dtype=np.uint8)[:, None, None].repeat(48, 1).repeat(48, 2)
    assert len(find_pairs(flat[::2], flat[1::2])) == 0


@pytest.mark.parametrize("side", [24, 48, 100])
def test_pictures_may_have_any_size(side: int) -> None:
    others = photographs(20, side=side)
    found = find_pairs(np.stack([others[4] // 2 + 60, others[5]]), others)
    assert pairs_of(found) == {(0, 4, False), (1, 5, True)}


def test_many_pictures_are_compared_in_blocks() -> None:
    pictures = photographs(530)
    found = find_pairs(pictures, pictures[500:] // 2 + 60)
    assert pairs_of(found) == {(row, row - 500, False) for row in range(500, 530)}


def test_pairs_must_have_the_same_length() -> None:
    with pytest.raises(ValueError, match="the same length"):
        Pairs(np.zeros(2, np.int64), np.zeros(3, np.int64), np.zeros(2, bool))
