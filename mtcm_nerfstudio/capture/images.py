"""Reading image files: pixels, masks, and what EXIF says about when and how a photo was taken."""

import io
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from jaxtyping import Bool
from PIL import ExifTags, Image

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp"})

FULL_FRAME_DIAGONAL_MM = 43.2666
"""Diagonal of the 36 × 24 mm frame that 35-mm-equivalent focal lengths refer to."""

_UNREADABLE = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)
"""What Pillow raises for files that are no images, or damaged ones."""


class UnreadableImageError(ValueError):
    """The image file is there but cannot be decoded."""


@dataclass(frozen=True)
class ExifFacts:
    """EXIF metadata of an image; None where a tag is absent."""

    timestamp: float | None = None
    """Seconds since 1970 of the camera's own clock, read as if it ran in UTC."""
    focal_over_diagonal: float | None = None
    """From the 35-mm-equivalent focal length (unitless)."""


def read_rgb(path: Path) -> Image.Image:
    """Read and decode an image as RGB, as it is stored: EXIF orientation is not applied.

    Intrinsics and poses refer to the stored pixels, so turning them would tear the two apart.

    Raises:
        FileNotFoundError: there is no such file.
        UnreadableImageError: the file is damaged, cut short or no image.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such image")
    try:
        with Image.open(path) as image:
            return _eight_bit(image).convert("RGB")
    except _UNREADABLE as error:
        raise UnreadableImageError(f"{path}: cannot be decoded ({error})") from error


def thumbnail(path: Path, longer_side: int) -> Image.Image | None:
    """Return an image scaled down to a longer side in pixels, as it is stored; None where it cannot be read."""
    try:
        with Image.open(path) as image:
            if image.format == "JPEG":
                image.draft("RGB", (2 * longer_side, 2 * longer_side))  # decoded at a fraction of its size
            small = _eight_bit(image).convert("RGB")
            small.thumbnail((longer_side, longer_side))
            return small
    except _UNREADABLE:
        return None


def jpeg_bytes(image: Image.Image, quality: int) -> bytes:
    """Encode an image as a JPEG."""
    data = io.BytesIO()
    image.save(data, format="jpeg", quality=quality, optimize=True)
    return data.getvalue()


def _eight_bit(image: Image.Image) -> Image.Image:
    """Scale 16-bit grey to 8 bits; Pillow's own conversion clips it to white."""
    if not image.mode.startswith("I"):
        return image
    return Image.fromarray(np.clip(np.asarray(image, dtype=np.float64) / 257.0, 0, 255).round().astype(np.uint8))


def image_size(path: Path) -> tuple[int, int] | None:
    """Return (width, height) in pixels from the image's header, or None where it has none to read."""
    try:
        with Image.open(path) as image:
            return image.size
    except _UNREADABLE:
        return None


def read_mask(path: Path) -> Bool[np.ndarray, "height width"]:
    """Read a mask: True where it is brighter than half (or opaque, when it is an alpha channel alone).

    Raises:
        FileNotFoundError: there is no such file.
        UnreadableImageError: the file is damaged or no image.
    """
    return np.asarray(read_rgb(path).convert("L")) > 127


def mask_area(path: Path) -> float:
    """Return the share of the image that the mask marks, in [0, 1]. Raises as ``read_mask`` does."""
    return float(read_mask(path).mean())


def mask_beside(root: Path, file_path: str) -> Path | None:
    """Find the mask of ``images/0001.jpg`` in ``masks/`` where the capture has one without listing it.

    The names in use are ``masks/0001.png``, ``masks/0001_mask.png`` and COLMAP's ``masks/0001.jpg.png``.
    """
    path = PurePosixPath(file_path)
    within = PurePosixPath(*path.parts[1:]) if len(path.parts) > 1 else path
    names = (within.with_suffix(".png"), within.with_name(f"{within.stem}_mask.png"), f"{within}.png")
    return next((root / "masks" / name for name in names if (root / "masks" / name).is_file()), None)


def list_images(folder: Path) -> list[Path]:
    """List the photos below a folder, sorted by path.

    Hidden files (``._img.png``) are no photos, nor is what lies in a folder that tools keep beside photos: masks,
    depth maps, smaller copies, and MTCM's own.
    """
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in IMAGE_SUFFIXES and not _is_set_aside(path.relative_to(folder))
    )


def _is_set_aside(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts) or bool(
        path.parts[:-1] and re.fullmatch(r"masks|depths?|mtcm|(images|masks|depths)_\d+", path.parts[0])
    )


def read_exif(path: Path) -> ExifFacts:
    """Read time and focal length from an image's EXIF block; a file without one, or broken, gives no facts."""
    try:
        with Image.open(path) as image:
            # Asked for EXIF that is not in front of its pixels, a PNG is decoded whole to look behind them.
            if image.format == "PNG" and "exif" not in image.info:
                return ExifFacts()
            details = image.getexif().get_ifd(ExifTags.IFD.Exif)
    except _UNREADABLE:
        return ExifFacts()
    return ExifFacts(_exif_timestamp(details), _focal_share(details.get(ExifTags.Base.FocalLengthIn35mmFilm)))


def parse_exif_date(text: str, subseconds: str = "") -> float | None:
    """Turn an EXIF date (``2024:05:31 12:00:00``; ISO 8601 is read too) into seconds, or None if it is no date."""
    cleaned = text.strip().strip("\0").replace("T", " ")
    date, _, clock = cleaned.partition(" ")
    try:
        moment = datetime.fromisoformat(f"{date.replace(':', '-')} {clock.replace('Z', '')}".strip())
    except ValueError:
        return None
    fraction = subseconds.strip().strip("\0")
    return moment.replace(tzinfo=moment.tzinfo or timezone.utc).timestamp() + (
        float(f"0.{fraction}") if fraction.isdecimal() else 0.0
    )


def _exif_timestamp(details: Mapping[int, Any]) -> float | None:
    for date_tag, fraction_tag in (
        (ExifTags.Base.DateTimeOriginal, ExifTags.Base.SubsecTimeOriginal),
        (ExifTags.Base.DateTimeDigitized, ExifTags.Base.SubsecTimeDigitized),
    ):
        text = details.get(date_tag)
        if isinstance(text, str) and (seconds := parse_exif_date(text, str(details.get(fraction_tag, "")))) is not None:
            return seconds
    return None


def _focal_share(focal_35mm: Any) -> float | None:
    try:
        focal = float(focal_35mm)
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    return focal / FULL_FRAME_DIAGONAL_MM if focal > 0 else None
