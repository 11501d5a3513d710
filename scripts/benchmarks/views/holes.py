"""Captures with a block of views taken away, and whether anybody finds out where it was."""

import numpy as np
from jaxtyping import Bool, Float

from mtcm_nerfstudio.geometry.poses import nearest_rotation, rotation_angle_degrees
from mtcm_nerfstudio.views.suggestion.candidate_poses import Views

NEAR_DEGREES, NEAR_SHIFT = 15.0, 0.25
"""A missing view is found by a suggestion within this of it: degrees, and spreads of the cameras."""

Poses = Float[np.ndarray, "n 4 4"]


def hide(c2w: Poses, kind: str, share: float, seed: int) -> Bool[np.ndarray, " n"]:
    """Return which views are taken away.

    Args:
        c2w: poses in temporal order.
        kind: "place": those nearest to a random one, by shift in spreads and turn in radians; "time": a run of frames
            that leaves some before it and some after.
        share: of the views.
        seed: decides which.
    """
    rng = np.random.default_rng([5, seed])
    count, hidden = round(share * len(c2w)), np.zeros(len(c2w), dtype=bool)
    if kind == "time":
        start = int(rng.integers(2, len(c2w) - count - 1))
        hidden[start : start + count] = True
        return hidden
    points = Views.of(c2w).coordinates(c2w)
    middle = points[int(rng.integers(len(c2w)))]
    hidden[np.argsort(np.linalg.norm(points - middle, axis=1), kind="stable")[:count]] = True
    return hidden


def share_found(missing: Poses, suggested: Float[np.ndarray, "m 4 4"], spread: float) -> float:
    """Return the share of the missing views that have a suggestion near them."""
    if not len(suggested):
        return 0.0
    shift = np.linalg.norm(missing[:, None, :3, 3] - suggested[None, :, :3, 3], axis=2) / spread
    pairs = np.broadcast_arrays(missing[:, None, :3, :3], suggested[None, :, :3, :3])
    turn = rotation_angle_degrees(*pairs)
    return float(((shift < NEAR_SHIFT) & (turn < NEAR_DEGREES)).any(axis=1).mean())


def random_on_sphere(views: Views, count: int, seed: int) -> Float[np.ndarray, "m 4 4"]:
    """Return cameras anywhere on the view sphere (of the spread about the middle, where there is no subject)."""
    towards = np.random.default_rng([6, seed]).normal(size=(count, 3))
    towards /= np.linalg.norm(towards, axis=1, keepdims=True)
    subject = views.subject
    middle = np.median(views.c2w[:, :3, 3], axis=0) if subject is None else subject.point
    up = np.median(views.c2w[:, :3, 1], axis=0) if subject is None else subject.up
    radius = views.spread if subject is None else subject.distance
    x = np.cross(up, towards)
    x /= np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-9)
    out = np.tile(np.eye(4), (count, 1, 1))
    out[:, :3, :3] = nearest_rotation(np.stack([x, np.cross(towards, x), towards], axis=2))
    out[:, :3, 3] = middle + radius * towards
    return out
