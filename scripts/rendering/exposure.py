"""The exposure of each frame: fixed, or automatic by a centre-weighted meter; white balance; noise by gain."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float
from scipy.ndimage import gaussian_filter1d

from rendering.paths import smooth_noise
from rendering.raycast import Camera, Stage

Metering = Literal["fixed", "automatic"]

_SMOOTHING = 1.5
"""Deviation, in frames, of the smoothing of the metered brightness in time."""

_MOST_STOPS = 3.0
"""Limit of the gain's deviation from its mean over the capture."""


@dataclass(frozen=True)
class ExposureSettings:
    """How a camera exposes."""

    metering: Metering = "fixed"
    adaptation: float = 1.0
    """Share of a change of brightness, in stops, that the gain makes up for."""
    spot: float = 0.5
    """Deviation of the meter's weight about the centre, in halves of the picture's sides."""
    white_balance_drift: float = 0.0
    """Deviation of the logarithm of the red and the blue gain along the path."""


def preview_camera(focal_over_width: float) -> Camera:
    """Return a camera of the same field of view with few pixels, for metering."""
    return Camera(32, 24, focal_over_width * 32, 16.0, 12.0)


def metered(picture: Float[np.ndarray, "height width 3"], spot: float) -> float:
    """Return the mean brightness of a linear picture, weighted towards its centre."""
    height, width = picture.shape[:2]
    y, x = np.linspace(-1, 1, height)[:, None], np.linspace(-1, 1, width)[None, :]
    weight = np.exp(-0.5 * (x**2 + y**2) / spot**2)
    # One lamp or a piece of sky must not decide: what is far above the median counts as four times the median.
    brightness = picture.mean(axis=2)
    brightness = np.minimum(brightness, 4.0 * np.median(brightness) + 1e-4)
    return float((weight * brightness).sum() / weight.sum())


def metered_path(
    stages: list[Stage], c2w: Float[np.ndarray, "frame 4 4"], focal_over_width: float, spot: float
) -> Float[np.ndarray, " frame"]:
    """Return the metered brightness of each frame, each in its own stage."""
    camera = preview_camera(focal_over_width)
    return np.array(
        [metered(stage.render(pose, camera, supersampling=1)[0], spot) for stage, pose in zip(stages, c2w, strict=True)]
    )


def automatic_gain(
    light: Float[np.ndarray, " frame"],
    target: float,
    adaptation: float,
    in_second_session: Bool[np.ndarray, " frame"],
) -> Float[np.ndarray, " frame"]:
    """Return gains that bring the metered brightness to ``target``, smoothed in time within each session."""
    stops = np.log2(np.maximum(light, 1e-4))
    smooth = np.empty(len(stops))
    for session in (in_second_session, ~in_second_session):
        if session.any():
            smooth[session] = gaussian_filter1d(stops[session], _SMOOTHING, mode="nearest")
    mean = float(smooth.mean())
    deviation = np.clip(adaptation * (smooth - mean), -_MOST_STOPS, _MOST_STOPS)
    return target * 2.0 ** (-mean - deviation)


def white_balance(rng: np.random.Generator, frames: int, drift: float) -> Float[np.ndarray, "frame 3"]:
    """Return slowly drifting gains of red, green and blue; those of green are 1."""
    curves = drift * smooth_noise(rng, frames, max(3.0, frames / 8), 2)
    return np.exp(np.stack([curves[:, 0], np.zeros(frames), curves[:, 1]], axis=1))


def sensor_noise(
    noise: float, gain: Float[np.ndarray, " frame"], in_second_session: Bool[np.ndarray, " frame"]
) -> Float[np.ndarray, " frame"]:
    """Return each frame's noise: it rises with the root of the gain over the median gain of the first session."""
    usual = float(np.median(gain[~in_second_session]))
    return noise * np.clip(np.sqrt(gain / usual), 0.5, 3.0)
