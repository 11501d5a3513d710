"""Linear light of images, for the benchmarks' corruptions: there and back, and what is done to it."""

from typing import TypeAlias

import cv2
import numpy as np
from jaxtyping import Float, Float32
from PIL import Image

Linear: TypeAlias = Float32[np.ndarray, "h w 3"]
"""Linear light; 1 is the brightest value that is stored."""


def _srgb_decoded(values: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Return linear light of sRGB values in [0, 1] (IEC 61966-2-1)."""
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def _srgb_encoded(light: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Undo ``_srgb_decoded``."""
    return np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)


LINEAR_OF_SRGB = _srgb_decoded(np.arange(256) / 255.0).astype(np.float32)
_SRGB_OF_LINEAR = (255.0 * _srgb_encoded(np.arange(65536) / 65535.0)).astype(np.float32)


def to_linear(image: Image.Image) -> Linear:
    return LINEAR_OF_SRGB[np.asarray(image.convert("RGB"))]


def to_image(linear: Linear, rng: np.random.Generator) -> Image.Image:
    """Clip and store light, with the rounding of a camera's last bit: noise of at most one level."""
    stored = _SRGB_OF_LINEAR[np.round(65535.0 * np.clip(linear, 0.0, 1.0)).astype(np.uint16)]
    stored += rng.uniform(0.0, 1.0) * rng.standard_normal(stored.shape, dtype=np.float32)
    return Image.fromarray(np.clip(np.round(stored), 0, 255).astype(np.uint8))


def restore_highlights(linear: Linear, rng: np.random.Generator) -> Linear:
    """Return light in which clipped pixels are up to 2.5 times as bright as stored, as lamps and sky really are."""
    clipped = np.clip((linear.min(axis=2, keepdims=True) - 0.85) / 0.15, 0.0, 1.0)
    return linear * (1.0 + np.float32(rng.uniform(0.0, 1.5)) * clipped)


def filtered(linear: Linear, kernel: Float32[np.ndarray, "side side"]) -> Linear:
    return cv2.filter2D(linear, -1, kernel, borderType=cv2.BORDER_REFLECT_101)


def blurred(light: Float32[np.ndarray, "h w *c"], sigma_px: float) -> Float32[np.ndarray, "h w *c"]:
    """Blur by a Gaussian; a wide one at a resolution at which it is two to four pixels wide."""
    if sigma_px < 4.0:
        return cv2.GaussianBlur(light, (0, 0), max(sigma_px, 0.3))
    size = (light.shape[1], light.shape[0])
    coarse = (max(1, round(2.0 * size[0] / sigma_px)), max(1, round(2.0 * size[1] / sigma_px)))
    small = cv2.GaussianBlur(cv2.resize(light, coarse, interpolation=cv2.INTER_AREA), (0, 0), 2.0)
    return cv2.resize(small, size, interpolation=cv2.INTER_CUBIC)


def warp_about(linear: Linear, centre: tuple[float, float], angle_degrees: float, zoom: float) -> Linear:
    """Turn and zoom an image about a point, given as x and y in pixels."""
    matrix = cv2.getRotationMatrix2D(centre, angle_degrees, zoom)
    size = (linear.shape[1], linear.shape[0])
    return cv2.warpAffine(linear, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)


def log_uniform(low: float, high: float, rng: np.random.Generator) -> float:
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))
