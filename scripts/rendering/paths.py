"""Camera paths as a hand that holds a phone would walk them. Poses are OpenGL camera-to-world; z is up."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float
from scipy.ndimage import gaussian_filter1d

Points = Float[np.ndarray, "frame 3"]


def smooth_noise(rng: np.random.Generator, count: int, width: float, size: int = 1) -> Float[np.ndarray, "frame size"]:
    """Return ``size`` random curves of unit deviation that vary over about ``width`` frames."""
    white = rng.standard_normal((count + 8 * int(width + 1), size))
    smooth = gaussian_filter1d(white, width, axis=0)[4 * int(width + 1) :][:count]
    return smooth / (1e-9 + np.sqrt(1.0 / (2.0 * np.sqrt(np.pi) * width)))


def progress(rng: np.random.Generator, count: int, unevenness: float = 0.35) -> Float[np.ndarray, " frame"]:
    """Return how far along the path each frame is, from 0 to 1: people walk faster and slower.

    ``unevenness`` is the deviation of the logarithm of their speed.
    """
    speed = np.exp(unevenness * smooth_noise(rng, count, count / 10)[:, 0])
    along = np.cumsum(speed) - speed[0]
    return along / along[-1]


def look_at(
    positions: Points, targets: Points, roll_radians: Float[np.ndarray, " frame"]
) -> Float[np.ndarray, "frame 4 4"]:
    """Return camera-to-world matrices at ``positions`` that look at ``targets``, rolled about the line of sight."""
    backward = positions - targets
    backward /= np.linalg.norm(backward, axis=1, keepdims=True)
    # Straight down has no "up": the y axis stands in for it a little.
    right = np.cross(np.array([0.0, 1e-4, 1.0]), backward)
    right /= np.linalg.norm(right, axis=1, keepdims=True)
    up = np.cross(backward, right)
    cos, sin = np.cos(roll_radians)[:, None], np.sin(roll_radians)[:, None]
    c2w = np.tile(np.eye(4), (len(positions), 1, 1))
    c2w[:, :3, 0], c2w[:, :3, 1] = cos * right + sin * up, cos * up - sin * right
    c2w[:, :3, 2], c2w[:, :3, 3] = backward, positions
    return c2w


def _around(angle: np.ndarray, radius: np.ndarray, height: np.ndarray) -> Points:
    return np.stack([radius * np.cos(angle), radius * np.sin(angle), height], axis=1)


def _wobbly_circle(rng: np.random.Generator, along: np.ndarray, turns: float, height: np.ndarray) -> Points:
    radius = rng.uniform(2.0, 3.2) * (1.0 + 0.08 * smooth_noise(rng, len(along), len(along) / 6)[:, 0])
    start, sense = rng.uniform(0, 2 * np.pi), rng.choice([-1.0, 1.0])
    return _around(start + sense * 2.0 * np.pi * turns * along, np.clip(radius, 1.7, 3.6), height)


def orbit(rng: np.random.Generator, along: np.ndarray) -> Points:
    """One turn around the subject at about the same height."""
    return _wobbly_circle(rng, along, rng.uniform(0.9, 1.1), np.full(len(along), rng.uniform(0.8, 2.2)))


def arc(rng: np.random.Generator, along: np.ndarray) -> Points:
    """Part of a turn, rising or sinking on the way."""
    low, high = rng.permutation([rng.uniform(0.5, 1.0), rng.uniform(1.3, 2.6)])
    return _wobbly_circle(rng, along, rng.uniform(0.25, 0.6), low + (high - low) * along)


def two_loops(rng: np.random.Generator, along: np.ndarray) -> Points:
    """Two turns, the second from another height."""
    low, high = rng.uniform(0.5, 1.0), rng.uniform(1.5, 2.5)
    step = 1.0 / (1.0 + np.exp(-(along - 0.5) * 20.0))
    return _wobbly_circle(rng, along, 2.0, low + (high - low) * step)


def spiral(rng: np.random.Generator, along: np.ndarray) -> Points:
    """More than a turn, coming closer and rising."""
    angle = rng.uniform(0, 2 * np.pi) + 2.0 * np.pi * rng.uniform(1.0, 1.5) * along
    return _around(angle, 3.4 - 1.5 * along, rng.uniform(0.5, 0.9) + 1.4 * along)


def sweep(rng: np.random.Generator, along: np.ndarray) -> Points:
    """To and fro in front of the subject, each pass a little higher."""
    passes = int(rng.integers(2, 4))
    side = 1.6 * np.cos(np.pi * passes * along)
    start = rng.uniform(0, 2 * np.pi)
    return _around(start + 0.4 * side, rng.uniform(2.4, 3.2) + 0.0 * along, 0.7 + 1.2 * along)


def walk(rng: np.random.Generator, along: np.ndarray) -> Points:
    """Straight ahead along the x axis, towards the subject and stopping before it."""
    side = 0.25 * smooth_noise(rng, len(along), len(along) / 5)[:, 0]
    return np.stack([-6.5 + 4.6 * along, side, np.full(len(along), rng.uniform(0.9, 1.4))], axis=1)


def aerial(rng: np.random.Generator, along: np.ndarray) -> Points:
    """Lanes over the ground, as a drone or a kite flies them."""
    lanes = int(rng.integers(3, 5))
    lane = np.minimum((along * lanes).astype(int), lanes - 1)
    within = along * lanes - lane
    x = 2.4 * np.where(lane % 2 == 0, 2 * within - 1, 1 - 2 * within)
    y = np.interp(along * lanes, np.arange(lanes) + 0.85, np.linspace(-1.8, 1.8, lanes))
    return np.stack([x, y, np.full(len(along), rng.uniform(4.0, 5.5))], axis=1)


def scattered(rng: np.random.Generator, along: np.ndarray) -> Points:
    """Photos from all sides in no order at all."""
    count = len(along)
    angle = rng.uniform(0, 2 * np.pi * rng.uniform(0.4, 1.0), count)
    return _around(angle, rng.uniform(1.9, 3.4, count), rng.uniform(0.4, 2.6, count))


def _wide_steps(rng: np.random.Generator, along: np.ndarray, step: float, most: float) -> Points:
    """Go round with ``step`` radians between frames, ``most`` radians in all at most, at a height that varies."""
    total = min(step * (len(along) - 1), most)
    radius = np.clip(rng.uniform(2.2, 3.3) * (1.0 + 0.06 * smooth_noise(rng, len(along), 3.0)[:, 0]), 1.8, 3.6)
    height = np.clip(rng.uniform(0.7, 1.7) + 0.2 * smooth_noise(rng, len(along), 4.0)[:, 0], 0.4, 2.6)
    return _around(rng.uniform(0, 2 * np.pi) + rng.choice([-1.0, 1.0]) * total * along, radius, height)


def sparse_orbit(rng: np.random.Generator, along: np.ndarray) -> Points:
    """One turn and a half around the subject at most, with 10° to 25° between frames."""
    return _wide_steps(rng, along, np.radians(rng.uniform(12.0, 25.0)), np.radians(540.0))


def sparse_arc(rng: np.random.Generator, along: np.ndarray) -> Points:
    """Most of a turn at most, with 10° to 16° between frames."""
    return _wide_steps(rng, along, np.radians(rng.uniform(10.0, 16.0)), np.radians(300.0))


PATHS: dict[str, Callable[[np.random.Generator, np.ndarray], Points]] = {
    "orbit": orbit,
    "arc": arc,
    "two_loops": two_loops,
    "spiral": spiral,
    "sweep": sweep,
    "walk": walk,
    "aerial": aerial,
    "scattered": scattered,
    "sparse_orbit": sparse_orbit,
    "sparse_arc": sparse_arc,
}
"""Every kind of path; all keep outside a radius of 1.6 about the subject, or more than 3 above it."""


def hand_held(
    kind: str, rng: np.random.Generator, frames: int, centre: Float[np.ndarray, "3"]
) -> Float[np.ndarray, "frame 4 4"]:
    """Return the poses of a hand-held path that looks at ``centre`` (an aerial one: at the ground below).

    Raises:
        ValueError: there is no such kind of path.
    """
    if kind not in PATHS:
        raise ValueError(f"path {kind!r} is none of {', '.join(PATHS)}")
    along = progress(rng, frames, 0.1 if kind.startswith("sparse") else 0.35)
    positions = PATHS[kind](rng, along)
    targets = np.tile(centre, (frames, 1))
    if kind == "aerial":
        targets = positions * np.array([0.95, 0.95, 0.0])
    if kind == "walk":
        targets = np.tile(np.array([3.0, 0.0, 0.7]), (frames, 1))
    return shaken(positions, targets, rng)


def shaken(
    positions: Points, targets: Points, rng: np.random.Generator, amount: float = 1.0
) -> Float[np.ndarray, "frame 4 4"]:
    """Return the poses of a path held in a hand: a smooth sway, and a small tremor of position and direction.

    ``amount`` is 1 for a hand and less for a camera that is fixed to something.
    """
    frames = len(positions)
    sway = 0.04 * smooth_noise(rng, frames, 3.0, 3) + 0.008 * rng.standard_normal((frames, 3))
    positions = positions + amount * sway
    distance = np.linalg.norm(targets - positions, axis=1, keepdims=True)
    tremor = 0.03 * smooth_noise(rng, frames, 3.0, 3) + 0.01 * rng.standard_normal((frames, 3))
    roll = np.radians(2.0) * smooth_noise(rng, frames, 4.0)[:, 0] + np.radians(0.5) * rng.standard_normal(frames)
    return look_at(positions, targets + amount * distance * tremor, amount * roll)
