"""Small pictures that travel inside a page."""

import base64
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from mtcm_nerfstudio.capture.images import jpeg_bytes, thumbnail

_LONGER_SIDE = 224
_QUALITY = 62


def thumbnails(paths: Sequence[Path]) -> list[str | None]:
    """Return each image as a data URI of a JPEG of at most 224 px, None where it cannot be read."""
    with ThreadPoolExecutor() as pool:
        return list(pool.map(_data_uri, paths))


def _data_uri(path: Path) -> str | None:
    image = thumbnail(path, _LONGER_SIDE)
    if image is None:
        return None
    return "data:image/jpeg;base64," + base64.b64encode(jpeg_bytes(image, _QUALITY)).decode("ascii")
