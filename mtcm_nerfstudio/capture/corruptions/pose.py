"""Faults of claimed poses: swapped, turned and moved by a little, a run of frames moved together, thrown far away."""

from typing import Literal

import numpy as np
from jaxtyping import Float, Int
from typing_extensions import assert_never

from mtcm_nerfstudio.geometry.poses import geometric_median, matrix_from_wxyz

PoseFaultKind = Literal["swap", "pose_10", "pose_3", "pose_1", "cluster", "far"]

_TURN_AND_SHIFT: dict[PoseFaultKind, tuple[float, float]] = {
    "pose_10": (10.0, 0.10),
    "pose_3": (3.0, 0.05),
    "pose_1": (1.0, 0.02),
}
"""Angle in degrees, and shift as a share of the spread."""

_FAR = 1000.0
"""Spreads between a far pose and its true place."""


def apply_pose_fault(
    c2w: Float[np.ndarray, "n 4 4"],
    indices: Int[np.ndarray, " k"],
    kind: PoseFaultKind,
    rng: np.random.Generator,
    severity: float = 0.5,
) -> Float[np.ndarray, "n 4 4"]:
    """Return the poses with those of ``indices`` made wrong and all others untouched.

    Args:
        c2w: camera-to-world poses; rows of NaN stand for frames without one.
        indices: the frames; for ``swap`` at least two, whose poses move on by one place.
        kind: ``pose_10``, ``pose_3`` and ``pose_1`` turn each camera about an axis of its own and shift it in a
            direction of its own; ``cluster`` moves all of them by one rigid transform; ``far`` throws each 1000
            spreads away.
        rng: decides axes and directions.
        severity: in [0, 1]; a cluster turns by 15° to 60° and shifts by 0.2 to 1 spread. The others have one size.

    Raises:
        ValueError: an index has no finite pose, or a swap has fewer than two frames.
    """
    if not np.isfinite(c2w[indices]).all():
        raise ValueError(f"a {kind} fault needs frames with a pose, frame {_first_unposed(c2w, indices)} has none")
    out = c2w.copy()
    match kind:
        case "swap":
            if len(indices) < 2:
                raise ValueError(f"a swap needs two frames, got {len(indices)}")
            out[indices] = c2w[np.roll(indices, 1)]
        case "pose_10" | "pose_3" | "pose_1":
            angle, shift = _TURN_AND_SHIFT[kind]
            for i in indices:
                out[i] = turned_and_shifted(c2w[i : i + 1], angle, shift * spread(c2w), rng)[0]
        case "cluster":
            angle, shift = 15.0 + 45.0 * severity, (0.2 + 0.8 * severity) * spread(c2w)
            out[indices] = turned_and_shifted(c2w[indices], angle, shift, rng)
        case "far":
            out[indices, :3, 3] += _FAR * spread(c2w) * _unit_vectors(len(indices), rng)
        case _:
            assert_never(kind)
    return out


def turned_and_shifted(
    c2w: Float[np.ndarray, "n 4 4"], angle_degrees: float, shift: float, rng: np.random.Generator
) -> Float[np.ndarray, "n 4 4"]:
    """Move poses together: turn about a random axis through their mean position, then shift in a random direction.

    Args:
        c2w: finite poses.
        angle_degrees: of the rotation.
        shift: length of the translation, in the world's unit.
        rng: decides axis and direction.
    """
    axis, direction = _unit_vectors(2, rng)
    half = np.radians(0.5 * angle_degrees)
    rotation = matrix_from_wxyz(np.concatenate([[np.cos(half)], np.sin(half) * axis])[None])[0]
    centre = c2w[:, :3, 3].mean(axis=0)
    out = c2w.copy()
    out[:, :3, :3] = rotation @ c2w[:, :3, :3]
    out[:, :3, 3] = (c2w[:, :3, 3] - centre) @ rotation.T + centre + shift * direction
    return out


def spread(c2w: Float[np.ndarray, "n 4 4"]) -> float:
    """Return the size of the walk: the median distance of the posed cameras from their geometric median."""
    positions = c2w[np.isfinite(c2w).all(axis=(1, 2)), :3, 3]
    if len(positions) == 0:
        return 1.0
    distances = np.linalg.norm(positions - geometric_median(positions), axis=1)
    return float(np.median(distances)) or float(distances.max()) or 1.0


def _unit_vectors(count: int, rng: np.random.Generator) -> Float[np.ndarray, "{count} 3"]:
    """Return directions drawn evenly from the sphere."""
    vectors = rng.standard_normal((count, 3))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def _first_unposed(c2w: Float[np.ndarray, "n 4 4"], indices: Int[np.ndarray, " k"]) -> int:
    return next(int(i) for i in indices if not np.isfinite(c2w[i]).all())
