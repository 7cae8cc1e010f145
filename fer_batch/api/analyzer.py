"""Faces and emotions of single pictures, with models that are loaded once."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image

from fer_batch.api.arguments import SettingsLike, configure, place
from fer_batch.config import Sampling
from fer_batch.emotions import EMOTIONS
from fer_batch.errors import MediaError, PictureError
from fer_batch.faces.crop import crop
from fer_batch.faces.detectors import build_detector, without_weak
from fer_batch.faces.quality import measure
from fer_batch.media import discovery
from fer_batch.media.cache import fetched
from fer_batch.media.decode import FrameReader
from fer_batch.media.decode.images import upright_rgb
from fer_batch.models.classifier import Classifier
from fer_batch.pipeline.lanes import Resources
from fer_batch.pipeline.plan import plan_for
from fer_batch.records import Bytes, ChunkResult, Faces, Floats, Quality
from fer_batch.render.file_annotator import load_explainer
from fer_batch.render.still import annotate
from fer_batch.results.columns import TABLES

logger = logging.getLogger(__name__)

Picture = str | Path | Bytes | Image.Image
"""A file or URL, an RGB array (H, W, 3) uint8, or a picture of Pillow."""

_EXPECTED = (
    "expected the path of a picture, a PIL picture, or an RGB array of shape (height, width, 3) "
    "with values of type uint8, from 0 to 255"
)


class Analyzer:
    """Finds faces in pictures and says what they show; the numbers are those of `process`.

    Models are loaded once, when it is made. Several threads may use one at the same time.

    On a CPU, a face gets the same numbers to the last bit, whatever else is analysed with it and
    whether it comes from a file, an array or a run. On a GPU, the last bits may differ.

    Args:
        settings: What differs from the defaults, as for `process`; the sections ``detector``,
            ``classifier``, ``render`` (for `annotate`) and ``runtime`` count.
        device: ``cpu``, ``cuda``, ``cuda:N`` or ``mps``; ``auto``: what the settings say, which is
            a CUDA GPU if there is one.

    Raises:
        ConfigError: A setting is wrong or unknown, or there is no such device.
        DetectorError, WeightsError: A model cannot be loaded.
    """

    def __init__(self, *, settings: SettingsLike = None, device: str = "auto") -> None:
        config = configure(settings)
        if device != "auto":
            config = configure({"runtime.device": device}, config)
        plan, resources = plan_for([], config), Resources.of(config)
        self._config, self._card, self._device = config, plan.card, resources.devices[0]
        self._batch_size = resources.batch_size
        self._explainer = load_explainer(config)
        self._detector = build_detector(config.detector, self._device)
        self._classifier = Classifier(
            config.classifier.weights,
            self._device,
            batch_size=resources.batch_size,
            flip=config.classifier.flip,
        )

    def __call__(self, pictures: Picture | Iterable[Picture]) -> pd.DataFrame:
        """Find the faces of one picture or of many.

        Pictures are read and analysed one after the other: many of them need no more memory.

        Args:
            pictures: Files or URLs, arrays or PIL pictures, one or several. Arrays are RGB, uint8,
                (H, W, 3); several of one size may be one array (N, H, W, 3). Arrays of OpenCV are
                BGR, which cannot be seen from the numbers: give ``bgr[:, :, ::-1]``.

        Returns:
            One row for each face, by picture and from left to right: ``picture`` (its path as it
            was given, or its position, from 0, if it is no file), ``face_index``, and the columns
            ``x1_px`` to ``confidence`` of the table ``faces``. No row where there is no face.

        Raises:
            PictureError: An array or object is no picture.
            MediaError: A file is missing, is no picture, or is larger than allowed.
            DetectorError: The detector failed.
        """
        named = enumerate(_each(pictures))
        names: list[str | int] = []
        found, n_frames, probs = [], [], [np.empty((0, len(EMOTIONS)), np.float32)]
        crops: list[torch.Tensor] = []
        qualities = []
        while block := list(itertools.islice(named, self._detector.batch_frames)):
            names += [str(each) if isinstance(each, str | Path) else at for at, each in block]
            frames = [self._read(picture, position) for position, picture in block]
            found.append(self._detect(frames))
            n_frames.append(len(frames))
            crops.append(crop(frames, found[-1], self._card))
            qualities.append(measure(frames, found[-1], self._card, self._config.quality))
            if sum(map(len, crops)) >= self._batch_size:
                probs.append(self._classifier(torch.cat(crops)))
                crops.clear()
        if crops:
            probs.append(self._classifier(torch.cat(crops)))
        faces = Faces.join(found, n_frames)
        return _table(names, faces, np.concatenate(probs), Quality.join(qualities))

    def annotate(self, picture: Picture) -> Image.Image:
        """One picture with its faces, and what they show, drawn on it, as a picture of Pillow.

        The section ``render`` of the settings says how it looks; the default is the style ``full``.

        Args:
            picture: As for a call.

        Raises:
            PictureError, MediaError, DetectorError: As for a call.
        """
        rgb = self._read(picture)
        faces = self._detect([rgb])
        probs = self._classifier(crop([rgb], faces, self._card))
        drawn = annotate(rgb, faces, probs, self._config.render, explainer=self._explainer)
        return Image.fromarray(drawn)

    def __repr__(self) -> str:
        return f"Analyzer: {self._config.detector.name}, {self._card.name}, {self._device}"

    def _detect(self, frames: list[Bytes]) -> Faces:
        return without_weak(self._detector.detect(frames), self._config.detector)

    def _read(self, picture: Picture, position: int = 0) -> Bytes:
        """The pixels of a picture: (H, W, 3) uint8 RGB."""
        if isinstance(picture, str | Path):
            return self._read_file(place(picture))
        if isinstance(picture, Image.Image):
            try:
                return upright_rgb(picture)
            except (OSError, SyntaxError, ValueError) as error:
                raise PictureError(f"picture {position}: cannot be read: {error}") from error
        if not isinstance(picture, np.ndarray):
            raise PictureError(f"picture {position}: {_EXPECTED}; got {type(picture).__name__}")
        is_rgb = picture.ndim == 3 and picture.shape[2] == 3 and picture.size > 0
        if not is_rgb or picture.dtype != np.uint8:
            given = f"an array of shape {picture.shape} and type {picture.dtype}"
            raise PictureError(f"picture {position}: {_EXPECTED}; got {given}")
        return np.ascontiguousarray(picture)

    def _read_file(self, path: Path) -> Bytes:
        if discovery.kind_of(path) == "video":
            raise MediaError(f"{path} is a video: use fer_batch.process, or give its frames", path)
        if path.is_dir():
            raise MediaError(f"{path} is a folder: use fer_batch.process, or give its files", path)
        [file] = discovery.find([path])
        with (
            fetched(replace(file, kind="image"), self._config.runtime) as local,
            FrameReader(local, Sampling(), self._config.decode) as reader,
        ):
            [chunk] = reader
            if reader.report.message:
                logger.warning("%s is %s: %s", path, reader.report.status, reader.report.message)
            rgb: Bytes = chunk.rgb[0]
            return rgb


def _each(pictures: Picture | Iterable[Picture]) -> Iterable[Picture]:
    is_stack = isinstance(pictures, np.ndarray) and pictures.ndim == 4
    if isinstance(pictures, str | Path | np.ndarray | Image.Image) and not is_stack:
        return [pictures]
    if not isinstance(pictures, Iterable):
        raise PictureError(f"{_EXPECTED}, or several; got {type(pictures).__name__}")
    return pictures


def _table(
    names: Sequence[str | int], faces: Faces, probs: Floats, quality: Quality
) -> pd.DataFrame:
    """The faces of pictures, as the table ``faces`` has them."""
    n = len(names)
    result = ChunkResult(
        media="",
        frame_index=np.arange(n),
        pts_s=np.zeros(n),
        is_damaged=np.zeros(n, np.bool_),
        faces=faces,
        track_id=None,
        probs=probs,
        quality=quality,
    )
    rows: pd.DataFrame = TABLES["faces"].rows(result).to_pandas()
    rows["is_usable"] = rows["is_usable"].astype("boolean")
    rows.insert(0, "picture", pd.Index(names or np.arange(0)).take(faces.frame_row))
    return rows.drop(columns=["media", "frame_index", "pts_s", "track_id", "is_short"])
