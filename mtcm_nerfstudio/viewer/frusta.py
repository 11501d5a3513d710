"""The shapes of cameras: many frusta as one mesh, and the one of them that a ray meets.

All cameras are OpenGL (x right, y up, looking along −z). Drawn as a wireframe, a mesh shows the edges of its triangles,
so each verdict's shape is a choice of triangles: kept frames are plain frusta, dropped ones have an X across the
picture, repaired ones a ring before it, and suggested views a tip.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, UInt32

from mtcm_nerfstudio.geometry.poses import geometric_median, matrix_from_wxyz

_SIDES = ((0, 1, 2), (0, 2, 3), (0, 3, 4), (0, 4, 1))
_ROOF = ((1, 2, 6),)
_X = ((1, 2, 5), (2, 3, 5), (3, 4, 5), (4, 1, 5))
_TIP = ((1, 2, 7), (2, 3, 7), (3, 4, 7), (4, 1, 7))
_RING = ((8, 9, 9), (9, 10, 10), (10, 11, 11), (11, 8, 8))
_FACES = {
    "kept": _SIDES + _ROOF,
    "dropped": _SIDES + _ROOF + _X,
    "repaired": _SIDES + _ROOF + _RING,
    "suggested": _SIDES + _TIP,
}
_SOLID = {"kept": _SIDES, "dropped": _X + _TIP, "repaired": _SIDES + _X, "suggested": _SIDES + _TIP}
"""The same for cameras that are filled, of which a browser draws thousands."""
_PICKED = (*_SIDES, (1, 2, 3), (1, 3, 4))
"""Triangles that a pointer's ray can meet, whatever the verdict."""

_RAY_DEGREES = 1.5


@dataclass(frozen=True, eq=False)
class Mesh:
    """Triangles."""

    vertices: Float[np.ndarray, "v 3"]
    faces: UInt32[np.ndarray, "f 3"]


def frusta(
    c2w: Float[np.ndarray, "n 4 4"], tangents: Float[np.ndarray, "n 2"], size: float, verdict: str, solid: bool = False
) -> Mesh:
    """Return cameras of one verdict as one mesh.

    Args:
        c2w: finite poses.
        tangents: of half the horizontal and half the vertical field of view.
        size: distance of the picture from the camera, in the world's unit.
        verdict: whose shape they have.
        solid: whether it is to be drawn filled, not as a wireframe.
    """
    vertices = _vertices(c2w, tangents, size)
    faces = (
        np.array((_SOLID if solid else _FACES)[verdict])[None] + vertices.shape[1] * np.arange(len(c2w))[:, None, None]
    )
    return Mesh(vertices.reshape(-1, 3).astype(np.float32), faces.reshape(-1, 3).astype(np.uint32))


def segments(start: Float[np.ndarray, "n 3"], end: Float[np.ndarray, "n 3"]) -> Mesh:
    """Return lines as triangles without an area, of which a wireframe shows the one edge that is left."""
    vertices = np.stack([start, end], axis=1).reshape(-1, 3)
    faces = 2 * np.arange(len(start))[:, None] + np.array([0, 1, 1])
    return Mesh(vertices.astype(np.float32), faces.astype(np.uint32))


def picked(
    origin: Float[np.ndarray, "3"],
    direction: Float[np.ndarray, "3"],
    c2w: Float[np.ndarray, "n 4 4"],
    tangents: Float[np.ndarray, "n 2"],
    size: float,
) -> int | None:
    """Return the camera whose frustum a ray meets first, None where it meets none (NaN poses never do).

    Möller and Trumbore's intersection, for all triangles at once.
    """
    corners = _vertices(c2w, tangents, size)[:, np.array(_PICKED)]  # n, triangle, corner, xyz
    a, b, c = corners[:, :, 0], corners[:, :, 1], corners[:, :, 2]
    with np.errstate(divide="ignore", invalid="ignore"):
        across = np.cross(direction, c - a)
        determinant = ((b - a) * across).sum(axis=-1)
        away = origin - a
        u = (away * across).sum(axis=-1) / determinant
        along = np.cross(away, b - a)
        v = (along @ direction) / determinant
        distance = (along * (c - a)).sum(axis=-1) / determinant
        hit: Bool[np.ndarray, "n t"] = (u >= 0) & (v >= 0) & (u + v <= 1) & (distance > 0)
    nearest = np.where(hit, distance, np.inf).min(axis=1)
    best = int(nearest.argmin()) if len(nearest) else 0
    return best if len(nearest) and np.isfinite(nearest[best]) else None


def ray_through(
    wxyz: Float[np.ndarray, "4"], fov: float, aspect: float, place: tuple[float, float]
) -> Float[np.ndarray, "3"]:
    """Return the direction in which a camera sees a place in its picture.

    Args:
        wxyz: of the camera in the world, in OpenCV's convention (y down, looking along z) as viser has it.
        fov: vertical, in radians.
        aspect: width over height.
        place: in the picture, from (0, 0) above left to (1, 1).
    """
    half = np.tan(0.5 * fov)
    local = np.array([(2.0 * place[0] - 1.0) * half * aspect, (2.0 * place[1] - 1.0) * half, 1.0])
    return matrix_from_wxyz(wxyz[None])[0] @ local


def on_screen(
    points: Float[np.ndarray, "n 3"], wxyz: Float[np.ndarray, "4"], position: Float[np.ndarray, "3"], fov: float,
    aspect: float,
) -> Float[np.ndarray, "n 2"]:  # fmt: skip
    """Return where in a camera's picture points are, (0, 0) being above left; NaN behind it. Undoes ``ray_through``."""
    local = (points - position) @ matrix_from_wxyz(wxyz[None])[0]
    depth = np.where(local[:, 2] > 0, local[:, 2], np.nan)[:, None]
    return 0.5 + 0.5 * local[:, :2] / depth / (np.tan(0.5 * fov) * np.array([aspect, 1.0]))


def seeing(
    point: Float[np.ndarray, "3"], c2w: Float[np.ndarray, "n 4 4"], tangents: Float[np.ndarray, "n 2"]
) -> Bool[np.ndarray, " n"]:
    """Tell which cameras have a point in their picture (whatever stands between)."""
    local = np.einsum("nji,nj->ni", c2w[:, :3, :3], point - c2w[:, :3, 3])
    depth = np.where(local[:, 2] < 0, -local[:, 2], np.nan)[:, None]
    with np.errstate(invalid="ignore"):
        return (np.abs(local[:, :2] / depth) <= tangents).all(axis=1)


def nearest_along(
    points: Float[np.ndarray, "p 3"], origin: Float[np.ndarray, "3"], direction: Float[np.ndarray, "3"]
) -> Float[np.ndarray, "3"] | None:
    """Return the nearest of the points that a ray passes within a degree and a half; None where it passes none."""
    away = points - origin
    along = away @ (direction / np.linalg.norm(direction))
    length = np.linalg.norm(away, axis=1)
    met = along > np.cos(np.radians(_RAY_DEGREES)) * np.maximum(length, 1e-12)
    return points[np.where(met, length, np.inf).argmin()] if met.any() else None


def usual_size(c2w: Float[np.ndarray, "n 4 4"]) -> float:
    """Return a size at which frusta stand beside each other: most of the usual distance between neighbours."""
    positions = c2w[np.isfinite(c2w).all(axis=(1, 2)), :3, 3]
    if len(positions) < 2:
        return 0.1
    step = np.linalg.norm(np.diff(positions, axis=0), axis=1)
    extent = float(np.median(np.linalg.norm(positions - geometric_median(positions), axis=1)))
    usual = float(np.median(step[step > 0])) if (step > 0).any() else extent
    return float(np.clip(0.8 * usual, 0.02 * extent, 0.2 * extent)) or 0.1


def _vertices(
    c2w: Float[np.ndarray, "n 4 4"], tangents: Float[np.ndarray, "n 2"], size: float
) -> Float[np.ndarray, "n 12 3"]:
    """Return, for each camera: its place, four corners, the middle, the roof, the tip, four corners of the ring."""
    x, y = tangents[:, 0], tangents[:, 1]
    zero, one = np.zeros(len(x)), np.ones(len(x))
    corners = [np.stack([sx * x, sy * y, -one], axis=-1) for sx, sy in ((-1, 1), (1, 1), (1, -1), (-1, -1))]
    local = np.stack(
        [
            np.stack([zero, zero, zero], axis=-1),
            *corners,
            np.stack([zero, zero, -one], axis=-1),
            np.stack([zero, 1.35 * y, -one], axis=-1),
            np.stack([zero, zero, -1.5 * one], axis=-1),
            *(corner * np.array([0.55, 0.55, 1.0]) for corner in corners),
        ],
        axis=1,
    )
    return (size * local) @ c2w[:, :3, :3].transpose(0, 2, 1) + c2w[:, None, :3, 3]
