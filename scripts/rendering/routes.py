"""Routes through places: around corners and through doors, with the camera held ahead. z is up."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.ndimage import gaussian_filter1d

from rendering.paths import progress, shaken, smooth_noise

_STEP = 0.05
"""Distance between the points of a route, in the scene's units."""

_AHEAD = 3.0
"""Distance of the point that is looked at."""


@dataclass(frozen=True)
class Gait:
    """How a route is travelled."""

    eye_height: float
    cornering: float
    """Deviation of the smoothing that rounds corners, in the scene's units."""
    unevenness: float = 0.35
    """Deviation of the logarithm of the speed."""
    shake: float = 1.0
    """Amount of sway and tremor: 1 for a hand, less for a mount."""
    glances: int = 0
    """How often the camera is turned to the side for a few frames."""


class Route:
    """A polyline with rounded corners, as a function of the distance travelled."""

    def __init__(self, corners: Float[np.ndarray, "corner 2"], cornering: float) -> None:
        """Resample the polyline evenly and round its corners."""
        lengths = np.linalg.norm(np.diff(corners, axis=0), axis=1)
        at_corner = np.concatenate([[0.0], np.cumsum(lengths)])
        along = np.arange(0.0, at_corner[-1], _STEP)
        sharp = np.stack([np.interp(along, at_corner, column) for column in corners.T], axis=1)
        self.points = gaussian_filter1d(sharp, cornering / _STEP, axis=0, mode="nearest")
        steps = np.linalg.norm(np.diff(self.points, axis=0), axis=1)
        self.along = np.concatenate([[0.0], np.cumsum(np.maximum(steps, 1e-6))])
        self.length = float(self.along[-1])

    def at(self, along: np.ndarray) -> Float[np.ndarray, "n 2"]:
        """Return the points at these distances; the route goes on straight beyond both ends."""
        inside = np.clip(along, 0.0, self.length)
        points = np.stack([np.interp(inside, self.along, column) for column in self.points.T], axis=1)
        return points + (along - inside)[:, None] * self.direction(inside)

    def direction(self, along: np.ndarray, reach: float = 0.5) -> Float[np.ndarray, "n 2"]:
        """Return the unit direction of travel, averaged over ``reach``."""
        start = np.clip(along - reach / 2, 0.0, self.length - reach)
        ends = [np.interp(start + step, self.along, column) for step in (0.0, reach) for column in self.points.T]
        towards = np.stack([ends[2] - ends[0], ends[3] - ends[1]], axis=1)
        return towards / np.maximum(np.linalg.norm(towards, axis=1, keepdims=True), 1e-9)


def distances_along(route: Route, gait: Gait, rng: np.random.Generator, frames: int) -> Float[np.ndarray, " frame"]:
    """Return how far along the route each frame is taken."""
    return route.length * progress(rng, frames, gait.unevenness)


def travel(
    route: Route, gait: Gait, along: Float[np.ndarray, " frame"], rng: np.random.Generator
) -> Float[np.ndarray, "frame 4 4"]:
    """Return OpenGL camera-to-world poses at these distances, looking ahead and sometimes to the side."""
    frames = len(along)
    heading = route.direction(along + 0.4 * gait.cornering, reach=0.5 + gait.cornering)
    yaw = np.arctan2(heading[:, 1], heading[:, 0]) + gait.shake * 0.12 * smooth_noise(rng, frames, 5.0)[:, 0]
    for _ in range(gait.glances):
        middle, width = rng.uniform(0, frames), rng.uniform(1.8, 3.2)
        bump = np.exp(-0.5 * ((np.arange(frames) - middle) / width) ** 2)
        yaw = yaw + rng.choice([-1.0, 1.0]) * np.radians(rng.uniform(45.0, 85.0)) * bump
    pitch = gait.shake * (np.radians(-4.0) + 0.05 * smooth_noise(rng, frames, 5.0)[:, 0])
    ground = route.at(along)
    height = gait.eye_height + gait.shake * 0.05 * smooth_noise(rng, frames, 4.0)
    positions = np.concatenate([ground, height], axis=1)
    ahead = np.stack([np.cos(yaw) * np.cos(pitch), np.sin(yaw) * np.cos(pitch), np.sin(pitch)], axis=1)
    return shaken(positions, positions + _AHEAD * ahead, rng, gait.shake)
