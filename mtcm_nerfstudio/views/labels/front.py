"""Which frame sees the front of the subject: the one that looks into its face, where it has one."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Float, Int

from mtcm_nerfstudio.geometry.poses import geometric_median, nearest_rotation
from mtcm_nerfstudio.views.labels.look_at import angle_between, find_subject, upright

Faces = Callable[[Int[np.ndarray, " some"]], Float[np.ndarray, "some 2"]]
"""From frames to the directions (x/z, y/z in OpenCV axes) in which they show a face, NaN where they show none."""

_MOST = 40
"""Frames that are looked at, spread over the capture."""
_FEWEST, _SHARE = 3, 0.6
"""So many frames, and so much of all that show a face, must see it at one place."""
_AT_ONE_PLACE = 5.0
"""Degrees by which their lines of sight may miss it."""
_OF_THE_SUBJECT = 0.7
"""Distance of the face from the middle of the subject, of that of the cameras: beyond, it hangs on a wall."""
_FROM_ONE_SIDE = 0.5
"""Length of the geometric median of the directions it is seen from: a face has one side, a pattern may have more."""
_ROUNDS = 30


def front_by_face(c2w: Float[np.ndarray, "n 4 4"], real: Bool[np.ndarray, " n"], faces: Faces) -> int | None:
    """Return the frame that looks most nearly straight into the subject's face, or None.

    A face that a cascade finds may be a pattern. It counts where several frames see it at one and the same place in
    the world, near the point that the cameras look at. Frontal faces are found from some way to either side alike, so
    the front is the middle of where it was found from.

    Args:
        c2w: OpenGL camera-to-world matrices in temporal order.
        real: frames that have a say, all with a pose.
        faces: finds faces; only called where the cameras stand around a subject.
    """
    rows = np.flatnonzero(real)
    if len(rows) < _FEWEST:
        return None
    poses = c2w[rows].astype(np.float64)
    poses[:, :3, :3] = nearest_rotation(poses[:, :3, :3])
    upright_poses = poses.copy()
    upright_poses[:, :3, :3] = upright(poses[:, :3, :3])
    subject = find_subject(upright_poses)
    if subject is None:
        return None
    some = np.unique(np.linspace(0, len(rows) - 1, min(_MOST, len(rows))).round().astype(int))
    normalised_points = faces(rows[some])
    has_face = np.isfinite(normalised_points).all(axis=1)
    if has_face.sum() < _FEWEST:
        return None
    some, normalised_points = some[has_face], normalised_points[has_face]
    place = poses[some, :3, 3]
    sight = np.einsum(
        "nij,nj->ni",
        poses[some, :3, :3],
        np.column_stack([normalised_points[:, 0], -normalised_points[:, 1], -np.ones(len(normalised_points))]),
    )
    face = _meeting(place, sight, subject.point, subject.distance)
    there = angle_between(sight, face - place) < _AT_ONE_PLACE
    if there.sum() < max(_FEWEST, _SHARE * len(some)):
        return None
    if np.linalg.norm(face - subject.point) > _OF_THE_SUBJECT * subject.distance:
        return None
    towards = place[there] - face
    middle = geometric_median(towards / np.linalg.norm(towards, axis=1, keepdims=True))
    if np.linalg.norm(middle) < _FROM_ONE_SIDE:
        return None
    return int(rows[some[there][angle_between(towards, middle[None]).argmin()]])


def _meeting(
    place: Float[np.ndarray, "n 3"], sight: Float[np.ndarray, "n 3"], start: Float[np.ndarray, "3"], unit: float
) -> Float[np.ndarray, "3"]:
    """Return the point with the smallest sum of distances to lines of sight, next to ``start`` where they are parallel.

    Iteratively reweighted least squares.
    """
    ahead = sight / np.linalg.norm(sight, axis=1, keepdims=True)
    across = np.eye(3) - ahead[:, :, None] * ahead[:, None, :]
    point, weight = start, np.ones(len(place))
    for _ in range(_ROUNDS):
        weighted = across * weight[:, None, None]
        normal = weighted.sum(axis=0) + 1e-3 * weight.sum() * np.eye(3)
        point = np.linalg.solve(normal, np.einsum("nij,nj->i", weighted, place) + 1e-3 * weight.sum() * start)
        away = np.linalg.norm(np.einsum("nij,nj->ni", across, point - place), axis=1)
        weight = 1.0 / np.maximum(away, 0.02 * unit)
    return point
