"""Two-view geometry on bearings, for many pairs of frames at once: how far matches are from the claimed poses.

Bearings are unit vectors in OpenCV camera axes, poses OpenCV camera-to-world matrices; arrays are (pair, match, …).
Errors are in pixels of the middle of each frame's own image, at a longer side of 1000: an angle times the resolution.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from mtcm_nerfstudio.geometry.poses import OPENGL_FROM_OPENCV

EPIPOLAR_INLIER_THRESHOLD = 2.5
"""Largest Sampson error of an inlier, in pixels."""

_ROTATION_PRIOR = np.radians(5.0)
_TRANSLATION_PRIOR = 0.1
"""Sizes of a pose correction that are ordinary: radians, and units of the capture."""
_KERNEL = 2.0
"""Error, in pixels, at which a match counts half (Cauchy's kernel)."""


@dataclass(frozen=True, eq=False)
class MatchedBearings:
    """Matched bearings of pairs of frames."""

    pairs: Int[np.ndarray, "pair 2"]
    bearings: Float[np.ndarray, "pair two match 3"]
    valid: Bool[np.ndarray, "pair match"]
    resolution: Float[np.ndarray, "pair two"]
    """Pixels per radian in the middle of the first and of the second frame."""

    def swapped(self) -> "MatchedBearings":
        """Return the same matches with the second frame of every pair first."""
        return MatchedBearings(self.pairs[:, ::-1], self.bearings[:, ::-1], self.valid, self.resolution[:, ::-1])


def opencv_from_opengl(c2w: Float[np.ndarray, "frame 4 4"]) -> Float[np.ndarray, "frame 4 4"]:
    """Return camera-to-world matrices with y down and z ahead."""
    return c2w @ OPENGL_FROM_OPENCV


def epipolar_errors(matched: MatchedBearings, c2w: Float[np.ndarray, "frame 4 4"]) -> Float[np.ndarray, "pair match"]:
    """Return the first-order (Sampson) angular error of every match in pixels; 0 where there is no match."""
    first, second = matched.pairs.T
    return np.abs(_signed_errors(matched, c2w[first], c2w[second])[0])


def epipolar_errors_when_moved(
    matched: MatchedBearings, c2w: Float[np.ndarray, "frame 4 4"], moved: Float[np.ndarray, "frame 4 4"]
) -> Float[np.ndarray, "pair match"]:
    """Return the same errors with the first frame of every pair moved and the second one in its place."""
    first, second = matched.pairs.T
    return np.abs(_signed_errors(matched, moved[first], c2w[second])[0])


def pose_corrections(
    matched: MatchedBearings,
    c2w: Float[np.ndarray, "frame 4 4"],
    pair_weight: Float[np.ndarray, " pair"],
    frame_weight: Float[np.ndarray, " frame"],
    rounds: int = 4,
) -> tuple[Float[np.ndarray, "frame 6"], Float[np.ndarray, "frame 4 4"]]:
    """Find for every frame the small motion of its own that makes it agree best with the frames it was matched with.

    Gauss–Newton with a robust kernel on each frame's six degrees of freedom, all other frames held. A frame with a
    wrong pose can put all of its pairs right by moving; a good frame beside it cannot.

    Args:
        matched: matches.
        c2w: positions in units of the capture.
        pair_weight: how much each pair counts.
        frame_weight: how much each frame counts for the others, in [0, 1].
        rounds: of Gauss–Newton.

    Returns:
        Motion of every frame (radians about, then units along its own axes), and the moved poses.
    """
    count = len(c2w)
    moved = c2w.copy()
    prior = np.diag(np.repeat([_ROTATION_PRIOR**-2, _TRANSLATION_PRIOR**-2], 3))
    total = np.zeros((count, 6))
    per_match = pair_weight / np.maximum(matched.valid.sum(axis=1), 1)
    for _ in range(rounds):
        hessian, gradient = np.tile(prior, (count, 1, 1)), total @ prior
        for side in (matched, matched.swapped()):
            first, second = side.pairs.T
            error, slope = _signed_errors(side, moved[first], c2w[second], with_slope=True)
            assert slope is not None
            weight = side.valid / (1.0 + (error / _KERNEL) ** 2) * (per_match * frame_weight[second])[:, None]
            weighted = slope * weight[..., None]
            np.add.at(hessian, first, np.swapaxes(weighted, 1, 2) @ slope)
            np.add.at(gradient, first, (weighted * error[..., None]).sum(axis=1))
        step = -np.linalg.solve(hessian, gradient[..., None])[..., 0]
        total = total + step
        moved = moved @ small_motion(step)
    return total, moved


def small_motion(twist: Float[np.ndarray, "frame 6"]) -> Float[np.ndarray, "frame 4 4"]:
    """Return rigid motions that turn by the first three numbers (radians) and shift by the last three."""
    out = np.tile(np.eye(4), (len(twist), 1, 1))
    angle = np.linalg.norm(twist[:, :3], axis=1)[:, None, None]
    cross = cross_matrix(twist[:, :3])
    safe = np.maximum(angle, 1e-12)
    out[:, :3, :3] += np.sin(angle) / safe * cross + (1.0 - np.cos(angle)) / safe**2 * (cross @ cross)
    out[:, :3, 3] = twist[:, 3:]
    return out


def triangulate_midpoints(
    matched: MatchedBearings, c2w: Float[np.ndarray, "frame 4 4"]
) -> tuple[Float[np.ndarray, "pair match 3"], Float[np.ndarray, "pair match"]]:
    """Return the point midway between the two lines of sight of every match, and the sine of their angle.

    Points behind either camera, and those of lines that are as good as parallel, are NaN.
    """
    first, second = matched.pairs.T
    x = np.einsum("pij,pmj->pmi", c2w[first, :3, :3], matched.bearings[:, 0])
    y = np.einsum("pij,pmj->pmi", c2w[second, :3, :3], matched.bearings[:, 1])
    baseline = (c2w[second, :3, 3] - c2w[first, :3, 3])[:, None]
    cosine, along_x, along_y = (x * y).sum(-1), (x * baseline).sum(-1), (y * baseline).sum(-1)
    sine2 = np.maximum(1.0 - cosine * cosine, 1e-12)
    depth_x, depth_y = (along_x - cosine * along_y) / sine2, (cosine * along_x - along_y) / sine2
    middle = 0.5 * (
        c2w[first, None, :3, 3] + depth_x[..., None] * x + c2w[second, None, :3, 3] + depth_y[..., None] * y
    )
    known = matched.valid & (depth_x > 0) & (depth_y > 0) & (sine2 > _PARALLEL**2)
    return np.where(known[..., None], middle, np.nan), np.sqrt(sine2)


_PARALLEL = np.sin(np.radians(0.5))
_SAME_PLACE = 1e-6
"""Distance, in units of the capture, within which two cameras stand in one place."""


def _signed_errors(
    matched: MatchedBearings,
    first: Float[np.ndarray, "pair 4 4"],
    second: Float[np.ndarray, "pair 4 4"],
    with_slope: bool = False,
) -> tuple[Float[np.ndarray, "pair match"], Float[np.ndarray, "pair match 6"] | None]:
    """Return signed errors in pixels and, if wanted, their slopes by a motion of the first camera.

    With E = [t]× R, R and t taking the first camera's coordinates to the second's, the constraint of a match of unit
    bearings is e = yᵀ E x. Its slope by a turn of x by 1/f₁ is |Eᵀy| / f₁ (less e, along x itself), so that
    e / √(|Eᵀy|² / f₁² + |Ex|² / f₂²) is the Sampson error in pixels. Moving the first camera by (ω, ν) in its own axes
    changes e by ω · (x × Eᵀy) + ν · Rᵀ(R x × y).

    Cameras in one place have no epipolar lines: there the error is the angle between the two directions, and its slope
    is left at zero.
    """
    to_second = np.swapaxes(second[:, :3, :3], 1, 2)
    rotation = to_second @ first[:, :3, :3]
    translation = (to_second @ (first[:, :3, 3] - second[:, :3, 3])[..., None])[..., 0]
    essential = cross_matrix(translation) @ rotation
    x, y = matched.bearings[:, 0], matched.bearings[:, 1]
    plane = x @ np.swapaxes(essential, 1, 2)
    plane_back = y @ essential
    e = (plane * y).sum(-1)
    inverse = 1.0 / np.maximum(matched.resolution, 1e-9) ** 2
    size = np.sqrt(
        np.maximum((plane_back**2).sum(-1) - e * e, 0.0) * inverse[:, :1]
        + np.maximum((plane**2).sum(-1) - e * e, 0.0) * inverse[:, 1:]
    )
    scale = matched.valid / np.maximum(size, 1e-12)
    x_in_second = x @ np.swapaxes(rotation, 1, 2)
    same_place = np.linalg.norm(translation, axis=1) < _SAME_PLACE
    if same_place.any():
        sine = np.linalg.norm(np.cross(x_in_second[same_place], y[same_place]), axis=-1)
        e[same_place] = sine / np.sqrt(inverse[same_place].sum(axis=1, keepdims=True))
        scale[same_place] = matched.valid[same_place]
    if not with_slope:
        return scale * e, None
    by_translation = np.cross(x_in_second, y) @ rotation
    slope = np.concatenate([np.cross(x, plane_back), by_translation], axis=-1)
    slope[same_place] = 0.0
    return scale * e, scale[..., None] * slope


def cross_matrix(vectors: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3 3"]:
    """Return the matrices [v]× with [v]× w = v × w."""
    x, y, z = vectors.T
    zero = np.zeros_like(x)
    return np.stack([zero, -z, y, z, zero, -x, -y, x, zero], axis=-1).reshape(-1, 3, 3)
