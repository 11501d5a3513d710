"""What the cameras of a capture stand around: which way is up, the point they look at, and what counts as its front.

Everything is found from finite poses alone, by statistics that a minority of wrong poses moves little, and turns,
moves and scales with the world.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from mtcm_nerfstudio.geometry.poses import canonical_frame, geometric_median, nearest_rotation

_MOST_MISSED = 20.0
"""Degrees: cameras of which half look further past a point than this do not look at it."""
_PARALLEL = 5.0
"""Degrees: cameras of which half look within this of one direction see no parallax to place a point by."""
_CONCENTRATED = 0.3
"""Directions agree when the length of their geometric median is above this (1: all the same)."""
_ONE_WAY = 0.9
"""… and all but coincide when it is above this."""
_UPRIGHT_WORLD = 3.0
"""Degrees within which an axis of the world is taken for the vertical that the cameras show."""
_LEVEL = 20.0
"""Degrees within which people hold a camera level, three times out of four."""


@dataclass(frozen=True, eq=False)
class Subject:
    """The point that most cameras of a capture look at, and the directions that places about it are named by."""

    point: Float[np.ndarray, "3"]
    """In the world."""
    up: Float[np.ndarray, "3"]
    front: Float[np.ndarray, "3"]
    """Unit direction across ``up`` from the point towards where a camera stands that sees the front."""
    distance: float
    """Median distance of the cameras from the point, in the world's unit."""


def upright(rotation: Float[np.ndarray, "n 3 3"]) -> Float[np.ndarray, "n 3 3"]:
    """Turn the image axes by 90° where the whole capture was taken sideways and its pixels were not turned.

    Around a subject the axis that is vertical in the world stays where it is while the others go round. So a
    capture is sideways when its cameras' x axes agree much better than their y axes. Of the two ways to stand it
    up, the one that looks down rather than up is taken, as people do.
    """
    agreement = np.linalg.norm(np.median(rotation, axis=0), axis=0)
    if agreement[0] < agreement[1] + _CONCENTRATED:
        return rotation
    x, y, z = np.moveaxis(rotation, 2, 0)
    looks_up = np.median(-z @ geometric_median(x)) > 0
    return np.stack([y, -x, z] if looks_up else [-y, x, z], axis=2)


def up_direction(c2w: Float[np.ndarray, "n 4 4"]) -> Float[np.ndarray, "3"]:
    """Return the vertical of the world: as the cameras show it, and where that is an axis of the world, the axis.

    Phones that measure their pose (ARKit, Polycam, Record3D), Blender and aligned reconstructions have an axis of
    their world upright, which is exact, while hands show the vertical to a degree or two. A world that is COLMAP's, of
    a first camera that was held nearly level, may have an axis within 3° of the vertical as well, though seldom: then
    so much is lost.
    """
    shown = _up_by_cameras(c2w)
    nearest = np.abs(shown).argmax()
    axis = np.eye(3)[nearest] * np.sign(shown[nearest])
    return axis if angle_between(shown[None], axis[None])[0] < _UPRIGHT_WORLD else shown


def _up_by_cameras(c2w: Float[np.ndarray, "n 4 4"]) -> Float[np.ndarray, "3"]:
    """Return the vertical as the cameras show it.

    Held level, a camera's x axis is horizontal wherever it looks, so up is the direction that is most nearly across
    all x axes (iteratively reweighted for the smallest sum of sines). Where the x axes point all one way, or every
    way, this says nothing. Then cameras that look one way, but are turned about it as nobody holds a camera, look
    straight down from the air, and for others up is that of the capture's own frame (``canonical_frame``).
    """
    x, y, backward = np.moveaxis(c2w[:, :3, :3], 2, 0)
    up, weight = np.zeros(3), np.ones(len(x))
    for _ in range(30):
        sizes, axes = np.linalg.eigh((x * weight[:, None]).T @ x / weight.sum())
        if sizes[1] < 0.03 * sizes.sum() or sizes[0] > 0.25 * sizes[1]:
            return _up_without_turns(c2w)
        up = axes[:, 0]
        weight = 1.0 / np.maximum(np.abs(x @ up), 0.02)
    y_up = float(np.median(y @ up))
    return up if (y_up if abs(y_up) > _CONCENTRATED else np.median(backward @ up)) > 0 else -up


def _up_without_turns(c2w: Float[np.ndarray, "n 4 4"]) -> Float[np.ndarray, "3"]:
    y, backward = c2w[:, :3, 1], c2w[:, :3, 2]
    middle = geometric_median(backward)
    turned = np.quantile(angle_between(y, geometric_median(y)[None]), 0.75)
    if np.linalg.norm(middle) > _ONE_WAY and turned > _LEVEL:
        return middle / np.linalg.norm(middle)
    return canonical_frame(c2w).rotation[1]


def look_at_point(c2w: Float[np.ndarray, "n 4 4"]) -> Float[np.ndarray, "3"] | None:
    """Return the point that most cameras look at, or None where there is none.

    The point has the smallest sum of distances to the cameras' lines of sight (least squares, iteratively
    reweighted). It counts when half of the cameras look past it by less than 20°, and by less than half of what
    they look past a point at infinity: people walking by a wall look nowhere, people walking around a statue do.
    """
    origin, ahead = c2w[:, :3, 3], -c2w[:, :3, 2]
    same_way = angle_between(ahead, geometric_median(ahead)[None])
    if np.median(same_way) < _PARALLEL:
        return None
    middle = geometric_median(origin)
    unit = float(np.median(np.linalg.norm(origin - middle, axis=1)))
    if unit == 0.0:
        return None
    across = np.eye(3) - ahead[:, :, None] * ahead[:, None, :]
    placed = (origin - middle) / unit
    point, weight = np.zeros(3), np.ones(len(c2w))
    for _ in range(60):
        weighted = across * weight[:, None, None]
        point = np.linalg.pinv(weighted.sum(axis=0)) @ np.einsum("nij,nj->i", weighted, placed)
        weight = 1.0 / np.maximum(np.linalg.norm(np.einsum("nij,nj->ni", across, point - placed), axis=1), 0.02)
    missed = np.median(angle_between(ahead, point - placed))
    return middle + unit * point if missed < min(_MOST_MISSED, 0.5 * float(np.median(same_way))) else None


def find_subject(
    c2w: Float[np.ndarray, "n 4 4"], front_camera: Float[np.ndarray, "4 4"] | None = None
) -> Subject | None:
    """Find what the cameras stand around, or None where they do not look at one point.

    Args:
        c2w: upright poses in temporal order, finite, their rotations orthonormal.
        front_camera: the pose that sees the front. Without one it is the middle of where the cameras stand, and where
            they stand all around, the first frame, or the middle of the first five where it stands apart from them.
    """
    point = look_at_point(c2w)
    if point is None:
        return None
    up = up_direction(c2w)
    away = c2w[:, :3, 3] - point
    distance = float(np.median(np.linalg.norm(away, axis=1)))
    start = directions(away[:5], up)
    first = start[:1] if angle_between(start[:1], geometric_median(start)[None])[0] < 45.0 else start
    candidates = [directions(away, up), first]
    if front_camera is not None:
        candidates = [directions((front_camera[:3, 3] - point)[None], up)]
    return Subject(point, up, first_agreed(candidates, up), distance)


def top_view(
    c2w: Float[np.ndarray, "n 4 4"], real: Bool[np.ndarray, " n"], front: int | None = None
) -> Float[np.ndarray, "n 2"]:
    """Return where cameras stand on a map, in the world's unit: right and ahead of the middle of their views.

    Args:
        c2w: poses, NaN where there is none.
        real: finite ones, at least one, that say where up and ahead are.
        front: the one that sees the front of the subject; it must have a pose.
    """
    clean = c2w[real].astype(np.float64)
    clean[:, :3, :3] = upright(nearest_rotation(clean[:, :3, :3]))
    subject = find_subject(clean, None if front is None else c2w[front].astype(np.float64))
    up = up_direction(clean) if subject is None else subject.up
    ahead = first_agreed([directions(-clean[:, :3, 2], up)], up) if subject is None else -subject.front
    middle = geometric_median(clean[:, :3, 3]) if subject is None else subject.point
    away = c2w[:, :3, 3] - middle
    return np.stack([away @ np.cross(ahead, up), away @ ahead], axis=1)


def directions(vectors: Float[np.ndarray, "n 3"], up: Float[np.ndarray, "3"]) -> Float[np.ndarray, "n 3"]:
    """Return the unit directions of vectors in the plane across ``up``; zero for what points straight up."""
    level = vectors - np.outer(vectors @ up, up)
    length = np.linalg.norm(level, axis=1, keepdims=True)
    flat = length <= 1e-9 * np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.where(flat, 0.0, level / np.where(flat, 1.0, length))


def first_agreed(candidates: list[Float[np.ndarray, "_ 3"]], up: Float[np.ndarray, "3"]) -> Float[np.ndarray, "3"]:
    """Return the middle of the first set of horizontal directions that agree, else of the last that has a middle."""
    found = np.cross(up, np.eye(3)[np.abs(up).argmin()])
    for one in candidates:
        middle = geometric_median(one)
        length = float(np.linalg.norm(middle))
        found = middle / length if length > 1e-6 else found
        if length > _CONCENTRATED:
            break
    return found / np.linalg.norm(found)


def angle_between(a: Float[np.ndarray, "*n 3"], b: Float[np.ndarray, "*m 3"]) -> Float[np.ndarray, " *k"]:
    """Return the angle between vectors in degrees, 90 where one of them has no length.

    atan2(|a × b|, a · b) keeps its precision where the arc cosine loses it.
    """
    return np.degrees(np.arctan2(np.linalg.norm(np.cross(a, b), axis=-1), (a * b).sum(axis=-1)))
