"""Read still images as upright RGB."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageFile, ImageOps, UnidentifiedImageError

from fer_batch.errors import MediaError
from fer_batch.media.decode.source import SegmentReader
from fer_batch.records import Bytes, DecodeReport, FrameChunk, MediaInfo

_ROTATIONS = {3: 180, 4: 180, 5: 270, 6: 270, 7: 90, 8: 90}
"""EXIF orientation: counter-clockwise rotation in degrees; 4, 5 and 7 are mirrored as well."""
_BROKEN = (OSError, SyntaxError, ValueError, EOFError)
"""The exceptions that Pillow raises for damaged files."""


class StillImage:
    """The first picture of an image file; a `SegmentedSource` with one segment.

    EXIF rotation is applied, 16 bits are scaled to 8, and transparent parts are white. Of a damaged
    file, what can be decoded is given, and the rest is black.

    Raises:
        MediaError: The file is no image, or has more than ``max_mp`` megapixels; such a file is not
            decoded.
    """

    n_segments = 1

    def __init__(self, path: Path, max_mp: float) -> None:
        with _open(path) as image:
            if image.width * image.height > max_mp * 1e6:
                size = f"{image.width} x {image.height} pixels"
                limit = f"decode.max_image_mp = {max_mp:g}"
                raise MediaError(f"{path}: {size} are more than {limit} allows", path)
            codec = (image.format or "unknown").lower()
            # The other pictures in a phone's MPO file are previews of the first.
            n_pictures = 1 if codec == "mpo" else getattr(image, "n_frames", 1)
            unread = f"the first of {n_pictures} pictures was read" if n_pictures > 1 else None
            damage = _load(image)
            rotation_deg = _ROTATIONS.get(image.getexif().get(ExifTags.Base.Orientation, 1), 0)
            self._rgb = _rgb(ImageOps.exif_transpose(image))
        self._is_damaged = damage is not None
        self.info = MediaInfo(
            width_px=self._rgb.shape[1],
            height_px=self._rgb.shape[0],
            rotation_deg=rotation_deg,
            frame_rate=None,
            duration_s=None,
            n_frames_container=1,
            codec=codec,
        )
        problem = damage or unread
        self.report = DecodeReport(
            decoder="pillow",
            n_frames_decoded=1,
            n_frames_damaged=int(self._is_damaged),
            n_frames_missing=0,
            n_frames_wanted=1,
            problems=(problem,) if problem else (),
        )

    def chunks(self) -> Generator[FrameChunk]:
        """The picture, as a chunk of one frame."""
        yield FrameChunk(
            rgb=self._rgb[None],
            frame_index=np.zeros(1, np.int64),
            pts_s=np.zeros(1),
            is_damaged=np.array([self._is_damaged]),
        )

    def next_segment(self) -> SegmentReader:
        """The whole picture."""
        return SegmentReader(self.chunks(), is_streamed=False)

    def close(self) -> None:
        """Nothing is open."""


def _open(path: Path) -> ImageFile.ImageFile:
    try:
        if path.stat().st_size == 0:
            raise MediaError(f"{path}: the file is empty", path)
        return Image.open(path)
    except Image.DecompressionBombError as error:
        raise MediaError(f"{path}: {error}", path) from error
    except UnidentifiedImageError as error:
        raise MediaError(f"{path}: not a picture, or of a kind that is not known", path) from error
    except _BROKEN as error:
        raise MediaError(f"{path}: cannot be opened: {error}", path) from error


def _load(image: ImageFile.ImageFile) -> str | None:
    """Decode as many pixels as possible; returns what is wrong with the others, if anything."""
    try:
        image.load()
    except _BROKEN as error:
        # With no tiles left to decode, Pillow accepts what it has.
        image.tile = []
        image.load()
        return f"the picture is damaged: {error}"
    return None


def _rgb(image: Image.Image) -> Bytes:
    if image.mode.startswith("I"):
        # Pillow would clip 16 bits instead of scaling them; 65535 / 257 = 255.
        grey = np.clip(np.asarray(image), 0, 65535) / 257
        return np.repeat(np.rint(grey).astype(np.uint8)[..., None], 3, axis=2)
    if image.has_transparency_data:
        paper = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(paper, image.convert("RGBA"))
    return np.array(image.convert("RGB"))


def upright_rgb(image: Image.Image) -> Bytes:
    """A picture of Pillow as (H, W, 3) uint8, in the same way as one that is read from a file.

    Raises:
        OSError, SyntaxError, ValueError: Its pixels cannot be read.
    """
    return _rgb(ImageOps.exif_transpose(image))
