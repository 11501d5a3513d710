"""Paths that turn: about a turntable's axis, around a statue. Where such a path breaks off, it can be carried on."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.spatial.transform import Rotation

from mtcm_nerfstudio.views.suggestion.candidate_poses import JUMP, Poses, Views, distances

_STEPS = 8
"""Steps before a break that say how the camera was turning."""
_FEWEST = 3
_SAME_AXIS = 0.8
"""Steps turn about one axis where the mean of their turns is this share of the mean size."""
_LEAST_DEGREES = 2.0
"""Less than this a step is no turning."""
_OFF_THE_CIRCLE = 0.35
"""Root mean square by which steps may miss the circle that fits them, over their mean length."""
_ARRIVED = 0.75
"""Nearer than this many usual distances between neighbours to a view: the circle is closed."""
_WIDEST = 190.0
"""Degrees of a circle that may be missing; of more, nobody knows whether there is a way."""


class TurntableMotion(NamedTuple):
    """Steps from pose to pose as one turn about an axis in the world, again and again."""

    turn: Rotation
    """Of one step."""
    centre: Float[np.ndarray, "3"]
    """A point on the axis."""

    def on(self, pose: Float[np.ndarray, "4 4"], steps: Float[np.ndarray, " n"]) -> Poses:
        """Return where a camera is after so many steps."""
        turns = Rotation.from_rotvec(self.turn.as_rotvec() * steps[:, None])
        out = np.tile(np.eye(4), (len(steps), 1, 1))
        out[:, :3, :3] = (turns * Rotation.from_matrix(pose[:3, :3])).as_matrix()
        out[:, :3, 3] = self.centre + turns.apply(pose[:3, 3] - self.centre)
        return out


def continue_turntable(views: Views, most: int) -> tuple[Poses, Float[np.ndarray, " n"]]:
    """Return poses with which turning paths would go on, and how much each counts as a place to be covered, 0 or 1.

    Beyond every break of the path, both ends of the capture among them, the camera turns on as in the steps before. A
    circle that comes back to other views within about half a turn counts: only the piece between is missing. One that
    does not may be where somebody could go, but nothing says that somebody should: a few steps of it, for nothing.
    """
    points = views.coordinates(views.c2w)
    step = np.linalg.norm(np.diff(points, axis=0), axis=1)
    if len(step) < _FEWEST:
        return np.zeros((0, 4, 4)), np.zeros(0)
    usual = max(float(np.median(step)), 1e-9)
    breaks = np.flatnonzero(step > JUMP * usual)
    starts, ends = np.append(0, breaks + 1), np.append(breaks, len(points) - 1)
    found, counts = [], []
    for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
        run = np.arange(start, end + 1)
        for way in (run, run[::-1]):
            poses, closed = _onward(views, way[-_STEPS - 1 :], points, most)
            found.append(poses)
            counts.append(np.full(len(poses), float(closed)))
    return np.concatenate(found), np.concatenate(counts)


def _onward(views: Views, way: np.ndarray, points: Float[np.ndarray, "view d"], most: int) -> tuple[Poses, bool]:
    """Return the poses after the last of some views, and whether they lead back to other views."""
    turning = fit_turntable_motion(views.c2w[way])
    if turning is None:
        return np.zeros((0, 4, 4)), False
    round_trip = int(2.0 * np.pi / turning.turn.magnitude())
    poses = turning.on(views.c2w[way[-1]], np.arange(1.0, round_trip + 1.0))
    distance = distances(views.coordinates(poses), points)
    distance[:2, way] = np.inf  # it has just left these
    step = np.linalg.norm(np.diff(points[way], axis=0), axis=1)
    arrived = np.flatnonzero(distance.min(axis=1) < _ARRIVED * float(np.median(step)))
    if len(arrived) and arrived[0] * turning.turn.magnitude() < np.radians(_WIDEST):
        return poses[: arrived[0]], True
    return poses[: min(most, _STEPS)], False


def fit_turntable_motion(c2w: Poses) -> TurntableMotion | None:
    """Return the turn that leads from each pose to the next, or None where there is no such one.

    The mean of the turns in the world, and the point c with p' = R (p − c) + c for all steps from p to p' by least
    squares; along the axis c is where the places are on the mean.
    """
    if len(c2w) < _FEWEST + 1:
        return None
    rotation = Rotation.from_matrix(c2w[:, :3, :3])
    turns = rotation[1:] * rotation[:-1].inv()
    rotvec = turns.as_rotvec()
    mean = rotvec.mean(axis=0)
    size = float(np.linalg.norm(mean))
    if size < np.radians(_LEAST_DEGREES) or size < _SAME_AXIS * np.linalg.norm(rotvec, axis=1).mean():
        return None
    place = c2w[:, :3, 3]
    matrices = turns.as_matrix()
    turned = np.einsum("nij,nj->ni", matrices, place[:-1])
    axis = mean / size
    # Least squares in the plane across the axis, which (I − R) leaves undetermined along it.
    left = np.concatenate([(np.eye(3) - matrices).reshape(-1, 3), axis[None]])
    right = np.append((place[1:] - turned).ravel(), axis @ place.mean(axis=0))
    centre = np.linalg.lstsq(left, right, rcond=None)[0]
    missed = (left @ centre - right)[:-1].reshape(-1, 3)
    length = np.linalg.norm(np.diff(place, axis=0), axis=1).mean()
    if np.sqrt(np.square(missed).sum(axis=1).mean()) > _OFF_THE_CIRCLE * length:
        return None
    return TurntableMotion(Rotation.from_rotvec(mean), centre)
