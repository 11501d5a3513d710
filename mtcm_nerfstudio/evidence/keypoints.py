"""Keypoints of one image with their descriptors, how blurred and how bright the image is around each, and a thumbnail.

Places are in pixels of an image whose longer side has 1000, the same at every resolution, from its corner. Blur is in
pixels of the stored image (of at most 1600, which is what nerfstudio trains at).
"""

from dataclasses import dataclass, fields
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Bool, Float, Float32, UInt8
from PIL import Image

from mtcm_nerfstudio.capture.images import read_mask, read_rgb

VERSION = "4"
"""Changes whenever the same image gives other keypoints."""
LONGER_SIDE = 1000
"""Unit of places: pixels of an image with this longer side."""
DETECTED_AT, MEASURED_AT = 640, 800
"""Longer sides at which keypoints are found, and at which blur and brightness are measured; smaller images are left as
they are."""
TRAINED_AT = 1600
"""Longer side above which nerfstudio scales images down before it trains."""
MOST_KEYPOINTS = 1000
THUMBNAIL = 64
"""Longer side of the thumbnail."""
GRID = 8
"""Cells along the longer side of an image: GRID × GRID in all, row by row, some of them outside it."""
GLOBAL_STATISTICS = (
    "log blur", "log sharpness", "log detail", "log2 brightness", "log contrast", "dark share", "bright share",
    "log10 keypoints", "log keypoint scale", "log noise",
)  # fmt: skip
"""What ``FrameKeypoints.statistics`` holds: logarithms of the edge width in pixels (0 where too few keypoints tell it),
of detail over contrast, of detail itself (the Laplacian's standard deviation), of the mean linear light (in stops), of
the standard deviation of grey levels; shares of pixels below 8 and above 247; logarithms of the number of keypoints, of
their median scale, of the noise in grey levels."""

_CONTRAST_THRESHOLD = 0.02
_WINDOW = 31
"""Side, in pixels, of the square over which blur and brightness of a keypoint are taken."""
_REBLUR = 1.5
"""Standard deviation, in pixels, of the Gaussian whose effect on an edge tells the edge's width."""
FEWEST_FOR_BLUR = 5
"""Keypoints that tell how wide edges are."""
_NOISE_VARIANCE = 2.0
"""Variance that noise of about one grey level adds to a gradient."""
_SHARPEST, _SOFTEST = 0.3, 12.0
"""Limits of an edge width in pixels: below, the pixel decides; above, the re-blurring."""
_LINEAR = np.power(np.arange(256) / 255.0, 2.2).astype(np.float32)


@dataclass(frozen=True, eq=False)
class FrameKeypoints:
    """Keypoints of one image, those of the largest scale first."""

    points: Float32[np.ndarray, "point 2"]
    """x and y in pixels at a longer side of 1000."""
    descriptors: UInt8[np.ndarray, "described 128"]
    """Of all keypoints, or of none where they come from the cache."""
    log_blur: Float32[np.ndarray, "point 2"]
    """Logarithm of the edge width (standard deviation in pixels) along x and along y, around the keypoint."""
    log_light: Float32[np.ndarray, " point"]
    """Mean linear light around the keypoint in stops below white; NaN where it is clipped."""
    statistics: Float32[np.ndarray, "10"]
    """Of the whole image, see ``GLOBAL_STATISTICS``."""
    thumbnail: UInt8[np.ndarray, "height width 3"]
    width: float
    """Of the image, in pixels at a longer side of 1000."""
    height: float

    def __len__(self) -> int:
        """Return the number of keypoints."""
        return len(self.points)

    @property
    def described(self) -> bool:
        """Whether every keypoint has its descriptor."""
        return len(self.descriptors) == len(self.points)

    def packed(self) -> UInt8[np.ndarray, " byte"]:
        """Put everything but the descriptors into one array, for the cache."""
        head = np.array([len(self), *self.thumbnail.shape[:2], self.width, self.height], dtype=np.float32)
        parts = [head, self.statistics, self.points, self.log_blur, self.log_light]
        numbers = np.concatenate([np.asarray(part, dtype=np.float32).ravel() for part in parts])
        return np.concatenate([np.frombuffer(numbers.tobytes(), dtype=np.uint8), self.thumbnail.ravel()])


def unpack_keypoints(packed: UInt8[np.ndarray, " byte"]) -> FrameKeypoints:
    """Undo ``FrameKeypoints.packed``; there are no descriptors."""
    count, rows, columns = np.frombuffer(packed[:12].tobytes(), dtype=np.float32).astype(int)
    size = 5 + len(GLOBAL_STATISTICS) + 5 * count
    numbers = np.frombuffer(packed[: 4 * size].tobytes(), dtype=np.float32)
    places = np.cumsum([5, len(GLOBAL_STATISTICS), 2 * count, 2 * count])
    head, statistics, points, log_blur, log_light = np.split(numbers, places)
    return FrameKeypoints(
        points=points.reshape(-1, 2),
        descriptors=np.zeros((0, 128), dtype=np.uint8),
        log_blur=log_blur.reshape(-1, 2),
        log_light=log_light,
        statistics=statistics,
        thumbnail=packed[4 * size :].reshape(rows, columns, 3),
        width=float(head[3]),
        height=float(head[4]),
    )


NO_KEYPOINTS = FrameKeypoints(
    points=np.zeros((0, 2), dtype=np.float32),
    descriptors=np.zeros((0, 128), dtype=np.uint8),
    log_blur=np.zeros((0, 2), dtype=np.float32),
    log_light=np.zeros(0, dtype=np.float32),
    statistics=np.full(len(GLOBAL_STATISTICS), np.nan, dtype=np.float32),
    thumbnail=np.zeros((0, 0, 3), dtype=np.uint8),
    width=0.0,
    height=0.0,
)
"""Stands for a frame without an image."""


def find_keypoints(image_path: Path, mask_path: Path | None = None) -> FrameKeypoints:
    """Find an image's keypoints, inside its mask where it has one that can be read.

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
    return keypoints_of(read_rgb(image_path), mask)


def keypoints_of(image: Image.Image, mask: np.ndarray | None = None) -> FrameKeypoints:
    """Find the keypoints of a decoded RGB image; ``mask`` is True where they may lie, at any resolution."""
    full = max(image.size)
    rgb = _resized(image, MEASURED_AT)
    grey = np.asarray(rgb.convert("L"))
    points, scales, descriptors = _sift(grey, mask)
    order = np.argsort(-scales, kind="stable")
    to_trained, unit = min(full, TRAINED_AT) / max(grey.shape), LONGER_SIDE / max(grey.shape)
    column, row = np.clip((points[order] / unit).astype(int), 0, [grey.shape[1] - 1, grey.shape[0] - 1]).T
    edge_width = _edge_widths(grey)[:, row, column].T
    return FrameKeypoints(
        points=points[order].astype(np.float32),
        descriptors=descriptors[order],
        log_blur=np.log(edge_width * to_trained).astype(np.float32),
        log_light=_log_light(grey)[row, column].astype(np.float32),
        statistics=_statistics(grey, edge_width, scales, to_trained),
        thumbnail=_thumbnail(rgb),
        width=LONGER_SIDE * image.width / full,
        height=LONGER_SIDE * image.height / full,
    )


def has_known_blur(log10_keypoints: Float[np.ndarray, " frame"]) -> Bool[np.ndarray, " frame"]:
    """Return which frames have enough keypoints to tell how wide their edges are.

    Args:
        log10_keypoints: see ``GLOBAL_STATISTICS``.
    """
    return log10_keypoints >= np.log10(1.0 + FEWEST_FOR_BLUR) - 1e-6


def cell_of(points: Float[np.ndarray, "point 2"]) -> np.ndarray:
    """Return the cell of the image's grid that each place (in pixels at a longer side of 1000) lies in."""
    cell = np.clip((np.asarray(points) * GRID / LONGER_SIDE).astype(int), 0, GRID - 1)
    return cell[..., 1] * GRID + cell[..., 0]


def _resized(image: Image.Image, longer_side: int) -> Image.Image:
    full = max(image.size)
    if full <= longer_side:
        return image
    size = (max(1, round(image.width * longer_side / full)), max(1, round(image.height * longer_side / full)))
    return image.resize(size, Image.Resampling.BICUBIC, reducing_gap=2.0)


def _sift(
    grey: UInt8[np.ndarray, "h w"], mask: np.ndarray | None
) -> tuple[Float[np.ndarray, "point 2"], Float[np.ndarray, " point"], UInt8[np.ndarray, "point 128"]]:
    """Return places, scales and descriptors of SIFT keypoints (Lowe, 2004), in pixels at a longer side of 1000."""
    scale = min(1.0, DETECTED_AT / max(grey.shape))
    if scale < 1.0:
        size = (max(1, round(grey.shape[1] * scale)), max(1, round(grey.shape[0] * scale)))
        grey = cv2.resize(grey, size, interpolation=cv2.INTER_AREA)
    allowed = np.full(grey.shape, 255, dtype=np.uint8)
    if mask is not None:
        allowed = cv2.resize(mask.astype(np.uint8) * 255, (grey.shape[1], grey.shape[0]))
    sift = cv2.SIFT.create(nfeatures=MOST_KEYPOINTS, contrastThreshold=_CONTRAST_THRESHOLD)
    found, descriptors = sift.detectAndCompute(grey, allowed)
    if descriptors is None or not len(found):
        return np.zeros((0, 2)), np.zeros(0), np.zeros((0, 128), dtype=np.uint8)
    # Keypoints with two directions come twice; OpenCV may give a few more than asked for.
    found, descriptors = found[:MOST_KEYPOINTS], descriptors[:MOST_KEYPOINTS]
    unit = LONGER_SIDE / max(grey.shape)
    points = (np.array([point.pt for point in found]) + 0.5) * unit  # OpenCV's pixel centres are whole numbers
    scales = np.array([point.size for point in found]) * unit
    return points, scales, np.clip(np.round(descriptors), 0, 255).astype(np.uint8)


def _edge_widths(grey: UInt8[np.ndarray, "h w"]) -> Float32[np.ndarray, "2 h w"]:
    """Return the width of the edges about every pixel, along x and along y, as a standard deviation in pixels.

    Re-blurring an edge of width s by σ divides the energy of its gradient by √(s² + σ²) / s (Zhuo and Sim, 2011, for
    energies over a window instead of single pixels).
    """
    values = grey.astype(np.float32)
    reblurred = cv2.GaussianBlur(values, (0, 0), _REBLUR)
    widths = []
    for dx, dy in ((1, 0), (0, 1)):
        before, after = (
            cv2.blur(np.square(cv2.Sobel(image, cv2.CV_32F, dx, dy, ksize=1)), (_WINDOW, _WINDOW))
            for image in (values, reblurred)
        )
        ratio = np.maximum((before - _NOISE_VARIANCE) / np.maximum(after, 0.1), 1.0)
        widths.append(_REBLUR / np.sqrt(np.maximum(ratio * ratio - 1.0, 1e-4)))
    return np.clip(np.stack(widths), _SHARPEST, _SOFTEST)


def _log_light(grey: UInt8[np.ndarray, "h w"]) -> Float32[np.ndarray, "h w"]:
    """Return the mean linear light about every pixel in stops below white; NaN where a good part is clipped."""
    mean = cv2.blur(_LINEAR[grey], (_WINDOW, _WINDOW))
    clipped = cv2.blur((grey > 250).astype(np.float32), (_WINDOW, _WINDOW))
    return np.where(clipped < 0.2, np.log2(mean + 1e-3), np.nan).astype(np.float32)


def _statistics(
    grey: UInt8[np.ndarray, "h w"], edge_width: np.ndarray, scales: np.ndarray, to_trained: float
) -> Float32[np.ndarray, "10"]:
    values = grey.astype(np.float32)
    window = (_WINDOW, _WINDOW)
    laplacian = cv2.Laplacian(values, cv2.CV_32F)
    mean = cv2.blur(values, window)
    # Averages over windows change slowly: every fourth pixel of them is enough.
    deviation = np.sqrt(np.maximum(cv2.blur(values * values, window) - mean * mean, 0.0)[::4, ::4])
    detail = np.sqrt(cv2.blur(laplacian * laplacian, window)[::4, ::4])
    textured = deviation >= np.median(deviation)  # a blank wall tells nothing about sharpness
    # A wall without keypoints is not blurred: its edges cannot be measured.
    widest = np.log(edge_width.max(axis=1) * to_trained) if len(edge_width) >= FEWEST_FOR_BLUR else np.zeros(1)
    # Immerkær (1996): a mask that cancels the image's own structure; the median resists what is left of it.
    noise = np.median(np.abs(cv2.filter2D(values, cv2.CV_32F, _NOISE_MASK)[::2, ::2])) / (6.0 * 0.6745)
    return np.array(
        [
            np.median(widest),
            np.median(np.log((detail + 1.0) / (deviation + 1.0))[textured]),
            np.log(laplacian.std() + 0.5),
            np.log2(_LINEAR[grey].mean() + 1e-3),
            np.log(grey.std() + 1.0),
            (grey < 8).mean(),
            (grey > 247).mean(),
            np.log10(1.0 + len(scales)),
            np.log(np.median(scales)) if len(scales) else np.log(100.0),
            np.log(noise + 0.2),
        ],
        dtype=np.float32,
    )


_NOISE_MASK = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], dtype=np.float32)


def _thumbnail(image: Image.Image) -> UInt8[np.ndarray, "height width 3"]:
    """Return the image at a longer side of ``THUMBNAIL`` pixels, averaged over what each of its pixels covers."""
    scale = THUMBNAIL / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return np.asarray(image.convert("RGB").resize(size, Image.Resampling.BOX, reducing_gap=2.0))


def same_keypoints(first: FrameKeypoints, second: FrameKeypoints) -> bool:
    """Return whether two records hold the same numbers."""
    return all(
        np.array_equal(getattr(first, field.name), getattr(second, field.name), equal_nan=field.name == "log_light")
        for field in fields(FrameKeypoints)
    )
