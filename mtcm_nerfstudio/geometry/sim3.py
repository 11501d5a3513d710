"""Estimate the Sim3 between two reconstructions from the poses of their common cameras."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from mtcm_nerfstudio.geometry.intrinsics import Pose
from mtcm_nerfstudio.geometry.poses import geometric_median, nearest_rotation, rotation_angle_degrees

_FIT_ROTATION_DEGREES, _FIT_POSITION_SHARE = 1.0, 0.02
_AT_MOST_COMPARED = 200


@dataclass(frozen=True, eq=False)
class Sim3:
    """The similarity transform from a COLMAP model's world into the capture's: x → scale · rotation · x + shift."""

    rotation: Float[np.ndarray, "3 3"]
    shift: Float[np.ndarray, "3"]
    scale: float

    def to_model(self, c2w: Pose) -> Pose:
        """Express a pose of the capture's world in the model's."""
        out = np.eye(4)
        out[:3, :3] = self.rotation.T @ c2w[:3, :3]
        out[:3, 3] = self.rotation.T @ (c2w[:3, 3] - self.shift) / self.scale
        return out

    def to_capture(self, c2w: Float[np.ndarray, "n 4 4"]) -> Float[np.ndarray, "n 4 4"]:
        """Undo ``to_model``, for many poses."""
        out = np.tile(np.eye(4), (len(c2w), 1, 1))
        out[:, :3, :3] = self.rotation @ c2w[:, :3, :3]
        out[:, :3, 3] = self.scale * c2w[:, :3, 3] @ self.rotation.T + self.shift
        return out


IDENTITY_SIM3 = Sim3(np.eye(3), np.zeros(3), 1.0)


def sim3_from_meta(meta: Mapping[str, object]) -> Sim3:
    """Return the transform that ``ns-process-data`` notes as ``applied_transform`` (and ``applied_scale``)."""
    applied, scale = meta.get("applied_transform"), meta.get("applied_scale", 1.0)
    if applied is None or not isinstance(scale, int | float):
        return IDENTITY_SIM3
    matrix = np.array(applied, dtype=np.float64)
    return Sim3(nearest_rotation(matrix[None, :3, :3])[0], scale * matrix[:3, 3], float(scale))


def estimate_sim3(model: Float[np.ndarray, "n 4 4"], capture: Float[np.ndarray, "n 4 4"]) -> Sim3 | None:
    """Find the similarity transform between two worlds in which the same cameras have poses.

    Robust: medians throughout, so that some wrong poses on either side change nothing. None where fewer than half
    of the cameras agree with it: then the two are not of one reconstruction.
    """
    if len(model) == 0:
        return None
    some = np.unique(np.linspace(0, len(model) - 1, min(len(model), _AT_MOST_COMPARED)).round().astype(int))
    turns = nearest_rotation(capture[some, :3, :3]) @ nearest_rotation(model[some, :3, :3]).transpose(0, 2, 1)
    apart = rotation_angle_degrees(*np.broadcast_arrays(turns[:, None], turns[None]))
    middle = int(np.argmin(np.median(apart, axis=1)))
    rotation = nearest_rotation(turns[apart[middle] < _FIT_ROTATION_DEGREES].mean(axis=0)[None])[0]
    turned, target = model[:, :3, 3] @ rotation.T, capture[:, :3, 3]
    scale = _scale(turned[some], target[some])
    sim3 = Sim3(rotation, geometric_median(target - scale * turned), scale)
    agreeing = agree(sim3.to_capture(model), capture, _FIT_ROTATION_DEGREES, _FIT_POSITION_SHARE)
    return sim3 if scale > 0 and agreeing.mean() >= 0.5 else None


def agree(a: Float[np.ndarray, "n 4 4"], b: Float[np.ndarray, "n 4 4"], degrees: float, share: float) -> np.ndarray:
    """Tell which poses are equal up to an angle and up to a share of the cameras' median distance from their middle."""
    middle = geometric_median(b[:, :3, 3])
    spread = float(np.median(np.linalg.norm(b[:, :3, 3] - middle, axis=1)))
    near = np.linalg.norm(a[:, :3, 3] - b[:, :3, 3], axis=1) <= share * spread + 1e-12
    turned = rotation_angle_degrees(nearest_rotation(a[:, :3, :3]), nearest_rotation(b[:, :3, :3]))
    return near & (turned <= degrees)


def _scale(points: Float[np.ndarray, "n 3"], target: Float[np.ndarray, "n 3"]) -> float:
    """Return how much longer distances are in ``target``: 1 where there are no two different points.

    Siegel's repeated median (Biometrika 69(1), 1982): the median over points of the median over their partners.
    Wrong points up to half of all do not reach it; the plain median over pairs already fails at three in ten.
    """
    before, after = (np.linalg.norm(p[:, None] - p[None], axis=2) for p in (points, target))
    usable = before > 1e-9 * before.max(initial=0.0)
    ratios = np.where(usable, after / np.where(usable, before, 1.0), np.nan)[usable.any(axis=1)]
    return float(np.median(np.nanmedian(ratios, axis=1))) if len(ratios) else 1.0
