"""Where a camera was, by the points that it shares with cameras that are known.

Cameras are world-to-camera matrices with OpenCV axes. Lengths in images are pixels at a longer side of 1000.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from mtcm_nerfstudio.geometry.epipolar import small_motion

FEWEST = 15
"""Points that must agree with a new pose."""
_LEAST_AGREEING = 0.5
"""Share of the triangulated points that must agree with a new pose."""
_REACH, _PLACED = 4.0, 6.0
"""Reprojection errors up to which a sighting agrees with a point: a trusted frame's, and the suspect's, for which the
point itself is uncertain."""
_NARROW = np.sin(np.radians(0.5))
"""Sine of an angle: points whose rays all lie nearer than this to their mean are as good as infinitely far."""
_FAR_TO_NEAR = (32.0, 8.0, 2.0)
"""Residuals at which a sighting counts half, step by step: what disagrees most is let go first."""
_KERNEL, _STEPS = 1.0, 8
"""The same residual, and the number of steps, in bundle adjustment."""
_DAMPED = 1e-7
"""Share of its trace that is added to a matrix, so that a point stays where it is along a ray that it is alone on."""
_BEHIND, _TINY, _SINGULAR = 1e-6, 1e-12, 1e12


@dataclass(frozen=True, eq=False)
class Observations:
    """Observations of the points that a suspect shares with other frames, sorted by point."""

    point: Int[np.ndarray, " sighting"]
    frame: Int[np.ndarray, " sighting"]
    normalised_points: Float[np.ndarray, "sighting 2"]
    focal: Float[np.ndarray, " sighting"]
    own: Bool[np.ndarray, " sighting"]
    """The suspect's."""

    @cached_property
    def starts(self) -> Int[np.ndarray, " point"]:
        """First sighting of each point."""
        return np.flatnonzero(np.diff(self.point, prepend=-1))

    def total(self, values: Float[np.ndarray, "sighting ..."]) -> Float[np.ndarray, "point ..."]:
        """Sum up over each point's sightings."""
        return np.add.reduceat(values, self.starts)


class Projected(NamedTuple):
    """Where points would be seen if they and the cameras were where they are thought to be."""

    residual: Float[np.ndarray, "sighting 2"]
    slope: Float[np.ndarray, "sighting 2 3"]
    """Of the residual, by the point's place."""
    place: Float[np.ndarray, "sighting 3"]
    """Of the point in the camera's axes."""
    ahead: Bool[np.ndarray, " sighting"]

    def within(self, pixels: float) -> Bool[np.ndarray, " sighting"]:
        """Tell which sightings agree with their point."""
        return self.ahead & ((self.residual**2).sum(axis=1) < pixels**2)

    def weight(self, kernel: float) -> Float[np.ndarray, " sighting"]:
        """Return how much each sighting counts: half at a residual of ``kernel`` (Cauchy's kernel)."""
        return self.ahead / (1.0 + (self.residual**2).sum(axis=1) / kernel**2)


class Refined(NamedTuple):
    """A camera, and how sure it is."""

    camera: Float[np.ndarray, "4 4"]
    turn: float
    """Standard deviation of its direction in degrees, if points were found to one pixel."""
    shift: float
    """The same of its position, in units of the capture."""


def _project(
    observations: Observations, cameras: Float[np.ndarray, "frame 4 4"], points: Float[np.ndarray, "point 3"]
) -> Projected:
    camera = cameras[observations.frame]
    place = (camera[:, :3, :3] @ points[observations.point][..., None])[..., 0] + camera[:, :3, 3]
    ahead = place[:, 2] > _BEHIND
    depth = np.where(ahead, place[:, 2], 1.0)[:, None]
    image = place[:, :2] / depth
    slope = np.zeros((len(place), 2, 3))
    slope[:, 0, 0] = slope[:, 1, 1] = 1.0
    slope[:, :, 2] = -image
    slope *= (observations.focal[:, None] / depth)[..., None]
    return Projected(observations.focal[:, None] * (image - observations.normalised_points), slope, place, ahead)


def triangulate_points(
    observations: Observations, cameras: Float[np.ndarray, "frame 4 4"], use: Bool[np.ndarray, " sighting"]
) -> tuple[Float[np.ndarray, "point 3"], Bool[np.ndarray, " point"]]:
    """Find where points are, and which of them are known well: by sightings that agree and come from apart."""
    rotation = cameras[observations.frame, :3, :3]
    points, ahead = _triangulate_linear(observations, cameras, use)
    for kernel in _FAR_TO_NEAR:
        projected = _project(observations, cameras, points)
        weight = use * projected.weight(kernel)
        hessian, gradient = _normal_equations(observations, projected.slope @ rotation, projected.residual, weight)
        points = points - np.linalg.solve(hessian, gradient[..., None])[..., 0]
    agrees = use & _project(observations, cameras, points).within(_REACH)
    middle = observations.total(ahead * agrees[:, None])
    middle /= np.maximum(np.linalg.norm(middle, axis=1), 1e-12)[:, None]
    apart = agrees * np.linalg.norm(np.cross(ahead, middle[observations.point]), axis=1)
    agreeing = observations.total(agrees.astype(float))
    most = agreeing >= np.maximum(2.0, 0.5 * observations.total(use.astype(float)))
    return points, most & (np.maximum.reduceat(apart, observations.starts) > _NARROW)


def _triangulate_linear(
    observations: Observations, cameras: Float[np.ndarray, "frame 4 4"], use: Bool[np.ndarray, " sighting"]
) -> tuple[Float[np.ndarray, "point 3"], Float[np.ndarray, "sighting 3"]]:
    """Return the points with the least squared distances from their rays, and the rays' directions in the world."""
    turned = np.swapaxes(cameras[observations.frame, :3, :3], 1, 2)
    centre = (turned @ -cameras[observations.frame, :3, 3:])[..., 0]
    ray = np.concatenate([observations.normalised_points, np.ones((len(observations.normalised_points), 1))], axis=1)
    ahead = (turned @ (ray / np.linalg.norm(ray, axis=1)[:, None])[..., None])[..., 0]
    across = use[:, None, None] * (np.eye(3)[None] - ahead[:, :, None] * ahead[:, None, :])
    # A point that is seen once could be anywhere along its ray: a unit ahead of the camera will do.
    count = np.maximum(observations.total(use.astype(float)), 1.0)[:, None]
    somewhere = observations.total(use[:, None] * (centre + ahead)) / count
    total = observations.total(across) + _DAMPED * np.eye(3)
    aim = observations.total((across @ centre[..., None])[..., 0]) + _DAMPED * somewhere
    return np.linalg.solve(total, aim[..., None])[..., 0], ahead


def _normal_equations(
    observations: Observations,
    slope: Float[np.ndarray, "sighting 2 3"],
    residual: Float[np.ndarray, "sighting 2"],
    weight: Float[np.ndarray, " sighting"],
) -> tuple[Float[np.ndarray, "point 3 3"], Float[np.ndarray, "point 3"]]:
    """Return each point's Gauss–Newton matrix and gradient."""
    weighted = weight[:, None, None] * np.swapaxes(slope, 1, 2)
    hessian = observations.total(weighted @ slope)
    damping = _DAMPED * np.trace(hessian, axis1=1, axis2=2) + _TINY
    return hessian + damping[:, None, None] * np.eye(3), observations.total((weighted @ residual[..., None])[..., 0])


def estimate_pose_from_tracks(
    normalised_points: Float[np.ndarray, "point 2"], points: Float[np.ndarray, "point 3"], focal: float
) -> Float[np.ndarray, "4 4"] | None:
    """Estimate an absolute pose from 2D-3D correspondences (LO-RANSAC); None with too few inliers."""
    if len(points) < FEWEST:
        return None
    import pycolmap  # it takes over the handling of signals, which nobody wants who repairs nothing

    camera = pycolmap.Camera(model="SIMPLE_PINHOLE", width=1000, height=1000, params=[focal, 0.0, 0.0])
    options = pycolmap.AbsolutePoseEstimationOptions()
    options.ransac.max_error = _PLACED
    options.ransac.min_inlier_ratio = _LEAST_AGREEING
    options.ransac.random_seed = 0
    found = pycolmap.estimate_absolute_pose(normalised_points * focal, points, camera, options)
    if found is None or found["num_inliers"] < max(FEWEST, _LEAST_AGREEING * len(points)):
        return None
    return np.vstack([found["cam_from_world"].matrix(), [0.0, 0.0, 0.0, 1.0]])


def refined_camera(observations: Observations, cameras: Float[np.ndarray, "frame 4 4"], i: int) -> Refined | None:
    """Refine a camera and its points by bundle adjustment; None if the pose is under-determined.

    Points that only one other frame sees take part: with them, the distance from the epipolar line is what counts.
    """
    cameras = cameras.copy()
    points, _ = triangulate_points(observations, cameras, np.ones(len(observations.point), dtype=bool))
    information = np.zeros((6, 6))
    for _ in range(_STEPS):
        information, step, by_itself, along = _adjusted(observations, cameras, points)
        if step is None:
            return None
        points = points + by_itself + along @ step
        cameras[i] = small_motion(step[None])[0] @ cameras[i]
    variance = np.diag(np.linalg.inv(information))
    turn, shift = np.sqrt(variance[:3].sum()), np.sqrt(variance[3:].sum())
    return Refined(cameras[i], float(np.degrees(turn)), float(shift))


def _adjusted(
    observations: Observations, cameras: Float[np.ndarray, "frame 4 4"], points: Float[np.ndarray, "point 3"]
) -> tuple[
    Float[np.ndarray, "6 6"],
    Float[np.ndarray, "6"] | None,
    Float[np.ndarray, "point 3"],
    Float[np.ndarray, "point 3 6"],
]:
    """Take a step of bundle adjustment (Gauss–Newton with Cauchy's kernel; Triggs et al., 2000, section 6.1).

    The points are eliminated first (Schur complement): each is solved for alone, as it depends on the camera.

    Returns:
        The camera's matrix of normal equations once the points are gone; the camera's motion, None where the matrix is
        singular; how the points move if the camera does not, and how much more by its motion.
    """
    projected = _project(observations, cameras, points)
    weight = projected.weight(_KERNEL)
    by_point = projected.slope @ cameras[observations.frame, :3, :3]
    hessian, gradient = _normal_equations(observations, by_point, projected.residual, weight)
    by_camera = _slope_by_camera(projected.slope[observations.own], projected.place[observations.own])
    weighted = weight[observations.own, None, None] * np.swapaxes(by_camera, 1, 2)
    both = weighted @ by_point[observations.own]
    solved = np.linalg.solve(hessian, np.concatenate([np.swapaxes(both, 1, 2), gradient[..., None]], axis=2))
    information = (weighted @ by_camera - both @ solved[..., :6]).sum(axis=0)
    aim = (weighted @ projected.residual[observations.own, :, None] - both @ solved[..., 6:]).sum(axis=0)[:, 0]
    sound = np.isfinite(information).all() and np.linalg.cond(information) < _SINGULAR
    return information, -np.linalg.solve(information, aim) if sound else None, -solved[..., 6], -solved[..., :6]


def _slope_by_camera(
    slope: Float[np.ndarray, "point 2 3"], place: Float[np.ndarray, "point 3"]
) -> Float[np.ndarray, "point 2 6"]:
    """Return the slope of residuals by a turn and a shift of the camera: a place p goes to p + ω × p + ν."""
    turned = np.cross(np.broadcast_to(np.eye(3), (len(place), 3, 3)), place[:, None, :])  # rows e_k × p
    return np.concatenate([slope @ np.swapaxes(turned, 1, 2), slope], axis=2)
