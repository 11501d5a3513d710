"""Image corruptions: motion blur, defocus, exposure, occluder, image of another capture.

Sizes are shares of the image, so a fault looks the same at any resolution. Exposure acts on linear light, as in a
camera; blur too, or now and then on the stored values, as where a program blurs. Severity runs from 0, a fault that a
careful person would just drop the frame for, to 1, a gross one.
"""

from typing import Literal

import cv2
import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image, ImageOps
from typing_extensions import assert_never

ImageFaultKind = Literal["motion_blur", "defocus", "exposure", "occluder"]

_GAMMA = 2.2
_TO_LINEAR = ((np.arange(256) / 255.0) ** _GAMMA).astype(np.float32)
_OF_LIGHT = 0.7
"""Share of blurs that act on light."""
_FIELD_SIZE = 96
"""Longer side, in cells, of the coarse grid that an occluder's outline and texture are drawn on."""
_SHAPES, _LOOKS = (0.4, 0.35, 0.25), (0.6, 0.2, 0.2)
"""How often an occluder is a lump, a person or a panel; and is made of cloth, of one colour, or printed."""


def apply_image_fault(
    image: Image.Image, kind: ImageFaultKind, severity: float, rng: np.random.Generator
) -> Image.Image:
    """Return the image with a fault.

    Args:
        image: RGB, any size.
        kind: which fault.
        severity: in [0, 1]. Motion blur: 0.8% to 4.8% of the longer side; defocus: a disc of radius 0.4% to 2%, or
            the Gaussian that spreads as far; exposure: 0.8 to 3 stops too dark or 0.7 to 2.3 too bright; occluder:
            10% to 45% of the image.
        rng: decides direction, sign, shape, place, texture and what is blurred.

    Raises:
        ValueError: ``severity`` lies outside [0, 1].
    """
    if not 0.0 <= severity <= 1.0:
        raise ValueError(f"severity must lie in [0, 1], got {severity}")
    pixels = np.asarray(image.convert("RGB"))
    match kind:
        case "motion_blur":
            kernel = line_kernel(0.008 * 6.0**severity * max(image.size), rng.uniform(0.0, np.pi))
            faulty = blurred(pixels, kernel, of_light=rng.random() < _OF_LIGHT)
        case "defocus":
            shape = disc_kernel if rng.random() < 0.5 else gaussian_kernel
            faulty = blurred(pixels, shape(0.004 * 5.0**severity * max(image.size)), of_light=rng.random() < _OF_LIGHT)
        case "exposure":
            dark = rng.random() < 0.5
            faulty = exposed(pixels, -(0.8 + 2.2 * severity) if dark else 0.7 + 1.6 * severity)
        case "occluder":
            faulty = occluded(pixels, 0.10 * 4.5**severity, rng)
        case _:
            assert_never(kind)
    return Image.fromarray(faulty)


def foreign_image(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Return another capture's image, cropped at the middle and resized to ``size`` (width, height)."""
    return ImageOps.fit(image.convert("RGB"), size, Image.Resampling.BICUBIC)


def blurred(
    pixels: UInt8[np.ndarray, "h w 3"], kernel: Float32[np.ndarray, "side side"], of_light: bool = True
) -> UInt8[np.ndarray, "h w 3"]:
    """Convolve with a kernel whose weights sum to 1: the light that fell on the sensor, or the stored values."""
    if not of_light:
        return cv2.filter2D(pixels, -1, kernel, borderType=cv2.BORDER_REFLECT_101)
    light = cv2.filter2D(_TO_LINEAR[pixels], -1, kernel, borderType=cv2.BORDER_REFLECT_101)
    return np.round(255.0 * np.clip(light, 0.0, 1.0) ** (1.0 / _GAMMA)).astype(np.uint8)


def exposed(pixels: UInt8[np.ndarray, "h w 3"], stops: float) -> UInt8[np.ndarray, "h w 3"]:
    """Multiply the light by 2^stops; what is brighter than white is clipped."""
    table = np.clip(_TO_LINEAR * 2.0**stops, 0.0, 1.0) ** (1.0 / _GAMMA)
    return np.round(255.0 * table).astype(np.uint8)[pixels]


def occluded(pixels: UInt8[np.ndarray, "h w 3"], share: float, rng: np.random.Generator) -> UInt8[np.ndarray, "h w 3"]:
    """Cover a share of the image with a shape: plain, textured or printed, its edge sharp or out of focus."""
    height, width = pixels.shape[:2]
    rows = max(8, round(_FIELD_SIZE * height / max(height, width)))
    columns = max(8, round(_FIELD_SIZE * width / max(height, width)))
    shape = (_blob, _figure, _panel)[int(rng.choice(3, p=_SHAPES))]
    look = (_texture, _plain, _print)[int(rng.choice(3, p=_LOOKS))]
    outline = shape(rows, columns, rng)
    level = np.quantile(outline, share)
    softness = rng.uniform(0.01, 0.06) * float(outline.std()) + 1e-6
    size = (width, height)
    alpha = np.clip(0.5 + (level - cv2.resize(outline, size, interpolation=cv2.INTER_CUBIC)) / softness, 0.0, 1.0)
    texture = cv2.resize(look(rows, columns, rng), size, interpolation=cv2.INTER_CUBIC)
    covered = pixels + alpha[..., None].astype(np.float32) * (np.clip(texture, 0.0, 255.0) - pixels)
    return np.round(covered).astype(np.uint8)


def line_kernel(length_px: float, angle_radians: float) -> Float32[np.ndarray, "side side"]:
    """Return a blur kernel that is a line through its middle: weights sum to 1, subpixel in length and angle."""
    half = 0.5 * max(length_px - 1.0, 0.0)
    reach = int(np.ceil(half)) + 1
    kernel = np.zeros((2 * reach + 1, 2 * reach + 1), dtype=np.float32)
    along = np.linspace(-half, half, 4 * reach + 1)
    x, y = along * np.cos(angle_radians) + reach, along * np.sin(angle_radians) + reach
    left, top = np.floor(x).astype(int), np.floor(y).astype(int)
    for column, row in ((0, 0), (1, 0), (0, 1), (1, 1)):
        weight = np.abs(1 - column - (x - left)) * np.abs(1 - row - (y - top))
        np.add.at(kernel, (np.minimum(top + row, 2 * reach), np.minimum(left + column, 2 * reach)), weight)
    return kernel / kernel.sum()


def gaussian_kernel(radius_px: float) -> Float32[np.ndarray, "side side"]:
    """Return a Gaussian blur kernel with the variance of a disc of this radius; weights sum to 1."""
    sigma = 0.5 * radius_px
    line = cv2.getGaussianKernel(2 * int(np.ceil(3.0 * sigma)) + 1, sigma, ktype=cv2.CV_32F)
    return line @ line.T


def disc_kernel(radius_px: float) -> Float32[np.ndarray, "side side"]:
    """Return a blur kernel that is a disc with a one-pixel soft edge; weights sum to 1."""
    reach = int(np.ceil(radius_px)) + 1
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    disc = np.clip(radius_px + 0.5 - np.hypot(x, y), 0.0, 1.0).astype(np.float32)
    return disc / disc.sum()


def _blob(rows: int, columns: int, rng: np.random.Generator) -> Float32[np.ndarray, "rows columns"]:
    """Return a field whose level sets are lumpy ellipses around a random point: a hand, a bag, a lamp post."""
    y, x = _grid(rows, columns, rng)
    angle = rng.uniform(0.0, np.pi)
    along = x * np.cos(angle) + y * np.sin(angle)
    across = (y * np.cos(angle) - x * np.sin(angle)) * rng.uniform(1.0, 2.5)
    bearing = np.arctan2(across, along)
    lumps = sum(
        rng.uniform(-0.15, 0.15) * np.cos(order * bearing + rng.uniform(0.0, 2 * np.pi)) for order in range(2, 6)
    )
    return (np.hypot(along, across) * (1.0 + lumps)).astype(np.float32)


def _figure(rows: int, columns: int, rng: np.random.Generator) -> Float32[np.ndarray, "rows columns"]:
    """Return a field whose level sets look like a passer-by: a head on shoulders that widen to the lower edge."""
    y, x = _grid(rows, columns, rng)
    lean = rng.uniform(-0.2, 0.2)
    head = np.hypot(x - lean * y, 0.8 * (y + 0.45)) / 0.45
    width = np.clip(0.35 + 0.4 * (y + 0.1), 0.2, 0.9)
    body = np.maximum(np.abs(x - lean * y) / width, -2.5 * (y + 0.1))
    return np.minimum(head, body).astype(np.float32)


def _panel(rows: int, columns: int, rng: np.random.Generator) -> Float32[np.ndarray, "rows columns"]:
    """Return a field whose level sets are rectangles: a book, a phone, a sign, somebody's back."""
    y, x = _grid(rows, columns, rng)
    angle = rng.normal(0.0, 0.15)
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    return np.maximum(np.abs(along), rng.uniform(0.6, 1.7) * np.abs(across)).astype(np.float32)


def _grid(rows: int, columns: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return coordinates in units of half the longer side, measured from a random point of the image."""
    y, x = np.mgrid[0:rows, 0:columns].astype(np.float32)
    half = 0.5 * max(rows, columns)
    return (y - rng.uniform(0.15, 0.85) * rows) / half, (x - rng.uniform(0.1, 0.9) * columns) / half


def _texture(rows: int, columns: int, rng: np.random.Generator) -> Float32[np.ndarray, "rows columns 3"]:
    """Return cloth-like colours: one tone, mostly dark, with soft shading, fine mottling and now and then stripes."""
    tone = rng.uniform(10.0, 150.0) * rng.uniform(0.5, 1.0, 3)
    coarse = cv2.resize(rng.standard_normal((4, 4)).astype(np.float32), (columns, rows), interpolation=cv2.INTER_CUBIC)
    fine = rng.standard_normal((rows, columns)).astype(np.float32)
    shade = 1.0 + rng.uniform(0.1, 0.4) * coarse + rng.uniform(0.02, 0.15) * fine
    if rng.random() < 0.4:
        y, x = np.mgrid[0:rows, 0:columns]
        angle, period = rng.uniform(0.0, np.pi), rng.uniform(3.0, 12.0)
        shade += rng.uniform(0.1, 0.4) * np.sin(2 * np.pi * (x * np.cos(angle) + y * np.sin(angle)) / period)
    return (shade[..., None] * tone).astype(np.float32)


def _plain(rows: int, columns: int, rng: np.random.Generator) -> Float32[np.ndarray, "rows columns 3"]:
    """Return one colour, from black to white, with a faint shade across it."""
    y, x = np.mgrid[0:rows, 0:columns] / max(rows, columns)
    shade = 1.0 + rng.uniform(-0.15, 0.15) * x + rng.uniform(-0.15, 0.15) * y
    return (shade[..., None] * rng.uniform(0.0, 240.0) * rng.uniform(0.7, 1.0, 3)).astype(np.float32)


def _print(rows: int, columns: int, rng: np.random.Generator) -> Float32[np.ndarray, "rows columns 3"]:
    """Return overlapping rectangles of many colours: a poster, a patterned shirt, a car's side. It has corners."""
    print_ = np.tile(rng.uniform(20.0, 235.0, 3).astype(np.float32), (rows, columns, 1))
    for _ in range(int(rng.integers(20, 120))):
        height, width = rng.integers(1, max(rows // 4, 2)), rng.integers(1, max(columns // 4, 2))
        top, left = rng.integers(rows), rng.integers(columns)
        print_[top : top + height, left : left + width] = rng.uniform(0.0, 255.0, 3)
    return print_
