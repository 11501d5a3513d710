"""Match two images and verify by a fundamental or essential matrix; claimed poses are not used."""

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

VERSION = "2"
"""Changes whenever the same keypoints give other matches."""
FEWEST = 15
"""Matches that a fundamental matrix needs to count (COLMAP asks for as many)."""

_RATIO = 0.85
"""Largest distance to the best match over that to the second best (Lowe, 2004)."""
_THRESHOLD = 1.5
"""Distance from the epipolar line, in pixels at a longer side of 1000, up to which a match is an inlier of a
fundamental matrix."""
_ANGULAR_THRESHOLD = 2.0
"""The same as an angular error of bearings, for cameras whose image is no plane."""
_LEAST_SHARE = 0.25
"""Share of the tentative matches that must be inliers."""
_CONFIDENCE, _ROUNDS = 0.999, 2000
_WIDEST = np.cos(np.radians(65.0))
"""Matches farther than this from their mean direction do not take part in finding a fundamental matrix."""


@dataclass(frozen=True, eq=False)
class PairMatches:
    """The verified matches of two images."""

    indices: Int[np.ndarray, "match 2"]
    """Keypoint of the first and of the second image, in the order of the first's keypoints."""
    tentative: int
    """Matches before they were verified."""

    def __len__(self) -> int:
        """Return the number of verified matches."""
        return len(self.indices)

    def swapped(self) -> "PairMatches":
        """Return the matches with the second image first."""
        return PairMatches(self.indices[:, ::-1], self.tentative)


NO_MATCHES = PairMatches(np.zeros((0, 2), dtype=np.int16), 0)


@dataclass(frozen=True, eq=False)
class MatchInput:
    """What matching needs to know of an image."""

    descriptors: Float[Tensor, "point 128"]
    """See ``unit_descriptors``."""
    points: Float[np.ndarray, "point 2"]
    """Places in pixels at a longer side of 1000, distortion taken out where the intrinsics are known."""
    bearings: Float[np.ndarray, "point 3"] | None = None
    """Given for cameras whose image is no plane; then the places play no part."""
    resolution: float = float("nan")
    """Pixels per radian, at a longer side of 1000."""


def unit_descriptors(descriptors: UInt8[np.ndarray, "point 128"]) -> Float[Tensor, "point 128"]:
    """Return RootSIFT descriptors (Arandjelović and Zisserman, 2012): unit vectors whose products tell similarity."""
    values = torch.from_numpy(descriptors).float()
    return (values / values.sum(dim=1, keepdim=True).clamp(min=1.0)).sqrt()


def match_pair(first: MatchInput, second: MatchInput) -> PairMatches:
    """Match two images' descriptors and verify the matches by a fundamental matrix (MAGSAC++, Barath et al., 2020)."""
    a, b = mutual_nearest(first.descriptors, second.descriptors)
    if len(a) < FEWEST:
        return PairMatches(NO_MATCHES.indices, len(a))
    if first.bearings is not None and second.bearings is not None:
        x, y = first.bearings[a], second.bearings[b]
        inlier = _inliers_of_bearings(x, y, np.array([first.resolution, second.resolution]))
    else:
        inlier = _inliers(first.points[a].astype(np.float64), second.points[b].astype(np.float64))[0]
    if inlier.sum() < max(FEWEST, _LEAST_SHARE * len(a)):
        return PairMatches(NO_MATCHES.indices, len(a))
    return PairMatches(np.stack([a[inlier], b[inlier]], axis=1).astype(np.int16), len(a))


def mutual_nearest(
    first: Float[Tensor, "point 128"], second: Float[Tensor, "other 128"]
) -> tuple[Int[np.ndarray, " match"], Int[np.ndarray, " match"]]:
    """Return the pairs of keypoints that are each other's nearest, and both clearly nearer than the second nearest."""
    if len(first) < 2 or len(second) < 2:
        return np.zeros(0, dtype=int), np.zeros(0, dtype=int)
    similarity = first @ second.T
    to, clear = _clear_nearest(similarity)
    a = torch.nonzero(clear)[:, 0]
    back, back_clear = _clear_nearest(similarity.T[to[a]].contiguous())
    a = a[back_clear & (back == a)]
    return a.cpu().numpy(), to[a].cpu().numpy()


def _clear_nearest(similarity: Float[Tensor, "point other"]) -> tuple[Tensor, Tensor]:
    """Return every row's nearest, and whether it passes the ratio test; in NumPy on a CPU, which is quicker there."""
    if similarity.device.type != "cpu":
        best, to = similarity.topk(2, dim=-1)
        distance = 2.0 - 2.0 * best
        return to[..., 0], distance[..., 0] < _RATIO**2 * distance[..., 1]
    values = similarity.numpy()
    rows, to = np.arange(len(values)), values.argmax(axis=1)
    best = values[rows, to]
    values[rows, to] = -np.inf
    second = values.max(axis=1, initial=-np.inf)
    values[rows, to] = best
    return torch.from_numpy(to), torch.from_numpy(2.0 - 2.0 * best < _RATIO**2 * (2.0 - 2.0 * second))


def _inliers(
    first: Float[np.ndarray, "match 2"], second: Float[np.ndarray, "match 2"]
) -> tuple[Bool[np.ndarray, " match"], Float[np.ndarray, "3 3"] | None]:
    """Return which matches are inliers of the fundamental matrix that fits them best, and the matrix."""
    if len(first) >= 8:
        for method in (cv2.USAC_MAGSAC, cv2.FM_RANSAC):
            try:
                matrix, inlier = cv2.findFundamentalMat(first, second, method, _THRESHOLD, _CONFIDENCE, _ROUNDS)
            except cv2.error:  # OpenCV's MAGSAC fails now and then where no model fits at all
                continue
            if inlier is None or matrix is None or matrix.shape != (3, 3):
                break
            return inlier.ravel().astype(bool), matrix
    return np.zeros(len(first), dtype=bool), None


def _inliers_of_bearings(
    x: Float[np.ndarray, "match 3"], y: Float[np.ndarray, "match 3"], resolution: Float[np.ndarray, "2"]
) -> Bool[np.ndarray, " match"]:
    """Return the matches that an essential matrix explains, found on the plane that faces the matches' mean direction.

    Such a plane holds directions up to 90° from its axis, wherever the camera's own axis points; the matrix that is
    found on it holds for all bearings.
    """
    known = np.isfinite(x).all(axis=1) & np.isfinite(y).all(axis=1)
    none = np.zeros(len(x), dtype=bool)
    if known.sum() < FEWEST:
        return none
    turn_x, turn_y = _facing(x[known].mean(axis=0)), _facing(y[known].mean(axis=0))
    u, v = x @ turn_x.T, y @ turn_y.T
    central = known & (u[:, 2] > _WIDEST) & (v[:, 2] > _WIDEST)
    plane_u, plane_v = (w[central, :2] / w[central, 2:] * f for w, f in zip((u, v), resolution, strict=True))
    _, matrix = _inliers(plane_u, plane_v)
    if matrix is None:
        return none
    essential = np.diag([*resolution[[1, 1]], 1.0]) @ matrix @ np.diag([*resolution[[0, 0]], 1.0])
    plane, plane_back = u @ essential.T, v @ essential
    e = (plane * v).sum(axis=1)
    size2 = ((plane_back**2).sum(axis=1) - e * e) / resolution[0] ** 2 + ((plane**2).sum(axis=1) - e * e) / resolution[
        1
    ] ** 2
    with np.errstate(invalid="ignore"):
        return known & (e * e < _ANGULAR_THRESHOLD**2 * size2)


def _facing(direction: Float[np.ndarray, "3"]) -> Float[np.ndarray, "3 3"]:
    """Return a rotation that turns a direction onto the z axis."""
    z = direction / max(float(np.linalg.norm(direction)), 1e-12)
    helper = np.eye(3)[int(np.argmin(np.abs(z)))]
    across = np.cross(helper, z)
    across /= np.linalg.norm(across)
    return np.stack([across, np.cross(z, across), z])
