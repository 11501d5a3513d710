"""Pixels to bearings and back, for the camera models in ``CAMERA_MODELS``.

A bearing is the unit direction in which a camera sees a pixel, in OpenCV axes (x right, y down, z ahead). Unlike x/z
and y/z it exists beside and behind the camera too. Formulas are those of COLMAP's ``sensor/models.h``.
"""

from collections.abc import Callable
from functools import cache

import numpy as np
from jaxtyping import Float

from mtcm_nerfstudio.geometry.intrinsics import Intrinsics

Plane = Float[np.ndarray, "point 2"]

_PERSPECTIVE = ("PINHOLE", "SIMPLE_PINHOLE", "SIMPLE_RADIAL", "RADIAL", "OPENCV", "FULL_OPENCV")
_FISHEYE = ("OPENCV_FISHEYE", "SIMPLE_RADIAL_FISHEYE", "RADIAL_FISHEYE", "THIN_PRISM_FISHEYE", "FISHEYE")
_FISHEYE624 = ("RAD_TAN_THIN_PRISM_FISHEYE", "FISHEYE624")
"""One model with two names, COLMAP's and nerfstudio's."""
_EQUIRECTANGULAR = "EQUIRECTANGULAR"
_FOV = "FOV"
CAMERA_MODELS: tuple[str, ...] = (*_PERSPECTIVE, *_FISHEYE, *_FISHEYE624, _FOV, _EQUIRECTANGULAR)
"""Camera models with bearings; frames of any other have no geometric evidence."""

_ROUNDS = 30
"""Newton steps that undo a distortion; they stop earlier where nothing changes any more."""
_STEP = 1e-6
_CONVERGED = 1e-5
"""Distance in the normalised image plane up to which an undistorted point must reproduce the pixel."""


def has_bearings(intrinsics: Intrinsics | None) -> bool:
    """Return whether pixels of such a camera can be turned into bearings."""
    return intrinsics is not None and intrinsics.camera_model in CAMERA_MODELS


def is_wide(intrinsics: Intrinsics) -> bool:
    """Return whether a camera may see more than a perspective image plane can hold."""
    return intrinsics.camera_model not in _PERSPECTIVE


def bearings_from_pixels(pixels: Float[np.ndarray, "point 2"], intrinsics: Intrinsics) -> Float[np.ndarray, "point 3"]:
    """Return the unit bearing of each pixel; NaN where the distortion has no inverse.

    Args:
        pixels: x and y in pixels of the image that the intrinsics describe.
        intrinsics: of a camera model in ``CAMERA_MODELS``.

    Raises:
        ValueError: the camera model has no bearings.
    """
    points = np.asarray(pixels, dtype=np.float64).reshape(-1, 2)
    if intrinsics.camera_model == _EQUIRECTANGULAR:
        return _from_sphere(points, intrinsics)
    plane = (points - [intrinsics.cx, intrinsics.cy]) / [intrinsics.fl_x, intrinsics.fl_y]
    if intrinsics.camera_model == _FOV:
        return _from_angle_plane(_undo_fov(plane, _coefficients(intrinsics)))
    undistorted = _undistort(plane, _distortion(intrinsics))
    return _from_image_plane(undistorted) if intrinsics.camera_model in _PERSPECTIVE else _from_angle_plane(undistorted)


def pixels_from_bearings(
    bearings: Float[np.ndarray, "point 3"], intrinsics: Intrinsics
) -> Float[np.ndarray, "point 2"]:
    """Return where bearings (of any length) are seen, in pixels; NaN for those that a perspective camera cannot see.

    Raises:
        ValueError: the camera model has no bearings.
    """
    direction = np.asarray(bearings, dtype=np.float64).reshape(-1, 3)
    if intrinsics.camera_model == _EQUIRECTANGULAR:
        return _to_sphere(direction, intrinsics)
    if intrinsics.camera_model in _PERSPECTIVE:
        ahead = direction[:, 2] > 1e-9
        plane = np.where(ahead[:, None], direction[:, :2] / np.where(ahead, direction[:, 2], 1.0)[:, None], np.nan)
        distorted = _distortion(intrinsics)(plane)
    elif intrinsics.camera_model == _FOV:
        distorted = _apply_fov(_to_angle_plane(direction), _coefficients(intrinsics))
    else:
        distorted = _distortion(intrinsics)(_to_angle_plane(direction))
    return distorted * [intrinsics.fl_x, intrinsics.fl_y] + [intrinsics.cx, intrinsics.cy]


def pixels_per_radian(intrinsics: Intrinsics | None) -> float:
    """Return the resolution in the middle of an image; NaN where the camera model has no bearings."""
    if intrinsics is None or not has_bearings(intrinsics):
        return float("nan")
    if intrinsics.camera_model == _EQUIRECTANGULAR:
        return intrinsics.width / (2.0 * np.pi)
    return 0.5 * (intrinsics.fl_x + intrinsics.fl_y)


@cache
def widest_angle(intrinsics: Intrinsics) -> float:
    """Return the largest angle, in radians, between the optical axis and what the image's border shows.

    Raises:
        ValueError: the camera model has no bearings.
    """
    if intrinsics.camera_model == _EQUIRECTANGULAR:
        return float(np.pi)
    x, y = np.linspace(0, intrinsics.width, 33), np.linspace(0, intrinsics.height, 33)
    corners = np.stack(np.meshgrid(x, y), axis=-1)
    border = np.concatenate([corners[[0, -1]].reshape(-1, 2), corners[:, [0, -1]].reshape(-1, 2)])
    ahead = bearings_from_pixels(border, intrinsics)[:, 2]
    return float(np.arccos(np.nanmin(ahead))) if np.isfinite(ahead).any() else float(np.pi)


def _coefficients(intrinsics: Intrinsics) -> dict[str, float]:
    return dict(intrinsics.distortion)


def _distortion(intrinsics: Intrinsics) -> Callable[[Plane], Plane]:
    """Return the function that distorts points of the (perspective or angle) plane of a camera model."""
    k = _coefficients(intrinsics)
    if intrinsics.camera_model in _PERSPECTIVE:
        return lambda plane: _distorted_perspective(plane, k)
    if intrinsics.camera_model in _FISHEYE:
        return lambda plane: _distorted_fisheye(plane, k)
    if intrinsics.camera_model in _FISHEYE624:
        return lambda plane: _distorted_fisheye624(plane, k)
    raise ValueError(f"no bearings for the camera model {intrinsics.camera_model}: use {', '.join(CAMERA_MODELS)}")


def _distorted_perspective(plane: Plane, k: dict[str, float]) -> Plane:
    """Distort by Brown's model with a rational radial part (OpenCV)."""
    x, y = plane.T
    r2 = x * x + y * y
    above = 1.0 + r2 * (k.get("k1", 0.0) + r2 * (k.get("k2", 0.0) + r2 * k.get("k3", 0.0)))
    below = 1.0 + r2 * (k.get("k4", 0.0) + r2 * (k.get("k5", 0.0) + r2 * k.get("k6", 0.0)))
    return plane * (above / below)[:, None] + _tangential(plane, r2, k)


def _distorted_fisheye(plane: Plane, k: dict[str, float]) -> Plane:
    """Distort points whose distance from the middle is an angle: θ(1 + k1 θ² + …), then COLMAP's thin prism."""
    r2 = (plane * plane).sum(axis=1)
    radial = 1.0 + r2 * (k.get("k1", 0.0) + r2 * (k.get("k2", 0.0) + r2 * (k.get("k3", 0.0) + r2 * k.get("k4", 0.0))))
    prism = np.stack([k.get("sx1", 0.0) * r2, k.get("sy1", 0.0) * r2], axis=1)
    return plane * radial[:, None] + _tangential(plane, r2, k) + prism


def _distorted_fisheye624(plane: Plane, k: dict[str, float]) -> Plane:
    """Distort an angle plane by six radial, two tangential and four thin prism coefficients, those on what is radial
    already."""
    r2 = (plane * plane).sum(axis=1)
    series = np.polynomial.polynomial.polyval(r2, [1.0, *(k.get(f"k{i}", 0.0) for i in range(6))])
    x, y = radial = (plane * series[:, None]).T
    r2, p0, p1 = x * x + y * y, k.get("p0", 0.0), k.get("p1", 0.0)
    tangential = np.stack([p0 * (r2 + 2 * x * x) + 2 * p1 * x * y, p1 * (r2 + 2 * y * y) + 2 * p0 * x * y], axis=1)
    s0, s1, s2, s3 = (k.get(f"s{i}", 0.0) for i in range(4))
    return radial.T + tangential + np.stack([r2 * (s0 + s1 * r2), r2 * (s2 + s3 * r2)], axis=1)


def _tangential(plane: Plane, r2: Float[np.ndarray, " point"], k: dict[str, float]) -> Plane:
    x, y = plane.T
    p1, p2 = k.get("p1", 0.0), k.get("p2", 0.0)
    return np.stack([2 * p1 * x * y + p2 * (r2 + 2 * x * x), 2 * p2 * x * y + p1 * (r2 + 2 * y * y)], axis=1)


def _undistort(plane: Plane, distort: Callable[[Plane], Plane]) -> Plane:
    """Invert a distortion of the plane by Newton's method with numeric derivatives; NaN where it does not converge."""
    found = plane.copy()
    for _ in range(_ROUNDS):
        error = distort(found) - plane
        if not np.nanmax(np.abs(error), initial=0.0) > 0.1 * _CONVERGED:
            break
        by_x, by_y = ((distort(found + step) - distort(found - step)) / (2 * _STEP) for step in _STEP * np.eye(2))
        determinant = by_x[:, 0] * by_y[:, 1] - by_x[:, 1] * by_y[:, 0]
        determinant = np.where(np.abs(determinant) < 1e-9, np.nan, determinant)
        step_x = (by_y[:, 1] * error[:, 0] - by_y[:, 0] * error[:, 1]) / determinant
        step_y = (by_x[:, 0] * error[:, 1] - by_x[:, 1] * error[:, 0]) / determinant
        found = found - np.clip(np.stack([step_x, step_y], axis=1), -0.5, 0.5)
    reproduced = np.abs(distort(found) - plane).max(axis=1, initial=0.0) <= _CONVERGED
    return np.where(reproduced[:, None], found, np.nan)


def _apply_fov(plane: Plane, k: dict[str, float]) -> Plane:
    """Distort an angle plane by the FOV model (Devernay and Faugeras, 2001)."""
    angle = np.linalg.norm(plane, axis=1)
    omega = k.get("omega", k.get("k1", 0.0))
    radius = np.arctan(2.0 * np.tan(np.minimum(angle, 1.55)) * np.tan(0.5 * omega)) / omega if omega else angle
    return plane * (radius / np.maximum(angle, 1e-12))[:, None]


def _undo_fov(plane: Plane, k: dict[str, float]) -> Plane:
    radius = np.linalg.norm(plane, axis=1)
    omega = k.get("omega", k.get("k1", 0.0))
    angle = np.arctan(np.tan(radius * omega) / (2.0 * np.tan(0.5 * omega))) if omega else radius
    return plane * (angle / np.maximum(radius, 1e-12))[:, None]


def _from_image_plane(plane: Plane) -> Float[np.ndarray, "point 3"]:
    direction = np.column_stack([plane, np.ones(len(plane))])
    return direction / np.linalg.norm(direction, axis=1, keepdims=True)


def _from_angle_plane(plane: Plane) -> Float[np.ndarray, "point 3"]:
    """Turn points whose distance from the middle is the angle from the axis into bearings."""
    angle = np.linalg.norm(plane, axis=1)
    angle = np.where(angle <= np.pi, angle, np.nan)
    across = plane * np.sinc(angle / np.pi)[:, None]
    return np.column_stack([across, np.cos(angle)])


def _to_angle_plane(direction: Float[np.ndarray, "point 3"]) -> Plane:
    across = np.linalg.norm(direction[:, :2], axis=1)
    angle = np.arctan2(across, direction[:, 2])
    return direction[:, :2] * (angle / np.maximum(across, 1e-12))[:, None]


def _from_sphere(pixels: Plane, intrinsics: Intrinsics) -> Float[np.ndarray, "point 3"]:
    """Turn pixels of an equirectangular image into bearings: the middle of the image is ahead."""
    longitude = (pixels[:, 0] / intrinsics.width - 0.5) * 2.0 * np.pi
    latitude = (pixels[:, 1] / intrinsics.height - 0.5) * np.pi
    return np.stack(
        [np.sin(longitude) * np.cos(latitude), np.sin(latitude), np.cos(longitude) * np.cos(latitude)], axis=1
    )


def _to_sphere(direction: Float[np.ndarray, "point 3"], intrinsics: Intrinsics) -> Plane:
    unit = direction / np.maximum(np.linalg.norm(direction, axis=1, keepdims=True), 1e-12)
    longitude, latitude = np.arctan2(unit[:, 0], unit[:, 2]), np.arcsin(np.clip(unit[:, 1], -1.0, 1.0))
    return np.stack(
        [(longitude / (2.0 * np.pi) + 0.5) * intrinsics.width, (latitude / np.pi + 0.5) * intrinsics.height], axis=1
    )
