"""Motion blur of a hand that rotates the camera while the shutter is open, in runs of consecutive frames."""

from dataclasses import dataclass, replace
from typing import Literal

import cv2
import numpy as np
from jaxtyping import Bool, Float
from scipy.spatial.transform import Rotation

from rendering.raycast import Camera, Stage

MILD, CLEAR = 0.004, 0.009
"""Smallest extents of a mild and of a clear blur, as shares of the picture's longer side."""

Grade = Literal["mild", "clear"]

_WEIGHT = np.array([1.0, 1.0, 0.5])
"""How readily a hand pitches, yaws and rolls the camera."""


@dataclass(frozen=True, eq=False)
class Shake:
    """What the hand does, frame by frame."""

    extent: Float[np.ndarray, " frame"]
    """Wanted extent of the blur, as a share of the picture's longer side."""
    direction: Float[np.ndarray, "frame 3"]
    """Unit axis of the rotation in the camera's frame (OpenGL)."""


@dataclass(frozen=True, eq=False)
class Exposed:
    """What reaches the sensor while the shutter is open."""

    linear: Float[np.ndarray, "height width 3"]
    mask: Bool[np.ndarray, "height width"]
    extent: float
    """Extent of the blur, as a share of the picture's longer side."""


def grade_of(extent: float) -> Grade | None:
    """Return the grade of a blur of this extent; None: too little to count as a fault."""
    if extent < MILD:
        return None
    return "mild" if extent < CLEAR else "clear"


def draw_shake(rng: np.random.Generator, c2w: Float[np.ndarray, "frame 4 4"], runs: int, tremor: float) -> Shake:
    """Draw runs of 2 to 8 frames whose blur rises and falls, over a tremor too small to count as a fault.

    Half of the runs are where the camera turns most. The axes follow the rotation from frame to frame.
    """
    frames = len(c2w)
    extent = tremor * rng.beta(1.5, 2.5, frames)
    between = Rotation.from_matrix(c2w[:-1, :3, :3]).inv() * Rotation.from_matrix(c2w[1:, :3, :3])
    turning = np.zeros((frames, 3))
    turning[1:] += between.as_rotvec()
    turning[:-1] += between.as_rotvec()
    speed = np.linalg.norm(turning, axis=1)
    for _ in range(runs):
        length = min(int(rng.integers(2, 9)), frames)
        middle = int(rng.choice(np.argsort(speed)[-5:])) if rng.random() < 0.5 else int(rng.integers(frames))
        first = int(np.clip(middle - length // 2, 0, frames - length))
        peak = np.exp(rng.uniform(np.log(1.2 * MILD), np.log(0.032)))
        profile = np.sin(np.pi * (np.arange(length) + 0.8) / (length + 0.6)) ** 1.3 * np.exp(rng.normal(0, 0.2, length))
        extent[first : first + length] = np.maximum(extent[first : first + length], peak * profile / profile.max())
    direction = turning / (speed[:, None] + 1e-9) + 0.6 * _WEIGHT * rng.standard_normal((frames, 3))
    return Shake(extent, direction / np.linalg.norm(direction, axis=1, keepdims=True))


def jerked(
    c2w: Float[np.ndarray, "frame 4 4"], shake: Shake, camera: Camera, rng: np.random.Generator
) -> Float[np.ndarray, "frame 4 4"]:
    """Return the poses with each blurred frame turned about its axis by up to a few times its blur."""
    angle = shake.extent * max(camera.width, camera.height) / camera.focal
    angle = np.where(shake.extent >= MILD, angle, 0.0) * rng.uniform(-2.5, 2.5, len(c2w))
    turned = c2w.copy()
    kick = Rotation.from_rotvec(shake.direction * angle[:, None])
    turned[:, :3, :3] = c2w[:, :3, :3] @ kick.as_matrix()
    return turned


def _jerky_curve(rng: np.random.Generator, axis: np.ndarray, samples: int) -> Float[np.ndarray, "sample 3"]:
    """Return rotation vectors over the time of exposure, 0 in its middle: along an axis, unevenly, with a wobble."""
    time = np.linspace(-0.5, 0.5, samples)
    phase, other_phase = rng.uniform(0, 2 * np.pi, 2)
    uneven = rng.uniform(0.0, 0.12) * (np.sin(2 * np.pi * time + phase) - np.sin(phase))
    across = np.cross(axis, rng.standard_normal(3))
    across /= np.linalg.norm(across) + 1e-9
    wobble = rng.uniform(0.0, 0.15) * (np.sin(2 * np.pi * time + other_phase) - np.sin(other_phase))
    return (time + uneven)[:, None] * axis + wobble[:, None] * across * _WEIGHT


def _to_local(camera: Camera) -> Float[np.ndarray, "3 3"]:
    """Return the matrix from homogeneous pixels to directions in the camera's frame (OpenGL)."""
    f = camera.focal
    return np.array([[1 / f, 0, -camera.cx / f], [0, -1 / f, camera.cy / f], [0, 0, -1.0]])


def _trajectories(curve: Float[np.ndarray, "sample 3"], camera: Camera) -> Float[np.ndarray, "sample point 2"]:
    """Return where a grid of pixels of the middle picture is at each moment of the exposure."""
    x = np.linspace(0.1, 0.9, 5) * camera.width
    y = np.linspace(0.1, 0.9, 5) * camera.height
    grid = np.stack([*np.meshgrid(x, y), np.ones((5, 5))]).reshape(3, -1)
    local = _to_local(camera)
    warped = np.linalg.inv(local) @ Rotation.from_rotvec(curve).inv().as_matrix() @ local @ grid
    return (warped[:, :2] / warped[:, 2:]).transpose(0, 2, 1)


def blur_extent(curve: Float[np.ndarray, "sample 3"], camera: Camera) -> float:
    """Return the median, over the picture, of the width of a point's trace, as a share of the longer side."""
    track = _trajectories(curve, camera)
    width = np.linalg.norm(track[:, None] - track[None], axis=-1).max(axis=(0, 1))
    return float(np.median(width)) / max(camera.width, camera.height)


def expose(
    stage: Stage,
    c2w: Float[np.ndarray, "4 4"],
    camera: Camera,
    shake: tuple[float, np.ndarray],
    rng: np.random.Generator,
) -> Exposed:
    """Render the mean picture over a rotation about the pose, which is that of the middle of the exposure.

    The rotated pictures are warped from one picture with a wider field of view, which is exact for a pure rotation.

    Args:
        stage: what is photographed.
        c2w: OpenGL camera-to-world pose.
        camera: of the picture.
        shake: wanted extent as a share of the longer side, and the axis of rotation.
        rng: for the unevenness of the rotation.
    """
    extent, axis = shake
    longer = max(camera.width, camera.height)
    if extent * longer < 0.3:
        return Exposed(*stage.render(c2w, camera), 0.0)
    samples = int(np.clip(2 * round(extent * longer / 1.6) + 1, 7, 41))
    curve = _jerky_curve(rng, axis, samples)
    curve *= 0.01 / max(float(np.linalg.norm(curve, axis=1).max()), 1e-9)
    curve *= min(extent / blur_extent(curve, camera), 8.0)
    return Exposed(*mean_over_rotation(stage, c2w, camera, curve), blur_extent(curve, camera))


def mean_over_rotation(
    stage: Stage, c2w: Float[np.ndarray, "4 4"], camera: Camera, curve: Float[np.ndarray, "sample 3"]
) -> tuple[Float[np.ndarray, "height width 3"], Bool[np.ndarray, "height width"]]:
    """Return the mean linear picture over the rotation vectors of a curve, in the camera's frame, and the mask at 0."""
    excursion = np.abs(_trajectories(curve, camera) - _trajectories(np.zeros((1, 3)), camera)).max()
    pad = int(np.ceil(1.3 * excursion)) + 2
    wide = replace(
        camera,
        width=camera.width + 2 * pad,
        height=camera.height + 2 * pad,
        cx=camera.cx + pad,
        cy=camera.cy + pad,
    )
    picture, mask = stage.render(c2w, wide)
    half_pixel = np.array([[1.0, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
    size, flags = (camera.width, camera.height), cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    total = np.zeros((camera.height, camera.width, 3), np.float32)
    for turn in Rotation.from_rotvec(curve).as_matrix():
        source = np.linalg.inv(_to_local(wide) @ half_pixel) @ turn @ _to_local(camera) @ half_pixel
        total += cv2.warpPerspective(picture, source, size, flags=flags, borderMode=cv2.BORDER_REPLICATE)
    return total / len(curve), mask[pad : pad + camera.height, pad : pad + camera.width]
