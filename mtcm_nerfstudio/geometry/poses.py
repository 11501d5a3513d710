"""Geometry of camera poses: conventions, quaternions, and the frame of reference that a capture carries itself.

Everything is float64 and OpenGL (x right, y up, z back) unless a name says ``opencv`` (x right, y down, z forward).
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

OPENGL_FROM_OPENCV = np.diag([1.0, -1.0, -1.0, 1.0])
"""Turns the camera's axes from OpenCV to OpenGL (and back: it is its own inverse); right-multiplied to a c2w."""

_NOT_ZERO = 1e-6
"""Numbers of order 1 that are below this are rounding, and must not decide a sign or a direction."""
_CONCENTRATED = 0.3
"""Directions agree when the length of their mean is above this (1: all the same, 0: no preference)."""


@dataclass(frozen=True, eq=False)
class CanonicalFrame:
    """The similarity transform from the world into the frame of reference that the cameras themselves define.

    x_capture = rotation @ (x_world - origin) / unit. Turning, moving or scaling the world changes this record and
    nothing that is expressed in it.
    """

    origin: Float[np.ndarray, "3"]
    rotation: Float[np.ndarray, "3 3"]
    unit: float

    def to_capture(self, c2w: Float[np.ndarray, "n 4 4"]) -> Float[np.ndarray, "n 4 4"]:
        """Express world poses in the capture's frame (positions in units, rotations turned)."""
        out = np.tile(np.eye(4), (len(c2w), 1, 1))
        out[:, :3, :3] = self.rotation @ c2w[:, :3, :3]
        out[:, :3, 3] = (c2w[:, :3, 3] - self.origin) @ self.rotation.T / self.unit
        return out

    def to_world(self, c2w: Float[np.ndarray, "n 4 4"]) -> Float[np.ndarray, "n 4 4"]:
        """Undo ``to_capture``."""
        out = np.tile(np.eye(4), (len(c2w), 1, 1))
        out[:, :3, :3] = self.rotation.T @ c2w[:, :3, :3]
        out[:, :3, 3] = c2w[:, :3, 3] * self.unit @ self.rotation + self.origin
        return out


def c2w_from_colmap(wxyz: Float[np.ndarray, "4"], translation: Float[np.ndarray, "3"]) -> Float[np.ndarray, "4 4"]:
    """Turn COLMAP's world-to-camera quaternion and translation (OpenCV) into an OpenGL camera-to-world matrix."""
    w2c = np.eye(4)
    w2c[:3, :3] = matrix_from_wxyz(wxyz[None])[0]
    w2c[:3, 3] = translation
    return np.linalg.inv(w2c) @ OPENGL_FROM_OPENCV


def colmap_from_c2w(c2w: Float[np.ndarray, "4 4"]) -> tuple[Float[np.ndarray, "4"], Float[np.ndarray, "3"]]:
    """Undo ``c2w_from_colmap``: the quaternion (w ≥ 0) and translation of COLMAP's world-to-camera transform."""
    w2c = np.linalg.inv(c2w @ OPENGL_FROM_OPENCV)
    return wxyz_from_matrix(w2c[None, :3, :3])[0], w2c[:3, 3]


def matrix_from_wxyz(wxyz: Float[np.ndarray, "n 4"]) -> Float[np.ndarray, "n 3 3"]:
    """Turn quaternions (scalar first, any length but zero) into rotation matrices."""
    w, x, y, z = (wxyz / np.linalg.norm(wxyz, axis=1, keepdims=True)).T
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return np.moveaxis(np.array(rows), 2, 0)


def wxyz_from_matrix(rotation: Float[np.ndarray, "n 3 3"]) -> Float[np.ndarray, "n 4"]:
    """Turn rotation matrices into unit quaternions, scalar first and not negative.

    Shepperd's method (Journal of Guidance and Control 1(3), 1978): of four equivalent forms, the one that divides
    by the largest number.
    """
    m = rotation
    trace = m[:, 0, 0] + m[:, 1, 1] + m[:, 2, 2]
    squares = np.stack([trace, m[:, 0, 0], m[:, 1, 1], m[:, 2, 2]], axis=1)
    w_x = np.stack([1 + trace, m[:, 2, 1] - m[:, 1, 2], m[:, 0, 2] - m[:, 2, 0], m[:, 1, 0] - m[:, 0, 1]], axis=1)
    x_x = 1 - trace + 2 * m[:, 0, 0]
    y_y = 1 - trace + 2 * m[:, 1, 1]
    z_z = 1 - trace + 2 * m[:, 2, 2]
    x_y, x_z, y_z = m[:, 1, 0] + m[:, 0, 1], m[:, 2, 0] + m[:, 0, 2], m[:, 2, 1] + m[:, 1, 2]
    forms = np.stack(
        [
            w_x,
            np.stack([w_x[:, 1], x_x, x_y, x_z], axis=1),
            np.stack([w_x[:, 2], x_y, y_y, y_z], axis=1),
            np.stack([w_x[:, 3], x_z, y_z, z_z], axis=1),
        ],
        axis=1,
    )
    wxyz = forms[np.arange(len(m)), np.argmax(squares, axis=1)]
    wxyz = wxyz / np.linalg.norm(wxyz, axis=1, keepdims=True)
    return np.where(wxyz[:, :1] < 0, -wxyz, wxyz)


def nearest_rotation(matrix: Float[np.ndarray, "n 3 3"]) -> Float[np.ndarray, "n 3 3"]:
    """Return the rotation matrices that are nearest in the Frobenius norm (orthogonal Procrustes).

    Captures carry scale or shear in their matrices now and then; a quaternion can not.
    """
    u, _, vt = np.linalg.svd(matrix)
    u[:, :, -1] *= np.sign(np.linalg.det(u @ vt))[:, None]
    return u @ vt


def with_continuous_signs(wxyz: Float[np.ndarray, "n 4"]) -> Float[np.ndarray, "n 4"]:
    """Choose the sign of each quaternion so that the sequence does not jump between q and −q.

    Each frame follows the sum of the three before it, so that one frame with a wrong pose does not turn the sign
    of all that come after it. The first, and any that is at right angles to those before it, has its first number
    that is not zero positive.
    """
    out = wxyz.copy()
    for i in range(len(out)):
        agreement = out[max(0, i - 3) : i].sum(axis=0) @ out[i]
        leading = out[i, np.argmax(np.abs(out[i]) > _NOT_ZERO)]
        if (agreement if abs(agreement) > _NOT_ZERO else leading) < 0:
            out[i] *= -1
    return out


def rotation_angle_degrees(a: Float[np.ndarray, "*n 3 3"], b: Float[np.ndarray, "*n 3 3"]) -> Float[np.ndarray, " *n"]:
    """Return the angle of the rotation between ``a`` and ``b``, in degrees within [0, 180].

    2·asin(‖a − b‖ / √8) keeps its precision for small angles, where the arc cosine of the trace loses it.
    """
    chord = np.linalg.norm(a - b, axis=(-2, -1)) / np.sqrt(8.0)
    return np.degrees(2.0 * np.arcsin(np.clip(chord, 0.0, 1.0)))


def geometric_median(points: Float[np.ndarray, "n d"], iterations: int = 500) -> Float[np.ndarray, " d"]:
    """Return the point with the smallest sum of distances to all points (Weiszfeld's algorithm).

    Half of the points may lie anywhere and it stays among the others. Distances are rounded off near zero, as
    √(r² + ε²) with ε a hundredth of the median distance: the algorithm creeps where the answer is one of the points.
    """
    median = np.median(points, axis=0)
    for _ in range(20):
        median = _weiszfeld_step(points, median, 1e-9 * _median_distance(points, median))
    roundness = 0.01 * _median_distance(points, median)
    for _ in range(iterations):
        before, median = median, _weiszfeld_step(points, median, roundness)
        if np.linalg.norm(median - before) <= 1e-6 * roundness:
            break
    return median


def _weiszfeld_step(
    points: Float[np.ndarray, "n d"], centre: Float[np.ndarray, " d"], roundness: float
) -> Float[np.ndarray, " d"]:
    weight = 1.0 / np.sqrt(np.square(points - centre).sum(axis=1) + max(roundness, 1e-150) ** 2)
    return weight @ points / weight.sum()


def _median_distance(points: Float[np.ndarray, "n d"], centre: Float[np.ndarray, " d"]) -> float:
    return float(np.median(np.linalg.norm(points - centre, axis=1)))


def canonical_frame(c2w: Float[np.ndarray, "n 4 4"]) -> CanonicalFrame:
    """Find the frame of reference that the cameras define: origin, axes and unit of length.

    The origin is the geometric median of the positions, the unit the median distance from it. Up is the direction
    in which the cameras' up vectors agree, or, where they point everywhere (straight down from the air), the
    direction opposite to their view. Ahead is the direction in which the first third of the path lies, or, where it
    lies all around, the direction in which the cameras look. Every statistic is a median, so one wrong pose moves
    none of them far, and each turns with the world, so no similarity transform of the world changes a pose that is
    expressed in the result.

    Args:
        c2w: finite poses in temporal order.
    """
    if len(c2w) == 0:
        return CanonicalFrame(np.zeros(3), np.eye(3), 1.0)
    positions = c2w[:, :3, 3]
    rotation = nearest_rotation(c2w[:, :3, :3])
    origin = geometric_median(positions)
    distances = np.linalg.norm(positions - origin, axis=1)
    unit = float(np.median(distances))
    if unit <= 1e-9 * float(np.abs(positions).max()):
        # Most cameras stand in one place. What is left of their distances is rounding, unless some stand elsewhere.
        farthest = float(distances.max())
        unit = farthest if farthest > 1e-9 * float(np.abs(positions).max()) else 1.0
    up_of_cameras, backward = rotation[:, :, 1], rotation[:, :, 2]
    up = _first_agreed(up_of_cameras, backward)
    start = positions[: max(1, len(positions) // 3)]
    ahead = _first_agreed(
        _flattened((geometric_median(start) - origin)[None] / unit, up),
        _flattened(-backward, up),
        _flattened(rotation[0].T, up),
    )
    right = np.cross(ahead, up)
    return CanonicalFrame(origin, np.stack([right, up, -ahead]), unit)


def far_away(positions: Float[np.ndarray, "n 3"], limit: float = 50.0) -> Bool[np.ndarray, " n"]:
    """Tell which positions lie absurdly far out: beyond ``limit`` times as far as 85% of the cameras.

    No walk around anything looks like this; a pose that diverged in bundle adjustment does. Where most cameras stand
    in one place nothing can be said, since then any other place is far.
    """
    if len(positions) < 4:
        return np.zeros(len(positions), dtype=bool)
    distances = np.linalg.norm(positions - geometric_median(positions), axis=1)
    usual = float(np.quantile(distances, 0.85, method="lower"))
    return distances > limit * usual if usual > 1e-9 * float(np.abs(positions).max()) else distances < 0


def _first_agreed(*candidates: Float[np.ndarray, "_ 3"]) -> Float[np.ndarray, "3"]:
    """Return the unit direction of the first set of directions that agree among themselves, else of the last one."""
    direction = np.array([0.0, 0.0, 1.0])
    for directions in candidates:
        if np.linalg.norm(directions.mean(axis=0)) < _NOT_ZERO:
            continue  # they cancel: their median could be any point
        median = geometric_median(directions)
        length = float(np.linalg.norm(median))
        if length > _NOT_ZERO:
            direction = median / length
        if length > _CONCENTRATED:
            break
    return direction


def _flattened(directions: Float[np.ndarray, "n 3"], up: Float[np.ndarray, "3"]) -> Float[np.ndarray, "n 3"]:
    """Project directions onto the plane across ``up``."""
    return directions - np.outer(directions @ up, up)
