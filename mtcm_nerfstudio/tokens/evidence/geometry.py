"""Two-view geometry of many pairs of frames at once: how well matches obey poses, and what would make them obey.

Directions are (x/z, y/z, 1) in OpenCV camera axes (x right, y down, z ahead). The axes of arrays are (pair, match, …).
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

OBEYS = 2.5
"""Distance from the epipolar line, in pixels at a longer side of 1000, up to which a match obeys the poses."""

_TURN_PRIOR = np.radians(5.0)
_SHIFT_PRIOR = 0.1
"""Sizes of a correction that are still ordinary: radians, and units of the capture."""
_KERNEL = 2.0
"""Residual, in pixels, at which a match counts half (Cauchy's kernel)."""
_FLIP = np.diag([1.0, -1.0, -1.0, 1.0])


@dataclass(frozen=True, eq=False)
class SeenByTwo:
    """Matched directions of pairs of frames."""

    pairs: Int[np.ndarray, "pair 2"]
    rays: Float[np.ndarray, "pair two match 2"]
    there: Bool[np.ndarray, "pair match"]
    focal: Float[np.ndarray, " pair"]
    """Pixels a unit of x/z, at a longer side of 1000; the mean of the two frames."""


def opencv_from_opengl(c2w: Float[np.ndarray, "frame 4 4"]) -> Float[np.ndarray, "frame 4 4"]:
    """Return camera-to-world matrices with y down and z ahead."""
    return c2w @ _FLIP


def residuals(seen: SeenByTwo, c2w: Float[np.ndarray, "frame 4 4"]) -> Float[np.ndarray, "pair match"]:
    """Return the matches' Sampson distances from their epipolar geometry, in pixels; 0 where there is no match.

    Args:
        seen: matches.
        c2w: OpenCV camera-to-world matrices.
    """
    first, second = seen.pairs.T
    return np.abs(_sampson(seen, c2w[first], c2w[second])[0])


def residuals_when_moved(
    seen: SeenByTwo, c2w: Float[np.ndarray, "frame 4 4"], moved: Float[np.ndarray, "frame 4 4"], side: int
) -> Float[np.ndarray, "pair match"]:
    """Return the same distances with the pairs' first (``side`` 0) or second frames moved and the others in place."""
    own, other = seen.pairs[:, side], seen.pairs[:, 1 - side]
    turned = SeenByTwo(seen.pairs, seen.rays[:, [side, 1 - side]], seen.there, seen.focal)
    return np.abs(_sampson(turned, moved[own], c2w[other])[0])


def own_corrections(
    seen: SeenByTwo,
    c2w: Float[np.ndarray, "frame 4 4"],
    weight: Float[np.ndarray, " pair"],
    trust: Float[np.ndarray, " frame"],
    rounds: int = 4,
) -> tuple[Float[np.ndarray, "frame 6"], Float[np.ndarray, "frame 4 4"]]:
    """Find for every frame the small motion of its own that makes it agree best with the frames it was matched to.

    Gauss–Newton with a robust kernel on each frame's six degrees of freedom, every other frame held where it claims
    to be. A frame with a wrong pose can put all of its pairs right by moving; a good frame beside it can not.

    Args:
        seen: matches.
        c2w: OpenCV camera-to-world matrices, positions in units of the capture.
        weight: how much each pair counts.
        trust: how much each frame counts for the others, in [0, 1].
        rounds: of Gauss–Newton.

    Returns:
        Motion of every frame (radians about, then units along its own axes), and the moved poses.
    """
    count = len(c2w)
    moved = c2w.copy()
    prior = np.diag(np.repeat([_TURN_PRIOR**-2, _SHIFT_PRIOR**-2], 3))
    total = np.zeros((count, 6))
    for _ in range(rounds):
        hessian = np.tile(prior, (count, 1, 1))
        gradient = total @ prior
        for side in range(2):
            own, other = seen.pairs[:, side], seen.pairs[:, 1 - side]
            turned = SeenByTwo(seen.pairs, seen.rays[:, [side, 1 - side]], seen.there, seen.focal)
            residual, slope = _sampson(turned, moved[own], c2w[other], with_slope=True)
            assert slope is not None
            count_of = np.maximum(seen.there.sum(axis=1), 1)
            kernel = seen.there / (1.0 + (residual / _KERNEL) ** 2)
            kernel = kernel * (weight * trust[other] / count_of)[:, None]
            weighted = slope * kernel[..., None]
            np.add.at(hessian, own, np.swapaxes(weighted, 1, 2) @ slope)
            np.add.at(gradient, own, (weighted * residual[..., None]).sum(axis=1))
        step = -np.linalg.solve(hessian, gradient[..., None])[..., 0]
        total = total + step
        moved = moved @ small_motion(step)
    return total, moved


def small_motion(twist: Float[np.ndarray, "frame 6"]) -> Float[np.ndarray, "frame 4 4"]:
    """Return rigid motions that turn by the first three numbers (radians) and shift by the last three."""
    out = np.tile(np.eye(4), (len(twist), 1, 1))
    angle = np.linalg.norm(twist[:, :3], axis=1)[:, None, None]
    cross = _cross_matrix(twist[:, :3])
    safe = np.maximum(angle, 1e-12)
    out[:, :3, :3] += np.sin(angle) / safe * cross + (1.0 - np.cos(angle)) / safe**2 * (cross @ cross)
    out[:, :3, 3] = twist[:, 3:]
    return out


def _sampson(
    seen: SeenByTwo,
    first: Float[np.ndarray, "pair 4 4"],
    second: Float[np.ndarray, "pair 4 4"],
    with_slope: bool = False,
) -> tuple[Float[np.ndarray, "pair match"], Float[np.ndarray, "pair match 6"] | None]:
    """Return signed Sampson distances in pixels and, if wanted, their slopes by a motion of the first camera.

    With E = [t]× R, R and t taking the first camera's coordinates to the second's, the constraint of a match is
    e = yᵀ E x. Moving the first camera by (ω, ν) in its own axes changes it by ω · (x × Eᵀy) + ν · Rᵀ(R x × y).
    """
    turn = np.swapaxes(second[:, :3, :3], 1, 2)
    rotation = turn @ first[:, :3, :3]
    shift = (turn @ (first[:, :3, 3] - second[:, :3, 3])[..., None])[..., 0]
    essential = _cross_matrix(shift) @ rotation
    x = _homogeneous(seen.rays[:, 0])
    y = _homogeneous(seen.rays[:, 1])
    line = x @ np.swapaxes(essential, 1, 2)
    back = y @ essential
    size = np.sqrt((line[..., :2] ** 2).sum(-1) + (back[..., :2] ** 2).sum(-1))
    scale = seen.there * seen.focal[:, None] / np.maximum(size, 1e-12)
    residual = scale * (line * y).sum(-1)
    if not with_slope:
        return residual, None
    turned = x @ np.swapaxes(rotation, 1, 2)
    by_shift = np.cross(turned, y) @ rotation
    slope = np.concatenate([np.cross(x, back), by_shift], axis=-1)
    return residual, scale[..., None] * slope


def _homogeneous(rays: Float[np.ndarray, "pair match 2"]) -> Float[np.ndarray, "pair match 3"]:
    return np.concatenate([rays, np.ones((*rays.shape[:2], 1))], axis=-1)


def _cross_matrix(vectors: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3 3"]:
    x, y, z = vectors.T
    zero = np.zeros_like(x)
    return np.stack([zero, -z, y, z, zero, -x, -y, x, zero], axis=-1).reshape(-1, 3, 3)
