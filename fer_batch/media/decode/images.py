"""Still images as upright RGB, whatever way they are stored."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageFile, ImageOps, UnidentifiedImageError

from fer_batch.errors import MediaError
from fer_batch.records import Bytes, MediaInfo

_TURNS = {3: 180, 4: 180, 5: 270, 6: 270, 7: 90, 8: 90}
"""EXIF orientation -> counter-clockwise degrees; 4, 5 and 7 are mirrored as well."""
_BROKEN = (OSError, SyntaxError, ValueError, EOFError)
"""What Pillow raises on damaged files."""


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """One still image."""

    info: MediaInfo
    rgb: Bytes
    """(H, W, 3) uint8, upright."""
    is_damaged: bool
    message: str | None
    """What is wrong with the file, or what of it was not read."""


def read_image(path: Path, max_mp: float) -> Picture:
    """Read the first picture of a file.

    EXIF rotation is applied, 16 bits are scaled to 8, transparency is laid over white. Of a
    damaged file, what can be decoded is given and the rest is black.

    Raises:
        MediaError: It is no picture, or has more than ``max_mp`` megapixels; those are not decoded.
    """
    with _open(path) as image:
        if image.width * image.height > max_mp * 1e6:
            size = f"{image.width} x {image.height} pixels"
            limit = f"decode.max_image_mp = {max_mp:g}"
            raise MediaError(f"{path}: {size} are more than {limit} allows", path)
        codec = (image.format or "unknown").lower()
        # The other pictures of a phone's MPO file are previews of the first.
        n_pictures = 1 if codec == "mpo" else getattr(image, "n_frames", 1)
        message = f"the first of {n_pictures} pictures was read" if n_pictures > 1 else None
        damage = _load(image)
        turn = _TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1), 0)
        rgb = _rgb(ImageOps.exif_transpose(image))
    info = MediaInfo(
        width_px=rgb.shape[1],
        height_px=rgb.shape[0],
        rotation_deg=turn,
        frame_rate=None,
        duration_s=None,
        n_frames_container=1,
        codec=codec,
    )
    return Picture(info, rgb, is_damaged=damage is not None, message=damage or message)


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
    """Decode the pixels, as far as they go; says what is wrong with them."""
    try:
        image.load()
    except _BROKEN as error:
        # Without tiles left to decode, Pillow is content with what there is.
        image.tile = []
        image.load()
        return f"the picture is damaged: {error}"
    return None


def _rgb(image: Image.Image) -> Bytes:
    if image.mode.startswith("I"):
        # Pillow itself would clip 16 bits; 65535 / 257 = 255.
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
