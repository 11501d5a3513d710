"""Local features of one image: SIFT points with their descriptors, and how sharp and bright the image is around them.

Lengths are in pixels of an image whose longer side has 1000: the same at every resolution.
"""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float, Float32, UInt8
from PIL import Image

from mtcm_nerfstudio.capture.images import read_mask, read_rgb

VERSION = "1"
"""Changes whenever the same image gives other features."""
LONGER_SIDE = 1000
"""Images are scaled down to this; smaller ones are left as they are."""
MOST_POINTS = 1500
GRID = 8
"""Cells along the longer side of an image: GRID × GRID in all, row by row, some of them outside it."""

_CONTRAST = 0.02
_WINDOW = 31
"""Side, in pixels, of the square over which sharpness and brightness of a point are taken."""
_GREY_NOISE = 1.0
"""Standard deviation of the noise, in grey levels, that flat regions are taken to have."""
COARSE = 128
"""Points of the largest scales that tell which images are alike."""


@dataclass(frozen=True, eq=False)
class LocalFeatures:
    """Points of one image, those of the largest scale first."""

    points: Float32[np.ndarray, "point 2"]
    """x and y in pixels of the stored image at a longer side of 1000."""
    descriptors: UInt8[np.ndarray, "described 128"]
    """Of all points, or of the first few only where the features come from the cache."""
    sharpness: Float32[np.ndarray, " point"]
    """Logarithm of fine detail over contrast around the point: falls with blur, hardly changes with exposure."""
    brightness: Float32[np.ndarray, " point"]
    """Logarithm of the mean grey level around the point."""
    overall: Float32[np.ndarray, "6"]
    """Of the whole image, see ``OVERALL``."""
    tones: Float32[np.ndarray, "cell 3"]
    """Logarithms of the mean red, green and blue of each cell of the image, see ``GRID``; NaN outside the image."""
    width: float
    height: float

    def __len__(self) -> int:
        """Return the number of points."""
        return len(self.points)

    @property
    def whole(self) -> bool:
        """Whether every point has its descriptor."""
        return len(self.descriptors) == len(self.points)

    @property
    def coarse_descriptors(self) -> UInt8[np.ndarray, "point 128"]:
        """Descriptors of the points of the largest scales, which survive blur and tell most of what is seen."""
        return self.descriptors[:COARSE]

    def packed(self) -> Float32[np.ndarray, "row 4"]:
        """Put everything but the descriptors into one array, for the cache."""
        sizes = [[self.width, self.height, 0.0, 0.0]]
        overall = np.pad(self.overall, (0, 2)).reshape(-1, 4)
        tones = np.pad(self.tones, ((0, 0), (0, 1)))
        points = np.column_stack([self.points, self.sharpness, self.brightness])
        return np.concatenate([sizes, overall, tones, points]).astype(np.float32)


def unpacked(rows: Float32[np.ndarray, "row 4"], descriptors: UInt8[np.ndarray, "described 128"]) -> LocalFeatures:
    """Undo ``LocalFeatures.packed``."""
    sizes, overall, tones, points = np.split(rows, [1, 3, 3 + GRID * GRID])
    return LocalFeatures(
        points=points[:, :2],
        descriptors=descriptors,
        sharpness=points[:, 2],
        brightness=points[:, 3],
        overall=overall.reshape(-1)[: len(OVERALL)],
        tones=tones[:, :3],
        width=float(sizes[0, 0]),
        height=float(sizes[0, 1]),
    )


OVERALL = ("sharpness", "brightness", "contrast", "dark share", "bright share", "points")
"""What ``LocalFeatures.overall`` holds: logarithms of detail over contrast, of the mean and of the standard deviation
of grey levels; shares of pixels below 8 and above 247; the logarithm of the number of points."""


def extract_features(image_path: Path, mask_path: Path | None = None) -> LocalFeatures:
    """Find an image's local features, inside its mask where it has one that can be read.

    Raises:
        FileNotFoundError: there is no such image.
        UnreadableImageError: it cannot be decoded.
    """
    mask = None
    if mask_path is not None and mask_path.is_file():
        try:
            mask = read_mask(mask_path)
        except ValueError:
            mask = None
    return features_of(read_rgb(image_path), mask)


def features_of(image: Image.Image, mask: np.ndarray | None = None) -> LocalFeatures:
    """Find the local features of a decoded RGB image; ``mask`` is True where points may lie, at any resolution."""
    full = max(image.size)
    grey_image = image.convert("L")
    if full > LONGER_SIDE:
        scale = LONGER_SIDE / full
        size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        grey_image = grey_image.resize(size, Image.Resampling.BICUBIC, reducing_gap=2.0)
    grey = np.asarray(grey_image)
    allowed = np.full(grey.shape, 255, dtype=np.uint8)
    if mask is not None:
        allowed = cv2.resize(mask.astype(np.uint8) * 255, (grey.shape[1], grey.shape[0]))
    points, scales, descriptors = _sift(grey, allowed)
    order = np.argsort(-scales, kind="stable")
    detail, mean, deviation = _local_statistics(grey)
    column = np.clip(np.round(points[:, 0]).astype(int), 0, grey.shape[1] - 1)
    row = np.clip(np.round(points[:, 1]).astype(int), 0, grey.shape[0] - 1)
    unit = LONGER_SIDE / max(grey.shape)
    return LocalFeatures(
        points=(points[order] * unit).astype(np.float32),
        descriptors=descriptors[order],
        sharpness=_log_ratio(detail, deviation)[row, column][order],
        brightness=np.log(mean + 1.0)[row, column][order],
        overall=_overall(grey, detail, deviation, len(points)),
        tones=_tones(image),
        width=LONGER_SIDE * image.width / full,
        height=LONGER_SIDE * image.height / full,
    )


def _sift(
    grey: UInt8[np.ndarray, "h w"], allowed: UInt8[np.ndarray, "h w"]
) -> tuple[Float[np.ndarray, "point 2"], Float[np.ndarray, " point"], UInt8[np.ndarray, "point 128"]]:
    found, descriptors = cv2.SIFT.create(nfeatures=MOST_POINTS, contrastThreshold=_CONTRAST).detectAndCompute(
        grey, allowed
    )
    if descriptors is None or not len(found):
        return np.zeros((0, 2)), np.zeros(0), np.zeros((0, 128), dtype=np.uint8)
    # Points with two directions come twice; OpenCV may give a few more than asked for.
    found, descriptors = found[:MOST_POINTS], descriptors[:MOST_POINTS]
    points = np.array([point.pt for point in found])
    scales = np.array([point.size for point in found])
    return points, scales, np.clip(np.round(descriptors), 0, 255).astype(np.uint8)


def _local_statistics(
    grey: UInt8[np.ndarray, "h w"],
) -> tuple[Float32[np.ndarray, "h w"], Float32[np.ndarray, "h w"], Float32[np.ndarray, "h w"]]:
    """Return root mean square of the Laplacian, mean and standard deviation of the grey levels in a window."""
    values = grey.astype(np.float32)
    window = (_WINDOW, _WINDOW)
    mean = cv2.blur(values, window)
    variance = np.maximum(cv2.blur(values * values, window) - mean * mean, 0.0)
    laplacian = cv2.Laplacian(values, cv2.CV_32F)
    return np.sqrt(cv2.blur(laplacian * laplacian, window)), mean, np.sqrt(variance)


def _log_ratio(detail: np.ndarray, deviation: np.ndarray) -> Float32[np.ndarray, "h w"]:
    return np.log((detail + _GREY_NOISE) / (deviation + _GREY_NOISE)).astype(np.float32)


def _overall(
    grey: UInt8[np.ndarray, "h w"],
    detail: Float32[np.ndarray, "h w"],
    deviation: Float32[np.ndarray, "h w"],
    points: int,
) -> Float32[np.ndarray, "6"]:
    # The textured half of the image decides how sharp it is: a blank wall says nothing.
    textured = deviation >= np.median(deviation)
    return np.array(
        [
            np.median(_log_ratio(detail, deviation)[textured]),
            np.log(grey.mean() + 1.0),
            np.log(grey.std() + 1.0),
            (grey < 8).mean(),
            (grey > 247).mean(),
            np.log1p(points),
        ],
        dtype=np.float32,
    )


def _tones(image: Image.Image) -> Float32[np.ndarray, "cell 3"]:
    """Return the mean colour of each cell."""
    cell = 16
    scale = GRID * cell / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    small = np.asarray(image.resize(size, Image.Resampling.BOX, reducing_gap=2.0), dtype=np.float32)
    row, column = np.indices(small.shape[:2]) // cell
    place = (row * GRID + column).ravel()
    count = np.bincount(place, minlength=GRID * GRID)
    sums = [np.bincount(place, small[..., channel].ravel(), GRID * GRID) for channel in range(3)]
    with np.errstate(invalid="ignore"):
        return np.log(np.stack(sums, axis=1) / np.where(count, count, np.nan)[:, None] + 4.0).astype(np.float32)
