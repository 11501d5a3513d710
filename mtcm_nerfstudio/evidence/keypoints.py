"""Keypoints of one image with their descriptors, how blurred and how bright the image is around each, and a thumbnail.

Places are in pixels of an image whose longer side has 1000, the same at every resolution, from its corner. Blur around
a keypoint is in pixels of the stored image (of at most 1600, which is what nerfstudio trains at), that of the whole
image in pixels at a longer side of at most 800: whether an image looks blurred does not depend on its file size.
"""

from dataclasses import dataclass, fields
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Bool, Float, Float32, UInt8
from PIL import Image

from mtcm_nerfstudio.capture.images import read_mask, read_rgb

VERSION = "6"
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
"""What ``FrameKeypoints.statistics`` holds: logarithms of the edge width in pixels (see ``_sharpest_edges``), of detail
over contrast, of detail itself (the Laplacian's standard deviation), of the mean linear light (in stops), of the
standard deviation of grey levels; shares of pixels below 8 and above 247; logarithms of the number of keypoints, of
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
_STRONGEST, _SHARPEST_SHARE = 0.2, 0.25
"""Share of the windows with the strongest gradients that tell an image's blur, and the share of these that decides:
what lies before or behind the focus, and what moves by itself, is blurred in good images too."""
_LEAST_ENERGY = 1.0
"""Mean square, in grey levels, of a re-blurred gradient below which a window shows no edge but noise: that of a plain
background, which says nothing about sharpness. Noise of five grey levels stays below."""
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
    training_scale: float
    """Pixels of the stored image (of at most 1600) per pixel in which ``statistics`` measure."""
    thumbnail: UInt8[np.ndarray, "height width 4"]
    """Red, green, blue and the mask: 0 where no keypoint may lie, else 255."""
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
        size = (*self.thumbnail.shape[:2], self.width, self.height)
        head = np.array([len(self), *size, self.training_scale], dtype=np.float32)
        parts = [head, self.statistics, self.points, self.log_blur, self.log_light]
        numbers = np.concatenate([np.asarray(part, dtype=np.float32).ravel() for part in parts])
        return np.concatenate([np.frombuffer(numbers.tobytes(), dtype=np.uint8), self.thumbnail.ravel()])


def unpack_keypoints(packed: UInt8[np.ndarray, " byte"]) -> FrameKeypoints:
    """Undo ``FrameKeypoints.packed``; there are no descriptors."""
    count, rows, columns = np.frombuffer(packed[:12].tobytes(), dtype=np.float32).astype(int)
    size = 6 + len(GLOBAL_STATISTICS) + 5 * count
    numbers = np.frombuffer(packed[: 4 * size].tobytes(), dtype=np.float32)
    places = np.cumsum([6, len(GLOBAL_STATISTICS), 2 * count, 2 * count])
    head, statistics, points, log_blur, log_light = np.split(numbers, places)
    return FrameKeypoints(
        points=points.reshape(-1, 2),
        descriptors=np.zeros((0, 128), dtype=np.uint8),
        log_blur=log_blur.reshape(-1, 2),
        log_light=log_light,
        statistics=statistics,
        training_scale=float(head[5]),
        thumbnail=packed[4 * size :].reshape(rows, columns, 4),
        width=float(head[3]),
        height=float(head[4]),
    )


NO_KEYPOINTS = FrameKeypoints(
    points=np.zeros((0, 2), dtype=np.float32),
    descriptors=np.zeros((0, 128), dtype=np.uint8),
    log_blur=np.zeros((0, 2), dtype=np.float32),
    log_light=np.zeros(0, dtype=np.float32),
    statistics=np.full(len(GLOBAL_STATISTICS), np.nan, dtype=np.float32),
    training_scale=1.0,
    thumbnail=np.zeros((0, 0, 4), dtype=np.uint8),
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
    allowed = _allowed(mask, grey.shape)
    points, scales, descriptors = _sift(grey, allowed)
    order = np.argsort(-scales, kind="stable")
    to_trained, unit = min(full, TRAINED_AT) / max(grey.shape), LONGER_SIDE / max(grey.shape)
    column, row = np.clip((points[order] / unit).astype(int), 0, [grey.shape[1] - 1, grey.shape[0] - 1]).T
    energies = _gradient_energies(grey)
    # A wall without keypoints is not blurred: its edges cannot be measured.
    log_blur = _sharpest_edges(*energies, allowed) if len(points) >= FEWEST_FOR_BLUR else 0.0
    edge_width = _edge_widths(*(one[_ALONG_X_AND_Y][:, row, column] for one in energies)).T
    return FrameKeypoints(
        points=points[order].astype(np.float32),
        descriptors=descriptors[order],
        log_blur=np.log(edge_width * to_trained).astype(np.float32),
        log_light=_log_light(grey)[row, column].astype(np.float32),
        training_scale=to_trained,
        statistics=_statistics(grey, log_blur, scales),
        thumbnail=_thumbnail(rgb, allowed),
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


def _allowed(mask: np.ndarray | None, shape: tuple[int, ...]) -> UInt8[np.ndarray, "h w"]:
    """Return 255 where keypoints may lie, else 0."""
    if mask is None:
        return np.full(shape, 255, dtype=np.uint8)
    return cv2.resize(mask.astype(np.uint8) * 255, shape[::-1], interpolation=cv2.INTER_NEAREST)


def _sift(
    grey: UInt8[np.ndarray, "h w"], allowed: UInt8[np.ndarray, "h w"]
) -> tuple[Float[np.ndarray, "point 2"], Float[np.ndarray, " point"], UInt8[np.ndarray, "point 128"]]:
    """Return places, scales and descriptors of SIFT keypoints (Lowe, 2004), in pixels at a longer side of 1000."""
    scale = min(1.0, DETECTED_AT / max(grey.shape))
    if scale < 1.0:
        size = (max(1, round(grey.shape[1] * scale)), max(1, round(grey.shape[0] * scale)))
        grey = cv2.resize(grey, size, interpolation=cv2.INTER_AREA)
        allowed = cv2.resize(allowed, size, interpolation=cv2.INTER_NEAREST)
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


_DIRECTIONS = tuple(
    np.array(kernel, dtype=np.float32)
    for kernel in (
        [[0, 0, 0], [-1, 0, 1], [0, 0, 0]],
        [[0, -1, 0], [0, 0, 0], [0, 1, 0]],
        np.array([[-1, 0, 0], [0, 0, 0], [0, 0, 1]]) / np.sqrt(2.0),
        np.array([[0, 0, -1], [0, 0, 0], [1, 0, 0]]) / np.sqrt(2.0),
    )
)
"""Central differences along x, along y and along both diagonals, per pixel of distance."""
_ALONG_X_AND_Y = slice(0, 2)


def _gradient_energies(
    grey: UInt8[np.ndarray, "h w"],
) -> tuple[Float32[np.ndarray, "4 h w"], Float32[np.ndarray, "4 h w"]]:
    """Return the mean square of the gradient along each direction about every pixel, before and after re-blurring."""
    values = grey.astype(np.float32)
    before, after = (
        np.stack([cv2.blur(np.square(cv2.filter2D(image, cv2.CV_32F, k)), (_WINDOW, _WINDOW)) for k in _DIRECTIONS])
        for image in (values, cv2.GaussianBlur(values, (0, 0), _REBLUR))
    )
    return before, after


def _edge_widths(before: Float32[np.ndarray, "*n"], after: Float32[np.ndarray, "*n"]) -> Float32[np.ndarray, "*n"]:
    """Return the width of edges, as a standard deviation in pixels.

    Re-blurring an edge of width s by σ divides the energy of its gradient by √(s² + σ²) / s (Zhuo and Sim, 2011, for
    energies over a window instead of single pixels).

    Args:
        before: energies of the gradient.
        after: the same when the image is blurred again.
    """
    ratio = np.maximum((before - _NOISE_VARIANCE) / np.maximum(after, 0.1), 1.0)
    return np.clip(_REBLUR / np.sqrt(np.maximum(ratio * ratio - 1.0, 1e-4)), _SHARPEST, _SOFTEST)


def _sharpest_edges(
    before: Float32[np.ndarray, "4 h w"], after: Float32[np.ndarray, "4 h w"], allowed: UInt8[np.ndarray, "h w"]
) -> float:
    """Return the logarithm of how wide an image's sharpest strong edges are: the mean over directions.

    It is not measured at keypoints: a blurred image has few, in its sharpest places.
    """
    inside = allowed[::4, ::4] > 0
    if not inside.any():
        return 0.0
    logarithms = []
    # Averages over windows change slowly: every fourth pixel of them is enough.
    for one, other in zip(before[:, ::4, ::4], after[:, ::4, ::4], strict=True):
        strength = other[inside]
        strong = strength >= max(float(np.quantile(strength, 1.0 - _STRONGEST)), _LEAST_ENERGY)
        if strong.any():
            width = np.quantile(_edge_widths(one[inside][strong], strength[strong]), _SHARPEST_SHARE)
            logarithms.append(np.log(width))
    return float(np.mean(logarithms)) if logarithms else 0.0


def _log_light(grey: UInt8[np.ndarray, "h w"]) -> Float32[np.ndarray, "h w"]:
    """Return the mean linear light about every pixel in stops below white; NaN where a good part is clipped."""
    mean = cv2.blur(_LINEAR[grey], (_WINDOW, _WINDOW))
    clipped = cv2.blur((grey > 250).astype(np.float32), (_WINDOW, _WINDOW))
    return np.where(clipped < 0.2, np.log2(mean + 1e-3), np.nan).astype(np.float32)


def _statistics(
    grey: UInt8[np.ndarray, "h w"], log_blur: float, scales: Float[np.ndarray, " point"]
) -> Float32[np.ndarray, "10"]:
    values = grey.astype(np.float32)
    window = (_WINDOW, _WINDOW)
    laplacian = cv2.Laplacian(values, cv2.CV_32F)
    mean = cv2.blur(values, window)
    # Averages over windows change slowly: every fourth pixel of them is enough.
    deviation = np.sqrt(np.maximum(cv2.blur(values * values, window) - mean * mean, 0.0)[::4, ::4])
    detail = np.sqrt(cv2.blur(laplacian * laplacian, window)[::4, ::4])
    textured = deviation >= np.median(deviation)  # a blank wall tells nothing about sharpness
    # Immerkær (1996): a mask that cancels the image's own structure; the median resists what is left of it.
    noise = np.median(np.abs(cv2.filter2D(values, cv2.CV_32F, _NOISE_MASK)[::2, ::2])) / (6.0 * 0.6745)
    return np.array(
        [
            log_blur,
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


def _thumbnail(image: Image.Image, allowed: UInt8[np.ndarray, "h w"]) -> UInt8[np.ndarray, "height width 4"]:
    """Return image and mask at a longer side of ``THUMBNAIL`` pixels, averaged over what each of its pixels covers."""
    scale = THUMBNAIL / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    rgb = np.asarray(image.convert("RGB").resize(size, Image.Resampling.BOX, reducing_gap=2.0))
    inside = np.asarray(Image.fromarray(allowed).resize(size, Image.Resampling.BOX)) >= 128
    return np.dstack([rgb, np.where(inside, 255, 0).astype(np.uint8)])


def same_keypoints(first: FrameKeypoints, second: FrameKeypoints) -> bool:
    """Return whether two records hold the same numbers."""
    return all(
        np.array_equal(getattr(first, field.name), getattr(second, field.name), equal_nan=field.name == "log_light")
        for field in fields(FrameKeypoints)
    )
