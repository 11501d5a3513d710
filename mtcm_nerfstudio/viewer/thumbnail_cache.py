"""The frames' images in the sizes that a viewer wants, made once, and turned as training sees them: as stored."""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from mtcm_nerfstudio.capture.images import jpeg_bytes, thumbnail
from mtcm_nerfstudio.viewer.colours import Rgb

_QUALITY = 80
_IN_MEMORY = 1024


class ThumbnailCache:
    """Small versions of images by the frame's index; those asked for last stay in memory."""

    def __init__(self, paths: Sequence[Path]) -> None:
        """Take the images' paths; none is opened yet."""
        self._paths = tuple(paths)
        self.jpeg = lru_cache(maxsize=_IN_MEMORY)(self._jpeg)
        self._small = lru_cache(maxsize=_IN_MEMORY)(self._read)

    def framed(self, index: int, side: int, colour: Rgb, crossed: bool) -> np.ndarray | None:
        """Return an image in a frame of a colour, crossed out or not, as uint8; None where it cannot be read."""
        image = self._small(index, side)
        if image is None:
            return None
        image = image.copy()
        width = max(2, max(image.size) // 16)
        draw = ImageDraw.Draw(image)
        if crossed:
            ends = [(0, 0), image.size], [(image.width, 0), (0, image.height)]
            for line in ends:
                draw.line([tuple(end) for end in line], fill=colour, width=max(1, width // 2))
        draw.rectangle([0, 0, image.width - 1, image.height - 1], outline=colour, width=width)
        return np.array(image)

    def _read(self, index: int, side: int) -> Image.Image | None:
        return thumbnail(self._paths[index], side)

    def _jpeg(self, index: int, side: int) -> bytes | None:
        """Return an image as a JPEG of a longer side in px, None where it cannot be read."""
        image = self._read(index, side)
        return None if image is None else jpeg_bytes(image, _QUALITY)
