"""Where pictures show a face from the front, by the cascade that comes with OpenCV (Lienhart and Maydt, 2002)."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from mtcm_nerfstudio.capture.capture import Frame
from mtcm_nerfstudio.capture.images import thumbnail
from mtcm_nerfstudio.geometry.bearings import bearings_from_pixels, has_bearings
from mtcm_nerfstudio.tokens.cache import Cache

_KIND = f"face:1:{cv2.__version__}"
_CASCADE = "haarcascade_frontalface_alt2.xml"
_SIDE = 240
_UNIT = 1000.0
"""Longer side, in pixels, that places in the cache refer to."""
_SMALLEST = 20
"""Pixels of 240 that a face is wide at least."""
_STEP, _AGREEING = 1.15, 5
"""Step of the sizes that are tried, and overlapping finds that make a face."""


def face_directions(frames: Sequence[Frame], cache: Cache) -> Float[np.ndarray, "frame 2"]:
    """Return x/z and y/z (OpenCV axes) of the direction in which each frame shows its largest frontal face.

    NaN where there is none, where the image cannot be read, and where the lens is not known.
    """
    there = {i: cache.content_digest(frame.image_path) for i, frame in enumerate(frames) if frame.image_path.is_file()}
    places = {i: known for i, digest in there.items() if (known := cache.get(_KIND, digest)) is not None}
    unknown = [i for i in there if i not in places]
    if _cascade() is None:
        unknown = []
    with ThreadPoolExecutor() as pool:
        fresh = dict(zip(unknown, pool.map(lambda i: _face(frames[i].image_path), unknown), strict=True))
    cache.put_many(_KIND, {there[i]: place for i, place in fresh.items()})
    out = np.full((len(frames), 2), np.nan)
    for i, place in {**places, **fresh}.items():
        intrinsics = frames[i].intrinsics
        if intrinsics is None or not has_bearings(intrinsics) or not np.isfinite(place).all():
            continue
        pixel = place[None] * max(intrinsics.width, intrinsics.height) / _UNIT
        bearing = bearings_from_pixels(pixel, intrinsics)[0]
        if bearing[2] > 0:
            out[i] = bearing[:2] / bearing[2]
    return out


def _cascade() -> Path | None:
    """Return the file that tells what a face is, or None where this OpenCV has none: not every build does."""
    try:
        from cv2.data import haarcascades
    except ImportError:
        return None
    file = Path(haarcascades) / _CASCADE
    return file if hasattr(cv2, "CascadeClassifier") and file.is_file() else None


def _face(path: Path) -> Float[np.ndarray, "2"]:
    """Return the middle of the largest face, in pixels at a longer side of 1000; NaN where there is none."""
    image = thumbnail(path, _SIDE)
    if image is None:
        return np.full(2, np.nan)
    return largest_face(np.asarray(image.convert("L"))) * (_UNIT / max(image.size))


def largest_face(grey: UInt8[np.ndarray, "height width"]) -> Float[np.ndarray, "2"]:
    """Return the middle of the largest frontal face in pixels (x, y), NaN where there is none."""
    cascade = cv2.CascadeClassifier(str(_cascade()))  # not to be shared between threads
    boxes = np.array(cascade.detectMultiScale(grey, _STEP, _AGREEING, minSize=(_SMALLEST, _SMALLEST))).reshape(-1, 4)
    if not len(boxes):
        return np.full(2, np.nan)
    # Of equally large ones the first from the left: their order depends on the number of threads.
    x, y, width, height = max(boxes.tolist(), key=lambda box: (box[2], -box[0], -box[1]))
    return np.array([x + 0.5 * width, y + 0.5 * height])
