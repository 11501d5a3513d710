"""Small pictures that travel inside a page."""

import base64
import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from PIL import Image

from mtcm_nerfstudio.capture.images import UnreadableImageError, read_rgb

_LONGER_SIDE = 224
_QUALITY = 62


def thumbnails(paths: Sequence[Path]) -> list[str | None]:
    """Return each image as a data URI of a JPEG of at most 224 px, None where it cannot be read."""
    with ThreadPoolExecutor() as pool:
        return list(pool.map(_thumbnail, paths))


def _thumbnail(path: Path) -> str | None:
    try:
        with Image.open(path) as image:
            image.draft("RGB", (2 * _LONGER_SIDE, 2 * _LONGER_SIDE))  # JPEGs are decoded at a fraction of their size
            small = image.convert("RGB") if image.format == "JPEG" else read_rgb(path)
            small.thumbnail((_LONGER_SIDE, _LONGER_SIDE))
    except (OSError, ValueError, SyntaxError, UnreadableImageError, Image.DecompressionBombError):
        return None
    data = io.BytesIO()
    small.save(data, format="jpeg", quality=_QUALITY, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(data.getvalue()).decode("ascii")
