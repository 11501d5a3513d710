"""Which frames are compared with which: near in time, near in claimed pose, or alike. A wrong pose chooses wrong
neighbours, so poses alone must not choose."""

import numpy as np
from jaxtyping import Bool, Float, Int

IN_TIME = 2
"""Frames before and after."""
IN_POSE = 4
ALIKE = 6

_SAME = 1e-5
"""Distances that differ by less are taken for equal: the last bits, which turn with the world, must not choose."""


def choose_partners(
    likeness: Float[np.ndarray, "frame frame"],
    pose_distance: Float[np.ndarray, "frame frame"],
    readable: Bool[np.ndarray, " frame"],
) -> Int[np.ndarray, "pair 2"]:
    """Choose the pairs of frames to compare, each once, the earlier frame first.

    Args:
        likeness: how alike the images are, larger is more.
        pose_distance: between the claimed poses; NaN where one of the two has none.
        readable: frames that take part.
    """
    chosen = _near_in_time(readable)
    others = readable[:, None] & readable[None, :] & ~np.eye(len(readable), dtype=bool)
    chosen |= _nearest(np.where(others, pose_distance, np.nan), IN_POSE)
    chosen |= _nearest(np.where(others, -likeness, np.nan), ALIKE)
    return np.argwhere(np.triu(chosen | chosen.T, 1))


def _near_in_time(readable: Bool[np.ndarray, " frame"]) -> Bool[np.ndarray, "frame frame"]:
    chosen = np.zeros((len(readable), len(readable)), dtype=bool)
    order = np.flatnonzero(readable)
    for step in range(1, IN_TIME + 1):
        chosen[order[:-step], order[step:]] = True
    return chosen


def _nearest(distance: Float[np.ndarray, "frame frame"], count: int) -> Bool[np.ndarray, "frame frame"]:
    """Mark each row's nearest frames, those that are exactly as far as the last of them included."""
    known = np.where(np.isnan(distance), np.inf, distance)
    last = np.partition(known, min(count, len(known)) - 1, axis=1)[:, min(count, len(known)) - 1, None]
    return np.isfinite(known) & (known <= last + _SAME * np.abs(last))


def pose_distances(c2w: Float[np.ndarray, "frame 4 4"]) -> Float[np.ndarray, "frame frame"]:
    """Return distances between every two poses, units of the capture plus radians; NaN where one of them is none."""
    rotation, position = c2w[:, :3, :3].reshape(-1, 9), c2w[:, :3, 3]
    angle = np.arccos(np.clip(0.5 * (rotation @ rotation.T - 1.0), -1.0, 1.0))
    return np.linalg.norm(position[:, None] - position[None, :], axis=-1) + angle
