"""Every style looks as it does in the pictures of docs/styles."""

import cv2
import numpy as np
import pytest
from PIL import Image

from tests.support import golden
from tests.support.clips import Rgb


def blocks(rgb: Rgb) -> Rgb:
    """Means over 8x8 pixels: what JPEG and another font renderer change is small in them."""
    height, width = rgb.shape[:2]
    return cv2.resize(rgb, (width // 8, height // 8), interpolation=cv2.INTER_AREA)


@pytest.mark.parametrize("name", golden.STYLES)
def test_layout_is_that_of_the_picture(name: str) -> None:
    with Image.open(golden.FOLDER / f"{name}.jpg") as picture:
        expected = np.asarray(picture)
    drawn = golden.picture(name)
    assert drawn.shape == expected.shape
    difference = np.abs(blocks(drawn).astype(int) - blocks(expected))
    assert difference.mean() < 2
    assert difference.max() < 40
