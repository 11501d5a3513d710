"""Where a view may be missing: along the path where it jumps, and about the subject where nobody stood.

Poses are OpenGL camera-to-world matrices in any world. What is made up here lies between real views, and is turned
and tilted as they are, so it needs neither an upright picture nor a known vertical.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy.spatial.transform import Rotation

from mtcm_nerfstudio.geometry.poses import canonical_frame, nearest_rotation
from mtcm_nerfstudio.views.labels.look_at import Subject, angle_between, find_subject, upright

Poses = Float[np.ndarray, "n 4 4"]
Index = int | Int[np.ndarray, " n"]

JUMP = 1.7
"""Steps this many times the usual one leave room for a view between."""
_HALF_TURN = 150.0
"""Degrees past which the short way round is no better guess than the long one."""
_UNLIKE = 35.0
"""Degrees: two sides of a gap that disagree by more about what lies between do not belong to one path."""
_STEPS_BEFORE = 5
"""Steps whose middle is how a camera was moving."""
_MOMENTUM = 0.75
"""How much of how it was moving it keeps when it enters or leaves a gap; none would be the shortest way."""
_CELL = 7.5
"""Degrees between places about the subject."""
_LEVELS = 6.0
"""Degrees by which the levels at which cameras stood are smeared."""
_OPEN_SIDE = 150.0
"""Degrees of azimuth without any camera that are no hole but a side that cannot be reached."""
_MARGIN = 8.0
_NEAR_DEGREES, _NEAR_LEVELS = 25.0, 8.0
"""How far, about the subject and in level, a real view says how to stand."""
_NEIGHBOURS = 8


@dataclass(frozen=True, eq=False)
class Views:
    """Real views to find holes between, in temporal order."""

    c2w: Poses
    """Finite, rotations orthonormal."""
    subject: Subject | None
    """What they stand around, where there is such a thing."""
    spread: float
    """Median distance of the cameras from their middle, in the world's unit."""

    @staticmethod
    def of(c2w: Poses) -> "Views":
        """Look for the subject of finite poses."""
        clean = c2w.astype(np.float64)
        clean[:, :3, :3] = nearest_rotation(clean[:, :3, :3])
        upright_poses = clean.copy()
        upright_poses[:, :3, :3] = upright(clean[:, :3, :3])
        return Views(clean, find_subject(upright_poses), canonical_frame(clean).unit)

    def coordinates(self, c2w: Poses) -> Float[np.ndarray, "n 12"]:
        """Return points that are as far apart as views are: root of squares of shift in spreads and turn in radians.

        The turn is 2 sin(θ/2), a hair less than θ: ‖A − B‖ of two rotation matrices is √2 times that.
        """
        shift = (c2w[:, :3, 3] - self.c2w[0, :3, 3]) / self.spread
        return np.concatenate([shift, c2w[:, :3, :3].reshape(len(c2w), 9) / np.sqrt(2.0)], axis=1)


def distances(a: Float[np.ndarray, "n d"], b: Float[np.ndarray, "m d"]) -> Float[np.ndarray, "n m"]:
    """Return the distances between all points of two sets."""
    squares = np.square(a).sum(axis=1)[:, None] + np.square(b).sum(axis=1)[None] - 2.0 * a @ b.T
    return np.sqrt(np.maximum(squares, 0.0))


def path_gap_poses(views: Views, most: int) -> Poses:
    """Return poses that continue the path through its jumps, at most ``most`` in each."""
    points = views.coordinates(views.c2w)
    if len(points) < 3:
        return np.zeros((0, 4, 4))
    step = np.linalg.norm(np.diff(points, axis=0), axis=1)
    usual = float(np.median(step))
    found = []
    for i in np.flatnonzero(step > JUMP * max(usual, 1e-9)).tolist():
        turn = Rotation.from_matrix(views.c2w[i, :3, :3]).inv() * Rotation.from_matrix(views.c2w[i + 1, :3, :3])
        if np.degrees(turn.magnitude()) < _HALF_TURN:
            count = min(round(float(step[i]) / max(usual, 1e-9)) - 1, most)
            found.append(_through_the_gap(views, i, count))
        elif views.subject is not None:
            found.append(_going_on(views, i, most))
    return np.concatenate(found) if found else np.zeros((0, 4, 4))


def between(views: Views, i: Index, j: Index, share: Float[np.ndarray, " n"]) -> Poses:
    """Return the poses that lie at shares of the way from view i to view j; from each of several, a share for each.

    The turn is the shortest one. About a subject the camera keeps it where it has it, nearer or farther by and by, so
    that between two views of a turntable the camera stays on its circle; elsewhere it goes straight on.
    """
    start, end = views.c2w[i], views.c2w[j]
    first = Rotation.from_matrix(start[..., :3, :3])
    turn = (first.inv() * Rotation.from_matrix(end[..., :3, :3])).as_rotvec()
    return _interpolate_cameras(views, i, j, (first * Rotation.from_rotvec(turn * share[:, None])).as_matrix(), share)


def _through_the_gap(views: Views, i: int, count: int) -> Poses:
    """Return poses between i and i + 1, leaving and arriving as the views before and after were moving.

    Turn and place (see ``between``) follow cubic Hermite curves whose ends have the median of the last and of the next
    five steps, less a quarter of how far that is from the straight way.
    """
    share = np.arange(1, count + 1) / (count + 1.0)
    leaving = share**3 - 2.0 * share**2 + share
    arriving = share**3 - share**2
    rotation = Rotation.from_matrix(views.c2w[:, :3, :3])
    turns = (rotation[:-1].inv() * rotation[1:]).as_rotvec()
    places = _positions_from_subject(views)

    def curve(straight: Float[np.ndarray, "3"], steps: Float[np.ndarray, "s 3"]) -> Float[np.ndarray, "n 3"]:
        way = straight * (3.0 * share**2 - 2.0 * share**3)[:, None]
        for some, weight in (
            (steps[max(0, i - _STEPS_BEFORE) : i], leaving),
            (steps[i + 1 :][:_STEPS_BEFORE], arriving),
        ):
            moving = np.median(some, axis=0) * (count + 1.0) if len(some) else straight
            way = way + weight[:, None] * (straight + _MOMENTUM * (moving - straight))
        return way

    turn = curve((rotation[i].inv() * rotation[i + 1]).as_rotvec(), turns)
    place = places[i] + curve(places[i + 1] - places[i], np.diff(places, axis=0))
    return _place_cameras(views, (rotation[i] * Rotation.from_rotvec(turn)).as_matrix(), place)


def _going_on(views: Views, i: int, most: int) -> Poses:
    """Return poses between i and i + 1 that turn on as the views before and after did, if both agree on a number."""
    rotation = Rotation.from_matrix(views.c2w[:, :3, :3])
    step = (rotation[:-1].inv() * rotation[1:]).as_rotvec()
    before, after = step[max(0, i - _STEPS_BEFORE) : i], step[i + 1 : i + 1 + _STEPS_BEFORE]
    if not len(before) or not len(after):
        return np.zeros((0, 4, 4))
    best, found = _UNLIKE, None
    for count in range(1, most + 1):
        t = np.arange(count + 2.0)
        left = rotation[i] * Rotation.from_rotvec(np.median(before, axis=0) * t[:, None])
        right = rotation[i + 1] * Rotation.from_rotvec(-np.median(after, axis=0) * (count + 1.0 - t)[:, None])
        apart = left.inv() * right
        if (unlike := float(np.degrees(apart.magnitude()).mean())) < best:
            share = t / (count + 1.0)
            gently = share * share * (3.0 - 2.0 * share)
            blended = (left * Rotation.from_rotvec(apart.as_rotvec() * gently[:, None])).as_matrix()
            best, found = unlike, _interpolate_cameras(views, i, i + 1, blended[1:-1], share[1:-1])
    return np.zeros((0, 4, 4)) if found is None else found


def _interpolate_cameras(
    views: Views, i: Index, j: Index, rotation: Float[np.ndarray, "n 3 3"], share: Float[np.ndarray, " n"]
) -> Poses:
    """Put cameras of given rotations at shares of the way from view i to view j."""
    places = _positions_from_subject(views)
    return _place_cameras(views, rotation, places[i] + (places[j] - places[i]) * share[:, None])


def _positions_from_subject(views: Views) -> Float[np.ndarray, "view 3"]:
    """Return where each camera stands: seen from the subject, in the camera's own axes; without one, in the world."""
    if views.subject is None:
        return views.c2w[:, :3, 3]
    return np.einsum("nji,nj->ni", views.c2w[:, :3, :3], views.c2w[:, :3, 3] - views.subject.point)


def _place_cameras(views: Views, rotation: Float[np.ndarray, "n 3 3"], places: Float[np.ndarray, "n 3"]) -> Poses:
    """Undo ``_positions_from_subject`` for cameras of given rotations."""
    out = np.tile(np.eye(4), (len(rotation), 1, 1))
    out[:, :3, :3] = rotation
    turned = places if views.subject is None else np.einsum("nij,nj->ni", rotation, places)
    out[:, :3, 3] = turned if views.subject is None else views.subject.point + turned
    return out


def orbit_poses(views: Views, subject: Subject) -> tuple[Poses, Float[np.ndarray, " n"]]:
    """Return poses all around a subject at the levels where cameras stood, and how usual each level is.

    A side of more than 150° of azimuth without any camera is left out: nobody could stand there.
    """
    away = views.c2w[:, :3, 3] - subject.point
    side = np.cross(subject.up, subject.front)
    azimuth = np.degrees(np.arctan2(away @ side, away @ subject.front))
    level = 90.0 - angle_between(away, subject.up[None])
    grid = np.meshgrid(np.arange(-180.0, 180.0, _CELL), np.arange(-85.0, 86.0, _CELL))
    azimuths, levels = (one.ravel() for one in grid)
    usual = np.exp(-0.5 * np.square((levels[:, None] - level) / _LEVELS)).sum(axis=1) * _reachable(azimuths, azimuth)
    some = usual > 0.05 * usual.max()
    azimuths, levels, usual = np.radians(azimuths[some]), np.radians(levels[some]), usual[some]
    directions = (
        (np.cos(levels) * np.cos(azimuths))[:, None] * subject.front
        + (np.cos(levels) * np.sin(azimuths))[:, None] * side
        + np.sin(levels)[:, None] * subject.up
    )
    reach = np.linalg.norm(away, axis=1)
    apart = np.degrees(np.arccos(np.clip(directions @ (away / reach[:, None]).T, -1.0, 1.0)))
    near = -0.5 * (np.square(apart / _NEAR_DEGREES) + np.square((np.degrees(levels)[:, None] - level) / _NEAR_LEVELS))
    weight = np.exp(near - near.max(axis=1, keepdims=True))
    weight /= weight.sum(axis=1, keepdims=True)
    places = subject.point + directions * np.exp(weight @ np.log(reach))[:, None]
    return _held_like(views, subject, places, weight), usual / usual.sum()


def _reachable(azimuths: Float[np.ndarray, " n"], taken: Float[np.ndarray, " view"]) -> Float[np.ndarray, " n"]:
    """Return 1 for azimuths where a camera could stand, 0 on the open side."""
    taken = np.sort(taken)
    gaps = np.diff(np.append(taken, taken[0] + 360.0))
    widest = int(gaps.argmax())
    if gaps[widest] <= _OPEN_SIDE:
        return np.ones_like(azimuths)
    start = taken[(widest + 1) % len(taken)]
    width = 360.0 - gaps[widest]
    beyond = (azimuths - start + _MARGIN) % 360.0
    return (beyond <= width + 2.0 * _MARGIN).astype(np.float64)


def _held_like(
    views: Views, subject: Subject, places: Float[np.ndarray, "n 3"], weight: Float[np.ndarray, "n view"]
) -> Poses:
    """Return cameras at given places that are held as the views are: aimed past the subject, and turned, like them."""
    held = np.einsum("nji,njk->nik", _aimed(views.c2w[:, :3, 3], subject), views.c2w[:, :3, :3])
    usual = nearest_rotation(np.einsum("qn,nij->qij", weight, held))
    out = np.tile(np.eye(4), (len(places), 1, 1))
    out[:, :3, :3] = _aimed(places, subject) @ usual
    out[:, :3, 3] = places
    return out


def _aimed(places: Float[np.ndarray, "n 3"], subject: Subject) -> Float[np.ndarray, "n 3 3"]:
    """Return the rotations of cameras that look at the subject, upright."""
    z = places - subject.point
    z /= np.maximum(np.linalg.norm(z, axis=1, keepdims=True), 1e-12)
    x = np.cross(subject.up, z)
    length = np.linalg.norm(x, axis=1, keepdims=True)
    x = np.where(length > 1e-6, x / np.maximum(length, 1e-12), np.cross(subject.up, subject.front))
    return np.stack([x, np.cross(z, x), z], axis=2)


def midpoint_poses(views: Views) -> Poses:
    """Return poses half way between views that are neighbours in space, whenever they were taken."""
    apart = distances(views.coordinates(views.c2w), views.coordinates(views.c2w))
    near = np.argsort(apart, axis=1, kind="stable")[:, 1 : _NEIGHBOURS + 1]
    pairs = np.unique(np.sort([(i, int(j)) for i, row in enumerate(near) for j in row], axis=1), axis=0)
    return between(views, pairs[:, 0], pairs[:, 1], np.full(len(pairs), 0.5))
